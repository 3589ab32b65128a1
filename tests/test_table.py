"""Lint of the instruction table, of what is generated from it, and of the rules that hold the source tree together."""

import ast
import importlib
import pathlib

import numpy as np
import pytest

import x86virt
from x86virt.core import code_layout, generate, handlers, layout, tables
from x86virt.core.board import BOARD
from x86virt.core.jit import JIT_DISABLED
from x86virt.isa import events, rows
from x86virt.isa.rows import ANY, CPL0, INNOCUOUS, IOPL, PRIVILEGED, SENSITIVE, Row
from x86virt.isa.system_ops import NUMBER as SYSTEM_NUMBER
from x86virt.isa.table import ROWS
from x86virt.processor import Processor
from x86virt.profile import load_profile

PACKAGE = pathlib.Path(x86virt.__file__).parent
EVERY_ROW = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}-{row.encoding.replace(' ', '')}")

# J. S. Robin and C. E. Irvine, USENIX Security 2000, table of section 3: SGDT SIDT SLDT SMSW PUSHF POPF LAR LSL VERR VERW
# POP PUSH CALL JMP INT RET STR MOV. CALL, JMP and RET are the far ones, POP, PUSH and MOV those of segment registers.
ROBIN_IRVINE = {
    "SGDT", "SIDT", "SLDT", "SMSW", "PUSHF", "POPF", "LAR", "LSL", "VERR", "VERW", "POP", "PUSH", "CALLF", "JMPF", "INT", "RETF",
    "STR", "MOV",
}  # fmt: skip
# What the table adds to the paper's list, and why.
ADDED = {
    "IRET": "loads CS, SS and EFLAGS as POPF and RETF do, and drops IF without a trap",
    "INT3": "a form of INT n",
    "INT1": "a form of INT n",
    "INTO": "a form of INT n",
    "SYSENTER": "enters ring 0 by registers that the VMM owns (later than the paper)",
    "LES": "loads a segment register as MOV does", "LDS": "loads a segment register as MOV does",
    "LSS": "loads a segment register as MOV does", "LFS": "loads a segment register as MOV does",
    "LGS": "loads a segment register as MOV does",
    **dict.fromkeys(("FNSTENV", "FNSAVE", "FXSAVE"), "stores the CS selector of the last x87 instruction, as MOV does"),
}  # fmt: skip


def test_the_sensitive_unprivileged_rows_are_those_of_robin_and_irvine_and_a_few_with_reason() -> None:
    """All 18 mnemonics, and nothing that neither the paper nor `ADDED` names."""
    assert len(ROBIN_IRVINE) == 18
    assert {row.mnemonic for row in ROWS if row.sensitivity == SENSITIVE} == ROBIN_IRVINE | set(ADDED)


@EVERY_ROW
def test_privilege_and_sensitivity_agree(row: Row) -> None:
    """Privileged rows trap by CPL or IOPL, sensitive unprivileged ones do not, and only those can be silent."""
    assert row.privilege in (ANY, IOPL, CPL0)
    assert row.sensitivity in (INNOCUOUS, PRIVILEGED, SENSITIVE)
    assert (row.sensitivity == PRIVILEGED) == (row.privilege != ANY)
    assert not row.silent or row.sensitivity == SENSITIVE


@EVERY_ROW
def test_columns_name_things_that_exist(row: Row) -> None:
    """Operation, handlers, cost events, operand codes, immediates, flags, section, meaning."""
    _, wide, narrow = tables.LOWERING[row.operation]
    assert {wide, narrow} <= set(handlers.NUMBER)
    if row.operation.startswith("system:"):
        assert row.operation.removeprefix("system:") in SYSTEM_NUMBER
    for cost in (row.cost, row.cost_memory, row.cost_kernel):
        assert cost == "" or events.EVENTS[events.EVENT_ID[cost]].fixed, cost
    assert set(row.operands) <= set(tables.OPERAND_CODES)
    assert set(row.flags_undefined) <= set(row.flags_written) <= set("OSZAPCDI")
    assert row.section and row.meaning and row.mnemonic == row.mnemonic.upper()
    parts = row.encoding.split()
    assert all(rows.is_byte(part) or part.startswith("/") or part in rows.IMMEDIATES for part in parts), parts


def test_only_what_charges_by_itself_has_no_cost() -> None:
    """Deliveries, returns, gates and CPUID price themselves when they know what they were; nothing else is free."""
    own = {
        "HLT",
        "INT_N",
        "INT3",
        "IRET",
        "UD2",
        "CPUID",
        "JMP_FAR",
        "CALL_FAR",
        "RET_FAR",
        "JMP_FAR_INDIRECT",
        "CALL_FAR_INDIRECT",
        "INT1",
        "undefined",
    }
    free = {row.operation.removeprefix("system:") for row in ROWS if not row.cost}
    assert free <= own, free - own


def test_no_encoding_stands_twice() -> None:
    """Two rows never claim one opcode, reg field and form."""
    claimed: dict[tuple, Row] = {}
    for row in ROWS:
        for place in tables.places(row):
            assert place not in claimed, f"{row.name} and {claimed[place].name} at {place}"
            claimed[place] = row


def test_every_row_can_be_found_from_its_encoding() -> None:
    """OPCODE_MAP leads from each place of a row to that row."""
    for number, row in enumerate(ROWS):
        assert {int(tables.OPCODE_MAP[place]) for place in tables.places(row)} == {number + 1}, row.name


def test_every_handler_is_reached_or_made_by_lowering() -> None:
    """No dead handler: a row names it, or what makes micro-operations does."""
    named = {name for row in ROWS for name in tables.LOWERING[row.operation][1:]}
    makers = (*(PACKAGE / "core").glob("lower*.py"), PACKAGE / "core/micro_operations.py", PACKAGE / "core/code.py")
    lowering = "".join(path.read_text() for path in makers)
    for name in handlers.NUMBER:
        in_lowering = f'NUMBER["{name}"]' in lowering
        condition = name[0] == "j" and name[1:] in handlers.CONDITIONS
        assert name in named or in_lowering or condition or name in handlers.FUSED, name


def test_the_table_fits_the_processor_record() -> None:
    """The probe mask has a place for each row."""
    assert len(ROWS) < layout.MAX_ROWS


def test_the_generated_dispatch_is_current() -> None:
    """`python -m x86virt.core.generate` would write the file that is there."""
    assert generate.TARGET.read_text() == generate.generate()


def records(dtype: np.dtype, name: str) -> list[tuple[str, np.dtype]]:
    """A record type and the records inside it."""
    found = [(name, dtype)]
    for field in dtype.names or ():
        inner = dtype.fields[field][0]
        found += records(inner.base, f"{name}.{field}") if inner.base.names else []
    return found


@pytest.mark.parametrize(
    "name", ("CPU", "UOP", "DETAIL", "BLOCK", "JUMP", "DECODED", "CODE", "SEGMENT", "BOARD", "ROW")
)
def test_no_field_hides_a_numpy_attribute(name: str) -> None:
    """Such a field would read as NumPy's attribute with the JIT disabled."""
    dtype = {"BOARD": BOARD, "ROW": tables.ROW}.get(name) or vars(layout).get(name) or vars(code_layout)[name]
    attributes = set(dir(np.recarray)) | set(dir(np.record))
    for place, record in records(dtype, name):
        hidden = set(record.names) & attributes
        assert not hidden, f"{place}: {hidden}"


@pytest.mark.parametrize(
    "record",
    (layout.CPU, code_layout.UOP, code_layout.BLOCK, code_layout.DETAIL, code_layout.CODE),
    ids=lambda record: record.names[0],
)
def test_every_field_of_the_hot_records_is_a_signed_64_bit_integer(record: np.dtype) -> None:
    """Unsigned fields would turn arithmetic into floating point; the decoder's window of bytes is the one exception."""
    for name, inner in records(record, ""):
        for field in inner.names:
            kind = inner.fields[field][0].base
            assert kind.names or kind == np.int64 or field == "window", f"{name}.{field}: {kind}"


# -- imports --------------------------------------------------------------------------------------------------------


def imported_modules(path: pathlib.Path) -> set[str]:
    """The project's modules that a file imports, as dotted names from `x86virt`."""
    package = ["x86virt", *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, node.module] if node.module else above)
            found |= {module} if node.module else {f"{module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.split(".")[0] == "x86virt"}


def files(folder: str) -> list[pathlib.Path]:
    """The Python files of a folder of the package."""
    return sorted((PACKAGE / folder).rglob("*.py"))


@pytest.mark.parametrize("path", files("isa"), ids=lambda path: path.stem)
def test_isa_imports_nothing_but_itself(path: pathlib.Path) -> None:
    """Data only."""
    assert all(name.startswith("x86virt.isa") for name in imported_modules(path))


@pytest.mark.parametrize("path", files("core"), ids=lambda path: path.stem)
def test_core_imports_only_isa(path: pathlib.Path) -> None:
    """The hardware knows no VMM, no profile, no ledger."""
    assert all(name.startswith(("x86virt.isa", "x86virt.core")) for name in imported_modules(path)), imported_modules(
        path
    )


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_numba_is_imported_by_the_seam_alone(path: pathlib.Path) -> None:
    """core/jit.py is the only module that knows Numba."""
    names = {
        name.name if isinstance(node, ast.Import) else node.module or ""
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
    }
    uses = any(name.split(".")[0] in ("numba", "llvmlite") for name in names)
    assert not uses or path == PACKAGE / "core/jit.py"


@pytest.mark.parametrize("path", sorted((PACKAGE.parent / "strategies").glob("*.py")), ids=lambda path: path.stem)
def test_strategies_import_public_names_only(path: pathlib.Path) -> None:
    """A strategy imports from `x86virt` and `x86virt.vmm`, and what their `__all__` offers."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "x86virt":
            module = __import__(node.module, fromlist=["__all__"])
            assert node.module in ("x86virt", "x86virt.vmm"), node.module
            assert {name.name for name in node.names} <= set(module.__all__)


def test_every_kernel_has_one_specialisation() -> None:
    """A second one means that some caller passes another type, which would compile the whole core twice."""
    Processor(load_profile("p4_prescott"), 1 << 20).run(single=True)
    compiled = 0
    for path in files("core"):
        module = importlib.import_module(f"x86virt.core.{path.stem}") if path.stem != "__init__" else None
        for name, value in vars(module).items() if module else ():
            signatures = () if isinstance(value, type) else getattr(value, "signatures", ())
            assert len(signatures) <= 1, f"{path.stem}.{name}: {signatures}"
            compiled += len(signatures)
    assert compiled > 0 or JIT_DISABLED

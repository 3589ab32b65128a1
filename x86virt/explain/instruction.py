"""What an instruction is, what it does in each ring, and what each technique does with it."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..isa.registers import FEATURE_CMOV, FEATURE_CX8, FEATURE_FXSR, FEATURE_MSR, FEATURE_SEP, FEATURE_TSC
from ..isa.rows import ALWAYS, CPL0, INNOCUOUS, IOPL, PRIVILEGED, Row
from ..ledger import as_cycles
from .facts import (
    BY_CONTROL_BIT,
    CONTEXTS,
    EXECUTES,
    EXTENSION_BIT,
    FAULTS,
    IOPL_SENSITIVE_IN_V86,
    OF_EXTENSIONS,
    REMARKS,
    USES_MEMORY,
    USES_STACK,
    WITHOUT_ACCESS,
    behaviour,
    is_port,
    operation_of,
    robin_irvine,
    sensitivity,
)
from .operands import operands_text
from .page import Explanation, Section
from .price import number, path_prices, price_json, price_text
from .techniques import PATHS, divergences, techniques

if TYPE_CHECKING:
    from ..profile import Profile

FLAGS = {"O": "OF", "S": "SF", "Z": "ZF", "A": "AF", "P": "PF", "C": "CF", "D": "DF", "I": "IF"}
FEATURES = {
    FEATURE_CMOV: "CMOV", FEATURE_CX8: "CX8", FEATURE_FXSR: "FXSR", FEATURE_MSR: "MSR", FEATURE_SEP: "SEP", FEATURE_TSC: "TSC",
}  # fmt: skip
CONTEXT_NAMES = {
    "real": "real-address mode",
    "v86_iopl3": "virtual-8086, IOPL 3",
    "v86": "virtual-8086",
    "cpl0": "CPL 0",
    "cpl1": "CPL 1",
    "cpl2": "CPL 2",
    "cpl3": "CPL 3",
    "cpl3_iopl3": "CPL 3, IOPL 3",
}
# Events of operations that charge themselves.
OWN_EVENTS: dict[str, tuple[str, ...]] = {
    "HLT": ("sys.hlt_wake", "idle.halt"),
    "INT_N": ("sys.int_n_cpl3_to_cpl0", "sys.int_n_same_cpl"),
    "INT3": ("sys.exc_bp", "sys.exc_same_cpl"),
    "INTO": ("sys.exc_of", "sys.exc_same_cpl"),
    "INT1": ("sys.exc_db", "sys.exc_same_cpl"),
    "IRET": ("sys.iret_cpl0_to_cpl3", "sys.iret_same_cpl"),
    "UD2": ("sys.exc_ud", "sys.exc_same_cpl"),
    "undefined": ("sys.exc_ud", "sys.exc_same_cpl"),
    "CPUID": ("ins.cpuid_leaf0", "ins.cpuid_leaf1"),
    "JMP_FAR": ("sys.far_jmp_same_cpl", "sys.task_switch"),
    "JMP_FAR_INDIRECT": ("sys.far_jmp_same_cpl", "sys.task_switch"),
    "CALL_FAR": ("sys.far_call_same_cpl", "sys.far_call_gate_up", "sys.task_switch"),
    "CALL_FAR_INDIRECT": ("sys.far_call_same_cpl", "sys.far_call_gate_up", "sys.task_switch"),
    "RET_FAR": ("sys.far_ret_same_cpl", "sys.far_ret_outer"),
}
REPEATED = {
    0: "ins.rep_movs_byte", 1: "ins.rep_cmps_iteration", 2: "ins.rep_stos_byte", 3: "ins.rep_lods_byte",
    4: "ins.rep_scas_iteration",
}  # fmt: skip


def explain_rows(rows: Sequence[Row], profile: "Profile") -> list[Explanation]:
    """One explanation for each group of rows that differ in nothing but their encoding and operand sizes."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(group_of(row), []).append(row)
    return [explain_group(group, profile) for group in groups.values()]


def group_of(row: Row) -> tuple[object, ...]:
    """What rows of one group have in common."""
    operation = row.operation.replace("_byte", "").replace("_INDIRECT", "")
    register = row.modrm if "Cd" in row.operands else ""
    return (
        row.mnemonic, operation, register, row.privilege, row.sensitivity, row.silent, row.flags_written, row.flags_undefined,
        row.feature, row.lockable, row.intercept, str(divergences(row)),
    )  # fmt: skip


def explain_group(rows: Sequence[Row], profile: "Profile") -> Explanation:
    """The explanation of some rows; the first one stands for all."""
    row = rows[0]
    contexts = {name: behaviour(row, name) for name in CONTEXTS}
    name = f"{row.mnemonic.lower()} {operands_text(row)}".strip() if len(rows) == 1 else row.mnemonic.lower()
    sections = [encoding_section(rows), class_section(row), context_section(row, contexts), fault_section(rows)]
    sections += [technique_section(row), price_section(rows, profile)]
    kind = sensitivity(row)
    data: dict[str, Any] = {
        "rows": [{"row": one.name, "encoding": one.encoding, "operands": operands_text(one)} for one in rows],
        "operation": row.operation,
        "manual": f"Intel SDM {row.section}" if not row.section.startswith("none") else row.section,
        "flags_written": flag_names(row.flags_written),
        "flags_undefined": flag_names(row.flags_undefined),
        "lockable": row.lockable,
        "feature": FEATURES.get(row.feature),
        "class": row.sensitivity,
        "privilege": row.privilege,
        "sensitivity": None if kind is None else asdict(kind),
        "robin_irvine": robin_irvine(row) or None,
        "contexts": contexts,
        "faults": [{"fault": fault, "when": when} for fault, when in faults(rows)],
        "techniques": [technique.as_json() for technique in techniques(row)],
        "profile": profile.name,
        "prices": [price_json(event, profile) for event in events_of(rows)],
        "trapped_and_emulated": None
        if (ticks := trap_ticks(row, profile)) is None
        else {"at_least_cycles": as_cycles(ticks), "events": trap_events(row)},
    }
    return Explanation("instruction", name, row.meaning, sections, data)


# -- sections --------------------------------------------------------------------------------------------------------


def encoding_section(rows: Sequence[Row]) -> Section:
    """Encodings, flags, features."""
    row = rows[0]
    section = Section("")
    section.add("encoding", "\n".join(encoding_text(one) for one in rows))
    if any(
        "+r" in one.encoding or "/" in one.encoding or any(part.islower() for part in one.encoding.split())
        for one in rows
    ):
        section.add("", encoding_legend(rows))
    written = [flag for flag in row.flags_written if flag not in row.flags_undefined]
    section.add("flags", flags_text(flag_names("".join(written)), flag_names(row.flags_undefined)))
    section.add("LOCK", "allowed with a memory operand" if row.lockable else "")
    section.add("needs", f"CPUID feature {FEATURES[row.feature]}" if row.feature != ALWAYS else "")
    section.add("manual", row.section if row.section.startswith("none") else f"Intel SDM {row.section}")
    return section


def encoding_text(row: Row) -> str:
    """Bytes, and operands in the manual's notation."""
    return f"{row.encoding:<12} {row.mnemonic.lower()} {operands_text(row)}".rstrip()


LEGEND = (
    ("/r", "/r a ModRM byte with a register"),
    ("/digit", "/n a ModRM byte with n in its reg field"),
    ("+r", "+r the register in the low three bits"),
    ("ib", "ib an immediate byte"),
    ("iw", "iw an immediate word"),
    ("iz", "iz an immediate of operand size"),
    ("jb", "jb a displacement byte"),
    ("jz", "jz a displacement of operand size"),
    ("ap", "ap a far pointer"),
    ("o", "o an address"),
)


def encoding_legend(rows: Sequence[Row]) -> str:
    """What the letters of these encodings mean."""
    parts = {part for row in rows for part in row.encoding.split()}
    used = {"/digit" if part[0] == "/" and part[1:].isdigit() else "+r" if "+r" in part else part for part in parts}
    return "(" + "; ".join(text for mark, text in LEGEND if mark in used) + ")"


def flag_names(letters: str) -> list[str]:
    """Flags by name."""
    return [FLAGS[letter] for letter in letters]


def flags_text(written: Sequence[str], undefined: Sequence[str]) -> str:
    """Written and undefined flags."""
    if not written and not undefined:
        return "unchanged"
    parts = [f"writes {', '.join(written)}"] if written else []
    return "; ".join([*parts, *([f"leaves {', '.join(undefined)} undefined"] if undefined else [])])


def class_section(row: Row) -> Section:
    """Privileged, sensitive or innocuous, and why."""
    section = Section("")
    section.add("class", class_text(row))
    kind = sensitivity(row)
    if kind is not None:
        section.add("sensitive", f"{kind.kind}, to {kind.resource}: {kind.why}.")
    group = robin_irvine(row)
    if group:
        section.add(
            "",
            f"One of those that Robin and Irvine list ({group}): x86 of 2000 could not be virtualized by trapping "
            "alone.",
        )
    section.add("", REMARKS.get(operation_of(row), ""))
    return section


def class_text(row: Row) -> str:
    """The class in words."""
    if row.sensitivity == PRIVILEGED:
        need = (
            "a CPL of 0"
            if row.privilege == CPL0
            else "a CPL within IOPL" + (", or the I/O permission map of the TSS" if is_port(row) else "")
        )
        return (
            f"privileged: it needs {need}, and traps otherwise, as Popek and Goldberg ask of a sensitive instruction."
        )
    if row.sensitivity == INNOCUOUS:
        return "innocuous: neither privileged nor sensitive."
    return "sensitive and not privileged: no check of the CPL stops it."


def context_section(row: Row, contexts: dict[str, str]) -> Section:
    """What happens in each mode and ring; neighbours that do the same share a line."""
    section = Section("what the processor does")
    if len(set(contexts.values())) == 1:
        what = contexts["cpl0"]
        bit = EXTENSION_BIT.get(operation_of(row))
        until = f" until {bit} is set; then it executes in ring 0 of protected mode" if bit and what != EXECUTES else ""
        section.add("in every mode", f"{what} in every ring" if what == EXECUTES else f"raises {what}{until}")
        return section
    levels = {name: contexts[name] for name in ("cpl0", "cpl1", "cpl2", "cpl3")}
    section.add("real-address mode", verb(contexts["real"]))
    v86 = {contexts["v86"], contexts["v86_iopl3"]}
    if len(v86) == 1:
        section.add(
            "virtual-8086 mode",
            verb(contexts["v86"])
            + (" unless the I/O permission map allows the port, whatever IOPL is" if is_port(row) else ""),
        )
    else:
        section.add(
            "virtual-8086 mode",
            f"{verb(contexts['v86_iopl3'])} with an IOPL of 3, else raises {contexts['v86']} ({v86_reason(row)})",
        )
    for label, what in merged(levels):
        section.add(label, verb(what) + condition(row, what))
    if contexts["cpl3_iopl3"] != contexts["cpl3"]:
        section.add("CPL within IOPL", verb(contexts["cpl3_iopl3"]))
    return section


def v86_reason(row: Row) -> str:
    """Why IOPL matters there."""
    return "without CR4.VME" if operation_of(row) in IOPL_SENSITIVE_IN_V86 else "IOPL"


def condition(row: Row, what: str) -> str:
    """What else decides."""
    if what == EXECUTES:
        return ""
    bit = BY_CONTROL_BIT.get(operation_of(row))
    if bit:
        return f" unless {bit} is set"
    if is_port(row):
        return " unless the I/O permission map allows the port"
    return " if CPL > IOPL" if row.privilege == IOPL else ""


def verb(what: str) -> str:
    """As a verb."""
    return what if what == EXECUTES else f"raises {what}"


def merged(levels: dict[str, str]) -> list[tuple[str, str]]:
    """CPLs that do the same, as ranges."""
    names = list(levels)
    starts = [
        0,
        *(place + 1 for place, (one, other) in enumerate(pairwise(names)) if levels[one] != levels[other]),
        len(names),
    ]
    rows = []
    for first, after in pairwise(starts):
        label = f"CPL {first}" if after - first == 1 else f"CPL {first} to {after - 1}"
        rows.append((label, levels[names[first]]))
    return rows


def fault_section(rows: Sequence[Row]) -> Section:
    """The exceptions that it can raise."""
    section = Section("exceptions")
    for fault, when in faults(rows):
        section.add(fault, when)
    return section


def faults(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Exception and condition, as far as the operation, its privilege and its operands tell."""
    row = rows[0]
    operation = operation_of(row)
    found: list[tuple[str, str]] = []
    if behaviour(row, "cpl0") != EXECUTES:
        return list(FAULTS.get(operation, ((behaviour(row, "cpl0"), "always"),)))
    if row.sensitivity == PRIVILEGED:
        denied = (
            "the CPL is not 0"
            if row.privilege == CPL0
            else "the CPL is above IOPL"
            + (" and the I/O permission map does not allow the port" if is_port(row) else "")
        )
        found.append(("#GP(0)", denied))
    if not (operation == "REGISTER_TO_CR" and row.modrm in ("2", "3")):
        found += FAULTS.get(operation, ())
    if row.operation.startswith("x87:") and operation != "FXSAVE" and operation != "FXRSTOR":
        found.append(("#NM", "CR0.MP and CR0.TS are set" if row.mnemonic == "WAIT" else "CR0.EM or CR0.TS is set"))
        if row.mnemonic not in ("FNSTCW", "FNSTSW", "FNCLEX", "FNINIT", "FNSTENV", "FNSAVE"):
            found.append(("#MF", "an unmasked x87 exception is pending"))
    if has_memory(rows):
        found.append(
            (
                "#GP(0), #SS(0)",
                "a memory operand is outside its segment's limit, or its segment does not allow the access",
            )
        )
        found.append(("#PF(code)", "a page is not present, or does not allow the access"))
        found.append(("#AC(0)", "an operand in ring 3 is not aligned, and CR0.AM and EFLAGS.AC are set"))
    not_everywhere = [CONTEXT_NAMES[name] for name in ("real", "v86") if behaviour(row, name) == "#UD"]
    if not_everywhere:
        found.append(("#UD", "outside protected mode"))
    if operation == "SYSENTER" or operation == "SYSEXIT":
        found.append(("#GP(0)", "in real-address mode"))
    if row.feature != ALWAYS:
        found.append(("#UD", f"the processor lacks the feature {FEATURES[row.feature]}"))
    found.append(("#UD", "a LOCK prefix" + (" without a memory operand that is written" if row.lockable else "")))
    return found


def has_memory(rows: Sequence[Row]) -> bool:
    """Whether memory is accessed."""
    operation = operation_of(rows[0])
    if operation in WITHOUT_ACCESS:
        return False
    return (
        operation in USES_STACK
        or operation in USES_MEMORY
        or any(code[0] in "EMO" for row in rows for code in row.operands)
    )


def technique_section(row: Row) -> Section:
    """A row for each technique."""
    section = Section("what each technique does with it")
    for technique in techniques(row):
        section.add(technique.name, technique.text)
    return section


def events_of(rows: Sequence[Row]) -> list[str]:
    """The ledger events that can price it."""
    found: list[str] = []
    for row in rows:
        forms = [row.cost, row.cost_memory, row.cost_kernel] if row.cost else []
        forms += OWN_EVENTS.get(operation_of(row), ())
        if row.operation.startswith("string"):
            forms += ["ins.rep_start", REPEATED[row.condition]]
        if row.operation.startswith("port_string"):
            forms += ["ins.rep_ins_iteration" if row.condition == 0 else "ins.rep_outs_iteration"]
        if row.lockable and row.mnemonic != "XCHG":
            forms += ["ins.lock_add_mem"]
        found += forms
    return list(dict.fromkeys(found))


def price_section(rows: Sequence[Row], profile: "Profile") -> Section:
    """Events and cycles under the profile."""
    section = Section(f"price on {profile.name}")
    for event in events_of(rows):
        section.add(event, price_text(event, profile))
    trapped = trap_ticks(rows[0], profile)
    if trapped is not None:
        section.add("trapped, emulated", f"at least {number(trapped)} cycles: {' + '.join(trap_events(rows[0]))}")
    return section


def trap_events(row: Row) -> list[str]:
    """What the bare minimum of trapping and emulating a privileged instruction is charged; empty for others."""
    if row.sensitivity != PRIVILEGED or operation_of(row) in OF_EXTENSIONS:
        return []
    return ["sys.exc_gp", "vmm.trap_dispatch", f"vmm.{PATHS[operation_of(row)]}", "sys.iret_cpl0_to_cpl3"]


def trap_ticks(row: Row, profile: "Profile") -> int | None:
    """The ticks of these events; None where there are none, or where the profile has no price of a path."""
    total = 0
    for event in trap_events(row):
        if event.startswith("vmm."):
            path = path_prices(profile, event)
            if path is None:
                return None
            total += sum(path)
        else:
            total += profile.price_ticks(event)
    return total or None

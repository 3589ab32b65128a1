"""What `x86virt explain` says: it can say it of everything, and its claims are those of the simulated processor and VMM."""

from __future__ import annotations

import inspect
import json
import pathlib
import sys
from functools import cache
from typing import Any

import pytest
from bare_machine import CODE as CODE_PLACE
from bare_machine import DATA, GDT, STACK
from command_line import assert_refused
from descriptor_machine import descriptor
from row_samples import CODE_OF, DATA_OF, OPERAND, Rows, sample
from small_kernel import (
    CODE_0,
    CODE_3,
    DATA_3,
    IDT,
    IDT_BYTES,
    MAX_CYCLES,
    TSS_SELECTOR,
    Kernel,
    Step,
    mov,
    push,
    start,
    store,
    word,
)
from small_kernel import DATA as KERNEL_DATA
from small_kernel import GDT as KERNEL_GDT
from test_table import ADDED, ROBIN_IRVINE

from x86virt import find_guest, find_strategy, load_profile
from x86virt.explain import explain, known_names
from x86virt.explain.exception import BY_VECTOR, WHEN
from x86virt.explain.exits import REASONS, paths_of
from x86virt.explain.facts import (
    BEHAVIOUR,
    BOTH,
    CONTEXTS,
    CONTROL,
    EXECUTES,
    FAULTS,
    OF_EXTENSIONS,
    SENSITIVITY,
    VMX_OPERATIONS,
    behaviour,
    operation_of,
    robin_irvine,
    sensitivity,
)
from x86virt.explain.hardware import SVM_CODES, SVM_NAMES, VMX_WHEN
from x86virt.explain.instruction import explain_rows, has_memory, trap_events, trap_ticks
from x86virt.explain.techniques import (
    CALLOUT,
    DIRECT,
    IDENTICAL,
    INLINE_EMULATION,
    JUMPS_DIRECTLY,
    LOADS_DIRECTLY,
    PATHS,
    POINTER,
    TRANSFER,
    TRAPS,
    divergences,
    techniques,
    translation_of,
)
from x86virt.isa.events import EVENTS
from x86virt.isa.registers import EAX, EBX, ECX, EDI, EDX, ESI
from x86virt.isa.rows import CPL0, INNOCUOUS, IOPL, PRIVILEGED, SENSITIVE, Row
from x86virt.isa.table import ROWS
from x86virt.ledger import as_cycles
from x86virt.machine import Machine
from x86virt.trace import Limit, Record, trace
from x86virt.vmm.exits import REASON_OF_VECTOR
from x86virt.vmm.registry import strategy_names
from x86virt.vmm.translation.sequences import Context
from x86virt.vmm.translation.unit import Scan, Unit

PROFILE = load_profile("p4_prescott")
EVERY_CONTEXT = pytest.mark.parametrize("context", CONTEXTS)
SYSTEM_ROWS = [row for row in ROWS if row.sensitivity != INNOCUOUS or row.operation.startswith("system:")]
EVERY_SYSTEM_ROW = pytest.mark.parametrize(
    "row", SYSTEM_ROWS, ids=lambda row: f"{row.name}-{row.encoding.replace(' ', '')}"
)


@cache
def rows() -> Rows:
    """One processor for all examples."""
    return Rows()


# -- it can say it of everything -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*known_names(), *(f"vector {vector}" for vector in BY_VECTOR)])
def test_everything_explains(name: str) -> None:
    """By every name; as text within the width, and as JSON."""
    found = explain(name, PROFILE)
    assert found
    for one in found:
        assert one.kind in ("instruction", "event", "exit", "hypercall", "exception", "strategy") and one.title
        json.dumps(one.as_json(), allow_nan=False)
        for width in (80, 120):
            lines = list(one.lines(width))
            assert len(lines) > 3 and max(map(len, lines)) <= width, [line for line in lines if len(line) > width]


def test_every_row_is_explained_in_one_group() -> None:
    names = [row["row"] for one in explain_rows(ROWS, PROFILE) for row in one.data["rows"]]
    assert sorted(names) == sorted(row.name for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}-{row.encoding.replace(' ', '')}")
def test_bytes_find_their_row(row: Row) -> None:
    """The processor's decoder finds the row from the bytes of its example."""
    octets = sample(row, True, CODE_0)
    (found,) = explain(f"bytes: {octets.hex(' ')}", PROFILE)
    assert found.data["rows"][0] == {**found.data["rows"][0], "row": row.name, "encoding": row.encoding}
    assert found.data["bytes"] == octets.hex()


@pytest.mark.parametrize("text", ("0f 01 de", "0f ff", "0f 01 c8"))
def test_bytes_that_are_no_instruction_are_explained_too(text: str) -> None:
    """Executing them raises #UD, as is said."""
    (found,) = explain(text, PROFILE)
    assert found.data["faults"][0] == {"fault": "#UD", "when": "always"}
    if found.data.get("bytes"):
        rows().prepare("cpl0")
        rows().machine.write_code(bytes.fromhex(found.data["bytes"]), CODE_PLACE)
        assert rows().step(CODE_PLACE) == "#UD"


@pytest.mark.parametrize(
    "text,names",
    (
        ("mov cr3, eax", ["mov_cd_rd"]),
        ("mov eax, cr0", ["mov_rd_cd"]),
        ("mov ds, ax", ["mov_sw_ew"]),
        ("mov word ptr [eax], ds", ["mov_ev_sw"]),
        ("MOV AL, 5", ["mov_eb_ib", "mov_zb_ib"]),
        ("push cs", ["push_cs"]),
        ("pop ebx", ["pop_ev", "pop_zv"]),
        ("lgdt [0x1000]", ["lgdt_ms"]),
        ("in al, dx", ["in_al_dx"]),
        ("out 0x80, al", ["out_ib_al"]),
        ("jnz label", ["jne_jb", "jne_jz"]),
        ("iretd", ["iret"]),
        ("cwde", ["cbw"]),
        ("int 0x80", ["int_ib"]),
        ("call far 8:0x1000", ["callf_ap"]),
        ("jmp 8:0x1000", ["jmpf_ap"]),
        ("rep movsd", ["movs"]),
        ("rep movsd dword ptr es:[edi], dword ptr [esi]", ["movs"]),
        ("shl eax, 1", ["shl_ev_1", "shl_ev_ib"]),
        ("fadd st(0), st(3)", ["fadd_st0_sti", "fadd_sti_st0"]),
        ("system:LGDT", ["lgdt_ms"]),
        ("cr_to_register", ["mov_rd_cd"]),
        ("mov_sw_ew", ["mov_sw_ew"]),
        ("0f 20 d8", ["mov_rd_cd"]),
        ("0xcf", ["iret"]),
        ("F4", ["hlt"]),
    ),
)
def test_ways_to_name_an_instruction(text: str, names: list[str]) -> None:
    found = {row["row"] for one in explain(text, PROFILE) for row in one.data["rows"]}
    assert sorted(found) == names


def test_bytes_of_16_bit_code() -> None:
    (found,) = explain("b8 34 12", PROFILE, 16)
    assert found.data["text"] == "mov ax, 0x1234"


def test_groups_keep_apart_what_differs() -> None:
    """MOV is many instructions; each control register is its own."""
    kinds = {(one.data["class"], one.data["privilege"]) for one in explain("mov", PROFILE)}
    assert kinds == {(INNOCUOUS, "any"), (PRIVILEGED, CPL0), (SENSITIVE, "any")}
    assert len(explain("push", PROFILE)) > 1


# -- the facts are complete ------------------------------------------------------------------------------------------


def test_every_sensitive_operation_has_its_facts_and_no_other() -> None:
    sensitive = {operation_of(row) for row in ROWS if row.sensitivity != INNOCUOUS}
    operations = {operation_of(row) for row in ROWS}
    assert set(SENSITIVITY) == sensitive
    assert set(FAULTS) <= operations and set(PATHS) <= operations and set(TRAPS) <= operations
    assert {fact.kind for fact in SENSITIVITY.values()} == {CONTROL, BEHAVIOUR, BOTH}
    of_svm = set(OF_EXTENSIONS) - set(VMX_OPERATIONS)
    assert set(VMX_WHEN) == {row.intercept for row in ROWS if row.intercept} - of_svm
    assert of_svm <= set(SVM_CODES) and set(SVM_NAMES.values()) <= set(SVM_CODES)
    assert set(WHEN) == {row.mnemonic for row in BY_VECTOR.values()}
    assert set(REASON_OF_VECTOR.values()) < set(REASONS)


def test_the_list_of_robin_and_irvine() -> None:
    named = {row.mnemonic for row in ROWS if robin_irvine(row)}
    assert named == ROBIN_IRVINE
    assert not named & set(ADDED)


@EVERY_SYSTEM_ROW
def test_every_technique_says_something(row: Row) -> None:
    found = techniques(row)
    names = ["native", "trap-and-emulate", "binary-translation", "vtx", "svm", "paravirtual"]
    assert [technique.name for technique in found] == names
    assert all(technique.text.endswith(".") for technique in found)


def test_what_the_translator_makes_of_every_row_is_what_is_said() -> None:
    """Each row's example, translated: copied, replaced by injected code, by a callout, or a way out of the unit."""
    machine = Machine(find_strategy("binary-translation")(), PROFILE)
    machine.load(find_guest("hello"))
    vm = machine.vm
    assert vm is not None and vm.translation is not None
    context = Context(CODE_0, 0, 0xFFFFFFFF, 0)
    wrong = {}
    for row in ROWS:
        code = sample(row, True, CODE_0) + b"\x90" * 15
        if row.name == "mov_ev_sw":
            code = code[:1] + bytes([code[1] & 0xC7 | 1 << 3]) + code[2:]  # of CS, which does not hold the guest's selector
        scan = Scan(vm, context, vm.translation.choices, lambda gla, n, code=code: code[gla - 0x1000 :][:n])
        unit = scan.unit(0x1000, 0xFFC50000)
        got = made_of(unit, code)
        if got != translation_of(row):
            wrong[f"{row.name} {row.encoding}"] = (got, translation_of(row))
    assert wrong == {}


def made_of(unit: Unit, code: bytes) -> str:
    """What the first instruction of a unit has become."""
    places = [*unit.boundaries.values(), len(unit.octets)]
    first = unit.octets[: places[1]]
    sites = [site for offset, site in unit.sites.items() if offset < places[1]]
    if len(unit.boundaries) > 1 and first == code[: len(first)]:
        return IDENTICAL
    if sites and sites[0].kind == "x87_pointer":
        return POINTER
    if sites and sites[0].direct:
        return DIRECT
    if sites and sites[0].kind == "sensitive_instruction" and not any(note & 1 for note in unit.notes[: places[1]]):
        return CALLOUT
    return INLINE_EMULATION if len(unit.boundaries) > 1 else TRANSFER


# -- the claims, against the processor -------------------------------------------------------------------------------


@EVERY_CONTEXT
def test_every_row_does_in_every_mode_and_ring_what_is_said(context: str) -> None:
    """All rows of the table, executed: what is claimed is what happens."""
    wrong = {}
    for row in ROWS:
        got = rows().outcome(row, context)
        if got != behaviour(row, context):
            wrong[f"{row.name} {row.encoding}"] = got
    assert wrong == {}


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.sensitivity == PRIVILEGED and operation_of(row) not in OF_EXTENSIONS],
    ids=lambda row: f"{row.name}-{row.encoding}",
)
def test_a_privileged_instruction_traps_in_ring_3(row: Row) -> None:
    """Those of VMX and SVM are #UD first; test_vmx_instructions.py and test_svm_run.py execute them in operation."""
    assert rows().outcome(row, "cpl3") == "#GP(0)"
    assert rows().outcome(row, "cpl0") == EXECUTES
    assert rows().outcome(row, "cpl3_iopl3") == (EXECUTES if row.privilege == IOPL else "#GP(0)")


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.sensitivity == SENSITIVE], ids=lambda row: f"{row.name}-{row.encoding}"
)
def test_a_sensitive_unprivileged_instruction_does_not_trap_in_ring_3(row: Row) -> None:
    assert rows().outcome(row, "cpl3") == EXECUTES


def perturb(resource: str) -> None:
    """Change a resource of the machine, and nothing that an innocuous instruction could see."""
    machine, cpu = rows().machine, rows().cpu
    if "EFLAGS" in resource:
        machine.eflags = machine.eflags | 0x200
    if "LDTR" in resource:
        cpu.seg[6].selector = 0x60
    if resource == "TR":
        cpu.seg[7].selector = 0x68
    if "GDTR" in resource:
        cpu.gdtr_base += 8
    if "IDTR" in resource:
        cpu.idtr_base += 8
    if resource == "CR0":
        cpu.cr0 ^= 2
    if "control registers" in resource:
        cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4 = cpu.cr0 ^ 2, 0x1000, 0x2000, 8
    if "debug registers" in resource:
        cpu.dr[2] = 0x1234
    if "model-specific" in resource:
        cpu.tsc_offset = 1 << 20
    if "RPL" in resource:
        for segment in range(6):
            cpu.seg[segment].selector ^= 3
    if resource == "CS":
        cpu.fpu_instruction_selector = 0x1B
    if "GDT and LDT" in resource:
        for selector in (*DATA_OF, *CODE_OF):
            machine.put(GDT + (selector & ~7), descriptor(0, 0x7F, 8, dpl=3, present=0), 8)


def visible() -> list[Any]:
    """What a program has after an instruction: registers, flags, memory, and whether it faulted."""
    machine = rows().machine
    return [
        machine.registers(),
        machine.eflags & ~0x200,
        machine.memory[DATA : DATA + 0x400].tobytes(),
        machine.memory[STACK : STACK + 0x3000].tobytes(),
    ]


BEHAVING = [row for row in ROWS if row.sensitivity != INNOCUOUS and BEHAVIOUR in SENSITIVITY[operation_of(row)].kind]


@pytest.mark.parametrize("row", BEHAVING, ids=lambda row: f"{row.name}-{row.encoding}")
def test_a_behaviour_sensitive_instruction_depends_on_the_resource_that_is_named(row: Row) -> None:
    """The same bytes with the same operands give another result when the resource differs (POPF and IRET: the ring)."""
    fact = sensitivity(row)
    assert fact is not None
    context = "cpl0" if row.sensitivity == PRIVILEGED else "cpl3"
    results = []
    for change in (False, True):
        if operation_of(row) in ("POPF", "IRET"):
            context = ("cpl3", "cpl0")[change]
        rows().prepare(context)
        address = rows().load(row, context)
        if operation_of(row) in ("POPF", "IRET"):
            place = STACK + 0x2000 + (8 if operation_of(row) == "IRET" else 0)
            rows().machine.put(place, 0x3202)
            rows().step(address)
            results.append(rows().machine.eflags)
            continue
        if change:
            perturb(fact.resource)
        results.append([rows().step(address), visible()])
    assert results[0] != results[1]


def privileged_state() -> list[Any]:
    """What belongs to the machine and not to a program."""
    cpu = rows().cpu
    names = (
        "cr0",
        "cr2",
        "cr3",
        "cr4",
        "cpl",
        "halted",
        "tsc_offset",
        "gdtr_base",
        "gdtr_limit",
        "idtr_base",
        "idtr_limit",
        "rip",
    )
    state = [int(cpu[name]) for name in names[:-1]] + [int(value) for value in cpu.dr]
    state += [int(cpu.seg[number].selector) for number in range(8)] + [rows().machine.eflags & 0x3200]
    return [*state, int(cpu.tlb_generation)]


CONTROLLING = [
    row
    for row in ROWS
    if row.sensitivity != INNOCUOUS
    and CONTROL in SENSITIVITY[operation_of(row)].kind
    # what these change lies outside the processor's registers: devices, the TLB, the caches
    and operation_of(row) not in ("IN", "OUT", "port_string", "port_string_byte", "INVLPG", "INVD", "WBINVD", *OF_EXTENSIONS)
]


@pytest.mark.parametrize("row", CONTROLLING, ids=lambda row: f"{row.name}-{row.encoding}")
def test_a_control_sensitive_instruction_changes_what_belongs_to_the_machine(row: Row) -> None:
    """With operands that ask for another state than there is."""
    rows().prepare("cpl0")
    address = rows().load(row, "cpl0")
    machine, cpu = rows().machine, rows().cpu
    operation = operation_of(row)
    if operation == "CLI":
        machine.eflags |= 0x200
    if operation == "POPF":
        machine.put(STACK + 0x2000, 0x3202)
    if operation == "IRET":
        machine.put(STACK + 0x2008, 0x3202)
    if operation == "LLDT":
        cpu.seg[6].selector = 0x60
    if operation in ("LGDT", "LIDT"):
        machine.put(DATA + OPERAND, 0x1234_0077, 8)
    if operation in ("LMSW", "CLTS"):
        cpu.cr0 ^= 8
    if operation == "REGISTER_TO_CR":
        cpu.gpr[EAX] = {0: int(cpu.cr0) ^ 2, 2: 0x1000, 3: 0x2000, 4: 8}[int(row.modrm)]
    if operation == "REGISTER_TO_DR":
        cpu.gpr[EAX] = 0x1234
    if operation in ("REGISTER_TO_SREG", "POP_SREG", "LOAD_FAR_POINTER"):
        for segment in range(6):
            cpu.seg[segment].selector = 0x58
    if operation in ("JMP_FAR", "JMP_FAR_INDIRECT", "CALL_FAR", "CALL_FAR_INDIRECT", "RET_FAR") or row.mnemonic in (
        "INT",
        "INT1",
        "INT3",
    ):
        cpu.seg[1].selector = 0x58
    if operation == "INTO":
        machine.eflags |= 0x800
        cpu.seg[1].selector = 0x58
    if operation == "SYSENTER":
        cpu.seg[1].selector = 0x58
    before = privileged_state()
    rows().step(address)
    assert privileged_state() != before


def test_an_innocuous_instruction_does_the_same_in_every_ring() -> None:
    """Registers, flags and memory after each innocuous row in ring 0 and ring 3, from the same state."""
    different = []
    for row in ROWS:
        if row.sensitivity != INNOCUOUS or behaviour(row, "cpl3") != EXECUTES or row.mnemonic in ("RDTSC", "CPUID"):
            continue
        results = []
        for context in ("cpl0", "cpl3"):
            rows().outcome(row, context)
            results.append(visible())
        if results[0] != results[1]:
            different.append(row.name)
    assert different == []


def test_lock_is_refused_where_it_is_said_to_be() -> None:
    """A LOCK prefix before the example, which has a memory operand where there can be one."""
    wrong = []
    for row in ROWS:
        rows().prepare("cpl0")
        address = rows().load(row, "cpl0")
        octets = b"\xf0" + sample(row, True, CODE_0)
        rows().machine.write_code(octets, address)
        allowed = row.lockable and bool(row.modrm)
        if behaviour(row, "cpl0") == EXECUTES and (rows().step(address) == EXECUTES) != allowed:
            wrong.append(f"{row.name} {row.encoding}")
    assert wrong == []


def test_page_faults_come_where_memory_is_said_to_be_accessed() -> None:
    """With data and stack not present, an instruction faults exactly if its explanation names a memory operand.

    Deliveries (INT n) push too, and are an event of their own.
    """
    wrong = []
    for row in ROWS:
        if (
            row.mnemonic in ("INT", "INT1", "INT3", "INTO", "SYSENTER", "SYSEXIT")
            or behaviour(row, "cpl0") != EXECUTES
        ):
            continue
        rows().prepare("cpl0")
        address = rows().load(row, "cpl0")
        machine = rows().machine
        for page in (*range(DATA, DATA + 0x10000, 0x1000), *range(STACK, STACK + 0x4000, 0x1000)):
            machine.set_page(page, page, 0)
        machine.paging()
        got = rows().step(address)
        if got.startswith("#PF") != has_memory([row]):
            wrong.append(f"{row.name} {row.encoding}: {got}")
    assert wrong == []


# -- the claims, against the VMM -------------------------------------------------------------------------------------


def in_kernel(row: Row) -> Record | tuple[Record, Record]:
    """A row's example in a guest's kernel under trap-and-emulate: its record, and the exit behind it if there is one."""
    operation = operation_of(row)
    octets = sample(row, True, CODE_0)
    if row.modrm and "Cd" not in row.operands and "Dd" not in row.operands:
        octets = octets.replace(word(OPERAND), word(KERNEL_DATA + OPERAND), 1)
    memory = {
        "LTR": TSS_SELECTOR, "LLDT": 0, "LMSW": 1, "LGDT": KERNEL_GDT << 16 | 0x7F, "LIDT": IDT << 16 | IDT_BYTES - 1,
    }.get(operation, DATA_3)  # fmt: skip
    setup = store(KERNEL_DATA + OPERAND, memory) + store(KERNEL_DATA + OPERAND + 4, DATA_3)
    setup += mov(ESI, KERNEL_DATA) + mov(EDI, KERNEL_DATA) + mov(EBX, KERNEL_DATA)
    setup += mov(ECX, 0 if operation == "RDPMC" else 0x10) + mov(EDX, 0x80) + mov(EAX, 0)
    if operation == "REGISTER_TO_CR":
        setup += bytes([0x0F, 0x20, 0xC0 | int(row.modrm) << 3])
    if operation == "INTO":
        setup += b"\xb0\x7f\x04\x01"  # MOV AL, 7Fh; ADD AL, 1: OF
    if operation in ("SYSENTER", "SYSEXIT"):
        setup += mov(ECX, 0x174) + mov(EAX, CODE_0) + mov(EDX, 0) + b"\x0f\x30" + mov(EDX, 0x12000) + mov(ECX, 0x7F00)
    setup += push(0x2) + push(CODE_0) + push(0x12000) if operation in ("IRET", "RET_FAR") else push(DATA_3)
    machine = start(Kernel([Step(setup + octets)]), "trap-and-emulate")
    records = iter(trace(machine, None, None, MAX_CYCLES))
    seen: list[Record] = []
    for record in records:
        if record.kind == "instruction" and record.octets == octets and record.mode == "guest_kernel":
            seen.append(record)
            following = next(records)
            if following.kind == "exit":
                assert following.exit is not None
                if following.exit.reason == "page_fault":  # the shadow lacked a page: it runs again
                    continue
                return record, following
            return record
    raise AssertionError(f"{row.name} was not met: {seen}")


def paths_charged(record: Record) -> set[str]:
    """The paths of the VMM that an exit was charged; references to its structures are not paths."""
    events = {charge.event for charge in record.charges if "reference" not in charge.event}
    return {event.removeprefix("vmm.") for event in events if event.startswith("vmm.")}


@EVERY_SYSTEM_ROW
def test_trap_and_emulate_does_what_is_said(row: Row) -> None:
    operation = operation_of(row)
    met = in_kernel(row)
    if isinstance(met, tuple):
        trapped, served = met
        assert served.exit is not None
        reason = TRAPS[operation][0] if operation in TRAPS else "general_protection"
        assert row.sensitivity == PRIVILEGED or operation in (*TRAPS, *LOADS_DIRECTLY, *JUMPS_DIRECTLY)
        assert served.exit.reason == reason
        paths = paths_charged(served)
        assert PATHS[operation] in paths and paths <= set(paths_of(reason))
        assert REASONS[reason].events[0] in [charge.event for charge in trapped.charges]
        return
    assert row.sensitivity != PRIVILEGED and operation not in TRAPS
    fields = {line.split("): ")[1].split(" ")[0] for line in met.divergences}
    general = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"}
    assert {"register" if field in general else field for field in fields} <= set(
        divergences(row).get("guest_kernel", [])
    )


@pytest.mark.parametrize(
    "row", [row for row in SYSTEM_ROWS if trap_events(row)], ids=lambda row: f"{row.name}-{row.encoding}"
)
def test_the_least_price_of_trapping_is_charged(row: Row) -> None:
    """Trap, dispatch, emulation and the way back, as they stand in the ledger."""
    met = in_kernel(row)
    assert isinstance(met, tuple)
    trapped, served = met
    least = trap_ticks(row, PROFILE)
    back = PROFILE.price_ticks("sys.iret_cpl0_to_cpl3")
    assert least is not None and least <= trapped.ticks + served.ticks + back
    events = {charge.event for charge in (*trapped.charges, *served.charges)}
    assert set(trap_events(row)) - {"sys.iret_cpl0_to_cpl3"} <= events


@pytest.mark.parametrize(
    "strategy,guest,line,begin",
    (
        ("trap-and-emulate", "syscall", "iterations=3", 20_800),
        ("trap-and-emulate", "pgfault", "iterations=2", 23_700),
        ("trap-and-emulate", "clock", "iterations=1", 70_400),
        ("trap-and-emulate", "divzero", "iterations=2", 20_950),
        ("binary-translation", "syscall", "iterations=3", 20_800),
        ("binary-translation", "clock", "iterations=1", 70_400),
    ),
)
def test_exits_come_by_the_events_and_charge_the_paths_that_are_said(strategy: str, guest: str, line: str, begin: int) -> None:
    machine = Machine(find_strategy(strategy)(), PROFILE, 8 << 20)
    machine.load(find_guest(guest), line)
    before: list[str] = []
    reasons = set()
    for record in trace(machine, Limit(begin), Limit(600), MAX_CYCLES * 100):
        if record.exit is not None and before:
            reasons.add(record.exit.reason)
            assert set(before) & set(REASONS[record.exit.reason].events), record
            assert paths_charged(record) <= set(paths_of(record.exit.reason)), record
        before = [charge.event for charge in record.charges]
    assert reasons


# -- prices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [event.name for event in EVENTS if event.fixed])
def test_a_price_is_the_profiles(event: str) -> None:
    (found,) = explain(event, PROFILE)
    for name, price in found.data["prices"].items():
        assert price["cycles"] == as_cycles(load_profile(name).price_ticks(event))
        assert price["cycles"] == 0 or (price["evidence"] and price["source"])


def test_the_events_of_an_instruction_are_those_that_it_is_charged() -> None:
    """Every row, executed in rings 0 and 3: no other event of the instruction's own domain appears."""
    wrong = []
    for row in ROWS:
        (found,) = explain_rows([row], PROFILE)
        said = {price["event"] for price in found.data["prices"]}
        for context in ("cpl0", "cpl3"):
            rows().outcome(row, context)
            counts = rows().cpu.ledger_count.sum(axis=1)
            charged = {EVENTS[number].name for number in counts.nonzero()[0].tolist()}
            other = {name for name in charged - said if not name.startswith(("walk.", "sys.exc_", "sys.hlt"))}
            if other or (behaviour(row, context) == EXECUTES and charged and not charged & said):
                wrong.append((row.name, context, sorted(other)))
    assert wrong == []


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_explains(x86virt: Any) -> None:
    answer = x86virt("explain", "mov", "cr3,", "eax")
    assert answer.status == 0 and "control-sensitive" in answer.out and "sys.mov_cr3_write" in answer.out
    data = x86virt("explain", "0f", "01", "15", "00", "00", "00", "00", "--json", "-").json()
    assert data["schema_version"] == 1 and data["explanations"][0]["rows"][0]["row"] == "lgdt_ms"
    assert "emulate_flags" in x86virt("explain", "vmm.emulate_flags", "-p", "nehalem").out


def test_the_command_alone_lists_what_there_is(x86virt: Any) -> None:
    answer = x86virt("explain")
    assert answer.status == 0
    assert {"lgdt", "sys.exc_gp", "page_fault", "#GP"} <= set(answer.out.split())
    data = x86virt("explain", "--json", "-").json()
    assert set(data) == {"schema_version", "instructions", "events", "exit_reasons", "exceptions", "strategies"}
    assert {"native", "trap-and-emulate", "binary-translation"} <= set(data["strategies"])
    assert all(len(data[name]) > 10 for name in data if name not in ("schema_version", "strategies"))


@pytest.mark.parametrize(
    "arguments,words",
    (
        (("lgdtt",), ("no such instruction", "did you mean lgdt")),
        (("sys.exc_gg",), ("no such", "did you mean sys.exc_")),
        (("page_falt",), ("did you mean page_fault",)),
        (("mov cr1, eax",), ("mov has no such operands", "its forms are")),
        (("lgdt eax",), ("no such operands",)),
        (("bytes:",), ("not 1 to 15 bytes",)),
        (("bytes:xyz",), ("not 1 to 15 bytes",)),
        (("bytes:" + "90" * 16,), ("not 1 to 15 bytes",)),
        (("0f 01",), ("goes on behind these bytes",)),
        (("vector 40",), ("no exception",)),
        (("x" * 300,), ("nothing that can be explained",)),
        (("lgdt", "-p", "p4_prescot"), ("did you mean p4_prescott",)),
        (("lgdt", "--bits", "64"), ("64",)),
        (("lgdt", "--json", "/no/such/folder/file"), ("cannot be written",)),
        (("héllo\n",), ("no such",)),
    ),
)
def test_bad_input_is_one_line(x86virt: Any, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_refused(x86virt("explain", *arguments), *words)


@pytest.mark.parametrize("octets", (b"\xcf", b"\xcb"), ids=("iret", "retf"))
def test_returns_of_a_program_execute_directly(octets: bytes) -> None:
    """IRET and RETF within ring 3 do not come to the VMM; IRET drops IF, a declared divergence."""
    frame = (push(0x3002) if octets == b"\xcf" else b"") + push(CODE_3)
    frame += b"\xe8\0\0\0\0\x83\x04\x24\x05"  # push the address of what stands behind the next byte
    machine = start(Kernel([Step(frame + octets, 3, 0x3202)]), "trap-and-emulate")
    record = next(
        record for record in trace(machine, None, None, MAX_CYCLES) if record.octets == octets and record.ring == 3
    )
    assert not record.transitions
    row = next(row for row in ROWS if row.opcode == tuple(octets))
    declared = divergences(row).get("guest_user", [])
    assert (len(record.divergences) > 0) == bool(declared) == (octets == b"\xcf")


# -- strategies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", strategy_names())
def test_a_strategy_is_explained_by_its_chapter_its_hooks_and_what_shows(name: str) -> None:
    strategy = find_strategy(name)
    (one,) = explain(name, PROFILE)
    text = "".join(word for line in one.lines(100) for word in line.split())  # a line may break behind a hyphen
    assert inspect.getdoc(sys.modules[strategy.__module__]) == one.data["chapter"]
    assert all("".join(line.split()) in text for line in one.data["chapter"].splitlines())
    hooks = {name.removeprefix("on_") for name in dir(strategy) if name.startswith("on_")} - {"exit"}
    assert set(one.data["hooks"]) == (hooks if strategy.needs_vmm else set())
    assert {tuple(row) for row in one.data["known_divergences"]} == strategy.known_divergences
    assert [price["event"] for price in one.data["prices"]] == [f"vmm.{path}" for path in strategy.paths]
    assert set(one.data["options"]) == {option.name for option in strategy.options}


def test_an_explained_strategy_is_the_one_that_its_options_choose(tmp_path: pathlib.Path) -> None:
    (one,) = explain("trap-and-emulate,ring=3,shadow=trace", PROFILE)
    assert one.data["kernel_ring"] == 3
    assert one.data["options"]["shadow"]["is"] == "trace"
    mine = tmp_path / "mine.py"
    mine.write_text('"""Nothing yet."""\nfrom x86virt import Strategy\n\n\nclass Mine(Strategy):\n    name = "mine"\n')
    assert explain(f"{mine}:Mine", PROFILE)[0].data["chapter"] == "Nothing yet."

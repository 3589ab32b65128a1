"""Task switches and far transfers: slices of the permutation suites, page faults, and the way through the processor."""

import itertools

import far_cases
import pytest
import task_cases
from bare_machine import (
    CODE_0,
    DATA_0,
    DIRECTORY,
    ESP,
    GDT,
    HANDLERS,
    IDT,
    PTE_P,
    PTE_RW,
    STACK,
    TABLE,
    TSS,
    TSS_SELECTOR,
    BareMachine,
)
from descriptor_machine import architectural, descriptor, gate, put
from task_cases import DO_CALL, DO_DELIVER, DO_IRET, DO_JUMP, NEW_TSS, Bench, Case, execute

from x86virt.core.layout import N_TLB_TAGS, NEW_TASK_FAULT, SHUTDOWN

SLICE = {"up to the commit point": 7, "behind the commit point": 61, "v86, T flag, entry point, error code": 5}
FAR_SLICE = {"call gates": 97, "direct jumps and calls": 31, "returns": 43, "real and v86 mode": 11}
PF, TS, VECTOR_DB = 14, 10, 1
DR6_BT = 1 << 15


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("group", task_cases.GROUPS)
def test_task_switches(bench: Bench, group: str) -> None:
    """A slice of the permutations (all of them: `make permutations`)."""
    cases = itertools.islice(task_cases.GROUPS[group](), 0, None, SLICE[group])
    count, failures = task_cases.run_cases(bench, cases)
    assert count > 300
    assert not failures, "\n".join(failures[:10])


def test_several_things_wrong(bench: Bench) -> None:
    """The order of the checks."""
    count, failures = task_cases.run_cases(bench, task_cases.random_cases(20, 2000))
    assert count > 1000
    assert not failures, "\n".join(failures[:10])


@pytest.mark.parametrize("group", far_cases.GROUPS)
def test_far_transfers(bench: Bench, group: str) -> None:
    """A slice of the permutations."""
    cases = itertools.islice(far_cases.GROUPS[group](), 0, None, FAR_SLICE[group])
    count, failures = far_cases.run_cases(bench, cases)
    assert count > 300
    assert not failures, "\n".join(failures[:10])


def test_any_far_transfer(bench: Bench) -> None:
    """Anything with anything."""
    _, failures = far_cases.run_cases(bench, far_cases.random_cases(21, 2000))
    assert not failures, "\n".join(failures[:10])


def test_a_model_that_is_wrong_is_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: a model that forgets the busy bit differs in the GDT."""
    from task_model import TaskModel

    plain = TaskModel.switch

    def forgetful(self: TaskModel, selector: int, vector: int) -> None:
        try:
            plain(self, selector, vector)
        finally:
            self.memory[task_cases.GDT + 0xD8 + 5] &= ~2

    monkeypatch.setattr(TaskModel, "switch", forgetful)
    assert any("memory at 0x10dd" in text for text in bench.compare(Case("jmp")))


# -- page faults ----------------------------------------------------------------------------------------------------------

WAY = {"jmp": DO_JUMP, "call": DO_CALL, "exception": DO_DELIVER, "iret": DO_IRET}


def no_page(bench: Bench, page: int, rights: int) -> None:
    """Change the rights of one page and forget what was translated."""
    put(bench.ram, task_cases.TABLE + (page >> 12) * 4, 4, page & ~0xFFF | rights)
    bench.forget_translations()


@pytest.mark.parametrize(
    ("page", "rights", "ways", "address", "error"),
    [
        (0x4000, 0, "jmp call exception", 0x4020, 2),
        (0x4000, 0, "iret", 0x4000, 0),
        (0x4000, 5, "jmp call exception", 0x4020, 3),
        (0x5000, 0, "jmp call exception iret", 0x5000, 0),
        (0x5000, 5, "call exception", 0x5000, 3),
        (0x1000, 5, "jmp call exception", None, 3),
        (0x1000, 5, "iret", None, 3),
    ],
    ids=["old-absent", "link-absent", "old-fixed", "new-absent", "link-fixed", "gdt-fixed", "gdt-fixed-on-return"],
)
def test_page_fault_before_the_commit_point(
    bench: Bench, page: int, rights: int, ways: str, address: int | None, error: int
) -> None:
    """A TSS or descriptor whose page cannot be used as the switch must: #PF, and the old task is as it was."""
    for way in ways.split():
        bench.lay(Case(way, paging=True))
        bench.cpu.cr0 |= 1 << 16
        no_page(bench, page, rights)
        before = architectural(bench.cpu), bench.ram[: task_cases.DIRECTORY].tobytes()
        assert execute(bench.state, bench.ram, WAY[way], bench.target, bench.flags) == 1
        assert (bench.cpu.event_vector, bench.cpu.event_error) == (PF, error)
        assert bench.cpu.cr2 == address or address is None and bench.cpu.cr2 >> 12 == page >> 12
        assert (architectural(bench.cpu), bench.ram[: task_cases.DIRECTORY].tobytes()) == before


def test_read_only_new_tss_is_enough_for_a_jump(bench: Bench) -> None:
    """A jump writes no link: the new TSS may be read-only."""
    bench.lay(Case("jmp", paging=True))
    bench.cpu.cr0 |= 1 << 16
    no_page(bench, NEW_TSS, 5)
    assert execute(bench.state, bench.ram, DO_JUMP, bench.target, bench.flags) == 0


@pytest.mark.parametrize("way", ["jmp", "exception"])
def test_page_fault_behind_the_commit_point(bench: Bench, way: str) -> None:
    """The new address space lacks the GDT: the fault is one of the new task, whose EIP the handler finds."""
    bench.lay(Case(way, paging=True))
    put(bench.ram, task_cases.NEW_DIRECTORY, 4, 0)
    outcome = execute(bench.state, bench.ram, WAY[way], bench.target, bench.flags)
    assert outcome == (NEW_TASK_FAULT if way == "jmp" else 1)
    assert (bench.cpu.event_vector, bench.cpu.cr3, bench.cpu.rip) == (PF, task_cases.NEW_DIRECTORY, 0x5678)


# -- through the processor --------------------------------------------------------------------------------------------------

OTHER_TSS, OTHER_SELECTOR, OTHER_CODE = 0x3800, 0x30, 0x1D000
HANDLER_TSS, HANDLER_SELECTOR = 0x3900, 0x38
JUMP_TO_TASK = b"\xea" + bytes(4) + OTHER_SELECTOR.to_bytes(2, "little")


@pytest.fixture(scope="module")
def machine() -> BareMachine:
    return BareMachine()


def lay_other_task(machine: BareMachine, selectors: dict[int, int] | None = None, trap: int = 0) -> None:
    """A second 32-bit task that runs at OTHER_CODE with flat segments."""
    machine.power_on()
    machine.put(GDT + OTHER_SELECTOR, descriptor(OTHER_TSS, 0x67, 9, s=0, db=0), 8)
    machine.put(OTHER_TSS + 0x20, OTHER_CODE)
    machine.put(OTHER_TSS + 0x24, 2)
    machine.put(OTHER_TSS + 0x38, STACK + 0x3000)
    for number in range(6):
        machine.put(OTHER_TSS + 0x48 + 4 * number, CODE_0 if number == 1 else DATA_0)
    for number, selector in (selectors or {}).items():
        machine.put(OTHER_TSS + 0x48 + 4 * number, selector)
    machine.put(OTHER_TSS + 0x64, trap)


def test_jump_and_return_through_the_processor(machine: BareMachine) -> None:
    """CALL to a TSS, IRET back, on behind the call: EIP and the stack of both tasks."""
    lay_other_task(machine)
    machine.write_code(b"\x9a" + JUMP_TO_TASK[1:] + b"\x40\xf4")  # call far; inc eax; hlt
    machine.write_code(b"\x43\xcf", OTHER_CODE)  # inc ebx; iretd
    outcome = machine.go()
    assert machine.stopped_at(outcome) == 0x1C000 + 8
    assert machine.gpr[0] == 1
    assert machine.get(OTHER_TSS + 0x34) == 1  # its EBX, saved
    assert machine.get(OTHER_TSS, 2) == TSS_SELECTOR
    assert machine.get(OTHER_TSS + 0x20) == OTHER_CODE + 2
    assert machine.memory[GDT + OTHER_SELECTOR + 5] & 2 == 0


def test_fault_of_the_new_task_is_not_the_jump_s(machine: BareMachine) -> None:
    """A bad DS: #TS in the new task, on its stack, with its EIP; the jump has retired and is not charged twice."""
    lay_other_task(machine, {3: 0x38})
    machine.write_code(b"\x90" + JUMP_TO_TASK)
    retired = int(machine.cpu.retired)
    outcome = machine.go()
    assert machine.stopped_at(outcome) == f"vector {TS}"
    assert machine.cpu.retired - retired == 2
    pointer = int(machine.gpr[ESP])
    assert pointer == STACK + 0x3000 - 16
    assert [machine.get(pointer + 4 * n) for n in range(3)] == [0x38, OTHER_CODE, CODE_0]
    assert machine.get(TSS + 0x20) == 0x1C000 + 8  # the old task goes on behind the jump


UNSOUND = 0x78  # an empty entry of the GDT
RF = 1 << 16


def test_unsound_code_of_ring_0_has_no_stack_to_tell_it_on(machine: BareMachine) -> None:
    """CS fails before SS is loaded. The #TS is one of the new task, whose CPL is the RPL of CS: 0. It has no stack yet.

    SDM volume 3, 6.15, #TS: behind the commit point the handler must not rely on segment registers that were not
    loaded, and "should be a task called using a task gate". Bochs delivers it all the same.
    """
    for stack in (DATA_0, 0x32, UNSOUND):
        lay_other_task(machine, {1: UNSOUND, 2: stack})
        machine.write_code(b"\x90" + JUMP_TO_TASK)
        assert machine.stopped_at(machine.go()) == f"outcome {SHUTDOWN}"


@pytest.mark.parametrize(("selectors", "error"), [({1: UNSOUND, 2: DATA_0}, UNSOUND), ({1: CODE_0, 2: 0x32}, 0x30)])
def test_unsound_segments_of_ring_0_reach_a_task_gate(machine: BareMachine, selectors: dict[int, int], error: int) -> None:
    """The same where the vector of #TS has a task gate: its task finds the error code, and the link to the faulting one."""
    lay_other_task(machine, selectors)
    for offset in range(0, 0x68, 4):
        machine.put(HANDLER_TSS + offset, machine.get(OTHER_TSS + offset))
    for place, value in ((0x20, HANDLERS + 16 * TS), (0x38, STACK + 0x800), (0x4C, CODE_0), (0x50, DATA_0)):
        machine.put(HANDLER_TSS + place, value)
    machine.put(GDT + HANDLER_SELECTOR, descriptor(HANDLER_TSS, 0x67, 9, s=0, db=0), 8)
    machine.put(IDT + 8 * TS, gate(HANDLER_SELECTOR, 0, 5), 8)
    machine.write_code(b"\x90" + JUMP_TO_TASK)
    assert machine.stopped_at(machine.go()) == f"vector {TS}"
    assert machine.gpr[ESP] == STACK + 0x800 - 4
    assert machine.get(STACK + 0x800 - 4) == error
    assert machine.get(HANDLER_TSS, 2) == OTHER_SELECTOR
    assert machine.get(OTHER_TSS + 0x20) == OTHER_CODE
    assert machine.get(OTHER_TSS + 0x4C) == selectors[1]


def test_unsound_code_of_ring_3_is_told_on_the_stack_of_ring_0(machine: BareMachine) -> None:
    """An RPL of 3 makes the CPL 3, and the handler's stack is the new TSS's."""
    lay_other_task(machine, {1: UNSOUND | 3, 2: 0x23})
    machine.put(OTHER_TSS + 4, STACK + 0x1000)
    machine.put(OTHER_TSS + 8, DATA_0)
    machine.write_code(b"\x90" + JUMP_TO_TASK)
    assert machine.stopped_at(machine.go()) == f"vector {TS}"
    pointer = int(machine.gpr[ESP])
    assert pointer == STACK + 0x1000 - 24
    assert [machine.get(pointer + 4 * n) for n in range(6)] == [
        UNSOUND, OTHER_CODE, UNSOUND | 3, 2 | RF, STACK + 0x3000, 0x23,
    ]  # fmt: skip


def test_bad_tss_leaves_the_old_task(machine: BareMachine) -> None:
    """Before the commit point the jump itself faults."""
    lay_other_task(machine)
    machine.put(GDT + OTHER_SELECTOR, descriptor(OTHER_TSS, 0x66, 9, s=0, db=0), 8)
    machine.write_code(b"\x90" + JUMP_TO_TASK)
    outcome = machine.go()
    assert machine.stopped_at(outcome) == f"vector {TS}"
    pointer = int(machine.gpr[ESP])
    assert [machine.get(pointer + 4 * n) for n in range(2)] == [OTHER_SELECTOR, 0x1C001]


def test_trap_flag_of_a_tss(machine: BareMachine) -> None:
    """The T flag: a debug trap before the first instruction of the new task, with BT in DR6."""
    lay_other_task(machine, trap=1)
    machine.write_code(JUMP_TO_TASK)
    outcome = machine.go()
    assert machine.stopped_at(outcome) == f"vector {VECTOR_DB}"
    assert int(machine.cpu.dr[6]) & DR6_BT
    assert machine.get(int(machine.gpr[ESP])) == OTHER_CODE
    machine.cpu.dr[6] = 0


def test_fault_in_a_task_gate_s_task_makes_a_double_fault(machine: BareMachine) -> None:
    """#GP through a task gate whose task has a bad DS: #TS while #GP is delivered, so #DF, in the new task."""
    lay_other_task(machine, {3: 0x38})
    machine.put(0x2000 + 8 * 13, gate(OTHER_SELECTOR, 0, 5), 8)
    machine.write_code(b"\xcd\x80")  # beyond the IDT: #GP
    outcome = machine.go()
    assert machine.stopped_at(outcome) == "vector 8"
    assert machine.get(int(machine.gpr[ESP]) + 4) == OTHER_CODE


@pytest.mark.parametrize("where", ["same", "other"])
def test_address_space_of_a_task(machine: BareMachine, where: str) -> None:
    """CR3 comes from the new TSS; the TLBs are flushed if it changes."""
    lay_other_task(machine)
    machine.paging()
    other = DIRECTORY if where == "same" else 0x42000
    machine.put(other, TABLE | PTE_P | PTE_RW)
    machine.put(OTHER_TSS + 0x1C, other)
    generation = int(machine.cpu.tlb_counter)
    machine.write_code(JUMP_TO_TASK)
    outcome = machine.go()
    assert machine.stopped_at(outcome) == OTHER_CODE
    assert machine.cpu.cr3 == other
    assert int(machine.cpu.tlb_counter) - generation == N_TLB_TAGS * (where == "other")


@pytest.mark.parametrize(
    ("code", "place", "pushed"),
    [
        ("66ea00900800", None, b""),
        ("669a00900800", None, bytes.fromhex("06c00800")),
        ("66ff2d00000200", 0x20000, b""),
        ("66ff1d00000200", 0x20000, bytes.fromhex("07c00800")),
        ("6766ff2efeff", 0xFFFE, b""),
    ],
    ids=["jmp ptr16:16", "call ptr16:16", "jmp m16:16", "call m16:16", "jmp m16:16 around 64 KB"],
)
def test_far_transfer_with_16_bit_operands(machine: BareMachine, code: str, place: int | None, pushed: bytes) -> None:
    """IP has 16 bits, words are pushed; a far pointer wraps at the address size."""
    machine.power_on()
    machine.write_code(bytes.fromhex("0800"), 0)
    if place is not None:
        machine.write_code(bytes.fromhex("0090"), place)
        machine.write_code(bytes.fromhex("0800"), place + 2 if place != 0xFFFE else 0)
    machine.write_code(bytes.fromhex(code))
    outcome = machine.go()
    assert machine.stopped_at(outcome) == 0x9000
    pointer = int(machine.gpr[ESP])
    assert machine.memory[pointer : STACK + 0x2000].tobytes() == pushed


def test_far_pointer_loads_16_bits(machine: BareMachine) -> None:
    """LES with 16-bit operands keeps the upper half of the register."""
    machine.power_on()
    machine.write_code(bytes.fromhex("785610005555"), 0x20000)
    machine.gpr[0] = 0x12340000
    machine.write_code(bytes.fromhex("66c40500000200f4"))
    machine.go()
    assert (machine.gpr[0], machine.cpu.seg[0].selector) == (0x12345678, DATA_0)

"""VMX: events that make a guest exit, what is told of a delivery, and what comes between two instructions.

The expectations are rules of the SDM, volume 3: 25.2 (which events exit), 27.2.2 to 27.2.4 (interruption and IDT-vectoring
information), 27.1 and 27.3 (what an event that exits has changed), 26.6 (windows and the timer).
"""

from __future__ import annotations

import random

import pytest
from bare_machine import CODE, CODE_0, DATA, DATA_0, EAX, EBX, ECX, GDT, HANDLERS, HLT, IDT, STACK, TSS
from descriptor_machine import descriptor, gate
from vmx_guest import HOST_RIP, VmxGuest

from x86virt.core.layout import HALTED_FOREVER, HOOK, NEVER
from x86virt.isa import vmx
from x86virt.isa.events import EVENT_EXIT_EXCEPTION_OR_NMI

CPUID = b"\x0f\xa2"
RF, TF, IF = 1 << 16, 1 << 8, 1 << 9
VALID, HAS_ERROR, HARDWARE, SOFTWARE_INTERRUPT, PRIVILEGED, SOFTWARE = 1 << 31, 1 << 11, 3 << 8, 4 << 8, 5 << 8, 6 << 8
DE, DB, BP, OF, BR, UD, NM, DF, TS, NP, SS, GP, PF, MF, AC = 0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17
NO_PAGE = 0x800000
OTHER_TSS, TASK_SELECTOR, TASK_GATE = 0x2A000, 0x38, 0x40
TIMER_VECTOR = 0x1F
CR0_TS, CR0_WP = 8, 1 << 16


@pytest.fixture(scope="module")
def module_machine() -> VmxGuest:
    return VmxGuest()


def fresh(machine: VmxGuest) -> None:
    """Begin anew; handlers of the guest's exceptions exit by CPUID."""
    machine.begin()
    machine.cpu.cr2 = 0x1234
    machine.cpu.dr[6] = 0xFFFF0FF0
    machine.cpu.timer_vector = TIMER_VECTOR
    machine.put(GDT + TASK_SELECTOR, descriptor(OTHER_TSS, 0x67, 9, s=0, db=0), 8)
    machine.put(GDT + TASK_GATE, gate(TASK_SELECTOR, 0, 5), 8)
    for vector in range(32):
        machine.write_code(CPUID + HLT, HANDLERS + 16 * vector)
    machine.gpr[:8] = 0
    machine.gpr[EBX] = DATA


@pytest.fixture
def machine(module_machine: VmxGuest) -> VmxGuest:
    """A machine in the host, with a fresh VMCS."""
    fresh(module_machine)
    return module_machine


def run(machine: VmxGuest, octets: bytes) -> int:
    """Run guest code up to its exit: the reason."""
    machine.write_code(octets)
    return machine.exit_reason()


# -- exceptions -----------------------------------------------------------------------------------------------------------

# Vector: code whose instruction of the last bytes raises it, the length of that, type, error code (None: none), fault or trap.
RAISED = {
    DE: (b"\xf7\xf1", 2, HARDWARE, None, "fault"),
    DB: (b"\xf1", 1, PRIVILEGED, None, "software"),
    BP: (b"\xcc", 1, SOFTWARE, None, "software"),
    OF: (b"\xb8\xff\xff\xff\x7f\x40\xce", 1, SOFTWARE, None, "software"),
    BR: (b"\x62\x0b", 2, HARDWARE, None, "fault"),
    UD: (b"\x0f\x0b", 2, HARDWARE, None, "fault"),
    NM: (b"\x0f\x20\xc0\x83\xc8\x08\x0f\x22\xc0\xd9\xc0", 2, HARDWARE, None, "fault"),
    NP: (b"\xb8\x50\x00\x00\x00\x8e\xd8", 2, HARDWARE, 0x50, "fault"),
    SS: (b"\xb8\x50\x00\x00\x00\x8e\xd0", 2, HARDWARE, 0x50, "fault"),
    GP: (b"\xb8\x70\x70\x00\x00\x8e\xd8", 2, HARDWARE, 0x7070, "fault"),
    PF: (b"\xa1\x00\x00\x80\x00", 5, HARDWARE, 0, "fault"),
}


def lay_operands(machine: VmxGuest) -> None:
    """What the instructions of `RAISED` need."""
    machine.put(GDT + 0x50, descriptor(0, 0xFFFFF, 3, present=0, granular=1), 8)
    machine.put(DATA, 5)
    machine.put(DATA + 4, 6)


@pytest.mark.parametrize("vector", RAISED)
def test_exception_bitmap(machine: VmxGuest, vector: int) -> None:
    """An exception exits exactly if its bit is set: then nothing of it has happened; else its handler runs."""
    octets, length, kind, error, manner = RAISED[vector]
    place = CODE + len(octets) - length
    for bitmap in (0, 1 << vector, 0xFFFFFFFF, 0xFFFFFFFF & ~(1 << vector)):
        fresh(machine)
        lay_operands(machine)
        machine.set_field("EXCEPTION_BITMAP", bitmap)
        reason = run(machine, octets + HLT)
        if not bitmap >> vector & 1:
            assert (reason, machine.field("GUEST_RIP")) == (10, HANDLERS + 16 * vector), hex(bitmap)
            assert int(machine.cpu.cr2) == (NO_PAGE if vector == PF else 0x1234)
            continue
        assert (reason, machine.field("GUEST_RIP")) == (0, place), hex(bitmap)
        information = VALID | kind | vector | (HAS_ERROR if error is not None else 0)
        assert machine.field("EXIT_INTERRUPTION") == information
        assert machine.field("EXIT_ERROR_CODE") == (error or 0)
        assert machine.field("QUALIFICATION") == (NO_PAGE if vector == PF else 0)
        assert machine.field("VECTORING") == 0
        assert bool(machine.field("GUEST_RFLAGS") & RF) == (manner == "fault")
        assert machine.field("EXIT_INSTRUCTION_LENGTH") == (length if manner == "software" else 0)
        assert (int(machine.cpu.cr2), int(machine.cpu.dr[6])) == (0x1234, 0xFFFF0FF0)


def test_page_fault_mask_and_match(machine: VmxGuest) -> None:
    """Bit 14 asks of error codes that match under the mask; of others its opposite (section 25.2)."""
    chance = random.Random(2)
    accesses = ((b"\xa1\x00\x00\x80\x00", 0), (b"\xa3\x00\x00\x80\x00", 2), (b"\xa3\x00\x00\x08\x00", 3))
    for _ in range(60):
        fresh(machine)
        machine.set_page(0x80000, 0x80000, 1)
        machine.forget_translations()
        octets, error = chance.choice(accesses)
        bit, mask, match = chance.randrange(2), chance.randrange(8), chance.randrange(8)
        machine.set_field("EXCEPTION_BITMAP", bit << PF)
        machine.set_field("PAGE_FAULT_MASK", mask)
        machine.set_field("PAGE_FAULT_MATCH", match)
        reason = run(machine, octets + HLT)
        exits = bool(bit) == (error & mask == match)
        assert reason == (0 if exits else 10), (error, bit, mask, match)
        if exits:
            assert machine.field("EXIT_ERROR_CODE") == error


# -- debug exceptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exits", [True, False])
def test_single_step(machine: VmxGuest, exits: bool) -> None:
    """The trap of TF: BS in the qualification, DR6 as before; delivered, DR6 has it."""
    machine.set_field("EXCEPTION_BITMAP", exits << DB)
    machine.set_field("GUEST_RFLAGS", TF | 2)
    reason = run(machine, b"\x90\x90" + HLT)
    if exits:
        assert (reason, machine.field("GUEST_RIP")) == (0, CODE + 1)
        assert machine.field("QUALIFICATION") == 1 << 14
        assert machine.field("EXIT_INTERRUPTION") == VALID | HARDWARE | DB
        assert machine.field("GUEST_RFLAGS") & (RF | TF) == TF
        assert int(machine.cpu.dr[6]) == 0xFFFF0FF0
        assert machine.field("GUEST_PENDING_DEBUG") == 0
    else:
        assert (reason, machine.field("GUEST_RIP")) == (10, HANDLERS + 16 * DB)
        assert int(machine.cpu.dr[6]) == 0xFFFF4FF0


def test_data_breakpoint(machine: VmxGuest) -> None:
    """A data breakpoint: its number in the qualification; DR7 is saved with it, and the host's is as after a reset."""
    machine.set_field("EXCEPTION_BITMAP", 1 << DB)
    machine.controls(entries=vmx.ENTRY_LOAD_DEBUG, exits=vmx.EXIT_SAVE_DEBUG)
    machine.cpu.dr[2] = DATA + 4
    machine.set_field("GUEST_DR7", 0x400 | 1 << 4 | 0xD << 24)
    assert run(machine, b"\x90\xa3\x04\x00\x02\x00\x90" + HLT) == 0
    assert (machine.field("GUEST_RIP"), machine.field("QUALIFICATION")) == (CODE + 6, 1 << 2)
    assert (machine.field("GUEST_DR7"), int(machine.cpu.dr[7])) == (0x400 | 1 << 4 | 0xD << 24, 0x400)


def test_data_breakpoint_held_off_by_mov_ss(machine: VmxGuest) -> None:
    """MOV SS holds the trap off for one instruction: if that exits, it is pending in the VMCS."""
    machine.controls(entries=vmx.ENTRY_LOAD_DEBUG, exits=vmx.EXIT_SAVE_DEBUG)
    machine.cpu.dr[1] = DATA + 8
    machine.set_field("GUEST_DR7", 0x400 | 1 << 2 | 0xF << 20)
    machine.put(DATA + 8, DATA_0)
    assert run(machine, b"\x8e\x53\x08" + CPUID) == 10
    assert machine.field("GUEST_INTERRUPTIBILITY") == vmx.BLOCKING_BY_MOV_SS
    assert machine.field("GUEST_PENDING_DEBUG") == 1 << 12 | 1 << 1
    # Entered again it is still held off, exits again, and is delivered once the instruction has been passed over.
    assert machine.exit_reason() == 10
    assert machine.field("GUEST_PENDING_DEBUG") == 1 << 12 | 1 << 1
    machine.set_field("GUEST_RIP", CODE + 5)
    machine.set_field("GUEST_INTERRUPTIBILITY", 0)
    assert machine.exit_reason() == 10
    assert machine.field("GUEST_RIP") == HANDLERS + 16 * DB
    assert int(machine.cpu.dr[6]) & 0xF == 1 << 1


def test_single_step_behind_mov_ss(machine: VmxGuest) -> None:
    """With TF set, an exit behind MOV SS saves BS, without which VM entry would refuse the state."""
    machine.set_field("GUEST_RFLAGS", TF | 2)
    machine.gpr[EAX] = DATA_0
    assert run(machine, b"\x8e\xd0" + CPUID) == 10
    assert machine.field("GUEST_PENDING_DEBUG") == vmx.PENDING_DEBUG_BS
    assert machine.exit_reason() == 10  # the state is accepted


# -- amid a delivery --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bitmap", [0, 1 << PF, 1 << DF, 1 << UD, 1 << PF | 1 << DF])
def test_faults_while_an_exception_is_delivered(machine: VmxGuest, bitmap: int) -> None:
    """#UD whose frame cannot be pushed: #PF, then #DF, then a triple fault; whichever exits first."""
    machine.set_field("EXCEPTION_BITMAP", bitmap)
    machine.set_field("GUEST_RSP", NO_PAGE + 0x100)
    reason = run(machine, b"\x0f\x0b")
    vectoring = machine.field("VECTORING")
    interruption = machine.field("EXIT_INTERRUPTION")
    if bitmap & 1 << UD:
        assert (reason, interruption, vectoring) == (0, VALID | HARDWARE | UD, 0)
    elif bitmap & 1 << PF:
        assert (reason, interruption, vectoring) == (0, VALID | HARDWARE | HAS_ERROR | PF, VALID | HARDWARE | UD)
        assert (machine.field("EXIT_ERROR_CODE"), machine.field("QUALIFICATION")) == (2, NO_PAGE + 0xFC)
        assert int(machine.cpu.cr2) == 0x1234
    elif bitmap & 1 << DF:
        assert (reason, interruption, vectoring) == (0, VALID | HARDWARE | HAS_ERROR | DF, 0)
        assert int(machine.cpu.cr2) == NO_PAGE + 0xFC  # the page faults did happen
    else:
        assert (reason, vectoring) == (2, 0)
    assert machine.field("GUEST_RIP") == CODE


@pytest.mark.parametrize(
    ("octets", "kind", "length"),
    [(b"\xcd\x20", SOFTWARE_INTERRUPT | 0x20, 2), (b"\xcc", SOFTWARE | BP, 1), (b"\x66\xcd\x20", SOFTWARE_INTERRUPT | 0x20, 3)],
    ids=["int 20h", "int3", "int 20h with a prefix"],
)
def test_faults_while_a_software_interrupt_is_delivered(machine: VmxGuest, octets: bytes, kind: int, length: int) -> None:
    """The instruction's length is told, and RIP is that of the instruction."""
    machine.set_field("EXCEPTION_BITMAP", 1 << PF)
    machine.set_field("GUEST_IDTR_LIMIT", 0x7FF)
    machine.put(IDT + 8 * 0x20, gate(CODE_0, HANDLERS, 14), 8)
    machine.set_field("GUEST_RSP", NO_PAGE + 0x100)
    assert run(machine, b"\x90" + octets) == 0
    assert machine.field("VECTORING") == VALID | kind
    assert machine.field("EXIT_INSTRUCTION_LENGTH") == length
    assert machine.field("GUEST_RIP") == CODE + 1


def test_a_fault_with_an_error_code_amid_another(machine: VmxGuest) -> None:
    """#GP, delivered through a gate that is not present: #NP, which exits before the two make a double fault."""
    machine.put(IDT + 8 * GP, gate(CODE_0, HANDLERS, 14, present=0), 8)
    for bitmap in (1 << NP, 1 << DF, 0):
        machine.set_field("EXCEPTION_BITMAP", bitmap)
        machine.gpr[EAX] = 0x7070
        reason = run(machine, b"\x8e\xd8")
        if bitmap == 1 << NP:
            assert machine.field("EXIT_INTERRUPTION") == VALID | HARDWARE | HAS_ERROR | NP
            assert machine.field("EXIT_ERROR_CODE") == GP << 3 | 2 | 1
            assert machine.field("VECTORING") == VALID | HARDWARE | HAS_ERROR | GP
            assert machine.field("VECTORING_ERROR_CODE") == 0x7070
        elif bitmap:
            assert (reason, machine.field("EXIT_INTERRUPTION")) == (0, VALID | HARDWARE | HAS_ERROR | DF)
            assert machine.field("VECTORING") == 0
        else:
            assert (reason, machine.field("GUEST_RIP")) == (10, HANDLERS + 16 * DF)


# -- task switches (section 25.4.2, table 27-2) -----------------------------------------------------------------------------

CALL, IRET, JMP, GATE = range(4)


@pytest.mark.parametrize(
    ("octets", "source", "length"),
    [
        (b"\x9a\0\0\0\0\x38\0", CALL, 7),
        (b"\xea\0\0\0\0\x38\0", JMP, 7),
        (b"\x9a\0\0\0\0\x40\0", CALL, 7),
        (b"\xea\0\0\0\0\x40\0", JMP, 7),
        (b"\xcf", IRET, 1),
        (b"\xcd\x15", GATE, 2),
        (b"\x0f\x0b", GATE, 0),
    ],
    ids=["call", "jmp", "call through a gate", "jmp through a gate", "iret", "int through a gate", "exception through a gate"],
)
def test_task_switches_exit(machine: VmxGuest, octets: bytes, source: int, length: int) -> None:
    """Always, with nothing of the switch done: TSSs, busy bits, TR and NT are as before."""
    if octets == b"\xcf":
        machine.set_field("GUEST_RFLAGS", 1 << 14 | 2)
        machine.put(TSS, TASK_SELECTOR, 2)
        machine.put(GDT + TASK_SELECTOR, descriptor(OTHER_TSS, 0x67, 11, s=0, db=0), 8)
    for vector in (0x15, UD):
        machine.put(IDT + 8 * vector, gate(TASK_SELECTOR, 0, 5, dpl=3), 8)
    before = [machine.get(place, 8) for place in range(GDT, GDT + 0x80, 8)]
    tasks = [machine.get(place, 8) for at in (TSS, OTHER_TSS) for place in range(at, at + 0x68, 8)]
    assert run(machine, octets) == 9
    assert machine.field("QUALIFICATION") == TASK_SELECTOR | source << 30
    assert machine.field("EXIT_INSTRUCTION_LENGTH") == length
    vectoring = {b"\xcd\x15": VALID | SOFTWARE_INTERRUPT | 0x15, b"\x0f\x0b": VALID | HARDWARE | UD}.get(octets, 0)
    assert machine.field("VECTORING") == vectoring
    assert machine.field("GUEST_RIP") == CODE
    assert bool(machine.field("GUEST_RFLAGS") & RF) == (octets == b"\x0f\x0b")
    assert [machine.get(place, 8) for place in range(GDT, GDT + 0x80, 8)] == before
    assert [machine.get(place, 8) for at in (TSS, OTHER_TSS) for place in range(at, at + 0x68, 8)] == tasks


@pytest.mark.parametrize(
    ("kind", "limit", "present", "vector"),
    [(9, 0x67, 0, NP), (11, 0x67, 1, GP), (9, 0x66, 1, TS), (2, 0x67, 1, GP)],
    ids=["not present", "busy", "too small", "no TSS"],
)
def test_faults_above_task_switches(machine: VmxGuest, kind: int, limit: int, present: int, vector: int) -> None:
    """The checks of the new TSS's descriptor come before the exit."""
    machine.put(GDT + TASK_SELECTOR, descriptor(OTHER_TSS, limit, kind, s=0, db=0, present=present), 8)
    assert run(machine, b"\xea\0\0\0\0\x38\0") == 10
    assert machine.field("GUEST_RIP") == HANDLERS + 16 * vector


# -- between instructions -------------------------------------------------------------------------------------------------

PENDING = (False, True)


@pytest.mark.parametrize("flag", [0, IF])
@pytest.mark.parametrize("exiting", [0, vmx.PIN_EXTERNAL_INTERRUPT_EXITING])
@pytest.mark.parametrize("acknowledge", [0, vmx.EXIT_ACKNOWLEDGE_INTERRUPT])
@pytest.mark.parametrize("window", [0, vmx.PROCESSOR_INTERRUPT_WINDOW_EXITING])
@pytest.mark.parametrize("waits", PENDING)
def test_external_interrupts_and_their_window(
    machine: VmxGuest, flag: int, exiting: int, acknowledge: int, window: int, waits: bool
) -> None:
    """At the guest's first boundary: the window ranks above the interrupt; exiting, IF does not matter; else IF lets it in."""
    machine.controls(pin=exiting, processor=window, exits=acknowledge)
    machine.set_field("GUEST_RFLAGS", flag | 2)
    machine.cpu.timer_pending = int(waits)
    reason = run(machine, b"\x90" + CPUID)
    rip = machine.field("GUEST_RIP")
    information = machine.field("EXIT_INTERRUPTION")
    if window and flag:
        assert (reason, rip, information) == (7, CODE, 0)
    elif exiting and waits:
        assert (reason, rip) == (1, CODE)
        assert information == (VALID | TIMER_VECTOR if acknowledge else 0)
        assert int(machine.cpu.timer_pending) == (0 if acknowledge else 1)
    elif flag and waits:
        assert (reason, rip) == (10, HANDLERS + 16 * TIMER_VECTOR)
    else:
        assert (reason, rip) == (10, CODE + 1)
    machine.cpu.timer_pending = 0


@pytest.mark.parametrize("opener", ["sti", "popf", "mov ss"])
@pytest.mark.parametrize("what", ["window", "interrupt"])
def test_one_instruction_is_held_off(machine: VmxGuest, opener: str, what: str) -> None:
    """STI and MOV SS hold the window and external interrupts off for one instruction; POPF does not."""
    code = {"sti": b"\xfb", "popf": b"\x68\x02\x02\x00\x00\x9d", "mov ss": b"\x8e\xd0"}[opener]
    held = opener != "popf"
    window = what == "window"
    if window:
        machine.controls(processor=vmx.PROCESSOR_INTERRUPT_WINDOW_EXITING)
    else:
        machine.controls(pin=vmx.PIN_EXTERNAL_INTERRUPT_EXITING)
    machine.gpr[EAX] = DATA_0
    if opener == "mov ss" and window:
        machine.set_field("GUEST_RFLAGS", IF | 2)
        machine.set_field("GUEST_INTERRUPTIBILITY", vmx.BLOCKING_BY_STI)  # the first instruction is reached
    if not window:
        machine.set_field("GUEST_INTERRUPTIBILITY", vmx.BLOCKING_BY_MOV_SS)
        machine.cpu.timer_pending = 1
        if opener == "popf":
            code = b"\x9c\x9d"  # the interrupt comes behind the first instruction
    reason = run(machine, code + b"\x90\x90" + CPUID)
    machine.cpu.timer_pending = 0
    assert reason == (7 if window else 1)
    if not window and opener == "popf":
        assert machine.field("GUEST_RIP") == CODE + 1
    else:
        assert machine.field("GUEST_RIP") == CODE + len(code) + held
    assert machine.field("GUEST_INTERRUPTIBILITY") == 0


def test_an_exit_in_the_shadow_of_sti(machine: VmxGuest) -> None:
    """The instruction behind STI exits: blocking by STI is saved. One whose fault is delivered ends it."""
    assert run(machine, b"\xfb" + CPUID) == 10
    assert machine.field("GUEST_INTERRUPTIBILITY") == vmx.BLOCKING_BY_STI
    fresh(machine)
    machine.set_field("EXCEPTION_BITMAP", 1 << UD)
    assert run(machine, b"\xfb\x0f\x0b") == 0
    assert machine.field("GUEST_INTERRUPTIBILITY") == vmx.BLOCKING_BY_STI
    fresh(machine)
    assert run(machine, b"\xfb\x0f\x0b") == 10
    assert (machine.field("GUEST_RIP"), machine.field("GUEST_INTERRUPTIBILITY")) == (HANDLERS + 16 * UD, 0)
    fresh(machine)
    machine.set_field("EXCEPTION_BITMAP", 1 << PF)
    machine.set_field("GUEST_RSP", NO_PAGE + 0x100)
    assert run(machine, b"\xfb\x0f\x0b") == 0
    assert machine.field("GUEST_INTERRUPTIBILITY") == 0  # amid a delivery


@pytest.mark.parametrize("flag", [0, IF])
@pytest.mark.parametrize("why", ["interrupt", "window", "timer", "nothing"])
def test_a_halted_guest(machine: VmxGuest, flag: int, why: str) -> None:
    """HLT without HLT exiting: what exits finds the guest halted, RIP behind the instruction, and the host awake."""
    machine.controls(pin=vmx.PIN_EXTERNAL_INTERRUPT_EXITING | (vmx.PIN_PREEMPTION_TIMER if why == "timer" else 0))
    machine.set_field("PREEMPTION_TIMER", 1000)
    machine.set_field("GUEST_RFLAGS", flag | 2)
    machine.write_code(HLT + CPUID)
    if why == "interrupt":
        machine.cpu.timer = int(machine.cpu.ticks) + (100_000 << 6)
    if why == "window":
        machine.controls(processor=vmx.PROCESSOR_INTERRUPT_WINDOW_EXITING)
        machine.set_field("GUEST_ACTIVITY", vmx.ACTIVITY_HLT)
        machine.set_field("GUEST_RIP", CODE + 1)
    if why == "nothing" or (why == "window" and not flag):
        assert machine.enter_and_run() == HALTED_FOREVER
        return
    assert machine.exit_reason() == {"interrupt": 1, "window": 7, "timer": 52}[why]
    assert (machine.field("GUEST_ACTIVITY"), machine.field("GUEST_RIP")) == (vmx.ACTIVITY_HLT, CODE + 1)
    assert machine.cpu.halted == 0
    machine.cpu.timer_pending, machine.cpu.timer = 0, NEVER


@pytest.mark.parametrize("value", [0, 1, 50, 5000])
def test_preemption_timer(machine: VmxGuest, value: int) -> None:
    """It counts by the rate of IA32_VMX_MISC, is found at a boundary, and keeps what is left if the controls say so."""
    rate = int(machine.cpu.msr.vmx_capability[5]) & 31
    machine.controls(pin=vmx.PIN_PREEMPTION_TIMER, exits=vmx.EXIT_SAVE_TIMER)
    machine.set_field("PREEMPTION_TIMER", value)
    machine.write_code(b"\xeb\xfe")
    machine.enter()
    begun = int(machine.cpu.ticks) >> 6
    assert machine.processor.run() == HOOK
    assert machine.field("EXIT_REASON") == 52
    cycles = (int(machine.cpu.ticks) >> 6) - begun
    assert (value - 1) << rate <= cycles <= (value << rate) + 20_000
    assert machine.field("PREEMPTION_TIMER") == 0
    fresh(machine)
    machine.controls(pin=vmx.PIN_PREEMPTION_TIMER, exits=vmx.EXIT_SAVE_TIMER)
    machine.set_field("PREEMPTION_TIMER", value + 1000)
    assert run(machine, CPUID) == 10
    assert value <= machine.field("PREEMPTION_TIMER") <= value + 1000


@pytest.mark.parametrize("blocked", [0, vmx.BLOCKING_BY_NMI])
def test_nmi_window_and_iret(machine: VmxGuest, blocked: int) -> None:
    """NMI-window exiting: at once if virtual NMIs are not blocked, else behind the IRET that ends it."""
    machine.controls(pin=vmx.PIN_NMI_EXITING | vmx.PIN_VIRTUAL_NMIS, processor=vmx.PROCESSOR_NMI_WINDOW_EXITING)
    machine.set_field("GUEST_INTERRUPTIBILITY", blocked)
    machine.set_field("GUEST_RSP", STACK + 0x100)
    for place, value in zip(range(STACK + 0x100, STACK + 0x110, 4), (CODE + 2, CODE_0, 2), strict=False):
        machine.put(place, value)
    reason = run(machine, b"\x90\xcf\x90" + CPUID)
    assert (reason, machine.field("GUEST_RIP")) == (8, CODE + 2 if blocked else CODE)
    assert machine.field("GUEST_INTERRUPTIBILITY") == 0


@pytest.mark.parametrize("virtual", [True, False])
def test_iret_that_faults_has_ended_blocking(machine: VmxGuest, virtual: bool) -> None:
    """Bit 12 of the interruption information: the fault came of an IRET that had ended blocking by NMI."""
    machine.controls(pin=vmx.PIN_NMI_EXITING | (vmx.PIN_VIRTUAL_NMIS if virtual else 0))
    machine.set_field("EXCEPTION_BITMAP", 1 << GP)
    machine.set_field("GUEST_INTERRUPTIBILITY", vmx.BLOCKING_BY_NMI)
    machine.put(STACK + 0x104, 0x7070)
    machine.set_field("GUEST_RSP", STACK + 0x100)
    assert run(machine, b"\xcf") == 0
    assert machine.field("EXIT_INTERRUPTION") == VALID | HARDWARE | HAS_ERROR | GP | virtual << 12
    assert machine.field("GUEST_INTERRUPTIBILITY") == (0 if virtual else vmx.BLOCKING_BY_NMI)


def test_debug_traps_rank_above_the_timer_and_the_windows(machine: VmxGuest) -> None:
    machine.controls(pin=vmx.PIN_PREEMPTION_TIMER, processor=vmx.PROCESSOR_INTERRUPT_WINDOW_EXITING)
    machine.set_field("PREEMPTION_TIMER", 0)
    machine.set_field("GUEST_RFLAGS", IF | TF | 2)
    machine.set_field("GUEST_PENDING_DEBUG", vmx.PENDING_DEBUG_BS)
    machine.set_field("EXCEPTION_BITMAP", 1 << DB)
    assert run(machine, b"\x90" + CPUID) == 0
    assert machine.field("EXIT_INTERRUPTION") == VALID | HARDWARE | DB
    fresh(machine)
    machine.controls(pin=vmx.PIN_PREEMPTION_TIMER, processor=vmx.PROCESSOR_INTERRUPT_WINDOW_EXITING)
    machine.set_field("PREEMPTION_TIMER", 0)
    machine.set_field("GUEST_RFLAGS", IF | 2)
    assert (run(machine, b"\x90" + CPUID), machine.field("GUEST_RIP")) == (52, CODE)


# -- the procedure ------------------------------------------------------------------------------------------------------------


def test_state_is_saved_and_the_host_s_is_loaded(machine: VmxGuest) -> None:
    """What the guest entered with is what its exit saves; the host gets its own, and fixed parts of segments."""
    chance = random.Random(4)
    for _ in range(20):
        fresh(machine)
        values = {
            "GUEST_RSP": chance.randrange(1 << 32),
            "GUEST_RFLAGS": 2 | chance.choice([0, 1, 0x40, 0x80, 0x400, 0x800, 0x8D5, 0x200000]),
            "GUEST_SYSENTER_CS": chance.randrange(1 << 16),
            "GUEST_SYSENTER_ESP": chance.randrange(1 << 32),
            "GUEST_SYSENTER_EIP": chance.randrange(1 << 32),
            "GUEST_GDTR_BASE": chance.randrange(1 << 32),
            "GUEST_GDTR_LIMIT": chance.randrange(1 << 16),
            "GUEST_IDTR_BASE": chance.randrange(1 << 32),
            "GUEST_IDTR_LIMIT": chance.randrange(1 << 16),
            "GUEST_CR0": machine.field("GUEST_CR0") ^ chance.choice([0, CR0_TS, CR0_WP]),
            "GUEST_CR4": machine.field("GUEST_CR4") ^ chance.choice([0, 1 << 3, 1 << 7]),
        }
        for name, value in values.items():
            machine.set_field(name, value)
        for segment in (0, 3, 4, 5):
            base = chance.randrange(1 << 32)
            machine.set_field("GUEST_BASES", base, segment)
            machine.set_field("GUEST_SELECTORS", chance.randrange(1 << 14) << 2, segment)
            if chance.random() < 0.3:
                machine.set_field("GUEST_ACCESS_RIGHTS", 1 << 16, segment)
        host = {"HOST_FS_BASE": 0x1000, "HOST_GS_BASE": 0x2000, "HOST_SYSENTER_CS": 0x88, "HOST_SYSENTER_ESP": 5}
        for name, value in host.items():
            machine.set_field(name, value)
        machine.set_field("HOST_SELECTORS", 0, chance.choice([0, 3, 4, 5]))
        names = [*values, *(f"GUEST_{kind}" for kind in ("SELECTORS", "BASES", "LIMITS", "ACCESS_RIGHTS"))]
        before = {(name, n): machine.field(name, n) for name in names for n in range(8 if name[-1] == "S" else 1)}
        before = {place: value for place, value in before.items() if place[0] != "GUEST_RFLAGS" or place[1] == 0}
        kept = [int(value) for value in machine.gpr[[0, 1, 2, 3, 5, 6, 7]]]
        assert run(machine, CPUID) == 10
        after = {(name, n): machine.field(name, n) for name, n in before}
        assert after == before
        assert [int(value) for value in machine.gpr[[0, 1, 2, 3, 5, 6, 7]]] == kept
        cpu = machine.cpu
        for name in ("CR0", "CR3", "CR4", "SYSENTER_CS", "SYSENTER_ESP", "SYSENTER_EIP", "GDTR_BASE", "IDTR_BASE"):
            assert int(cpu[name.lower()]) == machine.field(f"HOST_{name}"), name
        assert (int(cpu.gdtr_limit), int(cpu.idtr_limit), int(cpu.cpl)) == (0xFFFF, 0xFFFF, 0)
        assert (int(machine.eflags), int(machine.gpr[4]), int(cpu.rip)) == (2, machine.field("HOST_RSP"), HOST_RIP)
        for segment in range(6):
            entry = cpu.seg[segment]
            selector = machine.field("HOST_SELECTORS", segment)
            rights = 0xC09B if segment == 1 else 0xC093 if selector else 0x1C093
            assert (int(entry.selector), int(entry.access), int(entry.limit)) == (selector, rights, 0xFFFFFFFF)
            assert int(entry.seg_base) == {4: 0x1000, 5: 0x2000}.get(segment, 0)
        task = cpu.seg[7]
        assert (int(task.selector), int(task.seg_base), int(task.limit), int(task.access)) == (0x28, TSS, 0x67, 0x8B)
        assert int(cpu.seg[6].access) & 1 << 16


def test_an_exit_takes_back_the_injection(machine: VmxGuest) -> None:
    """Bit 31 of the VM-entry interruption information is clear after an exit."""
    machine.set_field("ENTRY_INTERRUPTION", VALID | HARDWARE | UD)
    assert run(machine, CPUID) == 10
    assert (machine.field("ENTRY_INTERRUPTION"), machine.field("GUEST_RIP")) == (HARDWARE | UD, HANDLERS + 16 * UD)


def test_an_exit_amid_an_injection(machine: VmxGuest) -> None:
    """An injected event whose delivery faults: the vectoring information is that of the injection."""
    for information, length, told in (
        (VALID | HARDWARE | UD, 0, 0),
        (VALID | SOFTWARE_INTERRUPT | 0x15, 2, 2),
        (VALID | SOFTWARE | BP, 1, 1),
        (VALID | 0x1E, 0, 0),
    ):
        fresh(machine)
        machine.set_field("EXCEPTION_BITMAP", 1 << PF)
        machine.set_field("GUEST_RFLAGS", IF | 2)
        machine.set_field("GUEST_RSP", NO_PAGE + 0x100)
        machine.set_field("ENTRY_INTERRUPTION", information)
        machine.set_field("ENTRY_INSTRUCTION_LENGTH", length)
        assert run(machine, CPUID) == 0
        assert machine.field("VECTORING") == information
        assert machine.field("EXIT_INSTRUCTION_LENGTH") == told
        assert machine.field("GUEST_RIP") == CODE


def area(machine: VmxGuest, place: int, *rows: tuple[int, int]) -> None:
    """An MSR area."""
    for index, (number, value) in enumerate(rows):
        machine.put(place + 16 * index, number, 8)
        machine.put(place + 16 * index + 8, value, 8)


def test_msr_areas(machine: VmxGuest) -> None:
    """Guest MSRs are stored as the guest left them, then the host's are loaded, after those that have fields."""
    area(machine, 0x55000, (0x175, 0), (0x277, 0))
    area(machine, 0x56000, (0x175, 0x1111), (0x176, 0x2222))
    machine.set_field("EXIT_MSR_STORE_ADDRESS", 0x55000)
    machine.set_field("EXIT_MSR_STORE_COUNT", 2)
    machine.set_field("EXIT_MSR_LOAD_ADDRESS", 0x56000)
    machine.set_field("EXIT_MSR_LOAD_COUNT", 2)
    machine.set_field("GUEST_SYSENTER_ESP", 0x3333)
    pat = int(machine.cpu.msr.pat)
    assert run(machine, CPUID) == 10
    assert (machine.get(0x55008, 8), machine.get(0x55018, 8)) == (0x3333, pat & (1 << 64) - 1)
    assert (int(machine.cpu.sysenter_esp), int(machine.cpu.sysenter_eip)) == (0x1111, 0x2222)


@pytest.mark.parametrize(("which", "indicator"), [("STORE", 1), ("LOAD", 4)])
def test_aborts(machine: VmxGuest, which: str, indicator: int) -> None:
    """An MSR that cannot be stored or loaded: VMX abort, and the processor shuts down."""
    area(machine, 0x55000, (0x175, 0), (0x12345, 0))
    machine.set_field(f"EXIT_MSR_{which}_ADDRESS", 0x55000)
    machine.set_field(f"EXIT_MSR_{which}_COUNT", 2)
    machine.write_code(CPUID)
    assert machine.enter_and_run() == 4  # SHUTDOWN
    assert machine.get(0x51000 + vmx.REGION_ABORT) == indicator


def test_each_exit_is_counted_and_priced_once(machine: VmxGuest) -> None:
    """One event per exit, in the guest's mode; the instruction that exits is neither retired nor charged."""
    cpu = machine.cpu
    number = vmx.REASON["cpuid"]
    names = [reason.number for reason in vmx.EXIT_REASONS]
    event = EVENT_EXIT_EXCEPTION_OR_NMI + names.index(number)
    cpu.mode_table[4:] = 3
    machine.write_code(b"\x90" + CPUID)
    machine.enter()
    retired, counted = int(cpu.retired), int(cpu.ledger_count[event].sum())
    assert machine.processor.run() == HOOK
    assert int(cpu.retired) - retired == 1
    assert (int(cpu.ledger_count[event].sum()) - counted, int(cpu.ledger_count[event, 3])) == (1, 1)
    assert machine.gpr[ECX] == 0

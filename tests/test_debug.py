"""Debug exceptions: breakpoints against an independent model, single steps, RF, general detect (SDM volume 3, chapter 17).

The model of matching is sets of bytes: a breakpoint covers its aligned range, an access the bytes that it touches.
"""

from __future__ import annotations

import itertools
import random

import pytest
from bare_machine import (
    CODE,
    CODE_0,
    DATA,
    DATA_0,
    EAX,
    EBX,
    ECX,
    EDI,
    EDX,
    ESI,
    ESP,
    HANDLERS,
    IDT,
    IF,
    STACK,
    TF,
    BareMachine,
)  # fmt: skip

from x86virt.core.layout import BUDGET

RF = 1 << 16
B0, B1, B2, B3, BD, BS, BT = 1, 2, 4, 8, 1 << 13, 1 << 14, 1 << 15
GD, LE, GE = 1 << 13, 1 << 8, 1 << 9
EXECUTE, WRITE, PORT, ACCESS = 0, 1, 2, 3
LENGTHS = {0: 1, 1: 2, 2: 8, 3: 4}
CR4_DE = 8
TOP = STACK + 0x2000
HLT = b"\xf4"


@pytest.fixture(scope="module")
def machine() -> BareMachine:
    """One machine for all cases."""
    return BareMachine()


def fresh(machine: BareMachine, code: bytes, ring: int = 0) -> None:
    """Code at CODE, no breakpoints."""
    machine.power_on()
    machine.unlimited()
    machine.ring(ring)
    machine.write_code(code)


def enable(machine: BareMachine, number: int, address: int, kind: int, length: int = 0, by: int = 1) -> None:
    """Set one breakpoint; `by` 1 is the local, 2 the global enable bit."""
    machine.processor.set_debug_register(number, address)
    control = int(machine.cpu.dr[7]) | by << 2 * number | (kind | length << 2) << 16 + 4 * number
    machine.processor.set_debug_register(7, control)


def frame(machine: BareMachine) -> tuple[int, int]:
    """EIP and EFLAGS of the frame that the last delivery pushed."""
    esp = int(machine.gpr[ESP])
    return machine.get(esp), machine.get(esp + 8)


def dr6(machine: BareMachine) -> int:
    """The conditions in DR6."""
    return int(machine.cpu.dr[6]) & 0xE00F


def next_debug(machine: BareMachine) -> tuple[int, int, int]:
    """Run to #DB: (EIP, DR6, RF pushed); DR6 is cleared and execution ready to go on as IRETD would."""
    stopped = machine.stopped_at(machine.processor.run())
    assert stopped == "vector 1", stopped
    eip, flags = frame(machine)
    seen = dr6(machine)
    machine.processor.set_debug_register(6, 0)
    return eip, seen, flags >> 16 & 1


def resume(machine: BareMachine, resume_flag: bool = False) -> None:
    """What the handler's IRETD does, with RF in the image or not."""
    eip, flags = frame(machine)
    machine.gpr[ESP] += 12
    machine.cpu.rip = eip
    machine.eflags = flags & ~RF | resume_flag * RF


# -- matching, against the model -------------------------------------------------------------------------------------------


def covered(address: int, length_field: int) -> set[int]:
    """The bytes that a breakpoint covers: its length, aligned."""
    length = LENGTHS[length_field]
    first = address // length * length
    return set(range(first, first + length))


READS = {1: b"\x8a\x03", 2: b"\x66\x8b\x03", 4: b"\x8b\x03"}  # MOV accumulator, [EBX]
WRITES = {1: b"\x88\x03", 2: b"\x66\x89\x03", 4: b"\x89\x03"}
UPDATES = {1: b"\xfe\x03", 2: b"\x66\xff\x03", 4: b"\xff\x03"}  # INC [EBX]


@pytest.mark.parametrize("kind", [WRITE, ACCESS])
@pytest.mark.parametrize("forms", [READS, WRITES, UPDATES], ids=["read", "write", "update"])
def test_data_breakpoints(machine: BareMachine, kind: int, forms: dict[int, bytes], capsys) -> None:
    """Every length, alignment of the breakpoint and offset and width of the access; in a block, behind other code."""
    cases = hits = 0
    for width, octets in forms.items():
        fresh(machine, b"\x90" + octets + b"\x46" + HLT)  # NOP, the access, INC ESI, HLT
        after = CODE + 1 + len(octets)
        for length, offset in itertools.product(LENGTHS, range(9)):
            machine.processor.set_debug_register(7, 0)
            enable(machine, cases % 4, DATA + 16 + offset, kind, length, 1 + cases % 2)
            for place in range(4, 32, 3 if length == 2 else 2):
                expected = bool(covered(DATA + 16 + offset, length) & set(range(DATA + place, DATA + place + width)))
                expected &= kind == ACCESS or forms is not READS
                machine.gpr[ESP], machine.gpr[EBX], machine.gpr[ESI] = TOP, DATA + place, 0
                machine.eflags = 2
                machine.processor.set_debug_register(6, 0)
                enabled = next(n for n in range(4) if int(machine.cpu.dr[7]) >> 2 * n & 3)
                stopped = machine.stopped_at(machine.go())
                machine.ring(0)
                if expected:
                    assert (stopped, frame(machine)[0], dr6(machine)) == ("vector 1", after, 1 << enabled)
                    assert machine.gpr[ESI] == 0 and not frame(machine)[1] & RF
                    hits += 1
                else:
                    assert (stopped, dr6(machine)) == (after + 1, 0)
                cases += 1
    with capsys.disabled():
        print(f" {cases} cases, {hits} hits", end="")
    assert forms is READS and kind == WRITE or hits > 50


IN = {1: b"\xec", 2: b"\x66\xed", 4: b"\xed"}
OUT = {1: b"\xee", 2: b"\x66\xef", 4: b"\xef"}


@pytest.mark.parametrize("forms", [IN, OUT], ids=["in", "out"])
def test_port_breakpoints(machine: BareMachine, forms: dict[int, bytes], capsys) -> None:
    """IN and OUT of every width at every offset; only with CR4.DE."""
    cases = hits = 0
    for width, octets in forms.items():
        for de, length, offset, place in itertools.product((0, 1), LENGTHS, range(5), range(14)):
            fresh(machine, octets + HLT) if place == 0 else None
            machine.cpu.cr4 = de * CR4_DE
            machine.processor.set_debug_register(7, 0)
            machine.processor.set_debug_register(6, 0)
            enable(machine, 2, 0x304 + offset, PORT, length)
            machine.gpr[EDX], machine.gpr[ESP] = 0x300 + place, TOP
            machine.eflags = 2
            stopped = machine.stopped_at(machine.go())
            touched = set(range(0x300 + place, 0x300 + place + width))
            if de and covered(0x304 + offset, length) & touched:
                assert (stopped, frame(machine)[0], dr6(machine)) == ("vector 1", CODE + len(octets), B2)
                hits += 1
            else:
                assert (stopped, dr6(machine)) == (CODE + len(octets), 0)
            cases += 1
    machine.cpu.cr4 = 0
    with capsys.disabled():
        print(f" {cases} cases, {hits} hits", end="")
    assert hits > 50


def test_code_breakpoints_anywhere_in_a_block(machine: BareMachine) -> None:
    """At each byte of straight code, first or later in the block, run before or not: #DB only where one begins."""
    code = b"\x40\xbb" + (5).to_bytes(4, "little") + b"\x41\x42\x90\x46" + HLT
    starts = {0, 1, 6, 7, 8, 9, 10}
    for offset, length, executed, by in itertools.product(range(11), (0, 3), (False, True), (1, 2)):
        fresh(machine, code)
        if executed:
            machine.go()
            machine.gpr[:8] = [0, 0, 0, 0, TOP, 0, 0, 0]
        enable(machine, 3, CODE + offset, EXECUTE, length, by)
        stopped = machine.stopped_at(machine.go())
        if offset in starts:
            assert (stopped, frame(machine)[0], dr6(machine)) == ("vector 1", CODE + offset, B3)
            assert machine.gpr[EAX] == int(offset > 0) and machine.gpr[ESI] == int(offset > 9)
            assert frame(machine)[1] & RF == 0  # the handler is to set it (17.3.1.1)
        else:
            assert stopped == CODE + 10
        machine.processor.set_debug_register(7, 0)
        machine.gpr[:8] = [0, 0, 0, 0, TOP, 0, 0, 0]
        assert machine.stopped_at(machine.go()) == CODE + 10


def test_four_breakpoints_at_random(machine: BareMachine, capsys) -> None:
    """Random contents of all four and of DR7 against the model; DR6 tells all that matched and are enabled."""
    random_ = random.Random(17)
    hits, cases = 0, 1500
    fresh(machine, READS[4] + WRITES[2] + b"\x46" + HLT)
    for _ in range(cases):
        machine.eflags = 2
        machine.gpr[:8] = [0, 0, 0, DATA + random_.randrange(4, 24), TOP, 0, 0, 0]
        control = random_.getrandbits(32) & 0xFFFF03FF
        addresses = [DATA + random_.randrange(32) for _ in range(4)]
        for number in range(4):
            if control >> 16 + 4 * number & 3 == EXECUTE:
                control &= ~(3 << 2 * number)
            machine.processor.set_debug_register(number, addresses[number])
        machine.processor.set_debug_register(7, control)
        expected = []
        for width, kinds, after in ((4, (ACCESS,), CODE + 2), (2, (ACCESS, WRITE), CODE + 5)):
            touched = set(range(int(machine.gpr[EBX]), int(machine.gpr[EBX]) + width))
            bits = 0
            for number, address in enumerate(addresses):
                kind, length = control >> 16 + 4 * number & 3, control >> 18 + 4 * number & 3
                if control >> 2 * number & 3 and kind in kinds and covered(address, length) & touched:
                    bits |= 1 << number
            if bits:
                expected.append((after, bits, 0))
        machine.cpu.rip, machine.cpu.halted = CODE, 0
        machine.processor.set_debug_register(6, 0)
        for row in expected:
            assert next_debug(machine) == row
            resume(machine)
            hits += 1
        assert machine.stopped_at(machine.processor.run()) == CODE + 6
    with capsys.disabled():
        print(f" {cases} cases, {hits} hits", end="")


# -- instruction breakpoints and RF ------------------------------------------------------------------------------------------


def test_resume_flag_passes_over_one_breakpoint(machine: BareMachine) -> None:
    fresh(machine, b"\x40\x40\x40" + HLT)
    enable(machine, 0, CODE + 1, EXECUTE)
    enable(machine, 1, CODE + 2, EXECUTE)
    machine.cpu.rip = CODE
    assert next_debug(machine) == (CODE + 1, B0, 0)
    resume(machine)
    assert next_debug(machine) == (CODE + 1, B0, 0)  # without RF the breakpoint is met again
    resume(machine, resume_flag=True)
    assert next_debug(machine) == (CODE + 2, B1, 0)  # RF was good for one instruction


def test_iretd_loads_rf_and_popf_does_not(machine: BareMachine) -> None:
    """IRETD to a breakpoint with RF set executes it; POPFD leaves RF clear."""
    fresh(machine, b"\xcf")
    machine.write_code(b"\x40" + HLT, CODE + 0x20)
    enable(machine, 0, CODE + 0x20, EXECUTE)
    for place, value in enumerate((CODE + 0x20, CODE_0, 2 | RF)):
        machine.put(int(machine.gpr[ESP]) - 12 + 4 * place, value)
    machine.gpr[ESP] -= 12
    assert machine.stopped_at(machine.go()) == CODE + 0x21
    assert machine.gpr[EAX] == 1 and not int(machine.cpu.eflags) & RF
    fresh(machine, b"\x9d\x40" + HLT)
    enable(machine, 0, CODE + 1, EXECUTE)
    machine.put(TOP - 4, 2 | RF)
    machine.gpr[ESP] = TOP - 4
    assert machine.stopped_at(machine.go()) == "vector 1"


@pytest.mark.parametrize(("code", "vector"), [(b"\x0f\x0b", 6), (b"\xf7\xf1", 0), (b"\x0f\x30", 13)])
def test_faults_push_rf(machine: BareMachine, code: bytes, vector: int) -> None:
    """A fault-class exception pushes RF as 1, a software interrupt as 0."""
    fresh(machine, code)
    assert machine.stopped_at(machine.go()) == f"vector {vector}"
    offset = 4 if vector == 13 else 0
    assert machine.get(int(machine.gpr[ESP]) + offset + 8) & RF
    fresh(machine, b"\xcd\x10")
    machine.eflags = 2 | RF
    machine.go()
    assert not frame(machine)[1] & RF


def test_breakpoint_comes_before_faults_of_fetching_and_decoding(machine: BareMachine) -> None:
    """Table 6-2: the fault of an instruction breakpoint comes before an absent page and an invalid opcode."""
    for page_present in (False, True):
        fresh(machine, b"\xeb\x00")
        machine.write_code(b"\x0f\x0b", 0x1E000)
        machine.paging()
        machine.write_code(b"\xe9" + (0x1E000 - CODE - 5).to_bytes(4, "little"))
        if not page_present:
            machine.set_page(0x1E000, 0, 0)
        enable(machine, 0, 0x1E000, EXECUTE)
        machine.cpu.rip = CODE
        assert next_debug(machine) == (0x1E000, B0, 0)
        resume(machine, resume_flag=True)
        assert machine.stopped_at(machine.processor.run()) == ("vector 6" if page_present else "vector 14")


def test_general_detect(machine: BareMachine) -> None:
    """GD: #DB before MOV DR, BD, RF pushed; GD is cleared, so that the handler may use the registers."""
    for code in (b"\x0f\x21\xf8", b"\x0f\x23\xc0"):
        fresh(machine, b"\x90" + code + HLT)
        machine.processor.set_debug_register(7, GD)
        machine.cpu.rip = CODE
        assert next_debug(machine) == (CODE + 1, BD, 1)
        assert not int(machine.cpu.dr[7]) & GD
        resume(machine)
        assert machine.stopped_at(machine.processor.run()) == CODE + 4


@pytest.mark.parametrize("number", range(8))
def test_debug_registers_hold(machine: BareMachine, number: int) -> None:
    """MOV DR and back: reserved bits, DR4 and DR5 as DR6 and DR7, #UD for them under CR4.DE, #GP above ring 0."""
    value = 0x1234C00F
    fixed = {6: 0xFFFF0FF0 | value & 0xE00F, 7: 0x400 | value & 0xFFFF2BFF}
    expected = fixed.get(number + 2 if number in (4, 5) else number, value)
    code = bytes([0x0F, 0x23, 0xC0 | number << 3]) + bytes([0x0F, 0x21, 0xC1 | number << 3]) + HLT
    fresh(machine, code)
    machine.gpr[EAX] = value
    assert machine.stopped_at(machine.go()) == CODE + 6
    assert machine.gpr[ECX] == expected
    machine.cpu.cr4 = CR4_DE
    assert machine.stopped_at(machine.go()) == ("vector 6" if number in (4, 5) else CODE + 6)
    machine.cpu.cr4 = 0
    fresh(machine, code, ring=3)
    assert machine.stopped_at(machine.go()) == "vector 13"


def test_exact_flags_change_nothing(machine: BareMachine) -> None:
    """LE and GE are kept and ignored."""
    fresh(machine, WRITES[4] + HLT)
    machine.gpr[EBX] = DATA
    machine.processor.set_debug_register(7, LE | GE)
    assert machine.stopped_at(machine.go()) == CODE + 2
    assert int(machine.cpu.dr[7]) == 0x700


# -- traps -----------------------------------------------------------------------------------------------------------------


def test_single_step_traps_after_each_instruction(machine: BareMachine) -> None:
    fresh(machine, b"\x40\xeb\x00\x43" + HLT)
    machine.eflags = 2 | TF
    machine.cpu.rip = CODE
    for eip in (CODE + 1, CODE + 3, CODE + 4, CODE + 5):
        assert next_debug(machine) == (eip, BS, 0)
        assert machine.cpu.halted == 0  # the trap after HLT wakes the processor
        assert not int(machine.cpu.eflags) & TF
        resume(machine)


def test_popf_that_sets_tf_traps_after_the_next_instruction(machine: BareMachine) -> None:
    fresh(machine, b"\x9d\x40\x43" + HLT)
    machine.gpr[ESP] -= 4
    machine.put(int(machine.gpr[ESP]), 2 | TF)
    machine.cpu.rip = CODE
    assert next_debug(machine)[:2] == (CODE + 2, BS)


def test_popf_that_clears_tf_is_still_followed_by_a_trap(machine: BareMachine) -> None:
    fresh(machine, b"\x9d\x40" + HLT)
    machine.gpr[ESP] -= 4
    machine.put(int(machine.gpr[ESP]), 2)
    machine.eflags = 2 | TF
    machine.cpu.rip = CODE
    assert next_debug(machine)[:2] == (CODE + 1, BS)
    assert not frame(machine)[1] & TF


def test_iret_that_sets_tf_traps_after_the_next_instruction(machine: BareMachine) -> None:
    fresh(machine, b"\xcf\x40\x43" + HLT)
    for place, value in enumerate((CODE + 1, CODE_0, 2 | TF)):
        machine.put(TOP - 12 + 4 * place, value)
    machine.gpr[ESP] = TOP - 12
    machine.cpu.rip = CODE
    assert next_debug(machine)[:2] == (CODE + 2, BS)


@pytest.mark.parametrize("code", [b"\xcd\x20", b"\xcc"])
def test_int_n_clears_tf_and_is_not_followed_by_a_trap(machine: BareMachine, code: bytes) -> None:
    fresh(machine, code)
    vector = 3 if code == b"\xcc" else 0x1F
    machine.write_code(b"\xcd\x1f" if vector == 0x1F else code)
    machine.eflags = 2 | TF
    assert machine.stopped_at(machine.go()) == f"vector {vector}"
    assert frame(machine)[1] & TF and dr6(machine) == 0


def test_fault_under_tf_has_no_trap_of_its_own(machine: BareMachine) -> None:
    fresh(machine, b"\x0f\x0b")
    machine.eflags = 2 | TF
    assert machine.stopped_at(machine.go()) == "vector 6"
    assert dr6(machine) == 0 and frame(machine)[1] & TF


def test_repeated_string_traps_after_each_iteration(machine: BareMachine) -> None:
    """TF: every iteration but the last leaves EIP at the instruction and pushes RF."""
    fresh(machine, b"\xf3\xaa\x90" + HLT)
    machine.gpr[ECX], machine.gpr[EDI] = 3, DATA
    machine.eflags = 2 | TF
    machine.cpu.rip = CODE
    rows = []
    for _ in range(4):
        rows.append((*next_debug(machine), int(machine.gpr[ECX])))
        resume(machine)
    assert rows == [(CODE, BS, 1, 2), (CODE, BS, 1, 1), (CODE + 2, BS, 0, 0), (CODE + 3, BS, 0, 0)]


def test_data_breakpoint_in_a_repeated_string(machine: BareMachine) -> None:
    """The trap comes after the iteration that met it; the rest follows when it goes on."""
    fresh(machine, b"\xf3\xab" + HLT)
    machine.gpr[ECX], machine.gpr[EDI], machine.gpr[EAX] = 8, DATA, 0x55
    enable(machine, 0, DATA + 12, WRITE, 3)
    machine.cpu.rip = CODE
    assert next_debug(machine) == (CODE, B0, 1)
    assert (machine.gpr[ECX], machine.gpr[EDI]) == (4, DATA + 16)
    resume(machine)
    assert machine.stopped_at(machine.processor.run()) == CODE + 2
    assert machine.get(DATA + 28) == 0x55 and machine.gpr[ECX] == 0


def test_data_breakpoint_on_the_last_iteration(machine: BareMachine) -> None:
    fresh(machine, b"\xf3\xaa" + HLT)
    machine.gpr[ECX], machine.gpr[EDI] = 4, DATA
    enable(machine, 1, DATA + 3, ACCESS)
    machine.cpu.rip = CODE
    assert next_debug(machine) == (CODE + 2, B1, 0)


@pytest.mark.parametrize(
    "octets,kind,length",
    [(b"\xdb\x3b", WRITE, 10), (b"\xdd\x13", WRITE, 8), (b"\xd9\x03", ACCESS, 4), (b"\xdd\x33", WRITE, 108)],
    ids=["fstp m80", "fst m64", "fld m32", "fnsave"],
)
def test_data_breakpoint_on_the_last_byte_of_an_x87_operand(
    machine: BareMachine, octets: bytes, kind: int, length: int
) -> None:
    """Behind other code of its block, and not on the byte behind it."""
    for place, met in ((length - 1, True), (length, False)):
        fresh(machine, b"\x9b\xdb\xe3\xd9\xe8" + octets + HLT)  # FINIT, FLD1
        machine.gpr[EBX] = DATA
        enable(machine, 2, DATA + place, kind)
        machine.cpu.rip = CODE
        if met:
            assert next_debug(machine) == (CODE + 5 + len(octets), B2, 0)
        else:
            assert machine.stopped_at(machine.processor.run()) == CODE + 5 + len(octets)


def test_traps_of_one_instruction_are_one_exception(machine: BareMachine) -> None:
    """A step and two data breakpoints: one #DB with all three conditions."""
    fresh(machine, b"\xa4" + HLT)
    machine.gpr[ESI], machine.gpr[EDI] = DATA, DATA + 0x100
    enable(machine, 1, DATA, ACCESS)
    enable(machine, 2, DATA + 0x100, WRITE)
    machine.eflags = 2 | TF
    machine.cpu.rip = CODE
    assert next_debug(machine) == (CODE + 1, BS | B1 | B2, 0)


def test_fault_forgets_what_its_instruction_met(machine: BareMachine) -> None:
    """MOVS reads a watched byte and its write faults: #PF alone, and the trap when it completes."""
    fresh(machine, b"\xa4" + HLT)
    machine.paging()
    machine.set_page(DATA + 0x1000, 0, 0)
    machine.gpr[ESI], machine.gpr[EDI] = DATA, DATA + 0x1000
    enable(machine, 0, DATA, ACCESS)
    assert machine.stopped_at(machine.go()) == "vector 14"
    assert dr6(machine) == 0
    machine.set_page(DATA + 0x1000, DATA + 0x1000, 7)
    machine.gpr[ESP] += 4
    resume(machine, resume_flag=True)
    assert next_debug(machine) == (CODE + 1, B0, 0)


def test_delivery_meets_data_breakpoints(machine: BareMachine) -> None:
    """A push of the delivery of #UD hits: the trap comes before the handler's first instruction."""
    fresh(machine, b"\x0f\x0b")
    machine.cpu.hook_first, machine.cpu.hook_last = HANDLERS + 16, HANDLERS + 31
    enable(machine, 0, TOP - 8, WRITE, 3)
    machine.cpu.rip = CODE
    assert next_debug(machine) == (HANDLERS + 16 * 6, B0, 0)


def test_trap_comes_before_an_external_interrupt(machine: BareMachine) -> None:
    """Table 6-2: the debug trap first; its interrupt gate clears IF, so that the interrupt waits."""
    fresh(machine, b"\x90\x90" + HLT)
    machine.cpu.timer_pending, machine.cpu.timer_vector = 0, 0x1E
    machine.cpu.timer = 1
    machine.eflags = 2 | TF | IF
    machine.cpu.rip = CODE
    eip, seen, _ = next_debug(machine)
    assert (eip, seen) == (CODE + 1, BS)
    assert machine.cpu.timer_pending == 1 or int(machine.cpu.timer) == 1
    resume(machine)
    machine.eflags = 2 | IF
    assert machine.stopped_at(machine.processor.run()) == "vector 30"


MOV_SS = b"\x8e\xd0"  # MOV SS, AX
POP_SS = b"\x17"


@pytest.mark.parametrize("load", [MOV_SS, POP_SS])
def test_load_of_ss_holds_the_single_step_trap(machine: BareMachine, load: bytes) -> None:
    """No trap after MOV SS or POP SS; one after the next instruction (6.8.3)."""
    fresh(machine, load + b"\x40\x43" + HLT)
    machine.gpr[EAX] = DATA_0
    machine.put(TOP - 4, DATA_0)
    machine.gpr[ESP] = TOP - 4
    machine.eflags = 2 | TF
    machine.cpu.rip = CODE
    assert next_debug(machine)[:2] == (CODE + len(load) + 1, BS)


def test_load_of_ss_suppresses_the_next_instruction_breakpoint(machine: BareMachine) -> None:
    fresh(machine, MOV_SS + b"\x90\x43" + HLT)
    machine.gpr[EAX] = DATA_0
    enable(machine, 0, CODE + 2, EXECUTE)
    enable(machine, 1, CODE + 3, EXECUTE)
    machine.cpu.rip = CODE
    assert next_debug(machine) == (CODE + 3, B1, 0)


def test_data_breakpoint_of_pop_ss_is_held(machine: BareMachine) -> None:
    """What POP SS meets is raised after the next instruction, with what that one meets; before INT 3's handler runs."""
    fresh(machine, POP_SS + b"\x90" + HLT)
    machine.put(TOP - 4, DATA_0)
    machine.gpr[ESP] = TOP - 4
    enable(machine, 0, TOP - 4, ACCESS, 3)
    machine.cpu.rip = CODE
    assert next_debug(machine) == (CODE + 2, B0, 0)
    fresh(machine, POP_SS + b"\xcc")
    machine.put(TOP - 4, DATA_0)
    machine.gpr[ESP] = TOP - 4
    machine.cpu.hook_first, machine.cpu.hook_last = HANDLERS + 16, HANDLERS + 31
    enable(machine, 0, TOP - 4, ACCESS, 3)
    machine.cpu.rip = CODE
    assert next_debug(machine)[:2] == (HANDLERS + 16 * 3, B0)


def test_sti_holds_interrupts_but_not_traps(machine: BareMachine) -> None:
    fresh(machine, b"\xfb\x90" + HLT)
    machine.eflags = 2 | TF
    machine.cpu.rip = CODE
    assert next_debug(machine)[:2] == (CODE + 1, BS)


def test_lss_holds_nothing(machine: BareMachine) -> None:
    fresh(machine, b"\x0f\xb2\x03\x90" + HLT)
    machine.gpr[EBX] = DATA
    machine.put(DATA, TOP | DATA_0 << 32, 8)
    machine.eflags = 2 | TF
    machine.cpu.rip = CODE
    assert next_debug(machine)[:2] == (CODE + 3, BS)


def test_a_pending_task_trap_is_raised(machine: BareMachine) -> None:
    """BT, as a task switch to a TSS with the T flag leaves it: before the first instruction of the task."""
    fresh(machine, b"\x90" + HLT)
    machine.cpu.debug_pending = BT
    machine.cpu.rip = CODE
    assert next_debug(machine) == (CODE, BT, 0)


def test_ring_3_steps_and_breakpoints(machine: BareMachine) -> None:
    fresh(machine, b"\x40" + READS[4] + HLT, ring=3)
    machine.gpr[EBX] = DATA
    enable(machine, 0, DATA, ACCESS, 3)
    machine.eflags = 2 | TF
    machine.cpu.rip = CODE
    assert next_debug(machine)[:2] == (CODE + 1, BS)
    assert machine.cpu.cpl == 0


# -- nothing depends on it -----------------------------------------------------------------------------------------------


def test_cycles_do_not_depend_on_breakpoints(machine: BareMachine) -> None:
    """Breakpoints that are not met change no cycle and no ledger cell: near the code and in the same data page."""
    code = b"\xb9\x40\x00\x00\x00" + b"\x89\x03\x8b\x03\xff\x03\x50\x58\xe2\xf6" + HLT
    results = []
    for breakpoints in range(4):
        fresh(machine, code)
        machine.paging()
        machine.gpr[EBX] = DATA
        if breakpoints & 1:
            enable(machine, 0, CODE + 6, EXECUTE)  # within an instruction
        if breakpoints & 2:
            enable(machine, 1, DATA + 8, ACCESS, 3)
            enable(machine, 2, TOP + 8, ACCESS, 3)
        assert machine.stopped_at(machine.go()) == CODE + len(code) - 1
        results.append((int(machine.cpu.ticks), machine.cpu.ledger_count.tobytes(), machine.registers()))
    assert results.count(results[0]) == 4


def test_budget_between_instruction_and_trap(machine: BareMachine) -> None:
    """Slices of one tick see the same traps at the same tick."""
    seen = []
    for sliced in (False, True):
        fresh(machine, WRITES[4] + b"\x43" + HLT)
        machine.gpr[EBX] = DATA
        machine.cpu.hook_first, machine.cpu.hook_last = HANDLERS + 16, HANDLERS + 31
        enable(machine, 0, DATA, WRITE)
        machine.cpu.rip = CODE
        if sliced:
            machine.cpu.budget = 1
            while (outcome := machine.processor.run()) == BUDGET:
                machine.cpu.budget += 7
            assert machine.stopped_at(outcome) == "vector 1"
        else:
            assert machine.stopped_at(machine.processor.run()) == "vector 1"
        seen.append((int(machine.cpu.ticks), frame(machine), dr6(machine), int(machine.cpu.retired)))
    assert seen[0] == seen[1]




def test_int1_is_a_trap_without_a_condition(machine: BareMachine) -> None:
    """INT1 (F1): #DB behind it, no bit in DR6, no look at the gate's DPL, no trap of its own under TF."""
    fresh(machine, b"\xf1", ring=3)
    machine.memory[IDT + 8 + 5] &= 0x9F  # DPL 0
    machine.eflags = 2 | TF
    machine.cpu.rip = CODE
    assert next_debug(machine) == (CODE + 1, 0, 0)

"""Real-address mode: the state after reset, the ways in and out, segment loads, the vector table, faults, shutdown.

The code runs in a segment whose D bit is set where 32-bit encodings are wanted: real-address mode keeps the bit.
"""

import pytest
from bare_machine import CODE, CS, DATA, DS, EAX, ESP, HANDLERS, HLT, IF, SS, TF, BareMachine

from x86virt.core.entries import enter_level
from x86virt.core.layout import HALTED_FOREVER, OK, SHUTDOWN

MACHINE = BareMachine()
CPU = MACHINE.cpu
VECTORS = 0x2800  # the vector table, where IDTR points
REAL_STACK = 0x3000  # paragraph
ENTRY = 0x40
AC = 1 << 18


def segment(number):
    """Selector, base, limit and access of a segment register."""
    cache = CPU.seg[number]
    return int(cache.selector), int(cache.seg_base), int(cache.limit), int(cache.access)


def real(stack_limit=0xFFFF, pointer=0x2000):
    """Real-address mode with a vector table whose entry n names the handler n in segment 0, and flat 32-bit code."""
    MACHINE.power_on()
    CPU.cr0 = 0x10
    for number in (0, DS, 4, 5):
        MACHINE.processor.set_segment(number, 0, 0, 0xFFFF, 0x93)
    MACHINE.processor.set_segment(CS, 0, 0, 0xFFFFF, 0x4093)
    MACHINE.processor.set_segment(SS, REAL_STACK, REAL_STACK << 4, stack_limit, 0x93)
    for vector in range(64):
        MACHINE.put(VECTORS + 4 * vector, HANDLERS + 16 * vector)
    CPU.idtr_base, CPU.idtr_limit = VECTORS, 0x3FF
    MACHINE.gpr[ESP] = pointer
    MACHINE.eflags = 2
    MACHINE.unlimited()
    enter_level(MACHINE.processor.state, 0)


def run(code, single=False):
    """Run code from CODE up to HLT or a handler."""
    MACHINE.write_code(bytes.fromhex(code).ljust(32, HLT))
    return MACHINE.stopped_at(MACHINE.go(single=single)) if not single else MACHINE.go(single=True)


def frame(count=3, n=2):
    """The top of the real-mode stack."""
    top = (REAL_STACK << 4) + (int(MACHINE.gpr[ESP]) & 0xFFFF)
    return [MACHINE.get(top + n * place, n) for place in range(count)]


def test_reset_state():
    """SDM volume 3, table 9-1."""
    MACHINE.power_on()
    MACHINE.processor.reset_real()
    assert (CPU.rip, CPU.cr0, CPU.cpl, MACHINE.eflags) == (0xFFF0, 0x60000010, 0, 2)
    assert segment(CS) == (0xF000, 0xFFFF0000, 0xFFFF, 0x93)
    assert [segment(number) for number in (0, SS, DS, 4, 5)] == [(0, 0, 0xFFFF, 0x93)] * 5
    assert (CPU.idtr_base, CPU.idtr_limit) == (0, 0x3FF)
    assert MACHINE.gpr[2] == CPU.cpuid[1][0] != 0


def test_segment_load_keeps_limit_and_rights():
    """MOV DS in real-address mode changes selector and base; a limit loaded in protected mode stays ("unreal" mode)."""
    real()
    MACHINE.processor.set_segment(DS, 0x10, 0, 0xFFFFFFFF, 0xC093)
    assert run("B8 34120000 8ED8 A1 00004000") == CODE + 12
    assert segment(DS) == (0x1234, 0x12340, 0xFFFFFFFF, 0xC093)
    assert MACHINE.gpr[EAX] == 0xFFFFFFFF  # beyond RAM, not beyond the segment


def test_limit_violations():
    """A data access beyond 64 KB is vector 13, a stack access vector 12; no error code is pushed."""
    real()
    assert run("A1 00000100") == "vector 13"
    assert frame() == [CODE & 0xFFFF, 0, 2]
    real()
    assert run("36 A1 FDFF0000") == "vector 12"
    assert frame() == [CODE & 0xFFFF, 0, 2]


def test_interrupt_and_return():
    """INT n pushes FLAGS, CS and IP and clears IF, TF and AC; IRET takes them back."""
    real()
    MACHINE.eflags = 2 | IF | AC | 1
    assert run("CD 21 F4") == "vector 33"
    assert frame() == [(CODE + 2) & 0xFFFF, 0, 2 | IF | 1]
    assert MACHINE.eflags == 2 | 1
    MACHINE.put((REAL_STACK << 4) + 0x2000 - 6, 0x100)
    MACHINE.write_code(b"\x66\xcf")
    MACHINE.processor.set_segment(CS, 0, 0, 0xFFFFF, 0x4093)
    enter_level(MACHINE.processor.state, 0)
    assert MACHINE.go(single=True) == OK
    assert (CPU.rip, MACHINE.eflags, MACHINE.gpr[ESP]) == (0x100, 2 | IF | 1, 0x2000)


def test_iretd_keeps_virtual_flags():
    """IRETD in real-address mode loads EFLAGS but for VM, VIF and VIP."""
    real(pointer=0x1000)
    for place, value in enumerate((0x8765, 0xABCD0123, 0xFFFFFFFF & ~TF)):
        MACHINE.put((REAL_STACK << 4) + 0x1000 + 4 * place, value)
    assert run("CF", single=True) == OK
    assert CPU.rip == 0x8765 and segment(CS)[:2] == (0x123, 0x1230)
    assert MACHINE.eflags & (7 << 17 | 1 << 20 | 3 << 12 | 1 << 21) == AC | 3 << 12 | 1 << 21


def test_vector_beyond_the_table():
    """A vector that the limit cuts off is vector 13; when that is cut off too, a double fault, then shutdown."""
    real()
    CPU.idtr_limit = 4 * 0x21 + 2
    assert run("CD 21") == "vector 13"
    assert frame()[0] == CODE & 0xFFFF
    real()
    CPU.idtr_limit = 4 * 13 + 2
    assert run("CD 21") == "vector 8"
    real()
    CPU.idtr_limit = 4 * 8 + 2
    assert run("CD 21") == f"outcome {SHUTDOWN}"


def test_stack_without_room():
    """With SP = 1 nothing can be pushed: the processor shuts down."""
    real(pointer=1)
    assert run("CD 21") == f"outcome {SHUTDOWN}"


def test_flags_and_halt():
    """CLI, STI, PUSHF, POPF and HLT run unhindered, IOPL included."""
    real()
    assert run("FB 66 9C FA 66 9D F4") == CODE + 6
    assert MACHINE.eflags & IF
    real()
    MACHINE.gpr[EAX] = 0x3002
    assert run("66 50 66 9D F4") == CODE + 4
    assert MACHINE.eflags & 0x3000 == 0x3000


@pytest.mark.parametrize("code", ["0F00D8", "0F00D0", "0F00C0", "0F00C8", "0F02C3", "0F03C3", "0F00E0", "0F00E8", "63C0"])
def test_no_descriptors(code):
    """LTR, LLDT, SLDT, STR, LAR, LSL, VERR, VERW and ARPL are invalid opcodes."""
    real()
    assert run(code) == "vector 6"


@pytest.mark.parametrize("code", ["0F34", "0F35"])
def test_no_fast_calls(code):
    """SYSENTER and SYSEXIT are #GP in real-address mode."""
    real()
    CPU.sysenter_cs = 8
    assert run(code) == "vector 13"


def test_lgdt_with_16_bit_operand():
    """LGDT with a 16-bit operand loads 24 bits of the base."""
    real()
    MACHINE.put(DATA & 0xFFFF | 0x20000, 0xAABBCCDD0123, 6)
    MACHINE.processor.set_segment(DS, 0x2000, 0x20000, 0xFFFF, 0x93)
    assert run("66 0F01 15 00000000") == CODE + 8
    assert (CPU.gdtr_limit, CPU.gdtr_base) == (0x123, 0xBBCCDD)


@pytest.mark.parametrize("enter", ["0F20C0 0C01 0F22C0", "0F01E0 0C01 0F01F0"], ids=["mov", "lmsw"])
def test_into_protected_mode(enter):
    """PE makes selectors name descriptors from the next load on; the segments loaded before go on as they were."""
    real()
    CPU.gdtr_base, CPU.gdtr_limit = 0x1000, 0x7F
    before = [segment(number) for number in range(6)]
    assert run(enter + "F4") == CODE + len(bytes.fromhex(enter))
    assert CPU.cr0 & 1 and CPU.cpl == 0
    assert [segment(number) for number in range(6)] == before
    assert run("B8 10000000 8ED8 F4") == CODE + 7
    assert segment(DS) == (0x10, 0, 0xFFFFFFFF, 0xC093)


def test_out_of_protected_mode():
    """Clearing PE keeps hidden parts; CS can be written; LMSW cannot clear PE."""
    MACHINE.power_on()
    MACHINE.unlimited()
    assert run("0F01E0 24FE 0F01F0 F4") == CODE + 8
    assert CPU.cr0 & 1
    assert run("0F20C0 24FE 0F22C0 2E C605 00000200 5A F4") == CODE + 16
    assert CPU.cr0 & 1 == 0
    assert segment(DS)[2] == 0xFFFFFFFF
    assert MACHINE.get(0x20000, 1) == 0x5A


def test_paging_needs_protection():
    """Clearing PE with PG set is #GP(0)."""
    MACHINE.power_on()
    MACHINE.unlimited()
    MACHINE.paging()
    assert run("0F20C0 24FE 0F22C0") == "vector 13"


def test_a_null_segment_stays_unusable():
    """SDM volume 3, section 9.9.2: a segment that held null when PE was cleared cannot be used in real-address mode."""
    MACHINE.power_on()
    MACHINE.unlimited()
    assert run("31C0 8ED8 0F20C0 24FE 0F22C0 F4") == CODE + 12
    MACHINE.put(VECTORS + 4 * 13, HANDLERS + 16 * 13)
    CPU.idtr_base, CPU.idtr_limit = VECTORS, 0x3FF
    assert run("A0 00000000") == "vector 13"




def test_sixteen_bit_code():
    """Code whose D bit is clear: segment loads, a software interrupt and IRET, with words throughout."""
    real()
    MACHINE.processor.set_segment(CS, 0x1C00, CODE, 0xFFFF, 0x93)
    enter_level(MACHINE.processor.state, 0)
    MACHINE.put(VECTORS + 4 * 0x21, 0x1C10 << 16 | 4)
    MACHINE.write_code(bytes.fromhex("B83412 8ED8 CD21 40 F4"))
    MACHINE.write_code(bytes.fromhex("05 0001 CF"), CODE + 0x104)
    assert MACHINE.go(0) == HALTED_FOREVER
    assert (CPU.rip, segment(CS)[:2], segment(DS)[:2]) == (9, (0x1C00, CODE), (0x1234, 0x12340))
    assert (MACHINE.gpr[EAX], MACHINE.gpr[ESP]) == (0x1335, 0x2000)

"""16-bit gates, 286 task-state segments and 16-bit returns: whole trips between rings with words on the stacks."""

import pytest
from bare_machine import (
    CODE,
    CODE_0,
    CODE_3,
    CS,
    DATA_3,
    ESP,
    GDT,
    HLT,
    IDT,
    IF,
    LOW_CODE,
    SS,
    TSS,
    TSS_SELECTOR,
    BareMachine,
)
from descriptor_machine import descriptor, gate

from x86virt.core.layout import OK

MACHINE = BareMachine()
CPU = MACHINE.cpu
STACK_16, STACK_32 = 0x30, 0x10  # ring 0: B clear and B set
USER_STACK_16 = 0x3B
VECTOR = 9
ENTRY = LOW_CODE + 0x100
TOP = 0x7800


def ring_3(gate_kind, tss_kind, stack=STACK_32):
    """Ring 3 with a gate to ring 0 and a TSS of the given types."""
    MACHINE.power_on()
    MACHINE.unlimited()
    MACHINE.put(GDT + STACK_16, descriptor(0, 0xFFFF, 3, db=0), 8)
    MACHINE.put(GDT + (USER_STACK_16 & ~7), descriptor(0, 0xFFFF, 3, dpl=3, db=0), 8)
    MACHINE.put(IDT + 8 * VECTOR, gate(CODE_0, ENTRY | 0xDEAD0000 * (gate_kind < 8), gate_kind, dpl=3), 8)
    if tss_kind == 3:
        MACHINE.put(TSS + 2, TOP | stack << 16)
    else:
        MACHINE.put(TSS + 4, TOP)
        MACHINE.put(TSS + 8, stack)
    MACHINE.processor.set_segment(7, TSS_SELECTOR, TSS, 0x67 if tss_kind == 11 else 0x2B, 0x80 | tss_kind)
    MACHINE.ring(3)
    MACHINE.eflags = 2 | IF
    MACHINE.write_code(bytes([0xCD, VECTOR]) + HLT)
    MACHINE.gpr[ESP] = 0x00031000


@pytest.mark.parametrize("stack", [STACK_16, STACK_32], ids=["sp", "esp"])
@pytest.mark.parametrize("tss_kind", [3, 11], ids=["tss286", "tss386"])
@pytest.mark.parametrize("gate_kind", [6, 7, 14, 15], ids=["int16", "trap16", "int32", "trap32"])
def test_frame(gate_kind, tss_kind, stack):
    """Gate and TSS sizes mix: the gate decides the items of the frame, the TSS where the stack stands."""
    ring_3(gate_kind, tss_kind, stack)
    assert MACHINE.go(single=True) == OK
    n = 2 if gate_kind < 8 else 4
    frame = [MACHINE.get(TOP - 5 * n + n * place, n) for place in range(5)]
    mask = (1 << 8 * n) - 1
    assert frame == [(CODE + 2) & mask, CODE_3, 2 | IF, 0x31000 & mask, DATA_3]
    assert (CPU.rip, CPU.cpl, CPU.seg[CS].selector) == (ENTRY, 0, CODE_0)
    # A 16-bit stack takes SP only: the upper half of ESP stays the program's.
    upper = 0x30000 if stack == STACK_16 else 0
    assert MACHINE.gpr[ESP] == upper | TOP - 5 * n
    assert MACHINE.eflags == (2 if gate_kind in (6, 14) else 2 | IF)


def test_return_to_a_16_bit_stack():
    """IRET with words to ring 3 on a stack with B clear loads SP and keeps the upper half of ESP."""
    MACHINE.power_on()
    MACHINE.put(GDT + (USER_STACK_16 & ~7), descriptor(0, 0xFFFF, 3, dpl=3, db=0), 8)
    for place, value in enumerate((0x1234, CODE_3, 2 | IF, 0x4000, USER_STACK_16)):
        MACHINE.put(0x31000 + 2 * place, value, 2)
    MACHINE.gpr[ESP] = 0x31000
    MACHINE.eflags = 2 | 1 << 18
    MACHINE.write_code(b"\x66\xcf")
    assert MACHINE.go(single=True) == OK
    assert (CPU.rip, CPU.cpl, CPU.seg[SS].selector) == (0x1234, 3, USER_STACK_16)
    assert MACHINE.gpr[ESP] == 0x34000
    assert MACHINE.eflags == 2 | IF | 1 << 18  # a 16-bit image leaves AC alone


def test_round_trip():
    """INT n through a 16-bit gate and IRET with words end where they began, in low code."""
    ring_3(6, 3)
    MACHINE.write_code(bytes([0xCD, VECTOR]) + HLT, LOW_CODE)
    MACHINE.write_code(b"\x66\xcf", ENTRY)
    MACHINE.gpr[ESP] = 0x9000
    assert MACHINE.go(LOW_CODE, single=True) == OK
    assert MACHINE.processor.run(True) == OK
    assert (CPU.rip, CPU.cpl, MACHINE.gpr[ESP], MACHINE.eflags) == (LOW_CODE + 2, 3, 0x9000, 2 | IF)


def test_error_code_is_a_word():
    """An exception through a 16-bit gate pushes its error code as a word."""
    ring_3(6, 11)
    MACHINE.put(IDT + 8 * 13, gate(CODE_0, ENTRY, 6), 8)
    MACHINE.put(IDT + 8 * VECTOR, gate(CODE_0, ENTRY, 6, dpl=0), 8)
    MACHINE.go(single=True)
    assert MACHINE.gpr[ESP] == TOP - 12
    assert [MACHINE.get(TOP - 12 + 2 * place, 2) for place in range(2)] == [VECTOR * 8 + 2, CODE & 0xFFFF]

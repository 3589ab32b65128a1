"""A comparison and the jump behind it do the same as one micro-operation (in a block) and as two (in steps)."""

import pytest
from bare_machine import CODE, HLT, BareMachine

from x86virt.core.fused import FUSED_OP
from x86virt.core.handlers import CONDITIONS, FUSED
from x86virt.core.layout import OK

VALUES = (0, 1, 2, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF)
AHEAD = {"cmp": b"\x39\xd8", "test": b"\x85\xd8", "dec": b"\x48"}  # EAX with EBX, and EAX alone
EAX, ECX, EBX = 0, 1, 3
MACHINE = BareMachine()


def run(a: int, b: int, carry: int, single: bool) -> tuple:
    """Where the program at CODE leads with these operands: registers, flags and time."""
    machine = MACHINE
    machine.gpr[EAX], machine.gpr[EBX], machine.gpr[ECX] = a, b, 0
    machine.eflags = 2 | carry
    machine.cpu.rip, machine.cpu.halted = CODE, 0
    begin = int(machine.cpu.ticks), int(machine.cpu.retired)
    outcome = machine.processor.run(single)
    while outcome == OK:
        outcome = machine.processor.run(single)
    took = int(machine.cpu.ticks) - begin[0], int(machine.cpu.retired) - begin[1]
    return int(machine.gpr[EAX]), int(machine.gpr[ECX]), machine.eflags, int(machine.cpu.rip), took


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_pair_does_what_two_do(name: str) -> None:
    """All pairs of the values, with CF clear and set; ECX tells which way the jump went."""
    ahead, jump = name.split("_j")
    MACHINE.power_on()
    MACHINE.write_code(AHEAD[ahead] + bytes([0x70 | CONDITIONS.index(jump), 1]) + b"\x41" + HLT)
    ways = set()
    for a in VALUES:
        for b in VALUES:
            for carry in (0, 1):
                stepped = run(a, b, carry, True)
                assert run(a, b, carry, False) == stepped, (hex(a), hex(b))
                ways.add(stepped[1])
    assert ways == {0, 1}


def test_every_pair_of_the_list_is_fused() -> None:
    assert (FUSED_OP >= 0).sum() == len(FUSED)

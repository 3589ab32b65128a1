"""Where an interrupt arrives does not depend on how code is cut into blocks: moments all over short programs, both ways.

The translations that an instruction needs take time within it, after its boundary: an interrupt that becomes due while
tables are walked comes after the instruction, in a block as in a step.
"""

import pytest
from bare_machine import CODE, DATA, HLT, IF, BareMachine

from x86virt.core.layout import HOOK, NEVER, OK

MACHINE = BareMachine()
FAR_CODE = 0x1A000  # on another page than CODE
VECTOR = 30


def le(value: int) -> bytes:
    """A little-endian doubleword."""
    return value.to_bytes(4, "little")


def load(address: int) -> bytes:
    """MOV ECX, [address]."""
    return b"\x8b\x0d" + le(address)


def store(address: int) -> bytes:
    """MOV [address], ECX."""
    return b"\x89\x0d" + le(address)


def jump(source: int, target: int) -> bytes:
    """JMP rel32 that stands at `source`."""
    return b"\xe9" + le(target - source - 5 & 0xFFFFFFFF)


NOPS = b"\x90" * 3
PROGRAMS = {
    "loads and stores of cold pages": NOPS + load(DATA) + NOPS + store(DATA + 0x1000) + load(DATA + 0x2FFE) + NOPS,
    "a jump to a cold page and back": NOPS + jump(CODE + 3, FAR_CODE),
    "a flush, then a fetch": NOPS + b"\x0f\x20\xd8\x0f\x22\xd8" + NOPS + load(DATA),
    "invlpg and a load": load(DATA) + b"\x0f\x01\x3d" + le(DATA) + load(DATA) + NOPS,
    "invlpg of the page that runs": NOPS + b"\x0f\x01\x3d" + le(CODE) + NOPS + load(DATA) + NOPS,
    "invlpg of a page in its slot": NOPS + b"\x0f\x01\x3d" + le(CODE + 0x100000) + NOPS + load(DATA) + NOPS,
    "ports": b"\xe4\x80\xe6\x80\xe4\x80" + NOPS,
    "a port without a device, and the console": b"\xe4\x11\xe6\x11\x90\xe4\xe9\x90\xe6\x11" + NOPS,
    "int and iret": b"\xcd\x1d" + NOPS + load(DATA),
    "cli and sti": b"\xfa\x90\xfb\x90\x90\xfa\xfb" + NOPS,
    "str": b"\x0f\x00\xc8" + load(DATA),
}


def arrival(name: str, ticks: int, single: bool) -> tuple:
    """When the interrupt that is due at a tick arrives, and where, or the end of the program."""
    machine = MACHINE
    machine.power_on()
    machine.paging()
    machine.write_code(PROGRAMS[name] + HLT)
    machine.write_code(NOPS + load(DATA) + jump(FAR_CODE + 9, CODE + 0x40), FAR_CODE)
    machine.write_code(NOPS + HLT, CODE + 0x40)
    machine.write_code(b"\x90\xcf", 0x9000)  # vector 29: NOP, IRETD
    machine.put(0x2000 + 8 * 29, 0x9000 | 0x08 << 16)
    machine.eflags = 2 | IF
    cpu = machine.cpu
    cpu.timer, cpu.timer_vector = ticks, VECTOR
    cpu.rip, cpu.halted = CODE, 0
    outcome = machine.processor.run(single)
    while outcome == OK:
        outcome = machine.processor.run(single)
    machine.processor.settle()
    where = machine.get(int(machine.gpr[4])) if outcome == HOOK else -1
    events = machine.processor.ledger().count.sum(axis=1).tolist()
    return outcome, where, int(cpu.rip), int(cpu.ticks), int(cpu.retired), events


@pytest.mark.parametrize("name", PROGRAMS)
def test_interrupts_arrive_alike_in_blocks_and_in_steps(name: str) -> None:
    """A hundred moments from the start to past the end."""
    last = arrival(name, NEVER, True)[3]
    places = set()
    for ticks in range(0, last + 100, last // 100 | 1):
        stepped = arrival(name, ticks, True)
        assert arrival(name, ticks, False) == stepped, f"due at tick {ticks}"
        places.add(stepped[1])
    assert len(places) > 3

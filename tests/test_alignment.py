"""#AC: which accesses are checked, on how many bytes, and what comes first (SDM volume 3, section 6.15, interrupt 17)."""

from __future__ import annotations

import itertools

import pytest
from bare_machine import CODE, DATA, DATA_3, EAX, EBP, EBX, ECX, EDI, ESI, ESP, STACK, BareMachine

AM, AC = 1 << 18, 1 << 18
TOP = STACK + 0x2000
HLT = b"\xf4"
FAR_32, FAR_16 = b"\xc4\x03", b"\x66\xc4\x03"  # LES EAX, [EBX] of 6 and 4 bytes

# Name -> (code, the register that holds the address, the address of the first operand, its alignment).
OPERANDS = {
    "byte": (b"\x8a\x03", EBX, 1),
    "word read": (b"\x66\x8b\x03", EBX, 2),
    "word write": (b"\x66\x89\x03", EBX, 2),
    "doubleword read": (b"\x8b\x03", EBX, 4),
    "doubleword write": (b"\x89\x03", EBX, 4),
    "doubleword update": (b"\xff\x03", EBX, 4),
    "byte update": (b"\xfe\x03", EBX, 1),
    "movzx byte": (b"\x0f\xb6\x03", EBX, 1),
    "movzx word": (b"\x0f\xb7\x03", EBX, 2),
    "quadword": (b"\x0f\xc7\x0b", EBX, 8),  # CMPXCHG8B
    "far pointer of 6 bytes": (FAR_32, EBX, 4),
    "far pointer of 4 bytes": (FAR_16, EBX, 2),
    "bit string": (b"\x0f\xa3\x03", EBX, 4),  # BT [EBX], EAX
    "bit string of words": (b"\x66\x0f\xa3\x03", EBX, 2),
    "push": (b"\x50", ESP, 4),
    "push of a word": (b"\x66\x50", ESP, 2),
    "pop": (b"\x58", ESP, 4),
    "pusha": (b"\x60", ESP, 4),
    "popa": (b"\x61", ESP, 4),
    "pushf": (b"\x9c", ESP, 4),
    "call": (b"\xe8\x00\x00\x00\x00", ESP, 4),
    "ret": (b"\xc3", ESP, 4),
    "enter": (b"\xc8\x08\x00\x00", ESP, 4),
    "leave": (b"\xc9", EBP, 4),
    "movs source": (b"\xa5", ESI, 4),
    "movs destination": (b"\xa5", EDI, 4),
    "stos of words": (b"\x66\xab", EDI, 2),
    "rep stos": (b"\xf3\xab", EDI, 4),
    "cmps of bytes": (b"\xa6", ESI, 1),
    "lods": (b"\xad", ESI, 4),
    "xchg": (b"\x87\x03", EBX, 4),
    "selector": (b"\x8e\x03", EBX, 2),  # MOV ES, [EBX]
    "table register": (b"\x0f\x01\x43\xfe", EBX, 4),  # SGDT [EBX - 2]: its base is the aligned part
}


@pytest.fixture(scope="module")
def machine() -> BareMachine:
    """One machine for all cases."""
    return BareMachine()


def prepare(machine: BareMachine, code: bytes, ring: int = 3) -> None:
    """A user program with harmless operands everywhere."""
    machine.power_on()
    machine.unlimited()
    machine.ring(ring)
    machine.write_code(code + HLT)


def execute(machine: BareMachine, register: int, address: int, ring: int, am: int, ac: int) -> bool:
    """Run the code with an address in a register; True for #AC(0)."""
    machine.ring(ring)
    machine.gpr[:8] = [0, 1, 0, DATA, TOP - 64, STACK + 64, DATA + 64, DATA + 128]
    for place in range(0, 256, 4):
        machine.put(DATA + place, DATA_3 << 16 | DATA_3)
    machine.gpr[register] = address
    machine.cpu.cr0 = int(machine.cpu.cr0) & ~AM | am * AM
    machine.eflags = 2 | ac * AC
    machine.forget_translations()
    stopped = machine.stopped_at(machine.go())
    if stopped == "vector 17":
        assert machine.get(int(machine.gpr[ESP])) == 0 and machine.get(int(machine.gpr[ESP]) + 4) == CODE
        assert machine.get(int(machine.gpr[ESP]) + 12) >> 16 & 1  # a fault: RF
        return True
    return False


@pytest.mark.parametrize("name", OPERANDS)
def test_operands(machine: BareMachine, name: str, capsys) -> None:
    """Every operand at eight addresses, in rings 0 and 3, with and without CR0.AM and EFLAGS.AC."""
    code, register, alignment = OPERANDS[name]
    prepare(machine, code)
    faults = cases = 0
    first = TOP - 64 if register in (ESP, EBP) else DATA + 64
    for offset, ring, am, ac in itertools.product(range(8), (0, 3), (0, 1), (0, 1)):
        got = execute(machine, register, first + offset, ring, am, ac)
        assert got == (ring == 3 and am == 1 and ac == 1 and offset % alignment != 0), (offset, ring, am, ac)
        faults += got
        cases += 1
    assert (faults > 0) == (alignment > 1)
    with capsys.disabled():
        print(f" {cases}", end="")


def test_limit_comes_first(machine: BareMachine) -> None:
    """Beyond the limit it is #GP, whatever the alignment."""
    prepare(machine, b"\x8b\x03")
    machine.processor.set_segment(3, DATA_3, 0, DATA + 0xFF, 0x40F3)
    machine.gpr[EBX] = DATA + 0x101
    machine.cpu.cr0 |= AM
    machine.eflags = 2 | AC
    assert machine.stopped_at(machine.go()) == "vector 13"


def test_alignment_comes_before_the_page_fault(machine: BareMachine) -> None:
    """A misaligned access to an absent page: #AC, for no translation is needed to see it."""
    prepare(machine, b"\x8b\x03")
    machine.paging()
    machine.set_page(DATA, 0, 0)
    machine.gpr[EBX] = DATA + 1
    machine.cpu.cr0 |= AM
    machine.eflags = 2 | AC
    assert machine.stopped_at(machine.go()) == "vector 17"
    assert machine.cpu.cr2 == 0
    machine.power_on()


def test_implicit_accesses_are_not_checked(machine: BareMachine) -> None:
    """A misaligned GDT, TSS stack and IDT serve a program that is checked itself."""
    prepare(machine, b"\x8e\xc0" + b"\x0f\x0b")
    cpu = machine.cpu
    moved = bytes(machine.memory[0x1000:0x1080])
    machine.memory[0x1401:0x1481] = list(moved)
    cpu.gdtr_base = 0x1401
    machine.put(0x3004, 0x7F03)  # ESP0
    machine.gpr[EAX] = DATA_3
    cpu.cr0 |= AM
    machine.eflags = 2 | AC
    assert machine.stopped_at(machine.go()) == "vector 6"


def test_ac_set_late_is_seen_at_once(machine: BareMachine) -> None:
    """POPF sets AC: the very next misaligned access faults, though its page was used before."""
    prepare(machine, b"\x8b\x03\x9d\x8b\x03")
    machine.gpr[EBX], machine.gpr[ESP], machine.gpr[ECX] = DATA + 2, TOP - 4, 0
    machine.put(TOP - 4, 2 | AC)
    machine.cpu.cr0 |= AM
    assert machine.stopped_at(machine.go()) == "vector 17"
    assert machine.get(int(machine.gpr[ESP]) + 4) == CODE + 3


def test_stack_of_a_far_call_in_ring_3(machine: BareMachine) -> None:
    """A far call within ring 3 pushes on the program's own stack, which is checked."""
    prepare(machine, b"\x9a" + (CODE + 7).to_bytes(4, "little") + b"\x1b\x00")
    machine.gpr[ESP] = TOP - 2
    machine.cpu.cr0 |= AM
    machine.eflags = 2 | AC
    assert machine.stopped_at(machine.go()) == "vector 17"

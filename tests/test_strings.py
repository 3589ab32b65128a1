"""Repeated string instructions: interruptible, restartable, and the same whether iterations run at once or one by one."""

import random

import numpy as np
import pytest
from bare_machine import CODE, DATA, DF, EAX, ECX, EDI, ESI, ESP, HLT, PTE_P, PTE_US, STACK, STACK_END, BareMachine

from x86virt.core.layout import BUDGET, NEVER

PREFIX_67, PREFIX_66 = b"\x67", b"\x66"
MACHINE = BareMachine()


def start(octets: bytes, registers: dict[int, int], eflags: int = 2, paging: bool = True) -> None:
    """A fresh machine with random data in front of a repeated string instruction and HLT."""
    MACHINE.power_on()
    MACHINE.unlimited()
    if paging:
        MACHINE.paging()
    MACHINE.memory[DATA:STACK_END] = np.frombuffer(random.Random(1).randbytes(STACK_END - DATA), np.uint8)
    MACHINE.write_code(octets + HLT)
    for register, content in registers.items():
        MACHINE.gpr[register] = content
    MACHINE.eflags = eflags


def result() -> tuple:
    """Ticks, ledger, registers and memory."""
    cpu = MACHINE.cpu
    return (
        int(cpu.ticks),
        cpu.ledger_count.copy().tolist(),
        cpu.ledger_ticks.copy().tolist(),
        MACHINE.registers(),
        MACHINE.memory[DATA:STACK_END].tobytes(),
        int(cpu.rip),
    )


def run_whole() -> tuple:
    """Run to HLT in one call."""
    MACHINE.go()
    return result()


def run_in_slices(ticks: int) -> tuple:
    """Run to HLT, stopping whenever so many ticks have passed: with 1, after every iteration."""
    cpu = MACHINE.cpu
    cpu.rip = CODE
    cpu.halted = 0
    while True:
        cpu.budget = cpu.ticks + ticks
        if MACHINE.processor.run() != BUDGET:
            return result()


def model(operation: str, n: int, registers: dict[int, int], down: bool) -> bytes:
    """REP MOVS or STOS by the manual, element by element, on the data of `start`."""
    memory = bytearray(random.Random(1).randbytes(STACK_END - DATA))
    source, to = registers.get(ESI, DATA) - DATA, registers[EDI] - DATA
    for _ in range(registers[ECX]):
        element = registers[EAX].to_bytes(4, "little")[:n] if operation == "stos" else bytes(memory[source : source + n])
        memory[to : to + n] = element
        source, to = source + (-n if down else n), to + (-n if down else n)
    return bytes(memory)


CASES = [
    (name, opcode, n, distance, count, down)
    for name, opcode in (("movs", 0xA4), ("stos", 0xAA))
    for n in (1, 2, 4)
    for distance, count in ((0x5003, 0x1000 // n + 7), (1, 300), (n, 50), (-n, 50), (0x2001, 1), (3, 2000))
    for down in (False, True)
    if not (down and count > 2000)
]


@pytest.mark.parametrize("name, opcode, n, distance, count, down", CASES)
def test_a_run_is_what_its_iterations_are(name: str, opcode: int, n: int, distance: int, count: int, down: bool) -> None:
    """Memory by the manual's loop; ticks, ledger and registers the same whole, and stopped at every deadline."""
    octets = (PREFIX_66 if n == 2 else b"") + bytes([0xF3, opcode + (n > 1)])
    middle = DATA + 0x4FF2
    registers = {ESI: middle, EDI: middle + distance, ECX: count, EAX: 0x12345678}
    eflags = 2 | (DF if down else 0)
    start(octets, registers, eflags)
    whole = run_whole()
    assert whole[4] == model(name, n, registers, down)
    step = -n if down else n
    assert whole[3][ECX] == 0
    assert whole[3][EDI] == (middle + distance + step * count) & 0xFFFFFFFF
    for ticks in (1, 1000) if count < 400 else (1777,):
        start(octets, registers, eflags)
        assert run_in_slices(ticks) == whole, f"slices of {ticks} ticks"


@pytest.mark.parametrize("opcode", (0xA5, 0xAB), ids=("movs", "stos"))
def test_a_fault_amid_a_run_leaves_the_iterations_before_it_done(opcode: int) -> None:
    """The destination's second page is read-only for the user: ECX, ESI and EDI stand at the faulting element."""
    start(bytes([0xF3, opcode]), {ESI: DATA, EDI: DATA + 0x8800, ECX: 0x400, EAX: 1})
    MACHINE.ring(3)
    MACHINE.set_page(DATA + 0x9000, DATA + 0x9000, PTE_P | PTE_US)
    stopped = MACHINE.stopped_at(MACHINE.go())
    assert (stopped, int(MACHINE.cpu.cr2)) == ("vector 14", DATA + 0x9000)
    assert MACHINE.registers()[ECX] == 0x200
    assert MACHINE.registers()[EDI] == DATA + 0x9000
    assert MACHINE.registers()[ESI] == (DATA + 0x800 if opcode == 0xA5 else DATA)


def test_a_run_ends_at_the_segment_limit() -> None:
    """#GP at the element that lies beyond ES's limit, what lies before it stored."""
    start(bytes([0xF3, 0xAA]), {EDI: 0x100, ECX: 0x1000, EAX: 0x5A}, paging=False)
    MACHINE.processor.set_segment(0, 0x10, DATA, 0x7FF, 0xC093)
    assert MACHINE.stopped_at(MACHINE.go()) == "vector 13"
    assert MACHINE.registers()[EDI] == 0x800
    assert set(MACHINE.memory[DATA + 0x100 : DATA + 0x800].tolist()) == {0x5A}


def test_16_bit_pointers_and_counts_wrap_and_keep_their_upper_halves() -> None:
    """SI and DI go from FFFF to 0 within a run; CX alone counts."""
    start(b"\x67\xf3\xa4", {ESI: 0xAAAAFFF0, EDI: 0xBBBB0100, ECX: 0xCCCC0020}, paging=False)
    for segment in (0, 3):
        MACHINE.processor.set_segment(segment, 0x10, DATA, 0xFFFFFFFF, 0xC093)
    before = MACHINE.memory[DATA : DATA + 0x10000].tobytes()
    MACHINE.go()
    registers = MACHINE.registers()
    assert (registers[ESI], registers[EDI], registers[ECX]) == (0xAAAA0010, 0xBBBB0120, 0xCCCC0000)
    assert MACHINE.memory[DATA + 0x100 : DATA + 0x120].tobytes() == before[0xFFF0:] + before[:0x10]


def test_a_run_that_rewrites_code_is_noticed_by_the_next_instruction() -> None:
    """REP STOSB over the instruction behind it: the new byte executes."""
    start(b"\xf3\xaa\x40\x40", {EDI: CODE + 2, ECX: 2, EAX: 0x90}, paging=False)
    MACHINE.go()
    assert MACHINE.registers()[EAX] == 0x90
    start(b"\xf3\xaa\x40\x40", {EDI: CODE + 0x100, ECX: 2, EAX: 0x90}, paging=False)
    MACHINE.go()
    assert MACHINE.registers()[EAX] == 0x92


def test_the_bytes_of_a_run_are_priced_one_by_one() -> None:
    """A run and its pieces: the ledger counts every byte."""
    from x86virt.isa.events import EVENT_INS_REP_STOS_BYTE

    start(b"\xf3\xab", {EDI: DATA, ECX: 1000, EAX: 7, ESP: STACK})
    MACHINE.cpu.budget = NEVER
    MACHINE.go()
    assert int(MACHINE.cpu.ledger_count[EVENT_INS_REP_STOS_BYTE].sum()) == 4000

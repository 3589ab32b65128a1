"""RF in what an interrupt pushes: 1 between two iterations of a string instruction, the same under every strategy."""

from __future__ import annotations

import functools
import struct

import pytest
from descriptor_machine import gate
from small_kernel import (
    CODE_0,
    EAX,
    ECX,
    EDI,
    EDX,
    ESI,
    RAM_BYTES,
    STEPS,
    TABLE,
    WORDS,
    Kernel,
    Step,
    from_cr,
    mov,
    run,
    start,
    strategy,
    to_cr,
    word,
)

from x86virt import Machine, load_profile
from x86virt.core.layout import TIME_ENTRIES
from x86virt.equivalence import compare_runs
from x86virt.isa.registers import EFLAGS_RF
from x86virt.vmm.recorder import Recorder

TICK, PAGE_FAULT, ROWS, END_OF_ROWS = 0x9000, 0x9100, 0x50000, WORDS + 0x40
SOURCE, DESTINATION, COUNT, TURNS = 0x90000, 0xA0000, 0x3800, 6
SINK = 0x80  # a port that changes nothing
OPERATIONS = {
    "movs": b"\xf3\xa4", "stos": b"\xf3\xaa", "lods": b"\xf3\xac", "scas": b"\xf2\xae", "outs": b"\xf3\x6e",
    "ins": b"\xf3\x6c",
}  # fmt: skip

# A tick writes down EIP, EFLAGS and ECX of what it interrupted.
TICK_CODE = (
    b"\x60\x8b\x3d" + word(END_OF_ROWS)
    + b"\x8b\x44\x24\x20\x89\x07\x8b\x44\x24\x28\x89\x47\x04\x8b\x44\x24\x18\x89\x47\x08"
    + b"\x83\xc7\x0c\x89\x3d" + word(END_OF_ROWS) + b"\xb0\x20\xe6\x20\x61\xcf"
)
# A page fault makes the page present: SHR EAX, 12; OR dword [table + 4 EAX], 1.
PAGE_FAULT_CODE = (
    b"\x60" + from_cr(2) + b"\xc1\xe8\x0c\x83\x0c\x85" + word(TABLE) + b"\x01\x61\x83\xc4\x04\xcf"
)  # fmt: skip


def out(port: int, value: int) -> bytes:
    """MOV AL, imm8; OUT imm8, AL."""
    return bytes([0xB0, value, 0xE6, port])


def absent(page: int) -> bytes:
    """AND dword [its entry], ~1."""
    return b"\x83\x25" + word(TABLE + page // 0x400) + b"\xfe"


def begin_ticks(divisor: int) -> bytes:
    """Program the first PIC to vector 0x20 and on, and the timer."""
    start = b"".join(out(0x21 if place else 0x20, value) for place, value in enumerate((0x11, 0x20, 4, 1, 0xFE)))
    return start + out(0x43, 0x34) + out(0x40, divisor) + out(0x40, 0)


def kernel_of(operation: str, divisor: int) -> tuple[Kernel, int]:
    """A kernel that repeats a string instruction while a timer ticks, and where that instruction is.

    Every turn begins with an empty TLB and two pages of the data absent.
    """
    start = begin_ticks(divisor) + b"\xbd" + word(TURNS) + b"\xfb\xfc"
    turn = absent(SOURCE + 0x2000) + absent(DESTINATION + 0x1000) + from_cr(3) + to_cr(3)
    count = 24 if operation in ("ins", "outs") else COUNT
    near = 0xFF0 if operation in ("ins", "outs") else 0
    turn += mov(EAX, 0x5A) + mov(ECX, count) + mov(EDX, SINK)
    turn += mov(ESI, SOURCE + 0x1000 + near) + mov(EDI, DESTINATION + near)
    place = len(turn)
    turn += OPERATIONS[operation]
    turn += b"\x4d\x0f\x85" + word(-len(turn) - 7)  # DEC EBP; JNZ turn
    code = start + turn + b"\xfa"
    return ticking(code), STEPS + 10 + len(start) + place


def ticking(code: bytes) -> Kernel:
    """A kernel with handlers for ticks and page faults."""
    return Kernel(
        [Step(code)],
        gates={0x20: gate(CODE_0, TICK, 14), 14: gate(CODE_0, PAGE_FAULT, 14)},
        octets={TICK: TICK_CODE, PAGE_FAULT: PAGE_FAULT_CODE, END_OF_ROWS: word(ROWS)},
    )


@functools.cache
def ticks(operation: str, divisor: int, name: str) -> list[tuple[int, bool, int]]:
    """(EIP less that of the string instruction, RF, ECX) of every tick."""
    kernel, place = kernel_of(operation, divisor)
    machine, result = run(kernel, name)
    assert result.outcome == "exited 1"
    return ticks_of(machine, place)


def ticks_of(machine: Machine, place: int) -> list[tuple[int, bool, int]]:
    """(EIP less `place`, RF, ECX) of every tick."""
    memory = machine.strategy.virtual_state(machine).memory
    end = int.from_bytes(memory[END_OF_ROWS : END_OF_ROWS + 4].tobytes(), "little")
    rows = [struct.unpack("<3I", memory[row : row + 12].tobytes()) for row in range(ROWS, end, 12)]
    return [(eip - place, bool(flags & EFLAGS_RF), left) for eip, flags, left in rows]


@pytest.mark.parametrize("divisor", (11, 37))
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", ("native", "trap-and-emulate"))
def test_an_interrupt_pushes_rf_just_between_iterations(name: str, operation: str, divisor: int) -> None:
    count = 24 if operation in ("ins", "outs") else COUNT
    rows = ticks(operation, divisor, name)
    for eip, flag, left in rows:
        assert flag == (eip == 0 and left < count), (hex(eip), flag, left)


def test_ticks_came_between_iterations_and_elsewhere() -> None:
    for name in ("native", "trap-and-emulate"):
        seen = {flag for operation in OPERATIONS for divisor in (11, 37) for _, flag, _ in ticks(operation, divisor, name)}
        assert seen == {False, True}


@pytest.mark.parametrize("divisor", (11, 13, 37))
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_bare_machine_accepts_interrupts_within_string_instructions(operation: str, divisor: int) -> None:
    """E2: the flags that were pushed lie in memory, which is compared."""
    kernel, _ = kernel_of(operation, divisor)
    comparison = compare_runs(
        kernel.image(), strategy("trap-and-emulate"), strategy("native"), load_profile("p4_prescott"), RAM_BYTES, "",
        200_000_000, 1 << 12,
    )  # fmt: skip
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.deliveries >= 1
    assert comparison.other.outcome == "exited 1"


RDTSC = b"\x0f\x31"


@pytest.mark.parametrize("reads", (TIME_ENTRIES - 4, TIME_ENTRIES - 3))  # three entries are the writes that start the timer
def test_a_full_log_of_time_does_not_end_the_shadow_of_sti(reads: int) -> None:
    """The tick that waits behind STI comes after the RDTSC that follows, also if its value finds no room in the log."""
    read_all = mov(ECX, reads) + RDTSC + b"\x49\x75\xfb"  # DEC ECX; JNZ
    wait = mov(ECX, 2_000_000) + b"\x49\x75\xfd"
    code = begin_ticks(255) + read_all + wait + b"\xfb" + RDTSC
    place = STEPS + 10 + len(code)
    kernel = ticking(code + b"\x90\xfa")
    plain, recorded = start(kernel), Machine(strategy("native"), load_profile("p4_prescott"), RAM_BYTES)
    recorder = Recorder(recorded)
    recorded.load(kernel.image())
    results = [machine.run(50_000_000) for machine in (plain, recorded)]
    recorder.drain()
    assert recorder.log.time_reads == reads + 1
    assert ticks_of(plain, place) == ticks_of(recorded, place) == [(0, False, 0)]
    assert results[0].ledger == results[1].ledger

"""Self-modifying code: whatever wrote the bytes, and through whatever address, the very next fetch sees them.

Each program runs whole (blocks), and again one instruction at a time, which keeps no decoded code: both must end alike.
"""

import pytest
from bare_machine import (
    CODE,
    DATA,
    DIRECTORY,
    EAX,
    EBX,
    ECX,
    EDI,
    EDX,
    ESI,
    ESP,
    HLT,
    PTE_P,
    PTE_RW,
    PTE_US,
    TABLE,
    BareMachine,
)  # fmt: skip

from x86virt.core.layout import HALTED_FOREVER, HOOK, OK

MACHINE = BareMachine()
OPEN = PTE_P | PTE_RW | PTE_US
INC_ECX, INC_EDX, NOP = b"\x41", b"\x42", b"\x90"


def le(value: int, n: int = 4) -> bytes:
    """A little-endian number."""
    return (value & (1 << 8 * n) - 1).to_bytes(n, "little")


def store_byte(address: int, octet: bytes) -> bytes:
    """MOV byte [address], octet."""
    return b"\xc6\x05" + le(address) + octet


def store_word(address: int, octets: bytes) -> bytes:
    """MOV dword [address], octets."""
    return b"\xc7\x05" + le(address) + octets


def jump(source: int, target: int) -> bytes:
    """JMP rel32 that stands at `source`."""
    return b"\xe9" + le(target - source - 5)


@pytest.fixture(params=("blocks", "by instruction"))
def machine(request: pytest.FixtureRequest) -> BareMachine:
    """A fresh machine; `by instruction` makes `go` step."""
    MACHINE.power_on()
    MACHINE.stepping = request.param == "by instruction"
    return MACHINE


def run(machine: BareMachine, address: int = CODE) -> int | str:
    """Run to HLT or a fault."""
    machine.cpu.retired_limit = machine.cpu.retired + 5000
    if not machine.stepping:
        return machine.stopped_at(machine.go(address))
    outcome = machine.go(address, single=True)
    while outcome == OK:
        outcome = machine.processor.run(single=True)
    assert outcome in (HALTED_FOREVER, HOOK)
    return machine.stopped_at(outcome)


@pytest.mark.parametrize("distance", (0, 1, 2, 5, 16, 130))
def test_an_instruction_that_the_one_before_modified(machine: BareMachine, distance: int) -> None:
    """NOPs turn into INC ECX at several distances behind the store, in the same block."""
    target = CODE + 7 + distance
    machine.write_code(store_byte(target, INC_ECX) + NOP * (distance + 4) + HLT)
    assert run(machine) == target + 4
    assert machine.gpr[ECX] == 1


@pytest.mark.parametrize("offset", (124, 125, 126, 127))
def test_an_unaligned_store_across_two_pieces_of_code(machine: BareMachine, offset: int) -> None:
    """Decoded code is tracked in pieces of 128 bytes: a store that begins in one and ends in the next changes both."""
    first = CODE + 0x80
    start = first + offset - 10
    machine.write_code(store_word(first + offset, INC_ECX * 4) + NOP * 8 + HLT, start)
    assert run(machine, start) == start + 18
    assert machine.gpr[ECX] == 4


def test_a_store_that_begins_before_the_piece_of_its_own_block(machine: BareMachine) -> None:
    """MOV [EBX], EAX at a 128-byte boundary writes from one byte before it up to the instruction behind itself."""
    start = CODE + 0x100
    machine.write_code(b"\x89\x03" + NOP + HLT, start)
    machine.gpr[EBX], machine.gpr[EAX] = start - 1, int.from_bytes(HLT + b"\x89\x03" + INC_ECX, "little")
    assert run(machine, start) == start + 3
    assert machine.gpr[ECX] == 1


def test_an_immediate_that_a_loop_rewrites(machine: BareMachine) -> None:
    """ADD EAX, imm8 whose immediate the loop increments: 1 + 2 + ... + 10."""
    body = CODE + 5
    code = b"\xb9" + le(10) + b"\x83\xc0\x01" + b"\xfe\x05" + le(body + 2) + b"\xe2" + le(-11, 1)
    machine.write_code(code + HLT)
    run(machine)
    assert machine.gpr[EAX] == sum(range(1, 11))


@pytest.mark.parametrize("start", (CODE, CODE + 0x1000 - 1), ids=("on one page", "across pages"))
def test_a_repeated_string_instruction_that_overwrites_itself_upwards(machine: BareMachine, start: int) -> None:
    """REP STOSB, AL INC ECX: the 41st iteration makes of it INC ECX and STOSB, which execute next."""
    machine.write_code(b"\xfc" + b"\xf3\xaa" + NOP * 2 + HLT, start - 1)
    machine.gpr[EAX], machine.gpr[ECX], machine.gpr[EDI] = INC_ECX[0], 100, start - 40
    assert run(machine, start - 1) == start + 4
    assert (machine.gpr[ECX], machine.gpr[EDI]) == (100 - 41 + 1, start + 2)


@pytest.mark.parametrize("start", (CODE, CODE + 0x1000 - 1), ids=("on one page", "across pages"))
def test_a_repeated_string_instruction_that_overwrites_itself_downwards(machine: BareMachine, start: int) -> None:
    """REP STOSB, AL INC ECX: the 41st iteration makes of it REP INC ECX; behind it stand 40 more."""
    machine.write_code(b"\xfd" + b"\xf3\xaa" + HLT * 50, start - 1)
    machine.gpr[EAX], machine.gpr[ECX], machine.gpr[EDI] = INC_ECX[0], 100, start + 41
    assert run(machine, start - 1) == start + 42
    assert (machine.gpr[ECX], machine.gpr[EDI]) == (100 - 41 + 41, start)


def test_code_that_another_block_rewrites_between_calls(machine: BareMachine) -> None:
    """A linked and cached callee is replaced between two calls."""
    callee = CODE + 0x100
    machine.write_code(INC_ECX + b"\xc3", callee)
    call = lambda source: b"\xe8" + le(callee - source - 5)  # noqa: E731
    code = b"".join((call(CODE), call(CODE + 5), store_byte(callee, INC_EDX), call(CODE + 17), call(CODE + 22)))
    machine.write_code(code + HLT)
    run(machine)
    assert (machine.gpr[ECX], machine.gpr[EDX]) == (2, 2)


def test_code_across_a_page_boundary_rewritten_on_either_side(machine: BareMachine) -> None:
    """MOV EAX, imm32 across a page: the opcode stands on one page, the immediate on the other."""
    edge = CODE + 0x1000
    target = edge - 2
    machine.write_code(b"\xb8\x11\x22\x33\x44\xc3", target)
    call = lambda source: b"\xe8" + le(target - source - 5)  # noqa: E731
    code = call(CODE) + b"\x89\xc3" + store_byte(edge + 2, b"\x55") + store_byte(edge - 1, b"\x66")
    code += call(CODE + len(code))
    machine.write_code(code + HLT)
    run(machine)
    assert (machine.gpr[EBX], machine.gpr[EAX]) == (0x44332211, 0x55332266)


@pytest.mark.parametrize(
    "setup, writer",
    [
        ({ESI: DATA, EDI: CODE + 0x20, ECX: 1}, b"\xf3\xa4"),
        ({ESI: DATA, EDI: CODE + 0x1F, ECX: 4}, b"\xf3\xa4"),
        ({ESI: DATA, EDI: CODE + 0x20, ECX: 1}, b"\xf3\xa5"),
        ({EAX: 0x42424242, EDI: CODE + 0x20}, b"\xab"),
        ({EAX: 0x42424242, ESP: CODE + 0x24}, b"\x50"),
        ({EAX: 0x42424242, ESP: CODE + 0x22}, b"\x66\x50"),
        ({EAX: 0x4242, EBX: CODE + 0x20}, b"\x87\x03"),
        ({EAX: 0x12, EBX: CODE + 0x20}, b"\x86\x03"),
        ({EBX: CODE + 0x20, EAX: 0x42 - 0x90}, b"\x00\x03"),
    ],
    ids=(
        "rep movsb",
        "rep movsb before it too",
        "rep movsd",
        "stosd",
        "push",
        "push 16",
        "xchg",
        "xchg byte",
        "add byte",
    ),
)
def test_every_kind_of_store_reaches_code(machine: BareMachine, setup: dict[int, int], writer: bytes) -> None:
    """The store modifies code further on in its own block, which has run before."""
    machine.memory[DATA : DATA + 8] = INC_EDX[0]
    machine.write_code(NOP * 0x30 + HLT)
    run(machine, CODE + 0x10)
    machine.write_code(writer, CODE + 0x10)
    for register, value in setup.items():
        machine.gpr[register] = value & 0xFFFFFFFF
    before = int(machine.gpr[EDX])
    assert isinstance(run(machine, CODE + 0x10), int)
    image = machine.memory[CODE + 0x12 : CODE + 0x30].tobytes()
    stored = image.count(INC_EDX)
    assert machine.gpr[EDX] - before == stored or image[0x0E] == 0x12
    assert image[0x0E] != NOP[0]


def test_a_call_pushes_its_return_address_onto_code(machine: BareMachine) -> None:
    """The pushed address lands on the callee's first bytes, which must be executed as pushed."""
    callee = CODE + 0x100
    machine.write_code(NOP * 8 + HLT, callee)
    run(machine, callee)
    # The return address 0x1C1xx read as code: its low byte is INC ECX (41), then C1 C0 01 is hidden by HLT below.
    source = CODE + 0xF441 - 0xC000 - 5
    machine.write_code(b"\xe8" + le(callee - source - 5) + HLT, source)
    machine.gpr[ESP] = callee + 4
    assert run(machine, source) == callee + 1
    assert machine.gpr[ECX] == 1


def test_an_exception_frame_pushed_onto_code(machine: BareMachine) -> None:
    """INT3's frame overwrites decoded NOPs; IRET then runs into what the frame holds."""
    machine.cpu.hook_first, machine.cpu.hook_last = 1, 0
    handler = 0x4000 + 16 * 3
    place = CODE + 0x200
    machine.write_code(NOP * 16 + HLT, place)
    run(machine, place)
    machine.write_code(jump(handler, place), handler)
    machine.write_code(b"\xcc", CODE + 0x40)
    machine.gpr[ESP] = place + 12
    stopped = run(machine, CODE + 0x40)
    # The pushed EIP is 1C041: INC ECX, then C0 01 00 = ROL byte [ECX], 0; the pushed CS is 8: OR [EAX], AL ...
    assert machine.get(place) == CODE + 0x41
    assert machine.gpr[ECX] == 1
    assert stopped == place + 16


def alias(machine: BareMachine, linear: int, frame: int) -> None:
    """Map a page once more."""
    machine.put(TABLE + (linear >> 12) * 4, frame | OPEN)


def test_code_written_through_another_linear_address(machine: BareMachine) -> None:
    """Two linear pages of one frame: code runs at one, stores go through the other."""
    machine.paging()
    other = 0x80000
    alias(machine, other, CODE)
    machine.write_code(store_byte(other + 0x20, INC_ECX) + NOP * 0x30 + HLT)
    run(machine)
    assert machine.gpr[ECX] == 1


def test_one_frame_executed_at_two_linear_addresses(machine: BareMachine) -> None:
    """CALL pushes its own linear address wherever the frame is mapped."""
    machine.paging()
    other = 0x80000
    alias(machine, other, CODE)
    machine.write_code(b"\xe8\x00\x00\x00\x00\x58" + HLT)
    assert run(machine) == CODE + 6
    assert machine.gpr[EAX] == CODE + 5
    assert run(machine, other) == other + 6
    assert machine.gpr[EAX] == other + 5
    machine.write_code(INC_EDX + INC_EDX + HLT)
    run(machine, other)
    assert machine.gpr[EDX] == 2


@pytest.mark.parametrize("how", ("invlpg", "cr3"))
def test_code_on_a_page_that_is_remapped(machine: BareMachine, how: str) -> None:
    """The same linear address executes what its new frame holds, after INVLPG or a write to CR3, and not before."""
    machine.paging()
    linear, old, new = 0x80000, DATA, DATA + 0x1000
    alias(machine, linear, old)
    machine.write_code(INC_ECX + b"\xc3", old)
    machine.write_code(INC_EDX + b"\xc3", new)
    flush = b"\x0f\x01\x3d" + le(linear) if how == "invlpg" else b"\x0f\x20\xd8\x0f\x22\xd8"
    code = bytearray()
    for part in ("call", "remap", "call", "flush", "call"):
        if part == "call":
            code += b"\xe8" + le(linear - (CODE + len(code)) - 5)
        else:
            code += store_word(TABLE + (linear >> 12) * 4, le(new | OPEN)) if part == "remap" else flush
    machine.write_code(bytes(code) + HLT)
    run(machine)
    assert (machine.gpr[ECX], machine.gpr[EDX]) == (2, 1)


def test_a_page_switched_between_two_address_spaces(machine: BareMachine) -> None:
    """CR3 switches between two tables that map one linear page to different code; both stay right."""
    machine.paging()
    linear, frames, second_directory, second_table = 0x80000, (DATA, DATA + 0x1000), 0x42000, 0x43000
    for frame, octet in zip(frames, (INC_ECX, INC_EDX), strict=True):
        machine.write_code(octet + b"\xc3", frame)
    machine.memory[second_table : second_table + 0x1000] = machine.memory[TABLE : TABLE + 0x1000]
    machine.put(second_directory, second_table | OPEN)
    alias(machine, linear, frames[0])
    machine.put(second_table + (linear >> 12) * 4, frames[1] | OPEN)
    code = bytearray()
    for directory in (DIRECTORY, second_directory) * 5:
        code += b"\xb8" + le(directory) + b"\x0f\x22\xd8"
        code += b"\xe8" + le(linear - (CODE + len(code)) - 5)
    machine.write_code(bytes(code) + HLT)
    run(machine)
    assert (machine.gpr[ECX], machine.gpr[EDX]) == (5, 5)


def test_the_host_writes_code(machine: BareMachine) -> None:
    """`Processor.write_physical`, a device's or a loader's way, is seen too."""
    for octet, register in ((INC_ECX, ECX), (INC_EDX, EDX), (INC_ECX, ECX)):
        machine.write_code(octet + HLT)
        before = int(machine.gpr[register])
        run(machine)
        assert machine.gpr[register] == before + 1


def test_an_accessed_bit_that_a_walk_sets_in_code(machine: BareMachine) -> None:
    """A page-table entry that is code: 00F44041 is INC ECX, INC EAX, HLT; the accessed bit makes the first a POPA."""
    table = CODE + 0x1000
    machine.write_code(le(0x00F44041), table)
    assert run(machine, table) == table + 2
    assert (machine.gpr[ECX], machine.gpr[EAX]) == (1, 1)
    machine.put(DIRECTORY + 4, table | OPEN)
    machine.paging()
    machine.write_code(b"\xa1" + le(0x400000) + HLT)
    run(machine)
    assert machine.get(table) == 0x00F44061
    assert run(machine, table) == table + 2
    assert (machine.gpr[ECX], machine.gpr[EAX]) == (0, 1)

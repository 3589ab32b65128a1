"""Memory operands of x87 instructions: a range is checked and translated whole before any of it is read or written."""

from ..isa.registers import DS
from ..isa.vectors import GP
from .breakpoints import WATCH_ALL_DATA, note_data_access
from .fault import raise_fault
from .jit import kernel
from .layout import OK, RESTART
from .memory import check_alignment, check_segment, effective_address, resolve_read, resolve_write
from .physical import holds_code, read_at, write_physical
from .physical_map import BUS, place_to_write

M32 = 0xFFFFFFFF
PIECE = 128  # bytes in which decoded code is tracked


@kernel
def resolve(cpu, ram, gla, user, write):
    """Translate for reading, to a place, or for writing, to a physical address: (outcome, place or address)."""
    cpu.operand_access = DS + 1  # whichever it is: a segment of the guest's
    if write == 1:
        outcome, found = resolve_write(cpu, ram, gla, user)
    else:
        outcome, found = resolve_read(cpu, ram, gla, user)
    cpu.operand_access = 0
    return outcome, found


@kernel
def covers_code(cpu, ram, physical, n):
    """Whether any of `n` bytes on one page belongs to decoded code."""
    place = place_to_write(cpu, ram, physical)
    if place >= BUS:
        return False
    for piece in range(place & ~(PIECE - 1), place + n, PIECE):
        if holds_code(cpu, ram, piece) == 1:
            return True
    return False


@kernel
def check_range(cpu, ram, u, n, alignment, write):
    """Check and translate a memory operand of up to a page; leaves where it lies in cpu.fpu_range.

    A write to decoded code from within a block restarts by itself, as every store does (core/memory.py).
    """
    user = int(cpu.cpl == 3)
    offset = effective_address(cpu, u)
    outcome = check_segment(cpu, u.segment, offset, n, write)
    if outcome != OK:
        return outcome
    gla = (offset + cpu.seg[u.segment].seg_base) & M32
    outcome = check_alignment(cpu, gla, alignment, user)
    if outcome == OK and cpu.watch & WATCH_ALL_DATA != 0:
        outcome = note_data_access(cpu, gla, n, write)
    if outcome != OK:
        return outcome
    outcome, first = resolve(cpu, ram, gla, user, write)
    if outcome != OK:
        return outcome
    head = min(n, 0x1000 - (gla & 0xFFF))
    second = 0
    if head < n:
        outcome, second = resolve(cpu, ram, (gla + head) & M32, user, write)
        if outcome != OK:
            return outcome
    if write == 1 and cpu.in_block == 1:
        if covers_code(cpu, ram, first, head) or (head < n and covers_code(cpu, ram, second, n - head)):
            return RESTART
    cpu.fpu_range[0] = first
    cpu.fpu_range[1] = head
    cpu.fpu_range[2] = second
    return OK


@kernel
def check_sixteen(cpu, u):
    """#GP(0) unless the operand of FXSAVE or FXRSTOR lies on a 16-byte boundary."""
    if (effective_address(cpu, u) + cpu.seg[u.segment].seg_base) & 15 != 0:
        return raise_fault(cpu, GP, 0)
    return OK


@kernel
def place(cpu, at):
    """Where a byte of the range lies: its place if it is read, its physical address if it is written."""
    if at < cpu.fpu_range[1]:
        return int(cpu.fpu_range[0]) + at
    return int(cpu.fpu_range[2]) + at - int(cpu.fpu_range[1])


@kernel
def read_range(cpu, ram, at, n):
    """`n` bytes (2 or 4) at `at` bytes into the range."""
    if at + n <= cpu.fpu_range[1] or at >= cpu.fpu_range[1]:
        return int(read_at(cpu, ram, place(cpu, at), n))
    value = 0
    for number in range(n):
        value |= int(read_at(cpu, ram, place(cpu, at + number), 1)) << (8 * number)
    return value


@kernel
def write_range(cpu, ram, at, n, value):
    """Store `n` bytes (1, 2 or 4) at `at` bytes into the range."""
    if at + n <= cpu.fpu_range[1] or at >= cpu.fpu_range[1]:
        write_physical(cpu, ram, place(cpu, at), n, value)
        return
    for number in range(n):
        write_physical(cpu, ram, place(cpu, at + number), 1, (value >> (8 * number)) & 0xFF)


@kernel
def read_words(cpu, ram, at, n):
    """Read 2, 4, 8 or 10 bytes of the range into cpu.fpu_integer, 32 bits a word."""
    for number in range(3):
        cpu.fpu_integer[number] = 0
        rest = n - 4 * number
        if rest >= 4:
            cpu.fpu_integer[number] = read_range(cpu, ram, at + 4 * number, 4)
        elif rest == 2:
            cpu.fpu_integer[number] = read_range(cpu, ram, at + 4 * number, 2)


@kernel
def write_words(cpu, ram, at, n):
    """Write 2, 4, 8 or 10 bytes from cpu.fpu_integer to the range."""
    for number in range(3):
        rest = n - 4 * number
        if rest >= 4:
            write_range(cpu, ram, at + 4 * number, 4, cpu.fpu_integer[number])
        elif rest == 2:
            write_range(cpu, ram, at + 4 * number, 2, cpu.fpu_integer[number])

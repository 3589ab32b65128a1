"""Runs of REP MOVS and REP STOS iterations in one loop, where each would only repeat what the last one did.

A run stays on one page each of source and destination, whose translations the front cache knows (no decoded code lies in
the destination, no alignment or cache model looks on), within the segments, and ends where a deadline would stop it.
What is charged and counted is the same as one by one.
"""

from ..isa.registers import EAX, ECX, EDI, EFLAGS_DF, EFLAGS_TF, ES, ESI
from ..isa.table.strings import MOVS
from .charge import charge
from .jit import inline, kernel, load_8, load_16, load_32, store_8, store_16, store_32
from .memory import fast_read_address, fast_write_address


@inline
def elements_left(cpu, segment, offset, last, mask, n):
    """Elements of `n` bytes from an offset on that stay on its page, within the segment and below the pointer's wrap."""
    room = 0x1000 - ((offset + cpu.seg[segment].seg_base) & 0xFFF)
    return min(min(room, last - offset + 1), mask - offset + 1) // n


@inline
def iterations_in_time(cpu, price):
    """Iterations up to the one that reaches the next deadline; at least one."""
    if price == 0:
        return cpu.gpr[ECX]
    return max(1, (cpu.limit_ticks - cpu.ticks + price - 1) // price)


@kernel
def copy(ram, source, destination, count, n):
    """Copy elements upwards one by one: where the two overlap, what was written is read again."""
    if n == 4:
        for number in range(count):
            store_32(ram, destination + 4 * number, load_32(ram, source + 4 * number))
    elif n == 2:
        for number in range(count):
            store_16(ram, destination + 2 * number, load_16(ram, source + 2 * number))
    else:
        for number in range(count):
            store_8(ram, destination + number, load_8(ram, source + number))


@kernel
def fill(ram, destination, count, n, value):
    """Store the same element upwards."""
    if n == 4:
        for number in range(count):
            store_32(ram, destination + 4 * number, value)
    elif n == 2:
        for number in range(count):
            store_16(ram, destination + 2 * number, value)
    else:
        for number in range(count):
            store_8(ram, destination + number, value)


@kernel
def run_at_once(cpu, ram, u, event):
    """Make a run of iterations of REP MOVS or REP STOS, priced by `event` a byte; returns how many, perhaps none."""
    n = u.width >> 3
    mask = u.address_mask
    if cpu.eflags & (EFLAGS_DF | EFLAGS_TF) != 0:
        return 0
    to = cpu.gpr[EDI] & mask
    destination = fast_write_address(cpu, ES, to, n)
    if destination < 0:
        return 0
    count = min(cpu.gpr[ECX] & mask, elements_left(cpu, ES, to, cpu.seg[ES].write_last, mask, n))
    count = min(count, iterations_in_time(cpu, cpu.price[event] * n))
    if u.condition == MOVS:
        offset = cpu.gpr[ESI] & mask
        source = fast_read_address(cpu, u.segment, offset, n)
        if source < 0:
            return 0
        count = min(count, elements_left(cpu, u.segment, offset, cpu.seg[u.segment].read_last, mask, n))
        copy(ram, source, destination, count, n)
        cpu.gpr[ESI] = (cpu.gpr[ESI] & ~mask) | ((offset + count * n) & mask)
    else:
        fill(ram, destination, count, n, cpu.gpr[EAX])
    cpu.gpr[EDI] = (cpu.gpr[EDI] & ~mask) | ((to + count * n) & mask)
    cpu.gpr[ECX] = (cpu.gpr[ECX] & ~mask) | ((cpu.gpr[ECX] - count) & mask)
    charge(cpu, event, count * n)
    return count

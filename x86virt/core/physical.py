"""Physical memory as the processor's accesses find it: RAM, ROM, and what lies beside them.

The byte array that holds RAM and ROM (core/physical_map.py) carries, behind both, one 32-bit mask per page: bit n says
that bytes 128n to 128n+127 of the page hold decoded code, so that a write there discards it. What no memory answers reads
as ones; what no memory takes is lost.
"""

from .cache import WALK, reference
from .jit import inline, kernel, load_8, load_16, load_32, store_8, store_16, store_32
from .layout import CODE_SHIFT, CODE_WRITES
from .memory_mapped import read_registers, write_registers
from .physical_map import BUS, is_ram, log_write, place_to_read, place_to_write


@inline
def holds_code(cpu, ram, place):
    """Whether the 128-byte piece around a place holds decoded code."""
    mask = load_32(ram, cpu.code_map + (place >> 12) * 4)
    return (mask >> ((place >> CODE_SHIFT) & 31)) & 1


@inline
def page_holds_code(cpu, ram, place):
    """Whether any piece of the page holds decoded code."""
    return load_32(ram, cpu.code_map + (place >> 12) * 4) != 0


@kernel
def note_code_write(cpu, ram, place):
    """Remember that decoded code at `place` is stale, if there is any."""
    if holds_code(cpu, ram, place) == 0:
        return
    piece = place >> CODE_SHIFT
    if cpu.code_write_count > 0 and cpu.code_writes[cpu.code_write_count - 1] == piece:
        return
    if cpu.code_write_count >= CODE_WRITES:
        cpu.flush_code = 1
        return
    cpu.code_writes[cpu.code_write_count] = piece
    cpu.code_write_count += 1


@kernel
def read_at(cpu, ram, place, n):
    """`n` bytes (1 to 4) of one page at a place: an operand, or other data of an instruction."""
    if place >= BUS:
        return read_registers(cpu, place - BUS, n)
    if n == 4:
        return load_32(ram, place)
    if n == 1:
        return load_8(ram, place)
    if n == 2:
        return load_16(ram, place)
    return load_16(ram, place) | load_8(ram, place + 2) << 16


@kernel
def read_physical(cpu, ram, physical, n):
    """`n` bytes (1 to 4) of one page at a physical address: an operand, or other data of an instruction."""
    return read_at(cpu, ram, place_to_read(cpu, ram, physical), n)


@kernel
def read_memory(cpu, ram, physical, n):
    """What the processor reads of its own, which never reaches registers: a table's entry. `n` bytes, ones for no memory."""
    place = place_to_read(cpu, ram, physical)
    if place >= BUS:
        return (1 << (8 * n)) - 1
    return read_at(cpu, ram, place, n)


@kernel
def code_byte(ram, place):
    """A byte of an instruction at a place; what is in no memory reads as ones, registers too."""
    if place >= BUS:
        return 0xFF
    return load_8(ram, place)


@inline
def read_table(cpu, ram, physical):
    """The doubleword of a page table: one reference of a walk, which goes through the cache model."""
    reference(cpu, physical, WALK)
    if is_ram(cpu, physical):
        return load_32(ram, physical)
    return read_memory(cpu, ram, physical, 4)


@kernel
def write_physical(cpu, ram, physical, n, value):
    """Store the low `n` bytes (1 to 4) of `value` on one page at a physical address."""
    place = place_to_write(cpu, ram, physical)
    if place >= BUS:
        write_registers(cpu, physical, n, value)
        return
    if cpu.write_log != 0:
        log_write(cpu, ram, place)
    if page_holds_code(cpu, ram, place):
        note_code_write(cpu, ram, place)
    if (place ^ (place + n - 1)) >> CODE_SHIFT != 0:
        note_code_write(cpu, ram, place + n - 1)
    if n == 4:
        store_32(ram, place, value)
    elif n == 1:
        store_8(ram, place, value)
    else:
        store_16(ram, place, value)
        if n == 3:
            store_8(ram, place + 2, value >> 16)

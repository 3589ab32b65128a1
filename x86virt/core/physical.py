"""Physical memory: RAM, and what lies beyond it.

The byte array that holds RAM carries, behind RAM, one 32-bit mask per page: bit n says that bytes 128n to 128n+127 of
the page hold decoded code, so that a write there discards it. Reads beyond RAM give ones, writes there are lost.
"""

from .cache import WALK, reference
from .jit import inline, kernel, load_8, load_16, load_32, store_8, store_16, store_32
from .layout import CODE_SHIFT, CODE_WRITES


@inline
def holds_code(cpu, ram, physical):
    """Whether the 128-byte piece around a RAM address holds decoded code."""
    mask = load_32(ram, cpu.code_map + (physical >> 12) * 4)
    return (mask >> ((physical >> CODE_SHIFT) & 31)) & 1


@inline
def page_holds_code(cpu, ram, physical):
    """Whether any piece of the page holds decoded code."""
    return load_32(ram, cpu.code_map + (physical >> 12) * 4) != 0


@kernel
def note_code_write(cpu, ram, physical):
    """Remember that decoded code at `physical` is stale, if there is any."""
    if holds_code(cpu, ram, physical) == 0:
        return
    piece = physical >> CODE_SHIFT
    if cpu.code_write_count > 0 and cpu.code_writes[cpu.code_write_count - 1] == piece:
        return
    if cpu.code_write_count >= CODE_WRITES:
        cpu.flush_code = 1
        return
    cpu.code_writes[cpu.code_write_count] = piece
    cpu.code_write_count += 1


@kernel
def read_physical(cpu, ram, physical, n):
    """`n` bytes (1, 2 or 4) at a physical address."""
    if physical + n - 1 > cpu.ram_last:
        return (1 << (8 * n)) - 1
    if n == 4:
        return load_32(ram, physical)
    if n == 1:
        return load_8(ram, physical)
    if n == 2:
        return load_16(ram, physical)
    return load_16(ram, physical) | load_8(ram, physical + 2) << 16


@inline
def read_table(cpu, ram, physical):
    """The doubleword of a page table: one reference of a walk, which goes through the cache model."""
    reference(cpu, physical, WALK)
    value = 0xFFFFFFFF
    if physical + 3 <= cpu.ram_last:
        value = load_32(ram, physical)
    return value


@kernel
def write_physical(cpu, ram, physical, n, value):
    """Store the low `n` bytes (1 to 4) of `value` at a physical address."""
    if physical + n - 1 > cpu.ram_last:
        return
    if page_holds_code(cpu, ram, physical):
        note_code_write(cpu, ram, physical)
    if (physical ^ (physical + n - 1)) >> CODE_SHIFT != 0:
        note_code_write(cpu, ram, physical + n - 1)
    if n == 4:
        store_32(ram, physical, value)
    elif n == 1:
        store_8(ram, physical, value)
    else:
        store_16(ram, physical, value)
        if n == 3:
            store_8(ram, physical + 2, value >> 16)

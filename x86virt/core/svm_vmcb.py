"""The fields of a VMCB and of other pages that SVM keeps in memory (AMD publication 24593, appendix B).

A page's bytes are found once, as a place for reading or for writing (core/physical_map.py). What no memory answers reads as
ones, what no memory takes is lost.
"""

from .cache import VMM, reference
from .jit import inline, kernel, load_8, load_16, load_32, store_8, store_16, store_32
from .layout import CODE_SHIFT
from .physical import note_code_write, page_holds_code
from .physical_map import BUS, log_write, place_to_read, place_to_write

M32 = 0xFFFFFFFF
PAGE_PIECES = 1 << (12 - CODE_SHIFT)


@kernel
def touch(cpu, address, count):
    """The references of the processor to `count` bytes of its own structures, line by line, for the cache model."""
    line = 1 << cpu.cache_levels[0].line_shift
    at = address & ~(line - 1)
    while at < address + count:
        reference(cpu, at, VMM)
        at += line


@kernel
def page_for_reading(cpu, ram, address):
    """Where a page's bytes are read, at or beyond BUS if nowhere."""
    return place_to_read(cpu, ram, address)


@kernel
def page_for_writing(cpu, ram, address):
    """Where a page's bytes are written, at or beyond BUS if nowhere; code that was decoded there is stale from now on."""
    place = place_to_write(cpu, ram, address)
    if place < BUS:
        if cpu.write_log != 0:
            log_write(cpu, ram, place)
        if page_holds_code(cpu, ram, place):
            for piece in range(PAGE_PIECES):
                note_code_write(cpu, ram, place + (piece << CODE_SHIFT))
    return place


@inline
def get_8(ram, place, offset):
    """A byte of a page."""
    if place >= BUS:
        return 0xFF
    return load_8(ram, place + offset)


@inline
def get_16(ram, place, offset):
    """A word of a page."""
    if place >= BUS:
        return 0xFFFF
    return load_16(ram, place + offset)


@inline
def get_32(ram, place, offset):
    """A doubleword of a page, or the low half of a quadword."""
    if place >= BUS:
        return M32
    return load_32(ram, place + offset)


@inline
def get_high(ram, place, offset):
    """The high half of a quadword."""
    return get_32(ram, place, offset + 4)


@inline
def put_8(ram, place, offset, value):
    """Store a byte."""
    if place < BUS:
        store_8(ram, place + offset, value)


@inline
def put_16(ram, place, offset, value):
    """Store a word."""
    if place < BUS:
        store_16(ram, place + offset, value)


@inline
def put_32(ram, place, offset, value):
    """Store a doubleword."""
    if place < BUS:
        store_32(ram, place + offset, value & M32)


@inline
def put_64(ram, place, offset, value):
    """Store a quadword, of a signed number."""
    put_32(ram, place, offset, value)
    put_32(ram, place, offset + 4, (value >> 32) & M32)

"""Descriptors of the guest's GDT, and their shadows in the VMM's: of both, what the jitted exits need.

What a segment register of the guest's CS or SS was loaded from is its shadow: base and default size are the guest's own, the
limit at most that.
"""

from ...core.jit import inline, kernel, load_32, store_32
from ...core.physical import write_physical
from .. import layout
from .guest_access import UNKNOWN, place_to_read
from .records import CPL, GDTR_BASE, GDTR_LIMIT

M32 = 0xFFFFFFFF
GDT = layout.GDT
FIRST_VMM_SELECTOR = layout.FIRST_VMM_SELECTOR
INDEX = 0xFFF8
TABLE_INDICATOR = 4
# In a descriptor's high doubleword (SDM volume 3, section 3.4.5).
ACCESSED, WRITABLE, CONFORMING, CODE, SEGMENT, PRESENT = 1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 15
DEFAULT_32, GRANULARITY = 1 << 22, 1 << 23


@inline
def dpl_of(high):
    """The descriptor privilege level."""
    return (high >> 13) & 3


@inline
def base_of(low, high):
    """The base address."""
    return low >> 16 | (high & 0xFF) << 16 | (high & 0xFF000000)


@inline
def limit_of(low, high):
    """The limit in bytes."""
    limit = (low & 0xFFFF) | (high & 0xF0000)
    if high & GRANULARITY != 0:
        limit = limit << 12 | 0xFFF
    return limit


@inline
def shadow_low(ram, selector):
    """The low doubleword of the shadow behind a selector."""
    return load_32(ram, GDT + (selector & INDEX))


@inline
def shadow_high(ram, selector):
    """The high doubleword of the shadow behind a selector; 0 if there is none."""
    return load_32(ram, GDT + (selector & INDEX) + 4)


@inline
def is_shadowed(ram, selector):
    """Whether a selector of the guest's GDT can be loaded as it is."""
    return selector & TABLE_INDICATOR == 0 and selector & INDEX < FIRST_VMM_SELECTOR and shadow_high(ram, selector) != 0


@kernel
def descriptor_place(ram, exits, selector):
    """The machine address of the descriptor behind a selector, -1 if left to Python: null, of an LDT, beyond the table."""
    if selector & 0xFFFC == 0 or selector & TABLE_INDICATOR != 0:
        return UNKNOWN
    if (selector & INDEX) + 7 > load_32(ram, GDTR_LIMIT):
        return UNKNOWN
    return place_to_read(ram, exits, (load_32(ram, GDTR_BASE) + (selector & INDEX)) & M32, 8, 0)


@inline
def is_code_of(high, dpl):
    """Whether a descriptor is a present, accessed, non-conforming code segment of that DPL."""
    wanted = SEGMENT | CODE | PRESENT | ACCESSED
    return high & (wanted | CONFORMING) == wanted and dpl_of(high) == dpl


@inline
def is_stack_of(high, dpl):
    """Whether a descriptor is a present, accessed, writable expand-up data segment of that DPL."""
    wanted = SEGMENT | WRITABLE | PRESENT | ACCESSED
    return high & (wanted | CODE | CONFORMING) == wanted and dpl_of(high) == dpl


@kernel
def set_cpl(cpu, ram, exits, cpl):
    """Enter a virtual privilege level: ring 3 code segments are there at CPL 3 only."""
    if load_32(ram, CPL) == cpl:
        return
    store_32(ram, CPL, cpl)
    for number in range(exits.user_code_count):
        place = GDT + exits.user_code[number] * 8 + 4
        high = load_32(ram, place) & ~PRESENT
        if cpl == 3:
            high |= PRESENT
        write_physical(cpu, ram, place, 4, high)

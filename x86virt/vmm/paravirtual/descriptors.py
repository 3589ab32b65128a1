"""What a descriptor must be like that a domain puts into its tables.

No domain gets into ring 0, and no segment of its reaches beyond what it may see of the linear space.
"""

from ...core.jit import inline, kernel
from ...core.segment import base_of
from .interface import FIRST_RESERVED_GDT_ENTRY, FLAT_RING1_CS

M32 = 0xFFFFFFFF
PAGE_BYTES = 0x1000
PRESENT, SEGMENT, GRANULAR = 1 << 15, 1 << 12, 1 << 23
DPL, DPL_1 = 3 << 13, 1 << 13
TYPE_SHIFT, TYPE = 8, 0xF
CODE, EXPAND_DOWN = 1 << 11, 1 << 10
TYPE_RESERVED, TYPE_CALL_GATE = 0, 0xC
GATE_RESERVED = 0xE0
LOCAL = 4  # a selector of the local table


@inline
def is_guest_gate_selector(selector):
    """Whether a gate may name this code segment: of the guest's tables, or the one that it is given."""
    return selector >> 3 < FIRST_RESERVED_GDT_ENTRY or selector == FLAT_RING1_CS or selector & LOCAL != 0


@inline
def of_guest_kernel(selector):
    """A selector as a guest's kernel may use it: its RPL is 1 or more."""
    fixed = selector & 0xFFFF
    if selector & 3 == 0:
        fixed |= 1
    return fixed


@kernel
def raw_limit(low, high):
    """Bytes of a segment by its limit field, modulo 2^32."""
    octets = ((low & 0xFFFF) | (high & 0xF0000)) + 1
    if high & GRANULAR != 0:
        octets <<= 12
    return octets & M32


@kernel
def with_pages(low, high, pages):
    """The descriptor with a limit of so many pages less one."""
    field = pages & 0xFFFFF
    return (low & ~0xFFFF) | (field & 0xFFFF), (high & ~0xF0000) | (field & 0xF0000)


@kernel
def checked_segment(low, high, last_page):
    """A code or data segment, its limit cut off where it would reach beyond a page: (1, low, high); 0 if it is refused."""
    end = (last_page + 1) * PAGE_BYTES
    base, octets = base_of(low, high), raw_limit(low, high)
    if base >= end - PAGE_BYTES:
        return 0, low, high
    if high & (CODE | EXPAND_DOWN) == EXPAND_DOWN:
        # Offsets from the limit up to the top: they must begin where the linear address has wrapped around.
        if octets == 0 or base + octets > M32:
            return 1, low, high
        room = (1 << 32) - (base & ~(PAGE_BYTES - 1))
    else:
        if octets != 0 and base + octets <= end:
            return 1, low, high
        room = end - base
    if high & GRANULAR == 0:
        return 0, low, high
    low, high = with_pages(low, high, (room >> 12) - 1)
    return 1, low, high


@kernel
def checked_descriptor(low, high, last_page):
    """A descriptor as it may stand in a domain's table, whose segments may reach `last_page`: (1, low, high); 0: refused.

    What is not present does no harm. A DPL of 0 is raised to 1.
    """
    if high & PRESENT == 0:
        return 1, low, high
    if high & DPL == 0:
        high |= DPL_1
    if high & SEGMENT != 0:
        return checked_segment(low, high, last_page)
    kind = (high >> TYPE_SHIFT) & TYPE
    if kind == TYPE_RESERVED:
        return 1, low, high
    allowed = kind == TYPE_CALL_GATE and high & GATE_RESERVED == 0 and is_guest_gate_selector(low >> 16)
    return int(allowed), low, high

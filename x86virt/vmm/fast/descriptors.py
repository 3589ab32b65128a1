"""Descriptors of the guest's GDT, and their shadows in the VMM's: of both, what the jitted exits need.

CS and SS of the guest are reloaded from their shadows at each return to it: base and default size are the guest's own there, the
limit at most that. Segments of an LDT, of rings 1 and 2, and those that no table holds any more are left to Python.
"""

from ...core.jit import inline, kernel, load_32, store_32
from ...core.physical import write_physical
from ...isa.registers import AR_DPL_SHIFT, AR_UNUSABLE, CS, SS
from .. import layout
from .guest_access import UNKNOWN, place_to_read
from .records import CPL, GDTR_BASE, GDTR_LIMIT, N_DATA

M32 = 0xFFFFFFFF
GDT = layout.GDT
FIRST_VMM_SELECTOR, VMM_BASE = layout.FIRST_VMM_SELECTOR, layout.VMM_BASE
DETACHED_CODE, DETACHED_STACK = layout.DETACHED_CODE_SELECTOR, layout.DETACHED_STACK_SELECTOR
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
    """Whether the descriptor behind a selector of the guest's GDT is in the shadow."""
    return selector & TABLE_INDICATOR == 0 and selector & INDEX < FIRST_VMM_SELECTOR and shadow_high(ram, selector) != 0


@inline
def is_detached(selector):
    """Whether CS or SS in the frame is loaded from an entry of the VMM's own, since no table says any more what it holds."""
    return selector & INDEX == DETACHED_CODE or selector & INDEX == DETACHED_STACK


@inline
def is_plain(ram, selector):
    """Whether a selector in the frame is detached, or shadowed of the guest's GDT, and its default size is 32 bits."""
    known = is_detached(selector) or is_shadowed(ram, selector)
    return known and shadow_high(ram, selector) & DEFAULT_32 != 0


@kernel
def descriptor_place(ram, exits, selector):
    """The machine address of the descriptor behind a selector, -1 if left to Python: null, of an LDT, beyond the table."""
    if selector & 0xFFFC == 0 or selector & TABLE_INDICATOR != 0:
        return UNKNOWN
    if (selector & INDEX) + 7 > load_32(ram, GDTR_LIMIT):
        return UNKNOWN
    return place_to_read(ram, exits, (load_32(ram, GDTR_BASE) + (selector & INDEX)) & M32, 8, 0)


@inline
def is_code_of(low, high, dpl):
    """Whether a descriptor is a present, accessed, non-conforming 32-bit code segment of that DPL below the VMM."""
    wanted = SEGMENT | CODE | PRESENT | ACCESSED | DEFAULT_32
    return high & (wanted | CONFORMING) == wanted and dpl_of(high) == dpl and base_of(low, high) < VMM_BASE


@inline
def is_stack_of(low, high, dpl):
    """Whether a descriptor is a present, accessed, writable, 32-bit expand-up data segment of that DPL below the VMM."""
    wanted = SEGMENT | WRITABLE | PRESENT | ACCESSED | DEFAULT_32
    return high & (wanted | CODE | CONFORMING) == wanted and dpl_of(high) == dpl and base_of(low, high) < VMM_BASE


@inline
def is_held(segment, held):
    """Whether a register is still as the VMM left it when it loaded a segment of an inner ring."""
    same = segment.selector == held.selector and segment.seg_base == held.seg_base
    return same and segment.limit == held.limit and segment.access == held.access


@kernel
def keeps_data_segments(cpu, exits, level):
    """Whether a return to an outer level leaves DS, ES, FS and GS as they are (SDM volume 2, RET and IRET operation)."""
    for segment in range(N_DATA):
        if segment == CS or segment == SS or cpu.seg[segment].access & AR_UNUSABLE != 0:
            continue
        if (cpu.seg[segment].access >> AR_DPL_SHIFT) & 3 < level or is_held(cpu.seg[segment], exits.held[segment]):
            return False
    return True


@kernel
def set_cpl(cpu, ram, exits, cpl):
    """Enter virtual CPL 0 or 3: the code of outer rings is there at CPL 3 only."""
    if load_32(ram, CPL) == cpl:
        return
    store_32(ram, CPL, cpl)
    for number in range(exits.hidden_count):
        place = exits.hidden[number]
        high = load_32(ram, place) & ~PRESENT
        if cpl == 3:
            high |= PRESENT
        write_physical(cpu, ram, place, 4, high)

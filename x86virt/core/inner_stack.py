"""Stacks that deliveries and call gates push on: room, stores, and the inner stacks that a TSS names.

SDM volume 2, INT n and CALL operation; volume 3, section 7.2.
"""

from ..isa.registers import (
    AR_P,
    AR_S,
    AR_TYPE,
    TR,
    TYPE_EXPAND_DOWN,
    TYPE_TSS_16_BUSY,
    TYPE_TSS_32_BUSY,
)
from ..isa.vectors import SS_FAULT, TS
from .fault import raise_fault
from .jit import inline, kernel, load_16
from .layout import OK
from .memory import SUPERVISOR, bytes_at, plain_read, plain_write, read_linear_slowly, write_linear_slowly
from .mode import MASK_32, stack_mask
from .segment import (
    SELECTOR_INDEX,
    access_of,
    dpl_of,
    is_null,
    is_writable_data,
    read_descriptor_or,
)


@inline
def item_allowed(access, limit, offset, n):
    """Do `n` bytes at `offset` lie within a stack segment?"""
    if access & TYPE_EXPAND_DOWN:
        return offset > limit and offset + n - 1 <= stack_mask(access)
    return offset + n - 1 <= limit


@inline
def has_room_for(access, limit, pointer, count, n):
    """Can `count` items of `n` bytes be pushed below `pointer`?"""
    mask = stack_mask(access)
    # The highest item decides, unless the segment is expand-down or the pointer wraps.
    if access & TYPE_EXPAND_DOWN == 0 and n * count <= pointer <= mask:
        return pointer - 1 <= limit
    for below in range(n, n * count + 1, n):
        if not item_allowed(access, limit, (pointer - below) & mask, n):
            return False
    return True


@kernel
def stack_has_room(access, limit, pointer, n_bytes):
    """Can `n_bytes`, a multiple of 4, be pushed by doublewords below `pointer`?"""
    return has_room_for(access, limit, pointer, n_bytes >> 2, 4)


@kernel
def stack_has_room_16(access, limit, pointer, n_bytes):
    """Can `n_bytes`, a multiple of 2, be pushed by words below `pointer`?"""
    return has_room_for(access, limit, pointer, n_bytes >> 1, 2)


@inline
def write_stack_item(cpu, ram, stack_base, mask, pointer, n, value, user):
    """Store `n` bytes on a stack whose segment has been checked; `user` is 1 if that stack belongs to ring 3."""
    return write_linear_slowly(cpu, ram, (stack_base + (pointer & mask)) & MASK_32, n, value, user)


@inline
def plain_frame(cpu, stack_base, mask, pointer, size, bank):
    """The index into RAM of `size` bytes below a stack pointer, or -1 when their items must be stored one by one."""
    if pointer > mask or pointer < size:
        return -1
    return plain_write(cpu, (stack_base + pointer - size) & MASK_32, size, bank)


@inline
def write_stack(cpu, ram, stack_base, mask, pointer, value, user):
    """Store a doubleword on a stack whose segment has been checked."""
    return write_stack_item(cpu, ram, stack_base, mask, pointer, 4, value, user)


@kernel
def read_stack_pointer_slowly(cpu, ram, address, size):
    """Read ESP or SP and SS from a TSS, whatever lies there: (outcome, selector, pointer)."""
    outcome, pointer = read_linear_slowly(cpu, ram, address, size, 0)
    if outcome != OK:
        return outcome, 0, 0
    outcome, selector = read_linear_slowly(cpu, ram, (address + size) & MASK_32, 2, 0)
    return outcome, selector, pointer


@inline
def tss_stack_pointer(cpu, ram, level, ext):
    """SS and ESP for an inner level from the current TSS: (outcome, selector, pointer); #TS(TR) beyond its limit."""
    tss = cpu.seg[TR]
    kind = tss.access & (AR_S | AR_TYPE)
    if kind == TYPE_TSS_32_BUSY:
        size = 4
        offset = level * 8 + 4
    elif kind == TYPE_TSS_16_BUSY:
        size = 2
        offset = level * 4 + 2
    else:
        return raise_fault(cpu, TS, (tss.selector & SELECTOR_INDEX) | ext), 0, 0
    if offset + size + 1 > tss.limit:
        return raise_fault(cpu, TS, (tss.selector & SELECTOR_INDEX) | ext), 0, 0
    address = (tss.seg_base + offset) & MASK_32
    index = plain_read(cpu, address, size + 2, SUPERVISOR)
    if index < 0:
        return read_stack_pointer_slowly(cpu, ram, address, size)
    return OK, load_16(ram, index + size), bytes_at(ram, index, size)


@inline
def read_inner_stack(cpu, ram, selector, level, ext):
    """Check the stack segment of an inner level: (outcome, low, high) of its descriptor."""
    # 1. A null selector.
    if is_null(selector):
        return raise_fault(cpu, TS, ext), 0, 0
    # 2. Outside the table's limits.
    outcome, low, high = read_descriptor_or(cpu, ram, selector, TS, ext)
    if outcome != OK:
        return outcome, 0, 0
    # 3. RPL and DPL must be the new level, the segment a writable data segment.
    access = access_of(high)
    if selector & 3 != level or dpl_of(access) != level or not is_writable_data(access):
        return raise_fault(cpu, TS, (selector & SELECTOR_INDEX) | ext), 0, 0
    # 4. Not present.
    if access & AR_P == 0:
        return raise_fault(cpu, SS_FAULT, (selector & SELECTOR_INDEX) | ext), 0, 0
    return OK, low, high

"""Types of frames for all who use one: as a page table of some level, for descriptors, or mapped writable.

A type is taken beside a reference. Taking one looks into the frame if it must; giving the last one back gives back all that
the frame held.
"""

import numpy as np

from ...core.cache import VMM, reference
from ...core.jit import inline, kernel, load_32
from ...core.physical import write_physical
from ...isa.events import EVENT_VMM_TABLE_SCAN, EVENT_XEN_FRAME_VALIDATED
from .charge import charge, count
from .descriptors import checked_descriptor
from .frame_counts import (
    GOT,
    REFUSED,
    TO_VALIDATE,
    begin_type,
    count_info,
    drop_type,
    end_validation,
    get_page,
    owner_of,
    put_page,
    type_info,
)
from .records import PGT_COUNT, PGT_L1, PGT_L2, PGT_L3, PGT_PAE_XEN_L2, PGT_SEG_DESC, PGT_TYPE
from .table_checks import get_l1, get_l2, put_l1, put_l2, release_l3, release_waiting, validate_l3
from .table_entries import LINE_BYTES, PAGE_SHIFT

DESCRIPTORS = 512  # in a page


@kernel
def validate_descriptors(cpu, ram, xen, frame, last_page):
    """Look at the descriptors of a page, and bring them into the form that the processor may see: 1, or 0."""
    place = frame << PAGE_SHIFT
    charge(cpu, xen, EVENT_VMM_TABLE_SCAN, DESCRIPTORS)
    for _number in range(DESCRIPTORS):
        if place & (LINE_BYTES - 1) == 0:
            reference(cpu, place, VMM)
        before_low, before_high = load_32(ram, place), load_32(ram, place + 4)
        valid, low, high = checked_descriptor(before_low, before_high, last_page)
        if valid == 0:
            return REFUSED
        if low != before_low or high != before_high:
            write_physical(cpu, ram, place, 4, low)
            write_physical(cpu, ram, place + 4, 4, high)
        place += 8
    return GOT


@kernel
def get_descriptors(cpu, ram, xen, domains, frames, frame):
    """Use a frame for descriptors: 1, or 0."""
    got = begin_type(cpu, ram, xen, frames, frame, PGT_SEG_DESC)
    if got != TO_VALIDATE:
        return got
    last_page = np.int64(domains[owner_of(frames, frame)].segment_limit)
    got = validate_descriptors(cpu, ram, xen, frame, last_page)
    end_validation(frames, frame, got)
    count(cpu, EVENT_XEN_FRAME_VALIDATED, got)
    return got


@kernel
def get_l3(cpu, ram, xen, domains, frames, frame):
    """Use a frame as an L3: 1, or 0."""
    got = begin_type(cpu, ram, xen, frames, frame, PGT_L3)
    if got != TO_VALIDATE:
        return got
    got = validate_l3(cpu, ram, xen, domains, frames, frame)
    end_validation(frames, frame, got)
    count(cpu, EVENT_XEN_FRAME_VALIDATED, got)
    return got


@kernel
def get_page_type(cpu, ram, xen, domains, frames, frame, kind):
    """Use a frame, to which the caller has a reference, as what `kind` says: 1, or 0."""
    table = kind & PGT_TYPE
    if table == PGT_L1:
        return get_l1(cpu, ram, xen, domains, frames, frame)
    if table == PGT_L2:
        return get_l2(cpu, ram, xen, domains, frames, frame, kind)
    if table == PGT_L3:
        return get_l3(cpu, ram, xen, domains, frames, frame)
    if table == PGT_SEG_DESC:
        return get_descriptors(cpu, ram, xen, domains, frames, frame)
    return begin_type(cpu, ram, xen, frames, frame, kind)


@kernel
def put_page_type(cpu, ram, xen, domains, frames, frame):
    """Use a frame as what it is no more; the caller keeps the reference."""
    table = type_info(frames, frame) & PGT_TYPE
    if table == PGT_L1:
        put_l1(cpu, ram, xen, domains, frames, frame)
    elif table == PGT_L2:
        frames[frame].count_info = count_info(frames, frame) + 1
        put_l2(cpu, xen, domains, frames, frame)
        release_waiting(cpu, ram, xen, domains, frames)
    elif drop_type(xen, frames, frame) == 0 and table == PGT_L3:
        release_l3(cpu, ram, xen, domains, frames, frame)


@kernel
def get_page_and_type(cpu, ram, xen, domains, frames, frame, domid, kind):
    """A reference to a frame of a domain, whatever number it is, and its use as what `kind` says: 1, or 0."""
    if get_page(cpu, frames, frame, domid) == REFUSED:
        return REFUSED
    if get_page_type(cpu, ram, xen, domains, frames, frame, kind) == REFUSED:
        put_page(cpu, xen, domains, frames, frame)
        return REFUSED
    return GOT


@kernel
def put_page_and_type(cpu, ram, xen, domains, frames, frame):
    """Give both back."""
    put_page_type(cpu, ram, xen, domains, frames, frame)
    put_page(cpu, xen, domains, frames, frame)


@inline
def is_used_as(frames, frame, table):
    """Whether somebody uses a frame as a table of this level."""
    info = type_info(frames, frame)
    return info & PGT_TYPE == table and info & PGT_COUNT != 0


@inline
def kind_of(frames, frame):
    """What a frame is used as, as get_page_type takes it."""
    return type_info(frames, frame) & (PGT_TYPE | PGT_PAE_XEN_L2)

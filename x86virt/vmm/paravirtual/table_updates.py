"""Updates of single entries of page tables that are in use: checked, counted and written, the old entry given back.

The caller has a use of the table as what it is, so that nothing of what happens here ends it.
"""

import numpy as np

from ...core.cache import VMM, reference
from ...core.charge import charge as charge_processor
from ...core.jit import inline, kernel, load_32
from ...core.tlb import invalidate_page
from ...isa.events import EVENT_SYS_INVLPG, EVENT_XEN_ENTRY_REFUSED
from ...isa.registers import PTE_P, PTE_RW
from .charge import count
from .frame_counts import GOT, REFUSED, get_page, load_base, owner_of, put_page, type_info
from .page_types import is_used_as
from .records import PGT_L1
from .table_checks import (
    LAST_POINTER,
    get_from_l1_entry,
    get_from_l2_entry,
    get_from_l3_entry,
    guest_slots,
    is_pae,
    put_from_l1_entry,
    put_from_l2_entry,
    put_from_l3_entry,
    release_waiting,
)
from .table_entries import (
    MARKS,
    PAGE_SHIFT,
    entries_of,
    entry_shift,
    frame_in,
    high_at,
    is_allowed,
    is_present,
    write_entry,
)

UNKNOWN = -1
KEPT_IN_L1 = PTE_P | PTE_RW


@inline
def with_marks(low, before, preserve):
    """An entry with the accessed and dirty bits of the one before, where these are to be kept."""
    if preserve != 0:
        low |= before & MARKS
    return low


@kernel
def refuse_entry(cpu):
    """Count an entry that the guest does not get."""
    count(cpu, EVENT_XEN_ENTRY_REFUSED, 1)
    return REFUSED


@kernel
def update_l1_entry(cpu, ram, xen, domains, frames, place, low, high, preserve, domid):
    """Write an entry of a page table that maps, if anything, a frame of domain `domid`: 1, or 0."""
    pae = is_pae(domains, owner_of(frames, place >> PAGE_SHIFT))
    reference(cpu, place, VMM)
    old_low, old_high = load_32(ram, place), high_at(ram, place, pae)
    low = with_marks(low, old_low, preserve)
    if is_present(low):
        if not is_allowed(cpu, low, high):
            return refuse_entry(cpu)
        if (low ^ old_low) & KEPT_IN_L1 == 0 and frame_in(low, high) == frame_in(old_low, old_high):
            write_entry(cpu, ram, place, low, high, pae)
            return GOT
        if get_from_l1_entry(cpu, ram, xen, frames, low, high, domid) == REFUSED:
            return refuse_entry(cpu)
    write_entry(cpu, ram, place, low, high, pae)
    put_from_l1_entry(cpu, xen, domains, frames, old_low, old_high)
    return GOT


@kernel
def update_l2_entry(cpu, ram, xen, domains, frames, place, low, high, preserve):
    """Write an entry of an L2: 1, or 0."""
    table = place >> PAGE_SHIFT
    owner = owner_of(frames, table)
    pae = is_pae(domains, owner)
    reference(cpu, place, VMM)
    if (place & 0xFFF) >> entry_shift(pae) >= guest_slots(domains, owner, type_info(frames, table)):
        return refuse_entry(cpu)
    old_low, old_high = load_32(ram, place), high_at(ram, place, pae)
    low = with_marks(low, old_low, preserve)
    if is_present(low):
        if not is_allowed(cpu, low, high):
            return refuse_entry(cpu)
        same = frame_in(low, high) == frame_in(old_low, old_high) and (low ^ old_low) & PTE_RW == 0
        if is_present(old_low) and same:
            write_entry(cpu, ram, place, low, high, pae)
            return GOT
        if get_from_l2_entry(cpu, ram, xen, domains, frames, low, high, table) == REFUSED:
            return refuse_entry(cpu)
    write_entry(cpu, ram, place, low, high, pae)
    put_from_l2_entry(cpu, ram, xen, domains, frames, old_low, old_high, table)
    release_waiting(cpu, ram, xen, domains, frames)
    return GOT


@kernel
def update_l3_entry(cpu, ram, xen, domains, frames, place, low, high, preserve):
    """Write an entry of an L3, though not the last: 1, or 0. The processor reads it if it walks by this L3."""
    table = place >> PAGE_SHIFT
    number = (place & 0xFFF) >> 3
    reference(cpu, place, VMM)
    if number >= LAST_POINTER:
        return refuse_entry(cpu)
    old_low, old_high = load_32(ram, place), load_32(ram, place + 4)
    low = with_marks(low, old_low, preserve)
    if is_present(low):
        owner = owner_of(frames, table)
        if get_from_l3_entry(cpu, ram, xen, domains, frames, low, high, number, owner) == REFUSED:
            return refuse_entry(cpu)
    write_entry(cpu, ram, place, low, high, 1)
    if np.int64(domains[xen.current].base_frame) == table:
        load_base(cpu, ram, xen, domains)
    put_from_l3_entry(cpu, xen, domains, frames, old_low, old_high)
    release_waiting(cpu, ram, xen, domains, frames)
    return GOT


# -- entries found by what they map ------------------------------------------------------------------------------------


@kernel
def leaf_place(cpu, ram, xen, domains, gla):
    """The machine address of what maps a linear address of the current domain's, whatever table it is in; -1: nothing does."""
    domain = domains[xen.current]
    if gla < 0 or gla >= np.int64(domain.virt_start):
        return UNKNOWN
    place = np.int64(domain.base_frame) << PAGE_SHIFT
    pae = np.int64(domain.is_pae)
    index = gla >> 22
    if pae != 0:
        place += (gla >> 30) << 3
        reference(cpu, place, VMM)
        pointer = load_32(ram, place)
        if not is_present(pointer):
            return UNKNOWN
        place = frame_in(pointer, load_32(ram, place + 4)) << PAGE_SHIFT
        index = (gla >> 21) & 0x1FF
    place += index << entry_shift(pae)
    reference(cpu, place, VMM)
    entry = load_32(ram, place)
    if not is_present(entry):
        return UNKNOWN
    index = (gla >> PAGE_SHIFT) & (entries_of(pae) - 1)
    return frame_in(entry, high_at(ram, place, pae)) << PAGE_SHIFT | index << entry_shift(pae)


@kernel
def l1_place(cpu, ram, xen, domains, frames, gla):
    """The machine address of the page-table entry for a linear address of the current domain's; -1 if there is none."""
    place = leaf_place(cpu, ram, xen, domains, gla)
    if place >= 0 and not is_used_as(frames, place >> PAGE_SHIFT, PGT_L1):
        return UNKNOWN
    return place


@kernel
def l1_place_at(cpu, xen, domains, frames, low, high):
    """The machine address that a domain gives for a page-table entry of its own; -1 if none is there."""
    frame = low >> PAGE_SHIFT | high << (32 - PAGE_SHIFT)
    pae = is_pae(domains, xen.current)
    if low & ((1 << entry_shift(pae)) - 1) != 0 or get_page(cpu, frames, frame, xen.current) == REFUSED:
        return UNKNOWN
    place = UNKNOWN
    if is_used_as(frames, frame, PGT_L1):
        place = low
    put_page(cpu, xen, domains, frames, frame)
    return place


@kernel
def write_l1_entry(cpu, ram, xen, domains, frames, place, low, high):
    """Write an entry of a page table that comes with its reference already; the old one is given back."""
    pae = is_pae(domains, owner_of(frames, place >> PAGE_SHIFT))
    reference(cpu, place, VMM)
    old_low, old_high = load_32(ram, place), high_at(ram, place, pae)
    write_entry(cpu, ram, place, low, high, pae)
    put_from_l1_entry(cpu, xen, domains, frames, old_low, old_high)


@kernel
def flush_page(cpu, gla):
    """Have the TLB forget one page."""
    charge_processor(cpu, EVENT_SYS_INVLPG, 1)
    invalidate_page(cpu, gla & 0xFFFFF000)

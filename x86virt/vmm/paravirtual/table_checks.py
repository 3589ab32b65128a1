"""What page tables hold: references and types of frames taken for an entry, and given back.

Each level knows the level below it alone. An L2 may hold L2s too, where a guest maps its own tables (linear page tables):
itself without a reference, others if they are valid already; such entries permit no writing, so that what is mapped there
cannot be written. What nobody uses any more as an L2 waits in a list, so that no chain of L2s has the VMM call itself.
"""

import numpy as np

from ...core.cache import VMM, reference
from ...core.jit import inline, kernel, load_32, store_32
from ...isa.events import (
    EVENT_VMM_ENTRY_REFERENCE,
    EVENT_VMM_TABLE_SCAN,
    EVENT_XEN_FRAME_RELEASED,
    EVENT_XEN_FRAME_VALIDATED,
)
from . import layout
from .charge import charge, count
from .frame_counts import (
    GOT,
    REFUSED,
    TO_VALIDATE,
    begin_release,
    begin_type,
    drop_type,
    end_validation,
    get_page,
    get_writable,
    owner_of,
    put_page,
    type_info,
)
from .records import PGT_COUNT, PGT_L1, PGT_L2, PGT_PAE_XEN_L2, PGT_TYPE, PGT_VALIDATED
from .table_entries import (
    LINE_BYTES,
    PAGE_SHIFT,
    entry_shift,
    frame_in,
    high_at,
    is_allowed,
    is_allowed_pointer,
    is_present,
    is_writable,
)

LAST_L2 = PGT_L2 | PGT_PAE_XEN_L2
POINTERS = 4  # in an L3
LAST_POINTER = POINTERS - 1
TEMPLATES = layout.DIRECTORY_TEMPLATES


@inline
def is_pae(domains, domid):
    """1 if a domain's page tables have the format of PAE paging."""
    return np.int64(domains[domid].is_pae)


@inline
def look_at_line(cpu, place):
    """The reference to a cache line of a table, at the first entry in it."""
    if place & (LINE_BYTES - 1) == 0:
        reference(cpu, place, VMM)


@kernel
def charge_scan(cpu, xen, entries, references):
    """The price of a look through a table, and of what was taken or given back for its entries."""
    charge(cpu, xen, EVENT_VMM_TABLE_SCAN, entries)
    if references > 0:
        charge(cpu, xen, EVENT_VMM_ENTRY_REFERENCE, references)


# -- L1: pages ---------------------------------------------------------------------------------------------------------


@kernel
def get_from_l1_entry(cpu, ram, xen, frames, low, high, domid):
    """Take what a present entry of a page table needs of a frame of some domain: 1, or 0."""
    if not is_allowed(cpu, low, high):
        return REFUSED
    frame = frame_in(low, high)
    if get_page(cpu, frames, frame, domid) == REFUSED:
        return REFUSED
    if is_writable(low) and get_writable(cpu, ram, xen, frames, frame) == REFUSED:
        frames[frame].count_info = np.int64(frames[frame].count_info) - 1
        return REFUSED
    return GOT


@kernel
def put_from_l1_entry(cpu, xen, domains, frames, low, high):
    """Give back what an entry had, if it was present."""
    if not is_present(low):
        return
    frame = frame_in(low, high)
    if is_writable(low):
        drop_type(xen, frames, frame)
    put_page(cpu, xen, domains, frames, frame)


@kernel
def validate_l1(cpu, ram, xen, domains, frames, table):
    """Look at the entries of a frame that is to be a page table: 1 if all may stand there, else 0, with nothing held."""
    owner = owner_of(frames, table)
    pae = is_pae(domains, owner)
    shift = entry_shift(pae)
    begin = table << PAGE_SHIFT
    end = begin + (1 << PAGE_SHIFT)
    place = begin
    references = 0
    valid = GOT
    while valid != REFUSED and place < end:
        look_at_line(cpu, place)
        low = load_32(ram, place)
        if is_present(low):
            valid = get_from_l1_entry(cpu, ram, xen, frames, low, high_at(ram, place, pae), owner)
            references += valid
        place += 1 << shift
    charge_scan(cpu, xen, (place - begin) >> shift, references)
    if valid == REFUSED:
        put_l1_entries(cpu, ram, xen, domains, frames, begin, place - (1 << shift), pae)
    return valid


@kernel
def put_l1_entries(cpu, ram, xen, domains, frames, begin, end, pae):
    """Give back what the entries of a page table have, from one place to another."""
    place = begin
    references = 0
    while place < end:
        look_at_line(cpu, place)
        low = load_32(ram, place)
        if is_present(low):
            put_from_l1_entry(cpu, xen, domains, frames, low, high_at(ram, place, pae))
            references += 1
        place += 1 << entry_shift(pae)
    charge_scan(cpu, xen, (end - begin) >> entry_shift(pae), references)


@kernel
def get_l1(cpu, ram, xen, domains, frames, table):
    """Use a frame, to which the caller has a reference, as a page table: 1, or 0."""
    got = begin_type(cpu, ram, xen, frames, table, PGT_L1)
    if got != TO_VALIDATE:
        return got
    got = validate_l1(cpu, ram, xen, domains, frames, table)
    end_validation(frames, table, got)
    count(cpu, EVENT_XEN_FRAME_VALIDATED, got)
    return got


@kernel
def put_l1(cpu, ram, xen, domains, frames, table):
    """Use a frame as a page table no more."""
    if drop_type(xen, frames, table) == 0:
        begin_release(frames, table)
        count(cpu, EVENT_XEN_FRAME_RELEASED, 1)
        begin = table << PAGE_SHIFT
        pae = is_pae(domains, owner_of(frames, table))
        put_l1_entries(cpu, ram, xen, domains, frames, begin, begin + (1 << PAGE_SHIFT), pae)


# -- L2: page tables, and L2s in linear page tables --------------------------------------------------------------------


@inline
def guest_slots(domains, domid, info):
    """How many entries of an L2 with this type are the guest's; those behind are the VMM's."""
    first = np.int64(domains[domid].virt_start)
    if is_pae(domains, domid) == 0:
        return first >> 22
    if info & PGT_PAE_XEN_L2 != 0:
        return (first >> 21) & 0x1FF
    return 512


@kernel
def get_linear(cpu, frames, low, frame, directory, domid):
    """Let an L2 hold an L2, which is seen as a page table there: 1, or 0."""
    if is_writable(low):
        return REFUSED
    if frame == directory:
        return GOT
    if get_page(cpu, frames, frame, domid) == REFUSED:
        return REFUSED
    info = type_info(frames, frame)
    if info & (PGT_TYPE | PGT_VALIDATED) != PGT_L2 | PGT_VALIDATED or info & PGT_COUNT == PGT_COUNT:
        frames[frame].count_info = np.int64(frames[frame].count_info) - 1
        return REFUSED
    frames[frame].type_info = info + 1
    return GOT


@kernel
def get_from_l2_entry(cpu, ram, xen, domains, frames, low, high, directory):
    """Take what a present entry of an L2 needs: 1, or 0."""
    if not is_allowed(cpu, low, high):
        return REFUSED
    frame = frame_in(low, high)
    domid = owner_of(frames, directory)
    if get_page(cpu, frames, frame, domid) == REFUSED:
        return REFUSED
    if get_l1(cpu, ram, xen, domains, frames, frame) == GOT:
        return GOT
    frames[frame].count_info = np.int64(frames[frame].count_info) - 1
    return get_linear(cpu, frames, low, frame, directory, domid)


@kernel
def put_from_l2_entry(cpu, ram, xen, domains, frames, low, high, directory):
    """Give back what an entry of an L2 had. An L2 that nobody uses any more waits for release_waiting."""
    frame = frame_in(low, high)
    if not is_present(low) or frame == directory:
        return
    if type_info(frames, frame) & PGT_TYPE == PGT_L1:
        put_l1(cpu, ram, xen, domains, frames, frame)
        put_page(cpu, xen, domains, frames, frame)
    else:
        put_l2(cpu, xen, domains, frames, frame)


@kernel
def put_l2(cpu, xen, domains, frames, frame):
    """Give back a reference to an L2 and a use of it; the last use has it wait, with that reference, for release_waiting."""
    if drop_type(xen, frames, frame) == 0:
        begin_release(frames, frame)
        frames[frame].flush = xen.releasing
        xen.releasing = frame + 1
    else:
        put_page(cpu, xen, domains, frames, frame)


@kernel
def validate_l2(cpu, ram, xen, domains, frames, table):
    """Look at the guest's entries of a frame that is to be an L2, and write the VMM's: 1, or 0 with nothing held."""
    owner = owner_of(frames, table)
    pae = is_pae(domains, owner)
    shift = entry_shift(pae)
    begin = table << PAGE_SHIFT
    end = begin + (guest_slots(domains, owner, type_info(frames, table)) << shift)
    place = begin
    references = 0
    valid = GOT
    while valid != REFUSED and place < end:
        look_at_line(cpu, place)
        low = load_32(ram, place)
        if is_present(low):
            valid = get_from_l2_entry(cpu, ram, xen, domains, frames, low, high_at(ram, place, pae), table)
            references += valid
        place += 1 << shift
    charge_scan(cpu, xen, (place - begin) >> shift, references)
    if valid == REFUSED:
        put_l2_entries(cpu, ram, xen, domains, frames, table, begin, place - (1 << shift), pae)
    else:
        write_own_entries(cpu, ram, owner, end, begin + (1 << PAGE_SHIFT))
    return valid


@kernel
def write_own_entries(cpu, ram, domid, place, end):
    """Write the VMM's entries behind the guest's in an L2."""
    template = TEMPLATES + (domid << PAGE_SHIFT)
    while place < end:
        look_at_line(cpu, place)
        store_32(ram, place, load_32(ram, template + (place & 0xFFF)))
        place += 4


@kernel
def put_l2_entries(cpu, ram, xen, domains, frames, table, begin, end, pae):
    """Give back what the entries of an L2 have, from one place to another."""
    place = begin
    references = 0
    while place < end:
        look_at_line(cpu, place)
        low = load_32(ram, place)
        if is_present(low):
            put_from_l2_entry(cpu, ram, xen, domains, frames, low, high_at(ram, place, pae), table)
            references += 1
        place += 1 << entry_shift(pae)
    charge_scan(cpu, xen, (end - begin) >> entry_shift(pae), references)


@kernel
def get_l2(cpu, ram, xen, domains, frames, table, kind):
    """Use a frame, to which the caller has a reference, as an L2: 1, or 0. `kind` says whether as the last quarter's."""
    got = begin_type(cpu, ram, xen, frames, table, kind)
    if got != TO_VALIDATE:
        return got
    got = validate_l2(cpu, ram, xen, domains, frames, table)
    end_validation(frames, table, got)
    count(cpu, EVENT_XEN_FRAME_VALIDATED, got)
    return got


@kernel
def release_waiting(cpu, ram, xen, domains, frames):
    """Give back what the L2s hold that nobody uses any more, and those that become so by that."""
    while xen.releasing != 0:
        table = xen.releasing - 1
        xen.releasing = np.int64(frames[table].flush)
        owner = owner_of(frames, table)
        pae = is_pae(domains, owner)
        begin = table << PAGE_SHIFT
        end = begin + (guest_slots(domains, owner, type_info(frames, table)) << entry_shift(pae))
        put_l2_entries(cpu, ram, xen, domains, frames, table, begin, end, pae)
        frames[table].type_info = type_info(frames, table) & ~PGT_PAE_XEN_L2
        frames[table].flush = (xen.flush_clock + 1) & 0xFFFFFFFF
        count(cpu, EVENT_XEN_FRAME_RELEASED, 1)
        put_page(cpu, xen, domains, frames, table)


# -- L3: four L2s ------------------------------------------------------------------------------------------------------


@inline
def kind_of_pointer(number):
    """What an entry of an L3 names: the last one an L2 with the VMM's entries."""
    kind = PGT_L2
    if number == LAST_POINTER:
        kind = LAST_L2
    return kind


@kernel
def get_from_l3_entry(cpu, ram, xen, domains, frames, low, high, number, domid):
    """Take what a present entry of an L3 needs: 1, or 0."""
    if not is_allowed_pointer(low, high):
        return REFUSED
    frame = frame_in(low, high)
    if get_page(cpu, frames, frame, domid) == REFUSED:
        return REFUSED
    got = get_l2(cpu, ram, xen, domains, frames, frame, kind_of_pointer(number))
    if got == REFUSED:
        frames[frame].count_info = np.int64(frames[frame].count_info) - 1
    return got


@inline
def put_from_l3_entry(cpu, xen, domains, frames, low, high):
    """Give back what an entry of an L3 had, for release_waiting to finish."""
    if is_present(low):
        put_l2(cpu, xen, domains, frames, frame_in(low, high))


@inline
def has_its_own_last(frames, low, high):
    """Whether the L2 of the last quarter belongs to one L3 alone, as Xen demands."""
    return type_info(frames, frame_in(low, high)) & PGT_COUNT == 1


@kernel
def validate_l3(cpu, ram, xen, domains, frames, table):
    """Look at the four entries of a frame that is to be an L3; the last must be there and no other L3's: 1, or 0."""
    owner = owner_of(frames, table)
    begin = table << PAGE_SHIFT
    reference(cpu, begin, VMM)
    number = 0
    valid = is_pae(domains, owner)
    while valid != REFUSED and number < POINTERS:
        low = load_32(ram, begin + 8 * number)
        high = load_32(ram, begin + 8 * number + 4)
        if is_present(low):
            valid = get_from_l3_entry(cpu, ram, xen, domains, frames, low, high, number, owner)
        elif number == LAST_POINTER:
            valid = REFUSED
        number += valid
    if number == POINTERS and not has_its_own_last(frames, low, high):
        valid = REFUSED
    charge_scan(cpu, xen, POINTERS, number)
    if valid == REFUSED:
        put_l3_entries(cpu, ram, xen, domains, frames, table, number)
    return valid


@kernel
def put_l3_entries(cpu, ram, xen, domains, frames, table, entries):
    """Give back what the first entries of an L3 have."""
    for number in range(entries):
        place = (table << PAGE_SHIFT) + 8 * number
        put_from_l3_entry(cpu, xen, domains, frames, load_32(ram, place), load_32(ram, place + 4))
    release_waiting(cpu, ram, xen, domains, frames)


@kernel
def release_l3(cpu, ram, xen, domains, frames, table):
    """Give back what an L3 holds that nobody uses any more."""
    begin_release(frames, table)
    reference(cpu, table << PAGE_SHIFT, VMM)
    charge_scan(cpu, xen, POINTERS, POINTERS)
    put_l3_entries(cpu, ram, xen, domains, frames, table, POINTERS)
    count(cpu, EVENT_XEN_FRAME_RELEASED, 1)

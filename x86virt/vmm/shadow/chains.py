"""Chains of slots: the entries that map a machine frame writable, and the directory entries that hold a table.

With them a frame is protected, and a table given up, without a search. A slot is in one chain at most.
"""

from ...core.jit import inline, kernel, load_32, store_32
from ...isa.registers import PTE_A, PTE_ADDRESS, PTE_G, PTE_P, PTE_PS, PTE_RW, PTE_US
from .. import layout
from .records import ENTRIES, MODE_PAE, QUARTERS, ROLE_QUARTER_SHIFT, STALE, STALE_GLOBAL, VMM_SLOT, VMM_SLOT_PAE

SHADOW = layout.SHADOW
PAGE_BITS = 12
LINK = PTE_P | PTE_RW | PTE_US | PTE_A  # what is permitted stands in the entries of the table


@inline
def slot_address(slot):
    """The machine address of a slot, which is also its place in the VMM's region."""
    return SHADOW + 4 * slot


@inline
def page_address(page):
    """The machine address of a page of the pool."""
    return SHADOW + (page << PAGE_BITS)


@inline
def page_of(entry):
    """The page of the pool that a directory entry holds."""
    return ((entry & PTE_ADDRESS) - SHADOW) >> PAGE_BITS


@inline
def is_pae(page):
    """Whether a page of the pool has the format of PAE paging."""
    return page.role & MODE_PAE != 0


@inline
def is_vmms(control, slot):
    """Whether a slot of a directory is that of the VMM's region."""
    directory = control.pages[slot >> 10]
    if control.region == 0:
        return False
    if is_pae(directory):
        return directory.role >> ROLE_QUARTER_SHIFT == QUARTERS - 1 and slot & (ENTRIES - 1) >= VMM_SLOT_PAE
    return slot & (ENTRIES - 1) == VMM_SLOT


@inline
def place_of(control, slot):
    """Which part of the linear space a slot of a directory stands for: 4 MB, or 2 MB under PAE paging."""
    directory = control.pages[slot >> 10]
    index = slot & (ENTRIES - 1)
    if is_pae(directory):
        return (directory.role >> ROLE_QUARTER_SHIFT) << 9 | index >> 1
    return index


@inline
def put_first(links, slot, head):
    """Put a slot before the chain that begins with `head`; returns the new head."""
    links.following[slot] = head
    links.preceding[slot] = 0
    if head != 0:
        links.preceding[head - 1] = slot + 1
    return slot + 1


@inline
def take_out(links, slot, head):
    """Take a slot out of the chain that begins with `head`; returns the new head."""
    following = links.following[slot]
    preceding = links.preceding[slot]
    if following != 0:
        links.preceding[following - 1] = preceding
    if preceding == 0:
        return following
    links.following[preceding - 1] = following
    return head


@kernel
def write_leaf(ram, control, links, slot, entry):
    """Write an entry that maps guest memory, or 0; a page of 4 KB, or in a directory one of 4 MB."""
    old = load_32(ram, slot_address(slot))
    if old & PTE_RW != 0:
        frame = old >> 12
        links.writable[frame] = take_out(links, slot, links.writable[frame])
        if entry & PTE_RW == 0 or (entry ^ old) & PTE_ADDRESS != 0:
            control.stale |= STALE
            if old & PTE_G != 0:
                control.stale |= STALE_GLOBAL
    store_32(ram, slot_address(slot), entry)
    if entry & PTE_RW != 0:
        frame = entry >> 12
        links.writable[frame] = put_first(links, slot, links.writable[frame])
    if entry & PTE_G != 0:
        control.globals = 1
        control.global_entries = 1


@kernel
def hold_table(ram, control, links, slot, page):
    """Let a free directory slot hold a table."""
    table = control.pages[page]
    place = place_of(control, slot)
    if table.place < 0:
        table.place = place
    elif table.place != place:
        table.aliased = 1
    store_32(ram, slot_address(slot), (SHADOW + (page << PAGE_BITS)) | LINK)
    table.parents = put_first(links, slot, table.parents)


@kernel
def clear_slot(ram, control, links, slot):
    """Make a directory slot hold nothing; the VMM's stays."""
    entry = load_32(ram, slot_address(slot))
    if entry & PTE_P == 0 or is_vmms(control, slot):
        return
    if entry & PTE_PS != 0:
        write_leaf(ram, control, links, slot, 0)
        return
    table = control.pages[page_of(entry)]
    table.parents = take_out(links, slot, table.parents)
    store_32(ram, slot_address(slot), 0)


@inline
def linear_of(control, slot):
    """The linear address of what a leaf slot maps; -1 if there may be several."""
    page = slot >> 10
    index = slot & (ENTRIES - 1)
    table = control.pages[page]
    if table.aliased == 1 or table.place < 0:
        return -1
    if is_pae(table):
        return table.place << 21 | (index >> 1) << 12
    return table.place << 22 | index << 12


@inline
def linear_of_large(control, slot):
    """The linear address of the large page that a slot of a directory maps."""
    place = place_of(control, slot)
    if is_pae(control.pages[slot >> 10]):
        return place << 21
    return place << 22

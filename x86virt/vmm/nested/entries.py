"""The formats of nested tables: where an entry of an address is, and what stands in it.

Extended page tables (SDM volume 3, section 28.2.2) have four levels, of which a guest of less than 512 GB uses one entry of the
first. SVM's tables have the format of the VMM's own paging: two levels, or three with pointers. Every access of a guest is
a user's there; accessed and dirty bits are set from the start, so that no walk has to.
"""

from ...core.jit import inline, load_32, store_32
from ...isa.registers import PTE_A, PTE_D, PTE_P, PTE_PS, PTE_RW, PTE_US
from .. import layout
from ..shadow.records import MACHINE_FRAME, READ_ONLY
from .records import EPT, FIRST_PAGE, FORM, NPT_2, NPT_3

PAGE_SHIFT = 12
EPT_READ, EPT_WRITE, EPT_FETCH = 1, 2, 4
EPT_LARGE = 1 << 7
EPT_WRITE_BACK = 6 << 3  # the memory type of a page
ADDRESS = 0xFFFFF000
ROOT = layout.SHADOW + (FIRST_PAGE << PAGE_SHIFT)


@inline
def form_of(ram):
    """The format of the tables."""
    return load_32(ram, FORM)


@inline
def region_shift(form):
    """The bits of the address within a region."""
    if form == NPT_2:
        return 22
    return 21


@inline
def entry_shift(form):
    """The bits of the address within an entry."""
    if form == NPT_2:
        return 2
    return 3


@inline
def top_shift(form):
    """The bits of what an entry of the root maps."""
    if form == EPT:
        return 39
    if form == NPT_3:
        return 30
    return 22


@inline
def place_in(form, table, gpa, shift):
    """The machine address of an address's entry in a table whose entries map `1 << shift` bytes."""
    bits = 12 - entry_shift(form)
    return table + (((gpa >> shift) & ((1 << bits) - 1)) << entry_shift(form))


@inline
def is_present(form, entry):
    """Whether an entry's low doubleword names or maps anything."""
    if form == EPT:
        return entry & (EPT_READ | EPT_WRITE | EPT_FETCH) != 0
    return entry & PTE_P != 0


@inline
def is_large(entry):
    """Whether a directory's entry maps a page; the bit is the same in all formats."""
    return entry & EPT_LARGE != 0


@inline
def naming(form, table, shift):
    """The entry that names a table, in one whose entries map `1 << shift` bytes."""
    if form == EPT:
        return table | EPT_READ | EPT_WRITE | EPT_FETCH
    if form == NPT_3 and shift == 30:
        return table | PTE_P
    return table | PTE_P | PTE_RW | PTE_US | PTE_A


@inline
def mapping(form, target):
    """The entry that maps a page to what an entry of the p2m says."""
    frame = (target & MACHINE_FRAME) << PAGE_SHIFT
    if form == EPT:
        entry = frame | EPT_READ | EPT_FETCH | EPT_WRITE_BACK
        if target & READ_ONLY == 0:
            entry |= EPT_WRITE
        return entry
    entry = frame | PTE_P | PTE_US | PTE_A | PTE_D
    if target & READ_ONLY == 0:
        entry |= PTE_RW
    return entry


@inline
def mapping_large(form, target):
    """The same of a large page."""
    return mapping(form, target) | PTE_PS


@inline
def write_entry(ram, form, place, value):
    """Write an entry; machine addresses have no more than 32 bits."""
    store_32(ram, place, value)
    if form != NPT_2:
        store_32(ram, place + 4, 0)

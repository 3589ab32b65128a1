"""Entries of page tables as values: the frame that one names, and what a guest may say in it beside that.

An entry has two doublewords under PAE paging, and one without, whose high one counts as 0. Refused are large pages, global
pages, memory types, and bits that the processor reserves.
"""

from ...core.jit import inline, kernel, load_32
from ...core.physical import write_physical
from ...isa.registers import EFER_NXE, PTE_A, PTE_D, PTE_G, PTE_HIGH_NX, PTE_P, PTE_PCD, PTE_PS, PTE_PWT, PTE_RW

DISALLOWED = PTE_PWT | PTE_PCD | PTE_PS | PTE_G
DISALLOWED_HIGH = 0xFFFFF000  # of a frame's number there is room for 44 bits of address
MARKS = PTE_A | PTE_D
PAGE_SHIFT = 12
LINE_BYTES = 64  # of the cache, in which a table is read through


@inline
def frame_in(low, high):
    """The frame that an entry names."""
    return low >> PAGE_SHIFT | (high & ~DISALLOWED_HIGH) << (32 - PAGE_SHIFT)


@inline
def is_allowed(cpu, low, high):
    """Whether a guest may have the other bits of an entry of a page table or directory."""
    refused = DISALLOWED_HIGH
    if cpu.efer & EFER_NXE != 0:
        refused &= ~PTE_HIGH_NX
    return low & DISALLOWED == 0 and high & refused == 0


@inline
def is_allowed_pointer(low, high):
    """The same of a page-directory-pointer entry; what the processor reserves there is not loaded (load_base)."""
    return low & DISALLOWED == 0 and high & DISALLOWED_HIGH == 0


@inline
def entry_shift(is_pae):
    """The bits of the address within an entry."""
    return 2 + is_pae


@inline
def entries_of(is_pae):
    """How many entries a page table or directory has."""
    return 1024 >> is_pae


@inline
def high_at(ram, place, is_pae):
    """The high doubleword of an entry."""
    high = 0
    if is_pae != 0:
        high = load_32(ram, place + 4)
    return high


@kernel
def write_entry(cpu, ram, place, low, high, is_pae):
    """Write an entry."""
    write_physical(cpu, ram, place, 4, low)
    if is_pae != 0:
        write_physical(cpu, ram, place + 4, 4, high)


@inline
def is_present(low):
    """Whether an entry names anything."""
    return low & PTE_P != 0


@inline
def is_writable(low):
    """Whether an entry permits writing."""
    return low & PTE_RW != 0

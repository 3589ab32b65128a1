"""CR3, and the page-directory-pointer entries that PAE paging loads with it (SDM volume 3, section 4.4.1).

Four registers of the processor hold the entries; walks use these, not memory. Loading them is one reference: they lie in
one 32-byte line. In a guest, extended page tables say where they lie; under SVM's nested paging they are not loaded at all, since
walks read them again (AMD publication 24593, section 15.25.10).
"""

from ..isa.registers import (
    CR0_PG,
    CR3_PAE_ADDRESS,
    CR4_PAE,
    PDPTE_RESERVED,
    PTE_ADDRESS,
    PTE_HIGH_NX,
    PTE_P,
)
from ..isa.vectors import GP
from .cache import WALK, reference
from .extensions import pointers_in_host
from .fault import raise_fault
from .jit import inline, kernel
from .layout import DTLB_LARGE, ITLB_LARGE, NESTED_EPT, NESTED_NPT, NESTED_OFF, OK
from .physical import read_memory
from .tlb import flush_tlb


@inline
def pae_paging(cr0, cr4):
    """Whether these values of CR0 and CR4 mean PAE paging."""
    return cr0 & CR0_PG != 0 and cr4 & CR4_PAE != 0


@inline
def pointer_address(cpu, gla):
    """Where the page-directory-pointer entry of a linear address is."""
    return ((cpu.cr3 & CR3_PAE_ADDRESS) | (gla >> 30) << 3) & ~cpu.a20_closed


@kernel
def pointer_of(cpu, low, high):
    """An entry by its halves: (whether it sets a reserved bit, the entry as registers hold it; 0 if it is not present)."""
    if low & PTE_P == 0:
        return False, 0
    reserved = low & PDPTE_RESERVED != 0 or high & (cpu.address_reserved_high | PTE_HIGH_NX) != 0
    return reserved, (low & (PTE_ADDRESS | PTE_P)) | (high & ~PTE_HIGH_NX) << 32


@kernel
def read_pointer(cpu, ram, address):
    """One entry in memory: (whether it sets a reserved bit, the entry; 0 if it is not present)."""
    return pointer_of(cpu, read_memory(cpu, ram, address, 4), read_memory(cpu, ram, address + 4, 4))


@kernel
def load_pointers(cpu, ram, cr3):
    """Load the four entries from memory; #GP(0), and all registers as before, if a present one sets a reserved bit."""
    if cpu.nested_kind == NESTED_NPT:
        return OK
    table = cr3 & CR3_PAE_ADDRESS & ~cpu.a20_closed
    if cpu.nested_kind == NESTED_EPT:
        outcome, table = pointers_in_host(cpu, ram, table)
        if outcome != OK:
            return outcome
    reference(cpu, table, WALK)
    for number in range(4):
        reserved, entry = read_pointer(cpu, ram, table + 8 * number)
        if reserved:
            return raise_fault(cpu, GP, 0)
    for number in range(4):
        reserved, entry = read_pointer(cpu, ram, table + 8 * number)
        cpu.pdpte[number] = entry
    return OK


@kernel
def load_cr3(cpu, ram, value):
    """What MOV CR3 and a task switch do: the root changes, PAE paging loads its pointers, all but global entries go."""
    if pae_paging(cpu.cr0, cpu.cr4):
        outcome = load_pointers(cpu, ram, value)
        if outcome != OK:
            return outcome
    cpu.cr3 = value
    flush_tlb(cpu, 1)
    return OK


@inline
def set_large_page_size(cpu):
    """Large pages are 2 MB under CR4.PAE, else 4 MB; the TLBs have just been flushed.

    With nested tables the TLBs hold 2 MB at most, whatever larger pages both dimensions have.
    """
    shift = 22
    if cpu.cr4 & CR4_PAE != 0 or cpu.nested_kind != NESTED_OFF:
        shift = 21
    cpu.tlb_units[DTLB_LARGE].shift = shift
    cpu.tlb_units[ITLB_LARGE].shift = shift

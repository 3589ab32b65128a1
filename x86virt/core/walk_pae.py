"""The tables of PAE paging: 4 KB and 2 MB pages, 64-bit entries, NX (SDM volume 3, section 4.4).

The four page-directory-pointer entries are not read by a walk: the processor holds them since CR3 was loaded
(core/page_directory_pointers.py); only under SVM's nested paging a walk reads them again. A walk takes and returns what one
of 32-bit paging does (core/walk_32bit.py). An entry is read as two doublewords; the marks that a walk sets are in the low one.
"""

from ..isa.events import EVENT_WALK_POINTER_REFERENCE
from ..isa.registers import (
    EFER_NXE,
    PDE_2M_ADDRESS,
    PDE_2M_RESERVED,
    PTE_A,
    PTE_ADDRESS,
    PTE_D,
    PTE_HIGH_NX,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
)
from .cache import WALK, reference
from .charge import charge
from .extensions import guest_to_host, table_in_host
from .guest_tables import DIRECTORY, POINTERS, TABLE, TWO_DIMENSIONS, set_marks
from .jit import inline, kernel
from .layout import NESTED_NPT, OK, RIGHT_NX
from .page_directory_pointers import pointer_address, read_pointer
from .page_rights import NOT_PRESENT, PROTECTION, RESERVED_BIT, leaf_rights, page_fault, permits
from .physical import read_memory, read_table


@inline
def reserved_high(cpu):
    """The reserved bits of an entry's high doubleword; NX is one of them unless EFER.NXE is set."""
    if cpu.efer & EFER_NXE == 0:
        return cpu.address_reserved_high | PTE_HIGH_NX
    return cpu.address_reserved_high


@inline
def entry_address(cpu, table, gla, shift):
    """Where the entry of a linear address is in a table that is indexed by nine bits from `shift`."""
    return (table | ((gla >> shift) & 0x1FF) << 3) & ~cpu.a20_closed


@inline
def with_high(low, high):
    """A physical address from its low doubleword and an entry's high one."""
    return low | (high & ~PTE_HIGH_NX) << 32


@inline
def no_execute(high):
    """The NX bit of an entry among a translation's rights."""
    return (high >> 31) * RIGHT_NX


@kernel
def read_guest_pointer(cpu, ram, gla, write, user, fetch):
    """Read a page-directory-pointer entry in a walk: (outcome, the entry; 0 if it is not present)."""
    outcome, address = table_in_host(cpu, ram, gla, POINTERS, pointer_address(cpu, gla))
    if outcome != OK:
        return outcome, 0
    charge(cpu, EVENT_WALK_POINTER_REFERENCE, 1)
    reference(cpu, address, WALK)
    reserved, pointer = read_pointer(cpu, ram, address)
    if reserved:
        return page_fault(cpu, gla, write, user, fetch, RESERVED_BIT), 0
    return OK, pointer


@inline
def walk_pae(cpu, ram, gla, write, user, fetch, dimensions):
    """Walk for one access, from the page-directory-pointer entry that the processor holds."""
    # 1. The page-directory-pointer entry, checked when it was loaded.
    pointer = cpu.pdpte[gla >> 30]
    if dimensions == TWO_DIMENSIONS and cpu.nested_kind == NESTED_NPT:
        outcome, pointer = read_guest_pointer(cpu, ram, gla, write, user, fetch)
        if outcome != OK:
            return outcome, 0, 0, 0
    if pointer & PTE_P == 0:
        return page_fault(cpu, gla, write, user, fetch, NOT_PRESENT), 0, 0, 0
    # 2. The page-directory entry.
    reserved = reserved_high(cpu)
    pde_address = entry_address(cpu, pointer & ~0xFFF, gla, 21)
    if dimensions == TWO_DIMENSIONS:
        outcome, pde_address = table_in_host(cpu, ram, gla, DIRECTORY, pde_address)
        if outcome != OK:
            return outcome, 0, 0, 0
    pde = read_table(cpu, ram, pde_address)
    pde_high = read_memory(cpu, ram, pde_address + 4, 4)
    if pde & PTE_P == 0:
        return page_fault(cpu, gla, write, user, fetch, NOT_PRESENT), 0, 0, 0
    if pde_high & reserved != 0:
        return page_fault(cpu, gla, write, user, fetch, RESERVED_BIT), 0, 0, 0
    # 3. A 2 MB page?
    if pde & PTE_PS != 0:
        return walk_2m(cpu, ram, gla, write, user, fetch, dimensions, pde_address, pde, pde_high)
    # 4. The page-table entry.
    pte_address = entry_address(cpu, with_high(pde & PTE_ADDRESS, pde_high), gla, 12)
    if dimensions == TWO_DIMENSIONS:
        outcome, pte_address = table_in_host(cpu, ram, gla, TABLE, pte_address)
        if outcome != OK:
            return outcome, 0, 0, 0
    pte = read_table(cpu, ram, pte_address)
    pte_high = read_memory(cpu, ram, pte_address + 4, 4)
    if pte & PTE_P == 0:
        return page_fault(cpu, gla, write, user, fetch, NOT_PRESENT), 0, 0, 0
    if pte_high & reserved != 0:
        return page_fault(cpu, gla, write, user, fetch, RESERVED_BIT), 0, 0, 0
    # 5. U/S and R/W are the AND of both levels, NX is the OR.
    rights = (pde & pte & (PTE_RW | PTE_US)) | no_execute(pde_high | pte_high)
    if not permits(cpu, rights, write, user, fetch):
        return page_fault(cpu, gla, write, user, fetch, PROTECTION), 0, 0, 0
    # 6. Accessed bits at both levels, the dirty bit in the leaf.
    if pde & PTE_A == 0:
        outcome = set_marks(cpu, ram, gla, dimensions, DIRECTORY, pde_address, pde | PTE_A)
        if outcome != OK:
            return outcome, 0, 0, 0
    marked = pte | PTE_A | write * PTE_D
    if marked != pte:
        outcome = set_marks(cpu, ram, gla, dimensions, TABLE, pte_address, marked)
        if outcome != OK:
            return outcome, 0, 0, 0
    return OK, with_high(pte & PTE_ADDRESS, pte_high), rights | leaf_rights(cpu, marked), 12


@kernel
def walk_2m(cpu, ram, gla, write, user, fetch, dimensions, pde_address, pde, pde_high):
    """The rest of a walk that ended at a 2 MB page."""
    if pde & PDE_2M_RESERVED != 0:
        return page_fault(cpu, gla, write, user, fetch, RESERVED_BIT), 0, 0, 0
    rights = (pde & (PTE_RW | PTE_US)) | no_execute(pde_high)
    if not permits(cpu, rights, write, user, fetch):
        return page_fault(cpu, gla, write, user, fetch, PROTECTION), 0, 0, 0
    marked = pde | PTE_A | write * PTE_D
    if marked != pde:
        outcome = set_marks(cpu, ram, gla, dimensions, DIRECTORY, pde_address, marked)
        if outcome != OK:
            return outcome, 0, 0, 0
    return OK, with_high(pde & PDE_2M_ADDRESS, pde_high), rights | leaf_rights(cpu, marked), 21


@kernel
def peek_pointer(cpu, ram, gla):
    """The page-directory-pointer entry for a linear address, 0 if it is not present; without any effect."""
    if cpu.nested_kind != NESTED_NPT:
        return cpu.pdpte[gla >> 30]
    address = guest_to_host(cpu, ram, pointer_address(cpu, gla))
    if address < 0:
        return 0
    reserved, pointer = read_pointer(cpu, ram, address)
    return pointer


@kernel
def peek_pae(cpu, ram, gla):
    """The physical address (of a guest: guest-physical) that a linear one translates to, or -1; without any effect."""
    pointer = peek_pointer(cpu, ram, gla)
    if pointer & PTE_P == 0:
        return -1
    address = guest_to_host(cpu, ram, entry_address(cpu, pointer & ~0xFFF, gla, 21))
    if address < 0:
        return -1
    pde = read_memory(cpu, ram, address, 4)
    high = read_memory(cpu, ram, address + 4, 4)
    if pde & PTE_P == 0:
        return -1
    if pde & PTE_PS != 0:
        return with_high(pde & PDE_2M_ADDRESS, high) | (gla & 0x1FFFFF)
    address = guest_to_host(cpu, ram, entry_address(cpu, with_high(pde & PTE_ADDRESS, high), gla, 12))
    if address < 0:
        return -1
    pte = read_memory(cpu, ram, address, 4)
    high = read_memory(cpu, ram, address + 4, 4)
    if pte & PTE_P == 0:
        return -1
    return with_high(pte & PTE_ADDRESS, high) | (gla & 0xFFF)

"""The tables of 32-bit paging: 4 KB pages, and 4 MB pages with and without PSE-36 (SDM volume 3, section 4.3).

A walk returns (outcome, physical address of the page, rights, bits of its offset). It sets accessed and dirty bits; the
TLBs and the charge for the walk itself are its caller's. The PAT bits are memory types, which are not modelled. In a guest
with nested tables the addresses are guest-physical: `dimensions` tells so, and core/nested.py where they lie.
"""

from ..isa.registers import (
    CR3_ADDRESS,
    CR4_PSE,
    PDE_4M_ADDRESS,
    PTE_A,
    PTE_ADDRESS,
    PTE_D,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
)
from .extensions import guest_to_host, table_in_host
from .guest_tables import DIRECTORY, TABLE, TWO_DIMENSIONS, set_marks
from .jit import inline, kernel
from .layout import OK
from .page_rights import NOT_PRESENT, PROTECTION, RESERVED_BIT, leaf_rights, page_fault, permits
from .physical import read_memory, read_table


@inline
def directory_entry_address(cpu, gla):
    """Where the page-directory entry of a linear address is."""
    return ((cpu.cr3 & CR3_ADDRESS) | (gla >> 22) << 2) & ~cpu.a20_closed


@inline
def table_entry_address(cpu, gla, pde):
    """Where the page-table entry of a linear address is."""
    return ((pde & PTE_ADDRESS) | ((gla >> 12) & 0x3FF) << 2) & ~cpu.a20_closed


@inline
def large_frame(pde):
    """The address of a 4 MB page: bits 39:32 stand in bits 20:13 of its entry (PSE-36; reserved bits without it)."""
    return (pde & PDE_4M_ADDRESS) | ((pde >> 13) & 0xFF) << 32


@inline
def walk_32bit(cpu, ram, gla, write, user, fetch, dimensions):
    """Walk the two levels for one access."""
    # 1. The page-directory entry.
    pde_address = directory_entry_address(cpu, gla)
    if dimensions == TWO_DIMENSIONS:
        outcome, pde_address = table_in_host(cpu, ram, gla, DIRECTORY, pde_address)
        if outcome != OK:
            return outcome, 0, 0, 0
    pde = read_table(cpu, ram, pde_address)
    if pde & PTE_P == 0:
        return page_fault(cpu, gla, write, user, fetch, NOT_PRESENT), 0, 0, 0
    # 2. A 4 MB page?
    if pde & PTE_PS != 0 and cpu.cr4 & CR4_PSE != 0:
        return walk_4m(cpu, ram, gla, write, user, fetch, dimensions, pde_address, pde)
    # 3. The page-table entry.
    pte_address = table_entry_address(cpu, gla, pde)
    if dimensions == TWO_DIMENSIONS:
        outcome, pte_address = table_in_host(cpu, ram, gla, TABLE, pte_address)
        if outcome != OK:
            return outcome, 0, 0, 0
    pte = read_table(cpu, ram, pte_address)
    if pte & PTE_P == 0:
        return page_fault(cpu, gla, write, user, fetch, NOT_PRESENT), 0, 0, 0
    # 4. Access rights are the AND of both levels.
    rights = pde & pte & (PTE_RW | PTE_US)
    if not permits(cpu, rights, write, user, fetch):
        return page_fault(cpu, gla, write, user, fetch, PROTECTION), 0, 0, 0
    # 5. Accessed bits at both levels, the dirty bit in the leaf.
    if pde & PTE_A == 0:
        outcome = set_marks(cpu, ram, gla, dimensions, DIRECTORY, pde_address, pde | PTE_A)
        if outcome != OK:
            return outcome, 0, 0, 0
    marked = pte | PTE_A | write * PTE_D
    if marked != pte:
        outcome = set_marks(cpu, ram, gla, dimensions, TABLE, pte_address, marked)
        if outcome != OK:
            return outcome, 0, 0, 0
    return OK, pte & PTE_ADDRESS, rights | leaf_rights(cpu, marked), 12


@kernel
def walk_4m(cpu, ram, gla, write, user, fetch, dimensions, pde_address, pde):
    """The rest of a walk that ended at a 4 MB page."""
    if pde & cpu.large_page_reserved != 0:
        return page_fault(cpu, gla, write, user, fetch, RESERVED_BIT), 0, 0, 0
    rights = pde & (PTE_RW | PTE_US)
    if not permits(cpu, rights, write, user, fetch):
        return page_fault(cpu, gla, write, user, fetch, PROTECTION), 0, 0, 0
    marked = pde | PTE_A | write * PTE_D
    if marked != pde:
        outcome = set_marks(cpu, ram, gla, dimensions, DIRECTORY, pde_address, marked)
        if outcome != OK:
            return outcome, 0, 0, 0
    return OK, large_frame(pde), rights | leaf_rights(cpu, marked), 22


@kernel
def peek_32bit(cpu, ram, gla):
    """The physical address (of a guest: guest-physical) that a linear one translates to, or -1; without any effect."""
    address = guest_to_host(cpu, ram, directory_entry_address(cpu, gla))
    if address < 0:
        return -1
    pde = read_memory(cpu, ram, address, 4)
    if pde & PTE_P == 0:
        return -1
    if pde & PTE_PS != 0 and cpu.cr4 & CR4_PSE != 0:
        return large_frame(pde) | (gla & 0x3FFFFF)
    address = guest_to_host(cpu, ram, table_entry_address(cpu, gla, pde))
    if address < 0:
        return -1
    pte = read_memory(cpu, ram, address, 4)
    if pte & PTE_P == 0:
        return -1
    return (pte & PTE_ADDRESS) | (gla & 0xFFF)

"""Linear to physical addresses: 32-bit paging with 4 KB and 4 MB pages (SDM volume 3, sections 4.3, 4.6 to 4.10)."""

from ..isa.events import EVENT_WALK_NATIVE, EVENT_WALK_TLB_L2_HIT
from ..isa.registers import (
    CR0_PG,
    CR0_WP,
    CR3_ADDRESS,
    CR4_PGE,
    CR4_PSE,
    PDE_4M_ADDRESS,
    PDE_4M_RESERVED,
    PF_P,
    PF_RSVD,
    PF_U,
    PF_W,
    PTE_A,
    PTE_ADDRESS,
    PTE_D,
    PTE_G,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
)
from ..isa.vectors import PF
from .cache import WALK, reference
from .charge import charge
from .fault import raise_fault
from .jit import inline, kernel
from .layout import DTLB, DTLB_L2, DTLB_LARGE, OK
from .physical import read_physical, write_physical
from .tlb import find, insert

ITLB_OFFSET = 3  # the instruction TLBs follow the data TLBs in the same order


@inline
def permits(cpu, rights, write, user):
    """Whether the combined U/S and R/W bits of a walk allow the access (section 4.6)."""
    if user == 1:
        return rights & PTE_US != 0 and (write == 0 or rights & PTE_RW != 0)
    return write == 0 or rights & PTE_RW != 0 or cpu.cr0 & CR0_WP == 0


@kernel
def page_fault(cpu, gla, present, write, user, reserved):
    """Raise #PF with CR2 and the error code of section 4.7."""
    cpu.cr2 = gla
    code = present * PF_P | write * PF_W | user * PF_U | reserved * (PF_RSVD | PF_P)
    return raise_fault(cpu, PF, code)


@inline
def read_entry(cpu, ram, physical):
    """One table reference: it goes through the cache model."""
    reference(cpu, physical, WALK)
    return read_physical(cpu, ram, physical, 4)


@kernel
def walk(cpu, ram, gla, write, user, fetch, cached):
    """Walk the tables for one access, set accessed and dirty bits, fill the TLBs.

    `cached` is 1 if some TLB holds the page already, whose entry is then brought up to date.
    Returns (outcome, physical address, rights). Charges the walk and, by the cache model, its references.
    """
    charge(cpu, EVENT_WALK_NATIVE, 1)
    # 1. The page-directory entry.
    pde_address = (cpu.cr3 & CR3_ADDRESS) | (gla >> 22) << 2
    pde = read_entry(cpu, ram, pde_address)
    if pde & PTE_P == 0:
        return page_fault(cpu, gla, 0, write, user, 0), 0, 0
    # 2. A 4 MB page?
    if pde & PTE_PS != 0 and cpu.cr4 & CR4_PSE != 0:
        return walk_large(cpu, ram, gla, write, user, fetch, cached, pde_address, pde)
    # 3. The page-table entry.
    pte_address = (pde & PTE_ADDRESS) | ((gla >> 12) & 0x3FF) << 2
    pte = read_entry(cpu, ram, pte_address)
    if pte & PTE_P == 0:
        return page_fault(cpu, gla, 0, write, user, 0), 0, 0
    # 4. Access rights are the AND of both levels.
    rights = pde & pte & (PTE_RW | PTE_US)
    if not permits(cpu, rights, write, user):
        return page_fault(cpu, gla, 1, write, user, 0), 0, 0
    # 5. Accessed bits at both levels, the dirty bit in the leaf.
    if pde & PTE_A == 0:
        write_physical(cpu, ram, pde_address, 4, pde | PTE_A)
    marked = pte | PTE_A | write * PTE_D
    if marked != pte:
        write_physical(cpu, ram, pte_address, 4, marked)
    # 6. Fill the TLBs.
    rights |= leaf_rights(cpu, marked)
    frame = pte & PTE_ADDRESS
    fill(cpu, gla, frame, rights, fetch * ITLB_OFFSET, cached)
    return OK, frame | (gla & 0xFFF), rights


@kernel
def walk_large(cpu, ram, gla, write, user, fetch, cached, pde_address, pde):
    """The rest of a walk that ended at a 4 MB page."""
    rights = pde & (PTE_RW | PTE_US)
    if pde & PDE_4M_RESERVED != 0:
        return page_fault(cpu, gla, 1, write, user, 1), 0, 0
    if not permits(cpu, rights, write, user):
        return page_fault(cpu, gla, 1, write, user, 0), 0, 0
    marked = pde | PTE_A | write * PTE_D
    if marked != pde:
        write_physical(cpu, ram, pde_address, 4, marked)
    rights |= leaf_rights(cpu, marked)
    frame = pde & PDE_4M_ADDRESS
    replace(cpu, DTLB_LARGE + fetch * ITLB_OFFSET, gla, frame, rights, cached)
    return OK, frame | (gla & 0x3FFFFF), rights


@inline
def leaf_rights(cpu, entry):
    """The dirty bit and, if CR4.PGE allows it, the global bit of a leaf entry."""
    return (entry & PTE_D) | (entry & PTE_G) * int(cpu.cr4 & CR4_PGE != 0)


@kernel
def replace(cpu, unit, gla, frame, rights, cached):
    """Fill a TLB; an entry that was found wanting (its dirty bit, its rights) is updated in place."""
    index = -1
    if cached == 1:
        index = find(cpu, unit, gla)
    if index < 0:
        insert(cpu, unit, gla, frame, rights)
        return
    entry = cpu.tlb[index]
    entry.frame = frame
    entry.rights = rights
    entry.generation = cpu.tlb_generation


@kernel
def fill(cpu, gla, frame, rights, offset, cached):
    """Fill both levels of the 4 KB TLBs, data (offset 0) or instruction (offset 3)."""
    replace(cpu, DTLB + offset, gla, frame, rights, cached)
    replace(cpu, DTLB_L2 + offset, gla, frame, rights, cached)


@kernel
def lookup(cpu, gla, offset):
    """The TLB entry for an address, -1 on a miss; a second-level hit is charged and moved to the first level."""
    index = find(cpu, DTLB + offset, gla)
    if index >= 0:
        return index
    index = find(cpu, DTLB_LARGE + offset, gla)
    if index >= 0:
        return index
    index = find(cpu, DTLB_L2 + offset, gla)
    if index < 0:
        return -1
    charge(cpu, EVENT_WALK_TLB_L2_HIT, 1)
    entry = cpu.tlb[index]
    return insert(cpu, DTLB + offset, gla, entry.frame, entry.rights)


@kernel
def translate(cpu, ram, gla, write, user, fetch):
    """Translate one access: (outcome, physical address, rights).

    A TLB entry that forbids the access, or whose dirty bit a write must set, is walked again before anything is
    concluded from it (a rise of rights needs no INVLPG).
    """
    if cpu.cr0 & CR0_PG == 0:
        return OK, gla, PTE_RW | PTE_US | PTE_D
    index = lookup(cpu, gla, fetch * ITLB_OFFSET)
    if index >= 0:
        entry = cpu.tlb[index]
        if permits(cpu, entry.rights, write, user) and (write == 0 or entry.rights & PTE_D != 0):
            mask = (1 << 12) - 1
            if is_large(cpu, index, fetch):
                mask = (1 << 22) - 1
            return OK, entry.frame | (gla & mask), entry.rights
    return walk(cpu, ram, gla, write, user, fetch, int(index >= 0))


@inline
def is_large(cpu, index, fetch):
    """Whether a TLB index lies in the unit for large pages."""
    unit = cpu.tlb_units[DTLB_LARGE + fetch * ITLB_OFFSET]
    return unit.first <= index < unit.first + unit.sets * unit.ways


@kernel
def peek_translation(cpu, ram, gla):
    """Walk for a report: the physical address, or -1; nothing is charged, marked or filled."""
    if cpu.cr0 & CR0_PG == 0:
        return gla
    pde = read_physical(cpu, ram, (cpu.cr3 & CR3_ADDRESS) | (gla >> 22) << 2, 4)
    if pde & PTE_P == 0:
        return -1
    if pde & PTE_PS != 0 and cpu.cr4 & CR4_PSE != 0:
        return (pde & PDE_4M_ADDRESS) | (gla & 0x3FFFFF)
    pte = read_physical(cpu, ram, (pde & PTE_ADDRESS) | ((gla >> 12) & 0x3FF) << 2, 4)
    if pte & PTE_P == 0:
        return -1
    return (pte & PTE_ADDRESS) | (gla & 0xFFF)

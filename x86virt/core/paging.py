"""Linear to physical addresses through the modelled TLBs and the tables of the paging mode (SDM volume 3, chapter 4)."""

from ..isa.events import EVENT_WALK_NATIVE, EVENT_WALK_TLB_L2_HIT
from ..isa.registers import CR0_PG, CR4_PAE, PTE_D, PTE_RW, PTE_US
from .charge import charge
from .jit import inline, kernel
from .layout import DTLB, DTLB_L2, DTLB_LARGE, OK
from .page_rights import permits
from .tlb import find, insert
from .walk_32bit import peek_32bit, walk_32bit
from .walk_pae import peek_pae, walk_pae

ITLB_OFFSET = 3  # the instruction TLBs follow the data TLBs in the same order


@kernel
def walk(cpu, ram, gla, write, user, fetch, cached):
    """Walk the tables for one access, set accessed and dirty bits, fill the TLBs.

    `cached` is 1 if some TLB holds the page already, whose entry is then brought up to date.
    Returns (outcome, physical address, rights). Charges the walk and, by the cache model, its references.
    """
    charge(cpu, EVENT_WALK_NATIVE, 1)
    if cpu.cr4 & CR4_PAE == 0:
        outcome, frame, rights, shift = walk_32bit(cpu, ram, gla, write, user, fetch)
    else:
        outcome, frame, rights, shift = walk_pae(cpu, ram, gla, write, user, fetch)
    if outcome != OK:
        return outcome, 0, 0
    offset = fetch * ITLB_OFFSET
    if shift == 12:
        replace(cpu, DTLB + offset, gla, frame, rights, cached)
        replace(cpu, DTLB_L2 + offset, gla, frame, rights, cached)
    else:
        replace(cpu, DTLB_LARGE + offset, gla, frame, rights, cached)
    return OK, (frame | (gla & ((1 << shift) - 1))) & ~cpu.a20_closed, rights


@inline
def replace(cpu, unit, gla, frame, rights, cached):
    """Fill a TLB; an entry that was found wanting (its dirty bit, its rights) is updated in place."""
    index = -1
    if cached == 1:
        index = find(cpu, unit, gla)
    if index < 0:
        if cpu.tlb_units[unit].ways != 0:
            insert(cpu, unit, gla, frame, rights)
    else:
        entry = cpu.tlb[index]
        entry.frame = frame
        entry.rights = rights
        entry.generation = cpu.tlb_generation


@inline
def lookup(cpu, gla, offset):
    """The TLB entry for an address, -1 on a miss; a second-level hit is charged and moved to the first level."""
    index = find(cpu, DTLB + offset, gla)
    if index < 0:
        index = find(cpu, DTLB_LARGE + offset, gla)
    if index < 0:
        index = find(cpu, DTLB_L2 + offset, gla)
        if index >= 0:
            charge(cpu, EVENT_WALK_TLB_L2_HIT, 1)
            entry = cpu.tlb[index]
            index = insert(cpu, DTLB + offset, gla, entry.frame, entry.rights)
    return index


@inline
def page_mask(cpu, index, offset):
    """The offset bits of the page that a TLB entry translates: more than 11:0 in the unit for large pages."""
    unit = cpu.tlb_units[DTLB_LARGE + offset]
    mask = 0xFFF
    if unit.first <= index < unit.first + unit.sets * unit.ways:
        mask = (1 << unit.shift) - 1
    return mask


@inline
def translate(cpu, ram, gla, write, user, fetch):
    """Translate one access: (outcome, physical address, rights).

    A TLB entry that forbids the access, or whose dirty bit a write must set, is walked again before anything is
    concluded from it (a rise of rights needs no INVLPG).
    """
    if cpu.cr0 & CR0_PG == 0:
        return OK, gla & ~cpu.a20_closed, PTE_RW | PTE_US | PTE_D
    offset = fetch * ITLB_OFFSET
    index = lookup(cpu, gla, offset)
    if index >= 0:
        entry = cpu.tlb[index]
        if permits(cpu, entry.rights, write, user, fetch) and (write == 0 or entry.rights & PTE_D != 0):
            physical = entry.frame | (gla & page_mask(cpu, index, offset))
            return OK, physical & ~cpu.a20_closed, entry.rights
    return walk(cpu, ram, gla, write, user, fetch, int(index >= 0))


@kernel
def peek_translation(cpu, ram, gla):
    """Walk for a report: the physical address, or -1; nothing is charged, marked or filled."""
    if cpu.cr0 & CR0_PG == 0:
        physical = gla
    elif cpu.cr4 & CR4_PAE == 0:
        physical = peek_32bit(cpu, ram, gla)
    else:
        physical = peek_pae(cpu, ram, gla)
    if physical < 0:
        return physical
    return physical & ~cpu.a20_closed

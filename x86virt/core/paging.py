"""Linear to physical addresses through the modelled TLBs and the tables of the paging mode (SDM volume 3, chapter 4)."""

from ..isa.events import EVENT_WALK_NATIVE, EVENT_WALK_TLB_L2_HIT
from ..isa.registers import CR0_PG, CR4_PAE, PTE_A, PTE_ADDRESS, PTE_D, PTE_P, PTE_PS, PTE_RW, PTE_US
from .cache import WALK, reference
from .charge import charge
from .extensions import guest_to_host, walk_two_dimensions
from .guest_tables import ONE_DIMENSION
from .jit import inline, kernel, load_32
from .layout import DTLB, DTLB_L2, DTLB_LARGE, NESTED_OFF, OK
from .page_rights import leaf_rights, permits
from .physical import write_physical
from .physical_map import in_hole
from .tlb import fill, find, insert
from .walk_32bit import directory_entry_address, peek_32bit, table_entry_address, walk_32bit
from .walk_pae import peek_pae, walk_pae

ITLB_OFFSET = 3  # the instruction TLBs follow the data TLBs in the same order


@kernel
def walk(cpu, ram, gla, write, user, fetch, cached):
    """Walk the tables for one access, set accessed and dirty bits, fill the TLBs.

    `cached` is 1 if some TLB holds the page already, whose entry is then brought up to date.
    Returns (outcome, physical address, rights). Charges the walk and, by the cache model, its references.
    """
    if (cpu.cr4 & CR4_PAE) | cpu.nested_kind != 0:
        return walk_otherwise(cpu, ram, gla, write, user, fetch, cached)
    charge(cpu, EVENT_WALK_NATIVE, 1)
    outcome, frame, rights, shift = walk_32bit(cpu, ram, gla, write, user, fetch, ONE_DIMENSION)
    if outcome != OK:
        return outcome, 0, 0
    remember(cpu, gla, frame, rights, shift, fetch, cached)
    return OK, (frame | (gla & ((1 << shift) - 1))) & ~cpu.a20_closed, rights


@kernel
def walk_otherwise(cpu, ram, gla, write, user, fetch, cached):
    """`walk` under PAE paging and with nested tables; a function of its own, since `walk` is made for 32-bit paging."""
    if cpu.nested_kind != NESTED_OFF:
        return walk_two_dimensions(cpu, ram, gla, write, user, fetch, cached)
    charge(cpu, EVENT_WALK_NATIVE, 1)
    outcome, frame, rights, shift = walk_pae(cpu, ram, gla, write, user, fetch, ONE_DIMENSION)
    if outcome != OK:
        return outcome, 0, 0
    remember(cpu, gla, frame, rights, shift, fetch, cached)
    return OK, (frame | (gla & ((1 << shift) - 1))) & ~cpu.a20_closed, rights


@inline
def remember(cpu, gla, frame, rights, shift, fetch, cached):
    """Fill the TLBs with what a walk found."""
    offset = fetch * ITLB_OFFSET
    if shift == 12:
        replace(cpu, DTLB + offset, gla, frame, rights, cached)
        replace(cpu, DTLB_L2 + offset, gla, frame, rights, cached)
    else:
        replace(cpu, DTLB_LARGE + offset, gla, frame, rights, cached)


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
def is_missed(cpu, gla):
    """Whether no data TLB holds the page of an address."""
    return find(cpu, DTLB, gla) < 0 and find(cpu, DTLB_LARGE, gla) < 0 and find(cpu, DTLB_L2, gla) < 0


@inline
def walk_for_read(cpu, ram, gla, user):
    """The commonest walk, in a straight line: the physical address, or -1 with nothing done where `translate` must look.

    It reads a page of 4 KB in RAM that no data TLB holds, under 32-bit paging without nested tables, from a page table that
    was used before.
    """
    # 1. The mode, and a TLB to fill.
    if (~cpu.cr0 & CR0_PG) | (cpu.cr4 & CR4_PAE) | cpu.a20_closed | cpu.nested_kind != 0 or cpu.tlb_units[DTLB].ways == 0:
        return -1
    # 2. Both entries, only looked at so far: in RAM, present, open to the reader; the upper one accessed.
    last = cpu.ram_last - 0xFFF
    pde_address = directory_entry_address(cpu, gla)
    if pde_address > last:
        return -1
    pde = load_32(ram, pde_address)
    pte_address = table_entry_address(cpu, gla, pde)
    if pte_address > last:
        return -1
    pte = load_32(ram, pte_address)
    needed = PTE_P | user * PTE_US
    frame = pte & PTE_ADDRESS
    if pde & pte & needed != needed or pde & (PTE_PS | PTE_A) != PTE_A or frame > last or not is_missed(cpu, gla):
        return -1
    if cpu.holes != 0 and (in_hole(cpu, pde_address) or in_hole(cpu, pte_address) or in_hole(cpu, frame)):
        return -1
    # 3. The walk as it is charged, and the TLBs as it fills them.
    charge(cpu, EVENT_WALK_NATIVE, 1)
    reference(cpu, pde_address, WALK)
    reference(cpu, pte_address, WALK)
    if pte & PTE_A == 0:
        write_physical(cpu, ram, pte_address, 4, pte | PTE_A)
    rights = (pde & pte & (PTE_RW | PTE_US)) | leaf_rights(cpu, pte)
    fill(cpu, DTLB, gla, frame, rights)
    if cpu.tlb_units[DTLB_L2].ways != 0:
        insert(cpu, DTLB_L2, gla, frame, rights)
    return frame | (gla & 0xFFF)


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
    if cpu.cr0 & CR0_PG == 0 and cpu.nested_kind == NESTED_OFF:
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
    if physical >= 0:
        physical = guest_to_host(cpu, ram, physical)
    if physical < 0:
        return physical
    return physical & ~cpu.a20_closed

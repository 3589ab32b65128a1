"""Walks of a guest in two dimensions: its own tables, whose addresses the nested ones translate, and both combined."""

from ..isa.events import EVENT_WALK_NATIVE
from ..isa.registers import CR0_PG, CR4_PAE, PTE_D, PTE_RW, PTE_US
from .charge import charge
from .guest_tables import TWO_DIMENSIONS
from .jit import kernel
from .layout import NESTED_WRITE, OK
from .nested import end_in_host
from .paging import remember
from .tlb import note_piece
from .walk_32bit import walk_32bit
from .walk_pae import walk_pae

LARGE_SHIFT = 21  # of a large page in the TLBs of a guest with nested tables
UNPAGED_SHIFT = 22  # without paging any size would do that is not less


@kernel
def walk_two_dimensions(cpu, ram, gla, write, user, fetch, cached):
    """`walk` of core/paging.py in a guest with nested tables, whose own may be off; the TLBs get both dimensions combined.

    Such an entry is as large as the smaller of both pages. It counts as dirty only if no table is in the way of a write.
    """
    # 1. The guest's own tables.
    outcome, frame, rights, shift = walk_guest(cpu, ram, gla, write, user, fetch)
    if outcome != OK:
        return outcome, 0, 0
    # 2. The nested ones, for the address at the end.
    gpa = frame | (gla & ((1 << shift) - 1))
    outcome, frame, allowed, nested_shift = end_in_host(cpu, ram, gla, gpa, write, fetch)
    if outcome != OK:
        return outcome, 0, 0
    # 3. Both together.
    if allowed & NESTED_WRITE == 0:
        rights &= ~PTE_D
    guest_shift = shift
    shift = min(shift, nested_shift)
    if shift >= LARGE_SHIFT:
        shift = LARGE_SHIFT
        frame &= ~((1 << LARGE_SHIFT) - 1)
    if shift != guest_shift and cpu.cr0 & CR0_PG != 0:
        note_piece(cpu)
    remember(cpu, gla, frame, rights, shift, fetch, cached)
    return OK, (frame | (gla & ((1 << shift) - 1))) & ~cpu.a20_closed, rights


@kernel
def walk_guest(cpu, ram, gla, write, user, fetch):
    """Walk the tables of a guest in two dimensions: (outcome, guest-physical address of the page, rights, bits of its offset).

    Without paging, which SVM's guests may do, a linear address is guest-physical, and nothing is walked.
    """
    if cpu.cr0 & CR0_PG == 0:
        return OK, gla & ~((1 << UNPAGED_SHIFT) - 1), PTE_RW | PTE_US | PTE_D, UNPAGED_SHIFT
    charge(cpu, EVENT_WALK_NATIVE, 1)
    if cpu.cr4 & CR4_PAE == 0:
        return walk_32bit(cpu, ram, gla, write, user, fetch, TWO_DIMENSIONS)
    return walk_pae(cpu, ram, gla, write, user, fetch, TWO_DIMENSIONS)

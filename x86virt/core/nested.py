"""The second dimension of a guest's walks: where the guest-physical addresses lie that a walk of its own tables meets.

Each entry of the guest's tables is itself found through the nested tables (extended page tables or SVM's), and so is the
address at the end. What a nested walk allows are NESTED_ bits: NESTED_WRITE means that a write needs no further walk.
"""

from ..isa.events import EVENT_WALK_NESTED_HIT
from .charge import charge
from .jit import inline, kernel
from .layout import NESTED_EPT, NESTED_FETCH, NESTED_OFF, NESTED_READ, NESTED_WRITE, OK
from .nested_cache import find_page, remember_page
from .nested_ept import AT_END, IN_TABLES, OF_POINTERS, peek_ept, walk_ept
from .nested_npt import peek_npt, walk_npt


@inline
def walk_nested(cpu, ram, gpa, access, gla, purpose):
    """Translate a guest-physical address: (outcome, frame of 4 KB, what is allowed, bits of the page)."""
    if cpu.nested_kind == NESTED_EPT:
        return walk_ept(cpu, ram, gpa, access, gla, purpose)
    return walk_npt(cpu, ram, gpa, access, purpose)


@kernel
def table_in_host(cpu, ram, gla, level, gpa):
    """Where an entry of the guest's tables lies: (outcome, physical address).

    SVM takes every access to these tables for a write; VMX takes it for a read, until a mark is set.
    """
    page = gpa >> 12
    index = find_page(cpu, page)
    if index >= 0:
        charge(cpu, EVENT_WALK_NESTED_HIT, 1)
        frame = cpu.nested.pages[index].frame
        allowed = cpu.nested.pages[index].rights
    else:
        access = NESTED_WRITE
        if cpu.nested_kind == NESTED_EPT:
            access = NESTED_READ
        outcome, frame, allowed, shift = walk_nested(cpu, ram, gpa, access, gla, IN_TABLES)
        if outcome != OK:
            return outcome, 0
        remember_page(cpu, page, frame, allowed)
    cpu.nested.guest_address[level] = gpa
    cpu.nested.guest_rights[level] = allowed
    return OK, (frame | (gpa & 0xFFF)) & ~cpu.a20_closed


@kernel
def may_mark(cpu, ram, gla, level):
    """Whether the guest's entry that a walk found at a level may be written, to set its accessed or dirty bit."""
    if cpu.nested.guest_rights[level] & NESTED_WRITE != 0:
        return OK
    gpa = cpu.nested.guest_address[level]
    outcome, frame, allowed, shift = walk_nested(cpu, ram, gpa, NESTED_WRITE, gla, IN_TABLES)
    if outcome == OK:
        remember_page(cpu, gpa >> 12, frame, allowed)
    return outcome


@kernel
def pointers_in_host(cpu, ram, gpa):
    """Where the page-directory-pointer entries lie that a guest with extended page tables loads: (outcome, address)."""
    outcome, frame, allowed, shift = walk_nested(cpu, ram, gpa, NESTED_READ, 0, OF_POINTERS)
    return outcome, frame | (gpa & 0xFFF)


@kernel
def end_in_host(cpu, ram, gla, gpa, write, fetch):
    """Where the address at the end of a walk lies: (outcome, frame of 4 KB, what is allowed, bits of the page)."""
    access = NESTED_READ
    if write == 1:
        access = NESTED_WRITE
    elif fetch == 1:
        access = NESTED_FETCH
    return walk_nested(cpu, ram, gpa, access, gla, AT_END)


@kernel
def guest_to_host(cpu, ram, gpa):
    """The physical address of a guest-physical one, for a report: -1 if there is none; without any effect."""
    if cpu.nested_kind == NESTED_OFF:
        return gpa
    if cpu.nested_kind == NESTED_EPT:
        return peek_ept(cpu, ram, gpa)
    return peek_npt(cpu, ram, gpa)

"""Frames of the guest whose modification must be seen: no shadow maps them writable.

The reasons are the guest's page tables, its descriptor tables, and code of it that was translated.
"""

import numpy as np

from ...core.charge import charge
from ...core.jit import inline, kernel, load_32, store_32
from ...core.tlb import flush_tlb, invalidate_page
from ...isa.events import (
    EVENT_SHADOW_WRITE_PROTECTED,
    EVENT_SYS_INVLPG,
    EVENT_SYS_MOV_CR4_WRITE,
)
from ...isa.registers import PTE_D, PTE_PS, PTE_RW
from .chains import clear_slot, linear_of, linear_of_large, slot_address, take_out
from .guest_walk import frame_entry
from .records import DROP, ENTRIES, FLUSH_EVERYTHING, MACHINE_FRAME, MODE_PGE, MOST_FLUSH_PAGES, NO_MEMORY

FRAMES_OF_4M, FRAMES_OF_2M = 1024, 512


@kernel
def flush_everything(cpu, control, links):
    """Empty the TLBs, global entries too, as the VMM does it: CR4.PGE off and on again; at the next VM entry."""
    if control.hardware == 1:
        control.flush = FLUSH_EVERYTHING
    else:
        charge(cpu, EVENT_SYS_MOV_CR4_WRITE, 2)
        flush_tlb(cpu, 0)
    forget_stale(control, links)


@inline
def forget_stale(control, links):
    """The TLBs are empty; what they may be filled with again is what the shadow has."""
    control.stale = 0
    control.globals = 0
    if control.mode & MODE_PGE != 0:
        control.globals = control.global_entries
    if control.policy != DROP:  # which keeps the pieces of a large page until the guest invalidates it
        for place in range(ENTRIES):
            links.broken[place] = 0


@kernel
def invalidate(cpu, control, gla):
    """INVLPG by the VMM; for a hardware guest, whose address space is another, at the next VM entry."""
    if control.hardware == 0:
        charge(cpu, EVENT_SYS_INVLPG, 1)
        invalidate_page(cpu, gla)
        return
    if control.flush_count == MOST_FLUSH_PAGES:
        control.flush = FLUSH_EVERYTHING
        return
    control.flush_pages[control.flush_count] = gla
    control.flush_count += 1


@kernel
def protect(cpu, ram, control, links, frame):
    """Take write permission for a machine frame from every mapping of it, in the shadows and in the TLBs."""
    everywhere = control.stale != 0
    # 1. Pages of 4 KB, whose entries stay, and a large page that begins here.
    while links.writable[frame] != 0:
        slot = links.writable[frame] - 1
        if take_permission(cpu, ram, control, links, slot, frame):
            everywhere = True
    # 2. A large page that begins further down.
    for count in (FRAMES_OF_4M, FRAMES_OF_2M):
        protect_large(cpu, ram, control, links, frame & ~(count - 1))
    # 3. What a TLB may hold though no shadow does any more.
    if everywhere:
        flush_everything(cpu, control, links)


@kernel
def protect_large(cpu, ram, control, links, first):
    """Drop the large pages that begin at a machine frame."""
    following = links.writable[first]
    while following != 0:
        slot = following - 1
        following = links.following[slot]
        if load_32(ram, slot_address(slot)) & PTE_PS != 0:
            take_permission(cpu, ram, control, links, slot, first)


@kernel
def take_permission(cpu, ram, control, links, slot, frame):
    """Make one entry read-only, or drop a large page; whether its linear addresses are not known."""
    charge(cpu, EVENT_SHADOW_WRITE_PROTECTED, 1)
    entry = load_32(ram, slot_address(slot))
    if entry & PTE_PS != 0:
        stale = control.stale
        clear_slot(ram, control, links, slot)
        control.stale = stale
        invalidate(cpu, control, linear_of_large(control, slot))
        return False
    links.writable[frame] = take_out(links, slot, links.writable[frame])
    store_32(ram, slot_address(slot), entry & ~(PTE_RW | PTE_D))
    gla = linear_of(control, slot)
    if gla < 0:
        return True
    invalidate(cpu, control, gla)
    return False


@inline
def kinds_of(control, links, frame):
    """Why a guest frame is traced; 0 if it is not, or is no memory."""
    if frame >= control.frames:
        return 0
    return np.int64(links.traced[frame])


@kernel
def trace(cpu, ram, control, links, frame, kind):
    """See to it that a write to a guest frame is noticed from now on."""
    if frame >= control.frames:
        return
    kinds = kinds_of(control, links, frame)
    links.traced[frame] = kinds | kind
    if kinds == 0:
        protect_guest(cpu, ram, control, links, frame)


@kernel
def protect_guest(cpu, ram, control, links, frame):
    """Protect the machine frame behind a guest frame."""
    entry = frame_entry(ram, control, frame)
    if entry != NO_MEMORY:
        protect(cpu, ram, control, links, entry & MACHINE_FRAME)


@inline
def untrace(control, links, frame, kind):
    """One reason less to trace a guest frame; it becomes writable at its next fault."""
    if frame < control.frames:
        links.traced[frame] = np.int64(links.traced[frame]) & ~kind


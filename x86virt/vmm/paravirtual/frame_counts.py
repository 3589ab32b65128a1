"""References to frames and to what they are used as: the counts in the frame table, without a look into any frame.

A frame with references is its owner's and stays so. A frame with a type is used as that alone: as a page table of some
level, for descriptors, or mapped writable. The type changes only when nobody uses the frame as what it was; translations that
a TLB may still hold from before are flushed then, if nothing has flushed them meanwhile.

`frames` has a record for each frame of the machine; a number that a guest gives is looked at before it is used.
"""

import numpy as np

from ...core.cache import VMM, reference
from ...core.charge import charge as charge_processor
from ...core.jit import inline, kernel, load_32, store_32
from ...core.page_directory_pointers import load_cr3
from ...isa.events import EVENT_SYS_MOV_CR3_WRITE
from ...isa.registers import PDPTE_RESERVED
from . import layout
from .records import (
    FRAME,
    NOBODY,
    PGC_COUNT,
    PGT_COUNT,
    PGT_PAE_XEN_L2,
    PGT_TYPE,
    PGT_VALIDATED,
    PGT_WRITABLE,
)

FRAME_TABLE = layout.FRAME_TABLE
FRAME_BYTES = FRAME.itemsize
PER_DOMAIN_TABLE_BYTES = layout.PER_DOMAIN_TABLE_BYTES
POINTER_COPIES = layout.PER_DOMAIN_TABLES + 0x1000  # the second page of what each domain has there
N_DOMAINS = layout.N_DOMAINS
M32 = 0xFFFFFFFF
TYPE_AND_QUARTER = PGT_TYPE | PGT_PAE_XEN_L2
WRITABLE_AND_VALID = PGT_WRITABLE | PGT_VALIDATED

# What came of asking for a type.
REFUSED, GOT, TO_VALIDATE = 0, 1, 2


@inline
def owner_of(frames, frame):
    """Whose a frame is."""
    return np.int64(frames[frame].owner)


@inline
def type_info(frames, frame):
    """The type of a frame, its flags, and how often it is used as that."""
    return np.int64(frames[frame].type_info)


@inline
def count_info(frames, frame):
    """How many references a frame has, and whether one of them is its owner's own."""
    return np.int64(frames[frame].count_info)


@inline
def touch(cpu, frame):
    """The VMM's reference to the record of a frame."""
    reference(cpu, FRAME_TABLE + FRAME_BYTES * frame, VMM)


# -- the flush clock ---------------------------------------------------------------------------------------------------


@inline
def stamp_now(xen):
    """What marks a frame as given up since the last flush; never 0."""
    return (xen.flush_clock + 1) & M32


@inline
def stamp(xen, frames, frame):
    """Note that a TLB may hold translations to a frame from now on that no table has any more."""
    frames[frame].flush = stamp_now(xen)


@kernel
def root_of(cpu, ram, domains, index):
    """What CR3 is to name for a domain: its top table; under PAE paging a copy of the four pointers, without reserved bits."""
    base = np.int64(domains[index].base_frame) << 12
    if np.int64(domains[index].is_pae) == 0:
        return base
    copy = POINTER_COPIES + index * PER_DOMAIN_TABLE_BYTES
    reference(cpu, base, VMM)
    reference(cpu, copy, VMM)
    for number in range(4):
        store_32(ram, copy + 8 * number, load_32(ram, base + 8 * number) & ~PDPTE_RESERVED)
        store_32(ram, copy + 8 * number + 4, load_32(ram, base + 8 * number + 4))
    return copy


@kernel
def load_root(cpu, ram, xen, address):
    """Load CR3, which empties the TLB."""
    charge_processor(cpu, EVENT_SYS_MOV_CR3_WRITE, 1)
    load_cr3(cpu, ram, address)
    xen.flush_clock += 1


@kernel
def load_base(cpu, ram, xen, domains):
    """Load CR3 with the base of the current domain."""
    load_root(cpu, ram, xen, root_of(cpu, ram, domains, xen.current))


@kernel
def flush_now(cpu, ram, xen):
    """Empty the TLB by loading CR3 anew."""
    load_root(cpu, ram, xen, cpu.cr3)


@inline
def flush_stale(cpu, ram, xen, frames, frame):
    """Flush if the TLB may hold translations to a frame from before it was given up."""
    if np.int64(frames[frame].flush) == stamp_now(xen):
        flush_now(cpu, ram, xen)


# -- references --------------------------------------------------------------------------------------------------------


@kernel
def get_page(cpu, frames, frame, domid):
    """A reference to a frame, whatever number that is: 1, or 0 if it is not this domain's."""
    if frame < 0 or frame >= len(frames):
        return REFUSED
    touch(cpu, frame)
    references = count_info(frames, frame) & PGC_COUNT
    if references == 0 or references == PGC_COUNT or owner_of(frames, frame) != domid:
        return REFUSED
    frames[frame].count_info = count_info(frames, frame) + 1
    return GOT


@kernel
def put_page(cpu, xen, domains, frames, frame):
    """Give a reference back; with the last one the frame ceases to be its owner's."""
    touch(cpu, frame)
    left = count_info(frames, frame) - 1
    frames[frame].count_info = left
    if left & PGC_COUNT == 0:
        free_frame(xen, domains, frames, frame)


@kernel
def free_frame(xen, domains, frames, frame):
    """Put a frame that is nobody's among those that memory_op hands out."""
    owner = owner_of(frames, frame)
    if owner < N_DOMAINS:
        domains[owner].total_frames = np.int64(domains[owner].total_frames) - 1
    frames[frame].owner = NOBODY
    frames[frame].count_info = 0
    frames[frame].type_info = xen.free_frames
    stamp(xen, frames, frame)
    xen.free_frames = frame + 1


# -- types -------------------------------------------------------------------------------------------------------------


@kernel
def begin_type(cpu, ram, xen, frames, frame, kind):
    """Count one more use of a frame as `kind`: REFUSED, GOT, or TO_VALIDATE what is in it.

    The caller has a reference to the frame.
    """
    info = type_info(frames, frame)
    uses = info & PGT_COUNT
    if uses == PGT_COUNT:
        return REFUSED
    if info & TYPE_AND_QUARTER != kind:
        if uses != 0:
            return REFUSED
        flush_stale(cpu, ram, xen, frames, frame)
        info = kind
        if kind == PGT_WRITABLE:
            info = WRITABLE_AND_VALID
    frames[frame].type_info = info + 1
    if info & PGT_VALIDATED != 0:
        return GOT
    return TO_VALIDATE


@inline
def end_validation(frames, frame, valid):
    """What became of a look into a frame; if it is not valid, it has no type."""
    if valid == 0:
        frames[frame].type_info = 0
    else:
        frames[frame].type_info = type_info(frames, frame) | PGT_VALIDATED


@inline
def get_writable(cpu, ram, xen, frames, frame):
    """One more writable mapping of a frame to which the caller has a reference; nothing in it is looked at."""
    return begin_type(cpu, ram, xen, frames, frame, PGT_WRITABLE)


@inline
def drop_type(xen, frames, frame):
    """Count one use of a frame less: how many are left. After the last one its type stays, until it gets another."""
    info = type_info(frames, frame) - 1
    frames[frame].type_info = info
    if info & PGT_COUNT == 0:
        stamp(xen, frames, frame)
    return info & PGT_COUNT


@inline
def begin_release(frames, frame):
    """A page table that nobody uses is not valid any more."""
    frames[frame].type_info = type_info(frames, frame) & ~PGT_VALIDATED

"""What domains grant of their frames, and which grants are in use (xen/include/public/grant_table.h, version 1).

A domain's grant table lies in frames that it shares with the VMM: an entry says who may map a frame, and how; the VMM marks
there that it is read or written. All that the VMM itself relies on it keeps apart: for each entry in use its frame and
how often it is mapped (ACTIVE), for each handle what was mapped (MAPPING).
"""

import numpy as np

from ...core.cache import VMM, reference
from ...core.jit import inline, kernel, load_16, load_32, store_32
from ...core.physical import write_physical
from . import layout
from .frame_counts import get_page, put_page
from .interface import (
    GRANT_ENTRY_BYTES,
    GNTST_bad_gntref,
    GNTST_general_error,
    GNTST_okay,
    GTF_permit_access,
    GTF_reading,
    GTF_readonly,
    GTF_type_mask,
    GTF_writing,
)
from .page_types import get_page_and_type, put_page_and_type
from .records import ACTIVE, ACTIVE_ENTRIES, MAPPING, MAPPINGS, N_MAPPINGS, PGT_WRITABLE

FRAME_BYTES = 0x1000
ENTRIES_OF_FRAME = FRAME_BYTES // GRANT_ENTRY_BYTES
HANDLES_OF_DOMAIN = N_MAPPINGS // layout.N_DOMAINS
MAX_ENTRIES = layout.N_GRANT_FRAMES * ENTRIES_OF_FRAME
ACTIVE_BYTES, MAPPING_BYTES = ACTIVE.itemsize, MAPPING.itemsize
FLAGS, DOMID, FRAME = 0, 2, 4  # of an entry
PINS, PINNED_FRAME = 0, 4  # of an active entry
# The fields of the record of a handle, as records.MAPPING has them.
MAPPER, GRANTER, REFERENCE, HOW, MAPPED_FRAME, ADDRESS = range(0, MAPPING_BYTES, 4)
# Pins, a byte each: by devices and by hosts, for reading and for writing.
DEVICE_READ, DEVICE_WRITE, HOST_READ, HOST_WRITE = 1, 1 << 8, 1 << 16, 1 << 24
WRITE_PINS = 0xFF00FF00
NEARLY_FULL = 0x80808080
FAILED = -100  # no status: below them all


@inline
def entry_place(index, ref):
    """The machine address of an entry of a domain's grant table."""
    return layout.GRANT_FRAMES + (index * layout.N_GRANT_FRAMES << 12) + GRANT_ENTRY_BYTES * ref


@inline
def active_place(index, ref):
    """Where the VMM keeps how an entry is used."""
    return ACTIVE_ENTRIES + ACTIVE_BYTES * (index * MAX_ENTRIES + ref)


@kernel
def entry_count(domains, index):
    """How many entries a domain's table has."""
    return np.int64(domains[index].grant_frames) * ENTRIES_OF_FRAME


@kernel
def load_pins(cpu, ram, index, ref):
    """How often an entry is in use, and how."""
    place = active_place(index, ref)
    reference(cpu, place, VMM)
    return load_32(ram, place + PINS)


@inline
def pinned_frame(ram, index, ref):
    """The frame of an entry in use, whatever the entry says now."""
    return load_32(ram, active_place(index, ref) + PINNED_FRAME)


@kernel
def refusal(cpu, ram, domains, granter, grantee_domid, ref, readonly):
    """Why a domain may not use an entry in this way: a status, GNTST_okay if it may."""
    if ref >= entry_count(domains, granter):
        return GNTST_bad_gntref
    place = entry_place(granter, ref)
    reference(cpu, place, VMM)
    flags = load_16(ram, place + FLAGS)
    if flags & GTF_type_mask != GTF_permit_access or load_16(ram, place + DOMID) != grantee_domid:
        return GNTST_general_error
    if readonly == 0 and flags & GTF_readonly != 0:
        return GNTST_general_error
    if load_pins(cpu, ram, granter, ref) & NEARLY_FULL != 0:
        return GNTST_general_error
    return GNTST_okay


@kernel
def mark_use(cpu, ram, granter, ref, pins):
    """Tell the granter how its entry is in use."""
    place = entry_place(granter, ref) + FLAGS
    flags = load_16(ram, place) & ~(GTF_reading | GTF_writing)
    if pins != 0:
        flags |= GTF_reading
    if pins & WRITE_PINS != 0:
        flags |= GTF_writing
    write_physical(cpu, ram, place, 2, flags)


@kernel
def get_frame(cpu, ram, xen, domains, frames, frame, owner, readonly):
    """A reference to a frame of a domain's, for reading or with a writable use: 1, or 0."""
    if readonly != 0:
        return get_page(cpu, frames, frame, owner)
    return get_page_and_type(cpu, ram, xen, domains, frames, frame, owner, PGT_WRITABLE)


@kernel
def put_frame_back(cpu, ram, xen, domains, frames, frame, readonly):
    """The reverse of get_frame."""
    if readonly != 0:
        put_page(cpu, xen, domains, frames, frame)
    else:
        put_page_and_type(cpu, ram, xen, domains, frames, frame)


@kernel
def frame_of_entry(cpu, ram, granter, ref):
    """The frame that an entry stands for: while it is in use the one that it had when that began."""
    if load_pins(cpu, ram, granter, ref) != 0:
        return pinned_frame(ram, granter, ref)
    return load_32(ram, entry_place(granter, ref) + FRAME)


@kernel
def add_pins(cpu, ram, granter, ref, frame, pins):
    """An entry is used once more."""
    place = active_place(granter, ref)
    pins += load_32(ram, place + PINS)
    store_32(ram, place + PINS, pins)
    store_32(ram, place + PINNED_FRAME, frame)
    mark_use(cpu, ram, granter, ref, pins)


@kernel
def drop_pins(cpu, ram, granter, ref, pins):
    """An entry is used once less."""
    place = active_place(granter, ref)
    left = load_pins(cpu, ram, granter, ref) - pins
    store_32(ram, place + PINS, left)
    mark_use(cpu, ram, granter, ref, left)


# -- handles --------------------------------------------------------------------------------------------------------------


@inline
def mapping_place(handle):
    """Where the record of a handle is."""
    return MAPPINGS + MAPPING_BYTES * handle


@inline
def load_field(ram, handle, offset):
    """A field of the record of a handle."""
    return load_32(ram, mapping_place(handle) + offset)


@inline
def store_field(ram, handle, offset, value):
    """Set a field of the record of a handle."""
    store_32(ram, mapping_place(handle) + offset, value)


@kernel
def free_handle(ram, xen):
    """A handle of the current domain's that is not in use, FAILED if there is none; each domain has as many."""
    first, hint = xen.current * HANDLES_OF_DOMAIN, xen.mapping_hint[xen.current]
    for step in range(HANDLES_OF_DOMAIN):
        number = (hint + step) % HANDLES_OF_DOMAIN
        if load_field(ram, first + number, MAPPER) == 0:
            xen.mapping_hint[xen.current] = number + 1
            return first + number
    return FAILED

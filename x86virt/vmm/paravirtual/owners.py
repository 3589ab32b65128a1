"""The check of isolation for domains: whose each machine frame is, as seen by the domain that runs.

What it may reach: frames of its own; frames of other domains that its page tables map, which grants let it, or its being
privileged; the machine-to-physical table, and the VMM's page tables, which linear page tables of a guest show. The processor
looks at each access by its own table of owners (core/isolation.py), which is kept up here where there is one. It costs no cycle.
"""

from ...core.jit import kernel, load_32, store_8
from ...core.layout import OWNER_GUEST, OWNER_VMM
from ..layout import REGION_TABLE
from . import layout
from .frame_counts import owner_of, type_info
from .records import PGT_COUNT, PGT_L1, PGT_TYPE
from .table_checks import is_pae
from .table_entries import PAGE_SHIFT, entries_of, entry_shift, frame_in, high_at, is_present

N_DOMAINS = layout.N_DOMAINS
MACHPHYS_FRAME = layout.MACHPHYS >> PAGE_SHIFT
FIRST_TABLE, END_OF_TABLES = layout.PER_DOMAIN_TABLES >> PAGE_SHIFT, layout.GRANT_TRACK >> PAGE_SHIFT
FIRST_TEMPLATE = layout.DIRECTORY_TEMPLATES >> PAGE_SHIFT
END_OF_TEMPLATES = FIRST_TEMPLATE + 6  # with the page tables of the region under PAE paging
REGION_TABLE_FRAME = REGION_TABLE >> PAGE_SHIFT


@kernel
def note_owner(cpu, ram, frame, owner):
    """Say whose a frame is."""
    store_8(ram, cpu.owner_table + frame, owner)


@kernel
def note_range(cpu, ram, first, end, owner):
    """Say it of some frames."""
    for frame in range(first, end):
        note_owner(cpu, ram, frame, owner)


@kernel
def follow_frame(cpu, ram, xen, frames, frame):
    """A frame may have become somebody else's."""
    if cpu.owner_table != 0:
        owner = OWNER_VMM
        if owner_of(frames, frame) == xen.current:
            owner = OWNER_GUEST
        note_owner(cpu, ram, frame, owner)


@kernel
def follow_mapping(cpu, ram, frames, frame):
    """A page table of the domain that runs maps a frame now; those of domains may be reached then."""
    if cpu.owner_table != 0 and owner_of(frames, frame) < N_DOMAINS:
        note_owner(cpu, ram, frame, OWNER_GUEST)


@kernel
def follow_domain(cpu, ram, xen, domains, frames):
    """Another domain runs."""
    if cpu.owner_table == 0:
        return
    for frame in range(xen.n_frames):
        follow_frame(cpu, ram, xen, frames, frame)
    note_range(cpu, ram, MACHPHYS_FRAME, MACHPHYS_FRAME + ((4 * xen.n_frames + 0xFFF) >> PAGE_SHIFT), OWNER_GUEST)
    note_range(cpu, ram, FIRST_TABLE, END_OF_TABLES, OWNER_GUEST)
    note_range(cpu, ram, FIRST_TEMPLATE, END_OF_TEMPLATES, OWNER_GUEST)
    note_owner(cpu, ram, REGION_TABLE_FRAME, OWNER_GUEST)
    for frame in range(xen.n_frames):
        info = type_info(frames, frame)
        if owner_of(frames, frame) == xen.current and info & PGT_TYPE == PGT_L1 and info & PGT_COUNT != 0:
            follow_table(cpu, ram, xen, domains, frames, frame)


@kernel
def follow_table(cpu, ram, xen, domains, frames, table):
    """The frames that a page table maps may be reached."""
    pae = is_pae(domains, xen.current)
    for number in range(entries_of(pae)):
        place = (table << PAGE_SHIFT) + (number << entry_shift(pae))
        low = load_32(ram, place)
        if is_present(low):
            follow_mapping(cpu, ram, frames, frame_in(low, high_at(ram, place, pae)))

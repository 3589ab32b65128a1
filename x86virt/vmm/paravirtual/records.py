"""What the VMM keeps of its domains, as records in machine RAM: jitted handlers, Python and witness routines share them.

Fields are 32 bits wide. Jitted code reads them through np.int64, because Numba makes uint64 of two uint32.
Each room of this folder has its own list of fields of a domain.
"""

import numpy as np

from ...isa.events import EVENTS
from . import layout
from .interface import N_HYPERCALLS

# -- the frame table ----------------------------------------------------------------------------------------------------

FRAME = np.dtype(
    [
        ("owner", "<u4"),  # a domain's number, DOMID_XEN, or NOBODY
        ("count_info", "<u4"),  # references; PGC_ALLOCATED: the domain's own
        ("type_info", "<u4"),  # PGT_*, and how often the frame is used as that
        ("flush", "<u4"),  # the flush clock when the frame was last given up as what it was
    ]
)
NOBODY = 0x7FF4
PGC_ALLOCATED = 1 << 31
PGC_COUNT = (1 << 26) - 1
PGT_TYPE = 7 << 29
PGT_NONE = 0
PGT_L1 = 1 << 29
PGT_L2 = 2 << 29
PGT_L3 = 3 << 29
PGT_SEG_DESC = 5 << 29
PGT_WRITABLE = 7 << 29
PGT_PINNED = 1 << 28
PGT_VALIDATED = 1 << 27
PGT_PAE_XEN_L2 = 1 << 26  # the directory of the last quarter, which holds the VMM's entries
PGT_COUNT = (1 << 22) - 1

# -- domains ------------------------------------------------------------------------------------------------------------

IDENTITY_FIELDS = [
    ("domid", "<u4"),
    ("exists", "<u4"),
    ("is_pae", "<u4"),
    ("is_privileged", "<u4"),
    ("virt_start", "<u4"),  # HYPERVISOR_VIRT_START of its kind: no pointer of the guest's reaches it
    ("segment_limit", "<u4"),  # the last page that its segments may reach
    ("total_frames", "<u4"),
    ("first_frame", "<u4"),  # of its frames by pseudo-physical number in the host's p2m, for the domain builder
    ("shared_info", "<u4"),  # its frame
]

# The frame of the last trap, and while another domain runs all that the processor holds.
STATE_FIELDS = [
    ("eip", "<u4"),
    ("cs", "<u4"),
    ("eflags", "<u4"),
    ("esp", "<u4"),
    ("ss", "<u4"),
    ("gpr", "<u4", 8),
    ("selectors", "<u4", 4),  # ES, DS, FS, GS
]

TRAP_FIELDS = [
    ("trap_cs", "<u4", 256),
    ("trap_eip", "<u4", 256),
    ("trap_flags", "<u4", 256),  # DPL and TI_*
    ("kernel_ss", "<u4"),
    ("kernel_esp", "<u4"),
    ("event_cs", "<u4"),
    ("event_eip", "<u4"),
    ("failsafe_cs", "<u4"),
    ("failsafe_eip", "<u4"),
    ("failsafe_masks", "<u4"),
    ("task_switched", "<u4"),  # CR0.TS as the guest asked for it
    ("dr", "<u4", 8),
    ("gdt_frames", "<u4", 14),
    ("gdt_entries", "<u4"),
    ("ldt_base", "<u4"),
    ("ldt_entries", "<u4"),
]

MEMORY_FIELDS = [
    ("base_frame", "<u4"),  # of the top table that CR3 names
    ("assists", "<u4"),  # VMASST_TYPE_*, one bit each
]

EVENT_FIELDS: list[tuple[str, str]] = []

SCHEDULE_FIELDS = [
    ("run_state", "<u4"),  # RUNSTATE_*
    ("deadline", "<u4", 2),  # of its one-shot timer in system time, nanoseconds; 0: none
    ("shut_down", "<u4"),
    ("shutdown_code", "<u4"),
]

DOMAIN = np.dtype([*IDENTITY_FIELDS, *STATE_FIELDS, *TRAP_FIELDS, *MEMORY_FIELDS, *EVENT_FIELDS, *SCHEDULE_FIELDS])
assert layout.DOMAINS + layout.N_DOMAINS * DOMAIN.itemsize <= layout.CHANNELS

# -- the VMM itself -----------------------------------------------------------------------------------------------------

# What a handler asks for beyond its result; the way out of the VMM does it.
ASK_FLUSH = 1  # the TLB
ASK_SCHEDULE = 2
ASK_CRASH = 4  # of the domain: `crash` says why
ASK_EVENTS = 8  # pending events are to be looked for
ASK_TIMER = 16  # a timer's deadline has changed
N_WORDS = 64
LEFT_TO_PYTHON = 1 << 40  # a handler's result: the Python handler of the same name is to do it

XEN = np.dtype(
    [
        ("current", "<i8"),  # index of the domain that runs
        ("asked", "<i8"),
        ("crash", "<i8"),
        ("flush_clock", "<i8"),
        ("unpriced", "<i8"),
        ("n_frames", "<i8"),  # of the machine
        ("words", "<i8", N_WORDS),  # what a handler reads of the guest's memory, or writes there, in one piece
        # the event that brought control here
        ("vector", "<i8"),
        ("error", "<i8"),  # its error code, 0 if it has none
        ("from_guest", "<i8"),  # 0: it interrupted the VMM itself, which was idle or about to resume a domain
        ("fault_eip", "<i8"),  # and where
        ("calls", "<i8", N_HYPERCALLS),  # by number
        ("refused", "<i8", N_HYPERCALLS),
        ("base_ticks", "<i8", len(EVENTS)),  # of the VMM's paths, by event; -1: no price
        ("item_ticks", "<i8", len(EVENTS)),
    ]
)
assert layout.XEN_RECORD + XEN.itemsize <= 0xC000

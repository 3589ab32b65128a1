"""What the VMM keeps of its domains, as records in machine RAM: jitted handlers, Python and witness routines share them.

Fields are 32 bits wide. Jitted code reads them through np.int64, because Numba makes uint64 of two uint32.
Each room of this folder has its own list of fields of a domain.
"""

import numpy as np

from ...isa.events import EVENTS
from . import layout
from .interface import GRANT_ENTRY_BYTES, N_EVENT_CHANNELS, N_HYPERCALLS, N_PIRQS, NR_VIRQS

# -- the frame table ----------------------------------------------------------------------------------------------------

FRAME = np.dtype(
    [
        ("owner", "<u4"),  # a domain's number, DOMID_XEN, or NOBODY
        ("count_info", "<u4"),  # references; PGC_ALLOCATED: the domain's own
        ("type_info", "<u4"),  # PGT_*, and how often the frame is used as that
        ("flush", "<u4"),  # the flush clock, plus 1, when the frame was last given up as what it was; 0: never
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
    ("ldt_frames", "<u4", 16),  # those of its pages that are mapped; 0: not yet
    ("cr2", "<u4"),
    ("cr4", "<u4"),  # the bits of it that are the guest's own: TSD, DE
    ("iopl", "<u4"),  # as it asked for it; the processor's is always 0
]

MEMORY_FIELDS = [
    ("base_frame", "<u4"),  # of the top table that CR3 names
    ("assists", "<u4"),  # VMASST_TYPE_*, one bit each
    ("max_frames", "<u4"),  # as many as memory_op lets it have
]

EVENT_FIELDS = [
    ("vcpu_info", "<u4"),  # machine address of the record that the guest shares: of its processor's events and time
    ("virq_port", "<u4", NR_VIRQS),  # 0: not bound
    ("pirq_port", "<u4", N_PIRQS),
    ("polls", "<u4"),  # 1: blocked until one of the ports below has something pending
    ("polled", "<u4", N_EVENT_CHANNELS // 32),
]

SCHEDULE_FIELDS = [
    ("run_state", "<u4"),  # RUNSTATE_*
    ("boosted", "<u4"),  # 1: woken, and not preempted since
    ("shut_down", "<u4"),
    ("shutdown_code", "<u4"),
    ("runstate_area", "<u4"),  # linear address that the guest registered; 0: none
    ("time_area", "<u4"),
    ("grant_frames", "<u4"),  # of its table that it has set up
]

DEVICE_FIELDS = [
    ("io_ports", "<u4"),  # that its permission map says something of
]

X87_FIELDS = [
    ("fpu_sign", "<u4", 8),
    ("fpu_exponent", "<u4", 8),
    ("fpu_high", "<u4", 8),
    ("fpu_low", "<u4", 8),
    ("fpu_control", "<u4"),
    ("fpu_status", "<u4"),
    ("fpu_occupied", "<u4"),
    ("fpu_instruction", "<u4"),
    ("fpu_instruction_selector", "<u4"),
    ("fpu_operand", "<u4"),
    ("fpu_operand_selector", "<u4"),
    ("fpu_opcode", "<u4"),
]

ALL_FIELDS = (
    IDENTITY_FIELDS, STATE_FIELDS, TRAP_FIELDS, MEMORY_FIELDS, EVENT_FIELDS, SCHEDULE_FIELDS, DEVICE_FIELDS, X87_FIELDS,
)  # fmt: skip
DOMAIN = np.dtype([field for fields in ALL_FIELDS for field in fields])
assert layout.DOMAINS + layout.N_DOMAINS * DOMAIN.itemsize <= layout.CHANNELS

# -- event channels and grants --------------------------------------------------------------------------------------------

CHANNEL = np.dtype(
    [
        ("state", "<u4"),  # EVTCHNSTAT_*
        ("remote_domain", "<u4"),  # number of the domain at the other end, or of the one that may bind there
        ("detail", "<u4"),  # its port, the VIRQ or the PIRQ
    ]
)
N_CHANNELS = layout.N_DOMAINS * N_EVENT_CHANNELS  # those of a domain at its index * N_EVENT_CHANNELS
assert N_CHANNELS * CHANNEL.itemsize <= layout.CHANNELS_BYTES

# A grant that is mapped, found by its handle.
MAPPING = np.dtype(
    [
        ("mapper", "<u4"),  # index of the domain that mapped it, plus 1; 0: free
        ("granter", "<u4"),  # index
        ("reference", "<u4"),
        ("how", "<u4"),  # GNTMAP_*
        ("frame", "<u4"),
        ("address", "<u4"),  # linear, or machine address of the entry of a page table
    ]
)
# How an entry of a grant table is in use; a domain's at its index * those of a whole table.
ACTIVE = np.dtype(
    [
        ("pins", "<u4"),  # a byte for each kind of use
        ("frame", "<u4"),
    ]
)
ACTIVE_ENTRIES = layout.GRANT_TRACK
MAPPINGS = ACTIVE_ENTRIES + ACTIVE.itemsize * layout.N_DOMAINS * layout.N_GRANT_FRAMES * (0x1000 // GRANT_ENTRY_BYTES)
N_MAPPINGS = (layout.GRANT_TRACK + layout.GRANT_TRACK_BYTES - MAPPINGS) // MAPPING.itemsize

# -- the VMM itself -----------------------------------------------------------------------------------------------------

# What a handler asks for beyond its result; the way out of the VMM does it.
ASK_FLUSH = 1  # the TLB
ASK_SCHEDULE = 2
ASK_CRASH = 4  # of the domain: `crash` says why
ASK_EVENTS = 8  # pending events are to be looked for
ASK_TIMER = 16  # a timer's deadline has changed
ASK_BOARD = 32  # lines of the interrupt controllers are to be masked or unmasked
N_WORDS = 64

CONSOLE_BYTES = 512  # of a call of console_io that are taken at a time

# Times are nanoseconds of system time, or NEVER.
SCHEDULER_FIELDS = [
    ("tsc_multiplier", "<i8"),  # system time is ((time-stamp counter << shift) * multiplier) >> 32
    ("tsc_shift", "<i8"),
    ("wall_seconds", "<i8"),  # since 1970 as system time was 0
    ("wall_nanoseconds", "<i8"),
    ("deadline", "<i8", layout.N_DOMAINS),  # of the one-shot timers
    ("period", "<i8", layout.N_DOMAINS),  # of the periodic timers, 0: off
    ("next_tick", "<i8", layout.N_DOMAINS),
    ("poll_deadline", "<i8", layout.N_DOMAINS),
    ("state_entry", "<i8", layout.N_DOMAINS),  # when the run state was entered
    ("state_time", "<i8", (layout.N_DOMAINS, 4)),
    ("slice_end", "<i8"),
    ("yields", "<i8"),  # 1: the running domain lets others go first, once
    ("idle", "<i8"),  # 1: nobody runs, the VMM halts
    ("fpu_owner", "<i8"),  # index of the domain whose x87 state the processor holds, -1: none
    ("masked_lines", "<i8"),  # of the interrupt controllers, one bit each
    ("waiting_lines", "<i8"),  # those masked until domain 0 says that it has served them
    ("level_lines", "<i8"),  # those that are level-triggered, as the last interrupt found them
    ("mapping_hint", "<i8", layout.N_DOMAINS),  # where the search for a free handle begins
    ("arrived", "<i8"),  # tick of the last exit
    ("quantum", "<i8"),  # ticks after which a long hypercall lets others have the processor
    # a multicall
    ("continues", "<i8"),  # 1: the call at hand is to be gone on with
    ("call_entry", "<i8"),  # linear address of its entry
    ("calls_left", "<i8"),
    ("calls_done", "<i8"),
    ("call_error", "<i8"),  # 1: the list could not be read or written
    ("caller", "<i8", 6),  # EBX, ECX, EDX, ESI, EDI, EBP
    ("console_length", "<i8"),  # of the text that console_io has taken, until the way out
    ("console", "u1", CONSOLE_BYTES),
]

XEN = np.dtype(
    [
        ("current", "<i8"),  # index of the domain that runs
        ("asked", "<i8"),
        ("crash", "<i8"),
        ("flush_clock", "<i8"),
        ("unpriced", "<i8"),
        ("n_frames", "<i8"),  # of the machine
        ("free_frames", "<i8"),  # the first frame that is nobody's, plus 1; the next is in its type_info
        ("in_multicall", "<i8"),  # 1: a list of hypercalls is being gone through
        ("flush_due", "<i8"),  # 1: the TLB at the end of a batch
        ("updates", "<i8", 3),  # requests of a batch: for page tables, directories, the machine-to-physical table
        ("releasing", "<i8"),  # the first L2 whose entries are to be given back, plus 1; the next is in its flush
        ("words", "<i8", N_WORDS),  # what a handler reads of the guest's memory, or writes there, in one piece
        # the event that brought control here
        ("vector", "<i8"),
        ("error", "<i8"),  # its error code, 0 if it has none
        ("from_guest", "<i8"),  # 0: it interrupted the VMM itself, which was idle or about to resume a domain
        ("fault_eip", "<i8"),  # and where
        # an instruction that the VMM performs: its code segment, and what is decoded of it
        ("code_base", "<i8"),
        ("code_limit", "<i8"),
        ("next_eip", "<i8"),
        ("operand_bytes", "<i8"),
        ("address_bytes", "<i8"),
        ("data_segment", "<i8"),  # of its memory operand
        ("lock", "<i8"),
        ("repeat", "<i8"),
        *SCHEDULER_FIELDS,
        ("calls", "<i8", N_HYPERCALLS),  # by number
        ("refused", "<i8", N_HYPERCALLS),
        ("base_ticks", "<i8", len(EVENTS)),  # of the VMM's paths, by event; -1: no price
        ("item_ticks", "<i8", len(EVENTS)),
    ]
)
assert layout.XEN_RECORD + XEN.itemsize <= 0xC000

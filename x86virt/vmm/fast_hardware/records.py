"""What Python and the jitted exits share."""

import numpy as np

from ...isa.events import EVENT_ID
from ...isa.vmx import N_EXIT_REASONS

# Outcomes of a handler.
NOT_FAST, DONE, REST = 0, 1, 2  # left to Python, with nothing changed; handled; begun, and Python does what is left of it
# Outcomes of the loop, beside those of the processor (core/layout.py).
RESUME = 1000  # the exit was handled; Python sees to the way back to the guest
ATTENTION = 1001  # the exit was handled and the guest entered; a virtual device asks for attention
ENTRY_FAILED = 1002  # the processor refused to enter the guest
FILL_BEGUN = 1003  # a page fault was charged and looked up in the guest's tables; what came out is in `outcome`

PATHS = (
    "exit_dispatch", "exit_cpuid", "exit_port", "exit_skip", "device_request", "nested_fill", "nested_table", "nested_drop",
    "exit_control_register", "exit_invlpg", "shadow_fill", "shadow_table", "shadow_flush", "shadow_switch", "shadow_sync",
    "shadow_check", "exit_exception",
)  # fmt: skip
(
    EXIT_DISPATCH, EXIT_CPUID, EXIT_PORT, EXIT_SKIP, DEVICE_REQUEST, NESTED_FILL, NESTED_TABLE, NESTED_DROP,
    EXIT_CONTROL_REGISTER, EXIT_INVLPG, SHADOW_FILL, SHADOW_TABLE, SHADOW_FLUSH, SHADOW_SWITCH, SHADOW_SYNC, SHADOW_CHECK,
    EXIT_EXCEPTION,
) = range(len(PATHS))  # fmt: skip
PATH_EVENTS = tuple(EVENT_ID[f"vmm.{path}"] for path in PATHS)

# What the toolkit does for an exit; a strategy says which, by reason (Strategy.jitted).
ACTIONS = ("", "cpuid", "port", "skip", "fill_nested", "fill_shadow", "invalidate", "load_cr3")
NO_ACTION, EMULATE_CPUID, ACCESS_PORT, SKIP, FILL_NESTED, FILL_SHADOW, INVALIDATE, LOAD_CR3 = range(len(ACTIONS))
# Of the guest's registers the VMM knows, as Python's cache of them would (hardware/cpu.py).
# Nothing; RFLAGS; RIP and the base of CS; these and RFLAGS; RIP, which has moved on, RFLAGS and interruptibility.
KNOWS_NOTHING, KNOWS_FLAGS, KNOWS_PLACE, KNOWS_PLACE_AND_FLAGS, STEPPED = range(5)

HARDWARE_EXITS = np.dtype(
    [
        # copied in: what the exits depend on
        ("host_rip", "i8"),  # where the VMM goes on behind an exit
        ("retired_limit", "i8"),
        ("nests", "i8"),  # 1: the guest's memory is nested tables'; else it is a shadow's
        ("window_asked", "i8"),  # 1: interrupt-window exiting is set
        ("filled_at", "i8", 2),  # HardwareVm.filled_at
        ("actions", "i8", N_EXIT_REASONS),  # by reason: of ACTIONS
        ("event", "i8", len(PATHS)),
        ("base_price", "i8", len(PATHS)),  # ticks: of a path, and of an item of it
        ("item_price", "i8", len(PATHS)),
        ("table_path", "i8"),  # numbers of paths, where other VMMs have others: shadow_table, shadow_sync, shadow_check
        ("sync_path", "i8"),
        ("check_path", "i8"),
        # the guest's control registers where memory is shadowed (hardware/guest_state.py), copied back too if `switched`
        ("vpid", "i8"),  # under which its translations are kept; 0: each transition flushes them
        ("mask_cr0", "i8"),
        ("mask_cr4", "i8"),
        ("own_cr0", "i8"),
        ("own_cr3", "i8"),
        ("own_cr4", "i8"),
        ("root", "i8"),
        ("switched", "i8"),
        # the exit at hand
        ("error", "i8"),
        ("gla", "i8"),
        ("outcome", "i8"),  # of a fill
        ("cs_base", "i8"),
        ("dr7", "i8"),
        ("knows_dr7", "i8"),
        ("drops_flag", "i8"),  # 1: RF was cleared in `rflags`
        ("loads_cr3", "i8"),  # 1: MOV to CR3 was performed, of `cr3`, where CR0 and CR4 were these
        ("cr0", "i8"),
        ("cr3", "i8"),
        ("cr4", "i8"),
        ("reason", "i8"),
        ("knows", "i8"),
        ("rip", "i8"),
        ("rflags", "i8"),
        ("blocking", "i8"),  # the interruptibility state
        ("blocking_ended", "i8"),  # 1: it has changed
        ("written", "i8"),  # 1: what has changed was written back
        # ticks, those of accesses to the control structure, and those of entries: as it came, and since then
        ("begun", "i8", 3),
        ("spent", "i8", 3),
        # what came since Python last looked: by reason, and the reasons in the order of their first coming
        ("count", "i8", N_EXIT_REASONS),
        ("ticks", "i8", (N_EXIT_REASONS, 3)),
        ("order_count", "i8"),
        ("order", "i8", N_EXIT_REASONS),
    ]
)

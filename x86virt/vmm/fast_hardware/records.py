"""What Python and the jitted exits share."""

import numpy as np

from ...isa.events import EVENT_ID
from ...isa.vmx import N_EXIT_REASONS

# Outcomes of a handler.
NOT_FAST, DONE = 0, 1
# Outcomes of the loop, beside those of the processor (core/layout.py).
RESUME = 1000  # the exit was handled; Python sees to the way back to the guest
ATTENTION = 1001  # the exit was handled and the guest entered; a virtual device asks for attention
ENTRY_FAILED = 1002  # the processor refused to enter the guest

PATHS = (
    "exit_dispatch", "exit_cpuid", "exit_port", "exit_skip", "device_request", "nested_fill", "nested_table", "nested_drop",
)  # fmt: skip
(
    EXIT_DISPATCH, EXIT_CPUID, EXIT_PORT, EXIT_SKIP, DEVICE_REQUEST, NESTED_FILL, NESTED_TABLE, NESTED_DROP,
) = range(len(PATHS))  # fmt: skip
PATH_EVENTS = tuple(EVENT_ID[f"vmm.{path}"] for path in PATHS)

# What the toolkit does for an exit; a strategy says which, by reason (Strategy.jitted).
ACTIONS = ("", "cpuid", "port", "skip", "fill_nested")
NO_ACTION, EMULATE_CPUID, ACCESS_PORT, SKIP, FILL_NESTED = range(len(ACTIONS))
# Of the guest's registers the VMM knows, as Python's cache of them would (hardware/cpu.py).
KNOWS_NOTHING, KNOWS_FLAGS, STEPPED = range(3)  # nothing; RFLAGS; RIP, RFLAGS and interruptibility, the first moved on

HARDWARE_EXITS = np.dtype(
    [
        # copied in: what the exits depend on
        ("host_rip", "i8"),  # where the VMM goes on behind an exit
        ("retired_limit", "i8"),
        ("nests", "i8"),  # 1: the guest's memory is nested tables'
        ("window_asked", "i8"),  # 1: interrupt-window exiting is set
        ("actions", "i8", N_EXIT_REASONS),  # by reason: of ACTIONS
        ("event", "i8", len(PATHS)),
        ("base_price", "i8", len(PATHS)),  # ticks: of a path, and of an item of it
        ("item_price", "i8", len(PATHS)),
        # the exit at hand
        ("reason", "i8"),
        ("qualification", "i8"),
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

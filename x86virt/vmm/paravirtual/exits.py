"""What Python and the jitted loop share of exits: which of them are handled in code, and how many there were."""

import numpy as np

from ...records import record_array
from .. import layout
from ..exits import REASON_OF_VECTOR
from .interface import HYPERCALL_VECTOR, HYPERCALLS, N_HYPERCALLS
from .layout import IRQ_VECTOR, N_IRQS

N_VECTORS = 256
FIRST_HYPERCALL = N_VECTORS  # behind the vectors: hypercalls by number
UNKNOWN_HYPERCALL = N_VECTORS + N_HYPERCALLS
N_ENTRIES = UNKNOWN_HYPERCALL + 1

# Outcomes of the loop, beside those of the processor (core/layout.py).
DONE = 0
ENDED = 1001  # no domain can run any more, or the guest has ended
CRASHED = 1002  # the VMM gives a domain up: XEN.crash says why
ATTENTION = 1003  # the guest was resumed; a device asks for attention

EXITS = np.dtype(
    [
        ("in_code", "i8", N_VECTORS),  # by vector: 1 if the strategy has no hook of its own
        ("retired_limit", "i8"),
        ("entry", "i8"),  # of the exit at hand
        ("begun", "i8"),  # ticks when it came
        # what came since Python last looked: by entry, and the entries in the order of their first coming
        ("count", "i8", N_ENTRIES),
        ("ticks", "i8", N_ENTRIES),
        ("order_count", "i8"),
        ("order", "i8", N_ENTRIES),
    ]
)


def make_exits() -> np.ndarray:
    """A record of the exits of one virtual machine."""
    return record_array(EXITS)


def reason_of_vector(vector: int) -> str:
    """The reason to exit that a vector stands for: what a strategy's hook is called by."""
    if vector == HYPERCALL_VECTOR:
        return "hypercall"
    if vector == layout.HOST_TIMER_VECTOR:
        return "host_timer"
    if IRQ_VECTOR <= vector < IRQ_VECTOR + N_IRQS:
        return "physical_interrupt"
    return REASON_OF_VECTOR.get(vector, "software_interrupt")


def reason_of_entry(entry: int) -> str:
    """The same for an entry of the counts, hypercalls by their names."""
    if entry < FIRST_HYPERCALL:
        return reason_of_vector(entry)
    number = entry - FIRST_HYPERCALL
    return f"hypercall_{HYPERCALLS.get(number, 'unknown')}"

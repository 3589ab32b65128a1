"""The end of a halt."""

from ..isa.events import EVENT_IDLE_HALT, EVENT_SYS_HLT_WAKE, MODE_IDLE
from .charge import charge, charge_ticks
from .jit import kernel


@kernel
def wake(cpu):
    """Leave the halted state; the halt is counted here, once, into however many pieces its time was cut."""
    cpu.halted = 0
    charge_ticks(cpu, EVENT_IDLE_HALT, 1, 0, MODE_IDLE)
    charge(cpu, EVENT_SYS_HLT_WAKE, 1)

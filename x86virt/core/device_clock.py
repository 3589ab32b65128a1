"""Clocks of devices in simulated time: how many periods of a frequency have passed at a tick, and when the next one has."""

from .jit import kernel
from .layout import NEVER


@kernel
def clock_of_tick(tick, hertz, ticks_per_second):
    """Periods elapsed at a tick: floor(tick * hertz / ticks_per_second), exact while their product is below 2**63."""
    seconds = tick // ticks_per_second
    rest = tick - seconds * ticks_per_second
    return seconds * hertz + rest * hertz // ticks_per_second


@kernel
def tick_of_clock(clock, hertz, ticks_per_second):
    """The first tick at which `clock_of_tick` reaches `clock`; NEVER when it lies beyond the counter's range."""
    seconds = clock // hertz
    if seconds >= NEVER // ticks_per_second:
        return NEVER
    rest = clock - seconds * hertz
    return seconds * ticks_per_second + (rest * ticks_per_second + hertz - 1) // hertz

"""System time: nanoseconds since the VMM began, from the time-stamp counter by the scale that guests are told too.

    time = ((cycles << shift) * multiplier) >> 32, with a right shift where `shift` is negative

Products that need more than 63 bits are made in two parts.
"""

from ...core.jit import inline, kernel
from ...core.layout import NEVER

TICK_SHIFT = 6  # ticks of a cycle, as a power of two
NANOSECONDS = 10**9
HALF = 16
M16, M32 = 0xFFFF, 0xFFFFFFFF
FAR = 1 << 50  # nanoseconds, 13 days: later than any run lasts


def scale_of(hertz: int) -> tuple[int, int]:
    """Multiplier (below 2**32) and shift by which cycles become nanoseconds."""
    rate, shift = hertz, 0
    while rate > 2 * NANOSECONDS:
        rate >>= 1
        shift -= 1
    while rate <= NANOSECONDS:
        rate <<= 1
        shift += 1
    return (NANOSECONDS << 32) // rate, shift


@inline
def shifted(xen, cycles):
    """Cycles, shifted as the scale says."""
    if xen.tsc_shift < 0:
        return cycles >> -xen.tsc_shift
    return cycles << xen.tsc_shift


@kernel
def nanoseconds(xen, cycles):
    """A number of cycles in nanoseconds, rounded down."""
    value = shifted(xen, cycles)
    high, low = value >> 32, value & M32
    # low * multiplier has 64 bits: its upper half from two products.
    lower = (low & M16) * xen.tsc_multiplier
    upper = (low >> HALF) * xen.tsc_multiplier + (lower >> HALF)
    return high * xen.tsc_multiplier + (upper >> HALF)


@inline
def system_time(xen, ticks):
    """Nanoseconds of system time at a tick."""
    return nanoseconds(xen, ticks >> TICK_SHIFT)


@kernel
def tick_of(xen, time):
    """The first tick at which system time has reached a number of nanoseconds; NEVER beyond all runs."""
    if time >= FAR:
        return NEVER
    # 1. The least value whose product with the multiplier is at least time << 32, by long division in two steps.
    whole = time // xen.tsc_multiplier
    rest = (time - whole * xen.tsc_multiplier) << HALF
    upper = rest // xen.tsc_multiplier
    rest = (rest - upper * xen.tsc_multiplier) << HALF
    lower = rest // xen.tsc_multiplier
    value = (whole << 32) + (upper << HALF) + lower
    if rest != lower * xen.tsc_multiplier:
        value += 1
    # 2. The cycles that give it, shifted.
    if xen.tsc_shift < 0:
        cycles = value << -xen.tsc_shift
    else:
        cycles = (value + (1 << xen.tsc_shift) - 1) >> xen.tsc_shift
    return cycles << TICK_SHIFT

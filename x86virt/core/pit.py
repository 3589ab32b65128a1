"""The 8254 programmable interval timer: three counters whose state is a function of the PIT clock.

Source: Intel, 8254 Programmable Interval Timer data sheet (mode definitions, read-back command, gate operations).
Nothing steps: a counter keeps the clock at which its counting element was loaded, and `settle` moves it over any number
of periods at once. PIT clock n means that n pulses of the 1.193182 MHz input have passed; a count written at clock n
is loaded by pulse n + 1. Mode 3 loads an odd count less one, as the data sheet's text says. Modes 2 and 3 take a
count of 1, which the data sheet forbids, as 2. In mode 4 a gate or count that arrives in the one clock of the strobe
ends the strobe at once.
"""

import numpy as np

from .device_clock import clock_of_tick
from .device_clock import tick_of_clock as tick_of_periods
from .jit import kernel
from .layout import NEVER

CHANNEL = np.dtype(
    [
        ("mode", "i8"),  # 0 to 5
        ("bcd", "i8"),  # 1: counts in four decimal digits
        ("access", "i8"),  # 1 low byte only, 2 high byte only, 3 low then high
        ("gate", "i8"),
        ("output", "i8"),  # OUT at the clock settled to
        ("reload", "i8"),  # the count written last, 0 when none since the control word
        ("period", "i8"),  # the count in use (modes 2 and 3)
        ("initial", "i8"),  # value of the counting element at `start`
        ("start", "i8"),  # PIT clock at which it was or will be loaded; NEVER while no count is there
        ("counting", "i8"),  # 0: stays at `initial`
        ("held_count", "i8"),  # value of the counting element before `start`
        ("expired", "i8"),  # modes 0, 1, 4, 5: the output has already risen
        ("null_until", "i8"),  # the status says "null count" before this PIT clock
        ("low_byte", "i8"),
        ("write_second", "i8"),  # 1: the high byte comes next
        ("read_second", "i8"),
        ("latched_count", "i8"),
        ("count_latched", "i8"),
        ("latched_status", "i8"),
        ("status_latched", "i8"),
    ]
)

PIT_HZ = 1193182


@kernel
def pit_clock(now, ticks_per_second):
    """PIT clocks elapsed at tick `now`, exact below 7e12 ticks a second."""
    return clock_of_tick(now, PIT_HZ, ticks_per_second)


@kernel
def tick_of_clock(clock, ticks_per_second):
    """The first tick at which `pit_clock` reaches `clock`; NEVER when it lies beyond the counter's range."""
    return tick_of_periods(clock, PIT_HZ, ticks_per_second)


@kernel
def reset_channel(channel, gate):
    """Power on: mode 3, no count, OUT high."""
    channel.mode = 3
    channel.bcd = 0
    channel.access = 3
    channel.gate = gate
    channel.output = 1
    channel.reload = 0
    channel.period = 0
    channel.initial = 0
    channel.start = NEVER
    channel.counting = 0
    channel.held_count = 0
    channel.expired = 0
    channel.null_until = NEVER
    channel.low_byte = 0
    channel.write_second = 0
    channel.read_second = 0
    channel.latched_count = 0
    channel.count_latched = 0
    channel.latched_status = 0
    channel.status_latched = 0


# -- the passing of time ------------------------------------------------------------------------------------------


@kernel
def half_cycle(period, output):
    """Clocks of the high (1) or low (0) half of a square wave; the high one has the odd clock."""
    return (period + output) >> 1


@kernel
def settle_rate(channel, clock):
    """Mode 2: OUT is low in the last clock of each period. Returns the rising edges."""
    edges = 0
    end = channel.start + channel.period
    if clock >= end:
        channel.period = channel.reload
        cycles = (clock - end) // channel.period
        channel.start = end + cycles * channel.period
        edges = cycles + 1
    channel.output = 1
    if clock == channel.start + channel.period - 1:
        channel.output = 0
    return edges


@kernel
def next_half(channel):
    """Mode 3: go on to the next half cycle, with the count written last. Returns the rising edges, 0 or 1."""
    channel.start += half_cycle(channel.period, channel.output)
    channel.period = channel.reload
    channel.output = 1 - channel.output
    return channel.output


@kernel
def settle_square(channel, clock):
    """Mode 3. Returns the rising edges."""
    edges = 0
    if clock >= channel.start + half_cycle(channel.period, channel.output):
        edges = next_half(channel)
        cycles = (clock - channel.start) // channel.period
        channel.start += cycles * channel.period
        edges += cycles
        if clock >= channel.start + half_cycle(channel.period, channel.output):
            edges += next_half(channel)
    return edges


@kernel
def settle_once(channel, clock):
    """Modes 0, 1, 4, 5, which rise once per count or trigger. Returns the rising edges."""
    if channel.expired != 0:
        return 0
    rise = channel.start + channel.initial
    before = 0
    if channel.mode >= 4:
        rise += 1
        before = 1
        if clock == rise - 1:
            before = 0
    channel.output = before
    if clock < rise:
        return 0
    channel.output = 1
    channel.expired = 1
    return 1


@kernel
def settle(channel, clock):
    """Bring the counter up to PIT clock `clock`, in constant time; returns the rising edges of OUT on the way."""
    if channel.counting == 0 or clock < channel.start:
        return 0
    if channel.mode == 2:
        return settle_rate(channel, clock)
    if channel.mode == 3:
        return settle_square(channel, clock)
    return settle_once(channel, clock)


@kernel
def next_rise(channel):
    """PIT clock of the next rising edge of a settled counter, or NEVER."""
    if channel.counting == 0:
        return NEVER
    if channel.mode == 2:
        return channel.start + channel.period
    if channel.mode == 3:
        end = channel.start + half_cycle(channel.period, channel.output)
        if channel.output != 0:
            end += half_cycle(channel.reload, 0)
        return end
    if channel.expired != 0:
        return NEVER
    if channel.mode >= 4:
        return channel.start + channel.initial + 1
    return channel.start + channel.initial


@kernel
def next_change(channel):
    """PIT clock by which OUT next rises or falls, for a settled counter, or NEVER."""
    if channel.counting == 0:
        return NEVER
    if channel.mode == 3:
        return channel.start + half_cycle(channel.period, channel.output)
    rise = next_rise(channel)
    if rise == NEVER or channel.output == 0:
        return rise
    if channel.mode == 1:
        return channel.start
    return rise - 1


@kernel
def count_now(channel, clock):
    """Value of the counting element of a settled counter; 65536 or 10000 may stand for 0."""
    if clock < channel.start:
        return channel.held_count
    if channel.counting == 0:
        return channel.initial
    elapsed = clock - channel.start
    if channel.mode == 2:
        return channel.period - elapsed
    if channel.mode == 3:
        return (channel.period & ~1) - 2 * elapsed
    if channel.bcd != 0:
        return (channel.initial - elapsed) % 10000
    return (channel.initial - elapsed) & 0xFFFF


# -- writing ------------------------------------------------------------------------------------------------------


@kernel
def count_of_bytes(channel, value):
    """The number of clocks that a written 16-bit value stands for."""
    if channel.bcd != 0:
        count = (value >> 12) * 1000 + ((value >> 8) & 15) * 100 + ((value >> 4) & 15) * 10 + (value & 15)
        count = count % 10000
        if count == 0:
            count = 10000
    else:
        count = value
        if count == 0:
            count = 0x10000
    if count == 1 and (channel.mode == 2 or channel.mode == 3):
        count = 2
    return count


@kernel
def stop(channel, clock):
    """Freeze the counting element until a count is loaded."""
    channel.held_count = count_now(channel, clock)
    channel.start = NEVER
    channel.counting = 0
    channel.expired = 0
    if clock < channel.null_until:
        channel.null_until = NEVER


@kernel
def write_control(channel, value, clock):
    """A control word for this counter, which is settled to `clock`."""
    stop(channel, clock)
    mode = (value >> 1) & 7
    if mode > 5:
        mode -= 4
    channel.mode = mode
    channel.bcd = value & 1
    channel.access = (value >> 4) & 3
    channel.output = 1
    if mode == 0:
        channel.output = 0
    channel.reload = 0
    channel.null_until = NEVER
    channel.write_second = 0
    channel.read_second = 0
    channel.count_latched = 0
    channel.status_latched = 0


@kernel
def load(channel, count, clock, counting):
    """Let the next pulse load `count` into the counting element."""
    channel.held_count = count_now(channel, clock)
    channel.start = clock + 1
    channel.period = count
    channel.initial = count
    if channel.mode == 3:
        channel.initial = count & ~1
    channel.counting = counting
    channel.expired = 0
    channel.null_until = clock + 1


@kernel
def reload_later(channel, clock):
    """Modes 2 and 3: a new count for a counter that runs waits for the end of the (half) cycle."""
    channel.null_until = NEVER
    if channel.counting != 0:
        cycle = channel.period
        if channel.mode == 3:
            cycle = half_cycle(channel.period, channel.output)
        channel.null_until = channel.start + cycle


@kernel
def new_count(channel, count, clock):
    """A whole count was written at `clock`."""
    channel.reload = count
    mode = channel.mode
    if mode == 1 or mode == 5:
        if clock < channel.start and channel.start != NEVER:
            load(channel, count, clock, 1)
        else:
            channel.null_until = NEVER
    elif (mode == 2 or mode == 3) and clock >= channel.start:
        reload_later(channel, clock)
    else:
        channel.output = 1
        if mode == 0:
            channel.output = 0
        load(channel, count, clock, channel.gate)


@kernel
def write_count(channel, value, clock):
    """A byte written to the counter's port; the counter is settled to `clock`."""
    if channel.access == 1:
        new_count(channel, count_of_bytes(channel, value), clock)
    elif channel.access == 2:
        new_count(channel, count_of_bytes(channel, value << 8), clock)
    elif channel.write_second != 0:
        channel.write_second = 0
        new_count(channel, count_of_bytes(channel, value << 8 | channel.low_byte), clock)
    else:
        channel.write_second = 1
        channel.low_byte = value
        if channel.mode == 0:
            stop(channel, clock)
            channel.output = 0


# -- the gate -----------------------------------------------------------------------------------------------------


@kernel
def lower_gate(channel, clock):
    """GATE falls: modes 0, 2, 3, 4 stop counting; modes 2 and 3 set OUT high at once."""
    if channel.mode == 1 or channel.mode == 5:
        return
    if channel.counting != 0 and clock >= channel.start:
        channel.initial = count_now(channel, clock)
        channel.held_count = channel.initial
        channel.start = clock
        if clock < channel.null_until:
            channel.null_until = NEVER
    channel.counting = 0
    if channel.mode != 0:
        if channel.mode == 4 and channel.output == 0:
            channel.expired = 1
        channel.output = 1


@kernel
def raise_gate(channel, clock):
    """GATE rises: modes 0 and 4 go on counting, the others are triggered."""
    if channel.mode == 0 or channel.mode == 4:
        if channel.start != NEVER:
            channel.counting = 1
            channel.start = max(channel.start, clock)
    elif channel.reload != 0:
        null_until = channel.null_until
        load(channel, channel.reload, clock, 1)
        if clock >= null_until:
            channel.null_until = null_until


@kernel
def set_gate(channel, gate, clock):
    """Drive GATE of a counter that is settled to `clock`."""
    if gate == channel.gate:
        return
    channel.gate = gate
    if gate != 0:
        raise_gate(channel, clock)
    else:
        lower_gate(channel, clock)


# -- reading ------------------------------------------------------------------------------------------------------


@kernel
def displayed_count(channel, clock):
    """The counting element as 16 bits, in decimal digits if so programmed."""
    count = count_now(channel, clock)
    if channel.bcd == 0:
        return count & 0xFFFF
    count = count % 10000
    return count // 1000 << 12 | count // 100 % 10 << 8 | count // 10 % 10 << 4 | count % 10


@kernel
def latch_count(channel, clock):
    """Counter latch command: hold the count until it is read. A second command before that is ignored."""
    if channel.count_latched == 0:
        channel.count_latched = 1
        channel.latched_count = displayed_count(channel, clock)


@kernel
def latch_status(channel, clock):
    """Read-back of the status: OUT, null count, access, mode, BCD."""
    if channel.status_latched != 0:
        return
    status = channel.output << 7 | channel.access << 4 | channel.mode << 1 | channel.bcd
    if clock < channel.null_until:
        status |= 0x40
    channel.status_latched = 1
    channel.latched_status = status


@kernel
def read_count(channel, clock):
    """A byte read from the counter's port; the counter is settled to `clock`."""
    if channel.status_latched != 0:
        channel.status_latched = 0
        return channel.latched_status
    count = channel.latched_count
    if channel.count_latched == 0:
        count = displayed_count(channel, clock)
    if channel.access == 3 and channel.read_second == 0:
        channel.read_second = 1
        return count & 0xFF
    channel.read_second = 0
    channel.count_latched = 0
    if channel.access == 1:
        return count & 0xFF
    return count >> 8

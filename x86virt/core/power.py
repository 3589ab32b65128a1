"""Power management of the 82371AB (PIIX4): PM1 registers and timer behind PMBA, the APM ports 0xB2 and 0xB3.

Sources: Intel, 82371AB data sheet, section 7.2 (power management I/O space) and 7.1; Advanced Configuration and Power
Interface specification 1.0, section 4.7.2 (PM1 status, enable and control, sleep types), 4.7.2.1 (timer).

Of the register block there are PM1 status, enable and control and the timer; the rest reads as 0. The timer's status bit
is set whenever the timer's highest bit changes. The system control interrupt is IRQ 9, by level. Sleep type 0 with SLP_EN
switches the machine off; the other types are not carried out. There is no system management mode: a command to the APM
control port is kept, and 0xF1 and 0xF0 hand the interrupt to the operating system and back (SCI_EN), as the usual
firmware's handler does. The general-purpose events at 0xAFE0 (two status, two enable bytes) never happen.
"""

import numpy as np

from .device_clock import clock_of_tick, tick_of_clock
from .jit import kernel
from .layout import NEVER

TIMER_HZ = 3_579_545
TIMER_BITS = 24
HALF_TURN = 1 << (TIMER_BITS - 1)  # periods from one change of the highest bit to the next

ENABLE, CONTROL, TIMER = 2, 4, 8  # offsets in the register block, behind the status
STATUS_TIMER = 0x0001
ENABLE_BITS = 0x0521  # RTC, power button, global, timer
CONTROL_SCI = 0x0001
CONTROL_BITS = 0x1C03  # sleep type, bus master reload, SCI_EN
CONTROL_SLEEP = 0x2000
SLEEP_TYPE = 0x1C00

APM_STATUS = 0xB3
ACPI_ENABLE, ACPI_DISABLE = 0xF1, 0xF0

# What a write asks of the board.
ASKS_POWER_OFF = 1

POWER = np.dtype(
    [
        ("pm1_status", "i8"),
        ("pm1_enable", "i8"),
        ("pm1_control", "i8"),
        ("settled", "i8"),  # periods of the timer that are accounted for
        ("events_enable", "i8"),  # general-purpose events
        ("apm_control", "i8"),
        ("apm_status", "i8"),
        ("irq", "i8"),
        ("deadline", "i8"),
    ]
)


@kernel
def reset_power(power, now, ticks_per_second):
    """Reset: all registers 0. The timer runs through."""
    power.pm1_status = 0
    power.pm1_enable = 0
    power.pm1_control = 0
    power.settled = clock_of_tick(now, TIMER_HZ, ticks_per_second)
    power.events_enable = 0
    power.apm_control = 0
    power.apm_status = 0
    power.irq = 0
    power.deadline = NEVER


@kernel
def settle_power(power, now, ticks_per_second):
    """Bring the timer's status up to a tick."""
    clock = clock_of_tick(now, TIMER_HZ, ticks_per_second)
    if clock // HALF_TURN != power.settled // HALF_TURN:
        power.pm1_status |= STATUS_TIMER
    power.settled = clock


@kernel
def follow_power(power, ticks_per_second):
    """After any change: the interrupt, and when the timer will raise it."""
    power.irq = int(power.pm1_control & CONTROL_SCI != 0 and power.pm1_status & power.pm1_enable != 0)
    power.deadline = NEVER
    if power.irq == 0 and power.pm1_control & CONTROL_SCI != 0 and power.pm1_enable & STATUS_TIMER != 0:
        power.deadline = tick_of_clock((power.settled // HALF_TURN + 1) * HALF_TURN, TIMER_HZ, ticks_per_second)


@kernel
def advance_power(power, now, ticks_per_second):
    """The deadline was reached."""
    settle_power(power, now, ticks_per_second)
    follow_power(power, ticks_per_second)


@kernel
def register_byte(power, offset):
    """A byte of the register block, of a settled timer."""
    if offset < ENABLE:
        return (power.pm1_status >> (8 * offset)) & 0xFF
    if offset < CONTROL:
        return (power.pm1_enable >> (8 * (offset - ENABLE))) & 0xFF
    if offset < CONTROL + 2:
        return (power.pm1_control >> (8 * (offset - CONTROL))) & 0xFF
    if TIMER <= offset < TIMER + 3:
        return (power.settled >> (8 * (offset - TIMER))) & 0xFF
    return 0


@kernel
def read_power(power, port, now, ticks_per_second):
    """A byte of the register block."""
    settle_power(power, now, ticks_per_second)
    value = register_byte(power, port & 0x3F)
    follow_power(power, ticks_per_second)
    return value


@kernel
def write_byte(register, number, value, bits):
    """A register of which byte `number` was written, as far as `bits` can be."""
    allowed = bits & (0xFF << (8 * number))
    return (register & ~allowed) | ((value << (8 * number)) & allowed)


@kernel
def write_control(power, number, value):
    """PM1 control; SLP_EN is never kept. Returns ASKS_POWER_OFF or 0."""
    power.pm1_control = write_byte(power.pm1_control, number, value, CONTROL_BITS)
    sleep = number == 1 and (value << 8) & CONTROL_SLEEP != 0
    if sleep and power.pm1_control & SLEEP_TYPE == 0:
        return ASKS_POWER_OFF
    return 0


@kernel
def write_power(power, port, value, now, ticks_per_second):
    """A byte of the register block; a status bit is cleared by writing 1. Returns ASKS_POWER_OFF or 0."""
    settle_power(power, now, ticks_per_second)
    offset = port & 0x3F
    asks = 0
    if offset < ENABLE:
        power.pm1_status &= ~(value << (8 * offset))
    elif offset < CONTROL:
        power.pm1_enable = write_byte(power.pm1_enable, offset - ENABLE, value, ENABLE_BITS)
    elif offset < CONTROL + 2:
        asks = write_control(power, offset - CONTROL, value)
    follow_power(power, ticks_per_second)
    return asks


@kernel
def write_apm(power, port, value, now, ticks_per_second):
    """Port 0xB2 or 0xB3."""
    if port == APM_STATUS:
        power.apm_status = value
        return
    power.apm_control = value
    settle_power(power, now, ticks_per_second)
    if value == ACPI_ENABLE:
        power.pm1_control |= CONTROL_SCI
    elif value == ACPI_DISABLE:
        power.pm1_control &= ~CONTROL_SCI
    follow_power(power, ticks_per_second)


@kernel
def read_apm(power, port):
    """Port 0xB2 or 0xB3."""
    if port == APM_STATUS:
        return power.apm_status
    return power.apm_control


@kernel
def write_events(power, port, value):
    """General-purpose events: status bytes clear nothing, enable bytes are kept."""
    if port & 2 != 0:
        power.events_enable = write_byte(power.events_enable, port & 1, value, 0xFFFF)


@kernel
def read_events(power, port):
    """General-purpose events."""
    if port & 2 == 0:
        return 0
    return (power.events_enable >> (8 * (port & 1))) & 0xFF

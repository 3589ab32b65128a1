"""The MC146818 real-time clock with its 128 bytes of CMOS memory, ports 0x70 and 0x71, on simulated time.

Source: Motorola, MC146818 Real-Time Clock plus RAM data sheet (register map, update cycle, alarms, interrupts, divider
control); the meaning of the other bytes is that of the usual PC firmware.

The divider chain runs at 32768 Hz while register A selects that base; every other selection holds it reset, and the first
update comes half a second after it is released. The calendar is kept as one number of seconds; between two accesses
nothing steps, `settle_clock` makes up for any time at once. While SET is on, the time registers are plain memory; they are
taken as the new time when it goes off (a field beyond its range carries over into the next). Every 4-year rule of the
Gregorian calendar holds, and the century byte belongs to the date. The data mode bit converts the time, the alarm
keeps its bytes. Daylight saving (DSE) and the square wave (SQWE) do nothing.
"""

import numpy as np

from .device_clock import clock_of_tick, tick_of_clock
from .jit import kernel
from .layout import NEVER

CLOCK_HZ = 32768
# An update begins 244 us after UIP rises and takes 1984 us: 73 periods in all.
UPDATE_PERIODS = 73

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR = range(10)
REGISTER_A, REGISTER_B, REGISTER_C, REGISTER_D = range(10, 14)
CENTURY = 0x32

A_UPDATE = 0x80
A_DIVIDER = 0x70
A_RATE = 0x0F
DIVIDER_RUNS = 0x20
B_SET = 0x80
B_BINARY = 0x04
B_24_HOURS = 0x02
# Enables in register B are at the places of their flags in register C.
PERIODIC = 0x40
ALARM = 0x20
UPDATE_ENDED = 0x10
D_VALID = 0x80
ANY = 0xC0  # an alarm byte with both bits set matches every value
PM = 0x80

DAY_SECONDS = 86400
# The calendar is counted from the first of March of the year -400, so that no date that the registers hold lies before it.
FOUR_CENTURIES = 146097  # days
DAYS_TO_1970 = 719468 + FOUR_CENTURIES
WEEKDAY_OF_1970 = 3  # with it the first of January 1970 is day 5, a Thursday
START_OF_2000 = 946684800  # seconds since 1970

CMOS = np.dtype(
    [
        ("address", "i8"),  # the byte that port 0x71 means
        ("nmi_masked", "i8"),  # bit 7 of port 0x70
        ("memory", "u1", 128),  # registers A to D and the alarm are here; the time is while SET is on
        ("origin", "i8"),  # the tick at which the divider chain was at 0
        ("settled", "i8"),  # periods of the divider chain that are accounted for
        ("calendar", "i8"),  # seconds since the first of March of the year -400
        ("weekday", "i8"),  # what is added to the number of the day before its remainder by 7
        ("irq", "i8"),
        ("deadline", "i8"),
    ]
)


# -- the calendar ---------------------------------------------------------------------------------------------------


@kernel
def days_of(year, month, day):
    """Days from the first of March of the year -400 to a date; months and days beyond their range carry over."""
    year += (month - 1) // 12
    month = (month - 1) % 12
    years = year + 400
    if month < 2:
        years -= 1
    months = (month + 10) % 12  # since March
    return years * 365 + years // 4 - years // 100 + years // 400 + (153 * months + 2) // 5 + day - 1


@kernel
def date_of(days):
    """Year, month and day that many days after the first of March of the year -400."""
    cycles = days // FOUR_CENTURIES
    rest = days - cycles * FOUR_CENTURIES
    years = (rest - rest // 1460 + rest // 36524 - rest // 146096) // 365
    rest -= 365 * years + years // 4 - years // 100
    months = (5 * rest + 2) // 153  # since March
    day = rest - (153 * months + 2) // 5 + 1
    year = years + 400 * cycles - 400
    if months < 10:
        return year, months + 3, day
    return year + 1, months - 9, day


@kernel
def to_register(cmos, value):
    """A number as the data mode has it: binary, or two decimal digits."""
    if np.int64(cmos.memory[REGISTER_B]) & B_BINARY != 0:
        return value & 0xFF
    return (value // 10 << 4 | value % 10) & 0xFF


@kernel
def from_register(cmos, value):
    """The number that a register holds."""
    if np.int64(cmos.memory[REGISTER_B]) & B_BINARY != 0:
        return value
    return (value >> 4) * 10 + (value & 0x0F)


@kernel
def hours_to_register(cmos, hour):
    """The hour, by 24 or by 12 with bit 7 for the afternoon."""
    if np.int64(cmos.memory[REGISTER_B]) & B_24_HOURS != 0:
        return to_register(cmos, hour)
    value = to_register(cmos, (hour + 11) % 12 + 1)
    if hour >= 12:
        value |= PM
    return value


@kernel
def hours_from_register(cmos, value):
    """The hour 0 to 23 that a register holds, more if it is out of range."""
    if np.int64(cmos.memory[REGISTER_B]) & B_24_HOURS != 0:
        return from_register(cmos, value)
    hour = from_register(cmos, value & 0x7F) % 12
    if value & PM != 0:
        hour += 12
    return hour


@kernel
def is_time(address):
    """Whether a byte of the memory is part of the time: the even registers up to 4, the date, the century."""
    return address == SECONDS or address == MINUTES or address == HOURS or WEEKDAY <= address <= YEAR or address == CENTURY


@kernel
def time_register(cmos, address):
    """A part of the time as its register has it."""
    days = cmos.calendar // DAY_SECONDS
    second = cmos.calendar - days * DAY_SECONDS
    if address == SECONDS:
        return to_register(cmos, second % 60)
    if address == MINUTES:
        return to_register(cmos, second // 60 % 60)
    if address == HOURS:
        return hours_to_register(cmos, second // 3600)
    if address == WEEKDAY:
        return to_register(cmos, (days + cmos.weekday) % 7 + 1)
    year, month, day = date_of(days)
    if address == DAY:
        return to_register(cmos, day)
    if address == MONTH:
        return to_register(cmos, month)
    if address == YEAR:
        return to_register(cmos, year % 100)
    return to_register(cmos, year // 100)


@kernel
def show_time(cmos):
    """Put the time into its registers."""
    for address in range(REGISTER_A):
        if is_time(address):
            cmos.memory[address] = time_register(cmos, address)
    cmos.memory[CENTURY] = time_register(cmos, CENTURY)


@kernel
def held(cmos, address):
    """The number that a register of the time holds."""
    return from_register(cmos, np.int64(cmos.memory[address]))


@kernel
def take_time(cmos):
    """Take the time from its registers."""
    year = held(cmos, CENTURY) * 100 + held(cmos, YEAR)
    days = days_of(year, max(held(cmos, MONTH), 1), max(held(cmos, DAY), 1))
    hours = hours_from_register(cmos, np.int64(cmos.memory[HOURS]))
    cmos.calendar = days * DAY_SECONDS + hours * 3600 + held(cmos, MINUTES) * 60 + held(cmos, SECONDS)
    cmos.weekday = (held(cmos, WEEKDAY) - 1 - cmos.calendar // DAY_SECONDS) % 7


# -- the alarm ------------------------------------------------------------------------------------------------------


@kernel
def alarm_matches(cmos, address, value):
    """Whether an alarm byte means a value of its unit: it is equal, or means any."""
    octet = np.int64(cmos.memory[address])
    if octet & ANY == ANY:
        return True
    if address == HOURS_ALARM:
        return hours_from_register(cmos, octet) == value
    return from_register(cmos, octet) == value


@kernel
def seconds_to_alarm(cmos):
    """Seconds, at least 1, from the present second to the next that the alarm means; NEVER if it means none."""
    now = cmos.calendar % DAY_SECONDS
    second = now + 1
    # By whole hours and minutes as long as these do not match.
    while second <= now + DAY_SECONDS:
        if not alarm_matches(cmos, HOURS_ALARM, second // 3600 % 24):
            second = (second // 3600 + 1) * 3600
        elif not alarm_matches(cmos, MINUTES_ALARM, second // 60 % 60):
            second = (second // 60 + 1) * 60
        elif not alarm_matches(cmos, SECONDS_ALARM, second % 60):
            second += 1
        else:
            return second - now
    return NEVER


# -- time -----------------------------------------------------------------------------------------------------------


@kernel
def runs(cmos):
    """Whether the divider chain runs."""
    return np.int64(cmos.memory[REGISTER_A]) & A_DIVIDER == DIVIDER_RUNS


@kernel
def updates(cmos):
    """Whether the time goes on: the chain runs and SET is off."""
    return runs(cmos) and np.int64(cmos.memory[REGISTER_B]) & B_SET == 0


@kernel
def interrupt_period(cmos):
    """Periods of the chain between two periodic interrupts, 0: none. The fastest two rates are those of 8 and 9."""
    rate = np.int64(cmos.memory[REGISTER_A]) & A_RATE
    if rate == 0:
        return 0
    if rate < 3:
        rate += 7
    return 1 << (rate - 1)


@kernel
def signal_interrupt(cmos):
    """IRQF and the line: any flag whose interrupt is enabled."""
    flags = np.int64(cmos.memory[REGISTER_C]) & (PERIODIC | ALARM | UPDATE_ENDED)
    cmos.irq = int(flags & np.int64(cmos.memory[REGISTER_B]) != 0)
    cmos.memory[REGISTER_C] = flags | cmos.irq << 7


@kernel
def settle_clock(cmos, now, ticks_per_second):
    """Bring time and flags up to a tick."""
    if not runs(cmos):
        return
    count = clock_of_tick(now - cmos.origin, CLOCK_HZ, ticks_per_second)
    if count <= cmos.settled:
        return
    flags = 0
    period = interrupt_period(cmos)
    if period != 0 and count // period != cmos.settled // period:
        flags |= PERIODIC
    seconds = count // CLOCK_HZ - cmos.settled // CLOCK_HZ
    if seconds > 0 and updates(cmos):
        flags |= UPDATE_ENDED
        if seconds_to_alarm(cmos) <= seconds:
            flags |= ALARM
        cmos.calendar += seconds
    cmos.settled = count
    cmos.memory[REGISTER_C] = np.int64(cmos.memory[REGISTER_C]) | flags
    signal_interrupt(cmos)


@kernel
def following(settled, period):
    """The next multiple of a period."""
    return (settled // period + 1) * period


@kernel
def find_deadline(cmos, ticks_per_second):
    """The tick of the next interrupt, of a clock that is settled."""
    cmos.deadline = NEVER
    if cmos.irq == 1 or not runs(cmos):
        return
    enabled = np.int64(cmos.memory[REGISTER_B])
    period = interrupt_period(cmos)
    count = NEVER
    if enabled & PERIODIC != 0 and period != 0:
        count = following(cmos.settled, period)
    if enabled & B_SET == 0 and enabled & UPDATE_ENDED != 0:
        count = min(count, following(cmos.settled, CLOCK_HZ))
    if enabled & B_SET == 0 and enabled & ALARM != 0:
        seconds = seconds_to_alarm(cmos)
        if seconds != NEVER:
            count = min(count, (cmos.settled // CLOCK_HZ + seconds) * CLOCK_HZ)
    if count != NEVER:
        cmos.deadline = cmos.origin + tick_of_clock(count, CLOCK_HZ, ticks_per_second)


@kernel
def advance_cmos(cmos, now, ticks_per_second):
    """The deadline was reached."""
    settle_clock(cmos, now, ticks_per_second)
    find_deadline(cmos, ticks_per_second)


# -- registers ------------------------------------------------------------------------------------------------------


@kernel
def write_register_a(cmos, value, now, ticks_per_second):
    """Divider and rate. A chain that is released begins half a second before an update."""
    held_before = not runs(cmos)
    cmos.memory[REGISTER_A] = value & (A_DIVIDER | A_RATE)
    if held_before and runs(cmos):
        cmos.origin = now - ticks_per_second // 2
        cmos.settled = CLOCK_HZ // 2


@kernel
def write_register_b(cmos, value):
    """Enables and modes. While SET is on, the registers of the time are memory; it turns UIE off."""
    before = np.int64(cmos.memory[REGISTER_B])
    if value & B_SET != 0:
        value &= ~UPDATE_ENDED
    cmos.memory[REGISTER_B] = value
    if value & ~before & B_SET != 0:
        show_time(cmos)
    if before & ~value & B_SET != 0:
        take_time(cmos)
    signal_interrupt(cmos)


@kernel
def write_time(cmos, address, value):
    """A register of the time: memory while SET is on; else the time changes at once."""
    is_set = np.int64(cmos.memory[REGISTER_B]) & B_SET
    if is_set == 0:
        show_time(cmos)
    cmos.memory[address] = value
    if is_set == 0:
        take_time(cmos)


@kernel
def write_cmos(cmos, port, value, now, ticks_per_second):
    """A byte to port 0x70 (address) or 0x71."""
    if port & 1 == 0:
        cmos.address = value & 0x7F
        cmos.nmi_masked = value >> 7
        return
    settle_clock(cmos, now, ticks_per_second)
    address = cmos.address
    if address == REGISTER_A:
        write_register_a(cmos, value, now, ticks_per_second)
    elif address == REGISTER_B:
        write_register_b(cmos, value)
    elif is_time(address):
        write_time(cmos, address, value)
    elif address != REGISTER_C and address != REGISTER_D:
        cmos.memory[address] = value
    find_deadline(cmos, ticks_per_second)


@kernel
def update_in_progress(cmos):
    """UIP of a settled clock."""
    if updates(cmos) and cmos.settled % CLOCK_HZ >= CLOCK_HZ - UPDATE_PERIODS:
        return A_UPDATE
    return 0


@kernel
def read_register_c(cmos):
    """The flags, which are cleared."""
    value = np.int64(cmos.memory[REGISTER_C])
    cmos.memory[REGISTER_C] = 0
    cmos.irq = 0
    return value


@kernel
def read_cmos(cmos, port, now, ticks_per_second):
    """A byte from port 0x71; the address cannot be read."""
    if port & 1 == 0:
        return 0xFF
    settle_clock(cmos, now, ticks_per_second)
    address = cmos.address
    value = np.int64(cmos.memory[address])
    if address == REGISTER_C:
        value = read_register_c(cmos)
        find_deadline(cmos, ticks_per_second)
    elif address == REGISTER_A:
        value |= update_in_progress(cmos)
    elif is_time(address) and np.int64(cmos.memory[REGISTER_B]) & B_SET == 0:
        value = time_register(cmos, address)
    return value


# -- power on, reset, and what the owner sets -----------------------------------------------------------------------


@kernel
def set_clock(cmos, seconds, now, ticks_per_second):
    """Let a second of the clock begin now, so many since the first of January 1970."""
    cmos.calendar = DAYS_TO_1970 * DAY_SECONDS + seconds
    cmos.weekday = WEEKDAY_OF_1970
    cmos.origin = now
    cmos.settled = 0
    find_deadline(cmos, ticks_per_second)


@kernel
def power_on_cmos(cmos, ticks_per_second):
    """The battery is put in: memory is 0, it is the first of January 2000, and the clock runs, decimal, by 24 hours."""
    for address in range(128):
        cmos.memory[address] = 0
    cmos.memory[REGISTER_A] = DIVIDER_RUNS | 6
    cmos.memory[REGISTER_B] = B_24_HOURS
    cmos.memory[REGISTER_D] = D_VALID
    cmos.address = 0
    cmos.nmi_masked = 0
    cmos.irq = 0
    set_clock(cmos, START_OF_2000, 0, ticks_per_second)


@kernel
def reset_cmos(cmos, now, ticks_per_second):
    """RESET#: the interrupts are disabled, and their flags cleared; time and memory stay."""
    settle_clock(cmos, now, ticks_per_second)
    cmos.memory[REGISTER_B] = np.int64(cmos.memory[REGISTER_B]) & ~(PERIODIC | ALARM | UPDATE_ENDED | 0x08)
    cmos.memory[REGISTER_C] = 0
    cmos.irq = 0
    cmos.deadline = NEVER

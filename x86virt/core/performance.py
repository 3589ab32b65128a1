"""The performance counters of the P6 family: RDPMC and their four registers (SDM volume 3, section 18.8).

Counter 0 or 1 counts what its event-select register names: retired instructions or cycles; other events never happen
here. Rings are not told apart: a counter that is to count in any ring counts in all. The Pentium 4 and AMD processors
have counters under other registers, which this machine does not offer, so that they stand at zero.

    event select   7:0 event   16 in rings above 0   17 in ring 0   22 enable both counters (register 0 only)
"""

from ..isa.events import TICKS_PER_CYCLE
from ..isa.registers import (
    CR4_PCE,
    EAX,
    ECX,
    EDX,
    MSR_EVENT_SELECT_0,
    MSR_EVENT_SELECT_1,
    MSR_PERFORMANCE_COUNTER_0,
    MSR_PERFORMANCE_COUNTER_1,
)
from ..isa.vectors import GP
from .fault import raise_fault
from .jit import kernel
from .layout import OK, TIME_COUNTER, TIME_LOG
from .time_log import logged_time, time_log_blocks
from .vendor import FAMILY_P6, family_of, is_intel

M32 = 0xFFFFFFFF
M40 = (1 << 40) - 1
CYCLES, CYCLES_ARCHITECTURAL, INSTRUCTIONS_RETIRED = 0x79, 0x3C, 0xC0
ANY_RING, ENABLE = 3 << 16, 1 << 22
FAST_READ = 1 << 31  # of the Pentium 4's counter numbers


@kernel
def has_p6_counters(cpu):
    """Whether the event-select registers of the P6 family exist."""
    return is_intel(cpu) and family_of(cpu) == FAMILY_P6


@kernel
def counters(cpu):
    """How many counters RDPMC can name: 2 in the P6 family, 18 of the Pentium 4, 4 of AMD's."""
    if has_p6_counters(cpu):
        return 2
    if is_intel(cpu):
        return 18
    return 4


@kernel
def source(cpu, number):
    """What a counter follows now, 0 if it stands."""
    select = cpu.performance_select[number]
    if cpu.performance_select[0] & ENABLE == 0 or select & ANY_RING == 0:
        return 0
    event = select & 0xFF
    if event == INSTRUCTIONS_RETIRED:
        return cpu.retired
    if event == CYCLES or event == CYCLES_ARCHITECTURAL:
        return cpu.ticks // TICKS_PER_CYCLE
    return 0


@kernel
def counter_value(cpu, number):
    """The 40 bits of a counter."""
    if number > 1:
        return 0
    return (cpu.performance_start[number] + source(cpu, number)) & M40


@kernel
def set_counter(cpu, number, value):
    """Make a counter go on from a value."""
    cpu.performance_start[number] = (value - source(cpu, number)) & M40


@kernel
def select_event(cpu, number, select):
    """Write an event-select register; the counters keep their values."""
    first = counter_value(cpu, 0)
    second = counter_value(cpu, 1)
    cpu.performance_select[number] = select
    set_counter(cpu, 0, first)
    set_counter(cpu, 1, second)


@kernel
def is_performance_register(cpu, number):
    """Whether RDMSR and WRMSR reach one of the four registers."""
    if not has_p6_counters(cpu):
        return False
    if number == MSR_EVENT_SELECT_0 or number == MSR_EVENT_SELECT_1:
        return True
    return number == MSR_PERFORMANCE_COUNTER_0 or number == MSR_PERFORMANCE_COUNTER_1


@kernel
def read_performance_register(cpu, number):
    """RDMSR of one of them."""
    if number >= MSR_EVENT_SELECT_0:
        return cpu.performance_select[number - MSR_EVENT_SELECT_0]
    return counter_value(cpu, number - MSR_PERFORMANCE_COUNTER_0)


@kernel
def write_performance_register(cpu, number, value):
    """WRMSR of one of them; a counter takes 32 bits and extends their sign."""
    if number >= MSR_EVENT_SELECT_0:
        select_event(cpu, number - MSR_EVENT_SELECT_0, value & M32)
    else:
        set_counter(cpu, number - MSR_PERFORMANCE_COUNTER_0, ((value & M32) ^ 0x80000000) - 0x80000000)


@kernel
def counter_named(cpu, selector):
    """The number of the counter that RDPMC's ECX names, -1 if the processor lacks it."""
    number = selector
    if counters(cpu) == 18:
        number &= ~FAST_READ & M32
    if number >= counters(cpu):
        return -1
    return number


@kernel
def rdpmc(cpu):
    """RDPMC: outside ring 0 only with CR4.PCE; #GP(0) for a counter that the processor lacks."""
    if cpu.cpl != 0 and cpu.cr4 & CR4_PCE == 0:
        return raise_fault(cpu, GP, 0)
    number = counter_named(cpu, cpu.gpr[ECX])
    if number < 0:
        return raise_fault(cpu, GP, 0)
    if time_log_blocks(cpu, TIME_COUNTER - number) == 1:
        return TIME_LOG
    value = logged_time(cpu, TIME_COUNTER - number, counter_value(cpu, number))
    cpu.gpr[EAX] = value & M32
    cpu.gpr[EDX] = (value >> 32) & M32
    return OK

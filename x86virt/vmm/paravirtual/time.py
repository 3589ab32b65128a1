"""Time as a domain has it: its record of system time, its timers, and the run states of its virtual processor.

The record in shared memory holds a moment by both clocks, and the scale between them; the guest reads the time-stamp counter and
works out the rest by itself. Its version is odd while the record is being written. Deadlines are the host's one-shot
timer's: the way out of the VMM sets it to the earliest (schedule.py), and its interrupt finds here whose are due.

A one-shot timer fires whether its domain runs or not. A periodic timer is one of a domain that runs: what falls due
while it does not comes once, when it runs again (xen/include/public/vcpu.h).
"""

import numpy as np

from ...core.jit import inline, kernel, load_8, load_32
from ...core.layout import NEVER
from ...core.physical import write_physical
from ...isa.events import (
    EVENT_VMM_SET_TIMER,
    EVENT_VMM_SMALL_HYPERCALL,
    EVENT_VMM_TIME_UPDATE,
    EVENT_VMM_TIMER_INTERRUPT,
)
from ...isa.registers import EBX, ECX, EDX
from . import layout
from .charge import charge
from .clock import FAR, M32, TICK_SHIFT, system_time
from .events import raise_virq
from .guest_access import FAULTED, load_words, store_words
from .interface import (
    EEXIST,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOSYS,
    ETIME,
    MAX_VIRT_CPUS,
    TIME_BYTES,
    TIME_MULTIPLIER,
    TIME_SHIFT,
    TIME_SYSTEM,
    TIME_TSC_STAMP,
    TIME_VERSION,
    VCPU_INFO_BYTES,
    VCPU_PENDING_SELECTOR,
    VCPU_TIME,
    VIRQ_TIMER,
    SHUTDOWN_poweroff,
    VCPU_SSHOTTMR_future,
    VCPUOP_down,
    VCPUOP_get_physid,
    VCPUOP_get_runstate_info,
    VCPUOP_initialise,
    VCPUOP_is_up,
    VCPUOP_register_runstate_memory_area,
    VCPUOP_register_vcpu_info,
    VCPUOP_register_vcpu_time_memory_area,
    VCPUOP_set_periodic_timer,
    VCPUOP_set_singleshot_timer,
    VCPUOP_stop_periodic_timer,
    VCPUOP_stop_singleshot_timer,
    VCPUOP_up,
)
from .page_types import get_page_and_type
from .records import ASK_EVENTS, ASK_SCHEDULE, ASK_TIMER, PGT_WRITABLE
from .shared_info import mark_upcall, shared_page, vcpu_info
from .waking import run_state_of, shut_down, wake

MILLISECOND = 1_000_000
TICKER = 10 * MILLISECOND  # of a domain that has not said otherwise: 100 times a second
LATER = 100 * MILLISECOND  # instead of a deadline that no guest can mean
N_RUN_STATES = 4
RUNSTATE_WORDS = 11
PAGE_BYTES = 0x1000
ALL_WORDS = 0xFFFFFFFF
MAX_PERIOD_HIGH = 1 << 18  # upper doubleword of a period, beyond which it is refused


# -- the record of time ---------------------------------------------------------------------------------------------------


@inline
def write_64(cpu, ram, address, value):
    """Store 64 bits of memory that a guest shares."""
    write_physical(cpu, ram, address, 4, value & M32)
    write_physical(cpu, ram, address + 4, 4, (value >> 32) & M32)


@kernel
def write_time(cpu, ram, xen, address):
    """Bring a record of time up to the present."""
    now = cpu.ticks
    version = (load_32(ram, address + TIME_VERSION) + 1) | 1
    write_physical(cpu, ram, address + TIME_VERSION, 4, version & M32)
    write_64(cpu, ram, address + TIME_TSC_STAMP, (now >> TICK_SHIFT) + cpu.tsc_offset)
    write_64(cpu, ram, address + TIME_SYSTEM, system_time(xen, now))
    write_physical(cpu, ram, address + TIME_MULTIPLIER, 4, xen.tsc_multiplier)
    write_physical(cpu, ram, address + TIME_SHIFT, 1, xen.tsc_shift & 0xFF)
    write_physical(cpu, ram, address + TIME_VERSION, 4, (version + 1) & M32)


@kernel
def update_time(cpu, ram, xen, domains, index):
    """Bring a domain's record of time up to the present, and the copy that it asked for while it is the current one."""
    charge(cpu, xen, EVENT_VMM_TIME_UPDATE, 1)
    record = vcpu_info(domains, index) + VCPU_TIME
    write_time(cpu, ram, xen, record)
    area = np.int64(domains[index].time_area)
    if area != 0 and index == xen.current:
        for number in range(TIME_BYTES // 4):
            xen.words[number] = load_32(ram, record + 4 * number)
        store_words(cpu, ram, xen, domains[index], area, TIME_BYTES // 4)


# -- run states -----------------------------------------------------------------------------------------------------------


@kernel
def take_run_states(cpu, xen, domains, index):
    """The run-state record of a domain as it is now, in xen.words."""
    now = system_time(xen, cpu.ticks)
    state = run_state_of(domains, index)
    xen.words[0] = state
    xen.words[1] = xen.state_entry[index] & M32
    xen.words[2] = xen.state_entry[index] >> 32
    for number in range(N_RUN_STATES):
        time = xen.state_time[index, number]
        if number == state:
            time += now - xen.state_entry[index]
        xen.words[3 + 2 * number] = time & M32
        xen.words[4 + 2 * number] = time >> 32


@kernel
def update_run_states(cpu, ram, xen, domains):
    """Bring the run-state record that the current domain asked for up to the present, if it can be written."""
    index = xen.current
    area = np.int64(domains[index].runstate_area)
    if area != 0:
        take_run_states(cpu, xen, domains, index)
        store_words(cpu, ram, xen, domains[index], area, RUNSTATE_WORDS)


# -- timers ---------------------------------------------------------------------------------------------------------------


@kernel
def send_timer(cpu, ram, xen, domains, index):
    """A timer of a domain has fired."""
    update_time(cpu, ram, xen, domains, index)
    raise_virq(cpu, ram, xen, domains, index, VIRQ_TIMER)


@inline
def has_ticker(xen, domains, index):
    """Whether a domain's periodic timer runs, and it would notice."""
    return xen.period[index] != 0 and np.int64(domains[index].virq_port[VIRQ_TIMER]) != 0


@kernel
def tick(cpu, ram, xen, domains, index):
    """Fire the periodic timer of a domain that runs, if it is due; what was missed comes once."""
    now = system_time(xen, cpu.ticks)
    if has_ticker(xen, domains, index) and now >= xen.next_tick[index]:
        xen.next_tick[index] = now + xen.period[index]
        send_timer(cpu, ram, xen, domains, index)


@kernel
def fire_due(cpu, ram, xen, domains, index):
    """Fire a domain's one-shot timer, and end its waiting for ports, if they are due."""
    now = system_time(xen, cpu.ticks)
    if now >= xen.deadline[index]:
        xen.deadline[index] = NEVER
        send_timer(cpu, ram, xen, domains, index)
    if now >= xen.poll_deadline[index]:
        wake(cpu, xen, domains, index)


@kernel
def host_timer(cpu, ram, xen, domains, frames, channels):
    """The interrupt of the host's timer: the virtual timers that are due; a slice may be over."""
    charge(cpu, xen, EVENT_VMM_TIMER_INTERRUPT, 1)
    for index in range(layout.N_DOMAINS):
        if np.int64(domains[index].exists) != 0 and np.int64(domains[index].shut_down) == 0:
            fire_due(cpu, ram, xen, domains, index)
    if xen.idle == 0:
        tick(cpu, ram, xen, domains, xen.current)
    if system_time(xen, cpu.ticks) >= xen.slice_end:
        xen.asked |= ASK_SCHEDULE
    xen.asked |= ASK_TIMER


@kernel
def set_deadline(xen, index, time):
    """Set a domain's one-shot timer, or stop it with NEVER."""
    xen.deadline[index] = time
    xen.asked |= ASK_TIMER


@kernel
def do_set_timer_op(cpu, ram, xen, domains, frames, channels):
    """set_timer_op(deadline): a VIRQ_TIMER at this system time, at once if it has passed; 0: none."""
    charge(cpu, xen, EVENT_VMM_SET_TIMER, 1)
    low, high = cpu.gpr[EBX], cpu.gpr[ECX]
    now = system_time(xen, cpu.ticks)
    if low == 0 and high == 0:
        set_deadline(xen, xen.current, NEVER)
    elif high >= FAR >> 32 and (high >= 1 << 31 or (high << 32 | low) - now >= FAR):
        # Some guests mean a moment that has just passed where they ask for one in the far future.
        set_deadline(xen, xen.current, now + LATER)
    else:
        set_deadline(xen, xen.current, high << 32 | low)
    return 0


# -- vcpu_op --------------------------------------------------------------------------------------------------------------


@kernel
def set_periodic_timer(cpu, xen, low, high):
    """VCPUOP_set_periodic_timer: from now on, by a period of a millisecond or more."""
    if high >= MAX_PERIOD_HIGH or (high == 0 and low < MILLISECOND):
        return -EINVAL
    period = high << 32 | low
    xen.period[xen.current] = period
    xen.next_tick[xen.current] = system_time(xen, cpu.ticks) + period
    xen.asked |= ASK_TIMER
    return 0


@kernel
def set_singleshot_timer(cpu, xen, low, high, flags):
    """VCPUOP_set_singleshot_timer: a deadline in system time; with the flag `future`, not one that has passed."""
    charge(cpu, xen, EVENT_VMM_SET_TIMER, 1)
    time = NEVER
    if high < 1 << 31:
        time = high << 32 | low
    if flags & VCPU_SSHOTTMR_future != 0 and time < system_time(xen, cpu.ticks):
        return -ETIME
    set_deadline(xen, xen.current, time)
    return 0


@kernel
def move_vcpu_info(cpu, ram, xen, domains, frames, low, high, offset):
    """VCPUOP_register_vcpu_info: the record of the processor is kept in a frame of the guest's from now on, for good.

    All words are marked as having events, so that none is lost.
    """
    domain = domains[xen.current]
    before = vcpu_info(domains, xen.current)
    if before != shared_page(domains, xen.current) or high != 0 or offset > PAGE_BYTES - VCPU_INFO_BYTES:
        return -EINVAL
    if get_page_and_type(cpu, ram, xen, domains, frames, low, np.int64(domain.domid), PGT_WRITABLE) == 0:
        return -EINVAL
    after = (low << 12) + offset
    for number in range(VCPU_INFO_BYTES):
        write_physical(cpu, ram, after + number, 1, load_8(ram, before + number))
    domain.vcpu_info = after
    write_physical(cpu, ram, after + VCPU_PENDING_SELECTOR, 4, ALL_WORDS)
    mark_upcall(cpu, ram, domains, xen.current)
    xen.asked |= ASK_EVENTS
    return 0


@kernel
def register_area(cpu, ram, xen, domains, command, address):
    """VCPUOP_register_..._memory_area: the VMM writes run states, or the time, there whenever the domain begins to run."""
    domain = domains[xen.current]
    octets = TIME_BYTES
    if command == VCPUOP_register_runstate_memory_area:
        octets = 4 * RUNSTATE_WORDS
    if address + octets > np.int64(domain.virt_start):
        return -EFAULT
    if command == VCPUOP_register_runstate_memory_area:
        domain.runstate_area = address
        update_run_states(cpu, ram, xen, domains)
    else:
        domain.time_area = address
        update_time(cpu, ram, xen, domains, xen.current)
    return 0


@kernel
def words_of(command):
    """Doublewords that an operation reads at its address."""
    if command == VCPUOP_set_periodic_timer:
        return 2
    if command == VCPUOP_set_singleshot_timer or command == VCPUOP_register_vcpu_info:
        return 3
    if command == VCPUOP_register_runstate_memory_area or command == VCPUOP_register_vcpu_time_memory_area:
        return 1
    return 0


@kernel
def change_timers(cpu, ram, xen, domains, frames, command):
    """The operations whose structure was read."""
    first, second, third = xen.words[0], xen.words[1], xen.words[2]
    if command == VCPUOP_set_periodic_timer:
        return set_periodic_timer(cpu, xen, first, second)
    if command == VCPUOP_set_singleshot_timer:
        return set_singleshot_timer(cpu, xen, first, second, third)
    if command == VCPUOP_register_vcpu_info:
        return move_vcpu_info(cpu, ram, xen, domains, frames, first, second, third)
    return register_area(cpu, ram, xen, domains, command, first)


@kernel
def simple_vcpu_op(cpu, ram, xen, domains, command, argument):
    """The operations that read no structure."""
    if command == VCPUOP_is_up:
        return 1
    if command == VCPUOP_up:
        return 0
    if command == VCPUOP_initialise:
        return -EEXIST
    if command == VCPUOP_down:  # the last one that was up
        shut_down(cpu, xen, domains, xen.current, SHUTDOWN_poweroff)
        return 0
    if command == VCPUOP_get_runstate_info:
        take_run_states(cpu, xen, domains, xen.current)
        if store_words(cpu, ram, xen, domains[xen.current], argument, RUNSTATE_WORDS) == FAULTED:
            return -EFAULT
        return 0
    if command == VCPUOP_stop_periodic_timer:
        xen.period[xen.current] = 0
        xen.asked |= ASK_TIMER
        return 0
    if command == VCPUOP_stop_singleshot_timer:
        set_deadline(xen, xen.current, NEVER)
        return 0
    if command == VCPUOP_get_physid:
        return -EINVAL  # of processors that are pinned to one of the machine's
    return -ENOSYS


@kernel
def do_vcpu_op(cpu, ram, xen, domains, frames, channels):
    """vcpu_op(command, processor, structure). Each domain has one virtual processor, number 0."""
    charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
    command, processor, argument = cpu.gpr[EBX], cpu.gpr[ECX], cpu.gpr[EDX]
    if processor >= MAX_VIRT_CPUS:
        return -EINVAL
    if processor != 0:
        return -ENOENT
    words = words_of(command)
    if words == 0:
        return simple_vcpu_op(cpu, ram, xen, domains, command, argument)
    if load_words(cpu, ram, xen, domains[xen.current], argument, words) == FAULTED:
        return -EFAULT
    return change_timers(cpu, ram, xen, domains, frames, command)

"""The scheduler: which domain runs, and until when.

The policy, in the manner of Xen's credit scheduler. Domains that can run take turns by a slice of 10 ms. One that is woken, by an
event or by its timer, preempts the one that runs, unless that has itself been woken and is within its slice: so that
domain 0 and a guest that notify each other finish what they are about, and notifications gather meanwhile. Who yields lets
everybody else go first once. When nobody can run, the VMM halts the processor until an interrupt; the address space and
the registers stay those of the domain that ran last, which costs nothing if it is the next one too.
"""

import numpy as np

from ...core.charge import charge as charge_hardware
from ...core.jit import kernel
from ...core.layout import NEVER
from ...isa.events import EVENT_SYS_LAPIC_MMIO_ACCESS, EVENT_VMM_SCHEDULE, EVENT_VMM_SMALL_HYPERCALL
from ...isa.registers import EBX, ECX
from . import layout
from .charge import charge
from .clock import FAR, system_time, tick_of
from .crashes import CRASH_BY_ITSELF
from .events import find_domain, raise_virq
from .guest_access import FAULTED, load_guest, load_words
from .interface import (
    EFAULT,
    EINVAL,
    ENOSYS,
    EPERM,
    ESRCH,
    N_EVENT_CHANNELS,
    VIRQ_DOM_EXC,
    RUNSTATE_runnable,
    RUNSTATE_running,
    SCHEDOP_block,
    SCHEDOP_poll,
    SCHEDOP_remote_shutdown,
    SCHEDOP_shutdown,
    SCHEDOP_shutdown_code,
    SCHEDOP_yield,
    SHUTDOWN_crash,
)
from .physical import follow_lines, show_console
from .records import ASK_BOARD, ASK_CRASH, ASK_SCHEDULE, ASK_TIMER
from .shared_info import bit_of, is_pending, set_upcall_mask, upcall_due, upcall_waits
from .switch import switch_to
from .time import has_ticker, tick, update_run_states, update_time
from .waking import block, run_state_of, set_run_state, shut_down

M16 = 0xFFFF
SLICE = 10_000_000  # nanoseconds
NOBODY = -1
DOMAIN_0, FIRST_GUEST = 0, 1
MAX_POLLED = 128
RUN, IDLE, NOTHING_LEFT = range(3)


# -- who is there ---------------------------------------------------------------------------------------------------------


@kernel
def can_run(domains, index):
    """Whether a domain would run if it were given the processor."""
    if np.int64(domains[index].exists) == 0 or np.int64(domains[index].shut_down) != 0:
        return False
    state = run_state_of(domains, index)
    return state == RUNSTATE_running or state == RUNSTATE_runnable


@kernel
def next_after(xen, domains, boosted):
    """The first domain behind the current one that can run, with `boosted` one that has been woken; NOBODY if there is none."""
    for step in range(1, layout.N_DOMAINS):
        index = (xen.current + step) % layout.N_DOMAINS
        if can_run(domains, index) and (boosted == 0 or np.int64(domains[index].boosted) != 0):
            return index
    return NOBODY


@kernel
def all_ended(domains):
    """Whether nothing is left to run for: every guest has shut down, or the domain that serves them."""
    guests = 0
    for index in range(layout.N_DOMAINS):
        if np.int64(domains[index].exists) == 0:
            continue
        ended = np.int64(domains[index].shut_down) != 0
        if index == DOMAIN_0 and ended:
            return True
        if index >= FIRST_GUEST:
            if not ended:
                return False
            guests += 1
    return guests > 0


# -- the choice -----------------------------------------------------------------------------------------------------------


@kernel
def choose(cpu, xen, domains):
    """Who runs next, by the policy above: an index, or NOBODY."""
    runs = can_run(domains, xen.current)
    woken = next_after(xen, domains, 1)
    if runs and xen.yields == 0:
        within = system_time(xen, cpu.ticks) < xen.slice_end
        keeps = within and np.int64(domains[xen.current].boosted) != 0
        if woken != NOBODY and not keeps:
            return woken
        if within:
            return xen.current
    other = woken
    if other == NOBODY:
        other = next_after(xen, domains, 0)
    if other == NOBODY and runs:
        other = xen.current
    return other


@kernel
def begin_slice(cpu, xen):
    """The current domain has the processor for a slice."""
    xen.slice_end = system_time(xen, cpu.ticks) + SLICE


@kernel
def give_processor(cpu, ram, xen, domains, frames, index):
    """Let a domain run: the switch, if it is another, its time, and timers of its that wait for it to run."""
    before = xen.current
    if run_state_of(domains, before) == RUNSTATE_running and index != before:
        set_run_state(cpu, xen, domains, before, RUNSTATE_runnable)
        domains[before].boosted = 0
    if index != before:
        switch_to(cpu, ram, xen, domains, frames, index)
        begin_slice(cpu, xen)
    elif system_time(xen, cpu.ticks) >= xen.slice_end:
        domains[index].boosted = 0
        begin_slice(cpu, xen)
    if run_state_of(domains, index) != RUNSTATE_running:
        set_run_state(cpu, xen, domains, index, RUNSTATE_running)
        update_run_states(cpu, ram, xen, domains)
        update_time(cpu, ram, xen, domains, index)
    tick(cpu, ram, xen, domains, index)


@kernel
def schedule(cpu, ram, xen, domains, frames):
    """Choose, and switch or go idle."""
    charge(cpu, xen, EVENT_VMM_SCHEDULE, 1)
    chosen = choose(cpu, xen, domains)
    xen.yields = 0
    if chosen == NOBODY:
        xen.idle = 1
    else:
        xen.idle = 0
        give_processor(cpu, ram, xen, domains, frames, chosen)


# -- the host's timer -----------------------------------------------------------------------------------------------------


@kernel
def next_deadline(xen, domains):
    """System time at which the VMM must have control again, NEVER if events alone can bring it."""
    time = NEVER
    for index in range(layout.N_DOMAINS):
        if np.int64(domains[index].exists) != 0 and np.int64(domains[index].shut_down) == 0:
            time = min(time, xen.deadline[index], xen.poll_deadline[index])
    if xen.idle == 0:
        if has_ticker(xen, domains, xen.current):
            time = min(time, xen.next_tick[xen.current])
        if next_after(xen, domains, 0) != NOBODY:
            time = min(time, xen.slice_end)
    return time


@kernel
def program_timer(cpu, xen, domains):
    """Set the host's one-shot timer to the next deadline, if it is not; one whose interrupt waits already is left alone."""
    due = tick_of(xen, next_deadline(xen, domains))
    if cpu.timer != due and not (cpu.timer_pending == 1 and due <= cpu.ticks):
        charge_hardware(cpu, EVENT_SYS_LAPIC_MMIO_ACCESS, 1)
        cpu.timer = due


@kernel
def way_out(cpu, ram, xen, domains, frames, channels, board):
    """What handlers have asked for, then who goes on: RUN the current domain, IDLE, or NOTHING_LEFT."""
    if xen.console_length > 0:
        show_console(xen, board)
    if xen.asked & ASK_BOARD != 0:
        follow_lines(xen, board)
    if all_ended(domains):
        return NOTHING_LEFT
    if xen.asked & ASK_SCHEDULE != 0:
        schedule(cpu, ram, xen, domains, frames)
    if xen.asked & (ASK_SCHEDULE | ASK_TIMER) != 0:
        program_timer(cpu, xen, domains)
    if xen.idle == 1:
        return IDLE
    return RUN


# -- sched_op -------------------------------------------------------------------------------------------------------------


@kernel
def yield_processor(xen):
    """SCHEDOP_yield."""
    xen.yields = 1
    xen.asked |= ASK_SCHEDULE
    return 0


@kernel
def block_until_event(cpu, ram, xen, domains):
    """SCHEDOP_block: unmask events and wait for one, unless one waits already."""
    set_upcall_mask(cpu, ram, domains, xen.current, 0)
    if not upcall_waits(ram, domains, xen.current):
        block(cpu, xen, domains, xen.current)
    return 0


@kernel
def end_domain(cpu, ram, xen, domains, index, reason):
    """A domain shuts down; domain 0 hears of it."""
    shut_down(cpu, xen, domains, index, reason)
    raise_virq(cpu, ram, xen, domains, DOMAIN_0, VIRQ_DOM_EXC)
    if reason == SHUTDOWN_crash:
        xen.crash = CRASH_BY_ITSELF
        xen.asked |= ASK_CRASH
    return 0


@kernel
def note_polled(cpu, ram, xen, domains, first, ports):
    """Note the ports that the current domain polls: 0, 1 if one of them has something pending, or a negated error."""
    domain = domains[xen.current]
    for word in range(N_EVENT_CHANNELS // 32):
        domain.polled[word] = 0
    for number in range(ports):
        port = load_guest(cpu, ram, domain, first + 4 * number, 4)
        if port == FAULTED:
            return -EFAULT
        if port >= N_EVENT_CHANNELS:
            return -EINVAL
        if is_pending(ram, domains, xen.current, port):
            return 1
        domain.polled[port >> 5] = np.int64(domain.polled[port >> 5]) | bit_of(port)
    return 0


@kernel
def poll(cpu, ram, xen, domains, argument):
    """SCHEDOP_poll: wait until one of some ports has something pending, masked or not, or until a system time."""
    index = xen.current
    if load_words(cpu, ram, xen, domains[index], argument, 4) == FAULTED:
        return -EFAULT
    first, ports = xen.words[0], xen.words[1]
    timeout = FAR
    if xen.words[3] < FAR >> 32:
        timeout = xen.words[3] << 32 | xen.words[2]
    if ports > MAX_POLLED:
        return -EINVAL
    outcome = note_polled(cpu, ram, xen, domains, first, ports)
    if outcome < 0:
        return outcome
    if outcome == 0 and upcall_due(ram, domains, index) == 0:
        domains[index].polls = 1
        if timeout != 0:
            xen.poll_deadline[index] = timeout
        block(cpu, xen, domains, index)
    return 0


@kernel
def shut_down_other(cpu, ram, xen, domains, argument):
    """SCHEDOP_remote_shutdown: domain 0 ends another domain."""
    if load_words(cpu, ram, xen, domains[xen.current], argument, 2) == FAULTED:
        return -EFAULT
    if np.int64(domains[xen.current].is_privileged) == 0:
        return -EPERM
    index = find_domain(domains, xen.words[0] & M16)
    if index == NOBODY:
        return -ESRCH
    return end_domain(cpu, ram, xen, domains, index, xen.words[1])


@kernel
def do_sched_op(cpu, ram, xen, domains, frames, channels):
    """sched_op(command, structure)."""
    charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
    command, argument = cpu.gpr[EBX], cpu.gpr[ECX]
    if command == SCHEDOP_block:
        return block_until_event(cpu, ram, xen, domains)
    if command == SCHEDOP_yield:
        return yield_processor(xen)
    if command == SCHEDOP_poll:
        return poll(cpu, ram, xen, domains, argument)
    if command == SCHEDOP_remote_shutdown:
        return shut_down_other(cpu, ram, xen, domains, argument)
    if command != SCHEDOP_shutdown and command != SCHEDOP_shutdown_code:
        return -ENOSYS
    reason = load_guest(cpu, ram, domains[xen.current], argument, 4)
    if reason == FAULTED:
        return -EFAULT
    if command == SCHEDOP_shutdown:
        return end_domain(cpu, ram, xen, domains, xen.current, reason)
    domains[xen.current].shutdown_code = reason  # what it would say if it were ended now
    return 0


@kernel
def do_sched_op_compat(cpu, ram, xen, domains, frames, channels):
    """The older sched_op(command, reason), which yields, blocks and shuts down."""
    charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
    command = cpu.gpr[EBX]
    if command == SCHEDOP_block:
        return block_until_event(cpu, ram, xen, domains)
    if command == SCHEDOP_yield:
        return yield_processor(xen)
    if command == SCHEDOP_shutdown:
        return end_domain(cpu, ram, xen, domains, xen.current, cpu.gpr[ECX])
    return -ENOSYS

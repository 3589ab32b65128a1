"""The states of a virtual processor (running, runnable, blocked, offline), and what time it spends in each."""

import numpy as np

from ...core.jit import inline, kernel
from ...core.layout import NEVER
from .clock import system_time
from .interface import (
    RUNSTATE_blocked,
    RUNSTATE_offline,
    RUNSTATE_runnable,
)
from .records import ASK_SCHEDULE, ASK_TIMER


@inline
def run_state_of(domains, index):
    """The state of a domain's virtual processor."""
    return np.int64(domains[index].run_state)


@kernel
def set_run_state(cpu, xen, domains, index, state):
    """Enter a state, and count the time that the last one took."""
    now = system_time(xen, cpu.ticks)
    xen.state_time[index, run_state_of(domains, index)] += now - xen.state_entry[index]
    xen.state_entry[index] = now
    domains[index].run_state = state


@kernel
def forget_poll(xen, domains, index):
    """A domain does not wait for certain ports any more."""
    domains[index].polls = 0
    xen.poll_deadline[index] = NEVER


@kernel
def wake(cpu, xen, domains, index):
    """Make a blocked domain runnable: it may preempt one that has run on (schedule.py)."""
    if run_state_of(domains, index) != RUNSTATE_blocked:
        return
    forget_poll(xen, domains, index)
    set_run_state(cpu, xen, domains, index, RUNSTATE_runnable)
    domains[index].boosted = 1
    xen.asked |= ASK_SCHEDULE


@kernel
def block(cpu, xen, domains, index):
    """The domain waits until something wakes it."""
    set_run_state(cpu, xen, domains, index, RUNSTATE_blocked)
    domains[index].boosted = 0
    xen.asked |= ASK_SCHEDULE


@kernel
def shut_down(cpu, xen, domains, index, code):
    """The domain has ended, and says why."""
    domains[index].shut_down = 1
    domains[index].shutdown_code = code
    domains[index].boosted = 0
    forget_poll(xen, domains, index)
    xen.deadline[index] = NEVER
    set_run_state(cpu, xen, domains, index, RUNSTATE_offline)
    xen.asked |= ASK_SCHEDULE


@kernel
def listen_to_ticker(cpu, xen, index):
    """A domain will notice its periodic timer from now on; what has gone by unnoticed does not come back."""
    missed = system_time(xen, cpu.ticks) - xen.next_tick[index]
    if xen.period[index] != 0 and missed >= 0:
        xen.next_tick[index] += (missed // xen.period[index] + 1) * xen.period[index]
    xen.asked |= ASK_TIMER

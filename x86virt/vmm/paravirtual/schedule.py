"""The scheduler (stub)."""

import numpy as np

from ...core.jit import kernel
from ...core.layout import NEVER
from .interface import ENOSYS


@kernel
def do_sched_op_compat(cpu, ram, xen, domains, frames, channels):
    """sched_op_compat (stub)."""
    return -ENOSYS

RUN, IDLE, NOTHING_LEFT = range(3)


@kernel
def do_sched_op(cpu, ram, xen, domains, frames, channels):
    """sched_op (stub): every operation shuts the domain down."""
    domain = domains[xen.current]
    domain.shut_down = 1
    domain.shutdown_code = 0
    return 0


@kernel
def way_out(cpu, ram, xen, domains, frames, channels, board):
    """Who runs next (stub)."""
    if np.int64(domains[xen.current].shut_down) != 0:
        return NOTHING_LEFT
    cpu.timer = NEVER
    return RUN

"""Time (stub)."""

from ...core.jit import kernel
from .interface import ENOSYS


@kernel
def do_set_timer_op(cpu, ram, xen, domains, frames, channels):
    """set_timer_op (stub)."""
    return -ENOSYS


@kernel
def do_vcpu_op(cpu, ram, xen, domains, frames, channels):
    """vcpu_op (stub)."""
    return -ENOSYS


@kernel
def host_timer(cpu, ram, xen, domains, frames, channels):
    """The host's timer (stub)."""
    return 0

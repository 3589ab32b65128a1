"""Event channels (stub)."""

from ...core.jit import kernel
from .interface import ENOSYS


@kernel
def do_event_channel_op(cpu, ram, xen, domains, frames, channels):
    """event_channel_op (stub)."""
    return -ENOSYS


@kernel
def do_event_channel_op_compat(cpu, ram, xen, domains, frames, channels):
    """event_channel_op_compat (stub)."""
    return -ENOSYS


@kernel
def upcall_due(ram, domains, index):
    """1 if pending events are to be announced to a domain (stub)."""
    return 0

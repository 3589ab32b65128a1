"""Lists of hypercalls (stub)."""

from ...core.jit import kernel
from .interface import ENOSYS


@kernel
def begin_calls(cpu, ram, xen, domains, frames, channels):
    """The number of the first call of the list, its arguments in place; -1: there is none (stub)."""
    return -1


@kernel
def next_call(cpu, ram, xen, domains, frames, channels):
    """The same of the next call (stub)."""
    return -1


@kernel
def answer_call(cpu, ram, xen, domains, frames, channels, result):
    """Store a call's result; 0: the list is not gone on with (stub)."""
    return 0


@kernel
def end_calls(cpu, ram, xen, domains, frames, channels):
    """The result of the whole list, the caller's registers as they were (stub)."""
    return -ENOSYS

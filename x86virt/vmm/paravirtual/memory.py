"""memory_op and vm_assist (stub)."""

from ...core.jit import kernel
from .interface import ENOSYS


@kernel
def do_memory_op(cpu, ram, xen, domains, frames, channels):
    """memory_op (stub)."""
    return -ENOSYS


@kernel
def do_vm_assist(cpu, ram, xen, domains, frames, channels):
    """vm_assist (stub)."""
    return -ENOSYS

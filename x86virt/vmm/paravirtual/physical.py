"""Physical interrupts and devices (stub)."""

from ...core.jit import kernel
from .interface import ENOSYS


@kernel
def do_physdev_op(cpu, ram, xen, domains, frames, channels):
    """physdev_op (stub)."""
    return -ENOSYS


@kernel
def do_physdev_op_compat(cpu, ram, xen, domains, frames, channels):
    """physdev_op_compat (stub)."""
    return -ENOSYS


@kernel
def physical_interrupt(cpu, ram, xen, domains, frames, channels, board, irq):
    """An interrupt of a device (stub)."""
    return 0

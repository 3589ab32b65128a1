"""Descriptor tables of a domain (stub)."""

from ...core.jit import kernel
from .interface import ENOSYS


@kernel
def do_set_gdt(cpu, ram, xen, domains, frames, channels):
    """set_gdt (stub)."""
    return -ENOSYS


@kernel
def do_update_descriptor(cpu, ram, xen, domains, frames, channels):
    """update_descriptor (stub)."""
    return -ENOSYS

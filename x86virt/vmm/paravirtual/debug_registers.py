"""Debug registers of a domain (stub)."""

from ...core.jit import kernel
from .interface import ENOSYS


@kernel
def do_get_debugreg(cpu, ram, xen, domains, frames, channels):
    """get_debugreg (stub)."""
    return -ENOSYS


@kernel
def do_set_debugreg(cpu, ram, xen, domains, frames, channels):
    """set_debugreg (stub)."""
    return -ENOSYS

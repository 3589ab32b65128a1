"""Hypercalls that do little (stub)."""

from ...core.jit import kernel
from .interface import ENOSYS
from .records import LEFT_TO_PYTHON


@kernel
def do_xen_version(cpu, ram, xen, domains, frames, channels):
    """xen_version (stub)."""
    return -ENOSYS


@kernel
def do_console_io(cpu, ram, xen, domains, frames, channels):
    """console_io (stub)."""
    return LEFT_TO_PYTHON

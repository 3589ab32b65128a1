"""Grants (stub)."""

from ...core.jit import kernel
from .interface import ENOSYS


@kernel
def do_grant_table_op(cpu, ram, xen, domains, frames, channels):
    """grant_table_op (stub)."""
    return -ENOSYS

"""Page tables (stub)."""

import numpy as np

from ...core.charge import charge
from ...core.jit import kernel
from ...core.layout import OK
from ...core.tlb import flush_tlb
from ...isa.events import EVENT_SYS_MOV_CR3_WRITE
from .interface import ENOSYS


@kernel
def do_mmu_update(cpu, ram, xen, domains, frames, channels):
    """mmu_update (stub)."""
    return -ENOSYS


@kernel
def do_update_va_mapping(cpu, ram, xen, domains, frames, channels):
    """update_va_mapping (stub)."""
    return -ENOSYS


@kernel
def do_update_va_mapping_otherdomain(cpu, ram, xen, domains, frames, channels):
    """update_va_mapping_otherdomain (stub)."""
    return -ENOSYS


@kernel
def do_mmuext_op(cpu, ram, xen, domains, frames, channels):
    """mmuext_op (stub)."""
    return -ENOSYS


@kernel
def load_base(cpu, ram, xen, domains):
    """Load CR3 with the domain's base (stub)."""
    charge(cpu, EVENT_SYS_MOV_CR3_WRITE, 1)
    cpu.cr3 = np.int64(domains[xen.current].base_frame) << 12
    flush_tlb(cpu, 1)
    xen.flush_clock += 1
    return OK

"""The domain switch: all that the processor holds of one domain is put away, and that of another taken up.

The frame of the last trap, data segments included, is in the domain's record whenever the VMM has control, and the x87 state has
an owner of its own (x87_owner.py). An address space's own tables hold the VMM's entries, so that the load of CR3 brings the
domain's own GDT and LDT too.
"""

import numpy as np

from ...core.charge import charge as charge_processor
from ...core.jit import kernel, store_16
from ...core.page_directory_pointers import set_large_page_size
from ...core.tlb import flush_tlb
from ...isa.events import (
    EVENT_SYS_MOV_CR0_WRITE,
    EVENT_SYS_MOV_CR4_WRITE,
    EVENT_VMM_DOMAIN_SWITCH,
    EVENT_XEN_DOMAIN_SWITCH,
    MODE_DOMAIN_0,
    MODE_GUEST_KERNEL,
    MODE_GUEST_USER,
)
from ...isa.registers import CR4_PAE
from ..layout import TSS_IO_MAP
from . import layout
from .charge import charge, count
from .debug_registers import load_debug_registers
from .frame_counts import load_base
from .local_table import load_local_table
from .owners import follow_domain
from .trap_table import install_fast_trap, load_kernel_stack
from .x87_owner import follow_task_switched

FIRST_GUEST = 1


# -- registers ------------------------------------------------------------------------------------------------------------


@kernel
def put_registers_away(cpu, domain):
    """Keep what a trap leaves in the processor, and take_frame has not kept: the general registers."""
    for number in range(8):
        domain.gpr[number] = cpu.gpr[number]


@kernel
def take_registers_up(cpu, domain):
    """The other way round. The way back to the domain loads its data segments."""
    for number in range(8):
        cpu.gpr[number] = np.int64(domain.gpr[number])


# -- what is written for whoever runs -------------------------------------------------------------------------------------


@kernel
def set_io_map(ram, domains, index):
    """The I/O permission map in the TSS: it is domain 0's, nobody else reaches a port of the machine."""
    offset = layout.CLOSED_IO_MAP
    if np.int64(domains[index].is_privileged) != 0:
        offset = layout.IO_MAP
    store_16(ram, layout.TSS + TSS_IO_MAP, offset)


@kernel
def set_modes(cpu, index):
    """The modes of the ledger that the rings of a domain count to."""
    kernel_mode, user_mode = MODE_GUEST_KERNEL, MODE_GUEST_USER
    if index < FIRST_GUEST:
        kernel_mode = user_mode = MODE_DOMAIN_0
    cpu.mode_table[1] = kernel_mode
    cpu.mode_table[2] = kernel_mode
    cpu.mode_table[3] = user_mode


@kernel
def take_address_space(cpu, ram, xen, domains):
    """Load the current domain's base. Where its tables have the other format, paging is off while CR4.PAE changes."""
    if (cpu.cr4 & CR4_PAE != 0) != (np.int64(domains[xen.current].is_pae) != 0):
        charge_processor(cpu, EVENT_SYS_MOV_CR0_WRITE, 2)
        charge_processor(cpu, EVENT_SYS_MOV_CR4_WRITE, 1)
        cpu.cr4 ^= CR4_PAE
        flush_tlb(cpu, 0)
        set_large_page_size(cpu)
    load_base(cpu, ram, xen, domains)


@kernel
def take_up(cpu, ram, xen, domains, frames):
    """Let the processor hold the current domain, whose record has all of it."""
    index = xen.current
    load_kernel_stack(ram, domains, index)
    set_io_map(ram, domains, index)
    install_fast_trap(ram, domains, index)
    set_modes(cpu, index)
    take_address_space(cpu, ram, xen, domains)
    follow_domain(cpu, ram, xen, domains, frames)
    load_local_table(cpu, ram, domains, index)
    load_debug_registers(cpu, domains, index)
    follow_task_switched(cpu, xen, domains)
    take_registers_up(cpu, domains[index])


@kernel
def switch_to(cpu, ram, xen, domains, frames, index):
    """Put the current domain away, and take another up."""
    charge(cpu, xen, EVENT_VMM_DOMAIN_SWITCH, 1)
    count(cpu, EVENT_XEN_DOMAIN_SWITCH, 1)
    put_registers_away(cpu, domains[xen.current])
    xen.current = index
    take_up(cpu, ram, xen, domains, frames)

"""Exceptions that a domain raised, and INT n: most are the domain's own, and are delivered to its kernel.

What the VMM does itself: faults of page tables that are its to serve (assist.page_fault), the LDT's pages, privileged
instructions (privileged.py), forced CPUID, the x87 state that another domain still has in the processor. No gate but those of
INT3, INTO, hypercalls and INT 0x80 is open to a domain: INT n raises #GP with the vector, and the domain's trap table decides.
"""

import numpy as np

from ...core.jit import kernel
from ...isa.events import EVENT_VMM_TRAP_DISPATCH
from ...isa.registers import ERROR_EXT, ERROR_IDT, PF_RSVD, PF_U
from ...isa.vectors import DB, DF, GP, NM, PF, UD
from .assist import page_fault
from .bounce import KERNEL_RING, bounce, crash, failsafe, guest_page_fault, is_kernel
from .charge import charge
from .crashes import CRASH_DELIVERY, CRASH_DOUBLE_FAULT
from .exits import DONE
from .forced_cpuid import forced_cpuid
from .frames import has_error_code
from .interface import TI_DPL_MASK
from .layout import PER_DOMAIN_GDT, PER_DOMAIN_LDT
from .local_table import is_in_ldt, map_faulting_ldt_page
from .privileged import perform_privileged
from .trap_table import set_task_switched
from .x87_owner import take_fpu

M32 = 0xFFFFFFFF
INT_BYTES = 2
USER_RING = 3


@kernel
def may_interrupt(domain, vector):
    """Whether the domain may use INT n where it is: the trap table's DPL is no less than its ring, 1 or 3."""
    ring = USER_RING
    if is_kernel(domain):
        ring = KERNEL_RING
    return np.int64(domain.trap_flags[vector]) & TI_DPL_MASK >= ring


@kernel
def on_general_protection(cpu, ram, xen, domains, frames, channels, board, error):
    """#GP: INT n, a privileged instruction, or the domain's own."""
    domain = domains[xen.current]
    if error & ERROR_EXT != 0:
        crash(xen, CRASH_DELIVERY)
        return
    vector = (error >> 3) & 0xFF
    if error & ERROR_IDT != 0 and may_interrupt(domain, vector):
        domain.eip = (np.int64(domain.eip) + INT_BYTES) & M32
        cpu.retired += 1
        bounce(cpu, ram, xen, domains, frames, channels, vector, 0, 0)
        return
    if error != 0 or perform_privileged(cpu, ram, xen, domains, frames, channels, board) == 0:
        bounce(cpu, ram, xen, domains, frames, channels, GP, error, 1)


@kernel
def on_page_fault(cpu, ram, xen, domains, frames, channels, board):
    """#PF: of a table that the VMM serves, of the domain's descriptor tables, or the domain's own."""
    gla, error = cpu.cr2, xen.error
    if page_fault(cpu, ram, xen, domains, frames, error) == 1:
        return
    if error & (PF_U | PF_RSVD) == 0:
        if PER_DOMAIN_GDT <= gla < PER_DOMAIN_LDT:  # a selector beyond the frames of its GDT
            on_general_protection(cpu, ram, xen, domains, frames, channels, board, (gla - PER_DOMAIN_GDT) & 0xFFF8)
            return
        if is_in_ldt(gla):
            if map_faulting_ldt_page(cpu, ram, xen, domains, frames) == 1:
                charge(cpu, xen, EVENT_VMM_TRAP_DISPATCH, 1)
                return
            gla = (np.int64(domains[xen.current].ldt_base) + gla - PER_DOMAIN_LDT) & M32
    guest_page_fault(cpu, ram, xen, domains, frames, channels, gla, error)


@kernel
def on_device_not_available(cpu, ram, xen, domains, frames, channels):
    """#NM: the domain's x87 state is in the processor from now on; if it asked for CR0.TS itself, the exception is its own."""
    take_fpu(cpu, xen, domains)
    if np.int64(domains[xen.current].task_switched) == 0:
        charge(cpu, xen, EVENT_VMM_TRAP_DISPATCH, 1)
        return
    bounce(cpu, ram, xen, domains, frames, channels, NM, 0, 0)
    set_task_switched(cpu, xen, domains, 0)


@kernel
def on_failed_return(cpu, ram, xen, domains, frames, channels, vector):
    """The VMM's IRETD faulted: a page of the LDT was missing, or the frame is none that can be returned to."""
    if vector == PF and map_faulting_ldt_page(cpu, ram, xen, domains, frames) == 1:
        return
    failsafe(cpu, ram, xen, domains, frames, channels)


@kernel
def handle_trap(cpu, ram, xen, domains, frames, channels, board, vector):
    """An exception, or INT3 or INTO. DONE: what must follow is in xen.asked."""
    if xen.from_guest == 0:
        on_failed_return(cpu, ram, xen, domains, frames, channels, vector)
    elif vector == PF:
        on_page_fault(cpu, ram, xen, domains, frames, channels, board)
    elif vector == GP:
        on_general_protection(cpu, ram, xen, domains, frames, channels, board, xen.error)
    elif vector == NM:
        on_device_not_available(cpu, ram, xen, domains, frames, channels)
    elif vector == DF:
        crash(xen, CRASH_DOUBLE_FAULT)
    elif vector != UD or forced_cpuid(cpu, ram, xen, domains, frames, channels) == 0:
        if vector == DB:
            domains[xen.current].dr[6] = cpu.dr[6]
        bounce(cpu, ram, xen, domains, frames, channels, vector, xen.error, has_error_code(vector))
    return DONE

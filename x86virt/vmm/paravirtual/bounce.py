"""Frames on the stack of a domain's kernel: exceptions, events, and the failsafe callback.

An exception or event is delivered as a processor would do it through a trap gate to ring 1: the return frame goes on the stack
that is in use, or, from rings 2 and 3, on that which stack_switch named. Two things differ from the hardware's frame. Beside CS,
in bits 23:16 of its doubleword, stands the upcall mask as it was; and IF in the image of EFLAGS says the same to an IRET
hypercall. The failsafe callback gets DS, ES, FS and GS besides: they could not be loaded, or the frame could not be returned to.

The stack is written through GS, as ordinary accesses at CPL 0 through the guest's own descriptor, with all its checks.
A stack that cannot be written, or a handler with a null code segment, costs the domain its life.
"""

import numpy as np

from ...core.breakpoints import DR6_BS
from ...core.debug_registers import DR6_FIXED
from ...core.jit import inline, kernel, load_8
from ...core.layout import OK
from ...core.memory import write_segment
from ...core.physical import write_physical
from ...isa.events import EVENT_VMM_BOUNCE, EVENT_VMM_UPCALL
from ...isa.registers import EFLAGS_IF, EFLAGS_NT, EFLAGS_RF, EFLAGS_TF, EFLAGS_VM, GS, PF_U
from ...isa.vectors import DB, PF
from .charge import charge
from .crashes import CRASH_FAILSAFE, CRASH_NO_CALLBACK, CRASH_NO_HANDLER, CRASH_STACK
from .interface import TI_MASK_EVENTS, VCPU_CR2, VCPU_UPCALL_MASK
from .local_table import load_data_selector
from .records import ASK_CRASH

M32 = 0xFFFFFFFF
MASKS_EVENTS, WITH_ERROR_CODE, FAILSAFE = 1, 2, 4  # what a frame is to be
NULL_SELECTORS = 3
FAILSAFE_ORDER = (3, 2, 0, 1)  # GS, FS, ES, DS of domain.selectors: DS comes to stand lowest
KERNEL_RING = 1
OUTER_RINGS = 2  # the bit of an RPL that rings 2 and 3 have


@kernel
def crash(xen, why):
    """The domain cannot go on."""
    xen.crash = why
    xen.asked |= ASK_CRASH


@kernel
def push(cpu, ram, domain, value):
    """Push a doubleword on the stack that is in GS; False if it cannot be written. The domain's ESP is moved."""
    domain.esp = (np.int64(domain.esp) - 4) & M32
    return write_segment(cpu, ram, GS, np.int64(domain.esp), 4, value) == OK


@kernel
def return_flags(eflags, mask):
    """The image of EFLAGS that is pushed: IF says whether events were let in."""
    image = eflags & ~EFLAGS_IF
    if mask == 0:
        image |= EFLAGS_IF
    return image


@kernel
def push_frame(cpu, ram, domain, kind, error):
    """Push the return frame on the stack that is in GS; False if some of it cannot be written."""
    ss, esp, outer = np.int64(domain.ss), np.int64(domain.esp), np.int64(domain.cs) & OUTER_RINGS != 0
    written = True
    if outer:
        domain.esp = domain.kernel_esp
        written = push(cpu, ram, domain, ss) and push(cpu, ram, domain, esp)
    # The mask as it was, and as the handler is to find it.
    place = np.int64(domain.vcpu_info) + VCPU_UPCALL_MASK
    mask = load_8(ram, place)
    if kind & MASKS_EVENTS != 0:
        write_physical(cpu, ram, place, 1, mask | 1)
    written = written and push(cpu, ram, domain, return_flags(np.int64(domain.eflags), mask))
    written = written and push(cpu, ram, domain, np.int64(domain.cs) | mask << 16)
    written = written and push(cpu, ram, domain, np.int64(domain.eip))
    if kind & WITH_ERROR_CODE != 0:
        written = written and push(cpu, ram, domain, error)
    if kind & FAILSAFE != 0:
        for number in range(4):
            written = written and push(cpu, ram, domain, np.int64(domain.selectors[FAILSAFE_ORDER[number]]))
    return written


@kernel
def enter(cpu, ram, xen, domains, frames, channels, cs, eip, kind, error):
    """Let the domain go on at a handler of its kernel's, with a return frame on its stack: True, or it crashes."""
    domain = domains[xen.current]
    # 1. The stack: that of the kernel, unless it runs already.
    ss = np.int64(domain.ss)
    if np.int64(domain.cs) & OUTER_RINGS != 0:
        ss = np.int64(domain.kernel_ss)
    if not load_data_selector(cpu, ram, xen, domains, frames, channels, GS, ss):
        crash(xen, CRASH_STACK)
        return False
    # 2. The frame. These are no accesses that the guest's data breakpoints are to see.
    hits = cpu.debug_hits
    written = push_frame(cpu, ram, domain, kind, error)
    cpu.debug_hits = hits
    if not written:
        crash(xen, CRASH_STACK)
        return False
    # 3. The handler. IA-32 volume 3, section 6.12.1.2: these flags are cleared on the way.
    if cs & ~NULL_SELECTORS == 0:
        return False
    domain.ss = ss
    domain.cs = cs
    domain.eip = eip
    domain.eflags = np.int64(domain.eflags) & ~(EFLAGS_VM | EFLAGS_RF | EFLAGS_NT | EFLAGS_TF)
    return True


@kernel
def bounce(cpu, ram, xen, domains, frames, channels, vector, error, with_error):
    """Deliver an exception, or INT n, to the handler that the domain's trap table names."""
    charge(cpu, xen, EVENT_VMM_BOUNCE, 1)
    domain = domains[xen.current]
    kind = WITH_ERROR_CODE * with_error
    if np.int64(domain.trap_flags[vector]) & TI_MASK_EVENTS != 0:
        kind |= MASKS_EVENTS
    cs, eip = np.int64(domain.trap_cs[vector]), np.int64(domain.trap_eip[vector])
    if not enter(cpu, ram, xen, domains, frames, channels, cs, eip, kind, error) and xen.asked & ASK_CRASH == 0:
        crash(xen, CRASH_NO_HANDLER)


@kernel
def guest_page_fault(cpu, ram, xen, domains, frames, channels, gla, error):
    """A page fault that is the domain's: CR2 goes where it shares its state with the VMM, the U bit is that of its rings."""
    domain = domains[xen.current]
    domain.cr2 = gla
    write_physical(cpu, ram, np.int64(domain.vcpu_info) + VCPU_CR2, 4, gla)
    error &= ~PF_U
    if not is_kernel(domain):
        error |= PF_U
    bounce(cpu, ram, xen, domains, frames, channels, PF, error, 1)


@inline
def is_kernel(domain):
    """Whether the domain's kernel runs, in ring 1."""
    return np.int64(domain.cs) & 3 == KERNEL_RING


@kernel
def complete(cpu, ram, xen, domains, frames, channels, breakpoints):
    """An instruction was performed for the domain: EIP moves on, and TF and breakpoints on ports have their traps."""
    domain = domains[xen.current]
    domain.eip = xen.next_eip & M32
    eflags = np.int64(domain.eflags) & ~EFLAGS_RF
    domain.eflags = eflags
    cpu.retired += 1
    if eflags & EFLAGS_TF != 0:
        breakpoints |= DR6_BS
    if breakpoints != 0:
        domain.dr[6] = np.int64(domain.dr[6]) | DR6_FIXED | breakpoints
        bounce(cpu, ram, xen, domains, frames, channels, DB, 0, 0)


@kernel
def deliver_upcall(cpu, ram, xen, domains, frames, channels):
    """Enter the domain's callback for events, which it finds masked."""
    charge(cpu, xen, EVENT_VMM_UPCALL, 1)
    domain = domains[xen.current]
    cs, eip = np.int64(domain.event_cs), np.int64(domain.event_eip)
    if not enter(cpu, ram, xen, domains, frames, channels, cs, eip, MASKS_EVENTS, 0) and xen.asked & ASK_CRASH == 0:
        crash(xen, CRASH_NO_CALLBACK)


@kernel
def failsafe(cpu, ram, xen, domains, frames, channels):
    """The domain cannot be returned to as it is: its failsafe callback sees why, with null selectors in DS to GS."""
    charge(cpu, xen, EVENT_VMM_BOUNCE, 1)
    domain = domains[xen.current]
    cs, eip = np.int64(domain.failsafe_cs), np.int64(domain.failsafe_eip)
    if np.int64(domain.cs) == cs and np.int64(domain.eip) == eip:  # it is the callback itself that cannot be entered
        crash(xen, CRASH_FAILSAFE)
        return
    kind = FAILSAFE
    if np.int64(domain.failsafe_masks) != 0:
        kind |= MASKS_EVENTS
    if not enter(cpu, ram, xen, domains, frames, channels, cs, eip, kind, 0):
        if xen.asked & ASK_CRASH == 0:
            crash(xen, CRASH_FAILSAFE)
        return
    for number in range(4):
        domain.selectors[number] = 0

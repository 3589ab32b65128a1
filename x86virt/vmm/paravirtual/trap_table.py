"""Where a domain wants to be entered: its virtual trap table, callbacks and kernel stack; and the iret hypercall.

Selectors of code and stacks get an RPL of 1 where they have 0. The entries are used as they are found at the next trap, not
checked before.
"""

import numpy as np

from ...core.jit import kernel, store_32
from ...core.physical import write_physical
from ...isa.events import (
    EVENT_VMM_FPU_TASKSWITCH,
    EVENT_VMM_HYPERCALL_IRET,
    EVENT_VMM_SET_TRAP_TABLE,
    EVENT_VMM_SMALL_HYPERCALL,
    EVENT_VMM_STACK_SWITCH,
)
from ...isa.registers import EBX, ECX, EDX, EFLAGS_FIXED, EFLAGS_IF, EFLAGS_IOPL, EFLAGS_VM, ESI
from ...isa.vectors import NMI
from ..layout import ENTRIES, ENTRY_BYTES, IDT, VMM_BASE, VMM_CODE_SELECTOR
from .bounce import OUTER_RINGS, crash
from .charge import charge
from .crashes import CRASH_IRET_FRAME
from .descriptors import is_guest_gate_selector, of_guest_kernel
from .guest_access import FAULTED, is_within, load_guest, load_words
from .interface import (
    EFAULT,
    EINVAL,
    ENOSYS,
    FLAT_RING1_CS,
    TI_DPL_MASK,
    TI_MASK_EVENTS,
    VCPU_UPCALL_MASK,
    CALLBACKF_mask_events,
    CALLBACKOP_register,
    CALLBACKOP_unregister,
    CALLBACKTYPE_event,
    CALLBACKTYPE_failsafe,
    CALLBACKTYPE_nmi,
    XENNMI_register_callback,
    XENNMI_unregister_callback,
)
from .layout import TSS
from .x87_owner import follow_task_switched

M32 = 0xFFFFFFFF
N_VECTORS = 256
MAX_TRAPS = 16 * N_VECTORS  # of one table
TRAP_BYTES = 8  # vector, flags, CS (16 bits), address
FAST_TRAP = 0x80
TSS_ESP1, TSS_SS1 = 12, 16
TRAP_GATE, INTERRUPT_GATE = 0x8F00, 0x8E00
IRET_BYTES = 40  # at most, of the frame that the iret hypercall finds


@kernel
def write_gate(ram, vector, selector, target, access):
    """A gate of the processor's IDT."""
    store_32(ram, IDT + 8 * vector, selector << 16 | (target & 0xFFFF))
    store_32(ram, IDT + 8 * vector + 4, (target & 0xFFFF0000) | access)


@kernel
def install_fast_trap(ram, domains, index):
    """INT 0x80: straight to the domain's kernel, if it wants no events masked on the way; else by way of the VMM.

    The gate is a trap gate with the DPL that the trap table says, which the processor goes through to ring 1.
    """
    domain = domains[index]
    flags, selector = np.int64(domain.trap_flags[FAST_TRAP]), np.int64(domain.trap_cs[FAST_TRAP])
    target = np.int64(domain.trap_eip[FAST_TRAP])
    if target != 0 and flags & TI_MASK_EVENTS == 0 and is_guest_gate_selector(selector):
        write_gate(ram, FAST_TRAP, selector, target, TRAP_GATE | (flags & TI_DPL_MASK) << 13)
    else:
        own = VMM_BASE + ENTRIES + FAST_TRAP * ENTRY_BYTES
        write_gate(ram, FAST_TRAP, VMM_CODE_SELECTOR, own, INTERRUPT_GATE)


@kernel
def set_trap(domain, vector, flags, selector, address):
    """An entry of the trap table."""
    domain.trap_flags[vector] = flags
    domain.trap_cs[vector] = selector
    domain.trap_eip[vector] = address


@kernel
def load_traps(cpu, ram, xen, domain, gla):
    """Take entries from a linear address on, up to one whose address is 0: how many there were, or an error."""
    for number in range(MAX_TRAPS):
        if load_words(cpu, ram, xen, domain, gla + TRAP_BYTES * number, 2) == FAULTED:
            return -EFAULT
        address = xen.words[1]
        if address == 0:
            return number
        selector = of_guest_kernel(xen.words[0] >> 16)
        set_trap(domain, xen.words[0] & 0xFF, (xen.words[0] >> 8) & 0xFF, selector, address)
    return -EINVAL


@kernel
def do_set_trap_table(cpu, ram, xen, domains, frames, channels):
    """set_trap_table(table): its entries replace those of the same vectors; a null pointer clears all."""
    domain = domains[xen.current]
    gla = cpu.gpr[EBX]
    result = 0
    if gla == 0:
        for vector in range(N_VECTORS):
            set_trap(domain, vector, 0, 0, 0)
    else:
        result = load_traps(cpu, ram, xen, domain, gla)
    charge(cpu, xen, EVENT_VMM_SET_TRAP_TABLE, max(result, 0))
    install_fast_trap(ram, domains, xen.current)
    return min(result, 0)


@kernel
def do_stack_switch(cpu, ram, xen, domains, frames, channels):
    """stack_switch(ss, esp): the stack of the kernel for what comes from rings 2 and 3, by the processor too."""
    charge(cpu, xen, EVENT_VMM_STACK_SWITCH, 1)
    domain = domains[xen.current]
    domain.kernel_ss = of_guest_kernel(cpu.gpr[EBX])
    domain.kernel_esp = cpu.gpr[ECX]
    load_kernel_stack(ram, domains, xen.current)
    return 0


@kernel
def load_kernel_stack(ram, domains, index):
    """Tell the processor of a domain's kernel stack: SS1 and ESP1 in its TSS."""
    store_32(ram, TSS + TSS_ESP1, np.int64(domains[index].kernel_esp))
    store_32(ram, TSS + TSS_SS1, np.int64(domains[index].kernel_ss))


# -- callbacks ----------------------------------------------------------------------------------------------------------


@kernel
def set_event_callback(domain, selector, address):
    """Where events are delivered."""
    domain.event_cs = of_guest_kernel(selector)
    domain.event_eip = address


@kernel
def set_failsafe_callback(domain, selector, address, masks):
    """Where the domain goes on that could not be returned to."""
    domain.failsafe_cs = of_guest_kernel(selector)
    domain.failsafe_eip = address
    domain.failsafe_masks = masks


@kernel
def do_set_callbacks(cpu, ram, xen, domains, frames, channels):
    """set_callbacks(event selector, event address, failsafe selector, failsafe address)."""
    charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
    domain = domains[xen.current]
    set_event_callback(domain, cpu.gpr[EBX], cpu.gpr[ECX])
    set_failsafe_callback(domain, cpu.gpr[EDX], cpu.gpr[ESI], 0)
    return 0


@kernel
def register_callback(cpu, ram, xen, domain, gla):
    """CALLBACKOP_register: type and flags (16 bits each), CS, EIP."""
    if load_words(cpu, ram, xen, domain, gla, 3) == FAULTED:
        return -EFAULT
    kind, flags = xen.words[0] & 0xFFFF, xen.words[0] >> 16
    selector, address = xen.words[1], xen.words[2]
    if kind == CALLBACKTYPE_event:
        set_event_callback(domain, selector, address)
    elif kind == CALLBACKTYPE_failsafe:
        set_failsafe_callback(domain, selector, address, flags & CALLBACKF_mask_events)
    elif kind == CALLBACKTYPE_nmi:
        set_trap(domain, NMI, TI_MASK_EVENTS, FLAT_RING1_CS, address)
    else:
        return -ENOSYS
    return 0


@kernel
def unregister_callback(cpu, ram, domain, gla):
    """CALLBACKOP_unregister: type (16 bits). Only that of NMIs can be taken back."""
    kind = load_guest(cpu, ram, domain, gla, 4)
    if kind == FAULTED:
        return -EFAULT
    kind &= 0xFFFF
    if kind == CALLBACKTYPE_event or kind == CALLBACKTYPE_failsafe:
        return -EINVAL
    if kind != CALLBACKTYPE_nmi:
        return -ENOSYS
    set_trap(domain, NMI, 0, 0, 0)
    return 0


@kernel
def do_callback_op(cpu, ram, xen, domains, frames, channels):
    """callback_op(operation, argument)."""
    charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
    domain = domains[xen.current]
    if cpu.gpr[EBX] == CALLBACKOP_register:
        return register_callback(cpu, ram, xen, domain, cpu.gpr[ECX])
    if cpu.gpr[EBX] == CALLBACKOP_unregister:
        return unregister_callback(cpu, ram, domain, cpu.gpr[ECX])
    return -ENOSYS


@kernel
def do_nmi_op(cpu, ram, xen, domains, frames, channels):
    """nmi_op(operation, argument), whose first word is the handler's address."""
    charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
    domain = domains[xen.current]
    if cpu.gpr[EBX] == XENNMI_register_callback:
        address = load_guest(cpu, ram, domain, cpu.gpr[ECX], 4)
        if address == FAULTED:
            return -EFAULT
        set_trap(domain, NMI, TI_MASK_EVENTS, FLAT_RING1_CS, address)
        return 0
    if cpu.gpr[EBX] == XENNMI_unregister_callback:
        set_trap(domain, NMI, 0, 0, 0)
        return 0
    return -ENOSYS


# -- iret ---------------------------------------------------------------------------------------------------------------


@kernel
def do_iret(cpu, ram, xen, domains, frames, channels):
    """iret: EAX, EIP, CS, EFLAGS, and for an outer ring ESP and SS, from the stack. Returns EAX.

    IF in the image of EFLAGS is the opposite of the upcall mask. A frame that cannot be had costs the domain its life.
    """
    charge(cpu, xen, EVENT_VMM_HYPERCALL_IRET, 1)
    domain = domains[xen.current]
    stack = np.int64(domain.esp)
    readable = is_within(domain, stack, IRET_BYTES) and load_words(cpu, ram, xen, domain, stack, 4) != FAULTED
    if not readable:
        crash(xen, CRASH_IRET_FRAME)
        return 0
    result, eip, cs, eflags = xen.words[0], xen.words[1], xen.words[2] & 0xFFFF, xen.words[3]
    if cs & 3 == 0 or eflags & EFLAGS_VM != 0:  # ring 0, or virtual-8086 mode, which these domains do not have
        crash(xen, CRASH_IRET_FRAME)
        return 0
    if cs & OUTER_RINGS != 0:
        if load_words(cpu, ram, xen, domain, stack + 16, 2) == FAULTED:
            crash(xen, CRASH_IRET_FRAME)
            return 0
        domain.esp = xen.words[0]
        domain.ss = xen.words[1] & 0xFFFF
    else:
        domain.esp = stack + 16
    domain.eip = eip
    domain.cs = cs
    domain.eflags = (eflags & ~EFLAGS_IOPL) | EFLAGS_IF | EFLAGS_FIXED
    write_physical(cpu, ram, np.int64(domain.vcpu_info) + VCPU_UPCALL_MASK, 1, int(eflags & EFLAGS_IF == 0))
    return result


# -- CR0.TS -------------------------------------------------------------------------------------------------------------


@kernel
def set_task_switched(cpu, xen, domains, flag):
    """Set CR0.TS as the guest has it."""
    domains[xen.current].task_switched = flag
    follow_task_switched(cpu, xen, domains)


@kernel
def do_fpu_taskswitch(cpu, ram, xen, domains, frames, channels):
    """fpu_taskswitch(set)."""
    charge(cpu, xen, EVENT_VMM_FPU_TASKSWITCH, 1)
    set_task_switched(cpu, xen, domains, int(cpu.gpr[EBX] != 0))
    return 0


@kernel
def do_set_segment_base(cpu, ram, xen, domains, frames, channels):
    """set_segment_base is for 64-bit guests."""
    charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
    return -ENOSYS

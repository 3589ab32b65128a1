"""Hypercalls by number: from EAX to the handler, and its result to EAX.

Each handler takes the arguments where int $0x82 left them, in EBX, ECX, EDX, ESI and EDI, works on the record of the domain
that runs, domains[xen.current], and returns what the guest finds in EAX: 0 or more, or a negated error. What must follow it
asks for in xen.asked.
"""

from ...core.jit import kernel
from ...isa.events import EVENT_VMM_HYPERCALL, EVENT_XEN_HYPERCALL_MISSING, EVENT_XEN_HYPERCALL_REFUSED
from ...isa.registers import EAX
from .assist import do_vm_assist
from .charge import charge, count
from .debug_registers import do_get_debugreg, do_set_debugreg
from .descriptor_tables import do_set_gdt, do_update_descriptor
from .events import do_event_channel_op, do_event_channel_op_compat
from .extended import do_mmuext_op
from .grants import do_grant_table_op
from .interface import ENOSYS, N_HYPERCALLS, NUMBER_OF
from .memory_op import do_memory_op
from .mmu import do_mmu_update, do_update_va_mapping, do_update_va_mapping_otherdomain
from .multicall import answer_call, begin_calls, end_calls, next_call
from .physical import do_physdev_op, do_physdev_op_compat
from .schedule import do_sched_op, do_sched_op_compat
from .small import do_console_io, do_privileged, do_xen_version
from .time import do_set_timer_op, do_vcpu_op
from .trap_table import (
    do_callback_op,
    do_fpu_taskswitch,
    do_iret,
    do_nmi_op,
    do_set_callbacks,
    do_set_segment_base,
    do_set_trap_table,
    do_stack_switch,
)

M32 = 0xFFFFFFFF
MISSING = -ENOSYS

SET_TRAP_TABLE, MMU_UPDATE, SET_GDT, STACK_SWITCH, SET_CALLBACKS, FPU_TASKSWITCH, SCHED_OP_COMPAT = (
    NUMBER_OF[name]
    for name in (
        "set_trap_table",
        "mmu_update",
        "set_gdt",
        "stack_switch",
        "set_callbacks",
        "fpu_taskswitch",
        "sched_op_compat",
    )
)
SET_DEBUGREG, GET_DEBUGREG, UPDATE_DESCRIPTOR, MEMORY_OP, MULTICALL, UPDATE_VA_MAPPING, SET_TIMER_OP = (
    NUMBER_OF[name]
    for name in (
        "set_debugreg", "get_debugreg", "update_descriptor", "memory_op", "multicall", "update_va_mapping", "set_timer_op",
    )
)  # fmt: skip
EVENT_CHANNEL_OP_COMPAT, XEN_VERSION, CONSOLE_IO, PHYSDEV_OP_COMPAT, GRANT_TABLE_OP, VM_ASSIST, OTHERDOMAIN = (
    NUMBER_OF[name]
    for name in (
        "event_channel_op_compat", "xen_version", "console_io", "physdev_op_compat", "grant_table_op", "vm_assist",
        "update_va_mapping_otherdomain",
    )
)  # fmt: skip
IRET, VCPU_OP, SET_SEGMENT_BASE, MMUEXT_OP, NMI_OP, SCHED_OP, CALLBACK_OP, EVENT_CHANNEL_OP, PHYSDEV_OP = (
    NUMBER_OF[name]
    for name in (
        "iret", "vcpu_op", "set_segment_base", "mmuext_op", "nmi_op", "sched_op", "callback_op", "event_channel_op", "physdev_op",
    )
)  # fmt: skip
PLATFORM_OP, SYSCTL, DOMCTL, KEXEC_OP = (NUMBER_OF[name] for name in ("platform_op", "sysctl", "domctl", "kexec_op"))


@kernel
def call_of_memory(cpu, ram, xen, domains, frames, channels, number):
    """The hypercalls of memory."""
    if number == MMU_UPDATE:
        return do_mmu_update(cpu, ram, xen, domains, frames, channels)
    if number == UPDATE_VA_MAPPING:
        return do_update_va_mapping(cpu, ram, xen, domains, frames, channels)
    if number == MMUEXT_OP:
        return do_mmuext_op(cpu, ram, xen, domains, frames, channels)
    if number == OTHERDOMAIN:
        return do_update_va_mapping_otherdomain(cpu, ram, xen, domains, frames, channels)
    if number == MEMORY_OP:
        return do_memory_op(cpu, ram, xen, domains, frames, channels)
    if number == VM_ASSIST:
        return do_vm_assist(cpu, ram, xen, domains, frames, channels)
    if number == GRANT_TABLE_OP:
        return do_grant_table_op(cpu, ram, xen, domains, frames, channels)
    if number == PLATFORM_OP or number == SYSCTL or number == DOMCTL or number == KEXEC_OP:
        return do_privileged(cpu, xen, domains)
    return missing(cpu)


@kernel
def call_of_processor(cpu, ram, xen, domains, frames, channels, number):
    """The hypercalls of the virtual processor; then those of memory."""
    if number == STACK_SWITCH:
        return do_stack_switch(cpu, ram, xen, domains, frames, channels)
    if number == FPU_TASKSWITCH:
        return do_fpu_taskswitch(cpu, ram, xen, domains, frames, channels)
    if number == UPDATE_DESCRIPTOR:
        return do_update_descriptor(cpu, ram, xen, domains, frames, channels)
    if number == IRET:
        return do_iret(cpu, ram, xen, domains, frames, channels)
    if number == SET_TRAP_TABLE:
        return do_set_trap_table(cpu, ram, xen, domains, frames, channels)
    if number == SET_GDT:
        return do_set_gdt(cpu, ram, xen, domains, frames, channels)
    if number == SET_CALLBACKS:
        return do_set_callbacks(cpu, ram, xen, domains, frames, channels)
    if number == CALLBACK_OP:
        return do_callback_op(cpu, ram, xen, domains, frames, channels)
    if number == NMI_OP:
        return do_nmi_op(cpu, ram, xen, domains, frames, channels)
    if number == SET_DEBUGREG:
        return do_set_debugreg(cpu, ram, xen, domains, frames, channels)
    if number == GET_DEBUGREG:
        return do_get_debugreg(cpu, ram, xen, domains, frames, channels)
    if number == SET_SEGMENT_BASE:
        return do_set_segment_base(cpu, ram, xen, domains, frames, channels)
    return call_of_memory(cpu, ram, xen, domains, frames, channels, number)


@kernel
def call(cpu, ram, xen, domains, frames, channels, number):
    """The hypercalls of time, events and devices; then the others. All but multicall."""
    if number == EVENT_CHANNEL_OP:
        return do_event_channel_op(cpu, ram, xen, domains, frames, channels)
    if number == SCHED_OP:
        return do_sched_op(cpu, ram, xen, domains, frames, channels)
    if number == SET_TIMER_OP:
        return do_set_timer_op(cpu, ram, xen, domains, frames, channels)
    if number == VCPU_OP:
        return do_vcpu_op(cpu, ram, xen, domains, frames, channels)
    if number == XEN_VERSION:
        return do_xen_version(cpu, ram, xen, domains, frames, channels)
    if number == CONSOLE_IO:
        return do_console_io(cpu, ram, xen, domains, frames, channels)
    if number == PHYSDEV_OP:
        return do_physdev_op(cpu, ram, xen, domains, frames, channels)
    if number == SCHED_OP_COMPAT:
        return do_sched_op_compat(cpu, ram, xen, domains, frames, channels)
    if number == EVENT_CHANNEL_OP_COMPAT:
        return do_event_channel_op_compat(cpu, ram, xen, domains, frames, channels)
    if number == PHYSDEV_OP_COMPAT:
        return do_physdev_op_compat(cpu, ram, xen, domains, frames, channels)
    return call_of_processor(cpu, ram, xen, domains, frames, channels, number)


@kernel
def missing(cpu):
    """A hypercall that this VMM does not have."""
    count(cpu, EVENT_XEN_HYPERCALL_MISSING, 1)
    return MISSING


@kernel
def note_call(xen, number):
    """Count a hypercall by its number."""
    if number < N_HYPERCALLS:
        xen.calls[number] += 1


@kernel
def note_result(cpu, xen, number, result):
    """Count one that ended with an error."""
    if result < 0:
        count(cpu, EVENT_XEN_HYPERCALL_REFUSED, 1)
        if number < N_HYPERCALLS:
            xen.refused[number] += 1


@kernel
def counted_call(cpu, ram, xen, domains, frames, channels, number):
    """A hypercall other than multicall, counted."""
    note_call(xen, number)
    result = call(cpu, ram, xen, domains, frames, channels, number)
    note_result(cpu, xen, number, result)
    return result


@kernel
def do_multicall(cpu, ram, xen, domains, frames, channels):
    """A list of hypercalls, one after the other."""
    note_call(xen, MULTICALL)
    number = begin_calls(cpu, ram, xen, domains, frames, channels)
    while number >= 0:
        if number == MULTICALL:
            result = MISSING
        else:
            result = counted_call(cpu, ram, xen, domains, frames, channels, number)
        if answer_call(cpu, ram, xen, domains, frames, channels, result) == 0:
            break
        number = next_call(cpu, ram, xen, domains, frames, channels)
    result = end_calls(cpu, ram, xen, domains, frames, channels)
    note_result(cpu, xen, MULTICALL, result)
    return result


@kernel
def hypercall(cpu, ram, xen, domains, frames, channels):
    """Int $0x82: the handler of the number in EAX, and its result there; that of iret is what its frame has for EAX."""
    number = cpu.gpr[EAX]
    charge(cpu, xen, EVENT_VMM_HYPERCALL, 1)
    if number == MULTICALL:
        result = do_multicall(cpu, ram, xen, domains, frames, channels)
    else:
        result = counted_call(cpu, ram, xen, domains, frames, channels, number)
    cpu.gpr[EAX] = result & M32

"""Events that make a hypervisor's guest exit: exceptions, triple faults, task switches, and what is known of a delivery.

SDM volume 3, sections 25.2, 25.4.2, 27.1 and 27.2. What SVM intercepts is its own (core/svm_exits.py).
"""

from ..isa.vectors import DB, KIND_EXTERNAL, KIND_NMI, KIND_SOFTWARE_INTERRUPT, PF
from ..isa.vmx import (
    EXIT_EXCEPTION_OR_NMI,
    EXIT_TASK_SWITCH,
    EXIT_TRIPLE_FAULT,
    INTERRUPTION_ERROR_CODE,
    INTERRUPTION_NMI_UNBLOCKING,
    INTERRUPTION_VALID,
    TYPE_SHIFT,
)
from .breakpoints import DR6_BD, DR6_BS
from .jit import inline, kernel
from .layout import SVM_GUEST, VM_EXIT
from .svm_exits import svm_event_intercepted, svm_shutdown_intercepted

DEBUG_QUALIFICATION = 0xF | DR6_BD | DR6_BS
TASK_SOURCE_SHIFT = 30
# The source of a task switch by its cause (TASK_ of core/task.py: jump, call, event, return): bits 31:30 of table 27-2.
TASK_SOURCES = (2, 0, 3, 1)
NOT_INTERRUPTED = -1  # cpu.idt_vector


@kernel
def begin_exit(cpu, reason):
    """Describe an exit of which nothing but the reason is known yet; returns VM_EXIT."""
    information = cpu.vm_exit
    information.reason = reason
    information.qualification = 0
    information.gla = 0
    information.gpa = 0
    information.interruption = 0
    information.interruption_error = 0
    information.instruction_information = 0
    return VM_EXIT


# -- a delivery ---------------------------------------------------------------------------------------------------------


@kernel
def begin_delivery_in_guest(cpu):
    """What ends as an event is delivered, even if that leads to an exit: what STI and MOV SS hold off."""
    cpu.shadow = 0
    cpu.nmi_unblocked = 0


@inline
def note_interrupted_delivery(cpu, vector, kind, error, has_error):
    """An event was being delivered when a fault or an exit arose: the IDT-vectoring information of that exit.

    The rest does not count with the vector NOT_INTERRUPTED.
    """
    cpu.idt_vector = vector
    cpu.idt_kind = kind
    cpu.idt_error = error
    cpu.idt_has_error = has_error


@kernel
def vectoring_information(cpu):
    """`cpu.vm_exit` says which event was being delivered, if one was (table 27-7)."""
    information = cpu.vm_exit
    information.vectoring = 0
    information.vectoring_error = 0
    if cpu.idt_vector < 0:
        return
    information.vectoring = INTERRUPTION_VALID | cpu.idt_kind << TYPE_SHIFT | cpu.idt_vector
    if cpu.idt_has_error == 1:
        information.vectoring |= INTERRUPTION_ERROR_CODE
        information.vectoring_error = cpu.idt_error


# -- exceptions ---------------------------------------------------------------------------------------------------------


@kernel
def undo_event(cpu):
    """An exit comes instead of the event: CR2, and under VMX DR6 and DR7, are as before it (section 27.1).

    SVM saves the debug registers as the exception's handler would see them (AMD volume 2, section 15.12.2).
    """
    if cpu.event_kind == KIND_EXTERNAL or cpu.event_kind == KIND_NMI or cpu.event_kind == KIND_SOFTWARE_INTERRUPT:
        return
    if cpu.event_vector == PF:
        cpu.cr2 = cpu.cr2_before
    elif cpu.event_vector == DB and cpu.world != SVM_GUEST:
        cpu.dr[6] = cpu.dr6_before
        cpu.dr[7] = cpu.dr7_before


@inline
def in_exception_bitmap(cpu):
    """Whether the exception in `cpu.event_*` exits (section 25.2); of a page fault the error code decides too."""
    wanted = (cpu.vmx.exception_bitmap >> cpu.event_vector) & 1
    if cpu.event_vector == PF and cpu.event_error & cpu.vmx.page_fault_mask != cpu.vmx.page_fault_match:
        return wanted ^ 1
    return wanted


@inline
def may_exit(cpu):
    """Whether the event in `cpu.event_*` may make the guest exit: not where its vector's bit alone decides, and is clear."""
    bits = cpu.vmx.exception_bitmap
    if cpu.world == SVM_GUEST:
        bits = cpu.svm.exception_intercepts
    elif cpu.event_vector == PF and cpu.vmx.page_fault_mask | cpu.vmx.page_fault_match != 0:
        return True
    return (bits >> (cpu.event_vector & 31)) & 1 != 0


@inline
def exception_qualification(cpu):
    """Table 27-1 for a debug exception, the linear address for a page fault, else 0."""
    if cpu.event_vector == PF:
        return cpu.fault_address
    if cpu.event_vector == DB:
        return cpu.debug_raised & DEBUG_QUALIFICATION
    return 0


@kernel
def vmx_event_exits(cpu):
    """1 if the event in `cpu.event_*` makes a guest in VMX non-root operation exit directly."""
    kind = cpu.event_kind
    if kind == KIND_EXTERNAL or kind == KIND_NMI or kind == KIND_SOFTWARE_INTERRUPT or in_exception_bitmap(cpu) == 0:
        return 0
    begin_exit(cpu, EXIT_EXCEPTION_OR_NMI)
    information = cpu.vm_exit
    information.qualification = exception_qualification(cpu)
    information.interruption = INTERRUPTION_VALID | kind << TYPE_SHIFT | cpu.event_vector
    if cpu.event_has_error == 1:
        information.interruption |= INTERRUPTION_ERROR_CODE
        information.interruption_error = cpu.event_error
    if cpu.nmi_unblocked == 1 and cpu.idt_vector < 0:
        information.interruption |= INTERRUPTION_NMI_UNBLOCKING
    return 1


@kernel
def event_exits(cpu):
    """1 if the event in `cpu.event_*` makes the guest exit instead of being delivered."""
    if cpu.world == SVM_GUEST:
        exits = svm_event_intercepted(cpu)
    else:
        exits = vmx_event_exits(cpu)
    if exits == 1:
        undo_event(cpu)
    return exits


@kernel
def double_fault_exits(cpu):
    """The same of the double fault that two events have made: the exit is not considered to occur during a delivery."""
    vector = cpu.idt_vector
    cpu.idt_vector = -1
    exits = event_exits(cpu)
    if exits == 0:
        cpu.idt_vector = vector
    return exits


@kernel
def triple_fault_exits(cpu):
    """1 if the guest exits where a processor by itself would shut down."""
    cpu.idt_vector = -1
    if cpu.world == SVM_GUEST:
        return svm_shutdown_intercepted(cpu)
    begin_exit(cpu, EXIT_TRIPLE_FAULT)
    return 1


# -- task switches --------------------------------------------------------------------------------------------------------


@kernel
def task_switch_exits(cpu, selector, cause):
    """In VMX non-root operation a task switch that passed its first checks always exits (section 25.4.2)."""
    begin_exit(cpu, EXIT_TASK_SWITCH)
    cpu.vm_exit.qualification = (selector & 0xFFFF) | TASK_SOURCES[cause] << TASK_SOURCE_SHIFT
    return VM_EXIT

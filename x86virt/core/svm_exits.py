"""Where a guest of SVM is left: what the processor asks as it executes, delivers events and crosses instruction boundaries.

AMD publication 24593, sections 15.7 to 15.14 and 15.21. A question that is answered with VM_EXIT (or 1) has described the exit in
`cpu.vm_exit`; `svm_exit` performs it.
"""

from ..isa.registers import EFLAGS_IF, EFLAGS_RF
from ..isa.svm import (
    EXIT_EXCEPTION,
    EXIT_FERR_FREEZE,
    EXIT_INTR,
    EXIT_SHUTDOWN,
    EXIT_TASK_SWITCH,
    EXIT_VINTR,
    INTERCEPT_FERR_FREEZE,
    INTERCEPT_INTR,
    INTERCEPT_SHUTDOWN,
    INTERCEPT_TASK_SWITCH,
    INTERCEPT_VINTR,
    TASK_BY_IRET,
    TASK_BY_JUMP,
    TASK_HAS_ERROR,
    TASK_RF,
)
from ..isa.vectors import KIND_EXCEPTION, KIND_EXTERNAL, PF
from .interrupt_inputs import interrupt_requested
from .jit import kernel
from .layout import OK, VM_EXIT
from .svm_intercept import svm_intercept
from .svm_leave import svm_exit

__all__ = [
    "SVM_DELIVERS",
    "SVM_NOTHING",
    "SVM_TAKES",
    "svm_boundary",
    "svm_event_intercepted",
    "svm_exit",
    "svm_freeze_intercepted",
    "svm_intercept",
    "svm_interrupts_open",
    "svm_shutdown_intercepted",
    "svm_task_switch",
]

# What `svm_boundary` may answer besides VM_EXIT.
SVM_NOTHING = 0
SVM_TAKES = 1  # the physical interrupt that waits, as outside a guest
SVM_DELIVERS = 2  # the virtual interrupt in cpu.event_*


@kernel
def describe(cpu, code, information_1, information_2):
    """Describe an exit that no instruction makes."""
    cpu.vm_exit.reason = code
    cpu.vm_exit.qualification = information_1
    cpu.vm_exit.gpa = information_2
    cpu.svm.next_rip = 0


@kernel
def svm_event_intercepted(cpu):
    """1 if the exception in `cpu.event_*` is intercepted; INT1, INT3 and INTO are decided at the instruction."""
    vector = cpu.event_vector
    if cpu.event_kind != KIND_EXCEPTION or (cpu.svm.exception_intercepts >> vector) & 1 == 0:
        return 0
    address = 0
    if vector == PF:
        address = cpu.fault_address
    describe(cpu, EXIT_EXCEPTION + vector, cpu.event_error * cpu.event_has_error, address)
    return 1


@kernel
def svm_shutdown_intercepted(cpu):
    """1 if the shutdown that a triple fault would make is intercepted."""
    if cpu.svm.intercepts_1 & INTERCEPT_SHUTDOWN == 0:
        return 0
    describe(cpu, EXIT_SHUTDOWN, 0, 0)
    return 1


@kernel
def svm_freeze_intercepted(cpu):
    """1 if the guest is left where FERR# freezes the processor."""
    if cpu.svm.intercepts_1 & INTERCEPT_FERR_FREEZE == 0:
        return 0
    describe(cpu, EXIT_FERR_FREEZE, 0, 0)
    return 1


@kernel
def svm_task_switch(cpu, selector, by_jump, by_return, by_event, flags):
    """A task switch to a TSS whose checks have passed, before anything is committed; `flags` would be saved in the old one."""
    if cpu.svm.intercepts_1 & INTERCEPT_TASK_SWITCH == 0:
        return OK
    information = by_jump * TASK_BY_JUMP | by_return * TASK_BY_IRET
    if flags & EFLAGS_RF != 0:
        information |= TASK_RF
    if by_event == 1 and cpu.event_has_error == 1:
        information |= TASK_HAS_ERROR | cpu.event_error
    describe(cpu, EXIT_TASK_SWITCH, selector, information)
    return VM_EXIT


# -- interrupts -----------------------------------------------------------------------------------------------------------------


@kernel
def svm_interrupts_open(cpu):
    """Whether physical interrupts are let in: by GIF, and by the host's EFLAGS.IF where the guest's masks virtual ones alone."""
    if cpu.svm.gif == 0:
        return False
    if cpu.svm.v_intr_masking == 1:
        return cpu.svm.host_if == 1
    return cpu.eflags & EFLAGS_IF != 0


@kernel
def virtual_interrupt_waits(cpu):
    """Whether the guest takes its virtual interrupt now."""
    svm = cpu.svm
    if svm.v_irq == 0 or svm.gif == 0 or cpu.eflags & EFLAGS_IF == 0:
        return False
    return svm.v_ign_tpr == 1 or svm.v_intr_prio > svm.v_tpr & 0xF


@kernel
def svm_boundary(cpu, board):
    """Interrupts at an instruction boundary of a guest: physical ones first, then the virtual one (section 15.21.4)."""
    if cpu.shadow != 0:
        return SVM_NOTHING
    if svm_interrupts_open(cpu) and interrupt_requested(cpu, board):
        if cpu.svm.intercepts_1 & INTERCEPT_INTR == 0:
            return SVM_TAKES
        describe(cpu, EXIT_INTR, 0, 0)
        return VM_EXIT
    if not virtual_interrupt_waits(cpu):
        return SVM_NOTHING
    if cpu.svm.intercepts_1 & INTERCEPT_VINTR != 0:
        describe(cpu, EXIT_VINTR, 0, 0)
        return VM_EXIT
    cpu.svm.v_irq = 0
    cpu.event_vector = cpu.svm.v_intr_vector
    cpu.event_kind = KIND_EXTERNAL
    cpu.event_error = 0
    cpu.event_has_error = 0
    return SVM_DELIVERS

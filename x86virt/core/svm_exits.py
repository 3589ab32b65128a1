"""Where AMD's secure virtual machine takes part in what any guest does: on a processor without it, nowhere."""

from .jit import kernel
from .layout import OK

SVM_TAKES, SVM_DELIVERS = 1, 2  # the external interrupt is taken as outside a guest; `cpu.event_*` is delivered


@kernel
def svm_intercept(cpu, ram, u):
    """Whether the instruction of a micro-operation `intercept` exits: OK or VM_EXIT."""
    return OK


@kernel
def svm_exit(cpu, ram):
    """#VMEXIT as `cpu.vm_exit` says: OK or SHUTDOWN."""
    return OK


@kernel
def svm_event_intercepted(cpu):
    """1 if the event in `cpu.event_*` exits instead of being delivered."""
    return 0


@kernel
def svm_shutdown_intercepted(cpu):
    """1 if a triple fault exits."""
    return 0


@kernel
def svm_boundary(cpu, board):
    """What comes between two instructions of the guest, in place of interrupts: VM_EXIT, SVM_..., or 0 for nothing."""
    return 0


@kernel
def svm_interrupts_open(cpu):
    """Whether an interrupt may end the guest's halt."""
    return False


@kernel
def svm_task_switch(cpu, selector, by_jump, by_return, by_event, flags):
    """Whether a task switch exits: OK or VM_EXIT."""
    return OK

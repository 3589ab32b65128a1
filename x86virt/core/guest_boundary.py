"""What may make a hypervisor's guest exit between two of its instructions, in the order in which the manual ranks it.

Debug traps come first; then the VMX-preemption timer, the NMI window, the interrupt window, external interrupts (SDM
volume 3, sections 25.2 and 26.6). Nothing raises NMIs.
"""

from ..isa.registers import EFLAGS_IF
from ..isa.vectors import KIND_EXTERNAL
from ..isa.vmx import (
    EXIT_ACKNOWLEDGE_INTERRUPT,
    EXIT_EXTERNAL_INTERRUPT,
    EXIT_INTERRUPT_WINDOW,
    EXIT_NMI_WINDOW,
    EXIT_PREEMPTION_TIMER,
    INTERRUPTION_VALID,
    PIN_EXTERNAL_INTERRUPT_EXITING,
    PROCESSOR_INTERRUPT_WINDOW_EXITING,
    PROCESSOR_NMI_WINDOW_EXITING,
    TYPE_SHIFT,
)
from .deliver import deliver_event
from .event_exit import begin_exit
from .halt import wake
from .interrupt_inputs import acknowledge, interrupt_requested
from .jit import inline, kernel
from .layout import NEVER, OK, SVM_GUEST, VM_EXIT
from .svm_exits import SVM_DELIVERS, SVM_TAKES, svm_boundary, svm_interrupts_open
from .vm_exit import vm_exit

# What the boundary finds: nothing; an external interrupt to be taken, as outside a guest; all may have changed; the end.
NOTHING, TAKES_INTERRUPT, AGAIN, SHUTS_DOWN = 0, SVM_TAKES, 3, 4


@inline
def timer_expired(cpu):
    """Whether the VMX-preemption timer has reached zero."""
    return cpu.ticks >= cpu.vmx.timer_due


@inline
def nmi_window_is_open(cpu):
    """Whether NMI-window exiting makes the guest exit: NMIs, real or virtual, are not blocked."""
    return cpu.vmx.processor & PROCESSOR_NMI_WINDOW_EXITING != 0 and cpu.vmx.nmi_blocked == 0


@inline
def interrupt_window_is_open(cpu):
    """Whether interrupt-window exiting makes the guest exit: IF is set."""
    return cpu.vmx.processor & PROCESSOR_INTERRUPT_WINDOW_EXITING != 0 and cpu.eflags & EFLAGS_IF != 0


@inline
def interrupts_exit(cpu):
    """Whether external interrupts make the guest exit, whatever IF says."""
    return cpu.vmx.pin & PIN_EXTERNAL_INTERRUPT_EXITING != 0


@kernel
def may_leave_at_boundary(cpu, board):
    """Whether the boundary must look at what follows; nothing is held off by STI or MOV SS."""
    if cpu.world == SVM_GUEST:
        return cpu.svm.v_irq == 1 or (svm_interrupts_open(cpu) and interrupt_requested(cpu, board))
    if timer_expired(cpu) or nmi_window_is_open(cpu) or interrupt_window_is_open(cpu):
        return True
    return (interrupts_exit(cpu) or cpu.eflags & EFLAGS_IF != 0) and interrupt_requested(cpu, board)


@kernel
def external_interrupt_exit(cpu, board):
    """An external interrupt: acknowledged only if the controls say so, else it stays requested (section 27.2.2)."""
    begin_exit(cpu, EXIT_EXTERNAL_INTERRUPT)
    if cpu.vmx.exit_controls & EXIT_ACKNOWLEDGE_INTERRUPT != 0:
        cpu.vm_exit.interruption = INTERRUPTION_VALID | KIND_EXTERNAL << TYPE_SHIFT | acknowledge(cpu, board)
    return VM_EXIT


@kernel
def vmx_boundary(cpu, board):
    """Whether the guest exits now, VM_EXIT; else NOTHING, or TAKES_INTERRUPT."""
    if timer_expired(cpu):
        return begin_exit(cpu, EXIT_PREEMPTION_TIMER)
    if cpu.shadow != 0:
        return NOTHING
    if nmi_window_is_open(cpu):
        return begin_exit(cpu, EXIT_NMI_WINDOW)
    if interrupt_window_is_open(cpu):
        return begin_exit(cpu, EXIT_INTERRUPT_WINDOW)
    if not (interrupts_exit(cpu) or cpu.eflags & EFLAGS_IF != 0) or not interrupt_requested(cpu, board):
        return NOTHING
    if interrupts_exit(cpu):
        return external_interrupt_exit(cpu, board)
    return TAKES_INTERRUPT


@kernel
def act_on(outcome):
    """What the boundary does behind a delivery or an exit."""
    if outcome == OK:
        return AGAIN
    return SHUTS_DOWN


@kernel
def guest_boundary(cpu, ram, board):
    """The boundary between two instructions of a guest, behind debug traps: what is left to do, as the constants say."""
    if cpu.world == SVM_GUEST:
        found = svm_boundary(cpu, board)
        if found == SVM_DELIVERS:
            if cpu.halted == 1:
                wake(cpu)
            return act_on(deliver_event(cpu, ram))
    else:
        found = vmx_boundary(cpu, board)
    if found != VM_EXIT:
        return found
    cpu.instruction_length = 0
    return act_on(vm_exit(cpu, ram))


@inline
def guest_deadline(cpu):
    """The tick at which the VMX-preemption timer reaches zero."""
    if cpu.world == SVM_GUEST:
        return NEVER
    return cpu.vmx.timer_due


@inline
def wakes_guest(cpu):
    """Whether something may end a guest's halt: interrupts that are let in or exit, or its timer."""
    if cpu.world == SVM_GUEST:
        return svm_interrupts_open(cpu)
    return cpu.vmx.timer_due != NEVER or interrupts_exit(cpu) or cpu.eflags & EFLAGS_IF != 0

"""VM entry: the event that is injected into the guest (SDM volume 3, section 26.5.1)."""

from ..isa.registers import CR4_VME, EFLAGS_VM
from ..isa.vectors import KIND_SOFTWARE_INTERRUPT
from ..isa.vmx import (
    INTERRUPTION_ERROR_CODE,
    TYPE_NMI,
    TYPE_SOFTWARE_EXCEPTION,
    TYPE_SOFTWARE_INTERRUPT,
    VMCS_ENTRY_ERROR_CODE,
    VMCS_ENTRY_INSTRUCTION_LENGTH,
)
from .deliver import deliver, fault_class, finish_delivery
from .event_exit import note_interrupted_delivery
from .jit import kernel
from .layout import OK
from .stops import note_delivery
from .virtual_8086 import interrupt_is_redirected, redirect_interrupt
from .vmcs import vmcs_read

M32 = 0xFFFFFFFF


@kernel
def redirect_injected(cpu, ram):
    """A software interrupt in virtual-8086 mode with its extensions: (outcome, whether its program's own handler takes it).

    IOPL, which decides for INT n, is not looked at.
    """
    outcome, redirected = interrupt_is_redirected(cpu, ram, cpu.event_vector)
    if outcome == OK and redirected:
        outcome = redirect_interrupt(cpu, ram)
    return outcome, redirected


@kernel
def deliver_injected(cpu, ram):
    """Deliver `cpu.event_*` for the first time, as `deliver` does."""
    both = cpu.event_kind == KIND_SOFTWARE_INTERRUPT and cpu.eflags & EFLAGS_VM != 0
    if not both or cpu.cr4 & CR4_VME == 0:
        return deliver(cpu, ram)
    vector = cpu.event_vector
    outcome, redirected = redirect_injected(cpu, ram)
    if outcome != OK:
        note_interrupted_delivery(cpu, vector, KIND_SOFTWARE_INTERRUPT, 0, 0)
        return outcome
    if redirected:
        return OK
    return deliver(cpu, ram)


@kernel
def describe_injected(cpu, ram, information, kind):
    """Take the event, its error code and the length of the instruction that is said to have raised it, from the VMCS."""
    cpu.event_vector = information & 0xFF
    cpu.event_kind = kind
    cpu.event_error = 0
    cpu.event_has_error = int(information & INTERRUPTION_ERROR_CODE != 0)
    if cpu.event_has_error == 1:
        cpu.event_error = vmcs_read(cpu, ram, VMCS_ENTRY_ERROR_CODE)
    cpu.instruction_length = 0
    if TYPE_SOFTWARE_INTERRUPT <= kind <= TYPE_SOFTWARE_EXCEPTION:
        cpu.instruction_length = vmcs_read(cpu, ram, VMCS_ENTRY_INSTRUCTION_LENGTH)


@kernel
def inject(cpu, ram, information, kind):
    """Deliver the event in the guest as if it had arisen there; itself it never exits, what arises from it may.

    What an instruction raises is pushed with the address behind that instruction; if the delivery comes to nothing, RIP is
    the guest's again. RF is pushed as it is.
    """
    describe_injected(cpu, ram, information, kind)
    if kind == TYPE_NMI:
        cpu.vmx.nmi_blocked = 1
    note_delivery(cpu)
    first = fault_class(cpu.event_vector, cpu.event_kind)
    rip = cpu.rip
    cpu.rip = (rip + cpu.instruction_length) & M32
    cpu.injected = 1
    outcome = deliver_injected(cpu, ram)
    cpu.injected = 0
    if outcome == OK:
        return OK
    cpu.rip = rip
    return finish_delivery(cpu, ram, first, outcome)

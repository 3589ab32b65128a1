"""The VMCS for jitted handlers: VMREAD and VMWRITE at their price, and the same fields at none, for those that look first."""

from ...core.charge import charge
from ...core.jit import inline, kernel
from ...core.vmcs import note_vmcs_written, vmcs_read, vmcs_write
from ...isa.events import (
    EVENT_SVM_VMCB_READ,
    EVENT_SVM_VMCB_WRITE,
    EVENT_SVM_VMRUN,
    EVENT_VMX_ENTRY,
    EVENT_VMX_INVVPID,
    EVENT_VMX_VMREAD,
    EVENT_VMX_VMWRITE,
    MODE_VMM,
)
from ...isa.registers import ECX

TICKS, CONTROL_TICKS, ENTRY_TICKS = range(3)


@kernel
def read(cpu, ram, slot):
    """VMREAD of a field of up to 32 bits."""
    charge(cpu, EVENT_VMX_VMREAD, 1)
    return vmcs_read(cpu, ram, slot)


@kernel
def write(cpu, ram, slot, value):
    """VMWRITE of a field of 32 bits."""
    charge(cpu, EVENT_VMX_VMWRITE, 1)
    vmcs_write(cpu, ram, slot, value)
    note_vmcs_written(cpu, ram)


@inline
def peek(cpu, ram, slot):
    """A field of up to 32 bits, at no cost."""
    return vmcs_read(cpu, ram, slot)


@inline
def control_ticks(cpu):
    """The ticks of all accesses to the control structure so far, VMCS or VMCB."""
    ticks = cpu.ledger_ticks[EVENT_VMX_VMREAD, MODE_VMM] + cpu.ledger_ticks[EVENT_VMX_VMWRITE, MODE_VMM]
    ticks += cpu.ledger_ticks[EVENT_VMX_INVVPID, MODE_VMM]
    return ticks + cpu.ledger_ticks[EVENT_SVM_VMCB_READ, MODE_VMM] + cpu.ledger_ticks[EVENT_SVM_VMCB_WRITE, MODE_VMM]


@inline
def entry_ticks(cpu):
    """The ticks of all entries so far."""
    return cpu.ledger_ticks[EVENT_VMX_ENTRY, MODE_VMM] + cpu.ledger_ticks[EVENT_SVM_VMRUN, MODE_VMM]


@inline
def begin_account(cpu, exits):
    """An exit has come."""
    exits.begun[TICKS] = cpu.ticks
    exits.begun[CONTROL_TICKS] = control_ticks(cpu)
    exits.begun[ENTRY_TICKS] = entry_ticks(cpu)


@kernel
def end_account(cpu, exits):
    """What it has taken so far."""
    exits.spent[TICKS] = cpu.ticks - exits.begun[TICKS]
    exits.spent[CONTROL_TICKS] = control_ticks(cpu) - exits.begun[CONTROL_TICKS]
    exits.spent[ENTRY_TICKS] = entry_ticks(cpu) - exits.begun[ENTRY_TICKS]


@kernel
def count_exit(cpu, exits):
    """Count the exit by its reason."""
    end_account(cpu, exits)
    reason = exits.reason
    if exits.count[reason] == 0:
        exits.order[exits.order_count] = reason
        exits.order_count += 1
    exits.count[reason] += 1
    for part in range(3):
        exits.ticks[reason, part] += exits.spent[part]


@kernel
def note_fill(cpu, exits):
    """The guest goes on with the access that was filled for (HardwareVm.progress)."""
    exits.filled_at[0] = cpu.retired
    exits.filled_at[1] = cpu.gpr[ECX]

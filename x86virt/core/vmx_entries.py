"""VMX for a hypervisor in Python: each function does what one VMX instruction does in VMX root operation, at its price.

Each returns how the instruction ended: VMX_SUCCEEDED, VMX_FAILED_INVALID, VMX_FAILED_VALID (core/layout.py).
"""

from ..isa.events import (
    EVENT_VMX_ENTRY,
    EVENT_VMX_INVEPT,
    EVENT_VMX_INVVPID,
    EVENT_VMX_LAUNCH,
    EVENT_VMX_VMCLEAR,
    EVENT_VMX_VMPTRLD,
    EVENT_VMX_VMREAD,
    EVENT_VMX_VMWRITE,
    EVENT_VMX_VMXOFF,
    EVENT_VMX_VMXON,
)
from ..isa.registers import CR4_VMXE
from .charge import charge
from .extensions import vm_entry
from .jit import entry
from .layout import VMX_FAILED_INVALID, VMX_FAILED_VALID
from .vmx_capability import has_vmx
from .vmx_fields import read_field, write_field
from .vmx_instructions import begin_operation, clear_region, invept_of, invvpid_of, load_pointer, vmxoff, vmxon_allowed
from .vmx_result import NO_VMCS, fail


@entry
def vmx_on(state, ram, pointer):
    """VMXON, which fails where the instruction would fault."""
    cpu = state[0]
    charge(cpu, EVENT_VMX_VMXON, 1)
    if not has_vmx(cpu) or cpu.vmx.operation == 1 or cpu.cr4 & CR4_VMXE == 0 or not vmxon_allowed(cpu):
        return VMX_FAILED_INVALID
    begin_operation(cpu, ram, pointer)
    return cpu.vmx.result


@entry
def vmx_off(state):
    """VMXOFF."""
    cpu = state[0]
    charge(cpu, EVENT_VMX_VMXOFF, 1)
    vmxoff(cpu)
    return cpu.vmx.result


@entry
def vmx_load_pointer(state, ram, pointer):
    """VMPTRLD."""
    cpu = state[0]
    charge(cpu, EVENT_VMX_VMPTRLD, 1)
    load_pointer(cpu, ram, pointer)
    return cpu.vmx.result


@entry
def vmx_clear(state, ram, pointer):
    """VMCLEAR."""
    cpu = state[0]
    charge(cpu, EVENT_VMX_VMCLEAR, 1)
    clear_region(cpu, ram, pointer)
    return cpu.vmx.result


@entry
def vmx_read(state, ram, encoding):
    """VMREAD: (how it ended, value)."""
    cpu = state[0]
    charge(cpu, EVENT_VMX_VMREAD, 1)
    if cpu.vmx.current == NO_VMCS:
        return VMX_FAILED_INVALID, 0
    error, value = read_field(cpu, ram, encoding)
    if error != 0:
        fail(cpu, ram, error)
        return VMX_FAILED_VALID, 0
    return 0, value


@entry
def vmx_write(state, ram, encoding, value):
    """VMWRITE."""
    cpu = state[0]
    charge(cpu, EVENT_VMX_VMWRITE, 1)
    if cpu.vmx.current == NO_VMCS:
        return VMX_FAILED_INVALID
    error = write_field(cpu, ram, encoding, value)
    if error != 0:
        fail(cpu, ram, error)
        return VMX_FAILED_VALID
    return 0


@entry
def vmx_enter(state, ram, launch):
    """VMLAUNCH (`launch` 1) or VMRESUME: (OK or SHUTDOWN, how it ended).

    If it succeeded, the processor is in the guest, or at the host's RIP with an exit reason: `run` goes on from there.
    """
    cpu = state[0]
    if launch == 1:
        charge(cpu, EVENT_VMX_LAUNCH, 1)
    else:
        charge(cpu, EVENT_VMX_ENTRY, 1)
    cpu.held = 0
    outcome = vm_entry(cpu, ram, launch)
    return outcome, cpu.vmx.result


@entry
def vmx_invept(state, ram, kind, pointer):
    """INVEPT."""
    cpu = state[0]
    charge(cpu, EVENT_VMX_INVEPT, 1)
    invept_of(cpu, ram, kind, pointer, 0)
    return cpu.vmx.result


@entry
def vmx_invvpid(state, ram, kind, identifier, gla):
    """INVVPID."""
    cpu = state[0]
    charge(cpu, EVENT_VMX_INVVPID, 1)
    invvpid_of(cpu, ram, kind, identifier, gla)
    return cpu.vmx.result

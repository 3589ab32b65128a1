"""How VMX instructions report success and failure: by flags, and in the current VMCS (SDM volume 3, section 30.2)."""

from ..isa.registers import EFLAGS_CF, EFLAGS_ZF
from ..isa.vmx import VMCS_INSTRUCTION_ERROR
from .flags import set_arithmetic_flags
from .jit import kernel
from .layout import VMX_FAILED_INVALID, VMX_FAILED_VALID, VMX_SUCCEEDED
from .vmcs import note_vmcs_written, vmcs_write

NO_VMCS = -1  # as the current-VMCS pointer


@kernel
def succeed(cpu):
    """VMsucceed."""
    cpu.vmx.result = VMX_SUCCEEDED
    set_arithmetic_flags(cpu, 0)


@kernel
def fail_invalid(cpu):
    """VMfailInvalid: there is no current VMCS to take an error number."""
    cpu.vmx.result = VMX_FAILED_INVALID
    set_arithmetic_flags(cpu, EFLAGS_CF)


@kernel
def fail(cpu, ram, error):
    """VMfail: VMfailValid with an error number if there is a current VMCS, else VMfailInvalid."""
    if cpu.vmx.current == NO_VMCS:
        fail_invalid(cpu)
        return
    cpu.vmx.result = VMX_FAILED_VALID
    set_arithmetic_flags(cpu, EFLAGS_ZF)
    vmcs_write(cpu, ram, VMCS_INSTRUCTION_ERROR, error)
    note_vmcs_written(cpu, ram)

"""What this processor's capability registers allow in VMX operation (SDM volume 3, appendix A and section 23.8)."""

from ..isa.registers import CR0_CD, CR0_NW
from ..isa.vmx import (
    BASIC_TRUE_CONTROLS,
    VMX_BASIC,
    VMX_CR0_FIXED0,
    VMX_CR0_FIXED1,
    VMX_CR4_FIXED0,
    VMX_CR4_FIXED1,
    VMX_PINBASED,
    VMX_TRUE_PINBASED,
)
from .jit import inline, kernel

M32 = 0xFFFFFFFF
REVISION = 0x7FFFFFFF  # bits 30:0 of IA32_VMX_BASIC


@inline
def has_vmx(cpu):
    """Whether the processor has the virtual-machine extensions."""
    return cpu.msr.vmx_capability[VMX_BASIC] != 0


@inline
def has_true_controls(cpu):
    """Whether the TRUE capability registers exist and rule instead of the others."""
    return cpu.msr.vmx_capability[VMX_BASIC] & BASIC_TRUE_CONTROLS != 0


@kernel
def control_capability(cpu, register):
    """The capability register of pin-based, processor-based, exit or entry controls, by its number VMX_PINBASED and on."""
    if has_true_controls(cpu):
        return cpu.msr.vmx_capability[register - VMX_PINBASED + VMX_TRUE_PINBASED]
    return cpu.msr.vmx_capability[register]


@inline
def controls_allowed(capability, value):
    """Whether controls have 1 where they must and 0 where they must: the register's low and high half (appendix A.2)."""
    must = capability & M32
    may = (capability >> 32) & M32
    return value & must == must and value & ~may == 0


@kernel
def cr0_allowed(cpu, value):
    """Whether CR0 may have a value in VMX operation; CD and NW are never looked at."""
    must = cpu.msr.vmx_capability[VMX_CR0_FIXED0] & ~(CR0_CD | CR0_NW)
    may = cpu.msr.vmx_capability[VMX_CR0_FIXED1] | CR0_CD | CR0_NW
    return value & must == must and value & ~may == 0


@kernel
def cr4_allowed(cpu, value):
    """Whether CR4 may have a value in VMX operation."""
    must = cpu.msr.vmx_capability[VMX_CR4_FIXED0]
    may = cpu.msr.vmx_capability[VMX_CR4_FIXED1]
    return value & must == must and value & ~may == 0


@inline
def revision(cpu):
    """The VMCS revision identifier."""
    return cpu.msr.vmx_capability[VMX_BASIC] & REVISION


@inline
def address_allowed(cpu, address, alignment):
    """Whether a physical address (64 bits) is aligned and within the processor's physical-address width."""
    return address & (alignment - 1) == 0 and address >> cpu.msr.physical_bits == 0

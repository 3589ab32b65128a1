"""The bits of control registers that a processor has (SDM volume 3, section 2.5)."""

from ..isa.registers import (
    CR4_DE,
    CR4_MCE,
    CR4_OSFXSR,
    CR4_PAE,
    CR4_PCE,
    CR4_PGE,
    CR4_PSE,
    CR4_PVI,
    CR4_TSD,
    CR4_VME,
    CR4_VMXE,
)
from .jit import kernel
from .vmx_capability import has_vmx


@kernel
def cr4_offered(cpu):
    """The bits of CR4 that CPUID's features allow to be set."""
    features = cpu.cpuid_leaf1_edx
    offered = CR4_PCE
    offered |= (features >> 1 & 1) * (CR4_VME | CR4_PVI)
    offered |= (features >> 2 & 1) * CR4_DE
    offered |= (features >> 3 & 1) * CR4_PSE
    offered |= (features >> 4 & 1) * CR4_TSD
    offered |= (features >> 6 & 1) * CR4_PAE
    offered |= (features >> 7 & 1) * CR4_MCE
    offered |= (features >> 13 & 1) * CR4_PGE
    offered |= (features >> 24 & 1) * CR4_OSFXSR
    if has_vmx(cpu):
        offered |= CR4_VMXE
    return offered

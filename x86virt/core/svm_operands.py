"""The operand of VMRUN, VMLOAD and VMSAVE: the physical address of a VMCB in rAX, by the address size."""

from ..isa.registers import EAX
from .jit import kernel


@kernel
def vmcb_operand(cpu, u):
    """The physical address in rAX."""
    return cpu.gpr[EAX] & u.address_mask


@kernel
def address_is_bad(cpu, u):
    """Whether it is not that of a page, which is #GP(0); every address of 32 bits is one that the processor supports."""
    return vmcb_operand(cpu, u) & 0xFFF != 0

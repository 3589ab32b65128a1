"""Which processor this is, as far as behaviour depends on it: the vendor and family that CPUID reports."""

from .jit import kernel

INTEL, AMD = 0x756E6547, 0x68747541  # "Genu" and "Auth", EBX of CPUID leaf 0
FAMILY_P6 = 6


@kernel
def family_of(cpu):
    """The processor's family, bits 11:8 of the signature."""
    return (cpu.cpuid[1, 0] >> 8) & 0xF


@kernel
def is_intel(cpu):
    """Whether Intel made it."""
    return cpu.cpuid[0, 1] == INTEL


@kernel
def is_amd(cpu):
    """Whether AMD made it."""
    return cpu.cpuid[0, 1] == AMD

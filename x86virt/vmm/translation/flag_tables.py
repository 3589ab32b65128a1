"""The tables by which translated POPF knows what bits 15:8 of its image mean for the guest."""

from ...isa.registers import EFLAGS_IF, EFLAGS_IOPL_SHIFT
from .emitter import dword

IOPL_BITS, TRAP_BIT, NESTED_BIT, INTERRUPT_BIT = 0x30, 1, 0x40, 2  # of bits 15:8 of a flags image


def common_images() -> bytes:
    """The tables that are always the same: what IF an image brings, and what is odd for programs, whose IOPL it cannot change."""
    flags = b"".join(dword(EFLAGS_IF if image & INTERRUPT_BIT else 0) for image in range(256))
    odd = bytes(int(bool(image & (TRAP_BIT | NESTED_BIT))) for image in range(256))
    return flags + odd


def kernel_images(iopl: int) -> bytes:
    """The kernel's table for a virtual IOPL: images that change more than IF are odd."""
    shifted = iopl << EFLAGS_IOPL_SHIFT - 8
    return bytes(int(bool(image & (TRAP_BIT | NESTED_BIT)) or image & IOPL_BITS != shifted) for image in range(256))

"""EFLAGS. The six arithmetic flags are kept as a result and a carry vector, and computed when they are read.

    flag_result   the last result, sign-extended to 64 bits: ZF = (it is zero), SF = its sign, PF = parity of its low byte
    flag_carry    bit 31 CF, bit 31 xor bit 30 OF, bit 3 AF; bits 32 and 33 invert SF and PF (only after POPF and its like)

For a 32-bit addition or subtraction the vector is the carries (borrows) out of each bit; narrower operations move
their top two carries up to bits 31 and 30.
"""

from ..isa.registers import EFLAGS_AC, EFLAGS_ARITHMETIC, EFLAGS_FIXED
from .jit import inline
from .tlb import drop_front

PARITY_EVEN = 0x9669  # bit n: the nibble n has an even number of ones


@inline
def carry_flag(cpu):
    """CF, 0 or 1."""
    return (cpu.flag_carry >> 31) & 1


@inline
def overflow_flag(cpu):
    """OF, 0 or 1."""
    return ((cpu.flag_carry >> 31) ^ (cpu.flag_carry >> 30)) & 1


@inline
def sign_flag(cpu):
    """SF, 0 or 1."""
    return ((cpu.flag_result >> 63) ^ (cpu.flag_carry >> 32)) & 1


@inline
def parity_flag(cpu):
    """PF, 0 or 1."""
    low = cpu.flag_result & 0xFF
    return ((PARITY_EVEN >> ((low ^ (low >> 4)) & 0xF)) ^ (cpu.flag_carry >> 33)) & 1


@inline
def zero_flag(cpu):
    """ZF, 0 or 1."""
    return int(cpu.flag_result == 0)


@inline
def arithmetic_flags(cpu):
    """The six arithmetic flags at their places in EFLAGS."""
    return (
        carry_flag(cpu)
        | parity_flag(cpu) << 2
        | ((cpu.flag_carry >> 3) & 1) << 4
        | zero_flag(cpu) << 6
        | sign_flag(cpu) << 7
        | overflow_flag(cpu) << 11
    )


@inline
def set_arithmetic_flags(cpu, value):
    """Make the six arithmetic flags those of `value`."""
    carry = value & 1
    parity = (value >> 2) & 1
    adjust = (value >> 4) & 1
    zero = (value >> 6) & 1
    sign = (value >> 7) & 1
    overflow = (value >> 11) & 1
    # A zero result has SF = 0 and PF = 1, the result one SF = 0 and PF = 0.
    cpu.flag_result = 1 - zero
    cpu.flag_carry = carry << 31 | (carry ^ overflow) << 30 | adjust << 3 | sign << 32 | (parity ^ zero) << 33


@inline
def get_eflags(cpu):
    """The whole EFLAGS register."""
    return cpu.eflags | arithmetic_flags(cpu) | EFLAGS_FIXED


@inline
def set_eflags(cpu, value):
    """Write all of EFLAGS; the caller masks what may not change. The front cache knows nothing of alignment checks."""
    if (cpu.eflags ^ value) & EFLAGS_AC != 0:
        drop_front(cpu)
    cpu.eflags = value & ~EFLAGS_ARITHMETIC
    set_arithmetic_flags(cpu, value)


@inline
def set_carry(cpu, carry):
    """Set CF to 0 or 1 and leave the other flags."""
    overflow = overflow_flag(cpu)
    cpu.flag_carry = (cpu.flag_carry & ~(3 << 30)) | carry << 31 | (carry ^ overflow) << 30

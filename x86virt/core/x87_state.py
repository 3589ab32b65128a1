"""The x87 state: register stack, control, status and tag words, exceptions (SDM volume 1, sections 8.1 and 8.5).

The status word holds TOP in place. Of the tags only "empty" is kept, one bit for each physical register; the other tag
values follow from what the registers hold. Exceptions of the instruction that executes gather in cpu.fpu_flags; they
reach the status word when it ends, as `finish` says.
"""

from ..isa.registers import (
    X87_C1,
    X87_DENORMAL,
    X87_ERROR_SUMMARY,
    X87_BUSY,
    X87_EXCEPTIONS,
    X87_INVALID,
    X87_OVERFLOW,
    X87_PRECISION,
    X87_STACK_FAULT,
    X87_TOP,
    X87_TOP_SHIFT,
    X87_UNDERFLOW,
    X87_ZERO_DIVIDE,
)
from .float80 import TOP as TOP_BIT
from .float80 import copy_value, set_value
from .jit import kernel

INVALID, DENORMAL, ZERO_DIVIDE = X87_INVALID, X87_DENORMAL, X87_ZERO_DIVIDE
OVERFLOW, UNDERFLOW, PRECISION = X87_OVERFLOW, X87_UNDERFLOW, X87_PRECISION
ROUNDED_UP = X87_C1  # C1 tells the direction of rounding, or of a stack fault
STACK_UNDERFLOW = INVALID | X87_STACK_FAULT
STACK_OVERFLOW = INVALID | X87_STACK_FAULT | X87_C1
PRE_COMPUTATION = INVALID | DENORMAL | ZERO_DIVIDE  # unmasked, they leave the operands alone

# Places in cpu.fpu_value: the physical registers R0 to R7, then the values that an operation works on.
OPERAND_A, OPERAND_B, RESULT, SECOND, SCRATCH, WORK = range(8, 14)
SERIES, SQUARE, TERM = range(14, 17)

# Classes of values (volume 1, table 8-3).
CLASS_ZERO, CLASS_NORMAL, CLASS_DENORMAL, CLASS_INFINITY, CLASS_QUIET, CLASS_SIGNALING, CLASS_UNSUPPORTED = range(7)
EXPONENT_ONES = 0x7FFF
QUIET_BIT = 0x40000000


@kernel
def physical(cpu, i):
    """The physical register that ST(i) is."""
    return ((cpu.fpu_status >> X87_TOP_SHIFT) + i) & 7


@kernel
def is_empty(cpu, i):
    """Whether ST(i) is tagged empty."""
    return (cpu.fpu_occupied >> physical(cpu, i)) & 1 == 0


@kernel
def move_top(cpu, n):
    """Add to TOP, modulo 8."""
    cpu.fpu_status = (cpu.fpu_status & ~X87_TOP) | physical(cpu, n) << X87_TOP_SHIFT


@kernel
def pop(cpu):
    """Tag ST(0) empty and increment TOP."""
    cpu.fpu_occupied &= ~(1 << physical(cpu, 0))
    move_top(cpu, 1)


@kernel
def set_register(cpu, i, v):
    """ST(i) := v."""
    number = physical(cpu, i)
    copy_value(cpu.fpu_value[number], v)
    cpu.fpu_value[number].extra = 0
    cpu.fpu_occupied |= 1 << number


@kernel
def push(cpu, v):
    """Decrement TOP and write ST(0)."""
    move_top(cpu, 7)
    set_register(cpu, 0, v)


@kernel
def rounding_mode(cpu):
    """RC of the control word."""
    return (cpu.fpu_control >> 10) & 3


@kernel
def precision(cpu):
    """Significand bits that PC asks for; its reserved value counts as extended."""
    control = (cpu.fpu_control >> 8) & 3
    if control == 0:
        return 24
    if control == 2:
        return 53
    return 64


@kernel
def unmasked(cpu, exceptions):
    """Those of the given exceptions that the instruction met and the control word does not mask."""
    return cpu.fpu_flags & ~cpu.fpu_control & exceptions & X87_EXCEPTIONS


@kernel
def summarize(cpu):
    """ES and B follow the exceptions that are flagged and not masked."""
    if cpu.fpu_status & ~cpu.fpu_control & X87_EXCEPTIONS:
        cpu.fpu_status |= X87_ERROR_SUMMARY | X87_BUSY
    else:
        cpu.fpu_status &= ~(X87_ERROR_SUMMARY | X87_BUSY)


@kernel
def finish(cpu):
    """Bring what the instruction met into the status word; C1 is cleared unless it is among it."""
    cpu.fpu_status = (cpu.fpu_status & ~X87_C1) | cpu.fpu_flags
    summarize(cpu)


@kernel
def set_default_nan(v):
    """The real indefinite, the masked answer to an invalid operation."""
    set_value(v, 1, EXPONENT_ONES, 0xC0000000, 0, 0)


@kernel
def set_infinity(v, sign):
    """An infinity."""
    set_value(v, sign, EXPONENT_ONES, TOP_BIT, 0, 0)


@kernel
def classify(v):
    """The class of a value in register format (volume 1, table 8-3); a pseudo-denormal counts as a denormal."""
    fraction = (v.high & (TOP_BIT - 1)) | v.low
    if v.exponent == 0:
        if v.high | v.low == 0:
            return CLASS_ZERO
        return CLASS_DENORMAL
    if v.high & TOP_BIT == 0:
        return CLASS_UNSUPPORTED
    if v.exponent != EXPONENT_ONES:
        return CLASS_NORMAL
    if fraction == 0:
        return CLASS_INFINITY
    if v.high & QUIET_BIT:
        return CLASS_QUIET
    return CLASS_SIGNALING

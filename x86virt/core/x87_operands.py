"""Operands and results of x87 operations: NaNs, denormals, stack faults, and what unmasked exceptions hold back."""

from .float80 import copy_value, less_significand, normalise
from .jit import kernel
from .x87_state import (
    CLASS_DENORMAL,
    CLASS_QUIET,
    CLASS_SIGNALING,
    CLASS_UNSUPPORTED,
    DENORMAL,
    INVALID,
    OPERAND_A,
    OPERAND_B,
    PRE_COMPUTATION,
    QUIET_BIT,
    RESULT,
    STACK_UNDERFLOW,
    classify,
    is_empty,
    physical,
    set_default_nan,
    set_register,
    unmasked,
)


@kernel
def take(cpu, number, i):
    """Copy ST(i) to operand `number` (OPERAND_A or OPERAND_B) and note its class."""
    v = cpu.fpu_value[number]
    copy_value(v, cpu.fpu_value[physical(cpu, i)])
    cpu.fpu_class[number - OPERAND_A] = classify(v)


@kernel
def any_empty(cpu, i):
    """Stack underflow if ST(0) or ST(i) is empty: the flags, and the indefinite as the result."""
    if not is_empty(cpu, 0) and not is_empty(cpu, i):
        return False
    cpu.fpu_flags |= STACK_UNDERFLOW
    set_default_nan(cpu.fpu_value[RESULT])
    return True


@kernel
def is_nan(kind):
    """Whether a class is a quiet or signaling NaN."""
    return kind == CLASS_QUIET or kind == CLASS_SIGNALING


@kernel
def invalid(cpu):
    """An invalid operation: the indefinite is the result."""
    cpu.fpu_flags |= INVALID
    set_default_nan(cpu.fpu_value[RESULT])
    return True


@kernel
def answered_by_nan(cpu):
    """Whether a NaN or an unsupported operand decides the result of two operands (volume 1, table 4-7)."""
    a, b, r = cpu.fpu_value[OPERAND_A], cpu.fpu_value[OPERAND_B], cpu.fpu_value[RESULT]
    one, two = cpu.fpu_class[0], cpu.fpu_class[1]
    if one == CLASS_UNSUPPORTED or two == CLASS_UNSUPPORTED:
        return invalid(cpu)
    if not is_nan(one) and not is_nan(two):
        return False
    if one == CLASS_SIGNALING or two == CLASS_SIGNALING:
        cpu.fpu_flags |= INVALID
    if not is_nan(two):
        copy_value(r, a)
    elif not is_nan(one):
        copy_value(r, b)
    elif one == CLASS_SIGNALING and two == CLASS_QUIET:
        copy_value(r, b)
    elif one == CLASS_QUIET and two == CLASS_SIGNALING:
        copy_value(r, a)
    elif less_significand(a, b) or (not less_significand(b, a) and b.sign < a.sign):
        copy_value(r, b)
    else:
        copy_value(r, a)
    r.high |= QUIET_BIT
    return True


@kernel
def answered_by_one_nan(cpu):
    """The same for a single operand."""
    kind = cpu.fpu_class[0]
    if kind == CLASS_UNSUPPORTED:
        return invalid(cpu)
    if not is_nan(kind):
        return False
    if kind == CLASS_SIGNALING:
        cpu.fpu_flags |= INVALID
    r = cpu.fpu_value[RESULT]
    copy_value(r, cpu.fpu_value[OPERAND_A])
    r.high |= QUIET_BIT
    return True


@kernel
def normalise_operand(cpu, number):
    """Note a denormal operand and normalise it."""
    if cpu.fpu_class[number - OPERAND_A] == CLASS_DENORMAL:
        cpu.fpu_flags |= DENORMAL
        v = cpu.fpu_value[number]
        if v.exponent == 0:
            v.exponent = 1
            normalise(v)


@kernel
def deliver(cpu, i):
    """ST(i) := the result, unless an unmasked exception left the operands alone; whether it was written."""
    if unmasked(cpu, PRE_COMPUTATION) != 0:
        return False
    set_register(cpu, i, cpu.fpu_value[RESULT])
    return True

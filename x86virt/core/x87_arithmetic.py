"""Addition to division, comparison, and the operations on ST(0) that need no series (SDM volume 1, section 8.3)."""

from ..isa.registers import X87_C0, X87_C1, X87_C2, X87_C3
from ..isa.x87_ops import ADD, DIVIDE, MULTIPLY
from .float80 import BIAS, TOP, add, copy_value, divide, division_steps, is_zero, less_magnitude, multiply, normalise, set_value, square_root
from .float80_round import DOWN, WRAP, overflow, round_to_integer, round_value
from .jit import kernel
from .x87_operands import answered_by_nan, answered_by_one_nan, invalid, is_nan, normalise_operand
from .x87_state import (
    CLASS_DENORMAL,
    CLASS_INFINITY,
    CLASS_SIGNALING,
    CLASS_UNSUPPORTED,
    CLASS_ZERO,
    EXPONENT_ONES,
    INVALID,
    OPERAND_A,
    OPERAND_B,
    OVERFLOW,
    PRE_COMPUTATION,
    QUIET_BIT,
    RESULT,
    SECOND,
    STACK_OVERFLOW,
    UNDERFLOW,
    WORK,
    ZERO_DIVIDE,
    classify,
    is_empty,
    precision,
    push,
    rounding_mode,
    set_default_nan,
    set_infinity,
    set_register,
    unmasked,
)

LARGEST = EXPONENT_ONES - 1  # exponent of a finite number
CONDITIONS = X87_C0 | X87_C1 | X87_C2 | X87_C3
UNORDERED = X87_C0 | X87_C2 | X87_C3


@kernel
def round_extended(cpu):
    """Round the result to 64 bits."""
    round_value(cpu, cpu.fpu_value[RESULT], 64, 1, LARGEST)


@kernel
def zero_result(cpu, sign):
    """The result is a zero."""
    set_value(cpu.fpu_value[RESULT], sign, 0, 0, 0, 0)


# -- two operands ---------------------------------------------------------------------------------------------------


@kernel
def add_operands(cpu, b_sign):
    """RESULT := A + B, B taken as having the sign `b_sign`."""
    a, b, r = cpu.fpu_value[OPERAND_A], cpu.fpu_value[OPERAND_B], cpu.fpu_value[RESULT]
    one, two = cpu.fpu_class[0], cpu.fpu_class[1]
    if one == CLASS_INFINITY and two == CLASS_INFINITY and a.sign != b_sign:
        invalid(cpu)
        return
    normalise_operand(cpu, OPERAND_A)
    normalise_operand(cpu, OPERAND_B)
    if one == CLASS_INFINITY:
        copy_value(r, a)
    elif two == CLASS_INFINITY:
        set_infinity(r, b_sign)
    else:
        sign = int(a.sign)
        add(r, a, b, b_sign)
        if is_zero(r):
            if sign != b_sign:
                sign = int(rounding_mode(cpu) == DOWN)
            r.sign = sign


@kernel
def multiply_operands(cpu):
    """RESULT := A * B."""
    a, b = cpu.fpu_value[OPERAND_A], cpu.fpu_value[OPERAND_B]
    one, two = cpu.fpu_class[0], cpu.fpu_class[1]
    sign = int(a.sign) ^ int(b.sign)
    if (one == CLASS_INFINITY and two == CLASS_ZERO) or (one == CLASS_ZERO and two == CLASS_INFINITY):
        invalid(cpu)
        return
    normalise_operand(cpu, OPERAND_A)
    normalise_operand(cpu, OPERAND_B)
    if one == CLASS_INFINITY or two == CLASS_INFINITY:
        set_infinity(cpu.fpu_value[RESULT], sign)
    elif one == CLASS_ZERO or two == CLASS_ZERO:
        zero_result(cpu, sign)
    else:
        multiply(cpu.fpu_value[RESULT], a, b)


@kernel
def divide_operands(cpu, dividend, divisor):
    """RESULT := dividend / divisor, given as OPERAND_A and OPERAND_B or the reverse."""
    a, b = cpu.fpu_value[dividend], cpu.fpu_value[divisor]
    one, two = cpu.fpu_class[dividend - OPERAND_A], cpu.fpu_class[divisor - OPERAND_A]
    sign = int(a.sign) ^ int(b.sign)
    if one == two and (one == CLASS_INFINITY or one == CLASS_ZERO):
        invalid(cpu)
        return
    if two == CLASS_ZERO and one != CLASS_INFINITY:
        cpu.fpu_flags |= ZERO_DIVIDE
        set_infinity(cpu.fpu_value[RESULT], sign)
        return
    normalise_operand(cpu, OPERAND_A)
    normalise_operand(cpu, OPERAND_B)
    if one == CLASS_INFINITY:
        set_infinity(cpu.fpu_value[RESULT], sign)
    elif one == CLASS_ZERO or two == CLASS_INFINITY:
        zero_result(cpu, sign)
    else:
        divide(cpu.fpu_value[RESULT], a, b, cpu.fpu_value[WORK])


@kernel
def is_finite_result(cpu):
    """Whether the result is a number still to be rounded: neither infinite nor decided by an exception."""
    return cpu.fpu_class[0] != CLASS_INFINITY and cpu.fpu_class[1] != CLASS_INFINITY and unmasked(cpu, PRE_COMPUTATION) == 0


@kernel
def arithmetic(cpu, function):
    """RESULT := A function B, rounded to the precision that PC asks for."""
    if answered_by_nan(cpu):
        return
    if function == ADD:
        add_operands(cpu, int(cpu.fpu_value[OPERAND_B].sign))
    elif function == MULTIPLY:
        multiply_operands(cpu)
    elif function < DIVIDE:
        minuend, subtrahend = OPERAND_A, OPERAND_B
        if function & 1 == 1:
            exchange_operands(cpu)
        add_operands(cpu, 1 - int(cpu.fpu_value[subtrahend].sign))
    elif function == DIVIDE:
        divide_operands(cpu, OPERAND_A, OPERAND_B)
    else:
        divide_operands(cpu, OPERAND_B, OPERAND_A)
    if cpu.fpu_flags & (INVALID | ZERO_DIVIDE) == 0 and is_finite_result(cpu):
        round_value(cpu, cpu.fpu_value[RESULT], precision(cpu), 1, LARGEST)


@kernel
def exchange_operands(cpu):
    """Exchange the operands and their classes."""
    work = cpu.fpu_value[WORK]
    copy_value(work, cpu.fpu_value[OPERAND_A])
    copy_value(cpu.fpu_value[OPERAND_A], cpu.fpu_value[OPERAND_B])
    copy_value(cpu.fpu_value[OPERAND_B], work)
    kind = cpu.fpu_class[0]
    cpu.fpu_class[0] = cpu.fpu_class[1]
    cpu.fpu_class[1] = kind


@kernel
def compare(cpu, quiet):
    """The condition codes of A against B; an unordered pair is invalid unless `quiet` and neither signals."""
    one, two = cpu.fpu_class[0], cpu.fpu_class[1]
    if one >= CLASS_SIGNALING or two >= CLASS_SIGNALING:
        cpu.fpu_flags |= INVALID
        return UNORDERED
    if is_nan(one) or is_nan(two):
        if quiet == 0:
            cpu.fpu_flags |= INVALID
        return UNORDERED
    normalise_operand(cpu, OPERAND_A)
    normalise_operand(cpu, OPERAND_B)
    a, b = cpu.fpu_value[OPERAND_A], cpu.fpu_value[OPERAND_B]
    less, greater = less_magnitude(a, b), less_magnitude(b, a)
    if one == CLASS_ZERO and two == CLASS_ZERO:
        return X87_C3
    if a.sign != b.sign:
        return a.sign * X87_C0
    if not less and not greater:
        return X87_C3
    if less == (a.sign == 0):
        return X87_C0
    return 0


# -- one operand ----------------------------------------------------------------------------------------------------


@kernel
def root(cpu):
    """FSQRT."""
    a = cpu.fpu_value[OPERAND_A]
    if answered_by_one_nan(cpu):
        return
    kind = cpu.fpu_class[0]
    if kind == CLASS_ZERO or (kind == CLASS_INFINITY and a.sign == 0):
        copy_value(cpu.fpu_value[RESULT], a)
    elif a.sign == 1:
        invalid(cpu)
    else:
        normalise_operand(cpu, OPERAND_A)
        square_root(cpu.fpu_value[RESULT], a)
        round_value(cpu, cpu.fpu_value[RESULT], precision(cpu), 1, LARGEST)


@kernel
def round_to_integral(cpu):
    """FRNDINT."""
    r = cpu.fpu_value[RESULT]
    if answered_by_one_nan(cpu):
        return
    normalise_operand(cpu, OPERAND_A)
    copy_value(r, cpu.fpu_value[OPERAND_A])
    if cpu.fpu_class[0] == CLASS_ZERO or r.exponent >= BIAS + 63:
        return
    cpu.fpu_flags |= round_to_integer(r, rounding_mode(cpu))
    if is_zero(r):
        r.exponent = 0
    else:
        normalise(r)


@kernel
def scale(cpu):
    """FSCALE: ST(0) * 2**(ST(1) chopped to an integer), A and B being ST(0) and ST(1)."""
    a, b, r = cpu.fpu_value[OPERAND_A], cpu.fpu_value[OPERAND_B], cpu.fpu_value[RESULT]
    if answered_by_nan(cpu):
        return
    one, two = cpu.fpu_class[0], cpu.fpu_class[1]
    if two == CLASS_INFINITY:
        if (b.sign == 0 and one == CLASS_ZERO) or (b.sign == 1 and one == CLASS_INFINITY):
            invalid(cpu)
            return
        normalise_operand(cpu, OPERAND_A)
        if b.sign == 0:
            set_infinity(r, a.sign)
        else:
            zero_result(cpu, a.sign)
        return
    normalise_operand(cpu, OPERAND_A)
    normalise_operand(cpu, OPERAND_B)
    copy_value(r, a)
    if one == CLASS_INFINITY or one == CLASS_ZERO:
        return
    r.exponent += scale_count(b)
    round_extended(cpu)
    beyond_wrap(cpu)


@kernel
def scale_count(b):
    """The scale factor as an integer, kept within what decides the result."""
    if is_zero(b) or b.exponent < BIAS:
        return 0
    count = 1 << 16
    if b.exponent < BIAS + 16:
        count = int(b.high) >> (BIAS + 31 - int(b.exponent))
    if b.sign == 1:
        return -count
    return count


@kernel
def beyond_wrap(cpu):
    """A result that even a wrapped exponent cannot hold becomes a zero or an infinity."""
    r = cpu.fpu_value[RESULT]
    if r.exponent < 0:
        set_value(r, r.sign, 0, 0, 0, 0)
    elif r.exponent > EXPONENT_ONES:
        set_infinity(r, r.sign)


@kernel
def extract(cpu):
    """FXTRACT: RESULT := the exponent, SECOND := the significand, A being ST(0)."""
    a, r, second = cpu.fpu_value[OPERAND_A], cpu.fpu_value[RESULT], cpu.fpu_value[SECOND]
    if answered_by_one_nan(cpu):
        copy_value(second, r)
        return
    copy_value(second, a)
    if cpu.fpu_class[0] == CLASS_ZERO:
        cpu.fpu_flags |= ZERO_DIVIDE
        set_infinity(r, 1)
        return
    if cpu.fpu_class[0] == CLASS_INFINITY:
        set_infinity(r, 0)
        return
    normalise_operand(cpu, OPERAND_A)
    set_value(second, a.sign, BIAS, a.high, a.low, 0)
    exponent = int(a.exponent) - BIAS
    set_value(r, int(exponent < 0), BIAS + 31, abs(exponent), 0, 0)
    if exponent == 0:
        r.exponent = 0
    else:
        normalise(r)


@kernel
def remainder(cpu, to_nearest):
    """FPREM and FPREM1 (volume 2): RESULT := the partial remainder of A by B; returns the condition codes.

    A difference of exponents of 64 or more is reduced by 32 to 63, and C2 says that the remainder is not complete.
    """
    a, b, r = cpu.fpu_value[OPERAND_A], cpu.fpu_value[OPERAND_B], cpu.fpu_value[RESULT]
    if answered_by_nan(cpu):
        return 0
    one, two = cpu.fpu_class[0], cpu.fpu_class[1]
    if one == CLASS_INFINITY or two == CLASS_ZERO:
        invalid(cpu)
        return 0
    normalise_operand(cpu, OPERAND_A)
    normalise_operand(cpu, OPERAND_B)
    copy_value(r, a)
    if one == CLASS_ZERO or two == CLASS_INFINITY or unmasked(cpu, PRE_COMPUTATION) != 0:
        if two == CLASS_INFINITY and one != CLASS_ZERO:
            round_extended(cpu)
        return 0
    distance = int(a.exponent) - int(b.exponent)
    # 1. A partial reduction leaves the low bits of the quotient unknown.
    if distance >= 64:
        count = 32 + (distance & 31)
        reduce(cpu, count)
        r.exponent = int(a.exponent) - count
        finish_remainder(cpu, int(a.sign))
        return X87_C2
    # 2. The quotient, chopped.
    quotient = 0
    if distance >= 0:
        quotient = reduce(cpu, distance)
        r.exponent = int(b.exponent)
    # 3. To nearest: once more if more than half of b remains, or half of it and an odd quotient.
    sign = int(a.sign)
    if to_nearest == 1 and is_more_than_half(cpu, quotient & 1):
        r.sign = 0
        set_sign = b.sign
        b.sign = 0
        add(r, b, r, 1)
        b.sign = set_sign
        sign = 1 - sign
        quotient += 1
    finish_remainder(cpu, sign)
    return (quotient >> 2 & 1) * X87_C0 | (quotient >> 1 & 1) * X87_C3 | (quotient & 1) * X87_C1


@kernel
def reduce(cpu, count):
    """Reduce the significand of RESULT by that of B shifted left `count` bits and less; the quotient's low bits."""
    q = cpu.fpu_value[WORK]
    division_steps(q, cpu.fpu_value[RESULT], cpu.fpu_value[OPERAND_B], count + 1)
    return int(q.extra)


@kernel
def finish_remainder(cpu, sign):
    """Normalise a remainder, which is exact, give it its sign, and meet an underflow that is not masked."""
    r = cpu.fpu_value[RESULT]
    r.sign = sign
    if is_zero(r):
        r.exponent = 0
        return
    normalise(r)
    round_extended(cpu)


@kernel
def is_more_than_half(cpu, odd):
    """Whether twice the remainder exceeds B, or equals it with an odd quotient."""
    r, b, twice = cpu.fpu_value[RESULT], cpu.fpu_value[OPERAND_B], cpu.fpu_value[WORK]
    copy_value(twice, r)
    if is_zero(twice):
        return False
    normalise(twice)
    twice.exponent += 1
    if less_magnitude(b, twice):
        return True
    return odd == 1 and not less_magnitude(twice, b)

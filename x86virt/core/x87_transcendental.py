"""The transcendental instructions (SDM volume 1, section 8.3.6 to 8.3.10): A is ST(0), B is ST(1).

Each reduces its argument to where a power series converges fast, sums that with 96 bits, and rounds once by RC to 64
bits; PC has no effect. The special operands are those of the tables in volume 2.
"""

from .float80 import BIAS, TOP, add, copy_value, divide, division_steps, is_zero, less_magnitude, multiply, normalise, set_value, square_root
from .float80_series import (
    ARCTANGENT,
    ARCTANGENT_TERMS,
    CONSTANT,
    COSINE,
    EXPONENTIAL,
    EXPONENTIAL_TERMS,
    HALF_PI,
    LN2,
    LOGARITHM,
    LOGARITHM_TERMS,
    ONE,
    PI_ROW,
    QUARTER_PI,
    REDUCTION,
    ROOT3,
    SINE,
    SINE_TERMS,
    SIXTH_PI,
    THREE_QUARTERS,
    TWICE_LOG2_E,
    TWO,
    polynomial,
)
from .jit import kernel
from .x87_arithmetic import round_extended, zero_result
from .x87_operands import answered_by_nan, answered_by_one_nan, invalid, normalise_operand
from .x87_state import (
    CLASS_INFINITY,
    CLASS_ZERO,
    DENORMAL,
    OPERAND_A,
    OPERAND_B,
    PRECISION,
    PRE_COMPUTATION,
    RESULT,
    SECOND,
    SERIES,
    SQUARE,
    TERM,
    WORK,
    ZERO_DIVIDE,
    set_infinity,
    unmasked,
)

NEARLY_ZERO = BIAS - 68  # below this exponent the first term of a series is all that 64 bits can hold
RANGE = BIAS + 63  # FSIN and its kin take arguments below 2**63
SMALL = BIAS - 2


@kernel
def round_inexact(cpu):
    """Round a result that is never exact."""
    cpu.fpu_value[RESULT].extra |= 1
    round_extended(cpu)


# -- powers of two --------------------------------------------------------------------------------------------------


@kernel
def power_of_2(cpu):
    """F2XM1: RESULT := 2**A - 1. Outside -1 to 1 the manual leaves the result undefined: here it is the source."""
    a, r, t = cpu.fpu_value[OPERAND_A], cpu.fpu_value[RESULT], cpu.fpu_value[TERM]
    if answered_by_one_nan(cpu):
        return
    copy_value(r, a)
    if cpu.fpu_class[0] == CLASS_INFINITY:
        if a.sign == 1:
            copy_value(r, CONSTANT[ONE])
            r.sign = 1
        return
    if cpu.fpu_class[0] == CLASS_ZERO:
        return
    normalise_operand(cpu, OPERAND_A)
    copy_value(r, a)
    if unmasked(cpu, DENORMAL) != 0:
        return
    if a.exponent >= BIAS:
        if a.exponent == BIAS and a.high == TOP and a.low == 0:
            copy_value(r, CONSTANT[ONE])  # 2 - 1, or 1/2 - 1
            r.sign = a.sign
            r.exponent -= a.sign
        return
    multiply(t, a, CONSTANT[LN2])
    copy_value(r, t)
    if t.exponent > NEARLY_ZERO - 32:
        polynomial(cpu.fpu_value[SERIES], t, EXPONENTIAL, EXPONENTIAL_TERMS)
        multiply(r, t, cpu.fpu_value[SERIES])
    round_inexact(cpu)


# -- logarithms -----------------------------------------------------------------------------------------------------


@kernel
def logarithm_of_ratio(cpu, z):
    """SECOND := log2((1 + z) / (1 - z)) for |z| < 0.1716, z not zero."""
    second, series, square = cpu.fpu_value[SECOND], cpu.fpu_value[SERIES], cpu.fpu_value[SQUARE]
    multiply(second, z, CONSTANT[TWICE_LOG2_E])
    if z.exponent > NEARLY_ZERO:
        multiply(square, z, z)
        polynomial(series, square, LOGARITHM, LOGARITHM_TERMS)
        multiply(second, second, series)


@kernel
def base_2_logarithm(cpu, v):
    """SECOND := log2(v) for a positive finite v; zero if v is 1."""
    second, t, work = cpu.fpu_value[SECOND], cpu.fpu_value[TERM], cpu.fpu_value[WORK]
    # 1. v = 2**k * m with m from 3/4 to 3/2.
    k = int(v.exponent) - BIAS
    v.exponent = BIAS
    if v.high & 0x40000000 != 0:
        v.exponent = BIAS - 1
        k += 1
    # 2. log2(m) by z = (m - 1) / (m + 1).
    add(t, v, CONSTANT[ONE], 1)
    set_value(second, 0, 0, 0, 0, 0)
    if not is_zero(t):
        add(v, v, CONSTANT[ONE], 0)
        divide(cpu.fpu_value[SERIES], t, v, work)
        copy_value(t, cpu.fpu_value[SERIES])
        logarithm_of_ratio(cpu, t)
    # 3. Add k.
    if k != 0:
        set_value(t, int(k < 0), BIAS + 31, abs(k), 0, 0)
        normalise(t)
        add(second, second, t, t.sign)


@kernel
def times_logarithm(cpu):
    """RESULT := B * SECOND, which is exact only where the logarithm is an integer."""
    r, b, second = cpu.fpu_value[RESULT], cpu.fpu_value[OPERAND_B], cpu.fpu_value[SECOND]
    if is_zero(second):
        zero_result(cpu, b.sign)
        return
    exact = second.low | second.extra == 0
    multiply(r, b, second)
    if not exact:
        r.extra |= 1
    round_extended(cpu)


@kernel
def logarithm(cpu):
    """FYL2X: RESULT := B * log2(A)."""
    a, b, r = cpu.fpu_value[OPERAND_A], cpu.fpu_value[OPERAND_B], cpu.fpu_value[RESULT]
    one, two = cpu.fpu_class[0], cpu.fpu_class[1]
    if answered_by_nan(cpu):
        return
    if a.sign == 1 and one != CLASS_ZERO:
        invalid(cpu)
        return
    if one == CLASS_ZERO:
        if two == CLASS_ZERO:
            invalid(cpu)
            return
        if two != CLASS_INFINITY:
            cpu.fpu_flags |= ZERO_DIVIDE
        set_infinity(r, 1 - b.sign)
        return
    normalise_operand(cpu, OPERAND_A)
    if one == CLASS_INFINITY:
        times_infinity(cpu, b.sign)
        return
    below = int(a.exponent < BIAS)
    is_one = a.exponent == BIAS and a.high == TOP and a.low == 0
    if two == CLASS_INFINITY:
        if is_one:
            invalid(cpu)
        else:
            set_infinity(r, int(b.sign) ^ below)
        return
    if two == CLASS_ZERO:
        zero_result(cpu, int(b.sign) ^ below)
        return
    normalise_operand(cpu, OPERAND_B)
    if unmasked(cpu, PRE_COMPUTATION) != 0:
        return
    base_2_logarithm(cpu, a)
    times_logarithm(cpu)


@kernel
def times_infinity(cpu, sign):
    """RESULT := an infinity of a sign, as the product of B with an infinity: invalid for a zero."""
    if cpu.fpu_class[1] == CLASS_ZERO:
        invalid(cpu)
        return
    normalise_operand(cpu, OPERAND_B)
    set_infinity(cpu.fpu_value[RESULT], sign)


@kernel
def logarithm_plus_1(cpu):
    """FYL2XP1: RESULT := B * log2(A + 1). The manual defines it for |A| below 1 - sqrt(1/2); A of -1 or less is invalid."""
    a, b, r = cpu.fpu_value[OPERAND_A], cpu.fpu_value[OPERAND_B], cpu.fpu_value[RESULT]
    one, two = cpu.fpu_class[0], cpu.fpu_class[1]
    if answered_by_nan(cpu):
        return
    sign = int(a.sign) ^ int(b.sign)
    if one == CLASS_INFINITY:
        if a.sign == 1:
            invalid(cpu)
        else:
            times_infinity(cpu, b.sign)
        return
    if one != CLASS_ZERO and a.sign == 1 and a.exponent >= BIAS:
        invalid(cpu)
        return
    if two == CLASS_INFINITY:
        if one == CLASS_ZERO:
            invalid(cpu)
        else:
            normalise_operand(cpu, OPERAND_A)
            set_infinity(r, sign)
        return
    normalise_operand(cpu, OPERAND_A)
    normalise_operand(cpu, OPERAND_B)
    if unmasked(cpu, PRE_COMPUTATION) != 0:
        return
    if one == CLASS_ZERO or two == CLASS_ZERO:
        zero_result(cpu, sign)
        return
    t, work = cpu.fpu_value[TERM], cpu.fpu_value[WORK]
    if a.exponent < SMALL:
        # z = A / (A + 2)
        add(t, a, CONSTANT[TWO], 0)
        divide(cpu.fpu_value[SERIES], a, t, work)
        copy_value(t, cpu.fpu_value[SERIES])
        logarithm_of_ratio(cpu, t)
    else:
        add(a, a, CONSTANT[ONE], 0)
        base_2_logarithm(cpu, a)
    times_logarithm(cpu)


# -- sine, cosine, tangent ------------------------------------------------------------------------------------------


@kernel
def reduce_angle(cpu):
    """TERM := A less the nearest multiple of pi/2, with 66 bits of pi; returns the multiple modulo 4."""
    a, t, work = cpu.fpu_value[OPERAND_A], cpu.fpu_value[TERM], cpu.fpu_value[WORK]
    copy_value(t, a)
    t.sign = 0
    quotient = 0
    distance = int(a.exponent) - int(CONSTANT[REDUCTION].exponent)
    if distance >= 0:
        division_steps(work, t, CONSTANT[REDUCTION], distance + 1)
        quotient = int(work.extra)
        t.exponent = CONSTANT[REDUCTION].exponent
        normalise(t)
    # More than pi/4 left: the next multiple is nearer.
    if less_magnitude(CONSTANT[QUARTER_PI], t):
        add(t, t, CONSTANT[REDUCTION], 1)
        quotient += 1
    if a.sign == 1:
        t.sign = 1 - t.sign
        quotient = 0 - quotient
    return quotient & 3


@kernel
def sine_series(cpu, r):
    """r := sin(TERM), |TERM| <= pi/4."""
    t, square = cpu.fpu_value[TERM], cpu.fpu_value[SQUARE]
    copy_value(r, t)
    if is_zero(t) or t.exponent < NEARLY_ZERO:
        return
    multiply(square, t, t)
    polynomial(cpu.fpu_value[SERIES], square, SINE, SINE_TERMS)
    multiply(r, t, cpu.fpu_value[SERIES])


@kernel
def cosine_series(cpu, r):
    """r := cos(TERM), |TERM| <= pi/4; an argument so small that the cosine rounds to 1 leaves it just below."""
    t, square = cpu.fpu_value[TERM], cpu.fpu_value[SQUARE]
    if is_zero(t) or t.exponent < NEARLY_ZERO:
        set_value(r, 0, BIAS - 1, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
        return
    multiply(square, t, t)
    polynomial(r, square, COSINE, SINE_TERMS)


@kernel
def quarter_turn(cpu, r, quadrant):
    """r := sin(TERM + quadrant * pi/2)."""
    if quadrant & 1 == 1:
        cosine_series(cpu, r)
    else:
        sine_series(cpu, r)
    if quadrant & 2 != 0:
        r.sign = 1 - r.sign


@kernel
def angle_is_simple(cpu, with_cosine):
    """FSIN, FCOS, FSINCOS and FPTAN of a NaN, an infinity or a zero: 1 done, 0 to be computed, -1 out of range (C2).

    RESULT gets the sine or tangent, SECOND the cosine or the 1 that FPTAN pushes.
    """
    r, second = cpu.fpu_value[RESULT], cpu.fpu_value[SECOND]
    if answered_by_one_nan(cpu):
        copy_value(second, r)
        return 1
    if cpu.fpu_class[0] == CLASS_INFINITY:
        invalid(cpu)
        copy_value(second, r)
        return 1
    if cpu.fpu_class[0] == CLASS_ZERO:
        copy_value(r, cpu.fpu_value[OPERAND_A])
        copy_value(second, CONSTANT[ONE])
        return 1
    if cpu.fpu_value[OPERAND_A].exponent >= RANGE:
        return -1
    normalise_operand(cpu, OPERAND_A)
    if unmasked(cpu, DENORMAL) != 0:
        return 1
    return 0


@kernel
def round_second(cpu):
    """Round SECOND, which is never exact, without touching the result."""
    keep = cpu.fpu_value[WORK]
    copy_value(keep, cpu.fpu_value[RESULT])
    copy_value(cpu.fpu_value[RESULT], cpu.fpu_value[SECOND])
    round_inexact(cpu)
    copy_value(cpu.fpu_value[SECOND], cpu.fpu_value[RESULT])
    copy_value(cpu.fpu_value[RESULT], keep)


@kernel
def sine_cosine(cpu):
    """RESULT := sin(A), SECOND := cos(A); whether A was in range."""
    simple = angle_is_simple(cpu, 1)
    if simple == 0:
        quadrant = reduce_angle(cpu)
        quarter_turn(cpu, cpu.fpu_value[SECOND], quadrant + 1)
        quarter_turn(cpu, cpu.fpu_value[RESULT], quadrant)
        round_second(cpu)
        round_inexact(cpu)
    return simple >= 0


@kernel
def sine(cpu):
    """FSIN; whether A was in range."""
    simple = angle_is_simple(cpu, 0)
    if simple == 0:
        quarter_turn(cpu, cpu.fpu_value[RESULT], reduce_angle(cpu))
        round_inexact(cpu)
    return simple >= 0


@kernel
def cosine(cpu):
    """FCOS; whether A was in range."""
    r = cpu.fpu_value[RESULT]
    simple = angle_is_simple(cpu, 1)
    if simple == 0:
        quarter_turn(cpu, r, reduce_angle(cpu) + 1)
        round_inexact(cpu)
    elif simple == 1:
        copy_value(r, cpu.fpu_value[SECOND])
    return simple >= 0


@kernel
def tangent(cpu):
    """FPTAN: RESULT := tan(A), SECOND := 1; whether A was in range."""
    r, second = cpu.fpu_value[RESULT], cpu.fpu_value[SECOND]
    simple = angle_is_simple(cpu, 1)
    if simple == 0:
        quadrant = reduce_angle(cpu)
        quarter_turn(cpu, second, quadrant + 1)
        quarter_turn(cpu, cpu.fpu_value[SQUARE], quadrant)
        divide_tangent(cpu)
        round_inexact(cpu)
        copy_value(second, CONSTANT[ONE])
    return simple >= 0


@kernel
def divide_tangent(cpu):
    """RESULT := SQUARE / SECOND, the sine by the cosine."""
    divide(cpu.fpu_value[RESULT], cpu.fpu_value[SQUARE], cpu.fpu_value[SECOND], cpu.fpu_value[WORK])


# -- arctangent -----------------------------------------------------------------------------------------------------


@kernel
def arctangent_series(cpu, z):
    """TERM := atan(z) for z from 0 to 1, z not zero; z is used up."""
    t, square, series, work = (
        cpu.fpu_value[TERM], cpu.fpu_value[SQUARE], cpu.fpu_value[SERIES], cpu.fpu_value[WORK]
    )  # fmt: skip
    # 1. Beyond about tan(pi/12), atan(z) = pi/6 + atan((z * sqrt(3) - 1) / (z + sqrt(3))).
    turned = z.exponent >= SMALL
    if turned:
        multiply(square, z, CONSTANT[ROOT3])
        add(square, square, CONSTANT[ONE], 1)
        add(z, z, CONSTANT[ROOT3], 0)
        if not is_zero(square):
            divide(series, square, z, work)
            copy_value(square, series)
        copy_value(z, square)
    # 2. The series.
    copy_value(t, z)
    if not is_zero(z) and z.exponent >= NEARLY_ZERO:
        multiply(square, z, z)
        polynomial(series, square, ARCTANGENT, ARCTANGENT_TERMS)
        multiply(t, z, series)
    if turned:
        add(t, t, CONSTANT[SIXTH_PI], 0)


@kernel
def arctangent_of_special(cpu, sign):
    """FPATAN where an operand is zero or infinite (volume 2, table of FPATAN): whether the result is decided."""
    a, r = cpu.fpu_value[OPERAND_A], cpu.fpu_value[RESULT]
    one, two = cpu.fpu_class[0], cpu.fpu_class[1]
    if one != CLASS_INFINITY and one != CLASS_ZERO and two != CLASS_INFINITY and two != CLASS_ZERO:
        return False
    if two == CLASS_INFINITY and one == CLASS_INFINITY:
        copy_value(r, CONSTANT[QUARTER_PI])
        if a.sign == 1:
            multiply(r, CONSTANT[QUARTER_PI], CONSTANT[THREE_QUARTERS])
            r.exponent += 2
    elif two == CLASS_INFINITY or (one == CLASS_ZERO and two != CLASS_ZERO):
        copy_value(r, CONSTANT[HALF_PI])
    elif a.sign == 1:
        copy_value(r, CONSTANT[PI_ROW])
    else:
        zero_result(cpu, sign)
        return True
    r.sign = sign
    round_inexact(cpu)
    return True


@kernel
def arctangent(cpu):
    """FPATAN: RESULT := the angle of the point with abscissa A and ordinate B."""
    a, b, r, t = cpu.fpu_value[OPERAND_A], cpu.fpu_value[OPERAND_B], cpu.fpu_value[RESULT], cpu.fpu_value[TERM]
    if answered_by_nan(cpu):
        return
    sign, left = int(b.sign), int(a.sign)
    normalise_operand(cpu, OPERAND_A)
    normalise_operand(cpu, OPERAND_B)
    if unmasked(cpu, DENORMAL) != 0 or arctangent_of_special(cpu, sign):
        return
    # 1. The quotient of the smaller by the larger.
    a.sign = b.sign = 0
    steep = less_magnitude(a, b)
    second = cpu.fpu_value[SECOND]
    if steep:
        divide(second, a, b, cpu.fpu_value[WORK])
    else:
        divide(second, b, a, cpu.fpu_value[WORK])
    # 2. A tiny quotient, whose square could leave the range, is its own arctangent; an exact one rounds as itself.
    arctangent_series(cpu, second)
    if steep:
        # pi/2 - atan(a/b), or pi/2 + atan(a/b) on the left.
        add(t, CONSTANT[HALF_PI], t, 1 - left)
    elif left == 1:
        add(t, CONSTANT[PI_ROW], t, 1)
    copy_value(r, t)
    r.sign = sign
    round_inexact(cpu)

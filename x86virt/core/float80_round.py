"""Rounding to 24, 53 or 64 bits within a range of exponents, and the exceptions that it meets (SDM volume 1, 4.8, 4.9)."""

from .float80 import BIAS, TOP, copy_value, is_zero, less_magnitude, shift_right
from .jit import kernel
from .x87_state import OVERFLOW, PRECISION, ROUNDED_UP, SCRATCH, UNDERFLOW, rounding_mode

NEAREST, DOWN, UP, CHOP = range(4)
WRAP = 24576  # what an unmasked overflow or underflow takes from or adds to the exponent


@kernel
def goes_up(mode, sign, odd, half, below):
    """Whether a magnitude is rounded up: its last kept bit, the first bit dropped, and whether any further one is set."""
    if mode == NEAREST:
        return half == 1 and (below != 0 or odd == 1)
    if mode == DOWN:
        return sign == 1 and (half == 1 or below != 0)
    if mode == UP:
        return sign == 0 and (half == 1 or below != 0)
    return False


@kernel
def round_significand(v, keep, mode):
    """Round the significand to its first `keep` bits (24, 53 or 64): PRECISION and ROUNDED_UP as they apply.

    A carry out of the top leaves 1.0 and adds one to the exponent.
    """
    high, low, extra = int(v.high), int(v.low), int(v.extra)
    if keep == 64:
        odd, half, below = low & 1, extra >> 31, extra & (TOP - 1)
    elif keep == 53:
        odd, half, below = low >> 11 & 1, low >> 10 & 1, low & 0x3FF | extra
        low &= ~0x7FF
    else:
        odd, half, below = high >> 8 & 1, high >> 7 & 1, high & 0x7F | low | extra
        high &= ~0xFF
        low = 0
    flags = 0
    if half | below != 0:
        flags = PRECISION
    if goes_up(mode, v.sign, odd, half, below):
        flags |= ROUNDED_UP
        if keep == 24:
            high += 1 << 8
        else:
            low += 1 << (64 - keep)
            high += low >> 32
            low &= 0xFFFFFFFF
        if high > 0xFFFFFFFF:
            high = TOP
            low = 0
            v.exponent += 1
    v.high = high
    v.low = low
    v.extra = 0
    return flags


@kernel
def overflow(cpu, v, keep, highest):
    """The masked response to overflow: infinity (exponent highest + 1) or the largest value, by the rounding mode."""
    mode = rounding_mode(cpu)
    flags = OVERFLOW | PRECISION
    v.extra = 0
    if mode == NEAREST or (mode == UP and v.sign == 0) or (mode == DOWN and v.sign == 1):
        v.exponent = highest + 1
        v.high = TOP
        v.low = 0
        return flags | ROUNDED_UP
    v.exponent = highest
    v.high = 0xFFFFFFFF
    v.low = 0xFFFFFFFF
    if keep == 53:
        v.low = 0xFFFFF800
    elif keep == 24:
        v.high = 0xFFFFFF00
        v.low = 0
    return flags


@kernel
def round_value(cpu, v, keep, lowest, highest):
    """Round a value to `keep` bits and exponents `lowest` to `highest`; notes the exceptions in cpu.fpu_flags.

    A denormal result has the exponent `lowest` - 1. Where overflow or underflow is not masked, the exponent is wrapped.
    """
    if is_zero(v):
        return
    mode = rounding_mode(cpu)
    flags = 0
    # 1. Tininess is detected after rounding as if the exponent had no bound.
    tiny = v.exponent < lowest
    if v.exponent == lowest - 1:
        trial = cpu.fpu_value[SCRATCH]
        copy_value(trial, v)
        round_significand(trial, keep, mode)
        tiny = trial.exponent < lowest
    # 2. Masked underflow: a denormal, and an exception only if it is inexact.
    if tiny and cpu.fpu_control & UNDERFLOW != 0:
        shift_right(v, lowest - int(v.exponent))
        v.exponent = lowest - 1
        flags = round_significand(v, keep, mode)
        if v.high & TOP != 0:
            v.exponent = lowest
        if flags != 0:
            flags |= UNDERFLOW
        cpu.fpu_flags |= flags
        return
    # 3. Everything else.
    flags = round_significand(v, keep, mode)
    if tiny:
        flags |= UNDERFLOW
        v.exponent += WRAP
    elif v.exponent > highest:
        if cpu.fpu_control & OVERFLOW != 0:
            flags = overflow(cpu, v, keep, highest)
        else:
            flags |= OVERFLOW
            v.exponent -= WRAP
    cpu.fpu_flags |= flags


@kernel
def round_to_integer(v, mode):
    """Round a finite value to an integer: its magnitude in the two high words, at weight 2**0, and the flags.

    The exponent then says by `BIAS + 63`, or one more after a carry, what the words mean.
    """
    distance = BIAS + 63 - int(v.exponent)
    if distance > 0:
        shift_right(v, distance)
        v.exponent = BIAS + 63
    return round_significand(v, 64, mode)


@kernel
def same_magnitude(a, b):
    """Whether |a| = |b|."""
    return not less_magnitude(a, b) and not less_magnitude(b, a)

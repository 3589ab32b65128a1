"""Conversion between register format and the formats in memory (SDM volume 1, sections 4.2, 4.7 and 8.1.2).

Both directions go through cpu.fpu_integer, which holds the bits of the memory format in words of 32.
"""

from ..isa.x87_ops import DECIMAL, DOUBLE, EXTENDED, SINGLE, WORD
from .float80 import BIAS, TOP, is_zero, normalise, set_value
from .float80_round import round_to_integer, round_value
from .jit import kernel
from .x87_state import (
    CLASS_DENORMAL,
    CLASS_INFINITY,
    CLASS_QUIET,
    CLASS_SIGNALING,
    CLASS_UNSUPPORTED,
    CLASS_ZERO,
    EXPONENT_ONES,
    INVALID,
    QUIET_BIT,
    classify,
    rounding_mode,
    set_default_nan,
)

M32 = 0xFFFFFFFF
DECIMAL_DIGITS = 18
LARGEST_DECIMAL_HIGH = 0x0DE0B6B3  # upper half of 10**18
LARGEST_DECIMAL = 10**DECIMAL_DIGITS - 1


# -- from memory ----------------------------------------------------------------------------------------------------


@kernel
def set_words(cpu, low, middle, high):
    """Fill cpu.fpu_integer."""
    cpu.fpu_integer[0] = low
    cpu.fpu_integer[1] = middle
    cpu.fpu_integer[2] = high


@kernel
def from_binary(v, sign, exponent, high, low, ones):
    """A single or double value whose fraction is in (high, low) behind the top bit; `ones` is its largest exponent.

    Returns its class. A denormal is normalised, since it is a normal number in register format.
    """
    half = ones >> 1
    if exponent == ones:
        set_value(v, sign, EXPONENT_ONES, high | TOP, low, 0)
        return classify(v)
    if exponent != 0:
        set_value(v, sign, exponent - half + BIAS, high | TOP, low, 0)
        return classify(v)
    if high | low == 0:
        set_value(v, sign, 0, 0, 0, 0)
        return CLASS_ZERO
    set_value(v, sign, 1 - half + BIAS, high, low, 0)
    normalise(v)
    return CLASS_DENORMAL


@kernel
def from_integer(v, sign, high, low):
    """The value of an integer of 64 bits and a sign; always exact."""
    set_value(v, sign, 0, high, low, 0)
    if not is_zero(v):
        v.exponent = BIAS + 63
        normalise(v)
    return classify(v)


@kernel
def from_decimal(v, low, middle, high):
    """The value of a packed decimal integer; digits that are none count as they stand."""
    magnitude = high & 0xFF
    magnitude = (magnitude >> 4) * 10 + (magnitude & 15)
    for number in range(16):
        digits = middle
        if number >= 8:
            digits = low
        magnitude = magnitude * 10 + ((digits >> (28 - 4 * (number & 7))) & 15)
    outcome = from_integer(v, 0, (magnitude >> 32) & M32, magnitude & M32)
    v.sign = high >> 15
    return outcome


@kernel
def from_memory_format(cpu, v, form):
    """Convert what was read to a value; returns its class."""
    low, middle, high = int(cpu.fpu_integer[0]), int(cpu.fpu_integer[1]), int(cpu.fpu_integer[2])
    if form == SINGLE:
        return from_binary(v, low >> 31, (low >> 23) & 0xFF, (low << 8) & (TOP - 1), 0, 0xFF)
    if form == DOUBLE:
        fraction = ((middle << 11) & (TOP - 1)) | low >> 21
        return from_binary(v, middle >> 31, (middle >> 20) & 0x7FF, fraction, (low << 11) & M32, 0x7FF)
    if form == EXTENDED:
        set_value(v, high >> 15, high & EXPONENT_ONES, middle, low, 0)
        return classify(v)
    if form == DECIMAL:
        return from_decimal(v, low, middle, high)
    # Two's complement of 16, 32 or 64 bits.
    if form == WORD:
        low = (low ^ 0x8000) - 0x8000
        middle = (low >> 31) & M32
        low &= M32
    elif form == WORD + 1:
        middle = (0 - (low >> 31)) & M32
    sign = middle >> 31
    if sign == 1:
        low = (0 - low) & M32
        middle = (~middle + int(low == 0)) & M32
    return from_integer(v, sign, middle, low)


# -- to memory ------------------------------------------------------------------------------------------------------


@kernel
def to_binary(cpu, v, form):
    """Convert to single or double; the flags gather in cpu.fpu_flags."""
    keep, half, ones = 24, 127, 0xFF
    if form == DOUBLE:
        keep, half, ones = 53, 1023, 0x7FF
    kind = classify(v)
    if kind == CLASS_UNSUPPORTED or kind == CLASS_SIGNALING:
        cpu.fpu_flags |= INVALID
    if kind == CLASS_UNSUPPORTED:
        set_default_nan(v)
    exponent = 0
    if kind == CLASS_INFINITY:
        exponent = ones
    elif kind == CLASS_QUIET or kind == CLASS_SIGNALING or kind == CLASS_UNSUPPORTED:
        v.high |= QUIET_BIT
        exponent = ones
    elif kind != CLASS_ZERO:
        if kind == CLASS_DENORMAL:
            v.exponent = 1
            normalise(v)
        round_value(cpu, v, keep, BIAS + 1 - half, BIAS + half)
        exponent = (int(v.exponent) - BIAS + half) & ones
    high, low, sign = int(v.high) & (TOP - 1), int(v.low), int(v.sign)
    if form == DOUBLE:
        set_words(cpu, low >> 11 | (high << 21) & M32, sign << 31 | exponent << 20 | high >> 11, 0)
    else:
        set_words(cpu, sign << 31 | exponent << 23 | high >> 8, 0, 0)


@kernel
def to_extended(cpu, v):
    """The 80 bits of a register."""
    set_words(cpu, v.low, v.high, int(v.sign) << 15 | int(v.exponent))


@kernel
def round_for_integer(cpu, v):
    """Round a value to an integer: (flags, magnitude's high and low word), the flag INVALID if 64 bits cannot hold it."""
    kind = classify(v)
    if kind == CLASS_ZERO:
        return 0, 0, 0
    if kind != CLASS_DENORMAL and (v.exponent > BIAS + 63 or v.high & TOP == 0):
        return INVALID, 0, 0
    flags = round_to_integer(v, rounding_mode(cpu))
    if v.exponent > BIAS + 63:
        return INVALID, 0, 0
    return flags, int(v.high), int(v.low)


@kernel
def to_integer(cpu, v, form):
    """Convert to two's complement of 16, 32 or 64 bits; the integer indefinite where it does not fit."""
    bits = 16 << (form - WORD)
    sign = int(v.sign)
    flags, high, low = round_for_integer(cpu, v)
    if bits == 64:
        fits = high < TOP or (high == TOP and low == 0 and sign == 1)
    else:
        limit = 1 << (bits - 1)
        fits = high == 0 and (low < limit or (low == limit and sign == 1))
    if flags & INVALID != 0 or not fits:
        cpu.fpu_flags |= INVALID
        integer_indefinite(cpu, form)
        return
    cpu.fpu_flags |= flags
    if sign == 1:
        low = (0 - low) & M32
        high = (~high + int(low == 0)) & M32
    set_words(cpu, low, high, 0)


@kernel
def integer_indefinite(cpu, form):
    """The answer to an invalid conversion to an integer or decimal (volume 1, section 4.2.1.2 and 4.7)."""
    if form == DECIMAL:
        set_words(cpu, 0, 0xC0000000, 0xFFFF)
    elif form == WORD:
        set_words(cpu, 0x8000, 0, 0)
    elif form == WORD + 1:
        set_words(cpu, TOP, 0, 0)
    else:
        set_words(cpu, 0, TOP, 0)


@kernel
def to_decimal(cpu, v):
    """Convert to 18 packed decimal digits."""
    sign = int(v.sign)
    flags, high, low = round_for_integer(cpu, v)
    if flags & INVALID != 0 or high > LARGEST_DECIMAL_HIGH or (high << 32 | low) > LARGEST_DECIMAL:
        cpu.fpu_flags |= INVALID
        integer_indefinite(cpu, DECIMAL)
        return
    cpu.fpu_flags |= flags
    magnitude = high << 32 | low
    set_words(cpu, 0, 0, sign << 15)
    for number in range(DECIMAL_DIGITS):
        cpu.fpu_integer[number >> 3] |= (magnitude % 10) << (4 * (number & 7))
        magnitude //= 10


@kernel
def to_memory_format(cpu, v, form):
    """Convert a value, which is used up, into cpu.fpu_integer."""
    if form == EXTENDED:
        to_extended(cpu, v)
    elif form == DECIMAL:
        to_decimal(cpu, v)
    elif form < WORD:
        to_binary(cpu, v, form)
    else:
        to_integer(cpu, v, form)

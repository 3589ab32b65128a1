"""Constants and power series for the transcendental instructions, with 96 bits of significand.

The constants are computed in Python integers when this module is imported. A polynomial is a run of rows, the
coefficient of the highest power first, and is evaluated by Horner's rule.
"""

from fractions import Fraction

import numpy as np

from .float80 import BIAS, add, copy_value, multiply
from .jit import kernel
from .layout import FLOAT80

UNIT = 1 << 200  # fixed-point unit of the computations below


def arctangent_of_inverse(n: int) -> int:
    """arctan(1/n) in units."""
    total, term, k = 0, UNIT // n, 1
    while term:
        total += (term if k % 4 == 1 else -term) // k
        term //= n * n
        k += 2
    return total


def twice_artanh_of_inverse(n: int) -> int:
    """log((n + 1) / (n - 1)) in units."""
    total, term, k = 0, UNIT // n, 1
    while term:
        total += 2 * (term // k)
        term //= n * n
        k += 2
    return total


def integer_root(n: int) -> int:
    """The square root of n, in the units of n."""
    guess = UNIT * 2
    while True:
        following = (guess + n * UNIT // guess) // 2
        if abs(following - guess) <= 1:
            return following
        guess = following


PI = Fraction(16 * arctangent_of_inverse(5) - 4 * arctangent_of_inverse(239), UNIT)
LN_2 = Fraction(twice_artanh_of_inverse(3), UNIT)
LN_10 = 3 * LN_2 + Fraction(twice_artanh_of_inverse(9), UNIT)
ROOT_3 = Fraction(integer_root(3 * UNIT), UNIT)
# What the processor reduces the arguments of sine, cosine and tangent by (volume 1, section 8.3.8): 66 bits of pi.
PI_66 = Fraction(0xC90FDAA22168C234C, 1 << 66)


def row(value: Fraction) -> tuple[int, int, int, int, int]:
    """A number as a FLOAT80 record, rounded to 96 bits."""
    magnitude, exponent = abs(Fraction(value)), 0
    while magnitude >= 2:
        magnitude, exponent = magnitude / 2, exponent + 1
    while magnitude < 1:
        magnitude, exponent = magnitude * 2, exponent - 1
    significand = round(magnitude * (1 << 95))
    return int(value < 0), BIAS + exponent, significand >> 64, significand >> 32 & 0xFFFFFFFF, significand & 0xFFFFFFFF


def factorial(n: int) -> int:
    """n!"""
    return 1 if n < 2 else n * factorial(n - 1)


# Powers of two: (2**x - 1) / (x ln 2) in x ln 2. Logarithm: artanh(z) / z in z**2. Arctangent: atan(z) / z in z**2.
# Sine: sin(r) / r, and cosine, in r**2. The number of terms is that which brings the rest below 2**-96.
EXPONENTIAL_TERMS, LOGARITHM_TERMS, ARCTANGENT_TERMS, SINE_TERMS = 27, 19, 25, 15
_SERIES = {
    "exponential": [Fraction(1, factorial(n + 1)) for n in range(EXPONENTIAL_TERMS)],
    "logarithm": [Fraction(1, 2 * n + 1) for n in range(LOGARITHM_TERMS)],
    "arctangent": [Fraction((-1) ** n, 2 * n + 1) for n in range(ARCTANGENT_TERMS)],
    "sine": [Fraction((-1) ** n, factorial(2 * n + 1)) for n in range(SINE_TERMS)],
    "cosine": [Fraction((-1) ** n, factorial(2 * n)) for n in range(SINE_TERMS)],
}
_SINGLE = (
    Fraction(1), LN_10 / LN_2, 1 / LN_2, PI, LN_2 / LN_10, LN_2, PI / 2, PI / 6, ROOT_3, PI_66 / 2, 2 / LN_2,
    Fraction(2), Fraction(3, 4), PI / 4,
)  # fmt: skip
# The first six are those of FLD1 to FLDLN2, in the order of the opcodes.
(
    ONE, LOG2_10, LOG2_E, PI_ROW, LOG10_2, LN2, HALF_PI, SIXTH_PI, ROOT3, REDUCTION, TWICE_LOG2_E, TWO, THREE_QUARTERS,
    QUARTER_PI,
) = range(14)  # fmt: skip
EXPONENTIAL = len(_SINGLE)
LOGARITHM = EXPONENTIAL + EXPONENTIAL_TERMS
ARCTANGENT = LOGARITHM + LOGARITHM_TERMS
SINE = ARCTANGENT + ARCTANGENT_TERMS
COSINE = SINE + SINE_TERMS
_ROWS = [row(value) for value in _SINGLE]
for _series in _SERIES.values():
    _ROWS += [row(value) for value in reversed(_series)]
CONSTANT = np.array(_ROWS, FLOAT80).view(np.recarray)


@kernel
def polynomial(r, x, first, terms):
    """r := the polynomial of `terms` coefficients from row `first` on, at x (not zero)."""
    copy_value(r, CONSTANT[first])
    for number in range(first + 1, first + terms):
        multiply(r, r, x)
        add(r, r, CONSTANT[number], CONSTANT[number].sign)

"""Arithmetic of extended-precision values in integers: 64 bits of significand, 32 more behind them for exactness.

A value is a FLOAT80 record: sign, exponent biased by 16383, and a significand of three 32-bit words whose top bit has
the weight 2**(exponent - 16383). Between operations the exponent is unbounded in both directions and a significand that
is not zero has its top bit set. The lowest bit of the last word is sticky: it also stands for everything below it.

Words are kept below 2**32, so that sums and shifts never reach the sign of a 64-bit integer; of a product of two words,
which does, each half is masked out. Values that are read from records become plain integers first.
"""

from .jit import kernel

M32 = 0xFFFFFFFF
TOP = 0x80000000
BIAS = 16383
ZERO_EXPONENT = -(1 << 20)  # what the exponent of a zero counts as: below every other


@kernel
def set_value(v, sign, exponent, high, low, extra):
    """Write a value."""
    v.sign = sign
    v.exponent = exponent
    v.high = high
    v.low = low
    v.extra = extra


@kernel
def copy_value(r, a):
    """r := a."""
    set_value(r, a.sign, a.exponent, a.high, a.low, a.extra)


@kernel
def is_zero(v):
    """Whether the significand is zero."""
    return (v.high | v.low | v.extra) == 0


@kernel
def shift_right(v, count):
    """Shift the significand right; what is lost makes the lowest bit sticky. The exponent stays."""
    high, low, extra = int(v.high), int(v.low), int(v.extra)
    lost = 0
    if count >= 96:
        lost = high | low | extra
        high = low = extra = 0
        count = 0
    while count >= 32:
        lost |= extra
        extra = low
        low = high
        high = 0
        count -= 32
    if count > 0:
        lost |= extra & ((1 << count) - 1)
        extra = (extra >> count) | ((low << (32 - count)) & M32)
        low = (low >> count) | ((high << (32 - count)) & M32)
        high >>= count
    if lost != 0:
        extra |= 1
    v.high = high
    v.low = low
    v.extra = extra


@kernel
def normalise(v):
    """Shift the significand left until its top bit is set; a zero stays as it is."""
    high, low, extra, exponent = int(v.high), int(v.low), int(v.extra), int(v.exponent)
    if high | low | extra == 0:
        return
    while high == 0:
        high = low
        low = extra
        extra = 0
        exponent -= 32
    count = 0
    while (high << count) & TOP == 0:
        count += 1
    set_value(
        v,
        v.sign,
        exponent - count,
        ((high << count) | (low >> (32 - count))) & M32,
        ((low << count) | (extra >> (32 - count))) & M32,
        (extra << count) & M32,
    )


@kernel
def less_significand(a, b):
    """Whether the significand of a is below that of b."""
    if a.high != b.high:
        return a.high < b.high
    if a.low != b.low:
        return a.low < b.low
    return a.extra < b.extra


@kernel
def effective_exponent(v):
    """The exponent, that of a zero being below all others."""
    if is_zero(v):
        return ZERO_EXPONENT
    return int(v.exponent)


@kernel
def less_magnitude(a, b):
    """Whether |a| < |b|."""
    one, two = effective_exponent(a), effective_exponent(b)
    if one != two:
        return one < two
    return less_significand(a, b)


@kernel
def add(r, a, b, b_sign):
    """r := a + b, with b taken as having the sign `b_sign`. An exact zero comes out positive; r may be a or b."""
    # 1. The larger magnitude first.
    x, y, sign, other_sign = a, b, int(a.sign), b_sign
    if less_magnitude(a, b):
        x, y, sign, other_sign = b, a, b_sign, int(a.sign)
    exponent = effective_exponent(x)
    distance = exponent - effective_exponent(y)
    high, low, extra = int(x.high), int(x.low), int(x.extra)
    # 2. The smaller significand is aligned in r, which may be where either came from.
    set_value(r, sign, exponent, y.high, y.low, y.extra)
    shift_right(r, distance)
    if sign == other_sign:
        extra += int(r.extra)
        low += int(r.low) + (extra >> 32)
        high += int(r.high) + (low >> 32)
    else:
        extra -= int(r.extra)
        low += (extra >> 32) - int(r.low)
        high += (low >> 32) - int(r.high)
    set_value(r, sign, exponent, high & M32, low & M32, extra & M32)
    # 3. One bit too many, or some too few.
    if high > M32:
        shift_right(r, 1)
        r.high |= TOP
        r.exponent = exponent + 1
    elif is_zero(r):
        set_value(r, 0, 0, 0, 0, 0)
    else:
        normalise(r)


@kernel
def multiply(r, a, b):
    """r := a * b, both not zero."""
    ah, al, ax = int(a.high), int(a.low), int(a.extra)
    bh, bl, bx = int(b.high), int(b.low), int(b.extra)
    hh, hl, lh, ll = ah * bh, ah * bl, al * bh, al * bl
    hx, xh, lx, xl, xx = ah * bx, ax * bh, al * bx, ax * bl, ax * bx
    # Columns of 32 bits, from the lowest.
    lowest = xx & M32
    column = ((xx >> 32) & M32) + (lx & M32) + (xl & M32)
    lowest |= column & M32
    column = (column >> 32) + ((lx >> 32) & M32) + ((xl >> 32) & M32) + (ll & M32) + (hx & M32) + (xh & M32)
    lowest |= column & M32
    column = (column >> 32) + ((ll >> 32) & M32) + ((hx >> 32) & M32) + ((xh >> 32) & M32) + (lh & M32) + (hl & M32)
    extra = column & M32
    column = (column >> 32) + ((lh >> 32) & M32) + ((hl >> 32) & M32) + (hh & M32)
    low = column & M32
    high = (column >> 32) + ((hh >> 32) & M32)
    if lowest != 0:
        extra |= 1
    set_value(r, int(a.sign) ^ int(b.sign), int(a.exponent) + int(b.exponent) - BIAS + 1, high, low, extra)
    normalise(r)


@kernel
def division_steps(q, r, b, count):
    """Long division of significands: `count` bits of r / b into q, the remainder into r, whose top word may carry."""
    rh, rl, rx = int(r.high), int(r.low), int(r.extra)
    bh, bl, bx = int(b.high), int(b.low), int(b.extra)
    qh = ql = qx = 0
    for step in range(count):
        if step > 0:
            rh = rh << 1 | rl >> 31
            rl = (rl << 1 | rx >> 31) & M32
            rx = (rx << 1) & M32
            qh = (qh << 1 | ql >> 31) & M32
            ql = (ql << 1 | qx >> 31) & M32
            qx = (qx << 1) & M32
        x = rx - bx
        low = rl - bl + (x >> 32)
        high = rh - bh + (low >> 32)
        if high >= 0:
            rh, rl, rx = high, low & M32, x & M32
            qx |= 1
    r.high = rh
    r.low = rl
    r.extra = rx
    q.high = qh
    q.low = ql
    q.extra = qx


@kernel
def divide(r, a, b, work):
    """r := a / b, both not zero; `work` is a scratch value."""
    sign = int(a.sign) ^ int(b.sign)
    exponent = int(a.exponent) - int(b.exponent) + BIAS
    copy_value(work, a)
    if less_significand(a, b):
        exponent -= 1
        work.high = int(work.high) << 1 | int(work.low) >> 31
        work.low = (int(work.low) << 1 | int(work.extra) >> 31) & M32
        work.extra = (int(work.extra) << 1) & M32
    division_steps(r, work, b, 96)
    r.sign = sign
    r.exponent = exponent
    if not is_zero(work):
        r.extra |= 1


@kernel
def square_root(r, a):
    """r := the square root of a positive a, digit by digit."""
    exponent = int(a.exponent) - BIAS
    high, low, extra = int(a.high), int(a.low), int(a.extra)
    # Two bits of the radicand at a time, from the top: 01.. to 11.., or one bit first where the exponent is even.
    mh = ml = mx = 0  # remainder
    qh = ql = qx = 0  # root
    first = 2
    if exponent & 1 == 0:
        first = 1
    for step in range(96):
        count = 2
        if step == 0:
            count = first
        for _ in range(count):
            mh = mh << 1 | ml >> 31
            ml = (ml << 1 | mx >> 31) & M32
            mx = (mx << 1 | high >> 31) & M32
            high = (high << 1 | low >> 31) & M32
            low = (low << 1 | extra >> 31) & M32
            extra = (extra << 1) & M32
        # Try the remainder less 4 * root + 1.
        x = mx - ((qx << 2 | 1) & M32)
        y = ml - ((ql << 2 | qx >> 30) & M32) + (x >> 32)
        z = mh - (qh << 2 | ql >> 30) + (y >> 32)
        qh = qh << 1 | ql >> 31
        ql = (ql << 1 | qx >> 31) & M32
        qx = (qx << 1) & M32
        if z >= 0:
            mh, ml, mx = z, y & M32, x & M32
            qx |= 1
    if mh | ml | mx != 0:
        qx |= 1
    set_value(r, 0, (exponent >> 1) + BIAS, qh, ql, qx)

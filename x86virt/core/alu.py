"""Integer arithmetic and logic on registers and temporaries (SDM volume 2).

Every handler takes the processor and a micro-operation. Destination and source are register slots; an immediate
stands in `u.imm` with the source slot ZERO, so that `source_32` serves both. The `_32` handlers are the fast ones;
`_narrow` serves 8 and 16 bits, where a shift picks AH, CH, DH or BH out of the slot.
"""

from .flags import carry_flag, overflow_flag, parity_flag, set_carry, sign_flag
from .jit import inline, kernel
from .mode import write_register

M32 = 0xFFFFFFFF
SIGN_32 = 0x80000000


@inline
def sign_extend_32(value):
    """A 32-bit value as a signed number."""
    return (value ^ SIGN_32) - SIGN_32


@inline
def sign_extend(value, width):
    """A value of `width` bits as a signed number."""
    sign = 1 << (width - 1)
    return (value ^ sign) - sign


@inline
def source_32(cpu, u):
    """The 32-bit source operand: a register slot or an immediate."""
    return (cpu.gpr[u.src] + u.imm) & M32


@inline
def source_narrow(cpu, u):
    """The 8- or 16-bit source operand."""
    return ((cpu.gpr[u.src] >> u.src_shift) + u.imm) & ((1 << u.width) - 1)


@inline
def destination_narrow(cpu, u):
    """The 8- or 16-bit destination operand, read."""
    return (cpu.gpr[u.dst] >> u.dst_shift) & ((1 << u.width) - 1)


@inline
def write_narrow(cpu, u, value):
    """Write an 8- or 16-bit destination, leaving the rest of its register."""
    mask = ((1 << u.width) - 1) << u.dst_shift
    cpu.gpr[u.dst] = (cpu.gpr[u.dst] & ~mask) | ((value << u.dst_shift) & mask)


@inline
def narrow_flags(cpu, result, carries, width):
    """Set the flags from an 8- or 16-bit result and its carry vector."""
    cpu.flag_result = sign_extend(result, width)
    cpu.flag_carry = ((carries >> (width - 2)) & 3) << 30 | (carries & 8)


@inline
def carries_of_add(a, b, result):
    """The carries out of each bit of a sum."""
    return (a & b) | ((a | b) & ~result)


@inline
def borrows_of_subtract(a, b, result):
    """The borrows out of each bit of a difference."""
    return (~a & b) | ((~a | b) & result)


# -- 32 bits --------------------------------------------------------------------------------------------------------


@inline
def add_32(cpu, u):
    """ADD."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    result = (a + b) & M32
    cpu.gpr[u.dst] = result
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = carries_of_add(a, b, result) & M32


@inline
def adc_32(cpu, u):
    """ADC."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    result = (a + b + carry_flag(cpu)) & M32
    cpu.gpr[u.dst] = result
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = carries_of_add(a, b, result) & M32


@inline
def sub_32(cpu, u):
    """SUB."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    result = (a - b) & M32
    cpu.gpr[u.dst] = result
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = borrows_of_subtract(a, b, result) & M32


@inline
def sbb_32(cpu, u):
    """SBB."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    result = (a - b - carry_flag(cpu)) & M32
    cpu.gpr[u.dst] = result
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = borrows_of_subtract(a, b, result) & M32


@inline
def cmp_32(cpu, u):
    """CMP."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    result = (a - b) & M32
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = borrows_of_subtract(a, b, result) & M32


@inline
def and_32(cpu, u):
    """AND."""
    result = cpu.gpr[u.dst] & source_32(cpu, u)
    cpu.gpr[u.dst] = result
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = 0


@inline
def or_32(cpu, u):
    """OR."""
    result = cpu.gpr[u.dst] | source_32(cpu, u)
    cpu.gpr[u.dst] = result
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = 0


@inline
def xor_32(cpu, u):
    """XOR."""
    result = cpu.gpr[u.dst] ^ source_32(cpu, u)
    cpu.gpr[u.dst] = result
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = 0


@inline
def test_32(cpu, u):
    """TEST."""
    cpu.flag_result = sign_extend_32(cpu.gpr[u.dst] & source_32(cpu, u))
    cpu.flag_carry = 0


@inline
def with_old_carry(cpu, carries):
    """A 32-bit carry vector whose CF is the present one: INC and DEC leave CF alone."""
    overflow = ((carries >> 31) ^ (carries >> 30)) & 1
    carry = carry_flag(cpu)
    return carry << 31 | (carry ^ overflow) << 30 | (carries & 8)


@inline
def inc_32(cpu, u):
    """INC."""
    a = cpu.gpr[u.dst]
    result = (a + 1) & M32
    cpu.gpr[u.dst] = result
    cpu.flag_carry = with_old_carry(cpu, carries_of_add(a, 1, result))
    cpu.flag_result = sign_extend_32(result)


@inline
def dec_32(cpu, u):
    """DEC."""
    a = cpu.gpr[u.dst]
    result = (a - 1) & M32
    cpu.gpr[u.dst] = result
    cpu.flag_carry = with_old_carry(cpu, borrows_of_subtract(a, 1, result))
    cpu.flag_result = sign_extend_32(result)


@inline
def neg_32(cpu, u):
    """NEG."""
    a = cpu.gpr[u.dst]
    result = -a & M32
    cpu.gpr[u.dst] = result
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = borrows_of_subtract(0, a, result) & M32


@inline
def not_32(cpu, u):
    """NOT, which leaves the flags."""
    cpu.gpr[u.dst] = ~cpu.gpr[u.dst] & M32


# -- 8 and 16 bits: one called function, since compilers use them rarely -----------------------------------------------

ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST = range(9)  # the order of opcode bits 5:3, and TEST
INC, DEC, NEG, NOT = range(9, 13)


@kernel
def narrow_binary(cpu, u, operation):
    """ADD, OR, ADC, SBB, AND, SUB, XOR, CMP or TEST on 8 or 16 bits."""
    mask = (1 << u.width) - 1
    a = destination_narrow(cpu, u)
    b = source_narrow(cpu, u)
    carries = 0
    if operation == ADD or operation == ADC:
        result = a + b
        if operation == ADC:
            result += carry_flag(cpu)
        carries = carries_of_add(a, b, result)
    elif operation == SUB or operation == SBB or operation == CMP:
        result = a - b
        if operation == SBB:
            result -= carry_flag(cpu)
        carries = borrows_of_subtract(a, b, result)
    elif operation == OR:
        result = a | b
    elif operation == XOR:
        result = a ^ b
    else:
        result = a & b
    result &= mask
    if operation != CMP and operation != TEST:
        write_narrow(cpu, u, result)
    narrow_flags(cpu, result, carries, u.width)


@kernel
def narrow_unary(cpu, u, operation):
    """INC, DEC, NEG or NOT on 8 or 16 bits."""
    mask = (1 << u.width) - 1
    a = destination_narrow(cpu, u)
    if operation == NOT:
        write_narrow(cpu, u, ~a & mask)
        return
    carry = carry_flag(cpu)
    if operation == INC:
        result = (a + 1) & mask
        carries = carries_of_add(a, 1, result)
    elif operation == DEC:
        result = (a - 1) & mask
        carries = borrows_of_subtract(a, 1, result)
    else:
        result = -a & mask
        carries = borrows_of_subtract(0, a, result)
    write_narrow(cpu, u, result)
    narrow_flags(cpu, result, carries, u.width)
    if operation != NEG:
        set_carry(cpu, carry)


@inline
def add_narrow(cpu, u):
    """ADD on 8 or 16 bits."""
    narrow_binary(cpu, u, ADD)


@inline
def or_narrow(cpu, u):
    """OR on 8 or 16 bits."""
    narrow_binary(cpu, u, OR)


@inline
def adc_narrow(cpu, u):
    """ADC on 8 or 16 bits."""
    narrow_binary(cpu, u, ADC)


@inline
def sbb_narrow(cpu, u):
    """SBB on 8 or 16 bits."""
    narrow_binary(cpu, u, SBB)


@inline
def and_narrow(cpu, u):
    """AND on 8 or 16 bits."""
    narrow_binary(cpu, u, AND)


@inline
def sub_narrow(cpu, u):
    """SUB on 8 or 16 bits."""
    narrow_binary(cpu, u, SUB)


@inline
def xor_narrow(cpu, u):
    """XOR on 8 or 16 bits."""
    narrow_binary(cpu, u, XOR)


@inline
def cmp_narrow(cpu, u):
    """CMP on 8 or 16 bits."""
    narrow_binary(cpu, u, CMP)


@inline
def test_narrow(cpu, u):
    """TEST on 8 or 16 bits."""
    narrow_binary(cpu, u, TEST)


@inline
def inc_narrow(cpu, u):
    """INC on 8 or 16 bits."""
    narrow_unary(cpu, u, INC)


@inline
def dec_narrow(cpu, u):
    """DEC on 8 or 16 bits."""
    narrow_unary(cpu, u, DEC)


@inline
def neg_narrow(cpu, u):
    """NEG on 8 or 16 bits."""
    narrow_unary(cpu, u, NEG)


@inline
def not_narrow(cpu, u):
    """NOT on 8 or 16 bits."""
    narrow_unary(cpu, u, NOT)


# -- multiplication and division ------------------------------------------------------------------------------------


@kernel
def product_flags(cpu, result, width, overflow):
    """CF and OF say that the upper half is significant; SF, ZF, AF and PF are undefined and follow the low half."""
    cpu.flag_result = sign_extend(result, width)
    cpu.flag_carry = overflow << 31


@kernel
def multiply(cpu, u):
    """MUL and IMUL with one operand: AX, DX:AX or EDX:EAX := accumulator * source. `u.condition` 1: signed."""
    width = u.width
    mask = (1 << width) - 1
    a = cpu.gpr[0] & mask
    b = (cpu.gpr[u.src] >> u.src_shift) & mask
    if u.condition == 1:
        a = sign_extend(a, width)
        b = sign_extend(b, width)
        # The magnitude is below 2 to the 62nd: no overflow of 64 bits.
        product = a * b
        overflow = int(product != sign_extend(product & mask, width))
        low = product & mask
        high = (product >> width) & mask
    else:
        # Two halves keep the product of unsigned doublewords within 63 bits.
        low_half = a * (b & 0xFFFF)
        high_half = a * (b >> 16) + (low_half >> 16)
        low = ((high_half << 16) | (low_half & 0xFFFF)) & mask
        high = (high_half >> (width - 16)) & mask if width > 16 else ((a * b) >> width) & mask
        overflow = int(high != 0)
    if width == 8:
        write_register(cpu, 0, 0, 16, high << 8 | low)
    else:
        write_register(cpu, 0, 0, width, low)
        write_register(cpu, 2, 0, width, high)
    product_flags(cpu, low, width, overflow)


@inline
def imul_32(cpu, u):
    """IMUL with two or three operands: destination := first factor * (source or immediate)."""
    a = sign_extend_32(cpu.gpr[u.dst])
    b = sign_extend_32(source_32(cpu, u))
    product = a * b
    result = product & M32
    cpu.gpr[u.dst] = result
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = int(product != sign_extend_32(result)) << 31


@kernel
def imul_narrow(cpu, u):
    """IMUL with two or three operands on 16 bits."""
    product = sign_extend(destination_narrow(cpu, u), u.width) * sign_extend(source_narrow(cpu, u), u.width)
    result = product & ((1 << u.width) - 1)
    write_narrow(cpu, u, result)
    product_flags(cpu, result, u.width, int(product != sign_extend(result, u.width)))


@inline
def imul3_32(cpu, u):
    """IMUL with three operands: destination := source * immediate."""
    product = sign_extend_32(cpu.gpr[u.src]) * sign_extend_32(u.imm)
    result = product & M32
    cpu.gpr[u.dst] = result
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = int(product != sign_extend_32(result)) << 31


@kernel
def imul3_narrow(cpu, u):
    """IMUL with three operands on 16 bits."""
    mask = (1 << u.width) - 1
    product = sign_extend(cpu.gpr[u.src] & mask, u.width) * sign_extend(u.imm & mask, u.width)
    result = product & mask
    write_narrow(cpu, u, result)
    product_flags(cpu, result, u.width, int(product != sign_extend(result, u.width)))


@kernel
def divide(cpu, u):
    """DIV and IDIV; 1 if the quotient does not fit or the divisor is zero (#DE). Flags are undefined: unchanged."""
    width = u.width
    mask = (1 << width) - 1
    divisor = (cpu.gpr[u.src] >> u.src_shift) & mask
    if divisor == 0:
        return 1
    if width == 8:
        high = (cpu.gpr[0] >> 8) & mask
    else:
        high = cpu.gpr[2] & mask
    low = cpu.gpr[0] & mask
    if u.condition == 1:
        high = sign_extend(high, width)
        divisor = sign_extend(divisor, width)
        dividend = (high << width) | low
        quotient = signed_quotient(dividend, divisor)
        if quotient < -(1 << (width - 1)) or quotient > (1 << (width - 1)) - 1:
            return 1
        remainder = dividend - quotient * divisor
    else:
        if high >= divisor:
            return 1
        quotient, remainder = unsigned_quotient(high, low, divisor, width)
    if width == 8:
        write_register(cpu, 0, 0, 16, (remainder & mask) << 8 | (quotient & mask))
    else:
        write_register(cpu, 0, 0, width, quotient & mask)
        write_register(cpu, 2, 0, width, remainder & mask)
    return 0


@kernel
def signed_quotient(dividend, divisor):
    """The quotient truncated towards zero; the one that 64 bits cannot hold is reported as too large."""
    if dividend == -(1 << 62) * 2:
        # The magnitude of the most negative dividend is not representable; its quotient never fits 32 bits
        # unless the divisor is beyond them, which it is not.
        return 1 << 62
    magnitude = abs(dividend) // abs(divisor)
    if (dividend < 0) != (divisor < 0):
        return -magnitude
    return magnitude


@kernel
def unsigned_quotient(high, low, divisor, width):
    """Quotient and remainder of high:low by the divisor, by halves since high:low may exceed 63 bits."""
    half = width // 2
    half_mask = (1 << half) - 1
    part = high << half | low >> half
    upper = part // divisor
    part = (part - upper * divisor) << half | (low & half_mask)
    lower = part // divisor
    return upper << half | lower, part - lower * divisor


# -- sign extension, byte swap, compare and exchange ----------------------------------------------------------------


@inline
def cbw(cpu, u):
    """CBW (16) and CWDE (32)."""
    half = u.width // 2
    write_register(cpu, 0, 0, u.width, sign_extend(cpu.gpr[0] & ((1 << half) - 1), half))


@inline
def cwd(cpu, u):
    """CWD (16) and CDQ (32)."""
    negative = (cpu.gpr[0] >> (u.width - 1)) & 1
    write_register(cpu, 2, 0, u.width, -negative)


@inline
def bswap(cpu, u):
    """BSWAP of a 32-bit register; of a 16-bit one it is undefined and clears it, as processors do."""
    a = cpu.gpr[u.dst]
    if u.width == 16:
        cpu.gpr[u.dst] = a & 0xFFFF0000
    else:
        cpu.gpr[u.dst] = (a >> 24) | ((a >> 8) & 0xFF00) | ((a << 8) & 0xFF0000) | ((a & 0xFF) << 24)


@kernel
def xadd(cpu, u):
    """XADD: the source slot receives the old destination, the destination the sum."""
    mask = (1 << u.width) - 1
    a = destination_narrow(cpu, u)
    b = (cpu.gpr[u.src] >> u.src_shift) & mask
    result = (a + b) & mask
    write_register(cpu, u.src, u.src_shift, u.width, a)
    write_register(cpu, u.dst, u.dst_shift, u.width, result)
    any_width_flags(cpu, result, carries_of_add(a, b, result), u.width)


@kernel
def any_width_flags(cpu, result, carries, width):
    """The same in a call, where speed is not what counts; it is right for 32 bits too."""
    narrow_flags(cpu, result, carries, width)


@kernel
def cmpxchg(cpu, u):
    """CMPXCHG: compare the accumulator with the destination; equal: destination := source, else accumulator := it.

    A memory destination is written in either case, as on the processor.
    """
    mask = (1 << u.width) - 1
    a = cpu.gpr[0] & mask
    b = destination_narrow(cpu, u)
    result = (a - b) & mask
    any_width_flags(cpu, result, borrows_of_subtract(a, b, result), u.width)
    if result == 0:
        write_register(cpu, u.dst, u.dst_shift, u.width, (cpu.gpr[u.src] >> u.src_shift) & mask)
    else:
        write_register(cpu, 0, 0, u.width, b)


# -- conditions -----------------------------------------------------------------------------------------------------


@kernel
def condition_holds(cpu, condition):
    """Whether one of the 16 conditions of Jcc, SETcc and CMOVcc holds (SDM volume 1, appendix B)."""
    from_flags = 0
    kind = condition >> 1
    if kind == 0:
        from_flags = overflow_flag(cpu)
    elif kind == 1:
        from_flags = carry_flag(cpu)
    elif kind == 2:
        from_flags = int(cpu.flag_result == 0)
    elif kind == 3:
        from_flags = carry_flag(cpu) | int(cpu.flag_result == 0)
    elif kind == 4:
        from_flags = sign_flag(cpu)
    elif kind == 5:
        from_flags = parity_flag(cpu)
    elif kind == 6:
        from_flags = sign_flag(cpu) ^ overflow_flag(cpu)
    else:
        from_flags = (sign_flag(cpu) ^ overflow_flag(cpu)) | int(cpu.flag_result == 0)
    return from_flags ^ (condition & 1)

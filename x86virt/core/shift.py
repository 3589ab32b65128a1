"""Shifts, rotates and bit instructions (SDM volume 2).

Flags that the manual leaves undefined follow what the processors of the P6 family do, so that results agree with the
oracles; the instruction table names them, and the tests mask them.
"""

from .alu import destination_narrow, sign_extend, sign_extend_32
from .flags import arithmetic_flags, carry_flag, set_arithmetic_flags, set_carry
from .jit import inline, kernel
from .mode import write_register

M32 = 0xFFFFFFFF


@inline
def shift_count(cpu, u):
    """The shift count: an immediate, or CL when `u.condition` is 1; modulo 32."""
    if u.condition == 1:
        return cpu.gpr[1] & 31
    return u.imm & 31


@kernel
def set_shift_flags(cpu, result, width, carry, overflow):
    """Flags of a shift by a non-zero count; AF is undefined and cleared."""
    cpu.flag_result = sign_extend(result, width)
    cpu.flag_carry = carry << 31 | (carry ^ overflow) << 30


@kernel
def shl(cpu, u):
    """SHL."""
    count = shift_count(cpu, u)
    if count == 0:
        return
    width = u.width
    a = destination_narrow(cpu, u)
    wide = a << count
    result = wide & ((1 << width) - 1)
    carry = (wide >> width) & 1
    write_register(cpu, u.dst, u.dst_shift, width, result)
    set_shift_flags(cpu, result, width, carry, ((result >> (width - 1)) ^ carry) & 1)


@kernel
def shr(cpu, u):
    """SHR."""
    count = shift_count(cpu, u)
    if count == 0:
        return
    width = u.width
    a = destination_narrow(cpu, u)
    result = a >> count
    carry = (a >> (count - 1)) & 1
    write_register(cpu, u.dst, u.dst_shift, width, result)
    overflow = ((result << 1) ^ result) >> (width - 1) & 1
    set_shift_flags(cpu, result, width, carry, overflow)


@kernel
def sar(cpu, u):
    """SAR."""
    count = shift_count(cpu, u)
    if count == 0:
        return
    width = u.width
    a = sign_extend(destination_narrow(cpu, u), width)
    result = (a >> count) & ((1 << width) - 1)
    write_register(cpu, u.dst, u.dst_shift, width, result)
    set_shift_flags(cpu, result, width, (a >> (count - 1)) & 1, 0)


@kernel
def set_rotate_flags(cpu, carry, overflow):
    """Rotates change CF and OF only."""
    cpu.flag_carry = (cpu.flag_carry & ~(3 << 30)) | carry << 31 | (carry ^ overflow) << 30


@kernel
def rol(cpu, u):
    """ROL."""
    count = shift_count(cpu, u)
    if count == 0:
        return
    width = u.width
    a = destination_narrow(cpu, u)
    turn = count & (width - 1)
    result = ((a << turn) | (a >> (width - turn))) & ((1 << width) - 1)
    write_register(cpu, u.dst, u.dst_shift, width, result)
    carry = result & 1
    set_rotate_flags(cpu, carry, ((result >> (width - 1)) ^ carry) & 1)


@kernel
def ror(cpu, u):
    """ROR."""
    count = shift_count(cpu, u)
    if count == 0:
        return
    width = u.width
    a = destination_narrow(cpu, u)
    turn = count & (width - 1)
    result = ((a >> turn) | (a << (width - turn))) & ((1 << width) - 1)
    write_register(cpu, u.dst, u.dst_shift, width, result)
    set_rotate_flags(cpu, (result >> (width - 1)) & 1, ((result >> (width - 1)) ^ (result >> (width - 2))) & 1)


@kernel
def rcl(cpu, u):
    """RCL: a rotate through CF, of one bit more than the width."""
    count = shift_count(cpu, u)
    width = u.width
    turn = count % (width + 1)
    if turn == 0:
        return
    mask = (1 << width) - 1
    a = destination_narrow(cpu, u)
    long_operand = carry_flag(cpu) << width | a
    rotated = (long_operand << turn) | (long_operand >> (width + 1 - turn))
    result = rotated & mask
    carry = (rotated >> width) & 1
    write_register(cpu, u.dst, u.dst_shift, width, result)
    set_rotate_flags(cpu, carry, ((result >> (width - 1)) ^ carry) & 1)


@kernel
def rcr(cpu, u):
    """RCR: a rotate through CF, of one bit more than the width."""
    count = shift_count(cpu, u)
    width = u.width
    turn = count % (width + 1)
    if turn == 0:
        return
    mask = (1 << width) - 1
    a = destination_narrow(cpu, u)
    long_operand = carry_flag(cpu) << width | a
    # Only `turn` low bits come back at the top; the rest of the left shift would not fit.
    low = long_operand & ((1 << turn) - 1)
    rotated = (long_operand >> turn) | low << (width + 1 - turn)
    result = rotated & mask
    carry = (rotated >> width) & 1
    write_register(cpu, u.dst, u.dst_shift, width, result)
    set_rotate_flags(cpu, carry, ((result >> (width - 1)) ^ (result >> (width - 2))) & 1)


@inline
def shl_immediate_32(cpu, u):
    """SHL of a 32-bit register by a constant of 1 to 31."""
    count = u.imm
    a = cpu.gpr[u.dst]
    result = (a << count) & M32
    carry = (a >> (32 - count)) & 1
    cpu.gpr[u.dst] = result
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = carry << 31 | (result >> 31) << 30


@inline
def shr_immediate_32(cpu, u):
    """SHR of a 32-bit register by a constant of 1 to 31."""
    count = u.imm
    a = cpu.gpr[u.dst]
    result = a >> count
    carry = (a >> (count - 1)) & 1
    overflow = ((result << 1) ^ result) >> 31 & 1
    cpu.gpr[u.dst] = result
    cpu.flag_result = result
    cpu.flag_carry = carry << 31 | (carry ^ overflow) << 30


@inline
def sar_immediate_32(cpu, u):
    """SAR of a 32-bit register by a constant of 1 to 31."""
    count = u.imm
    a = sign_extend_32(cpu.gpr[u.dst])
    result = a >> count
    carry = (a >> (count - 1)) & 1
    cpu.gpr[u.dst] = result & M32
    cpu.flag_result = result
    cpu.flag_carry = carry << 31 | carry << 30


@kernel
def shld(cpu, u):
    """SHLD. A 16-bit count above 16 is undefined; the operand then continues into itself, as on the P6."""
    count = shift_count(cpu, u)
    if count == 0:
        return
    width = u.width
    mask = (1 << width) - 1
    a = cpu.gpr[u.dst] & mask
    b = cpu.gpr[u.src] & mask
    if width == 16:
        wide = a << 32 | b << 16 | a
        result = (wide >> (32 - count)) & mask
        carry = (wide >> (48 - count)) & 1
    else:
        result = ((a << count) | (b >> (32 - count))) & mask
        carry = (a >> (32 - count)) & 1
    write_register(cpu, u.dst, 0, width, result)
    set_shift_flags(cpu, result, width, carry, ((result ^ a) >> (width - 1)) & 1)


@kernel
def shrd(cpu, u):
    """SHRD, with the same convention for 16-bit counts above 16."""
    count = shift_count(cpu, u)
    if count == 0:
        return
    width = u.width
    mask = (1 << width) - 1
    a = cpu.gpr[u.dst] & mask
    b = cpu.gpr[u.src] & mask
    if width == 16:
        wide = a << 32 | b << 16 | a
        result = (wide >> count) & mask
        carry = (wide >> (count - 1)) & 1
    else:
        result = ((a >> count) | (b << (32 - count))) & mask
        carry = (a >> (count - 1)) & 1
    write_register(cpu, u.dst, 0, width, result)
    set_shift_flags(cpu, result, width, carry, ((result ^ (result << 1)) >> (width - 1)) & 1)


BT, BTS, BTR, BTC = range(4)


@kernel
def bit_test(cpu, u):
    """BT, BTS, BTR, BTC (`u.condition`) on a register or an operand in a temporary: CF := the bit."""
    width = u.width
    a = cpu.gpr[u.dst] & ((1 << width) - 1)
    position = (cpu.gpr[u.src] + u.imm) & (width - 1)
    set_carry(cpu, (a >> position) & 1)
    if u.condition == BTS:
        write_register(cpu, u.dst, 0, width, a | 1 << position)
    elif u.condition == BTR:
        write_register(cpu, u.dst, 0, width, a & ~(1 << position))
    elif u.condition == BTC:
        write_register(cpu, u.dst, 0, width, a ^ 1 << position)


@kernel
def bit_scan(cpu, u):
    """BSF and BSR (`u.condition` 1). A zero source sets ZF and leaves the destination, as the processors do."""
    a = cpu.gpr[u.src] & ((1 << u.width) - 1)
    others = arithmetic_flags(cpu) & ~(1 << 6)
    if a == 0:
        set_arithmetic_flags(cpu, others | 1 << 6)
        return
    position = 0
    if u.condition == 1:
        position = u.width - 1
        while (a >> position) & 1 == 0:
            position -= 1
    else:
        while (a >> position) & 1 == 0:
            position += 1
    write_register(cpu, u.dst, 0, u.width, position)
    set_arithmetic_flags(cpu, others)

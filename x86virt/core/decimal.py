"""Decimal adjustment: DAA, DAS, AAA, AAS, AAM and AAD (SDM volume 2, their operation sections).

Flags that the manual leaves undefined follow the result; OF is cleared.
"""

from ..isa.registers import EAX, EFLAGS_AF
from ..isa.vectors import DE
from .alu import sign_extend
from .fault import raise_plain
from .flags import arithmetic_flags, carry_flag
from .jit import kernel
from .layout import OK
from .mode import write_register

DAA, DAS, AAA, AAS = range(4)  # variants of the row


@kernel
def decimal_flags(cpu, result, carry, adjust):
    """SF, ZF and PF by a byte, with the given CF and AF, and OF clear."""
    cpu.flag_result = sign_extend(result, 8)
    cpu.flag_carry = carry << 31 | carry << 30 | adjust << 3


@kernel
def packed_adjust(cpu, al, sign, carry, adjust):
    """DAA (`sign` 1) and DAS (-1): correct the low digit, then the high one."""
    old = al
    new_carry = 0
    new_adjust = 0
    if al & 0xF > 9 or adjust == 1:
        # Only DAS can borrow here; the carry of DAA's first step implies that of the second.
        new_carry = carry | int(al + 6 * sign < 0 or al + 6 * sign > 0xFF)
        al = (al + 6 * sign) & 0xFF
        new_adjust = 1
    if old > 0x99 or carry == 1:
        al = (al + 0x60 * sign) & 0xFF
        new_carry = 1
    elif sign == 1:
        new_carry = 0
    write_register(cpu, EAX, 0, 8, al)
    decimal_flags(cpu, al, new_carry, new_adjust)


@kernel
def unpacked_adjust(cpu, al, sign, adjust):
    """AAA (`sign` 1) and AAS (-1): correct the low digit and carry into AH; the high digit of AL is cleared."""
    carry = int(al & 0xF > 9 or adjust == 1)
    ax = cpu.gpr[EAX] & 0xFFFF
    if carry == 1:
        ax = (ax + 0x106 * sign) & 0xFFFF
    ax &= 0xFF0F
    write_register(cpu, EAX, 0, 16, ax)
    decimal_flags(cpu, ax & 0xFF, carry, carry)


@kernel
def decimal_adjust(cpu, u):
    """DAA, DAS, AAA or AAS, by `u.condition`."""
    al = cpu.gpr[EAX] & 0xFF
    carry = carry_flag(cpu)
    adjust = int(arithmetic_flags(cpu) & EFLAGS_AF != 0)
    if u.condition == DAA:
        packed_adjust(cpu, al, 1, carry, adjust)
    elif u.condition == DAS:
        packed_adjust(cpu, al, -1, carry, adjust)
    elif u.condition == AAA:
        unpacked_adjust(cpu, al, 1, adjust)
    else:
        unpacked_adjust(cpu, al, -1, adjust)


@kernel
def aam(cpu, ram, u):
    """AAM: AH := AL / imm8, AL := AL mod imm8; #DE if it is zero."""
    divisor = u.imm & 0xFF
    if divisor == 0:
        return raise_plain(cpu, DE)
    al = cpu.gpr[EAX] & 0xFF
    remainder = al % divisor
    write_register(cpu, EAX, 0, 16, (al // divisor) << 8 | remainder)
    decimal_flags(cpu, remainder, 0, 0)
    return OK


@kernel
def aad(cpu, u):
    """AAD: AL := AL + AH * imm8, AH := 0."""
    ax = cpu.gpr[EAX] & 0xFFFF
    result = ((ax & 0xFF) + (ax >> 8) * (u.imm & 0xFF)) & 0xFF
    write_register(cpu, EAX, 0, 16, result)
    decimal_flags(cpu, result, 0, 0)

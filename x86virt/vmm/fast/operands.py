"""Operands in memory of the instructions that are known here, by their ModRM byte in 32-bit code."""

from ...core.jit import inline, kernel, load_8, load_32
from ...isa.registers import AR_UNUSABLE, DS, EBP, ESP, TYPE_EXPAND_DOWN
from .descriptors import base_of, shadow_high, shadow_low
from .guest_access import UNKNOWN

M32 = 0xFFFFFFFF
NO_INDEX = 4


@inline
def register(cpu, exits, number):
    """A general register of the guest; ESP is in the frame."""
    value = exits.esp
    if number != ESP:
        value = cpu.gpr[number]
    return value


@kernel
def effective_address(cpu, ram, exits, place):
    """The memory operand of a ModRM byte in 32-bit code: (bytes of ModRM, SIB and displacement, offset, 1 if it is in SS)."""
    modrm = load_8(ram, place)
    mode, base = modrm >> 6, modrm & 7
    length, offset = 1, 0
    if base == ESP:
        sib = load_8(ram, place + 1)
        base, length = sib & 7, 2
        if (sib >> 3) & 7 != NO_INDEX:
            offset = register(cpu, exits, (sib >> 3) & 7) << (sib >> 6)
    if mode == 0 and base == EBP:
        return length + 4, (offset + load_32(ram, place + length)) & M32, 0
    offset += register(cpu, exits, base)
    if mode == 1:
        displacement = load_8(ram, place + length)
        offset += displacement - ((displacement & 0x80) << 1)
        length += 1
    elif mode == 2:
        offset += load_32(ram, place + length)
        length += 4
    return length, offset & M32, int(base == ESP or base == EBP)


@kernel
def operand_base(cpu, ram, exits, in_stack):
    """The base of the guest's DS or SS, -1 if left to Python."""
    if in_stack == 1:
        return base_of(shadow_low(ram, exits.ss), shadow_high(ram, exits.ss))
    segment = cpu.seg[DS]
    if segment.access & AR_UNUSABLE != 0 or segment.access & TYPE_EXPAND_DOWN != 0:
        return UNKNOWN
    return segment.seg_base

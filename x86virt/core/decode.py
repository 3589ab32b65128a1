"""Decoding one instruction from a window of bytes (SDM volume 2, chapter 2): prefixes, opcode, ModRM, SIB, operands.

`d.code_16` says that the code segment's D bit is clear: operands and addresses then have 16 bits by default.
"""

import numpy as np

from ..isa.registers import DS, EBP, EBX, EDI, ESI, ESP, SS, ZERO
from .jit import inline, kernel
from .layout import MAX_INSTRUCTION
from .tables import (
    AP,
    IB,
    IW,
    IZ,
    JB,
    JZ,
    MAP_0F01,
    MAP_66_0F,
    MAP_66_0F38,
    MAP_F3,
    MAP_TWO_BYTE,
    MAP_X87,
    OFFSET,
    OPCODE_MAP,
    ROW_INFO,
)

# What decoding can end with.
DECODED_OK, TRUNCATED, INVALID, TOO_LONG = range(4)

M32 = 0xFFFFFFFF
BOTH_SIZES = 48  # 16 + 32: the other size is this less the default


@inline
def byte(d, position):
    """The byte at a position of the window; the caller has checked that it is there."""
    return np.int64(d.window[position])


@inline
def signed_byte(d, position):
    """A byte as a signed number."""
    return (np.int64(d.window[position]) ^ 0x80) - 0x80


@inline
def word(d, position):
    """A little-endian word."""
    return np.int64(d.window[position]) | np.int64(d.window[position + 1]) << 8


@inline
def doubleword(d, position):
    """A little-endian doubleword."""
    return word(d, position) | word(d, position + 2) << 16


@kernel
def missing(d, end):
    """Why bytes up to `end` cannot be had: the instruction is too long, or its page ended."""
    if end > MAX_INSTRUCTION:
        return TOO_LONG
    if end > d.available:
        return TRUNCATED
    return DECODED_OK


@kernel
def segment_override(value):
    """The segment register that a prefix byte selects, -1 if it is not such a prefix."""
    if value == 0x26 or value == 0x2E or value == 0x36 or value == 0x3E:
        return (value >> 3) & 3
    if value == 0x64 or value == 0x65:
        return value - 0x60
    return -1


@kernel
def decode_prefixes(d):
    """Read the prefixes: (why it ended, position of the opcode)."""
    position = 0
    default = 32
    if d.code_16 == 1:
        default = 16
    d.width = default
    d.address_width = default
    d.override = -1
    d.rep_prefix = 0
    d.lock = 0
    while True:
        why = missing(d, position + 1)
        if why != DECODED_OK:
            return why, position
        value = byte(d, position)
        if value == 0x66:
            d.width = BOTH_SIZES - default
        elif value == 0x67:
            d.address_width = BOTH_SIZES - default
        elif value == 0xF0:
            d.lock = 1
        elif value == 0xF2 or value == 0xF3:
            d.rep_prefix = value
        elif segment_override(value) >= 0:
            d.override = segment_override(value)
        else:
            return DECODED_OK, position
        position += 1


@kernel
def choose_registers_16(d):
    """Base and index of a 16-bit memory operand by the rm field (SDM volume 2, table 2-1)."""
    rm = d.modrm_rm
    d.base_register = EBX
    if rm == 2 or rm == 3 or rm == 6:
        d.base_register = EBP
    elif rm == 4:
        d.base_register = ESI
    elif rm == 5:
        d.base_register = EDI
    d.index_register = ZERO
    if rm == 0 or rm == 2:
        d.index_register = ESI
    elif rm == 1 or rm == 3:
        d.index_register = EDI


@kernel
def decode_memory_16(d, position):
    """The ModRM byte's memory operand, 16-bit forms (SDM volume 2, table 2-1): (why, next position).

    The sum of the parts is the offset modulo 64 KB: `lower` sees to that. A lone displacement is kept unsigned.
    """
    choose_registers_16(d)
    d.scale = 0
    d.disp = 0
    d.segment = DS
    size = d.modrm_mod
    direct = int(d.modrm_mod == 0 and d.modrm_rm == 6)
    if direct == 1:
        d.base_register = ZERO
        size = 2
    why = missing(d, position + size)
    if why != DECODED_OK:
        return why, position
    if size == 1:
        d.disp = signed_byte(d, position)
    elif size == 2:
        d.disp = word(d, position)
    if d.base_register == EBP:
        d.segment = SS
    if d.override >= 0:
        d.segment = d.override
    return DECODED_OK, position + size


@kernel
def decode_memory(d, position):
    """The ModRM byte's memory operand, 32-bit forms (SDM volume 2, tables 2-2 and 2-3): (why, next position)."""
    mod = d.modrm_mod
    base = d.modrm_rm
    d.index_register = ZERO
    d.scale = 0
    d.disp = 0
    d.segment = DS
    size = (0, 1, 4)[mod]
    if d.modrm_rm == 4:
        why = missing(d, position + 1)
        if why != DECODED_OK:
            return why, position
        sib = byte(d, position)
        position += 1
        base = sib & 7
        if (sib >> 3) & 7 != 4:
            d.index_register = (sib >> 3) & 7
            d.scale = sib >> 6
    if mod == 0 and base == EBP:
        base = ZERO
        size = 4
    why = missing(d, position + size)
    if why != DECODED_OK:
        return why, position
    if size == 1:
        d.disp = signed_byte(d, position)
    elif size == 4:
        d.disp = (doubleword(d, position) ^ 0x80000000) - 0x80000000
    d.base_register = base
    if base == ESP or base == EBP:
        d.segment = SS
    if d.override >= 0:
        d.segment = d.override
    return DECODED_OK, position + size


@kernel
def decode_immediate(d, code, sign, position):
    """One immediate: (why, value, next position)."""
    size = 1
    if code == IW:
        size = 2
    elif code == IZ or code == JZ:
        size = d.width >> 3
    elif code == AP:
        size = (d.width >> 3) + 2
    elif code == OFFSET:
        size = d.address_width >> 3
    why = missing(d, position + size)
    if why != DECODED_OK:
        return why, 0, position
    end = position + size
    if code == JB or (code == IB and sign == 1):
        return DECODED_OK, signed_byte(d, position), end
    if code == AP:
        if d.width == 16:
            return DECODED_OK, word(d, position) | word(d, position + 2) << 32, end
        return DECODED_OK, doubleword(d, position) | word(d, position + 4) << 32, end
    if size == 1:
        return DECODED_OK, byte(d, position), end
    if size == 2:
        value = word(d, position)
        if code == JZ:
            value = (value ^ 0x8000) - 0x8000
        return DECODED_OK, value, end
    value = doubleword(d, position)
    if code == JZ:
        value = (value ^ 0x80000000) - 0x80000000
    return DECODED_OK, value, end


@kernel
def decode(d):
    """Decode the instruction in d.window at linear offset d.rip; returns DECODED_OK or why not.

    On success d.length, d.next_rip, d.row and the operand fields are set.
    """
    # 1. Prefixes and opcode.
    why, position = decode_prefixes(d)
    if why != DECODED_OK:
        return why
    space = 0
    opcode = byte(d, position)
    position += 1
    if opcode == 0x0F:
        why = missing(d, position + 1)
        if why != DECODED_OK:
            return why
        space = 1
        opcode = byte(d, position)
        position += 1
    if space == MAP_TWO_BYTE and opcode == 0x38 and d.rep_prefix == 0 and has_66(d):
        why = missing(d, position + 1)
        if why != DECODED_OK:
            return why
        space = MAP_66_0F38
        opcode = byte(d, position)
        position += 1
    d.opcode = space << 8 | opcode
    if space <= MAP_TWO_BYTE and d.rep_prefix == 0xF3 and OPCODE_MAP[space + 2, opcode, 0, 0] != 0:
        space += 2
    # 2. ModRM, when the rows at this opcode have it; the reg field and the form choose the row.
    d.has_memory = 0
    row = find_row(d, space, opcode, position)
    if row < 0:
        return INVALID if row == INVALID_ROW else -row - TRUNCATION
    d.row = row
    info = ROW_INFO[row]
    if info.modrm == 1:
        position += 1
        if d.has_memory == 1:
            if d.address_width == 16:
                why, position = decode_memory_16(d, position)
            else:
                why, position = decode_memory(d, position)
            if why != DECODED_OK:
                return why
    # 3. Immediates.
    d.imm = 0
    d.imm2 = 0
    if info.immediate[0] != 0:
        why, d.imm, position = decode_immediate(d, info.immediate[0], info.signed_byte, position)
        if why == DECODED_OK and info.immediate[1] != 0:
            why, d.imm2, position = decode_immediate(d, info.immediate[1], 0, position)
        if why != DECODED_OK:
            return why
    if info.immediate[0] == OFFSET:
        absolute_operand(d)
    d.length = position
    d.next_rip = (d.rip + position) & M32
    return DECODED_OK


INVALID_ROW = -2
TRUNCATION = 10  # a row of -TRUNCATION - why says that the ModRM byte could not be had


@kernel
def find_row(d, space, opcode, position):
    """The row at an opcode, reading the ModRM byte if the row says that there is one.

    Returns the row, INVALID_ROW, or -TRUNCATION - why.
    """
    place = OPCODE_MAP[space, opcode, 0, 0]
    if place > 0 and ROW_INFO[place - 1].modrm == 0:
        return place - 1
    if not any_row(space, opcode):
        return INVALID_ROW
    why = missing(d, position + 1)
    if why != DECODED_OK:
        return -TRUNCATION - why
    modrm = byte(d, position)
    d.modrm_mod = modrm >> 6
    d.modrm_reg = (modrm >> 3) & 7
    d.modrm_rm = modrm & 7
    # MOV to and from control and debug registers takes every mod as a register form.
    control = int(space == 1 and opcode >= 0x20 and opcode <= 0x23)
    d.has_memory = int(d.modrm_mod != 3 and control == 0)
    place = OPCODE_MAP[space, opcode, d.modrm_reg, d.has_memory]
    if space == 0 and opcode & 0xF8 == 0xD8 and d.has_memory == 0:
        place = OPCODE_MAP[MAP_X87, (opcode & 7) << 3 | d.modrm_reg, d.modrm_rm, 0]
    elif space == 1 and opcode == 1 and d.has_memory == 0 and OPCODE_MAP[MAP_0F01, modrm, 0, 0] != 0:
        place = OPCODE_MAP[MAP_0F01, modrm, 0, 0]
    elif space == 1 and (opcode & 0xFE == 0x78 or is_chosen_by_prefix(d, opcode)):
        place = place_by_prefix(d, opcode)
    if place == 0:
        return INVALID_ROW
    return place - 1


@inline
def is_chosen_by_prefix(d, opcode):
    """Whether 66, F3 and F2 are part of a form of 0F C7 or 0F AE: VMX's pointers, and fences."""
    return (opcode == 0xC7 and d.modrm_reg >= 6) or (opcode == 0xAE and d.has_memory == 0)


@kernel
def has_66(d):
    """Whether there is an operand-size prefix."""
    return d.width == 16 and d.code_16 == 0 or d.width == 32 and d.code_16 == 1


@kernel
def place_by_prefix(d, opcode):
    """The place of a two-byte opcode that 66, F3 and F2 are part of: F3 and F2 count before 66."""
    if d.rep_prefix == 0xF3:
        return OPCODE_MAP[MAP_F3 + MAP_TWO_BYTE, opcode, d.modrm_reg, d.has_memory]
    if d.rep_prefix != 0:
        return 0
    if has_66(d):
        return OPCODE_MAP[MAP_66_0F, opcode, d.modrm_reg, d.has_memory]
    return OPCODE_MAP[MAP_TWO_BYTE, opcode, d.modrm_reg, d.has_memory]


@kernel
def any_row(space, opcode):
    """Whether some reg field or form of an opcode has a row."""
    for field in range(8):
        if OPCODE_MAP[space, opcode, field, 0] != 0 or OPCODE_MAP[space, opcode, field, 1] != 0:
            return True
    return False


@kernel
def absolute_operand(d):
    """The memory operand of MOV with an absolute offset (operand code O)."""
    d.has_memory = 1
    d.base_register = ZERO
    d.index_register = ZERO
    d.scale = 0
    d.disp = d.imm
    if d.address_width == 32:
        d.disp = (d.imm ^ 0x80000000) - 0x80000000
    d.segment = DS
    if d.override >= 0:
        d.segment = d.override
    d.imm = 0

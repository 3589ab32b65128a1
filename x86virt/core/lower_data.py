"""Lowering of what moves and computes: moves, arithmetic, logic, shifts, conditions, the stack."""

from ..isa.events import EVENT_INS_MARK
from ..isa.registers import EBX, ECX, TEMPORARY_0
from . import tables as t
from .handlers import NUMBER
from .jit import kernel
from .micro_operations import (
    OP_STORE_8,
    OP_STORE_UPDATE,
    destination_ahead,
    destination_behind,
    emit_load,
    emit_update_load,
    is_memory,
    new_uop,
    operand_width,
    operation_of,
    register_number,
    set_destination,
    set_source,
    source_ahead,
    store_op,
)

OP_ZERO_EXTEND = NUMBER["zero_extend"]
OP_MOV_NARROW = NUMBER["mov_narrow"]
OP_SHL = NUMBER["shl"]
OP_SHR = NUMBER["shr"]
OP_SAR = NUMBER["sar"]
OP_SHL_IMMEDIATE = NUMBER["shl_immediate_32"]
OP_SHR_IMMEDIATE = NUMBER["shr_immediate_32"]
OP_SAR_IMMEDIATE = NUMBER["sar_immediate_32"]
OP_POP_MEMORY = NUMBER["pop_memory"]
OP_MARK = NUMBER["stop_mark"]
M32 = 0xFFFFFFFF
FROM_CL = 1


@kernel
def lower_binary(uops, i, d, info, writes):
    """Destination op= source; with `writes` 0 only the flags change."""
    width = operand_width(d, info, 0)
    i = source_ahead(uops, i, d, info, 1, width)
    i = destination_ahead(uops, i, d, info, width, writes)
    u = new_uop(uops, i, d, operation_of(info, width), width)
    u.condition = info.condition
    set_destination(u, d, info, 0, width)
    set_source(u, d, info, 1, width)
    return destination_behind(uops, i + 1, d, info, width, writes)


@kernel
def lower_unary(uops, i, d, info):
    """Destination := op destination."""
    width = operand_width(d, info, 0)
    i = destination_ahead(uops, i, d, info, width, 1)
    u = new_uop(uops, i, d, operation_of(info, width), width)
    set_destination(u, d, info, 0, width)
    return destination_behind(uops, i + 1, d, info, width, 1)


@kernel
def fast_shift(op, width, shift):
    """The handler for a 32-bit register shifted by a constant that is not zero, where there is one."""
    if width == 32 and shift != 0:
        if op == OP_SHL:
            return OP_SHL_IMMEDIATE
        if op == OP_SHR:
            return OP_SHR_IMMEDIATE
        if op == OP_SAR:
            return OP_SAR_IMMEDIATE
    return op


@kernel
def lower_shift(uops, i, d, info, count_place):
    """Shifts and rotates; the double ones have a register operand before the count."""
    width = operand_width(d, info, 0)
    i = destination_ahead(uops, i, d, info, width, 1)
    u = new_uop(uops, i, d, info.op_32, width)
    set_destination(u, d, info, 0, width)
    if count_place == 2:
        u.src = d.modrm_reg
    if info.kind[count_place] == t.CL:
        u.condition = FROM_CL
    else:
        u.imm = 1
        if info.kind[count_place] == t.I:
            u.imm = d.imm & 31
        u.op = fast_shift(info.op_32, width, u.imm)
    return destination_behind(uops, i + 1, d, info, width, 1)


@kernel
def lower_move(uops, i, d, info):
    """MOV between registers, memory and immediates."""
    width = operand_width(d, info, 0)
    if is_memory(d, info, 0):
        u = new_uop(uops, i, d, store_op(width), width)
        set_source(u, d, info, 1, width)
        return i + 1
    number = register_number(d, info, 0)
    if width == 32 and is_memory(d, info, 1):
        return emit_load(uops, i, d, 32, number)
    i = source_ahead(uops, i, d, info, 1, width)
    u = new_uop(uops, i, d, operation_of(info, width), width)
    set_destination(u, d, info, 0, width)
    set_source(u, d, info, 1, width)
    return i + 1


@kernel
def move_to_register(uops, i, d, number):
    """MOV of the first temporary to a 16-bit register."""
    u = new_uop(uops, i, d, OP_MOV_NARROW, 16)
    u.dst = number
    u.src = TEMPORARY_0
    return i + 1


@kernel
def lower_extend(uops, i, d, info):
    """MOVZX and MOVSX."""
    width = info.operand_width[1]
    in_memory = is_memory(d, info, 1)
    if in_memory and d.width == 32 and info.op_32 == OP_ZERO_EXTEND:
        return emit_load(uops, i, d, width, d.modrm_reg)
    i = source_ahead(uops, i, d, info, 1, width)
    u = new_uop(uops, i, d, info.op_32, width)
    set_source(u, d, info, 1, width)
    u.dst = d.modrm_reg
    if d.width == 16:
        u.dst = TEMPORARY_0
        return move_to_register(uops, i + 1, d, d.modrm_reg)
    return i + 1


@kernel
def lower_load_address(uops, i, d, info):
    """LEA."""
    u = new_uop(uops, i, d, info.op_32, 32)
    u.dst = d.modrm_reg
    if d.width == 16:
        u.dst = TEMPORARY_0
        return move_to_register(uops, i + 1, d, d.modrm_reg)
    return i + 1


@kernel
def lower_exchange(uops, i, d, info):
    """XCHG; with the operand size 16 and both operands BX or CX it is a region mark."""
    width = operand_width(d, info, 0)
    if is_memory(d, info, 0):
        i = emit_update_load(uops, i, d, width)
        u = new_uop(uops, i, d, OP_STORE_UPDATE, width)
        set_source(u, d, info, 1, width)
        u = new_uop(uops, i + 1, d, OP_MOV_NARROW, width)
        set_destination(u, d, info, 1, width)
        u.src = TEMPORARY_0
        return i + 2
    u = new_uop(uops, i, d, info.op_32, width)
    set_destination(u, d, info, 0, width)
    set_source(u, d, info, 1, width)
    if width == 16 and info.kind[0] == t.E and d.modrm_rm == d.modrm_reg:
        if d.modrm_reg == EBX or d.modrm_reg == ECX:
            u.op = OP_MARK
            d.ends_block = 1
            d.event = EVENT_INS_MARK
    return i + 1


@kernel
def lower_push(uops, i, d, info):
    """PUSH."""
    i = source_ahead(uops, i, d, info, 0, d.width)
    u = new_uop(uops, i, d, operation_of(info, d.width), d.width)
    set_source(u, d, info, 0, d.width)
    return i + 1


@kernel
def lower_pop(uops, i, d, info):
    """POP."""
    if is_memory(d, info, 0):
        new_uop(uops, i, d, OP_POP_MEMORY, d.width)
        return i + 1
    u = new_uop(uops, i, d, operation_of(info, d.width), d.width)
    set_destination(u, d, info, 0, d.width)
    return i + 1


@kernel
def lower_set_byte(uops, i, d, info):
    """SETcc."""
    u = new_uop(uops, i, d, info.op_32, 8)
    u.condition = info.condition
    set_destination(u, d, info, 0, 8)
    if not is_memory(d, info, 0):
        return i + 1
    new_uop(uops, i + 1, d, OP_STORE_8, 8).src = TEMPORARY_0
    return i + 2


@kernel
def lower_from_source(uops, i, d, info, source_place, width):
    """An operation on one loaded or register source, into the register of the ModRM byte (or implied ones)."""
    i = source_ahead(uops, i, d, info, source_place, width)
    op = info.op_32
    if info.lowering == t.PRODUCT_3:
        op = operation_of(info, width)
    u = new_uop(uops, i, d, op, width)
    u.condition = info.condition
    set_source(u, d, info, source_place, width)
    u.dst = d.modrm_reg
    if info.lowering == t.PRODUCT_3:
        u.imm = d.imm & M32
    return i + 1

"""Lowering of bits, bit strings, and string instructions."""

from ..isa.events import EVENT_INS_REP_START
from ..isa.registers import DS, TEMPORARY_1, ZERO
from . import tables as t
from .handlers import NUMBER
from .jit import inline, kernel
from .micro_operations import (
    destination_ahead,
    destination_behind,
    emit_wrapped_offset,
    is_memory,
    new_uop,
    set_destination,
    set_source,
)

OP_BIT_OFFSET = NUMBER["bit_offset"]


@kernel
def lower_bit_test(uops, i, d, info):
    """BT, BTS, BTR, BTC with an immediate offset, and with a register offset on a register."""
    width = d.width
    writes = int(info.condition != 0)
    i = destination_ahead(uops, i, d, info, width, writes)
    u = new_uop(uops, i, d, info.op_32, width)
    u.condition = info.condition
    set_destination(u, d, info, 0, width)
    set_source(u, d, info, 1, width)
    return destination_behind(uops, i + 1, d, info, width, writes)


@kernel
def lower_bit_string(uops, i, d, info):
    """The same with a register offset into a bit string in memory, which may lie far from the base address."""
    if not is_memory(d, info, 0):
        return lower_bit_test(uops, i, d, info)
    u = new_uop(uops, i, d, OP_BIT_OFFSET, d.width)
    u.src = d.modrm_reg
    u.dst = TEMPORARY_1
    d.base_register = TEMPORARY_1
    d.index_register = ZERO
    d.scale = 0
    d.disp = 0
    i += 1
    if d.address_width == 16:
        i = emit_wrapped_offset(uops, i, d)
    return lower_bit_test(uops, i, d, info)


@inline
def is_port_string(info):
    """INS and OUTS."""
    return info.lowering == t.PORT_STRING or info.lowering == t.PORT_STRING_BYTE


@kernel
def lower_string(uops, i, d, info):
    """String instructions; a repeated one, and one on ports, ends its block."""
    width = d.width
    if info.lowering == t.STRING_BYTE or info.lowering == t.PORT_STRING_BYTE:
        width = 8
    op = info.op_32
    if is_port_string(info):
        d.ends_block = 1
    if d.rep_prefix != 0:
        op = info.op_narrow
        d.ends_block = 1
        d.event = EVENT_INS_REP_START
    u = new_uop(uops, i, d, op, width)
    u.condition = info.condition
    u.segment = DS
    if d.override >= 0:
        u.segment = d.override
    u.imm = d.rep_prefix
    return i + 1

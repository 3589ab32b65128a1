"""Lowering of near transfers: relative and indirect jumps and calls, returns."""

from ..isa.registers import CS, TEMPORARY_0
from . import tables as t
from .handlers import NUMBER
from .jit import kernel
from .micro_operations import OP_RAISE_GP, emit_load, is_memory, new_uop, set_source, source_ahead

OP_MOV_32 = NUMBER["mov_32"]
OP_BRANCH_BEYOND = NUMBER["branch_beyond"]
M32 = 0xFFFFFFFF


@kernel
def branch_target(d):
    """The target of a relative branch; a 16-bit operand size keeps IP only."""
    target = (d.next_rip + d.imm) & M32
    if d.width == 16:
        target &= 0xFFFF
    return target


@kernel
def lower_branch(cpu, uops, i, d, info):
    """Jcc, JMP, LOOP and CALL to a constant."""
    target = branch_target(d)
    d.ends_block = 1
    op = info.op_32
    condition = info.condition
    if info.lowering == t.BRANCH_CONDITION:
        op = info.op_32 + info.condition
    if target > cpu.seg[CS].limit:
        op = OP_RAISE_GP
        if info.lowering == t.BRANCH_CONDITION:
            op = OP_BRANCH_BEYOND
        elif info.lowering == t.BRANCH_LOOP:
            op = OP_BRANCH_BEYOND
            condition = 16 + info.condition
    elif info.lowering == t.CALL and d.width == 16:
        u = new_uop(uops, i, d, OP_MOV_32, 32)
        u.dst = TEMPORARY_0
        u.imm = target
        return emit_near_16(uops, i + 1, d, info, 2)
    u = new_uop(uops, i, d, op, d.width)
    u.condition = condition
    u.target = target
    u.imm = d.next_rip
    return i + 1


@kernel
def emit_near_16(uops, i, d, info, variant):
    """A 16-bit RET 0, JMP 1 or CALL 2 through the first temporary."""
    u = new_uop(uops, i, d, info.op_narrow, 16)
    u.condition = variant
    u.src = TEMPORARY_0
    u.imm = d.next_rip
    if variant == 0:
        u.imm = d.imm
    return i + 1


@kernel
def lower_indirect(uops, i, d, info):
    """JMP and CALL through a register or memory, and RET."""
    d.ends_block = 1
    if info.lowering == t.RETURN:
        if d.width == 16:
            return emit_near_16(uops, i, d, info, 0)
        new_uop(uops, i, d, info.op_32, 32).imm = d.imm
        return i + 1
    if d.width == 16:
        if is_memory(d, info, 0):
            i = emit_load(uops, i, d, 16, TEMPORARY_0)
        else:
            u = new_uop(uops, i, d, OP_MOV_32, 32)
            u.dst = TEMPORARY_0
            u.src = d.modrm_rm
            i += 1
        return emit_near_16(uops, i, d, info, 1 + int(info.lowering == t.CALL_INDIRECT))
    i = source_ahead(uops, i, d, info, 0, 32)
    u = new_uop(uops, i, d, info.op_32, 32)
    set_source(u, d, info, 0, 32)
    u.imm = d.next_rip
    return i + 1

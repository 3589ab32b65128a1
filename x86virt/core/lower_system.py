"""Lowering of system instructions, ports and the x87 FPU, whose operands lie elsewhere than in ModRM alone."""

from ..isa.registers import TEMPORARY_0, TEMPORARY_1, ZERO
from ..isa.system_ops import SYSTEM_IN, SYSTEM_OUT
from . import tables as t
from .handlers import NUMBER
from .jit import inline, kernel
from .lower_intercept import (
    differs_in_guest,
    emit_intercept,
    guest_operation,
    in_vmx_guest,
    intercept_stage,
    is_byte_port,
)
from .micro_operations import (
    OP_STORE_16,
    emit_load,
    emit_update_load,
    emit_update_store,
    is_memory,
    new_uop,
    operation_of,
    set_source,
)
from .port_map import is_plain_port

OP_IN_PLAIN = NUMBER["in_plain"]
OP_OUT_PLAIN = NUMBER["out_plain"]
OP_SYSTEM = NUMBER["system_instruction"]


@inline
def is_plain_port_access(d, info, width):
    """IN and OUT of a byte at a constant port that leaves the boundary behind it nothing to do."""
    if (info.system != SYSTEM_IN and info.system != SYSTEM_OUT) or width != 8 or info.condition != 0:
        return False
    return is_plain_port(d.imm & 0xFF)


@inline
def plain_port_operation(info):
    """Their micro-operation."""
    if info.system == SYSTEM_IN:
        return OP_IN_PLAIN
    return OP_OUT_PLAIN


@kernel
def is_value_store(info):
    """SLDT, STR and SMSW store into their only operand; LLDT, LTR, LMSW, VERR and VERW read it."""
    return info.kind[0] == t.E and info.operand_width[0] == 0


@kernel
def lower_system(cpu, uops, i, d, info, ends):
    """System instructions: operands as core/system.py takes them (isa/system_ops.py)."""
    d.ends_block = ends
    first, second = info.kind[0], info.kind[1]
    width = d.width
    source_place = -1
    destination_place = -1
    for place in range(2):
        kind = info.kind[place]
        if kind == t.E or kind == t.R:
            if (place == 0 and (second != t.NONE or is_value_store(info))) and info.lowering == t.SYSTEM_VALUE:
                destination_place = place
            else:
                source_place = place
    condition = info.condition
    if first == t.S or second == t.S or first == t.C or second == t.C or first == t.D or second == t.D:
        condition = d.modrm_reg
    if is_byte_port(info):
        width = 8
    stores = int(destination_place >= 0 and is_memory(d, info, destination_place))
    if stores == 1:
        width = 16
        if second == t.G:
            i = emit_update_load(uops, i, d, 16)
    if source_place >= 0 and is_memory(d, info, source_place):
        i = emit_load(uops, i, d, 16, TEMPORARY_1)
    if intercept_stage(cpu, info) == t.STAGE_BEHIND:
        i = emit_intercept(uops, i, d, info)
        set_source(uops[i - 1], d, info, source_place, 32)
    op = operation_of(info, 32)
    if in_vmx_guest(cpu) and differs_in_guest(info.system, condition):
        op = guest_operation(ends)
    if is_plain_port_access(d, info, width):
        op = plain_port_operation(info)
        d.imm &= 0xFF
        d.ends_block = 0
    u = new_uop(uops, i, d, op, width)
    u.condition = condition
    u.dst_shift = info.system
    u.imm = d.imm
    u.dst = ZERO
    if source_place >= 0:
        set_source(u, d, info, source_place, 32)
    elif second == t.G and destination_place >= 0:
        u.src = d.modrm_reg
    if stores == 1:
        u.dst = TEMPORARY_0
    elif destination_place >= 0:
        u.dst = d.modrm_rm
    elif first == t.G:
        u.dst = d.modrm_reg
    elif first == t.ACC:
        u.dst = 0
    elif second == t.ACC:
        u.src = 0
    i += 1
    if stores == 1:
        if second == t.G:
            i = emit_update_store(uops, i, d, 16)
        else:
            new_uop(uops, i, d, OP_STORE_16, 16).src = TEMPORARY_0
            i += 1
    return i


@kernel
def lower_vmx(uops, i, d, info):
    """VMX instructions: the operands as core/vmx_instructions.py takes them."""
    u = new_uop(uops, i, d, info.op_32, 32)
    u.dst_shift = info.system
    u.condition = d.has_memory
    u.src = d.modrm_reg
    u.dst = d.modrm_rm
    d.ends_block = int(info.op_32 == OP_SYSTEM)
    return i + 1


@kernel
def lower_x87(uops, i, d, info):
    """x87 instructions: the operands as core/x87.py takes them (isa/x87_ops.py)."""
    u = new_uop(uops, i, d, info.op_32, d.width)
    u.dst_shift = info.system
    u.condition = info.condition
    u.imm = d.rip
    u.src = (d.opcode & 7) << 8 | d.modrm_mod << 6 | d.modrm_reg << 3 | d.modrm_rm
    u.src_shift = d.modrm_rm
    return i + 1

"""Lowering: a decoded instruction becomes one to six micro-operations.

Here are the checks that do not depend on operands, and the choice of a row's class; what each class becomes is in
lower_data.py, lower_strings.py, lower_transfers.py and lower_system.py, made of what micro_operations.py has.
"""

from ..isa.events import EVENT_INS_LOCK_ADD_MEM
from ..isa.registers import DS
from . import tables as t
from .jit import kernel
from .lower_data import (
    lower_binary,
    lower_exchange,
    lower_extend,
    lower_from_source,
    lower_load_address,
    lower_move,
    lower_pop,
    lower_push,
    lower_set_byte,
    lower_shift,
    lower_unary,
)
from .lower_intercept import emit_intercept, intercept_stage
from .lower_strings import is_port_string, lower_bit_string, lower_bit_test, lower_string
from .lower_system import lower_system, lower_vmx, lower_x87
from .lower_transfers import lower_branch, lower_indirect
from .micro_operations import OP_RAISE_GP, OP_RAISE_UD, emit_wrapped_offset, is_memory, new_uop, operand_width, single
from .mode import virtual_interrupt_let_in
from .tables import ROW_INFO
from .vendor import FAMILY_P6, family_of, is_amd

REAL_OR_VIRTUAL_8086 = 1 << 7 | 1 << 8  # of a code context's attributes


@kernel
def lower(cpu, uops, i, d):
    """Append the micro-operations of a decoded instruction at `i`; returns the next free index.

    Sets d.event and d.ends_block. The privilege of the row is checked here, once: CPL is part of the block's key.
    """
    info = ROW_INFO[d.row]
    d.event = instruction_event(cpu, d, info)
    d.ends_block = 0
    if d.lock == 1 and (info.lockable == 0 or not is_memory(d, info, 0)):
        return single(uops, i, d, OP_RAISE_UD)
    if info.feature >= 0 and (cpu.cpuid_leaf1_edx >> info.feature) & 1 == 0:
        return single(uops, i, d, OP_RAISE_UD)
    if virtual_interrupt_let_in(cpu):
        return single(uops, i, d, OP_RAISE_GP)
    if info.protected_only == 1 and cpu.contexts[cpu.context].attributes & REAL_OR_VIRTUAL_8086 != 0:
        return single(uops, i, d, OP_RAISE_UD)
    stage = intercept_stage(cpu, info)
    if stage == t.STAGE_FIRST:
        i = emit_intercept(uops, i, d, info)
    if cpu.cpl != 0 and (info.kernel_only == 1 or info.sensitive == 1 and cpu.sensitive_trap == 1):
        return single(uops, i, d, OP_RAISE_GP)
    if stage == t.STAGE_AHEAD:
        i = emit_intercept(uops, i, d, info)
    lowering = info.lowering
    if d.address_width == 16 and d.has_memory == 1 and lowering != t.BIT_STRING:
        i = emit_wrapped_offset(uops, i, d)
    if lowering == t.BINARY:
        return lower_binary(uops, i, d, info, 1)
    if lowering == t.COMPARE:
        return lower_binary(uops, i, d, info, 0)
    if lowering == t.MOVE:
        return lower_move(uops, i, d, info)
    if lowering == t.UNARY:
        return lower_unary(uops, i, d, info)
    if lowering == t.SHIFT:
        return lower_shift(uops, i, d, info, 1)
    if lowering == t.SHIFT_DOUBLE:
        return lower_shift(uops, i, d, info, 2)
    if lowering == t.EXTEND:
        return lower_extend(uops, i, d, info)
    if lowering == t.LOAD_ADDRESS:
        return lower_load_address(uops, i, d, info)
    if lowering == t.EXCHANGE:
        return lower_exchange(uops, i, d, info)
    if lowering == t.PUSH:
        return lower_push(uops, i, d, info)
    if lowering == t.POP:
        return lower_pop(uops, i, d, info)
    if lowering == t.SET_BYTE:
        return lower_set_byte(uops, i, d, info)
    if lowering == t.MOVE_CONDITION or lowering == t.SCAN or lowering == t.PRODUCT_3:
        return lower_from_source(uops, i, d, info, 1, d.width)
    if lowering == t.ACCUMULATOR:
        return lower_from_source(uops, i, d, info, 0, operand_width(d, info, 0))
    return lower_rare(cpu, uops, i, d, info)


@kernel
def lower_rare(cpu, uops, i, d, info):
    """The classes that remain."""
    lowering = info.lowering
    if lowering == t.BIT_TEST:
        return lower_bit_test(uops, i, d, info)
    if lowering == t.BIT_STRING:
        return lower_bit_string(uops, i, d, info)
    if lowering == t.STRING or lowering == t.STRING_BYTE or is_port_string(info):
        return lower_string(uops, i, d, info)
    if lowering == t.UNDEFINED or (lowering == t.HINT and not has_hint(cpu, d)):
        return single(uops, i, d, OP_RAISE_UD)
    if lowering >= t.BRANCH_CONDITION and lowering <= t.CALL:
        return lower_branch(cpu, uops, i, d, info)
    if lowering >= t.JUMP_INDIRECT and lowering <= t.RETURN:
        return lower_indirect(uops, i, d, info)
    if lowering == t.X87:
        return lower_x87(uops, i, d, info)
    if lowering == t.VMX:
        return lower_vmx(uops, i, d, info)
    if lowering == t.SYSTEM:
        return lower_system(cpu, uops, i, d, info, 1)
    if lowering == t.SYSTEM_VALUE:
        return lower_system(cpu, uops, i, d, info, 0)
    u = new_uop(uops, i, d, info.op_32, d.width)
    u.condition = info.condition
    if lowering == t.ENTER:
        u.imm = d.imm | d.imm2 << 16
    elif lowering == t.FAULTING and d.has_memory == 1:
        u.src = d.modrm_reg
    elif lowering == t.FAULTING:
        u.imm = d.imm
        u.segment = DS
        if d.override >= 0:
            u.segment = d.override
    return i + 1


@kernel
def instruction_event(cpu, d, info):
    """The ledger event that prices the decoded form."""
    if cpu.cpl == 0 and info.event_kernel != info.event:
        return info.event_kernel
    if d.has_memory == 1:
        if d.lock == 1:
            return EVENT_INS_LOCK_ADD_MEM
        return info.event_memory
    return info.event


@kernel
def has_hint(cpu, d):
    """Whether an opcode of the hint space is no operation here: since the P6 family; AMD's 0F 0D names memory only."""
    if family_of(cpu) < FAMILY_P6:
        return False
    return d.opcode & 0xFF != 0x0D or d.has_memory == 1 or not is_amd(cpu)

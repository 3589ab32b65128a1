"""Lowering: a decoded instruction becomes one to six micro-operations.

A memory source is loaded into a temporary first; a read-modify-write loads with the write already checked, works on
the temporary, and stores to the translated address, so that flags and registers change only when nothing can fault.
With 16-bit addressing, a micro-operation ahead of these wraps the offset at 64 KB into a temporary, their base register.
"""

from ..isa.events import EVENT_INS_LOCK_ADD_MEM, EVENT_INS_MARK, EVENT_INS_REP_START
from ..isa.registers import CS, DS, EBX, ECX, TEMPORARY_0, TEMPORARY_1, TEMPORARY_2, ZERO
from ..isa.system_ops import SYSTEM_IN, SYSTEM_OUT
from . import tables as t
from .handlers import NUMBER
from .jit import inline, kernel
from .mode import virtual_interrupt_let_in
from .port_map import is_plain_port
from .tables import ROW_INFO
from .vendor import FAMILY_P6, family_of, is_amd

OP_ZERO_EXTEND = NUMBER["zero_extend"]
OP_MOV_NARROW = NUMBER["mov_narrow"]
OP_MOV_32 = NUMBER["mov_32"]
OP_LOAD_8, OP_LOAD_16, OP_LOAD_32 = NUMBER["load_8"], NUMBER["load_16"], NUMBER["load_32"]
OP_STORE_8, OP_STORE_16, OP_STORE_32 = NUMBER["store_8"], NUMBER["store_16"], NUMBER["store_32"]
OP_LOAD_FOR_UPDATE, OP_STORE_UPDATE = NUMBER["load_for_update"], NUMBER["store_update"]
OP_SHL, OP_SHR, OP_SAR = NUMBER["shl"], NUMBER["shr"], NUMBER["sar"]
OP_SHL_IMMEDIATE, OP_SHR_IMMEDIATE = NUMBER["shl_immediate_32"], NUMBER["shr_immediate_32"]
OP_SAR_IMMEDIATE = NUMBER["sar_immediate_32"]
OP_BIT_OFFSET, OP_POP_MEMORY = NUMBER["bit_offset"], NUMBER["pop_memory"]
OP_IN_PLAIN, OP_OUT_PLAIN = NUMBER["in_plain"], NUMBER["out_plain"]
OP_WRAP_OFFSET = NUMBER["wrap_offset"]
OP_FALL_THROUGH, OP_BRANCH_BEYOND = NUMBER["fall_through"], NUMBER["branch_beyond"]
OP_RAISE_GP, OP_RAISE_UD = NUMBER["raise_general_protection"], NUMBER["raise_invalid_opcode"]
OP_PROBE, OP_MARK = NUMBER["stop_probe"], NUMBER["stop_mark"]

M32 = 0xFFFFFFFF
FROM_CL = 1
REAL_OR_VIRTUAL_8086 = 1 << 7 | 1 << 8  # of a code context's attributes


@kernel
def new_uop(uops, i, d, op, width):
    """A micro-operation with the instruction's memory operand and neutral operands."""
    u = uops[i]
    u.op = op
    u.dst = ZERO
    u.src = ZERO
    u.dst_shift = 0
    u.src_shift = 0
    u.width = width
    u.condition = 0
    u.imm = 0
    u.target = d.next_rip
    u.base_register = ZERO
    u.index_register = ZERO
    u.scale = 0
    u.disp = 0
    u.segment = DS
    u.address_mask = (1 << d.address_width) - 1
    if d.has_memory == 1:
        u.base_register = d.base_register
        u.index_register = d.index_register
        u.scale = d.scale
        u.disp = d.disp
        u.segment = d.segment
    return u


@kernel
def load_op(width):
    """The load of a width."""
    if width == 32:
        return OP_LOAD_32
    if width == 16:
        return OP_LOAD_16
    return OP_LOAD_8


@kernel
def store_op(width):
    """The store of a width."""
    if width == 32:
        return OP_STORE_32
    if width == 16:
        return OP_STORE_16
    return OP_STORE_8


@inline
def operand_width(d, info, place):
    """The width of an operand in bits."""
    width = info.operand_width[place]
    if width == 0:
        return d.width
    return width


@kernel
def register_number(d, info, place):
    """The number of an operand's register in its encoding."""
    kind = info.kind[place]
    if kind == t.G:
        return d.modrm_reg
    if kind == t.Z:
        return d.opcode & 7
    if kind == t.ACC:
        return 0
    if kind >= t.FIXED:
        return kind - t.FIXED
    return d.modrm_rm


@inline
def slot_of(number, width):
    """The register slot of an encoded register: AH to BH are the second bytes of the first four."""
    if width == 8:
        return number & 3
    return number


@inline
def shift_of(number, width):
    """Bits by which an encoded register is shifted in its slot."""
    if width == 8 and number >= 4:
        return 8
    return 0


@inline
def is_memory(d, info, place):
    """Whether an operand is in memory."""
    kind = info.kind[place]
    return (kind == t.E and d.has_memory == 1) or kind == t.M or kind == t.O


@kernel
def set_destination(u, d, info, place, width):
    """Make a register operand the destination."""
    number = register_number(d, info, place)
    u.dst = slot_of(number, width)
    u.dst_shift = shift_of(number, width)


@kernel
def emit_wrapped_offset(uops, i, d):
    """Wrap the offset of a memory operand with 16-bit addressing at 64 KB; what follows uses it as the base.

    A lone displacement needs no wrapping.
    """
    if d.base_register == ZERO and d.index_register == ZERO:
        return i
    new_uop(uops, i, d, OP_WRAP_OFFSET, 16).dst = TEMPORARY_2
    d.base_register = TEMPORARY_2
    d.index_register = ZERO
    d.scale = 0
    d.disp = 0
    return i + 1


@kernel
def emit_load(uops, i, d, width, slot):
    """Load the memory operand into a slot."""
    new_uop(uops, i, d, load_op(width), width).dst = slot
    return i + 1


@kernel
def emit_update_load(uops, i, d, width):
    """The load of a read-modify-write into the first temporary."""
    new_uop(uops, i, d, OP_LOAD_FOR_UPDATE, width).dst = TEMPORARY_0
    return i + 1


@kernel
def emit_update_store(uops, i, d, width):
    """The store of a read-modify-write from the first temporary."""
    new_uop(uops, i, d, OP_STORE_UPDATE, width).src = TEMPORARY_0
    return i + 1


@kernel
def source_ahead(uops, i, d, info, place, width):
    """Load a memory source into the second temporary, so that `set_source` finds it there."""
    if is_memory(d, info, place):
        return emit_load(uops, i, d, width, TEMPORARY_1)
    return i


@kernel
def set_source(u, d, info, place, width):
    """Make an operand the source: a register, a loaded temporary, an immediate, one, or CL."""
    kind = info.kind[place]
    if is_memory(d, info, place):
        u.src = TEMPORARY_1
    elif kind == t.I:
        u.imm = d.imm & ((1 << width) - 1)
    elif kind == t.ONE:
        u.imm = 1
    else:
        number = register_number(d, info, place)
        u.src = slot_of(number, width)
        u.src_shift = shift_of(number, width)


@inline
def operation_of(info, width):
    """The micro-operation for a width."""
    if width == 32:
        return info.op_32
    return info.op_narrow


# -- classes of rows ------------------------------------------------------------------------------------------------


@kernel
def lower_binary(uops, i, d, info, writes):
    """Destination op= source; with `writes` 0 only the flags change."""
    width = operand_width(d, info, 0)
    i = source_ahead(uops, i, d, info, 1, width)
    in_memory = is_memory(d, info, 0)
    if in_memory and writes == 1:
        i = emit_update_load(uops, i, d, width)
    elif in_memory:
        i = emit_load(uops, i, d, width, TEMPORARY_0)
    u = new_uop(uops, i, d, operation_of(info, width), width)
    u.condition = info.condition
    u.dst = TEMPORARY_0
    if not in_memory:
        set_destination(u, d, info, 0, width)
    set_source(u, d, info, 1, width)
    i += 1
    if in_memory and writes == 1:
        i = emit_update_store(uops, i, d, width)
    return i


@kernel
def lower_unary(uops, i, d, info):
    """Destination := op destination."""
    width = operand_width(d, info, 0)
    in_memory = is_memory(d, info, 0)
    if in_memory:
        i = emit_update_load(uops, i, d, width)
    u = new_uop(uops, i, d, operation_of(info, width), width)
    u.dst = TEMPORARY_0
    if not in_memory:
        set_destination(u, d, info, 0, width)
    i += 1
    if in_memory:
        i = emit_update_store(uops, i, d, width)
    return i


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
    in_memory = is_memory(d, info, 0)
    if in_memory:
        i = emit_update_load(uops, i, d, width)
    u = new_uop(uops, i, d, info.op_32, width)
    u.dst = TEMPORARY_0
    if not in_memory:
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
    i += 1
    if in_memory:
        i = emit_update_store(uops, i, d, width)
    return i


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
    if not is_memory(d, info, 0):
        set_destination(u, d, info, 0, 8)
        return i + 1
    u.dst = TEMPORARY_0
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


@kernel
def lower_bit_test(uops, i, d, info):
    """BT, BTS, BTR, BTC with an immediate offset, and with a register offset on a register."""
    width = d.width
    in_memory = is_memory(d, info, 0)
    writes = int(info.condition != 0)
    if in_memory and writes == 1:
        i = emit_update_load(uops, i, d, width)
    elif in_memory:
        i = emit_load(uops, i, d, width, TEMPORARY_0)
    u = new_uop(uops, i, d, info.op_32, width)
    u.condition = info.condition
    u.dst = TEMPORARY_0
    if not in_memory:
        u.dst = d.modrm_rm
    set_source(u, d, info, 1, width)
    i += 1
    if in_memory and writes == 1:
        i = emit_update_store(uops, i, d, width)
    return i


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
    # A byte port access is the only 8-bit one.
    if info.operand_width[0] == 8 and first == t.ACC or info.operand_width[1] == 8 and second == t.ACC:
        width = 8
    stores = int(destination_place >= 0 and is_memory(d, info, destination_place))
    if stores == 1:
        width = 16
        if second == t.G:
            i = emit_update_load(uops, i, d, 16)
    if source_place >= 0 and is_memory(d, info, source_place):
        i = emit_load(uops, i, d, 16, TEMPORARY_1)
    op = operation_of(info, 32)
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
def lower_x87(uops, i, d, info):
    """x87 instructions: the operands as core/x87.py takes them (isa/x87_ops.py)."""
    u = new_uop(uops, i, d, info.op_32, d.width)
    u.dst_shift = info.system
    u.condition = info.condition
    u.imm = d.rip
    u.src = (d.opcode & 7) << 8 | d.modrm_mod << 6 | d.modrm_reg << 3 | d.modrm_rm
    u.src_shift = d.modrm_rm
    return i + 1


@kernel
def is_value_store(info):
    """SLDT, STR and SMSW store into their only operand; LLDT, LTR, LMSW, VERR and VERW read it."""
    return info.kind[0] == t.E and info.operand_width[0] == 0


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
def single(uops, i, d, op):
    """A micro-operation that replaces the whole instruction and ends the block."""
    new_uop(uops, i, d, op, 32)
    d.ends_block = 1
    d.event = t.NO_EVENT
    return i + 1


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
    if cpu.cpl != 0 and (info.kernel_only == 1 or info.sensitive == 1 and cpu.sensitive_trap == 1):
        return single(uops, i, d, OP_RAISE_GP)
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
def has_hint(cpu, d):
    """Whether an opcode of the hint space is no operation here: since the P6 family; AMD's 0F 0D names memory only."""
    if family_of(cpu) < FAMILY_P6:
        return False
    return d.opcode & 0xFF != 0x0D or d.has_memory == 1 or not is_amd(cpu)


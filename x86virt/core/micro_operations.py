"""Micro-operations and their operands: what every class of rows is lowered with (lower.py).

A memory source is loaded into a temporary first; a read-modify-write loads with the write already checked, works on
the temporary, and stores to the translated address, so that flags and registers change only when nothing can fault.
With 16-bit addressing, a micro-operation ahead of these wraps the offset at 64 KB into a temporary, their base register.
"""

from ..isa.registers import DS, TEMPORARY_0, TEMPORARY_1, TEMPORARY_2, ZERO
from . import tables as t
from .handlers import NUMBER
from .jit import inline, kernel

OP_LOAD_8 = NUMBER["load_8"]
OP_LOAD_16 = NUMBER["load_16"]
OP_LOAD_32 = NUMBER["load_32"]
OP_STORE_8 = NUMBER["store_8"]
OP_STORE_16 = NUMBER["store_16"]
OP_STORE_32 = NUMBER["store_32"]
OP_LOAD_FOR_UPDATE = NUMBER["load_for_update"]
OP_STORE_UPDATE = NUMBER["store_update"]
OP_WRAP_OFFSET = NUMBER["wrap_offset"]
OP_RAISE_GP = NUMBER["raise_general_protection"]
OP_RAISE_UD = NUMBER["raise_invalid_opcode"]


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
def single(uops, i, d, op):
    """A micro-operation that replaces the whole instruction and ends the block."""
    new_uop(uops, i, d, op, 32)
    d.ends_block = 1
    d.event = t.NO_EVENT
    return i + 1


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


@inline
def operation_of(info, width):
    """The micro-operation for a width."""
    if width == 32:
        return info.op_32
    return info.op_narrow


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
    """Make an operand the destination: a register, or the temporary that `destination_ahead` loads memory into."""
    if is_memory(d, info, place):
        u.dst = TEMPORARY_0
    else:
        number = register_number(d, info, place)
        u.dst = slot_of(number, width)
        u.dst_shift = shift_of(number, width)


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


@kernel
def destination_ahead(uops, i, d, info, width, writes):
    """Load a first operand that is in memory into the first temporary, where `set_destination` finds it; `writes`: for update."""
    if not is_memory(d, info, 0):
        return i
    if writes == 1:
        return emit_update_load(uops, i, d, width)
    return emit_load(uops, i, d, width, TEMPORARY_0)


@kernel
def destination_behind(uops, i, d, info, width, writes):
    """Store it there again, behind what worked on it."""
    if writes == 1 and is_memory(d, info, 0):
        return emit_update_store(uops, i, d, width)
    return i


@kernel
def source_ahead(uops, i, d, info, place, width):
    """Load a memory source into the second temporary, so that `set_source` finds it there."""
    if is_memory(d, info, place):
        return emit_load(uops, i, d, width, TEMPORARY_1)
    return i


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

"""Moves, loads and stores, the stack, and what works on whole operands (SDM volume 2)."""

from ..isa.registers import BUFFER, EBP, EDX, EFLAGS_DF, ESP, SS
from ..isa.vectors import BR, DE
from .alu import condition_holds, divide, multiply, sign_extend
from .fault import raise_plain
from .flags import arithmetic_flags, carry_flag, set_arithmetic_flags, set_carry
from .jit import inline, kernel
from .layout import OK
from .memory import (
    AT_PLACE,
    bytes_at,
    check_operand_alignment,
    check_write_segment,
    effective_address,
    fast_write_address,
    load_to_slot_8,
    load_to_slot_16,
    load_to_slot_32,
    read_segment,
    read_translated,
    store_value_8,
    store_value_16,
    store_value_32,
    write_segment,
    write_translated,
)
from .mode import set_stack_pointer, stack_mask, write_register

M32 = 0xFFFFFFFF


# -- registers ------------------------------------------------------------------------------------------------------


@inline
def mov_32(cpu, u):
    """MOV to a 32-bit register from a register or an immediate."""
    cpu.gpr[u.dst] = (cpu.gpr[u.src] + u.imm) & M32


@inline
def mov_narrow(cpu, u):
    """MOV to an 8- or 16-bit register."""
    mask = ((1 << u.width) - 1) << u.dst_shift
    value = (cpu.gpr[u.src] >> u.src_shift) + u.imm
    cpu.gpr[u.dst] = (cpu.gpr[u.dst] & ~mask) | ((value << u.dst_shift) & mask)


@inline
def zero_extend(cpu, u):
    """MOVZX to 32 bits from `u.width` bits."""
    cpu.gpr[u.dst] = (cpu.gpr[u.src] >> u.src_shift) & ((1 << u.width) - 1)


@inline
def sign_extend_to_32(cpu, u):
    """MOVSX to 32 bits from `u.width` bits."""
    cpu.gpr[u.dst] = sign_extend((cpu.gpr[u.src] >> u.src_shift) & ((1 << u.width) - 1), u.width) & M32


@inline
def lea(cpu, u):
    """LEA to a register of 32 bits."""
    cpu.gpr[u.dst] = effective_address(cpu, u)


@inline
def xchg(cpu, u):
    """XCHG of two registers of any width."""
    mask = (1 << u.width) - 1
    a = (cpu.gpr[u.dst] >> u.dst_shift) & mask
    b = (cpu.gpr[u.src] >> u.src_shift) & mask
    write_register(cpu, u.dst, u.dst_shift, u.width, b)
    write_register(cpu, u.src, u.src_shift, u.width, a)


@inline
def setcc(cpu, u):
    """SETcc into an 8-bit register or a temporary."""
    write_register(cpu, u.dst, u.dst_shift, 8, condition_holds(cpu, u.condition))


@inline
def cmovcc(cpu, u):
    """CMOVcc; the source has been read whatever the condition says."""
    if condition_holds(cpu, u.condition) == 1:
        write_register(cpu, u.dst, 0, u.width, cpu.gpr[u.src] & ((1 << u.width) - 1))


@inline
def nop(cpu, u):
    """NOP."""


@inline
def lahf(cpu, u):
    """LAHF."""
    write_register(cpu, 0, 8, 8, (arithmetic_flags(cpu) & 0xD5) | 2)


@inline
def sahf(cpu, u):
    """SAHF."""
    set_arithmetic_flags(cpu, (arithmetic_flags(cpu) & ~0xD5) | (cpu.gpr[0] >> 8) & 0xD5)


@inline
def salc(cpu, u):
    """SALC, which no manual lists: AL := FF if CF is set, else 0."""
    write_register(cpu, 0, 0, 8, -carry_flag(cpu))


@inline
def multiply_accumulator(cpu, u):
    """MUL and IMUL with one operand."""
    multiply(cpu, u)


# -- loads and stores -----------------------------------------------------------------------------------------------


@inline
def load_8(cpu, ram, u):
    """Load a byte into a slot, zero-extended."""
    return load_to_slot_8(cpu, ram, u.segment, effective_address(cpu, u), u.dst)


@inline
def load_16(cpu, ram, u):
    """Load a word into a slot, zero-extended."""
    return load_to_slot_16(cpu, ram, u.segment, effective_address(cpu, u), u.dst)


@inline
def load_32(cpu, ram, u):
    """Load a doubleword into a slot."""
    return load_to_slot_32(cpu, ram, u.segment, effective_address(cpu, u), u.dst)


@inline
def store_8(cpu, ram, u):
    """Store the low byte (or the one at `u.src_shift`) of a slot or an immediate."""
    return store_value_8(cpu, ram, u.segment, effective_address(cpu, u), (cpu.gpr[u.src] >> u.src_shift) + u.imm)


@inline
def store_16(cpu, ram, u):
    """Store the low word of a slot or an immediate."""
    return store_value_16(cpu, ram, u.segment, effective_address(cpu, u), cpu.gpr[u.src] + u.imm)


@inline
def store_32(cpu, ram, u):
    """Store a slot or an immediate."""
    return store_value_32(cpu, ram, u.segment, effective_address(cpu, u), cpu.gpr[u.src] + u.imm)


@kernel
def load_for_update(cpu, ram, u):
    """The load of a read-modify-write: translated for writing first, so that its store cannot fault."""
    n = u.width >> 3
    offset = effective_address(cpu, u)
    index = fast_write_address(cpu, u.segment, offset, n)
    if index >= 0:
        cpu.rmw_first = index
        cpu.rmw_split = AT_PLACE
        cpu.gpr[u.dst] = bytes_at(ram, index, n)
        return OK
    outcome = check_write_segment(cpu, ram, u.segment, offset, n)
    if outcome == OK:
        cpu.gpr[u.dst] = read_translated(cpu, ram, n)
    return outcome


@kernel
def store_update(cpu, ram, u):
    """The store of a read-modify-write, to the address that its load translated."""
    write_translated(cpu, ram, u.width >> 3, (cpu.gpr[u.src] >> u.src_shift) + u.imm)
    return OK


@inline
def bit_offset(cpu, u):
    """The address of a bit string's operand: base address plus the signed bit offset, by operand size, into slot dst.

    Sets the slot to the whole offset; the load that follows uses it as its base register (SDM volume 2, BT).
    """
    signed = sign_extend(cpu.gpr[u.src] & ((1 << u.width) - 1), u.width)
    cpu.gpr[u.dst] = (effective_address(cpu, u) + (signed >> (3 + (u.width >> 4))) * (u.width >> 3)) & M32


@inline
def wrap_offset(cpu, u):
    """The offset of a memory operand with 16-bit addressing, modulo 64 KB, into slot dst (SDM volume 2, table 2-1)."""
    cpu.gpr[u.dst] = effective_address(cpu, u) & 0xFFFF


# -- the stack ------------------------------------------------------------------------------------------------------


@inline
def push_32(cpu, ram, u):
    """PUSH of a doubleword."""
    top = (cpu.gpr[ESP] - 4) & stack_mask(cpu.seg[SS].access)
    outcome = store_value_32(cpu, ram, SS, top, cpu.gpr[u.src] + u.imm)
    if outcome == OK:
        set_stack_pointer(cpu, top)
    return outcome


@kernel
def push_16(cpu, ram, u):
    """PUSH of a word."""
    top = (cpu.gpr[ESP] - 2) & stack_mask(cpu.seg[SS].access)
    outcome = store_value_16(cpu, ram, SS, top, cpu.gpr[u.src] + u.imm)
    if outcome == OK:
        set_stack_pointer(cpu, top)
    return outcome


@inline
def pop_32(cpu, ram, u):
    """POP of a doubleword into a slot; POP ESP keeps the value popped."""
    top = cpu.gpr[ESP] & stack_mask(cpu.seg[SS].access)
    outcome = load_to_slot_32(cpu, ram, SS, top, u.dst)
    if outcome == OK and u.dst != ESP:
        set_stack_pointer(cpu, top + 4)
    return outcome


@kernel
def pop_16(cpu, ram, u):
    """POP of a word into a register."""
    top = cpu.gpr[ESP] & stack_mask(cpu.seg[SS].access)
    outcome, value = read_segment(cpu, ram, SS, top, 2)
    if outcome == OK:
        set_stack_pointer(cpu, top + 2)
        write_register(cpu, u.dst, 0, 16, value)
    return outcome


@kernel
def pop_memory(cpu, ram, u):
    """POP to memory: the address is computed with the stack pointer already raised."""
    n = u.width >> 3
    old = cpu.gpr[ESP]
    top = old & stack_mask(cpu.seg[SS].access)
    outcome, value = read_segment(cpu, ram, SS, top, n)
    if outcome != OK:
        return outcome
    set_stack_pointer(cpu, top + n)
    outcome = write_segment(cpu, ram, u.segment, effective_address(cpu, u), n, value)
    if outcome != OK:
        cpu.gpr[ESP] = old
    return outcome


@kernel
def pusha(cpu, ram, u):
    """PUSHA and PUSHAD; a write that faults leaves ESP as it was."""
    n = u.width >> 3
    mask = stack_mask(cpu.seg[SS].access)
    top = cpu.gpr[ESP] & mask
    for register in range(8):
        top = (top - n) & mask
        if n == 4:
            outcome = store_value_32(cpu, ram, SS, top, cpu.gpr[register])
        else:
            outcome = store_value_16(cpu, ram, SS, top, cpu.gpr[register])
        if outcome != OK:
            return outcome
    set_stack_pointer(cpu, top)
    return OK


@kernel
def popa(cpu, ram, u):
    """POPA and POPAD: all eight are read before any register changes; the image of ESP is discarded."""
    n = u.width >> 3
    mask = stack_mask(cpu.seg[SS].access)
    top = cpu.gpr[ESP] & mask
    for index in range(8):
        offset = (top + index * n) & mask
        if n == 4:
            outcome = load_to_slot_32(cpu, ram, SS, offset, BUFFER + index)
        else:
            outcome = load_to_slot_16(cpu, ram, SS, offset, BUFFER + index)
        if outcome != OK:
            return outcome
    for index in range(8):
        if 7 - index != ESP:
            write_register(cpu, 7 - index, 0, u.width, cpu.gpr[BUFFER + index])
    set_stack_pointer(cpu, top + 8 * n)
    return OK


@kernel
def leave(cpu, ram, u):
    """LEAVE."""
    n = u.width >> 3
    top = cpu.gpr[EBP] & stack_mask(cpu.seg[SS].access)
    outcome, value = read_segment(cpu, ram, SS, top, n)
    if outcome == OK:
        write_register(cpu, EBP, 0, u.width, value)
        set_stack_pointer(cpu, top + n)
    return outcome


@kernel
def enter(cpu, ram, u):
    """ENTER: `u.imm` holds the frame size, and the nesting level above bit 16 (SDM volume 2, ENTER)."""
    n = u.width >> 3
    size = u.imm & 0xFFFF
    level = (u.imm >> 16) & 31
    mask = stack_mask(cpu.seg[SS].access)
    top = (cpu.gpr[ESP] - n) & mask
    outcome = write_segment(cpu, ram, SS, top, n, cpu.gpr[EBP])
    if outcome != OK:
        return outcome
    # The frame pointer is all of ESP, whatever the stack's size.
    frame = (cpu.gpr[ESP] & ~mask & M32) | top
    if level > 0:
        display = cpu.gpr[EBP]
        for _ in range(1, level):
            display = (display - n) & mask
            outcome, value = read_segment(cpu, ram, SS, display, n)
            if outcome != OK:
                return outcome
            top = (top - n) & mask
            outcome = write_segment(cpu, ram, SS, top, n, value)
            if outcome != OK:
                return outcome
        top = (top - n) & mask
        outcome = write_segment(cpu, ram, SS, top, n, frame)
        if outcome != OK:
            return outcome
    top = (top - size) & mask
    # The new top must be writable, or the next push would fault in the caller's name.
    outcome = check_write_segment(cpu, ram, SS, top, n)
    if outcome != OK:
        return outcome
    write_register(cpu, EBP, 0, u.width, frame)
    set_stack_pointer(cpu, top)
    return OK


# -- what may fault without touching memory ---------------------------------------------------------------------------


@kernel
def divide_accumulator(cpu, ram, u):
    """DIV and IDIV: #DE when the quotient does not fit."""
    if divide(cpu, u) == 1:
        return raise_plain(cpu, DE)
    return OK


@kernel
def xlat(cpu, ram, u):
    """XLAT: AL := byte at EBX + AL, or BX + AL."""
    outcome, value = read_segment(cpu, ram, u.segment, (cpu.gpr[3] + (cpu.gpr[0] & 0xFF)) & u.address_mask, 1)
    if outcome == OK:
        write_register(cpu, 0, 0, 8, value)
    return outcome


@kernel
def bound(cpu, ram, u):
    """BOUND: #BR unless the signed index lies between the two signed bounds in memory."""
    n = u.width >> 3
    offset = effective_address(cpu, u)
    outcome, lower = read_segment(cpu, ram, u.segment, offset, n)
    if outcome != OK:
        return outcome
    outcome, upper = read_segment(cpu, ram, u.segment, (offset + n) & u.address_mask, n)
    if outcome != OK:
        return outcome
    index = sign_extend(cpu.gpr[u.src] & ((1 << u.width) - 1), u.width)
    if index < sign_extend(lower, u.width) or index > sign_extend(upper, u.width):
        return raise_plain(cpu, BR)
    return OK


@kernel
def cmpxchg8b(cpu, ram, u):
    """CMPXCHG8B: EDX:EAX against the quadword; equal: it := ECX:EBX, ZF := 1. Written in either case."""
    offset = effective_address(cpu, u)
    outcome = check_operand_alignment(cpu, u.segment, offset, 8)
    if outcome == OK:
        outcome = check_write_segment(cpu, ram, u.segment, offset, 4)
    if outcome != OK:
        return outcome
    low = read_translated(cpu, ram, 4)
    outcome = check_write_segment(cpu, ram, u.segment, (offset + 4) & M32, 4)
    if outcome != OK:
        return outcome
    high = read_translated(cpu, ram, 4)
    others = arithmetic_flags(cpu) & ~(1 << 6)
    if low == cpu.gpr[0] and high == cpu.gpr[EDX]:
        set_arithmetic_flags(cpu, others | 1 << 6)
        write_segment(cpu, ram, u.segment, offset, 4, cpu.gpr[3])
        write_segment(cpu, ram, u.segment, (offset + 4) & M32, 4, cpu.gpr[1])
    else:
        set_arithmetic_flags(cpu, others)
        cpu.gpr[0] = low
        cpu.gpr[EDX] = high
    return OK


# -- single flags -----------------------------------------------------------------------------------------------------

FLAG_CMC, FLAG_CLC, FLAG_STC, FLAG_CLD, FLAG_STD = range(5)


@kernel
def flag_operation(cpu, u):
    """CMC, CLC, STC, CLD and STD, by `u.condition`."""
    operation = u.condition
    if operation == FLAG_CLD:
        cpu.eflags = cpu.eflags & ~EFLAGS_DF
    elif operation == FLAG_STD:
        cpu.eflags = cpu.eflags | EFLAGS_DF
    elif operation == FLAG_CMC:
        set_carry(cpu, 1 - carry_flag(cpu))
    else:
        set_carry(cpu, operation - FLAG_CLC)

"""Far jumps, calls and returns (SDM volume 2, JMP, CALL and RET operation; volume 3, section 5.8).

Everything is checked before anything is committed; parameters and return addresses are written before registers.
A call gate:

    low    31:16 code-segment selector     15:0 offset 15:0
    high   31:16 offset 31:16   15 P   14:13 DPL   12 S = 0   11:8 type   4:0 parameter count
"""

from ..isa.events import (
    EVENT_SYS_FAR_CALL_GATE_UP,
    EVENT_SYS_FAR_CALL_SAME_CPL,
    EVENT_SYS_FAR_JMP_SAME_CPL,
    EVENT_SYS_FAR_RET_OUTER,
    EVENT_SYS_FAR_RET_SAME_CPL,
)
from ..isa.registers import (
    AR_P,
    AR_S,
    AR_TYPE,
    CS,
    ESP,
    SS,
    TYPE_CALL_GATE_16,
    TYPE_CALL_GATE_32,
    TYPE_TASK_GATE,
    TYPE_TSS_16,
    TYPE_TSS_16_BUSY,
    TYPE_TSS_32,
    TYPE_TSS_32_BUSY,
)
from ..isa.vectors import GP, NP, SS_FAULT
from .charge import charge
from .deliver import (
    gate_offset,
    read_inner_stack,
    stack_has_room,
    tss_stack_pointer,
    write_stack,
)
from .fault import raise_fault
from .iret import enter_outer, peek_outer_stack, read_return_code, read_return_stack
from .jit import kernel
from .layout import OK, UNIMPLEMENTED
from .memory import effective_address, read_segment
from .mode import (
    MASK_32,
    operand_bytes,
    peek_stack,
    set_context,
    set_cpl,
    set_stack_pointer,
    stack_mask,
)
from .segment import (
    SELECTOR_INDEX,
    access_of,
    base_of,
    dpl_of,
    fill_segment,
    is_code,
    is_conforming,
    is_null,
    limit_of,
    read_descriptor,
    set_accessed,
)

PARAMETER_COUNT = 0x1F
# Descriptor types that a far transfer may name but that lead to a task switch or a 16-bit gate.
OTHER_TRANSFERS = (
    1 << TYPE_TSS_16
    | 1 << TYPE_TSS_16_BUSY
    | 1 << TYPE_CALL_GATE_16
    | 1 << TYPE_TASK_GATE
    | 1 << TYPE_TSS_32
    | 1 << TYPE_TSS_32_BUSY
)


@kernel
def read_target(cpu, ram, selector):
    """The descriptor that a far jump or call names: (outcome, low, high)."""
    if is_null(selector):
        return raise_fault(cpu, GP, 0), 0, 0
    return read_descriptor(cpu, ram, selector)


@kernel
def check_direct(cpu, selector, access):
    """The privilege and presence checks on a code segment named directly."""
    if is_conforming(access):
        allowed = dpl_of(access) <= cpu.cpl
    else:
        allowed = selector & 3 <= cpu.cpl and dpl_of(access) == cpu.cpl
    if not allowed:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX)
    if access & AR_P == 0:
        return raise_fault(cpu, NP, selector & SELECTOR_INDEX)
    return OK


@kernel
def check_gate(cpu, selector, access):
    """The checks on a descriptor that is no code segment: OK only for a usable 32-bit call gate."""
    kind = access & (AR_S | AR_TYPE)
    known = access & AR_S == 0 and (OTHER_TRANSFERS >> kind) & 1 == 1
    if kind != TYPE_CALL_GATE_32 and not known:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX)
    if dpl_of(access) < cpu.cpl or dpl_of(access) < selector & 3:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX)
    if known:
        return UNIMPLEMENTED
    if access & AR_P == 0:
        return raise_fault(cpu, NP, selector & SELECTOR_INDEX)
    return OK


@kernel
def read_gate_code(cpu, ram, selector):
    """The code segment that a call gate names: (outcome, low, high); a call may go inwards, no transfer outwards."""
    outcome, low, high = read_target(cpu, ram, selector)
    if outcome != OK:
        return outcome, 0, 0
    access = access_of(high)
    if not is_code(access) or dpl_of(access) > cpu.cpl:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX), 0, 0
    return OK, low, high


@kernel
def enter_same(cpu, ram, selector, offset, low, high, event):
    """Commit a transfer within the current ring; the selector's RPL becomes the CPL."""
    outcome, high = set_accessed(cpu, ram, selector, high)
    if outcome != OK:
        return outcome
    charge(cpu, event, 1)
    fill_segment(cpu, CS, (selector & SELECTOR_INDEX) | cpu.cpl, low, high)
    cpu.rip = offset
    set_context(cpu)
    return OK


# -- JMP --------------------------------------------------------------------------------------------------------------


@kernel
def jump_to(cpu, ram, selector, offset, low, high):
    """The end of a far jump: the limit, then the commit."""
    if offset > limit_of(low, high):
        return raise_fault(cpu, GP, 0)
    return enter_same(cpu, ram, selector, offset, low, high, EVENT_SYS_FAR_JMP_SAME_CPL)


@kernel
def jump_gate(cpu, ram, gate_low, gate_high):
    """A far jump through a call gate that passed its checks: it must stay in this ring."""
    selector = gate_low >> 16
    outcome, low, high = read_gate_code(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if not is_conforming(access) and dpl_of(access) != cpu.cpl:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX)
    if access & AR_P == 0:
        return raise_fault(cpu, NP, selector & SELECTOR_INDEX)
    return jump_to(cpu, ram, selector, gate_offset(gate_low, gate_high), low, high)


@kernel
def far_jump(cpu, ram, selector, offset):
    """JMP ptr16:32 and JMP m16:32. UNIMPLEMENTED: task gates, TSSs, 16-bit call gates."""
    outcome, low, high = read_target(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if is_code(access):
        outcome = check_direct(cpu, selector, access)
        if outcome != OK:
            return outcome
        return jump_to(cpu, ram, selector, offset, low, high)
    outcome = check_gate(cpu, selector, access)
    if outcome != OK:
        return outcome
    return jump_gate(cpu, ram, low, high)


# -- CALL -------------------------------------------------------------------------------------------------------------


@kernel
def call_same(cpu, ram, selector, offset, low, high):
    """The end of a far call within this ring: push CS and EIP on the current stack."""
    # 1. Room for the return address.
    stack = cpu.seg[SS]
    if not stack_has_room(stack.access, stack.limit, cpu.gpr[ESP], 8):
        return raise_fault(cpu, SS_FAULT, 0)
    # 2. The entry point within the code segment.
    if offset > limit_of(low, high):
        return raise_fault(cpu, GP, 0)
    # 3. Push.
    mask = stack_mask(stack.access)
    user = int(cpu.cpl == 3)
    pointer = cpu.gpr[ESP]
    outcome = write_stack(cpu, ram, stack.seg_base, mask, pointer - 4, cpu.seg[CS].selector, user)
    if outcome == OK:
        outcome = write_stack(cpu, ram, stack.seg_base, mask, pointer - 8, cpu.rip, user)
    # 4. Commit.
    if outcome == OK:
        outcome = enter_same(cpu, ram, selector, offset, low, high, EVENT_SYS_FAR_CALL_SAME_CPL)
    if outcome == OK:
        set_stack_pointer(cpu, pointer - 8)
    return outcome


@kernel
def copy_parameters(cpu, ram, stack_base, mask, pointer, count):
    """Copy `count` doublewords from the caller's stack to below `pointer` on the inner one."""
    for index in range(count - 1, -1, -1):
        outcome, value = peek_stack(cpu, ram, 4 * index, 4)
        if outcome == OK:
            outcome = write_stack(cpu, ram, stack_base, mask, pointer - 4 * (count - index), value, 0)
        if outcome != OK:
            return outcome
    return OK


@kernel
def write_call_frame(cpu, ram, stack_base, mask, pointer, count):
    """Push SS, ESP, the parameters, CS and EIP on the inner stack."""
    outcome = write_stack(cpu, ram, stack_base, mask, pointer - 4, cpu.seg[SS].selector, 0)
    if outcome == OK:
        outcome = write_stack(cpu, ram, stack_base, mask, pointer - 8, cpu.gpr[ESP], 0)
    if outcome == OK:
        outcome = copy_parameters(cpu, ram, stack_base, mask, pointer - 8, count)
    below = pointer - 8 - 4 * count
    if outcome == OK:
        outcome = write_stack(cpu, ram, stack_base, mask, below - 4, cpu.seg[CS].selector, 0)
    if outcome == OK:
        outcome = write_stack(cpu, ram, stack_base, mask, below - 8, cpu.rip, 0)
    return outcome


@kernel
def call_inner(cpu, ram, selector, offset, low, high, count):
    """CALL-GATE, MORE-PRIVILEGE: the stack of the TSS, with parameters copied."""
    # 1. The new stack.
    level = dpl_of(access_of(high))
    outcome, stack_selector, pointer = tss_stack_pointer(cpu, ram, level, 0)
    if outcome != OK:
        return outcome
    outcome, stack_low, stack_high = read_inner_stack(cpu, ram, stack_selector, level, 0)
    if outcome != OK:
        return outcome
    # 2. Room for the parameters and 16 bytes.
    access = access_of(stack_high)
    if not stack_has_room(access, limit_of(stack_low, stack_high), pointer, 16 + 4 * count):
        return raise_fault(cpu, SS_FAULT, stack_selector & SELECTOR_INDEX)
    # 3. The entry point within the code segment.
    if offset > limit_of(low, high):
        return raise_fault(cpu, GP, 0)
    # 4. Push.
    outcome, stack_high = set_accessed(cpu, ram, stack_selector, stack_high)
    if outcome == OK:
        outcome, high = set_accessed(cpu, ram, selector, high)
    if outcome == OK:
        stack_base = base_of(stack_low, stack_high)
        outcome = write_call_frame(cpu, ram, stack_base, stack_mask(access), pointer, count)
    if outcome != OK:
        return outcome
    # 5. Commit.
    charge(cpu, EVENT_SYS_FAR_CALL_GATE_UP, 1)
    fill_segment(cpu, SS, stack_selector, stack_low, stack_high)
    set_stack_pointer(cpu, pointer - 16 - 4 * count)
    fill_segment(cpu, CS, (selector & SELECTOR_INDEX) | level, low, high)
    cpu.rip = offset
    set_cpl(cpu, level)
    set_context(cpu)
    return OK


@kernel
def call_gate(cpu, ram, gate_low, gate_high):
    """A far call through a call gate that passed its checks."""
    selector = gate_low >> 16
    offset = gate_offset(gate_low, gate_high)
    outcome, low, high = read_gate_code(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if access & AR_P == 0:
        return raise_fault(cpu, NP, selector & SELECTOR_INDEX)
    if not is_conforming(access) and dpl_of(access) < cpu.cpl:
        return call_inner(cpu, ram, selector, offset, low, high, gate_high & PARAMETER_COUNT)
    return call_same(cpu, ram, selector, offset, low, high)


@kernel
def far_call(cpu, ram, selector, offset):
    """CALL ptr16:32 and CALL m16:32. UNIMPLEMENTED: task gates, TSSs, 16-bit call gates."""
    outcome, low, high = read_target(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if is_code(access):
        outcome = check_direct(cpu, selector, access)
        if outcome != OK:
            return outcome
        return call_same(cpu, ram, selector, offset, low, high)
    outcome = check_gate(cpu, selector, access)
    if outcome != OK:
        return outcome
    return call_gate(cpu, ram, low, high)


# -- RET --------------------------------------------------------------------------------------------------------------


@kernel
def return_same(cpu, ram, selector, eip, low, high, pop_bytes):
    """A far return within this ring."""
    if eip > limit_of(low, high):
        return raise_fault(cpu, GP, 0)
    outcome = enter_same(cpu, ram, selector, eip, low, high, EVENT_SYS_FAR_RET_SAME_CPL)
    if outcome == OK:
        set_stack_pointer(cpu, cpu.gpr[ESP] + 8 + pop_bytes)
    return outcome


@kernel
def return_outer(cpu, ram, selector, eip, low, high, pop_bytes):
    """A far return to an outer ring: its stack lies behind the parameters, and loses as many bytes."""
    outcome, stack_selector, pointer = peek_outer_stack(cpu, ram, 8 + pop_bytes)
    if outcome != OK:
        return outcome
    outcome, stack_low, stack_high = read_return_stack(cpu, ram, stack_selector, selector & 3)
    if outcome != OK:
        return outcome
    if eip > limit_of(low, high):
        return raise_fault(cpu, GP, 0)
    outcome, high = set_accessed(cpu, ram, selector, high)
    if outcome == OK:
        outcome, stack_high = set_accessed(cpu, ram, stack_selector, stack_high)
    if outcome != OK:
        return outcome
    charge(cpu, EVENT_SYS_FAR_RET_OUTER, 1)
    enter_outer(cpu, eip, selector, low, high, stack_selector, stack_low, stack_high, pointer)
    set_stack_pointer(cpu, (cpu.gpr[ESP] + pop_bytes) & MASK_32)
    return OK


@kernel
def far_return(cpu, ram, pop_bytes):
    """RETF and RETF imm16 with 32-bit operands."""
    outcome, eip = peek_stack(cpu, ram, 0, 4)
    if outcome != OK:
        return outcome
    outcome, selector = peek_stack(cpu, ram, 4, 4)
    if outcome != OK:
        return outcome
    selector &= 0xFFFF
    outcome, low, high = read_return_code(cpu, ram, selector)
    if outcome != OK:
        return outcome
    if selector & 3 > cpu.cpl:
        return return_outer(cpu, ram, selector, eip, low, high, pop_bytes)
    return return_same(cpu, ram, selector, eip, low, high, pop_bytes)


@kernel
def read_far_pointer(cpu, ram, u):
    """Read m16:32 (or m16:16): (outcome, selector, offset)."""
    address = effective_address(cpu, u)
    n = operand_bytes(u.width)
    outcome, offset = read_segment(cpu, ram, u.segment, address, n)
    if outcome != OK:
        return outcome, 0, 0
    outcome, selector = read_segment(cpu, ram, u.segment, (address + n) & MASK_32, 2)
    return outcome, selector, offset

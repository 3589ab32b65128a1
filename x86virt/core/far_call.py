"""Far calls (SDM volume 2, CALL operation). `n` is the size of what is pushed in bytes: 2 or 4."""

from ..isa.events import EVENT_SYS_FAR_CALL_GATE_UP, EVENT_SYS_FAR_CALL_SAME_CPL
from ..isa.registers import AR_P, CS, ESP, SS
from ..isa.vectors import GP, NP, SS_FAULT
from .charge import charge
from .far_target import (
    call_gate_item_bytes,
    check_direct,
    check_system_target,
    enter_paragraph,
    enter_same,
    is_call_gate,
    read_gate_code,
    read_target,
    transfer_to_task,
)
from .fault import raise_fault
from .gate import gate_entry_point
from .inner_stack import has_room_for, read_inner_stack, tss_stack_pointer, write_stack_item
from .jit import kernel
from .layout import OK
from .mode import (
    peek_stack,
    segments_are_paragraphs,
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
    limit_of,
    set_accessed,
)
from .task import TASK_CALL

PARAMETER_COUNT = 0x1F


@kernel
def check_return_address_room(cpu, n):
    """Room for CS and the instruction pointer on the current stack: #SS(0) without."""
    stack = cpu.seg[SS]
    if not has_room_for(stack.access, stack.limit, cpu.gpr[ESP], 2, n):
        return raise_fault(cpu, SS_FAULT, 0)
    return OK


@kernel
def write_return_address(cpu, ram, n):
    """Write CS and the instruction pointer below the current stack pointer, which stays."""
    stack = cpu.seg[SS]
    mask = stack_mask(stack.access)
    user = int(cpu.cpl == 3)
    pointer = cpu.gpr[ESP]
    outcome = write_stack_item(cpu, ram, stack.seg_base, mask, pointer - n, n, cpu.seg[CS].selector, user)
    if outcome == OK:
        outcome = write_stack_item(cpu, ram, stack.seg_base, mask, pointer - 2 * n, n, cpu.rip, user)
    return outcome


@kernel
def call_paragraph(cpu, ram, selector, offset, n):
    """A far call in real-address or virtual-8086 mode."""
    outcome = check_return_address_room(cpu, n)
    if outcome != OK:
        return outcome
    if offset > cpu.seg[CS].limit:
        return raise_fault(cpu, GP, 0)
    outcome = write_return_address(cpu, ram, n)
    if outcome != OK:
        return outcome
    set_stack_pointer(cpu, cpu.gpr[ESP] - 2 * n)
    return enter_paragraph(cpu, selector, offset, EVENT_SYS_FAR_CALL_SAME_CPL)


@kernel
def call_same(cpu, ram, selector, offset, low, high, n):
    """The end of a far call within this ring: push CS and EIP on the current stack."""
    # 1. Room for the return address.
    outcome = check_return_address_room(cpu, n)
    if outcome != OK:
        return outcome
    # 2. The entry point within the code segment.
    if offset > limit_of(low, high):
        return raise_fault(cpu, GP, 0)
    # 3. Push.
    outcome = write_return_address(cpu, ram, n)
    # 4. Commit.
    if outcome == OK:
        outcome = enter_same(cpu, ram, selector, offset, low, high, EVENT_SYS_FAR_CALL_SAME_CPL)
    if outcome == OK:
        set_stack_pointer(cpu, cpu.gpr[ESP] - 2 * n)
    return outcome


@kernel
def copy_parameters(cpu, ram, stack_base, mask, pointer, count, n):
    """Copy `count` items from the caller's stack to below `pointer` on the inner one."""
    for index in range(count - 1, -1, -1):
        outcome, value = peek_stack(cpu, ram, n * index, n)
        if outcome == OK:
            outcome = write_stack_item(cpu, ram, stack_base, mask, pointer - n * (count - index), n, value, 0)
        if outcome != OK:
            return outcome
    return OK


@kernel
def write_call_frame(cpu, ram, stack_base, mask, pointer, count, n):
    """Push SS, ESP, the parameters, CS and EIP on the inner stack."""
    outcome = write_stack_item(cpu, ram, stack_base, mask, pointer - n, n, cpu.seg[SS].selector, 0)
    if outcome == OK:
        outcome = write_stack_item(cpu, ram, stack_base, mask, pointer - 2 * n, n, cpu.gpr[ESP], 0)
    below = pointer - 2 * n
    if outcome == OK:
        outcome = copy_parameters(cpu, ram, stack_base, mask, below, count, n)
    below -= n * count
    if outcome == OK:
        outcome = write_stack_item(cpu, ram, stack_base, mask, below - n, n, cpu.seg[CS].selector, 0)
    if outcome == OK:
        outcome = write_stack_item(cpu, ram, stack_base, mask, below - 2 * n, n, cpu.rip, 0)
    return outcome


@kernel
def call_inner(cpu, ram, selector, offset, low, high, count, n):
    """CALL-GATE, MORE-PRIVILEGE: the stack of the TSS, with parameters copied."""
    # 1. The new stack.
    level = dpl_of(access_of(high))
    outcome, stack_selector, pointer = tss_stack_pointer(cpu, ram, level, 0)
    if outcome != OK:
        return outcome
    outcome, stack_low, stack_high = read_inner_stack(cpu, ram, stack_selector, level, 0)
    if outcome != OK:
        return outcome
    # 2. Room for the parameters, SS, ESP, CS and EIP.
    access = access_of(stack_high)
    if not has_room_for(access, limit_of(stack_low, stack_high), pointer, 4 + count, n):
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
        outcome = write_call_frame(cpu, ram, stack_base, stack_mask(access), pointer, count, n)
    if outcome != OK:
        return outcome
    # 5. Commit.
    charge(cpu, EVENT_SYS_FAR_CALL_GATE_UP, 1)
    fill_segment(cpu, SS, stack_selector, stack_low, stack_high)
    set_stack_pointer(cpu, pointer - (4 + count) * n)
    fill_segment(cpu, CS, (selector & SELECTOR_INDEX) | level, low, high)
    cpu.rip = offset
    set_cpl(cpu, level)
    set_context(cpu)
    return OK


@kernel
def call_gate(cpu, ram, gate_low, gate_high):
    """A far call through a call gate that passed its checks; the gate says the size of what is pushed."""
    selector = gate_low >> 16
    n = call_gate_item_bytes(gate_high)
    offset = gate_entry_point(gate_low, gate_high, n)
    outcome, low, high = read_gate_code(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if access & AR_P == 0:
        return raise_fault(cpu, NP, selector & SELECTOR_INDEX)
    if not is_conforming(access) and dpl_of(access) < cpu.cpl:
        return call_inner(cpu, ram, selector, offset, low, high, gate_high & PARAMETER_COUNT, n)
    return call_same(cpu, ram, selector, offset, low, high, n)


@kernel
def far_call(cpu, ram, selector, offset, n):
    """CALL ptr16:16, ptr16:32, m16:16 and m16:32, in every mode."""
    if segments_are_paragraphs(cpu):
        return call_paragraph(cpu, ram, selector, offset, n)
    outcome, low, high = read_target(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if is_code(access):
        outcome = check_direct(cpu, selector, access)
        if outcome != OK:
            return outcome
        return call_same(cpu, ram, selector, offset, low, high, n)
    outcome = check_system_target(cpu, selector, access)
    if outcome != OK:
        return outcome
    if is_call_gate(access):
        return call_gate(cpu, ram, low, high)
    return transfer_to_task(cpu, ram, selector, low, high, TASK_CALL)

"""Far jumps (SDM volume 2, JMP operation)."""

from ..isa.events import EVENT_SYS_FAR_JMP_SAME_CPL
from ..isa.registers import AR_P
from ..isa.vectors import GP, NP
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
from .jit import kernel
from .layout import OK
from .mode import segments_are_paragraphs
from .segment import (
    SELECTOR_INDEX,
    access_of,
    dpl_of,
    is_code,
    is_conforming,
    limit_of,
)
from .task import TASK_JUMP


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
    offset = gate_entry_point(gate_low, gate_high, call_gate_item_bytes(gate_high))
    return jump_to(cpu, ram, selector, offset, low, high)


@kernel
def far_jump(cpu, ram, selector, offset):
    """JMP ptr16:16, ptr16:32, m16:16 and m16:32, in every mode."""
    if segments_are_paragraphs(cpu):
        return enter_paragraph(cpu, selector, offset, EVENT_SYS_FAR_JMP_SAME_CPL)
    outcome, low, high = read_target(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if is_code(access):
        outcome = check_direct(cpu, selector, access)
        if outcome != OK:
            return outcome
        return jump_to(cpu, ram, selector, offset, low, high)
    outcome = check_system_target(cpu, selector, access)
    if outcome != OK:
        return outcome
    if is_call_gate(access):
        return jump_gate(cpu, ram, low, high)
    return transfer_to_task(cpu, ram, selector, low, high, TASK_JUMP)

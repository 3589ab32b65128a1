"""Far returns (SDM volume 2, RET operation). `n` is the size of what is popped in bytes: 2 or 4."""

from ..isa.events import EVENT_SYS_FAR_RET_OUTER, EVENT_SYS_FAR_RET_SAME_CPL
from ..isa.registers import ESP
from ..isa.vectors import GP
from .charge import charge
from .far_target import enter_paragraph, enter_same
from .fault import raise_fault
from .iret import check_outer_return, enter_outer, read_return_code
from .jit import kernel
from .layout import OK
from .mode import MASK_32, peek_stack, segments_are_paragraphs, set_stack_pointer
from .segment import limit_of


@kernel
def return_same(cpu, ram, selector, eip, low, high, released):
    """A far return within this ring, which takes `released` bytes off the stack."""
    if eip > limit_of(low, high):
        return raise_fault(cpu, GP, 0)
    outcome = enter_same(cpu, ram, selector, eip, low, high, EVENT_SYS_FAR_RET_SAME_CPL)
    if outcome == OK:
        set_stack_pointer(cpu, cpu.gpr[ESP] + released)
    return outcome


@kernel
def return_outer(cpu, ram, selector, eip, low, high, pop_bytes, n):
    """A far return to an outer ring: its stack lies behind the parameters, and loses as many bytes."""
    outcome, high, stack_selector, pointer, stack_low, stack_high = check_outer_return(
        cpu, ram, selector, eip, low, high, 2 * n + pop_bytes, n
    )
    if outcome != OK:
        return outcome
    charge(cpu, EVENT_SYS_FAR_RET_OUTER, 1)
    enter_outer(cpu, eip, selector, low, high, stack_selector, stack_low, stack_high, pointer)
    set_stack_pointer(cpu, (cpu.gpr[ESP] + pop_bytes) & MASK_32)
    return OK


@kernel
def far_return(cpu, ram, pop_bytes, n):
    """RETF and RETF imm16, in every mode."""
    outcome, eip = peek_stack(cpu, ram, 0, n)
    if outcome != OK:
        return outcome
    outcome, selector = peek_stack(cpu, ram, n, n)
    if outcome != OK:
        return outcome
    selector &= 0xFFFF
    if segments_are_paragraphs(cpu):
        outcome = enter_paragraph(cpu, selector, eip, EVENT_SYS_FAR_RET_SAME_CPL)
        if outcome == OK:
            set_stack_pointer(cpu, cpu.gpr[ESP] + 2 * n + pop_bytes)
        return outcome
    outcome, low, high = read_return_code(cpu, ram, selector)
    if outcome != OK:
        return outcome
    if selector & 3 > cpu.cpl:
        return return_outer(cpu, ram, selector, eip, low, high, pop_bytes, n)
    return return_same(cpu, ram, selector, eip, low, high, 2 * n + pop_bytes)

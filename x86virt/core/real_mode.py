"""Real-address mode: interrupts through the vector table, and IRET (SDM volume 3, section 20.1; volume 2, INT n and IRET).

An entry of the interrupt vector table holds the offset in its low word and the segment in its high word. Error codes are
not pushed.
"""

from ..isa.events import EVENT_SYS_IRET_SAME_CPL
from ..isa.registers import CS, EFLAGS_AC, EFLAGS_IF, EFLAGS_RF, EFLAGS_TF, ESP, SS
from ..isa.vectors import GP, SS_FAULT
from .charge import charge
from .fault import raise_fault
from .flags import get_eflags, set_eflags
from .handler_entry import delivery_event
from .inner_stack import stack_has_room_16, write_stack_item
from .jit import kernel
from .layout import OK
from .memory import read_linear
from .mode import MASK_32, peek_return_frame, set_context, set_stack_pointer, stack_mask
from .privileged_flags import load_flags, load_resume_flag, loadable_flags
from .segment import load_paragraph_segment

FRAME_BYTES = 6  # FLAGS, CS and IP


@kernel
def write_frame_16(cpu, ram, image, user):
    """Push FLAGS, CS and IP on the current stack, without moving its pointer yet."""
    stack = cpu.seg[SS]
    mask = stack_mask(stack.access)
    pointer = cpu.gpr[ESP]
    if not stack_has_room_16(stack.access, stack.limit, pointer, FRAME_BYTES):
        return raise_fault(cpu, SS_FAULT, 0)
    outcome = write_stack_item(cpu, ram, stack.seg_base, mask, pointer - 2, 2, image, user)
    if outcome == OK:
        outcome = write_stack_item(cpu, ram, stack.seg_base, mask, pointer - 4, 2, cpu.seg[CS].selector, user)
    if outcome == OK:
        outcome = write_stack_item(cpu, ram, stack.seg_base, mask, pointer - 6, 2, cpu.rip, user)
    return outcome


@kernel
def enter_vector(cpu, vector, cleared):
    """Commit: go to the segment and offset of an entry of the vector table, with some flags cleared."""
    charge(cpu, delivery_event(cpu.event_vector, cpu.event_kind, False), 1)
    set_stack_pointer(cpu, cpu.gpr[ESP] - FRAME_BYTES)
    load_paragraph_segment(cpu, CS, vector >> 16)
    cpu.rip = vector & 0xFFFF
    set_eflags(cpu, get_eflags(cpu) & ~cleared)
    set_context(cpu)
    cpu.shadow = 0
    cpu.halted = 0


@kernel
def deliver_in_real_mode(cpu, ram):
    """REAL-ADDRESS-MODE of INT n operation, which hardware interrupts and exceptions follow too."""
    place = cpu.event_vector << 2
    # 1. Within the limit of the vector table.
    if place + 3 > cpu.idtr_limit:
        return raise_fault(cpu, GP, 0)
    outcome, vector = read_linear(cpu, ram, (cpu.idtr_base + place) & MASK_32, 4, 0)
    # 2. Room for the frame, then the frame.
    if outcome == OK:
        outcome = write_frame_16(cpu, ram, get_eflags(cpu), 0)
    # 3. Commit.
    if outcome == OK:
        enter_vector(cpu, vector, EFLAGS_IF | EFLAGS_TF | EFLAGS_AC | EFLAGS_RF)
    return outcome


@kernel
def iret_in_real_mode(cpu, ram, n):
    """REAL-ADDRESS-MODE of IRET operation, with operands of `n` bytes; VM, VIF and VIP stay."""
    outcome, eip, selector, image = peek_return_frame(cpu, ram, n)
    if outcome != OK:
        return outcome
    if eip > cpu.seg[CS].limit:
        return raise_fault(cpu, GP, 0)
    charge(cpu, EVENT_SYS_IRET_SAME_CPL, 1)
    set_stack_pointer(cpu, cpu.gpr[ESP] + 3 * n)
    load_flags(cpu, image, loadable_flags(cpu, n))
    load_resume_flag(cpu, image, n)
    load_paragraph_segment(cpu, CS, selector)
    cpu.rip = eip
    set_context(cpu)
    return OK

"""Virtual-8086 mode: the way in by IRET, the way out by deliveries, IRET within it, and redirected software interrupts.

SDM volume 3, chapter 20 (table 20-2 names the six methods of INT n); volume 2, INT n and IRET operation.
"""

from ..isa.events import EVENT_SYS_IRET_CPL0_TO_CPL3, EVENT_SYS_IRET_SAME_CPL
from ..isa.registers import (
    AR_S,
    AR_TYPE,
    CR4_VME,
    CS,
    DS,
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_IMPLEMENTED,
    EFLAGS_RF,
    EFLAGS_TF,
    EFLAGS_VIF,
    ES,
    ESP,
    FS,
    GS,
    SS,
    TR,
    TYPE_TSS_32_BUSY,
)
from ..isa.vectors import GP, SS_FAULT
from .charge import charge
from .fault import raise_fault
from .flags import set_eflags
from .gate import gate_entry_point, gate_item_bytes
from .handler_entry import enter_handler, write_frame
from .inner_stack import (
    has_room_for,
    read_inner_stack,
    tss_stack_pointer,
    write_stack_item,
)
from .jit import kernel
from .layout import OK
from .memory import read_linear
from .mode import (
    MASK_32,
    interrupt_flag_is_virtual,
    io_privilege,
    peek_return_frame,
    peek_stack,
    set_context,
    set_cpl,
    set_stack_pointer,
    stack_mask,
)
from .ports import IO_MAP_BASE
from .privileged_flags import (
    load_resume_flag,
    load_virtual_flags,
    virtual_flags_image,
    virtual_flags_need_monitor,
)
from .real_mode import enter_vector, write_frame_16
from .segment import (
    SELECTOR_INDEX,
    access_of,
    base_of,
    dpl_of,
    fill_segment,
    is_conforming,
    limit_of,
    load_paragraph_segment,
    set_accessed,
    set_null_segment,
)

LAST_OFFSET = 0xFFFF  # of every segment
REDIRECTION_BYTES = 32  # of the software-interrupt redirection bitmap, directly below the I/O permission bitmap
PUSHED_SEGMENTS = (GS, FS, DS, ES)  # in the order of the pushes


# -- deliveries that leave the mode -------------------------------------------------------------------------------------


@kernel
def write_virtual_frame(cpu, ram, stack_base, mask, pointer, n):
    """Push GS, FS, DS, ES, SS, ESP and the frame of every delivery: (outcome, new pointer)."""
    for segment in PUSHED_SEGMENTS:
        pointer -= n
        outcome = write_stack_item(cpu, ram, stack_base, mask, pointer, n, cpu.seg[segment].selector, 0)
        if outcome != OK:
            return outcome, pointer
    outcome = write_stack_item(cpu, ram, stack_base, mask, pointer - n, n, cpu.seg[SS].selector, 0)
    if outcome == OK:
        outcome = write_stack_item(cpu, ram, stack_base, mask, pointer - 2 * n, n, cpu.gpr[ESP], 0)
    if outcome != OK:
        return outcome, pointer
    return write_frame(cpu, ram, stack_base, mask, pointer - 2 * n, n, 0)


@kernel
def deliver_from_virtual_8086(cpu, ram, gate_low, gate_high, low, high, ext):
    """INTERRUPT-FROM-VIRTUAL-8086-MODE: through a gate whose handler's segment has passed the common checks."""
    n = gate_item_bytes(gate_high)
    access = access_of(high)
    # 1. The handler runs in ring 0, in a segment that takes it there.
    if is_conforming(access) or dpl_of(access) != 0:
        return raise_fault(cpu, GP, ((gate_low >> 16) & SELECTOR_INDEX) | ext)
    # 2. The stack of ring 0, with room for nine items and the error code.
    outcome, selector, pointer = tss_stack_pointer(cpu, ram, 0, ext)
    if outcome != OK:
        return outcome
    outcome, stack_low, stack_high = read_inner_stack(cpu, ram, selector, 0, ext)
    if outcome != OK:
        return outcome
    access = access_of(stack_high)
    if not has_room_for(access, limit_of(stack_low, stack_high), pointer, 9 + cpu.event_has_error, n):
        return raise_fault(cpu, SS_FAULT, (selector & SELECTOR_INDEX) | ext)
    # 3. The entry point within the code segment.
    entry_point = gate_entry_point(gate_low, gate_high, n)
    if entry_point > limit_of(low, high):
        return raise_fault(cpu, GP, ext)
    # 4. Push.
    outcome, stack_high = set_accessed(cpu, ram, selector, stack_high)
    if outcome == OK:
        outcome, high = set_accessed(cpu, ram, gate_low >> 16, high)
    if outcome != OK:
        return outcome
    stack_base = base_of(stack_low, stack_high)
    outcome, pointer = write_virtual_frame(cpu, ram, stack_base, stack_mask(access), pointer, n)
    if outcome != OK:
        return outcome
    # 5. Commit.
    fill_segment(cpu, SS, selector, stack_low, stack_high)
    set_stack_pointer(cpu, pointer)
    for segment in PUSHED_SEGMENTS:
        set_null_segment(cpu, segment, 0)
    enter_handler(cpu, True, gate_low, gate_high, low, high, 0, entry_point)
    return OK


# -- software interrupts ------------------------------------------------------------------------------------------------


@kernel
def interrupt_is_redirected(cpu, ram, vector):
    """Is the vector's bit in the TSS's redirection bitmap clear? (outcome, answer); #GP(0) where there is no bitmap."""
    tss = cpu.seg[TR]
    if tss.access & (AR_S | AR_TYPE) != TYPE_TSS_32_BUSY or tss.limit < IO_MAP_BASE + 1:
        return raise_fault(cpu, GP, 0), False
    outcome, offset = read_linear(cpu, ram, (tss.seg_base + IO_MAP_BASE) & MASK_32, 2, 0)
    if outcome != OK:
        return outcome, False
    offset += (vector >> 3) - REDIRECTION_BYTES
    if offset < 0 or offset > tss.limit:
        return raise_fault(cpu, GP, 0), False
    outcome, bits = read_linear(cpu, ram, (tss.seg_base + offset) & MASK_32, 1, 0)
    return outcome, (bits >> (vector & 7)) & 1 == 0


@kernel
def redirect_interrupt(cpu, ram):
    """Methods 5 and 6: INT n enters the handler that the 8086 program's own vector table, at linear 0, names."""
    outcome, vector = read_linear(cpu, ram, cpu.event_vector << 2, 4, 0)
    if outcome == OK:
        outcome = write_frame_16(cpu, ram, virtual_flags_image(cpu), 1)
    if outcome != OK:
        return outcome
    cleared = EFLAGS_TF | EFLAGS_RF
    if interrupt_flag_is_virtual(cpu):
        cleared |= EFLAGS_VIF
    else:
        cleared |= EFLAGS_IF
    enter_vector(cpu, vector, cleared)
    return OK


@kernel
def virtual_8086_interrupt(cpu, ram):
    """INT n in virtual-8086 mode: (outcome, whether it was redirected); #GP(0) if the monitor must handle it."""
    cpu.idt_vector = -1
    if cpu.cr4 & CR4_VME:
        vector = cpu.event_vector
        outcome, redirected = interrupt_is_redirected(cpu, ram, vector)
        if outcome != OK:
            return outcome, False
        if redirected:
            return redirect_interrupt(cpu, ram), True
    if io_privilege(cpu) < 3:
        return raise_fault(cpu, GP, 0), False
    return OK, False


# -- IRET ---------------------------------------------------------------------------------------------------------------


@kernel
def iret_in_virtual_8086(cpu, ram, n):
    """RETURN-FROM-VIRTUAL-8086-MODE, which stays in it."""
    if virtual_flags_need_monitor(cpu, n):
        return raise_fault(cpu, GP, 0)
    outcome, eip, selector, image = peek_return_frame(cpu, ram, n)
    if outcome != OK:
        return outcome
    if eip > LAST_OFFSET:
        return raise_fault(cpu, GP, 0)
    outcome = load_virtual_flags(cpu, image, n)
    if outcome != OK:
        return outcome
    load_resume_flag(cpu, image, n)
    charge(cpu, EVENT_SYS_IRET_SAME_CPL, 1)
    set_stack_pointer(cpu, cpu.gpr[ESP] + 3 * n)
    load_paragraph_segment(cpu, CS, selector)
    cpu.rip = eip
    set_context(cpu)
    return OK


@kernel
def read_virtual_frame(cpu, ram):
    """Read ESP, SS, ES, DS, FS and GS behind IRETD's frame: (outcome, and the six)."""
    outcome, pointer = peek_stack(cpu, ram, 12, 4)
    stack = data_1 = data_2 = data_3 = data_4 = 0
    if outcome == OK:
        outcome, stack = peek_stack(cpu, ram, 16, 4)
    if outcome == OK:
        outcome, data_1 = peek_stack(cpu, ram, 20, 4)
    if outcome == OK:
        outcome, data_2 = peek_stack(cpu, ram, 24, 4)
    if outcome == OK:
        outcome, data_3 = peek_stack(cpu, ram, 28, 4)
    if outcome == OK:
        outcome, data_4 = peek_stack(cpu, ram, 32, 4)
    return outcome, pointer, stack, data_1, data_2, data_3, data_4


@kernel
def return_to_virtual_8086(cpu, ram, eip, selector, image):
    """RETURN-TO-VIRTUAL-8086-MODE: IRETD at CPL 0 with VM set in the image."""
    outcome, pointer, stack, es, ds, fs, gs = read_virtual_frame(cpu, ram)
    if outcome != OK:
        return outcome
    if eip > LAST_OFFSET:
        return raise_fault(cpu, GP, 0)
    charge(cpu, EVENT_SYS_IRET_CPL0_TO_CPL3, 1)
    set_eflags(cpu, (image & EFLAGS_IMPLEMENTED) | EFLAGS_FIXED)
    load_paragraph_segment(cpu, CS, selector)
    load_paragraph_segment(cpu, SS, stack)
    load_paragraph_segment(cpu, ES, es)
    load_paragraph_segment(cpu, DS, ds)
    load_paragraph_segment(cpu, FS, fs)
    load_paragraph_segment(cpu, GS, gs)
    cpu.gpr[ESP] = pointer
    cpu.rip = eip
    set_cpl(cpu, 3)
    set_context(cpu)
    return OK

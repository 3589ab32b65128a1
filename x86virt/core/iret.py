"""IRET and IRETD, and the checks that it shares with a far return (SDM volume 2, IRET and RET operation).

Everything is read and checked before anything is committed.
"""

from ..isa.events import EVENT_SYS_IRET_CPL0_TO_CPL3, EVENT_SYS_IRET_SAME_CPL
from ..isa.registers import (
    AR_P,
    AR_S,
    AR_UNUSABLE,
    CR0_PE,
    CS,
    DS,
    EFLAGS_NT,
    EFLAGS_VIF,
    EFLAGS_VIP,
    EFLAGS_VM,
    ES,
    ESP,
    FS,
    GS,
    SS,
)
from ..isa.vectors import GP, NP, SS_FAULT
from .charge import charge
from .fault import raise_fault
from .jit import inline, kernel
from .layout import OK
from .memory import bytes_at
from .mode import (
    in_real_mode,
    in_virtual_8086_mode,
    peek_return_frame,
    peek_stack,
    plain_stack,
    set_context,
    set_cpl,
    set_stack_pointer,
)
from .privileged_flags import load_flags, load_resume_flag, loadable_flags
from .real_mode import iret_in_real_mode
from .segment import (
    SELECTOR_INDEX,
    access_of,
    dpl_of,
    fill_segment,
    is_code,
    is_conforming,
    is_null,
    is_writable_data,
    limit_of,
    read_descriptor,
    set_accessed,
    set_null_segment,
)
from .task import return_from_task
from .virtual_8086 import iret_in_virtual_8086, return_to_virtual_8086

DATA_SEGMENTS = (ES, FS, GS, DS)


@inline
def load_returned_flags(cpu, image, n):
    """Load EFLAGS from IRET's frame of items of `n` bytes.

    RF comes with 32-bit ones: it suppresses an instruction breakpoint where execution goes on.
    """
    mask = loadable_flags(cpu, n)
    if n == 4 and cpu.cpl == 0:
        mask |= EFLAGS_VIF | EFLAGS_VIP
    load_flags(cpu, image, mask)
    load_resume_flag(cpu, image, n)


@inline
def return_selector_allowed(cpu, selector, access):
    """May a return load this code segment: not inwards, and DPL in keeping with the selector's RPL?"""
    level = selector & 3
    if not is_code(access) or level < cpu.cpl:
        return False
    if is_conforming(access):
        return dpl_of(access) <= level
    return dpl_of(access) == level


@inline
def read_return_code(cpu, ram, selector):
    """Check the code segment that a return names: (outcome, low, high) of its descriptor."""
    # 1. A null selector.
    if is_null(selector):
        return raise_fault(cpu, GP, 0), 0, 0
    # 2. Outside the table's limits.
    outcome, low, high = read_descriptor(cpu, ram, selector)
    if outcome != OK:
        return outcome, 0, 0
    # 3. Type and privilege.
    access = access_of(high)
    if not return_selector_allowed(cpu, selector, access):
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX), 0, 0
    # 4. Not present.
    if access & AR_P == 0:
        return raise_fault(cpu, NP, selector & SELECTOR_INDEX), 0, 0
    return OK, low, high


@inline
def read_return_stack(cpu, ram, selector, level):
    """Check the stack segment of the outer level that a return names: (outcome, low, high) of its descriptor."""
    # 1. A null selector.
    if is_null(selector):
        return raise_fault(cpu, GP, 0), 0, 0
    # 2. Outside the table's limits.
    outcome, low, high = read_descriptor(cpu, ram, selector)
    if outcome != OK:
        return outcome, 0, 0
    # 3. RPL and DPL must be those of the return level, the segment a writable data segment.
    access = access_of(high)
    if selector & 3 != level or not is_writable_data(access) or dpl_of(access) != level:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX), 0, 0
    # 4. Not present.
    if access & AR_P == 0:
        return raise_fault(cpu, SS_FAULT, selector & SELECTOR_INDEX), 0, 0
    return OK, low, high


@inline
def drop_inner_segment(cpu, segment, level):
    """Load null into a data-segment register that the outer level may not use."""
    access = cpu.seg[segment].access
    if dpl_of(access) >= level or access & AR_UNUSABLE != 0 or access & AR_S == 0 or is_conforming(access):
        return
    set_null_segment(cpu, segment, 0)


@kernel
def drop_inner_segments(cpu, level):
    """What a return to an outer level does with ES, FS, GS and DS."""
    for segment in DATA_SEGMENTS:
        drop_inner_segment(cpu, segment, level)


@kernel
def peek_outer_stack_slowly(cpu, ram, displacement, n):
    """Read the outer ESP and SS from the stack one by one, wherever it lies: (outcome, selector, pointer)."""
    outcome, pointer = peek_stack(cpu, ram, displacement, n)
    if outcome != OK:
        return outcome, 0, 0
    outcome, selector = peek_stack(cpu, ram, displacement + n, n)
    return outcome, selector & 0xFFFF, pointer


@inline
def peek_outer_stack_items(cpu, ram, displacement, n):
    """Read the outer ESP and SS from the stack, items of `n` bytes: (outcome, selector, pointer)."""
    index = plain_stack(cpu, displacement, 2 * n)
    if index < 0:
        return peek_outer_stack_slowly(cpu, ram, displacement, n)
    return OK, bytes_at(ram, index + n, n) & 0xFFFF, bytes_at(ram, index, n)


@kernel
def check_outer_return(cpu, ram, selector, eip, low, high, displacement, n):
    """The checks of a return to an outer ring, whose stack pointer lies at a displacement from the present one.

    Returns the outcome, the code segment's high doubleword, the stack's selector, the stack pointer, the stack's descriptor;
    both segments are accessed.
    """
    outcome, stack_selector, pointer = peek_outer_stack_items(cpu, ram, displacement, n)
    if outcome != OK:
        return outcome, 0, 0, 0, 0, 0
    outcome, stack_low, stack_high = read_return_stack(cpu, ram, stack_selector, selector & 3)
    if outcome != OK:
        return outcome, 0, 0, 0, 0, 0
    if eip > limit_of(low, high):
        return raise_fault(cpu, GP, 0), 0, 0, 0, 0, 0
    outcome, high = set_accessed(cpu, ram, selector, high)
    if outcome == OK:
        outcome, stack_high = set_accessed(cpu, ram, stack_selector, stack_high)
    return outcome, high, stack_selector, pointer, stack_low, stack_high


@inline
def enter_outer(cpu, eip, selector, low, high, stack_selector, stack_low, stack_high, pointer):
    """Commit a return to an outer level: CS:EIP, SS:ESP, CPL, data segments."""
    level = selector & 3
    cpu.rip = eip
    fill_segment(cpu, CS, selector, low, high)
    fill_segment(cpu, SS, stack_selector, stack_low, stack_high)
    set_stack_pointer(cpu, pointer)
    set_cpl(cpu, level)
    drop_inner_segments(cpu, level)
    set_context(cpu)


@inline
def iret_same(cpu, ram, eip, selector, image, low, high, n):
    """RETURN-TO-SAME-PRIVILEGE-LEVEL."""
    if eip > limit_of(low, high):
        return raise_fault(cpu, GP, 0)
    outcome, high = set_accessed(cpu, ram, selector, high)
    if outcome != OK:
        return outcome
    charge(cpu, EVENT_SYS_IRET_SAME_CPL, 1)
    set_stack_pointer(cpu, cpu.gpr[ESP] + 3 * n)
    load_returned_flags(cpu, image, n)
    cpu.rip = eip
    fill_segment(cpu, CS, selector, low, high)
    set_context(cpu)
    return OK


@inline
def iret_outer(cpu, ram, eip, selector, image, low, high, n):
    """RETURN-TO-OUTER-PRIVILEGE-LEVEL."""
    outcome, high, stack_selector, pointer, stack_low, stack_high = check_outer_return(
        cpu, ram, selector, eip, low, high, 3 * n, n
    )
    if outcome != OK:
        return outcome
    charge(cpu, EVENT_SYS_IRET_CPL0_TO_CPL3, 1)
    load_returned_flags(cpu, image, n)
    enter_outer(cpu, eip, selector, low, high, stack_selector, stack_low, stack_high, pointer)
    return OK


@kernel
def iret_elsewhere(cpu, ram, n):
    """IRET in real-address mode, in virtual-8086 mode (whatever NT says), and from a nested task."""
    if in_real_mode(cpu):
        return iret_in_real_mode(cpu, ram, n)
    if in_virtual_8086_mode(cpu):
        return iret_in_virtual_8086(cpu, ram, n)
    return return_from_task(cpu, ram)


@inline
def iret_items(cpu, ram, n):
    """IRET with items of `n` bytes, by the first cases of its operation in the manual."""
    # 1. The rare cases: real-address mode, virtual-8086 mode, a nested task.
    if cpu.cr0 & CR0_PE == 0 or cpu.eflags & (EFLAGS_NT | EFLAGS_VM) != 0:
        return iret_elsewhere(cpu, ram, n)
    outcome, eip, selector, image = peek_return_frame(cpu, ram, n)
    if outcome != OK:
        return outcome
    # 2. To virtual-8086 mode. A 16-bit image has no VM flag.
    if image & EFLAGS_VM != 0 and cpu.cpl == 0:
        return return_to_virtual_8086(cpu, ram, eip, selector, image)
    # 3. Within protected mode.
    outcome, low, high = read_return_code(cpu, ram, selector)
    if outcome != OK:
        return outcome
    if selector & 3 > cpu.cpl:
        return iret_outer(cpu, ram, eip, selector, image, low, high, n)
    return iret_same(cpu, ram, eip, selector, image, low, high, n)


@kernel
def iret(cpu, ram):
    """IRETD."""
    return iret_items(cpu, ram, 4)


@kernel
def iret_16(cpu, ram):
    """IRET with 16-bit operands."""
    return iret_items(cpu, ram, 2)

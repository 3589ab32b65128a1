"""IRETD, and the checks that it shares with a far return (SDM volume 2, IRET and RET operation).

Everything is read and checked before anything is committed.
"""

from ..isa.events import EVENT_SYS_IRET_CPL0_TO_CPL3, EVENT_SYS_IRET_SAME_CPL
from ..isa.registers import (
    AR_P,
    AR_S,
    AR_UNUSABLE,
    CS,
    DS,
    EFLAGS_AC,
    EFLAGS_ARITHMETIC,
    EFLAGS_DF,
    EFLAGS_ID,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_IOPL_SHIFT,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_TF,
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
from .flags import get_eflags, set_eflags
from .jit import inline, kernel
from .layout import OK, UNIMPLEMENTED
from .mode import peek_stack, set_context, set_cpl, set_stack_pointer
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

DATA_SEGMENTS = (ES, FS, GS, DS)


@inline
def loadable_flags(cpu):
    """The flags that POPF and IRET may change at this CPL and IOPL; RF, VM, VIF and VIP apart."""
    mask = EFLAGS_ARITHMETIC | EFLAGS_TF | EFLAGS_DF | EFLAGS_NT | EFLAGS_AC | EFLAGS_ID
    if cpu.cpl <= (cpu.eflags & EFLAGS_IOPL) >> EFLAGS_IOPL_SHIFT:
        mask |= EFLAGS_IF
    if cpu.cpl == 0:
        mask |= EFLAGS_IOPL
    return mask


@inline
def load_returned_flags(cpu, image):
    """Load EFLAGS from IRET's frame, RF with them: it suppresses an instruction breakpoint where execution goes on."""
    mask = loadable_flags(cpu) | EFLAGS_RF
    if cpu.cpl == 0:
        mask |= EFLAGS_VIF | EFLAGS_VIP
    set_eflags(cpu, (get_eflags(cpu) & ~mask) | (image & mask))


@inline
def return_selector_allowed(cpu, selector, access):
    """May a return load this code segment: not inwards, and DPL in keeping with the selector's RPL?"""
    level = selector & 3
    if not is_code(access) or level < cpu.cpl:
        return False
    if is_conforming(access):
        return dpl_of(access) <= level
    return dpl_of(access) == level


@kernel
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


@kernel
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
    if access & AR_UNUSABLE != 0 or access & AR_S == 0 or is_conforming(access):
        return
    if dpl_of(access) < level:
        set_null_segment(cpu, segment, 0)


@kernel
def drop_inner_segments(cpu, level):
    """What a return to an outer level does with ES, FS, GS and DS."""
    for segment in DATA_SEGMENTS:
        drop_inner_segment(cpu, segment, level)


@inline
def peek_outer_stack(cpu, ram, displacement):
    """Read the outer ESP and SS from the stack: (outcome, selector, pointer)."""
    outcome, pointer = peek_stack(cpu, ram, displacement, 4)
    if outcome != OK:
        return outcome, 0, 0
    outcome, selector = peek_stack(cpu, ram, displacement + 4, 4)
    return outcome, selector & 0xFFFF, pointer


@kernel
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


@kernel
def iret_same(cpu, ram, eip, selector, image, low, high):
    """RETURN-TO-SAME-PRIVILEGE-LEVEL."""
    if eip > limit_of(low, high):
        return raise_fault(cpu, GP, 0)
    outcome, high = set_accessed(cpu, ram, selector, high)
    if outcome != OK:
        return outcome
    charge(cpu, EVENT_SYS_IRET_SAME_CPL, 1)
    set_stack_pointer(cpu, cpu.gpr[ESP] + 12)
    load_returned_flags(cpu, image)
    cpu.rip = eip
    fill_segment(cpu, CS, selector, low, high)
    set_context(cpu)
    return OK


@kernel
def iret_outer(cpu, ram, eip, selector, image, low, high):
    """RETURN-TO-OUTER-PRIVILEGE-LEVEL."""
    outcome, stack_selector, pointer = peek_outer_stack(cpu, ram, 12)
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
    charge(cpu, EVENT_SYS_IRET_CPL0_TO_CPL3, 1)
    load_returned_flags(cpu, image)
    enter_outer(cpu, eip, selector, low, high, stack_selector, stack_low, stack_high, pointer)
    return OK


@kernel
def read_return_frame(cpu, ram):
    """Read EIP, CS and EFLAGS from the stack: (outcome, eip, selector, image)."""
    outcome, eip = peek_stack(cpu, ram, 0, 4)
    if outcome != OK:
        return outcome, 0, 0, 0
    outcome, selector = peek_stack(cpu, ram, 4, 4)
    if outcome != OK:
        return outcome, 0, 0, 0
    outcome, image = peek_stack(cpu, ram, 8, 4)
    return outcome, eip, selector & 0xFFFF, image


@kernel
def iret(cpu, ram):
    """IRETD. UNIMPLEMENTED: a return from a nested task (NT = 1) or to virtual-8086 mode (VM = 1 in the frame, CPL 0)."""
    if cpu.eflags & EFLAGS_NT:
        return UNIMPLEMENTED
    outcome, eip, selector, image = read_return_frame(cpu, ram)
    if outcome != OK:
        return outcome
    if image & EFLAGS_VM != 0 and cpu.cpl == 0:
        return UNIMPLEMENTED
    outcome, low, high = read_return_code(cpu, ram, selector)
    if outcome != OK:
        return outcome
    if selector & 3 > cpu.cpl:
        return iret_outer(cpu, ram, eip, selector, image, low, high)
    return iret_same(cpu, ram, eip, selector, image, low, high)

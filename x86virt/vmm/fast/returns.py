"""IRET of the guest's kernel, to itself or to ring 3 (SDM volume 2, IRET)."""

from ...core.jit import inline, kernel, load_32, store_32
from ...isa.registers import (
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_IOPL_SHIFT,
    EFLAGS_LOADABLE,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_TF,
    EFLAGS_VIF,
    EFLAGS_VIP,
    EFLAGS_VM,
)
from .descriptors import (
    CONFORMING,
    base_of,
    descriptor_place,
    is_code_of,
    is_shadowed,
    is_stack_of,
    keeps_data_segments,
    limit_of,
    set_cpl,
    shadow_high,
    shadow_low,
)
from .exits import can_commit, commit, hardware_selector, is_attached, note_path
from .guest_access import UNKNOWN, read_guest
from .records import CPL, DONE, EMULATE_FAR_TRANSFER, INTERRUPT_FLAG, IOPL, NOT_FAST

M32 = 0xFFFFFFFF
UNUSUAL = EFLAGS_VM | EFLAGS_TF  # in the image: virtual-8086 mode, single steps
# What IRETD at CPL 0 loads.
LOADABLE = EFLAGS_LOADABLE | EFLAGS_IF | EFLAGS_IOPL | EFLAGS_RF | EFLAGS_VIF | EFLAGS_VIP
KEPT = M32 & ~(EFLAGS_IF | EFLAGS_IOPL)


@inline
def virtual_flags(ram, exits):
    """EFLAGS as the guest has them, where RF in the frame is the guest's (vcpu.virtual_flags)."""
    return (
        (exits.eflags & KEPT)
        | load_32(ram, INTERRUPT_FLAG) * EFLAGS_IF
        | load_32(ram, IOPL) << EFLAGS_IOPL_SHIFT
        | EFLAGS_FIXED
    )


@inline
def load_flags(ram, exits, eflags):
    """Take a whole EFLAGS image of the guest's (vcpu.load_flags)."""
    store_32(ram, INTERRUPT_FLAG, int(eflags & EFLAGS_IF != 0))
    store_32(ram, IOPL, (eflags & EFLAGS_IOPL) >> EFLAGS_IOPL_SHIFT)
    exits.eflags = (eflags & ~EFLAGS_IOPL) | EFLAGS_IF | EFLAGS_FIXED


@kernel
def stack_base(ram, exits, esp, count):
    """The base of the guest's present stack where `count` bytes at ESP are plainly within it, else -1.

    A segment that does not grow upwards is left to Python.
    """
    low, high = shadow_low(ram, exits.ss), shadow_high(ram, exits.ss)
    if high & CONFORMING != 0:  # expand-down, of a data segment
        return UNKNOWN
    if esp + count - 1 > limit_of(low, high):
        return UNKNOWN
    return base_of(low, high)


@kernel
def interrupt_return(cpu, ram, exits):
    """IRETD at virtual CPL 0."""
    note_path(exits, EMULATE_FAR_TRANSFER)
    if load_32(ram, CPL) != 0 or exits.eflags & EFLAGS_NT != 0 or not is_attached(exits):
        return NOT_FAST
    # 1. EIP, CS and EFLAGS from the stack.
    base = stack_base(ram, exits, exits.esp, 12)
    if base < 0:
        return NOT_FAST
    eip = read_guest(ram, exits, base + exits.esp, 4, 0)
    selector = read_guest(ram, exits, base + exits.esp + 4, 4, 0)
    image = read_guest(ram, exits, base + exits.esp + 8, 4, 0)
    if eip < 0 or selector < 0 or image < 0 or image & UNUSUAL != 0:
        return NOT_FAST
    selector &= 0xFFFF
    # 2. The code segment, which the selector's RPL chooses a ring of.
    level = selector & 3
    place = descriptor_place(ram, exits, selector)
    if place < 0 or (level != 0 and level != 3) or not is_shadowed(ram, selector):
        return NOT_FAST
    low, high = load_32(ram, place), load_32(ram, place + 4)
    if not is_code_of(low, high, level):
        return NOT_FAST
    # 3. To an outer ring, the stack comes back too.
    esp, stack = exits.esp + 12, exits.ss
    if level == 3:
        base = stack_base(ram, exits, exits.esp, 20)
        if base < 0:
            return NOT_FAST
        esp = read_guest(ram, exits, base + exits.esp + 12, 4, 0)
        stack = read_guest(ram, exits, base + exits.esp + 16, 4, 0)
        if esp < 0 or stack < 0:
            return NOT_FAST
        stack &= 0xFFFF
        place = descriptor_place(ram, exits, stack)
        if place < 0 or stack & 3 != 3 or not is_shadowed(ram, stack) or not keeps_data_segments(cpu, exits, 3):
            return NOT_FAST
        if not is_stack_of(load_32(ram, place), load_32(ram, place + 4), 3):
            return NOT_FAST
    if eip > limit_of(low, high) or not can_commit(exits):
        return NOT_FAST
    # 4. Commit: flags by the privilege of CPL 0, then the segments.
    commit(cpu, exits)
    flags = (virtual_flags(ram, exits) & ~LOADABLE) | (image & LOADABLE)
    if level == 3:
        set_cpl(cpu, ram, exits, 3)
        exits.ss = hardware_selector(stack)
    exits.esp = esp & M32
    exits.cs = hardware_selector(selector)
    exits.eip = eip
    load_flags(ram, exits, flags)
    return DONE

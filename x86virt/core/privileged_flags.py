"""What each mode and privilege may see and change of EFLAGS: CLI, STI, PUSHF, POPF, and the image that IRET loads.

SDM volume 2, CLI, STI, PUSHF, POPF and IRET; volume 3, sections 20.3.2 and 20.4 (virtual interrupts).
"""

from ..isa.registers import (
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_LOADABLE,
    EFLAGS_RF,
    EFLAGS_TF,
    EFLAGS_VIF,
    EFLAGS_VIP,
    EFLAGS_VM,
    ESP,
)
from ..isa.vectors import GP
from .fault import raise_fault
from .flags import get_eflags, set_eflags
from .jit import inline, kernel
from .layout import HOLDS_INTERRUPTS, OK
from .mode import (
    in_virtual_8086_mode,
    interrupt_flag_is_virtual,
    io_privilege,
    operand_bytes,
    peek_stack,
    push,
    set_stack_pointer,
)


@inline
def io_privileged(cpu):
    """CPL <= IOPL: may this code change IF?"""
    return cpu.cpl <= io_privilege(cpu)


@inline
def loadable_flags(cpu, n):
    """The flags that POPF and IRET with `n` bytes may change at this CPL and IOPL; RF, VM, VIF and VIP apart."""
    mask = EFLAGS_LOADABLE
    if io_privileged(cpu):
        mask |= EFLAGS_IF
    if cpu.cpl == 0:
        mask |= EFLAGS_IOPL
    if n == 2:
        mask &= 0xFFFF
    return mask


@inline
def load_flags(cpu, image, mask):
    """Load the flags of `mask`, the arithmetic ones among them, from an image; RF is cleared."""
    set_eflags(cpu, (cpu.eflags & ~(mask | EFLAGS_RF)) | (image & mask))


@inline
def load_resume_flag(cpu, image, n):
    """IRETD takes RF from the image, which POPFD does not; a 16-bit image has none."""
    if n == 4:
        cpu.eflags |= image & EFLAGS_RF


@kernel
def virtual_flags_need_monitor(cpu, n):
    """In virtual-8086 mode with IOPL < 3, PUSHF, POPF and IRET are #GP(0), but with 16-bit operands under CR4.VME."""
    return io_privilege(cpu) < 3 and (n == 4 or not interrupt_flag_is_virtual(cpu))


@kernel
def load_virtual_flags(cpu, image, n):
    """Load the flags that POPF or IRET popped in virtual-8086 mode; where IF is virtual, VIF takes its bit.

    #GP(0), with nothing loaded, for TF or for letting in a pending virtual interrupt.
    """
    mask = loadable_flags(cpu, n)
    if interrupt_flag_is_virtual(cpu):
        if image & EFLAGS_TF or (image & EFLAGS_IF and cpu.eflags & EFLAGS_VIP):
            return raise_fault(cpu, GP, 0)
        image &= 0xFFFF
        if image & EFLAGS_IF:
            image |= EFLAGS_VIF
        mask |= EFLAGS_VIF
    load_flags(cpu, image, mask)
    return OK


# -- instructions -------------------------------------------------------------------------------------------------------


@kernel
def cli(cpu):
    """CLI: clears IF, or VIF where that stands for it."""
    if io_privileged(cpu):
        cpu.eflags &= ~EFLAGS_IF
    elif interrupt_flag_is_virtual(cpu):
        cpu.eflags &= ~EFLAGS_VIF
    else:
        return raise_fault(cpu, GP, 0)
    return OK


@kernel
def sti(cpu):
    """STI: interrupts that it opens are held off for one more instruction. VIF is set only if none is pending."""
    if io_privileged(cpu):
        if cpu.eflags & EFLAGS_IF == 0:
            cpu.shadow = HOLDS_INTERRUPTS
        cpu.eflags |= EFLAGS_IF
    elif interrupt_flag_is_virtual(cpu) and cpu.eflags & EFLAGS_VIP == 0:
        cpu.eflags |= EFLAGS_VIF
    else:
        return raise_fault(cpu, GP, 0)
    return OK


@kernel
def virtual_flags_image(cpu):
    """What PUSHF and INT n push in virtual-8086 mode: where IF is virtual, VIF in its place and an IOPL of 3."""
    image = get_eflags(cpu)
    if interrupt_flag_is_virtual(cpu):
        image |= EFLAGS_IOPL | EFLAGS_IF
        if cpu.eflags & EFLAGS_VIF == 0:
            image &= ~EFLAGS_IF
    return image


@kernel
def pushf(cpu, ram, u):
    """PUSHF and PUSHFD: the image has RF and VM clear."""
    n = operand_bytes(u.width)
    image = get_eflags(cpu)
    if in_virtual_8086_mode(cpu):
        if virtual_flags_need_monitor(cpu, n):
            return raise_fault(cpu, GP, 0)
        image = virtual_flags_image(cpu)
    return push(cpu, ram, n, image & ~(EFLAGS_RF | EFLAGS_VM))


@kernel
def popf(cpu, ram, u):
    """POPF and POPFD: what the CPL may not change stays; RF is cleared."""
    n = operand_bytes(u.width)
    if in_virtual_8086_mode(cpu) and virtual_flags_need_monitor(cpu, n):
        return raise_fault(cpu, GP, 0)
    outcome, image = peek_stack(cpu, ram, 0, n)
    if outcome != OK:
        return outcome
    if in_virtual_8086_mode(cpu):
        outcome = load_virtual_flags(cpu, image, n)
    else:
        load_flags(cpu, image, loadable_flags(cpu, n))
    if outcome == OK:
        set_stack_pointer(cpu, cpu.gpr[ESP] + n)
    return outcome

"""Privilege, code context, the stack, and register write-back: what the system procedures share."""

from ..isa.registers import (
    AR_DB,
    CR0_PE,
    CR4_PVI,
    CR4_VME,
    CS,
    EFLAGS_IOPL,
    EFLAGS_IOPL_SHIFT,
    EFLAGS_VIF,
    EFLAGS_VIP,
    EFLAGS_VM,
    ESP,
    SS,
)
from .jit import inline, kernel
from .layout import FRONT_SLOTS, MARK_PROTECTED, MAX_CONTEXTS, OK, ROOT
from .memory import bytes_at, fast_read_address, read_segment, write_segment

MASK_32 = 0xFFFFFFFF
IN_GUEST = 1 << 10  # of a context's attributes


@inline
def in_real_mode(cpu):
    """Real-address mode: CR0.PE is clear."""
    return cpu.cr0 & CR0_PE == 0


@inline
def in_virtual_8086_mode(cpu):
    """Virtual-8086 mode: EFLAGS.VM is set, and with it CPL is 3."""
    return cpu.eflags & EFLAGS_VM != 0


@inline
def segments_are_paragraphs(cpu):
    """Whether a selector is a paragraph number (its base divided by 16) and names no descriptor."""
    return in_real_mode(cpu) or in_virtual_8086_mode(cpu)


@inline
def io_privilege(cpu):
    """IOPL."""
    return (cpu.eflags & EFLAGS_IOPL) >> EFLAGS_IOPL_SHIFT


@inline
def interrupt_flag_is_virtual(cpu):
    """Whether CLI and STI work on VIF: IOPL < 3, in virtual-8086 mode with CR4.VME, or in ring 3 with CR4.PVI."""
    if io_privilege(cpu) == 3 or cpu.cpl != 3 or in_real_mode(cpu):
        return False
    if in_virtual_8086_mode(cpu):
        return cpu.cr4 & CR4_VME != 0
    return cpu.cr4 & CR4_PVI != 0


@inline
def virtual_interrupt_let_in(cpu):
    """VIF and VIP both set where they count, as only a return or a task switch can leave them (volume 3, 20.3.2)."""
    both = EFLAGS_VIF | EFLAGS_VIP
    return cpu.eflags & both == both and interrupt_flag_is_virtual(cpu)


@inline
def set_cpl(cpu, cpl):
    """Enter privilege level `cpl`: the front cache's bank and the ledger's mode follow it."""
    cpu.cpl = cpl
    cpu.mode = cpu.mode_table[cpl + 4 * int(cpu.world != ROOT)]
    if cpl == 3:
        cpu.bank = FRONT_SLOTS
    else:
        cpu.bank = 0


@inline
def is_context(cpu, index, cs_base, cs_limit, attributes):
    """Whether a place of the table holds this code context."""
    entry = cpu.contexts[index]
    same = entry.cs_base == cs_base and entry.cs_limit == cs_limit and entry.attributes == attributes
    return same and index < cpu.context_count


@inline
def find_context(cpu, cs_base, cs_limit, attributes):
    """The index of a known code context, or -1; the one that this level ran in last is likely."""
    likely = cpu.context_of_level[cpu.cpl]
    if is_context(cpu, likely, cs_base, cs_limit, attributes):
        return likely
    for index in range(cpu.context_count):
        if is_context(cpu, index, cs_base, cs_limit, attributes):
            return index
    return -1


@kernel
def set_context(cpu):
    """Find or add the code context that decoded blocks are keyed by; call it after CS, CPL, PE, VM,
    mode or probe changed.

    attributes:  1:0 CPL   2 CS.D   5:3 mode   6 probe on   7 real-address mode   8 virtual-8086 mode
                 9 a virtual interrupt is let in (VIF and VIP set): the next instruction raises #GP(0)
                 10 in a hypervisor's guest: instructions that its controls may intercept ask them first
    A full table starts anew, and `flush_code` asks the main loop to discard every decoded block.
    """
    code = cpu.seg[CS]
    attributes = cpu.cpl | ((code.access & AR_DB) >> 12) | (cpu.mode << 3) | (cpu.probe_on << 6)
    attributes |= IN_GUEST * int(cpu.world != ROOT)
    if in_real_mode(cpu):
        attributes |= 1 << 7
    if in_virtual_8086_mode(cpu):
        attributes |= 1 << 8
    if virtual_interrupt_let_in(cpu):
        attributes |= 1 << 9
    index = find_context(cpu, code.seg_base, code.limit, attributes)
    if index < 0:
        if cpu.context_count >= MAX_CONTEXTS:
            cpu.context_count = 0
            cpu.flush_code = 1
        index = cpu.context_count
        entry = cpu.contexts[index]
        entry.cs_base = code.seg_base
        entry.cs_limit = code.limit
        entry.attributes = attributes
        cpu.context_count = index + 1
    cpu.context = index
    cpu.context_of_level[cpu.cpl] = index
    if cpu.protected_exits == 1 and not segments_are_paragraphs(cpu):
        cpu.mark = MARK_PROTECTED


@kernel
def write_register(cpu, slot, shift, width, value):
    """Write an 8, 16 or 32-bit register; narrow writes keep the other bits of bits 31:0 (`shift` is 8 for AH to BH)."""
    if width == 32:
        cpu.gpr[slot] = value & MASK_32
    elif width == 16:
        cpu.gpr[slot] = (cpu.gpr[slot] & 0xFFFF0000) | (value & 0xFFFF)
    elif shift == 8:
        cpu.gpr[slot] = (cpu.gpr[slot] & 0xFFFF00FF) | ((value & 0xFF) << 8)
    else:
        cpu.gpr[slot] = (cpu.gpr[slot] & 0xFFFFFF00) | (value & 0xFF)


@inline
def operand_bytes(width):
    """Bytes of an operand of `width` bits."""
    if width == 32:
        return 4
    if width == 16:
        return 2
    return 1


@inline
def stack_mask(access):
    """What a stack pointer wraps at: 32 bits if the B flag of the stack segment is set, else 16."""
    if access & AR_DB:
        return MASK_32
    return 0xFFFF


@inline
def set_stack_pointer(cpu, value):
    """Load ESP, or only SP when the stack segment's B flag is clear."""
    mask = stack_mask(cpu.seg[SS].access)
    cpu.gpr[ESP] = (cpu.gpr[ESP] & ~mask & MASK_32) | (value & mask)


@inline
def peek_stack(cpu, ram, displacement, n):
    """Read `n` bytes at SS:ESP + displacement at the current CPL: (outcome, value). The stack pointer stays."""
    offset = (cpu.gpr[ESP] + displacement) & stack_mask(cpu.seg[SS].access)
    return read_segment(cpu, ram, SS, offset, n)


@inline
def plain_stack(cpu, displacement, size):
    """The index into RAM of `size` bytes from SS:ESP + displacement, or -1 when they must be read item by item."""
    mask = stack_mask(cpu.seg[SS].access)
    offset = (cpu.gpr[ESP] + displacement) & mask
    if offset + size - 1 > mask:
        return -1
    return fast_read_address(cpu, SS, offset, size)


@kernel
def peek_return_frame_slowly(cpu, ram, n):
    """Read what IRET pops one by one, wherever the stack lies: (outcome, eip, selector, image of the flags)."""
    outcome, eip = peek_stack(cpu, ram, 0, n)
    if outcome != OK:
        return outcome, 0, 0, 0
    outcome, selector = peek_stack(cpu, ram, n, n)
    if outcome != OK:
        return outcome, 0, 0, 0
    outcome, image = peek_stack(cpu, ram, 2 * n, n)
    return outcome, eip, selector & 0xFFFF, image


@inline
def peek_return_frame(cpu, ram, n):
    """Read what IRET pops, items of `n` bytes: (outcome, eip, selector, image of the flags)."""
    index = plain_stack(cpu, 0, 3 * n)
    if index < 0:
        return peek_return_frame_slowly(cpu, ram, n)
    return OK, bytes_at(ram, index, n), bytes_at(ram, index + n, n) & 0xFFFF, bytes_at(ram, index + 2 * n, n)


@inline
def push(cpu, ram, n, value):
    """Push `n` bytes at the current CPL; the stack pointer moves only if the write succeeded."""
    pointer = cpu.gpr[ESP] - n
    outcome = write_segment(cpu, ram, SS, pointer & stack_mask(cpu.seg[SS].access), n, value)
    if outcome == OK:
        set_stack_pointer(cpu, pointer)
    return outcome

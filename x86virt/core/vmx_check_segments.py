"""VM entry: the checks on the guest's segment registers (SDM volume 3, section 26.3.1.2), without unrestricted guest."""

from ..isa.registers import (
    AR_DPL,
    AR_DPL_SHIFT,
    AR_G,
    AR_P,
    AR_S,
    AR_TYPE,
    AR_UNUSABLE,
    CS,
    DS,
    EFLAGS_VM,
    ERROR_TI,
    ES,
    GS,
    LDTR,
    SS,
    TR,
    TYPE_ACCESSED,
    TYPE_CODE,
    TYPE_CONFORMING,
    TYPE_EXPAND_DOWN,
    TYPE_LDT,
    TYPE_READABLE,
    TYPE_TSS_16_BUSY,
    TYPE_TSS_32_BUSY,
    TYPE_WRITABLE,
)
from ..isa.vmx import (
    ACCESS_RESERVED,
    VMCS_GUEST_ACCESS_RIGHTS,
    VMCS_GUEST_BASES,
    VMCS_GUEST_LIMITS,
    VMCS_GUEST_RFLAGS,
    VMCS_GUEST_SELECTORS,
)
from .jit import inline, kernel
from .vmcs import vmcs_read

VIRTUAL_8086_LIMIT, VIRTUAL_8086_RIGHTS = 0xFFFF, 0xF3
WRITABLE_DATA = TYPE_WRITABLE | TYPE_ACCESSED


@inline
def selector_of(cpu, ram, segment):
    """The selector field of a segment register."""
    return vmcs_read(cpu, ram, VMCS_GUEST_SELECTORS + segment) & 0xFFFF


@inline
def rights_of(cpu, ram, segment):
    """Its access rights."""
    return vmcs_read(cpu, ram, VMCS_GUEST_ACCESS_RIGHTS + segment)


@kernel
def granularity_fits(limit, rights):
    """G is 0 if a bit of the limit's bits 11:0 is 0, and 1 if a bit of 31:20 is 1."""
    if limit & 0xFFF != 0xFFF and rights & AR_G != 0:
        return False
    return limit >> 20 == 0 or rights & AR_G != 0


@kernel
def present_and_proper(cpu, ram, segment, rights):
    """P is set, reserved bits are clear, and the granularity fits the limit."""
    if rights & AR_P == 0 or rights & ACCESS_RESERVED != 0:
        return False
    return granularity_fits(vmcs_read(cpu, ram, VMCS_GUEST_LIMITS + segment), rights)


@kernel
def code_segment_valid(cpu, ram):
    """CS: an accessed code segment, whose DPL fits that of SS."""
    rights = rights_of(cpu, ram, CS)
    kind = rights & AR_TYPE
    if kind & (TYPE_CODE | TYPE_ACCESSED) != TYPE_CODE | TYPE_ACCESSED or rights & AR_S == 0:
        return False
    level = rights & AR_DPL
    level_of_stack = rights_of(cpu, ram, SS) & AR_DPL
    if kind & TYPE_CONFORMING == 0 and level != level_of_stack:
        return False
    return level <= level_of_stack and present_and_proper(cpu, ram, CS, rights)


@kernel
def stack_segment_valid(cpu, ram):
    """SS: RPL is that of CS and its DPL, usable or not; an accessed, writable data segment if it is usable."""
    rights = rights_of(cpu, ram, SS)
    level = selector_of(cpu, ram, SS) & 3
    if level != selector_of(cpu, ram, CS) & 3 or level != (rights & AR_DPL) >> AR_DPL_SHIFT:
        return False
    if rights & AR_UNUSABLE != 0:
        return True
    if rights & AR_TYPE & ~TYPE_EXPAND_DOWN != WRITABLE_DATA or rights & AR_S == 0:
        return False
    return present_and_proper(cpu, ram, SS, rights)


@kernel
def data_segment_valid(cpu, ram, segment):
    """DS, ES, FS and GS: if usable, an accessed segment that may be read, and that the selector's RPL may use."""
    rights = rights_of(cpu, ram, segment)
    if rights & AR_UNUSABLE != 0:
        return True
    kind = rights & AR_TYPE
    if kind & TYPE_ACCESSED == 0 or rights & AR_S == 0:
        return False
    if kind & TYPE_CODE != 0 and kind & TYPE_READABLE == 0:
        return False
    conforming = kind & (TYPE_CODE | TYPE_CONFORMING) == TYPE_CODE | TYPE_CONFORMING
    if not conforming and (rights & AR_DPL) >> AR_DPL_SHIFT < selector_of(cpu, ram, segment) & 3:
        return False
    return present_and_proper(cpu, ram, segment, rights)


@kernel
def task_register_valid(cpu, ram):
    """TR: usable, in the GDT, a busy task-state segment."""
    rights = rights_of(cpu, ram, TR)
    kind = rights & AR_TYPE
    if selector_of(cpu, ram, TR) & ERROR_TI != 0 or rights & (AR_S | AR_UNUSABLE) != 0:
        return False
    if kind != TYPE_TSS_32_BUSY and kind != TYPE_TSS_16_BUSY:
        return False
    return present_and_proper(cpu, ram, TR, rights)


@kernel
def local_table_valid(cpu, ram):
    """LDTR: if usable, in the GDT, and a local descriptor table."""
    rights = rights_of(cpu, ram, LDTR)
    if rights & AR_UNUSABLE != 0:
        return True
    if selector_of(cpu, ram, LDTR) & ERROR_TI != 0 or rights & (AR_S | AR_TYPE) != TYPE_LDT:
        return False
    return present_and_proper(cpu, ram, LDTR, rights)


@kernel
def virtual_8086_segments_valid(cpu, ram):
    """ES to GS in virtual-8086 mode: what that mode makes of their selectors."""
    for segment in range(ES, GS + 1):
        if vmcs_read(cpu, ram, VMCS_GUEST_BASES + segment) != selector_of(cpu, ram, segment) << 4:
            return False
        if vmcs_read(cpu, ram, VMCS_GUEST_LIMITS + segment) != VIRTUAL_8086_LIMIT:
            return False
        if rights_of(cpu, ram, segment) != VIRTUAL_8086_RIGHTS:
            return False
    return True


@kernel
def protected_segments_valid(cpu, ram):
    """ES to GS in protected mode."""
    if not code_segment_valid(cpu, ram) or not stack_segment_valid(cpu, ram) or not data_segment_valid(cpu, ram, ES):
        return False
    for segment in range(DS, GS + 1):
        if not data_segment_valid(cpu, ram, segment):
            return False
    return True


@kernel
def guest_segments_valid(cpu, ram):
    """All checks on the guest's segment registers."""
    if not task_register_valid(cpu, ram) or not local_table_valid(cpu, ram):
        return False
    if vmcs_read(cpu, ram, VMCS_GUEST_RFLAGS) & EFLAGS_VM != 0:
        return virtual_8086_segments_valid(cpu, ram)
    return protected_segments_valid(cpu, ram)

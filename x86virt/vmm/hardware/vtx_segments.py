"""Which states of a guest's segments VM entry accepts, without unrestricted guest (SDM volume 3, section 26.3.1.2).

`Register` is a segment register as the guest has it. What VM entry would refuse, the VMM leaves to its interpreter.
"""

from ...isa.registers import (
    AR_DB,
    AR_DPL,
    AR_DPL_SHIFT,
    AR_G,
    AR_P,
    AR_S,
    AR_TYPE,
    AR_UNUSABLE,
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
from ...isa.vmx import ACCESS_RESERVED
from ..state import SegmentState as Register

REAL_MODE_LIMIT, VIRTUAL_8086_RIGHTS = 0xFFFF, 0xF3
TI, RPL = 4, 3
WRITABLE_DATA = TYPE_WRITABLE | TYPE_ACCESSED


def level(register: Register) -> int:
    """The descriptor's privilege level."""
    return (register.access & AR_DPL) >> AR_DPL_SHIFT


def is_proper(register: Register) -> bool:
    """Present, no reserved bits, a granularity that the limit allows."""
    if not register.access & AR_P or register.access & ACCESS_RESERVED:
        return False
    if register.access & AR_G:
        return register.limit & 0xFFF == 0xFFF
    return register.limit >> 20 == 0


def code_fits(code: Register, stack: Register) -> bool:
    """CS: an accessed code segment whose privilege fits the stack's."""
    kind = code.access & AR_TYPE
    if not code.access & AR_S or kind & (TYPE_CODE | TYPE_ACCESSED) != TYPE_CODE | TYPE_ACCESSED or not is_proper(code):
        return False
    if kind & TYPE_CONFORMING:
        return level(code) <= level(stack)
    return level(code) == level(stack)


def stack_fits(stack: Register, code: Register) -> bool:
    """SS: RPL and DPL are those of CS, usable or not; writable data if it is usable."""
    requested = stack.selector & RPL
    if requested != code.selector & RPL or requested != level(stack):
        return False
    if stack.access & AR_UNUSABLE:
        return True
    writable = stack.access & AR_TYPE & ~TYPE_EXPAND_DOWN == WRITABLE_DATA
    return writable and bool(stack.access & AR_S) and is_proper(stack)


def data_fits(register: Register) -> bool:
    """DS to GS: unusable, or an accessed segment that may be read and that its selector's RPL may use."""
    if register.access & AR_UNUSABLE:
        return True
    kind = register.access & AR_TYPE
    if not kind & TYPE_ACCESSED or not register.access & AR_S or not is_proper(register):
        return False
    if not kind & TYPE_CODE:
        return level(register) >= register.selector & RPL
    if not kind & TYPE_READABLE:
        return False
    return bool(kind & TYPE_CONFORMING) or level(register) >= register.selector & RPL


def task_fits(register: Register) -> bool:
    """TR: a busy task-state segment of the GDT."""
    busy = register.access & AR_TYPE in (TYPE_TSS_16_BUSY, TYPE_TSS_32_BUSY)
    return busy and not register.access & (AR_S | AR_UNUSABLE) and not register.selector & TI and is_proper(register)


def local_table_fits(register: Register) -> bool:
    """LDTR: unusable, or a local descriptor table of the GDT."""
    if register.access & AR_UNUSABLE:
        return True
    return register.access & (AR_S | AR_TYPE) == TYPE_LDT and not register.selector & TI and is_proper(register)


def has_paragraph_base(register: Register) -> bool:
    """Whether a base is what real-address and virtual-8086 mode make of the selector, with a limit of 64 KB."""
    return register.base == register.selector << 4 and register.limit == REAL_MODE_LIMIT


def fits_protected_mode(segments: list[Register]) -> bool:
    """ES to GS in protected mode, in the order of isa.registers."""
    es, code, stack, *others = segments
    return code_fits(code, stack) and stack_fits(stack, code) and all(data_fits(which) for which in (es, *others))


def fits_virtual_8086_mode(segments: list[Register]) -> bool:
    """ES to GS of a guest that is itself in virtual-8086 mode."""
    return all(has_paragraph_base(which) and which.access == VIRTUAL_8086_RIGHTS for which in segments)


def can_be_virtual_8086(register: Register) -> bool:
    """Whether a segment of real-address mode behaves as one of virtual-8086 mode would: plain 16-bit data of 64 KB."""
    rights = register.access & (AR_UNUSABLE | AR_P | AR_S | AR_DB | AR_TYPE & ~TYPE_ACCESSED)
    return has_paragraph_base(register) and rights == AR_P | AR_S | TYPE_WRITABLE

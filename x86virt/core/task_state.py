"""The state that a task-state segment holds, and its way to and from the processor (SDM volume 3, sections 7.2 and 7.6).

    16-bit (44 bytes)   0 link   2 SP and SS of rings 0 to 2                14 IP   16 FLAGS   18 AX to DI
                        34 ES CS SS DS           42 LDT
    32-bit (104 bytes)  0 link   4 ESP and SS of rings 0 to 2   28 CR3      32 EIP  36 EFLAGS  40 EAX to EDI
                        72 ES CS SS DS FS GS     96 LDT         100 T (bit 0)   102 offset of the I/O permission map

Between the instruction pointer and the LDT stand items of equal size: the instruction pointer, the flags, eight general
registers, and the selectors in the order of the segment registers.
"""

from ..isa.registers import (
    AR_S,
    AR_TYPE,
    CR0_PG,
    GS,
    LDTR,
    TYPE_TSS_16_BUSY,
    TYPE_TSS_32_BUSY,
)
from .jit import inline, kernel
from .layout import OK
from .memory import check_write_linear, read_linear, write_linear
from .mode import MASK_32
from .page_directory_pointers import load_cr3
from .segment import set_null_segment

LINK = 0
FIRST_ITEM_16, SELECTORS_16, LAST_SAVED_16, LAST_16 = 14, 4, 41, 43
FIRST_ITEM_32, SELECTORS_32, LAST_SAVED_32, LAST_32 = 32, 6, 95, 103
CR3_32, TRAP_32 = 28, 100
GENERAL_ITEM, SELECTOR_ITEM = 2, 10  # behind the instruction pointer and the flags; behind the general registers
UPPER_HALF_16 = 0xFFFF0000  # what a 16-bit TSS leaves in the upper halves of the general registers


@inline
def is_32bit_tss(access):
    """Is a TSS of the 32-bit format, by its type?"""
    return access & (AR_S | AR_TYPE) | 2 == TYPE_TSS_32_BUSY


@inline
def is_16bit_tss(access):
    """Is a TSS of the 16-bit format, by its type?"""
    return access & (AR_S | AR_TYPE) | 2 == TYPE_TSS_16_BUSY


@inline
def first_item(access):
    """The offset of the saved instruction pointer."""
    if is_32bit_tss(access):
        return FIRST_ITEM_32
    return FIRST_ITEM_16


@inline
def last_saved(access):
    """The last byte of what a switch away from a task saves."""
    if is_32bit_tss(access):
        return LAST_SAVED_32
    return LAST_SAVED_16


@inline
def last_byte(access):
    """The last byte that a TSS must have."""
    if is_32bit_tss(access):
        return LAST_32
    return LAST_16


@inline
def item_bytes(access):
    """The size of an item."""
    if is_32bit_tss(access):
        return 4
    return 2


@inline
def selector_count(access):
    """How many segment registers a TSS holds: the 80286 has neither FS nor GS."""
    if is_32bit_tss(access):
        return SELECTORS_32
    return SELECTORS_16


# -- pages ------------------------------------------------------------------------------------------------------------


@kernel
def check_pages_for_writing(cpu, ram, first, last):
    """May the bytes from one linear address to another, less than a page apart, be written?"""
    outcome = check_write_linear(cpu, ram, first & MASK_32, 1, 0)
    if outcome == OK:
        outcome = check_write_linear(cpu, ram, last & MASK_32, 1, 0)
    return outcome


@kernel
def check_pages_for_reading(cpu, ram, first, last):
    """May the bytes from one linear address to another, less than a page apart, be read?"""
    outcome, _ = read_linear(cpu, ram, first & MASK_32, 1, 0)
    if outcome == OK:
        outcome, _ = read_linear(cpu, ram, last & MASK_32, 1, 0)
    return outcome


@inline
def read_checked(cpu, ram, gla, n):
    """Read where the pages have been checked."""
    _, value = read_linear(cpu, ram, gla & MASK_32, n, 0)
    return value


@inline
def write_checked(cpu, ram, gla, n, value):
    """Write where the pages have been checked."""
    write_linear(cpu, ram, gla & MASK_32, n, value, 0)


# -- the state --------------------------------------------------------------------------------------------------------


@kernel
def save_task_state(cpu, ram, tss_base, access, image):
    """Save the current task, with `image` as its flags; LDT, CR3 and the stacks of inner rings are only ever read."""
    n = item_bytes(access)
    first = tss_base + first_item(access)
    write_checked(cpu, ram, first, n, cpu.rip)
    write_checked(cpu, ram, first + n, n, image)
    for register in range(8):
        write_checked(cpu, ram, first + (GENERAL_ITEM + register) * n, n, cpu.gpr[register])
    for segment in range(selector_count(access)):
        write_checked(cpu, ram, first + (SELECTOR_ITEM + segment) * n, 2, cpu.seg[segment].selector)


@kernel
def load_task_registers(cpu, ram, tss_base, access):
    """Load EIP, the general registers, and every selector with a descriptor cache that cannot be used: the new flags.

    A 16-bit TSS gives ones in the upper halves of the general registers, and null selectors in FS and GS.
    """
    n = item_bytes(access)
    first = tss_base + first_item(access)
    upper = 0
    if n == 2:
        upper = UPPER_HALF_16
    cpu.rip = read_checked(cpu, ram, first, n)
    image = read_checked(cpu, ram, first + n, n)
    for register in range(8):
        cpu.gpr[register] = read_checked(cpu, ram, first + (GENERAL_ITEM + register) * n, n) | upper
    count = selector_count(access)
    for segment in range(GS + 1):
        selector = 0
        if segment < count:
            selector = read_checked(cpu, ram, first + (SELECTOR_ITEM + segment) * n, 2)
        set_null_segment(cpu, segment, selector)
    set_null_segment(cpu, LDTR, read_checked(cpu, ram, first + (SELECTOR_ITEM + count) * n, 2))
    return image


@kernel
def load_task_cr3(cpu, ram, tss_base, access):
    """Load CR3 from a 32-bit TSS if paging is on; a change does all that MOV CR3 does (section 4.10.4.1)."""
    if not is_32bit_tss(access) or cpu.cr0 & CR0_PG == 0:
        return OK
    value = read_checked(cpu, ram, tss_base + CR3_32, 4)
    if value == cpu.cr3:
        return OK
    return load_cr3(cpu, ram, value)


@inline
def task_trap_flag(cpu, ram, tss_base, access):
    """The T flag of a 32-bit TSS; a 16-bit one has none."""
    if not is_32bit_tss(access):
        return 0
    return read_checked(cpu, ram, tss_base + TRAP_32, 2) & 1

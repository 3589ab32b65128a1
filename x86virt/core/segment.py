"""Segment descriptors: reading, checking and loading them (SDM volume 3, sections 3.4, 3.5 and 5.2 to 5.7).

A descriptor in memory, as two doublewords:

    low    31:16 base 15:0                          15:0 limit 15:0
    high   31:24 base 31:24  23 G  22 D/B  21 L  20 AVL  19:16 limit 19:16
           15 P  14:13 DPL  12 S  11:8 type         7:0 base 23:16

so that `(high >> 8) & 0xF0FF` is the access-rights word of a VMCS guest segment field.
"""

from ..isa.registers import (
    AR_DPL,
    AR_DPL_SHIFT,
    AR_G,
    AR_P,
    AR_S,
    AR_TYPE,
    AR_UNUSABLE,
    CS,
    ERROR_TI,
    LDTR,
    SS,
    TR,
    TYPE_ACCESSED,
    TYPE_CODE,
    TYPE_CONFORMING,
    TYPE_EXPAND_DOWN,
    TYPE_LDT,
    TYPE_READABLE,
    TYPE_TSS_16,
    TYPE_TSS_32,
    TYPE_WRITABLE,
)
from ..isa.vectors import GP, NP, SS_FAULT
from .fault import raise_fault
from .jit import inline, kernel, load_32
from .layout import OK
from .memory import SUPERVISOR, plain_read, read_linear_slowly, write_linear_slowly
from .mode import in_virtual_8086_mode, segments_are_paragraphs

MASK_32 = 0xFFFFFFFF
SELECTOR_INDEX = 0xFFFC  # the index and TI; what an error code carries
BUSY = 2  # of a TSS type
VIRTUAL_8086_SEGMENT = AR_P | AR_DPL | AR_S | TYPE_WRITABLE | TYPE_ACCESSED


@inline
def is_null(selector):
    """Is it one of the four null selectors?"""
    return selector & SELECTOR_INDEX == 0


@inline
def access_of(high):
    """The access-rights word of a descriptor."""
    return (high >> 8) & 0xF0FF


@inline
def limit_of(low, high):
    """The limit of a descriptor in bytes, granularity applied."""
    limit = (low & 0xFFFF) | (high & 0xF0000)
    if access_of(high) & AR_G:
        return (limit << 12) | 0xFFF
    return limit


@inline
def base_of(low, high):
    """The base address of a descriptor."""
    return (low >> 16) | ((high & 0xFF) << 16) | (high & 0xFF000000)


@inline
def dpl_of(access):
    """The descriptor privilege level in an access-rights word."""
    return (access & AR_DPL) >> AR_DPL_SHIFT


@inline
def is_code(access):
    """A code segment?"""
    return access & (AR_S | TYPE_CODE) == (AR_S | TYPE_CODE)


@inline
def is_conforming(access):
    """A conforming code segment?"""
    return access & (AR_S | TYPE_CODE | TYPE_CONFORMING) == (AR_S | TYPE_CODE | TYPE_CONFORMING)


@inline
def is_writable_data(access):
    """A data segment that may be written?"""
    return access & (AR_S | TYPE_CODE | TYPE_WRITABLE) == (AR_S | TYPE_WRITABLE)


@inline
def is_readable(access):
    """A data segment, or a code segment that may be read?"""
    return access & AR_S != 0 and access & (TYPE_CODE | TYPE_READABLE) != TYPE_CODE


@inline
def descriptor_address(cpu, selector):
    """The linear address of the descriptor that `selector` names, or -1 beyond its table's limit."""
    offset = selector & 0xFFF8
    if selector & ERROR_TI:
        table = cpu.seg[LDTR]
        if table.access & AR_UNUSABLE or offset + 7 > table.limit:
            return -1
        return (table.seg_base + offset) & MASK_32
    if offset + 7 > cpu.gdtr_limit:
        return -1
    return (cpu.gdtr_base + offset) & MASK_32


@kernel
def read_descriptor_slowly(cpu, ram, gla):
    """Read the descriptor at a linear address, whatever lies there: (outcome, low, high)."""
    outcome, low = read_linear_slowly(cpu, ram, gla, 4, 0)
    if outcome != OK:
        return outcome, 0, 0
    outcome, high = read_linear_slowly(cpu, ram, (gla + 4) & MASK_32, 4, 0)
    return outcome, low, high


@inline
def read_descriptor_at(cpu, ram, gla):
    """Read the descriptor at a linear address with supervisor privilege: (outcome, low, high)."""
    index = plain_read(cpu, gla, 8, SUPERVISOR)
    if index < 0:
        return read_descriptor_slowly(cpu, ram, gla)
    return OK, load_32(ram, index), load_32(ram, index + 4)


@inline
def read_descriptor_or(cpu, ram, selector, vector, ext):
    """Read a descriptor: (outcome, low, high); beyond the table's limit `vector`(selector + EXT)."""
    gla = descriptor_address(cpu, selector)
    if gla < 0:
        return raise_fault(cpu, vector, (selector & SELECTOR_INDEX) | ext), 0, 0
    return read_descriptor_at(cpu, ram, gla)


@inline
def read_descriptor(cpu, ram, selector):
    """Read a descriptor from the GDT or LDT: (outcome, low, high); #GP(selector) beyond the table's limit."""
    return read_descriptor_or(cpu, ram, selector, GP, 0)


@inline
def set_accessed(cpu, ram, selector, high):
    """Set the accessed bit of a code or data descriptor in memory if it is clear: (outcome, high with the bit)."""
    accessed = TYPE_ACCESSED << 8
    if high & accessed:
        return OK, high
    high |= accessed
    gla = (descriptor_address(cpu, selector) + 5) & MASK_32
    return write_linear_slowly(cpu, ram, gla, 1, (high >> 8) & 0xFF, 0), high


@inline
def limit_is_plain(access):
    """Whether the limit alone tells where a segment may be used: not expand-down, and there at all."""
    if access & (AR_UNUSABLE | AR_P | AR_S) != (AR_P | AR_S):
        return False
    return access & (TYPE_CODE | TYPE_EXPAND_DOWN) != TYPE_EXPAND_DOWN


@inline
def set_plain_limits(entry, access, limit):
    """Set how far plain reads and writes may go: -1 where only the slow path can tell (or none may)."""
    read_last = -1
    write_last = -1
    if limit_is_plain(access):
        if is_readable(access):
            read_last = limit
        if is_writable_data(access):
            write_last = limit
    entry.read_last = read_last
    entry.write_last = write_last


@inline
def segment_limits(cpu, segment):
    """Recompute how far plain reads and writes may go."""
    entry = cpu.seg[segment]
    set_plain_limits(entry, entry.access, entry.limit)


@kernel
def fill_segment(cpu, segment, selector, low, high):
    """Load a segment register's visible and hidden part from a descriptor."""
    entry = cpu.seg[segment]
    entry.selector = selector & 0xFFFF
    access = access_of(high)
    limit = limit_of(low, high)
    entry.access = access
    entry.limit = limit
    entry.seg_base = base_of(low, high)
    set_plain_limits(entry, access, limit)


@kernel
def set_null_segment(cpu, segment, selector):
    """Load a null selector: every use of the segment faults."""
    entry = cpu.seg[segment]
    entry.selector = selector & 0xFFFF
    entry.access = AR_UNUSABLE
    entry.limit = 0
    entry.seg_base = 0
    entry.read_last = -1
    entry.write_last = -1


@kernel
def load_stack_segment(cpu, ram, selector):
    """MOV SS, POP SS, LSS (SDM volume 2, MOV, "IF SS is loaded")."""
    # 1. A null selector.
    if is_null(selector):
        return raise_fault(cpu, GP, 0)
    # 2. Outside the table's limits.
    outcome, low, high = read_descriptor(cpu, ram, selector)
    if outcome != OK:
        return outcome
    # 3. RPL and DPL must be the CPL, the segment a writable data segment.
    access = access_of(high)
    if selector & 3 != cpu.cpl or not is_writable_data(access) or dpl_of(access) != cpu.cpl:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX)
    # 4. Not present.
    if access & AR_P == 0:
        return raise_fault(cpu, SS_FAULT, selector & SELECTOR_INDEX)
    outcome, high = set_accessed(cpu, ram, selector, high)
    if outcome == OK:
        fill_segment(cpu, SS, selector, low, high)
    return outcome


@inline
def data_selector_allowed(cpu, selector, access):
    """May DS, ES, FS or GS hold it: readable, and (unless conforming code) CPL and RPL no less privileged than DPL?"""
    if not is_readable(access):
        return False
    if is_conforming(access):
        return True
    dpl = dpl_of(access)
    return cpu.cpl <= dpl and selector & 3 <= dpl


@kernel
def load_data_segment(cpu, ram, segment, selector):
    """MOV, POP or Lxx to DS, ES, FS or GS (SDM volume 2, MOV)."""
    # 1. A null selector is loaded without a fault.
    if is_null(selector):
        set_null_segment(cpu, segment, selector)
        return OK
    # 2. Outside the table's limits.
    outcome, low, high = read_descriptor(cpu, ram, selector)
    if outcome != OK:
        return outcome
    # 3. Type and privilege.
    access = access_of(high)
    if not data_selector_allowed(cpu, selector, access):
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX)
    # 4. Not present.
    if access & AR_P == 0:
        return raise_fault(cpu, NP, selector & SELECTOR_INDEX)
    outcome, high = set_accessed(cpu, ram, selector, high)
    if outcome == OK:
        fill_segment(cpu, segment, selector, low, high)
    return outcome


@kernel
def load_paragraph_segment(cpu, segment, selector):
    """Load a segment register, CS included, in real-address or virtual-8086 mode: the base is 16 times the selector.

    Virtual-8086 mode fixes limit and access rights; real-address mode keeps those that are there (volume 3, section 9.9.2),
    so that a segment made unusable in protected mode stays so.
    """
    entry = cpu.seg[segment]
    entry.selector = selector & 0xFFFF
    entry.seg_base = (selector & 0xFFFF) << 4
    if in_virtual_8086_mode(cpu):
        entry.limit = 0xFFFF
        entry.access = VIRTUAL_8086_SEGMENT
    segment_limits(cpu, segment)


@kernel
def set_real_mode_code(cpu):
    """Entering real-address mode: the code segment may be read and written like data."""
    entry = cpu.seg[CS]
    entry.access = (entry.access & ~(AR_TYPE | AR_DPL)) | TYPE_WRITABLE | TYPE_ACCESSED
    segment_limits(cpu, CS)


@inline
def load_segment_register(cpu, ram, segment, selector):
    """Load SS, DS, ES, FS or GS by its rules; CS is never loaded this way (MOV CS is #UD, by the decoder)."""
    if segments_are_paragraphs(cpu):
        load_paragraph_segment(cpu, segment, selector)
        return OK
    if segment == SS:
        return load_stack_segment(cpu, ram, selector & 0xFFFF)
    return load_data_segment(cpu, ram, segment, selector & 0xFFFF)


@inline
def read_system_descriptor(cpu, ram, selector):
    """The descriptor for LLDT or LTR, which must stand in the GDT: (outcome, low, high)."""
    if selector & ERROR_TI:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX), 0, 0
    return read_descriptor(cpu, ram, selector)


@kernel
def load_ldtr(cpu, ram, selector):
    """LLDT (SDM volume 2). A null selector makes the LDT unusable."""
    selector &= 0xFFFF
    if is_null(selector):
        set_null_segment(cpu, LDTR, selector)
        return OK
    outcome, low, high = read_system_descriptor(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if access & (AR_S | AR_TYPE) != TYPE_LDT:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX)
    if access & AR_P == 0:
        return raise_fault(cpu, NP, selector & SELECTOR_INDEX)
    fill_segment(cpu, LDTR, selector, low, high)
    return OK


@kernel
def load_tr(cpu, ram, selector):
    """LTR (SDM volume 2): the TSS must be available, and is marked busy in the GDT."""
    selector &= 0xFFFF
    if is_null(selector):
        return raise_fault(cpu, GP, 0)
    outcome, low, high = read_system_descriptor(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    kind = access & (AR_S | AR_TYPE)
    if kind != TYPE_TSS_32 and kind != TYPE_TSS_16:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX)
    if access & AR_P == 0:
        return raise_fault(cpu, NP, selector & SELECTOR_INDEX)
    high |= BUSY << 8
    gla = (descriptor_address(cpu, selector) + 5) & MASK_32
    outcome = write_linear_slowly(cpu, ram, gla, 1, (high >> 8) & 0xFF, 0)
    if outcome == OK:
        fill_segment(cpu, TR, selector, low, high)
    return outcome

"""Step 13 of a task switch: the new task's segments are loaded and qualified, in the new task's own context.

The order is that of SDM volume 3, table 7-1, with each check made where its facts can first be known: the LDT's presence
before anything is read from it, the code segment's validity before its privilege. The selectors stand in the segment
registers already; a register whose check fails, and all behind it, keep a descriptor cache that cannot be used.
"""

from ..isa.registers import (
    AR_P,
    AR_S,
    AR_TYPE,
    CS,
    DS,
    ERROR_TI,
    ES,
    FS,
    GS,
    LDTR,
    SS,
    TYPE_LDT,
)
from ..isa.vectors import NP, SS_FAULT, TS
from .fault import raise_fault
from .jit import inline, kernel
from .layout import OK
from .mode import in_virtual_8086_mode
from .segment import (
    SELECTOR_INDEX,
    access_of,
    dpl_of,
    fill_segment,
    is_code,
    is_conforming,
    is_null,
    is_readable,
    is_writable_data,
    load_paragraph_segment,
    read_descriptor_or,
    set_accessed,
    set_null_segment,
)

TASK_DATA_SEGMENTS = (DS, ES, FS, GS)


@inline
def task_segment_fault(cpu, vector, selector, ext):
    """An exception whose error code names a selector of the new task."""
    return raise_fault(cpu, vector, (selector & SELECTOR_INDEX) | ext)


@kernel
def load_task_ldt(cpu, ram, ext):
    """The LDT: null, or a present LDT descriptor of the GDT."""
    selector = cpu.seg[LDTR].selector
    if is_null(selector):
        return OK
    if selector & ERROR_TI:
        return task_segment_fault(cpu, TS, selector, ext)
    outcome, low, high = read_descriptor_or(cpu, ram, selector, TS, ext)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if access & (AR_S | AR_TYPE) != TYPE_LDT or access & AR_P == 0:
        return task_segment_fault(cpu, TS, selector, ext)
    fill_segment(cpu, LDTR, selector, low, high)
    return OK


@inline
def task_code_allowed(selector, access):
    """A code segment whose DPL is the selector's RPL, or no more than it if it is conforming."""
    if not is_code(access):
        return False
    if is_conforming(access):
        return dpl_of(access) <= selector & 3
    return dpl_of(access) == selector & 3


@kernel
def read_task_segment(cpu, ram, selector, ext):
    """The descriptor of a segment that may not be null: (outcome, low, high)."""
    if is_null(selector):
        return task_segment_fault(cpu, TS, selector, ext), 0, 0
    return read_descriptor_or(cpu, ram, selector, TS, ext)


@kernel
def commit_task_segment(cpu, ram, segment, selector, low, high):
    """Mark a descriptor accessed, and load the segment register."""
    outcome, high = set_accessed(cpu, ram, selector, high)
    if outcome == OK:
        fill_segment(cpu, segment, selector, low, high)
    return outcome


@kernel
def load_task_code_and_stack(cpu, ram, ext):
    """CS and SS; the RPL of CS has become the CPL."""
    # 1. The code segment's validity and privilege.
    code_selector = cpu.seg[CS].selector
    outcome, code_low, code_high = read_task_segment(cpu, ram, code_selector, ext)
    if outcome != OK:
        return outcome
    code = access_of(code_high)
    if not task_code_allowed(code_selector, code):
        return task_segment_fault(cpu, TS, code_selector, ext)
    # 2. The stack segment's validity, presence and DPL.
    selector = cpu.seg[SS].selector
    outcome, low, high = read_task_segment(cpu, ram, selector, ext)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if not is_writable_data(access):
        return task_segment_fault(cpu, TS, selector, ext)
    if access & AR_P == 0:
        return task_segment_fault(cpu, SS_FAULT, selector, ext)
    if dpl_of(access) != cpu.cpl:
        return task_segment_fault(cpu, TS, selector, ext)
    # 3. The code segment's presence.
    if code & AR_P == 0:
        return task_segment_fault(cpu, NP, code_selector, ext)
    # 4. The stack segment's RPL.
    if selector & 3 != cpu.cpl:
        return task_segment_fault(cpu, TS, selector, ext)
    outcome = commit_task_segment(cpu, ram, CS, code_selector, code_low, code_high)
    if outcome == OK:
        outcome = commit_task_segment(cpu, ram, SS, selector, low, high)
    return outcome


@kernel
def load_task_data(cpu, ram, segment, ext):
    """DS, ES, FS or GS: null, or valid, readable, present, and open to this CPL and RPL (unless conforming)."""
    selector = cpu.seg[segment].selector
    if is_null(selector):
        set_null_segment(cpu, segment, selector)
        return OK
    outcome, low, high = read_descriptor_or(cpu, ram, selector, TS, ext)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if not is_readable(access):
        return task_segment_fault(cpu, TS, selector, ext)
    if access & AR_P == 0:
        return task_segment_fault(cpu, NP, selector, ext)
    if not is_conforming(access) and dpl_of(access) < max(cpu.cpl, selector & 3):
        return task_segment_fault(cpu, TS, selector, ext)
    return commit_task_segment(cpu, ram, segment, selector, low, high)


@kernel
def load_task_segments(cpu, ram, ext):
    """Load LDTR and all segment registers of the new task, whose selectors, flags and CPL are in place."""
    outcome = load_task_ldt(cpu, ram, ext)
    if outcome != OK:
        return outcome
    if in_virtual_8086_mode(cpu):
        for segment in range(GS + 1):
            load_paragraph_segment(cpu, segment, cpu.seg[segment].selector)
        return OK
    outcome = load_task_code_and_stack(cpu, ram, ext)
    if outcome != OK:
        return outcome
    for segment in TASK_DATA_SEGMENTS:
        outcome = load_task_data(cpu, ram, segment, ext)
        if outcome != OK:
            return outcome
    return OK

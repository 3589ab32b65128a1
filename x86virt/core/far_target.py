"""What far jumps and calls share: the descriptor that they name, and its checks (SDM volume 3, section 5.8).

A call gate:

    low    31:16 code-segment selector     15:0 offset 15:0
    high   31:16 offset 31:16   15 P   14:13 DPL   12 S = 0   11:8 type   4:0 parameter count
"""

from ..isa.registers import (
    AR_P,
    AR_S,
    AR_TYPE,
    CS,
    TYPE_CALL_GATE_16,
    TYPE_CALL_GATE_32,
    TYPE_TASK_GATE,
)
from ..isa.vectors import GP, NP
from .charge import charge
from .fault import raise_fault
from .jit import inline, kernel
from .layout import OK
from .mode import set_context
from .segment import (
    SELECTOR_INDEX,
    access_of,
    dpl_of,
    fill_segment,
    is_code,
    is_conforming,
    is_null,
    load_paragraph_segment,
    read_descriptor,
    set_accessed,
)
from .task import enter_task, enter_task_gate
from .task_state import is_16bit_tss, is_32bit_tss


@kernel
def read_target(cpu, ram, selector):
    """The descriptor that a far jump or call names: (outcome, low, high)."""
    if is_null(selector):
        return raise_fault(cpu, GP, 0), 0, 0
    return read_descriptor(cpu, ram, selector)


@kernel
def check_direct(cpu, selector, access):
    """The privilege and presence checks on a code segment named directly."""
    if is_conforming(access):
        allowed = dpl_of(access) <= cpu.cpl
    else:
        allowed = selector & 3 <= cpu.cpl and dpl_of(access) == cpu.cpl
    if not allowed:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX)
    if access & AR_P == 0:
        return raise_fault(cpu, NP, selector & SELECTOR_INDEX)
    return OK


@inline
def system_type(access):
    """The type of a system descriptor; for a code or data descriptor, a number that is none."""
    return access & (AR_S | AR_TYPE)


@inline
def is_call_gate(access):
    """A call gate of either size?"""
    kind = system_type(access)
    return kind == TYPE_CALL_GATE_16 or kind == TYPE_CALL_GATE_32


@inline
def is_tss(access):
    """A TSS of either format, available or busy?"""
    return is_32bit_tss(access) or is_16bit_tss(access)


@inline
def call_gate_item_bytes(gate_high):
    """The size of what a call gate pushes and copies, in bytes."""
    if system_type(access_of(gate_high)) == TYPE_CALL_GATE_32:
        return 4
    return 2


@kernel
def check_system_target(cpu, selector, access):
    """Privilege for a call gate, a task gate or a TSS, and presence for the gates: a TSS is checked as a task's."""
    task_gate = system_type(access) == TYPE_TASK_GATE
    if not is_call_gate(access) and not task_gate and not is_tss(access):
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX)
    if dpl_of(access) < cpu.cpl or dpl_of(access) < selector & 3:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX)
    if access & AR_P == 0 and not is_tss(access):
        return raise_fault(cpu, NP, selector & SELECTOR_INDEX)
    return OK


@kernel
def transfer_to_task(cpu, ram, selector, low, high, cause):
    """A far jump or call to a TSS, or through a task gate, that passed its checks."""
    if is_tss(access_of(high)):
        return enter_task(cpu, ram, selector, low, high, cause, 0)
    return enter_task_gate(cpu, ram, low, cause, 0)


@kernel
def read_gate_code(cpu, ram, selector):
    """The code segment that a call gate names: (outcome, low, high); a call may go inwards, no transfer outwards."""
    outcome, low, high = read_target(cpu, ram, selector)
    if outcome != OK:
        return outcome, 0, 0
    access = access_of(high)
    if not is_code(access) or dpl_of(access) > cpu.cpl:
        return raise_fault(cpu, GP, selector & SELECTOR_INDEX), 0, 0
    return OK, low, high


@kernel
def enter_same(cpu, ram, selector, offset, low, high, event):
    """Commit a transfer within the current ring; the CPL becomes the selector's RPL."""
    outcome, high = set_accessed(cpu, ram, selector, high)
    if outcome != OK:
        return outcome
    charge(cpu, event, 1)
    fill_segment(cpu, CS, (selector & SELECTOR_INDEX) | cpu.cpl, low, high)
    cpu.rip = offset
    set_context(cpu)
    return OK


@kernel
def enter_paragraph(cpu, selector, offset, event):
    """A transfer in real-address or virtual-8086 mode: no descriptor, only the limit that CS has."""
    if offset > cpu.seg[CS].limit:
        return raise_fault(cpu, GP, 0)
    charge(cpu, event, 1)
    load_paragraph_segment(cpu, CS, selector)
    cpu.rip = offset
    set_context(cpu)
    return OK

"""Gates of the IDT, and the code segments that they name (SDM volume 3, section 6.11; volume 2, INT n operation).

low    31:16 code-segment selector     15:0 offset 15:0
high   31:16 offset 31:16 (unused by 16-bit gates)   15 P   14:13 DPL   12 S = 0   11:8 type
"""

from ..isa.registers import (
    AR_P,
    AR_S,
    AR_TYPE,
    EFLAGS_IF,
    ERROR_EXT,
    ERROR_IDT,
    TYPE_INTERRUPT_GATE_16,
    TYPE_INTERRUPT_GATE_32,
    TYPE_TASK_GATE,
    TYPE_TRAP_GATE_16,
    TYPE_TRAP_GATE_32,
)
from ..isa.vectors import GP, KIND_SOFTWARE_EXCEPTION, KIND_SOFTWARE_INTERRUPT, NP
from .fault import raise_fault
from .jit import inline
from .layout import OK
from .mode import MASK_32
from .segment import (
    SELECTOR_INDEX,
    access_of,
    dpl_of,
    is_code,
    is_null,
    read_descriptor_at,
    read_descriptor_or,
)

WIDE = 8  # of a gate's type: a 32-bit gate
TRAP = 1  # of a gate's type: IF stays


@inline
def gate_offset(low, high):
    """The entry point in a 32-bit gate."""
    return (high & 0xFFFF0000) | (low & 0xFFFF)


@inline
def gate_entry_point(low, high, n):
    """The entry point in a gate of `n` bytes an item: 16-bit gates have no upper half."""
    if n == 4:
        return gate_offset(low, high)
    return low & 0xFFFF


@inline
def gate_type(high):
    """The type of a gate."""
    return access_of(high) & AR_TYPE


@inline
def gate_item_bytes(high):
    """The bytes that an interrupt or trap gate pushes an item: 4, or 2 for a 16-bit gate."""
    if gate_type(high) & WIDE:
        return 4
    return 2


@inline
def gate_clears(high):
    """IF, if the gate is an interrupt gate: what it clears beyond TF, NT, RF and VM."""
    if gate_type(high) & TRAP:
        return 0
    return EFLAGS_IF


@inline
def is_software(kind):
    """Was the event raised by INT n, INT3 or INTO?"""
    return kind == KIND_SOFTWARE_INTERRUPT or kind == KIND_SOFTWARE_EXCEPTION


@inline
def external_bit(kind):
    """The EXT bit of error codes while this event is delivered."""
    if is_software(kind):
        return 0
    return ERROR_EXT


@inline
def read_gate(cpu, ram, vector, ext):
    """Read and check the IDT's gate: (outcome, low, high)."""
    error = vector << 3 | ERROR_IDT | ext
    # 1. Within the IDT's limit.
    if (vector << 3) + 7 > cpu.idtr_limit:
        return raise_fault(cpu, GP, error), 0, 0
    outcome, low, high = read_descriptor_at(cpu, ram, (cpu.idtr_base + (vector << 3)) & MASK_32)
    if outcome != OK:
        return outcome, 0, 0
    # 2. An interrupt, trap or task gate.
    access = access_of(high)
    kind = access & (AR_S | AR_TYPE)
    wide = kind == TYPE_INTERRUPT_GATE_32 or kind == TYPE_TRAP_GATE_32
    if not wide and kind != TYPE_TASK_GATE and kind != TYPE_INTERRUPT_GATE_16 and kind != TYPE_TRAP_GATE_16:
        return raise_fault(cpu, GP, error), 0, 0
    # 3. A software event needs a gate that its ring may use.
    if is_software(cpu.event_kind) and dpl_of(access) < cpu.cpl:
        return raise_fault(cpu, GP, error), 0, 0
    # 4. Present.
    if access & AR_P == 0:
        return raise_fault(cpu, NP, error), 0, 0
    return OK, low, high


@inline
def read_handler_segment(cpu, ram, selector, ext):
    """Check the code segment that a gate names: (outcome, low, high) of its descriptor."""
    # 1. A null selector.
    if is_null(selector):
        return raise_fault(cpu, GP, ext), 0, 0
    # 2. Outside the table's limits.
    outcome, low, high = read_descriptor_or(cpu, ram, selector, GP, ext)
    if outcome != OK:
        return outcome, 0, 0
    # 3. A code segment, no less privileged than the interrupted code.
    access = access_of(high)
    if not is_code(access) or dpl_of(access) > cpu.cpl:
        return raise_fault(cpu, GP, (selector & SELECTOR_INDEX) | ext), 0, 0
    # 4. Present.
    if access & AR_P == 0:
        return raise_fault(cpu, NP, (selector & SELECTOR_INDEX) | ext), 0, 0
    return OK, low, high

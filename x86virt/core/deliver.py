"""Delivery of interrupts and exceptions through the IDT (SDM volume 3, chapter 6; volume 2, INT n operation).

The event stands in `cpu.event_*`; the return address is `cpu.rip`. Nothing is committed before the last check has
passed, except accessed and dirty bits and bytes that were already pushed. A gate in the IDT:

    low    31:16 code-segment selector     15:0 offset 15:0
    high   31:16 offset 31:16   15 P   14:13 DPL   12 S = 0   11:8 type
"""

from ..isa.events import (
    EVENT_SYS_EXC_AC,
    EVENT_SYS_EXC_BP,
    EVENT_SYS_EXC_BR,
    EVENT_SYS_EXC_DB,
    EVENT_SYS_EXC_DE,
    EVENT_SYS_EXC_DF,
    EVENT_SYS_EXC_GP,
    EVENT_SYS_EXC_MF,
    EVENT_SYS_EXC_NM,
    EVENT_SYS_EXC_NP,
    EVENT_SYS_EXC_OF,
    EVENT_SYS_EXC_PF,
    EVENT_SYS_EXC_SAME_CPL,
    EVENT_SYS_EXC_SS,
    EVENT_SYS_EXC_TS,
    EVENT_SYS_EXC_UD,
    EVENT_SYS_EXT_INTERRUPT_DELIVERY,
    EVENT_SYS_INT_N_CPL3_TO_CPL0,
    EVENT_SYS_INT_N_SAME_CPL,
)
from ..isa.registers import (
    AR_P,
    AR_S,
    AR_TYPE,
    CS,
    EFLAGS_IF,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_TF,
    EFLAGS_VM,
    ERROR_EXT,
    ERROR_IDT,
    ESP,
    SS,
    TR,
    TYPE_EXPAND_DOWN,
    TYPE_INTERRUPT_GATE_16,
    TYPE_INTERRUPT_GATE_32,
    TYPE_TASK_GATE,
    TYPE_TRAP_GATE_16,
    TYPE_TRAP_GATE_32,
    TYPE_TSS_16_BUSY,
    TYPE_TSS_32_BUSY,
)
from ..isa.vectors import (
    DF,
    GP,
    KIND_EXCEPTION,
    KIND_EXTERNAL,
    KIND_NMI,
    KIND_SOFTWARE_EXCEPTION,
    KIND_SOFTWARE_INTERRUPT,
    NP,
    PF,
    SS_FAULT,
    TS,
)
from .charge import charge
from .fault import raise_fault
from .flags import get_eflags, set_eflags
from .jit import inline, kernel
from .layout import FAULT, OK, SHUTDOWN, UNIMPLEMENTED
from .memory import read_linear, write_linear
from .mode import MASK_32, set_context, set_cpl, set_stack_pointer, stack_mask
from .segment import (
    SELECTOR_INDEX,
    access_of,
    base_of,
    dpl_of,
    fill_segment,
    is_code,
    is_conforming,
    is_null,
    is_writable_data,
    limit_of,
    read_descriptor_at,
    read_descriptor_or,
    set_accessed,
)

# The event that prices an exception's delivery to an inner ring, by vector; the reserved ones are never raised.
EXCEPTION_EVENTS = (
    EVENT_SYS_EXC_DE,
    EVENT_SYS_EXC_DB,
    EVENT_SYS_EXT_INTERRUPT_DELIVERY,  # NMI
    EVENT_SYS_EXC_BP,
    EVENT_SYS_EXC_OF,
    EVENT_SYS_EXC_BR,
    EVENT_SYS_EXC_UD,
    EVENT_SYS_EXC_NM,
    EVENT_SYS_EXC_DF,
    EVENT_SYS_EXC_UD,  # reserved
    EVENT_SYS_EXC_TS,
    EVENT_SYS_EXC_NP,
    EVENT_SYS_EXC_SS,
    EVENT_SYS_EXC_GP,
    EVENT_SYS_EXC_PF,
    EVENT_SYS_EXC_UD,  # reserved
    EVENT_SYS_EXC_MF,
    EVENT_SYS_EXC_AC,
)
# Exceptions of class fault: 0 #DE, 5 #BR, 6 #UD, 7 #NM, 10 #TS to 14 #PF, 16 #MF, 17 #AC.
FAULT_CLASS = 1 << 0 | 7 << 5 | 31 << 10 | 3 << 16
# Contributory exceptions: 0 #DE, 10 #TS to 13 #GP (SDM volume 3, table 6-4).
CONTRIBUTORY = 1 << 0 | 15 << 10
CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE_FAULT, CLASS_DOUBLE_FAULT = 0, 1, 2, 3


# -- the parts that a call gate shares --------------------------------------------------------------------------------


@inline
def stack_offset_allowed(access, limit, offset):
    """Does a doubleword at `offset` lie within a stack segment?"""
    if access & TYPE_EXPAND_DOWN:
        return offset > limit and offset + 3 <= stack_mask(access)
    return offset + 3 <= limit


@kernel
def stack_has_room(access, limit, pointer, n_bytes):
    """Can `n_bytes`, a multiple of 4, be pushed by doublewords below `pointer`?"""
    mask = stack_mask(access)
    for below in range(4, n_bytes + 1, 4):
        if not stack_offset_allowed(access, limit, (pointer - below) & mask):
            return False
    return True


@inline
def write_stack(cpu, ram, stack_base, mask, pointer, value, user):
    """Store a doubleword on a stack whose segment has been checked; `user` is 1 if that stack belongs to ring 3."""
    return write_linear(cpu, ram, (stack_base + (pointer & mask)) & MASK_32, 4, value, user)


@kernel
def tss_stack_pointer(cpu, ram, level, ext):
    """SS and ESP for an inner level from the current TSS: (outcome, selector, pointer); #TS(TR) beyond its limit."""
    tss = cpu.seg[TR]
    kind = tss.access & (AR_S | AR_TYPE)
    if kind == TYPE_TSS_32_BUSY:
        size = 4
        offset = level * 8 + 4
    elif kind == TYPE_TSS_16_BUSY:
        size = 2
        offset = level * 4 + 2
    else:
        return raise_fault(cpu, TS, (tss.selector & SELECTOR_INDEX) | ext), 0, 0
    if offset + size + 1 > tss.limit:
        return raise_fault(cpu, TS, (tss.selector & SELECTOR_INDEX) | ext), 0, 0
    address = (tss.seg_base + offset) & MASK_32
    outcome, pointer = read_linear(cpu, ram, address, size, 0)
    if outcome != OK:
        return outcome, 0, 0
    outcome, selector = read_linear(cpu, ram, (address + size) & MASK_32, 2, 0)
    return outcome, selector, pointer


@kernel
def read_inner_stack(cpu, ram, selector, level, ext):
    """Check the stack segment of an inner level: (outcome, low, high) of its descriptor."""
    # 1. A null selector.
    if is_null(selector):
        return raise_fault(cpu, TS, ext), 0, 0
    # 2. Outside the table's limits.
    outcome, low, high = read_descriptor_or(cpu, ram, selector, TS, ext)
    if outcome != OK:
        return outcome, 0, 0
    # 3. RPL and DPL must be the new level, the segment a writable data segment.
    access = access_of(high)
    if selector & 3 != level or dpl_of(access) != level or not is_writable_data(access):
        return raise_fault(cpu, TS, (selector & SELECTOR_INDEX) | ext), 0, 0
    # 4. Not present.
    if access & AR_P == 0:
        return raise_fault(cpu, SS_FAULT, (selector & SELECTOR_INDEX) | ext), 0, 0
    return OK, low, high


# -- delivery ---------------------------------------------------------------------------------------------------------


@inline
def is_software(kind):
    """Did an instruction (INT n, INT3, INTO) ask for this event?"""
    return kind == KIND_SOFTWARE_INTERRUPT or kind == KIND_SOFTWARE_EXCEPTION


@inline
def external_bit(kind):
    """The EXT bit of error codes while this event is delivered."""
    if is_software(kind):
        return 0
    return ERROR_EXT


@kernel
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
    if not wide:
        return UNIMPLEMENTED, 0, 0
    return OK, low, high


@kernel
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


@inline
def flags_image(cpu):
    """EFLAGS as they are pushed: RF is set for a fault-class exception (SDM volume 3, section 17.3.1.1)."""
    image = get_eflags(cpu)
    if cpu.event_kind == KIND_EXCEPTION and (FAULT_CLASS >> cpu.event_vector) & 1:
        image |= EFLAGS_RF
    return image


@kernel
def write_return_frame(cpu, ram, stack_base, mask, pointer, user):
    """Push EFLAGS, CS, EIP and the error code, if there is one, below `pointer`: (outcome, new pointer)."""
    outcome = write_stack(cpu, ram, stack_base, mask, pointer - 4, flags_image(cpu), user)
    if outcome == OK:
        outcome = write_stack(cpu, ram, stack_base, mask, pointer - 8, cpu.seg[CS].selector, user)
    if outcome == OK:
        outcome = write_stack(cpu, ram, stack_base, mask, pointer - 12, cpu.rip, user)
    if outcome != OK or cpu.event_has_error == 0:
        return outcome, pointer - 12
    return write_stack(cpu, ram, stack_base, mask, pointer - 16, cpu.event_error, user), pointer - 16


@kernel
def delivery_event(vector, kind, inner):
    """The ledger event that prices this delivery."""
    if kind == KIND_EXTERNAL or kind == KIND_NMI:
        return EVENT_SYS_EXT_INTERRUPT_DELIVERY
    if kind == KIND_SOFTWARE_INTERRUPT:
        if inner:
            return EVENT_SYS_INT_N_CPL3_TO_CPL0
        return EVENT_SYS_INT_N_SAME_CPL
    if not inner:
        return EVENT_SYS_EXC_SAME_CPL
    if vector < len(EXCEPTION_EVENTS):
        return EXCEPTION_EVENTS[vector]
    return EVENT_SYS_EXC_UD


@kernel
def enter_handler(cpu, inner, gate_low, gate_high, low, high, level):
    """Commit: charge to the interrupted mode, then load CS:EIP, the flags and the privilege level."""
    charge(cpu, delivery_event(cpu.event_vector, cpu.event_kind, inner), 1)
    fill_segment(cpu, CS, (gate_low >> 16 & SELECTOR_INDEX) | level, low, high)
    cpu.rip = gate_offset(gate_low, gate_high)
    cleared = EFLAGS_TF | EFLAGS_VM | EFLAGS_RF | EFLAGS_NT
    if (gate_high >> 8) & AR_TYPE == TYPE_INTERRUPT_GATE_32:
        cleared |= EFLAGS_IF
    set_eflags(cpu, get_eflags(cpu) & ~cleared)
    set_cpl(cpu, level)
    set_context(cpu)
    cpu.shadow = 0
    cpu.halted = 0


@inline
def gate_offset(low, high):
    """The entry point in a 32-bit gate."""
    return (high & 0xFFFF0000) | (low & 0xFFFF)


@kernel
def deliver_inner(cpu, ram, gate_low, gate_high, low, high, ext):
    """INTER-PRIVILEGE-LEVEL-INTERRUPT: the handler runs in an inner ring, on the stack that the TSS names."""
    # 1. The new stack.
    level = dpl_of(access_of(high))
    outcome, selector, pointer = tss_stack_pointer(cpu, ram, level, ext)
    if outcome != OK:
        return outcome
    outcome, stack_low, stack_high = read_inner_stack(cpu, ram, selector, level, ext)
    if outcome != OK:
        return outcome
    # 2. Room for SS, ESP, EFLAGS, CS, EIP and the error code.
    access = access_of(stack_high)
    if not stack_has_room(access, limit_of(stack_low, stack_high), pointer, 20 + 4 * cpu.event_has_error):
        return raise_fault(cpu, SS_FAULT, (selector & SELECTOR_INDEX) | ext)
    # 3. The entry point within the code segment.
    if gate_offset(gate_low, gate_high) > limit_of(low, high):
        return raise_fault(cpu, GP, ext)
    # 4. Push the frame with the new level's rights.
    outcome, stack_high = set_accessed(cpu, ram, selector, stack_high)
    if outcome == OK:
        outcome, high = set_accessed(cpu, ram, gate_low >> 16, high)
    if outcome != OK:
        return outcome
    stack_base = base_of(stack_low, stack_high)
    mask = stack_mask(access)
    outcome = write_stack(cpu, ram, stack_base, mask, pointer - 4, cpu.seg[SS].selector, 0)
    if outcome == OK:
        outcome = write_stack(cpu, ram, stack_base, mask, pointer - 8, cpu.gpr[ESP], 0)
    if outcome != OK:
        return outcome
    outcome, pointer = write_return_frame(cpu, ram, stack_base, mask, pointer - 8, 0)
    if outcome != OK:
        return outcome
    # 5. Commit.
    fill_segment(cpu, SS, selector, stack_low, stack_high)
    set_stack_pointer(cpu, pointer)
    enter_handler(cpu, True, gate_low, gate_high, low, high, level)
    return OK


@kernel
def deliver_same(cpu, ram, gate_low, gate_high, low, high, ext):
    """INTRA-PRIVILEGE-LEVEL-INTERRUPT: the handler runs in the interrupted ring, on the interrupted stack."""
    # 1. Room for EFLAGS, CS, EIP and the error code.
    stack = cpu.seg[SS]
    if not stack_has_room(stack.access, stack.limit, cpu.gpr[ESP], 12 + 4 * cpu.event_has_error):
        return raise_fault(cpu, SS_FAULT, ext)
    # 2. The entry point within the code segment.
    if gate_offset(gate_low, gate_high) > limit_of(low, high):
        return raise_fault(cpu, GP, ext)
    # 3. Push the frame.
    outcome, high = set_accessed(cpu, ram, gate_low >> 16, high)
    if outcome != OK:
        return outcome
    user = int(cpu.cpl == 3)
    outcome, pointer = write_return_frame(cpu, ram, stack.seg_base, stack_mask(stack.access), cpu.gpr[ESP], user)
    if outcome != OK:
        return outcome
    # 4. Commit.
    set_stack_pointer(cpu, pointer)
    enter_handler(cpu, False, gate_low, gate_high, low, high, cpu.cpl)
    return OK


@kernel
def deliver_through_gate(cpu, ram):
    """Deliver `cpu.event_*` through its gate; a failing check overwrites `cpu.event_*` with the new exception."""
    ext = external_bit(cpu.event_kind)
    outcome, gate_low, gate_high = read_gate(cpu, ram, cpu.event_vector, ext)
    if outcome != OK:
        return outcome
    outcome, low, high = read_handler_segment(cpu, ram, gate_low >> 16, ext)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if not is_conforming(access) and dpl_of(access) < cpu.cpl:
        return deliver_inner(cpu, ram, gate_low, gate_high, low, high, ext)
    return deliver_same(cpu, ram, gate_low, gate_high, low, high, ext)


@kernel
def deliver(cpu, ram):
    """Deliver the event in `cpu.event_*` once.

    OK: the handler is entered, `cpu.idt_vector` is -1. FAULT: `cpu.event_*` holds the exception that arose, and
    `cpu.idt_*` the event that was being delivered. UNIMPLEMENTED: a task gate or a 16-bit gate.
    """
    vector = cpu.event_vector
    kind = cpu.event_kind
    error = cpu.event_error
    cpu.idt_vector = -1
    outcome = deliver_through_gate(cpu, ram)
    if outcome == FAULT:
        cpu.idt_vector = vector
        cpu.idt_kind = kind
        cpu.idt_error = error
    return outcome


@kernel
def fault_class(vector, kind):
    """The class of an event in the rules for double faults (SDM volume 3, table 6-4)."""
    if kind != KIND_EXCEPTION:
        return CLASS_BENIGN
    if vector == PF:
        return CLASS_PAGE_FAULT
    if vector == DF:
        return CLASS_DOUBLE_FAULT
    if (CONTRIBUTORY >> vector) & 1:
        return CLASS_CONTRIBUTORY
    return CLASS_BENIGN


@inline
def makes_double_fault(first, second):
    """Do these two classes make a double fault (SDM volume 3, table 6-5)?"""
    if first == CLASS_CONTRIBUTORY:
        return second == CLASS_CONTRIBUTORY
    return first == CLASS_PAGE_FAULT and second != CLASS_BENIGN


@kernel
def deliver_event(cpu, ram):
    """Deliver `cpu.event_*`, and whatever exceptions arise from that, by the rules for double and triple faults.

    OK: a handler is entered. SHUTDOWN: triple fault. UNIMPLEMENTED: as `deliver`.
    """
    while True:
        first = fault_class(cpu.event_vector, cpu.event_kind)
        outcome = deliver(cpu, ram)
        if outcome != FAULT:
            return outcome
        second = fault_class(cpu.event_vector, cpu.event_kind)
        if first == CLASS_DOUBLE_FAULT and second != CLASS_BENIGN:
            return SHUTDOWN
        if makes_double_fault(first, second):
            raise_fault(cpu, DF, 0)


@inline
def software_interrupt(cpu, ram, vector, kind):
    """INT n (KIND_SOFTWARE_INTERRUPT), INT3 and INTO (KIND_SOFTWARE_EXCEPTION); `cpu.rip` is past the instruction."""
    cpu.event_vector = vector
    cpu.event_kind = kind
    cpu.event_error = 0
    cpu.event_has_error = 0
    return deliver(cpu, ram)

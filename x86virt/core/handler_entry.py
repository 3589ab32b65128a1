"""The last steps of a delivery, which all kinds of gates share: the price, the frame, the entry into the handler.

SDM volume 3, sections 6.12 and 6.14; volume 2, INT n operation.
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
from ..isa.registers import CS, EFLAGS_NT, EFLAGS_RF, EFLAGS_TF, EFLAGS_VM, ESP, SS
from ..isa.vectors import KIND_EXCEPTION, KIND_EXTERNAL, KIND_NMI, KIND_SOFTWARE_INTERRUPT
from .charge import charge
from .flags import get_eflags
from .gate import gate_clears
from .inner_stack import plain_frame, write_stack_item
from .jit import inline, kernel
from .layout import FRONT_SLOTS, OK
from .memory import SUPERVISOR, put_bytes
from .mode import set_context, set_cpl
from .segment import SELECTOR_INDEX, fill_segment

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


@inline
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


@inline
def flags_image(cpu):
    """EFLAGS as they are pushed: RF is set for a fault-class exception (SDM volume 3, section 17.3.1.1), if none injected it."""
    image = get_eflags(cpu)
    if cpu.event_kind == KIND_EXCEPTION and cpu.injected == 0 and (FAULT_CLASS >> cpu.event_vector) & 1:
        image |= EFLAGS_RF
    return image


@inline
def put_frame(cpu, ram, index, n):
    """Store the error code, if there is one, EIP, CS and EFLAGS from an index into RAM upwards; the index behind them."""
    if cpu.event_has_error == 1:
        put_bytes(ram, index, n, cpu.event_error)
        index += n
    put_bytes(ram, index, n, cpu.rip)
    put_bytes(ram, index + n, n, cpu.seg[CS].selector)
    put_bytes(ram, index + 2 * n, n, flags_image(cpu))
    return index + 3 * n


@kernel
def write_frame_slowly(cpu, ram, stack_base, mask, pointer, n, user):
    """Push EFLAGS, CS, EIP and the error code one by one, wherever the stack lies: (outcome, new pointer)."""
    outcome = write_stack_item(cpu, ram, stack_base, mask, pointer - n, n, flags_image(cpu), user)
    if outcome == OK:
        outcome = write_stack_item(cpu, ram, stack_base, mask, pointer - 2 * n, n, cpu.seg[CS].selector, user)
    if outcome == OK:
        outcome = write_stack_item(cpu, ram, stack_base, mask, pointer - 3 * n, n, cpu.rip, user)
    pointer -= 3 * n
    if outcome != OK or cpu.event_has_error == 0:
        return outcome, pointer
    return write_stack_item(cpu, ram, stack_base, mask, pointer - n, n, cpu.event_error, user), pointer - n


@inline
def write_frame(cpu, ram, stack_base, mask, pointer, n, user):
    """Push EFLAGS, CS, EIP and the error code, if there is one, as items of `n` bytes: (outcome, new pointer)."""
    size = (3 + cpu.event_has_error) * n
    index = plain_frame(cpu, stack_base, mask, pointer, size, user * FRONT_SLOTS)
    if index < 0:
        return write_frame_slowly(cpu, ram, stack_base, mask, pointer, n, user)
    put_frame(cpu, ram, index, n)
    return OK, pointer - size


@kernel
def write_inner_frame_slowly(cpu, ram, stack_base, mask, pointer, n):
    """Push SS, ESP and the rest of the frame one by one, wherever the inner stack lies: (outcome, new pointer)."""
    outcome = write_stack_item(cpu, ram, stack_base, mask, pointer - n, n, cpu.seg[SS].selector, 0)
    if outcome == OK:
        outcome = write_stack_item(cpu, ram, stack_base, mask, pointer - 2 * n, n, cpu.gpr[ESP], 0)
    if outcome != OK:
        return outcome, pointer
    return write_frame_slowly(cpu, ram, stack_base, mask, pointer - 2 * n, n, 0)


@inline
def write_inner_frame(cpu, ram, stack_base, mask, pointer, n):
    """Push SS and ESP, then the frame, with the rights of an inner ring: (outcome, new pointer)."""
    size = (5 + cpu.event_has_error) * n
    index = plain_frame(cpu, stack_base, mask, pointer, size, SUPERVISOR)
    if index < 0:
        return write_inner_frame_slowly(cpu, ram, stack_base, mask, pointer, n)
    index = put_frame(cpu, ram, index, n)
    put_bytes(ram, index, n, cpu.gpr[ESP])
    put_bytes(ram, index + n, n, cpu.seg[SS].selector)
    return OK, pointer - size


@inline
def enter_handler(cpu, inner, gate_low, gate_high, low, high, level, entry_point):
    """Commit: charge to the interrupted mode, then load CS:EIP, the flags and the privilege level."""
    charge(cpu, delivery_event(cpu.event_vector, cpu.event_kind, inner), 1)
    fill_segment(cpu, CS, (gate_low >> 16 & SELECTOR_INDEX) | level, low, high)
    cpu.rip = entry_point
    cleared = EFLAGS_TF | EFLAGS_VM | EFLAGS_RF | EFLAGS_NT | gate_clears(gate_high)
    cpu.eflags &= ~cleared
    set_cpl(cpu, level)
    set_context(cpu)
    cpu.shadow = 0
    cpu.halted = 0

"""Delivery of interrupts and exceptions (SDM volume 3, chapter 6; volume 2, INT n operation).

The event stands in `cpu.event_*`; the return address is `cpu.rip`. Nothing is committed before the last check has
passed, except accessed and dirty bits and bytes that were already pushed. The usual way, through a 32-bit gate, is
written here with its item size as a constant; 16-bit gates, task gates, real-address and virtual-8086 mode branch off.
"""

from ..isa.registers import CR0_PE, EFLAGS_VM, ESP, SS, TYPE_TASK_GATE
from ..isa.vectors import (
    DF,
    GP,
    KIND_EXCEPTION,
    KIND_SOFTWARE_INTERRUPT,
    PF,
    SS_FAULT,
)
from .event_exit import NOT_INTERRUPTED, begin_delivery_in_guest, may_exit, note_interrupted_delivery
from .extensions import double_fault_exits, event_exits, triple_fault_exits, vm_exit
from .fault import raise_fault
from .gate import (
    WIDE,
    external_bit,
    gate_entry_point,
    gate_offset,
    gate_type,
    read_gate,
    read_handler_segment,
)
from .handler_entry import delivery_event, enter_handler, write_frame, write_inner_frame
from .inner_stack import (
    has_room_for,
    read_inner_stack,
    stack_has_room,
    tss_stack_pointer,
    write_stack,
)
from .jit import inline, kernel
from .layout import FAULT, OK, ROOT, SHUTDOWN, VM_EXIT, VMX_NON_ROOT
from .mode import set_stack_pointer, stack_mask
from .real_mode import deliver_in_real_mode
from .segment import (
    SELECTOR_INDEX,
    access_of,
    base_of,
    dpl_of,
    fill_segment,
    is_conforming,
    limit_of,
    set_accessed,
)
from .stops import note_delivery
from .task import TASK_EVENT, enter_task_gate
from .virtual_8086 import deliver_from_virtual_8086, virtual_8086_interrupt

__all__ = [
    "deliver",
    "deliver_event",
    "delivery_event",
    "gate_offset",
    "inject_event",
    "read_inner_stack",
    "software_interrupt",
    "stack_has_room",
    "tss_stack_pointer",
    "write_stack",
]

# Contributory exceptions: 0 #DE, 10 #TS to 13 #GP (SDM volume 3, table 6-4).
CONTRIBUTORY = 1 << 0 | 15 << 10
CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE_FAULT, CLASS_DOUBLE_FAULT = 0, 1, 2, 3


@inline
def deliver_inner_items(cpu, ram, gate_low, gate_high, low, high, ext, n):
    """INTER-PRIVILEGE-LEVEL-INTERRUPT: the handler runs in an inner ring, on the stack that the TSS names.

    `n` is the gate's item size in bytes.
    """
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
    if not has_room_for(access, limit_of(stack_low, stack_high), pointer, 5 + cpu.event_has_error, n):
        return raise_fault(cpu, SS_FAULT, (selector & SELECTOR_INDEX) | ext)
    # 3. The entry point within the code segment.
    entry_point = gate_entry_point(gate_low, gate_high, n)
    if entry_point > limit_of(low, high):
        return raise_fault(cpu, GP, ext)
    # 4. Push the frame with the new level's rights.
    outcome, stack_high = set_accessed(cpu, ram, selector, stack_high)
    if outcome == OK:
        outcome, high = set_accessed(cpu, ram, gate_low >> 16, high)
    if outcome != OK:
        return outcome
    stack_base = base_of(stack_low, stack_high)
    mask = stack_mask(access)
    outcome, pointer = write_inner_frame(cpu, ram, stack_base, mask, pointer, n)
    if outcome != OK:
        return outcome
    # 5. Commit.
    fill_segment(cpu, SS, selector, stack_low, stack_high)
    set_stack_pointer(cpu, pointer)
    enter_handler(cpu, True, gate_low, gate_high, low, high, level, entry_point)
    return OK


@inline
def deliver_same_items(cpu, ram, gate_low, gate_high, low, high, ext, n):
    """INTRA-PRIVILEGE-LEVEL-INTERRUPT: the handler runs in the interrupted ring, on the interrupted stack."""
    # 1. Room for EFLAGS, CS, EIP and the error code.
    stack = cpu.seg[SS]
    if not has_room_for(stack.access, stack.limit, cpu.gpr[ESP], 3 + cpu.event_has_error, n):
        return raise_fault(cpu, SS_FAULT, ext)
    # 2. The entry point within the code segment.
    entry_point = gate_entry_point(gate_low, gate_high, n)
    if entry_point > limit_of(low, high):
        return raise_fault(cpu, GP, ext)
    # 3. Push the frame.
    outcome, high = set_accessed(cpu, ram, gate_low >> 16, high)
    if outcome != OK:
        return outcome
    user = int(cpu.cpl == 3)
    outcome, pointer = write_frame(cpu, ram, stack.seg_base, stack_mask(stack.access), cpu.gpr[ESP], n, user)
    if outcome != OK:
        return outcome
    # 4. Commit.
    set_stack_pointer(cpu, pointer)
    enter_handler(cpu, False, gate_low, gate_high, low, high, cpu.cpl, entry_point)
    return OK


@inline
def deliver_inner(cpu, ram, gate_low, gate_high, low, high, ext):
    """To an inner ring through a 32-bit gate."""
    return deliver_inner_items(cpu, ram, gate_low, gate_high, low, high, ext, 4)


@inline
def deliver_same(cpu, ram, gate_low, gate_high, low, high, ext):
    """Within the ring through a 32-bit gate."""
    return deliver_same_items(cpu, ram, gate_low, gate_high, low, high, ext, 4)


@kernel
def deliver_through_16_bit_gate(cpu, ram, gate_low, gate_high, low, high, ext):
    """Through a 16-bit gate, whose handler's segment has been checked, to an inner ring or within the ring."""
    access = access_of(high)
    if not is_conforming(access) and dpl_of(access) < cpu.cpl:
        return deliver_inner_items(cpu, ram, gate_low, gate_high, low, high, ext, 2)
    return deliver_same_items(cpu, ram, gate_low, gate_high, low, high, ext, 2)


@kernel
def deliver_to_task(cpu, ram, gate_low, ext):
    """Through a task gate: the new task runs with interrupts neither held off nor waited for."""
    outcome = enter_task_gate(cpu, ram, gate_low, TASK_EVENT, ext)
    if outcome == OK:
        cpu.shadow = 0
        cpu.halted = 0
    return outcome


@inline
def deliver_through_gate(cpu, ram):
    """PROTECTED-MODE-INTERRUPT: deliver `cpu.event_*` through its gate in the IDT."""
    ext = external_bit(cpu.event_kind)
    outcome, gate_low, gate_high = read_gate(cpu, ram, cpu.event_vector, ext)
    if outcome != OK:
        return outcome
    if gate_type(gate_high) == TYPE_TASK_GATE:
        return deliver_to_task(cpu, ram, gate_low, ext)
    outcome, low, high = read_handler_segment(cpu, ram, gate_low >> 16, ext)
    if outcome != OK:
        return outcome
    if cpu.eflags & EFLAGS_VM:
        return deliver_from_virtual_8086(cpu, ram, gate_low, gate_high, low, high, ext)
    if gate_type(gate_high) & WIDE == 0:
        return deliver_through_16_bit_gate(cpu, ram, gate_low, gate_high, low, high, ext)
    access = access_of(high)
    if not is_conforming(access) and dpl_of(access) < cpu.cpl:
        return deliver_inner(cpu, ram, gate_low, gate_high, low, high, ext)
    return deliver_same(cpu, ram, gate_low, gate_high, low, high, ext)


@kernel
def deliver(cpu, ram):
    """Deliver the event in `cpu.event_*` once.

    OK: the handler is entered, `cpu.idt_vector` is -1. FAULT: `cpu.event_*` holds the exception that arose, and
    `cpu.idt_*` the event that was being delivered; VM_EXIT: a guest is to be left amid it, and `cpu.idt_*` says likewise.
    """
    vector = cpu.event_vector
    note_interrupted_delivery(cpu, NOT_INTERRUPTED, cpu.event_kind, cpu.event_error, cpu.event_has_error)
    if cpu.world != ROOT:
        begin_delivery_in_guest(cpu)
    if cpu.cr0 & CR0_PE:
        outcome = deliver_through_gate(cpu, ram)
    else:
        outcome = deliver_in_real_mode(cpu, ram)
    if outcome == FAULT or outcome == VM_EXIT:
        cpu.idt_vector = vector
    return outcome


@inline
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

    OK: a handler is entered, or the host of a guest that one of these events was to leave. SHUTDOWN: triple fault.
    """
    if cpu.world != ROOT and may_exit(cpu) and event_exits(cpu) == 1:
        return vm_exit(cpu, ram)
    return inject_event(cpu, ram)


@inline
def inject_event(cpu, ram):
    """Deliver `cpu.event_*` without asking whether it makes the guest exit; what arises from that is asked."""
    note_delivery(cpu)
    first = fault_class(cpu.event_vector, cpu.event_kind)
    outcome = deliver(cpu, ram)
    if outcome == OK:
        return OK
    return finish_delivery(cpu, ram, first, outcome)


@kernel
def finish_delivery(cpu, ram, first, outcome):
    """What follows the first try to deliver an event of class `first`: exceptions that arose from it, an exit."""
    while True:
        if outcome == VM_EXIT or (outcome == FAULT and cpu.world != ROOT and event_exits(cpu) == 1):
            return vm_exit(cpu, ram)
        if outcome != FAULT:
            return outcome
        second = fault_class(cpu.event_vector, cpu.event_kind)
        if first == CLASS_DOUBLE_FAULT and second != CLASS_BENIGN:
            return shut_down(cpu, ram)
        if makes_double_fault(first, second):
            raise_fault(cpu, DF, 0)
            if cpu.world != ROOT and double_fault_exits(cpu) == 1:
                return vm_exit(cpu, ram)
        first = fault_class(cpu.event_vector, cpu.event_kind)
        outcome = deliver(cpu, ram)


@kernel
def shut_down(cpu, ram):
    """A triple fault: SHUTDOWN, but of a guest it is an exit (SVM's only if it is intercepted)."""
    if cpu.world != ROOT and triple_fault_exits(cpu) == 1:
        return vm_exit(cpu, ram)
    return SHUTDOWN


@inline
def software_interrupt(cpu, ram, vector, kind):
    """INT n (KIND_SOFTWARE_INTERRUPT), INT3 and INTO (KIND_SOFTWARE_EXCEPTION); `cpu.rip` is past the instruction."""
    cpu.event_vector = vector
    cpu.event_kind = kind
    cpu.event_error = 0
    cpu.event_has_error = 0
    if cpu.eflags & EFLAGS_VM != 0 and kind == KIND_SOFTWARE_INTERRUPT:
        outcome, redirected = virtual_8086_interrupt(cpu, ram)
        if redirected and outcome != OK:
            note_interrupted_delivery(cpu, vector, kind, 0, 0)
        if outcome != OK or redirected:
            return outcome
    # INT n is no exception: nothing makes it exit but under SVM, which has looked at it before.
    if cpu.world == VMX_NON_ROOT and kind != KIND_SOFTWARE_INTERRUPT and event_exits(cpu) == 1:
        return VM_EXIT
    return deliver(cpu, ram)

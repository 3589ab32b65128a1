"""Events delivered to the guest's kernel through its own IDT (reflect.deliver), INT n, SYSENTER and SYSEXIT."""

from ...core.jit import inline, kernel, load_32, store_32
from ...core.physical import write_physical
from ...isa.registers import (
    ECX,
    EDX,
    EFLAGS_IF,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_TF,
    EFLAGS_VM,
    TYPE_INTERRUPT_GATE_32,
    TYPE_TRAP_GATE_32,
    TYPE_TSS_32_BUSY,
)
from ...isa.vectors import KIND_EXCEPTION, KIND_SOFTWARE_INTERRUPT
from .. import layout
from .descriptors import (
    base_of,
    descriptor_place,
    dpl_of,
    is_code_of,
    is_shadowed,
    is_stack_of,
    keeps_data_segments,
    limit_of,
    set_cpl,
)
from .exits import can_commit, commit, hardware_selector, is_attached, note_path, virtual_selector
from .guest_access import UNKNOWN, place_to_read, place_to_write, read_guest
from .records import (
    CPL,
    DONE,
    EMULATE_FAR_TRANSFER,
    EMULATE_SYSTEM_CALL,
    GDTR_BASE,
    IDTR_BASE,
    IDTR_LIMIT,
    INTERRUPT_FLAG,
    MAX_REFERENCES,
    NOT_FAST,
    REFLECT,
    SYSENTER_CS,
    SYSENTER_EIP,
    SYSENTER_ESP,
    TR_ACCESS,
    TR_BASE,
    TR_LIMIT,
)
from .returns import load_flags, stack_base, virtual_flags

M32 = 0xFFFFFFFF
NO_ERROR = -1
PRESENT = 1 << 15
RING_0_STACK, RING_0_END = 4, 9  # ESP0 and SS0 in a 32-bit TSS
FIRST_INTERRUPT_VECTOR = 32
HOST_TIMER_VECTOR = layout.HOST_TIMER_VECTOR
IDT = layout.IDT
ENTRY_BYTES = 8  # at most, of an entry of a page table
ENTRY_BITS = 3  # of the distance of two entries of a table
FLAT_ACCESS_CODE, FLAT_ACCESS_DATA = 0xC09B, 0xC093


@inline
def note_push(ram, exits, links, gla, value, user):
    """A doubleword that the delivery pushes; False if it is left to Python."""
    place = place_to_write(ram, exits, links, gla & M32, 4, user)
    exits.push_places[exits.push_count] = place
    exits.push_values[exits.push_count] = value
    exits.push_count += 1
    return place >= 0


@kernel
def pushes_change_translations(exits):
    """Whether a push would write an entry of the tables by which the others were translated."""
    for number in range(exits.push_count):
        for other in range(min(exits.reference_count, MAX_REFERENCES)):
            if abs(exits.push_places[number] - exits.references[other]) < ENTRY_BYTES:
                return True
    return False


@kernel
def gate_place(ram, exits, vector):
    """The machine address of the guest's gate of a vector, -1 if left to Python."""
    if vector * 8 + 7 > load_32(ram, IDTR_LIMIT):
        return UNKNOWN
    return place_to_read(ram, exits, (load_32(ram, IDTR_BASE) + (vector << ENTRY_BITS)) & M32, 8, 0)


@kernel
def inner_stack(ram, exits, size):
    """SS and ESP of ring 0 from the guest's TSS: (selector, ESP, base); a selector of -1 if left to Python."""
    if load_32(ram, TR_LIMIT) < RING_0_END or load_32(ram, TR_ACCESS) & 0x1F != TYPE_TSS_32_BUSY:
        return UNKNOWN, 0, 0
    esp = read_guest(ram, exits, load_32(ram, TR_BASE) + RING_0_STACK, 4, 0)
    if esp < 0:
        return UNKNOWN, 0, 0
    selector = read_guest(ram, exits, load_32(ram, TR_BASE) + RING_0_STACK + 4, 2, 0)
    if selector < 0:
        return UNKNOWN, 0, 0
    place = descriptor_place(ram, exits, selector)
    if place < 0 or selector & 3 != 0 or not is_shadowed(ram, selector):
        return UNKNOWN, 0, 0
    low, high = load_32(ram, place), load_32(ram, place + 4)
    if not is_stack_of(low, high, 0) or esp < size or esp - 1 > limit_of(low, high):
        return UNKNOWN, 0, 0
    return selector, esp, base_of(low, high)


@kernel
def deliver(cpu, ram, exits, links, vector, error, kind, eip, looks_again):
    """Deliver one event to a handler in ring 0; `looks_again` 1: the gate is read once more behind it, for its DPL.

    SDM volume 3, section 6.12.1.
    """
    cpl = load_32(ram, CPL)
    # 1. The gate and the handler's code segment.
    gate = gate_place(ram, exits, vector)
    if gate < 0 or not is_attached(exits):
        return NOT_FAST
    low, high = load_32(ram, gate), load_32(ram, gate + 4)
    gate_type = (high >> 8) & 0x1F
    if gate_type != TYPE_INTERRUPT_GATE_32 and gate_type != TYPE_TRAP_GATE_32:
        return NOT_FAST
    if high & PRESENT == 0 or (kind == KIND_SOFTWARE_INTERRUPT and dpl_of(high) < cpl):
        return NOT_FAST
    selector = low >> 16
    target = (low & 0xFFFF) | (high & 0xFFFF0000)
    code = descriptor_place(ram, exits, selector)
    if code < 0 or not is_shadowed(ram, selector):
        return NOT_FAST
    if not is_code_of(load_32(ram, code), load_32(ram, code + 4), 0):
        return NOT_FAST
    # 2. The stack: ring 0's from the TSS, or the present one.
    flags = virtual_flags(ram, exits)
    if exits.trap_resume == 1:
        flags &= ~EFLAGS_RF
    if kind == KIND_EXCEPTION:
        flags |= EFLAGS_RF
    size = 12
    if error != NO_ERROR:
        size += 4
    stack, esp, base = exits.ss, exits.esp, 0
    if cpl == 3:
        size += 8
        stack, esp, base = inner_stack(ram, exits, size)
        if stack < 0:
            return NOT_FAST
    else:
        if esp < size:
            return NOT_FAST
        base = stack_base(ram, exits, esp - size, size)
        if base < 0:
            return NOT_FAST
    if target > limit_of(load_32(ram, code), load_32(ram, code + 4)):
        return NOT_FAST
    # 3. What is pushed, as ring 0.
    known = True
    top = base + esp
    if cpl == 3:
        known = note_push(ram, exits, links, top - 4, virtual_selector(cpl, exits.ss), 0)
        known = note_push(ram, exits, links, top - 8, exits.esp, 0) and known
        top -= 8
    known = note_push(ram, exits, links, top - 4, flags, 0) and known
    known = note_push(ram, exits, links, top - 8, virtual_selector(cpl, exits.cs), 0) and known
    known = note_push(ram, exits, links, top - 12, eip, 0) and known
    if error != NO_ERROR:
        known = note_push(ram, exits, links, top - 16, error, 0) and known
    if looks_again == 1:
        known = read_guest(ram, exits, load_32(ram, IDTR_BASE) + (vector << ENTRY_BITS) + 4, 4, 0) >= 0 and known
    if not known or not can_commit(exits) or pushes_change_translations(exits):
        return NOT_FAST
    # 4. Commit, and enter the handler.
    commit(cpu, exits)
    for number in range(exits.push_count):
        write_physical(cpu, ram, exits.push_places[number], 4, exits.push_values[number])
    if cpl == 3:
        exits.ss = hardware_selector(stack)
    exits.esp = esp - size
    set_cpl(cpu, ram, exits, 0)
    exits.cs = hardware_selector(selector & ~3)
    exits.eip = target
    if gate_type == TYPE_INTERRUPT_GATE_32:
        flags &= ~EFLAGS_IF
    load_flags(ram, exits, flags & ~(EFLAGS_TF | EFLAGS_NT | EFLAGS_RF | EFLAGS_VM))
    exits.own_resume = 0
    return DONE


@kernel
def reflect_exception(cpu, ram, exits, links, with_error_code):
    """An exception of the guest, as it is."""
    note_path(exits, REFLECT)
    error = NO_ERROR
    if with_error_code:
        error = exits.error
    return deliver(cpu, ram, exits, links, exits.entry, error, KIND_EXCEPTION, exits.eip, 0)


@kernel
def through_open_gate(cpu, ram, exits, links):
    """INT n of ring 3 came through a gate that was opened to it; EIP is behind it already (entries.deliver_open_gate)."""
    note_path(exits, REFLECT)
    return deliver(cpu, ram, exits, links, exits.entry, NO_ERROR, KIND_SOFTWARE_INTERRUPT, exits.eip, 0)


@inline
def is_closed(ram, vector):
    """Whether the VMM's own gate of a vector must be opened for a guest's of DPL 3."""
    usable = vector >= FIRST_INTERRUPT_VECTOR and vector != HOST_TIMER_VECTOR
    return usable and dpl_of(load_32(ram, IDT + vector * 8 + 4)) != 3


@kernel
def software_interrupt(cpu, ram, exits, links, vector):
    """INT n that trapped, EIP still at it (entries.software_interrupt)."""
    note_path(exits, EMULATE_FAR_TRANSFER)
    gate = gate_place(ram, exits, vector)
    if gate < 0 or vector < FIRST_INTERRUPT_VECTOR:
        return NOT_FAST
    if dpl_of(load_32(ram, gate + 4)) == 3 and is_closed(ram, vector):
        return NOT_FAST
    note_path(exits, REFLECT)
    return deliver(cpu, ram, exits, links, vector, NO_ERROR, KIND_SOFTWARE_INTERRUPT, (exits.eip + 2) & M32, 1)


# -- SYSENTER and SYSEXIT ------------------------------------------------------------------------------------------------


@kernel
def is_flat(ram, exits, selector, access):
    """Whether the guest's table has a flat segment of these access rights behind a selector, which is shadowed.

    Each half of the descriptor is looked up by itself (shadow_descriptors.peek).
    """
    place = descriptor_place(ram, exits, selector)
    if place < 0 or not is_shadowed(ram, selector):
        return False
    read_guest(ram, exits, load_32(ram, GDTR_BASE) + (selector & 0xFFF8) + 4, 4, 0)
    low, high = load_32(ram, place), load_32(ram, place + 4)
    return base_of(low, high) == 0 and limit_of(low, high) == M32 and (high >> 8) & 0xF0FF == access


@kernel
def enter_flat(cpu, ram, exits, selector, cpl, eip, esp):
    """Enter flat segments, which the guest's tables must say too (system_calls.enter_flat)."""
    code, stack = (selector & 0xFFFC) | cpl, ((selector + 8) & 0xFFFC) | cpl
    if not is_flat(ram, exits, selector, FLAT_ACCESS_CODE | cpl << 5):
        return NOT_FAST
    if not is_flat(ram, exits, selector + 8, FLAT_ACCESS_DATA | cpl << 5) or not can_commit(exits):
        return NOT_FAST
    if not keeps_data_segments(cpu, exits, cpl) or not is_attached(exits):
        return NOT_FAST
    commit(cpu, exits)
    set_cpl(cpu, ram, exits, cpl)
    exits.cs = hardware_selector(code)
    exits.ss = hardware_selector(stack)
    exits.eip, exits.esp = eip, esp
    return DONE


@kernel
def system_call(cpu, ram, exits):
    """SYSENTER, which came in by its own entry: ring 0 at the guest's entry, with IF clear."""
    note_path(exits, EMULATE_SYSTEM_CALL)
    if exits.eflags & EFLAGS_TF != 0:
        return NOT_FAST
    selector = load_32(ram, SYSENTER_CS) & 0xFFFC
    outcome = enter_flat(cpu, ram, exits, selector, 0, load_32(ram, SYSENTER_EIP), load_32(ram, SYSENTER_ESP))
    if outcome == DONE:
        store_32(ram, INTERRUPT_FLAG, 0)
    return outcome


@kernel
def system_call_return(cpu, ram, exits):
    """SYSEXIT: to ring 3 at EDX with the stack of ECX."""
    note_path(exits, EMULATE_SYSTEM_CALL)
    selector = load_32(ram, SYSENTER_CS) & 0xFFFC
    if load_32(ram, CPL) != 0 or selector == 0:
        return NOT_FAST
    return enter_flat(cpu, ram, exits, selector + 16, 3, cpu.gpr[EDX], cpu.gpr[ECX])

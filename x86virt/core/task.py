"""Hardware task switching (SDM volume 3, section 7.3; volume 2, JMP, CALL, INT n and IRET operation).

Up to the commit point a fault leaves the old task as it was. Behind it, a fault is one of the new task, before its first
instruction: the new task's registers are loaded, and its EIP is what the handler finds.
"""

from ..isa.events import EVENT_SYS_TASK_SWITCH
from ..isa.registers import (
    AR_P,
    CR0_TS,
    CS,
    EFLAGS_FIXED,
    EFLAGS_IMPLEMENTED,
    EFLAGS_NT,
    ERROR_TI,
    TR,
)
from ..isa.vectors import GP, NP, SS_FAULT, TS
from .charge import charge
from .debug_registers import clear_local_breakpoints
from .extensions import svm_task_switch, task_switch_exits
from .fault import raise_fault
from .flags import get_eflags, set_eflags
from .gate import is_software
from .handler_entry import flags_image
from .jit import inline, kernel
from .layout import FAULT, NEW_TASK_FAULT, OK, SVM_GUEST, VMX_NON_ROOT
from .memory import read_linear
from .mode import MASK_32, in_virtual_8086_mode, push, set_context, set_cpl
from .segment import (
    BUSY,
    SELECTOR_INDEX,
    access_of,
    base_of,
    fill_segment,
    limit_of,
    read_descriptor_or,
)
from .task_segments import load_task_segments
from .task_state import (
    LINK,
    check_pages_for_reading,
    check_pages_for_writing,
    first_item,
    is_16bit_tss,
    is_32bit_tss,
    item_bytes,
    last_byte,
    last_saved,
    load_task_cr3,
    load_task_registers,
    read_checked,
    save_task_state,
    task_trap_flag,
    write_checked,
)

# What starts a task switch.
TASK_JUMP, TASK_CALL, TASK_EVENT, TASK_RETURN = range(4)
LINK_BYTES = 2
DR6_BT = 1 << 15


@inline
def leaves_for_good(cause):
    """A jump or a return: the old task is no longer busy."""
    return cause == TASK_JUMP or cause == TASK_RETURN


@inline
def nests(cause):
    """A call or an event: the new task is linked to the old one, and returns to it by IRET."""
    return cause == TASK_CALL or cause == TASK_EVENT


@inline
def access_byte_address(cpu, selector):
    """The linear address of the byte in the GDT that holds the busy bit of a TSS descriptor."""
    return (cpu.gdtr_base + (selector & 0xFFF8) + 5) & MASK_32


@kernel
def check_tss(cpu, ram, selector, access, limit, cause, ext):
    """Steps 3 and 4: the new TSS is available (busy for a return), present, and large enough."""
    # 1. Its type. A return finds a busy TSS, or the link is no good.
    busy = access & BUSY != 0
    usable = is_32bit_tss(access) or is_16bit_tss(access)
    if cause == TASK_RETURN:
        if not usable or not busy:
            return raise_fault(cpu, TS, (selector & SELECTOR_INDEX) | ext)
    elif not usable or busy:
        return raise_fault(cpu, GP, (selector & SELECTOR_INDEX) | ext)
    # 2. Present.
    if access & AR_P == 0:
        return raise_fault(cpu, NP, (selector & SELECTOR_INDEX) | ext)
    # 3. The limit.
    if limit < last_byte(access):
        return raise_fault(cpu, TS, (selector & SELECTOR_INDEX) | ext)
    return OK


@kernel
def check_old_tss(cpu, ram, cause, ext):
    """The current TSS can take the old task's state: a TSS at all, large enough, its pages and busy bit writable."""
    tss = cpu.seg[TR]
    if not is_32bit_tss(tss.access) and not is_16bit_tss(tss.access):
        return raise_fault(cpu, TS, (tss.selector & SELECTOR_INDEX) | ext)
    last = last_saved(tss.access)
    if tss.limit < last:
        return raise_fault(cpu, TS, (tss.selector & SELECTOR_INDEX) | ext)
    outcome = check_pages_for_writing(cpu, ram, tss.seg_base + first_item(tss.access), tss.seg_base + last)
    if outcome == OK and leaves_for_good(cause):
        busy = access_byte_address(cpu, tss.selector)
        outcome = check_pages_for_writing(cpu, ram, busy, busy)
    return outcome


@kernel
def check_new_pages(cpu, ram, selector, tss_base, access, cause):
    """The new TSS can be read, its link and its busy bit written where the switch will."""
    outcome = check_pages_for_reading(cpu, ram, tss_base, tss_base + last_byte(access))
    if outcome == OK and nests(cause):
        outcome = check_pages_for_writing(cpu, ram, tss_base + LINK, tss_base + LINK + LINK_BYTES - 1)
    if outcome == OK and cause != TASK_RETURN:
        busy = access_byte_address(cpu, selector)
        outcome = check_pages_for_writing(cpu, ram, busy, busy)
    return outcome


@kernel
def saved_flags(cpu, cause):
    """The old task's flags as its TSS will hold them: a return takes NT away, a fault leaves RF set."""
    if cause == TASK_RETURN:
        return get_eflags(cpu) & ~EFLAGS_NT
    if cause == TASK_EVENT:
        return flags_image(cpu)
    return get_eflags(cpu)


@kernel
def leave_old_task(cpu, ram, new_tss_base, cause):
    """Steps 6 to 9: the old task's busy bit and state, and the new task's link to it."""
    tss = cpu.seg[TR]
    if leaves_for_good(cause):
        busy = access_byte_address(cpu, tss.selector)
        write_checked(cpu, ram, busy, 1, read_checked(cpu, ram, busy, 1) & ~BUSY)
    save_task_state(cpu, ram, tss.seg_base, tss.access, saved_flags(cpu, cause))
    if nests(cause):
        write_checked(cpu, ram, new_tss_base + LINK, LINK_BYTES, tss.selector)


@kernel
def enter_new_task(cpu, ram, selector, low, high, cause):
    """Steps 10 to 12: the new task's busy bit, TR, and all of its state but CR3 and the segments."""
    if cause != TASK_RETURN:
        high |= BUSY << 8
        write_checked(cpu, ram, access_byte_address(cpu, selector), 1, (high >> 8) & 0xFF)
    fill_segment(cpu, TR, selector, low, high)
    tss_base = base_of(low, high)
    access = access_of(high)
    image = load_task_registers(cpu, ram, tss_base, access)
    trap = task_trap_flag(cpu, ram, tss_base, access)
    if nests(cause):
        image |= EFLAGS_NT
    set_eflags(cpu, (image & EFLAGS_IMPLEMENTED) | EFLAGS_FIXED)
    cpu.cr0 |= CR0_TS
    clear_local_breakpoints(cpu)
    if in_virtual_8086_mode(cpu):
        set_cpl(cpu, 3)
    else:
        set_cpl(cpu, cpu.seg[CS].selector & 3)
    cpu.shadow = 0
    cpu.halted = 0
    return trap


@kernel
def push_task_error_code(cpu, ram, n, ext):
    """The error code of the exception that brought the new task on, in the size of its TSS: #SS(EXT) without room."""
    outcome = push(cpu, ram, n, cpu.event_error)
    if outcome == FAULT and cpu.event_vector == SS_FAULT:
        cpu.event_error |= ext
    return outcome


@kernel
def qualify_new_task(cpu, ram, cause, ext):
    """Step 13 and what follows it: the segments, the error code, the entry point."""
    outcome = load_task_segments(cpu, ram, ext)
    set_context(cpu)
    if outcome == OK and cause == TASK_EVENT and cpu.event_has_error == 1:
        outcome = push_task_error_code(cpu, ram, item_bytes(cpu.seg[TR].access), ext)
    if outcome == OK and cpu.rip > cpu.seg[CS].limit:
        return raise_fault(cpu, GP, ext)
    return outcome


@kernel
def switch_task(cpu, ram, selector, low, high, cause, ext):
    """The task switch proper, by the steps of section 7.3, once the TSS descriptor has been found.

    OK; FAULT with the old task untouched; NEW_TASK_FAULT for an exception of the new task, which the instruction that
    switched has nothing more to do with; FAULT in the new task, when what switched was itself an event being delivered.
    VM_EXIT, with nothing done, where a guest's hypervisor switches tasks for it.
    """
    access = access_of(high)
    tss_base = base_of(low, high)
    # 1. Checks, up to step 5: the new TSS, the old one, the pages of both.
    outcome = check_tss(cpu, ram, selector, access, limit_of(low, high), cause, ext)
    if outcome == OK and cpu.world == VMX_NON_ROOT:
        outcome = task_switch_exits(cpu, selector, cause)
    if outcome == OK:
        outcome = check_old_tss(cpu, ram, cause, ext)
    if outcome == OK:
        outcome = check_new_pages(cpu, ram, selector, tss_base, access, cause)
    if outcome == OK and cpu.world == SVM_GUEST:
        by_event = cause == TASK_EVENT
        flags = saved_flags(cpu, cause)
        outcome = svm_task_switch(cpu, selector, cause == TASK_JUMP, cause == TASK_RETURN, by_event, flags)
    if outcome != OK:
        return outcome
    # 2. The commit point.
    charge(cpu, EVENT_SYS_TASK_SWITCH, 1)
    by_event = cause == TASK_EVENT and not is_software(cpu.event_kind)
    leave_old_task(cpu, ram, tss_base, cause)
    trap = enter_new_task(cpu, ram, selector, low, high, cause)
    # 3. In the new task.
    outcome = load_task_cr3(cpu, ram, tss_base, access)
    if outcome == OK:
        outcome = qualify_new_task(cpu, ram, cause, ext)
    if outcome == OK and trap == 1:
        cpu.debug_pending |= DR6_BT
    if outcome == FAULT and not by_event:
        return NEW_TASK_FAULT
    return outcome


@kernel
def enter_task(cpu, ram, selector, low, high, cause, ext):
    """Switch to the task whose TSS descriptor (`low`, `high`) `selector` names, after the checks of section 7.3.

    `cpu.rip` is where the old task goes on. With TASK_EVENT the error code in `cpu.event_*`, if there is one, is pushed
    on the new task's stack. `ext` is the EXT bit of error codes. The outcomes are those of `switch_task`.
    """
    if selector & ERROR_TI:
        return raise_fault(cpu, GP, (selector & SELECTOR_INDEX) | ext)
    return switch_task(cpu, ram, selector, low, high, cause, ext)


@kernel
def enter_task_gate(cpu, ram, gate_low, cause, ext):
    """Switch through a task gate whose own privilege and presence have been checked."""
    selector = (gate_low >> 16) & 0xFFFF
    if selector & ERROR_TI:
        return raise_fault(cpu, GP, (selector & SELECTOR_INDEX) | ext)
    outcome, low, high = read_descriptor_or(cpu, ram, selector, GP, ext)
    if outcome != OK:
        return outcome
    return switch_task(cpu, ram, selector, low, high, cause, ext)


@kernel
def return_from_task(cpu, ram):
    """IRET with NT set: switch back to the task that the current TSS's link names (TASK-RETURN of IRET operation)."""
    tss = cpu.seg[TR]
    if tss.limit < LINK + LINK_BYTES - 1:
        return raise_fault(cpu, TS, tss.selector & SELECTOR_INDEX)
    outcome, selector = read_linear(cpu, ram, (tss.seg_base + LINK) & MASK_32, LINK_BYTES, 0)
    if outcome != OK:
        return outcome
    if selector & ERROR_TI:
        return raise_fault(cpu, TS, selector & SELECTOR_INDEX)
    outcome, low, high = read_descriptor_or(cpu, ram, selector, TS, 0)
    if outcome != OK:
        return outcome
    return switch_task(cpu, ram, selector, low, high, TASK_RETURN, 0)

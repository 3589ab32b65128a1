"""What brought control to the VMM, and the way back to the guest (crossings.py)."""

from ...core.charge import charge
from ...core.flags import get_eflags, set_eflags
from ...core.jit import inline, kernel, load_32, store_32
from ...isa.events import EVENT_SYS_LAPIC_MMIO_ACCESS
from ...isa.registers import EFLAGS_FIXED, EFLAGS_IF, EFLAGS_RF, ESP
from ...isa.vectors import DB, MF
from .. import layout
from ..exits import ERROR_CODE_VECTORS, FAULT_VECTORS
from .apics import advance_devices, next_deadline
from .descriptors import is_plain
from .exits import N_PATHS, is_attached
from .records import CPL, DONE, INTERRUPT_FLAG, IOPL, NOT_FAST, SYSTEM_CALL
from .translated import TRANSLATED_CODE, address_of, come_back_directly, enter, leave, leave_in_ring

FAULTS = sum(1 << vector for vector in FAULT_VECTORS)
WITH_ERROR_CODE = sum(1 << vector for vector in ERROR_CODE_VECTORS)
FIRST_ENTRY = layout.VMM_BASE + layout.ENTRIES
FRAME = layout.STACK_TOP - 20
RESUME_AT, FRAME_AT = layout.VMM_BASE + layout.RESUME, layout.VMM_BASE + FRAME
SYSENTER_ENTRY, CALLOUT_ENTRY = layout.SYSENTER_ENTRY, layout.CALLOUT_ENTRY
PORT_ENTRY, STORE_ENTRY = layout.DIRECT_ENTRIES
ENTRY_BYTES, VMM_BASE = layout.ENTRY_BYTES, layout.VMM_BASE


@inline
def is_of(vectors, vector):
    """Whether a vector is in a set of exceptions."""
    return vector < 32 and (vectors >> vector) & 1 == 1


@inline
def note_resume_flag(cpu, exits, fault):
    """Whose the RF of the frame is (vm.note_resume_flag)."""
    exits.trap_resume = fault
    if cpu.retired == exits.resumed_at:
        exits.trap_resume = exits.own_resume | (fault & (1 - exits.resumed_with_flag))


@inline
def framed(ram, exits):
    """DONE if CS and SS of the frame are such as the jitted exits know."""
    outcome = NOT_FAST
    if is_plain(ram, exits.cs) and is_plain(ram, exits.ss):
        outcome = DONE
    return outcome


@kernel
def read_exit(cpu, ram, exits, index):
    """Note the entry, the error code and the guest's frame; NOT_FAST if the VMM itself was interrupted, or Python must."""
    exits.reference_count = 0
    exits.push_count = 0
    for path in range(N_PATHS):
        exits.items[path] = 0
    exits.begun = cpu.ticks
    exits.left = 0
    offset = cpu.rip - FIRST_ENTRY
    if offset == SYSENTER_ENTRY:
        exits.entry = SYSTEM_CALL
        exits.eflags = get_eflags(cpu) | EFLAGS_IF
        exits.trap_resume = 0
        return DONE
    direct = int(offset == PORT_ENTRY or offset == STORE_ENTRY)
    if offset == CALLOUT_ENTRY or direct == 1:
        if leave_in_ring(cpu, ram, exits, index, direct) == NOT_FAST:
            return NOT_FAST
        note_resume_flag(cpu, exits, 0)
        return framed(ram, exits)
    cpl = load_32(ram, CPL)
    exits.entry = offset // ENTRY_BYTES
    exits.error = 0
    stack = cpu.gpr[ESP] - VMM_BASE
    if is_of(WITH_ERROR_CODE, exits.entry):
        exits.error = load_32(ram, stack)
        stack += 4
    if stack != FRAME or exits.entry == DB or exits.entry == MF or (cpl != 0 and cpl != 3):
        return NOT_FAST
    exits.eip = load_32(ram, stack)
    exits.cs = load_32(ram, stack + 4)
    exits.eflags = load_32(ram, stack + 8)
    exits.esp = load_32(ram, stack + 12)
    exits.ss = load_32(ram, stack + 16)
    note_resume_flag(cpu, exits, int(is_of(FAULTS, exits.entry)))
    if exits.cs == TRANSLATED_CODE and leave(cpu, ram, exits, index) == NOT_FAST:
        return NOT_FAST
    return framed(ram, exits)


@inline
def return_directly(cpu, ram, exits):
    """Let the processor return to the guest's own code."""
    store_32(ram, FRAME, exits.eip)
    store_32(ram, FRAME + 4, exits.cs)
    store_32(ram, FRAME + 8, exits.eflags)
    store_32(ram, FRAME + 12, exits.esp)
    store_32(ram, FRAME + 16, exits.ss)
    cpu.rip = RESUME_AT
    cpu.gpr[ESP] = FRAME_AT
    set_eflags(cpu, EFLAGS_FIXED)


@inline
def runs_directly(ram, exits):
    """Whether the guest's code may run as it is beside a translator (Translator.applies)."""
    own_flags = load_32(ram, INTERRUPT_FLAG) == 1 and load_32(ram, IOPL) == 0 and exits.translate_user == 0
    return own_flags and load_32(ram, CPL) == 3 and exits.serving == 0 and is_attached(exits)


@kernel
def resume(cpu, ram, exits, index, board, apics):
    """The way back to the guest; False if Python must go it: an interrupt comes first, or code that is not translated."""
    waits = int(advance_devices(apics, board, cpu.ticks))
    if waits and load_32(ram, INTERRUPT_FLAG) != 0:
        return False
    address = 0
    if exits.translates == 1 and exits.direct == 0:
        if load_32(ram, CPL) == 0:
            address = address_of(cpu, ram, exits, index)
        if address == 0 and not runs_directly(ram, exits):
            return False
    exits.interrupt_waits = int(waits)
    exits.resumed_at = cpu.retired
    exits.resumed_with_flag = int(exits.eflags & EFLAGS_RF != 0 and exits.own_resume == 0)
    if exits.direct == 1:
        come_back_directly(cpu, ram, exits)
    elif address != 0:
        enter(cpu, ram, exits, address)
    else:
        return_directly(cpu, ram, exits)
    deadline = next_deadline(apics, board)
    if cpu.timer != deadline:
        charge(cpu, EVENT_SYS_LAPIC_MMIO_ACCESS, 1)
        cpu.timer = deadline
        cpu.timer_pending = 0
    cpu.retired_limit = exits.retired_limit
    return True


@kernel
def count_exit(cpu, exits):
    """Count the exit and its ticks by its entry."""
    entry = exits.entry
    if exits.count[entry] == 0:
        exits.order[exits.order_count] = entry
        exits.order_count += 1
    exits.count[entry] += 1
    exits.ticks[entry] += cpu.ticks - exits.begun

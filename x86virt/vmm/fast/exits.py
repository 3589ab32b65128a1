"""What brought control to the VMM, what it is charged, and the way back to the guest (crossings.py, vm.charge)."""

from ...core.board import board_advance, board_deadline, interrupt_pending
from ...core.cache import VMM, reference
from ...core.charge import charge, charge_ticks
from ...core.flags import get_eflags, set_eflags
from ...core.jit import inline, kernel, load_32, store_32
from ...isa.events import EVENT_SYS_LAPIC_MMIO_ACCESS, MODE_VMM
from ...isa.registers import EFLAGS_FIXED, EFLAGS_IF, EFLAGS_RF, EFLAGS_TF, ESP
from ...isa.vectors import DB, MF
from .. import layout
from ..exits import ERROR_CODE_VECTORS, FAULT_VECTORS
from .descriptors import is_detached, is_plain
from .records import (
    CPL,
    DONE,
    INTERRUPT_FLAG,
    MAX_REFERENCES,
    NOT_FAST,
    PATHS,
    SYSTEM_CALL,
)

N_PATHS = len(PATHS)
FAULTS = sum(1 << vector for vector in FAULT_VECTORS)
WITH_ERROR_CODE = sum(1 << vector for vector in ERROR_CODE_VECTORS)
FIRST_ENTRY = layout.VMM_BASE + layout.ENTRIES
FRAME = layout.STACK_TOP - 20
RESUME_AT, FRAME_AT = layout.VMM_BASE + layout.RESUME, layout.VMM_BASE + FRAME
SYSENTER_ENTRY, ENTRY_BYTES, VMM_BASE = layout.SYSENTER_ENTRY, layout.ENTRY_BYTES, layout.VMM_BASE
RING = 1  # that the guest's kernel runs in


@inline
def is_of(vectors, vector):
    """Whether a vector is in a set of exceptions."""
    return vector < 32 and (vectors >> vector) & 1 == 1


@kernel
def read_exit(cpu, ram, exits):
    """Note the entry, the error code and the frame that the trap pushed; NOT_FAST if the VMM itself was interrupted."""
    exits.reference_count = 0
    exits.push_count = 0
    for path in range(N_PATHS):
        exits.items[path] = 0
    exits.begun = cpu.ticks
    offset = cpu.rip - FIRST_ENTRY
    if offset == SYSENTER_ENTRY:
        exits.entry = SYSTEM_CALL
        exits.eflags = get_eflags(cpu) | EFLAGS_IF
        exits.trap_resume = 0
        return DONE
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
    if not is_plain(ram, exits.cs) or not is_plain(ram, exits.ss):
        return NOT_FAST
    # Whose the RF of the frame is (Crossings.note_resume_flag).
    exits.trap_resume = int(is_of(FAULTS, exits.entry))
    if cpu.retired == exits.resumed_at:
        exits.trap_resume = exits.own_resume | (exits.trap_resume & (1 - exits.resumed_with_flag))
    return DONE


@inline
def note_path(exits, path):
    """A path of the VMM was gone, to be charged when the exit is committed."""
    exits.items[path] += 1


@inline
def can_commit(exits):
    """Whether all references could be noted."""
    return exits.reference_count <= MAX_REFERENCES


@kernel
def commit(cpu, exits):
    """Charge the paths and references that were noted; from here on the exit is handled here."""
    for path in range(N_PATHS):
        items = exits.items[path]
        if items > 0:
            charge_ticks(cpu, exits.event[path], items, items * exits.price[path], MODE_VMM)
    for number in range(exits.reference_count):
        reference(cpu, exits.references[number], VMM)
    exits.own_resume = exits.trap_resume


@inline
def is_attached(exits):
    """Whether CS and SS come from the guest's table. A transfer from others gives up entries of the VMM's, in Python."""
    return not is_detached(exits.cs) and not is_detached(exits.ss)


@inline
def virtual_selector(cpl, selector):
    """The guest's view of a selector of its table in CS or SS (vcpu.virtual_selector)."""
    return (selector & ~3) | cpl


@inline
def hardware_selector(selector):
    """What the hardware holds for a selector that the guest loads into CS or SS."""
    held = selector
    if selector & 3 == 0:
        held = selector | RING
    return held


@kernel
def resume(cpu, ram, exits, board):
    """The way back to the guest; False if an interrupt must be delivered first, or waited for."""
    board_advance(board, cpu.ticks)
    if interrupt_pending(board) and load_32(ram, INTERRUPT_FLAG) != 0:
        return False
    exits.resumed_at = cpu.retired
    exits.resumed_with_flag = int(exits.eflags & EFLAGS_RF != 0 and exits.own_resume == 0)
    store_32(ram, FRAME, exits.eip)
    store_32(ram, FRAME + 4, exits.cs)
    store_32(ram, FRAME + 8, exits.eflags)
    store_32(ram, FRAME + 12, exits.esp)
    store_32(ram, FRAME + 16, exits.ss)
    cpu.rip = RESUME_AT
    cpu.gpr[ESP] = FRAME_AT
    set_eflags(cpu, EFLAGS_FIXED)
    deadline = board_deadline(board)
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


@inline
def is_stepped(exits):
    """Whether the guest itself has TF set."""
    return exits.eflags & EFLAGS_TF != 0

"""Between blocks: faults, and the question whether the instruction boundary has anything to do.

Most system instructions and most faults leave nothing for the boundary (core/run.py); then blocks simply run on.
"""

from ..isa.registers import CS, EFLAGS_IF, EFLAGS_RF, EFLAGS_TF
from ..isa.vmx import PROCESSOR_INTERRUPT_WINDOW_EXITING, PROCESSOR_NMI_WINDOW_EXITING
from .deliver import deliver_event
from .extensions import may_leave_at_boundary, vm_exit
from .interrupt_inputs import interrupt_requested, lines_moved
from .jit import inline, kernel
from .layout import EDGE_FAULT, EDGE_SYSTEM, FAULT, NEW_TASK_FAULT, OK, RESTART, ROOT, SVM_GUEST, VM_EXIT

M32 = 0xFFFFFFFF
WINDOWS = PROCESSOR_INTERRUPT_WINDOW_EXITING | PROCESSOR_NMI_WINDOW_EXITING


@inline
def at_hook(cpu):
    """Whether control has arrived at an entry point of the VMM, which is no address of a guest that the hardware runs."""
    if cpu.cpl > cpu.hook_level:
        return False
    gla = (cpu.rip + cpu.seg[CS].seg_base) & M32
    return cpu.hook_first <= gla <= cpu.hook_last and cpu.world == ROOT


@inline
def guest_goes_on(cpu, board):
    """Whether plainly nothing makes a guest exit between two of its instructions: no window, no timer, no interrupt."""
    if cpu.world == SVM_GUEST:
        asked = cpu.svm.v_irq == 1
    else:
        asked = cpu.vmx.processor & WINDOWS != 0 or cpu.ticks >= cpu.vmx.timer_due
    return not asked and not interrupt_requested(cpu, board)


@inline
def nothing_waits(cpu, board):
    """Whether the boundary after a system instruction would do nothing, and the next one needs not execute by itself."""
    flags = cpu.mark | board.attention | cpu.code_write_count | cpu.flush_code | cpu.shadow | cpu.halted
    flags |= cpu.debug_pending | cpu.debug_hits | cpu.watch | cpu.probe_skip | (cpu.eflags & EFLAGS_TF)
    if flags != 0 or cpu.ticks >= cpu.limit_ticks or cpu.retired >= cpu.retired_limit or at_hook(cpu):
        return False
    if cpu.apic.enabled == 1 and lines_moved(cpu, board):
        return False
    if cpu.world != ROOT:
        return guest_goes_on(cpu, board) or not may_leave_at_boundary(cpu, board)
    return cpu.eflags & EFLAGS_IF == 0 or not interrupt_requested(cpu, board)


@inline
def begin_instruction(cpu):
    """RF is cleared as an instruction begins whose breakpoints were looked at, or were none."""
    cpu.eflags &= ~EFLAGS_RF


@inline
def refund(cpu, blocks, details, index):
    """Take back what a block was charged for the instruction that did not complete and all behind it."""
    block = blocks[index]
    at = details[cpu.uop_index]
    cpu.rip = at.rip
    cpu.ticks -= block.ticks - at.ticks_before
    cpu.retired -= block.counted - at.counted_before
    if at.number == 0:
        block.executions -= 1
        return
    for number in range(block.first, block.first + block.uop_count):
        detail = details[number]
        if detail.number >= at.number and detail.event >= 0:
            cpu.ledger_count[detail.event, block.mode] -= 1
            cpu.ledger_ticks[detail.event, block.mode] -= cpu.price[detail.event]


@inline
def forget_met(cpu):
    """Forget the breakpoints and stops that the accesses of an instruction met, which will meet them again."""
    cpu.debug_hits = 0
    cpu.stop_met = 0


@kernel
def handle_fault(cpu, ram, blocks, details, edge, index):
    """Deal with an outcome that left a block or a fetch: OK when the processor may go on."""
    if edge < EDGE_FAULT or edge == EDGE_FAULT + NEW_TASK_FAULT:
        outcome = edge - EDGE_SYSTEM
        cpu.instruction_length = 0
        if edge > EDGE_FAULT:
            return deliver_event(cpu, ram)
    else:
        outcome = edge - EDGE_FAULT
        refund(cpu, blocks, details, index)
        cpu.instruction_length = details[cpu.uop_index].length
    if outcome == FAULT:
        forget_met(cpu)
        return deliver_event(cpu, ram)
    if outcome == VM_EXIT:
        forget_met(cpu)
        return vm_exit(cpu, ram)
    if outcome == RESTART:
        return OK
    return outcome

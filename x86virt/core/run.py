"""The loop: instruction boundaries, blocks, faults. One call runs the processor until something outside must act.

At a boundary come, in this order: arrival at a VMM entry, due timers, debug traps, interrupts, limits of the call (SDM
volume 3, table 6-2; nothing raises NMI, INIT, SMI or a machine check yet). The fault of an instruction breakpoint, and
those of fetching and decoding, come with the next instruction. Between
boundaries whole blocks run, each charged at its entry and refunded when it is left early. When a limit lies inside a
block, its instructions go one at a time, so that no cycle count depends on how code was cut into blocks.
"""

from ..isa.events import EVENT_IDLE_HALT, MODE_IDLE
from ..isa.registers import CS, EFLAGS_IF, EFLAGS_RF, EFLAGS_TF
from ..isa.system_ops import SYSTEM_INT1, SYSTEM_INT_N, SYSTEM_INTO
from ..isa.vectors import KIND_EXTERNAL
from ._dispatch import run_blocks
from .between_blocks import at_hook, handle_fault
from .board import (
    board_advance,
    board_deadline,
)
from .breakpoints import DR6_BS, WATCH_CODE, check_code_breakpoint
from .chain import fits, next_block
from .charge import charge_ticks
from .code import decode_single, discard_written, fetch_address, settle
from .code_layout import SCRATCH_BLOCK
from .debug import debug_trap_waits, take_debug_trap
from .deliver import deliver_event
from .extensions import guest_boundary
from .guest_boundary import AGAIN, NOTHING, SHUTS_DOWN, TAKES_INTERRUPT, guest_deadline, wakes_guest
from .halt import wake
from .handlers import NUMBER
from .interrupt_inputs import acknowledge, follow_lines, interrupt_requested, watch_timer
from .jit import entry, inline, kernel
from .layout import (
    BOARD,
    BUDGET,
    EDGE_FAULT,
    EDGE_SYSTEM,
    FAULT,
    HALTED_FOREVER,
    HOLDS_DEBUG,
    HOOK,
    INTERRUPT,
    MARK,
    NEVER,
    OK,
    PROBE,
    RESTART,
    RETIRED_LIMIT,
    ROOT,
    SHUTDOWN,
    STOPPED,
    TIME_LOG,
    VM_EXIT,
)
from .local_apic import advance_timer, timer_due
from .stops import WATCH_STOP_CODE, check_code_stop, report_met_stop

M32 = 0xFFFFFFFF
PAGE = 0xFFFFF000
OP_SYSTEM = NUMBER["system_instruction"]


@kernel
def set_limit(cpu, board):
    """The next tick at which blocks must not simply run on: a timer's edge, or the end of the budget."""
    cpu.deadline = min(board_deadline(board), cpu.timer)
    if cpu.apic.enabled == 1 and board.frozen == 0:
        cpu.deadline = min(cpu.deadline, timer_due(cpu.apic))
    if cpu.world != ROOT:
        cpu.deadline = min(cpu.deadline, guest_deadline(cpu))
    cpu.limit_ticks = min(cpu.deadline, cpu.budget)


@kernel
def advance_time(cpu, board):
    """Let the devices, the local APIC's timer and the host's one-shot timer see the present tick; a replay's see the log's."""
    board_advance(board, cpu.ticks)
    if cpu.apic.enabled == 1 and board.frozen == 0:
        advance_timer(cpu.apic, cpu.ticks)
    if cpu.timer <= cpu.ticks:
        cpu.timer = NEVER
        cpu.timer_pending = 1
    set_limit(cpu, board)


@kernel
def acknowledge_event(cpu, board):
    """Acknowledge the external interrupt that waits: it is the event to be delivered."""
    cpu.event_vector = acknowledge(cpu, board)
    cpu.event_kind = KIND_EXTERNAL
    cpu.event_error = 0
    cpu.event_has_error = 0


@kernel
def take_interrupt(cpu, ram, board):
    """Acknowledge and deliver the external interrupt that waits."""
    acknowledge_event(cpu, board)
    return deliver_event(cpu, ram)


@inline
def may_wake(cpu):
    """Whether interrupts, or what makes a guest exit, may end a halt."""
    if cpu.world != ROOT:
        return wakes_guest(cpu)
    return cpu.eflags & EFLAGS_IF != 0 and cpu.svm.gif == 1


@kernel
def idle(cpu, board):
    """Pass the time of a halted processor up to the next deadline or the end of the budget, in idle mode."""
    until = cpu.limit_ticks
    if cpu.deadline == NEVER and cpu.budget == NEVER:
        return HALTED_FOREVER
    if cpu.deadline == NEVER or not may_wake(cpu):
        return HALTED_FOREVER
    if until > cpu.ticks:
        charge_ticks(cpu, EVENT_IDLE_HALT, 0, until - cpu.ticks, MODE_IDLE)
    return OK


@inline
def what_waits(cpu, ram, board):
    """What comes behind debug traps, as core/guest_boundary.py names it: outside a guest an interrupt, or nothing."""
    if cpu.world != ROOT:
        return guest_boundary(cpu, ram, board)
    if cpu.shadow == 0 and cpu.eflags & EFLAGS_IF != 0 and interrupt_requested(cpu, board) and cpu.svm.gif == 1:
        return TAKES_INTERRUPT
    return NOTHING


@kernel
def boundary(cpu, ram, board):
    """What happens between two instructions; OK: the next instruction may execute."""
    while True:
        if at_hook(cpu):
            return HOOK
        if cpu.stop_met != 0 and report_met_stop(cpu) != OK:
            return STOPPED
        if cpu.apic.enabled == 1:
            watch_timer(cpu, board)
        if cpu.ticks >= cpu.limit_ticks:
            advance_time(cpu, board)
            if board.attention != 0:
                return BOARD
        if cpu.apic.enabled == 1:
            follow_lines(cpu, board)
        if debug_trap_waits(cpu):
            outcome = take_debug_trap(cpu, ram)
            if outcome != OK:
                return outcome
            continue
        action = what_waits(cpu, ram, board)
        if action == AGAIN:
            continue
        if action == SHUTS_DOWN:
            return SHUTDOWN
        if action == TAKES_INTERRUPT:
            if cpu.interrupt_exits == 1:
                return INTERRUPT
            if cpu.halted == 1:
                wake(cpu)
            outcome = take_interrupt(cpu, ram, board)
            if outcome != OK:
                return outcome
            continue
        if cpu.ticks >= cpu.budget:
            return BUDGET
        if cpu.retired >= cpu.retired_limit:
            return RETIRED_LIMIT
        if cpu.halted == 0:
            return OK
        outcome = idle(cpu, board)
        if outcome != OK:
            return outcome


@entry
def take_requested_interrupt(state, ram, boards):
    """Take the external interrupt because of which the last call ended with INTERRUPT: (OK or SHUTDOWN, its vector)."""
    cpu = state[0]
    if cpu.halted == 1:
        wake(cpu)
    acknowledge_event(cpu, boards[0])
    vector = cpu.event_vector
    return deliver_event(cpu, ram), vector


@entry
def deliver_external(state, ram, vector):
    """Deliver an external interrupt that was acknowledged: OK or SHUTDOWN."""
    cpu = state[0]
    cpu.event_vector = vector
    cpu.event_kind = KIND_EXTERNAL
    cpu.event_error = 0
    cpu.event_has_error = 0
    return deliver_event(cpu, ram)


@inline
def enters_handler(u):
    """Whether a micro-operation was INT n, INT3, INTO or INT1, which clear TF and are not followed by a trap."""
    software = u.dst_shift >= SYSTEM_INT_N and u.dst_shift <= SYSTEM_INTO
    return u.op == OP_SYSTEM and (software or u.dst_shift == SYSTEM_INT1)


@kernel
def steps(cpu, u):
    """Whether the trap of TF follows a completed instruction (SDM volume 3, section 17.3.1.4): not MOV SS and POP SS."""
    return cpu.shadow != HOLDS_DEBUG and not enters_handler(u)


@kernel
def step_block(cpu, ram, code, blocks, uops, details, shadow):
    """Decode the instruction at cpu.rip by itself: (outcome, block).

    Behind MOV SS and POP SS (`shadow`) an instruction breakpoint is passed over, as under RF.
    """
    gla = (cpu.rip + cpu.seg[CS].seg_base) & M32
    if cpu.watch & WATCH_STOP_CODE != 0 and check_code_stop(cpu, gla) != OK:
        return STOPPED, 0
    if cpu.watch & WATCH_CODE != 0 and shadow != HOLDS_DEBUG and check_code_breakpoint(cpu, gla) != OK:
        return FAULT, 0
    outcome, physical = fetch_address(cpu, ram, gla)
    if outcome != OK:
        return outcome, 0
    return decode_single(cpu, ram, code, blocks, uops, details, physical)


@inline
def keep_shadow(cpu, edge, shadow):
    """An instruction of a guest that exits, by itself or by its fault, leaves what was held off for it as it was.

    Not so amid a delivery (SDM volume 3, section 27.1), where it has ended.
    """
    if cpu.world == ROOT or edge <= EDGE_SYSTEM or cpu.idt_vector >= 0:
        return
    outcome = edge - EDGE_SYSTEM
    if edge >= EDGE_FAULT:
        outcome = edge - EDGE_FAULT
    if outcome == FAULT or outcome == VM_EXIT:
        cpu.shadow = shadow


@kernel
def run_single(cpu, ram, board, code, blocks, uops, details):
    """Execute exactly one instruction: (edge, scratch block). RF is cleared once breakpoints were looked at."""
    shadow = cpu.shadow
    resume_flag = cpu.eflags & EFLAGS_RF
    cpu.shadow = 0
    cpu.held = shadow
    outcome, index = step_block(cpu, ram, code, blocks, uops, details, shadow)
    if outcome == STOPPED:
        cpu.shadow = shadow
    if outcome != OK:
        keep_shadow(cpu, EDGE_SYSTEM + outcome, shadow)
        return EDGE_SYSTEM + outcome, index
    cpu.eflags &= ~EFLAGS_RF
    edge, index = run_blocks(cpu, ram, board, code, blocks, uops, details, index, 1)
    # It is yet to be executed, unless iterations of it were (which set RF).
    if edge == EDGE_FAULT + PROBE or (edge == EDGE_FAULT + TIME_LOG and cpu.eflags & EFLAGS_RF == 0):
        cpu.eflags |= resume_flag
        cpu.shadow = shadow
    keep_shadow(cpu, edge, shadow)
    return edge, index


@entry
def run(state, ram, boards, codes, blocks, uops, details, single):
    """Run until an outcome other than OK; `single` 1: one instruction by itself, then OK.

    Returns an outcome of core/layout.py; the ledger is settled on return.
    """
    cpu = state[0]
    board = boards[0]
    code = codes[0]
    set_limit(cpu, board)
    outcome = OK
    by_itself = single
    restarted = 0
    while True:
        # 1. The boundary.
        if cpu.code_write_count > 0 or cpu.flush_code == 1:
            discard_written(cpu, ram, code, blocks, details)
        begun = cpu.begun
        cpu.begun = 0
        if begun == 0:
            outcome = boundary(cpu, ram, board)
            if outcome != OK:
                break
            if cpu.code_write_count > 0 or cpu.flush_code == 1:
                discard_written(cpu, ram, code, blocks, details)
        elif cpu.apic.enabled == 1:
            follow_lines(cpu, board)  # an earlier instruction of the block may have moved one
        # 2. A block, or one instruction when something depends on its very end.
        trap = cpu.eflags & EFLAGS_TF
        world = cpu.world
        alone = by_itself | restarted | trap | begun
        if cpu.watch & WATCH_CODE != 0:
            alone |= cpu.eflags & EFLAGS_RF
        index = 0
        if alone == 0 and cpu.shadow == 0 and cpu.probe_skip == 0:
            outcome, index = next_block(cpu, ram, code, blocks, uops, details)
            if outcome != OK:
                outcome = handle_fault(cpu, ram, blocks, details, EDGE_SYSTEM + outcome, 0)
                if outcome != OK:
                    break
                continue
        if index > SCRATCH_BLOCK and fits(cpu, blocks[index]):
            cpu.eflags &= ~EFLAGS_RF  # as its first instruction begins
            cpu.held = 0
            edge, index = run_blocks(cpu, ram, board, code, blocks, uops, details, index, 0)
        else:
            edge, index = run_single(cpu, ram, board, code, blocks, uops, details)
            cpu.probe_skip = 0
        # 3. How it ended. An instruction that asked for it is executed again by itself; under TF, every iteration traps.
        restarted = int(edge == EDGE_FAULT + RESTART)
        if edge > EDGE_SYSTEM:
            outcome = handle_fault(cpu, ram, blocks, details, edge, index)
            if restarted == 1 and trap != 0 and cpu.halted == 0:
                cpu.debug_pending |= DR6_BS
        elif trap != 0 and cpu.world == world and steps(cpu, uops[cpu.uop_index]):
            cpu.debug_pending |= DR6_BS
        if outcome == OK and debug_trap_waits(cpu):
            outcome = take_debug_trap(cpu, ram)
        if outcome == OK and cpu.mark != 0:
            outcome = MARK
        if outcome == OK and board.attention != 0:
            outcome = BOARD
        if outcome != OK:
            break
        if by_itself == 1:
            break
    settle(cpu, code, blocks, details)
    return outcome

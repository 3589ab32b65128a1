"""The interrupt controllers of a virtual machine: its PICs, and its APICs if it has any.

The APICs are in the record of the interpreter's processor, which reaches their registers in memory: no RAM answers there,
so that each access of a guest that runs directly is interpreted. Without APICs the record may be any processor's that has
none. What the processor's own loop does between instructions (core/run.py) is done here at each exit.
"""

from ...core.board import board_advance, board_deadline, interrupt_acknowledge, interrupt_pending
from ...core.interrupt_inputs import follow_lines, requested_beside_apic, watch_timer
from ...core.jit import entry, kernel
from ...core.layout import NEVER
from ...core.local_apic import acknowledge_apic, advance_timer, timer_due, timer_expiry
from ...core.pit import next_change, tick_of_clock


@kernel
def advance_devices(cpu, board, now):
    """Let the virtual devices and the local APIC's timer see a tick; whether they request an interrupt."""
    if cpu.apic.enabled == 0:
        board_advance(board, now)
        return interrupt_pending(board) == 1
    watch_timer(cpu, board)
    board_advance(board, now)
    advance_timer(cpu.apic, now)
    follow_lines(cpu, board)
    return requested_beside_apic(cpu, board)


@kernel
def next_deadline(cpu, board):
    """The next tick at which a virtual device or the local APIC's timer can raise an interrupt, NEVER if none."""
    if cpu.apic.enabled == 0:
        return board_deadline(board)
    watch_timer(cpu, board)
    return min(board_deadline(board), timer_due(cpu.apic))


@kernel
def next_event(cpu, board):
    """The next tick at which time alone does anything to a virtual device that somebody could notice, NEVER if none.

    Deadlines are not all: OUT of the timer moves whether its interrupt is masked or not, and so does the local APIC's count.
    """
    due = board.device_deadline
    clock = next_change(board.pit[0])
    if clock != NEVER:
        due = min(due, tick_of_clock(clock, board.ticks_per_second))
    if cpu.apic.enabled == 1 and cpu.apic.count_from != 0:
        due = min(due, timer_expiry(cpu.apic))
    return due


@kernel
def take_request(cpu, board):
    """Acknowledge the interrupt that is requested: its vector."""
    if cpu.apic.enabled == 1 and cpu.apic.deliverable >= 0:
        return acknowledge_apic(cpu.apic)
    return interrupt_acknowledge(board)


@entry
def virtual_advance(apics, boards, now):
    """`advance_devices`, from Python."""
    return int(advance_devices(apics[0], boards[0], now))


@entry
def virtual_deadline(apics, boards):
    """`next_deadline`, from Python."""
    return next_deadline(apics[0], boards[0])


@entry
def virtual_event(apics, boards):
    """`next_event`, from Python."""
    return next_event(apics[0], boards[0])


@entry
def virtual_acknowledge(apics, boards):
    """`take_request`, from Python."""
    return take_request(apics[0], boards[0])

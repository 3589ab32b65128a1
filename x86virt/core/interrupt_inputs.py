"""Where the processor's interrupts come from: the local APIC, or the PICs directly.

Without a local APIC, and while it is disabled (by IA32_APIC_BASE or by the spurious-interrupt vector register), INTR of the
PICs reaches the core as on a processor without one. Else it arrives at LINT0 and at input 0 of the I/O APIC, whose
entries say what becomes of it; IRQ 0 of the board is input 2, the other lines have their own numbers (MP specification
1.4, section 3.6.2). The lines are looked at between instructions.
"""

from .board import interrupt_acknowledge, interrupt_pending
from .io_apic import passes_external, see_inputs
from .jit import inline, kernel
from .local_apic import (
    DELIVERY_SHIFT,
    EXTERNAL,
    FIXED,
    LEVEL_TRIGGERED,
    LVT_LINT0,
    MASKED,
    REMOTE_IRR,
    SOFTWARE_ENABLED,
    accept,
    accept_local,
    acknowledge_apic,
)

TIMER_INPUT = 2
CASCADE_LINES = 1 << 0 | 1 << 2  # the PIC's IRQ 0, which is another input, and IRQ 2, which is none


@inline
def inputs_of(lines):
    """The board's interrupt lines as inputs of the I/O APIC; input 0 is not among them."""
    return (lines & ~CASCADE_LINES) | (lines & 1) << TIMER_INPUT


@kernel
def lines_moved(cpu, board):
    """Whether the APICs have something to look at."""
    io_apic = cpu.io_apic
    levels = inputs_of(board.irq_levels) | interrupt_pending(board)
    return board.irq_rises | io_apic.changed | (levels ^ io_apic.levels) != 0


@kernel
def see_local_input(apic, rose, level):
    """INTR at LINT0, if its local vector makes a fixed interrupt of it."""
    entry = apic.local_vector[LVT_LINT0]
    if entry & MASKED != 0 or (entry >> DELIVERY_SHIFT) & 7 != FIXED:
        return
    if entry & LEVEL_TRIGGERED == 0:
        if rose != 0:
            accept_local(apic, LVT_LINT0)
    elif level != 0 and entry & REMOTE_IRR == 0 and accept(apic, entry & 0xFF, 1):
        apic.local_vector[LVT_LINT0] |= REMOTE_IRR


@kernel
def follow_lines(cpu, board):
    """Bring what happened on the board's interrupt lines since the last look to the APICs."""
    if not lines_moved(cpu, board):
        return
    io_apic = cpu.io_apic
    external = interrupt_pending(board)
    levels = inputs_of(board.irq_levels) | external
    rises = inputs_of(board.irq_rises) | (levels & ~io_apic.levels)
    board.irq_rises = 0
    see_local_input(cpu.apic, rises & 1, external)
    see_inputs(io_apic, cpu.apic, levels, rises)


@inline
def watch_timer(cpu, board):
    """IRQ 0 is a deadline of the board's while its input is not masked, whatever the PICs do with it."""
    board.timer_watched = int(cpu.io_apic.entry_low[TIMER_INPUT] & MASKED == 0)


@kernel
def external_passes(cpu):
    """Whether INTR of the PICs is the processor's own while the APIC is enabled."""
    apic = cpu.apic
    if apic.spurious & SOFTWARE_ENABLED == 0:
        return True
    entry = apic.local_vector[LVT_LINT0]
    if entry & MASKED == 0 and (entry >> DELIVERY_SHIFT) & 7 == EXTERNAL:
        return True
    return passes_external(cpu.io_apic, apic)


@kernel
def requested_beside_apic(cpu, board):
    """`interrupt_requested` on a processor whose local APIC is enabled."""
    if cpu.apic.deliverable >= 0:
        return True
    return interrupt_pending(board) == 1 and external_passes(cpu)


@inline
def interrupt_requested(cpu, board):
    """Whether an external interrupt asks for service, masked or not by EFLAGS.IF; in a replay only one that is given."""
    if cpu.timer_pending == 1:
        return True
    if board.frozen == 1:
        return False
    if cpu.apic.enabled == 0:
        return interrupt_pending(board) == 1
    return requested_beside_apic(cpu, board)


@kernel
def acknowledge(cpu, board):
    """Take the external interrupt that waits: its vector. The host's own timer comes first, then the local APIC."""
    if cpu.timer_pending == 1:
        cpu.timer_pending = 0
        return cpu.timer_vector
    if cpu.apic.enabled == 1 and cpu.apic.deliverable >= 0:
        return acknowledge_apic(cpu.apic)
    return interrupt_acknowledge(board)

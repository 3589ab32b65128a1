"""The processor and the VMM's handlers, in turns, until something is left to Python."""

from ...core.jit import call_machine_code, entry, kernel
from ...core.layout import HOOK
from ..layout import HOST_TIMER_VECTOR
from .crossing import arrive, leave, vector_of
from .exits import ATTENTION, DONE
from .hypercalls import hypercall
from .interface import HYPERCALL_VECTOR
from .layout import IRQ_VECTOR, N_IRQS
from .physical import physical_interrupt
from .time import host_timer
from .traps import handle_trap

# What is wanted of the entry: turns of processor and VMM, or one part of a single exit.
TURNS, ARRIVE, SERVE, LEAVE = range(4)


@kernel
def serve(cpu, ram, xen, domains, frames, channels, board):
    """Do what an exit asks for."""
    vector = xen.vector
    if vector == HYPERCALL_VECTOR:
        hypercall(cpu, ram, xen, domains, frames, channels)
    elif vector == HOST_TIMER_VECTOR:
        host_timer(cpu, ram, xen, domains, frames, channels)
    elif vector >= IRQ_VECTOR and vector < IRQ_VECTOR + N_IRQS:
        physical_interrupt(cpu, ram, xen, domains, frames, channels, board, vector - IRQ_VECTOR)
    else:
        handle_trap(cpu, ram, xen, domains, frames, channels, board, vector)


@entry
def run_domains(state, ram, boards, codes, blocks, uops, details, shared, xens, domains, frames, channels, part, run):
    """Run the processor (`run` is what `machine_code` gave for it) and handle exits; with another `part`, only that.

    An outcome of the processor, among them HOOK for an exit that is a strategy's hook's; or one of exits.py.
    """
    cpu = state[0]
    exits = shared[0]
    xen = xens[0]
    board = boards[0]
    if part == ARRIVE:
        arrive(cpu, ram, xen, domains, exits)
        return DONE
    if part == SERVE:
        serve(cpu, ram, xen, domains, frames, channels, board)
        return DONE
    if part == LEAVE:
        return leave(cpu, ram, xen, domains, frames, channels, board, exits)
    while True:
        outcome = call_machine_code(run, state, ram, boards, codes, blocks, uops, details, 0)
        if outcome != HOOK or exits.in_code[vector_of(cpu)] == 0:
            return outcome
        arrive(cpu, ram, xen, domains, exits)
        serve(cpu, ram, xen, domains, frames, channels, board)
        outcome = leave(cpu, ram, xen, domains, frames, channels, board, exits)
        if outcome != DONE:
            return outcome
        if board.attention != 0:
            return ATTENTION

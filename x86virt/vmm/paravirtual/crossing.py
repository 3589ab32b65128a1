"""The ways between a domain and its VMM: what brought control here, and who goes on.

A trap is an ordinary delivery through the VMM's IDT, in the address space of the domain that runs. Its frame is kept in the
domain's record while the VMM has control; to go on, the processor executes the IRETD in the VMM's region.
"""

from ...core.flags import set_eflags
from ...core.jit import kernel, load_32
from ...isa.registers import EAX, EFLAGS_FIXED, ESP
from ..exits import ERROR_CODE_VECTORS
from ..layout import ENTRIES, ENTRY_BYTES, IDLE, STACK_TOP, VMM_BASE
from .bounce import deliver_upcall, failsafe
from .exits import CRASHED, DONE, ENDED, FIRST_HYPERCALL, UNKNOWN_HYPERCALL
from .frame_counts import load_base
from .frames import load_data_segments, put_frame, take_frame
from .interface import HYPERCALL_VECTOR, N_HYPERCALLS
from .records import ASK_CRASH, ASK_FLUSH
from .schedule import IDLE as NOBODY_RUNS
from .schedule import NOTHING_LEFT, way_out
from .shared_info import upcall_due

FIRST_ENTRY = VMM_BASE + ENTRIES
WITH_ERROR_CODE = sum(1 << vector for vector in ERROR_CODE_VECTORS)
FRAME_BYTES = 20  # EIP, CS, EFLAGS, ESP, SS
IDLE_STACK = VMM_BASE + STACK_TOP - FRAME_BYTES


@kernel
def vector_of(cpu):
    """The vector whose entry the processor stands at."""
    return (cpu.rip - FIRST_ENTRY) // ENTRY_BYTES


@kernel
def arrive(cpu, ram, xen, domains, exits):
    """Note the vector and the error code; the frame goes from the VMM's stack to the record of the domain that ran."""
    vector = vector_of(cpu)
    xen.vector = vector
    exits.begun = cpu.ticks
    xen.arrived = cpu.ticks
    exits.entry = vector
    if vector == HYPERCALL_VECTOR:
        exits.entry = UNKNOWN_HYPERCALL
        if cpu.gpr[EAX] < N_HYPERCALLS:
            exits.entry = FIRST_HYPERCALL + cpu.gpr[EAX]
    stack = cpu.gpr[ESP] - VMM_BASE
    xen.error = 0
    if vector < 32 and WITH_ERROR_CODE >> vector & 1 == 1:
        xen.error = load_32(ram, stack)
        stack += 4
    xen.fault_eip = load_32(ram, stack)
    xen.from_guest = int(stack + FRAME_BYTES == STACK_TOP)
    if xen.from_guest == 1:
        take_frame(cpu, ram, domains[xen.current], vector)


@kernel
def idle(cpu):
    """No domain can run: the VMM waits for an interrupt."""
    cpu.rip = VMM_BASE + IDLE
    cpu.gpr[ESP] = IDLE_STACK
    set_eflags(cpu, EFLAGS_FIXED)


@kernel
def count_exit(cpu, exits):
    """Count the exit and its ticks; the start of the first domain is none."""
    entry = exits.entry
    if entry < 0:
        return
    if exits.count[entry] == 0:
        exits.order[exits.order_count] = entry
        exits.order_count += 1
    exits.count[entry] += 1
    exits.ticks[entry] += cpu.ticks - exits.begun


@kernel
def prepare_return(cpu, ram, xen, domains, frames, channels):
    """Make a domain ready to go on: pending events are delivered, and its data segments loaded, if it has such."""
    ready = False
    while not ready:
        if upcall_due(ram, domains, xen.current) != 0:
            deliver_upcall(cpu, ram, xen, domains, frames, channels)
        ready = xen.asked & ASK_CRASH != 0 or load_data_segments(cpu, ram, xen, domains, frames, channels)
        if not ready:
            failsafe(cpu, ram, xen, domains, frames, channels)


@kernel
def go_on(cpu, ram, xen, domains, frames, channels, board):
    """What was asked for, then the domain that runs next: DONE, ENDED if there is none any more, or CRASHED."""
    if xen.asked & ASK_CRASH != 0:
        return CRASHED
    if xen.asked & ASK_FLUSH != 0:
        load_base(cpu, ram, xen, domains)
        xen.asked &= ~ASK_FLUSH
    next_one = way_out(cpu, ram, xen, domains, frames, channels, board)
    if next_one == NOTHING_LEFT:
        return ENDED
    if next_one == NOBODY_RUNS:
        idle(cpu)
    else:
        prepare_return(cpu, ram, xen, domains, frames, channels)
        if xen.asked & ASK_CRASH != 0:
            return CRASHED
        put_frame(cpu, ram, domains[xen.current])
    xen.asked = 0
    return DONE


@kernel
def leave(cpu, ram, xen, domains, frames, channels, board, exits):
    """The way out of the VMM, and the end of the exit's account."""
    outcome = go_on(cpu, ram, xen, domains, frames, channels, board)
    cpu.retired_limit = exits.retired_limit
    count_exit(cpu, exits)
    return outcome

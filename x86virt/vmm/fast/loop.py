"""The processor and the VMM's jitted exits, in turns, until something is left to Python."""

from ...core.jit import call_machine_code, entry, kernel
from ...core.layout import HOOK
from .adapted_writes import adapted_write
from .crossing import WITH_ERROR_CODE, count_exit, is_of, read_exit, resume
from .delivery import reflect_exception, system_call, through_open_gate
from .exits import can_commit, commit, note_path
from .instructions import emulate
from .memory import page_fault
from .ports import access_port_directly
from .records import (
    ACCESS_PORT,
    ATTENTION,
    DONE,
    EMULATE,
    ENTER_SYSTEM_CALL,
    FAULT_BEGUN,
    FILL,
    LEAVE_UNIT,
    LIGHT_DISPATCH,
    NO_ACTION,
    NOT_FAST,
    NOTHING,
    OPEN_GATE,
    REFLECT_EXCEPTION,
    REST,
    RESUME,
    SIMULATE_WRITE,
    TRAP_DISPATCH,
)
from .translated import leave_unit, undo


@kernel
def handle(cpu, ram, exits, links, control, index, board):
    """One exit: DONE, REST, or NOT_FAST with nothing changed."""
    if read_exit(cpu, ram, exits, index) == NOT_FAST:
        return NOT_FAST
    action = exits.actions[exits.entry]
    if action == NO_ACTION:
        return NOT_FAST
    if exits.serving == 1 and exits.direct == 0:
        note_path(exits, LIGHT_DISPATCH)
    elif exits.serving == 0:
        note_path(exits, TRAP_DISPATCH)
    if action == EMULATE:
        return emulate(cpu, ram, exits, links, control, index, board)
    if action == FILL:
        return page_fault(cpu, ram, exits, links, control)
    if action == OPEN_GATE:
        return through_open_gate(cpu, ram, exits, links)
    if action == REFLECT_EXCEPTION:
        return reflect_exception(cpu, ram, exits, links, is_of(WITH_ERROR_CODE, exits.entry))
    if action == ENTER_SYSTEM_CALL:
        return system_call(cpu, ram, exits)
    if action == LEAVE_UNIT:
        return leave_unit(cpu, exits)
    if action == SIMULATE_WRITE:
        return adapted_write(cpu, ram, exits, links, control, index)
    if action == ACCESS_PORT:
        return access_port_directly(cpu, ram, exits, board, index)
    if action == NOTHING and can_commit(exits):
        commit(cpu, exits)
        return DONE
    return NOT_FAST


@entry
def run_exits(state, ram, boards, codes, blocks, uops, details, shared, chains, controls, indices, devices, apics, run):
    """Run the processor (`run` is what `machine_code` gave for it) and handle exits.

    An outcome of the processor, among them HOOK for an exit that is left to Python; RESUME; ATTENTION; FAULT_BEGUN. `chains` and
    `controls` are the shadow's records, `indices` that of the translation cache; `apics` the record with the guest's APICs.
    """
    cpu = state[0]
    exits = shared[0]
    links = chains[0]
    control = controls[0]
    index = indices[0]
    board = devices[0]
    while True:
        outcome = call_machine_code(run, state, ram, boards, codes, blocks, uops, details, 0)
        if outcome != HOOK:
            return outcome
        what = handle(cpu, ram, exits, links, control, index, board)
        if what == NOT_FAST:
            undo(cpu, exits)
            return HOOK
        if what == REST:
            return FAULT_BEGUN
        if board.attention != 0 or not resume(cpu, ram, exits, index, board, apics[0]):
            return RESUME
        count_exit(cpu, exits)
        if board.attention != 0:
            return ATTENTION

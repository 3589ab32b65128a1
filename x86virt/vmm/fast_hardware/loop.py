"""The processor and the VMM's jitted exits, in turns, until something is left to Python."""

from ...core.charge import charge
from ...core.extensions import vm_entry
from ...core.jit import call_machine_code, entry, kernel, load_32
from ...core.layout import HOOK, OK, VMX_SUCCEEDED
from ...isa.events import EVENT_SYS_LAPIC_MMIO_ACCESS, EVENT_VMX_ENTRY
from ...isa.vmx import VMCS_GUEST_INTERRUPTIBILITY, VMCS_GUEST_RFLAGS, VMCS_GUEST_RIP
from ..fast.apics import advance_devices, next_deadline
from ..nested.records import STALE
from .handlers import handle
from .records import ATTENTION, DONE, ENTRY_FAILED, FILL_BEGUN, NOT_FAST, REST, RESUME, STEPPED
from .shadowed import settle
from .structure import count_exit, end_account, write


@kernel
def write_back(cpu, ram, exits):
    """What has changed of the guest's registers (HardwareCpu.write_back)."""
    if exits.knows == STEPPED:
        write(cpu, ram, VMCS_GUEST_RIP, exits.rip)
        if exits.blocking_ended == 1:
            write(cpu, ram, VMCS_GUEST_INTERRUPTIBILITY, exits.blocking)
    elif exits.drops_flag == 1:
        write(cpu, ram, VMCS_GUEST_RFLAGS, exits.rflags)
    exits.written = 1


@kernel
def must_leave_to_python(ram, exits, board):
    """Whether something comes before the guest that Python sees to: a device's request, the A20 gate, a flush."""
    if board.attention != 0 or board.a20_closed != 0:
        return True
    return exits.nests == 1 and load_32(ram, STALE) != 0


@kernel
def waits(cpu, exits, board, apics):
    """Whether an interrupt of the virtual devices waits, or a window for one is asked for."""
    return advance_devices(apics, board, cpu.ticks) or exits.window_asked == 1


@kernel
def see_to_time(cpu, exits, board, apics):
    """The guest goes on: until the next deadline of a device or the end of the run (Ways.see_to_time)."""
    deadline = next_deadline(apics, board)
    if cpu.timer != deadline:
        charge(cpu, EVENT_SYS_LAPIC_MMIO_ACCESS, 1)
        cpu.timer = deadline
        cpu.timer_pending = 0
    cpu.retired_limit = exits.retired_limit


@kernel
def resume(cpu, ram, exits, control, board, apics):
    """Enter the guest again (HardwareCrossings.resume): DONE; RESUME if Python must, for an event or a flush comes first."""
    if must_leave_to_python(ram, exits, board):
        return RESUME
    write_back(cpu, ram, exits)
    if exits.nests == 0:
        settle(cpu, ram, exits, control)
    if waits(cpu, exits, board, apics):
        return RESUME
    see_to_time(cpu, exits, board, apics)
    charge(cpu, EVENT_VMX_ENTRY, 1)
    cpu.held = 0
    if vm_entry(cpu, ram, 0) != OK or cpu.vmx.result != VMX_SUCCEEDED:
        return ENTRY_FAILED
    return DONE


@entry
def run_hardware_exits(state, ram, boards, codes, blocks, uops, details, shared, chains, controls, devices, apics, run):
    """Run the processor (`run` is what `machine_code` gave for it) and handle exits.

    An outcome of the processor, among them HOOK for an exit that is left to Python; RESUME; ATTENTION; FILL_BEGUN;
    ENTRY_FAILED. `chains` and `controls` are the shadow's records.
    """
    cpu = state[0]
    exits = shared[0]
    links = chains[0]
    control = controls[0]
    board = devices[0]
    while True:
        outcome = call_machine_code(run, state, ram, boards, codes, blocks, uops, details, 0)
        if outcome != HOOK:
            return outcome
        what = handle(cpu, ram, exits, links, control, board, apics[0])
        if what == NOT_FAST:
            return HOOK
        if what == REST:
            what = FILL_BEGUN
        else:
            what = resume(cpu, ram, exits, control, board, apics[0])
        if what != DONE:
            end_account(cpu, exits)
            return what
        count_exit(cpu, exits)
        if board.attention != 0:
            return ATTENTION

"""The processor and the VMM's jitted exits, in turns, until something is left to Python."""

from ...core.charge import charge
from ...core.extensions import vm_entry
from ...core.jit import call_machine_code, entry, kernel, load_32
from ...core.layout import HOOK, OK, VMX_SUCCEEDED
from ...isa.events import EVENT_SYS_LAPIC_MMIO_ACCESS, EVENT_VMX_ENTRY
from ...isa.vmx import VMCS_GUEST_INTERRUPTIBILITY, VMCS_GUEST_RIP
from ..fast.apics import advance_devices, next_deadline
from ..nested.records import STALE
from .handlers import handle
from .records import ATTENTION, DONE, ENTRY_FAILED, NOT_FAST, RESUME, STEPPED
from .structure import count_exit, end_account, write


@kernel
def write_back(cpu, ram, exits):
    """What has changed of the guest's registers (HardwareCpu.write_back)."""
    if exits.knows == STEPPED:
        write(cpu, ram, VMCS_GUEST_RIP, exits.rip)
        if exits.blocking_ended == 1:
            write(cpu, ram, VMCS_GUEST_INTERRUPTIBILITY, exits.blocking)
    exits.written = 1


@kernel
def resume(cpu, ram, exits, board, apics):
    """Enter the guest again (HardwareCrossings.resume): DONE; RESUME if Python must, for an event or a flush comes first."""
    if board.attention != 0 or board.a20_closed != 0 or (exits.nests == 1 and load_32(ram, STALE) != 0):
        return RESUME
    write_back(cpu, ram, exits)
    if advance_devices(apics, board, cpu.ticks) or exits.window_asked == 1:
        return RESUME
    deadline = next_deadline(apics, board)
    if cpu.timer != deadline:
        charge(cpu, EVENT_SYS_LAPIC_MMIO_ACCESS, 1)
        cpu.timer = deadline
        cpu.timer_pending = 0
    cpu.retired_limit = exits.retired_limit
    charge(cpu, EVENT_VMX_ENTRY, 1)
    cpu.held = 0
    if vm_entry(cpu, ram, 0) != OK or cpu.vmx.result != VMX_SUCCEEDED:
        return ENTRY_FAILED
    return DONE


@entry
def run_hardware_exits(state, ram, boards, codes, blocks, uops, details, shared, devices, apics, run):
    """Run the processor (`run` is what `machine_code` gave for it) and handle exits.

    An outcome of the processor, among them HOOK for an exit that is left to Python; RESUME; ATTENTION; ENTRY_FAILED.
    """
    cpu = state[0]
    exits = shared[0]
    board = devices[0]
    while True:
        outcome = call_machine_code(run, state, ram, boards, codes, blocks, uops, details, 0)
        if outcome != HOOK or handle(cpu, ram, exits, board, apics[0]) == NOT_FAST:
            return outcome
        what = resume(cpu, ram, exits, board, apics[0])
        if what != DONE:
            end_account(cpu, exits)
            return what
        count_exit(cpu, exits)
        if board.attention != 0:
            return ATTENTION

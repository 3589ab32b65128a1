"""The processor and the jitted exits of a VMM on SVM, in turns, until something is left to Python (loop.py: of VT-x)."""

from ...core.charge import charge
from ...core.extensions import run_guest
from ...core.jit import call_machine_code, entry, kernel
from ...core.layout import HOOK, OK, ROOT
from ...isa.events import EVENT_SVM_VMRUN
from ...isa.registers import EAX
from ...isa.svm import VMCB_INTERRUPT_SHADOW, VMCB_RAX, VMCB_RIP
from ..hardware.svm_layout import VMCB
from .loop import must_leave_to_python, see_to_time, waits
from .records import ATTENTION, DONE, ENTRY_FAILED, NOT_FAST, RESUME, STEPPED
from .structure import count_exit, end_account
from .svm_handlers import svm_handle
from .svm_structure import write


@kernel
def svm_write_back(cpu, ram, exits):
    """What has changed of the guest's registers (HardwareCpu.write_back)."""
    if exits.knows == STEPPED:
        write(cpu, ram, VMCB_RIP, exits.rip)
        if exits.blocking_ended == 1:
            write(cpu, ram, VMCB_INTERRUPT_SHADOW, exits.blocking)
    exits.written = 1


@kernel
def svm_resume(cpu, ram, exits, board, apics):
    """Enter the guest again (HardwareCrossings.resume, SvmControl.enter): DONE; RESUME if Python must."""
    if must_leave_to_python(ram, exits, board):
        return RESUME
    svm_write_back(cpu, ram, exits)
    if waits(cpu, exits, board, apics):
        return RESUME
    see_to_time(cpu, exits, board, apics)
    write(cpu, ram, VMCB_RAX, cpu.gpr[EAX])
    charge(cpu, EVENT_SVM_VMRUN, 1)
    if run_guest(cpu, ram, VMCB) != OK or cpu.world == ROOT:
        return ENTRY_FAILED
    return DONE


@entry
def run_svm_exits(state, ram, boards, codes, blocks, uops, details, shared, chains, controls, devices, apics, run):
    """Run the processor (`run` is what `machine_code` gave for it) and handle exits.

    An outcome of the processor, among them HOOK for an exit that is left to Python; RESUME; ATTENTION; ENTRY_FAILED.
    """
    cpu = state[0]
    exits = shared[0]
    board = devices[0]
    while True:
        outcome = call_machine_code(run, state, ram, boards, codes, blocks, uops, details, 0)
        if outcome != HOOK or svm_handle(cpu, ram, exits, board) == NOT_FAST:
            return outcome
        what = svm_resume(cpu, ram, exits, board, apics[0])
        if what != DONE:
            end_account(cpu, exits)
            return what
        count_exit(cpu, exits)
        if board.attention != 0:
            return ATTENTION

"""What the hooks of a VMM on SVM do for accesses to ports and for nested page faults (svm_reasons.py, hardware_vmm.py).

Without decode assists the length of any other instruction is only known once it is decoded, which is left to Python.
"""

from ...core.jit import inline, kernel
from ...isa.registers import EAX, EFLAGS_RF, EFLAGS_TF, PF_I, PF_W
from ...isa.svm import (
    EVENT_VALID,
    EXIT_IOIO,
    EXIT_NPF,
    IO_IN,
    IO_PORT_SHIFT,
    IO_SIZE_SHIFT,
    IO_STRING,
    VMCB_EXIT_CODE,
    VMCB_EXIT_INFO_1,
    VMCB_EXIT_INFO_2,
    VMCB_EXIT_INT_INFO,
    VMCB_INTERRUPT_SHADOW,
    VMCB_RAX,
    VMCB_RFLAGS,
    VMCB_RIP,
)
from ...isa.vmx import EXIT_EPT_VIOLATION, EXIT_IO_INSTRUCTION
from ..fast.exits import charge_items
from ..nested.fill import fill, is_hole
from .handlers import access_port, charge_nested_work, port_is_handled
from .records import (
    ACCESS_PORT,
    DONE,
    EXIT_DISPATCH,
    KNOWS_FLAGS,
    KNOWS_NOTHING,
    NESTED_FILL,
    NO_ACTION,
    NOT_FAST,
    STEPPED,
)
from .structure import begin_account, note_fill
from .svm_structure import peek, read

HIGH = 4  # of a quadword
INPUT_SHIFT, STRING_SHIFT, PORT_SHIFT = 3, 4, 16  # of the qualification of an I/O instruction


@kernel
def port_qualification(information):
    """EXITINFO1 of IN or OUT as VT-x has it."""
    size = (information >> IO_SIZE_SHIFT) & 7
    kind = (information & IO_IN) << INPUT_SHIFT | int(information & IO_STRING != 0) << STRING_SHIFT
    return (size - 1) | kind | ((information >> IO_PORT_SHIFT) & 0xFFFF) << PORT_SHIFT


@inline
def is_fetch(information):
    """Whether a nested page fault is a fetch's."""
    return information & PF_W == 0 and information & PF_I != 0


# -- which exits are handled here ---------------------------------------------------------------------------------------


@kernel
def fault_is_handled(cpu, ram):
    """Whether a nested page fault is: memory is there, and RF is not in the way."""
    information = peek(cpu, ram, VMCB_EXIT_INFO_1)
    if is_fetch(information) and peek(cpu, ram, VMCB_RFLAGS) & EFLAGS_RF != 0:
        return False
    if peek(cpu, ram, VMCB_EXIT_INFO_2 + HIGH) != 0:
        return False
    return not is_hole(ram, peek(cpu, ram, VMCB_EXIT_INFO_2), int(information & PF_W != 0))


@kernel
def svm_action_for(cpu, ram, exits):
    """What is done for the exit at hand; NO_ACTION leaves it to Python. Nothing is charged or changed."""
    if cpu.rip != exits.host_rip or peek(cpu, ram, VMCB_EXIT_INT_INFO) & EVENT_VALID != 0:
        return NO_ACTION
    code = peek(cpu, ram, VMCB_EXIT_CODE)
    if code == EXIT_IOIO:
        exits.reason = EXIT_IO_INSTRUCTION
        if peek(cpu, ram, VMCB_RFLAGS) & EFLAGS_TF != 0:
            return NO_ACTION
        if not port_is_handled(port_qualification(peek(cpu, ram, VMCB_EXIT_INFO_1))):
            return NO_ACTION
    elif code == EXIT_NPF:
        exits.reason = EXIT_EPT_VIOLATION
        if not fault_is_handled(cpu, ram):
            return NO_ACTION
    else:
        return NO_ACTION
    return exits.actions[exits.reason]


# -- the exits ----------------------------------------------------------------------------------------------------------


@kernel
def svm_port(cpu, ram, exits, board):
    """IN or OUT of a virtual device; EXITINFO2 says where the next instruction is."""
    qualification = port_qualification(read(cpu, ram, VMCB_EXIT_INFO_1))
    behind = read(cpu, ram, VMCB_EXIT_INFO_2)
    read(cpu, ram, VMCB_RIP)  # the length is the difference
    cpu.gpr[EAX] = read(cpu, ram, VMCB_RAX)
    charge_items(cpu, exits, EXIT_DISPATCH, 1)
    access_port(cpu, exits, board, qualification)
    read(cpu, ram, VMCB_RIP)
    exits.rip = behind
    exits.blocking_ended = read(cpu, ram, VMCB_INTERRUPT_SHADOW) & 1
    exits.blocking = 0
    cpu.retired += 1
    exits.rflags = read(cpu, ram, VMCB_RFLAGS)
    exits.knows = STEPPED


@kernel
def svm_fill_nested(cpu, ram, exits):
    """A nested page fault: the entry that lacked (HardwareVm.fill_nested)."""
    information = read(cpu, ram, VMCB_EXIT_INFO_1)
    gpa = read(cpu, ram, VMCB_EXIT_INFO_2)
    read(cpu, ram, VMCB_EXIT_INFO_2 + HIGH)
    read(cpu, ram, VMCB_EXIT_INFO_1 + HIGH)
    cpu.gpr[EAX] = read(cpu, ram, VMCB_RAX)
    charge_items(cpu, exits, EXIT_DISPATCH, 1)
    visited = fill(cpu, ram, gpa, int(information & PF_W != 0))
    charge_items(cpu, exits, NESTED_FILL, visited)
    charge_nested_work(cpu, ram, exits)
    note_fill(cpu, exits)
    if is_fetch(information):
        exits.rflags = read(cpu, ram, VMCB_RFLAGS)
        exits.knows = KNOWS_FLAGS


@kernel
def svm_handle(cpu, ram, exits, board):
    """One exit: DONE, or NOT_FAST with nothing changed."""
    action = svm_action_for(cpu, ram, exits)
    if action == NO_ACTION:
        return NOT_FAST
    begin_account(cpu, exits)
    exits.knows = KNOWS_NOTHING
    exits.blocking_ended = 0
    exits.written = 0
    read(cpu, ram, VMCB_EXIT_CODE)
    read(cpu, ram, VMCB_EXIT_INT_INFO)
    if action == ACCESS_PORT:
        svm_port(cpu, ram, exits, board)
    else:
        svm_fill_nested(cpu, ram, exits)
    return DONE

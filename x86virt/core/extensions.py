"""The way to the virtual-machine extensions, VMX and SVM, which are compiled when a machine first uses them.

Their machine code is a third of the processor's, and most guests never need it. Each function here is the one of the same
name in another module, as the rest of the processor calls it: by way of core/extensions_entry.py.
"""

from ..isa.registers import CR4_VMXE
from ..isa.svm import EFER_SVME
from ..isa.vectors import UD
from .board import BOARD
from .code_layout import UOP
from .fault import raise_plain
from .jit import inline, kernel, late
from .layout import CPU, NESTED_OFF, ROOT

# What core/extensions_entry.py is asked for; the last five concern nested tables.
(
    VM_EXITS, INTERCEPTS, VMX_INSTRUCTIONS, SVM_INSTRUCTIONS, VMX_ENTRIES, SVM_RUNS, BOUNDARIES, LEAVING_AT_BOUNDARY,
    EVENTS, DOUBLE_FAULTS, TRIPLE_FAULTS, VMX_TASK_SWITCHES, SVM_TASK_SWITCHES, FREEZES,
    TABLES_IN_HOST, MARKS, POINTERS_IN_HOST, WALKS, PEEKS,
) = range(19)  # fmt: skip

_call = late("x86virt.core.extensions_entry", "extensions", CPU, bytes, BOARD, UOP, int, int, int, int)


# -- instructions -------------------------------------------------------------------------------------------------------


@kernel
def intercept(cpu, ram, board, u):
    """Whether the guest's controls intercept the instruction that follows (core/intercept.py)."""
    return _call(cpu, ram, board, u, INTERCEPTS, 0, 0, 0)


@kernel
def vmx_instruction(cpu, ram, u):
    """Execute an instruction of VMX (core/vmx_instructions.py). All are #UD before CR4.VMXE is set."""
    if cpu.world == ROOT and cpu.vmx.operation == 0 and cpu.cr4 & CR4_VMXE == 0:
        return raise_plain(cpu, UD)
    return _call(cpu, ram, 0, u, VMX_INSTRUCTIONS, 0, 0, 0)


@kernel
def svm_instruction(cpu, ram, u):
    """Execute an instruction of SVM (core/svm_instructions.py). All are #UD before EFER.SVME is set."""
    if cpu.efer & EFER_SVME == 0:
        return raise_plain(cpu, UD)
    return _call(cpu, ram, 0, u, SVM_INSTRUCTIONS, 0, 0, 0)


@kernel
def vm_entry(cpu, ram, launch):
    """VMLAUNCH and VMRESUME, in VMX root operation in ring 0 (core/vmx_entry.py)."""
    return _call(cpu, ram, 0, 0, VMX_ENTRIES, launch, 0, 0)


@kernel
def run_guest(cpu, ram, address):
    """VMRUN (core/svm_run.py)."""
    return _call(cpu, ram, 0, 0, SVM_RUNS, address, 0, 0)


# -- exits --------------------------------------------------------------------------------------------------------------


@kernel
def vm_exit(cpu, ram):
    """Leave the guest as `cpu.vm_exit` says (core/vm_exit.py)."""
    return _call(cpu, ram, 0, 0, VM_EXITS, 0, 0, 0)


@kernel
def guest_boundary(cpu, ram, board):
    """The boundary between two instructions of a guest (core/guest_boundary.py)."""
    return _call(cpu, ram, board, 0, BOUNDARIES, 0, 0, 0)


@kernel
def may_leave_at_boundary(cpu, board):
    """Whether the boundary between two instructions of a guest must be looked at (core/guest_boundary.py)."""
    return _call(cpu, 0, board, 0, LEAVING_AT_BOUNDARY, 0, 0, 0) == 1


@kernel
def event_exits(cpu):
    """1 if the event in `cpu.event_*` makes the guest exit instead of being delivered (core/event_exit.py)."""
    return _call(cpu, 0, 0, 0, EVENTS, 0, 0, 0)


@kernel
def double_fault_exits(cpu):
    """The same of the double fault that two events have made (core/event_exit.py)."""
    return _call(cpu, 0, 0, 0, DOUBLE_FAULTS, 0, 0, 0)


@kernel
def triple_fault_exits(cpu):
    """1 if the guest exits where a processor by itself would shut down (core/event_exit.py)."""
    return _call(cpu, 0, 0, 0, TRIPLE_FAULTS, 0, 0, 0)


@kernel
def task_switch_exits(cpu, selector, cause):
    """A task switch in VMX non-root operation (core/event_exit.py)."""
    return _call(cpu, 0, 0, 0, VMX_TASK_SWITCHES, selector, cause, 0)


@kernel
def svm_task_switch(cpu, selector, by_jump, by_return, by_event, flags):
    """A task switch in a guest of SVM (core/svm_exits.py)."""
    cause = int(by_jump) | int(by_return) << 1 | int(by_event) << 2
    return _call(cpu, 0, 0, 0, SVM_TASK_SWITCHES, selector, cause, flags)


@kernel
def svm_freeze_intercepted(cpu):
    """1 if a guest of SVM is left where FERR# freezes the processor (core/svm_exits.py)."""
    return _call(cpu, 0, 0, 0, FREEZES, 0, 0, 0)


# -- nested tables (core/nested.py) ---------------------------------------------------------------------------------------


@kernel
def table_in_host(cpu, ram, gla, level, gpa):
    """Where an entry of the guest's tables lies: (outcome, physical address)."""
    outcome = _call(cpu, ram, 0, 0, TABLES_IN_HOST, gla, level, gpa)
    return outcome, cpu.nested.result[0]


@kernel
def may_mark(cpu, ram, gla, level):
    """Whether the guest's entry that a walk found at a level may be written."""
    return _call(cpu, ram, 0, 0, MARKS, gla, level, 0)


@kernel
def pointers_in_host(cpu, ram, gpa):
    """Where the page-directory-pointer entries lie that a guest with extended page tables loads: (outcome, address)."""
    outcome = _call(cpu, ram, 0, 0, POINTERS_IN_HOST, gpa, 0, 0)
    return outcome, cpu.nested.result[0]


@kernel
def walk_two_dimensions(cpu, ram, gla, write, user, fetch, cached):
    """Walk the guest's and the nested tables (core/guest_walk.py): (outcome, physical address, rights)."""
    outcome = _call(cpu, ram, 0, 0, WALKS, gla, write | user << 1 | fetch << 2 | cached << 3, 0)
    return outcome, cpu.nested.result[0], cpu.nested.result[1]


@inline
def guest_to_host(cpu, ram, gpa):
    """The physical address of a guest-physical one, for a report: -1 if there is none; without any effect."""
    if cpu.nested_kind == NESTED_OFF:
        return gpa
    return _call(cpu, ram, 0, 0, PEEKS, gpa, 0, 0)

"""The virtual-machine extensions as one entry, which core/extensions.py calls by its address."""

from .event_exit import double_fault_exits, event_exits, task_switch_exits, triple_fault_exits
from .extensions import (
    BOUNDARIES,
    DOUBLE_FAULTS,
    EVENTS,
    INTERCEPTS,
    LEAVING_AT_BOUNDARY,
    MARKS,
    POINTERS_IN_HOST,
    SVM_INSTRUCTIONS,
    SVM_RUNS,
    SVM_TASK_SWITCHES,
    TABLES_IN_HOST,
    TRIPLE_FAULTS,
    VM_EXITS,
    VMX_ENTRIES,
    VMX_INSTRUCTIONS,
    VMX_TASK_SWITCHES,
    WALKS,
)
from .guest_boundary import guest_boundary, may_leave_at_boundary
from .guest_walk import walk_two_dimensions
from .intercept import intercept
from .jit import entry, kernel
from .nested import guest_to_host, may_mark, pointers_in_host, table_in_host
from .svm_exits import svm_freeze_intercepted, svm_task_switch
from .svm_instructions import svm_instruction
from .svm_run import run_guest
from .vm_exit import vm_exit
from .vmx_entry import vm_entry
from .vmx_instructions import vmx_instruction


@kernel
def walks(cpu, ram, operation, a, b, c):
    """What concerns nested tables; what is returned beside the outcome is left in `cpu.nested.result`."""
    result = cpu.nested.result
    if operation == WALKS:
        outcome, result[0], result[1] = walk_two_dimensions(cpu, ram, a, b & 1, (b >> 1) & 1, (b >> 2) & 1, b >> 3)
        return outcome
    if operation == TABLES_IN_HOST:
        outcome, result[0] = table_in_host(cpu, ram, a, b, c)
        return outcome
    if operation == MARKS:
        return may_mark(cpu, ram, a, b)
    if operation == POINTERS_IN_HOST:
        outcome, result[0] = pointers_in_host(cpu, ram, a)
        return outcome
    return guest_to_host(cpu, ram, a)


@kernel
def questions(cpu, operation, a, b, c):
    """What the processor asks as it delivers events and switches tasks."""
    if operation == EVENTS:
        return event_exits(cpu)
    if operation == DOUBLE_FAULTS:
        return double_fault_exits(cpu)
    if operation == TRIPLE_FAULTS:
        return triple_fault_exits(cpu)
    if operation == VMX_TASK_SWITCHES:
        return task_switch_exits(cpu, a, b)
    if operation == SVM_TASK_SWITCHES:
        return svm_task_switch(cpu, a, b & 1, (b >> 1) & 1, b >> 2, c)
    return svm_freeze_intercepted(cpu)


@entry
def extensions(cpu, ram, board, u, operation, a, b, c):
    """Do one operation of core/extensions.py."""
    if operation == INTERCEPTS:
        return intercept(cpu, ram, board, u)
    if operation == VM_EXITS:
        return vm_exit(cpu, ram)
    if operation == VMX_INSTRUCTIONS:
        return vmx_instruction(cpu, ram, u)
    if operation == SVM_INSTRUCTIONS:
        return svm_instruction(cpu, ram, u)
    if operation == VMX_ENTRIES:
        return vm_entry(cpu, ram, a)
    if operation == SVM_RUNS:
        return run_guest(cpu, ram, a)
    if operation == BOUNDARIES:
        return guest_boundary(cpu, ram, board)
    if operation == LEAVING_AT_BOUNDARY:
        return int(may_leave_at_boundary(cpu, board))
    if operation >= TABLES_IN_HOST:
        return walks(cpu, ram, operation, a, b, c)
    return questions(cpu, operation, a, b, c)

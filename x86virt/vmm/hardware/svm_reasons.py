"""Exit codes of SVM in the terms of VMX, which the VMM's hooks go by (AMD publication 24593, appendix C).

What only decode assists would tell (the register of a MOV CR, the address of INVLPG) is left to the VMM's decoder.
"""

from typing import TYPE_CHECKING

from ...isa import svm
from ...isa.vectors import (
    BP,
    DB,
    KIND_EXCEPTION,
    KIND_EXTERNAL,
    KIND_NMI,
    KIND_SOFTWARE_EXCEPTION,
    KIND_SOFTWARE_INTERRUPT,
    OF,
    PF,
)
from ..exits import ERROR_CODE_VECTORS, Exit
from .nested import ept_qualification

if TYPE_CHECKING:
    from .svm_control import SvmControl

M32 = 0xFFFFFFFF
KINDS = {
    svm.TYPE_INTERRUPT: KIND_EXTERNAL,
    svm.TYPE_NMI: KIND_NMI,
    svm.TYPE_SOFTWARE_INTERRUPT: KIND_SOFTWARE_INTERRUPT,
}
BY_CALL, BY_IRET, BY_JUMP, BY_EVENT = range(4)  # sources of a task switch
DR6_CONDITIONS = 0xE00F


def exit_of(control: "SvmControl") -> Exit:
    """The exit that the VMCB describes."""
    code = control.code()
    exit = Exit(svm.exit_event_name(code).removeprefix("exit."), -1)
    exit.vectoring = interrupted_event(control)
    if svm.EXIT_EXCEPTION <= code < svm.FIRST_INTERCEPT_1:
        describe_exception(control, exit, code - svm.EXIT_EXCEPTION)
    elif svm.EXIT_CR_READ <= code < svm.EXIT_DR_READ:
        exit.qualification = code & 0xF | int(code < svm.EXIT_CR_WRITE) << 4
    elif svm.EXIT_DR_READ <= code < svm.EXIT_EXCEPTION:
        exit.qualification = code & 0xF | int(code < svm.EXIT_DR_WRITE) << 4
    elif code in DESCRIBED:
        DESCRIBED[code](control, exit)
    return exit


def interrupted_event(control: "SvmControl") -> tuple[int, int, int | None] | None:
    """EXITINTINFO: vector, kind and error code of the event that was being delivered."""
    information = control.get(svm.VMCB_EXIT_INT_INFO)
    if not information & svm.EVENT_VALID:
        return None
    vector = information & svm.EVENT_VECTOR
    kind = KINDS.get(information >> svm.EVENT_TYPE_SHIFT & svm.EVENT_TYPE, KIND_EXCEPTION)
    if kind == KIND_EXCEPTION and vector in (BP, OF):
        kind = KIND_SOFTWARE_EXCEPTION
    error = control.get(svm.VMCB_EXIT_INT_ERROR) if information & svm.EVENT_ERROR_VALID else None
    return vector, kind, error


def describe_exception(control: "SvmControl", exit: Exit, vector: int) -> None:
    """An intercepted exception: its error code, the linear address of a page fault, what DR6 says of #DB."""
    exit.vector = vector
    exit.kind = KIND_SOFTWARE_EXCEPTION if vector in (BP, OF) else KIND_EXCEPTION
    if vector in ERROR_CODE_VECTORS:
        exit.error = control.get(svm.VMCB_EXIT_INFO_1)
    if vector == PF:
        exit.gla = control.get(svm.VMCB_EXIT_INFO_2)
    elif vector == DB:
        exit.qualification = control.read("guest_dr6") & DR6_CONDITIONS


def describe_port(control: "SvmControl", exit: Exit) -> None:
    """IN, OUT, INS or OUTS: EXITINFO2 is the address behind it."""
    information = control.get(svm.VMCB_EXIT_INFO_1)
    size = information >> svm.IO_SIZE_SHIFT & 7
    exit.qualification = size - 1 | (information & svm.IO_IN) << 3 | information >> svm.IO_PORT_SHIFT << 16
    exit.qualification |= int(information & svm.IO_STRING != 0) << 4 | int(information & svm.IO_REP != 0) << 5
    exit.length = control.get(svm.VMCB_EXIT_INFO_2) - control.read("guest_rip") & M32


def describe_register(control: "SvmControl", exit: Exit) -> None:
    """RDMSR or WRMSR."""
    exit.reason = "msr_write" if control.get(svm.VMCB_EXIT_INFO_1) & 1 else "msr_read"


def describe_nested_fault(control: "SvmControl", exit: Exit) -> None:
    """A nested page fault, as an EPT violation."""
    information = control.get(svm.VMCB_EXIT_INFO_1)
    exit.gpa = control.get(svm.VMCB_EXIT_INFO_2) | control.get(svm.VMCB_EXIT_INFO_2 + 4) << 32
    exit.qualification = ept_qualification(information | control.get(svm.VMCB_EXIT_INFO_1 + 4) << 32)


def describe_task_switch(control: "SvmControl", exit: Exit) -> None:
    """A task switch: the TSS's selector, and what asked for it."""
    information = control.get(svm.VMCB_EXIT_INFO_2 + 4) << 32
    source = BY_IRET if information & svm.TASK_BY_IRET else BY_JUMP if information & svm.TASK_BY_JUMP else BY_CALL
    if source == BY_CALL and exit.vectoring is not None:
        source = BY_EVENT
    exit.qualification = control.get(svm.VMCB_EXIT_INFO_1) | source << 30


def describe_interrupt(control: "SvmControl", exit: Exit) -> None:
    """An external interrupt, which the VMM takes now."""
    exit.vector = control.take_interrupt()


DESCRIBED = {
    svm.EXIT_IOIO: describe_port,
    svm.EXIT_MSR: describe_register,
    svm.EXIT_NPF: describe_nested_fault,
    svm.EXIT_TASK_SWITCH: describe_task_switch,
    svm.EXIT_INTR: describe_interrupt,
}

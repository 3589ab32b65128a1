"""What a VM exit says: the exit-information fields that its reason has, each a VMREAD (SDM volume 3, section 27.2)."""

from typing import TYPE_CHECKING

from ...isa.registers import AR_DPL_SHIFT
from ...isa.vectors import DB, PF
from ...isa.vmx import (
    EXIT_REASONS,
    INTERRUPTION_ERROR_CODE,
    INTERRUPTION_VALID,
    TYPE_MASK,
    TYPE_SHIFT,
    TYPE_SOFTWARE_INTERRUPT,
)
from ..exits import Exit

if TYPE_CHECKING:
    from .vtx import VtxControl

NAMES = {reason.number: reason.name for reason in EXIT_REASONS}
BASIC_REASON = 0xFFFF
PLAIN = frozenset({"interrupt_window", "nmi_window", "triple_fault", "preemption_timer", "ept_misconfiguration"})
WITH_QUALIFICATION = frozenset(
    {"task_switch", "invlpg", "cr_access", "dr_access", "io_instruction", "gdtr_idtr", "ldtr_tr"}
)
WITH_INFORMATION = frozenset({"gdtr_idtr", "ldtr_tr"})
STRING_PORT, LMSW_IN_MEMORY = 1 << 4, 3 << 4 | 1 << 6


def read_exit(control: "VtxControl") -> Exit:
    """Why the guest was left; RIP and CPL are for reports and cost nothing."""
    reason = control.read("exit_reason") & BASIC_REASON
    exit = Exit(NAMES[reason], -1)
    exit.rip = control.stored("guest_rip")
    exit.cpl = control.stored("guest_ss_access_rights") >> AR_DPL_SHIFT & 3
    if exit.reason == "exception_or_nmi":
        read_exception(control, exit)
    elif exit.reason == "external_interrupt":
        exit.vector = control.read("vm_exit_interruption_information") & 0xFF
    elif exit.reason == "ept_violation":
        exit.qualification = control.read("exit_qualification")
        exit.gpa = control.read("guest_physical_address")
        read_vectoring(control, exit)
    elif exit.reason not in PLAIN:
        read_instruction(control, exit)
    return exit


def read_exception(control: "VtxControl", exit: Exit) -> None:
    """An exception: vector, type, error code; for a page fault the address, for #DB what met its conditions."""
    information = control.read("vm_exit_interruption_information")
    exit.vector, exit.kind = information & 0xFF, information >> TYPE_SHIFT & TYPE_MASK
    if information & INTERRUPTION_ERROR_CODE:
        exit.error = control.read("vm_exit_interruption_error_code")
    if exit.vector == PF:
        exit.gla = control.read("exit_qualification")
    elif exit.vector == DB:
        exit.qualification = control.read("exit_qualification")
    if exit.kind >= TYPE_SOFTWARE_INTERRUPT:
        exit.length = control.read("vm_exit_instruction_length")
    read_vectoring(control, exit)


def read_vectoring(control: "VtxControl", exit: Exit) -> None:
    """The event that was being delivered, and the length of the instruction that raised it."""
    information = control.read("idt_vectoring_information")
    if not information & INTERRUPTION_VALID:
        return
    kind = information >> TYPE_SHIFT & TYPE_MASK
    error = control.read("idt_vectoring_error_code") if information & INTERRUPTION_ERROR_CODE else None
    exit.vectoring = information & 0xFF, kind, error
    if kind >= TYPE_SOFTWARE_INTERRUPT:
        exit.length = control.read("vm_exit_instruction_length")


def has_linear_address(exit: Exit) -> bool:
    """Whether an instruction that exits has a memory operand whose address the processor tells: INS, OUTS, LMSW."""
    if exit.reason == "io_instruction":
        return bool(exit.qualification & STRING_PORT)
    return exit.reason == "cr_access" and exit.qualification & LMSW_IN_MEMORY == LMSW_IN_MEMORY


def read_instruction(control: "VtxControl", exit: Exit) -> None:
    """An instruction: its length, and what more its reason tells."""
    exit.length = control.read("vm_exit_instruction_length")
    if exit.reason in WITH_QUALIFICATION:
        exit.qualification = control.read("exit_qualification")
    if exit.reason == "invlpg":
        exit.gla = exit.qualification
    elif exit.reason == "task_switch":
        read_vectoring(control, exit)
    elif has_linear_address(exit):
        exit.gla = control.read("guest_linear_address")
    if exit.reason in WITH_INFORMATION:
        exit.information = control.read("vm_exit_instruction_information")

"""VM exits: why, the guest's state saved, the host's loaded (SDM volume 3, chapter 27). #VMEXIT is SVM's own.

Nothing of the instruction that exits was committed; `cpu.rip` is what the guest's RIP is saved as. The transition is
charged to the guest's mode, in which it begins.
"""

from ..isa.events import EVENT_EXIT_EXCEPTION_OR_NMI
from ..isa.exits import EXIT_OF_REASON
from ..isa.registers import EFLAGS_RF
from ..isa.vmx import (
    ABORT_HOST_PDPTE,
    ABORT_LOADING_MSR,
    ABORT_SAVING_MSR,
    ENTRY_FAILURE,
    EXIT_EPT_MISCONFIGURATION,
    EXIT_EPT_VIOLATION,
    EXIT_EXCEPTION_OR_NMI,
    EXIT_EXTERNAL_INTERRUPT,
    EXIT_INTERRUPT_WINDOW,
    EXIT_NMI_WINDOW,
    EXIT_PREEMPTION_TIMER,
    EXIT_TRIPLE_FAULT,
    INTERRUPTION_VALID,
    REGION_ABORT,
    TYPE_HARDWARE_EXCEPTION,
    TYPE_MASK,
    TYPE_SHIFT,
    VMCS_ENTRY_INTERRUPTION,
    VMCS_EXIT_ERROR_CODE,
    VMCS_EXIT_INSTRUCTION_INFORMATION,
    VMCS_EXIT_INSTRUCTION_LENGTH,
    VMCS_EXIT_INTERRUPTION,
    VMCS_EXIT_MSR_LOAD_ADDRESS,
    VMCS_EXIT_MSR_LOAD_COUNT,
    VMCS_EXIT_MSR_STORE_ADDRESS,
    VMCS_EXIT_MSR_STORE_COUNT,
    VMCS_EXIT_REASON,
    VMCS_GUEST_LINEAR_ADDRESS,
    VMCS_GUEST_PHYSICAL_ADDRESS,
    VMCS_QUALIFICATION,
    VMCS_VECTORING,
    VMCS_VECTORING_ERROR_CODE,
    VMX_MISC,
)
from .address_space import enter_address_space
from .charge import charge
from .event_exit import vectoring_information
from .flags import get_eflags
from .halt import wake
from .handler_entry import flags_image
from .jit import inline, kernel, store_32
from .layout import OK, SHUTDOWN, SVM_GUEST
from .page_directory_pointers import load_pointers, pae_paging
from .svm_exits import svm_exit
from .vm_exit_load import load_host
from .vm_exit_save import save_guest
from .vmcs import note_vmcs_written, reference_region, vmcs_read, vmcs_read_64, vmcs_write, vmcs_write_64
from .vmx_check_controls import msr_area_allowed
from .vmx_msr_areas import DONE, load_msr_area, store_msr_area

QUALIFICATION_NMI_UNBLOCKING = 1 << 12
MISC_MSRS_SHIFT, MSRS_IN_UNIT = 25, 512  # the recommended length of MSR areas, in IA32_VMX_MISC[27:25]


# -- what is recorded (section 27.2) --------------------------------------------------------------------------------------


@inline
def comes_from_instruction(information):
    """Whether the type of an interruption or of a vectored event is that of INT n, INT1, INT3 or INTO."""
    kind = (information >> TYPE_SHIFT) & TYPE_MASK
    return information & INTERRUPTION_VALID != 0 and kind > TYPE_HARDWARE_EXCEPTION


@kernel
def is_between_instructions(reason):
    """Whether an exit comes between two instructions."""
    if reason == EXIT_EXTERNAL_INTERRUPT or reason == EXIT_PREEMPTION_TIMER:
        return True
    return reason == EXIT_INTERRUPT_WINDOW or reason == EXIT_NMI_WINDOW or reason == EXIT_TRIPLE_FAULT


@kernel
def set_length(cpu):
    """The exit's instruction length (section 27.2.5): 0 where the manual leaves it undefined.

    It is that of the instruction which exits, switches tasks, or raises a software exception; and, if a delivery was
    interrupted, of the INT n, INT1, INT3 or INTO that began it, here or in the VM entry's injection.
    """
    information = cpu.vm_exit
    information.instruction_length = 0
    if information.vectoring & INTERRUPTION_VALID != 0:
        if comes_from_instruction(information.vectoring):
            information.instruction_length = cpu.instruction_length
        return
    if information.reason == EXIT_EXCEPTION_OR_NMI and not comes_from_instruction(information.interruption):
        return
    if not is_between_instructions(information.reason):
        information.instruction_length = cpu.instruction_length


@kernel
def note_unblocking(cpu):
    """Bit 12 of an EPT violation's qualification: it came of an IRET that had ended blocking by NMI (table 27-7)."""
    if cpu.vm_exit.reason == EXIT_EPT_VIOLATION and cpu.nmi_unblocked == 1 and cpu.idt_vector < 0:
        cpu.vm_exit.qualification |= QUALIFICATION_NMI_UNBLOCKING


@kernel
def record_exit(cpu, ram):
    """Write the exit-information fields, and take back the injection of the last VM entry."""
    information = cpu.vm_exit
    vmcs_write(cpu, ram, VMCS_EXIT_REASON, information.reason)
    vmcs_write(cpu, ram, VMCS_QUALIFICATION, information.qualification)
    vmcs_write(cpu, ram, VMCS_GUEST_LINEAR_ADDRESS, information.gla)
    vmcs_write_64(cpu, ram, VMCS_GUEST_PHYSICAL_ADDRESS, information.gpa)
    vmcs_write(cpu, ram, VMCS_EXIT_INTERRUPTION, information.interruption)
    vmcs_write(cpu, ram, VMCS_EXIT_ERROR_CODE, information.interruption_error)
    vmcs_write(cpu, ram, VMCS_VECTORING, information.vectoring)
    vmcs_write(cpu, ram, VMCS_VECTORING_ERROR_CODE, information.vectoring_error)
    vmcs_write(cpu, ram, VMCS_EXIT_INSTRUCTION_LENGTH, information.instruction_length)
    vmcs_write(cpu, ram, VMCS_EXIT_INSTRUCTION_INFORMATION, information.instruction_information)
    vmcs_write(cpu, ram, VMCS_ENTRY_INTERRUPTION, vmcs_read(cpu, ram, VMCS_ENTRY_INTERRUPTION) & ~INTERRUPTION_VALID)


@kernel
def flags_to_save(cpu):
    """RFLAGS with RF as section 27.3.3 says: of an event as its delivery would push it, 0 for an instruction that exits."""
    reason = cpu.vm_exit.reason
    if reason == EXIT_EXCEPTION_OR_NMI or cpu.idt_vector >= 0:
        return flags_image(cpu)
    if is_between_instructions(reason):
        return get_eflags(cpu)
    if reason == EXIT_EPT_VIOLATION or reason == EXIT_EPT_MISCONFIGURATION:
        return get_eflags(cpu) | EFLAGS_RF
    return get_eflags(cpu) & ~EFLAGS_RF


# -- the procedure --------------------------------------------------------------------------------------------------------


@kernel
def abort(cpu, ram, indicator):
    """A VMX abort (section 27.7): the region tells why, and the processor shuts down."""
    store_32(ram, cpu.vmx.place + REGION_ABORT, indicator)
    note_vmcs_written(cpu, ram)
    return SHUTDOWN


@inline
def area_usable(cpu, address, count):
    """An MSR area as VM entry has found it, unless the region was written since; no longer than IA32_VMX_MISC recommends."""
    most = (((cpu.msr.vmx_capability[VMX_MISC] >> MISC_MSRS_SHIFT) & 7) + 1) * MSRS_IN_UNIT
    return count == 0 or (count <= most and msr_area_allowed(cpu, address, count))


@kernel
def return_to_host(cpu, ram):
    """Load the host's state and MSRs: OK, or SHUTDOWN after an abort."""
    load_host(cpu, ram)
    enter_address_space(cpu)
    if pae_paging(cpu.cr0, cpu.cr4) and load_pointers(cpu, ram, cpu.cr3) != OK:
        return abort(cpu, ram, ABORT_HOST_PDPTE)
    address = vmcs_read_64(cpu, ram, VMCS_EXIT_MSR_LOAD_ADDRESS)
    count = vmcs_read(cpu, ram, VMCS_EXIT_MSR_LOAD_COUNT)
    if not area_usable(cpu, address, count) or load_msr_area(cpu, ram, address, count) != DONE:
        return abort(cpu, ram, ABORT_LOADING_MSR)
    return OK


@kernel
def leave_non_root(cpu, ram):
    """A VM exit of VMX as `cpu.vm_exit` says."""
    charge(cpu, EVENT_EXIT_EXCEPTION_OR_NMI + EXIT_OF_REASON[cpu.vm_exit.reason], 1)
    reference_region(cpu)
    # 1. Why (section 27.2).
    set_length(cpu)
    note_unblocking(cpu)
    record_exit(cpu, ram)
    # 2. The guest's state (27.3) and MSRs (27.4).
    save_guest(cpu, ram, flags_to_save(cpu))
    note_vmcs_written(cpu, ram)
    if cpu.halted == 1:
        wake(cpu)
    address = vmcs_read_64(cpu, ram, VMCS_EXIT_MSR_STORE_ADDRESS)
    count = vmcs_read(cpu, ram, VMCS_EXIT_MSR_STORE_COUNT)
    if not area_usable(cpu, address, count) or store_msr_area(cpu, ram, address, count) != DONE:
        return abort(cpu, ram, ABORT_SAVING_MSR)
    # 3. The host's (27.5 and 27.6).
    return return_to_host(cpu, ram)


@kernel
def vm_exit(cpu, ram):
    """Leave the guest as `cpu.vm_exit` says: OK, the processor is in the host; SHUTDOWN if that failed."""
    vectoring_information(cpu)
    if cpu.world == SVM_GUEST:
        outcome = svm_exit(cpu, ram)
    else:
        outcome = leave_non_root(cpu, ram)
    cpu.idt_vector = -1
    return outcome


@kernel
def entry_failure(cpu, ram, reason, qualification):
    """A VM entry that failed while it loaded the guest (section 26.7): the host's state is loaded as by an exit."""
    charge(cpu, EVENT_EXIT_EXCEPTION_OR_NMI + EXIT_OF_REASON[reason], 1)
    cpu.vm_exit.reason = reason | ENTRY_FAILURE
    cpu.vm_exit.qualification = qualification
    vmcs_write(cpu, ram, VMCS_EXIT_REASON, reason | ENTRY_FAILURE)
    vmcs_write(cpu, ram, VMCS_QUALIFICATION, qualification)
    note_vmcs_written(cpu, ram)
    return return_to_host(cpu, ram)

"""#VMEXIT: the way from a guest back to its host (AMD publication 24593, section 15.6).

Why the guest is left stands in `cpu.vm_exit`: exit code, EXITINFO1 as `qualification`, EXITINFO2 as `gpa`; the event whose
delivery was interrupted in `cpu.idt_vector` and the fields behind it.
"""

import numpy as np

from ..isa.events import EVENT_EXIT_MSR_WRITE, EVENT_ID
from ..isa.svm import (
    EVENT_ERROR_VALID,
    EVENT_TYPE_SHIFT,
    EVENT_VALID,
    EXIT_EXCEPTION,
    EXIT_INVALID,
    EXIT_MSR,
    EXIT_NPF,
    FEATURE_NRIP_SAVE,
    TYPE_EXCEPTION,
    TYPE_INTERRUPT,
    TYPE_NMI,
    TYPE_SOFTWARE_INTERRUPT,
    VMCB_CONTROL_END,
    VMCB_EVENT_INJECTION,
    VMCB_EXIT_CODE,
    VMCB_EXIT_INFO_1,
    VMCB_EXIT_INFO_2,
    VMCB_EXIT_INT_ERROR,
    VMCB_EXIT_INT_INFO,
    VMCB_NEXT_RIP,
    exit_event_name,
)
from ..isa.vectors import DF, KIND_EXTERNAL, KIND_NMI, KIND_SOFTWARE_INTERRUPT
from .address_space import enter_address_space
from .charge import charge
from .halt import wake
from .jit import kernel
from .layout import NESTED_OFF, ROOT
from .mode import set_context, set_cpl
from .svm_guest import save_guest_state, touch_save_area
from .svm_host import load_host_state
from .svm_vmcb import get_32, page_for_writing, put_32, put_64, touch

# The ledger event of an exit by its code, then those of NPF and of INVALID.
PLACE_OF_NPF, PLACE_OF_INVALID = 0x90, 0x91
EVENT_OF_CODE = np.zeros(PLACE_OF_INVALID + 1, np.int64)
for _place in range(PLACE_OF_INVALID + 1):
    _code = {PLACE_OF_NPF: EXIT_NPF, PLACE_OF_INVALID: EXIT_INVALID}.get(_place, _place)
    EVENT_OF_CODE[_place] = EVENT_ID.get(exit_event_name(_code), -1)


@kernel
def exit_event(cpu):
    """The ledger event that counts this exit."""
    code = cpu.vm_exit.reason
    if code == EXIT_NPF:
        return EVENT_OF_CODE[PLACE_OF_NPF]
    if code == EXIT_INVALID:
        return EVENT_OF_CODE[PLACE_OF_INVALID]
    if code == EXIT_MSR and cpu.vm_exit.qualification == 1:
        return EVENT_EXIT_MSR_WRITE
    return EVENT_OF_CODE[code]


@kernel
def event_type(kind):
    """The type of an event in EXITINTINFO: INT1, INT3 and INTO raise exceptions, only INT n is a software interrupt."""
    if kind == KIND_EXTERNAL:
        return TYPE_INTERRUPT
    if kind == KIND_NMI:
        return TYPE_NMI
    if kind == KIND_SOFTWARE_INTERRUPT:
        return TYPE_SOFTWARE_INTERRUPT
    return TYPE_EXCEPTION


@kernel
def interrupted_event(cpu):
    """EXITINTINFO's low half: the event that was being delivered; an intercepted #DF stands for both of its own."""
    if cpu.idt_vector < 0 or cpu.vm_exit.reason == EXIT_EXCEPTION + DF or cpu.vm_exit.reason == EXIT_INVALID:
        return 0
    information = EVENT_VALID | event_type(cpu.idt_kind) << EVENT_TYPE_SHIFT | cpu.idt_vector
    if cpu.idt_has_error == 1:
        information |= EVENT_ERROR_VALID
    return information


@kernel
def write_exit_information(cpu, ram, place):
    """The fields of the control area that say why."""
    put_64(ram, place, VMCB_EXIT_CODE, cpu.vm_exit.reason)
    put_64(ram, place, VMCB_EXIT_INFO_1, cpu.vm_exit.qualification)
    put_64(ram, place, VMCB_EXIT_INFO_2, cpu.vm_exit.gpa)
    information = interrupted_event(cpu)
    put_32(ram, place, VMCB_EXIT_INT_INFO, information)
    put_32(ram, place, VMCB_EXIT_INT_ERROR, cpu.idt_error * int(information & EVENT_ERROR_VALID != 0))
    put_32(ram, place, VMCB_EVENT_INJECTION, get_32(ram, place, VMCB_EVENT_INJECTION) & ~EVENT_VALID)
    if (cpu.msr.svm_features >> FEATURE_NRIP_SAVE) & 1 != 0:
        put_64(ram, place, VMCB_NEXT_RIP, cpu.svm.next_rip)
    cpu.svm.next_rip = 0


@kernel
def enter_host(cpu, ram):
    """Load the host and go on there with GIF clear: OK, or SHUTDOWN where the host's state is no good."""
    # 1. Inside the processor: no intercepts, no offset, no virtual interrupt, the host's address space.
    cpu.svm.gif = 0
    cpu.svm.v_irq = 0
    cpu.svm.v_intr_masking = 0
    cpu.svm.asid = 0
    cpu.svm.nested_paging = 0
    cpu.guest_tsc_offset = 0
    cpu.nested_kind = NESTED_OFF
    cpu.world = ROOT
    # 2. Nothing of the guest's last instruction waits any more.
    cpu.shadow = 0
    if cpu.halted == 1:
        wake(cpu)
    cpu.debug_hits = 0
    cpu.debug_pending = 0
    cpu.idt_vector = -1
    # 3. The host.
    outcome = load_host_state(cpu, ram)
    set_cpl(cpu, 0)
    set_context(cpu)
    cpu.address_space = 0
    enter_address_space(cpu)
    return outcome


@kernel
def svm_exit(cpu, ram):
    """#VMEXIT: record why, save the guest, load the host."""
    charge(cpu, exit_event(cpu), 1)
    touch(cpu, cpu.svm.vmcb, VMCB_CONTROL_END)
    touch_save_area(cpu)
    place = page_for_writing(cpu, ram, cpu.svm.vmcb)
    write_exit_information(cpu, ram, place)
    save_guest_state(cpu, ram, place)
    return enter_host(cpu, ram)


@kernel
def refuse_guest(cpu, ram):
    """VMEXIT_INVALID of a VMRUN: nothing of the guest was loaded, and nothing is saved."""
    cpu.vm_exit.reason = EXIT_INVALID
    cpu.vm_exit.qualification = 0
    cpu.vm_exit.gpa = 0
    charge(cpu, exit_event(cpu), 1)
    write_exit_information(cpu, ram, page_for_writing(cpu, ram, cpu.svm.vmcb))
    return enter_host(cpu, ram)

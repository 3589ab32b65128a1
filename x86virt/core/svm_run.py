"""VMRUN (AMD publication 24593, section 15.5, and volume 3, VMRUN)."""

from ..isa.registers import CR3_PAE_ADDRESS, CR4_PAE, CR4_PSE, EFER_NXE, EFLAGS_IF, PTE_ADDRESS
from ..isa.svm import (
    EVENT_ERROR_VALID,
    EVENT_TYPE,
    EVENT_TYPE_SHIFT,
    EVENT_VALID,
    EVENT_VECTOR,
    FEATURE_FLUSH_BY_ASID,
    FEATURE_NESTED_PAGING,
    TLB_CONTROL_ALL,
    TLB_CONTROL_NOTHING,
    TYPE_EXCEPTION,
    TYPE_INTERRUPT,
    TYPE_NMI,
    V_IGN_TPR,
    V_INTR_MASKING,
    V_INTR_PRIO,
    V_INTR_PRIO_SHIFT,
    V_IRQ,
    V_TPR,
    VMCB_CONTROL_END,
    VMCB_CR0,
    VMCB_CR3,
    VMCB_CR4,
    VMCB_CR_INTERCEPTS,
    VMCB_DR_INTERCEPTS,
    VMCB_EVENT_INJECTION,
    VMCB_EVENT_INJECTION_ERROR,
    VMCB_EXCEPTION_INTERCEPTS,
    VMCB_GUEST_ASID,
    VMCB_INTERCEPTS_1,
    VMCB_INTERCEPTS_2,
    VMCB_IOPM_BASE,
    VMCB_MSRPM_BASE,
    VMCB_NESTED_CONTROL,
    VMCB_NESTED_CR3,
    VMCB_TLB_CONTROL,
    VMCB_TSC_OFFSET,
    VMCB_VIRTUAL_INTERRUPT,
    VMCB_VIRTUAL_VECTOR,
)
from ..isa.vectors import (
    BP,
    KIND_EXCEPTION,
    KIND_EXTERNAL,
    KIND_NMI,
    KIND_SOFTWARE_EXCEPTION,
    KIND_SOFTWARE_INTERRUPT,
    NMI,
    OF,
)
from .address_space import enter_address_space, flush_address_space, flush_all_address_spaces
from .deliver import inject_event
from .jit import kernel
from .layout import NESTED_NPT, NESTED_OFF, OK, SVM_GUEST
from .page_directory_pointers import load_pointers, pae_paging
from .svm_checks import controls_allowed, guest_state_allowed, injection_allowed
from .svm_guest import load_guest_control, load_guest_registers, signed_quadword, touch_save_area
from .svm_host import save_host_state
from .svm_leave import refuse_guest
from .svm_vmcb import get_8, get_32, get_high, page_for_reading, touch


@kernel
def load_controls(cpu, ram, place):
    """Keep the controls of the VMCB in the processor."""
    svm = cpu.svm
    svm.cr_intercepts = get_32(ram, place, VMCB_CR_INTERCEPTS)
    svm.dr_intercepts = get_32(ram, place, VMCB_DR_INTERCEPTS)
    svm.exception_intercepts = get_32(ram, place, VMCB_EXCEPTION_INTERCEPTS)
    svm.intercepts_1 = get_32(ram, place, VMCB_INTERCEPTS_1)
    svm.intercepts_2 = get_32(ram, place, VMCB_INTERCEPTS_2)
    svm.iopm = (get_32(ram, place, VMCB_IOPM_BASE) & ~0xFFF) | get_high(ram, place, VMCB_IOPM_BASE) << 32
    svm.msrpm = (get_32(ram, place, VMCB_MSRPM_BASE) & ~0xFFF) | get_high(ram, place, VMCB_MSRPM_BASE) << 32
    svm.asid = get_32(ram, place, VMCB_GUEST_ASID)
    virtual = get_32(ram, place, VMCB_VIRTUAL_INTERRUPT)
    svm.v_tpr = virtual & V_TPR
    svm.v_irq = int(virtual & V_IRQ != 0)
    svm.v_intr_prio = (virtual >> V_INTR_PRIO_SHIFT) & V_INTR_PRIO
    svm.v_ign_tpr = int(virtual & V_IGN_TPR != 0)
    svm.v_intr_masking = int(virtual & V_INTR_MASKING != 0)
    svm.v_intr_vector = get_8(ram, place, VMCB_VIRTUAL_VECTOR)
    svm.nested_paging = 0
    if (cpu.msr.svm_features >> FEATURE_NESTED_PAGING) & 1 != 0:
        svm.nested_paging = get_8(ram, place, VMCB_NESTED_CONTROL) & 1
    svm.host_if = int(cpu.eflags & EFLAGS_IF != 0)
    svm.next_rip = 0


@kernel
def set_nested_paging(cpu, ram, place):
    """Nested paging translates as the host's paging mode does; the host's control registers are still loaded."""
    cpu.nested_kind = NESTED_OFF
    if cpu.svm.nested_paging == 0:
        return
    cpu.nested_kind = NESTED_NPT
    root = get_32(ram, place, VMCB_NESTED_CR3)
    if cpu.cr4 & CR4_PAE != 0:
        cpu.nested_levels = 3
        cpu.nested_root = root & CR3_PAE_ADDRESS
    else:
        cpu.nested_levels = 2
        cpu.nested_root = root & PTE_ADDRESS
    cpu.nested_large = int(cpu.cr4 & CR4_PSE != 0)
    cpu.nested_no_execute = int(cpu.efer & EFER_NXE != 0)


@kernel
def pointers_allowed(cpu, ram, place):
    """Without nested paging, PAE paging loads its four pointers now; a reserved bit in one is illegal state."""
    if cpu.svm.nested_paging == 1 or not pae_paging(get_32(ram, place, VMCB_CR0), get_32(ram, place, VMCB_CR4)):
        return True
    return load_pointers(cpu, ram, get_32(ram, place, VMCB_CR3)) == OK


@kernel
def obey_tlb_control(cpu, command):
    """TLB_CONTROL: without flush by ASID, whatever is not 0 empties everything (section 15.16.1)."""
    if command == TLB_CONTROL_NOTHING:
        return
    if command == TLB_CONTROL_ALL or (cpu.msr.svm_features >> FEATURE_FLUSH_BY_ASID) & 1 == 0:
        flush_all_address_spaces(cpu)
    else:
        flush_address_space(cpu, cpu.svm.asid)


@kernel
def injected_kind(kind, vector):
    """The kind of an injected event; vectors 3 and 4 as exceptions are those of INT3 and INTO, which look at a gate's DPL."""
    if kind == TYPE_INTERRUPT:
        return KIND_EXTERNAL
    if kind == TYPE_NMI:
        return KIND_NMI
    if kind != TYPE_EXCEPTION:
        return KIND_SOFTWARE_INTERRUPT
    if vector == BP or vector == OF:
        return KIND_SOFTWARE_EXCEPTION
    return KIND_EXCEPTION


@kernel
def inject(cpu, ram, event, error):
    """Deliver what EVENTINJ asks for, as the guest's first act (section 15.20); it is subject to no intercept itself."""
    kind = (event >> EVENT_TYPE_SHIFT) & EVENT_TYPE
    cpu.event_vector = event & EVENT_VECTOR
    if kind == TYPE_NMI:
        cpu.event_vector = NMI
    cpu.event_kind = injected_kind(kind, cpu.event_vector)
    cpu.event_has_error = int(event & EVENT_ERROR_VALID != 0)
    cpu.event_error = error * cpu.event_has_error
    cpu.instruction_length = 0
    return inject_event(cpu, ram)


@kernel
def enter_guest(cpu, ram, place):
    """Load a guest that was found legal, and begin it; its pointers are loaded already."""
    event = get_32(ram, place, VMCB_EVENT_INJECTION)
    error = get_32(ram, place, VMCB_EVENT_INJECTION_ERROR)
    set_nested_paging(cpu, ram, place)
    cpu.guest_tsc_offset = signed_quadword(ram, place, VMCB_TSC_OFFSET)
    cpu.world = SVM_GUEST
    cpu.svm.gif = 1
    load_guest_control(cpu, ram, place)
    load_guest_registers(cpu, ram, place)
    obey_tlb_control(cpu, get_8(ram, place, VMCB_TLB_CONTROL))
    cpu.address_space = cpu.svm.asid
    enter_address_space(cpu)
    if event & EVENT_VALID != 0:
        return inject(cpu, ram, event, error)
    return OK


@kernel
def run_guest(cpu, ram, address):
    """VMRUN of the VMCB at a physical address, once the instruction itself was found legal; `cpu.rip` is behind it."""
    # 1. Save the host.
    save_host_state(cpu, ram)
    # 2. The controls.
    cpu.svm.vmcb = address
    touch(cpu, address, VMCB_CONTROL_END)
    touch_save_area(cpu)
    place = page_for_reading(cpu, ram, address)
    load_controls(cpu, ram, place)
    # 3. The checks, the last of which loads something.
    allowed = controls_allowed(cpu, ram, place) and guest_state_allowed(cpu, ram, place) and injection_allowed(ram, place)
    if not allowed or not pointers_allowed(cpu, ram, place):
        return refuse_guest(cpu, ram)
    # 4. The guest.
    return enter_guest(cpu, ram, place)

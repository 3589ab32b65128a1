"""VM entry: what VMLAUNCH and VMRESUME perform (SDM volume 3, chapter 26)."""

from ..isa.vmx import (
    ERROR_ENTRY_BLOCKED_BY_MOV_SS,
    ERROR_ENTRY_CONTROLS,
    ERROR_ENTRY_HOST_STATE,
    ERROR_VMLAUNCH_NOT_CLEAR,
    ERROR_VMRESUME_NOT_LAUNCHED,
    EXIT_ENTRY_FAILURE_GUEST_STATE,
    EXIT_ENTRY_FAILURE_MSR_LOADING,
    INTERRUPTION_VALID,
    LAUNCH_CLEAR,
    LAUNCH_LAUNCHED,
    PROCESSOR_SECONDARY,
    QUALIFICATION_PDPTE,
    REGION_LAUNCH_STATE,
    SECONDARY_VPID,
    TYPE_MASK,
    TYPE_SHIFT,
    VMCS_CR0_MASK,
    VMCS_CR0_SHADOW,
    VMCS_CR3_TARGET0,
    VMCS_CR3_TARGET_COUNT,
    VMCS_CR4_MASK,
    VMCS_CR4_SHADOW,
    VMCS_ENTRY_CONTROLS,
    VMCS_ENTRY_INTERRUPTION,
    VMCS_ENTRY_MSR_LOAD_ADDRESS,
    VMCS_ENTRY_MSR_LOAD_COUNT,
    VMCS_EPT_POINTER,
    VMCS_EXCEPTION_BITMAP,
    VMCS_EXIT_CONTROLS,
    VMCS_IO_BITMAP_A,
    VMCS_IO_BITMAP_B,
    VMCS_MSR_BITMAPS,
    VMCS_PAGE_FAULT_MASK,
    VMCS_PAGE_FAULT_MATCH,
    VMCS_PIN_CONTROLS,
    VMCS_PROCESSOR_CONTROLS,
    VMCS_SECONDARY_CONTROLS,
    VMCS_VPID,
)
from .address_space import enter_address_space
from .intercept import set_vmx_intercepts
from .jit import kernel, store_32
from .layout import HOLDS_DEBUG, OK, VMX_NON_ROOT, VMX_SUCCEEDED
from .vm_exit import entry_failure
from .vmcs import launch_state, note_vmcs_written, reference_region, vmcs_read, vmcs_read_64
from .vmx_check_controls import controls_valid, host_state_valid
from .vmx_check_guest import STATE_VALID, guest_state_failure
from .vmx_inject import inject
from .vmx_load_guest import NO_TYPE, begin_time, guest_level, load_guest
from .vmx_msr_areas import DONE, load_msr_area
from .vmx_result import NO_VMCS, fail, fail_invalid
from .vmx_state import enter_code


@kernel
def take_controls(cpu, ram):
    """Take the VM-execution, VM-exit and VM-entry controls from the VMCS to where the processor looks at them."""
    vmx = cpu.vmx
    vmx.pin = vmcs_read(cpu, ram, VMCS_PIN_CONTROLS)
    vmx.processor = vmcs_read(cpu, ram, VMCS_PROCESSOR_CONTROLS)
    vmx.secondary = 0
    if vmx.processor & PROCESSOR_SECONDARY != 0:
        vmx.secondary = vmcs_read(cpu, ram, VMCS_SECONDARY_CONTROLS)
    vmx.exit_controls = vmcs_read(cpu, ram, VMCS_EXIT_CONTROLS)
    vmx.entry_controls = vmcs_read(cpu, ram, VMCS_ENTRY_CONTROLS)
    vmx.exception_bitmap = vmcs_read(cpu, ram, VMCS_EXCEPTION_BITMAP)
    vmx.page_fault_mask = vmcs_read(cpu, ram, VMCS_PAGE_FAULT_MASK)
    vmx.page_fault_match = vmcs_read(cpu, ram, VMCS_PAGE_FAULT_MATCH)
    vmx.cr0_mask = vmcs_read(cpu, ram, VMCS_CR0_MASK)
    vmx.cr4_mask = vmcs_read(cpu, ram, VMCS_CR4_MASK)
    vmx.cr0_shadow = vmcs_read(cpu, ram, VMCS_CR0_SHADOW)
    vmx.cr4_shadow = vmcs_read(cpu, ram, VMCS_CR4_SHADOW)
    vmx.cr3_targets = vmcs_read(cpu, ram, VMCS_CR3_TARGET_COUNT)
    for number in range(4):
        vmx.cr3_target[number] = vmcs_read(cpu, ram, VMCS_CR3_TARGET0 + number)
    take_addresses(cpu, ram)


@kernel
def take_addresses(cpu, ram):
    """The structures that the controls make use of."""
    vmx = cpu.vmx
    vmx.io_bitmap_a = vmcs_read_64(cpu, ram, VMCS_IO_BITMAP_A)
    vmx.io_bitmap_b = vmcs_read_64(cpu, ram, VMCS_IO_BITMAP_B)
    vmx.msr_bitmaps = vmcs_read_64(cpu, ram, VMCS_MSR_BITMAPS)
    vmx.ept_pointer = vmcs_read_64(cpu, ram, VMCS_EPT_POINTER)
    vmx.vpid = 0
    if vmx.secondary & SECONDARY_VPID != 0:
        vmx.vpid = vmcs_read(cpu, ram, VMCS_VPID) & 0xFFFF


@kernel
def enter_guest(cpu, ram):
    """The rest of a VM entry whose controls and host state are valid: an outcome; if it fails, the host goes on."""
    cpu.vmx.result = VMX_SUCCEEDED
    # 1. Checks on the guest state (26.3.1).
    qualification = guest_state_failure(cpu, ram)
    if qualification != STATE_VALID:
        return entry_failure(cpu, ram, EXIT_ENTRY_FAILURE_GUEST_STATE, qualification)
    information = vmcs_read(cpu, ram, VMCS_ENTRY_INTERRUPTION)
    kind = NO_TYPE
    if information & INTERRUPTION_VALID != 0:
        kind = (information >> TYPE_SHIFT) & TYPE_MASK
    # 2. The guest state (26.3.2).
    if not load_guest(cpu, ram, kind):
        return entry_failure(cpu, ram, EXIT_ENTRY_FAILURE_GUEST_STATE, QUALIFICATION_PDPTE)
    # 3. MSRs (26.4).
    count = vmcs_read(cpu, ram, VMCS_ENTRY_MSR_LOAD_COUNT)
    failed = load_msr_area(cpu, ram, vmcs_read_64(cpu, ram, VMCS_ENTRY_MSR_LOAD_ADDRESS), count)
    if failed != DONE:
        return entry_failure(cpu, ram, EXIT_ENTRY_FAILURE_MSR_LOADING, failed)
    # 4. The guest begins.
    store_32(ram, cpu.vmx.place + REGION_LAUNCH_STATE, LAUNCH_LAUNCHED)
    note_vmcs_written(cpu, ram)
    cpu.world = VMX_NON_ROOT
    begin_time(cpu, ram)
    set_vmx_intercepts(cpu)
    enter_code(cpu, guest_level(cpu))
    enter_address_space(cpu)
    # 5. Event injection (26.5).
    if kind == NO_TYPE:
        return OK
    return inject(cpu, ram, information, kind)


@kernel
def vm_entry(cpu, ram, launch):
    """VMLAUNCH (`launch` 1) and VMRESUME, executed in VMX root operation in ring 0: OK or SHUTDOWN.

    OK: the guest runs, or VMfail is in the flags, or the entry failed later and the host goes on as behind a VM exit.
    """
    # 1. Basic checks (26.1).
    if cpu.vmx.current == NO_VMCS:
        fail_invalid(cpu)
        return OK
    if cpu.held == HOLDS_DEBUG:
        fail(cpu, ram, ERROR_ENTRY_BLOCKED_BY_MOV_SS)
        return OK
    if launch == 1 and launch_state(cpu, ram) != LAUNCH_CLEAR:
        fail(cpu, ram, ERROR_VMLAUNCH_NOT_CLEAR)
        return OK
    if launch == 0 and launch_state(cpu, ram) != LAUNCH_LAUNCHED:
        fail(cpu, ram, ERROR_VMRESUME_NOT_LAUNCHED)
        return OK
    # 2. Controls and host state (26.2).
    reference_region(cpu)
    take_controls(cpu, ram)
    if not controls_valid(cpu, ram):
        fail(cpu, ram, ERROR_ENTRY_CONTROLS)
        return OK
    if not host_state_valid(cpu, ram):
        fail(cpu, ram, ERROR_ENTRY_HOST_STATE)
        return OK
    return enter_guest(cpu, ram)

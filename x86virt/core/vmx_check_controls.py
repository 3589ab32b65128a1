"""VM entry: the checks on the controls and on the host state (SDM volume 3, sections 26.2.1 to 26.2.4).

The controls have been taken from the VMCS into `cpu.vmx` by then.
"""

from ..isa.registers import EFER_NXE, FEATURE_NX
from ..isa.vectors import AC, DF, GP, NP, PF, SS_FAULT, TS
from ..isa.vmx import (
    ENTRY_DEACTIVATE_DUAL_MONITOR,
    ENTRY_INTERRUPTION_RESERVED,
    ENTRY_SMM,
    EXIT_LOAD_EFER,
    EXIT_LOAD_PAT,
    EXIT_SAVE_TIMER,
    INTERRUPTION_ERROR_CODE,
    INTERRUPTION_VALID,
    PIN_NMI_EXITING,
    PIN_PREEMPTION_TIMER,
    PIN_VIRTUAL_NMIS,
    PROCESSOR_IO_BITMAPS,
    PROCESSOR_MSR_BITMAPS,
    PROCESSOR_NMI_WINDOW_EXITING,
    PROCESSOR_SECONDARY,
    SECONDARY_EPT,
    SECONDARY_VPID,
    TYPE_HARDWARE_EXCEPTION,
    TYPE_MASK,
    TYPE_NMI,
    TYPE_SHIFT,
    TYPE_SOFTWARE_EXCEPTION,
    TYPE_SOFTWARE_INTERRUPT,
    VMCS_ENTRY_ERROR_CODE,
    VMCS_ENTRY_INSTRUCTION_LENGTH,
    VMCS_ENTRY_INTERRUPTION,
    VMCS_ENTRY_MSR_LOAD_ADDRESS,
    VMCS_ENTRY_MSR_LOAD_COUNT,
    VMCS_EXIT_MSR_LOAD_ADDRESS,
    VMCS_EXIT_MSR_LOAD_COUNT,
    VMCS_EXIT_MSR_STORE_ADDRESS,
    VMCS_EXIT_MSR_STORE_COUNT,
    VMCS_HOST_CR0,
    VMCS_HOST_CR4,
    VMCS_HOST_EFER,
    VMCS_HOST_PAT,
    VMCS_HOST_SELECTORS,
    VMCS_HOST_TR_SELECTOR,
    VMX_ENTRY,
    VMX_EXIT,
    VMX_MISC,
    VMX_PINBASED,
    VMX_PROCBASED,
    VMX_PROCBASED2,
)
from .jit import kernel
from .model_specific import PAT_TYPES, all_types
from .vmcs import vmcs_read, vmcs_read_64
from .vmx_capability import address_allowed, control_capability, controls_allowed, cr0_allowed, cr4_allowed

M32 = 0xFFFFFFFF
PAGE_BYTES = 4096
MSR_ENTRY_BYTES = 16
WITH_ERROR_CODE = 1 << DF | 1 << TS | 1 << NP | 1 << SS_FAULT | 1 << GP | 1 << PF | 1 << AC
# The EPT pointer (section 24.6.11): memory type, page-walk length less 1, and what is reserved.
EPTP_TYPE, EPTP_LENGTH, EPTP_LENGTH_SHIFT, EPTP_RESERVED = 7, 7, 3, 0xFC0
UNCACHEABLE, WRITE_BACK, FOUR_LEVELS = 0, 6, 3
CS_SELECTOR, SS_SELECTOR = VMCS_HOST_SELECTORS + 1, VMCS_HOST_SELECTORS + 2
RPL_AND_TI = 7


# -- VM-execution controls (26.2.1.1) -------------------------------------------------------------------------------


@kernel
def ept_pointer_allowed(cpu, pointer):
    """Whether an EPT pointer may be used: memory type, length of the walk, reserved bits, physical-address width."""
    kind = pointer & EPTP_TYPE
    if kind != UNCACHEABLE and kind != WRITE_BACK:
        return False
    if (pointer >> EPTP_LENGTH_SHIFT) & EPTP_LENGTH != FOUR_LEVELS or pointer & EPTP_RESERVED != 0:
        return False
    return pointer >> cpu.msr.physical_bits == 0


@kernel
def execution_controls_valid(cpu):
    """The checks on pin-based and processor-based controls and what they make use of."""
    vmx = cpu.vmx
    # 1. Reserved bits.
    if not controls_allowed(control_capability(cpu, VMX_PINBASED), vmx.pin):
        return False
    if not controls_allowed(control_capability(cpu, VMX_PROCBASED), vmx.processor):
        return False
    if vmx.processor & PROCESSOR_SECONDARY != 0:
        if not controls_allowed(cpu.msr.vmx_capability[VMX_PROCBASED2], vmx.secondary):
            return False
    # 2. No more CR3-target values than there are.
    if vmx.cr3_targets > (cpu.msr.vmx_capability[VMX_MISC] >> 16) & 0x1FF:
        return False
    # 3. The bitmaps' addresses.
    if vmx.processor & PROCESSOR_IO_BITMAPS != 0:
        if not address_allowed(cpu, vmx.io_bitmap_a, PAGE_BYTES) or not address_allowed(cpu, vmx.io_bitmap_b, PAGE_BYTES):
            return False
    if vmx.processor & PROCESSOR_MSR_BITMAPS != 0 and not address_allowed(cpu, vmx.msr_bitmaps, PAGE_BYTES):
        return False
    # 4. Virtual NMIs need NMI exiting, and NMI-window exiting needs virtual NMIs.
    if vmx.pin & PIN_VIRTUAL_NMIS != 0 and vmx.pin & PIN_NMI_EXITING == 0:
        return False
    if vmx.processor & PROCESSOR_NMI_WINDOW_EXITING != 0 and vmx.pin & PIN_VIRTUAL_NMIS == 0:
        return False
    # 5. A virtual processor's identifier is not 0, which is the host's.
    if vmx.secondary & SECONDARY_VPID != 0 and vmx.vpid == 0:
        return False
    # 6. The EPT pointer.
    return vmx.secondary & SECONDARY_EPT == 0 or ept_pointer_allowed(cpu, vmx.ept_pointer)


# -- VM-exit and VM-entry controls (26.2.1.2 and 26.2.1.3) ----------------------------------------------------------


@kernel
def msr_area_allowed(cpu, address, count):
    """Whether an MSR area, if there is one, is aligned on 16 bytes and ends within the physical-address width."""
    if count == 0:
        return True
    if not address_allowed(cpu, address, MSR_ENTRY_BYTES):
        return False
    return (address + count * MSR_ENTRY_BYTES - 1) >> cpu.msr.physical_bits == 0


@kernel
def exit_controls_valid(cpu, ram):
    """The checks on the VM-exit controls."""
    controls = cpu.vmx.exit_controls
    if not controls_allowed(control_capability(cpu, VMX_EXIT), controls):
        return False
    if controls & EXIT_SAVE_TIMER != 0 and cpu.vmx.pin & PIN_PREEMPTION_TIMER == 0:
        return False
    store = vmcs_read_64(cpu, ram, VMCS_EXIT_MSR_STORE_ADDRESS)
    load = vmcs_read_64(cpu, ram, VMCS_EXIT_MSR_LOAD_ADDRESS)
    if not msr_area_allowed(cpu, store, vmcs_read(cpu, ram, VMCS_EXIT_MSR_STORE_COUNT)):
        return False
    return msr_area_allowed(cpu, load, vmcs_read(cpu, ram, VMCS_EXIT_MSR_LOAD_COUNT))


@kernel
def interruption_valid(cpu, ram):
    """The checks on the fields of event injection, whose valid bit is set."""
    information = vmcs_read(cpu, ram, VMCS_ENTRY_INTERRUPTION)
    kind = (information >> TYPE_SHIFT) & TYPE_MASK
    vector = information & 0xFF
    # 1. Type: 1 is reserved, and 7 on processors without the monitor trap flag, as all here are.
    if kind == 1 or kind == 7:
        return False
    # 2. The vector fits the type.
    if kind == TYPE_NMI and vector != 2:
        return False
    if kind == TYPE_HARDWARE_EXCEPTION and vector > 31:
        return False
    # 3. An error code is delivered just with the exceptions that have one.
    has_code = kind == TYPE_HARDWARE_EXCEPTION and (WITH_ERROR_CODE >> vector) & 1 != 0
    if (information & INTERRUPTION_ERROR_CODE != 0) != has_code:
        return False
    # 4. Reserved bits.
    if information & ENTRY_INTERRUPTION_RESERVED != 0:
        return False
    # 5. The error code has 15 bits.
    if has_code and vmcs_read(cpu, ram, VMCS_ENTRY_ERROR_CODE) >> 15 != 0:
        return False
    # 6. What an instruction raises has a length.
    if TYPE_SOFTWARE_INTERRUPT <= kind <= TYPE_SOFTWARE_EXCEPTION:
        return 1 <= vmcs_read(cpu, ram, VMCS_ENTRY_INSTRUCTION_LENGTH) <= 15
    return True


@kernel
def entry_controls_valid(cpu, ram):
    """The checks on the VM-entry controls. Only system-management mode, which is absent, may use its two."""
    controls = cpu.vmx.entry_controls
    if not controls_allowed(control_capability(cpu, VMX_ENTRY), controls):
        return False
    if controls & (ENTRY_SMM | ENTRY_DEACTIVATE_DUAL_MONITOR) != 0:
        return False
    if vmcs_read(cpu, ram, VMCS_ENTRY_INTERRUPTION) & INTERRUPTION_VALID != 0 and not interruption_valid(cpu, ram):
        return False
    load = vmcs_read_64(cpu, ram, VMCS_ENTRY_MSR_LOAD_ADDRESS)
    return msr_area_allowed(cpu, load, vmcs_read(cpu, ram, VMCS_ENTRY_MSR_LOAD_COUNT))


@kernel
def controls_valid(cpu, ram):
    """All checks on the controls; a failure is error 7."""
    return execution_controls_valid(cpu) and exit_controls_valid(cpu, ram) and entry_controls_valid(cpu, ram)


# -- host state (26.2.2 and 26.2.3) ---------------------------------------------------------------------------------


@kernel
def pat_allowed(value):
    """Whether IA32_PAT may have a value."""
    return all_types(value & M32, PAT_TYPES) and all_types((value >> 32) & M32, PAT_TYPES)


@kernel
def efer_allowed(cpu, value):
    """Whether IA32_EFER may have a value outside IA-32e mode: LMA and LME are clear with all that is reserved."""
    offered = 0
    if (cpu.msr.extended_features >> FEATURE_NX) & 1 != 0:
        offered = EFER_NXE
    return value & ~offered == 0


@kernel
def host_registers_valid(cpu, ram):
    """The host's control registers and MSRs."""
    if not cr0_allowed(cpu, vmcs_read(cpu, ram, VMCS_HOST_CR0)) or not cr4_allowed(cpu, vmcs_read(cpu, ram, VMCS_HOST_CR4)):
        return False
    controls = cpu.vmx.exit_controls
    if controls & EXIT_LOAD_PAT != 0 and not pat_allowed(vmcs_read_64(cpu, ram, VMCS_HOST_PAT)):
        return False
    return controls & EXIT_LOAD_EFER == 0 or efer_allowed(cpu, vmcs_read_64(cpu, ram, VMCS_HOST_EFER))


@kernel
def host_segments_valid(cpu, ram):
    """The host's selectors: RPL and TI are 0, and CS, SS and TR are not null."""
    for slot in range(VMCS_HOST_SELECTORS, VMCS_HOST_TR_SELECTOR + 1):
        if vmcs_read(cpu, ram, slot) & RPL_AND_TI != 0:
            return False
    if vmcs_read(cpu, ram, CS_SELECTOR) == 0 or vmcs_read(cpu, ram, SS_SELECTOR) == 0:
        return False
    return vmcs_read(cpu, ram, VMCS_HOST_TR_SELECTOR) != 0


@kernel
def host_state_valid(cpu, ram):
    """All checks on the host state; a failure is error 8."""
    return host_registers_valid(cpu, ram) and host_segments_valid(cpu, ram)

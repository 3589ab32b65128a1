"""VM entry: the checks on the guest-state area but its segments (SDM volume 3, sections 26.3.1.1 and 26.3.1.3 to 26.3.1.5)."""

from ..isa.registers import (
    AR_DPL,
    CR0_PE,
    CR0_PG,
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_TF,
    EFLAGS_VM,
    SS,
)
from ..isa.vectors import DB, MC
from ..isa.vmx import (
    ACTIVITY_ACTIVE,
    ACTIVITY_HLT,
    BLOCKING_BY_MOV_SS,
    BLOCKING_BY_NMI,
    BLOCKING_BY_SMI,
    BLOCKING_BY_STI,
    ENTRY_LOAD_DEBUG,
    ENTRY_LOAD_EFER,
    ENTRY_LOAD_PAT,
    INTERRUPTIBILITY_RESERVED,
    INTERRUPTION_VALID,
    MISC_ACTIVITY_HLT,
    PENDING_DEBUG_BS,
    PENDING_DEBUG_RESERVED,
    PIN_VIRTUAL_NMIS,
    QUALIFICATION_LINK_POINTER,
    TYPE_EXTERNAL,
    TYPE_HARDWARE_EXCEPTION,
    TYPE_MASK,
    TYPE_NMI,
    TYPE_SHIFT,
    VMCS_ENTRY_INTERRUPTION,
    VMCS_GUEST_ACCESS_RIGHTS,
    VMCS_GUEST_ACTIVITY,
    VMCS_GUEST_CR0,
    VMCS_GUEST_CR4,
    VMCS_GUEST_DEBUGCTL,
    VMCS_GUEST_EFER,
    VMCS_GUEST_GDTR_LIMIT,
    VMCS_GUEST_IDTR_LIMIT,
    VMCS_GUEST_INTERRUPTIBILITY,
    VMCS_GUEST_PAT,
    VMCS_GUEST_PENDING_DEBUG,
    VMCS_GUEST_RFLAGS,
    VMCS_LINK_POINTER,
    VMX_MISC,
)
from .jit import kernel
from .physical import read_memory
from .vmcs import vmcs_read, vmcs_read_64
from .vmx_capability import address_allowed, cr0_allowed, cr4_allowed, revision
from .vmx_check_controls import efer_allowed, pat_allowed
from .vmx_check_segments import guest_segments_valid

STATE_VALID = -1  # instead of the exit qualification of a failure
STATE_INVALID = 0  # the qualification of most failures
RFLAGS_RESERVED = 0xFFC08028  # bits 31:22, 15, 5 and 3
REGION_ALIGNMENT = 4096
NO_LINK = -1


@kernel
def guest_registers_valid(cpu, ram):
    """Control registers, debug registers and MSRs (26.3.1.1)."""
    cr0 = vmcs_read(cpu, ram, VMCS_GUEST_CR0)
    if not cr0_allowed(cpu, cr0) or not cr4_allowed(cpu, vmcs_read(cpu, ram, VMCS_GUEST_CR4)):
        return False
    if cr0 & (CR0_PG | CR0_PE) == CR0_PG:
        return False
    controls = cpu.vmx.entry_controls
    # No processor here has a bit of IA32_DEBUGCTL: all are reserved.
    if controls & ENTRY_LOAD_DEBUG != 0 and vmcs_read_64(cpu, ram, VMCS_GUEST_DEBUGCTL) != 0:
        return False
    if controls & ENTRY_LOAD_PAT != 0 and not pat_allowed(vmcs_read_64(cpu, ram, VMCS_GUEST_PAT)):
        return False
    return controls & ENTRY_LOAD_EFER == 0 or efer_allowed(cpu, vmcs_read_64(cpu, ram, VMCS_GUEST_EFER))


@kernel
def guest_tables_valid(cpu, ram):
    """The limits of GDTR and IDTR (26.3.1.3)."""
    return (vmcs_read(cpu, ram, VMCS_GUEST_GDTR_LIMIT) | vmcs_read(cpu, ram, VMCS_GUEST_IDTR_LIMIT)) >> 16 == 0


@kernel
def guest_flags_valid(cpu, ram, information):
    """RFLAGS (26.3.1.4); `information` is the VM-entry interruption information if it is valid, else 0."""
    flags = vmcs_read(cpu, ram, VMCS_GUEST_RFLAGS)
    if flags & RFLAGS_RESERVED != 0 or flags & EFLAGS_FIXED == 0:
        return False
    if flags & EFLAGS_VM != 0 and vmcs_read(cpu, ram, VMCS_GUEST_CR0) & CR0_PE == 0:
        return False
    injects_external = information != 0 and (information >> TYPE_SHIFT) & TYPE_MASK == TYPE_EXTERNAL
    return not injects_external or flags & EFLAGS_IF != 0


@kernel
def wakes_from_halt(information):
    """Whether an event may be injected in the HLT state: an external interrupt, an NMI, #DB or #MC."""
    kind = (information >> TYPE_SHIFT) & TYPE_MASK
    if kind == TYPE_EXTERNAL or kind == TYPE_NMI:
        return True
    vector = information & 0xFF
    return kind == TYPE_HARDWARE_EXCEPTION and (vector == DB or vector == MC)


@kernel
def guest_activity_valid(cpu, ram, information):
    """The activity state (26.3.1.5)."""
    activity = vmcs_read(cpu, ram, VMCS_GUEST_ACTIVITY)
    if activity == ACTIVITY_ACTIVE:
        return True
    # 1. HLT is the one other state that IA32_VMX_MISC offers.
    if activity != ACTIVITY_HLT or cpu.msr.vmx_capability[VMX_MISC] & MISC_ACTIVITY_HLT == 0:
        return False
    # 2. Ring 0, and neither blocking by STI nor by MOV SS.
    if vmcs_read(cpu, ram, VMCS_GUEST_ACCESS_RIGHTS + SS) & AR_DPL != 0:
        return False
    if vmcs_read(cpu, ram, VMCS_GUEST_INTERRUPTIBILITY) & (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS) != 0:
        return False
    # 3. An injected event can wake it.
    return information == 0 or wakes_from_halt(information)


@kernel
def guest_interruptibility_valid(cpu, ram, information):
    """The interruptibility state (26.3.1.5)."""
    state = vmcs_read(cpu, ram, VMCS_GUEST_INTERRUPTIBILITY)
    if state & INTERRUPTIBILITY_RESERVED != 0 or state & BLOCKING_BY_SMI != 0:
        return False
    by_either = state & (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS)
    if by_either == BLOCKING_BY_STI | BLOCKING_BY_MOV_SS:
        return False
    if state & BLOCKING_BY_STI != 0 and vmcs_read(cpu, ram, VMCS_GUEST_RFLAGS) & EFLAGS_IF == 0:
        return False
    if information == 0:
        return True
    kind = (information >> TYPE_SHIFT) & TYPE_MASK
    if kind == TYPE_EXTERNAL:
        return by_either == 0
    if kind == TYPE_NMI:
        if state & BLOCKING_BY_MOV_SS != 0:
            return False
        return cpu.vmx.pin & PIN_VIRTUAL_NMIS == 0 or state & BLOCKING_BY_NMI == 0
    return True


@kernel
def guest_pending_debug_valid(cpu, ram):
    """Pending debug exceptions (26.3.1.5): where they are held off, BS is set just if TF is."""
    pending = vmcs_read(cpu, ram, VMCS_GUEST_PENDING_DEBUG)
    if pending & PENDING_DEBUG_RESERVED != 0:
        return False
    blocked = vmcs_read(cpu, ram, VMCS_GUEST_INTERRUPTIBILITY) & (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS)
    if blocked == 0 and vmcs_read(cpu, ram, VMCS_GUEST_ACTIVITY) != ACTIVITY_HLT:
        return True
    steps = vmcs_read(cpu, ram, VMCS_GUEST_RFLAGS) & EFLAGS_TF != 0
    return (pending & PENDING_DEBUG_BS != 0) == steps


@kernel
def link_pointer_valid(cpu, ram):
    """The VMCS link pointer: none, or the address of another VMCS with this processor's revision identifier."""
    pointer = vmcs_read_64(cpu, ram, VMCS_LINK_POINTER)
    if pointer == NO_LINK:
        return True
    if not address_allowed(cpu, pointer, REGION_ALIGNMENT) or pointer == cpu.vmx.current:
        return False
    return read_memory(cpu, ram, pointer, 4) == revision(cpu)


@kernel
def guest_state_failure(cpu, ram):
    """All checks on the guest state: STATE_VALID, or the exit qualification of the failure."""
    information = vmcs_read(cpu, ram, VMCS_ENTRY_INTERRUPTION)
    if information & INTERRUPTION_VALID == 0:
        information = 0
    if not guest_registers_valid(cpu, ram) or not guest_segments_valid(cpu, ram) or not guest_tables_valid(cpu, ram):
        return STATE_INVALID
    if not guest_flags_valid(cpu, ram, information) or not guest_activity_valid(cpu, ram, information):
        return STATE_INVALID
    if not guest_interruptibility_valid(cpu, ram, information) or not guest_pending_debug_valid(cpu, ram):
        return STATE_INVALID
    if not link_pointer_valid(cpu, ram):
        return QUALIFICATION_LINK_POINTER
    return STATE_VALID

"""VM exits: the guest's state as it is saved in the VMCS (SDM volume 3, section 27.3)."""

from ..isa.registers import AR_DPL, AR_DPL_SHIFT, EFLAGS_TF, ESP, SS, TR
from ..isa.vmx import (
    ACTIVITY_ACTIVE,
    ACTIVITY_HLT,
    BLOCKING_BY_MOV_SS,
    BLOCKING_BY_NMI,
    BLOCKING_BY_STI,
    EXIT_SAVE_DEBUG,
    EXIT_SAVE_EFER,
    EXIT_SAVE_PAT,
    EXIT_SAVE_TIMER,
    MISC_TIMER_RATE,
    PENDING_DEBUG_BS,
    PENDING_DEBUG_ENABLED,
    PENDING_DEBUG_HITS,
    SECONDARY_EPT,
    VMCS_GUEST_ACCESS_RIGHTS,
    VMCS_GUEST_ACTIVITY,
    VMCS_GUEST_BASES,
    VMCS_GUEST_CR0,
    VMCS_GUEST_CR3,
    VMCS_GUEST_CR4,
    VMCS_GUEST_DR7,
    VMCS_GUEST_EFER,
    VMCS_GUEST_GDTR_BASE,
    VMCS_GUEST_GDTR_LIMIT,
    VMCS_GUEST_IDTR_BASE,
    VMCS_GUEST_IDTR_LIMIT,
    VMCS_GUEST_INTERRUPTIBILITY,
    VMCS_GUEST_LIMITS,
    VMCS_GUEST_PAT,
    VMCS_GUEST_PDPTE0,
    VMCS_GUEST_PENDING_DEBUG,
    VMCS_GUEST_RFLAGS,
    VMCS_GUEST_RIP,
    VMCS_GUEST_RSP,
    VMCS_GUEST_SELECTORS,
    VMCS_GUEST_SYSENTER_CS,
    VMCS_GUEST_SYSENTER_EIP,
    VMCS_GUEST_SYSENTER_ESP,
    VMCS_PREEMPTION_TIMER,
    VMX_MISC,
)
from .debug_registers import DR7_FIXED, DR7_WRITABLE
from .identity import TICKS_PER_CYCLE_SHIFT
from .jit import inline, kernel
from .layout import HOLDS_DEBUG, HOLDS_INTERRUPTS, NEVER
from .vmcs import vmcs_write, vmcs_write_64


@kernel
def save_segments(cpu, ram):
    """ES to TR, GDTR and IDTR (27.3.2). The DPL of SS is the CPL, even where SS cannot be used."""
    for segment in range(TR + 1):
        entry = cpu.seg[segment]
        access = entry.access
        if segment == SS:
            access = (access & ~AR_DPL) | cpu.cpl << AR_DPL_SHIFT
        vmcs_write(cpu, ram, VMCS_GUEST_SELECTORS + segment, entry.selector)
        vmcs_write(cpu, ram, VMCS_GUEST_BASES + segment, entry.seg_base)
        vmcs_write(cpu, ram, VMCS_GUEST_LIMITS + segment, entry.limit)
        vmcs_write(cpu, ram, VMCS_GUEST_ACCESS_RIGHTS + segment, access)
    vmcs_write(cpu, ram, VMCS_GUEST_GDTR_BASE, cpu.gdtr_base)
    vmcs_write(cpu, ram, VMCS_GUEST_GDTR_LIMIT, cpu.gdtr_limit)
    vmcs_write(cpu, ram, VMCS_GUEST_IDTR_BASE, cpu.idtr_base)
    vmcs_write(cpu, ram, VMCS_GUEST_IDTR_LIMIT, cpu.idtr_limit)


@kernel
def save_registers(cpu, ram):
    """Control registers, debug registers, MSRs (27.3.1), RIP and RSP (27.3.3)."""
    controls = cpu.vmx.exit_controls
    vmcs_write(cpu, ram, VMCS_GUEST_CR0, cpu.cr0)
    vmcs_write(cpu, ram, VMCS_GUEST_CR3, cpu.cr3)
    vmcs_write(cpu, ram, VMCS_GUEST_CR4, cpu.cr4)
    if controls & EXIT_SAVE_DEBUG != 0:
        vmcs_write(cpu, ram, VMCS_GUEST_DR7, (cpu.dr[7] & DR7_WRITABLE) | DR7_FIXED)
    vmcs_write(cpu, ram, VMCS_GUEST_SYSENTER_CS, cpu.sysenter_cs)
    vmcs_write(cpu, ram, VMCS_GUEST_SYSENTER_ESP, cpu.sysenter_esp)
    vmcs_write(cpu, ram, VMCS_GUEST_SYSENTER_EIP, cpu.sysenter_eip)
    if controls & EXIT_SAVE_PAT != 0:
        vmcs_write_64(cpu, ram, VMCS_GUEST_PAT, cpu.msr.pat)
    if controls & EXIT_SAVE_EFER != 0:
        vmcs_write_64(cpu, ram, VMCS_GUEST_EFER, cpu.msr.efer)
    vmcs_write(cpu, ram, VMCS_GUEST_RIP, cpu.rip)
    vmcs_write(cpu, ram, VMCS_GUEST_RSP, cpu.gpr[ESP])


@inline
def interruptibility(cpu):
    """What blocks events (table 24-3)."""
    state = cpu.vmx.nmi_blocked * BLOCKING_BY_NMI
    if cpu.shadow == HOLDS_INTERRUPTS:
        return state | BLOCKING_BY_STI
    if cpu.shadow == HOLDS_DEBUG:
        return state | BLOCKING_BY_MOV_SS
    return state


@kernel
def pending_debug(cpu):
    """Debug exceptions that wait, as only MOV SS makes them (table 24-4); BS then too for a single step that it held off."""
    if cpu.shadow != HOLDS_DEBUG:
        return 0
    hits = cpu.debug_pending & PENDING_DEBUG_HITS
    state = hits
    if hits != 0:
        state |= PENDING_DEBUG_ENABLED
    if cpu.eflags & EFLAGS_TF != 0 or cpu.debug_pending & PENDING_DEBUG_BS != 0:
        state |= PENDING_DEBUG_BS
    return state


@kernel
def timer_value(cpu):
    """What is left of the VMX-preemption timer."""
    if cpu.vmx.timer_due == NEVER:
        return 0
    rate = cpu.msr.vmx_capability[VMX_MISC] & MISC_TIMER_RATE
    now = (cpu.ticks >> TICKS_PER_CYCLE_SHIFT) + cpu.tsc_offset
    due = (cpu.vmx.timer_due >> TICKS_PER_CYCLE_SHIFT) + cpu.tsc_offset
    return max((due >> rate) - (now >> rate), 0)


@kernel
def save_non_registers(cpu, ram):
    """Activity, interruptibility, pending debug exceptions, the timer, and PDPTEs under EPT (27.3.4)."""
    activity = ACTIVITY_ACTIVE
    if cpu.halted == 1:
        activity = ACTIVITY_HLT
    vmcs_write(cpu, ram, VMCS_GUEST_ACTIVITY, activity)
    vmcs_write(cpu, ram, VMCS_GUEST_INTERRUPTIBILITY, interruptibility(cpu))
    vmcs_write(cpu, ram, VMCS_GUEST_PENDING_DEBUG, pending_debug(cpu))
    if cpu.vmx.exit_controls & EXIT_SAVE_TIMER != 0:
        vmcs_write(cpu, ram, VMCS_PREEMPTION_TIMER, timer_value(cpu))
    if cpu.vmx.secondary & SECONDARY_EPT != 0:
        for number in range(4):
            vmcs_write_64(cpu, ram, VMCS_GUEST_PDPTE0 + number, cpu.pdpte[number])


@kernel
def save_guest(cpu, ram, flags):
    """All of the guest state but its MSR area, with RFLAGS as the caller found them."""
    save_registers(cpu, ram)
    vmcs_write(cpu, ram, VMCS_GUEST_RFLAGS, flags)
    save_segments(cpu, ram)
    save_non_registers(cpu, ram)

"""VM entry: the guest state loaded (SDM volume 3, sections 26.3.2 and 26.6), once all checks have passed."""

from ..isa.registers import ESP, SS, TR
from ..isa.vmx import (
    ACTIVITY_HLT,
    BLOCKING_BY_MOV_SS,
    BLOCKING_BY_NMI,
    BLOCKING_BY_STI,
    ENTRY_LOAD_DEBUG,
    ENTRY_LOAD_EFER,
    ENTRY_LOAD_PAT,
    MISC_TIMER_RATE,
    PENDING_DEBUG_BS,
    PENDING_DEBUG_ENABLED,
    PENDING_DEBUG_HITS,
    PIN_PREEMPTION_TIMER,
    PROCESSOR_TSC_OFFSETTING,
    SECONDARY_EPT,
    TYPE_SOFTWARE_EXCEPTION,
    TYPE_SOFTWARE_INTERRUPT,
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
    VMCS_TSC_OFFSET,
    VMX_MISC,
)
from .debug_registers import set_debug_register
from .identity import TICKS_PER_CYCLE_SHIFT, time_stamp
from .jit import kernel
from .layout import HOLDS_DEBUG, HOLDS_INTERRUPTS, NESTED_EPT, NESTED_OFF, NEVER, OK
from .page_directory_pointers import load_pointers, pae_paging, pointer_of
from .segment import dpl_of
from .vmcs import vmcs_read, vmcs_read_64
from .vmx_state import cr0_loaded, load_flags, load_segment_state

PAGE_MASK = ~0xFFF
EPT_LEVELS = 4
NO_TYPE = -1  # the VM entry injects no event


@kernel
def load_guest_segments(cpu, ram):
    """ES to TR, GDTR and IDTR (26.3.2.2 and 26.3.2.3)."""
    for segment in range(TR + 1):
        load_segment_state(
            cpu,
            segment,
            vmcs_read(cpu, ram, VMCS_GUEST_SELECTORS + segment),
            vmcs_read(cpu, ram, VMCS_GUEST_BASES + segment),
            vmcs_read(cpu, ram, VMCS_GUEST_LIMITS + segment),
            vmcs_read(cpu, ram, VMCS_GUEST_ACCESS_RIGHTS + segment),
        )
    cpu.gdtr_base = vmcs_read(cpu, ram, VMCS_GUEST_GDTR_BASE)
    cpu.gdtr_limit = vmcs_read(cpu, ram, VMCS_GUEST_GDTR_LIMIT)
    cpu.idtr_base = vmcs_read(cpu, ram, VMCS_GUEST_IDTR_BASE)
    cpu.idtr_limit = vmcs_read(cpu, ram, VMCS_GUEST_IDTR_LIMIT)


@kernel
def load_guest_registers(cpu, ram):
    """Control registers, debug registers and MSRs (26.3.2.1); RIP, RSP and RFLAGS (26.3.2.4)."""
    controls = cpu.vmx.entry_controls
    cpu.cr0 = cr0_loaded(cpu, vmcs_read(cpu, ram, VMCS_GUEST_CR0))
    cpu.cr3 = vmcs_read(cpu, ram, VMCS_GUEST_CR3)
    cpu.cr4 = vmcs_read(cpu, ram, VMCS_GUEST_CR4)
    if controls & ENTRY_LOAD_DEBUG != 0:
        set_debug_register(cpu, 7, vmcs_read(cpu, ram, VMCS_GUEST_DR7))
    cpu.sysenter_cs = vmcs_read(cpu, ram, VMCS_GUEST_SYSENTER_CS)
    cpu.sysenter_esp = vmcs_read(cpu, ram, VMCS_GUEST_SYSENTER_ESP)
    cpu.sysenter_eip = vmcs_read(cpu, ram, VMCS_GUEST_SYSENTER_EIP)
    if controls & ENTRY_LOAD_PAT != 0:
        cpu.msr.pat = vmcs_read_64(cpu, ram, VMCS_GUEST_PAT)
    if controls & ENTRY_LOAD_EFER != 0:
        cpu.msr.efer = vmcs_read_64(cpu, ram, VMCS_GUEST_EFER)
        cpu.efer = cpu.msr.efer
    cpu.gpr[ESP] = vmcs_read(cpu, ram, VMCS_GUEST_RSP)
    cpu.rip = vmcs_read(cpu, ram, VMCS_GUEST_RIP)
    load_flags(cpu, vmcs_read(cpu, ram, VMCS_GUEST_RFLAGS))


@kernel
def load_guest_pointers(cpu, ram):
    """The PDPTEs of PAE paging, from the VMCS under EPT, else from memory; False if a present one sets a reserved bit."""
    if not pae_paging(cpu.cr0, cpu.cr4):
        return True
    if cpu.vmx.secondary & SECONDARY_EPT == 0:
        return load_pointers(cpu, ram, cpu.cr3) == OK
    for number in range(4):
        entry = vmcs_read_64(cpu, ram, VMCS_GUEST_PDPTE0 + number)
        reserved, pointer = pointer_of(cpu, entry & 0xFFFFFFFF, (entry >> 32) & 0xFFFFFFFF)
        if reserved:
            return False
        cpu.pdpte[number] = pointer
    return True


@kernel
def begin_nested_paging(cpu):
    """The extended page tables and the virtual processor whose translations are used (26.3.2.5)."""
    cpu.nested_kind = NESTED_OFF
    if cpu.vmx.secondary & SECONDARY_EPT != 0:
        cpu.nested_kind = NESTED_EPT
        cpu.nested_root = cpu.vmx.ept_pointer & PAGE_MASK
        cpu.nested_levels = EPT_LEVELS
    cpu.address_space = cpu.vmx.vpid


@kernel
def begin_timer(cpu, ram):
    """Start the VMX-preemption timer (26.6.4), which counts down as a bit of the time-stamp counter changes (25.5.1)."""
    cpu.vmx.timer_due = NEVER
    if cpu.vmx.pin & PIN_PREEMPTION_TIMER == 0:
        return
    rate = cpu.msr.vmx_capability[VMX_MISC] & MISC_TIMER_RATE
    due = ((time_stamp(cpu) >> rate) + vmcs_read(cpu, ram, VMCS_PREEMPTION_TIMER)) << rate
    cpu.vmx.timer_due = max((due - cpu.tsc_offset) << TICKS_PER_CYCLE_SHIFT, cpu.ticks)
    cpu.limit_ticks = min(cpu.limit_ticks, cpu.ticks)  # the boundary takes notice


@kernel
def begin_time(cpu, ram):
    """What the guest sees of time: the VMX-preemption timer, which follows the true time-stamp counter, and the TSC offset."""
    cpu.guest_tsc_offset = 0
    begin_timer(cpu, ram)
    if cpu.vmx.processor & PROCESSOR_TSC_OFFSETTING != 0:
        cpu.guest_tsc_offset = vmcs_read_64(cpu, ram, VMCS_TSC_OFFSET)


@kernel
def load_interruptibility(cpu, ram, kind):
    """Interruptibility and activity (26.6.1 and 26.6.2); an event of type `kind` that is injected ends all but NMI blocking."""
    state = vmcs_read(cpu, ram, VMCS_GUEST_INTERRUPTIBILITY)
    cpu.vmx.nmi_blocked = int(state & BLOCKING_BY_NMI != 0)
    cpu.shadow = 0
    cpu.halted = 0
    if kind != NO_TYPE:
        return
    if state & BLOCKING_BY_MOV_SS != 0:
        cpu.shadow = HOLDS_DEBUG
    elif state & BLOCKING_BY_STI != 0:
        cpu.shadow = HOLDS_INTERRUPTS
    cpu.halted = int(vmcs_read(cpu, ram, VMCS_GUEST_ACTIVITY) == ACTIVITY_HLT)


@kernel
def load_pending_debug(cpu, ram, kind):
    """Pending debug exceptions (26.6.3): there are none where an event is injected that such a trap cannot come before."""
    cpu.debug_hits = 0
    cpu.debug_pending = 0
    pending = vmcs_read(cpu, ram, VMCS_GUEST_PENDING_DEBUG)
    if pending & (PENDING_DEBUG_BS | PENDING_DEBUG_ENABLED) == 0:
        return
    if kind != NO_TYPE:
        if kind != TYPE_SOFTWARE_INTERRUPT and kind != TYPE_SOFTWARE_EXCEPTION:
            return
        if vmcs_read(cpu, ram, VMCS_GUEST_INTERRUPTIBILITY) & BLOCKING_BY_MOV_SS == 0:
            return
    cpu.debug_pending = pending & (PENDING_DEBUG_BS | PENDING_DEBUG_HITS)


@kernel
def load_guest(cpu, ram, kind):
    """All of the guest state but its MSR area; False if PDPTEs are not valid. `kind`: type of the event to inject, NO_TYPE."""
    load_guest_registers(cpu, ram)
    load_guest_segments(cpu, ram)
    begin_nested_paging(cpu)
    if not load_guest_pointers(cpu, ram):
        return False
    load_interruptibility(cpu, ram, kind)
    load_pending_debug(cpu, ram, kind)
    return True


@kernel
def guest_level(cpu):
    """The guest's CPL: the DPL of SS."""
    return dpl_of(cpu.seg[SS].access)

"""VM exits: the host's state as the VMCS has it (SDM volume 3, section 27.5)."""

from ..isa.registers import AR_DB, AR_G, AR_P, AR_S, AR_UNUSABLE, CR4_DE, CS, DS, ES, ESP, FS, GS, LDTR, SS, TR
from ..isa.vmx import (
    EXIT_LOAD_EFER,
    EXIT_LOAD_PAT,
    VMCS_HOST_CR0,
    VMCS_HOST_CR3,
    VMCS_HOST_CR4,
    VMCS_HOST_EFER,
    VMCS_HOST_FS_BASE,
    VMCS_HOST_GDTR_BASE,
    VMCS_HOST_GS_BASE,
    VMCS_HOST_IDTR_BASE,
    VMCS_HOST_PAT,
    VMCS_HOST_RIP,
    VMCS_HOST_RSP,
    VMCS_HOST_SELECTORS,
    VMCS_HOST_SYSENTER_CS,
    VMCS_HOST_SYSENTER_EIP,
    VMCS_HOST_SYSENTER_ESP,
    VMCS_HOST_TR_BASE,
)
from .debug_registers import DR7_FIXED, set_debug_register
from .flags import set_eflags
from .jit import kernel
from .layout import NESTED_OFF, NEVER, ROOT
from .mode import MASK_32
from .vmcs import vmcs_read, vmcs_read_64
from .vmx_state import cr0_loaded, enter_code, load_segment_state

CODE_ACCESS = AR_G | AR_DB | AR_P | AR_S | 11  # execute and read, accessed
DATA_ACCESS = AR_G | AR_DB | AR_P | AR_S | 3  # read and write, accessed
TASK_ACCESS, TASK_LIMIT = AR_P | 11, 0x67  # a busy 32-bit TSS
TABLE_LIMIT = 0xFFFF
HOST_TR = 6  # place among the host's selector fields, which have none for LDTR
EFLAGS_CLEAR = 2


@kernel
def load_host_registers(cpu, ram):
    """Control registers, debug registers, MSRs (27.5.1)."""
    controls = cpu.vmx.exit_controls
    debugging = cpu.cr4 & CR4_DE
    cpu.cr0 = cr0_loaded(cpu, vmcs_read(cpu, ram, VMCS_HOST_CR0))
    cpu.cr3 = vmcs_read(cpu, ram, VMCS_HOST_CR3)
    cpu.cr4 = vmcs_read(cpu, ram, VMCS_HOST_CR4)
    if cpu.dr[7] != DR7_FIXED or debugging != cpu.cr4 & CR4_DE:
        set_debug_register(cpu, 7, DR7_FIXED)
    cpu.sysenter_cs = vmcs_read(cpu, ram, VMCS_HOST_SYSENTER_CS)
    cpu.sysenter_esp = vmcs_read(cpu, ram, VMCS_HOST_SYSENTER_ESP)
    cpu.sysenter_eip = vmcs_read(cpu, ram, VMCS_HOST_SYSENTER_EIP)
    if controls & EXIT_LOAD_PAT != 0:
        cpu.msr.pat = vmcs_read_64(cpu, ram, VMCS_HOST_PAT)
    if controls & EXIT_LOAD_EFER != 0:
        cpu.msr.efer = vmcs_read_64(cpu, ram, VMCS_HOST_EFER)
        cpu.efer = cpu.msr.efer


@kernel
def load_host_data_segment(cpu, ram, segment, seg_base):
    """SS, DS, ES, FS or GS: flat but for its base; a null selector makes it unusable."""
    selector = vmcs_read(cpu, ram, VMCS_HOST_SELECTORS + segment)
    if selector == 0:
        load_segment_state(cpu, segment, 0, seg_base, MASK_32, DATA_ACCESS | AR_UNUSABLE)
    else:
        load_segment_state(cpu, segment, selector, seg_base, MASK_32, DATA_ACCESS)


@kernel
def load_host_segments(cpu, ram):
    """Segment registers and table registers (27.5.2)."""
    load_segment_state(cpu, CS, vmcs_read(cpu, ram, VMCS_HOST_SELECTORS + CS), 0, MASK_32, CODE_ACCESS)
    load_host_data_segment(cpu, ram, SS, 0)
    load_host_data_segment(cpu, ram, DS, 0)
    load_host_data_segment(cpu, ram, ES, 0)
    load_host_data_segment(cpu, ram, FS, vmcs_read(cpu, ram, VMCS_HOST_FS_BASE))
    load_host_data_segment(cpu, ram, GS, vmcs_read(cpu, ram, VMCS_HOST_GS_BASE))
    selector = vmcs_read(cpu, ram, VMCS_HOST_SELECTORS + HOST_TR)
    load_segment_state(cpu, TR, selector, vmcs_read(cpu, ram, VMCS_HOST_TR_BASE), TASK_LIMIT, TASK_ACCESS)
    load_segment_state(cpu, LDTR, 0, 0, 0, AR_UNUSABLE)
    cpu.gdtr_base = vmcs_read(cpu, ram, VMCS_HOST_GDTR_BASE)
    cpu.gdtr_limit = TABLE_LIMIT
    cpu.idtr_base = vmcs_read(cpu, ram, VMCS_HOST_IDTR_BASE)
    cpu.idtr_limit = TABLE_LIMIT


@kernel
def load_host(cpu, ram):
    """All of the host state but its MSR area: root operation in ring 0, with no event held off or pending (27.5.3 to 27.5.5)."""
    cpu.world = ROOT
    cpu.nested_kind = NESTED_OFF
    cpu.address_space = 0
    cpu.guest_tsc_offset = 0
    cpu.vmx.timer_due = NEVER
    cpu.vmx.nmi_blocked = 0
    cpu.nmi_unblocked = 0
    load_host_registers(cpu, ram)
    load_host_segments(cpu, ram)
    cpu.gpr[ESP] = vmcs_read(cpu, ram, VMCS_HOST_RSP)
    cpu.rip = vmcs_read(cpu, ram, VMCS_HOST_RIP)
    set_eflags(cpu, EFLAGS_CLEAR)
    cpu.shadow = 0
    cpu.halted = 0
    cpu.debug_pending = 0
    cpu.debug_hits = 0
    enter_code(cpu, 0)

"""Instructions that VMX non-root operation changes without an exit (SDM volume 3, section 25.3).

Bits of CR0 and CR4 that the guest/host mask gives to the host are read from the read shadow, and keep their values when
written: a write that would differ from the shadow has exited before. IRET ends blocking by NMI, real or virtual.
"""

from ..isa.registers import CR0_EM, CR0_MP, CR0_PE, CR0_TS
from ..isa.system_ops import SYSTEM_CLTS, SYSTEM_CR_TO_REGISTER, SYSTEM_LMSW, SYSTEM_REGISTER_TO_CR, SYSTEM_SMSW
from ..isa.vmx import PIN_NMI_EXITING, PIN_VIRTUAL_NMIS
from .control import write_cr0, write_cr4
from .jit import inline, kernel
from .layout import OK
from .mode import write_register
from .system import system_instruction


@inline
def seen_cr0(cpu):
    """CR0 as the guest reads it."""
    return (cpu.cr0 & ~cpu.vmx.cr0_mask) | (cpu.vmx.cr0_shadow & cpu.vmx.cr0_mask)


@inline
def seen_cr4(cpu):
    """CR4 as the guest reads it."""
    return (cpu.cr4 & ~cpu.vmx.cr4_mask) | (cpu.vmx.cr4_shadow & cpu.vmx.cr4_mask)


@kernel
def guest_control_register(cpu, ram, u):
    """MOV to and from CR0 and CR4."""
    if u.dst_shift == SYSTEM_CR_TO_REGISTER:
        value = seen_cr0(cpu)
        if u.condition == 4:
            value = seen_cr4(cpu)
        cpu.gpr[u.dst] = value
        return OK
    value = cpu.gpr[u.src]
    if u.condition == 4:
        return write_cr4(cpu, ram, (value & ~cpu.vmx.cr4_mask) | (cpu.cr4 & cpu.vmx.cr4_mask))
    return write_cr0(cpu, ram, (value & ~cpu.vmx.cr0_mask) | (cpu.cr0 & cpu.vmx.cr0_mask))


@kernel
def guest_lmsw(cpu, ram, value):
    """LMSW: what the mask leaves to the guest of TS, EM and MP; PE can be set so, not cleared."""
    changeable = (CR0_MP | CR0_EM | CR0_TS) & ~cpu.vmx.cr0_mask
    raised = value & CR0_PE & ~cpu.vmx.cr0_mask
    return write_cr0(cpu, ram, (cpu.cr0 & ~changeable) | (value & changeable) | raised)


@inline
def iret_unblocks(cpu):
    """Whether IRET ends what blocks NMIs: not if NMIs exit, unless virtual ones are tracked."""
    return cpu.vmx.pin & PIN_NMI_EXITING == 0 or cpu.vmx.pin & PIN_VIRTUAL_NMIS != 0


@kernel
def guest_iret(cpu, ram, board, u):
    """IRET; what blocked NMIs is gone even if it faults, which an exit then tells."""
    if cpu.vmx.nmi_blocked == 0 or not iret_unblocks(cpu):
        return system_instruction(cpu, ram, board, u)
    cpu.vmx.nmi_blocked = 0
    outcome = system_instruction(cpu, ram, board, u)
    cpu.nmi_unblocked = int(outcome != OK)
    return outcome


@kernel
def guest_instruction(cpu, ram, board, u):
    """Execute an instruction that the guest's controls change."""
    op = u.dst_shift
    if op == SYSTEM_CR_TO_REGISTER or op == SYSTEM_REGISTER_TO_CR:
        return guest_control_register(cpu, ram, u)
    if op == SYSTEM_LMSW:
        return guest_lmsw(cpu, ram, cpu.gpr[u.src])
    if op == SYSTEM_SMSW:
        write_register(cpu, u.dst, 0, u.width, seen_cr0(cpu))
        return OK
    if op == SYSTEM_CLTS:
        cpu.cr0 &= ~(CR0_TS & ~cpu.vmx.cr0_mask)
        return OK
    return guest_iret(cpu, ram, board, u)


@kernel
def guest_value(cpu, ram, board, u):
    """The same, where the block goes on behind it."""
    return guest_instruction(cpu, ram, board, u)

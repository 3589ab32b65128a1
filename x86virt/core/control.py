"""Control and debug registers, identity, time and model-specific registers (SDM volume 2; volume 3, chapters 2 and 17)."""


from ..isa.events import EVENT_INS_CPUID_LEAF0, EVENT_INS_CPUID_LEAF1
from ..isa.registers import (
    CR0_CD,
    CR0_ET,
    CR0_IMPLEMENTED,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR4_DE,
    CR4_MCE,
    CR4_PAE,
    CR4_PCE,
    CR4_PGE,
    CR4_PSE,
    CR4_PVI,
    CR4_TSD,
    CR4_VME,
    EAX,
    EBX,
    ECX,
    EDX,
    MSR_APIC_BASE,
    MSR_SYSENTER_CS,
    MSR_SYSENTER_EIP,
    MSR_SYSENTER_ESP,
    MSR_TSC,
)
from ..isa.system_ops import (
    SYSTEM_CLTS,
    SYSTEM_CPUID,
    SYSTEM_CR_TO_REGISTER,
    SYSTEM_DR_TO_REGISTER,
    SYSTEM_INVLPG,
    SYSTEM_RDMSR,
    SYSTEM_RDTSC,
    SYSTEM_REGISTER_TO_CR,
    SYSTEM_REGISTER_TO_DR,
)
from ..isa.vectors import (
    GP,
    UD,
)
from .charge import charge
from .fault import raise_fault, raise_plain
from .jit import kernel
from .layout import OK, UNIMPLEMENTED
from .memory import effective_address
from .mode import MASK_32, in_real_mode, set_context
from .performance import is_performance_register, read_performance_register, write_performance_register
from .segment import set_real_mode_code
from .tlb import drop_front, flush_tlb, invalidate_page

TICKS_PER_CYCLE_SHIFT = 6

@kernel
def write_cr0(cpu, value):
    """MOV CR0 and LMSW. Reserved bits are ignored, ET is fixed."""
    value = (value & CR0_IMPLEMENTED) | CR0_ET
    # 1. Combinations that the manual forbids: paging without protection, not-write-through without cache-disable.
    if value & (CR0_PG | CR0_PE) == CR0_PG or value & (CR0_NW | CR0_CD) == CR0_NW:
        return raise_fault(cpu, GP, 0)
    # 2. What the TLBs may keep (SDM volume 3, section 4.10.4.1).
    changed = value ^ cpu.cr0
    cpu.cr0 = value
    if changed & (CR0_PG | CR0_PE):
        flush_tlb(cpu, 0)
    elif changed:
        drop_front(cpu)
    # 3. Into or out of real-address mode: segment registers keep their hidden parts, but that CS may be written there.
    if changed & CR0_PE:
        if in_real_mode(cpu):
            set_real_mode_code(cpu)
        set_context(cpu)
    return OK


@kernel
def cr4_offered(cpu):
    """The bits of CR4 that CPUID's features allow to be set."""
    features = cpu.cpuid_leaf1_edx
    offered = CR4_PCE
    offered |= (features >> 1 & 1) * (CR4_VME | CR4_PVI)
    offered |= (features >> 2 & 1) * CR4_DE
    offered |= (features >> 3 & 1) * CR4_PSE
    offered |= (features >> 4 & 1) * CR4_TSD
    offered |= (features >> 6 & 1) * CR4_PAE
    offered |= (features >> 7 & 1) * CR4_MCE
    offered |= (features >> 13 & 1) * CR4_PGE
    return offered


@kernel
def write_cr4(cpu, value):
    """MOV CR4. UNIMPLEMENTED: PAE paging, on a processor that offers it."""
    if value & ~cr4_offered(cpu):
        return raise_fault(cpu, GP, 0)
    if value & CR4_PAE:
        return UNIMPLEMENTED
    changed = value ^ cpu.cr4
    cpu.cr4 = value
    if changed & (CR4_PGE | CR4_PSE | CR4_PAE):
        flush_tlb(cpu, 0)
    return OK


@kernel
def register_to_cr(cpu, u):
    """MOV CRn, r32."""
    value = cpu.gpr[u.src]
    number = u.condition
    if number == 0:
        return write_cr0(cpu, value)
    if number == 2:
        cpu.cr2 = value
        return OK
    if number == 3:
        cpu.cr3 = value
        flush_tlb(cpu, 1)
        return OK
    if number == 4:
        return write_cr4(cpu, value)
    return raise_plain(cpu, UD)


@kernel
def cr_to_register(cpu, u):
    """MOV r32, CRn; the decoder knows no others than 0, 2, 3 and 4."""
    number = u.condition
    if number == 0:
        value = cpu.cr0
    elif number == 2:
        value = cpu.cr2
    elif number == 3:
        value = cpu.cr3
    else:
        value = cpu.cr4
    cpu.gpr[u.dst] = value
    return OK


DR6_FIXED = 0xFFFF0FF0
DR6_WRITABLE = 0xE00F
DR7_FIXED = 0x400
DR7_ENABLES = 0x20FF  # L0 to G3 and GD: what would make a debug exception
DR7_WRITABLE = 0xFFFF2BFF


@kernel
def debug_register_exists(cpu, u):
    """DR4 and DR5 are DR6 and DR7, unless CR4.DE is set."""
    return not ((u.condition == 4 or u.condition == 5) and cpu.cr4 & CR4_DE != 0)


@kernel
def register_to_dr(cpu, u):
    """MOV DRn, r32. UNIMPLEMENTED: enabling a breakpoint or general detect."""
    if not debug_register_exists(cpu, u):
        return raise_plain(cpu, UD)
    value = cpu.gpr[u.src]
    number = u.condition
    if number == 4 or number == 6:
        cpu.dr[6] = (value & DR6_WRITABLE) | DR6_FIXED
        return OK
    if number == 5 or number == 7:
        if value & DR7_ENABLES:
            return UNIMPLEMENTED
        cpu.dr[7] = (value & DR7_WRITABLE) | DR7_FIXED
        return OK
    cpu.dr[number] = value
    return OK


@kernel
def dr_to_register(cpu, u):
    """MOV r32, DRn."""
    if not debug_register_exists(cpu, u):
        return raise_plain(cpu, UD)
    number = u.condition
    if number == 4 or number == 6:
        value = (cpu.dr[6] & DR6_WRITABLE) | DR6_FIXED
    elif number == 5 or number == 7:
        value = (cpu.dr[7] & DR7_WRITABLE) | DR7_FIXED
    else:
        value = cpu.dr[number]
    cpu.gpr[u.dst] = value
    return OK


@kernel
def invlpg(cpu, u):
    """INVLPG: the operand is an address, not an access; no segment check applies."""
    invalidate_page(cpu, (cpu.seg[u.segment].seg_base + effective_address(cpu, u)) & MASK_32)
    return OK


# -- identity, time, model-specific registers ----------------------------------------------------------------------------


@kernel
def cpuid(cpu):
    """CPUID. Beyond the highest leaf (extended leaves too) it answers as the highest one does."""
    if cpu.gpr[EAX] == 1:
        charge(cpu, EVENT_INS_CPUID_LEAF1, 1)
    else:
        charge(cpu, EVENT_INS_CPUID_LEAF0, 1)
    leaf = cpu.gpr[EAX]
    leaf = min(leaf, cpu.cpuid_highest_leaf)
    if leaf == 0:
        cpu.gpr[EAX] = cpu.cpuid_highest_leaf
        cpu.gpr[EBX] = cpu.cpuid_vendor[0]
        cpu.gpr[EDX] = cpu.cpuid_vendor[1]
        cpu.gpr[ECX] = cpu.cpuid_vendor[2]
    elif leaf == 1:
        cpu.gpr[EAX] = cpu.cpuid_leaf1_eax
        cpu.gpr[EBX] = cpu.cpuid_leaf1_ebx
        cpu.gpr[ECX] = cpu.cpuid_leaf1_ecx
        cpu.gpr[EDX] = cpu.cpuid_leaf1_edx
    else:
        cpu.gpr[EAX] = 0
        cpu.gpr[EBX] = 0
        cpu.gpr[ECX] = 0
        cpu.gpr[EDX] = 0
    return OK


@kernel
def time_stamp(cpu):
    """The time-stamp counter in cycles."""
    return (cpu.ticks >> TICKS_PER_CYCLE_SHIFT) + cpu.tsc_offset


@kernel
def write_pair(cpu, value):
    """Write a 64-bit value to EDX:EAX."""
    cpu.gpr[EAX] = value & MASK_32
    cpu.gpr[EDX] = (value >> 32) & MASK_32


@kernel
def rdtsc(cpu):
    """RDTSC: forbidden outside ring 0 by CR4.TSD."""
    if cpu.cr4 & CR4_TSD != 0 and cpu.cpl != 0:
        return raise_fault(cpu, GP, 0)
    write_pair(cpu, time_stamp(cpu))
    return OK


APIC_BASE_DISABLED = 0xFEE00100  # the architectural base, bootstrap processor, APIC disabled


@kernel
def rdmsr(cpu):
    """RDMSR; #GP(0) for a register that this processor does not have."""
    number = cpu.gpr[ECX]
    if number == MSR_TSC:
        value = time_stamp(cpu)
    elif number == MSR_APIC_BASE:
        value = APIC_BASE_DISABLED
    elif number == MSR_SYSENTER_CS:
        value = cpu.sysenter_cs
    elif number == MSR_SYSENTER_ESP:
        value = cpu.sysenter_esp
    elif number == MSR_SYSENTER_EIP:
        value = cpu.sysenter_eip
    elif is_performance_register(cpu, number):
        value = read_performance_register(cpu, number)
    else:
        return raise_fault(cpu, GP, 0)
    write_pair(cpu, value)
    return OK


@kernel
def wrmsr(cpu):
    """WRMSR. UNIMPLEMENTED: enabling or moving the APIC. The SYSENTER registers keep 32 bits."""
    number = cpu.gpr[ECX]
    value = cpu.gpr[EAX]
    if number == MSR_TSC:
        cpu.tsc_offset = (value | cpu.gpr[EDX] << 32) - (cpu.ticks >> TICKS_PER_CYCLE_SHIFT)
    elif number == MSR_APIC_BASE:
        if value != APIC_BASE_DISABLED or cpu.gpr[EDX] != 0:
            return UNIMPLEMENTED
    elif number == MSR_SYSENTER_CS:
        cpu.sysenter_cs = value
    elif number == MSR_SYSENTER_ESP:
        cpu.sysenter_esp = value
    elif number == MSR_SYSENTER_EIP:
        cpu.sysenter_eip = value
    elif is_performance_register(cpu, number):
        write_performance_register(cpu, number, value)
    else:
        return raise_fault(cpu, GP, 0)
    return OK


@kernel
def control_instruction(cpu, u):
    """The operations SYSTEM_CR_TO_REGISTER to SYSTEM_WRMSR."""
    op = u.dst_shift
    if op == SYSTEM_REGISTER_TO_CR:
        return register_to_cr(cpu, u)
    if op == SYSTEM_CR_TO_REGISTER:
        return cr_to_register(cpu, u)
    if op == SYSTEM_REGISTER_TO_DR:
        return register_to_dr(cpu, u)
    if op == SYSTEM_DR_TO_REGISTER:
        return dr_to_register(cpu, u)
    if op == SYSTEM_CLTS:
        cpu.cr0 &= ~CR0_TS
        return OK
    if op == SYSTEM_INVLPG:
        return invlpg(cpu, u)
    if op == SYSTEM_CPUID:
        return cpuid(cpu)
    if op == SYSTEM_RDTSC:
        return rdtsc(cpu)
    if op == SYSTEM_RDMSR:
        return rdmsr(cpu)
    return wrmsr(cpu)

"""Control registers, and the way to the other registers of the system (SDM volume 2; volume 3, chapter 2)."""

from ..isa.registers import (
    CR0_CD,
    CR0_ET,
    CR0_IMPLEMENTED,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR4_DE,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
)
from ..isa.system_ops import (
    SYSTEM_CLTS,
    SYSTEM_CPUID,
    SYSTEM_DR_TO_REGISTER,
    SYSTEM_RDMSR,
    SYSTEM_RDTSC,
    SYSTEM_REGISTER_TO_CR,
    SYSTEM_REGISTER_TO_DR,
)
from ..isa.vectors import (
    GP,
    UD,
)
from .control_bits import cr4_offered
from .debug import dr_to_register, register_to_dr
from .debug_registers import refresh_breakpoints
from .fault import raise_fault, raise_plain
from .identity import cpuid, rdtsc
from .jit import inline, kernel
from .layout import OK, RESTART
from .memory import effective_address
from .mode import MASK_32, in_real_mode, set_context
from .model_specific import rdmsr, wrmsr
from .page_directory_pointers import load_cr3, load_pointers, pae_paging, set_large_page_size
from .segment import set_real_mode_code
from .tlb import drop_front, flush_tlb, invalidate_page, translates_code
from .vmx_capability import cr0_allowed, cr4_allowed


@kernel
def write_cr0(cpu, ram, value):
    """MOV CR0 and LMSW. Reserved bits are ignored, ET is fixed."""
    value = (value & CR0_IMPLEMENTED) | CR0_ET
    # 1. Combinations that the manual forbids: paging without protection, not-write-through without cache-disable.
    if value & (CR0_PG | CR0_PE) == CR0_PG or value & (CR0_NW | CR0_CD) == CR0_NW:
        return raise_fault(cpu, GP, 0)
    if cpu.vmx.operation == 1 and not cr0_allowed(cpu, value):
        return raise_fault(cpu, GP, 0)
    # 2. The page-directory-pointer entries of PAE paging (SDM volume 3, section 4.4.1).
    changed = value ^ cpu.cr0
    if changed & (CR0_PG | CR0_CD | CR0_NW) and pae_paging(value, cpu.cr4):
        outcome = load_pointers(cpu, ram, cpu.cr3)
        if outcome != OK:
            return outcome
    # 3. What the TLBs may keep (SDM volume 3, section 4.10.4.1).
    cpu.cr0 = value
    if changed & (CR0_PG | CR0_PE):
        flush_tlb(cpu, 0)
    elif changed:
        drop_front(cpu)
    # 4. Into or out of real-address mode: segment registers keep their hidden parts, but that CS may be written there.
    if changed & CR0_PE:
        if in_real_mode(cpu):
            set_real_mode_code(cpu)
        set_context(cpu)
    return OK


@kernel
def write_cr4(cpu, ram, value):
    """MOV CR4."""
    if value & ~cr4_offered(cpu) != 0 or (cpu.vmx.operation == 1 and not cr4_allowed(cpu, value)):
        return raise_fault(cpu, GP, 0)
    changed = value ^ cpu.cr4
    if changed & (CR4_PGE | CR4_PSE | CR4_PAE) and pae_paging(cpu.cr0, value):
        outcome = load_pointers(cpu, ram, cpu.cr3)
        if outcome != OK:
            return outcome
    cpu.cr4 = value
    if changed & (CR4_PGE | CR4_PSE | CR4_PAE):
        flush_tlb(cpu, 0)
        set_large_page_size(cpu)
    if changed & CR4_DE:
        refresh_breakpoints(cpu)
    return OK


@kernel
def register_to_cr(cpu, ram, u):
    """MOV CRn, r32."""
    value = cpu.gpr[u.src]
    number = u.condition
    if number == 0:
        return write_cr0(cpu, ram, value)
    if number == 2:
        cpu.cr2 = value
        return OK
    if number == 3:
        return load_cr3(cpu, ram, value)
    if number == 4:
        return write_cr4(cpu, ram, value)
    return raise_plain(cpu, UD)


@inline
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


@kernel
def invlpg(cpu, ram, board, u):
    """INVLPG: the operand is an address, not an access; no segment check applies."""
    gla = (cpu.seg[u.segment].seg_base + effective_address(cpu, u)) & MASK_32
    if cpu.in_block == 1 and translates_code(cpu, gla):
        return RESTART
    invalidate_page(cpu, gla)
    return OK


@inline
def control_instruction(cpu, ram, u):
    """The operations SYSTEM_REGISTER_TO_CR to SYSTEM_WRMSR, but those that have a micro-operation of their own."""
    op = u.dst_shift
    if op == SYSTEM_REGISTER_TO_CR:
        return register_to_cr(cpu, ram, u)
    if op == SYSTEM_REGISTER_TO_DR:
        return register_to_dr(cpu, u)
    if op == SYSTEM_DR_TO_REGISTER:
        return dr_to_register(cpu, u)
    if op == SYSTEM_CLTS:
        cpu.cr0 &= ~CR0_TS
        return OK
    if op == SYSTEM_CPUID:
        return cpuid(cpu)
    if op == SYSTEM_RDTSC:
        return rdtsc(cpu)
    if op == SYSTEM_RDMSR:
        return rdmsr(cpu)
    return wrmsr(cpu)

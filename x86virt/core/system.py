"""The system instructions (SDM volume 2). Which field carries which operand is told in `isa/system_ops.py`.

A handler runs with `cpu.rip` at the next instruction and after its price was charged. It returns OK, or FAULT with
nothing committed, or UNIMPLEMENTED with nothing committed. Privilege that is plainly CPL 0 was checked at decoding.
"""

from ..isa.events import EVENT_INS_CPUID_LEAF0, EVENT_INS_CPUID_LEAF1
from ..isa.registers import (
    AR_DB,
    AR_G,
    AR_P,
    AR_S,
    AR_TYPE,
    CR0_CD,
    CR0_EM,
    CR0_ET,
    CR0_IMPLEMENTED,
    CR0_MP,
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
    CS,
    EAX,
    EBX,
    ECX,
    EDX,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_IOPL_SHIFT,
    EFLAGS_OF,
    EFLAGS_RF,
    EFLAGS_VM,
    EFLAGS_ZF,
    ESP,
    LDTR,
    MSR_APIC_BASE,
    MSR_SYSENTER_CS,
    MSR_SYSENTER_EIP,
    MSR_SYSENTER_ESP,
    MSR_TSC,
    SS,
    TR,
    TYPE_CALL_GATE_16,
    TYPE_CALL_GATE_32,
    TYPE_LDT,
    TYPE_TASK_GATE,
    TYPE_TSS_16,
    TYPE_TSS_16_BUSY,
    TYPE_TSS_32,
    TYPE_TSS_32_BUSY,
)
from ..isa.system_ops import (
    SYSTEM_ARPL,
    SYSTEM_CALL_FAR_INDIRECT,
    SYSTEM_CLI,
    SYSTEM_CLTS,
    SYSTEM_CPUID,
    SYSTEM_CR_TO_REGISTER,
    SYSTEM_DR_TO_REGISTER,
    SYSTEM_HLT,
    SYSTEM_IN,
    SYSTEM_INT3,
    SYSTEM_INT_N,
    SYSTEM_INTO,
    SYSTEM_INVD,
    SYSTEM_INVLPG,
    SYSTEM_IRET,
    SYSTEM_JMP_FAR,
    SYSTEM_JMP_FAR_INDIRECT,
    SYSTEM_LAR,
    SYSTEM_LGDT,
    SYSTEM_LIDT,
    SYSTEM_LLDT,
    SYSTEM_LMSW,
    SYSTEM_LOAD_FAR_POINTER,
    SYSTEM_LSL,
    SYSTEM_LTR,
    SYSTEM_OUT,
    SYSTEM_POP_SREG,
    SYSTEM_POPF,
    SYSTEM_PUSH_SREG,
    SYSTEM_PUSHF,
    SYSTEM_RDMSR,
    SYSTEM_RDTSC,
    SYSTEM_REGISTER_TO_CR,
    SYSTEM_REGISTER_TO_DR,
    SYSTEM_REGISTER_TO_SREG,
    SYSTEM_RET_FAR,
    SYSTEM_SGDT,
    SYSTEM_SIDT,
    SYSTEM_SLDT,
    SYSTEM_SREG_TO_REGISTER,
    SYSTEM_STI,
    SYSTEM_STR,
    SYSTEM_SYSENTER,
    SYSTEM_SYSEXIT,
    SYSTEM_UD2,
    SYSTEM_VERR,
    SYSTEM_VERW,
    SYSTEM_WBINVD,
    SYSTEM_WRMSR,
)
from ..isa.vectors import (
    BP,
    GP,
    KIND_SOFTWARE_EXCEPTION,
    KIND_SOFTWARE_INTERRUPT,
    OF,
    UD,
)
from .charge import charge
from .deliver import software_interrupt
from .far import far_call, far_jump, far_return
from .fault import raise_fault, raise_plain
from .flags import get_eflags, set_eflags
from .iret import iret, loadable_flags
from .jit import kernel
from .layout import OK, UNIMPLEMENTED
from .memory import effective_address, read_segment, write_segment
from .mode import (
    MASK_32,
    operand_bytes,
    peek_stack,
    push,
    set_context,
    set_cpl,
    set_stack_pointer,
    stack_mask,
    write_register,
)
from .ports import port_in, port_out
from .segment import (
    access_of,
    descriptor_address,
    dpl_of,
    is_conforming,
    is_null,
    is_readable,
    is_writable_data,
    limit_of,
    load_ldtr,
    load_segment_register,
    load_tr,
    read_descriptor_at,
    segment_limits,
)
from .tlb import drop_front, flush_tlb, invalidate_page

TICKS_PER_CYCLE_SHIFT = 6

# -- flags, halting, interrupts -----------------------------------------------------------------------------------------


@kernel
def io_privileged(cpu):
    """CPL <= IOPL: may this code change IF?"""
    return cpu.cpl <= (cpu.eflags & EFLAGS_IOPL) >> EFLAGS_IOPL_SHIFT


@kernel
def cli(cpu):
    """CLI."""
    if not io_privileged(cpu):
        return raise_fault(cpu, GP, 0)
    cpu.eflags &= ~EFLAGS_IF
    return OK


@kernel
def sti(cpu):
    """STI: interrupts that it opens are held off for one more instruction."""
    if not io_privileged(cpu):
        return raise_fault(cpu, GP, 0)
    if cpu.eflags & EFLAGS_IF == 0:
        cpu.shadow = 1
    cpu.eflags |= EFLAGS_IF
    return OK


@kernel
def pushf(cpu, ram, u):
    """PUSHF and PUSHFD: the image has RF and VM clear."""
    return push(cpu, ram, operand_bytes(u.width), get_eflags(cpu) & ~(EFLAGS_RF | EFLAGS_VM))


@kernel
def popf(cpu, ram, u):
    """POPF and POPFD: what the CPL may not change stays; RF is cleared."""
    n = operand_bytes(u.width)
    outcome, image = peek_stack(cpu, ram, 0, n)
    if outcome != OK:
        return outcome
    mask = loadable_flags(cpu)
    if n == 2:
        mask &= 0xFFFF
    set_stack_pointer(cpu, cpu.gpr[ESP] + n)
    set_eflags(cpu, (get_eflags(cpu) & ~(mask | EFLAGS_RF)) | (image & mask))
    return OK


@kernel
def into(cpu, ram):
    """INTO."""
    if get_eflags(cpu) & EFLAGS_OF:
        return software_interrupt(cpu, ram, OF, KIND_SOFTWARE_EXCEPTION)
    return OK


@kernel
def iret_of_width(cpu, ram, u):
    """IRETD; IRET with 16-bit operands is not implemented."""
    if u.width == 16:
        return UNIMPLEMENTED
    return iret(cpu, ram)


@kernel
def flag_instruction(cpu, ram, board, u):
    """The operations SYSTEM_CLI to SYSTEM_OUT."""
    op = u.dst_shift
    if op == SYSTEM_CLI:
        return cli(cpu)
    if op == SYSTEM_STI:
        return sti(cpu)
    if op == SYSTEM_PUSHF:
        return pushf(cpu, ram, u)
    if op == SYSTEM_POPF:
        return popf(cpu, ram, u)
    if op == SYSTEM_HLT:
        cpu.halted = 1
        return OK
    if op == SYSTEM_INT_N:
        return software_interrupt(cpu, ram, u.imm & 0xFF, KIND_SOFTWARE_INTERRUPT)
    if op == SYSTEM_INT3:
        return software_interrupt(cpu, ram, BP, KIND_SOFTWARE_EXCEPTION)
    if op == SYSTEM_INTO:
        return into(cpu, ram)
    if op == SYSTEM_IRET:
        return iret_of_width(cpu, ram, u)
    if op == SYSTEM_IN:
        return port_in(cpu, ram, board, u)
    if op == SYSTEM_OUT:
        return port_out(cpu, ram, board, u)
    return UNIMPLEMENTED


# -- descriptor-table registers -----------------------------------------------------------------------------------------


@kernel
def load_table(cpu, ram, u):
    """LGDT and LIDT: a 16-bit limit, then the base (24 bits of it with 16-bit operands)."""
    offset = effective_address(cpu, u)
    outcome, limit = read_segment(cpu, ram, u.segment, offset, 2)
    if outcome != OK:
        return outcome
    outcome, table_base = read_segment(cpu, ram, u.segment, (offset + 2) & MASK_32, 4)
    if outcome != OK:
        return outcome
    if u.width == 16:
        table_base &= 0xFFFFFF
    if u.dst_shift == SYSTEM_LGDT:
        cpu.gdtr_limit = limit
        cpu.gdtr_base = table_base
    else:
        cpu.idtr_limit = limit
        cpu.idtr_base = table_base
    return OK


@kernel
def store_table(cpu, ram, u, limit, table_base):
    """SGDT and SIDT: all 32 bits of the base, at any operand size (as processors since the 80386 do)."""
    offset = effective_address(cpu, u)
    outcome = write_segment(cpu, ram, u.segment, offset, 2, limit)
    if outcome != OK:
        return outcome
    return write_segment(cpu, ram, u.segment, (offset + 2) & MASK_32, 4, table_base)


@kernel
def lmsw(cpu, value):
    """LMSW: PE, MP, EM and TS; PE cannot be cleared."""
    changeable = CR0_MP | CR0_EM | CR0_TS
    cpu.cr0 = (cpu.cr0 & ~changeable) | (value & (changeable | CR0_PE))
    return OK


@kernel
def table_instruction(cpu, ram, u):
    """The operations SYSTEM_LGDT to SYSTEM_LMSW."""
    op = u.dst_shift
    if op == SYSTEM_LGDT or op == SYSTEM_LIDT:
        return load_table(cpu, ram, u)
    if op == SYSTEM_SGDT:
        return store_table(cpu, ram, u, cpu.gdtr_limit, cpu.gdtr_base)
    if op == SYSTEM_SIDT:
        return store_table(cpu, ram, u, cpu.idtr_limit, cpu.idtr_base)
    if op == SYSTEM_LLDT:
        return load_ldtr(cpu, ram, cpu.gpr[u.src])
    if op == SYSTEM_LTR:
        return load_tr(cpu, ram, cpu.gpr[u.src])
    if op == SYSTEM_LMSW:
        return lmsw(cpu, cpu.gpr[u.src])
    if op == SYSTEM_SLDT:
        value = cpu.seg[LDTR].selector
    elif op == SYSTEM_STR:
        value = cpu.seg[TR].selector
    else:  # SYSTEM_SMSW; a 32-bit register receives all of CR0
        value = cpu.cr0
    write_register(cpu, u.dst, 0, u.width, value)
    return OK


# -- control and debug registers ----------------------------------------------------------------------------------------


@kernel
def write_cr0(cpu, value):
    """MOV CR0. UNIMPLEMENTED: leaving protected mode. Reserved bits are ignored, ET is fixed."""
    value = (value & CR0_IMPLEMENTED) | CR0_ET
    # 1. Combinations that the manual forbids: paging without protection, not-write-through without cache-disable.
    if value & (CR0_PG | CR0_PE) == CR0_PG or value & (CR0_NW | CR0_CD) == CR0_NW:
        return raise_fault(cpu, GP, 0)
    if value & CR0_PE == 0 and cpu.cr0 & CR0_PE != 0:
        return UNIMPLEMENTED
    # 2. What the TLBs may keep (SDM volume 3, section 4.10.4.1).
    changed = value ^ cpu.cr0
    cpu.cr0 = value
    if changed & (CR0_PG | CR0_PE):
        flush_tlb(cpu, 0)
    elif changed:
        drop_front(cpu)
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
    """MOV CR4. UNIMPLEMENTED: PAE paging and the virtual interrupt flag, on a processor that offers them."""
    if value & ~cr4_offered(cpu):
        return raise_fault(cpu, GP, 0)
    if value & (CR4_PAE | CR4_VME | CR4_PVI):
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
    """MOV r32, CRn."""
    number = u.condition
    if number == 0:
        value = cpu.cr0
    elif number == 2:
        value = cpu.cr2
    elif number == 3:
        value = cpu.cr3
    elif number == 4:
        value = cpu.cr4
    else:
        return raise_plain(cpu, UD)
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


# -- identity, time, model-specific registers ---------------------------------------------------------------------------


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


# -- SYSENTER and SYSEXIT -----------------------------------------------------------------------------------------------

FLAT_CODE = AR_G | AR_DB | AR_P | AR_S | 11  # execute/read, accessed
FLAT_DATA = AR_G | AR_DB | AR_P | AR_S | 3  # read/write, accessed


@kernel
def set_flat_segment(cpu, segment, selector, access):
    """A segment of 4 GB from 0, loaded without reading a descriptor."""
    entry = cpu.seg[segment]
    entry.selector = selector & 0xFFFF
    entry.access = access
    entry.seg_base = 0
    entry.limit = MASK_32
    segment_limits(cpu, segment)


@kernel
def enter_flat(cpu, code_selector, level, eip, pointer):
    """Flat CS:EIP and SS:ESP at a privilege level; SS stands 8 behind CS."""
    set_flat_segment(cpu, CS, code_selector | level, FLAT_CODE | level << 5)
    set_flat_segment(cpu, SS, (code_selector + 8) | level, FLAT_DATA | level << 5)
    cpu.gpr[ESP] = pointer
    cpu.rip = eip
    set_cpl(cpu, level)
    set_context(cpu)


@kernel
def sysenter(cpu):
    """SYSENTER: from any ring to ring 0, with IF clear."""
    selector = cpu.sysenter_cs & 0xFFFC
    if selector == 0:
        return raise_fault(cpu, GP, 0)
    cpu.eflags &= ~(EFLAGS_VM | EFLAGS_IF | EFLAGS_RF)
    enter_flat(cpu, selector, 0, cpu.sysenter_eip & MASK_32, cpu.sysenter_esp & MASK_32)
    return OK


@kernel
def sysexit(cpu):
    """SYSEXIT: from ring 0 to ring 3 at EDX, with the stack pointer of ECX."""
    selector = cpu.sysenter_cs & 0xFFFC
    if selector == 0 or cpu.cpl != 0:
        return raise_fault(cpu, GP, 0)
    enter_flat(cpu, selector + 16, 3, cpu.gpr[EDX], cpu.gpr[ECX])
    return OK


# -- looking at selectors -----------------------------------------------------------------------------------------------

LAR_TYPES = (
    1 << TYPE_TSS_16
    | 1 << TYPE_LDT
    | 1 << TYPE_TSS_16_BUSY
    | 1 << TYPE_CALL_GATE_16
    | 1 << TYPE_TASK_GATE
    | 1 << TYPE_TSS_32
    | 1 << TYPE_TSS_32_BUSY
    | 1 << TYPE_CALL_GATE_32
)
LSL_TYPES = 1 << TYPE_TSS_16 | 1 << TYPE_LDT | 1 << TYPE_TSS_16_BUSY | 1 << TYPE_TSS_32 | 1 << TYPE_TSS_32_BUSY


@kernel
def set_zero_flag(cpu, zero):
    """Write ZF and leave the other flags."""
    image = get_eflags(cpu) & ~EFLAGS_ZF
    if zero:
        image |= EFLAGS_ZF
    set_eflags(cpu, image)


@kernel
def inspect(cpu, ram, selector):
    """Read a descriptor without faulting on the selector: (outcome, found, low, high)."""
    if is_null(selector):
        return OK, False, 0, 0
    gla = descriptor_address(cpu, selector)
    if gla < 0:
        return OK, False, 0, 0
    outcome, low, high = read_descriptor_at(cpu, ram, gla)
    return outcome, True, low, high


@kernel
def visible(cpu, selector, access):
    """May the current code look at this descriptor: conforming code, or CPL and RPL no less privileged than DPL?"""
    return is_conforming(access) or (cpu.cpl <= dpl_of(access) and selector & 3 <= dpl_of(access))


@kernel
def load_access_or_limit(cpu, ram, u, types):
    """LAR and LSL: ZF tells whether the destination was written."""
    selector = cpu.gpr[u.src] & 0xFFFF
    outcome, found, low, high = inspect(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if access & AR_S == 0:
        found = found and (types >> (access & AR_TYPE)) & 1 == 1
    found = found and visible(cpu, selector, access)
    if found:
        value = high & 0x00FFFF00
        if u.dst_shift == SYSTEM_LSL:
            value = limit_of(low, high)
        write_register(cpu, u.dst, 0, u.width, value)
    set_zero_flag(cpu, found)
    return OK


@kernel
def verify(cpu, ram, u):
    """VERR and VERW."""
    selector = cpu.gpr[u.src] & 0xFFFF
    outcome, found, _, high = inspect(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if u.dst_shift == SYSTEM_VERR:
        found = found and is_readable(access)
    else:
        found = found and is_writable_data(access)
    set_zero_flag(cpu, found and visible(cpu, selector, access))
    return OK


@kernel
def arpl(cpu, u):
    """ARPL: `dst` holds the selector to adjust (register or loaded operand), `src` the one to compare with."""
    selector = cpu.gpr[u.dst]
    level = cpu.gpr[u.src] & 3
    lower = selector & 3 < level
    if lower:
        cpu.gpr[u.dst] = (selector & ~3) | level
    set_zero_flag(cpu, lower)
    return OK


# -- segment registers --------------------------------------------------------------------------------------------------


@kernel
def register_to_sreg(cpu, ram, u):
    """MOV Sreg, r/m16. Loading SS holds interrupts off for one instruction. CS is #UD."""
    if u.condition == CS:
        return raise_plain(cpu, UD)
    outcome = load_segment_register(cpu, ram, u.condition, cpu.gpr[u.src])
    if outcome == OK and u.condition == SS:
        cpu.shadow = 1
    return outcome


@kernel
def pop_sreg(cpu, ram, u):
    """POP Sreg: the stack pointer moves in the size of the stack that was popped from."""
    n = operand_bytes(u.width)
    outcome, selector = peek_stack(cpu, ram, 0, n)
    if outcome != OK:
        return outcome
    mask = stack_mask(cpu.seg[SS].access)
    pointer = (cpu.gpr[ESP] & ~mask & MASK_32) | ((cpu.gpr[ESP] + n) & mask)
    outcome = load_segment_register(cpu, ram, u.condition, selector)
    if outcome != OK:
        return outcome
    cpu.gpr[ESP] = pointer
    if u.condition == SS:
        cpu.shadow = 1
    return OK


@kernel
def load_far_pointer(cpu, ram, u):
    """LDS, LES, LSS, LFS, LGS."""
    outcome, selector, offset = read_far_pointer(cpu, ram, u)
    if outcome != OK:
        return outcome
    outcome = load_segment_register(cpu, ram, u.condition, selector)
    if outcome == OK:
        write_register(cpu, u.dst, 0, u.width, offset)
    return outcome


@kernel
def selector_instruction(cpu, ram, u):
    """The operations SYSTEM_SYSENTER to SYSTEM_LOAD_FAR_POINTER."""
    op = u.dst_shift
    if op == SYSTEM_SYSENTER:
        return sysenter(cpu)
    if op == SYSTEM_SYSEXIT:
        return sysexit(cpu)
    if op == SYSTEM_LAR:
        return load_access_or_limit(cpu, ram, u, LAR_TYPES)
    if op == SYSTEM_LSL:
        return load_access_or_limit(cpu, ram, u, LSL_TYPES)
    if op == SYSTEM_VERR or op == SYSTEM_VERW:
        return verify(cpu, ram, u)
    if op == SYSTEM_ARPL:
        return arpl(cpu, u)
    if op == SYSTEM_REGISTER_TO_SREG:
        return register_to_sreg(cpu, ram, u)
    if op == SYSTEM_SREG_TO_REGISTER:
        write_register(cpu, u.dst, 0, u.width, cpu.seg[u.condition].selector)
        return OK
    if op == SYSTEM_PUSH_SREG:
        return push(cpu, ram, operand_bytes(u.width), cpu.seg[u.condition].selector)
    if op == SYSTEM_POP_SREG:
        return pop_sreg(cpu, ram, u)
    return load_far_pointer(cpu, ram, u)


# -- far transfers ------------------------------------------------------------------------------------------------------


@kernel
def read_far_pointer(cpu, ram, u):
    """Read m16:32 (or m16:16): (outcome, selector, offset)."""
    address = effective_address(cpu, u)
    n = operand_bytes(u.width)
    outcome, offset = read_segment(cpu, ram, u.segment, address, n)
    if outcome != OK:
        return outcome, 0, 0
    outcome, selector = read_segment(cpu, ram, u.segment, (address + n) & MASK_32, 2)
    return outcome, selector, offset


@kernel
def far_instruction(cpu, ram, u):
    """The operations SYSTEM_JMP_FAR to SYSTEM_CALL_FAR_INDIRECT; 16-bit operands are not implemented."""
    op = u.dst_shift
    if u.width == 16:
        return UNIMPLEMENTED
    if op == SYSTEM_RET_FAR:
        return far_return(cpu, ram, u.imm & 0xFFFF)
    selector = (u.imm >> 32) & 0xFFFF
    offset = u.imm & MASK_32
    if op == SYSTEM_JMP_FAR_INDIRECT or op == SYSTEM_CALL_FAR_INDIRECT:
        outcome, selector, offset = read_far_pointer(cpu, ram, u)
        if outcome != OK:
            return outcome
    if op == SYSTEM_JMP_FAR or op == SYSTEM_JMP_FAR_INDIRECT:
        return far_jump(cpu, ram, selector, offset)
    return far_call(cpu, ram, selector, offset)


@kernel
def system_instruction(cpu, ram, board, u):
    """Execute the system instruction whose operation number (`isa/system_ops.py`) is in `u.dst_shift`."""
    op = u.dst_shift
    if op <= SYSTEM_OUT:
        return flag_instruction(cpu, ram, board, u)
    if op <= SYSTEM_LMSW:
        return table_instruction(cpu, ram, u)
    if op <= SYSTEM_WRMSR:
        return control_instruction(cpu, u)
    if op <= SYSTEM_LOAD_FAR_POINTER:
        return selector_instruction(cpu, ram, u)
    if op <= SYSTEM_CALL_FAR_INDIRECT:
        return far_instruction(cpu, ram, u)
    if op == SYSTEM_WBINVD or op == SYSTEM_INVD:
        return OK
    if op == SYSTEM_UD2:
        return raise_plain(cpu, UD)
    return UNIMPLEMENTED

"""Which instructions VMX non-root operation intercepts, by their operands, and the exit's qualification.

SDM volume 3, sections 25.1 and 27.2.1 (tables 27-3 to 27-5). Faults that rank above the exit are left to the instruction,
which raises them when it executes: OK says that it may.
"""

from ..isa.registers import CR0_EM, CR0_MP, CR0_PE, CR0_TS, CR4_PCE, CR4_TSD, ECX, EDI, EDX, ES, ESI
from ..isa.system_ops import (
    INTERCEPT_INS,
    INTERCEPT_OUTS,
    INTERCEPT_PAUSE,
    SYSTEM_CLTS,
    SYSTEM_CPUID,
    SYSTEM_CR_TO_REGISTER,
    SYSTEM_DR_TO_REGISTER,
    SYSTEM_HLT,
    SYSTEM_IN,
    SYSTEM_INVD,
    SYSTEM_INVEPT,
    SYSTEM_INVLPG,
    SYSTEM_INVVPID,
    SYSTEM_LGDT,
    SYSTEM_LMSW,
    SYSTEM_OUT,
    SYSTEM_RDMSR,
    SYSTEM_RDTSC,
    SYSTEM_REGISTER_TO_CR,
    SYSTEM_REGISTER_TO_DR,
    SYSTEM_SIDT,
    SYSTEM_STR,
    SYSTEM_VMCALL,
    SYSTEM_WBINVD,
    SYSTEM_WRMSR,
)
from ..isa.vmx import (
    EXIT_CPUID,
    EXIT_CR_ACCESS,
    EXIT_DR_ACCESS,
    EXIT_GDTR_IDTR,
    EXIT_HLT,
    EXIT_INVD,
    EXIT_INVEPT,
    EXIT_INVLPG,
    EXIT_INVVPID,
    EXIT_IO_INSTRUCTION,
    EXIT_LDTR_TR,
    EXIT_MSR_READ,
    EXIT_MSR_WRITE,
    EXIT_PAUSE,
    EXIT_RDPMC,
    EXIT_RDTSC,
    EXIT_VMCALL,
    EXIT_WBINVD,
    PROCESSOR_CR3_LOAD_EXITING,
    PROCESSOR_CR3_STORE_EXITING,
    PROCESSOR_IO_BITMAPS,
    PROCESSOR_MSR_BITMAPS,
)
from .cache import VMM, reference
from .event_exit import begin_exit
from .jit import inline, kernel
from .layout import OK, VM_EXIT
from .memory import effective_address
from .mode import MASK_32, in_virtual_8086_mode
from .physical import read_memory
from .ports import check_port, port_of

INS_OUTS_INFORMATION = 1 << 54  # of IA32_VMX_BASIC
# Access types of table 27-3.
MOV_TO_CR, MOV_FROM_CR, ACCESS_CLTS, ACCESS_LMSW = range(4)
LMSW_BITS = CR0_MP | CR0_EM | CR0_TS
LAST_PORT = 0xFFFF
MSR_HIGH, MSRS_IN_BITMAP, MSR_HIGH_BYTES, MSR_WRITE_BYTES = 0xC0000000, 0x2000, 1024, 2048


@inline
def exit_with(cpu, reason, qualification):
    """Exit with a qualification."""
    begin_exit(cpu, reason)
    cpu.vm_exit.qualification = qualification
    return VM_EXIT


@inline
def linear_operand(cpu, u):
    """The linear address of a memory operand."""
    return (cpu.seg[u.segment].seg_base + (effective_address(cpu, u) & u.address_mask)) & MASK_32


# -- control and debug registers ------------------------------------------------------------------------------------------


@inline
def is_cr3_target(cpu, value):
    """Whether a value is one of the CR3-target values that count."""
    for number in range(cpu.vmx.cr3_targets):
        if cpu.vmx.cr3_target[number] == value:
            return True
    return False


@kernel
def write_exits(cpu, number, value):
    """Whether MOV to a control register exits (section 25.1.3)."""
    vmx = cpu.vmx
    if number == 0:
        return (value ^ vmx.cr0_shadow) & vmx.cr0_mask != 0
    if number == 4:
        return (value ^ vmx.cr4_shadow) & vmx.cr4_mask != 0
    return number == 3 and vmx.processor & PROCESSOR_CR3_LOAD_EXITING != 0 and not is_cr3_target(cpu, value)


@kernel
def lmsw_exits(cpu, value):
    """Whether LMSW exits: it would change a bit of the host's; PE it can only set."""
    mask, shadow = cpu.vmx.cr0_mask, cpu.vmx.cr0_shadow
    if (value ^ shadow) & mask & LMSW_BITS != 0:
        return True
    return value & ~shadow & mask & CR0_PE != 0


@kernel
def intercept_cr(cpu, u):
    """MOV to and from control registers, CLTS and LMSW (table 27-3)."""
    op = u.dst_shift
    number = u.condition
    if op == SYSTEM_REGISTER_TO_CR and write_exits(cpu, number, cpu.gpr[u.src]):
        return exit_with(cpu, EXIT_CR_ACCESS, number | MOV_TO_CR << 4 | u.src << 8)
    if op == SYSTEM_CR_TO_REGISTER and number == 3 and cpu.vmx.processor & PROCESSOR_CR3_STORE_EXITING != 0:
        return exit_with(cpu, EXIT_CR_ACCESS, number | MOV_FROM_CR << 4 | u.src << 8)
    if op == SYSTEM_CLTS and cpu.vmx.cr0_mask & cpu.vmx.cr0_shadow & CR0_TS != 0:
        return exit_with(cpu, EXIT_CR_ACCESS, ACCESS_CLTS << 4)
    if op == SYSTEM_LMSW and lmsw_exits(cpu, cpu.gpr[u.src]):
        exit_with(cpu, EXIT_CR_ACCESS, ACCESS_LMSW << 4 | u.dst << 6 | (cpu.gpr[u.src] & 0xFFFF) << 16)
        if u.dst == 1:
            cpu.vm_exit.gla = linear_operand(cpu, u)
        return VM_EXIT
    return OK


@inline
def intercept_dr(cpu, u):
    """MOV to and from debug registers, whatever the privilege (table 27-4)."""
    reads = int(u.dst_shift == SYSTEM_DR_TO_REGISTER)
    return exit_with(cpu, EXIT_DR_ACCESS, u.condition | reads << 4 | u.src << 8)


# -- ports ----------------------------------------------------------------------------------------------------------------


@inline
def bitmap_bit(cpu, ram, bitmap, number):
    """A bit of a bitmap in memory: one reference."""
    address = bitmap + (number >> 3)
    reference(cpu, address, VMM)
    return (read_memory(cpu, ram, address, 1) >> (number & 7)) & 1


@kernel
def ports_exit(cpu, ram, port, n):
    """Whether an access to `n` ports exits (section 24.6.4): always without the bitmaps, and where it wraps around."""
    if cpu.vmx.processor & PROCESSOR_IO_BITMAPS == 0 or port + n - 1 > LAST_PORT:
        return True
    for number in range(port, port + n):
        bitmap = cpu.vmx.io_bitmap_a
        if number & 0x8000:
            bitmap = cpu.vmx.io_bitmap_b
        if bitmap_bit(cpu, ram, bitmap, number & 0x7FFF) == 1:
            return True
    return False


@kernel
def intercept_port(cpu, ram, u):
    """IN and OUT (table 27-5), behind the check of the permission to use the port."""
    port = port_of(cpu, u)
    n = u.width >> 3
    outcome = check_port(cpu, ram, port, n)
    if outcome != OK or not ports_exit(cpu, ram, port, n):
        return outcome
    reads = int(u.dst_shift == SYSTEM_IN)
    immediate = int(u.condition == 0)
    return exit_with(cpu, EXIT_IO_INSTRUCTION, (n - 1) | reads << 3 | immediate << 6 | port << 16)


@kernel
def intercept_port_string(cpu, ram, u):
    """INS and OUTS, ahead of all that may be wrong with their memory operand; none is executed if the count is 0."""
    if u.imm != 0 and cpu.gpr[ECX] & u.address_mask == 0:
        return OK
    port = cpu.gpr[EDX] & LAST_PORT
    n = u.width >> 3
    outcome = check_port(cpu, ram, port, n)
    if outcome != OK or not ports_exit(cpu, ram, port, n):
        return outcome
    reads = int(u.dst_shift == INTERCEPT_INS)
    repeated = int(u.imm != 0)
    exit_with(cpu, EXIT_IO_INSTRUCTION, (n - 1) | reads << 3 | 1 << 4 | repeated << 5 | port << 16)
    segment, register = u.segment, ESI
    if reads == 1:
        segment, register = ES, EDI
    cpu.vm_exit.gla = (cpu.seg[segment].seg_base + (cpu.gpr[register] & u.address_mask)) & MASK_32
    if cpu.msr.vmx_capability[0] & INS_OUTS_INFORMATION != 0:
        cpu.vm_exit.instruction_information = u.information
    return VM_EXIT


# -- model-specific registers ---------------------------------------------------------------------------------------------


@kernel
def msr_exits(cpu, ram, number, write):
    """Whether an access to a register exits (section 24.6.9): always without the bitmaps, and outside their ranges."""
    if cpu.vmx.processor & PROCESSOR_MSR_BITMAPS == 0:
        return True
    bitmap = cpu.vmx.msr_bitmaps + write * MSR_WRITE_BYTES
    if number >= MSR_HIGH:
        number -= MSR_HIGH
        bitmap += MSR_HIGH_BYTES
    if number >= MSRS_IN_BITMAP:
        return True
    return bitmap_bit(cpu, ram, bitmap, number) == 1


@kernel
def intercept_msr(cpu, ram, u):
    """RDMSR and WRMSR."""
    write = int(u.dst_shift == SYSTEM_WRMSR)
    if not msr_exits(cpu, ram, cpu.gpr[ECX], write):
        return OK
    if write == 1:
        return begin_exit(cpu, EXIT_MSR_WRITE)
    return begin_exit(cpu, EXIT_MSR_READ)


# -- the rest -------------------------------------------------------------------------------------------------------------


@inline
def displacement(u):
    """The displacement of a memory operand, as far as the address size goes; 0 for none."""
    return u.disp & u.address_mask


@kernel
def intercept_table_access(cpu, u):
    """LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT and STR."""
    reason = EXIT_LDTR_TR
    if u.dst_shift <= SYSTEM_SIDT:
        reason = EXIT_GDTR_IDTR
    exit_with(cpu, reason, displacement(u))
    cpu.vm_exit.instruction_information = u.information
    return VM_EXIT


@kernel
def intercept_vmx_instruction(cpu, u):
    """Instructions of VMX: exits at any privilege, but #UD in virtual-8086 mode for all of them save VMCALL."""
    op = u.dst_shift
    if op != SYSTEM_VMCALL and in_virtual_8086_mode(cpu):
        return OK
    reason = EXIT_VMCALL + op - SYSTEM_VMCALL
    if op == SYSTEM_INVEPT:
        reason = EXIT_INVEPT
    elif op == SYSTEM_INVVPID:
        reason = EXIT_INVVPID
    exit_with(cpu, reason, displacement(u))
    cpu.vm_exit.instruction_information = u.information
    return VM_EXIT


@kernel
def forbidden_by_cr4(cpu, op):
    """RDTSC and RDPMC outside ring 0 as CR4 says: #GP(0), which the instruction itself raises."""
    if cpu.cpl == 0:
        return False
    if op == SYSTEM_RDTSC:
        return cpu.cr4 & CR4_TSD != 0
    return cpu.cr4 & CR4_PCE == 0


@kernel
def intercept_plain(cpu, u):
    """Instructions whose exit tells nothing but the reason."""
    op = u.dst_shift
    if op == SYSTEM_CPUID:
        return begin_exit(cpu, EXIT_CPUID)
    if op == SYSTEM_HLT:
        return begin_exit(cpu, EXIT_HLT)
    if op == INTERCEPT_PAUSE:
        return begin_exit(cpu, EXIT_PAUSE)
    if op == SYSTEM_INVD:
        return begin_exit(cpu, EXIT_INVD)
    if op == SYSTEM_WBINVD:
        return begin_exit(cpu, EXIT_WBINVD)
    if forbidden_by_cr4(cpu, op):
        return OK
    if op == SYSTEM_RDTSC:
        return begin_exit(cpu, EXIT_RDTSC)
    return begin_exit(cpu, EXIT_RDPMC)


@kernel
def vmx_intercept(cpu, ram, u):
    """Whether the instruction of a micro-operation `intercept`, which some control may intercept, exits: OK or VM_EXIT.

    FAULT where one that ranks above the exit was found.
    """
    op = u.dst_shift
    if op == SYSTEM_IN or op == SYSTEM_OUT:
        return intercept_port(cpu, ram, u)
    if op == INTERCEPT_INS or op == INTERCEPT_OUTS:
        return intercept_port_string(cpu, ram, u)
    if op == SYSTEM_REGISTER_TO_CR or op == SYSTEM_CR_TO_REGISTER or op == SYSTEM_CLTS or op == SYSTEM_LMSW:
        return intercept_cr(cpu, u)
    if op == SYSTEM_RDMSR or op == SYSTEM_WRMSR:
        return intercept_msr(cpu, ram, u)
    if op == SYSTEM_INVLPG:
        return exit_with(cpu, EXIT_INVLPG, linear_operand(cpu, u))
    if op == SYSTEM_REGISTER_TO_DR or op == SYSTEM_DR_TO_REGISTER:
        return intercept_dr(cpu, u)
    if SYSTEM_LGDT <= op <= SYSTEM_STR:
        return intercept_table_access(cpu, u)
    if op >= SYSTEM_VMCALL and op <= SYSTEM_INVVPID:
        return intercept_vmx_instruction(cpu, u)
    return intercept_plain(cpu, u)

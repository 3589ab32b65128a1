"""Intercepts of instructions (AMD publication 24593, sections 15.8 to 15.11, and table 15-7 for what comes first).

This is asked in front of an instruction of a guest, before its operands are read. Where the manual ranks the instruction's own
exceptions above the intercept, and one is due, the answer is to go on: the instruction raises it.
"""

import numpy as np

from ..isa.registers import (
    CR0_CD,
    CR0_IMPLEMENTED,
    CR0_MP,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR4_DE,
    CR4_PCE,
    CR4_TSD,
    ECX,
    EFLAGS_OF,
)
from ..isa.svm import (
    EXIT_CLGI,
    EXIT_CPUID,
    EXIT_CR0_SEL_WRITE,
    EXIT_CR_READ,
    EXIT_CR_WRITE,
    EXIT_DR_READ,
    EXIT_DR_WRITE,
    EXIT_EXCEPTION,
    EXIT_GDTR_READ,
    EXIT_GDTR_WRITE,
    EXIT_HLT,
    EXIT_ICEBP,
    EXIT_IDTR_READ,
    EXIT_IDTR_WRITE,
    EXIT_INT_N,
    EXIT_INVD,
    EXIT_INVLPG,
    EXIT_INVLPGA,
    EXIT_IRET,
    EXIT_LDTR_READ,
    EXIT_LDTR_WRITE,
    EXIT_MSR,
    EXIT_PAUSE,
    EXIT_POPF,
    EXIT_PUSHF,
    EXIT_RDPMC,
    EXIT_RDTSC,
    EXIT_RSM,
    EXIT_SKINIT,
    EXIT_STGI,
    EXIT_TR_READ,
    EXIT_TR_WRITE,
    EXIT_VMLOAD,
    EXIT_VMMCALL,
    EXIT_VMRUN,
    EXIT_VMSAVE,
    EXIT_WBINVD,
    FIRST_INTERCEPT_2,
    INTERCEPT_CR0_SEL_WRITE,
    INTERCEPT_MSR,
    MSRPM_RANGE_BYTES,
    MSRPM_RANGES,
    MSRS_IN_RANGE,
)
from ..isa.system_ops import (
    INTERCEPT_INS,
    INTERCEPT_OUTS,
    INTERCEPT_PAUSE,
    INTERCEPT_RSM,
    SYSTEM_CLGI,
    SYSTEM_CLTS,
    SYSTEM_CPUID,
    SYSTEM_CR_TO_REGISTER,
    SYSTEM_DR_TO_REGISTER,
    SYSTEM_HLT,
    SYSTEM_IN,
    SYSTEM_INT1,
    SYSTEM_INT3,
    SYSTEM_INT_N,
    SYSTEM_INTO,
    SYSTEM_INVD,
    SYSTEM_INVLPG,
    SYSTEM_INVLPGA,
    SYSTEM_IRET,
    SYSTEM_LGDT,
    SYSTEM_LIDT,
    SYSTEM_LLDT,
    SYSTEM_LMSW,
    SYSTEM_LTR,
    SYSTEM_OUT,
    SYSTEM_POPF,
    SYSTEM_PUSHF,
    SYSTEM_RDMSR,
    SYSTEM_RDPMC,
    SYSTEM_RDTSC,
    SYSTEM_REGISTER_TO_CR,
    SYSTEM_REGISTER_TO_DR,
    SYSTEM_SGDT,
    SYSTEM_SIDT,
    SYSTEM_SKINIT,
    SYSTEM_SLDT,
    SYSTEM_SMSW,
    SYSTEM_STGI,
    SYSTEM_STR,
    SYSTEM_VMLOAD,
    SYSTEM_VMMCALL,
    SYSTEM_VMRUN,
    SYSTEM_VMSAVE,
    SYSTEM_WBINVD,
    SYSTEM_WRMSR,
)
from ..isa.vectors import BP, OF
from .breakpoints import DR7_GD
from .cache import VMM, reference
from .control_bits import cr4_offered
from .flags import get_eflags
from .jit import kernel
from .layout import N_OPERATIONS, OK, VM_EXIT
from .mode import segments_are_paragraphs
from .performance import counter_named
from .physical import read_memory
from .svm_io import intercept_port, intercept_port_string
from .svm_operands import address_is_bad

# The exit code of an operation whose intercept is one bit; -1: it has none, or more to be looked at.
CODE_OF_OPERATION = np.full(N_OPERATIONS, -1, np.int64)
for _operation, _code in (
    (SYSTEM_SIDT, EXIT_IDTR_READ), (SYSTEM_SGDT, EXIT_GDTR_READ), (SYSTEM_SLDT, EXIT_LDTR_READ), (SYSTEM_STR, EXIT_TR_READ),
    (SYSTEM_LIDT, EXIT_IDTR_WRITE), (SYSTEM_LGDT, EXIT_GDTR_WRITE), (SYSTEM_LLDT, EXIT_LDTR_WRITE),
    (SYSTEM_LTR, EXIT_TR_WRITE), (SYSTEM_RDTSC, EXIT_RDTSC), (SYSTEM_RDPMC, EXIT_RDPMC), (SYSTEM_PUSHF, EXIT_PUSHF),
    (SYSTEM_POPF, EXIT_POPF), (SYSTEM_CPUID, EXIT_CPUID), (INTERCEPT_RSM, EXIT_RSM), (SYSTEM_IRET, EXIT_IRET),
    (SYSTEM_INT_N, EXIT_INT_N), (SYSTEM_INVD, EXIT_INVD), (INTERCEPT_PAUSE, EXIT_PAUSE), (SYSTEM_HLT, EXIT_HLT),
    (SYSTEM_INVLPG, EXIT_INVLPG), (SYSTEM_INVLPGA, EXIT_INVLPGA), (SYSTEM_VMRUN, EXIT_VMRUN), (SYSTEM_VMMCALL, EXIT_VMMCALL),
    (SYSTEM_VMLOAD, EXIT_VMLOAD), (SYSTEM_VMSAVE, EXIT_VMSAVE), (SYSTEM_STGI, EXIT_STGI), (SYSTEM_CLGI, EXIT_CLGI),
    (SYSTEM_SKINIT, EXIT_SKINIT), (SYSTEM_INT1, EXIT_ICEBP), (SYSTEM_WBINVD, EXIT_WBINVD),
):  # fmt: skip
    CODE_OF_OPERATION[_operation] = _code

# Operations that are #GP(0) outside ring 0 before anything else is looked at, and those that are #UD outside protected mode.
LEVEL_0 = np.zeros(N_OPERATIONS, np.int64)
LEVEL_0[
    [
        SYSTEM_LIDT, SYSTEM_LGDT, SYSTEM_LLDT, SYSTEM_LTR, SYSTEM_INVD, SYSTEM_WBINVD, SYSTEM_HLT, SYSTEM_INVLPG, SYSTEM_INVLPGA,
        SYSTEM_VMRUN, SYSTEM_VMLOAD, SYSTEM_VMSAVE, SYSTEM_STGI, SYSTEM_CLGI, SYSTEM_SKINIT, SYSTEM_LMSW, SYSTEM_CLTS,
        SYSTEM_CR_TO_REGISTER, SYSTEM_REGISTER_TO_CR, SYSTEM_DR_TO_REGISTER, SYSTEM_REGISTER_TO_DR, SYSTEM_RDMSR, SYSTEM_WRMSR,
    ]
] = 1  # fmt: skip
PROTECTED = np.zeros(N_OPERATIONS, np.int64)
PROTECTED[
    [
        SYSTEM_SLDT, SYSTEM_STR, SYSTEM_LLDT, SYSTEM_LTR, SYSTEM_VMRUN, SYSTEM_VMLOAD, SYSTEM_VMSAVE, SYSTEM_STGI, SYSTEM_CLGI,
        SYSTEM_SKINIT, SYSTEM_INVLPGA,
    ]
] = 1  # fmt: skip


@kernel
def leave(cpu, u, code, information):
    """Leave the guest in front of an instruction."""
    cpu.vm_exit.reason = code
    cpu.vm_exit.qualification = information
    cpu.vm_exit.gpa = 0
    cpu.svm.next_rip = u.target
    return VM_EXIT


@kernel
def intercepted(cpu, code):
    """Whether the intercept bit of a code from 60h on is set."""
    word = cpu.svm.intercepts_1
    if code >= FIRST_INTERCEPT_2:
        word = cpu.svm.intercepts_2
    return (word >> (code & 31)) & 1 != 0


@kernel
def faults_by_level(cpu, operation):
    """Whether mode or privilege alone make the instruction fault."""
    if PROTECTED[operation] == 1 and segments_are_paragraphs(cpu):
        return True
    return LEVEL_0[operation] == 1 and cpu.cpl != 0


@kernel
def faults_first(cpu, operation, u):
    """Whether an exception that ranks above the intercept is due."""
    if faults_by_level(cpu, operation):
        return True
    if operation == SYSTEM_RDTSC:
        return cpu.cr4 & CR4_TSD != 0 and cpu.cpl != 0
    if operation == SYSTEM_RDPMC:
        return (cpu.cr4 & CR4_PCE == 0 and cpu.cpl != 0) or counter_named(cpu, cpu.gpr[ECX]) < 0
    if operation == SYSTEM_VMRUN or operation == SYSTEM_VMLOAD or operation == SYSTEM_VMSAVE:
        return address_is_bad(cpu, u)
    return False


# -- control and debug registers --------------------------------------------------------------------------------------------


@kernel
def cr0_write_faults(value):
    """Combinations that MOV CR0 refuses."""
    return value & (CR0_PG | CR0_PE) == CR0_PG or value & (CR0_NW | CR0_CD) == CR0_NW


@kernel
def changes_more_than_tasks(cpu, value):
    """Whether a value for CR0 changes other bits than TS and MP."""
    return (value ^ cpu.cr0) & CR0_IMPLEMENTED & ~(CR0_TS | CR0_MP) != 0


@kernel
def intercept_cr0_write(cpu, u, selected):
    """A write of CR0: the plain intercept comes before the selective one, which asks what changes."""
    if (cpu.svm.cr_intercepts >> 16) & 1 != 0:
        return leave(cpu, u, EXIT_CR_WRITE, 0)
    if selected and cpu.svm.intercepts_1 & INTERCEPT_CR0_SEL_WRITE != 0:
        return leave(cpu, u, EXIT_CR0_SEL_WRITE, 0)
    return OK


@kernel
def intercept_cr_write(cpu, u):
    """MOV to a control register."""
    number = u.condition
    value = cpu.gpr[u.src]
    if number == 0:
        if cr0_write_faults(value & CR0_IMPLEMENTED):
            return OK
        return intercept_cr0_write(cpu, u, changes_more_than_tasks(cpu, value))
    if number == 4 and value & ~cr4_offered(cpu) != 0:
        return OK
    if (cpu.svm.cr_intercepts >> (16 + number)) & 1 != 0:
        return leave(cpu, u, EXIT_CR_WRITE + number, 0)
    return OK


@kernel
def intercept_dr(cpu, operation, u):
    """MOV to and from a debug register; #UD for DR4 and DR5 under CR4.DE and #DB by DR7.GD come first."""
    number = u.condition
    if ((number == 4 or number == 5) and cpu.cr4 & CR4_DE != 0) or cpu.dr[7] & DR7_GD != 0:
        return OK
    if operation == SYSTEM_DR_TO_REGISTER:
        if (cpu.svm.dr_intercepts >> number) & 1 != 0:
            return leave(cpu, u, EXIT_DR_READ + number, 0)
    elif (cpu.svm.dr_intercepts >> (16 + number)) & 1 != 0:
        return leave(cpu, u, EXIT_DR_WRITE + number, 0)
    return OK


@kernel
def intercept_register(cpu, operation, u):
    """MOV CR and DR, SMSW, LMSW and CLTS."""
    if faults_by_level(cpu, operation):
        return OK
    if operation == SYSTEM_REGISTER_TO_CR:
        return intercept_cr_write(cpu, u)
    if operation == SYSTEM_LMSW or operation == SYSTEM_CLTS:
        return intercept_cr0_write(cpu, u, operation == SYSTEM_LMSW)
    if operation == SYSTEM_DR_TO_REGISTER or operation == SYSTEM_REGISTER_TO_DR:
        return intercept_dr(cpu, operation, u)
    number = u.condition
    if operation == SYSTEM_SMSW:
        number = 0
    if (cpu.svm.cr_intercepts >> number) & 1 != 0:
        return leave(cpu, u, EXIT_CR_READ + number, 0)
    return OK


# -- model-specific registers, exceptions by instruction ----------------------------------------------------------------------


@kernel
def msr_intercepted(cpu, ram, number, write):
    """What the permission map says of a register; those outside its three ranges are always intercepted."""
    for index in range(len(MSRPM_RANGES)):
        offset = number - MSRPM_RANGES[index]
        if 0 <= offset < MSRS_IN_RANGE:
            address = cpu.svm.msrpm + index * MSRPM_RANGE_BYTES + (offset >> 2)
            reference(cpu, address, VMM)
            return (read_memory(cpu, ram, address, 1) >> (2 * (offset & 3) + write)) & 1 != 0
    return True


@kernel
def intercept_msr(cpu, ram, operation, u):
    """RDMSR and WRMSR, whether the register exists or not."""
    write = int(operation == SYSTEM_WRMSR)
    if cpu.svm.intercepts_1 & INTERCEPT_MSR == 0 or faults_by_level(cpu, operation):
        return OK
    if msr_intercepted(cpu, ram, cpu.gpr[ECX], write):
        return leave(cpu, u, EXIT_MSR, write)
    return OK


@kernel
def intercept_exception_by_instruction(cpu, operation, u):
    """INT3 and INTO: the guest is left at the instruction, as after a fault (section 15.12)."""
    vector = BP
    if operation == SYSTEM_INTO:
        if get_eflags(cpu) & EFLAGS_OF == 0:
            return OK
        vector = OF
    if (cpu.svm.exception_intercepts >> vector) & 1 != 0:
        return leave(cpu, u, EXIT_EXCEPTION + vector, 0)
    return OK


@kernel
def is_register_access(operation):
    """MOV CR and DR, SMSW, LMSW and CLTS."""
    moves = SYSTEM_CR_TO_REGISTER <= operation <= SYSTEM_CLTS
    return moves or operation == SYSTEM_SMSW or operation == SYSTEM_LMSW


@kernel
def svm_intercept(cpu, ram, u):
    """Whether an instruction (`u.dst_shift` is its operation) leaves the guest: OK, VM_EXIT, or its own fault."""
    operation = u.dst_shift
    code = CODE_OF_OPERATION[operation]
    if code >= 0:
        if not intercepted(cpu, code) or faults_first(cpu, operation, u):
            return OK
        return leave(cpu, u, code, 0)
    if is_register_access(operation):
        return intercept_register(cpu, operation, u)
    if operation == SYSTEM_IN or operation == SYSTEM_OUT:
        return intercept_port(cpu, ram, u)
    if operation == INTERCEPT_INS or operation == INTERCEPT_OUTS:
        return intercept_port_string(cpu, ram, u)
    if operation == SYSTEM_RDMSR or operation == SYSTEM_WRMSR:
        return intercept_msr(cpu, ram, operation, u)
    if operation == SYSTEM_INT3 or operation == SYSTEM_INTO:
        return intercept_exception_by_instruction(cpu, operation, u)
    return OK

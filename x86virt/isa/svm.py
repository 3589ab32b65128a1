"""The secure virtual machine: the VMCB, intercepts, exit codes and registers, as AMD's manual has them.

AMD64 Architecture Programmer's Manual, volume 2, chapter 15 and appendices B (VMCB) and C (exit codes). Offsets are bytes from
the VMCB's first; a field's width is in its comment where it is not 64 bits.
"""

# -- the control area (table B-1) -----------------------------------------------------------------------------------------
VMCB_CR_INTERCEPTS = 0x000  # 32: reads of CR0 to CR15, then writes
VMCB_DR_INTERCEPTS = 0x004  # 32: reads of DR0 to DR15, then writes
VMCB_EXCEPTION_INTERCEPTS = 0x008  # 32
VMCB_INTERCEPTS_1 = 0x00C  # 32
VMCB_INTERCEPTS_2 = 0x010  # 32
VMCB_IOPM_BASE = 0x040
VMCB_MSRPM_BASE = 0x048
VMCB_TSC_OFFSET = 0x050
VMCB_GUEST_ASID = 0x058  # 32
VMCB_TLB_CONTROL = 0x05C  # 8
VMCB_VIRTUAL_INTERRUPT = 0x060  # 32: V_TPR, V_IRQ, V_INTR_PRIO, V_IGN_TPR, V_INTR_MASKING
VMCB_VIRTUAL_VECTOR = 0x064  # 8
VMCB_INTERRUPT_SHADOW = 0x068
VMCB_EXIT_CODE = 0x070
VMCB_EXIT_INFO_1 = 0x078
VMCB_EXIT_INFO_2 = 0x080
VMCB_EXIT_INT_INFO = 0x088  # 32: the event whose delivery was interrupted
VMCB_EXIT_INT_ERROR = 0x08C  # 32: its error code
VMCB_NESTED_CONTROL = 0x090
VMCB_EVENT_INJECTION = 0x0A8  # 32
VMCB_EVENT_INJECTION_ERROR = 0x0AC  # 32
VMCB_NESTED_CR3 = 0x0B0
VMCB_LBR_CONTROL = 0x0B8
VMCB_NEXT_RIP = 0x0C8  # where the processor saves it
VMCB_CONTROL_END = 0x0D0  # of what the processor touches

# -- the state save area (table B-2), whose own offsets begin at 400h ------------------------------------------------------
VMCB_SAVE_AREA = 0x400
VMCB_SEGMENTS = 0x400  # 16 bytes each: selector, attributes, limit (32), base
VMCB_ES, VMCB_CS, VMCB_SS, VMCB_DS, VMCB_FS, VMCB_GS, VMCB_GDTR, VMCB_LDTR, VMCB_IDTR, VMCB_TR = range(0x400, 0x4A0, 0x10)
SEGMENT_SELECTOR, SEGMENT_ATTRIBUTES, SEGMENT_LIMIT, SEGMENT_BASE = 0, 2, 4, 8
VMCB_CPL = 0x4CB  # 8
VMCB_EFER = 0x4D0
VMCB_CR4, VMCB_CR3, VMCB_CR0, VMCB_DR7, VMCB_DR6, VMCB_RFLAGS, VMCB_RIP = range(0x548, 0x580, 8)
VMCB_RSP = 0x5D8
VMCB_RAX = 0x5F8
VMCB_STAR, VMCB_LSTAR, VMCB_CSTAR, VMCB_SFMASK, VMCB_KERNEL_GS_BASE = range(0x600, 0x628, 8)
VMCB_SYSENTER_CS, VMCB_SYSENTER_ESP, VMCB_SYSENTER_EIP, VMCB_CR2 = range(0x628, 0x648, 8)
VMCB_PAT = 0x668
VMCB_SAVE_END = 0x670

# The low byte of a descriptor's access rights and bits 55:52 behind it make the attributes (section 15.5.1).
ATTRIBUTES_LOW, ATTRIBUTES_HIGH, ATTRIBUTES_HIGH_SHIFT = 0xFF, 0xF00, 4

# Fields of the virtual-interrupt doubleword (section 15.21.1).
V_TPR, V_IRQ, V_INTR_PRIO_SHIFT, V_INTR_PRIO, V_IGN_TPR, V_INTR_MASKING = 0xFF, 1 << 8, 16, 0xF, 1 << 20, 1 << 24

# TLB_CONTROL (section 15.16.1): all that is nonzero flushes where there is no flush by ASID.
TLB_CONTROL_NOTHING, TLB_CONTROL_ALL, TLB_CONTROL_GUEST, TLB_CONTROL_GUEST_LOCAL = 0, 1, 3, 7

# EVENTINJ and EXITINTINFO (section 15.20).
EVENT_VECTOR, EVENT_TYPE_SHIFT, EVENT_TYPE, EVENT_ERROR_VALID, EVENT_VALID = 0xFF, 8, 7, 1 << 11, 1 << 31
TYPE_INTERRUPT, TYPE_NMI, TYPE_EXCEPTION, TYPE_SOFTWARE_INTERRUPT = 0, 2, 3, 4

# -- intercepts: bits of the two doublewords, in order from bit 0 -----------------------------------------------------------
INTERCEPTS_1 = (
    "INTR", "NMI", "SMI", "INIT", "VINTR", "CR0_SEL_WRITE", "IDTR_READ", "GDTR_READ", "LDTR_READ", "TR_READ", "IDTR_WRITE",
    "GDTR_WRITE", "LDTR_WRITE", "TR_WRITE", "RDTSC", "RDPMC", "PUSHF", "POPF", "CPUID", "RSM", "IRET", "INT_N", "INVD",
    "PAUSE", "HLT", "INVLPG", "INVLPGA", "IOIO", "MSR", "TASK_SWITCH", "FERR_FREEZE", "SHUTDOWN",
)  # fmt: skip
INTERCEPTS_2 = ("VMRUN", "VMMCALL", "VMLOAD", "VMSAVE", "STGI", "CLGI", "SKINIT", "RDTSCP", "ICEBP", "WBINVD")

INTERCEPT_INTR, INTERCEPT_VINTR = 1 << 0, 1 << 4
INTERCEPT_CR0_SEL_WRITE, INTERCEPT_TASK_SWITCH = 1 << 5, 1 << 29
INTERCEPT_IOIO, INTERCEPT_MSR, INTERCEPT_FERR_FREEZE, INTERCEPT_SHUTDOWN = 1 << 27, 1 << 28, 1 << 30, 1 << 31
INTERCEPT_VMRUN = 1 << 0

# The exit code of an intercept is its place in these two lists behind 60h and 80h; bits 4:0 are its bit in either case.
EXIT_CR_READ, EXIT_CR_WRITE, EXIT_DR_READ, EXIT_DR_WRITE, EXIT_EXCEPTION = 0x00, 0x10, 0x20, 0x30, 0x40
FIRST_INTERCEPT_1, FIRST_INTERCEPT_2 = 0x60, 0x80
EXIT_INTR, EXIT_NMI, EXIT_SMI, EXIT_INIT, EXIT_VINTR, EXIT_CR0_SEL_WRITE = range(0x60, 0x66)
EXIT_IDTR_READ, EXIT_GDTR_READ, EXIT_LDTR_READ, EXIT_TR_READ = range(0x66, 0x6A)
EXIT_IDTR_WRITE, EXIT_GDTR_WRITE, EXIT_LDTR_WRITE, EXIT_TR_WRITE = range(0x6A, 0x6E)
EXIT_RDTSC, EXIT_RDPMC, EXIT_PUSHF, EXIT_POPF, EXIT_CPUID, EXIT_RSM, EXIT_IRET, EXIT_INT_N = range(0x6E, 0x76)
EXIT_INVD, EXIT_PAUSE, EXIT_HLT, EXIT_INVLPG, EXIT_INVLPGA, EXIT_IOIO, EXIT_MSR = range(0x76, 0x7D)
EXIT_TASK_SWITCH, EXIT_FERR_FREEZE, EXIT_SHUTDOWN = range(0x7D, 0x80)
EXIT_VMRUN, EXIT_VMMCALL, EXIT_VMLOAD, EXIT_VMSAVE, EXIT_STGI, EXIT_CLGI, EXIT_SKINIT = range(0x80, 0x87)
EXIT_ICEBP, EXIT_WBINVD = 0x88, 0x89
EXIT_NPF = 0x400
EXIT_INVALID = -1

EXIT_NAMES = {
    **{EXIT_CR_READ + number: f"CR{number}_READ" for number in range(16)},
    **{EXIT_CR_WRITE + number: f"CR{number}_WRITE" for number in range(16)},
    **{EXIT_DR_READ + number: f"DR{number}_READ" for number in range(16)},
    **{EXIT_DR_WRITE + number: f"DR{number}_WRITE" for number in range(16)},
    **{EXIT_EXCEPTION + number: f"EXCP{number}" for number in range(32)},
    **{FIRST_INTERCEPT_1 + number: name for number, name in enumerate(INTERCEPTS_1)},
    **{FIRST_INTERCEPT_2 + number: name for number, name in enumerate(INTERCEPTS_2)},
    EXIT_NPF: "NPF",
    EXIT_INVALID: "INVALID",
}

# What counts an exit: the ledger's name for it (isa/exits.py), by ranges of codes, then by code.
_EXIT_RANGES = (
    (EXIT_CR_READ, 32, "cr_access"),
    (EXIT_DR_READ, 32, "dr_access"),
    (EXIT_EXCEPTION, 32, "exception_or_nmi"),
    (EXIT_IDTR_READ, 2, "gdtr_idtr"),
    (EXIT_LDTR_READ, 2, "ldtr_tr"),
    (EXIT_IDTR_WRITE, 2, "gdtr_idtr"),
    (EXIT_LDTR_WRITE, 2, "ldtr_tr"),
)
_EXIT_OTHER_NAMES = {
    EXIT_INTR: "external_interrupt",
    EXIT_NMI: "exception_or_nmi",
    EXIT_VINTR: "interrupt_window",
    EXIT_CR0_SEL_WRITE: "cr_access",
    EXIT_IOIO: "io_instruction",
    EXIT_MSR: "msr_read",  # by WRMSR it counts as that
    EXIT_SHUTDOWN: "triple_fault",
    EXIT_VMMCALL: "vmcall",
    EXIT_NPF: "ept_violation",
    EXIT_INVALID: "entry_failure_guest_state",
}
NEVER_RAISED = ("SMI", "INIT", "RDTSCP")  # what would cause these exits the machine does not have


def exit_event_name(code: int) -> str:
    """The ledger event that counts exits with a code; empty where there are none."""
    if code in _EXIT_OTHER_NAMES:
        return f"exit.{_EXIT_OTHER_NAMES[code]}"
    for first, count, name in _EXIT_RANGES:
        if first <= code < first + count:
            return f"exit.{name}"
    if code not in EXIT_NAMES or EXIT_NAMES[code] in NEVER_RAISED:
        return ""
    return f"exit.{EXIT_NAMES[code].lower()}"


# EXITINFO1 of an IOIO exit (section 15.10.2).
IO_IN, IO_STRING, IO_REP, IO_SIZE_SHIFT, IO_ADDRESS_16, IO_ADDRESS_32, IO_PORT_SHIFT = 1, 1 << 2, 1 << 3, 4, 1 << 7, 1 << 8, 16
# EXITINFO2 of a task-switch exit (section 15.14.1), behind the error code of 32 bits.
TASK_BY_IRET, TASK_BY_JUMP, TASK_HAS_ERROR, TASK_RF = 1 << 36, 1 << 38, 1 << 44, 1 << 48

# The permission maps (sections 15.10.1 and 15.11): bytes, and the MSRs of the three ranges that have two bits each.
IOPM_BYTES, MSRPM_BYTES = 0x3000, 0x2000
MSRPM_RANGE_BYTES, MSRS_IN_RANGE = 0x800, 0x2000
MSRPM_RANGES = (0x00000000, 0xC0000000, 0xC0010000)

# -- registers and identity -------------------------------------------------------------------------------------------------
EFER_SVME = 1 << 12
MSR_VM_CR, MSR_VM_HSAVE_PA, MSR_SVM_KEY = 0xC0010114, 0xC0010117, 0xC0010118
VM_CR_DPD, VM_CR_R_INIT, VM_CR_DIS_A20M, VM_CR_LOCK, VM_CR_SVMDIS = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4
VM_CR_BITS = 0x1F
CPUID_SVM = 2  # bit of leaf 80000001 ECX
SVM_LEAF = 0x8000000A
# Bits of leaf 8000000A EDX.
FEATURE_NESTED_PAGING, FEATURE_LBR, FEATURE_SVM_LOCK, FEATURE_NRIP_SAVE, FEATURE_DECODE_ASSISTS = 0, 1, 2, 3, 7
FEATURE_FLUSH_BY_ASID = 6

"""Register numbers and control bits, under the names of the Intel SDM (volume 3, chapters 2 to 6)."""

# General registers, in the order of the encoding.
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)
GENERAL_REGISTERS = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
N_GENERAL = 16  # long mode's r8 to r15 are reserved from the start

# Slots of the register array behind the general registers: micro-operation temporaries, a register that reads zero, and
# a buffer for what POPA has read.
TEMPORARY_0, TEMPORARY_1, ZERO = 16, 17, 18
TEMPORARY_2 = 19  # the wrapped offset of a memory operand with 16-bit addressing
BUFFER = 20
N_REGISTER_SLOTS = 28

# Segment registers, in the order of the encoding; then the two system segments.
ES, CS, SS, DS, FS, GS, LDTR, TR = range(8)
SEGMENT_REGISTERS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
N_SEGMENTS = 8

# EFLAGS (volume 1, section 3.4.3).
EFLAGS_CF, EFLAGS_FIXED, EFLAGS_PF, EFLAGS_AF = 1 << 0, 1 << 1, 1 << 2, 1 << 4
EFLAGS_ZF, EFLAGS_SF, EFLAGS_TF, EFLAGS_IF = 1 << 6, 1 << 7, 1 << 8, 1 << 9
EFLAGS_DF, EFLAGS_OF, EFLAGS_IOPL, EFLAGS_NT = 1 << 10, 1 << 11, 3 << 12, 1 << 14
EFLAGS_RF, EFLAGS_VM, EFLAGS_AC = 1 << 16, 1 << 17, 1 << 18
EFLAGS_VIF, EFLAGS_VIP, EFLAGS_ID = 1 << 19, 1 << 20, 1 << 21
EFLAGS_IOPL_SHIFT = 12
EFLAGS_ARITHMETIC = EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_OF
# What POPF and IRET load at any privilege, RF of IRETD apart.
EFLAGS_LOADABLE = EFLAGS_ARITHMETIC | EFLAGS_TF | EFLAGS_DF | EFLAGS_NT | EFLAGS_AC | EFLAGS_ID
# Every bit that a 32-bit processor of the P6 family implements.
EFLAGS_IMPLEMENTED = 0x003F7FD5

# Control registers (volume 3, section 2.5).
CR0_PE, CR0_MP, CR0_EM, CR0_TS, CR0_ET, CR0_NE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
CR0_WP, CR0_AM, CR0_NW, CR0_CD, CR0_PG = 1 << 16, 1 << 18, 1 << 29, 1 << 30, 1 << 31
CR0_IMPLEMENTED = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG
CR4_VME, CR4_PVI, CR4_TSD, CR4_DE, CR4_PSE, CR4_PAE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
CR4_MCE, CR4_PGE, CR4_PCE, CR4_OSFXSR, CR4_VMXE = 1 << 6, 1 << 7, 1 << 8, 1 << 9, 1 << 13
CR3_ADDRESS = 0xFFFFF000
CR3_PAE_ADDRESS = 0xFFFFFFE0

# x87 status word (volume 1, section 8.1.3); the exception flags stand at the places of their masks in the control word.
X87_INVALID, X87_DENORMAL, X87_ZERO_DIVIDE, X87_OVERFLOW = 1 << 0, 1 << 1, 1 << 2, 1 << 3
X87_UNDERFLOW, X87_PRECISION, X87_STACK_FAULT, X87_ERROR_SUMMARY = 1 << 4, 1 << 5, 1 << 6, 1 << 7
X87_C0, X87_C1, X87_C2, X87_C3, X87_BUSY = 1 << 8, 1 << 9, 1 << 10, 1 << 14, 1 << 15
X87_TOP, X87_TOP_SHIFT, X87_EXCEPTIONS = 7 << 11, 11, 0x3F
X87_CONTROL_INITIAL = 0x037F  # all exceptions masked, extended precision, round to nearest

# Page-directory and page-table entries, 32-bit paging (volume 3, section 4.3).
PTE_P, PTE_RW, PTE_US, PTE_PWT, PTE_PCD = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4
PTE_A, PTE_D, PTE_PS, PTE_G = 1 << 5, 1 << 6, 1 << 7, 1 << 8
PTE_ADDRESS = 0xFFFFF000
PDE_4M_ADDRESS = 0xFFC00000
PDE_4M_RESERVED = 0x003FE000  # bits 21:13 without PSE-36, which makes address bits 39:32 of bits 20:13

# What 64-bit entries of PAE paging add (volume 3, section 4.4); NX is bit 63, here within the high doubleword.
PTE_HIGH_NX = 1 << 31
PDE_2M_ADDRESS = 0xFFE00000
PDE_2M_RESERVED = 0x001FE000  # bits 20:13
PDPTE_RESERVED = 0x000001E6  # bits 8:5 and 2:1

# Page-fault error code (volume 3, section 4.7).
PF_P, PF_W, PF_U, PF_RSVD, PF_I = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4

# Error code of a selector fault (volume 3, section 6.13).
ERROR_EXT, ERROR_IDT, ERROR_TI = 1 << 0, 1 << 1, 1 << 2

# Segment access rights, in the layout of a VMCS guest segment field (volume 3, table 24-2).
#   3:0 type  4 S  6:5 DPL  7 P  12 AVL  13 L  14 D/B  15 G  16 unusable
AR_TYPE, AR_S, AR_DPL, AR_P = 0xF, 1 << 4, 3 << 5, 1 << 7
AR_AVL, AR_L, AR_DB, AR_G, AR_UNUSABLE = 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16
AR_DPL_SHIFT = 5

# Type bits of a code or data descriptor (volume 3, table 3-1), and system descriptor types (table 3-2).
TYPE_ACCESSED, TYPE_WRITABLE, TYPE_EXPAND_DOWN, TYPE_CODE = 1, 2, 4, 8
TYPE_READABLE, TYPE_CONFORMING = 2, 4
TYPE_TSS_16, TYPE_LDT, TYPE_TSS_16_BUSY, TYPE_CALL_GATE_16, TYPE_TASK_GATE = 1, 2, 3, 4, 5
TYPE_INTERRUPT_GATE_16, TYPE_TRAP_GATE_16 = 6, 7
TYPE_TSS_32, TYPE_TSS_32_BUSY, TYPE_CALL_GATE_32 = 9, 11, 12
TYPE_INTERRUPT_GATE_32, TYPE_TRAP_GATE_32 = 14, 15

# Model-specific registers that the machine has.
MSR_PERFORMANCE_COUNTER_0, MSR_PERFORMANCE_COUNTER_1 = 0xC1, 0xC2
MSR_EVENT_SELECT_0, MSR_EVENT_SELECT_1 = 0x186, 0x187
MSR_TSC, MSR_PLATFORM_ID, MSR_APIC_BASE, MSR_BIOS_SIGNATURE = 0x10, 0x17, 0x1B, 0x8B
MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP = 0x174, 0x175, 0x176
MSR_MTRR_CAP, MSR_MTRR_PHYSICAL, MSR_MTRR_FIXED, MSR_MTRR_DEFAULT_TYPE, MSR_PAT = 0xFE, 0x200, 0x250, 0x2FF, 0x277
MSR_MCG_CAP, MSR_MCG_STATUS, MSR_MC0_CTL = 0x179, 0x17A, 0x400
MSR_MISC_ENABLE, MSR_EFER = 0x1A0, 0xC0000080
EFER_NXE = 1 << 11

# Bits of CPUID leaf 1 EDX, and NX of the extended leaf 80000001.
FEATURE_FPU, FEATURE_VME, FEATURE_DE, FEATURE_PSE, FEATURE_TSC, FEATURE_MSR, FEATURE_PAE, FEATURE_MCE = range(8)
FEATURE_CX8, FEATURE_APIC, FEATURE_SEP, FEATURE_MTRR, FEATURE_PGE, FEATURE_MCA, FEATURE_CMOV = 8, 9, 11, 12, 13, 14, 15
FEATURE_PAT, FEATURE_PSE_36, FEATURE_FXSR, FEATURE_NX = 16, 17, 24, 20

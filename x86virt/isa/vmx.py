"""Virtual-machine extensions: the VMCS's fields, controls, exit reasons and error numbers (SDM volume 3, part on VMX).

One declaration of each. A field's *slot* is its place in `FIELDS`, under which the processor and VMREAD find it in the VMCS
region; the constants `VMCS_...` at the end are the slots. The processors here are without Intel 64: a field of natural
width has 32 bits.
"""

from dataclasses import dataclass

NATURAL = 0  # as a field's width: the processor's, 32 bits here
CONTROL, READ_ONLY, GUEST, HOST = range(4)  # bits 11:10 of an encoding
GROUPS = ("control", "read-only data", "guest state", "host state")
WIDTH_CODES = {16: 0, 64: 1, 32: 2, NATURAL: 3}  # bits 14:13
CODE_WIDTHS = {code: width for width, code in WIDTH_CODES.items()}
ENCODING_RESERVED = 0xFFFF9000  # bits of an encoding that are 0
HIGH_HALF = 1  # bit 0: of a 64-bit field, its bits 63:32


@dataclass(frozen=True)
class Field:
    """A field of the VMCS: encoding, the manual's name, and the capability (of `CAPABILITIES`) without which it is absent."""

    encoding: int
    name: str
    needs: str = ""

    @property
    def width(self) -> int:
        """16, 32 or 64 bits, or NATURAL."""
        return CODE_WIDTHS[self.encoding >> 13 & 3]

    @property
    def group(self) -> int:
        """CONTROL, READ_ONLY, GUEST or HOST."""
        return self.encoding >> 10 & 3

    @property
    def index(self) -> int:
        """Bits 9:1 of the encoding."""
        return self.encoding >> 1 & 0x1FF

    @property
    def key(self) -> str:
        """A name for programs: `guest_cs_selector`."""
        words = self.name.lower().replace("/", "_").replace("-", "_").replace("(", "").replace(")", "")
        return words.replace(" ", "_")


# What a field or a control may need: each is a flag of the profile (`feature.vmx_...`), or the table's own reason.
CAPABILITIES = {
    "secondary_controls": "secondary processor-based controls",
    "ept": "extended page tables (feature.nested_paging)",
    "vpid": "virtual-processor identifiers (feature.tlb_vm_tag)",
    "msr_bitmaps": "MSR bitmaps",
    "virtual_nmis": "virtual NMIs and NMI-window exiting",
    "preemption_timer": "the VMX-preemption timer",
    "pat": "loading and saving of IA32_PAT",
    "efer": "loading and saving of IA32_EFER",
    "descriptor_table_exiting": "exits for accesses to GDTR, IDTR, LDTR and TR",
    "wbinvd_exiting": "exits for WBINVD",
    "ins_outs_information": "instruction information for INS and OUTS (IA32_VMX_BASIC[54])",
    "true_controls": "controls of class default1 that may be 0 (IA32_VMX_BASIC[55])",
}

_SEGMENTS = ("ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR")  # in the order of isa.registers


def _of_segments(first: int, pattern: str, segments: tuple[str, ...] = _SEGMENTS) -> tuple[Field, ...]:
    """One field for each segment register, at consecutive even encodings."""
    return tuple(Field(first + 2 * number, pattern.format(name)) for number, name in enumerate(segments))


# Appendix B, in the order of the encodings.
FIELDS: tuple[Field, ...] = (
    # 16 bits
    Field(0x0000, "Virtual-processor identifier", "vpid"),
    *_of_segments(0x0800, "Guest {} selector"),
    *_of_segments(0x0C00, "Host {} selector", (*_SEGMENTS[:6], "TR")),
    # 64 bits
    Field(0x2000, "Address of I/O bitmap A"),
    Field(0x2002, "Address of I/O bitmap B"),
    Field(0x2004, "Address of MSR bitmaps", "msr_bitmaps"),
    Field(0x2006, "VM-exit MSR-store address"),
    Field(0x2008, "VM-exit MSR-load address"),
    Field(0x200A, "VM-entry MSR-load address"),
    Field(0x200C, "Executive-VMCS pointer"),
    Field(0x2010, "TSC offset"),
    Field(0x201A, "EPT pointer", "ept"),
    Field(0x2400, "Guest-physical address", "ept"),
    Field(0x2800, "VMCS link pointer"),
    Field(0x2802, "Guest IA32_DEBUGCTL"),
    Field(0x2804, "Guest IA32_PAT", "pat"),
    Field(0x2806, "Guest IA32_EFER", "efer"),
    *(Field(0x280A + 2 * number, f"Guest PDPTE{number}", "ept") for number in range(4)),
    Field(0x2C00, "Host IA32_PAT", "pat"),
    Field(0x2C02, "Host IA32_EFER", "efer"),
    # 32 bits
    Field(0x4000, "Pin-based VM-execution controls"),
    Field(0x4002, "Primary processor-based VM-execution controls"),
    Field(0x4004, "Exception bitmap"),
    Field(0x4006, "Page-fault error-code mask"),
    Field(0x4008, "Page-fault error-code match"),
    Field(0x400A, "CR3-target count"),
    Field(0x400C, "VM-exit controls"),
    Field(0x400E, "VM-exit MSR-store count"),
    Field(0x4010, "VM-exit MSR-load count"),
    Field(0x4012, "VM-entry controls"),
    Field(0x4014, "VM-entry MSR-load count"),
    Field(0x4016, "VM-entry interruption-information"),
    Field(0x4018, "VM-entry exception error code"),
    Field(0x401A, "VM-entry instruction length"),
    Field(0x401E, "Secondary processor-based VM-execution controls", "secondary_controls"),
    Field(0x4400, "VM-instruction error"),
    Field(0x4402, "Exit reason"),
    Field(0x4404, "VM-exit interruption information"),
    Field(0x4406, "VM-exit interruption error code"),
    Field(0x4408, "IDT-vectoring information"),
    Field(0x440A, "IDT-vectoring error code"),
    Field(0x440C, "VM-exit instruction length"),
    Field(0x440E, "VM-exit instruction information"),
    *_of_segments(0x4800, "Guest {} limit", (*_SEGMENTS, "GDTR", "IDTR")),
    *_of_segments(0x4814, "Guest {} access rights"),
    Field(0x4824, "Guest interruptibility state"),
    Field(0x4826, "Guest activity state"),
    Field(0x4828, "Guest SMBASE"),
    Field(0x482A, "Guest IA32_SYSENTER_CS"),
    Field(0x482E, "VMX-preemption timer value", "preemption_timer"),
    Field(0x4C00, "Host IA32_SYSENTER_CS"),
    # natural width
    Field(0x6000, "CR0 guest/host mask"),
    Field(0x6002, "CR4 guest/host mask"),
    Field(0x6004, "CR0 read shadow"),
    Field(0x6006, "CR4 read shadow"),
    *(Field(0x6008 + 2 * number, f"CR3-target value {number}") for number in range(4)),
    Field(0x6400, "Exit qualification"),
    Field(0x6402, "I/O RCX"),
    Field(0x6404, "I/O RSI"),
    Field(0x6406, "I/O RDI"),
    Field(0x6408, "I/O RIP"),
    Field(0x640A, "Guest-linear address"),
    Field(0x6800, "Guest CR0"),
    Field(0x6802, "Guest CR3"),
    Field(0x6804, "Guest CR4"),
    *_of_segments(0x6806, "Guest {} base", (*_SEGMENTS, "GDTR", "IDTR")),
    Field(0x681A, "Guest DR7"),
    Field(0x681C, "Guest RSP"),
    Field(0x681E, "Guest RIP"),
    Field(0x6820, "Guest RFLAGS"),
    Field(0x6822, "Guest pending debug exceptions"),
    Field(0x6824, "Guest IA32_SYSENTER_ESP"),
    Field(0x6826, "Guest IA32_SYSENTER_EIP"),
    Field(0x6C00, "Host CR0"),
    Field(0x6C02, "Host CR3"),
    Field(0x6C04, "Host CR4"),
    *_of_segments(0x6C06, "Host {} base", ("FS", "GS", "TR", "GDTR", "IDTR")),
    Field(0x6C10, "Host IA32_SYSENTER_ESP"),
    Field(0x6C12, "Host IA32_SYSENTER_EIP"),
    Field(0x6C14, "Host RSP"),
    Field(0x6C16, "Host RIP"),
)  # fmt: skip
SLOT = {field.key: number for number, field in enumerate(FIELDS)}
SLOT_OF_ENCODING = {field.encoding: number for number, field in enumerate(FIELDS)}

# The slots. A test holds them to be complete and current; a group for each segment register begins with that of ES.
VMCS_VPID = 0
VMCS_GUEST_SELECTORS, VMCS_HOST_SELECTORS = 1, 9  # 8 from ES to TR; the host's 7: ES to GS, TR
VMCS_HOST_TR_SELECTOR = 15
(
    VMCS_IO_BITMAP_A, VMCS_IO_BITMAP_B, VMCS_MSR_BITMAPS, VMCS_EXIT_MSR_STORE_ADDRESS, VMCS_EXIT_MSR_LOAD_ADDRESS,
    VMCS_ENTRY_MSR_LOAD_ADDRESS, VMCS_EXECUTIVE_POINTER, VMCS_TSC_OFFSET, VMCS_EPT_POINTER, VMCS_GUEST_PHYSICAL_ADDRESS,
    VMCS_LINK_POINTER, VMCS_GUEST_DEBUGCTL, VMCS_GUEST_PAT, VMCS_GUEST_EFER,
    VMCS_GUEST_PDPTE0, VMCS_GUEST_PDPTE1, VMCS_GUEST_PDPTE2, VMCS_GUEST_PDPTE3, VMCS_HOST_PAT, VMCS_HOST_EFER,
) = range(16, 36)  # fmt: skip
(
    VMCS_PIN_CONTROLS, VMCS_PROCESSOR_CONTROLS, VMCS_EXCEPTION_BITMAP, VMCS_PAGE_FAULT_MASK, VMCS_PAGE_FAULT_MATCH,
    VMCS_CR3_TARGET_COUNT, VMCS_EXIT_CONTROLS, VMCS_EXIT_MSR_STORE_COUNT, VMCS_EXIT_MSR_LOAD_COUNT, VMCS_ENTRY_CONTROLS,
    VMCS_ENTRY_MSR_LOAD_COUNT, VMCS_ENTRY_INTERRUPTION, VMCS_ENTRY_ERROR_CODE, VMCS_ENTRY_INSTRUCTION_LENGTH,
    VMCS_SECONDARY_CONTROLS,
    VMCS_INSTRUCTION_ERROR, VMCS_EXIT_REASON, VMCS_EXIT_INTERRUPTION, VMCS_EXIT_ERROR_CODE, VMCS_VECTORING,
    VMCS_VECTORING_ERROR_CODE, VMCS_EXIT_INSTRUCTION_LENGTH, VMCS_EXIT_INSTRUCTION_INFORMATION,
) = range(36, 59)  # fmt: skip
VMCS_GUEST_LIMITS = 59  # 8 from ES to TR
VMCS_GUEST_GDTR_LIMIT, VMCS_GUEST_IDTR_LIMIT = 67, 68
VMCS_GUEST_ACCESS_RIGHTS = 69  # 8 from ES to TR
(
    VMCS_GUEST_INTERRUPTIBILITY, VMCS_GUEST_ACTIVITY, VMCS_GUEST_SMBASE, VMCS_GUEST_SYSENTER_CS, VMCS_PREEMPTION_TIMER,
    VMCS_HOST_SYSENTER_CS,
    VMCS_CR0_MASK, VMCS_CR4_MASK, VMCS_CR0_SHADOW, VMCS_CR4_SHADOW,
    VMCS_CR3_TARGET0, VMCS_CR3_TARGET1, VMCS_CR3_TARGET2, VMCS_CR3_TARGET3,
    VMCS_QUALIFICATION, VMCS_IO_RCX, VMCS_IO_RSI, VMCS_IO_RDI, VMCS_IO_RIP, VMCS_GUEST_LINEAR_ADDRESS,
    VMCS_GUEST_CR0, VMCS_GUEST_CR3, VMCS_GUEST_CR4,
) = range(77, 100)  # fmt: skip
VMCS_GUEST_BASES = 100  # 8 from ES to TR
(
    VMCS_GUEST_GDTR_BASE, VMCS_GUEST_IDTR_BASE, VMCS_GUEST_DR7, VMCS_GUEST_RSP, VMCS_GUEST_RIP, VMCS_GUEST_RFLAGS,
    VMCS_GUEST_PENDING_DEBUG, VMCS_GUEST_SYSENTER_ESP, VMCS_GUEST_SYSENTER_EIP,
    VMCS_HOST_CR0, VMCS_HOST_CR3, VMCS_HOST_CR4, VMCS_HOST_FS_BASE, VMCS_HOST_GS_BASE, VMCS_HOST_TR_BASE,
    VMCS_HOST_GDTR_BASE, VMCS_HOST_IDTR_BASE, VMCS_HOST_SYSENTER_ESP, VMCS_HOST_SYSENTER_EIP, VMCS_HOST_RSP, VMCS_HOST_RIP,
) = range(108, 129)  # fmt: skip
N_FIELDS = 129

# The VMCS region: revision identifier, abort indicator, and data whose format is the processor's: here the launch state,
# then 8 bytes for each slot.
REGION_BYTES = 4096
REGION_REVISION, REGION_ABORT, REGION_LAUNCH_STATE, REGION_FIELDS = 0, 4, 8, 16
LAUNCH_CLEAR, LAUNCH_LAUNCHED = 0, 1

# -- controls (section 24.6 to 24.8) ----------------------------------------------------------------------------------
PIN_EXTERNAL_INTERRUPT_EXITING, PIN_NMI_EXITING = 1 << 0, 1 << 3
PIN_VIRTUAL_NMIS, PIN_PREEMPTION_TIMER = 1 << 5, 1 << 6

PROCESSOR_INTERRUPT_WINDOW_EXITING, PROCESSOR_TSC_OFFSETTING, PROCESSOR_HLT_EXITING = 1 << 2, 1 << 3, 1 << 7
PROCESSOR_INVLPG_EXITING, PROCESSOR_MWAIT_EXITING, PROCESSOR_RDPMC_EXITING = 1 << 9, 1 << 10, 1 << 11
PROCESSOR_RDTSC_EXITING, PROCESSOR_CR3_LOAD_EXITING, PROCESSOR_CR3_STORE_EXITING = 1 << 12, 1 << 15, 1 << 16
PROCESSOR_CR8_LOAD_EXITING, PROCESSOR_CR8_STORE_EXITING, PROCESSOR_TPR_SHADOW = 1 << 19, 1 << 20, 1 << 21
PROCESSOR_NMI_WINDOW_EXITING, PROCESSOR_MOV_DR_EXITING = 1 << 22, 1 << 23
PROCESSOR_UNCONDITIONAL_IO_EXITING, PROCESSOR_IO_BITMAPS, PROCESSOR_MONITOR_TRAP_FLAG = 1 << 24, 1 << 25, 1 << 27
PROCESSOR_MSR_BITMAPS, PROCESSOR_MONITOR_EXITING, PROCESSOR_PAUSE_EXITING = 1 << 28, 1 << 29, 1 << 30
PROCESSOR_SECONDARY = 1 << 31

SECONDARY_APIC_ACCESSES, SECONDARY_EPT, SECONDARY_DESCRIPTOR_TABLE_EXITING = 1 << 0, 1 << 1, 1 << 2
SECONDARY_VPID, SECONDARY_WBINVD_EXITING, SECONDARY_UNRESTRICTED_GUEST = 1 << 5, 1 << 6, 1 << 7

EXIT_SAVE_DEBUG, EXIT_HOST_64, EXIT_ACKNOWLEDGE_INTERRUPT = 1 << 2, 1 << 9, 1 << 15
EXIT_SAVE_PAT, EXIT_LOAD_PAT, EXIT_SAVE_EFER, EXIT_LOAD_EFER, EXIT_SAVE_TIMER = 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 22

ENTRY_LOAD_DEBUG, ENTRY_GUEST_64, ENTRY_SMM, ENTRY_DEACTIVATE_DUAL_MONITOR = 1 << 2, 1 << 9, 1 << 10, 1 << 11
ENTRY_LOAD_PAT, ENTRY_LOAD_EFER = 1 << 14, 1 << 15

# Bits that are 1 whatever is wanted ("default1", appendix A), where no TRUE capability register says otherwise.
PIN_DEFAULT1, PROCESSOR_DEFAULT1, EXIT_DEFAULT1, ENTRY_DEFAULT1 = 0x16, 0x0401E172, 0x36DFF, 0x11FF
# And those of them that the TRUE registers let be 0.
PROCESSOR_TRUE_OPTIONAL, EXIT_TRUE_OPTIONAL = PROCESSOR_CR3_LOAD_EXITING | PROCESSOR_CR3_STORE_EXITING, EXIT_SAVE_DEBUG
ENTRY_TRUE_OPTIONAL = ENTRY_LOAD_DEBUG


@dataclass(frozen=True)
class Control:
    """A control that some processor of ours has: register, bit, the manual's name, the capability it needs."""

    register: str  # pin, processor, secondary, exit or entry
    bit: int
    name: str
    needs: str = ""


CONTROLS: tuple[Control, ...] = (
    Control("pin", PIN_EXTERNAL_INTERRUPT_EXITING, "external-interrupt exiting"),
    Control("pin", PIN_NMI_EXITING, "NMI exiting"),
    Control("pin", PIN_VIRTUAL_NMIS, "virtual NMIs", "virtual_nmis"),
    Control("pin", PIN_PREEMPTION_TIMER, "activate VMX-preemption timer", "preemption_timer"),
    Control("processor", PROCESSOR_INTERRUPT_WINDOW_EXITING, "interrupt-window exiting"),
    Control("processor", PROCESSOR_TSC_OFFSETTING, "use TSC offsetting"),
    Control("processor", PROCESSOR_HLT_EXITING, "HLT exiting"),
    Control("processor", PROCESSOR_INVLPG_EXITING, "INVLPG exiting"),
    Control("processor", PROCESSOR_MWAIT_EXITING, "MWAIT exiting"),
    Control("processor", PROCESSOR_RDPMC_EXITING, "RDPMC exiting"),
    Control("processor", PROCESSOR_RDTSC_EXITING, "RDTSC exiting"),
    Control("processor", PROCESSOR_CR3_LOAD_EXITING, "CR3-load exiting"),
    Control("processor", PROCESSOR_CR3_STORE_EXITING, "CR3-store exiting"),
    Control("processor", PROCESSOR_NMI_WINDOW_EXITING, "NMI-window exiting", "virtual_nmis"),
    Control("processor", PROCESSOR_MOV_DR_EXITING, "MOV-DR exiting"),
    Control("processor", PROCESSOR_UNCONDITIONAL_IO_EXITING, "unconditional I/O exiting"),
    Control("processor", PROCESSOR_IO_BITMAPS, "use I/O bitmaps"),
    Control("processor", PROCESSOR_MSR_BITMAPS, "use MSR bitmaps", "msr_bitmaps"),
    Control("processor", PROCESSOR_MONITOR_EXITING, "MONITOR exiting"),
    Control("processor", PROCESSOR_PAUSE_EXITING, "PAUSE exiting"),
    Control("processor", PROCESSOR_SECONDARY, "activate secondary controls", "secondary_controls"),
    Control("secondary", SECONDARY_EPT, "enable EPT", "ept"),
    Control("secondary", SECONDARY_DESCRIPTOR_TABLE_EXITING, "descriptor-table exiting", "descriptor_table_exiting"),
    Control("secondary", SECONDARY_VPID, "enable VPID", "vpid"),
    Control("secondary", SECONDARY_WBINVD_EXITING, "WBINVD exiting", "wbinvd_exiting"),
    Control("exit", EXIT_SAVE_DEBUG, "save debug controls"),
    Control("exit", EXIT_ACKNOWLEDGE_INTERRUPT, "acknowledge interrupt on exit"),
    Control("exit", EXIT_SAVE_PAT, "save IA32_PAT", "pat"),
    Control("exit", EXIT_LOAD_PAT, "load IA32_PAT", "pat"),
    Control("exit", EXIT_SAVE_EFER, "save IA32_EFER", "efer"),
    Control("exit", EXIT_LOAD_EFER, "load IA32_EFER", "efer"),
    Control("exit", EXIT_SAVE_TIMER, "save VMX-preemption timer value", "preemption_timer"),
    Control("entry", ENTRY_LOAD_DEBUG, "load debug controls"),
    Control("entry", ENTRY_LOAD_PAT, "load IA32_PAT", "pat"),
    Control("entry", ENTRY_LOAD_EFER, "load IA32_EFER", "efer"),
)

# Guest non-register state (section 24.4.2).
BLOCKING_BY_STI, BLOCKING_BY_MOV_SS, BLOCKING_BY_SMI, BLOCKING_BY_NMI = 1 << 0, 1 << 1, 1 << 2, 1 << 3
INTERRUPTIBILITY_RESERVED = ~0xF
ACTIVITY_ACTIVE, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_FOR_SIPI = range(4)
PENDING_DEBUG_ENABLED, PENDING_DEBUG_BS, PENDING_DEBUG_HITS = 1 << 12, 1 << 14, 0xF
PENDING_DEBUG_RESERVED = ~(PENDING_DEBUG_ENABLED | PENDING_DEBUG_BS | PENDING_DEBUG_HITS)

# Segment access rights in the VMCS: isa.registers AR_*; the reserved bits:
ACCESS_RESERVED = 0xFFFE0F00

# Interruption information, for entries, exits and IDT vectoring (sections 24.8.3, 24.9.2 and 24.9.3). Types are the KIND_
# numbers of isa.vectors, and:
TYPE_SHIFT, TYPE_MASK = 8, 7
TYPE_EXTERNAL, TYPE_NMI, TYPE_HARDWARE_EXCEPTION, TYPE_SOFTWARE_INTERRUPT = 0, 2, 3, 4
TYPE_PRIVILEGED_SOFTWARE_EXCEPTION, TYPE_SOFTWARE_EXCEPTION = 5, 6
INTERRUPTION_ERROR_CODE, INTERRUPTION_NMI_UNBLOCKING, INTERRUPTION_VALID = 1 << 11, 1 << 12, 1 << 31
ENTRY_INTERRUPTION_RESERVED = 0x7FFFF000

# -- exits (appendix C) -------------------------------------------------------------------------------------------------
ENTRY_FAILURE = 1 << 31  # of the exit reason


@dataclass(frozen=True)
class ExitReason:
    """A basic exit reason: number, name, the profile key that prices the exit, and why that key where it is not its own."""

    number: int
    name: str
    meaning: str
    price: str
    why: str = ""

    @property
    def event(self) -> str:
        """The ledger event that counts it."""
        return f"exit.{self.name}"


_INSTRUCTION = "an exit by an instruction that the processor only recognises, like CPUID"
_NESTED_FAULT = "an exit by a walk of the nested tables, like an EPT violation"
_EVENT = "an exit in place of an event's delivery, like that in place of a page fault"

EXIT_REASONS: tuple[ExitReason, ...] = (
    ExitReason(0, "exception_or_nmi", "an exception whose bit in the exception bitmap is set, or an NMI", "virt.exit_pf",
               "measured for page faults, which are most of them"),
    ExitReason(1, "external_interrupt", "an external interrupt under external-interrupt exiting", "virt.exit_pf", _EVENT),
    ExitReason(2, "triple_fault", "an exception while a double fault was delivered", "virt.exit_pf", _EVENT),
    ExitReason(7, "interrupt_window", "interrupts can be taken, under interrupt-window exiting", "virt.exit_pf", _EVENT),
    ExitReason(8, "nmi_window", "NMIs are not blocked, under NMI-window exiting", "virt.exit_pf", _EVENT),
    ExitReason(9, "task_switch", "a task switch was attempted", "virt.exit_pf", "much state is looked at first, as for a fault"),
    ExitReason(10, "cpuid", "CPUID", "virt.exit_cpuid"),
    ExitReason(12, "hlt", "HLT under HLT exiting", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(13, "invd", "INVD", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(14, "invlpg", "INVLPG under INVLPG exiting", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(15, "rdpmc", "RDPMC under RDPMC exiting", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(16, "rdtsc", "RDTSC under RDTSC exiting", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(18, "vmcall", "VMCALL", "virt.exit_vmcall"),
    ExitReason(19, "vmclear", "VMCLEAR", "virt.exit_vmcall", _INSTRUCTION),
    ExitReason(20, "vmlaunch", "VMLAUNCH", "virt.exit_vmcall", _INSTRUCTION),
    ExitReason(21, "vmptrld", "VMPTRLD", "virt.exit_vmcall", _INSTRUCTION),
    ExitReason(22, "vmptrst", "VMPTRST", "virt.exit_vmcall", _INSTRUCTION),
    ExitReason(23, "vmread", "VMREAD", "virt.exit_vmcall", _INSTRUCTION),
    ExitReason(24, "vmresume", "VMRESUME", "virt.exit_vmcall", _INSTRUCTION),
    ExitReason(25, "vmwrite", "VMWRITE", "virt.exit_vmcall", _INSTRUCTION),
    ExitReason(26, "vmxoff", "VMXOFF", "virt.exit_vmcall", _INSTRUCTION),
    ExitReason(27, "vmxon", "VMXON", "virt.exit_vmcall", _INSTRUCTION),
    ExitReason(28, "cr_access", "MOV to or from a control register, CLTS or LMSW", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(29, "dr_access", "MOV to or from a debug register under MOV-DR exiting", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(30, "io_instruction", "IN, OUT, INS or OUTS that a bitmap or unconditional I/O exiting names", "virt.exit_io"),
    ExitReason(31, "msr_read", "RDMSR that the MSR bitmap names, or any without it", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(32, "msr_write", "WRMSR that the MSR bitmap names, or any without it", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(33, "entry_failure_guest_state", "VM entry found the guest state invalid", "virt.exit_vmcall",
               "it loads host state and nothing was to be saved"),
    ExitReason(34, "entry_failure_msr_loading", "VM entry could not load an MSR", "virt.exit_vmcall",
               "it loads host state and nothing was to be saved"),
    ExitReason(36, "mwait", "MWAIT under MWAIT exiting", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(39, "monitor", "MONITOR under MONITOR exiting", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(40, "pause", "PAUSE under PAUSE exiting", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(46, "gdtr_idtr", "LGDT, LIDT, SGDT or SIDT under descriptor-table exiting", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(47, "ldtr_tr", "LLDT, LTR, SLDT or STR under descriptor-table exiting", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(48, "ept_violation", "an access that the extended page tables do not permit", "virt.exit_ept"),
    ExitReason(49, "ept_misconfiguration", "an invalid entry of the extended page tables", "virt.exit_ept", _NESTED_FAULT),
    ExitReason(50, "invept", "INVEPT", "virt.exit_vmcall", _INSTRUCTION),
    ExitReason(52, "preemption_timer", "the VMX-preemption timer counted down to zero", "virt.exit_pf", _EVENT),
    ExitReason(53, "invvpid", "INVVPID", "virt.exit_vmcall", _INSTRUCTION),
    ExitReason(54, "wbinvd", "WBINVD under WBINVD exiting", "virt.exit_cpuid", _INSTRUCTION),
)
REASON = {reason.name: reason.number for reason in EXIT_REASONS}

EXIT_EXCEPTION_OR_NMI, EXIT_EXTERNAL_INTERRUPT, EXIT_TRIPLE_FAULT = 0, 1, 2
EXIT_INTERRUPT_WINDOW, EXIT_NMI_WINDOW, EXIT_TASK_SWITCH, EXIT_CPUID = 7, 8, 9, 10
EXIT_HLT, EXIT_INVD, EXIT_INVLPG, EXIT_RDPMC, EXIT_RDTSC = 12, 13, 14, 15, 16
EXIT_VMCALL, EXIT_VMCLEAR, EXIT_VMLAUNCH, EXIT_VMPTRLD, EXIT_VMPTRST = 18, 19, 20, 21, 22
EXIT_VMREAD, EXIT_VMRESUME, EXIT_VMWRITE, EXIT_VMXOFF, EXIT_VMXON = 23, 24, 25, 26, 27
EXIT_CR_ACCESS, EXIT_DR_ACCESS, EXIT_IO_INSTRUCTION, EXIT_MSR_READ, EXIT_MSR_WRITE = 28, 29, 30, 31, 32
EXIT_ENTRY_FAILURE_GUEST_STATE, EXIT_ENTRY_FAILURE_MSR_LOADING = 33, 34
EXIT_MWAIT, EXIT_MONITOR, EXIT_PAUSE, EXIT_GDTR_IDTR, EXIT_LDTR_TR = 36, 39, 40, 46, 47
EXIT_EPT_VIOLATION, EXIT_EPT_MISCONFIGURATION, EXIT_INVEPT = 48, 49, 50
EXIT_PREEMPTION_TIMER, EXIT_INVVPID, EXIT_WBINVD = 52, 53, 54
N_EXIT_REASONS = 64

# -- VM-instruction errors (section 30.4) ---------------------------------------------------------------------------------
INSTRUCTION_ERRORS = {
    1: "VMCALL executed in VMX root operation",
    2: "VMCLEAR with invalid physical address",
    3: "VMCLEAR with VMXON pointer",
    4: "VMLAUNCH with non-clear VMCS",
    5: "VMRESUME with non-launched VMCS",
    6: "VMRESUME after VMXOFF",
    7: "VM entry with invalid control field(s)",
    8: "VM entry with invalid host-state field(s)",
    9: "VMPTRLD with invalid physical address",
    10: "VMPTRLD with VMXON pointer",
    11: "VMPTRLD with incorrect VMCS revision identifier",
    12: "VMREAD or VMWRITE from or to unsupported VMCS component",
    13: "VMWRITE to read-only VMCS component",
    15: "VMXON executed in VMX root operation",
    26: "VM entry with events blocked by MOV SS",
    28: "invalid operand to INVEPT or INVVPID",
}
ERROR_VMCALL_IN_ROOT, ERROR_VMCLEAR_ADDRESS, ERROR_VMCLEAR_VMXON_POINTER = 1, 2, 3
ERROR_VMLAUNCH_NOT_CLEAR, ERROR_VMRESUME_NOT_LAUNCHED = 4, 5
ERROR_ENTRY_CONTROLS, ERROR_ENTRY_HOST_STATE = 7, 8
ERROR_VMPTRLD_ADDRESS, ERROR_VMPTRLD_VMXON_POINTER, ERROR_VMPTRLD_REVISION = 9, 10, 11
ERROR_UNSUPPORTED_FIELD, ERROR_READ_ONLY_FIELD, ERROR_VMXON_IN_ROOT = 12, 13, 15
ERROR_ENTRY_BLOCKED_BY_MOV_SS, ERROR_INVALIDATION_OPERAND = 26, 28

# VMX aborts (section 27.7), as the abort indicator holds them.
ABORT_SAVING_MSR, ABORT_HOST_PDPTE, ABORT_CORRUPT_VMCS, ABORT_LOADING_MSR, ABORT_MACHINE_CHECK = 1, 2, 3, 4, 5

# Exit qualifications of entry failures by guest state (section 26.8).
QUALIFICATION_PDPTE, QUALIFICATION_NMI_INJECTION, QUALIFICATION_LINK_POINTER = 2, 3, 4

# -- registers ------------------------------------------------------------------------------------------------------------
CPUID_ECX_VMX = 1 << 5  # CPUID leaf 1
MSR_FEATURE_CONTROL = 0x3A
FEATURE_CONTROL_LOCK, FEATURE_CONTROL_VMX_IN_SMX, FEATURE_CONTROL_VMX = 1 << 0, 1 << 1, 1 << 2
MSR_VMX_BASIC = 0x480
(
    VMX_BASIC, VMX_PINBASED, VMX_PROCBASED, VMX_EXIT, VMX_ENTRY, VMX_MISC, VMX_CR0_FIXED0, VMX_CR0_FIXED1, VMX_CR4_FIXED0,
    VMX_CR4_FIXED1, VMX_VMCS_ENUM, VMX_PROCBASED2, VMX_EPT_VPID, VMX_TRUE_PINBASED, VMX_TRUE_PROCBASED, VMX_TRUE_EXIT,
    VMX_TRUE_ENTRY,
) = range(17)  # fmt: skip  # less MSR_VMX_BASIC
BASIC_INS_OUTS, BASIC_TRUE_CONTROLS = 1 << 54, 1 << 55
MISC_TIMER_RATE = 0x1F  # bits 4:0: the timer counts down when this bit of the TSC changes
MISC_ACTIVITY_HLT, MISC_ACTIVITY_SHUTDOWN, MISC_ACTIVITY_WAIT_FOR_SIPI = 1 << 6, 1 << 7, 1 << 8
MISC_CR3_TARGETS_SHIFT = 16
MISC_MSR_LIST_SHIFT = 25  # bits 27:25: 512 * (n + 1) entries are recommended at most

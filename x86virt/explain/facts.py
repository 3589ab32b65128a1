"""What the instruction table does not say of an operation and a student wants to know: data, keyed by operation.

`Sensitivity` follows G. J. Popek and R. P. Goldberg (CACM 17(7), 1974): an instruction is control-sensitive if it changes
the resources that a program has or the mode of the processor, behaviour-sensitive if what it does depends on them. The
groups are those of J. S. Robin and C. E. Irvine (USENIX Security 2000). Tests hold all of it against the processor.
"""

from dataclasses import dataclass

from ..isa.rows import IOPL, PRIVILEGED, SENSITIVE, Row

CONTROL, BEHAVIOUR = "control-sensitive", "behaviour-sensitive"
BOTH = f"{CONTROL} and {BEHAVIOUR}"


# Instructions of the virtual-machine extensions: #UD outside protected mode, and without a bit that a hypervisor has set.
VMX_OPERATIONS = (
    "VMXON", "VMXOFF", "VMPTRLD", "VMPTRST", "VMCLEAR", "VMREAD", "VMWRITE", "VMLAUNCH", "VMRESUME", "VMCALL", "INVEPT",
    "INVVPID",
)  # fmt: skip
SVM_OPERATIONS = ("VMRUN", "VMLOAD", "VMSAVE", "STGI", "CLGI", "INVLPGA")
EXTENSION_BIT = {**dict.fromkeys(VMX_OPERATIONS, "CR4.VMXE"), **dict.fromkeys(SVM_OPERATIONS, "EFER.SVME")}
OF_EXTENSIONS = (*EXTENSION_BIT, "SKINIT", "VMMCALL")


@dataclass(frozen=True)
class Sensitivity:
    """Kind, the resource of the machine that is touched, and why that matters to a VMM."""

    kind: str
    resource: str
    why: str


def _loads(what: str) -> Sensitivity:
    return Sensitivity(
        BOTH,
        "the GDT and LDT",
        f"it loads {what} through the processor's tables, which are the VMM's, and checks it against the real CPL",
    )


def _changes(resource: str, why: str) -> Sensitivity:
    return Sensitivity(CONTROL, resource, why)


def _shows(resource: str, why: str) -> Sensitivity:
    return Sensitivity(BEHAVIOUR, resource, why)


def _looks_up(what: str) -> Sensitivity:
    return _shows("the GDT and LDT", f"it looks {what} up in the processor's tables, at the real CPL")


_PORT = _changes("the I/O ports", "devices belong to whoever runs the machine")
_SOFTWARE_INTERRUPT = _changes(
    "the IDT", "it enters a handler through the processor's IDT, whose gates are the VMM's"
)
_X87 = _shows("CS", "its image holds the CS selector of the last x87 instruction, and so the real ring")
_HYPERVISOR = _changes("virtual-machine operation", "whoever executes it takes the processor's guests into its own hands")
_SELECTOR = _shows("the RPL of CS and SS", "the low bits of the selectors of CS and SS show the real ring")

SENSITIVITY: dict[str, Sensitivity] = {
    "CLI": _changes("EFLAGS.IF", "it would hold off the machine's interrupts, the VMM's timer too"),
    "STI": _changes("EFLAGS.IF", "it would let interrupts in where the VMM keeps them out"),
    "PUSHF": _shows("EFLAGS.IF, IOPL and VM", "it pushes the processor's flags, not those of the virtual machine"),
    "POPF": Sensitivity(BOTH, "EFLAGS.IF and IOPL", "in ring 0 it changes them, elsewhere it leaves them and says "
    "nothing"),
    "HLT": _changes("the processor itself", "it would stop the machine, and not only the virtual one"),
    "INT_N": _SOFTWARE_INTERRUPT, "INT3": _SOFTWARE_INTERRUPT, "INTO": _SOFTWARE_INTERRUPT, "INT1": _SOFTWARE_INTERRUPT,
    "IRET": Sensitivity(BOTH, "EFLAGS, CS and SS", "it loads the flags as POPF does and selectors as a far return "
    "does"),
    "IN": _PORT, "OUT": _PORT, "port_string": _PORT, "port_string_byte": _PORT,
    "SLDT": _shows("LDTR", "it stores the processor's selector"),
    "STR": _shows("TR", "it stores the processor's selector: the VMM's task-state segment"),
    "LLDT": _changes("LDTR", "it would give the processor another table of segments"),
    "LTR": _changes("TR", "it would give the processor another stack for ring 0"),
    "VERR": _looks_up("a descriptor"), "VERW": _looks_up("a descriptor"),
    "LAR": _looks_up("access rights"), "LSL": _looks_up("a limit"),
    "SGDT": _shows("GDTR", "it stores where the VMM's table lies"),
    "SIDT": _shows("IDTR", "it stores where the VMM's table lies"),
    "LGDT": _changes("GDTR", "it would give the processor other segments than the VMM's"),
    "LIDT": _changes("IDTR", "it would take every exception and interrupt away from the VMM"),
    "SMSW": _shows("CR0", "it stores the processor's CR0, of which the guest's may differ"),
    "LMSW": _changes("CR0", "it switches protection and the x87 traps of the processor"),
    "INVLPG": _changes("the TLB", "it acts on translations that are the VMM's"),
    "CLTS": _changes("CR0.TS", "it switches a trap of the processor off"),
    "INVD": _changes("the caches", "it would throw away what others have written"),
    "WBINVD": _changes("the caches", "it acts on what the whole machine shares"),
    "CR_TO_REGISTER": _shows("the control registers", "it would show the VMM's page-table root and mode bits"),
    "REGISTER_TO_CR": _changes("the control registers", "it would change paging and protection of the machine"),
    "DR_TO_REGISTER": _shows("the debug registers", "it would show the VMM's breakpoints"),
    "REGISTER_TO_DR": _changes("the debug registers", "it would set breakpoints of the machine"),
    "RDMSR": _shows("the model-specific registers", "they are the machine's"),
    "WRMSR": _changes("the model-specific registers", "they are the machine's"),
    "SYSENTER": _changes("the SYSENTER registers", "it enters ring 0 at a place that the VMM decides"),
    "SYSEXIT": _changes("the CPL", "it leaves ring 0 for ring 3"),
    "SREG_TO_REGISTER": _SELECTOR, "PUSH_SREG": _SELECTOR,
    "REGISTER_TO_SREG": _loads("a segment register"), "POP_SREG": _loads("a segment register"),
    "LOAD_FAR_POINTER": _loads("a segment register"),
    "JMP_FAR": _loads("CS"), "JMP_FAR_INDIRECT": _loads("CS"), "RET_FAR": _loads("CS"),
    "CALL_FAR": Sensitivity(BOTH, "the GDT and LDT, and CS", "it loads CS through the processor's tables and pushes "
    "the old one, whose RPL is the real ring"),
    "CALL_FAR_INDIRECT": Sensitivity(BOTH, "the GDT and LDT, and CS", "it loads CS through the processor's tables "
    "and pushes the old one, whose RPL is the real ring"),
    "STORE_ENVIRONMENT": _X87, "SAVE": _X87, "FXSAVE": _X87,
    **dict.fromkeys((*EXTENSION_BIT, "SKINIT"), _HYPERVISOR),
}  # fmt: skip

# Innocuous by the table, and yet of interest.
REMARKS: dict[str, str] = {
    "RDTSC": "It reads the machine's own time, in which the VMM's work shows. CR4.TSD makes it #GP(0) outside ring "
    "0, so that a VMM can trap it.",
    "RDPMC": "It reads the machine's own counters. Without CR4.PCE it is #GP(0) outside ring 0, so that a VMM can "
    "trap it.",
    "CPUID": "It tells what the processor is, in every ring, and no ring or control bit of a processor without VT-x "
    "or SVM makes it trap.",
    "UD2": "It exists to raise #UD.",
    "VMMCALL": "It exists to exit to the hypervisor of a guest of SVM.",
    "ARPL": "It only compares and changes two selectors in registers or memory; the tables are not looked at.",
}

# The list of Robin and Irvine by mnemonic: CALL, JMP and RET are far ones, POP, PUSH and MOV those of segment registers.
SENSITIVE_REGISTERS = ("SGDT", "SIDT", "SLDT", "SMSW", "PUSHF", "POPF")
PROTECTION_SYSTEM = ("LAR", "LSL", "VERR", "VERW", "POP", "PUSH", "CALLF", "JMPF", "INT", "RETF", "STR", "MOV")

# #UD in real-address and virtual-8086 mode.
PROTECTED_ONLY = ("SLDT", "STR", "LLDT", "LTR", "VERR", "VERW", "LAR", "LSL", "ARPL")
ALWAYS_UNDEFINED = ("UD2", "undefined", "SKINIT", "VMMCALL")
# #GP(0) in virtual-8086 mode unless IOPL is 3 (SDM volume 3, section 20.2.7), without CR4.VME.
IOPL_SENSITIVE_IN_V86 = ("CLI", "STI", "PUSHF", "POPF", "INT_N", "IRET")
NOT_IN_REAL_MODE = ("SYSENTER", "SYSEXIT")
BY_CONTROL_BIT = {"RDPMC": "CR4.PCE"}  # #GP(0) outside ring 0 while the bit is clear

EXECUTES, GENERAL_PROTECTION, UNDEFINED = "executes", "#GP(0)", "#UD"
# Contexts in which an instruction can be met: name -> (mode, CPL, IOPL).
CONTEXTS = {
    "real": ("real", 0, 0),
    "v86_iopl3": ("v86", 3, 3),
    "v86": ("v86", 3, 0),
    "cpl0": ("protected", 0, 0),
    "cpl1": ("protected", 1, 0),
    "cpl2": ("protected", 2, 0),
    "cpl3": ("protected", 3, 0),
    "cpl3_iopl3": ("protected", 3, 3),
}


def operation_of(row: Row) -> str:
    """The operation without its class: `LGDT`, `SAVE`, `add`."""
    return row.operation.split(":")[-1]


def is_port(row: Row) -> bool:
    """IN, OUT, INS, OUTS."""
    return row.intercept == "IO_INSTRUCTION"


def behaviour(row: Row, context: str) -> str:
    """What the processor does with an instruction whose operands allow everything: executes, or the exception.

    A port access outside ring 0 is taken to have no I/O permission map that allows it; CR4 and EFER are taken to be 0.
    """
    mode, level, iopl = CONTEXTS[context]
    operation = operation_of(row)
    if operation in ALWAYS_UNDEFINED or operation in EXTENSION_BIT or (operation in PROTECTED_ONLY and mode != "protected"):
        return UNDEFINED
    if mode == "real":
        return GENERAL_PROTECTION if operation in NOT_IN_REAL_MODE else EXECUTES
    if mode == "v86":
        if operation in IOPL_SENSITIVE_IN_V86:
            return EXECUTES if iopl == 3 else GENERAL_PROTECTION
        if is_port(row):
            return GENERAL_PROTECTION
    denied = (
        level > iopl
        if row.privilege == IOPL
        else level > 0 and (row.sensitivity == PRIVILEGED or operation in BY_CONTROL_BIT)
    )
    return GENERAL_PROTECTION if denied else EXECUTES


def sensitivity(row: Row) -> Sensitivity | None:
    """Kind and resource of a sensitive row; None for an innocuous one."""
    return SENSITIVITY[operation_of(row)] if row.sensitivity in (PRIVILEGED, SENSITIVE) else None


def robin_irvine(row: Row) -> str:
    """The group of the list that a row stands in, empty if in none."""
    if row.sensitivity != SENSITIVE:
        return ""
    if row.mnemonic in SENSITIVE_REGISTERS:
        return "sensitive register instructions"
    return "protection system references" if row.mnemonic in PROTECTION_SYSTEM else ""


# -- faults ----------------------------------------------------------------------------------------------------------

_SEGMENT_LOAD = (
    ("#GP(selector)", "the selector is outside its table, of a wrong type, or not for this CPL"),
    ("#NP(selector)", "the segment is not present; #SS(selector) for SS"),
)
_FAR = (
    (
        "#GP(selector)",
        "the target is no code segment or gate that this CPL may use, or the offset is beyond its limit",
    ),
    ("#NP(selector)", "the segment or gate is not present"),
)
FAULTS: dict[str, tuple[tuple[str, str], ...]] = {
    "div": (("#DE", "the divisor is 0, or the quotient does not fit"),),
    "aam": (("#DE", "the immediate is 0"),),
    "bound": (("#BR", "the index is outside the bounds"),),
    "INT_N": (("#GP(vector)", "no gate, or a gate whose DPL is below the CPL"), ("#NP(vector)", "the gate is not "
    "present")),
    "INT3": (("#BP", "always, as a trap"), ("#GP(vector)", "a gate whose DPL is below the CPL")),
    "INTO": (("#OF", "OF is set, as a trap"), ("#GP(vector)", "a gate whose DPL is below the CPL")),
    "INT1": (("#DB", "always, as a trap"),),
    "IRET": (*_FAR, ("#SS(selector)", "the stack segment of an outer ring is not "
    "present"), ("#TS(selector)", "a return to a task that is none")),
    "RET_FAR": (*_FAR, ("#SS(selector)", "the stack segment of an outer ring is not present")),
    "JMP_FAR": (*_FAR, ("#TS(selector)", "a task-state segment that is none")),
    "JMP_FAR_INDIRECT": (*_FAR, ("#TS(selector)", "a task-state segment that is none")),
    "CALL_FAR": (*_FAR, ("#TS(selector)", "the stack of the inner ring, or a task-state segment, is none")),
    "CALL_FAR_INDIRECT": (*_FAR, ("#TS(selector)", "the stack of the inner ring, or a task-state segment, is none")),
    "REGISTER_TO_SREG": _SEGMENT_LOAD, "POP_SREG": _SEGMENT_LOAD, "LOAD_FAR_POINTER": _SEGMENT_LOAD,
    "LLDT": (("#GP(selector)", "no LDT descriptor of the GDT"), ("#NP(selector)", "it is not present")),
    "LTR": (("#GP(selector)", "no available task-state segment of the GDT"), ("#NP(selector)", "it is not present")),
    "REGISTER_TO_CR": (("#GP(0)", "a reserved bit of CR4 is set, or PG without PE, or NW without CD"),),
    "CR_TO_REGISTER": (),
    "REGISTER_TO_DR": (("#DB", "DR7.GD is set"), ("#UD", "DR4 or DR5 while CR4.DE is set")),
    "DR_TO_REGISTER": (("#DB", "DR7.GD is set"), ("#UD", "DR4 or DR5 while CR4.DE is set")),
    "RDMSR": (("#GP(0)", "there is no such register"),),
    "WRMSR": (("#GP(0)", "there is no such register, or a reserved bit is set"),),
    "RDTSC": (("#GP(0)", "CPL is not 0 and CR4.TSD is set"),),
    "RDPMC": (("#GP(0)", "CPL is not 0 and CR4.PCE is clear, or there is no such counter"),),
    "SYSENTER": (("#GP(0)", "IA32_SYSENTER_CS holds a null selector"),),
    "SYSEXIT": (("#GP(0)", "IA32_SYSENTER_CS holds a null selector"),),
    **{
        operation: (
            ("#UD", f"{bit} is clear, or the processor is outside protected mode"),
            ("#GP(0)", "the CPL is not 0"),
        )
        for operation, bit in EXTENSION_BIT.items()
    },
    "VMMCALL": (("#UD", "always outside a guest whose hypervisor intercepts it"),),
    "FXSAVE": (("#GP(0)", "the address is not a multiple of 16"), ("#NM", "CR0.EM or CR0.TS is set")),
    "FXRSTOR": (("#GP(0)", "the address is not a multiple of 16, or a reserved bit of MXCSR is "
    "set"), ("#NM", "CR0.EM or CR0.TS is set")),
}  # fmt: skip
USES_STACK = (
    "push", "pop", "pusha", "popa", "call", "call_indirect", "ret", "enter", "leave", "PUSHF", "POPF", "PUSH_SREG", "POP_SREG",
    "IRET", "RET_FAR", "CALL_FAR", "CALL_FAR_INDIRECT",
)  # fmt: skip
USES_MEMORY = ("string", "string_byte", "port_string", "port_string_byte", "xlat")
WITHOUT_ACCESS = ("lea", "hint", "INVLPG")  # a memory operand that is not accessed

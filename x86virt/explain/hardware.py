"""What VT-x and SVM do with an instruction, and what their exits are: the reasons, and what the strategies do at each.

Sources: Intel SDM volume 3, chapter 25 and appendix C; AMD APM volume 2, section 15.9 and appendix C. Numbers and names are
those of x86virt/isa (vmx.py, svm.py, exits.py).
"""

from typing import TYPE_CHECKING, Any

from ..isa.exits import EXITS
from ..isa.rows import INNOCUOUS, Row
from ..isa.svm import (
    EXIT_CR_READ,
    EXIT_CR_WRITE,
    EXIT_DR_READ,
    EXIT_DR_WRITE,
    EXIT_EXCEPTION,
    EXIT_NAMES,
    exit_event_name,
)
from ..isa.table import ROWS
from ..isa.vmx import REASON
from .facts import SVM_OPERATIONS, VMX_OPERATIONS, operation_of
from .page import Explanation, Section
from .price import price_json, price_text
from .technique import Technique

if TYPE_CHECKING:
    from ..profile import Profile

# When an instruction exits under VMX, by the table's intercept column; those of VMX itself always do.
BY_BITMAPS = "always without MSR bitmaps, else by them"
VMX_WHEN: dict[str, str] = {
    "CPUID": "always",
    "HLT": "if `HLT exiting` is set",
    "INVD": "always",
    "INVLPG": "if `INVLPG exiting` is set",
    "RDPMC": "if `RDPMC exiting` is set",
    "RDTSC": "if `RDTSC exiting` is set",
    "CR_ACCESS": "by the guest/host masks of CR0 and CR4 and the CR3 controls",
    "DR_ACCESS": "if `MOV-DR exiting` is set",
    "IO_INSTRUCTION": "if `unconditional I/O exiting` is set, or by the I/O bitmaps",
    "MSR_READ": BY_BITMAPS,
    "MSR_WRITE": BY_BITMAPS,
    "GDTR_IDTR": "if `descriptor-table exiting` is set, which the first processors lack",
    "LDTR_TR": "if `descriptor-table exiting` is set, which the first processors lack",
    "WBINVD": "if `WBINVD exiting` is set, which the first processors lack",
    **dict.fromkeys(VMX_OPERATIONS, "always"),
}
RAISES = {"INT3": 3, "INTO": 4, "INT1": 1, "UD2": 6, "undefined": 6}
OWN_STATE = "the guest has its own flags, segments, tables and CPL, on which it works in every ring"
OF_THE_OTHER = "It raises #UD: the processor has no {}."


def vtx(row: Row) -> Technique:
    """Intel VT-x."""
    return Technique("vtx", vtx_text(row, operation_of(row)))


def vtx_text(row: Row, operation: str) -> str:
    """What VMX does with an instruction in non-root operation."""
    if operation in SVM_OPERATIONS or operation in ("SKINIT", "VMMCALL"):
        return OF_THE_OTHER.format("SVM")
    if operation == "SMSW":
        return "No VM exit: bits of CR0 that the host owns are read from the shadow of CR0."
    if row.intercept in VMX_OPERATIONS:
        return f"VM exit {row.intercept} (basic reason {REASON[row.intercept.lower()]}) always, behind what makes it #UD."
    if row.intercept:
        number, when = REASON[row.intercept.lower()], VMX_WHEN[row.intercept]
        return f"VM exit {row.intercept} (basic reason {number}) {when}; otherwise it works on the guest's own state."
    if operation in RAISES:
        return (
            f"VM exit EXCEPTION_OR_NMI (basic reason 0) if bit {RAISES[operation]} of the exception bitmap is set; "
            "else the guest's IDT serves it."
        )
    return "It runs directly." if row.sensitivity == INNOCUOUS else f"No VM exit: {OWN_STATE}."


# The intercept of SVM by operation, where its name is another than the operation's.
SVM_NAMES = {
    "SIDT": "IDTR_READ", "SGDT": "GDTR_READ", "SLDT": "LDTR_READ", "STR": "TR_READ", "LIDT": "IDTR_WRITE", "LGDT": "GDTR_WRITE",
    "LLDT": "LDTR_WRITE", "LTR": "TR_WRITE", "IN": "IOIO", "OUT": "IOIO", "port_string": "IOIO", "port_string_byte": "IOIO",
    "RDMSR": "MSR", "WRMSR": "MSR", "INT1": "ICEBP", "SMSW": "CR0_READ", "LMSW": "CR0_WRITE", "CLTS": "CR0_WRITE",
}  # fmt: skip
SVM_CODES = {name: code for code, name in EXIT_NAMES.items()}
SVM_OF_REGISTERS = {"CR_TO_REGISTER": EXIT_CR_READ, "REGISTER_TO_CR": EXIT_CR_WRITE}
SVM_OF_ANY_REGISTER = {"DR_TO_REGISTER": ("DRn_READ", EXIT_DR_READ), "REGISTER_TO_DR": ("DRn_WRITE", EXIT_DR_WRITE)}


def svm(row: Row) -> Technique:
    """AMD SVM."""
    return Technique("svm", svm_text(row, operation_of(row)))


def svm_code(row: Row, operation: str) -> int | None:
    """The exit code of its own intercept, None if it has none."""
    if operation in SVM_OF_REGISTERS:
        return SVM_OF_REGISTERS[operation] + int(row.modrm)
    return SVM_CODES.get(SVM_NAMES.get(operation, operation))


def svm_text(row: Row, operation: str) -> str:
    """What SVM does with an instruction of a guest."""
    if operation in VMX_OPERATIONS:
        return OF_THE_OTHER.format("VMX")
    bit = "if its intercept bit in the VMCB is set; otherwise it works on the guest's own state."
    if operation in SVM_OF_ANY_REGISTER:
        name, first = SVM_OF_ANY_REGISTER[operation]
        return f"#VMEXIT {name} ({first:#x} + n) {bit}"
    code = svm_code(row, operation)
    if code is not None:
        if EXIT_NAMES[code] in ("IOIO", "MSR"):
            bit = "by the permission map; otherwise it works on the guest's own state."
        if operation == "VMMCALL":
            bit = "if its intercept bit in the VMCB is set; otherwise #UD."
        return f"#VMEXIT {EXIT_NAMES[code]} ({code:#x}) {bit}"
    if operation in RAISES:
        vector = RAISES[operation]
        code = EXIT_EXCEPTION + vector
        return f"#VMEXIT EXCP{vector} ({code:#x}) if that exception is intercepted; else the guest's IDT serves it."
    return "It runs directly." if row.sensitivity == INNOCUOUS else f"No #VMEXIT: {OWN_STATE}."


# -- exits ----------------------------------------------------------------------------------------------------------------

HARDWARE_EXITS = {row.name.upper(): row for row in EXITS}


def svm_codes_of(name: str) -> list[str]:
    """Names and numbers of SVM's exit codes that count as an exit."""
    codes = [code for code in EXIT_NAMES if exit_event_name(code) == f"exit.{name}"]
    if len(codes) > 4:
        return [f"{EXIT_NAMES[code]} ({code:#x})" for code in (codes[0], codes[-1])]
    return [f"{EXIT_NAMES[code]} ({code:#x})" for code in codes]


def hardware_hooks(name: str) -> dict[str, str]:
    """What the strategies of VT-x and SVM do at an exit: the first line of the hook."""
    from ..vmm.registry import find_strategy, strategy_names
    from .strategy import first_line

    found = {}
    for strategy in map(find_strategy, strategy_names()):
        hook = getattr(strategy, f"on_{name}", None)
        if strategy.processor in ("vtx", "svm") and hook is not None:
            found[strategy.name] = f"on_{name}: {first_line(hook)}"
    return found


def explain_hardware_exit(name: str, profile: "Profile") -> Explanation:
    """The explanation of an exit of VT-x and SVM, by its name in upper case."""
    row = HARDWARE_EXITS[name]
    mnemonics = list(dict.fromkeys(one.mnemonic for one in ROWS if one.intercept == name))
    codes = svm_codes_of(row.name)
    section = Section("")
    section.add("basic exit reason", f"{row.number} (Intel SDM volume 3, appendix C)" if row.number >= 0 else "")
    section.add("of SVM", " to ".join(codes) if len(codes) == 2 and "..." not in codes else ", ".join(codes))
    section.add("when, under VMX", VMX_WHEN.get(name, ""))
    section.add("instructions", ", ".join(mnemonics))
    hooks = hardware_hooks(row.name)
    for strategy, hook in hooks.items():
        section.add(f"in {strategy}", hook)
    section.add(row.event, f"on {profile.name}: {price_text(row.event, profile)}")
    data: dict[str, Any] = {
        "number": row.number if row.number >= 0 else None,
        "svm": codes,
        "when": VMX_WHEN.get(name),
        "instructions": mnemonics,
        "hooks": hooks,
        "profile": profile.name,
        "prices": [price_json(row.event, profile)],
    }
    return Explanation("exit", row.name, f"a VM exit: {row.meaning}", [section], data)

"""What each technique of virtualization does with an instruction.

Sources: K. Adams and O. Agesen, A Comparison of Software and Hardware Techniques for x86 Virtualization (ASPLOS 2006);
P. Barham et al., Xen and the Art of Virtualization (SOSP 2003), and Xen's public headers. VT-x and SVM are in hardware.py.
"""

import functools

from ..isa.registers import DS, ES, FS
from ..isa.rows import INNOCUOUS, PRIVILEGED, Row
from .facts import OF_EXTENSIONS, operation_of
from .hardware import svm, vtx
from .technique import Technique

# -- trap and emulate ------------------------------------------------------------------------------------------------

TRAP_AND_EMULATE = "trap-and-emulate"
# The path of the VMM that performs an operation.
PATHS: dict[str, str] = {
    **dict.fromkeys(("CLI", "STI"), "emulate_flags"),
    "HLT": "emulate_halt",
    **dict.fromkeys(
        ("REGISTER_TO_CR", "CR_TO_REGISTER", "REGISTER_TO_DR", "DR_TO_REGISTER", "CLTS", "LMSW", "INVD", "WBINVD"),
        "emulate_control_register",
    ),
    "INVLPG": "emulate_invlpg",
    **dict.fromkeys(("LGDT", "LIDT", "LLDT", "LTR"), "emulate_descriptor_table"),
    **dict.fromkeys(("RDMSR", "WRMSR", "RDTSC", "RDPMC"), "emulate_msr"),
    **dict.fromkeys(("IN", "OUT", "port_string", "port_string_byte"), "emulate_port"),
    **dict.fromkeys(("REGISTER_TO_SREG", "POP_SREG", "LOAD_FAR_POINTER"), "emulate_segment"),
    **dict.fromkeys(
        ("JMP_FAR", "JMP_FAR_INDIRECT", "CALL_FAR", "CALL_FAR_INDIRECT", "RET_FAR", "IRET", "INT_N"),
        "emulate_far_transfer",
    ),
    **dict.fromkeys(("INT3", "INTO", "INT1", "UD2", "undefined", *OF_EXTENSIONS), "reflect"),
    **dict.fromkeys(("SYSENTER", "SYSEXIT"), "emulate_system_call"),
}
# Unprivileged operations that come to the VMM all the same, and why: (exit reason, sentence).
TRAPS: dict[str, tuple[str, str]] = {
    "RDPMC": ("general_protection", "The processor's CR4.PCE stays clear, so that it traps outside ring 0."),
    "INT_N": (
        "general_protection",
        "The VMM's gates have DPL 0, so that it raises #GP; a vector that ring 3 has used before, and may use, gets "
        "a gate "
        "of DPL 3, and the exit is software_interrupt.",
    ),
    "INT3": ("general_protection", "As INT n: #GP at first, and breakpoint once its gate is open."),
    "INTO": ("general_protection", "As INT n, when OF is set: #GP at first, and overflow once its gate is open."),
    "INT1": ("debug", "It raises #DB, which is reflected."),
    "IRET": (
        "general_protection",
        "In ring 1 a return within the kernel raises #GP, since the reflected frame has selectors of RPL 0; a return to "
        "ring 3 raises #NP, since ring 3 code segments are absent while the kernel runs (exit segment_not_present). In "
        "ring 3 it executes directly, and leaves IF and IOPL as they are without a word: a declared divergence.",
    ),
    "RET_FAR": ("general_protection", "In ring 1 as IRET; in ring 3 it executes directly."),
    "SYSENTER": ("system_call", "The processor's SYSENTER registers lead to the VMM."),
    "UD2": ("invalid_opcode", "It raises #UD, which is reflected."),
    "undefined": ("invalid_opcode", "It raises #UD, which is reflected."),
    **dict.fromkeys(
        OF_EXTENSIONS, ("invalid_opcode", "It raises #UD, which is reflected: the guest finds VMX and SVM turned off.")
    ),
}
PLACES = {"guest_kernel": "in the guest's kernel", "guest_user": "in its programs"}
# Loads of segments execute directly while the VMM's table holds what the guest's does.
LOADS_DIRECTLY = ("REGISTER_TO_SREG", "POP_SREG", "LOAD_FAR_POINTER")
JUMPS_DIRECTLY = ("JMP_FAR", "JMP_FAR_INDIRECT", "CALL_FAR", "CALL_FAR_INDIRECT")

# A divergence that is declared of each load of a segment register.
OWN_ENTRIES = (
    "The entries on which the VMM keeps a CS or SS that no table says any more it loads too, where the bare machine raises #GP: "
    "a declared divergence."
)


def divergences(row: Row) -> dict[str, list[str]]:
    """What `trap-and-emulate` declares to differ, by the guest's mode: fields of its state."""
    return declared_divergences(TRAP_AND_EMULATE).get(row.name, {})


@functools.cache
def declared_divergences(strategy: str) -> dict[str, dict[str, list[str]]]:
    """The same of all rows and of any technique, by name; loads of the VMM's own entries apart (OWN_ENTRIES)."""
    from ..vmm.registry import find_strategy

    found: dict[str, dict[str, list[str]]] = {}
    for name, mode, field in sorted(find_strategy(strategy).known_divergences):
        if field == "segment":
            continue
        found.setdefault(name, {}).setdefault(mode, []).append(field)
    return found


def trap_and_emulate(row: Row) -> Technique:
    """The built technique."""
    return Technique(TRAP_AND_EMULATE, _trap_and_emulate(row, operation_of(row)))


def _trap_and_emulate(row: Row, operation: str) -> str:
    path = f"vmm.{PATHS.get(operation, '')}"
    if operation in TRAPS:
        reason, why = TRAPS[operation]
        return f"It comes to the VMM: exit {reason}, {path}. {why}"
    if row.sensitivity == PRIVILEGED:
        return (
            f"Deprivileged it raises #GP(0): exit general_protection. The VMM performs it on the virtual processor "
            f"({path}); "
            "where the guest's own CPL or IOPL forbids it, the guest gets its #GP."
        )
    if operation in LOADS_DIRECTLY:
        return (
            "It executes directly when the VMM's table holds the guest's descriptor. A selector that it lacks, and "
            "any load of SS "
            f"with RPL 0, raises #GP: exit general_protection, {path}. {OWN_ENTRIES}"
        )
    if operation in JUMPS_DIRECTLY:
        return (
            f"It executes directly where the VMM's table lets it; else it raises #GP: exit general_protection, "
            f"{path}. {OWN_ENTRIES}"
        )
    declared = divergences(row)
    if declared:
        where = "; ".join(f"{PLACES[mode]}: {', '.join(fields)}" for mode, fields in declared.items())
        return (
            f"It does not trap, and its effect is not that of the bare machine: a declared divergence ({where}). "
            "Each run lists those that it met."
        )
    if row.silent:
        return "It does not trap. What it shows is what the guest itself has put there: nothing differs."
    return "It executes directly, in either ring."


def native(row: Row) -> Technique:
    """No VMM."""
    return Technique("native", "The guest is the machine's only software: the processor executes it as above.")


# -- binary translation ----------------------------------------------------------------------------------------------

BINARY_TRANSLATION = "binary-translation"
# What becomes of an instruction of the guest's kernel in the translation cache.
IDENTICAL, TRANSFER, INLINE_EMULATION, CALLOUT, POINTER = "identical", "transfer", "inline", "callout", "pointer"
DIRECT = "direct callout"
IN_KERNEL = {
    IDENTICAL: "In kernel code it is copied to the translation cache as it is.",
    TRANSFER: "In kernel code it becomes a jump within the translation cache: a constant target is reached by a callout the "
    "first time, and by a chained jump from then on; another one by the look-up in the hash table.",
    INLINE_EMULATION: "In kernel code a few injected instructions work on the virtual processor in its place, without the VMM "
    "(a callout with inline_emulation=off, or where its operands are unusual).",
    POINTER: "In kernel code it is copied as it is behind a callout (exit x87_pointer), since its image holds the address of an "
    "instruction, which must be the guest's.",
    DIRECT: "In kernel code a direct callout stands for it: exit port_access, to a routine of the VMM's that gets what was "
    "decoded (vmm.direct_port; a general callout, sensitive_instruction, with direct_callouts=off).",
    CALLOUT: "In kernel code a callout stands for it: exit sensitive_instruction, and the VMM performs it on the virtual "
    "processor",
}


def translation_of(row: Row) -> str:
    """What becomes of a row's usual form in the translation cache, by the translator's own tables."""
    from ..vmm.translation.sequences import IDENTICAL_SYSTEM, INLINE, NEAR_TRANSFERS, X87_IMAGES

    operation = operation_of(row)
    if row.operation in NEAR_TRANSFERS:
        return TRANSFER
    if row.mnemonic in X87_IMAGES:
        return POINTER
    if operation == "PUSH_SREG" and row.condition in (DS, ES, FS):
        return IDENTICAL  # these registers hold the guest's selectors; as do those that MOV reads of them
    if operation in INLINE:
        return INLINE_EMULATION
    if operation in ("IN", "OUT"):
        return DIRECT
    if row.operation.startswith("port_string"):
        return CALLOUT
    return CALLOUT if row.operation.startswith("system:") and operation not in IDENTICAL_SYSTEM else IDENTICAL


def binary_translation(row: Row) -> Technique:
    """The built technique, after Adams and Agesen 2006."""
    kind = translation_of(row)
    text = IN_KERNEL[kind]
    if kind == CALLOUT:
        path = PATHS.get(operation_of(row))
        text += f" (vmm.{path})." if path else "."
    return Technique(BINARY_TRANSLATION, f"{text} {in_ring_3(row)}")


def in_ring_3(row: Row) -> str:
    """What becomes of it in a program, which runs as it is."""
    if row.sensitivity == PRIVILEGED:
        return "In ring 3 it traps."
    declared = declared_divergences(BINARY_TRANSLATION).get(row.name, {}).get("guest_user")
    if declared:
        return f"In ring 3 it runs directly and shows the VMM's state: a declared divergence ({', '.join(declared)})."
    return "In ring 3 it runs directly."


# -- paravirtual ---------------------------------------------------------------------------------------------------------


HYPERCALLS: dict[str, str] = {
    "CLI": "a store to the event mask of the shared page", "STI": "a store to the event mask of the shared page, "
    "and a look for waiting events",
    "HLT": "the hypercall sched_op (block)", "IRET": "the instruction itself where no event can be lost, else the hypercall "
    "iret", "LGDT": "the hypercall set_gdt",
    "LIDT": "the hypercall set_trap_table", "LLDT": "the hypercall mmuext_op (set LDT)",
    "LTR": "the hypercall stack_switch, for the stack of the kernel", "CLTS": "the hypercall fpu_taskswitch",
    "LMSW": "the hypercall fpu_taskswitch", "INVLPG": "the hypercall mmuext_op (invalidate), often within a "
    "multicall",
    "REGISTER_TO_CR": "hypercalls: mmuext_op (new page-table root) for CR3, fpu_taskswitch for CR0.TS",
    "CR_TO_REGISTER": "a read of what the kernel or the shared page keeps", "REGISTER_TO_DR": "the hypercall "
    "set_debugreg",
    "DR_TO_REGISTER": "the hypercall get_debugreg", "WBINVD": "the hypercall mmuext_op (flush cache)",
    "INVD": "nothing: a guest has no use for it", "RDMSR": "nothing: what is left of them traps and is emulated",
    "WRMSR": "nothing: what is left of them traps and is emulated",
    "SYSEXIT": "nothing: its system calls come by int $0x80", "SYSENTER": "nothing: CPUID does not tell of it",
    "PUSHF": "a read of the event mask of the shared page", "POPF": "a store to the event mask of the shared page",
}  # fmt: skip


def paravirtual(row: Row) -> Technique:
    """Xen 2003."""
    operation = operation_of(row)
    if operation in HYPERCALLS:
        text = f"The ported kernel has instead: {HYPERCALLS[operation]}."
    elif row.intercept == "IO_INSTRUCTION":
        text = (
            "The ported kernel drives no device by ports: it puts requests into a ring that it shares with a driver "
            "domain. A port that is the guest's by grant traps, and the hypervisor performs the access."
        )
    elif operation == "INT_N":
        text = (
            "System calls of programs go to the guest's kernel directly, by a gate that the hypervisor has checked."
        )
    elif row.sensitivity == INNOCUOUS:
        text = "It is left as it is and runs directly."
    elif row.silent:
        text = "It runs directly and shows the real machine; the kernel is ported so that it does not rely on that."
    else:
        text = "It runs directly, on tables and gates that the hypervisor has checked."
    return Technique("paravirtual", text)


def techniques(row: Row) -> list[Technique]:
    """All of them."""
    return [native(row), trap_and_emulate(row), binary_translation(row), vtx(row), svm(row), paravirtual(row)]

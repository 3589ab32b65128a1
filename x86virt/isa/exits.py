"""VM exits as the ledger tells them apart: VMX's by basic exit reason (isa/vmx.py), and those that only SVM knows.

Exit codes of SVM (AMD publication 24593, appendix C) that mean the same as a reason of VMX are counted under its name.
"""

import numpy as np

from .vmx import EXIT_REASONS, N_EXIT_REASONS, ExitReason

_INSTRUCTION = "an exit by an instruction that the processor only recognises, like CPUID"
_UNCONDITIONAL = "an exit by an instruction of the extension itself, like VMMCALL"

# They have no number in VMX.
SVM_EXITS: tuple[ExitReason, ...] = (
    ExitReason(-1, "rsm", "RSM", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(-1, "pushf", "PUSHF", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(-1, "popf", "POPF", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(-1, "iret", "IRET", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(-1, "int_n", "INT n", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(-1, "icebp", "INT1", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(-1, "invlpga", "INVLPGA", "virt.exit_cpuid", _INSTRUCTION),
    ExitReason(-1, "ferr_freeze", "a frozen floating-point error", "virt.exit_pf", "it stands for an event's delivery"),
    ExitReason(-1, "vmrun", "VMRUN", "virt.exit_vmcall", _UNCONDITIONAL),
    ExitReason(-1, "vmload", "VMLOAD", "virt.exit_vmcall", _UNCONDITIONAL),
    ExitReason(-1, "vmsave", "VMSAVE", "virt.exit_vmcall", _UNCONDITIONAL),
    ExitReason(-1, "stgi", "STGI", "virt.exit_vmcall", _UNCONDITIONAL),
    ExitReason(-1, "clgi", "CLGI", "virt.exit_vmcall", _UNCONDITIONAL),
    ExitReason(-1, "skinit", "SKINIT", "virt.exit_vmcall", _UNCONDITIONAL),
)
EXITS = (*EXIT_REASONS, *SVM_EXITS)

# By VMX's basic exit reason: the place among `EXITS`, which is the event's number less that of the first; -1: none.
EXIT_OF_REASON = np.full(N_EXIT_REASONS, -1, np.int64)
for _place, _exit in enumerate(EXIT_REASONS):
    EXIT_OF_REASON[_exit.number] = _place

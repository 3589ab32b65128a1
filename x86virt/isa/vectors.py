"""Exceptions and the kinds of events (SDM volume 3, table 6-1 and section 6.15)."""

from typing import NamedTuple


class Exception_(NamedTuple):
    """One exception: its mnemonic, vector, class (fault, trap, abort), double-fault class, and error code."""

    mnemonic: str
    vector: int
    kind: str
    contributes: str
    has_error_code: bool
    meaning: str


EXCEPTIONS = (
    Exception_("#DE", 0, "fault", "contributory", False, "divide error"),
    Exception_("#DB", 1, "fault", "benign", False, "debug"),
    Exception_("NMI", 2, "interrupt", "benign", False, "non-maskable interrupt"),
    Exception_("#BP", 3, "trap", "benign", False, "breakpoint"),
    Exception_("#OF", 4, "trap", "benign", False, "overflow"),
    Exception_("#BR", 5, "fault", "benign", False, "bound range exceeded"),
    Exception_("#UD", 6, "fault", "benign", False, "invalid opcode"),
    Exception_("#NM", 7, "fault", "benign", False, "device not available"),
    Exception_("#DF", 8, "abort", "double_fault", True, "double fault"),
    Exception_("#TS", 10, "fault", "contributory", True, "invalid TSS"),
    Exception_("#NP", 11, "fault", "contributory", True, "segment not present"),
    Exception_("#SS", 12, "fault", "contributory", True, "stack-segment fault"),
    Exception_("#GP", 13, "fault", "contributory", True, "general protection"),
    Exception_("#PF", 14, "fault", "page_fault", True, "page fault"),
    Exception_("#MF", 16, "fault", "benign", False, "x87 floating-point error"),
    Exception_("#AC", 17, "fault", "benign", True, "alignment check"),
    Exception_("#MC", 18, "abort", "benign", False, "machine check"),
)
MNEMONIC = {row.vector: row.mnemonic for row in EXCEPTIONS}

DE, DB, NMI, BP, OF, BR, UD, NM, DF = 0, 1, 2, 3, 4, 5, 6, 7, 8
TS, NP, SS_FAULT, GP, PF, MF, AC, MC = 10, 11, 12, 13, 14, 16, 17, 18

# Kinds of events, with the numbers of the VMCS interruption-information field (volume 3, table 24-15).
KIND_EXTERNAL, KIND_NMI, KIND_EXCEPTION = 0, 2, 3
KIND_SOFTWARE_INTERRUPT, KIND_PRIVILEGED_EXCEPTION, KIND_SOFTWARE_EXCEPTION = 4, 5, 6  # INT n; INT1; INT3 and INTO

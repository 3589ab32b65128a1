"""What an exit tells a strategy: the same fields for every technique, in VMCS terms."""

from dataclasses import dataclass

# Reasons of the software techniques: the vector that brought control to the VMM decides.
REASON_OF_VECTOR = {
    0: "divide_error", 1: "debug", 3: "breakpoint", 4: "overflow", 5: "bound", 6: "invalid_opcode",
    7: "device_not_available", 8: "double_fault", 10: "invalid_tss", 11: "segment_not_present", 12: "stack_fault",
    13: "general_protection", 14: "page_fault", 16: "x87_error", 17: "alignment_check", 18: "machine_check",
}  # fmt: skip
FAULT_VECTORS = frozenset({0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17})  # the processor pushes RF as 1
ERROR_CODE_VECTORS = frozenset({8, 10, 11, 12, 13, 14, 17})


@dataclass
class Exit:
    """One arrival of control at the VMM.

    `reason` names the hook: `on_general_protection` and so on. `qualification` is the error code of an exception (the
    VMCS field of the same meaning), `gla` the linear address of a page fault, `length` the instruction's bytes where
    the emulator knows them, `vector` the vector, -1 for SYSENTER.

    With a virtualization extension the reason is one of isa/exits.py and `qualification` the VMCS's, of a page fault 0;
    `error` is an exception's error code, `kind` its type (KIND_ of isa.vectors), `length` 0 where the processor does not
    tell; `vectoring` the event that was being delivered as the guest exited: its vector, kind and error code.
    """

    reason: str
    vector: int
    qualification: int = 0
    gla: int = 0
    gpa: int = 0
    length: int = 0
    rip: int = 0
    cpl: int = 0
    error: int = 0
    kind: int = 0
    information: int = 0
    vectoring: tuple[int, int, int | None] | None = None


class VmmError(Exception):
    """The VMM cannot go on: one line that says what, where, and what to try."""


class Unsupported(VmmError):
    """The guest uses something that this VMM does not virtualize yet; the outcome names it."""


class NotDirect(Exception):
    """The hardware cannot hold what the guest's instruction asks for: the interpreter takes the guest over before it.

    Whoever raises it has changed nothing yet.
    """


class IsolationViolation(Exception):
    """An access that originates in a guest operand would reach a frame that is not the guest's."""


class GuestFault(Exception):
    """An exception that an emulated access or instruction raises in the guest."""

    def __init__(self, vector: int, error: int | None = None, cr2: int | None = None) -> None:
        super().__init__(vector, error, cr2)
        self.vector, self.error, self.cr2 = vector, error, cr2

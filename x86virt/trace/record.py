"""What one line of a trace says."""

from dataclasses import dataclass, field
from typing import Any

from ..error_codes import describe_error, exception_text
from ..inspection import Translated
from ..isa.vectors import EXCEPTIONS, KIND_EXTERNAL, KIND_SOFTWARE_INTERRUPT, NMI
from ..ledger import as_cycles
from ..symbols import Symbols

# The events that are the delivery of an interrupt or exception, and the vector where the event says it.
_VECTOR_OF = {f"sys.exc_{row.mnemonic[1:].lower()}": row.vector for row in EXCEPTIONS if row.vector != NMI}
DELIVERIES: dict[str, int | None] = {
    **_VECTOR_OF,
    "sys.exc_same_cpl": None,
    "sys.int_n_cpl3_to_cpl0": None,
    "sys.int_n_same_cpl": None,
    "sys.ext_interrupt_delivery": None,
}
SOFTWARE_DELIVERIES = ("sys.int_n_cpl3_to_cpl0", "sys.int_n_same_cpl")
# What else changes the ring, or the task.
TRANSFERS = {
    "sys.iret_cpl0_to_cpl3": "IRET",
    "sys.sysenter": "SYSENTER",
    "sys.sysexit": "SYSEXIT",
    "sys.far_call_gate_up": "far CALL through a gate",
    "sys.far_ret_outer": "far RET",
    "sys.task_switch": "task switch",
}


@dataclass(frozen=True)
class Charge:
    """A cell of the ledger that changed: so many events in that mode, taking so many ticks."""

    event: str
    mode: str
    count: int
    ticks: int

    def as_json(self) -> dict[str, Any]:
        """As the JSON lines have it."""
        return {"event": self.event, "mode": self.mode, "count": self.count, "cycles": as_cycles(self.ticks)}


@dataclass(frozen=True)
class Delivery:
    """An interrupt or exception that reached its handler; `error` is its error code, `address` a page fault's."""

    vector: int
    kind: str  # exception, interrupt, software_interrupt
    error: int | None = None
    address: int | None = None

    @classmethod
    def of(cls, vector: int, kind: int, error: int | None, address: int) -> "Delivery":
        """From the numbers of the VMCS interruption-information field."""
        name = {KIND_EXTERNAL: "interrupt", KIND_SOFTWARE_INTERRUPT: "software_interrupt"}.get(kind, "exception")
        exception = name == "exception"
        return cls(vector, name, error if exception else None, address if exception and vector == 14 else None)

    @property
    def text(self) -> str:
        """In words: `#PF(0x6) at 0x1000 (a write ...)`, `interrupt 0x20`."""
        if self.kind != "exception":
            return f"{self.kind.replace('_', ' ')} {self.vector:#x}"
        words = describe_error(self.vector, self.error) if self.error is not None else ""
        place = "" if self.address is None else f" at {self.address:#x}"
        return exception_text(self.vector, self.error) + place + (f" ({words})" if words else "")

    def as_json(self) -> dict[str, Any]:
        """As the JSON lines have it."""
        row: dict[str, Any] = {"kind": self.kind, "vector": self.vector}
        if self.kind == "exception":
            row["name"] = exception_text(self.vector, None)
        if self.error is not None:
            row |= {"error": self.error, "error_text": describe_error(self.vector, self.error)}
        if self.address is not None:
            row["fault_address"] = self.address
        return row


@dataclass(frozen=True)
class Transition:
    """Control went elsewhere than the program says, or to another ring, processor mode or task."""

    what: str  # a Delivery's text, IRET, ...
    ring_before: int
    ring_after: int
    mode_before: str  # of the processor: real, protected, virtual-8086
    mode_after: str
    address: int  # linear, of the instruction that comes next
    delivery: Delivery | None = None

    def as_json(self, symbols: Symbols) -> dict[str, Any]:
        """As the JSON lines have it."""
        row: dict[str, Any] = {
            "what": self.what,
            "ring_before": self.ring_before,
            "ring_after": self.ring_after,
            "address_after": self.address,
        }
        if self.mode_before != self.mode_after:
            row |= {"processor_mode_before": self.mode_before, "processor_mode_after": self.mode_after}
        if symbols.text(self.address):
            row["symbol_after"] = symbols.text(self.address)
        if self.delivery is not None:
            row["delivery"] = self.delivery.as_json()
        return row


@dataclass(frozen=True)
class ExitWork:
    """A VM exit and what the VMM did before it resumed: rings and addresses are the guest's, as it sees them."""

    reason: str
    vector: int
    error: int | None
    gla: int | None
    ring_before: int
    ring_after: int
    address_after: int
    emulated: str  # disassembly of the instruction that the VMM performed, empty if it performed none
    delivered: Delivery | None  # to the guest through its own IDT
    halted: bool

    def as_json(self, symbols: Symbols) -> dict[str, Any]:
        """As the JSON lines have it."""
        row: dict[str, Any] = {
            "reason": self.reason,
            "vector": None if self.vector < 0 else self.vector,
            "error": self.error,
            "fault_address": self.gla,
            "guest_ring_before": self.ring_before,
            "guest_ring_after": self.ring_after,
            "guest_address_after": self.address_after,
            "emulated": self.emulated or None,
            "delivered": None if self.delivered is None else self.delivered.as_json(),
            "halted": self.halted,
        }
        if symbols.text(self.address_after):
            row["guest_symbol_after"] = symbols.text(self.address_after)
        return row


@dataclass
class Record:
    """One line of a trace.

    `kind` is `before` (what was charged before the first record), `instruction`, `interrupt` (or a debug trap, between two
    instructions), `idle`, `exit`, `passed` (a stretch that a filter would hide) or `end`. `n` guest instructions had
    retired and `tick` ticks passed when it began.
    """

    kind: str
    n: int
    tick: int
    ring: int
    mode: str  # of the ledger: guest_user, guest_kernel, vmm, idle
    processor_mode: str
    selector: int
    offset: int
    address: int  # linear
    octets: bytes = b""
    text: str = ""
    charges: tuple[Charge, ...] = ()
    transitions: list[Transition] = field(default_factory=list)
    exit: ExitWork | None = None
    divergences: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    outcome: str = ""
    translated: Translated | None = None  # of an instruction in a translation cache: what it stands for
    interpreted: bool = False  # the VMM's interpreter performs it: the guest's ring and address, the VMM's time

    @property
    def ticks(self) -> int:
        """What it took."""
        return sum(charge.ticks for charge in self.charges)

    @property
    def is_vmms(self) -> bool:
        """Whether its address is one of the VMM's own, or of its translation cache."""
        return (self.mode == "vmm" and not self.interpreted) or self.translated is not None

    @property
    def place(self) -> int:
        """The linear address in the guest's code, or that of the VMM's where that is none of the guest's."""
        if self.translated is None or self.translated.guest is None:
            return self.address
        return self.translated.guest.gla

    def as_json(self, symbols: Symbols) -> dict[str, Any]:
        """One JSON line; what is empty is left out."""
        row: dict[str, Any] = {"kind": self.kind, "n": self.n, "cycle": as_cycles(self.tick)}
        if self.kind not in ("before", "end"):
            row |= {"ring": self.ring, "mode": self.mode, "processor_mode": self.processor_mode}
            row |= {"interpreted": True} if self.interpreted else {}
            row |= {"cs": self.selector, "eip": self.offset, "address": self.address}
            symbol = symbols.text(self.place)
            row |= {"symbol": symbol} if symbol else {}
        row |= {"bytes": self.octets.hex()} if self.octets else {}
        row |= {"text": self.text} if self.text else {}
        row |= {"translated": self.translated.as_json()} if self.translated else {}
        row |= {"cycles": as_cycles(self.ticks), "events": [charge.as_json() for charge in self.charges]}
        if self.transitions:
            row["transitions"] = [transition.as_json(symbols) for transition in self.transitions]
        row |= {"exit": self.exit.as_json(symbols)} if self.exit else {}
        row |= {"divergences": self.divergences} if self.divergences else {}
        row |= {"remarks": self.remarks} if self.remarks else {}
        row |= {"outcome": self.outcome} if self.kind == "end" else {}
        return row

"""What an exception is: class, error code, when it comes, and what it costs."""

from typing import TYPE_CHECKING, Any

from ..isa.table import ROWS
from ..isa.vectors import AC, DF, EXCEPTIONS, NMI, PF, Exception_
from ..vmm.exits import REASON_OF_VECTOR
from .exits import REASONS
from .instruction import faults
from .page import Explanation, Section
from .price import price_json, price_text

if TYPE_CHECKING:
    from ..profile import Profile

BY_NAME = {row.mnemonic.removeprefix("#").lower(): row for row in EXCEPTIONS}
BY_VECTOR = {row.vector: row for row in EXCEPTIONS}
CLASSES = {
    "fault": "fault: EIP is at the instruction, which changed nothing and runs again after the handler's IRET",
    "trap": "trap: EIP is behind the instruction, which is done",
    "abort": "abort: the program cannot be gone on with",
    "interrupt": "interrupt: between two instructions",
}
DOUBLE = {
    "benign": "no: a second exception in its delivery is delivered by itself",
    "contributory": "contributory: with a contributory one before it makes a double fault, and so it does within a "
    "page fault's delivery",
    "page_fault": "page fault: a page fault or a contributory exception in its delivery makes a double fault",
    "double_fault": "any contributory exception or page fault in its delivery is a triple fault: the processor "
    "shuts down",
}
WHEN: dict[str, str] = {
    "#DE": "DIV or IDIV by 0, or with a quotient that does not fit; AAM with 0.",
    "#DB": "A breakpoint register matches, TF is set (single step, as a trap), DR7.GD guards the debug registers, "
    "or INT1. DR6 says which.",
    "NMI": "The hardware's non-maskable interrupt; nothing on this board raises it.",
    "#BP": "INT3.",
    "#OF": "INTO with OF set.",
    "#BR": "BOUND with an index outside its bounds.",
    "#UD": "Bytes that are no instruction, a LOCK prefix where none may be, an instruction that the processor or "
    "its mode lacks.",
    "#NM": "An x87 instruction while CR0.TS or CR0.EM is set: how kernels save x87 registers only when they are "
    "used.",
    "#DF": "A second exception in the delivery of another, where the two may not be served one after the other.",
    "#TS": "A task switch, or a change of ring, by a task-state segment that does not hold what it must.",
    "#NP": "A segment register, gate or table is loaded whose present bit is clear (SS apart).",
    "#SS": "An access beyond the limit of the stack segment, or a load of SS with a segment that is not present.",
    "#GP": "Whatever protection forbids and nothing else names: privileged instructions, limits, wrong selectors, "
    "writes to read-only segments.",
    "#PF": "A linear address that the page tables do not map, or not for this access. CR2 holds the address.",
    "#MF": "A WAIT or x87 instruction, while an unmasked x87 exception is pending and CR0.NE is set.",
    "#AC": "An access in ring 3 that is not aligned, with CR0.AM and EFLAGS.AC set.",
    "#MC": "The hardware found an error of its own; this machine's has none.",
}  # fmt: skip
SELECTOR_FORMAT = (
    "a selector: bits 15:3 the index of a descriptor, bit 2 (TI) in the LDT, bit 1 (IDT) of a gate in the IDT, bit "
    "0 (EXT) in the "
    "delivery of an event from outside; 0 where no selector is to blame"
)
PAGE_FAULT_FORMAT = (
    "bits: 0 (P) the page is present and does not allow it, 1 (W) a write, 2 (U) in ring 3, 3 (RSVD) a reserved bit "
    "in a table, "
    "4 (I) an instruction fetch"
)
FORMATS = {DF: "always 0", AC: "always 0", PF: PAGE_FAULT_FORMAT}
NOT_BY_INSTRUCTION = ("#PF", "#AC(0)", "#NM", "#MF", "#UD")  # so many that a list says nothing


def explain_exception(row: Exception_, profile: "Profile") -> Explanation:
    """The explanation of one exception."""
    section = Section("")
    section.add("vector", str(row.vector))
    section.add("class", CLASSES[row.kind])
    section.add("when", WHEN[row.mnemonic])
    section.add("error code", FORMATS.get(row.vector, SELECTOR_FORMAT) if row.has_error_code else "none")
    section.add("double fault", DOUBLE[row.contributes])
    names = raised_by(row)
    section.add("raised by", ", ".join(names))
    reason = REASON_OF_VECTOR.get(row.vector, "")
    work = f"exit {reason}. {REASONS[reason].work}" if reason else ""
    section.add("trap-and-emulate", work)
    section.add("manual", "Intel SDM volume 3, section 6.15")
    events = events_of(row)
    prices = Section(f"price on {profile.name}")
    for event in events:
        prices.add(event, price_text(event, profile))
    data: dict[str, Any] = {
        "vector": row.vector,
        "class": row.kind,
        "double_fault_class": row.contributes,
        "has_error_code": row.has_error_code,
        "error_code": FORMATS.get(row.vector, SELECTOR_FORMAT) if row.has_error_code else None,
        "when": WHEN[row.mnemonic],
        "raised_by": names,
        "exit_reason": reason or None,
        "profile": profile.name,
        "prices": [price_json(event, profile) for event in events],
    }
    return Explanation("exception", row.mnemonic, row.meaning, [section, prices], data)


def events_of(row: Exception_) -> list[str]:
    """What its delivery is charged: to an inner ring, and within the ring."""
    if row.vector == NMI:
        return ["sys.ext_interrupt_delivery"]
    if row.mnemonic == "#MC":
        return []
    return [f"sys.exc_{row.mnemonic[1:].lower()}", "sys.exc_same_cpl"]


def raised_by(row: Exception_) -> list[str]:
    """The instructions whose operation or privilege can raise it, where that says something."""
    if row.mnemonic in NOT_BY_INSTRUCTION:
        return []
    found = []
    for one in ROWS:
        own = [
            fault
            for fault, when in faults([one])
            if fault.split("(")[0].split(",")[0] == row.mnemonic and "memory operand" not in when
        ]
        if own:
            found.append(one.mnemonic)
    return list(dict.fromkeys(found))

"""Exits by reason: how often, and where their time went. The sum of frequency times latency over all reasons is what exits
cost.

A row of these tables is a view of the ledger and not a part of its sum. Under a virtualization extension an exit has four
parts: what the processor takes to leave the guest, the VMM's handler, its accesses to the control structure (VMREAD, VMWRITE,
references to the VMCB), and the way back into the guest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .isa.events import EVENT_ID

if TYPE_CHECKING:
    from .ledger import Ledger


PARTS = ("exit", "handler", "control", "entry")


class ExitCount(NamedTuple):
    """Exits of one reason: the VMM's ticks from its arrival until it leaves, and those of them that its control structure and
    the entry took; both are 0 where there is no extension."""

    number: int
    ticks: int
    control: int = 0
    entry: int = 0

    def plus(self, other: "ExitCount") -> "ExitCount":
        """Both together."""
        return ExitCount(*(mine + its for mine, its in zip(self, other, strict=True)))


@dataclass(frozen=True)
class ExitParts:
    """Exits of one reason: ticks of the parts. Without an extension all of it is the handler's."""

    count: int
    exit: int
    handler: int
    control: int
    entry: int

    @property
    def ticks(self) -> int:
        """The whole."""
        return self.exit + self.handler + self.control + self.entry

    def by_part(self) -> dict[str, int]:
        """Ticks by the name of the part; empty without an extension, where there is but one."""
        if not (self.exit or self.control or self.entry):
            return {}
        return {part: int(getattr(self, part)) for part in PARTS}


def parts_of(exits: Mapping[str, ExitCount], ledger: "Ledger") -> dict[str, ExitParts]:
    """The parts by reason, the most expensive first. What the exits themselves took is in the ledger of the same time."""
    found = {reason: _parts(reason, row, ledger) for reason, row in exits.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1].ticks))


def _parts(reason: str, row: ExitCount, ledger: "Ledger") -> ExitParts:
    event = f"exit.{reason}"
    own = ledger.event_ticks(event) if event in EVENT_ID else 0
    return ExitParts(row.number, own, row.ticks - row.control - row.entry, row.control, row.entry)


def subtract(after: Mapping[str, ExitCount], before: Mapping[str, ExitCount]) -> dict[str, ExitCount]:
    """Exits between two looks."""
    none = ExitCount(0, 0)
    rows = {
        reason: ExitCount(*(now - then for now, then in zip(row, before.get(reason, none), strict=True)))
        for reason, row in after.items()
    }
    return {reason: row for reason, row in rows.items() if row.number}

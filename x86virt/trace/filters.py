"""Which records of a trace are shown: by address, ring and event. What is given twice is either; kinds go together."""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import UserError, near_matches, show
from ..isa.events import EVENT_ID
from ..symbols import Symbols
from .record import Record

RINGS: dict[str, int | str] = {
    "0": 0, "1": 1, "2": 2, "3": 3, "kernel": "guest_kernel", "user": "guest_user", "vmm": "vmm", "idle": "idle",
    "domain-0": "domain_0",
}  # fmt: skip
LAST_ADDRESS = 0xFFFFFFFF
ALWAYS_SHOWN = ("before", "end")
NEVER_SHOWN = "passed"


@dataclass(frozen=True)
class Filter:
    """What is to be shown; an empty part asks for nothing. `transitions`: only what changes the ring or enters the VMM."""

    addresses: tuple[range, ...] = ()
    rings: tuple[int | str, ...] = ()
    events: frozenset[str] = frozenset()
    transitions: bool = False

    def __bool__(self) -> bool:
        return bool(self.addresses or self.rings or self.events or self.transitions)

    def shows(self, record: Record) -> bool:
        """Whether a record is shown."""
        if record.kind in ALWAYS_SHOWN:
            return True
        if record.kind == NEVER_SHOWN:
            return False
        if self.addresses and not any(record.address in addresses or record.place in addresses for addresses in self.addresses):
            return False
        if self.rings and record.ring not in self.rings and record.mode not in self.rings:
            return False
        if self.events and not any(charge.event in self.events for charge in record.charges):
            return False
        return not self.transitions or bool(record.transitions or record.exit)


def ring_filter(names: Iterable[str]) -> tuple[int | str, ...]:
    """Rings and modes of the ledger. Raises UserError."""
    for name in names:
        if name not in RINGS:
            raise UserError(
                f"--ring {show(name)}", "no such ring", f"use one of {', '.join(RINGS)}{near_matches(name, RINGS)}"
            )
    return tuple(RINGS[name] for name in names)


def event_filter(names: Iterable[str]) -> frozenset[str]:
    """Events of the ledger by name or pattern (`vmm.*`). Raises UserError."""
    chosen: set[str] = set()
    for name in names:
        found = fnmatch.filter(EVENT_ID, name)
        if not found:
            what = "no event matches" if set(name) & set("*?[") else "no such event"
            advice = f"`x86virt list events` names them{near_matches(name, EVENT_ID)}"
            raise UserError(f"--event {show(name)}", what, advice)
        chosen.update(found)
    return frozenset(chosen)


def address_filter(texts: Sequence[str], symbols: Symbols) -> tuple[range, ...]:
    """Ranges of linear addresses: a symbol (the whole function), an address, or FIRST-LAST. Raises UserError."""
    return tuple(address_range(text, symbols) for text in texts)


def address_range(text: str, symbols: Symbols) -> range:
    """One range."""
    if text in symbols.addresses:
        return symbols.extent(text)
    first, dash, last = text.partition("-")
    begin = one_address(text, first, symbols)
    end = one_address(text, last, symbols) if dash else begin
    if end < begin:
        raise UserError(f"--address {show(text)}", "it ends before it begins", "give FIRST-LAST")
    return range(begin, end + 1)


def one_address(whole: str, text: str, symbols: Symbols) -> int:
    """A hexadecimal number, with 0x or without, or a symbol's address."""
    text = text.strip()
    if text in symbols.addresses:
        return symbols.addresses[text]
    if re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,8}", text):
        return int(text, 16)
    advice = "give a hexadecimal address, FIRST-LAST, or a symbol"
    if not symbols:
        advice += " (this guest has none)"
    raise UserError(
        f"--address {show(whole)}", f"no symbol {show(text)}", advice + near_matches(text, symbols.addresses)
    )

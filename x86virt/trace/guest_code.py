"""A trace of translated code as the guest's instructions: what the cache executes for one of them becomes one record."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..isa.events import EVENT_ID
from .record import Charge, Record


def as_guest_code(records: Iterable[Record]) -> Iterator[Record]:
    """The same records, those of translated code joined: a new one begins where the guest's instruction may be entered.

    What follows it, up to the next one or to the VMM, belongs to it: its injected code, the jump to the next unit, the
    look-up of an indirect transfer. No charge is lost.
    """
    joined: Record | None = None
    for record in records:
        if record.translated is not None and joined is not None and not record.translated.begins:
            joined = join(joined, record)
            continue
        if joined is not None:
            yield joined
        joined = in_guest_code(record) if record.translated is not None else None
        if joined is None:
            yield record
    if joined is not None:
        yield joined


def in_guest_code(record: Record) -> Record:
    """A record of translated code that stands at the guest's instruction."""
    assert record.translated is not None
    guest = record.translated.guest
    if guest is None:
        return record
    return replace(record, offset=guest.eip, address=guest.gla, octets=guest.octets, text=guest.text)


def join(first: Record, second: Record) -> Record:
    """What two records were charged, and what came of them, in the place of the first."""
    return replace(
        first,
        charges=merged(first.charges, second.charges),
        transitions=first.transitions + second.transitions,
        divergences=first.divergences + second.divergences,
        remarks=first.remarks + second.remarks,
    )


def merged(first: tuple[Charge, ...], second: tuple[Charge, ...]) -> tuple[Charge, ...]:
    """Charges of the same cell become one, in the order of the events."""
    cells: dict[tuple[str, str], tuple[int, int]] = {}
    for charge in (*first, *second):
        count, ticks = cells.get((charge.event, charge.mode), (0, 0))
        cells[charge.event, charge.mode] = count + charge.count, ticks + charge.ticks
    ordered = sorted(cells.items(), key=lambda cell: EVENT_ID[cell[0][0]])
    return tuple(Charge(event, mode, count, ticks) for (event, mode), (count, ticks) in ordered)

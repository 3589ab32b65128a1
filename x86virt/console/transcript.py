"""What a screen showed, as one growing text, in which a wait can look for what is new.

A serial port's text only grows; a screen changes. At each look the rows that differ from the look before are added: of a
row that was written on, what begins at the first character that changed; rows that only moved up add nothing. What
continues the row that was added last continues the text, so that a word that appears letter by letter is a word.
"""

from collections.abc import Sequence
from typing import Any

LONGEST = 1 << 20
MOST_ROWS = MOST_COLUMNS = 256


class Transcript:
    """The text so far, in UTF-8; `start` says how many bytes were forgotten before it."""

    def __init__(self) -> None:
        self.octets = bytearray()
        self.start = 0
        self.rows: tuple[str, ...] = ()
        self.last_row = -1  # the row whose text ends the transcript

    def look(self, rows: Sequence[str]) -> None:
        """Add what is new on the screen."""
        rows = tuple(row.rstrip() for row in rows)
        if rows == self.rows:
            return
        distance = scrolled(self.rows, rows)
        before = self.rows[distance:]
        self.last_row -= distance
        for number, row in enumerate(rows):
            old = before[number] if number < len(before) else ""
            if row != old:
                self._add(number, old, row)
        self.rows = rows
        excess = len(self.octets) - LONGEST
        if excess > 0:
            del self.octets[:excess]
            self.start += excess

    def _add(self, number: int, old: str, row: str) -> None:
        """Add what a row shows now and did not before."""
        start = common_start(old, row)
        if number != self.last_row or start != len(old):
            self.octets += b"\n"
        self.octets += row[start:].encode()
        self.last_row = number

    def state(self) -> list[Any]:
        """As JSON has it; the text itself is saved beside it."""
        return [self.start, list(self.rows), self.last_row]

    def restore(self, octets: bytes, state: Any) -> None:
        """Go on where `state` was taken. Raises ValueError."""
        start, rows, last_row = state
        good = type(start) is int and 0 <= start < 1 << 62 and isinstance(rows, list) and len(rows) <= MOST_ROWS
        good = good and type(last_row) is int and abs(last_row) < 1 << 62
        if not good or not all(isinstance(row, str) and len(row) <= MOST_COLUMNS for row in rows):
            raise ValueError("what the screen showed is out of range")
        self.octets, self.start, self.rows, self.last_row = bytearray(octets), start, tuple(rows), last_row


def scrolled(before: Sequence[str], after: Sequence[str]) -> int:
    """By how many rows the screen moved up between two looks: the least number that explains most of it.

    Of rows that are not blank, at least half must stand where the move would have put them.
    """
    shown = [number for number, row in enumerate(before) if row]
    for distance in range(len(before)):
        kept = [number for number in shown if number >= distance]
        same = sum(after[number - distance] == before[number] for number in kept)
        if kept and 2 * same >= len(kept):
            return distance
    return 0


def common_start(one: str, other: str) -> int:
    """How many characters two rows have in common from the left."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count

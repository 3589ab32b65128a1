"""The ledger: how often each event happened in each mode, and how many ticks it took.

The machine owns two int64 arrays of shape (N_EVENTS, N_MODES), `count` and `ticks`; a `Ledger` reads them. 1 cycle is
64 ticks. Differences of snapshots are ledgers too: a measured region is `machine.ledger.snapshot() - before`.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from x86virt.isa.events import EVENT_ID, EVENTS, MODE_NAMES, N_EVENTS, N_MODES, TICKS_PER_CYCLE

SHAPE = (N_EVENTS, N_MODES)


class ConservationError(AssertionError):
    """The ledger's ticks are not the advance of the tick counter, or a cell of it cannot be.

    `ledger_ticks` and `tick_advance` are the two sums; the text lists the largest events.
    """

    def __init__(self, message: str, ledger_ticks: int, tick_advance: int) -> None:
        super().__init__(message)
        self.ledger_ticks = ledger_ticks
        self.tick_advance = tick_advance


class PriceError(AssertionError):
    """A fixed-price event whose ticks are not count x price. `rows` holds (event, mode, count, price, ticks)."""

    def __init__(self, message: str, rows: Sequence[tuple[str, str, int, int, int]]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


@dataclass(frozen=True)
class FormulaRow:
    """One term of `sum of frequency x latency`, over all modes.

    `latency` is in cycles per event (None if it took time without ever being counted), `cycles` is the time it took;
    `what_if_latency` and `what_if_cycles` are the same with the overrides put in.
    """

    event: str
    frequency: int
    latency: Fraction | None
    cycles: Fraction
    what_if_latency: Fraction | None
    what_if_cycles: Fraction


def as_cycles(ticks: int) -> int | float:
    """Ticks as cycles: an integer where they are whole, else a binary fraction (exact below 2**53 ticks)."""
    return ticks // TICKS_PER_CYCLE if ticks % TICKS_PER_CYCLE == 0 else ticks / TICKS_PER_CYCLE


class Ledger:
    """Counts and ticks by event and mode.

    `count` and `ticks` are int64 arrays of shape (N_EVENTS, N_MODES) and are not copied: a ledger over a machine's
    arrays follows the machine, a snapshot stands still. Raises ValueError for arrays of another shape or type.
    """

    def __init__(self, count: np.ndarray, ticks: np.ndarray) -> None:
        for name, array in (("count", count), ("ticks", ticks)):
            if array.shape != SHAPE or array.dtype != np.int64:
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, not int64 of shape {SHAPE}")
        self.count = count
        self.ticks = ticks

    @classmethod
    def empty(cls) -> "Ledger":
        """A ledger of zeros with arrays of its own."""
        return cls(np.zeros(SHAPE, np.int64), np.zeros(SHAPE, np.int64))

    def snapshot(self) -> "Ledger":
        """A copy that later events do not change."""
        return Ledger(self.count.copy(), self.ticks.copy())

    def __sub__(self, earlier: "Ledger") -> "Ledger":
        """What happened since an earlier snapshot."""
        return Ledger(self.count - earlier.count, self.ticks - earlier.ticks)

    def __add__(self, other: "Ledger") -> "Ledger":
        """Both together."""
        return Ledger(self.count + other.count, self.ticks + other.ticks)

    def __eq__(self, other: object) -> bool:
        """Whether every cell is equal."""
        if not isinstance(other, Ledger):
            return NotImplemented
        return np.array_equal(self.count, other.count) and np.array_equal(self.ticks, other.ticks)

    __hash__ = None  # type: ignore[assignment]

    def total_ticks(self) -> int:
        """The ticks of all events in all modes."""
        return _sum(self.ticks)

    def ticks_by_mode(self) -> dict[str, int]:
        """Ticks by the name of the mode."""
        return {name: _sum(self.ticks[:, mode]) for mode, name in enumerate(MODE_NAMES)}

    def event_count(self, event: str) -> int:
        """How often an event happened, all modes together. Raises KeyError for an unknown event."""
        return _sum(self.count[EVENT_ID[event]])

    def event_ticks(self, event: str) -> int:
        """What an event took, all modes together. Raises KeyError for an unknown event."""
        return _sum(self.ticks[EVENT_ID[event]])

    def as_json(self) -> dict[str, dict[str, dict[str, int | float]]]:
        """`{event: {mode: {"count": n, "cycles": c}}}` for every cell that is not empty, in the order of `EVENTS`."""
        events: dict[str, dict[str, dict[str, int | float]]] = {}
        for number, mode in zip(*np.nonzero(self.count | self.ticks), strict=True):
            cell: dict[str, int | float] = {
                "count": int(self.count[number, mode]),
                "cycles": as_cycles(int(self.ticks[number, mode])),
            }
            events.setdefault(EVENTS[number].name, {})[MODE_NAMES[mode]] = cell
        return events

    def check_conservation(self, tick_advance: int) -> None:
        """Raise ConservationError unless every tick of the advance stands in the ledger, and nothing else does."""
        total = self.total_ticks()
        if (self.count < 0).any() or (self.ticks < 0).any():
            number, mode = np.argwhere((self.count < 0) | (self.ticks < 0))[0]
            cell = f"count {self.count[number, mode]}, ticks {self.ticks[number, mode]}"
            text = f"{EVENTS[number].name} in {MODE_NAMES[mode]} is negative: {cell}"
            raise ConservationError(text, total, tick_advance)
        if total != tick_advance:
            more = "more" if total > tick_advance else "less"
            text = (
                f"the ledger holds {total} ticks, {abs(total - tick_advance)} {more} than the advance of {tick_advance}"
            )
            raise ConservationError(f"{text}; largest: {self._largest(5)}", total, tick_advance)

    def check_fixed_prices(self, prices: np.ndarray) -> None:
        """Raise PriceError unless ticks = count x price in every cell of a fixed-price event.

        `prices` are ticks of one event by event number, as `Profile.prices` gives them.
        """
        wrong = []
        for number, event in enumerate(EVENTS):
            for mode, name in enumerate(MODE_NAMES):
                count, price, ticks = int(self.count[number, mode]), int(prices[number]), int(self.ticks[number, mode])
                if event.fixed and count * price != ticks:
                    wrong.append((event.name, name, count, price, ticks))
        if wrong:
            shown = "; ".join(f"{row[0]} in {row[1]}: {row[2]} x {row[3]} is not {row[4]} ticks" for row in wrong[:5])
            raise PriceError(f"{len(wrong)} cells are not count x price: {shown}", wrong)

    def formula(self, what_if: Mapping[str, int | float | Fraction] | None = None) -> list[FormulaRow]:
        """The terms of `sum of frequency x latency`, largest first; `what_if` maps events to other latencies in cycles.

        Raises ValueError for an unknown event or a latency that is negative or not finite.
        """
        latencies = _check_what_if(what_if or {})
        rows = []
        for event in EVENTS:
            count, ticks = self.event_count(event.name), self.event_ticks(event.name)
            if count or ticks:
                rows.append(_formula_row(event.name, count, ticks, latencies.get(event.name)))
        return sorted(rows, key=lambda row: -row.cycles)

    def _largest(self, number: int) -> str:
        rows = self.formula()[:number]
        return (
            ", ".join(f"{row.event} {row.frequency} times {float(row.cycles):.2f} cycles" for row in rows) or "nothing"
        )


def _formula_row(event: str, count: int, ticks: int, override: Fraction | None) -> FormulaRow:
    cycles = Fraction(ticks, TICKS_PER_CYCLE)
    latency = cycles / count if count else None
    if override is None:
        return FormulaRow(event, count, latency, cycles, latency, cycles)
    return FormulaRow(event, count, latency, cycles, override, count * override)


def _check_what_if(what_if: Mapping[str, int | float | Fraction]) -> dict[str, Fraction]:
    latencies = {}
    for event, cycles in what_if.items():
        if event not in EVENT_ID:
            near = difflib.get_close_matches(event, EVENT_ID, n=3)
            raise ValueError(f"unknown event {event}" + (f", did you mean {' or '.join(near)}?" if near else ""))
        try:
            latencies[event] = Fraction(cycles)
        except (ValueError, OverflowError):
            raise ValueError(f"a latency of {cycles} cycles for {event} is not a finite number") from None
        if latencies[event] < 0:
            raise ValueError(f"a latency of {cycles} cycles for {event} is negative")
    return latencies


def _sum(array: np.ndarray) -> int:
    """The sum as a Python integer, which does not wrap."""
    return sum(array.ravel().tolist())

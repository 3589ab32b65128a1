"""What an event costs under a profile, and how that is known."""

from typing import TYPE_CHECKING, Any

from ..isa.events import EVENT_ID, EVENTS, TICKS_PER_CYCLE
from ..ledger import as_cycles

if TYPE_CHECKING:
    from ..profile import Profile, Value

PATH_PREFIX = "vmm."


def path_prices(profile: "Profile", event: str) -> tuple[int, int] | None:
    """Base and per-item ticks of a path of the VMM; None for an event that is none."""
    from ..vmm.prices import price_table

    if EVENTS[EVENT_ID[event]].fixed or not event.startswith(PATH_PREFIX):
        return None
    return price_table(profile).get(event.removeprefix(PATH_PREFIX))


def value_of(event: str, profile: "Profile") -> "Value | None":
    """The profile's value behind a price."""
    key = EVENTS[EVENT_ID[event]].price
    return None if key is None else profile.values[key]


def number(ticks: int) -> str:
    """Ticks as cycles."""
    return f"{ticks / TICKS_PER_CYCLE:,.2f}".rstrip("0").rstrip(".")


def price_text(event: str, profile: "Profile") -> str:
    """Cycles of one, and how they are known."""
    path = path_prices(profile, event)
    if path is not None:
        base, item = path
        parts = [
            number(ticks) + each for ticks, each in ((base, ""), (item, " for each item" if base else "")) if ticks
        ]
        return f"{' and '.join(parts)} cycles (witness)"
    value = value_of(event, profile)
    if value is None:
        return "as long as it takes" if not EVENTS[EVENT_ID[event]].fixed else "free"
    interval = ""
    if value.low is not None and value.high is not None and value.low != value.high:
        interval = f", {value.low:g} to {value.high:g}"
    unit = "" if value.key.unit == "cycles" else f" from {value.value:g} {value.key.unit}"
    return f"{number(profile.price_ticks(event))} cycles{unit} ({value.evidence}{interval})"


def price_json(event: str, profile: "Profile") -> dict[str, Any]:
    """The same as data."""
    row: dict[str, Any] = {"event": event}
    path = path_prices(profile, event)
    if path is not None:
        return row | {"cycles": as_cycles(path[0]), "cycles_per_item": as_cycles(path[1]), "evidence": "witness"}
    value = value_of(event, profile)
    if value is None:
        return row | {"cycles": 0 if EVENTS[EVENT_ID[event]].fixed else None}
    return row | {
        "cycles": as_cycles(profile.price_ticks(event)),
        "key": value.key.name,
        "evidence": value.evidence,
        "source": value.source,
        "low": value.low,
        "high": value.high,
        "rule": value.rule or None,
        "note": value.note or None,
    }

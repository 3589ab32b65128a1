"""What an event of the ledger counts, and what it costs on each processor."""

from typing import TYPE_CHECKING, Any

from ..isa.events import DOMAINS, EVENT_ID, EVENTS, RULES
from ..isa.table import ROWS
from ..profile import load_profile, profile_names
from .exits import REASONS
from .instruction import events_of
from .page import Explanation, Section
from .price import path_prices, price_json, price_text, value_of

if TYPE_CHECKING:
    from ..profile import Profile


def explain_event(name: str, profile: "Profile") -> Explanation:
    """The explanation of one event; `profile` comes first, the shipped ones follow."""
    event = EVENTS[EVENT_ID[name]]
    counts = Section("")
    counts.add("domain", f"{event.domain}: {DOMAINS[event.domain]}")
    counts.add("unit of its count", event.unit)
    counts.add("price", rule_text(name, profile))
    mnemonics = mnemonics_of(name)
    counts.add("charged by", ", ".join(mnemonics))
    reasons = [reason for reason, row in REASONS.items() if name in row.events]
    counts.add("leads to", f"under trap-and-emulate, exit {' or '.join(reasons)}" if reasons else "")
    path = name.removeprefix("vmm.")
    served = [reason for reason, row in REASONS.items() if path in row.paths] if name.startswith("vmm.") else []
    counts.add("part of", f"the exits {', '.join(served)}" if served else "")
    profiles = {profile.name: profile} | {
        other: load_profile(other) for other in profile_names() if other != profile.name
    }
    prices = Section("cycles of one, by processor")
    sources = Section("how that is known")
    said: dict[str, str] = {}
    for other, loaded in profiles.items():
        prices.add(other, price_text(name, loaded))
        source = source_text(name, loaded)
        if source and source not in said:
            said[source] = other
            sources.add(other, source)
    data: dict[str, Any] = {
        "domain": event.domain,
        "unit": event.unit,
        "rule": event.rule,
        "key": event.price,
        "charged_by": mnemonics,
        "leads_to": reasons,
        "prices": {other: price_json(name, loaded) for other, loaded in profiles.items()},
    }
    return Explanation("event", name, event.sentence, [counts, prices, sources], data)


def rule_text(name: str, profile: "Profile") -> str:
    """How one is priced."""
    event = EVENTS[EVENT_ID[name]]
    if path_prices(profile, name) is not None:
        return "a base and a price per item, found by running the path's own code on each processor (a witness)"
    if event.rule == "inverse":
        return f"one divided by the profile's {event.price}, a rate"
    if event.rule == "above":
        return f"the profile's {event.price} less its {event.above}"
    if event.price is None:
        return RULES[event.rule]
    return f"the profile's {event.price}"


def source_text(name: str, profile: "Profile") -> str:
    """Where the profile has its value from."""
    value = value_of(name, profile)
    if value is None:
        return ""
    parts = [value.source, *([f"rule: {value.rule}"] if value.rule else []), *([value.note] if value.note else [])]
    return "; ".join(parts)


def mnemonics_of(name: str) -> list[str]:
    """The instructions that can be charged it."""
    return list(dict.fromkeys(row.mnemonic for row in ROWS if name in events_of([row])))

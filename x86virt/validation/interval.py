"""The profiles that a prediction is made under: at the clock of the publication, and with all prices at one of their ends.

The interval of a prediction reaches from what the guest takes where every price is at its low end to what it takes where
every one is at its high end. A VMM path is measured again by its witness routine under each of the two; an estimated path is
a key of the profile with ends of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType

from ..isa.events import EVENTS
from ..profile import Profile, Value

LOW, HIGH = "low", "high"


def with_number(value: Value, exact: Fraction) -> Value:
    """A value of a profile with another number."""
    number = int(exact) if exact.denominator == 1 else float(exact)
    return replace(value, value=number, exact=exact)


def with_values(profile: Profile, values: Mapping[str, Value]) -> Profile:
    """A profile with some of its values replaced."""
    return replace(profile, values=MappingProxyType({**profile.values, **values}))


def at_clock(profile: Profile, mhz: int, in_nanoseconds: Iterable[str]) -> Profile:
    """The same processor at another clock: what takes a time and not a number of cycles takes more cycles if it is faster."""
    if mhz == 0:
        return profile
    clock = profile.values["cpu.mhz"]
    assert clock.exact is not None
    factor = Fraction(mhz) / clock.exact
    values = {"cpu.mhz": with_number(clock, Fraction(mhz))}
    for key in in_nanoseconds:
        values[key] = scaled(profile.values[key], factor)
    return with_values(profile, values)


def scaled(value: Value, factor: Fraction) -> Value:
    """A price and its ends times a factor."""
    assert value.exact is not None
    ends = {end: number * float(factor) for end in (LOW, HIGH) if (number := getattr(value, end)) is not None}
    return replace(with_number(value, value.exact * factor), **ends)


def at_end(profile: Profile, end: str) -> Profile:
    """The profile with every price at its low or its high end; a price without an interval stays as it is."""
    values = {}
    for key, value in profile.values.items():
        number = end_of(value, end)
        if value.key.kind == "price" and number is not None:
            values[key] = with_number(value, Fraction(number))
    return with_values(profile, ordered(profile, values))


def end_of(value: Value, end: str) -> float | None:
    """The end of a price: for a rate, the high end of the price is the low one of the rate."""
    if value.key.unit == "bytes per cycle":
        end = HIGH if end == LOW else LOW
    return value.low if end == LOW else value.high


def ordered(profile: Profile, values: dict[str, Value]) -> dict[str, Value]:
    """No level of the memory hierarchy may be faster than the one above it: where ends cross, the lower level is as fast."""
    for event in EVENTS:
        if event.rule != "above" or event.price is None:
            continue
        price = values.get(event.price, profile.values[event.price])
        above = values.get(event.above, profile.values[event.above])
        assert price.exact is not None and above.exact is not None
        if price.exact < above.exact:
            values[event.price] = with_number(price, above.exact)
    return values

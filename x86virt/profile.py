"""Processor profiles: what a processor's events cost, how its TLB and caches are shaped, and how each number is known.

A profile is a TOML file with one table per key of `x86virt.profile_schema.SCHEMA`:

    title = "my processor"            # optional
    inherits = "p4_prescott"          # optional: another profile by name, or a file relative to this one

    [sys.sysenter]
    value = 130                       # cycles here; the schema says the unit of each key
    evidence = "estimated"            # read, recalled, estimated or witness
    source = "derived from ..."
    low = 100                         # optional interval
    high = 220

Without `inherits` every key must be there. A value without evidence or source does not load. Numbers are read as
decimals and priced exactly: ticks = 64 x value, rounded half to even.
"""

import hashlib
import os
import pathlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from x86virt.errors import UserError, near_matches, show
from x86virt.isa.events import EVENT_ID, EVENTS, TICKS_PER_CYCLE
from x86virt.profile_schema import SCHEMA, Key

FOLDER = pathlib.Path(__file__).resolve().parent / "profiles"
EVIDENCE = ("read", "recalled", "estimated", "witness")
FIELDS = ("value", "unit", "evidence", "source", "low", "high", "note", "published", "rule")
TOP_LEVEL = ("title", "inherits")

# What CPUID may offer of a processor: bits of leaf 1 EDX and leaf 80000001 EDX that the simulated machine implements.
# FPU VME DE PSE TSC MSR PAE MCE CX8, SEP MTRR PGE MCA CMOV PAT PSE-36, FXSR; APIC (bit 9) comes with the APIC.
FEATURES = 0x0103F9FF
REPEATED_FEATURES = 0x0183F3FF  # those of leaf 1 that AMD repeats in leaf 80000001
OFFERED = {"cpuid.features": FEATURES, "cpuid.extended_features": FEATURES & REPEATED_FEATURES | 1 << 20}  # and NX
HIGHEST_LEAF, FIRST_EXTENDED, HIGHEST_EXTENDED = 15, 0x80000000, 0x1B

MAXIMUM_FILE_BYTES = 1 << 20
PARSED_FILES = 16  # whose contents are kept as they were understood
MAXIMUM_TEXT = 4000
MAXIMUM_INHERITANCE = 8
MAXIMUM_DIGITS = 30
MAXIMUM_TLB_ENTRIES = 4096  # of one TLB: what core/layout.py has room for
MAXIMUM_NESTED_ENTRIES = 64  # of the caches of nested walks
MAXIMUM_CACHE_LINES = 1 << 18  # of all levels
MAXIMUM = {"price": 10**9, "geometry": 1 << 20, "clock": 10**6, "feature": 1, "identity": 0xFFFFFFFF}


class ProfileError(UserError):
    """A profile that does not load."""


@dataclass(frozen=True)
class Value:
    """One value of a profile. `exact` is a number's exact value; it is None for a text."""

    key: Key
    value: int | float | str
    exact: Fraction | None
    evidence: str
    source: str
    low: float | None = None
    high: float | None = None
    published: float | None = None
    rule: str = ""
    note: str = ""


@dataclass(frozen=True)
class Profile:
    """One processor: its name, title, file, and a `Value` for every key of the schema."""

    name: str
    title: str
    path: pathlib.Path
    values: Mapping[str, Value]

    def __getitem__(self, key: str) -> int | float | str:
        """The value of a key, in the unit that the schema gives. Raises KeyError for a key that the schema lacks."""
        return self.values[key].value

    def integer(self, key: str) -> int:
        """The value of a geometry, feature or identity key as an integer."""
        value = self[key]
        if not isinstance(value, int):
            raise TypeError(f"{key} is not an integer: {value!r}")
        return value

    def price_ticks(self, event: str) -> int:
        """What one fixed-price event costs, in ticks: 64 x cycles rounded half to even.

        Raises KeyError for an unknown event and ValueError for one whose ticks whoever charges it decides.
        """
        described = EVENTS[EVENT_ID[event]]
        if not described.fixed:
            raise ValueError(f"{event} has no fixed price")
        return _ticks(described.rule, described.price, described.above, self.values)

    def prices(self) -> np.ndarray:
        """Ticks of one event by event number: int64, shape (N_EVENTS,); 0 where there is no fixed price."""
        return np.array([self.price_ticks(event.name) if event.fixed else 0 for event in EVENTS], dtype=np.int64)

    def cpuid_signature(self) -> int:
        """Leaf 1 EAX: family, model and stepping as CPUID encodes them (Intel SDM volume 2, CPUID)."""
        family, model = self.integer("cpuid.family"), self.integer("cpuid.model")
        extended_family = max(family - 15, 0)
        return (
            extended_family << 20
            | (model >> 4) << 16
            | min(family, 15) << 8
            | (model & 15) << 4
            | self.integer("cpuid.stepping")
        )

    def digest(self) -> str:
        """A hash of all values (not of sources or notes): what tables made under this profile are keyed by."""
        exact = {key: value.value if value.exact is None else value.exact for key, value in self.values.items()}
        lines = (f"{key}={exact[key]}" for key in sorted(exact))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def profile_names() -> list[str]:
    """The names of the built-in profiles, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_profile(name_or_path: str | os.PathLike[str]) -> Profile:
    """The built-in profile of that name, or the profile in that `.toml` file.

    Raises ProfileError, whose text is one line, for a name or file that is not there and for anything wrong in it.
    """
    path = _locate(name_or_path, None)
    title, values = _load(path, ())
    missing = [key for key in SCHEMA if key not in values]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ProfileError(
            show(path), f"missing key {missing[0]}{more}", f"add a table [{missing[0]}], or inherit a built-in profile"
        )
    _check_together(path, values)
    return Profile(path.stem, title or path.stem, path, MappingProxyType({key: values[key] for key in SCHEMA}))


def _locate(name_or_path: str | os.PathLike[str], relative_to: pathlib.Path | None) -> pathlib.Path:
    text = os.fspath(name_or_path)
    names = profile_names()
    if text in names:
        return FOLDER / f"{text}.toml"
    is_file_name = isinstance(name_or_path, os.PathLike) or "/" in text or os.sep in text or text.endswith(".toml")
    if not is_file_name:
        advice = f"use one of {', '.join(names)}, or the path of a .toml file{near_matches(text, names)}"
        raise ProfileError(f"profile {show(text)}", "no such profile", advice)
    return pathlib.Path(text) if relative_to is None else relative_to / text


def _load(path: pathlib.Path, above: tuple[pathlib.Path, ...]) -> tuple[str, dict[str, Value]]:
    """Title and values of a file, those that it inherits included."""
    where = show(path)
    resolved = _resolve(path)
    if resolved in above:
        raise ProfileError(where, "this profile inherits itself", "break the circle of `inherits`")
    if len(above) >= MAXIMUM_INHERITANCE:
        raise ProfileError(where, f"more than {MAXIMUM_INHERITANCE} levels of `inherits`", "inherit more directly")
    content = _read(path)
    document = _parse(where, content)
    title, parent = document.get("title", ""), document.get("inherits")
    _check_text(f"{where}: title", title, allow_empty=True)
    values: dict[str, Value] = {}
    if parent is not None:
        _check_text(f"{where}: inherits", parent, allow_empty=False)
        values = _load(_locate(parent, path.parent), (*above, resolved))[1]
    values.update(_read_tables(where, content))
    return title, values


def _resolve(path: pathlib.Path) -> pathlib.Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ProfileError(show(path), f"cannot be opened ({show(error)})", "give the path of a .toml file") from None


def _read(path: pathlib.Path) -> bytes:
    """The content of a file."""
    where = show(path)
    try:
        if not path.exists():
            raise ProfileError(where, "no such file", f"give a .toml file or one of {', '.join(profile_names())}")
        if not path.is_file():
            raise ProfileError(where, "not a regular file", "give the path of a .toml file")
        with open(path, "rb") as file:
            content = file.read(MAXIMUM_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ProfileError):
            raise
        raise ProfileError(where, f"cannot be read ({show(error)})", "give the path of a .toml file") from None
    if len(content) > MAXIMUM_FILE_BYTES:
        raise ProfileError(where, "larger than 1 MB", "this is not a profile: give a TOML file with one table per key")
    return content


@lru_cache(PARSED_FILES)
def _parse(where: str, content: bytes) -> Mapping[str, Any]:
    """The document that a file holds."""
    try:
        return tomllib.loads(content.decode("utf-8"), parse_float=_decimal)
    except UnicodeDecodeError as error:
        raise ProfileError(where, f"byte {error.start} is not UTF-8", "save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ProfileError(where, f"not TOML: {show(error)}", "correct the file there") from None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"the number {text[:40]} is out of range") from None


@lru_cache(PARSED_FILES)
def _read_tables(where: str, content: bytes) -> Mapping[str, Value]:
    """The values that a file itself holds."""
    values = {}
    prefixes = {key.split(".")[0] for key in SCHEMA}
    for prefix, tables in _parse(where, content).items():
        if prefix in TOP_LEVEL:
            continue
        if prefix not in prefixes or not isinstance(tables, dict):
            hint = near_matches(prefix, (*prefixes, *TOP_LEVEL))
            raise ProfileError(where, f"unknown key {show(prefix)}", f"remove it, or correct its name{hint}")
        for name, table in tables.items():
            values[f"{prefix}.{name}"] = _read_table(where, f"{prefix}.{name}", table)
    return values


def _read_table(where: str, name: str, table: Any) -> Value:
    if name not in SCHEMA:
        hint = near_matches(name, SCHEMA)
        raise ProfileError(where, f"unknown key {show(name)}", f"remove it, or correct its name{hint}")
    where = f"{where}: {name}"
    key = SCHEMA[name]
    if not isinstance(table, dict):
        raise ProfileError(where, "not a table", f"write [{name}] and under it value, evidence and source")
    for field in table:
        if field not in FIELDS:
            hint = near_matches(field, FIELDS)
            raise ProfileError(where, f"unknown field {show(field)}", f"remove it, or correct its name{hint}")
    for field in ("value", "evidence", "source"):
        if field not in table:
            raise ProfileError(where, f"{field} is missing", _advice_for(field))
    for field in ("evidence", "source"):
        _check_text(f"{where}: {field}", table[field], allow_empty=False)
    for field in ("note", "rule", "unit"):
        _check_text(f"{where}: {field}", table.get(field, ""), allow_empty=True)
    if table["evidence"] not in EVIDENCE:
        hint = near_matches(table["evidence"], EVIDENCE)
        raise ProfileError(where, f"unknown evidence {show(table['evidence'])}", _advice_for("evidence") + hint)
    if table.get("unit", key.unit) != key.unit:
        raise ProfileError(where, f"the unit is {key.unit}, not {show(table['unit'])}", "convert the value")
    return _make_value(where, key, table)


def _advice_for(field: str) -> str:
    return {
        "value": "give the number",
        "evidence": f"say how it is known, one of {', '.join(EVIDENCE)}",
        "source": "say where the number comes from",
    }[field]


def _make_value(where: str, key: Key, table: dict[str, Any]) -> Value:
    texts: dict[str, Any] = {field: table.get(field, "") for field in ("evidence", "source", "note", "rule")}
    if key.is_text:
        value = table["value"]
        least, most = key.characters
        if not isinstance(value, str) or not least <= len(value) <= most or not (value.isascii() and value.isprintable()):
            count = str(most) if least == most else f"{least} to {most}"
            raise ProfileError(where, f"wrong value {show(value)}", f"give {count} ASCII characters")
        for field in ("low", "high", "published"):
            if field in table:
                raise ProfileError(where, f"a text has no {field}", "remove it")
        return Value(key, value, None, **texts)
    exact = _number(where, key, table["value"], "value")
    others = {
        field: _number(where, key, table[field], field) for field in ("low", "high", "published") if field in table
    }
    if not others.get("low", exact) <= exact <= others.get("high", exact):
        raise ProfileError(where, "the value lies outside low and high", "correct the value or the interval")
    value = int(exact) if exact.denominator == 1 else float(exact)
    texts |= {name: float(number) for name, number in others.items()}
    return Value(key, value, exact, **texts)


def _number(where: str, key: Key, value: Any, field: str) -> Fraction:
    """The exact value of a number that the key's kind allows."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ProfileError(where, f"{field} is {show(value)}, which is not a number", f"give a number ({key.unit})")
    if isinstance(value, Decimal) and not value.is_finite():
        raise ProfileError(where, f"{field} is {value}", f"give a finite number ({key.unit})")
    shown = show(value) if isinstance(value, Decimal) else show(hex(value) if abs(value) > 1 << 64 else value)
    if value < 0:
        raise ProfileError(where, f"{field} {shown} is negative", f"give a number of 0 or more ({key.unit})")
    if value > MAXIMUM[key.kind]:
        raise ProfileError(where, f"{field} {shown} is absurdly large", f"at most {MAXIMUM[key.kind]} ({key.unit})")
    if isinstance(value, Decimal) and _digits(value) > MAXIMUM_DIGITS:
        raise ProfileError(where, f"{field} {shown} has too many digits", f"at most {MAXIMUM_DIGITS}")
    exact = Fraction(value)
    if key.kind in ("geometry", "feature", "identity") and exact.denominator != 1:
        raise ProfileError(where, f"{field} {shown} is not a whole number", f"give a whole number ({key.unit})")
    if exact == 0 and (key.kind == "clock" or key.unit == "bytes per cycle"):
        raise ProfileError(where, f"{field} is 0", f"give a number above 0 ({key.unit})")
    if key.unit == "bytes per cycle" and not Fraction(1, 1000) <= exact <= 1000:
        raise ProfileError(where, f"{field} {shown} is absurd", f"between 0.001 and 1000 ({key.unit})")
    return exact


def _digits(value: Decimal) -> int:
    """How many digits a decimal needs when written without an exponent."""
    _, digits, exponent = value.as_tuple()
    return max(len(digits) + max(int(exponent), 0), -int(exponent))


def _check_text(where: str, value: Any, allow_empty: bool) -> None:
    if not isinstance(value, str) or len(value) > MAXIMUM_TEXT:
        raise ProfileError(where, f"{show(value)} is not a text of at most {MAXIMUM_TEXT} characters", "write a text")
    if not allow_empty and not value.strip():
        raise ProfileError(where, "empty", "write a text")


# What several keys must be together: (entries, ways) of a TLB, (kilobytes, ways) of a cache.
_TLBS = (
    ("tlb.itlb_4k_entries", "tlb.itlb_4k_ways"),
    ("tlb.itlb_4k_l2_entries", "tlb.itlb_4k_l2_ways"),
    ("tlb.itlb_large_entries", "tlb.itlb_large_ways"),
    ("tlb.dtlb_4k_l1_entries", "tlb.dtlb_4k_l1_ways"),
    ("tlb.dtlb_4k_l2_entries", "tlb.dtlb_4k_l2_ways"),
    ("tlb.dtlb_large_entries", "tlb.dtlb_large_ways"),
)
_CACHES = (("cache.l1d_kb", "cache.l1d_ways"), ("cache.l2_kb", "cache.l2_ways"), ("cache.l3_kb", "cache.l3_ways"))
_MAY_BE_ABSENT = ("tlb.itlb_4k_l2_entries", "tlb.dtlb_4k_l2_entries", "cache.l3_kb")


def _check_together(path: pathlib.Path, values: Mapping[str, Value]) -> None:
    """Refuse values that are right one by one and cannot be one processor."""
    where = show(path)
    number = {
        key: int(value.value)
        for key, value in values.items()
        if value.key.kind in ("geometry", "identity", "feature") and not value.key.is_text
    }
    line = number["cache.line_bytes"]
    if not 16 <= line <= 4096 or not _is_power_of_two(line):
        raise ProfileError(f"{where}: cache.line_bytes", f"{line} bytes", "give a power of two from 16 to 4096")
    for entries, ways in _TLBS:
        if number[entries] > MAXIMUM_TLB_ENTRIES:
            raise ProfileError(f"{where}: {entries}", "more than is simulated", f"at most {MAXIMUM_TLB_ENTRIES}")
        _check_sets(where, entries, number[entries], number[ways] or number[entries])
    if sum(number[kilobytes] for kilobytes, _ in _CACHES) * 1024 // line > MAXIMUM_CACHE_LINES:
        raise ProfileError(
            f"{where}: cache", "more lines than are simulated", f"at most {MAXIMUM_CACHE_LINES} in all levels"
        )
    for entries in ("tlb.nested_entries", "tlb.nested_table_entries"):
        if number[entries] > MAXIMUM_NESTED_ENTRIES:
            raise ProfileError(f"{where}: {entries}", "more than is simulated", f"at most {MAXIMUM_NESTED_ENTRIES}")
    for kilobytes, ways in _CACHES:
        _check_sets(where, kilobytes, number[kilobytes] * 1024 // line, number[ways])
    if number["cpuid.family"] > 270 or number["cpuid.model"] > 255 or number["cpuid.stepping"] > 15:
        raise ProfileError(
            f"{where}: cpuid", "no CPUID signature can hold these", "family <= 270, model <= 255, stepping <= 15"
        )
    bits = number["cpuid.physical_address_bits"]
    if not 32 <= bits <= 36:
        raise ProfileError(f"{where}: cpuid.physical_address_bits", f"{bits} bits", "give 32 to 36")
    if number["cpuid.highest_leaf"] > HIGHEST_LEAF:
        raise ProfileError(f"{where}: cpuid.highest_leaf", "no such leaf", f"give at most {HIGHEST_LEAF}")
    if not FIRST_EXTENDED + 8 <= number["cpuid.highest_extended_leaf"] <= FIRST_EXTENDED + HIGHEST_EXTENDED:
        what = f"{number['cpuid.highest_extended_leaf']:#x}"
        raise ProfileError(f"{where}: cpuid.highest_extended_leaf", what, "give 0x80000008 to 0x8000001B")
    for key, offered in OFFERED.items():
        if number[key] & ~offered:
            what = f"{number[key] & ~offered:#x} is not simulated"
            raise ProfileError(f"{where}: {key}", what, f"leave out all but {offered:#x}")
    for event in EVENTS:
        if event.rule == "above" and _exact(values, event.price) < _exact(values, event.above):
            raise ProfileError(f"{where}: {event.price}", f"below {event.above}", "a lower level cannot be faster")


def _check_sets(where: str, key: str, entries: int, ways: int) -> None:
    if entries == 0 and key in _MAY_BE_ABSENT:
        return
    if entries == 0 or ways == 0 or entries % ways or not _is_power_of_two(entries // ways):
        what = f"{entries} entries in {ways} ways do not make a power of two of sets"
        raise ProfileError(f"{where}: {key}", what, "correct the size or the ways")


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


def _exact(values: Mapping[str, Value], key: str | None) -> Fraction:
    """The exact value of a key that holds a number."""
    exact = values[key].exact if key is not None else None
    if exact is None:
        raise TypeError(f"{key} is not a number")
    return exact


def _ticks(rule: str, price: str | None, above: str, values: Mapping[str, Value]) -> int:
    """The price of one event by its rule (`x86virt.isa.events.RULES`), in ticks."""
    if rule == "free":
        return 0
    cycles = _exact(values, price)
    if rule == "inverse":
        cycles = 1 / cycles
    elif rule == "above":
        cycles -= _exact(values, above)
    return round(cycles * TICKS_PER_CYCLE)

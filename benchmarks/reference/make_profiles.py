"""Make the processor profiles of `x86virt/profiles/` from `primitives.csv` and `overlay.toml`.

    python benchmarks/reference/make_profiles.py            write the profiles
    python benchmarks/reference/make_profiles.py --check    exit with 1 if a committed profile is not current

One rule says which published number is charged (`charged`); rows that measure a pair are split by the overlay's
`half_of` or listed there as unused, with the reason. The row's own number stays in the profile as `published`.
Arithmetic is decimal and exact.
"""

import csv
import json
import pathlib
import sys
import tomllib
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from x86virt.profile_schema import SCHEMA

FOLDER = pathlib.Path(__file__).resolve().parent
PROFILES = FOLDER.parent.parent / "x86virt" / "profiles"
HALF = Decimal("0.5")
WAYS = ("value", "values", "same_as", "sum_of", "half_of", "instructions")


@dataclass(frozen=True)
class Entry:
    """One value of a profile with its evidence; `published` is the number of its CSV row, `rule` what made `value`."""

    value: Decimal | str
    evidence: str
    source: str
    low: Decimal | None = None
    high: Decimal | None = None
    note: str = ""
    published: Decimal | None = None
    rule: str = ""


def charged(row: dict[str, str]) -> tuple[Decimal, str]:
    """The number that a row of `primitives.csv` charges and the rule that chose it.

    For `ins.` rows with evidence `read` whose `low` is a reciprocal throughput: the midpoint of `low` and `cycles`. For
    every other row: `cycles`.
    """
    cycles = Decimal(row["cycles"])
    if row["event"].startswith("ins.") and row["evidence"] == "read" and "low=reciprocal throughput" in row["note"]:
        return (Decimal(row["low"]) + cycles) / 2, "midpoint of the reciprocal throughput and the latency"
    return cycles, "as published"


def entry_of_row(row: dict[str, str]) -> Entry:
    """The profile entry of one row of `primitives.csv`."""
    value, rule = charged(row)
    low = Decimal(row["low"]) if row["low"] else None
    high = Decimal(row["high"]) if row["high"] else None
    return Entry(value, row["evidence"], row["source"], low, high, row["note"], Decimal(row["cycles"]), rule)


def half(entry: Entry, pair: str) -> Entry:
    """Half of a row that measures a pair: value and interval halved, evidence and source carried over."""
    low = None if entry.low is None else entry.low / 2
    high = None if entry.high is None else entry.high / 2
    value = Decimal(entry.value) / 2
    return Entry(value, entry.evidence, entry.source, low, high, entry.note, entry.published, f"half of {pair}")


def number(rows: dict[str, Entry], key: str) -> Decimal:
    """The charged number of a row of the CSV."""
    return Decimal(rows[key].value)


def written_value(table: dict[str, Any], rows: dict[str, Entry], profile: str) -> tuple[Decimal | str, str]:
    """The value that an overlay table gives to one profile, and how."""
    if "value" in table:
        return plain(table["value"]), ""
    if "values" in table:
        return plain(table["values"][profile]), ""
    if "same_as" in table:
        return number(rows, table["same_as"]), f"same as {table['same_as']}"
    if "sum_of" in table:
        return sum((number(rows, key) for key in table["sum_of"]), Decimal(0)), "sum of " + ", ".join(table["sum_of"])
    instructions = table["instructions"]
    return (
        number(rows, "pipe.cpi_kernel_typical") * instructions,
        f"{instructions} instructions at pipe.cpi_kernel_typical",
    )


def plain(value: int | Decimal | str) -> Decimal | str:
    """A number as a decimal, a text as it is."""
    return value if isinstance(value, str) else Decimal(value)


def entry_of_overlay(key: str, table: dict[str, Any], rows: dict[str, Entry], profile: str) -> Entry:
    """The profile entry of one overlay table."""
    if sum(way in table for way in WAYS) != 1:
        raise SystemExit(f"overlay.toml: {key} must give its value in exactly one of: {', '.join(WAYS)}")
    if "half_of" in table:
        return half(rows[table["half_of"]], table["half_of"])
    value, rule = written_value(table, rows, profile)
    low = high = None
    if SCHEMA[key].kind == "price" and isinstance(value, Decimal):
        low, high = value * HALF, value * 2
    return Entry(value, table["evidence"], table["source"], low, high, table.get("note", ""), None, rule)


def overlay_keys(overlay: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The overlay's tables by dotted key."""
    return {
        f"{prefix}.{name}": table
        for prefix, tables in overlay.items()
        if prefix not in ("profile", "unused")
        for name, table in tables.items()
    }


def profile_entries(profile: str, rows: dict[str, Entry], overlay: dict[str, Any]) -> dict[str, Entry]:
    """All entries of one profile in the order of the schema. Exits with a message if a key is missing or left over."""
    entries = {key: entry for key, entry in rows.items() if key not in overlay["unused"]}
    for key, table in overlay_keys(overlay).items():
        if key in entries or key not in SCHEMA:
            raise SystemExit(f"overlay.toml: {key} stands in primitives.csv already, or is no key of a profile")
        entries[key] = entry_of_overlay(key, table, rows, profile)
    if set(entries) != set(SCHEMA):
        raise SystemExit(f"{profile}: missing or left over: {', '.join(sorted(set(entries) ^ set(SCHEMA)))}")
    return {key: entries[key] for key in SCHEMA}


def text(value: Decimal | str) -> str:
    """A TOML value: a number without exponent or trailing zeros, or a basic string."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return format(value.normalize(), "f")


def table_text(key: str, entry: Entry) -> str:
    """The TOML table of one key."""
    unit = SCHEMA[key].unit
    value = hex(int(entry.value)) if unit == "bit mask" else text(entry.value)
    lines = [f"[{key}]", f"value = {value}", f"unit = {text(unit)}"]
    for field in ("low", "high", "published"):
        if getattr(entry, field) is not None:
            lines.append(f"{field} = {text(getattr(entry, field))}")
    for field in ("rule", "evidence", "source", "note"):
        if getattr(entry, field):
            lines.append(f"{field} = {text(getattr(entry, field))}")
    return "\n".join(lines) + "\n"


def generate() -> dict[str, str]:
    """The text of every profile by name."""
    overlay = tomllib.loads((FOLDER / "overlay.toml").read_text("utf-8"), parse_float=Decimal)
    by_profile: dict[str, dict[str, Entry]] = {}
    with open(FOLDER / "primitives.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            by_profile.setdefault(row["profile"], {})[row["event"]] = entry_of_row(row)
    texts = {}
    for profile, rows in by_profile.items():
        title = overlay["profile"][profile]["title"]
        head = (
            "# GENERATED by benchmarks/reference/make_profiles.py from primitives.csv and overlay.toml: do not edit.\n"
        )
        head += f"\ntitle = {text(title)}\n"
        entries = profile_entries(profile, rows, overlay)
        texts[profile] = "\n".join([head, *(table_text(key, entry) for key, entry in entries.items())])
    return texts


def main() -> int:
    """Write the profiles, or with `--check` compare them; the exit status is 1 if one is not current."""
    stale = 0
    for name, content in generate().items():
        path = PROFILES / f"{name}.toml"
        if "--check" in sys.argv[1:]:
            if not path.is_file() or path.read_text("utf-8") != content:
                print(f"{path.name} is not current: run make_profiles.py", file=sys.stderr)
                stale = 1
        else:
            path.write_text(content, "utf-8", newline="\n")
    return stale


if __name__ == "__main__":
    sys.exit(main())

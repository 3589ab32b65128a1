"""Tables for people: one run, a benchmark suite, a comparison. Nothing is computed here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .exit_counts import PARTS, parts_of
from .suites import Cell, ExitCell, Row

if TYPE_CHECKING:
    from .ledger import Ledger
    from .machine import RunResult

MODE_LABELS = {"guest_user": "guest user", "guest_kernel": "guest kernel", "vmm": "VMM", "idle": "idle", "domain_0": "domain 0"}
MOST_EVENTS = 40
PART_LABELS = {"exit": "exit", "handler": "handler", "control": "control reads, writes", "entry": "entry"}
TRANSLATOR_ROWS = {
    "unit": "units made",
    "instruction": "guest instructions in them",
    "guest_byte": "bytes of guest code",
    "byte": "bytes of translated code",
    "occupied": "most bytes of the cache in use",
    "chain": "jumps chained",
    "lookup_hit": "look-ups that hit",
    "lookup_miss": "look-ups that missed",
    "invalidation": "units dropped",
    "flush": "caches thrown away",
    "adaptation": "instructions adapted",
    "restoration": "instructions restored",
}  # of the translator's events


def number(value: float | int | None, digits: int = 2) -> str:
    """A number with thousands separated, whole numbers without decimals; `-` for none."""
    if value is None:
        return "-"
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{digits}f}"


def plain_table(columns: Sequence[str], left: int = 1) -> Table:
    """A table whose first `left` columns hold words and the others numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        if place < left:
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    return table


def show_suite(rows: Sequence[Row]) -> RenderableType:
    """All benchmarks of a suite: few of them at full length, many as one line each."""
    names = list(dict.fromkeys(row.benchmark for row in rows))
    if len(names) > 2:
        return _summary(names, rows)
    return Group(*(show_benchmark([row for row in rows if row.benchmark == name]) for name in names))


def show_benchmark(rows: Sequence[Row]) -> RenderableType:
    """One benchmark under several strategies: cycles of one iteration, where they went, and by which events."""
    first = rows[0]
    title = f"{first.suite} {first.benchmark}: {first.sentence}; {first.profile}, {first.iterations} iterations"
    table = plain_table(["one iteration", *(row.strategy for row in rows)])
    table.add_row("cycles per round trip", *(_with_ratio(row) for row in rows), style="bold")
    for mode, label in MODE_LABELS.items():
        if any(row.modes.get(mode) for row in rows):
            table.add_row(f"  of which {label}", *(_mode(row, mode) for row in rows))
    table.add_section()
    table.add_row("events: count, cycles", *("" for _ in rows))
    for event in _events(rows):
        table.add_row(f"  {event}", *(_cell(row.events.get(event)) for row in rows))
    reasons = list(dict.fromkeys(reason for row in rows for reason in row.exits))
    if reasons:
        table.add_section()
        table.add_row("VM exits by reason (a view of the above)", *("" for _ in rows))
    for reason in reasons:
        cells = [row.exits.get(reason) for row in rows]
        table.add_row(f"  {reason}", *(_cell(cell) for cell in cells))
        for part in PARTS if any(cell and cell.parts for cell in cells) else ():
            table.add_row(f"    {PART_LABELS[part]}", *(_part(cell, part) for cell in cells))
    return Group(Text(title, style="bold"), table, *_remarks(rows))


def _with_ratio(row: Row) -> str:
    if not row.measured:
        return "-"
    ratio = "" if row.ratio_to_native is None or row.strategy == "native" else f"  (x {row.ratio_to_native:.2f})"
    return number(row.cycles_per_iteration) + ratio


def _mode(row: Row, mode: str) -> str:
    return number(row.modes.get(mode, 0)) if row.measured else "-"


def _events(rows: Sequence[Row]) -> list[str]:
    """The events of all rows, the most expensive first; what costs nothing and happens once a region is left out."""
    weight: dict[str, tuple[float, float]] = {}
    for row in rows:
        for event, cell in row.events.items():
            if cell.cycles == 0 and cell.count < 0.5:
                continue
            before = weight.get(event, (0.0, 0.0))
            weight[event] = (max(before[0], cell.cycles), max(before[1], cell.count))
    return sorted(weight, key=lambda event: (-weight[event][0], -weight[event][1], event))[:MOST_EVENTS]


def _part(cell: ExitCell | None, part: str) -> str:
    return number(cell.parts[part]) if cell is not None and part in cell.parts else ""


def _cell(cell: Cell | None) -> str:
    return "" if cell is None else f"{number(cell.count)}  {number(cell.cycles):>9}"


def _remarks(rows: Iterable[Row]) -> list[Text]:
    lines = [Text(f"{row.strategy}: {row.outcome}") for row in rows if not row.measured]
    lines += [
        Text(f"{row.strategy}: contains hooks' work that no VMM path prices (vmm.unpriced_hook)")
        for row in rows
        if "vmm.unpriced_hook" in row.events
    ]
    return lines


def _summary(names: Sequence[str], rows: Sequence[Row]) -> RenderableType:
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    columns = ["benchmark", "one iteration", *strategies]
    title = Text(f"{rows[0].suite}, {rows[0].profile}: cycles per iteration", style="bold")
    table = plain_table(columns, left=2)
    by_place = {(row.benchmark, row.strategy): row for row in rows}
    for name in names:
        of_name = [by_place[name, strategy] for strategy in strategies]
        table.add_row(name, of_name[0].sentence, *(_with_ratio(row) for row in of_name))
    remarks = [Text(f"{row.benchmark}, {row.strategy}: {row.outcome}") for row in rows if not row.measured]
    return Group(title, table, *remarks)


def show_run(title: str, result: "RunResult") -> RenderableType:
    """What one run did: outcome, totals, the events that took most of the time, exits by reason."""
    from .ledger import as_cycles

    facts = plain_table([title, ""])
    facts.add_row("outcome", result.outcome)
    if result.exit_code is not None:
        facts.add_row("exit code", str(result.exit_code))
    facts.add_row("guest instructions", number(result.instructions))
    facts.add_row("cycles", number(as_cycles(result.ticks)))
    for label, ticks in _places(result.ledger).items():
        if ticks:
            facts.add_row(f"  of which {label}", number(as_cycles(ticks)))
    parts: list[RenderableType] = [facts, _formula(result)]
    if result.ledger.event_count("translator.unit"):
        parts.append(_translation(result.ledger))
    exits = exits_of(result)
    if exits:
        parts.append(_exits(exits, result.ticks))
    if result.divergences:
        count = len(result.divergences)
        parts.append(Text(f"{count} effects of sensitive unprivileged instructions differed from the bare machine:"))
        parts += [Text(f"  {line}") for line in divergence_lines(result.divergences)]
    return Group(*parts)


def _places(ledger: "Ledger") -> dict[str, int]:
    """Ticks by mode; under a translator the guest's kernel is translated, and programs are or run directly."""
    places = {label: ledger.ticks_by_mode()[mode] for mode, label in MODE_LABELS.items()}
    if not ledger.event_count("translator.unit"):
        return places
    programs, translated = places.pop(MODE_LABELS["guest_user"]), ledger.event_count("translator.program_tick")
    kernel = places.pop(MODE_LABELS["guest_kernel"])
    return {
        "guest user, directly": programs - translated, "guest user, translated": translated, "guest kernel, translated": kernel
    } | places  # fmt: skip


def _translation(ledger: "Ledger") -> Table:
    """What the translator did, from the events that it counts."""
    count = {name: ledger.event_count(f"translator.{name}") for name in TRANSLATOR_ROWS}
    table = plain_table(["translation", "count"])
    for name, label in TRANSLATOR_ROWS.items():
        if count[name]:
            table.add_row(label, number(count[name]))
    table.add_row("bytes for a byte of the guest's", number(count["byte"] / count["guest_byte"]))
    return table


def divergence_lines(divergences: Sequence[object], most: int = 20) -> list[str]:
    """Divergences as lines, the first `most` of them."""
    lines = [str(divergence) for divergence in divergences[:most]]
    if len(divergences) > most:
        lines.append(f"and {len(divergences) - most} more")
    return lines


def exits_of(result: "RunResult") -> dict[str, dict[str, float]]:
    """VM exits by reason: `{reason: {count, cycles}}`, under an extension with the cycles of each part (exit_counts.py)."""
    from .ledger import as_cycles

    return {
        reason: {"count": row.count, "cycles": as_cycles(row.ticks)}
        | {part: as_cycles(ticks) for part, ticks in row.by_part().items()}
        for reason, row in parts_of(result.exits, result.ledger).items()
    }


def _exits(exits: Mapping[str, Mapping[str, float]], ticks: int) -> Table:
    """Frequency times latency, by reason; under an extension the latency is that of each part."""
    split = [part for part in PARTS if any(part in cell for cell in exits.values())]
    labels = [f"{PART_LABELS[part]} each" for part in split]
    table = plain_table(["VM exits by reason", "count", *labels, "cycles each", "cycles", "share"])
    total = max(ticks, 1) / 64
    for reason, cell in exits.items():
        count = max(cell["count"], 1)
        each = [number(cell[part] / count) if part in cell else "" for part in split]
        share = f"{100 * cell['cycles'] / total:.1f} %"
        table.add_row(reason, number(cell["count"]), *each, number(cell["cycles"] / count), number(cell["cycles"]), share)
    if split:
        sums = [sum(cell.get(part, 0) for cell in exits.values()) for part in ("count", *split, "cycles")]
        share = f"{100 * sums[-1] / total:.1f} %"
        table.add_section()
        table.add_row("sum, in cycles", *(number(value) for value in sums[:-1]), "", number(sums[-1]), share)
    return table


def _formula(result: "RunResult") -> Table:
    table = plain_table(["event", "count", "cycles", "cycles each", "share"])
    total = max(result.ticks, 1) / 64
    for row in result.ledger.formula()[:15]:
        latency = "-" if row.latency is None else number(float(row.latency))
        cycles = float(row.cycles)
        table.add_row(row.event, number(row.frequency), number(cycles), latency, f"{100 * cycles / total:.1f} %")
    return table


def make_console() -> Console:
    """A console that is plain, and as wide as its tables, when it is not a terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, markup=False, emoji=False, width=200, color_system=None)

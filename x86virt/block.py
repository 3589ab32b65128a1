"""Requests to a disk, one by one: the ring of a split driver beside the emulated IDE controller (`bench block`).

The disk itself takes most of the time, and is the same for all. What a technique costs is what the processor does meanwhile.
"""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from .report import MODE_LABELS, number, plain_table
from .suites import NATIVE, Benchmark, Row

NAME = "block"
STRATEGIES = (NATIVE, "paravirtual", "trap-and-emulate", "binary-translation", "vtx-ept")
ITERATIONS = 20
BATCH = "batch"
REQUESTS = {BATCH: 32}  # of one iteration, else one
IDLE = "idle"
PORTS = ("sys.in_port_lpc", "sys.out_port_lpc", "sys.in_port_chipset", "sys.out_port_chipset")
SWITCHES = ("vmm.domain_switch",)
REMARKS = (
    "Busy is what the processor does, for a request; the rest of the time it waits for the disk.",
    "Under the ring, domain 0 drives the machine's disk: its accesses to ports are in the figures. The sectors of an emulated "
    "disk come from nowhere: what a VMM's own driver would do at a real disk is not in them.",
)


def benchmarks() -> tuple[Benchmark, ...]:
    """The regions of the guest `blockio`."""
    rows = (
        ("write", "4 KB written and waited for"),
        ("read", "4 KB read and waited for"),
        (BATCH, "32 times 4 KB read, asked for at once; figures are for one of them"),
        ("long", "44 KB read by one request"),
    )
    return tuple(
        Benchmark(NAME, name, "blockio", number, ITERATIONS, sentence) for number, (name, sentence) in enumerate(rows)
    )


def show_block(rows: Sequence[Row]) -> RenderableType:
    """A table for each kind of request, a column for each technique; then what to know."""
    names = dict.fromkeys(row.benchmark for row in rows)
    ends = dict.fromkeys((row.strategy, row.outcome) for row in rows if not row.measured)
    return Group(
        *(part for name in names for part in table_of([row for row in rows if row.benchmark == name])),
        *(Text(f"  {strategy}: {outcome}") for strategy, outcome in ends),
        *map(Text, REMARKS),
    )


def table_of(rows: Sequence[Row]) -> tuple[Text, RenderableType]:
    """One kind of request under all techniques."""
    first = rows[0]
    measured = [(row, figures(row)) for row in rows if row.measured]
    table = plain_table(["one request", *(row.strategy for row, _ in measured)])
    for label in labels(measured):
        cells = [number(found.get(label, 0.0)) for _, found in measured]
        table.add_row(label, *cells, style="bold" if label == BUSY else None)
    return Text(f"{NAME} {first.benchmark}: {first.sentence}; {first.profile}", style="bold"), table


def labels(measured: "Sequence[tuple[Row, Mapping[str, float]]]") -> list[str]:
    """The lines of a table: those in which somebody has a figure."""
    every = (TIME, BUSY, *(f"  of which {label}" for label in MODE_LABELS.values()), AT_PORTS, EXITS, ACCESSES, DOMAINS)
    return [label for label in every if any(found.get(label) for _, found in measured)]


TIME, BUSY = "cycles until it is done", "busy cycles"
AT_PORTS, EXITS = "  of which at the machine's ports", "entries into the VMM"
ACCESSES, DOMAINS = "accesses to the machine's ports", "switches of domains"


def figures(row: Row) -> dict[str, float]:
    """What a row's table shows, for one request."""
    assert row.cycles_per_iteration is not None
    ports = [row.events[name] for name in PORTS if name in row.events]
    found = {
        TIME: row.cycles_per_iteration,
        BUSY: row.cycles_per_iteration - row.modes.get(IDLE, 0.0),
        AT_PORTS: sum(cell.cycles for cell in ports),
        EXITS: sum(cell.count for cell in row.exits.values()),
        ACCESSES: sum(cell.count for cell in ports),
        DOMAINS: sum(row.events[name].count for name in SWITCHES if name in row.events),
    }
    found |= {f"  of which {label}": row.modes.get(mode, 0.0) for mode, label in MODE_LABELS.items() if mode != IDLE}
    return {label: value / REQUESTS.get(row.benchmark, 1) for label, value in found.items()}

"""What each kind of VM exit costs, alone, on every profile whose processor has the hardware (`bench vmexit`).

The guest `exits` does one thing at a time in regions of its own, natively and under each hardware-assisted VMM. Which of
them exit is the technique's choice: under nested paging a write to CR3 is not even seen. So a row says how many exits one
iteration took, and what of its cycles fell between an exit and the entry behind it. A strategy whose hardware a profile
lacks is a row that says so.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from .report import number, plain_table
from .suites import NATIVE, Benchmark, Row

NAME = "vmexit"
GUEST = "exits"
STRATEGIES = (NATIVE, "vtx-shadow", "vtx-ept", "svm-shadow", "svm-npt")
ITERATIONS = 100
KINDS = (
    ("cpuid", "CPUID"),
    ("vmcall", "VMCALL, or VMMCALL of AMD: an invalid opcode, which the kernel skips"),
    ("invalid opcode", "UD2, which the kernel skips: the same without the call"),
    ("port in", "IN from a port without a device"),
    ("port out", "OUT to it"),
    ("MSR read", "RDMSR of MCG_STATUS"),
    ("MSR write", "WRMSR to it"),
    ("INVLPG", "INVLPG"),
    ("CR3 write", "a write of the same value to CR3"),
    ("CR0 write", "a write to CR0 that turns NE"),
    ("page fault", "a page fault that the kernel skips"),
    ("HLT", "HLT until the timer's interrupt is delivered, without the time at rest"),
    ("EPT violation", "the first store to a frame: a violation of nested tables, or a fill of the shadow"),
    ("interrupt window", "STI, and the delivery of an interrupt that waits"),
    ("descriptor table", "LIDT"),
)


def benchmarks() -> tuple[Benchmark, ...]:
    """One benchmark for each region of the guest, in its order."""
    rows = enumerate(KINDS)
    return tuple(Benchmark(NAME, name, GUEST, region, ITERATIONS, sentence) for region, (name, sentence) in rows)


def busy(row: Row) -> float | None:
    """Cycles of one iteration without those at rest."""
    return None if row.cycles_per_iteration is None else row.cycles_per_iteration - row.modes.get("idle", 0.0)


def exits_each(row: Row) -> tuple[float, float]:
    """VM exits in one iteration, and the cycles from each exit to the entry behind it."""
    cells = row.exits.values()
    return sum(cell.count for cell in cells), sum(cell.cycles for cell in cells)


def show_vmexit(rows: Sequence[Row]) -> RenderableType:
    """A table for each profile, then what each line is."""
    ordered = sorted(rows, key=lambda row: row.profile)
    tables = [show_profile(list(of_profile)) for _, of_profile in groupby(ordered, key=lambda row: row.profile)]
    names = dict.fromkeys((row.benchmark, row.sentence) for row in rows)
    return Group(*tables, *(Text(f"  {name}: {sentence}") for name, sentence in names))


def show_profile(rows: Sequence[Row]) -> RenderableType:
    """One profile: what one iteration of each kind costs under each strategy that its processor can run."""
    measured = list(dict.fromkeys(row.strategy for row in rows if row.measured))
    columns = ["cycles of one iteration"]
    for strategy in measured:
        columns += [strategy] if strategy == NATIVE else [strategy, "over native", "exits", "cycles in exits"]
    table = plain_table(columns)
    found = {(row.benchmark, row.strategy): row for row in rows}
    for name in dict.fromkeys(row.benchmark for row in rows):
        bare = found.get((name, NATIVE))
        line = [name]
        for strategy in measured:
            line += figures(found[name, strategy], bare)
        table.add_row(*line)
    return Group(Text(rows[0].profile, style="bold"), table, *map(Text, remarks(rows)))


def figures(row: Row, bare: Row | None) -> Iterator[str]:
    """The columns of one strategy."""
    cycles = busy(row)
    yield number(cycles)
    if row.strategy == NATIVE:
        return
    native = None if bare is None else busy(bare)
    yield "-" if not native or cycles is None else f"x {cycles / native:.2f}"
    yield from map(number, exits_each(row)) if row.measured else ("-", "-")


def remarks(rows: Sequence[Row]) -> Iterator[str]:
    """Which strategies gave no figures, and why: one line for each reason."""
    for strategy, outcome in dict.fromkeys((row.strategy, row.outcome) for row in rows if not row.measured):
        yield f"  {strategy}: {outcome}"

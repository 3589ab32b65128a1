"""What each kind of VM exit costs, alone, on every profile whose processor has the hardware (`bench vmexit`).

The guest `exits` does one thing at a time in regions of its own, natively and under each hardware-assisted VMM. Which of
them exit is the technique's choice: under nested paging a write to CR3 is not even seen. So a row says how many exits one
iteration took, and what their parts cost: the exit, the VMM's handler, its accesses to the control structure, the entry. A
strategy whose hardware a profile lacks is a row that says so; a processor without descriptor-table exiting takes none.
"""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from .exit_counts import PARTS
from .report import number, plain_table
from .suites import NATIVE, Benchmark, Row

NAME = "vmexit"
GUEST = "exits"
ASSISTED = ("vtx-shadow", "vtx-ept", "svm-shadow", "svm-npt")
STRATEGIES = (NATIVE, *(f"{name},descriptor_tables=on" for name in ASSISTED))
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


def show_vmexit(rows: Sequence[Row]) -> RenderableType:
    """A table for each profile and strategy, then what each line is."""
    native = {(row.profile, row.benchmark): row for row in rows if row.strategy == NATIVE}
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        runs.setdefault((row.profile, row.strategy), []).append(row)
    alone = {strategy for _, strategy in runs} == {NATIVE}
    shown = [show_one(run, native) for (_, strategy), run in sorted(runs.items()) if alone or strategy != NATIVE]
    names = dict.fromkeys((row.benchmark, row.sentence) for row in rows)
    return Group(*shown, *(Text(f"  {name}: {sentence}") for name, sentence in names))


def show_one(rows: Sequence[Row], native: Mapping[tuple[str, str], Row]) -> RenderableType:
    """One strategy on one profile beside the bare machine, or a line that says why there is nothing."""
    first = rows[0]
    title = f"{first.profile}, {first.strategy}"
    if not any(row.measured for row in rows):
        return Text(f"{title}: {first.outcome}\n")
    table = plain_table(["cycles of one iteration", NATIVE, first.strategy.partition(",")[0], "over native", "exits", *PARTS])
    for row in rows:
        bare = native.get((row.profile, row.benchmark))
        table.add_row(row.benchmark, number(None if bare is None else busy(bare)), *figures(row, bare))
    return Group(Text(title, style="bold"), table)


def figures(row: Row, bare: Row | None) -> list[str]:
    """Cycles, the ratio to the bare machine, exits and the cycles of their parts."""
    cycles, least = busy(row), None if bare is None else busy(bare)
    if cycles is None:
        return ["-"] * (3 + len(PARTS))
    cells = row.exits.values()
    parts = [sum(cell.parts.get(part, 0.0) for cell in cells) for part in PARTS]
    ratio = f"x {cycles / least:.2f}" if least else "-"
    return [number(cycles), ratio, number(sum(cell.count for cell in cells)), *map(number, parts)]

"""The process figures of lmbench as Barham et al. published them (SOSP 2003, table 3), beside ours (`bench lmbench`).

The guest is the Unix-like kernel: on the bare machine, ported to hypercalls, and translated. The publication's machine has no
profile of its own; ours is the NetBurst profile nearest to it, at its clock. The ratios to the bare machine are what is to
be compared, and even they only as far as the sizes agree: see `REMARKS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from .report import plain_table
from .suites import NATIVE, UNIX, Benchmark, Row

if TYPE_CHECKING:
    from .api import Setup
    from .profile import Profile

NAME = "lmbench"
PROFILE, MHZ = "p4_prescott", 2400
STRATEGIES = (NATIVE, "paravirtual", "binary-translation")
ITERATIONS = 50


@dataclass(frozen=True)
class Line:
    """One line: its name, the rows of the suite `unix` whose mean it is, and the published row's middle name."""

    name: str
    marks: tuple[str, ...]
    published: str
    sentence: str


LINES = (
    Line("null call", ("null_int80",), "null_call", "the number of the parent asked for"),
    Line("null I/O", ("null_read", "null_write"), "null_io", "a byte from or to a device without anything behind it, the mean"),
    Line("stat", ("stat",), "stat", "the status of a file by its name"),
    Line("open and close", ("open_close",), "open_close", "a file opened by its name, and closed"),
    Line("signal set", ("signal_set",), "sig_inst", "a signal's handler set"),
    Line("signal handled", ("signal",), "sig_hndl", "a signal sent to oneself, its handler, its return"),
    Line("fork", ("fork",), "fork", "fork, the child exits, wait"),
    Line("exec", ("fork_exec",), "exec", "the same, and the child becomes another program before it exits"),
)
COLUMNS = {NATIVE: ("lup", "Linux"), "paravirtual": ("xen", "Xen"), "binary-translation": ("vmw", "VMware")}
"""Technique -> the last name of the published rows that it is compared with, and who that is."""
REMARKS = (
    "The published figures are recalled, not read (benchmarks/reference/published.csv): they inform, they do not gate.",
    "Published: Linux 2.4.21 on one Xeon of 2.4 GHz (of the Northwood kind, the one before Prescott) with 2 GB. Ours: a "
    "kernel of three thousand lines in 8 MB.",
    "A name is looked up among 50 here, in one folder and without a cache of entries: stat and open are not Linux's.",
    "Our process that forks has 100 pages and two page tables; that of lmbench is not described. exec starts a program from "
    "memory that touches three pages and is linked statically; Linux's mapped a dynamic linker and a C library.",
    "On the bare machine our fork is a quarter as long as Linux's, our exec a twelfth: what a VMM adds weighs more in a ratio.",
)


def benchmarks() -> tuple[Benchmark, ...]:
    """The rows of the suite `unix` that the lines are made of."""
    wanted = [mark for line in LINES for mark in line.marks]
    return tuple(replace(row, suite=NAME, iterations=ITERATIONS) for row in UNIX if row.name in wanted)


def profile() -> "Profile":
    """The profile at the clock of the publication's machine."""
    from .profile import load_profile
    from .validation.interval import at_clock
    from .validation.plan import shipped_plan

    return at_clock(load_profile(PROFILE), MHZ, shipped_plan().in_nanoseconds)


def on_that_machine(setups: "Sequence[Setup]") -> "list[Setup]":
    """The setups with that profile."""
    chosen = profile()
    return [replace(setup, profile=chosen) for setup in setups]


def clock_of(setup: "Setup") -> Fraction:
    """The clock of a setup's processor in MHz."""
    clock = setup.profile.values["cpu.mhz"].exact
    assert clock is not None
    return clock


def published(line: Line, strategy: str) -> Fraction | None:
    """The published figure of a line in microseconds, if there is one for that technique."""
    from .validation.plan import technique
    from .validation.published import published_rows

    column = COLUMNS.get(technique(strategy))
    if column is None:
        return None
    found = [row.value for row in published_rows() if row.id == f"xen03.lmproc.{line.published}.{column[0]}"]
    return found[0] if found else None


def microseconds(line: Line, rows: Mapping[str, Row], mhz: Fraction) -> Fraction | None:
    """What one iteration of a line takes, from the rows of one strategy by their names."""
    figures = [rows[mark].cycles_per_iteration for mark in line.marks]
    if any(figure is None for figure in figures):
        return None
    return sum(map(Fraction, filter(None, figures)), Fraction(0)) / len(figures) / mhz


def show_lmbench(rows: Sequence[Row], mhz: Fraction) -> RenderableType:
    """Microseconds and ratios to the bare machine, each beside what was published; then what to know."""
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    runs = {strategy: {row.benchmark: row for row in rows if row.strategy == strategy} for strategy in strategies}
    figures = {name: {line.name: microseconds(line, run, mhz) for line in LINES} for name, run in runs.items()}
    title = f"{NAME}, {rows[0].profile} at {float(mhz):,.0f} MHz"
    sentences = [Text(f"  {line.name}: {line.sentence}") for line in LINES]
    ends = dict.fromkeys((row.strategy, row.outcome) for row in rows if not row.measured)
    return Group(
        Text(title, style="bold"),
        table_of_times(figures),
        *([table_of_ratios(figures)] if NATIVE in figures and len(figures) > 1 else []),
        *sentences,
        *(Text(f"  {strategy}: {outcome}") for strategy, outcome in ends),
        *map(Text, REMARKS),
    )


Figures = Mapping[str, Mapping[str, Fraction | None]]


def table_of_times(figures: Figures) -> RenderableType:
    """Microseconds, each beside the published ones."""
    table = plain_table(["microseconds", *(head for name in figures for head in heads(name, name))])
    for line in LINES:
        cells = [cell for name in figures for cell in pair(name, figures[name][line.name], published(line, name))]
        table.add_row(line.name, *cells)
    return table


def table_of_ratios(figures: Figures) -> RenderableType:
    """Ratios to the bare machine, each beside the published one."""
    others = [name for name in figures if name != NATIVE]
    table = plain_table(["over the bare machine", *(head for name in others for head in heads(name, name))])
    for line in LINES:
        bare, bare_published = figures[NATIVE][line.name], published(line, NATIVE)
        cells = []
        for name in others:
            cells += pair(name, over(figures[name][line.name], bare), over(published(line, name), bare_published))
        table.add_row(line.name, *cells)
    return table


def heads(strategy: str, head: str) -> list[str]:
    """The heads of a strategy's column and, if there is one, of the published column beside it."""
    from .validation.plan import technique

    column = COLUMNS.get(technique(strategy))
    return [head] if column is None else [head, f"({column[1]})"]


def pair(strategy: str, ours: Fraction | None, theirs: Fraction | None) -> list[str]:
    """Two cells, or one where nothing was published."""
    return [text(ours), text(theirs, "({})")][: len(heads(strategy, ""))]


def over(value: Fraction | None, bare: Fraction | None) -> Fraction | None:
    """A ratio, if there are both."""
    return value / bare if value is not None and bare else None


def text(value: Fraction | None, form: str = "{}") -> str:
    """A figure with two decimals, or a dash."""
    return "-" if value is None else form.format(f"{float(value):,.2f}")

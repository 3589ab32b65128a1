"""The benchmark suites: each benchmark is a row that names a guest and one of its measured regions.

`measure` runs the guests and gives a `Row` for every benchmark and strategy. Counts and cycles of a row are per
iteration unless they say otherwise; regions mark themselves, so that set-up is not counted.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import SuiteError, near_matches, show
from .exit_counts import parts_of
from .guests import PARAVIRTUAL, guests

if TYPE_CHECKING:
    from .api import Setup
    from .machine import Region

NATIVE = "native"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: region number `region` of a guest, run `iterations` times; the sentence says what one is."""

    suite: str
    name: str
    guest: str
    region: int
    iterations: int
    sentence: str


@dataclass(frozen=True)
class Cell:
    """How often an event happened in one iteration, and the cycles that it took."""

    count: float
    cycles: float


@dataclass(frozen=True)
class ExitCell(Cell):
    """Exits of one reason in one iteration; under an extension the cycles of each part (exit_counts.py), else none."""

    parts: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, float]:
        """Count, cycles, and the parts by name."""
        return {"count": self.count, "cycles": self.cycles, **self.parts}


@dataclass
class Row:
    """What one benchmark gave under one strategy.

    `cycles` is the whole region's; `cycles_per_iteration`, `modes` (cycles by mode) and `events` are per iteration,
    and so are `exits`, a view of the same time by exit reason. `outcome` is `done`, or why there are no figures.
    """

    suite: str
    benchmark: str
    sentence: str
    strategy: str
    profile: str
    iterations: int
    outcome: str
    cycles: float | None = None
    cycles_per_iteration: float | None = None
    ratio_to_native: float | None = None
    modes: dict[str, float] = field(default_factory=dict)
    events: dict[str, Cell] = field(default_factory=dict)
    exits: dict[str, ExitCell] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there are figures."""
        return self.cycles is not None

    def as_json(self) -> dict[str, Any]:
        """The row as `bench --json` prints it."""
        return {
            "suite": self.suite,
            "benchmark": self.benchmark,
            "strategy": self.strategy,
            "profile": self.profile,
            "iterations": self.iterations,
            "cycles": self.cycles,
            "cycles_per_iteration": self.cycles_per_iteration,
            "ratio_to_native": self.ratio_to_native,
            "modes": self.modes,
            "events": {name: {"count": cell.count, "cycles": cell.cycles} for name, cell in self.events.items()},
            "exits": {name: cell.as_json() for name, cell in self.exits.items()},
            "outcome": self.outcome,
        }


SYSCALL = (
    Benchmark("syscall", "int80", "syscall", 0, 1000, "a null system call by INT 0x80, interrupt gate and IRET"),
    Benchmark("syscall", "sysenter", "syscall", 1, 1000, "a null system call by SYSENTER, STI and SYSEXIT"),
)
UNIX_ITERATIONS = 20  # of every row, so that one run gives them all
UNIX = tuple(
    Benchmark("unix", name, "unix", number, UNIX_ITERATIONS, sentence)
    for number, (name, sentence) in enumerate(
        (
            ("null_int80", "a null system call of a Unix-like kernel, by INT 0x80"),
            ("null_page", "the same by the code that the kernel offers (SYSENTER)"),
            ("fork_copying", "fork of a process of 100 pages that are copied, exit, wait"),
            ("fork", "fork of a process of 100 pages that are shared until one is written, exit, wait"),
            ("fork_exec", "the same, and the child becomes another program"),
            ("pipe", "one byte to another process and back through two pipes: two context switches"),
            ("ring", "one byte once around a ring of 8 processes: 8 context switches"),
            ("page_touch", "the first touch of a page of a mapping"),
            ("mmap", "64 KB mapped, its 16 pages touched, unmapped"),
            ("signal", "a signal sent to oneself, its handler, its return"),
            ("protection", "a write to a protected page, the signal's handler, its return"),
            ("read", "4 KB read from a file of the RAM disk"),
            ("null_read", "one byte read from the device of zeros"),
            ("null_write", "one byte written to the device of nothing"),
            ("stat", "the status of a file, by its name"),
            ("open_close", "a file opened by its name, and closed"),
            ("signal_set", "a signal's handler set"),
        )
    )
)
WORDS = {"unix": "program=marks timer=off"}  # for the command line: only what is measured, and no tick inside
MICRO_ITERATIONS = {"pgfault": 255, "mix": 5, "irq": 20}  # else the guest's default
SUITE_SENTENCES = {
    "syscall": "the system call round trip",
    "unix": "what lmbench measures, on a small Unix-like kernel: calls, processes, pipes, pages, signals",
    "lmbench": "the process figures that Barham et al. published, beside ours: bare, paravirtual, translated",
    "block": "requests to a disk: the ring of a split driver beside the emulated controller",
    "optimisations": "what each choice of a software VMM buys: one table of kernels under each, over the bare machine",
    "vmexit": "each kind of VM exit alone, on every profile with the hardware",
    "micro": "one event each: calls, faults, page tables, ports, address spaces, interrupts",
    "speed": "the emulator itself, in host time",
}


def suite_names() -> list[str]:
    """The names of all suites."""
    return list(SUITE_SENTENCES)


def suite(name: str) -> tuple[Benchmark, ...]:
    """The benchmarks of a suite (`speed` has its own module). Raises SuiteError."""
    if name == "syscall":
        return SYSCALL
    if name == "unix":
        return UNIX
    if name == "micro":
        return tuple(_micro())
    if name == "block":
        from .block import benchmarks as requests

        return requests()
    if name == "lmbench":
        from .lmbench import benchmarks as published

        return published()
    if name == "optimisations":
        from .optimisations import benchmarks

        return benchmarks()
    if name == "vmexit":
        from .vmexit import benchmarks as kinds

        return kinds()
    names = suite_names()
    advice = f"use one of {', '.join(names)}{near_matches(name, names)}"
    raise SuiteError(f"suite {show(name)}", "no such suite", advice)


def _micro() -> Iterable[Benchmark]:
    """Every measured region of every shipped guest."""
    for guest in guests().values():
        iterations = MICRO_ITERATIONS.get(guest.name, guest.default_iterations)
        for number, sentence in enumerate(guest.regions):
            name = guest.name if len(guest.regions) == 1 else f"{guest.name}.{number}"
            yield Benchmark("micro", name, guest.name, number, iterations, sentence)


def command_line(guest: str, iterations: int) -> str:
    """What a guest is told so that it does nothing but what is measured, so often."""
    return f"iterations={iterations} {WORDS.get(guest, '')}".rstrip()


def measure(
    benchmarks: Sequence[Benchmark],
    setups: "Sequence[Setup]",
    iterations: int | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Run the benchmarks under every setup; `iterations` replaces each benchmark's own number.

    A guest runs once for all of its regions. Benchmarks come in the order given, strategies within each.
    """
    from .api import run_setup

    regions: dict[tuple[str, int, int], tuple[str, dict[int, Region]]] = {}
    rows = []
    for benchmark in benchmarks:
        count = iterations or benchmark.iterations
        row_of_native = None
        for number, setup in enumerate(setups):
            key = (benchmark.guest, count, number)
            if key not in regions:
                progress(f"{benchmark.guest} under {setup.name}, {setup.profile.name}")
                regions[key] = run_setup(setup, benchmark.guest, command_line(benchmark.guest, count))
            row = _row(benchmark, setup, count, *regions[key])
            if setup.name == NATIVE:
                row_of_native = row
            rows.append(_with_ratio(row, row_of_native))
    return rows


def _row(benchmark: Benchmark, setup: "Setup", iterations: int, outcome: str, regions: "dict[int, Region]") -> Row:
    row = Row(benchmark.suite, benchmark.name, benchmark.sentence, setup.name, setup.profile.name, iterations, outcome)
    region = regions.get(benchmark.region)
    if outcome != "done" or region is None:
        row.outcome = outcome if outcome != "done" else not_reached(benchmark, setup)
        return row
    row.iterations = region.iterations
    fill(row, region)
    return row


def not_reached(benchmark: Benchmark, setup: "Setup") -> str:
    """Why a guest that ended well has no such region."""
    port = guests()[benchmark.guest].port
    if setup.strategy.processor == PARAVIRTUAL and port is not None and benchmark.region in port.left_out:
        return f"unsupported: the interface of {setup.name} has nothing in its place"
    return f"region {benchmark.region} was not reached"


def fill(row: Row, region: "Region") -> None:
    """Put the figures of a region into its row."""
    from .ledger import as_cycles

    iterations = max(row.iterations, 1)

    def each(ticks: int) -> float:
        return as_cycles(ticks) / iterations

    row.cycles = as_cycles(region.ticks)
    row.cycles_per_iteration = each(region.ticks)
    row.modes = {mode: each(ticks) for mode, ticks in region.ledger.ticks_by_mode().items()}
    for event in region.ledger.as_json():
        count, ticks = region.ledger.event_count(event), region.ledger.event_ticks(event)
        row.events[event] = Cell(count / iterations, each(ticks))
    for reason, parts in parts_of(region.exits, region.ledger).items():
        row.exits[reason] = ExitCell(
            parts.count / iterations, each(parts.ticks), {part: each(ticks) for part, ticks in parts.by_part().items()}
        )


def _with_ratio(row: Row, native: Row | None) -> Row:
    if native is not None and native.cycles_per_iteration and row.cycles_per_iteration is not None:
        row.ratio_to_native = row.cycles_per_iteration / native.cycles_per_iteration
    return row

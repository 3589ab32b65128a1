"""How fast the emulator itself is, in host time: the only figures of the project that depend on the host.

All models are on: TLB, caches, ledger. On the bare machine the figures are those of the seven phases of the guest
`speed`, under a VMM those of one guest each. All are timed within the guest's measured regions, from the first
instruction of each to its last, the best of three runs.
`benchmarks/bench_speed.py` runs the same seven phases on other emulators.
"""

import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from .api import Setup, passed, strategy_errors
from .errors import UnsupportedError
from .guests import find_guest, guests
from .host import machine_name
from .report import number, plain_table

if TYPE_CHECKING:
    from .machine import Machine, RunResult
    from .profile import Profile
    from .start.boot import Bootable
    from .vmm import Strategy

REPEATS = 3
SHORTEST, GOAL = 0.4, 1.0  # seconds of a measured run
CPUID_SEP = 1 << 11
NATIVE = "native"
SOFTWARE = ("trap_and_emulate", "binary_translation")
EXITS = "exits"


@dataclass(frozen=True)
class Loop:
    """One measured loop: a guest, the iterations to begin with, what one event is, whether SYSENTER is there.

    An event is an iteration, or where `counted` names events of the ledger each of these, or each VM exit for `exits`.
    With `processors` the loop is one for techniques of these kinds alone, with `memory` for those that keep memory so.
    """

    name: str
    guest: str
    iterations: int
    event: str
    has_sysenter: bool = True
    counted: tuple[str, ...] = ()
    processors: tuple[str, ...] = ()
    memory: str = ""

    def suits(self, strategy: "type[Strategy]") -> bool:
        """Whether it says something of a technique."""
        return (not self.processors or strategy.processor in self.processors) and self.memory in ("", strategy.memory)


@dataclass(frozen=True)
class Phase:
    """One phase of the guest `speed`: its name, the iterations to begin with, what one event is."""

    name: str
    iterations: int
    event: str


PHASES = (
    Phase("alu", 20, "pass of 1000"),
    Phase("mix", 2, "sort, sieve and copy"),
    Phase("int80", 20_000, "INT 0x80 round trip"),
    Phase("pgfault", 20_000, "page fault"),
    Phase("cr3", 2_000, "CR3 switch, 64 pages touched"),
    Phase("pte", 20_000, "PTE change and INVLPG"),
    Phase("portio", 40_000, "IN and OUT"),
)
PHASE_TABLE = struct.pack("<7I", 1, 1, 200, 200, 20, 200, 400)  # as benchmarks/guests/speed.asm has it
VMM_LOOPS = (
    Loop("alu", "alu", 200, "pass of 1000"),
    Loop("syscall", "syscall", 100, "INT 0x80 round trip", has_sysenter=False),
    Loop("portio", "portio", 100, "IN and OUT"),
    # What the VMM itself does in a second of host time.
    Loop("vmm_privileged", "portio", 100, "VM exit", counted=(EXITS,), processors=("trap_and_emulate",)),
    Loop("vmm_hardware", "portio", 100, "VM exit", counted=(EXITS,), processors=("vtx", "svm")),
    Loop("vmm_callout", "portio", 100, "callout", counted=(EXITS,), processors=("binary_translation",)),
    Loop("vmm_hypercall", "ptemod", 100, "hypercall", counted=("vmm.hypercall",), processors=("paravirtual",)),
    Loop("vmm_bounce", "divzero", 100, "bounced exception", counted=("vmm.bounce",), processors=("paravirtual",)),
    Loop("vmm_fill", "ptemod", 100, "shadow fill", counted=("vmm.shadow_fill",), memory="shadow"),
    Loop("vmm_reflect", "divzero", 100, "reflected exception", counted=("vmm.reflect",), processors=SOFTWARE),
)


@dataclass(frozen=True)
class SpeedRow:
    """One figure. `guest_mips`: million guest instructions a second of host time; `exits_per_second`: VM exits."""

    benchmark: str
    strategy: str
    profile: str
    iterations: int
    outcome: str
    seconds: float
    event: str = ""
    guest_mips: float | None = None
    events_per_second: float | None = None
    exits_per_second: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The row as `bench speed --json` prints it."""
        return {
            "suite": "speed",
            "benchmark": self.benchmark,
            "strategy": self.strategy,
            "profile": self.profile,
            "iterations": self.iterations,
            "seconds": self.seconds,
            "guest_mips": self.guest_mips,
            "event": self.event,
            "events_per_second": self.events_per_second,
            "exits_per_second": self.exits_per_second,
            "outcome": self.outcome,
        }


def measure_speed(setups: Sequence[Setup], cold: bool, progress: Callable[[str], None]) -> list[SpeedRow]:
    """All figures for the setups, the start of a warm process, and with `cold` the compilation from nothing."""
    rows = []
    for setup in setups:
        if setup.name == NATIVE:
            progress(f"the seven phases of `speed` under {NATIVE}, {setup.profile.name}, best of {REPEATS}")
            rows += measure_phases(setup)
            continue
        for loop in VMM_LOOPS:
            if not loop.suits(setup.strategy):
                continue
            progress(f"{loop.guest} under {setup.name}, {setup.profile.name}, best of {REPEATS}")
            rows.append(measure_loop(setup, loop))
    profile = setups[0].profile.name
    if cold:
        progress("one start from an empty cache of compiled code")
        with tempfile.TemporaryDirectory(prefix="x86virt-cold-") as folder:
            rows.append(start_row("cold start", profile, folder, 1))
    progress("starts from a warm cache")
    rows.append(start_row("warm start", profile, None, REPEATS))
    return rows


def measure_phases(setup: Setup) -> list[SpeedRow]:
    """The best of three runs of each phase of `speed`, each of about a second."""
    instructions: list[int] = []

    def run(counts: Sequence[int]) -> list[float]:
        seconds, instructions[:] = time_phases(setup, counts)
        return seconds

    counts, seconds = calibrate(run)
    for _ in range(REPEATS - 1):
        seconds = [min(pair) for pair in zip(seconds, run(counts), strict=True)]
    return [
        SpeedRow(
            phase.name,
            setup.name,
            setup.profile.name,
            count,
            "done",
            best,
            phase.event,
            guest_mips=done / best / 1e6,
            events_per_second=count / best,
        )
        for phase, count, best, done in zip(PHASES, counts, seconds, instructions, strict=True)
    ]


def calibrate(run: Callable[[Sequence[int]], list[float]]) -> tuple[list[int], list[float]]:
    """Iterations by phase with which each lasts long enough, and the seconds of the run that showed it.

    `run` gives the seconds of each phase; what it cannot measure is infinite.
    """
    counts = [phase.iterations for phase in PHASES]
    run(counts)  # compiles what has to be compiled
    while True:
        seconds = run(counts)
        if min(seconds) >= SHORTEST:
            return counts, seconds
        counts = [
            count if spent >= SHORTEST else count * max(2, min(20, round(GOAL / max(spent, 1e-6))))
            for count, spent in zip(counts, seconds, strict=True)
        ]


def speed_image(counts: Sequence[int]) -> bytes:
    """The file of the guest `speed`, with these iterations by phase written into its table."""
    content = guests()["speed"].path.read_bytes()
    assert content.count(PHASE_TABLE) == 1, "the guest's table of iterations is not what this module expects"
    return content.replace(PHASE_TABLE, struct.pack("<7I", *counts))


def time_phases(setup: Setup, counts: Sequence[int]) -> tuple[list[float], list[int]]:
    """Run `speed` once: host seconds and guest instructions of each phase."""
    from .start.multiboot import parse_image

    machine = setup.machine()
    marks = timed_marks(machine)
    machine.load(parse_image(speed_image(counts), "speed"))
    result = machine.run()
    if not passed(result.outcome, result.exit_code):
        raise RuntimeError(f"the guest `speed` ended with {result.outcome}: {result.console.decode(errors='replace')}")
    return seconds_of_regions(marks), [region.instructions for region in result.regions]


def timed_marks(machine: "Machine") -> list[tuple[float, float]]:
    """The host's time before and after the machine's own work at each mark of its guest, as the run goes on."""
    marks: list[tuple[float, float]] = []
    inner = machine.on_mark

    def on_mark() -> None:
        reached = time.perf_counter()
        inner()
        marks.append((reached, time.perf_counter()))

    machine.on_mark = on_mark  # type: ignore[method-assign]
    return marks


def seconds_of_regions(marks: list[tuple[float, float]]) -> list[float]:
    """How long each region took, from the mark that begins it to the one that ends it."""
    return [end[0] - begin[1] for begin, end in zip(marks[::2], marks[1::2], strict=True)]


def measure_loop(setup: Setup, loop: Loop) -> SpeedRow:
    """The best of three runs of a loop, of about a second each; shorter runs before them compile and find that size."""
    chosen = replace(setup, max_cycles=None)
    if not loop.has_sysenter:
        chosen = replace(chosen, profile=without_sysenter(setup.profile))
    image = find_guest(loop.guest)
    row = SpeedRow(loop.name, setup.name, setup.profile.name, loop.iterations, "done", 0.0, event=loop.event)
    try:
        _timed(chosen, image, 1)
        iterations = loop.iterations
        seconds, result = _timed(chosen, image, iterations)
        while seconds < SHORTEST and passed(result.outcome, result.exit_code):
            iterations *= max(2, min(20, round(GOAL / max(seconds, 1e-6))))
            seconds, result = _timed(chosen, image, iterations)
    except UnsupportedError as error:
        return replace(row, outcome=f"unsupported: {error.what}")
    if not passed(result.outcome, result.exit_code):
        return replace(row, outcome=result.outcome)
    best = min(seconds, *(_timed(chosen, image, iterations)[0] for _ in range(REPEATS - 1)))
    exits, instructions = exits_of(result), sum(region.instructions for region in result.regions)
    return replace(
        row,
        iterations=iterations,
        seconds=best,
        guest_mips=instructions / best / 1e6,
        events_per_second=events_of(loop, result, iterations) / best,
        exits_per_second=exits / best if exits else None,
    )


def events_of(loop: Loop, result: "RunResult", iterations: int) -> int:
    """How many events of a loop there were in the guest's regions."""
    if not loop.counted:
        return iterations
    if loop.counted == (EXITS,):
        return exits_of(result)
    return sum(region.ledger.event_count(event) for region in result.regions for event in loop.counted)


def exits_of(result: "RunResult") -> int:
    """The VM exits in the guest's regions."""
    return sum(row.number for region in result.regions for row in region.exits.values())


def _timed(setup: Setup, image: "Bootable", iterations: int) -> "tuple[float, RunResult]":
    """Host seconds of the guest's regions in one run, and its result."""
    with strategy_errors(setup.name):
        machine = setup.load(image, f"iterations={iterations}")
        marks = timed_marks(machine)
        result = machine.run(setup.max_cycles)
    if not passed(result.outcome, result.exit_code):
        return SHORTEST, result
    return sum(seconds_of_regions(marks)), result


def without_sysenter(profile: "Profile") -> "Profile":
    """The same processor without CPUID.SEP, for which the `syscall` guest leaves its second region out."""
    features = profile.values["cpuid.features"]
    value = profile.integer("cpuid.features") & ~CPUID_SEP
    changed = replace(features, value=value, exact=Fraction(value))
    return replace(profile, values=MappingProxyType({**profile.values, "cpuid.features": changed}))


def start_row(name: str, profile: str, cache: str | None, repeats: int) -> SpeedRow:
    """The best time of a whole process `x86virt run hello`; `cache`: another folder for compiled code."""
    environment = dict(os.environ)
    if cache is not None:
        environment["X86VIRT_CACHE"] = cache
        environment.pop("NUMBA_CACHE_DIR", None)
    command = [sys.executable, "-m", "x86virt", "run", "hello"]
    best, outcome = 0.0, "done"
    for _ in range(repeats):
        started = time.perf_counter()
        finished = subprocess.run(command, env=environment, check=False, capture_output=True)
        seconds = time.perf_counter() - started
        best = min(best or seconds, seconds)
        if finished.returncode:
            outcome = f"exit status {finished.returncode}"
    return SpeedRow(name, NATIVE, profile, 1, outcome, best, "`x86virt run hello`")


def show_speed(rows: Sequence[SpeedRow]) -> RenderableType:
    """The figures as a table."""
    table = plain_table(
        ["benchmark", "strategy", "million guest instructions / s", "events / s", "event", "VM exits / s", "seconds"],
        left=2,
    )
    for row in rows:
        table.add_row(
            row.benchmark,
            row.strategy,
            number(row.guest_mips),
            number(_whole(row.events_per_second)),
            row.event if row.outcome == "done" else row.outcome,
            number(_whole(row.exits_per_second)),
            number(row.seconds, 2),
        )
    return Group(Text(f"speed of the emulator on {machine_name()}, best of {REPEATS}", style="bold"), table)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)

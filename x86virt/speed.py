"""How fast the emulator itself is, in host time: the only figures of the project that depend on the host.

All models are on: TLB, caches, ledger. Each figure is the best of three runs of one guest, timed from the first
instruction to the last; what a guest does before and after its loop is less than a thousandth of it.
"""

import os
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

from .api import Setup, passed
from .errors import UnsupportedError
from .guests import find_guest
from .host import machine_name
from .report import number, plain_table

if TYPE_CHECKING:
    from .loader import Image
    from .machine import RunResult
    from .profile import Profile

REPEATS = 3
SHORTEST, GOAL = 0.4, 1.0  # seconds of a measured run
CPUID_SEP = 1 << 11
NATIVE = "native"


@dataclass(frozen=True)
class Loop:
    """One measured loop: a guest, the iterations to begin with, what one event is, whether SYSENTER is there."""

    name: str
    guest: str
    iterations: int
    event: str
    has_sysenter: bool = True


NATIVE_LOOPS = (
    Loop("alu", "alu", 200, "pass of 1000"),
    Loop("mix", "mix", 50, "sort, sieve and copy"),
    Loop("syscall", "syscall", 1_000, "INT 0x80 round trip", has_sysenter=False),
    Loop("pgfault", "pgfault", 1_000, "page fault"),
)
VMM_LOOPS = (
    Loop("alu", "alu", 200, "pass of 1000"),
    Loop("syscall", "syscall", 100, "INT 0x80 round trip", has_sysenter=False),
    Loop("portio", "portio", 100, "IN and OUT"),
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
        for loop in NATIVE_LOOPS if setup.name == NATIVE else VMM_LOOPS:
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
            iterations *= max(2, min(20, round(GOAL / seconds)))
            seconds, result = _timed(chosen, image, iterations)
    except UnsupportedError as error:
        return replace(row, outcome=f"unsupported: {error.what}")
    if not passed(result.outcome, result.exit_code):
        return replace(row, outcome=result.outcome)
    best = min(seconds, *(_timed(chosen, image, iterations)[0] for _ in range(REPEATS - 1)))
    exits = sum(count for count, _ in result.exits.values())
    return replace(
        row,
        iterations=iterations,
        seconds=best,
        guest_mips=result.instructions / best / 1e6,
        events_per_second=iterations / best,
        exits_per_second=exits / best if exits else None,
    )


def _timed(setup: Setup, image: "Image", iterations: int) -> "tuple[float, RunResult]":
    """Host seconds of one run, and its result."""
    started = time.perf_counter()
    result = setup.run(image, f"iterations={iterations}")
    return time.perf_counter() - started, result


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

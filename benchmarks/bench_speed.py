"""The seven phases of the guest `speed` on this emulator and on others that are installed (``make bench-speed``).

Each emulator runs the same image; its phases are made long enough for its own speed. Time is the host's: between the
marks of the phases on our machine, on the others between the arrivals of the lines that the guest prints before
and after each phase. Instructions are those that our ledger counts for one iteration. A ratio is ours over theirs.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text
from x86virt.benchmarks import emulators
from x86virt.benchmarks.emulators import Missing, Started
from x86virt.benchmarks.guests.disk import boot_disk

from x86virt.api import make_setup
from x86virt.host import machine_name, prepare_cache
from x86virt.report import number, plain_table
from x86virt.speed import PHASES, SpeedRow, calibrate, measure_phases, speed_image
from x86virt.start.multiboot import parse_image

TIMEOUT = 60.0
LINE = re.compile(rb"phase (\d) (begins|ends)\r?\n")
UNICORN_PHASES = ("alu_phase", "mix_phase")
STOP = 0x7FF000  # where a phase that Unicorn calls returns to

Runner = Callable[[Sequence[int]], list[float]]


@dataclass(frozen=True)
class Other:
    """What another emulator did: iterations and seconds by phase, or why there is nothing."""

    name: str
    counts: list[int]
    seconds: list[float]
    missing: str = ""


def timed(started: Started) -> list[float]:
    """Seconds of each phase, by the lines of the guest. Raises RuntimeError if it did not pass."""
    text = bytearray()
    moments: dict[tuple[int, str], float] = {}

    def seen(piece: bytes, moment: float) -> bool:
        text.extend(piece)
        for found in LINE.finditer(text):
            moments.setdefault((int(found[1]), found[2].decode()), moment)
        return b"speed: passed" in text or b"failed" in text

    emulators.watch(started, seen, TIMEOUT)
    if len(moments) != 2 * len(PHASES) or b"speed: passed" not in text:
        raise RuntimeError(f"the guest did not pass: {bytes(text[-200:])!r}")
    return [moments[place, "ends"] - moments[place, "begins"] for place in range(len(PHASES))]


def qemu_runner(folder: Path) -> Runner:
    """QEMU on the Multiboot image."""
    image = folder / "speed.elf"

    def run(counts: Sequence[int]) -> list[float]:
        image.write_bytes(speed_image(counts))
        return timed(emulators.qemu(image))

    return run


def disk_runner(folder: Path, start: Callable[[Path], Started]) -> Runner:
    """An emulator that boots the disk."""
    disk = folder / "speed.img"

    def run(counts: Sequence[int]) -> list[float]:
        disk.write_bytes(boot_disk(parse_image(speed_image(counts), "speed")))
        return timed(start(disk))

    return run


def unicorn_runner() -> Runner:
    """Unicorn on the two phases that need neither an IDT nor paging, called as functions."""
    try:
        import unicorn
        from unicorn import x86_const
    except ImportError:
        raise Missing("the Python package unicorn is not installed") from None

    def run(counts: Sequence[int]) -> list[float]:
        image = parse_image(speed_image(counts), "speed")
        seconds = []
        for name in UNICORN_PHASES:
            machine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
            machine.mem_map(0x100000, 0x700000)
            for segment in image.segments:
                machine.mem_write(segment.address, segment.content)
            stack = image.symbols["boot_stack_top"] - 4
            machine.mem_write(stack, STOP.to_bytes(4, "little"))
            machine.reg_write(x86_const.UC_X86_REG_ESP, stack)
            begun = time.perf_counter()
            machine.emu_start(image.symbols[name], STOP)
            seconds.append(time.perf_counter() - begun)
        return seconds + [math.inf] * (len(PHASES) - len(seconds))

    return run


def runners(folder: Path) -> dict[str, Callable[[], Runner]]:
    """How each emulator is made ready, by name; each may raise Missing."""

    def v86_runner() -> Runner:
        package = emulators.install_v86(folder)
        return disk_runner(folder, lambda disk: emulators.v86(disk, package))

    return {
        "QEMU": lambda: qemu_runner(folder),
        "Bochs": lambda: disk_runner(folder, lambda disk: emulators.bochs(disk, folder)),
        "v86": v86_runner,
        "Unicorn": unicorn_runner,
    }


def measure_other(name: str, ready: Callable[[], Runner]) -> Other:
    """One emulator, or why it was left out."""
    try:
        counts, seconds = calibrate(ready())
    except (Missing, RuntimeError, TimeoutError) as error:
        return Other(name, [], [], str(error))
    return Other(name, counts, seconds)


def results(ours: Sequence[SpeedRow], others: Sequence[Other]) -> list[dict[str, Any]]:
    """One object for each phase and emulator."""
    rows = []
    for place, row in enumerate(ours):
        per_iteration = row.guest_mips * 1e6 / row.events_per_second  # type: ignore[operator]
        rows.append(result("x86virt", row.benchmark, row.event, row.iterations, row.seconds, per_iteration, None))
        for other in others:
            if not other.missing and math.isfinite(other.seconds[place]):
                rate = other.counts[place] / other.seconds[place]
                ratio = row.events_per_second / rate  # type: ignore[operator]
                args = (other.counts[place], other.seconds[place], per_iteration, ratio)
                rows.append(result(other.name, row.benchmark, row.event, *args))
    return rows


def result(
    emulator: str, phase: str, event: str, iterations: int, seconds: float, per_iteration: float, ratio: float | None
) -> dict[str, Any]:
    """One measurement as JSON has it."""
    return {
        "emulator": emulator,
        "phase": phase,
        "event": event,
        "iterations": iterations,
        "seconds": seconds,
        "guest_mips": iterations * per_iteration / seconds / 1e6,
        "events_per_second": iterations / seconds,
        "ratio": ratio,
    }


def show(rows: Sequence[dict[str, Any]], others: Sequence[Other]) -> RenderableType:
    """The table, and what was left out."""
    title = f"million guest instructions a second, {machine_name()}; in brackets: ours / theirs"
    names = ["x86virt", *(other.name for other in others if not other.missing)]
    table = plain_table(["phase", "event", "events / s", *names], left=2)
    for phase in PHASES:
        cells = {row["emulator"]: row for row in rows if row["phase"] == phase.name}
        ours = cells["x86virt"]
        line = [phase.name, phase.event, number(round(ours["events_per_second"])), number(ours["guest_mips"])]
        for name in names[1:]:
            cell = cells.get(name)
            line.append("" if cell is None else f"{number(cell['guest_mips'])} ({cell['ratio']:.2f})")
        table.add_row(*line)
    missing = [Text(f"{other.name} was left out: {other.missing}") for other in others if other.missing]
    return Group(Text(title, style="bold"), Text(), table, *missing)


def measure(only: Sequence[str] | None = None) -> tuple[list[dict[str, Any]], list[Other]]:
    """Run our machine, then the others (all, or those named): the measurements, and what is known of each other."""
    print("x86virt", file=sys.stderr)
    ours = measure_phases(make_setup("native", max_cycles=None))
    others = []
    with tempfile.TemporaryDirectory(prefix="x86virt-speed-") as name:
        for emulator, ready in runners(Path(name)).items():
            if only and emulator.lower() not in [wanted.lower() for wanted in only]:
                continue
            print(emulator, file=sys.stderr)
            others.append(measure_other(emulator, ready))
    return results(ours, others), others


def main() -> int:
    """Command line. The exit status is 0 also where emulators were left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the measurements there, `-` for standard output")
    parser.add_argument("--only", metavar="NAME", action="append", help="compare with this emulator only (repeatable)")
    options = parser.parse_args()
    notice = prepare_cache()
    if notice:
        print(notice, file=sys.stderr)
    rows, others = measure(options.only)
    report = {
        "schema_version": 1,
        "host": machine_name(),
        "rows": rows,
        "left_out": {other.name: other.missing for other in others if other.missing},
    }
    if options.json == "-":
        print(json.dumps(report, indent=2))
        return 0
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    Console(width=150, highlight=False).print(show(rows, others))
    return 0


if __name__ == "__main__":
    sys.exit(main())

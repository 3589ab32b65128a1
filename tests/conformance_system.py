"""System behaviour against Bochs and QEMU: generated kernels run on our machine and on theirs, record by record.

python tests/conformance_system.py --cases 100000 --seed 1 [--oracle bochs] [--oracle qemu] [--only CLASS]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import bochs_machine
import capstone
import qemu_machine
from bochs_machine import run_on_bochs
from qemu_machine import run_on_qemu
from system_cases import CLASSES, random_kernel
from system_kernels import FIELDS, INDEX, RAM_BYTES, RECORD_BYTES, RECORDS, Case, Tables, records, system_image

from x86virt import Machine, find_strategy, load_profile
from x86virt.start.multiboot import Image

Record = dict[str, int]
Oracle = Callable[[Image, Path, int, int], bytes]

ORACLES: dict[str, Oracle] = {"bochs": run_on_bochs, "qemu": run_on_qemu}
INSTALLED = {"bochs": bochs_machine.INSTALLED, "qemu": qemu_machine.INSTALLED}
CASES_PER_KERNEL = 500
MAX_CYCLES = 400_000_000
PROFILE = "p4_prescott"
EFLAGS_RF = 1 << 16
NOT_QEMU = ("descriptors",)  # it does not set the accessed bits of descriptors


@dataclass(frozen=True)
class Departure:
    """Where an oracle is not followed: which, for what cases and vector of ours, in which fields, why."""

    oracle: str
    begins: str
    vector: int
    fields: tuple[str, ...]
    why: str

    def explains(self, oracle: str, case: Case, ours: Record, theirs: Record) -> bool:
        """Whether this is why the records differ."""
        applies = oracle == self.oracle and case.what.startswith(self.begins) and ours["vector"] == self.vector
        return applies and set(differing(ours, theirs)) <= set(self.fields)


DEPARTURES = (
    Departure(
        "bochs",
        "far transfers: CALL",
        13,
        ("memory",),
        "SDM volume 2, CALL: the limit of the target's segment is checked before the return address is pushed",
    ),
    Departure(
        "bochs",
        "faults in delivery",
        8,
        ("eflags",),
        "SDM volume 3, 17.3.1.1: RF is pushed as 1 for faults; a double fault is an abort",
    ),
    Departure("bochs", "virtual-8086: L", 14, ("cr2",), "no order of the two reads of a far pointer is said"),
    Departure(
        "bochs",
        "task switches",
        10,
        ("error", "memory"),
        "SDM volume 3, table 7-1: the new code segment's DPL is checked before the new stack segment",
    ),
    Departure(
        "bochs",
        "task switches",
        11,
        ("vector", "memory"),
        "SDM volume 3, table 7-1: a data segment of the new task is present before its DPL is looked at",
    ),
    Departure("qemu", "paging", 14, ("pages",), "SDM volume 3, 4.8: an access that faults may set accessed bits"),
)


@dataclass
class Divergence:
    """One case whose records differ, or which ended the run (`ended`)."""

    seed: int
    number: int
    case: Case
    oracle: str
    ours: Record = field(default_factory=dict)
    theirs: Record = field(default_factory=dict)
    ended: str = ""

    def text(self) -> str:
        """Case, disassembly, state before, both records where they differ."""
        case = self.case
        disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
        lines = [f"seed {self.seed}, case {self.number}: {case.what}, in ring {case.ring}"]
        lines += [f"    {i.address:x}  {i.mnemonic} {i.op_str}" for i in disassembler.disasm(case.code, case.start)]
        values = " ".join(f"{number}:{value:08x}" for number, value in sorted(case.registers.items()))
        lines.append(f"  before: registers {values}, EFLAGS {case.flags:x}, CR0 {case.cr0:x}")
        lines.append(
            f"  stack {[hex(value) for value in case.stack]}, pokes {[(hex(a), hex(v)) for a, v in case.pokes]}"
        )
        if self.ended:
            return "\n".join([*lines, f"  {self.oracle}: {self.ended}"])
        for name in ("vector", *differing(self.ours, self.theirs)):
            lines.append(f"  {name:12} x86virt {self.ours[name]:08x}   {self.oracle} {self.theirs[name]:08x}")
        return "\n".join(lines)


@dataclass
class Outcome:
    """What a comparison found: cases compared by oracle and class, divergences."""

    compared: Counter[tuple[str, str]] = field(default_factory=Counter)
    vectors: Counter[int] = field(default_factory=Counter)
    divergences: list[Divergence] = field(default_factory=list)
    departures: Counter[Departure] = field(default_factory=Counter)
    disputed: list[Divergence] = field(default_factory=list)  # QEMU differs, Bochs agrees with us


def differing(ours: Record, theirs: Record) -> list[str]:
    """The fields that differ."""
    return [name for name in FIELDS if ours[name] != theirs[name]]


def normalized(record: Record, oracle: str) -> Record:
    """A record without what this oracle is known not to have."""
    if oracle != "qemu":
        return record
    return record | dict.fromkeys(NOT_QEMU, 0) | {"eflags": record["eflags"] & ~EFLAGS_RF}


def run_native(image: Image, count: int) -> tuple[str, int, list[Record]]:
    """Our machine: how it ended, the case that it was at, the records."""
    machine = Machine(find_strategy("native")(), load_profile(PROFILE), RAM_BYTES)
    machine.load(image)
    result = machine.run(MAX_CYCLES)
    at = int.from_bytes(machine.processor.read_physical(INDEX, 4), "little")
    return result.outcome, at, records(machine.processor.read_physical(RECORDS, count * RECORD_BYTES), count)


def complete_native(
    seed: int, cases: list[Case], tables: Tables, outcome: Outcome, oracles: Sequence[str] = ()
) -> tuple[Image, list[Record]]:
    """Our records. A case that ends the run is left out, and the rest begun anew.

    It is a divergence, unless it was a shutdown and is one on Bochs too.
    """
    while True:
        image = system_image(cases, tables)
        ended, at, ours = run_native(image, len(cases))
        if ended == "halted":
            return image, ours
        case = cases.pop(at)
        if ended == "triple_fault" and "bochs" in oracles and shuts_down(case, tables):
            outcome.compared["bochs", case.what.split(":")[0]] += 1
        else:
            outcome.divergences.append(Divergence(seed, at, case, "x86virt", ended=ended))


def shuts_down(case: Case, tables: Tables) -> bool:
    """Whether Bochs too ends without a record of this case."""
    with tempfile.TemporaryDirectory(prefix="x86virt-oracle-") as folder:
        octets = ORACLES["bochs"](system_image([case], tables), Path(folder), RECORDS, RECORD_BYTES)
    return not any(octets)


def compare_kernel(seed: int, count: int, oracles: Sequence[str], names: tuple[str, ...], outcome: Outcome) -> None:
    """One generated kernel on our machine and on the oracles; what is found is added to the outcome."""
    cases, tables = random_kernel(seed, count, names)
    image, ours = complete_native(seed, cases, tables, outcome, oracles)
    length = len(cases) * RECORD_BYTES
    outcome.vectors.update(record["vector"] for record in ours)
    agreed: dict[int, set[str]] = {}
    for oracle in sorted(oracles):
        with tempfile.TemporaryDirectory(prefix="x86virt-oracle-") as folder:
            theirs = records(ORACLES[oracle](image, Path(folder), RECORDS, length), len(cases))
        for number, (case, mine, other) in enumerate(zip(cases, ours, theirs, strict=True)):
            if oracle not in case.judges:
                continue
            if not any(other.values()):
                ended = Divergence(seed, number, case, oracle, ended="no record: the oracle ended or hung here")
                (outcome.disputed if "bochs" in agreed.get(number, ()) else outcome.divergences).append(ended)
                break
            outcome.compared[oracle, case.what.split(":")[0]] += 1
            mine, other = normalized(mine, oracle), normalized(other, oracle)
            if mine == other:
                agreed.setdefault(number, set()).add(oracle)
                continue
            known = [departure for departure in DEPARTURES if departure.explains(oracle, case, mine, other)]
            found = Divergence(seed, number, case, oracle, mine, other)
            if known:
                outcome.departures[known[0]] += 1
                agreed.setdefault(number, set()).add(oracle)
            elif oracle == "qemu" and "bochs" in agreed.get(number, ()):
                outcome.disputed.append(found)
            else:
                outcome.divergences.append(found)


def compare(
    seeds: Sequence[int], count: int, oracles: Sequence[str], names: tuple[str, ...], workers: int = 1
) -> Outcome:
    """Kernels of `count` cases from each seed."""
    outcome = Outcome()
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(compare_kernel, seed, count, oracles, names, outcome) for seed in seeds]:
            done.result()
    return outcome


def main() -> int:
    """Command line; status 1 if anything diverged, 2 if no oracle is installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--oracle", choices=sorted(ORACLES), action="append")
    parser.add_argument(
        "--only", choices=sorted(CLASSES), action="append", help="this class of cases only (repeatable)"
    )
    parser.add_argument("--show", type=int, default=5, help="divergences to print")
    options = parser.parse_args()
    oracles = [name for name in options.oracle or ORACLES if INSTALLED[name]]
    for name in options.oracle or ORACLES:
        if name not in oracles:
            print(f"{name} is not installed: left out", file=sys.stderr)
    if not oracles:
        return 2
    begun = time.monotonic()
    kernels = -(-options.cases // CASES_PER_KERNEL)
    count = -(-options.cases // kernels)
    seeds = range(options.seed, options.seed + kernels)
    outcome = compare(seeds, count, oracles, tuple(options.only or CLASSES), workers=2)
    report(outcome, kernels, time.monotonic() - begun, options.show)
    return int(bool(outcome.divergences))


def report(outcome: Outcome, kernels: int, seconds: float, show: int) -> None:
    """Counts, then divergences."""
    print(f"{kernels} kernels in {seconds:.0f} s; vectors: {dict(sorted(outcome.vectors.items()))}")
    for oracle in sorted({oracle for oracle, _ in outcome.compared}):
        rows = {name: number for (judge, name), number in sorted(outcome.compared.items()) if judge == oracle}
        print(f"{oracle}: {sum(rows.values())} cases compared: " + ", ".join(f"{n} {k}" for k, n in rows.items()))
    for departure, number in outcome.departures.items():
        print(f"{number} times {departure.oracle} departs: {departure.why}")
    print(f"{len(outcome.disputed)} disputed: QEMU differs, Bochs agrees with us")
    show_kinds(outcome.disputed, 0)
    print(f"{len(outcome.divergences)} divergences")
    show_kinds(outcome.divergences, show)


def show_kinds(found: Sequence[Divergence], show: int) -> None:
    """The first of each kind, and how many there are of each."""
    kinds: Counter[tuple[str, ...]] = Counter()
    for divergence in found:
        kinds[kind(divergence)] += 1
        if kinds[kind(divergence)] == 1 and len(kinds) <= show:
            print(divergence.text())
    for key, number in kinds.most_common():
        print(f"{number:6} {' | '.join(key)}")


def kind(found: Divergence) -> tuple[str, ...]:
    """Divergences of one kind are shown once."""
    fields = found.ended[:30] or ", ".join(differing(found.ours, found.theirs))
    return found.oracle, found.case.what.split(":")[0], fields


if __name__ == "__main__":
    sys.exit(main())

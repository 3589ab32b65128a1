"""Every VMM against the bare machine, for as long as one likes: random kernels of each class, and all sensitive cases.

python tests/conformance_vmm.py --kernels 1000 --seed 1 [--strategy NAME] [--only CLASS] [--sensitive CASES]

Of the kernels that fail some are printed as soon as their class is done, without the steps and instructions that their
failure does not need.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import sys
import time
import traceback
from collections import Counter

import sensitive_cases
import v86_cases
from hypothesis import HealthCheck, Phase, given, seed, settings
from small_kernel import Kernel
from timed_kernels import timed_kernels
from vmm_judge import VARIANTS, VMMS, isolated, judge
from vmm_pieces import CLASSES, kernels_of

from x86virt.disassembly import disassemble

TIMED = "timed"
ALL_CASES = 1 << 20
QUIET = dict(suppress_health_check=list(HealthCheck))
SHOWN = 3  # failures of a class
CHECKED = 8  # one kernel in so many runs again with the check of isolation
CHECKPOINTS = (64, 64, 7, 16)  # instructions between two comparisons; one class in four looks closer


class Tally:
    """What was compared."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.instructions = self.deliveries = self.checked = 0
        self.failures: list[str] = []


def run_class(name: str, under: str, kernels: int, number: int, tally: Tally) -> None:
    """So many kernels of a class; some that fail are made smaller and noted."""
    checkpoint, timed = (512, True) if name == TIMED else (CHECKPOINTS[number % len(CHECKPOINTS)], False)
    failed: list[Kernel] = []

    @settings(max_examples=kernels, database=None, deadline=None, phases=[Phase.generate], **QUIET)
    @seed(number)
    @given(timed_kernels if timed else kernels_of(name))
    def judged(kernel: Kernel) -> None:
        try:
            verdict = judge(kernel, under, checkpoint, timed, explain=False)
            if tally.kinds.total() % CHECKED == 0:
                isolated(kernel, under)
                tally.checked += 1
        except Exception:  # also one that the VMM itself raises
            failed.append(kernel)
            return
        finally:
            gc.collect(0)  # two machines, whose arrays the collector does not see
        tally.kinds[verdict.kind] += 1
        tally.outcomes[verdict.outcome.split(" (at")[0]] += 1
        tally.instructions += verdict.instructions
        tally.deliveries += verdict.deliveries

    judged()
    tally.kinds["wrong"] += len(failed)
    for kernel in failed[:SHOWN]:
        smaller = reduced(kernel, under, checkpoint, timed)
        why = failure_of(smaller, under, checkpoint, timed)
        tally.failures.append(f"{name} under {under}, seed {number}:\n{text_of(smaller)}\n{why}")
    print(f"{under}, {name}, seed {number}: {len(failed)} of {kernels} wrong", file=sys.stderr, flush=True)
    for text in tally.failures[-len(failed[:SHOWN]) :] if failed else ():
        print(text, file=sys.stderr, flush=True)


def failure_of(kernel: Kernel, under: str, checkpoint: int, timed: bool, explain: bool = True) -> str:
    """What is wrong with a kernel; empty: nothing."""
    try:
        judge(kernel, under, checkpoint, timed, explain)
        isolated(kernel, under)
    except AssertionError as error:
        return f"wrong: {error}"
    except Exception as error:
        return "".join(traceback.format_exception(error)[-3:])
    return ""


def reduced(kernel: Kernel, under: str, checkpoint: int, timed: bool) -> Kernel:
    """The kernel without the steps, then without the instructions, that the failure does not need."""
    for place in reversed(range(len(kernel.steps))):
        fewer = dataclasses.replace(kernel, steps=kernel.steps[:place] + kernel.steps[place + 1 :])
        if failure_of(fewer, under, checkpoint, timed, explain=False):
            kernel = fewer
    for place in range(len(kernel.steps)):
        begin = 0
        while begin < len(kernel.steps[place].code):
            step = kernel.steps[place]
            end = begin + max(1, length_of(step.code[begin : begin + 15]))
            steps = list(kernel.steps)
            steps[place] = dataclasses.replace(step, code=step.code[:begin] + step.code[end:])
            fewer = dataclasses.replace(kernel, steps=steps)
            if failure_of(fewer, under, checkpoint, timed, explain=False):
                kernel = fewer
            else:
                begin = end
    return kernel


def text_of(kernel: Kernel) -> str:
    """The steps of a kernel, disassembled."""
    lines = [f"write_protect {kernel.write_protect}, cr4 {kernel.cr4:#x}, pages {kernel.pages}"]
    for step in kernel.steps:
        lines.append(f"  ring {step.ring}, flags {step.flags:#x}: {step.code.hex()}")
        place = 0
        while place < len(step.code):
            text = disassemble(step.code[place : place + 15], place)
            lines.append(f"    {place:4x} {text}")
            place += max(1, length_of(step.code[place : place + 15]))
    return "\n".join(lines)


def length_of(octets: bytes) -> int:
    """Bytes of the first instruction, by Capstone."""
    import capstone

    return next((i.size for i in capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32).disasm(octets, 0, 1)), 1)


def run_sensitive(under: str, most: int, tally: Tally) -> None:
    """So many cases of every sensitive row, in all modes."""
    runs = [(sensitive_cases, row) for row in sensitive_cases.SENSITIVE_ROWS] + [(v86_cases, row) for row in v86_cases.ROWS]
    for made, row in runs:
        try:
            tally.kinds += made.verdicts(made.some_cases(row, most), under)
        except AssertionError as error:
            tally.failures.append(f"{under}: {error}")
            print(tally.failures[-1], file=sys.stderr, flush=True)


def main() -> int:
    """Command line; status 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=int, default=200, help="of each class, for each strategy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--strategy", action="append", help="this one only (repeatable); options may follow its name")
    parser.add_argument("--only", choices=(*CLASSES, TIMED), action="append", help="this class only (repeatable)")
    parser.add_argument("--sensitive", type=int, default=ALL_CASES, help="most cases of one row; 0: none")
    options = parser.parse_args()
    failures = 0
    for under in options.strategy or (*VMMS, *VARIANTS):
        began, tally = time.monotonic(), Tally()
        for number, name in enumerate(options.only or (*CLASSES, TIMED)):
            run_class(name, under, options.kernels, options.seed + number, tally)
        if options.sensitive and not options.only:
            run_sensitive(under, options.sensitive, tally)
        report(under, tally, time.monotonic() - began)
        failures += len(tally.failures)
    return int(failures > 0)


def report(under: str, tally: Tally, seconds: float) -> None:
    """Counts and failures of a strategy."""
    kinds = ", ".join(f"{number} {kind}" for kind, number in tally.kinds.most_common())
    print(f"{under}: {kinds or 'nothing compared'}; {tally.instructions} guest instructions, {tally.deliveries} interrupts, "
          f"{tally.checked} also checked for isolation, {seconds:.0f} s, {len(tally.failures)} failures")  # fmt: skip
    for outcome, number in tally.outcomes.most_common():
        print(f"  {number:6} {outcome or '(cut)'}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""Every program of the Unix-like kernel under every VMM, in lock step with the bare machine (`make conformance-unix`).

Without the timer state and instruction count are compared at every checkpoint (E1); with it the bare machine is given the
interrupts that the VMM's guest took, and must accept each (E2). The ported build under a paravirtual VMM is held to the ends of
the native one (E3). A row for each run, with what was compared.
"""

from __future__ import annotations

import argparse
import sys
import time

from guest_sets import UNIX_PROGRAMS
from vmm_judge import VARIANTS, VMMS, variants

from x86virt import find_guest, find_strategy, load_profile
from x86virt.api import make_setup
from x86virt.equivalence import Comparison, compare_runs
from x86virt.ported import compare_builds
from x86virt.profile import profile_names

MEMORY = 8 << 20
MAX_CYCLES = 20_000_000_000
CHECKPOINT = 1 << 16
PORTED = ("paravirtual", *variants("paravirtual"))
ONLY_THE_END = 1 << 40  # E2 is about the end: between, a request waits at the interrupt controller only where it arose


def compared(under: str, profile: str, line: str, timer: bool) -> Comparison:
    """One run beside the bare machine's."""
    if under in PORTED:
        setups = [make_setup(name, profile, MEMORY, MAX_CYCLES) for name in (under, "native")]
        return compare_builds(*setups, find_guest("unix"), line)
    return compare_runs(
        find_guest("unix"), find_strategy(under)(), find_strategy("native")(), load_profile(profile), MEMORY, line,
        MAX_CYCLES, ONLY_THE_END if timer else CHECKPOINT,
    )  # fmt: skip


def contract_of(under: str, comparison: Comparison, timer: bool) -> str:
    """What was compared."""
    if under in PORTED:
        return "E3"
    if timer:
        return f"E2, {comparison.deliveries} interrupts"
    return f"E1, {comparison.native.instructions // CHECKPOINT} checkpoints"


def compare(program: str, under: str, profile: str, timer: bool) -> bool:
    """One run of one program; prints its row and says whether the two were equal."""
    line = f"iterations=2 program={program}" + ("" if timer else " timer=off")
    began = time.monotonic()
    comparison = compared(under, profile, line, timer)
    native, other = comparison.native, comparison.other
    good = comparison.equal and native.exit_code == 0 and not comparison.divergences
    ratio = other.ticks / max(native.ticks, 1)
    print(
        f"{'equal' if good else 'DIFFERENT'}  {under}  {profile}  {program}: {native.instructions} instructions, "
        f"{contract_of(under, comparison, timer)}, "
        f"cycles x {ratio:.2f}, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    if not good:
        print("\n".join(comparison.report), native.console.decode("latin-1"), other.outcome, sep="\n")
    return good


def main() -> int:
    """Command line: what to run. Exit status 1 if anything was different."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--program", action="append", choices=UNIX_PROGRAMS, help="default: all")
    parser.add_argument("--strategy", action="append", help="default: every VMM, and every choice of its options")
    parser.add_argument("--profile", action="append", choices=profile_names(), help="default: p4_prescott")
    arguments = parser.parse_args()
    done = [
        compare(program, under, profile, timer)
        for under in arguments.strategy or (*VMMS, *VARIANTS, *PORTED)
        for profile in arguments.profile or ("p4_prescott",)
        for program in arguments.program or UNIX_PROGRAMS
        for timer in ((True,) if program == "clock" else (False, True))
    ]
    print(f"{sum(done)} of {len(done)} equal")
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())

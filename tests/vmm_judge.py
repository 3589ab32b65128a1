"""Judging a guest under a VMM against the bare machine: equal, ended as is planned, diverged as is declared, or wrong.

Every strategy of the registry that puts a VMM below the guest as it is is judged; a new one is covered the moment it is there.
Those whose guests are ported to them run other kernels (test_ported_guests.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from profile_for import profile_for
from small_kernel import MAX_CYCLES, RAM_BYTES, Kernel, strategy

from x86virt import Image, Machine, find_strategy, load_profile
from x86virt.discipline import tlb_discipline
from x86virt.equivalence import Pair, Start, compare_runs, found
from x86virt.guests import PARAVIRTUAL
from x86virt.vmm.options import Choice, Count, Size, Switch
from x86virt.vmm.registry import strategy_names

VMMS = tuple(
    name for name in strategy_names() if find_strategy(name).needs_vmm and find_strategy(name).processor != PARAVIRTUAL
)


def variants(name: str) -> list[str]:
    """A strategy with each of its options chosen in turn, the others left as they are."""
    found = []
    for option in find_strategy(name).options:
        if isinstance(option, Switch):
            found.append(f"{name},{option.name}={'off' if option.default else 'on'}")
        elif isinstance(option, Choice):
            found += [f"{name},{option.name}={text}" for text in option.words if text != option.default]
        elif isinstance(option, Size | Count):
            found.append(f"{name},{option.name}={option.most if option.least == option.default else option.least}")
    return found


VARIANTS = tuple(variant for name in VMMS for variant in variants(name))
MOST_INSTRUCTIONS = 10_000  # of one judged kernel
MOST_TIMED = 4_000
CHECKED_CYCLES = 2_000_000  # of one kernel whose every access is checked
EQUAL, DECLARED, PLANNED = "equal", "declared", "planned"
RULELESS = "ruleless"  # it relies on what its TLB holds, which no processor promises (x86virt/discipline.py)

# What the VMMs say of guests that they do not run yet. A guest may end so, in the bare machine's state up to there.
BUDGET = 20 * MAX_CYCLES  # a kernel that patches its own loop is translated anew at each iteration
UNSUPPORTED = r"a code segment that begins at 0x[0-9a-f]+, where the VMM lies: use a base below it"
PLANNED_END = re.compile(rf"unsupported: {UNSUPPORTED} \(at eip 0x[0-9a-f]+\)")


@dataclass(frozen=True)
class Verdict:
    """What was found: one of the three kinds, the outcome under the VMM, and how far the two were compared."""

    kind: str
    outcome: str
    instructions: int
    deliveries: int = 0  # interrupts that the bare machine accepted


class Judge:
    """One kernel under one strategy."""

    def __init__(
        self, kernel: Kernel | Image, under: str | type, checkpoint: int = 64, timed: bool = False, explain: bool = True
    ) -> None:
        self.explain = explain
        self.under, self.checkpoint, self.timed = (
            find_strategy(under) if isinstance(under, str) else under,
            checkpoint,
            timed,
        )
        self.image = kernel.image() if isinstance(kernel, Kernel) else kernel
        self.profile = load_profile(profile_for(self.under))

    def start(self) -> Start:
        """The two machines' parts."""
        return Start(self.image, self.under(), strategy("native"), self.profile, RAM_BYTES, "")

    def verdict(self) -> Verdict:
        """What the comparison finds; a difference counts for nothing if the kernel does not keep the TLB's rules."""
        try:
            return self.compared()
        except AssertionError:
            if self.keeps_tlb_rules():
                raise
            return Verdict(RULELESS, "", 0)

    def keeps_tlb_rules(self) -> bool:
        """Whether the bare machine ends alike whatever its TLBs hold."""
        rows = tlb_discipline(self.image, self.profile, RAM_BYTES, max_cycles=BUDGET)
        return not any(row.differences for row in rows)

    def compared(self) -> Verdict:
        """Compare checkpoint by checkpoint, in time given by the VMM if the kernel is a timed one."""
        pair, limit = Pair(self.start(), self.timed), 0
        while limit < (MOST_TIMED if self.timed else MOST_INSTRUCTIONS):
            limit += self.checkpoint
            going = pair.advance(limit, BUDGET)
            outcome = pair.other.outcome or ""
            if PLANNED_END.fullmatch(outcome):
                return self.planned(pair, outcome)
            bare, other = pair.states()
            if other.differences(bare) or pair.complaints() or going[0] != going[1]:
                return self.declared(pair)
            if not going[1]:
                assert outcome == pair.bare.outcome, self.report()
                return self.of(EQUAL, pair)
        return self.of(EQUAL, pair)

    def of(self, kind: str, pair: Pair) -> Verdict:
        """A verdict on two machines."""
        deliveries = len(pair.recorder.log.deliveries)
        return Verdict(kind, pair.other.outcome or "", int(pair.other.processor.cpu.retired), deliveries)

    def planned(self, pair: Pair, outcome: str) -> Verdict:
        """The VMM gave up by name: until there the bare machine was in the same state."""
        if not self.timed:
            self.equal_after(int(pair.other.processor.cpu.retired), outcome)
        return self.of(PLANNED, pair)

    def declared(self, pair: Pair) -> Verdict:
        """The first difference is behind an instruction whose divergence is declared, and logged."""
        logged = found(pair.other)
        assert logged and not self.timed, self.report()
        keys = {row.key for row in logged}
        assert keys <= type(pair.other.strategy).known_divergences, f"undeclared: {keys}\n{self.report()}"
        self.equal_after(logged[0].n, str(logged[0]))
        return self.of(DECLARED, pair)

    def equal_after(self, instructions: int, why: str) -> None:
        """Both are in the same state after so many instructions."""
        pair = Pair(self.start(), False)
        for machine in (pair.bare, pair.other):
            machine.advance(instructions, BUDGET)
        bare, other = pair.states()
        differences = other.differences(bare)
        assert not differences, f"different before `{why}`: {differences}\n{self.report()}"

    def report(self) -> str:
        """The comparison's own report, for a failure, which takes many runs."""
        if not self.explain:
            return ""
        parts = self.start()
        comparison = compare_runs(
            parts.image, parts.strategy, parts.native, parts.profile, RAM_BYTES, "", BUDGET, self.checkpoint
        )
        return "\n".join([f"under {self.under.name}:", *comparison.report])


def judge(
    kernel: Kernel | Image, under: str | type, checkpoint: int = 64, timed: bool = False, explain: bool = True
) -> Verdict:
    """The verdict on a kernel under a strategy; an assertion that fails carries the report."""
    return Judge(kernel, under, checkpoint, timed, explain).verdict()


def isolated(kernel: Kernel, under: str) -> str:
    """Run with the check of isolation at every access; gives the outcome."""
    machine = Machine(find_strategy(under)(), load_profile(profile_for(under)), RAM_BYTES, check_isolation=True)
    machine.load(kernel.image())
    result = machine.run(CHECKED_CYCLES)
    assert not result.outcome.startswith("isolation"), result.outcome
    result.ledger.check_conservation(result.ticks)
    return result.outcome


def assert_all_equal(kernel: Kernel, timed: bool = False, checkpoint: int = 64) -> None:
    """Equal under every strategy."""
    for name in VMMS:
        verdict = judge(kernel, name, checkpoint, timed)
        assert verdict.kind == EQUAL, (name, verdict)

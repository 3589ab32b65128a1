"""What the simulator says of a published row: cycles of one iteration, their interval, and where they went.

One iteration is the difference of two runs of the same loop, one longer than the other, over the difference of their
iterations: what happens once (translation, first fills, warm-up) drops out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from ..isa.events import EVENTS, TICKS_PER_CYCLE
from ..profile import Profile
from .interval import HIGH, LOW, at_clock, at_end
from .plan import Host, Loop, Plan, Run, technique

if TYPE_CHECKING:
    from ..machine import Region
    from ..vmm import Strategy

VMM_SOFTWARE = ("vmm", "translator")  # domains of events that are paths of a VMM


class NotPredicted(Exception):
    """A row that cannot be predicted here: why."""


@dataclass(frozen=True)
class Iteration:
    """One iteration: its cycles, those of them that paths of the VMM took, those that only counted the loop."""

    cycles: Fraction
    paths: Fraction
    counting: Fraction


@dataclass(frozen=True)
class Prediction:
    """Cycles of one iteration with the ends of their interval, and the share that paths of the VMM took."""

    cycles: Fraction
    low: Fraction
    high: Fraction
    share_of_paths: Fraction


@dataclass
class Predictor:
    """Runs loops, each once under each profile and strategy.

    `strategies` and `profiles` stand in for the built-in ones of their names.
    """

    plan: Plan
    strategies: "Mapping[str, type[Strategy]]" = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    progress: Callable[[str], None] = lambda text: None
    _regions: "dict[tuple[str, str, int, str, int], Region]" = field(default_factory=dict)

    def profile(self, host: Host) -> Profile:
        """The profile of a publication's processor at its clock."""
        from ..profile import load_profile

        found = self.profiles.get(host.profile) or load_profile(host.profile)
        return at_clock(found, host.mhz, self.plan.in_nanoseconds)

    def strategy(self, name: str) -> "type[Strategy]":
        """The strategy of a name. Raises NotPredicted if there is none."""
        from ..vmm.registry import find_strategy, strategy_names

        base = technique(name)
        if base in self.strategies:
            return self.strategies[base]
        if base not in strategy_names():
            raise NotPredicted(f"there is no strategy {base} yet")
        return find_strategy(name)

    def predict(self, run: Run) -> Prediction:
        """What a row of this kind takes. Raises NotPredicted.

        The publications do not say whether their figures contain the instructions that count the loop: the prediction does,
        and its interval begins without them.
        """
        strategy, profile = self.strategy(run.strategy), self.profile(run.host)
        self.progress(f"{run.loop.guest} under {strategy.name}, {profile.name}, at middle, low and high prices")
        middle = self.iteration(run.loop, strategy, profile)
        low = self.iteration(run.loop, strategy, at_end(profile, LOW))
        high = self.iteration(run.loop, strategy, at_end(profile, HIGH))
        share = middle.paths / middle.cycles if middle.cycles else Fraction(0)
        least = min(low.cycles - low.counting, middle.cycles - middle.counting)
        return Prediction(middle.cycles, least, max(high.cycles, middle.cycles), share)

    def iteration(self, loop: Loop, strategy: "type[Strategy]", profile: Profile) -> Iteration:
        """One iteration under one profile, the mean of all regions of the loop. Raises NotPredicted."""
        each = [self.iteration_of(loop, region, strategy, profile) for region in loop.regions]
        parts = ([getattr(one, name) for one in each] for name in ("cycles", "paths", "counting"))
        return Iteration(*(sum(part, Fraction(0)) / len(each) for part in parts))

    def iteration_of(self, loop: Loop, region: int, strategy: "type[Strategy]", profile: Profile) -> Iteration:
        """One iteration of one region. Raises NotPredicted."""
        few, many = (self.region(loop, region, count, strategy, profile) for count in loop.iterations)
        between = many.ledger - few.ledger
        number = many.iterations - few.iterations
        paths = sum(between.event_ticks(event.name) for event in EVENTS if event.domain in VMM_SOFTWARE)
        counting = sum(profile.price_ticks(event) for event in loop.counting)
        return Iteration(
            Fraction(many.ticks - few.ticks, number * TICKS_PER_CYCLE),
            Fraction(paths, number * TICKS_PER_CYCLE),
            Fraction(counting, TICKS_PER_CYCLE),
        )

    def region(self, loop: Loop, region: int, count: int, strategy: "type[Strategy]", profile: Profile) -> "Region":
        """A measured region of one run. Raises NotPredicted if the guest does not get through it."""
        from ..api import Setup, run_setup
        from ..suites import command_line

        key = (str(strategy.name), loop.guest, count, profile.digest())
        if (*key, region) not in self._regions:
            outcome, regions = run_setup(Setup(strategy, profile), loop.guest, command_line(loop.guest, count))
            if outcome != "done":
                raise NotPredicted(f"{loop.guest} under {strategy.name}: {outcome}")
            self._regions.update({(*key, number): found for number, found in regions.items()})
        if (*key, region) not in self._regions:
            raise NotPredicted(f"{loop.guest} under {strategy.name} leaves region {region} out")
        return self._regions[(*key, region)]

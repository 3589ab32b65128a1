"""Which rows a user asks for, and what of the user's own stands in for the built-in profile or strategy of a row."""

import pathlib
import tomllib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import StrategyError, UserError
from ..profile import Profile, load_profile, profile_names
from .plan import NotCovered, Plan, ProfileValue, Run, chosen_rows, technique
from .published import Published

if TYPE_CHECKING:
    from ..vmm import Strategy


def selected(plan: Plan, ids: Sequence[str], strategies: Sequence[str], profiles: Sequence[str]) -> list[Published]:
    """The rows of these ids that are of one of these strategies and profiles, by base names; empty: of any.

    Raises UserError if there are none.
    """
    rows = [
        row
        for row in chosen_rows(ids)
        if (not strategies or strategy_of(plan, row) in strategies) and (not profiles or profile_of(plan, row) in profiles)
    ]
    if not rows:
        wanted = ", ".join([*ids, *strategies, *profiles])
        known = {name for row in chosen_rows(()) for name in (strategy_of(plan, row), profile_of(plan, row)) if name}
        raise UserError(f"validate {wanted}", "no published row is of all of these", f"there are {', '.join(sorted(known))}")
    return rows


def run_of(plan: Plan, row: Published) -> Run | ProfileValue | None:
    """What is run or looked up for a row, be it only to stand beside it."""
    entry = plan.entry_of(row)
    return entry.beside if isinstance(entry, NotCovered) else entry


def strategy_of(plan: Plan, row: Published) -> str:
    """The technique of a row, empty if it has none."""
    run = run_of(plan, row)
    return technique(run.strategy) if isinstance(run, Run) else ""


def profile_of(plan: Plan, row: Published) -> str:
    """The profile of a row, empty if it has none."""
    run = run_of(plan, row)
    return "" if run is None else run.host.profile


def stand_in_strategies(names: Sequence[str]) -> "dict[str, type[Strategy]]":
    """Strategies by the name of the technique that they are one of: what comes before the options in their own name."""
    from ..vmm.registry import find_strategy, strategy_names

    found: dict[str, type[Strategy]] = {}
    for name in names:
        strategy = find_strategy(name)
        base = technique(str(strategy.name))
        if base not in strategy_names():
            advice = f"give its class the name of one of {', '.join(strategy_names())}"
            raise StrategyError(f"strategy {name}", f"no published row is of a technique named {base!r}", advice)
        if base in found:
            raise StrategyError(f"strategy {name}", f"a second stand-in for {base}", "give one of each technique")
        found[base] = strategy
    return found


def stand_in_profiles(names: Sequence[str]) -> dict[str, Profile]:
    """Profiles by the name of the built-in one that they are or inherit. Raises ProfileError and UserError."""
    found: dict[str, Profile] = {}
    for name in names:
        profile = load_profile(name)
        base = built_in_ancestor(profile.path)
        if base in found:
            raise UserError(f"--profile {name}", f"a second profile in the place of {base}", "give one of each processor")
        found[base] = profile
    return found


def built_in_ancestor(path: pathlib.Path) -> str:
    """The built-in profile that a profile's file is or inherits. Raises UserError if it inherits none."""
    while not is_built_in(path):
        parent = tomllib.loads(path.read_text(encoding="utf-8")).get("inherits")
        if parent is None:
            advice = "say `inherits` in it, so that it is known which rows it is for"
            raise UserError(f"--profile {path}", "inherits no built-in profile", advice)
        path = load_profile(parent).path if parent in profile_names() else path.parent / parent
    return path.stem


def is_built_in(path: pathlib.Path) -> bool:
    """Whether a profile's file is a built-in one."""
    return path.stem in profile_names() and load_profile(path.stem).path == path

"""Explanations of strategies: the chapter on the technique, what it chooses, its hooks, and what the guest can find out."""

import inspect
import pathlib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..isa.exits import EXITS
from ..isa.table import ROWS
from ..vmm.options import split_options
from ..vmm.registry import find_strategy, strategy_names
from .exits import REASONS
from .hypercalls import MEANINGS as DOMAIN_EXITS
from .page import Explanation, Section, paragraphs_of
from .price import price_json, price_text

if TYPE_CHECKING:
    from ..profile import Profile
    from ..vmm import Strategy

MNEMONICS = {row.name: row.mnemonic for row in ROWS}
SEGMENT = "segment"  # the field of loads of the VMM's own entries
MODES = {"guest_kernel": "in the guest's kernel", "guest_user": "in its programs"}


def is_strategy(text: str) -> bool:
    """Whether a text names a strategy: a known one, with options perhaps, or a class in a file."""
    name = split_options(text)[0]
    return name in strategy_names() or name.rpartition(":")[0].endswith(".py") or name.endswith(".py")


def explain_strategy(text: str, profile: "Profile") -> Explanation:
    """The explanation of a strategy. Raises StrategyError."""
    strategy = find_strategy(text)
    sections = [
        choices_of(strategy),
        Section("the technique", prose=paragraphs_of(chapter_of(strategy))),
        hooks_of(strategy),
        visible_in(strategy),
        prices_of(strategy, profile),
    ]
    data: dict[str, Any] = {
        "processor": strategy.processor,
        "memory": strategy.memory,
        "devices": strategy.devices,
        "kernel_ring": strategy.kernel_ring,
        "options": {one.name: {"takes": one.expected, "is": one.text(strategy.option(one.name))} for one in strategy.options},
        "chapter": chapter_of(strategy),
        "hooks": hook_lines(strategy),
        "known_divergences": [list(row) for row in sorted(strategy.known_divergences)],
        "profile": profile.name,
        "prices": [price_json(f"vmm.{path}", profile) for path in strategy.paths],
    }
    return Explanation("strategy", strategy.name or text, first_line(strategy), sections, data)


def first_line(thing: object) -> str:
    """The first line of what something says of itself."""
    return (inspect.getdoc(thing) or "").split("\n")[0]


def chapter_of(strategy: "type[Strategy]") -> str:
    """What the file of a strategy says at its head."""
    return inspect.getdoc(sys.modules[strategy.__module__]) or ""


def choices_of(strategy: "type[Strategy]") -> Section:
    """The three choices, the ring of the kernel, the options, and where to read on."""
    section = Section("")
    for label in ("processor", "memory", "devices"):
        section.add(label, str(getattr(strategy, label)).replace("_", " "))
    section.add("the guest's kernel", f"runs in ring {strategy.kernel_ring}")
    for option in strategy.options:
        sentence = option.sentence[0].upper() + option.sentence[1:].rstrip(".")
        chosen = option.text(strategy.option(option.name))
        section.add(f"{option.name}={chosen}", f"{sentence}: {option.expected}.")
    section.add("its chapter", pathlib.Path(inspect.getfile(sys.modules[strategy.__module__])).name)
    return section


def hook_lines(strategy: "type[Strategy]") -> dict[str, str]:
    """By exit reason, what its hook says of itself; a technique without a VMM has none."""
    if not strategy.needs_vmm:
        return {}
    reasons = (*REASONS, *DOMAIN_EXITS, *(exit.name for exit in EXITS))
    hooks = {reason: getattr(strategy, f"on_{reason}", None) for reason in reasons}
    return {reason: first_line(hook) for reason, hook in hooks.items() if hook is not None}


def hooks_of(strategy: "type[Strategy]") -> Section:
    """What it does at each exit."""
    section = Section("what it does at an exit (x86virt explain REASON says more)")
    for reason, line in hook_lines(strategy).items():
        section.add(reason, line or "It has a hook that says nothing of itself.")
    return section


def visible_in(strategy: "type[Strategy]") -> Section:
    """The instructions by which the guest can tell that it does not have the bare machine."""
    section = Section("what the guest can find out (x86virt explain INSTRUCTION says more)")
    if not strategy.needs_vmm:
        return section
    for mode, where in MODES.items():
        section.add(where, names_of(row for row, at, field in strategy.known_divergences if at == mode and field != SEGMENT))
    loads = names_of(row for row, _, field in strategy.known_divergences if field == SEGMENT)
    section.add("with a selector of the VMM's", loads)
    return section


def names_of(rows: Iterable[str]) -> str:
    """Mnemonics of rows of the instruction table."""
    return ", ".join(sorted({MNEMONICS.get(row, row) for row in rows})) or "nothing"


def prices_of(strategy: "type[Strategy]", profile: "Profile") -> Section:
    """What the paths of its VMM cost."""
    section = Section(f"paths of the VMM on {profile.name}")
    for path in strategy.paths:
        section.add(f"vmm.{path}", price_text(f"vmm.{path}", profile))
    return section

"""`x86virt explain unit GUEST[:PLACE]`: what binary translation has made of a guest's code."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from .options import MemorySize, given
from .output import get_ready

if TYPE_CHECKING:
    from ..explain import Explanation

WORD = "unit"
TRANSLATING = "binary-translation"
OPTIONS = ("strategy", "command_line", "memory", "max_cycles", "instructions")


def run_options(command: Any) -> Any:
    """The options of the run that makes the units."""
    from ..api import DEFAULT_MAX_CYCLES

    for option in (
        click.option(
            "-s", "--strategy", default=TRANSLATING, show_default=True, metavar="NAME",
            help="unit: a technique that translates, and its options (NAME,chaining=off).",
        ),
        click.option("-c", "--command-line", default="", help="unit: the guest's command line."),
        click.option("--memory", type=MemorySize(), default="16M", show_default=True, help="unit: the guest's RAM."),
        click.option(
            "--max-cycles", type=click.IntRange(1, 1 << 56), default=DEFAULT_MAX_CYCLES, show_default=True,
            help="unit: end the run after that many simulated cycles.",
        ),
        click.option(
            "--count", "instructions", type=click.IntRange(1, 1 << 56), metavar="N",
            help="unit: look after N guest instructions, instead of at the guest's end.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def refuse_run_options() -> None:
    """They have a meaning for units only."""
    for name in OPTIONS:
        if given(name):
            option = "count" if name == "instructions" else name.replace("_", "-")
            raise click.UsageError(f"--{option} is for `x86virt explain unit GUEST`")


def explain_unit(what: Sequence[str], profile: str, options: dict[str, Any]) -> "Explanation":
    """Run the guest, and explain its units: `what` is `unit` and GUEST or GUEST:PLACE."""
    if len(what) != 2:
        raise click.UsageError("give `explain unit GUEST`, or `explain unit GUEST:PLACE` with a symbol or an address")
    from ..api import make_setup, strategy_errors
    from ..explain.unit import explain_units, split_place
    from ..guests import find_guest
    from ..symbols import Symbols

    name, place = split_place(what[1])
    image = find_guest(name)
    setup = make_setup(options["strategy"], profile, options["memory"], options["max_cycles"])
    get_ready()
    with strategy_errors(setup.name):
        machine = setup.load(image, options["command_line"])
        return explain_units(machine, image.name, Symbols(image.symbols), place, options["instructions"])

"""`x86virt explain`: what an instruction, event, exit reason, exception or strategy is, and what a guest is translated to."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..api import DEFAULT_PROFILE
from .explain_unit import WORD, explain_unit, refuse_run_options, run_options
from .options import JsonFile
from .output import SCHEMA_VERSION, STATUS_DONE, write_json

if TYPE_CHECKING:
    from ..explain import Explanation

WIDTH_WITHOUT_TERMINAL = 100
WIDEST = 120


@click.command("explain")
@click.argument("what", nargs=-1)
@click.option(
    "-p", "--profile", default=DEFAULT_PROFILE, show_default=True, metavar="NAME|FILE.toml", help="Whose prices."
)
@click.option(
    "--bits", type=click.Choice(["16", "32"]), default="32", show_default=True, help="Of the code, for bytes."
)
@click.option("--json", "json_file", type=JsonFile(), help="Write JSON there instead of text to stdout.")
@run_options
def explain_command(what: Sequence[str], profile: str, bits: str, json_file: str | None, **run: Any) -> int:
    """Explain WHAT: an instruction (`lgdt`, `mov cr3, eax`, or its bytes `0f 01 d8`), an event of the ledger (`sys.exc_gp`), an
    exit reason (`page_fault`), an exception (`#GP`) or a strategy (`binary-translation`, or a file of yours). Alone it lists
    what there is.

    `unit GUEST` runs a guest under binary translation and lists its translation units; `unit GUEST:PLACE` shows the one at a
    symbol or hexadecimal address, its instructions beside those of the guest.
    """
    if what and what[0] == WORD:
        return tell([explain_unit(what, profile, run)], " ".join(what), json_file)
    refuse_run_options()
    from ..profile import load_profile

    text = " ".join(what)
    loaded = load_profile(profile)
    if not text.strip():
        return list_topics(json_file)
    from ..explain import explain

    return tell(explain(text, loaded, int(bits)), text, json_file)


def tell(found: "list[Explanation]", text: str, json_file: str | None) -> int:
    """Explanations as text, or as JSON."""
    if json_file is not None:
        explanations = [one.as_json() for one in found]
        write_json(json_file, {"schema_version": SCHEMA_VERSION, "asked": text, "explanations": explanations})
        return STATUS_DONE
    width = min(shutil.get_terminal_size((WIDTH_WITHOUT_TERMINAL, 24)).columns, WIDEST)
    for number, one in enumerate(found):
        if number:
            click.echo("\n" + "-" * width + "\n")
        for line in one.lines(width):
            click.echo(line)
    return STATUS_DONE


def topics() -> dict[str, list[str]]:
    """What can be explained."""
    from ..explain import mnemonics
    from ..explain.exception import BY_VECTOR
    from ..explain.exits import REASONS
    from ..isa.events import EVENTS
    from ..vmm.registry import strategy_names

    return {
        "instructions": mnemonics(),
        "exceptions": [row.mnemonic for row in BY_VECTOR.values()],
        "exit reasons": list(REASONS),
        "events": [event.name for event in EVENTS],
        "strategies": strategy_names(),
    }


def list_topics(json_file: str | None) -> int:
    """`x86virt explain` alone."""
    found = topics()
    if json_file is not None:
        data: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
        write_json(json_file, data | {name.replace(" ", "_"): names for name, names in found.items()})
        return STATUS_DONE
    width = min(shutil.get_terminal_size((WIDTH_WITHOUT_TERMINAL, 24)).columns, WIDEST)
    for line in topic_lines(found, width):
        click.echo(line)
    return STATUS_DONE


def topic_lines(found: dict[str, list[str]], width: int) -> Iterator[str]:
    """The lists as text."""
    for name, names in found.items():
        yield f"{name} ({len(names)})"
        yield from textwrap.wrap(
            " ".join(names), width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
        yield ""
    yield "Units of translated code: `unit GUEST` and `unit GUEST:PLACE`, the guest being run for them."
    yield "An instruction can also be given with operands (mov cr3, eax), as bytes (0f 01 d8), or by its row (mov_sw_ew)."

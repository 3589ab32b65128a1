"""What the commands print and write, and the exit status that a result asks for."""

import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..api import Setup, passed
from ..errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..console.conversation import Conversation
    from ..machine import RunResult

SCHEMA_VERSION = 1
STATUS_DONE, STATUS_DIFFERENT, STATUS_BAD_INPUT, STATUS_GUEST, STATUS_BUDGET, STATUS_UNSUPPORTED = range(6)


def get_ready() -> None:
    """Say so if the first run of all is about to compile."""
    from ..host import prepare_cache

    notice = prepare_cache()
    if notice:
        say(notice)


def status_of(outcome: str, exit_code: int | None) -> int:
    """The exit status that a guest's end asks for."""
    if passed(outcome, exit_code):
        return STATUS_DONE
    if outcome.startswith("unsupported"):
        return STATUS_UNSUPPORTED
    if outcome.startswith("isolation"):
        return STATUS_DIFFERENT
    return STATUS_BUDGET if outcome == "budget" else STATUS_GUEST


def status_of_run(result: "RunResult", conversation: "Conversation | None") -> int:
    """The same of a run, where a guest that ended well without the text that should end the run did not do as expected."""
    status = status_of(result.outcome, result.exit_code)
    missed = conversation is not None and conversation.until is not None and result.outcome not in ("until", "left")
    return STATUS_DIFFERENT if missed and status == STATUS_DONE else status


def status_of_rows(outcomes: Sequence[str], strategies: int) -> int:
    """The exit status of a suite. Where several strategies were asked for, an unsupported pair is only a row."""
    for outcome in outcomes:
        if outcome.startswith("unsupported"):
            if strategies == 1:
                return STATUS_UNSUPPORTED
        elif outcome != "done":
            return STATUS_BUDGET if outcome == "budget" else STATUS_GUEST
    return STATUS_DONE


def run_object(guest: str, setup: Setup, result: "RunResult") -> dict[str, Any]:
    """One run as JSON."""
    from ..ledger import as_cycles
    from ..report import exits_of

    return {
        "schema_version": SCHEMA_VERSION,
        "guest": guest,
        "strategy": setup.name,
        "profile": setup.profile.name,
        "cache_model": setup.cache_model,
        "outcome": result.outcome,
        "exit_code": result.exit_code,
        "instructions": result.instructions,
        "cycles": as_cycles(result.ticks),
        "events": result.ledger.as_json(),
        "exits": {reason: dict(cell) for reason, cell in exits_of(result).items()},
        "regions": [
            {
                "number": region.number,
                "iterations": region.iterations,
                "instructions": region.instructions,
                "cycles": as_cycles(region.ticks),
            }
            for region in result.regions
        ],
        "divergences": [str(divergence) for divergence in result.divergences],
        "console": printable(result.console),
        "serial": printable(result.serial),
        "serial2": printable(result.serial2),
        "screen": [] if result.screen is None else result.screen.lines,
    }


def printable(octets: bytes) -> str:
    """A guest's text: what is neither printable nor a new line or tab is shown as an escape."""
    text = octets.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return "".join(
        character if character.isprintable() or character in "\n\t" else f"\\x{ord(character):02x}"
        for character in text
    )


def show_result(guest: str, setup: Setup, result: "RunResult", conversation: "Conversation | None" = None) -> None:
    """The guest's text, then what the run did. What a person or standard output has seen is not shown again."""
    from ..report import show_run

    show_text(printable(result.console))
    if conversation is None or (conversation.serial is None and conversation.person is None):
        show_text(printable(result.serial), "serial port")
    show_text(printable(result.serial2), "second serial port")
    if result.screen is not None:
        show_text(result.screen.text, "screen")
    show(show_run(f"{guest} under {setup.name}, {setup.profile.name}", result))


def show_text(text: str, caption: str = "") -> None:
    """A text of the guest's under a caption, if there is any."""
    if text and caption:
        click.echo(f"-- {caption} " + "-" * (76 - len(caption)))
    click.echo(text, nl=bool(text) and not text.endswith("\n"))


def show_run_of(
    guest: str, setup: Setup, result: "RunResult", json_file: str | None, conversation: "Conversation | None" = None
) -> int:
    """A run's table or JSON, and its status."""
    if json_file is not None:
        write_json(json_file, run_object(guest, setup, result))
    else:
        show_result(guest, setup, result, conversation)
    say_outcome(result, conversation)
    return status_of_run(result, conversation)


def say_outcome(result: "RunResult", conversation: "Conversation | None" = None) -> None:
    """Explain on stderr an end that is not a good one."""
    advice = {
        "budget": "the budget of cycles is spent; raise --max-cycles if the guest needs more",
        "triple_fault": "a fault could not be delivered, nor the double fault that followed: look at the guest's IDT",
        "halted_forever": "the guest halted with nothing that could wake it, and gave no verdict to port 0xF4",
    }
    outcome = result.outcome
    if outcome in advice:
        say(f"{outcome}: {advice[outcome]}")
    elif outcome.startswith("unsupported"):
        say(outcome)  # it says itself what is not there; the guest did nothing wrong
    elif not passed(outcome, result.exit_code):
        say(f"{outcome}: the guest did not end well")
    if result.script_waits_for and outcome not in ("until", "left"):
        say(f"--input: the script still waited for {result.script_waits_for!r}")
    if conversation is not None and conversation.until is not None and outcome not in ("until", "left"):
        say(f"--until: the run ended without showing {conversation.until!r}")


def show(renderable: "RenderableType") -> None:
    """Print a table to stdout."""
    from ..report import make_console

    make_console().print(renderable)


def say(line: str) -> None:
    """Print a line of progress or explanation to stderr."""
    click.echo(line, err=True)


def write_json(target: str, value: Any) -> None:
    """Write JSON to a file, or to stdout for `-`."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    if target == "-":
        click.echo(text, nl=False)
        return
    try:
        pathlib.Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(target, f"cannot be written ({error.strerror})", "give another file, or -") from None

"""`x86virt trace`: what a guest does, instruction by instruction, and what each step costs."""

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from ..api import strategy_errors
from ..errors import UserError
from .options import NATIVE, machine_options
from .output import SCHEMA_VERSION, STATUS_DONE, get_ready, say, say_outcome, status_of_run
from .pc_options import conversation_options, start_options, take_conversation, take_start

if TYPE_CHECKING:
    from ..api import Setup
    from ..console.conversation import Conversation
    from ..machine import Machine
    from ..start.boot import Bootable
    from ..symbols import Symbols
    from ..trace import Filter, Limit, Record

WIDTH_WITHOUT_TERMINAL = 120


class LimitType(click.ParamType):
    """A number of guest instructions, or of cycles: `1000`, `2500c`."""

    name = "N|Nc"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[int, bool]:
        """Number, and whether it counts cycles; fails with one line."""
        found = re.fullmatch(r"(\d{1,16})(c|cycles)?", str(value).strip().replace(",", "").replace("_", ""), re.ASCII)
        if found is None:
            self.fail(
                f"{value!r} is neither instructions nor cycles; give 1000, or 2500c for cycles", parameter, context
            )
        return int(found[1]), found[2] is not None


@click.command("trace")
@click.argument("guest", required=False)
@click.option("-s", "--strategy", default=NATIVE, show_default=True, metavar="NAME|FILE:CLASS", help="One strategy.")
@click.option("--from", "begin", type=LimitType(), help="Begin after N guest instructions, or at a cycle (Nc).")
@click.option("--count", type=LimitType(), help="End after N guest instructions, or cycles (Nc).")
@click.option(
    "-a",
    "--address",
    "addresses",
    multiple=True,
    metavar="A|A-B|SYMBOL",
    help="Only at these linear addresses (hexadecimal), or in this function.",
)
@click.option(
    "-r", "--ring", "rings", multiple=True, metavar="0..3|kernel|user|vmm", help="Only in this ring or mode."
)
@click.option(
    "-e", "--event", "events", multiple=True, metavar="NAME|PATTERN", help="Only what is charged this event."
)
@click.option("-t", "--transitions", is_flag=True, help="Only what changes the ring or enters the VMM.")
@click.option(
    "-g", "--guest-code", is_flag=True, help="Translated code as the guest's instructions that it stands for, each one line."
)
@machine_options
@click.option(
    "-c", "--command-line", "--append", "command_line", default="", help="The guest's command line, such as iterations=2."
)
@start_options
@conversation_options
def trace_command(
    guest: str | None,
    strategy: str,
    begin: tuple[int, bool] | None,
    count: tuple[int, bool] | None,
    addresses: Sequence[str],
    rings: Sequence[str],
    events: Sequence[str],
    transitions: bool,
    guest_code: bool,
    json_file: str | None,
    command_line: str,
    **machine: Any,
) -> int:  # fmt: skip
    """Show what GUEST does: every instruction with its cost, interrupts, changes of ring, and the VMM's work.

    GUEST is what `run` takes: a shipped guest's name, or the file of a kernel or a boot disk. Options that filter may be
    repeated: the same one twice shows either, different ones show what passes all.
    """
    from ..guests import build_for, open_guest
    from ..symbols import Symbols

    wishes = take_start(machine)
    if guest is None and not wishes.by_firmware:
        raise click.UsageError("give a GUEST, a --disk or a --bios")
    conversation = take_conversation(machine)
    if conversation is not None and (conversation.person or conversation.serial == "-"):
        raise click.UsageError("the trace itself goes to the terminal: give --serial a file, and no --screen")
    opened = open_guest(guest, wishes.options())
    setups = wishes.setups(opened, (strategy,), machine)
    if len(setups) != 1:
        raise click.UsageError("trace takes one strategy")
    setup = setups[0]
    image = build_for(setup.strategy, opened.bootable)
    symbols = Symbols(image.symbols)
    shown = make_filter(addresses, rings, events, transitions, symbols)
    get_ready()
    with strategy_errors(setup.name), quiet_end(), contextlib.ExitStack() as stack:
        traced = setup.load(image, command_line)
        stack.callback(traced.disks.close)
        if conversation is not None:
            stack.enter_context(conversation.with_machine(traced))
        may_look_ahead = conversation is None and not wishes.disk_write
        limits = make_limit(begin), make_limit(count), setup.max_cycles
        records = trace_of(traced, *limits, shown if may_look_ahead else None, guest_code)
        if json_file is None:
            show_trace(records, shown, symbols)
        else:
            write_trace(header(setup, image, command_line, shown), records, shown, symbols, json_file)
        return end_status(traced, conversation)
    return STATUS_DONE


def make_filter(
    addresses: Sequence[str], rings: Sequence[str], events: Sequence[str], transitions: bool, symbols: "Symbols"
) -> "Filter":
    """The filter that the options ask for."""
    from ..trace import Filter, ring_filter
    from ..trace.filters import address_filter, event_filter

    return Filter(address_filter(addresses, symbols), ring_filter(rings), event_filter(events), transitions)


def make_limit(given: tuple[int, bool] | None) -> "Limit | None":
    """The trace's kind of limit."""
    from ..trace import Limit

    return None if given is None else Limit(*given)


@contextlib.contextmanager
def quiet_end() -> Iterator[None]:
    """Whoever reads the output may close it: then the trace is over, without a word."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def trace_of(
    machine: "Machine", begin: "Limit | None", count: "Limit | None", max_cycles: int | None, shown: "Filter | None",
    guest_code: bool,
) -> "Iterator[Record]":  # fmt: skip
    """The records of a loaded machine."""
    from ..trace import as_guest_code, trace

    records = trace(machine, begin, count, max_cycles, shown)
    return as_guest_code(records) if guest_code else records


def show_trace(records: "Iterator[Record]", shown: "Filter", symbols: "Symbols") -> None:
    """The trace as text."""
    from ..trace import TextFormat

    form = TextFormat(symbols, shutil.get_terminal_size((WIDTH_WITHOUT_TERMINAL, 24)).columns)
    hidden = 0
    for record in records:
        if not shown.shows(record):
            hidden += record.ticks
            continue
        for line in form.lines(record):
            sys.stdout.write(line + "\n")
    if hidden:
        say(f"{hidden / 64:,.2f} cycles went into what the filter does not show")


def write_trace(
    head: dict[str, Any], records: "Iterator[Record]", shown: "Filter", symbols: "Symbols", target: str
) -> None:
    """The trace as JSON, an object a line, the first of which is the header."""
    with json_stream(target) as stream:
        stream.write(json.dumps(head) + "\n")
        for record in records:
            if shown.shows(record):
                stream.write(json.dumps(record.as_json(symbols), allow_nan=False) + "\n")


def header(setup: "Setup", image: "Bootable", command_line: str, shown: "Filter") -> dict[str, Any]:
    """The first JSON line."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "header",
        "guest": image.name,
        "strategy": setup.name,
        "profile": setup.profile.name,
        "memory_bytes": setup.memory_bytes,
        "cache_model": setup.cache_model,
        "command_line": command_line,
        "filtered": bool(shown),
    }


@contextlib.contextmanager
def json_stream(target: str) -> "Iterator[IO[str]]":
    """A file, or stdout for `-`."""
    if target == "-":
        yield sys.stdout
        return
    try:
        with open(target, "w", encoding="utf-8") as stream:
            yield stream
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise UserError(target, f"cannot be written ({error.strerror})", "give another file, or -") from None


def end_status(machine: "Machine", conversation: "Conversation | None") -> int:
    """The exit status that the end of the run asks for; a guest that would go on is no bad end."""
    if machine.outcome is None:
        return STATUS_DONE
    result = machine.result()
    say_outcome(result, conversation)
    return status_of_run(result, conversation)

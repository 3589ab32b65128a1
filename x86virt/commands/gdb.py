"""`x86virt gdb`: a machine that waits for a debugger."""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..api import DEFAULT_PROFILE
from .options import NATIVE, MemorySize, refuse_given
from .output import STATUS_DONE, get_ready, say
from .pc_options import start_options, take_conversation, take_start

if TYPE_CHECKING:
    from ..gdb.server import Server
    from ..machine import Machine
    from ..start.boot import Bootable

DEFAULT_PORT = 1234
NOBODY_ELSE = {"serial": None, "screen": False}  # what a person types comes once only: a run that goes back has no place for it


@click.command("gdb")
@click.argument("guest", required=False)
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="0: any that is free.")
@click.option("--once", is_flag=True, help="End when the first client leaves, instead of waiting for the next one.")
@click.option("-s", "--strategy", default=NATIVE, show_default=True, metavar="NAME|FILE:CLASS", help="The strategy.")
@click.option(
    "-p", "--profile", default=DEFAULT_PROFILE, show_default=True, metavar="NAME|FILE.toml",
    help="The processor: a profile's name or file.",
)
@click.option("--memory", type=MemorySize(), default="16M", show_default=True, help="The guest's RAM.")
@click.option(
    "--cache-model", type=click.Choice(["tables", "all"]), default="tables", show_default=True,
    help="What goes through the cache model: page tables, or all data too.",
)
@click.option(
    "-c", "--command-line", "--append", default="", metavar="TEXT", help="The guest's command line, such as iterations=10."
)  # fmt: skip
@start_options
@click.option("--input", "input_file", metavar="FILE", help="A script of what is typed, and waited for.")
@click.option("--until", metavar="TEXT", help="The run ends when console, serial port or screen shows TEXT.")
def gdb_command(guest: str | None, port: int, once: bool, strategy: str, command_line: str, **machine: Any) -> int:
    """Serve GUEST to gdb, on the loopback interface: breakpoints, watchpoints, registers, `monitor`, and back in time.

    The guest stands before its first instruction. A debugger changes no cycle: breakpoints are the simulator's, not the
    guest's. `reverse-stepi` and `reverse-continue` go back by running again from snapshots; what the debugger writes into
    registers or memory makes a new future. A client that detaches or hangs up leaves the machine to the next one.
    """
    from ..guests import build_for, open_guest

    refuse_given(("disk_write",), "cannot be taken back when the run goes back")
    wishes = take_start(machine)
    conversation = take_conversation({**machine, **NOBODY_ELSE})
    if guest is None and not wishes.by_firmware:
        raise click.UsageError("give a GUEST, a --disk or a --bios")
    opened = open_guest(guest, wishes.options())
    setups = wishes.setups(opened, (strategy,), {**machine, "max_cycles": None}, no_limit=True)
    if len(setups) != 1:
        raise click.UsageError("gdb takes one strategy")
    setup = setups[0]
    image = build_for(setup.strategy, opened.bootable)
    get_ready()
    from ..api import strategy_errors
    from ..gdb.server import Server
    from ..gdb.travel import Travel

    server = Server(port)
    with strategy_errors(setup.name), contextlib.ExitStack() as stack:
        loaded = stack.enter_context(closing_disks(setup.load(image, command_line)))
        if conversation is not None:
            stack.enter_context(conversation.with_machine(loaded))
        announce(server, f"{image.name} under {setup.name}, {setup.profile.name}", symbol_file(guest, image))
        server.serve(Travel(loaded, symbols=image.symbols), once, say)
    return STATUS_DONE


@contextlib.contextmanager
def closing_disks(machine: "Machine") -> Iterator["Machine"]:
    """A machine whose disks are closed in the end."""
    with contextlib.closing(machine.disks):
        yield machine


def symbol_file(guest: str | None, image: "Bootable") -> str | os.PathLike[str] | None:
    """The file that tells gdb the guest's symbols: that of the build that runs."""
    from ..guests import guests
    from ..start.multiboot import Image
    from ..start.xen import XenImage

    shipped = guests().get(guest or "")
    if isinstance(image, XenImage) and shipped is not None and shipped.port is not None:
        return shipped.port.path
    if not isinstance(image, Image | XenImage):
        return None
    return guest if shipped is None else shipped.path


def announce(server: "Server", what: str, path: str | os.PathLike[str] | None) -> None:
    """Say how to connect, on stdout, ready to paste."""
    file = "" if path is None else f" {shlex.quote(str(path))}"
    click.echo(f"{what}, waits for gdb on port {server.port}:")
    click.echo(f"  gdb -q{file} -ex 'target remote 127.0.0.1:{server.port}'")
    sys.stdout.flush()

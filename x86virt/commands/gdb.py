"""`x86virt gdb`: a machine that waits for a debugger."""

import contextlib
import pathlib
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..api import DEFAULT_PROFILE
from .options import NATIVE, MemorySize
from .output import STATUS_DONE, get_ready, say
from .pc_options import DISK_WRITE, START_OPTIONS, take_conversation, take_start

if TYPE_CHECKING:
    from ..gdb.server import Server

DEFAULT_PORT = 1234
# What would reach the machine from outside of it, or leave it for good, has no place in a run that goes back.
NOT_HERE = {"disk_write": False, "serial": None, "screen": False, "max_cycles": None}


def start_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `run` that say what the machine starts with; what the guest writes to disks is always forgotten."""
    for option in reversed(START_OPTIONS):
        if option is not DISK_WRITE:
            command = option(command)
    return command


@click.command("gdb")
@click.argument("guest", required=False)
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="0: any that is free.")
@click.option("--once", is_flag=True, help="End when the first client leaves, instead of waiting for the next one.")
@click.option("-s", "--strategy", default=NATIVE, show_default=True, metavar="NAME|FILE:CLASS", help="One strategy.")
@click.option(
    "-p", "--profile", default=DEFAULT_PROFILE, show_default=True, metavar="NAME|FILE.toml",
    help="The processor: a profile's name or file.",
)
@click.option("--memory", type=MemorySize(), help="The guest's RAM: 16M, and 128M for a PC, unless said.")
@click.option(
    "--cache-model", type=click.Choice(["tables", "all"]), default="tables", show_default=True,
    help="What goes through the cache model: page tables, or all data too.",
)
@click.option(
    "-c", "--command-line", "--append", "command_line", default="", help="The guest's command line, such as iterations=10."
)
@start_options
@click.option("--input", "input_file", metavar="FILE", help="A script of what is typed, and waited for.")
@click.option("--until", metavar="TEXT", help="The run ends when console, serial port or screen shows TEXT.")
def gdb_command(guest: str | None, port: int, once: bool, strategy: str, command_line: str, **machine: Any) -> int:
    """Serve GUEST to gdb, on the loopback interface: breakpoints, watchpoints, registers, `monitor`, and back in time.

    The guest stands before its first instruction. A debugger changes no cycle: breakpoints are the simulator's, not the
    guest's. `reverse-stepi` and `reverse-continue` go back by running again from snapshots; what the debugger writes into
    registers or memory makes a new future. A client that detaches or hangs up leaves the machine to the next one.
    """
    options = {**machine, **NOT_HERE}
    wishes, conversation = take_start(options), take_conversation(options)
    if guest is None and not wishes.by_firmware:
        raise click.UsageError("give a GUEST, a --disk or a --bios")
    from ..guests import open_guest

    opened = open_guest(guest, wishes.options())
    setups = wishes.setups(opened, (strategy,), options, no_limit=True)
    if len(setups) != 1:
        raise click.UsageError("gdb takes one strategy")
    setup = setups[0]
    get_ready()
    from ..api import strategy_errors
    from ..gdb.server import Server
    from ..gdb.travel import Travel

    server = Server(port)
    with strategy_errors(setup.name):
        loaded = setup.load(opened.bootable, command_line)
        announce(server, f"{opened.bootable.name} under {setup.name}, {setup.profile.name}", guest)
        with contextlib.closing(loaded.disks), conversation.with_machine(loaded) if conversation else contextlib.nullcontext():
            server.serve(Travel(loaded), once, say)
    return STATUS_DONE


def announce(server: "Server", what: str, guest: str | None) -> None:
    """Say how to connect, on stdout, ready to paste; gdb is given the file if it can hold symbols."""
    from ..guests import guests

    shipped = None if guest is None else guests().get(guest)
    path = shipped.path if shipped is not None else None if guest is None else pathlib.Path(guest)
    file = f" {shlex.quote(str(path))}" if path is not None and is_elf(path) else ""
    click.echo(f"{what}, waits for gdb on port {server.port}:")
    click.echo(f"  gdb -q{file} -ex 'target remote 127.0.0.1:{server.port}'")
    sys.stdout.flush()


def is_elf(path: pathlib.Path) -> bool:
    """Whether a file begins as an ELF one does."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False

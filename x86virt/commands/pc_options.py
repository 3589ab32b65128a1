"""The options that say what the machine starts with and who talks to it, in the habit of QEMU's users."""

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import click

from ..api import Setup, setup_of_start
from .options import OutputFile, given, make_setups

if TYPE_CHECKING:
    from ..console.conversation import Conversation
    from ..start.recognise import Opened, StartOptions

ADDRESS_END = 1 << 32
FIRST_YEAR, LAST_YEAR = 1970, 2099
NOW = "now"


class Address(click.ParamType):
    """A physical address below 4 GB, decimal or with 0x."""

    name = "ADDRESS"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """The number; fails with one line."""
        if isinstance(value, int):
            return value
        if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|\d{1,16}", value, re.ASCII):
            self.fail(f"{value!r} is not an address; give a number such as 0x7c00", parameter, context)
        address = int(value, 0) if value[:2].lower() == "0x" else int(value)
        if address >= ADDRESS_END:
            self.fail(f"{value} lies behind 4 GB; give a lower address", parameter, context)
        return address


class ClockTime(click.ParamType):
    """What the real-time clock shows at power on: `now`, or a date with or without a time (ISO 8601)."""

    name = "DATE|now"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """Seconds since the beginning of 1970, as if the clock's time were UTC; fails with one line."""
        if isinstance(value, int):
            return value
        try:
            moment = datetime.datetime.now(datetime.UTC) if value == NOW else datetime.datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a date; give one such as 2026-01-31T12:00:00, or now", parameter, context)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        if not FIRST_YEAR <= moment.year <= LAST_YEAR:
            self.fail(f"{value} is out of range; give a year from {FIRST_YEAR} to {LAST_YEAR}", parameter, context)
        return int(moment.timestamp())


START_OPTIONS = (
    click.option("--bios", metavar="FILE", help="A BIOS image for the reset vector, instead of our own."),
    click.option("--vga-bios", metavar="FILE", help="The VGA's option ROM; with --bios, SeaBIOS's where it is installed."),
    click.option("--disk", "disks", multiple=True, metavar="FILE", help="A raw disk image; up to four."),
    click.option("--disk-write", is_flag=True, help="Write to the disks' files, instead of forgetting what was written."),
    click.option(
        "--initrd", multiple=True, metavar="FILE",
        help="An initial RAM disk for Linux, a module for a Multiboot kernel; may be repeated.",
    ),
    click.option("--at", type=Address(), help="GUEST is a flat binary that goes to this address."),
    click.option(
        "--entry", type=click.Choice(["real", "protected"]),
        help="The mode that a flat binary is entered in; real below 1 MB unless said.",
    ),
    click.option("--rtc", type=ClockTime(), help="What the real-time clock shows at power on; a fixed date unless said."),
    click.option(
        "--apic/--no-apic", "apic", default=None,
        help="A local APIC and an I/O APIC; there by default where firmware or Linux starts.",
    ),
    click.option("--no-reboot", is_flag=True, help="End the run when the guest asks for a reset."),
)  # fmt: skip
CONVERSATION_OPTIONS = (
    click.option(
        "--serial", metavar="FILE|-",
        help="Where the first serial port's output goes; at a terminal, - is its line: your keys go there.",
    ),
    click.option("--screen", is_flag=True, help="Show the machine's screen in this terminal, and give it your keys."),
    click.option("--input", "input_file", metavar="FILE", help="A script of what is typed, and waited for."),
    click.option("--until", metavar="TEXT", help="End with success when console, serial port or screen shows TEXT."),
)  # fmt: skip


def start_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a start, for each command that starts a machine; `take_start` takes what they were given."""
    for option in reversed(START_OPTIONS):
        command = option(command)
    return command


def conversation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a conversation; `take_conversation` takes what they were given."""
    for option in reversed(CONVERSATION_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class StartWishes:
    """What the options of a start were given."""

    bios: str | None
    vga_bios: str | None
    disks: tuple[str, ...]
    disk_write: bool
    initrd: tuple[str, ...]
    at: int | None
    entry: str | None
    rtc: int | None
    apic: bool | None
    no_reboot: bool

    @property
    def by_firmware(self) -> bool:
        """Whether they start a machine without a guest."""
        return self.bios is not None or bool(self.disks)

    def options(self) -> "StartOptions":
        """Those that say how a file starts."""
        from ..start.recognise import StartOptions

        return StartOptions(self.bios, self.vga_bios, self.initrd, self.at, self.entry)

    def setups(
        self, opened: "Opened", strategies: Sequence[str], machine: dict[str, Any], no_limit: bool = False
    ) -> list[Setup]:
        """A setup for each strategy, with the disks, and with the memory and the budget of such a start unless given."""
        memory_bytes = machine["memory"] if given("memory") else 0
        max_cycles = machine["max_cycles"] if given("max_cycles") else None if no_limit else 0
        setups = (
            replace(setup, disks=self.disks, disk_write=self.disk_write, rtc=self.rtc, reboots=not self.no_reboot)
            for setup in make_setups(strategies, machine)
        )
        return [setup_of_start(setup, opened, memory_bytes, max_cycles, self.apic) for setup in setups]


def take_start(options: dict[str, Any]) -> StartWishes:
    """The options of a start out of all that a command was given."""
    return StartWishes(**{field.name: options.pop(field.name) for field in fields(StartWishes)})


def take_conversation(options: dict[str, Any]) -> "Conversation | None":
    """What the options of a conversation ask for, taken out of all that a command was given; None if for nothing."""
    from ..console.conversation import SCREEN, SERIAL_LINE, STANDARD_OUTPUT, Conversation, read_script
    from ..console.terminal import at_terminal

    serial, screen, input_file, until = (options.pop(name) for name in ("serial", "screen", "input_file", "until"))
    if screen and serial == STANDARD_OUTPUT:
        raise click.UsageError("--screen and --serial - both want the terminal: give --serial a file")
    if serial is not None and serial != STANDARD_OUTPUT:
        OutputFile().convert(serial, None, None)
    line = serial == STANDARD_OUTPUT and at_terminal()
    person = SCREEN if screen else SERIAL_LINE if line else None
    script = "" if input_file is None else read_script(input_file)
    if person is None and serial is None and until is None and not script:
        return None
    return Conversation(script, input_file or "input", until, serial, person)

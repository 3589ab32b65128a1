"""The options of `run` that say what the machine starts with and who talks to it, in the habit of QEMU's users."""

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .options import OutputFile

if TYPE_CHECKING:
    from ..console.conversation import Conversation
    from ..start.recognise import StartOptions

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


DISK_WRITE = click.option(
    "--disk-write", is_flag=True, help="Write to the disks' files, instead of forgetting what was written."
)
START_OPTIONS = (
    click.option("--bios", metavar="FILE", help="A BIOS image for the reset vector, instead of our own."),
    click.option("--vga-bios", metavar="FILE", help="The VGA's option ROM; with --bios, SeaBIOS's where it is installed."),
    click.option("--disk", "disks", multiple=True, metavar="FILE", help="A raw disk image; up to four."),
    DISK_WRITE,
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
        help="A local APIC and an I/O APIC; there by default where firmware or Linux starts on the bare machine.",
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
    """The options of a start and of a conversation."""
    for option in reversed(START_OPTIONS + CONVERSATION_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Wishes:
    """What these options were given."""

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
    serial: str | None
    screen: bool
    input_file: str | None
    until: str | None

    def start(self) -> "StartOptions":
        """Those that say how a file starts."""
        from ..start.recognise import StartOptions

        return StartOptions(self.bios, self.vga_bios, self.initrd, self.at, self.entry)

    def conversation(self) -> "Conversation | None":
        """Those that say who talks to the machine, None if nobody does."""
        from ..console.conversation import SCREEN, SERIAL_LINE, STANDARD_OUTPUT, Conversation, read_script
        from ..console.terminal import at_terminal

        line = self.serial == STANDARD_OUTPUT and at_terminal()
        if self.screen and self.serial == STANDARD_OUTPUT:
            raise click.UsageError("--screen and --serial - both want the terminal: give --serial a file")
        if self.serial is not None and self.serial != STANDARD_OUTPUT:
            OutputFile().convert(self.serial, None, None)
        person = SCREEN if self.screen else SERIAL_LINE if line else None
        script = "" if self.input_file is None else read_script(self.input_file)
        if person is None and self.serial is None and self.until is None and not script:
            return None
        return Conversation(script, self.input_file or "input", self.until, self.serial, person)


def take_wishes(options: dict[str, Any]) -> Wishes:
    """The options of this module out of all that a command was given."""
    return Wishes(**{name: options.pop(name) for name in Wishes.__dataclass_fields__})

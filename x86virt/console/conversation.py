"""Who talks to a machine during a run: a script, a file that follows the serial port, a person at a terminal."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from ..errors import UserError
from .script import LONGEST_SCRIPT, parse_script

if TYPE_CHECKING:
    from ..machine import Machine

STANDARD_OUTPUT = "-"
SERIAL_LINE, SCREEN = "serial", "screen"  # where a person sits


class ConversationError(UserError):
    """A file of a conversation that cannot be read or written, or a text that cannot be waited for."""


@dataclass(frozen=True)
class Conversation:
    """What a run is given and asked for.

    `script` is the text of an input script (x86virt/console/script.py) and `script_name` what it is called in errors; `until`
    ends the run with the outcome `until` when the console, a serial port or the screen shows it; `serial` is a file that gets
    what the first serial port sends, `-` for standard output; `person` is where somebody at the terminal sits, `serial` or
    `screen`.
    """

    script: str = ""
    script_name: str = "input"
    until: str | None = None
    serial: str | None = None
    person: str | None = None

    def __post_init__(self) -> None:
        parse_script(self.script, self.script_name)
        if self.until is not None and not self.until.strip():
            raise ConversationError("until", "an empty text", "give the text that ends the run")

    @contextlib.contextmanager
    def with_machine(self, machine: "Machine") -> Iterator[None]:
        """Everybody is there; at the end files are closed and the terminal is as it was."""
        from .terminal import Terminal
        from .visitors import ScreenPerson, SerialFile, SerialPerson

        dialogue = machine.dialogue
        if self.script:
            dialogue.play(self.script, self.script_name)
        if self.until is not None:
            dialogue.end_at(self.until)
        with contextlib.ExitStack() as stack:
            if self.serial is not None and self.person != SERIAL_LINE:
                file = stack.enter_context(serial_file(self.serial))
                dialogue.visit(SerialFile(file))
            if self.person is not None:
                terminal = stack.enter_context(Terminal("--" + self.person))
                dialogue.visit(SerialPerson(terminal) if self.person == SERIAL_LINE else ScreenPerson(terminal))
            dialogue.watch()
            try:
                yield
            finally:
                dialogue.last_look()


@contextlib.contextmanager
def serial_file(path: str) -> Iterator[BinaryIO]:
    """Where a serial port's output goes: a new file, or standard output. Raises ConversationError."""
    if path == STANDARD_OUTPUT:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    try:
        file = open(path, "wb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ConversationError(path, f"cannot be written ({error.strerror})", "give another file, or -") from None
    with file:
        yield file


def read_script(path: str | os.PathLike[str]) -> str:
    """The text of an input script's file. Raises ConversationError."""
    try:
        with open(path, "rb") as file:
            octets = file.read(LONGEST_SCRIPT + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConversationError(path, f"cannot be read ({reason})", "give the file of an input script") from None
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConversationError(path, f"is not UTF-8 at byte {error.start}", "write it as plain text") from None

"""Those who look at a machine while it runs: a file that follows a serial port, and a person at a terminal."""

import contextlib
import time
from collections import deque
from typing import BinaryIO

from .dialogue import Dialogue
from .keys import chord_codes, find_chord
from .painter import ENTER, LEAVE, Painter
from .terminal import Terminal
from .terminal_keys import CTRL_ALT_DEL, HELP, HELP_TEXT, Typing, keys_of
from .terminal_keys import LEAVE as LEAVE_COMMAND

LONGEST_SLEEP = 0.1  # seconds


class SerialFile:
    """Writes what the first serial port sends to a file or to standard output, as it comes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.written = 0

    def look(self, dialogue: Dialogue) -> None:
        """Write what is new."""
        octets = dialogue.serial[0]
        if len(octets) > self.written:
            self.file.write(octets[self.written :])
            self.file.flush()
            self.written = len(octets)

    look_last = look


class Person:
    """A person at a terminal, whose keys go to the machine; simulated time does not run ahead of theirs."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.typing = Typing()
        self.line = bytearray()  # typed, not yet taken by the serial port
        self.keys: deque[bytes] = deque()  # scan codes of each key, not yet taken by the keyboard's controller
        self.clock: tuple[float, float] | None = None  # of the last look: the person's, the machine's
        terminal.leave = self.take_leave

    def look(self, dialogue: Dialogue) -> None:
        """Show what is new, wait for real time, pass on what was typed meanwhile."""
        self.show(dialogue)
        try:
            octets = self.terminal.read(self.ahead(dialogue))
        except (EOFError, OSError):
            dialogue.machine.stop("left")
            return
        for piece in self.typing.split(octets):
            if piece == LEAVE_COMMAND:
                dialogue.machine.stop("left")
            elif piece == HELP:
                self.help()
            elif piece == CTRL_ALT_DEL:
                self.keys.append(chord_codes(find_chord(CTRL_ALT_DEL, "terminal")))
            elif isinstance(piece, bytes):
                self.take(piece)
        self.pass_on(dialogue)

    def look_last(self, dialogue: Dialogue) -> None:
        """Show what came last."""
        with contextlib.suppress(OSError):
            self.show(dialogue)

    def ahead(self, dialogue: Dialogue) -> float:
        """By how many seconds the machine is ahead of the person since the last look. What it is behind is forgotten."""
        hardware = dialogue.hardware
        now, simulated = time.monotonic(), hardware.now / hardware.ticks_per_second
        before = self.clock or (now, simulated)
        ahead = (simulated - before[1]) - (now - before[0])
        self.clock = (before[0] + simulated - before[1], simulated) if ahead > 0 else (now, simulated)
        return min(max(ahead, 0.0), LONGEST_SLEEP)

    def show(self, dialogue: Dialogue) -> None:
        """Show what is new."""
        raise NotImplementedError

    def help(self) -> None:
        """Say which keys are for the person alone."""
        raise NotImplementedError

    def take(self, octets: bytes) -> None:
        """Keep what was typed until the machine takes it."""
        raise NotImplementedError

    def pass_on(self, dialogue: Dialogue) -> None:
        """Give the machine what it takes: as many bytes on the serial port as there is room for, one key."""
        while self.line and dialogue.hardware.give_serial(0, self.line[0]):
            del self.line[0]
        while self.keys:
            if not dialogue.hardware.give_key(self.keys[0][0]):
                return
            self.keys[0] = self.keys[0][1:]
            if not self.keys[0]:
                self.keys.popleft()
                return

    def take_leave(self) -> None:
        """Leave the terminal tidy."""


class SerialPerson(Person):
    """A person at the first serial port."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self.shown = 0

    def show(self, dialogue: Dialogue) -> None:
        """Write what the port has sent."""
        octets = dialogue.serial[0]
        if len(octets) > self.shown:
            self.terminal.write(bytes(octets[self.shown :]))
            self.shown = len(octets)

    def help(self) -> None:
        """On a line of its own."""
        self.terminal.write(b"\r\n" + HELP_TEXT.encode() + b"\r\n")

    def take(self, octets: bytes) -> None:
        """To the line, as it is."""
        self.line += octets

    def take_leave(self) -> None:
        """What follows begins on a new line."""
        self.terminal.write(b"\r\n")


class ScreenPerson(Person):
    """A person at the screen and the keyboard."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self.painter = Painter()
        terminal.write(ENTER)

    def show(self, dialogue: Dialogue) -> None:
        """Draw what has changed."""
        self.terminal.write(self.painter.paint(dialogue.screen(), self.terminal.size()))

    def help(self) -> None:
        """In the lowest row, until something else is drawn there."""
        columns, rows = self.terminal.size()
        self.terminal.write(f"\x1b[{rows};1H\x1b[7m{HELP_TEXT[: columns - 1]}\x1b[0m".encode())
        self.painter.forget(rows - 1)

    def take(self, octets: bytes) -> None:
        """As keys of a US keyboard."""
        self.keys.extend(keys_of(octets))

    def take_leave(self) -> None:
        """Give back what the terminal showed before."""
        self.terminal.write(LEAVE)

"""The terminal of a person: raw while a machine has it, as it was before afterwards, whatever happens."""

import contextlib
import importlib.util
import os
import select
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from ..errors import UserError

READ_BYTES = 4096
ENDING_SIGNALS = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT")


class TerminalError(UserError):
    """A terminal was asked for where there is none."""


def at_terminal() -> bool:
    """Whether standard input and output are a terminal."""
    try:
        return os.isatty(sys.stdin.fileno()) and os.isatty(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return False


class Terminal:
    """A terminal in raw mode, as a context. Raises TerminalError where there is none."""

    def __init__(self, what: str) -> None:
        if not at_terminal() or importlib.util.find_spec("termios") is None:
            raise TerminalError(what, "needs a terminal", "run it in one, or use --input FILE and --serial FILE")
        self.input, self.output = sys.stdin.fileno(), sys.stdout.fileno()
        self.saved: list[Any] | None = None
        self.handlers: dict[int, Any] = {}
        self.leave: Callable[[], None] = lambda: None  # called once before the terminal is given back

    def __enter__(self) -> "Terminal":
        import termios
        import tty

        sys.stdout.flush()
        self.saved = termios.tcgetattr(self.input)
        self._end_in_order()
        tty.setraw(self.input, termios.TCSAFLUSH)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        import termios

        if self.saved is None:
            return
        with contextlib.suppress(OSError):
            self.leave()
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(self.input, termios.TCSAFLUSH, self.saved)
        self.saved = None
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _end_in_order(self) -> None:
        """A signal that ends the process gives the terminal back first."""

        def end(number: int, frame: FrameType | None) -> None:
            raise SystemExit(128 + number)

        for name in ENDING_SIGNALS:
            number = getattr(signal, name, None)
            if number is not None:
                with contextlib.suppress(ValueError):  # not in the main thread
                    self.handlers[number] = signal.signal(number, end)

    def read(self, seconds: float = 0.0) -> bytes:
        """What was typed, at once, or after waiting at most that long; nothing if the terminal went away."""
        ready, _, _ = select.select([self.input], [], [], max(seconds, 0.0))
        if not ready:
            return b""
        octets = os.read(self.input, READ_BYTES)
        if not octets:
            raise EOFError
        return octets

    def write(self, octets: bytes) -> None:
        """Show bytes as they are."""
        while octets:
            octets = octets[os.write(self.output, octets) :]

    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        try:
            columns, rows = os.get_terminal_size(self.output)
        except OSError:
            return 80, 25
        return columns or 80, rows or 25

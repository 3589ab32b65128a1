"""What a machine says and what it is told: console, serial ports, screen, script, and the text that ends a run.

Everything happens at the board's polls, at fixed simulated times, so that a run with a script is as deterministic as one
without. The machine polls only if somebody looks: a script, a text that ends the run, a file or a person.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from .hardware import Hardware
from .keys import InputError
from .player import Player
from .screen import Screen
from .script import parse_script
from .sources import NAMES, Source, Watch
from .transcript import Transcript

if TYPE_CHECKING:
    from ..machine import Machine

POLLS_PER_SECOND = 100  # of simulated time
SERIAL_PORTS = 2


class Visitor(Protocol):
    """Somebody who looks at the machine at each poll: a file that follows a serial port, a person at a terminal."""

    def look(self, dialogue: "Dialogue") -> None:
        """See what is new, and do something about it."""

    def look_last(self, dialogue: "Dialogue") -> None:
        """See what is new when the run is over."""


class Dialogue:
    """The machine's side of a conversation."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.hardware = Hardware(machine)
        self.console = bytearray()
        self.serial = tuple(bytearray() for _ in range(SERIAL_PORTS))
        self.transcript = Transcript()
        self.player = Player(())
        self.script_text = ""
        self.until: Watch | None = None
        self.visitors: list[Visitor] = []

    # -- who looks ----------------------------------------------------------------------------------------------------

    def play(self, text: str, where: str = "input") -> None:
        """Play a script from its beginning; `where` is named in errors. Raises InputError."""
        self.player, self.script_text = Player(parse_script(text, where)), text
        self.watch()

    def end_at(self, text: str) -> None:
        """End the run with the outcome `until` when the text appears anywhere."""
        self.until = Watch(text.encode("utf-8", "surrogateescape"))
        self.watch()

    def visit(self, visitor: Visitor) -> None:
        """Let somebody look at every poll."""
        self.visitors.append(visitor)
        self.watch()

    def watch(self) -> None:
        """Poll from now on, if somebody looks."""
        if self.visitors or self.until is not None or not self.player.done:
            self.hardware.poll_every(POLLS_PER_SECOND)

    # -- at a poll ----------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Look at everything, end the run if it has shown what it should, play the script, let the visitors look."""
        self.drain()
        self.transcript.look(self.screen().rows)
        sources = self.sources()
        if self.until is not None and self.until.find(sources, NAMES) is not None:
            self.machine.stop("until")
        else:
            self.player.play(self.hardware.now, self.hardware.ticks_per_second, sources, self.hardware)
        for visitor in self.visitors:
            visitor.look(self)

    def last_look(self) -> None:
        """The run is over: the visitors see what came last, and go."""
        self.drain()
        visitors, self.visitors = self.visitors, []
        for visitor in visitors:
            visitor.look_last(self)

    def finish(self) -> None:
        """A run has ended: the text that should end it may have come with the guest's last words."""
        if self.until is None or self.machine.outcome == "until":
            return
        self.drain()
        self.transcript.look(self.screen().rows)
        if self.until.find(self.sources(), NAMES) is not None:
            self.machine.outcome = "until"

    def drain(self) -> None:
        """Take what the devices have for the host."""
        self.console += self.hardware.take_console()
        for port, octets in enumerate(self.serial):
            octets += self.hardware.take_serial(port)

    def sources(self) -> dict[str, Source]:
        """All texts by name."""
        shown = Source(self.transcript.octets, self.transcript.start)
        console, serial, serial2 = Source(self.console), Source(self.serial[0]), Source(self.serial[1])
        return dict(zip(NAMES, (console, serial, serial2, shown), strict=True))

    def screen(self) -> Screen:
        """The screen as it is now."""
        return self.hardware.screen()

    # -- saving -------------------------------------------------------------------------------------------------------

    def texts(self) -> dict[str, bytes]:
        """All that has been said, by the names of its sources."""
        self.drain()
        said = (self.console, *self.serial, self.transcript.octets)
        return {name: bytes(octets) for name, octets in zip(NAMES, said, strict=True)}

    def set_texts(self, texts: Mapping[str, bytes]) -> None:
        """Take back what `texts` gave."""
        self.console = bytearray(texts["console"])
        self.serial = (bytearray(texts["serial"]), bytearray(texts["serial2"]))
        self.transcript.octets = bytearray(texts["screen"])

    def state(self) -> dict[str, Any]:
        """What stands neither in the devices nor in the texts, as JSON has it."""
        return {
            "script": self.script_text,
            "player": self.player.state(),
            "until": None if self.until is None else self.until.state(),
            "transcript": self.transcript.state(),
        }

    def restore(self, state: Mapping[str, Any], texts: Mapping[str, bytes]) -> None:
        """Go on where `state` was taken. Raises ValueError, TypeError or KeyError for one that is damaged."""
        self.set_texts(texts)
        self.transcript.restore(texts["screen"], state["transcript"])
        self.script_text = str(state["script"])
        try:
            self.player = Player(parse_script(self.script_text))
        except InputError as error:
            raise ValueError(f"its script: {error}") from None
        self.player.restore(state["player"])
        self.until = None if state["until"] is None else Watch.of(state["until"])

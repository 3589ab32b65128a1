"""Playing an input script: at each look the machine is given what is due by then."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .script import KEYBOARD, SERIAL, Pause, Send, Step, Wait
from .sources import NAMES, Source, Watch, checked_number, checked_places

LATER, GO_ON, NEXT_LOOK = range(3)  # of a step at one look: not done; done; done, the step behind it comes at the next look


class Devices(Protocol):
    """What a script's strokes go to; each says whether the device took the byte."""

    def give_key(self, octet: int) -> bool:
        """A byte from the keyboard."""

    def give_serial(self, port: int, octet: int) -> bool:
        """A byte on a serial port's line."""


class Player:
    """A script and how far it has been played. One key is struck in one look; a serial port gets as much as it takes."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)
        self.position = 0  # of the step that is being played
        self.stroke = 0  # of a Send, the stroke that comes next
        self.octet = 0  # and its first byte that was not taken yet
        self.resume_tick = -1  # the end of a pause that has begun
        self.places = dict.fromkeys(NAMES, 0)  # where the next wait begins to look
        self.watch: Watch | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing left."""
        return self.position >= len(self.steps)

    def waits_for(self) -> str:
        """What the script waits for at present, for people; empty if for nothing."""
        step = None if self.done else self.steps[self.position]
        return step.text if isinstance(step, Wait) else ""

    def play(self, now: int, ticks_per_second: int, sources: Mapping[str, Source], devices: Devices) -> None:
        """Do all steps that can be done at tick `now`."""
        while not self.done:
            step = self.steps[self.position]
            if isinstance(step, Wait):
                progress = self._wait(step, sources)
            elif isinstance(step, Pause):
                progress = self._pause(step, now, ticks_per_second)
            else:
                progress = self._send(step, devices)
            if progress == LATER:
                return
            self.position += 1
            if progress == NEXT_LOOK:
                return

    def _wait(self, step: Wait, sources: Mapping[str, Source]) -> int:
        """Look for the text. Later waits look behind it, and in the other sources from now on."""
        if self.watch is None:
            self.watch = Watch(step.text.encode("utf-8", "surrogateescape"), dict(self.places))
        found = self.watch.find(sources, step.sources)
        if found is None:
            return LATER
        self.places = {name: source.end for name, source in sources.items()}
        self.places[found[0]] = found[1]
        self.watch = None
        return GO_ON

    def _pause(self, step: Pause, now: int, ticks_per_second: int) -> int:
        """Let time pass, from the look at which the pause was met."""
        if self.resume_tick < 0:
            self.resume_tick = now + round(step.seconds * ticks_per_second)
        if now < self.resume_tick:
            return LATER
        self.resume_tick = -1
        return GO_ON

    def _send(self, step: Send, devices: Devices) -> int:
        """Give what the device takes: of the keyboard one key, of a serial port all."""
        most = 1 if step.device == KEYBOARD else len(step.strokes)
        for stroke in step.strokes[self.stroke : self.stroke + most]:
            while self.octet < len(stroke):
                if not give(devices, step.device, stroke[self.octet]):
                    return LATER
                self.octet += 1
            self.stroke, self.octet = self.stroke + 1, 0
        if self.stroke < len(step.strokes):
            return LATER
        self.stroke = 0
        return NEXT_LOOK if step.device == KEYBOARD else GO_ON

    # -- saving -----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """How far it is, as JSON has it."""
        return {
            "position": self.position,
            "stroke": self.stroke,
            "octet": self.octet,
            "resume_tick": self.resume_tick,
            "places": self.places,
            "watch": None if self.watch is None else self.watch.places,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. Raises ValueError for one that does not fit the script."""
        self.position = checked_number(state["position"], len(self.steps))
        step = None if self.done else self.steps[self.position]
        strokes = step.strokes if isinstance(step, Send) else ()
        self.stroke = checked_number(state["stroke"], max(len(strokes) - 1, 0))
        self.octet = checked_number(state["octet"], len(strokes[self.stroke]) if strokes else 0)
        resume = state["resume_tick"]
        self.resume_tick = -1 if resume == -1 else checked_number(resume, 1 << 62)
        self.places = checked_places(state["places"])
        self.watch = None
        if state["watch"] is not None:
            if not isinstance(step, Wait):
                raise ValueError("the script's place is not a wait")
            self.watch = Watch(step.text.encode("utf-8", "surrogateescape"), checked_places(state["watch"]))


def give(devices: Devices, device: str, octet: int) -> bool:
    """Whether a device took a byte."""
    if device == KEYBOARD:
        return devices.give_key(octet)
    return devices.give_serial(0 if device == SERIAL else 1, octet)


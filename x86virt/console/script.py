"""Input scripts: what is typed at a machine, and what is waited for before.

A script is a text. Each line is typed, followed by Enter; what does not type begins with a colon:

    :wait TEXT          wait until TEXT appears on the screen, the console or a serial port, behind what was waited for before
    :wait-screen TEXT   the same on the screen alone; also :wait-console and :wait-serial
    :pause SECONDS      let simulated time pass
    :key NAME ...       press keys or chords on the keyboard: enter, F12, ctrl-alt-del, shift-tab, up, a
    :type TEXT          type TEXT without Enter
    :to serial          send what follows to the first serial port; also :to serial2, :to keyboard (where a script begins)
    ::TEXT              type a line that begins with a colon

Empty lines and lines that begin with # are not typed (`:key enter` and `:type # ...` do that). In TEXT of `:wait` blanks at both
ends do not count; everything else is as it stands. The keyboard is a US one.
"""

import math
from dataclasses import dataclass

from ..errors import near_matches
from .keys import InputError, character_codes, chord_codes, find_chord
from .sources import NAMES

LONGEST_SCRIPT = 1 << 20
LONGEST_PAUSE = 1e6  # seconds
KEYBOARD, SERIAL, SERIAL_2 = DEVICES = "keyboard", "serial", "serial2"
DIRECTIVES = ("wait", "wait-screen", "wait-console", "wait-serial", "pause", "key", "type", "to")


@dataclass(frozen=True)
class Wait:
    """Go on when the text has appeared in one of the sources."""

    text: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Pause:
    """Go on after that much simulated time."""

    seconds: float


@dataclass(frozen=True)
class Send:
    """Strokes for one device, each the bytes that go together: a key's scan codes, or a byte for a serial port."""

    device: str
    strokes: tuple[bytes, ...]


Step = Wait | Pause | Send


def parse_script(text: str, where: str = "input") -> tuple[Step, ...]:
    """The steps of a script; errors name the file and the line. Raises InputError."""
    if len(text) > LONGEST_SCRIPT:
        raise InputError(where, f"longer than {LONGEST_SCRIPT >> 20} MB", "give a script of keys and waits")
    steps: list[Step] = []
    device: str = KEYBOARD
    for number, line in enumerate(text.splitlines(), 1):
        place = f"{where}, line {number}"
        if not line or line.startswith("#"):
            continue
        if not line.startswith(":") or line.startswith("::"):
            steps.append(typed(line.removeprefix(":") + "\n", device, place))
            continue
        directive, _, argument = line[1:].partition(" ")
        if directive == "to":
            device = _device(argument.strip(), place)
        else:
            steps.append(_step(directive, argument, device, place))
    return tuple(steps)


def typed(text: str, device: str, where: object) -> Send:
    """A text as strokes. Raises InputError where the keyboard lacks a character."""
    if device == KEYBOARD:
        return Send(device, tuple(character_codes(character, where) for character in text))
    octets = text.replace("\n", "\r").encode("utf-8", "surrogateescape")
    return Send(device, tuple(bytes([octet]) for octet in octets))


def _step(directive: str, argument: str, device: str, where: str) -> Step:
    """The step of one directive."""
    if directive not in DIRECTIVES:
        advice = f"use {', '.join(':' + name for name in DIRECTIVES)}, or :: for a line that begins with a colon"
        raise InputError(where, f"unknown directive {':' + directive!r}", advice + near_matches(directive, DIRECTIVES))
    if directive == "type":
        if not argument:
            raise InputError(where, ":type without a text", "write :type TEXT")
        return typed(argument, device, where)
    argument = argument.strip()
    if not argument:
        raise InputError(where, f":{directive} without its argument", f"write :{directive} {_ARGUMENTS[directive]}")
    if directive == "key":
        return Send(KEYBOARD, tuple(chord_codes(find_chord(name, where)) for name in argument.split()))
    if directive == "pause":
        return Pause(_seconds(argument, where))
    return Wait(argument, _sources(directive))


_ARGUMENTS = {
    "wait": "TEXT", "wait-screen": "TEXT", "wait-console": "TEXT", "wait-serial": "TEXT", "pause": "SECONDS", "key": "NAME",
}  # fmt: skip


def _sources(directive: str) -> tuple[str, ...]:
    """Where a wait looks: each of them, or those of one name."""
    kind = directive.partition("-")[2]
    return tuple(name for name in NAMES if name.startswith(kind))


def _seconds(text: str, where: str) -> float:
    """A pause's length."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_PAUSE:
        raise InputError(where, f"{text!r} is not a time", "give seconds of simulated time, such as 0.5")
    return seconds


def _device(name: str, where: str) -> str:
    """The device that `:to` names."""
    if name not in DEVICES:
        advice = f"give {', '.join(DEVICES)}{near_matches(name, DEVICES)}"
        raise InputError(where, f"unknown device {name!r}", advice)
    return name


"""Looking for a text in what a machine says: console, serial ports and screen, each a text that grows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NAMES = ("console", "serial", "serial2", "screen")


@dataclass(frozen=True)
class Source:
    """A text that grows: what is kept of it, and how many bytes were forgotten before that."""

    octets: bytes | bytearray
    start: int = 0

    @property
    def end(self) -> int:
        """All that there has been."""
        return self.start + len(self.octets)


@dataclass
class Watch:
    """A text that is looked for; `places` says from where on, in each source."""

    text: bytes
    places: dict[str, int] = field(default_factory=dict)

    def find(self, sources: Mapping[str, Source], names: Sequence[str]) -> tuple[str, int] | None:
        """The first of the named sources that shows the text, and where it ends there; None if there is none yet."""
        for name in names:
            source = sources[name]
            begin = max(self.places.get(name, 0), source.start)
            found = source.octets.find(self.text, begin - source.start)
            if found >= 0:
                return name, source.start + found + len(self.text)
            self.places[name] = max(begin, source.end - len(self.text) + 1)
        return None

    @classmethod
    def of(cls, state: Any) -> "Watch":
        """What `state` gave. Raises ValueError or TypeError for one that is damaged."""
        text, places = state
        return cls(str(text).encode("utf-8", "surrogateescape"), checked_places(places))

    def state(self) -> list[Any]:
        """As JSON has it."""
        return [self.text.decode("utf-8", "surrogateescape"), dict(sorted(self.places.items()))]


def checked_number(value: Any, most: int) -> int:
    """A number of a saved state, from 0 to `most`. Raises ValueError."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError("the state of a script is out of range")
    return value


def checked_places(value: Any) -> dict[str, int]:
    """Places in the sources, of a saved state. Raises ValueError."""
    if not isinstance(value, dict) or not set(value) <= set(NAMES):
        raise ValueError("the places of a script are not those of its sources")
    return {name: checked_number(place, 1 << 62) for name, place in value.items()}

"""Keys of a US keyboard: names, characters, and the scan codes of set 2 that the keyboard sends."""

from dataclasses import dataclass

from ..errors import UserError, near_matches

EXTENDED, RELEASED = 0xE0, 0xF0  # prefixes: a key of the second block; it is let go

# Scan codes of set 2 (IBM, Personal System/2 Hardware Interface Technical Reference, "Keyboard"), row by row.
_ROWS = (
    ("16 1E 26 25 2E 36 3D 3E 46 45 4E 55", "1234567890-=", "!@#$%^&*()_+"),
    ("15 1D 24 2D 2C 35 3C 43 44 4D 54 5B", "qwertyuiop[]", "QWERTYUIOP{}"),
    ("1C 1B 23 2B 34 33 3B 42 4B 4C 52 0E 5D", "asdfghjkl;'`\\", 'ASDFGHJKL:"~|'),
    ("1A 22 21 2A 32 31 3A 41 49 4A", "zxcvbnm,./", "ZXCVBNM<>?"),
)
_PLAIN = {
    "esc": 0x76, "backspace": 0x66, "tab": 0x0D, "enter": 0x5A, "ctrl": 0x14, "shift": 0x12, "right-shift": 0x59,
    "alt": 0x11, "space": 0x29, "caps-lock": 0x58, "num-lock": 0x77, "scroll-lock": 0x7E,
    "keypad-0": 0x70, "keypad-1": 0x69, "keypad-2": 0x72, "keypad-3": 0x7A, "keypad-4": 0x6B, "keypad-5": 0x73,
    "keypad-6": 0x74, "keypad-7": 0x6C, "keypad-8": 0x75, "keypad-9": 0x7D, "keypad-.": 0x71, "keypad-+": 0x79,
    "keypad--": 0x7B, "keypad-*": 0x7C,
    "f1": 0x05, "f2": 0x06, "f3": 0x04, "f4": 0x0C, "f5": 0x03, "f6": 0x0B, "f7": 0x83, "f8": 0x0A, "f9": 0x01,
    "f10": 0x09, "f11": 0x78, "f12": 0x07,
}  # fmt: skip
_EXTENDED = {
    "keypad-enter": 0x5A, "keypad-/": 0x4A, "right-ctrl": 0x14, "right-alt": 0x11, "home": 0x6C, "up": 0x75,
    "page-up": 0x7D, "left": 0x6B, "right": 0x74, "end": 0x69, "down": 0x72, "page-down": 0x7A, "insert": 0x70,
    "del": 0x71, "left-super": 0x1F, "right-super": 0x27, "menu": 0x2F,
}  # fmt: skip
_ALIASES = {
    "escape": "esc", "return": "enter", "delete": "del", "ins": "insert", "pgup": "page-up", "pgdn": "page-down",
    "control": "ctrl", "capslock": "caps-lock", "numlock": "num-lock", "scrolllock": "scroll-lock", "minus": "-",
    "plus": "shift-=", "super": "left-super", "bksp": "backspace",
}  # fmt: skip
MODIFIERS = ("ctrl", "shift", "alt", "right-ctrl", "right-shift", "right-alt", "left-super", "right-super")


class InputError(UserError):
    """Something in what is to be typed that cannot be."""


@dataclass(frozen=True)
class Key:
    """A key: its code, and whether the prefix E0 comes before it."""

    code: int
    extended: bool = False

    def make(self) -> bytes:
        """What the keyboard sends when it is pressed."""
        return bytes([EXTENDED, self.code] if self.extended else [self.code])

    def release(self) -> bytes:
        """What it sends when it is let go."""
        return bytes([EXTENDED, RELEASED, self.code] if self.extended else [RELEASED, self.code])


def _keys() -> tuple[dict[str, Key], dict[str, tuple[Key, bool]]]:
    """Keys by name, and of every character its key and whether shift goes with it."""
    named = {name: Key(code) for name, code in _PLAIN.items()}
    named |= {name: Key(code, True) for name, code in _EXTENDED.items()}
    characters = {" ": (named["space"], False), "\n": (named["enter"], False), "\t": (named["tab"], False)}
    for codes, plain, shifted in _ROWS:
        for code, lower, upper in zip(bytes.fromhex(codes), plain, shifted, strict=True):
            key = Key(code)
            named[lower] = key
            characters[lower], characters[upper] = (key, False), (key, True)
    return named, characters


KEYS, CHARACTERS = _keys()


def character_codes(character: str, where: object) -> bytes:
    """The scan codes of typing one character. Raises InputError if it is not on a US keyboard."""
    if character not in CHARACTERS:
        what = f"the character {character!r} is not on a US keyboard"
        raise InputError(where, what, "type it another way, or on the serial port")
    key, shifted = CHARACTERS[character]
    return chord_codes([KEYS["shift"], key] if shifted else [key])


def chord_codes(keys: list[Key]) -> bytes:
    """The scan codes of pressing keys in this order and letting them go in the other."""
    return b"".join(key.make() for key in keys) + b"".join(key.release() for key in reversed(keys))


def find_chord(text: str, where: object) -> list[Key]:
    """The keys of a name such as `enter`, `F12`, `ctrl-alt-del` or `shift-a`. Raises InputError."""
    rest = text.lower()
    keys: list[Key] = []
    while True:
        rest = _ALIASES.get(rest, rest)
        if rest in KEYS:
            return [*keys, KEYS[rest]]
        modifier = next((name for name in (*MODIFIERS, "control") if rest.startswith(name + "-")), None)
        if modifier is None:
            unknown = rest.split("-")[-1] if keys else text
            near = near_matches(rest, [*KEYS, *_ALIASES])
            raise InputError(where, f"unknown key {unknown!r}", f"give names such as enter, F12, ctrl-alt-del, a{near}")
        keys.append(KEYS[_ALIASES.get(modifier, modifier)])
        rest = rest[len(modifier) + 1 :]

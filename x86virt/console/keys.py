"""Keys of a US keyboard: names, characters, and the scan codes of set 1 that a PC's software reads."""

from dataclasses import dataclass

from ..errors import UserError, near_matches

BREAK = 0x80  # added to a key's code when it is let go
EXTENDED = 0xE0

# Scan codes of set 1 (IBM PC/AT Technical Reference; the rows of the keyboard from the top).
_ROWS = (
    (0x02, "1234567890-=", "!@#$%^&*()_+"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1E, "asdfghjkl;'`", 'ASDFGHJKL:"~'),
    (0x2B, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
)
_PLAIN = {
    "esc": 0x01, "backspace": 0x0E, "tab": 0x0F, "enter": 0x1C, "ctrl": 0x1D, "shift": 0x2A, "right-shift": 0x36,
    "keypad-*": 0x37, "alt": 0x38, "space": 0x39, "caps-lock": 0x3A, "num-lock": 0x45, "scroll-lock": 0x46,
    "keypad-7": 0x47, "keypad-8": 0x48, "keypad-9": 0x49, "keypad--": 0x4A, "keypad-4": 0x4B, "keypad-5": 0x4C,
    "keypad-6": 0x4D, "keypad-+": 0x4E, "keypad-1": 0x4F, "keypad-2": 0x50, "keypad-3": 0x51, "keypad-0": 0x52,
    "keypad-.": 0x53, "f11": 0x57, "f12": 0x58,
    **{f"f{number}": 0x3A + number for number in range(1, 11)},
}  # fmt: skip
_EXTENDED = {
    "keypad-enter": 0x1C, "right-ctrl": 0x1D, "keypad-/": 0x35, "right-alt": 0x38, "home": 0x47, "up": 0x48,
    "page-up": 0x49, "left": 0x4B, "right": 0x4D, "end": 0x4F, "down": 0x50, "page-down": 0x51, "insert": 0x52,
    "del": 0x53, "left-super": 0x5B, "right-super": 0x5C, "menu": 0x5D,
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
        return bytes([EXTENDED, self.code | BREAK] if self.extended else [self.code | BREAK])


def _keys() -> tuple[dict[str, Key], dict[str, tuple[Key, bool]]]:
    """Keys by name, and of every character its key and whether shift goes with it."""
    named = {name: Key(code) for name, code in _PLAIN.items()}
    named |= {name: Key(code, True) for name, code in _EXTENDED.items()}
    characters = {" ": (named["space"], False), "\n": (named["enter"], False), "\t": (named["tab"], False)}
    for first, plain, shifted in _ROWS:
        for code, (lower, upper) in enumerate(zip(plain, shifted, strict=True), first):
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

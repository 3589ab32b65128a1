"""What a terminal sends for the keys of a keyboard, turned back into keys; and the keys by which a person leaves the machine."""

from collections.abc import Iterator

from .keys import CHARACTERS, character_codes, chord_codes, find_chord

PREFIX = 0x01  # Ctrl-A
LEAVE, HELP, CTRL_ALT_DEL = "leave", "help", "ctrl-alt-del"
COMMANDS = {ord("x"): LEAVE, ord("h"): HELP, ord("?"): HELP, ord("d"): CTRL_ALT_DEL}
HELP_TEXT = "Ctrl-A x: leave the machine   Ctrl-A d: Ctrl-Alt-Del   Ctrl-A Ctrl-A: Ctrl-A itself   Ctrl-A h: this help"

# Escape sequences of terminals (ECMA-48 and xterm) without their ESC.
SEQUENCES = {
    b"[A": "up", b"[B": "down", b"[C": "right", b"[D": "left", b"OA": "up", b"OB": "down", b"OC": "right", b"OD": "left",
    b"[H": "home", b"[F": "end", b"OH": "home", b"OF": "end", b"[1~": "home", b"[4~": "end", b"[2~": "insert", b"[3~": "del",
    b"[5~": "page-up", b"[6~": "page-down", b"[Z": "shift-tab", b"OP": "f1", b"OQ": "f2", b"OR": "f3", b"OS": "f4",
    b"[[A": "f1", b"[[B": "f2", b"[[C": "f3", b"[[D": "f4", b"[[E": "f5", b"[11~": "f1", b"[12~": "f2", b"[13~": "f3",
    b"[14~": "f4", b"[15~": "f5", b"[17~": "f6", b"[18~": "f7", b"[19~": "f8", b"[20~": "f9", b"[21~": "f10",
    b"[23~": "f11", b"[24~": "f12",
}  # fmt: skip
LONGEST_FIRST = sorted(SEQUENCES, key=len, reverse=True)


class Typing:
    """What a person types, split into bytes for the machine and commands behind Ctrl-A."""

    def __init__(self) -> None:
        self.prefixed = False

    def split(self, octets: bytes) -> Iterator[bytes | str]:
        """Bytes and commands in the order typed; a prefix at the end waits for the next call."""
        plain = bytearray()
        for octet in octets:
            if not self.prefixed:
                if octet == PREFIX:
                    self.prefixed = True
                else:
                    plain.append(octet)
                continue
            self.prefixed = False
            if octet == PREFIX:
                plain.append(octet)
            elif octet in COMMANDS:
                if plain:
                    yield bytes(plain)
                    plain.clear()
                yield COMMANDS[octet]
        if plain:
            yield bytes(plain)


def keys_of(octets: bytes) -> list[bytes]:
    """The scan codes of each key that a terminal sent; what no key of a US keyboard sends is left out."""
    strokes, at = [], 0
    while at < len(octets):
        length, codes = _key_at(octets, at)
        at += length
        if codes:
            strokes.append(codes)
    return strokes


def _key_at(octets: bytes, at: int) -> tuple[int, bytes]:
    """How many bytes the key at a place takes, and its scan codes."""
    octet = octets[at]
    if octet == 0x1B:
        for sequence in LONGEST_FIRST:
            if octets.startswith(sequence, at + 1):
                return 1 + len(sequence), chord_codes(find_chord(SEQUENCES[sequence], "terminal"))
        if at + 1 < len(octets) and chr(octets[at + 1]) in CHARACTERS:
            return 2, chord_codes([*find_chord("alt", "terminal"), CHARACTERS[chr(octets[at + 1])][0]])
        return 1, chord_codes(find_chord("esc", "terminal"))
    if octet in (0x0A, 0x0D):
        return 1, character_codes("\n", "terminal")
    if octet in (0x08, 0x7F):
        return 1, chord_codes(find_chord("backspace", "terminal"))
    if chr(octet) in CHARACTERS:
        return 1, character_codes(chr(octet), "terminal")
    if 0 < octet <= 26:
        return 1, chord_codes(find_chord(f"ctrl-{chr(octet + 0x60)}", "terminal"))
    return 1, b""

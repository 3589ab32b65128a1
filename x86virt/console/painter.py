"""Drawing the VGA text screen on a terminal: only what changed, in the terminal's sixteen colours."""

from .screen import COLUMNS, ROWS, Screen

ENTER, LEAVE = b"\x1b[?1049h\x1b[2J\x1b[H", b"\x1b[0m\x1b[?25h\x1b[?1049l"
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
ANSI_OF_VGA = (0, 4, 2, 6, 1, 5, 3, 7)  # the VGA's blue is its lowest bit, the terminal's its highest


class Painter:
    """What was drawn, so that the next screen needs only the difference."""

    def __init__(self) -> None:
        self.drawn: list[tuple[str, bytes] | None] = [None] * ROWS
        self.size = (0, 0)

    def paint(self, screen: Screen, size: tuple[int, int]) -> bytes:
        """The bytes that bring a terminal of that many columns and rows up to date."""
        pieces = []
        if size != self.size:
            pieces.append("\x1b[0m\x1b[2J")
            self.size, self.drawn = size, [None] * ROWS
        columns, rows = min(size[0], COLUMNS), min(size[1], ROWS)
        for number in range(min(rows, len(screen.rows))):
            cells = (screen.rows[number][:columns], screen.attributes[number][:columns])
            if cells != self.drawn[number]:
                pieces.append(f"\x1b[{number + 1};1H" + coloured(*cells))
                self.drawn[number] = cells
        if screen.cursor is not None and screen.cursor[0] < rows and screen.cursor[1] < columns:
            pieces.append(f"\x1b[{screen.cursor[0] + 1};{screen.cursor[1] + 1}H{SHOW_CURSOR}")
        else:
            pieces.append(HIDE_CURSOR)
        return "".join(pieces).encode()

    def forget(self, row: int) -> None:
        """Draw a row anew next time: something else was written there."""
        if 0 <= row < ROWS:
            self.drawn[row] = None


def coloured(text: str, attributes: bytes) -> str:
    """A row's text with the codes of its colours."""
    pieces, last = [], -1
    for character, attribute in zip(text, attributes, strict=True):
        if attribute != last:
            pieces.append(colour(attribute))
            last = attribute
        pieces.append(character)
    return "".join(pieces) + "\x1b[0m"


def colour(attribute: int) -> str:
    """The code of a VGA attribute: foreground in bits 0 to 3, background in bits 4 to 6, blinking in bit 7."""
    front = (90 if attribute & 8 else 30) + ANSI_OF_VGA[attribute & 7]
    back = 40 + ANSI_OF_VGA[attribute >> 4 & 7]
    return f"\x1b[0;{front};{back}{';5' if attribute & 0x80 else ''}m"

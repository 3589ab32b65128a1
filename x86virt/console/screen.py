"""The VGA text screen as text: character cells of code page 437, read from video memory."""

from collections.abc import Sequence
from dataclasses import dataclass

VIDEO_MEMORY = 0xB8000
VIDEO_BYTES = 0x8000
COLUMNS, ROWS = 80, 25
CELL_BYTES = 2
SCREEN_BYTES = COLUMNS * ROWS * CELL_BYTES

# What the display shows for codes 0 to 31 and 127, which are control characters elsewhere.
LOW_GLYPHS = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
GLYPHS = LOW_GLYPHS + bytes(range(32, 127)).decode("ascii") + "⌂" + bytes(range(128, 255)).decode("cp437") + " "


@dataclass(frozen=True)
class Screen:
    """The screen at one moment: its rows from the top, each as wide as the screen, and the cursor's (row, column).

    The cursor is None where it is switched off or lies outside of the screen; `attributes` are the colours of the cells, row by
    row, as the VGA has them (background in the high four bits).
    """

    rows: tuple[str, ...]
    cursor: tuple[int, int] | None
    attributes: tuple[bytes, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The text without blanks at the ends of lines and without empty lines at the bottom."""
        lines = [row.rstrip() for row in self.rows]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        """The lines in one piece, empty for a blank screen."""
        return "\n".join(self.lines)


def read_screen(memory: bytes, start: int = 0, cursor: int | None = None) -> Screen:
    """The screen in `memory`, the bytes of video memory; `start` and `cursor` count cells, as the CRT controller does."""
    cells = [memory[place % len(memory) : place % len(memory) + CELL_BYTES] for place in _places(start)]
    text = "".join(GLYPHS[cell[0]] for cell in cells)
    colours = bytes(cell[1] for cell in cells)
    return Screen(
        tuple(text[row : row + COLUMNS] for row in range(0, len(text), COLUMNS)),
        None if cursor is None or not 0 <= cursor - start < COLUMNS * ROWS else divmod(cursor - start, COLUMNS),
        tuple(colours[row : row + COLUMNS] for row in range(0, len(colours), COLUMNS)),
    )


def _places(start: int) -> Sequence[int]:
    """The offset of every cell in video memory."""
    return range(start * CELL_BYTES, start * CELL_BYTES + SCREEN_BYTES, CELL_BYTES)

"""The screen as text, as a transcript, and as it is drawn on a terminal; all without a machine."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from x86virt.console.painter import Painter
from x86virt.console.screen import COLUMNS, GLYPHS, ROWS, VIDEO_BYTES, Screen, read_screen
from x86virt.console.transcript import Transcript, scrolled

FEW = settings(deadline=None, max_examples=50)


def memory(rows: list[str], attribute: int = 7, start: int = 0) -> bytes:
    """Video memory that shows rows of ASCII from cell `start` on."""
    octets = bytearray(VIDEO_BYTES)
    for number in range(ROWS):
        row = rows[number] if number < len(rows) else ""
        for column, character in enumerate(row.ljust(COLUMNS)):
            at = 2 * (start + number * COLUMNS + column) % VIDEO_BYTES
            octets[at : at + 2] = bytes([ord(character), attribute])
    return bytes(octets)


def plain(rows: list[str]) -> list[str]:
    return (rows + [""] * ROWS)[:ROWS]


def test_rows_cursor_and_start_address() -> None:
    screen = read_screen(memory(["first", "", "  third"], start=160), start=160, cursor=160 + 83)
    assert screen.lines == ["first", "", "  third"]
    assert screen.cursor == (1, 3)
    assert len(screen.rows) == ROWS and {len(row) for row in screen.rows} == {COLUMNS}
    assert read_screen(memory(["x"]), cursor=None).cursor is None
    assert read_screen(memory(["x"]), cursor=COLUMNS * ROWS).cursor is None
    assert read_screen(bytes(VIDEO_BYTES)).lines == []
    assert read_screen(memory(["wraps"], start=VIDEO_BYTES // 2 - 3), start=VIDEO_BYTES // 2 - 3).lines == ["wraps"]


def test_code_page_437() -> None:
    assert len(GLYPHS) == 256
    for code, glyph in ((1, "☺"), (0x41, "A"), (0x7F, "⌂"), (0x81, "ü"), (0xB0, "░"), (0xC9, "╔"), (0xDB, "█"), (0xE1, "ß")):
        assert GLYPHS[code] == glyph
    assert GLYPHS[0] == GLYPHS[0xFF] == " "


def looks(*screens: list[str]) -> str:
    transcript = Transcript()
    for rows in screens:
        transcript.look(plain(rows))
    return transcript.octets.decode()


def test_a_word_that_appears_letter_by_letter_is_a_word() -> None:
    letters = ["grub> " + "reboot"[:count] for count in range(7)]
    text = looks(["GRUB", ""], *(["GRUB", row] for row in letters))
    assert "grub> reboot" in text.replace("\n", "|") or "grub> reboot" in text
    assert text.count("grub>") == 1 and text.count("GRUB") == 1


def test_rows_that_only_moved_up_are_not_said_again() -> None:
    history = [f"line {number}" for number in range(60)]
    screens = [history[max(0, end - ROWS) : end] for end in range(1, 61, 7)]
    text = looks(*screens)
    assert [text.count(line) for line in (f"line {number}" for number in range(1, 57))].count(1) >= 50
    assert all(text.split("\n").count(line) == 1 for line in history[:57])


def test_a_screen_that_was_cleared_says_everything_anew() -> None:
    assert looks(["prompt>"], [], ["prompt>"]).count("prompt>") == 2


@FEW
@given(st.integers(0, 10**6), st.integers(0, ROWS - 2))
def test_scrolling_is_seen(seed: int, distance: int) -> None:
    random.seed(seed)
    history = [f"{random.random()}" for _ in range(ROWS + distance)]
    assert scrolled(history[:ROWS], history[distance:]) == distance


class NaiveTerminal:
    """A terminal that knows the few sequences that the painter uses."""

    def __init__(self, columns: int, rows: int) -> None:
        self.cells = [[" "] * columns for _ in range(rows)]
        self.row = self.column = 0
        self.cursor_shown = True

    def write(self, text: str) -> None:
        at = 0
        while at < len(text):
            if not text.startswith("\x1b[", at):
                self.cells[self.row][self.column] = text[at]
                self.column = min(self.column + 1, len(self.cells[0]) - 1)
                at += 1
                continue
            end = next(place for place in range(at + 2, len(text)) if text[place].isalpha())
            self.do(text[at + 2 : end], text[end])
            at = end + 1

    def do(self, arguments: str, letter: str) -> None:
        if letter == "H":
            row, column = (int(number) for number in (arguments or "1;1").split(";"))
            self.row, self.column = row - 1, column - 1
        elif letter == "J":
            self.cells = [[" "] * len(self.cells[0]) for _ in self.cells]
        elif arguments == "?25":
            self.cursor_shown = letter == "h"
        else:
            assert letter == "m"

    @property
    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.cells]


def shown(rows: list[str], cursor: tuple[int, int] | None) -> Screen:
    return read_screen(memory(rows), 0, None if cursor is None else cursor[0] * COLUMNS + cursor[1])


def test_the_painter_brings_a_terminal_up_to_date_with_little() -> None:
    terminal, painter = NaiveTerminal(100, 30), Painter()
    screens = [["a", "bb"], ["a", "bc", "ddd"], [], ["x" * COLUMNS] * ROWS]
    for rows in screens:
        screen = shown(rows, (1, 2))
        terminal.write(painter.paint(screen, (100, 30)).decode())
        assert terminal.lines[:ROWS] == [row.rstrip() for row in screen.rows]
        assert (terminal.row, terminal.column, terminal.cursor_shown) == (1, 2, True)
        assert len(painter.paint(screen, (100, 30))) < 20, "nothing but the cursor"
    terminal.write(painter.paint(shown([], None), (100, 30)).decode())
    assert not terminal.cursor_shown


def test_a_small_terminal_shows_a_corner() -> None:
    terminal, painter = NaiveTerminal(40, 10), Painter()
    terminal.write(painter.paint(shown(["0123456789" * 8] * ROWS, (20, 70)), (40, 10)).decode())
    assert terminal.lines == ["0123456789" * 4] * 10
    assert not terminal.cursor_shown

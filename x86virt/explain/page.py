"""An explanation: a heading, then sections of labelled lines; and the same as data."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LABEL_WIDTH = 20
NARROWEST = 50


@dataclass
class Section:
    """A heading (may be empty) and rows: label and text; or paragraphs; or lines that are shown as they are."""

    heading: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    verbatim: list[str] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)  # paragraphs, and items that begin with an asterisk

    def add(self, label: str, text: str) -> None:
        """One more row, unless it would say nothing."""
        if text:
            self.rows.append((label, text))


@dataclass
class Explanation:
    """What `x86virt explain` says of one thing: its kind, name, one line, sections for people, data for programs."""

    kind: str  # instruction, event, exit, hypercall, exception, strategy, unit, units
    name: str
    title: str
    sections: list[Section]
    data: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"kind": self.kind, "name": self.name, "title": self.title, **self.data}

    def lines(self, width: int) -> Iterator[str]:
        """The text for that many columns."""
        width = max(width, NARROWEST)
        yield from textwrap.wrap(f"{self.name}: {self.title}", width, subsequent_indent="  ")
        for section in self.sections:
            if not section.rows and not section.verbatim and not section.prose:
                continue
            yield ""
            if section.heading:
                yield f" {section.heading}"
            for label, text in section.rows:
                yield from row_lines(label, text, width)
            yield from prose_lines(section.prose, width)
            for line in section.verbatim:
                yield f"  {line}".rstrip()


def paragraphs_of(text: str) -> list[str]:
    """The paragraphs of a text, and the items of its lists, each in one line."""
    found: list[str] = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        if not lines or not lines[0].startswith("* "):
            found.append(" ".join(lines))
            continue
        for line in lines:
            if line.startswith("* "):
                found.append(line)
            else:
                found[-1] += " " + line.strip()
    return found


def prose_lines(paragraphs: list[str], width: int) -> Iterator[str]:
    """Paragraphs with an empty line between them; the items of a list stand together."""
    for number, paragraph in enumerate(paragraphs):
        is_item = paragraph.startswith("* ")
        if number and not (is_item and paragraphs[number - 1].startswith("* ")):
            yield ""
        yield from textwrap.wrap(paragraph, width, initial_indent="  ", subsequent_indent="    " if is_item else "  ")


def row_lines(label: str, text: str, width: int) -> Iterator[str]:
    """A label and its text, wrapped beside it; a long label stands above."""
    head = f"  {label:<{LABEL_WIDTH}} "
    if len(label) > LABEL_WIDTH:
        yield f"  {label}"
        head = f"  {'':<{LABEL_WIDTH}} "
    blank = " " * (LABEL_WIDTH + 3)
    for number, line in enumerate(text.splitlines()):
        yield from textwrap.wrap(
            line,
            width,
            initial_indent=head if number == 0 else blank,
            subsequent_indent=blank,
            break_on_hyphens=False,
        )

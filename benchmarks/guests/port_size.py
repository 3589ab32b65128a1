"""How much of a guest's source a port to Xen's interface changes, in lines, as the paper on Xen counts it (part of the manifest).

A line counts if it holds code: no blank line, no comment. Of these a line is changed if only the ported build has it (inside
of ``ifdef XEN``, or in a folder ``xen``), or if it uses a macro that ``lib/native`` and ``lib/xen`` both declare: each such line
was an instruction or two of ring 0 before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
APART = frozenset({"xen.inc", "vmx.inc", "svm.inc"})  # generated from the interface's numbers; of a guest that is not ported
CONDITION = re.compile(r"^[%#]\s*(ifdef|ifndef|if|else|elif|endif)\b\s*(\w*)")
MACRO = re.compile(r"^%(?:macro|define) (\w+)", re.MULTILINE)
C_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


@dataclass(frozen=True)
class PortSize:
    """Lines of code that the port changes or adds, and all lines of code of the ported build."""

    changed: int
    lines: int

    def __add__(self, other: PortSize) -> PortSize:
        return PortSize(self.changed + other.changed, self.lines + other.lines)


def of_guest(source: str) -> PortSize:
    """Of a guest: its one file, or a kernel in C without its programs."""
    path = HERE / source
    if path.is_file():
        return of_file(path)
    return total(of_file(file) for part in ("kernel", "include", "xen") for file in sorted((path / part).glob("*.*")))


def of_library() -> PortSize:
    """Of the kernel library: what both builds share, and the half that only the ported one has."""
    shared = [file for file in sorted((HERE / "lib").glob("*.inc")) if file.name not in APART]
    return total(of_file(file) for file in (*shared, *sorted((HERE / "lib" / "xen").glob("*.*"))))


def total(sizes: Iterator[PortSize]) -> PortSize:
    """The sum of some sizes."""
    return sum(sizes, PortSize(0, 0))


def of_file(path: Path) -> PortSize:
    """Of one file."""
    own = path.parent.name == "xen"
    names = common_names()
    lines = list(ported_lines(path))
    return PortSize(sum(own or only_ported or bool(names & set(words(line))) for line, only_ported in lines), len(lines))


def words(line: str) -> list[str]:
    """The names in a line."""
    return re.findall(r"\w+", line)


def common_names() -> set[str]:
    """The macros that both halves of the library declare."""
    native, xen = (
        {name for file in (HERE / "lib" / half).glob("*.inc") for name in MACRO.findall(file.read_text(encoding="utf-8"))}
        for half in ("native", "xen")
    )
    return native & xen


def ported_lines(path: Path) -> Iterator[tuple[str, bool]]:
    """The lines of code of the ported build, and whether the other build lacks them."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in {".c", ".h"}:
        text = C_COMMENT.sub("", text)
    open_conditions: list[str] = []  # of each that is open: `xen`, `native`, or `` for one about something else
    for line in text.splitlines():
        code = line.strip() if path.suffix in {".c", ".h"} else line.split(";")[0].strip()
        condition = CONDITION.match(code)
        if condition:
            follow(condition[1], condition[2], open_conditions)
        elif code and "native" not in open_conditions:
            yield code, "xen" in open_conditions


def follow(directive: str, name: str, open_conditions: list[str]) -> None:
    """Take a directive of the preprocessor into account."""
    if directive == "endif":
        open_conditions.pop()
    elif directive in {"else", "elif"}:
        open_conditions[-1] = {"xen": "native", "native": "xen"}.get(open_conditions[-1], "")
    elif name == "XEN":
        open_conditions.append("xen" if directive == "ifdef" else "native")
    else:
        open_conditions.append("")

"""The house: files that can be read in one sitting, and nothing written twice."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for top in ("x86virt", "strategies", "benchmarks", "tests") for path in (ROOT / top).rglob("*.py"))
GENERATED = {ROOT / "x86virt/core/_dispatch.py"}
TABLES = {ROOT / "x86virt/isa/events.py", *(ROOT / "x86virt/isa/table").glob("*.py")}
LONGEST_FILE = 600  # lines, of what is neither generated nor a table nor a test
SHORTEST_DOUBLE = 80  # characters of a function's body that may stand in two places by chance


def test_a_source_file_can_be_read_in_one_sitting() -> None:
    ours = [path for path in SOURCES if path.parent != ROOT / "tests" and path not in GENERATED | TABLES]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in ours}
    assert {path.name: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def functions(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, name, and what each function does: its statements without docstring and annotations, its arguments numbered."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            documented = ast.get_docstring(node) is not None
            text = "\n".join(ast.unparse(statement) for statement in node.body[int(documented) :])
            for number, argument in enumerate(node.args.args):
                text = re.sub(rf"\b{re.escape(argument.arg)}\b", f"argument{number}", text)
            yield node.lineno, node.name, text


def doubled(sources: dict[str, str]) -> list[list[str]]:
    """Functions that do the same, by place."""
    found = defaultdict(list)
    for place, source in sources.items():
        for line, name, text in functions(source):
            if len(text) >= SHORTEST_DOUBLE:
                found[text].append(f"{place}:{line} {name}")
    return [places for places in found.values() if len(places) > 1]


def test_no_function_is_written_twice() -> None:
    sources = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in SOURCES if path not in GENERATED}
    found = doubled(sources)
    # The hardware's jitted code and the VMM's descriptors know each for itself what a conforming segment is.
    known = [["is_conforming", "is_conforming"]]
    assert [places for places in found if [place.split()[1] for place in places] not in known] == []


@pytest.mark.parametrize("other", ["def two(c, d):\n    '''As one.'''\n", "def two(self, b):\n"])
def test_a_double_is_found_under_other_names(other: str) -> None:
    body = "    total = sum(value for value in {0} if value > {1})\n    return total * 2 if total else {1} + 1000 - len({0})\n"
    names = re.search(r"\((\w+), (\w+)\)", other)
    assert names is not None
    one = "def one(a, b):\n" + body.format("a", "b")
    assert len(doubled({"x": one, "y": other + body.format(*names.groups())})) == 1
    assert doubled({"x": one, "y": other + body.format(*names.groups()).replace("1000", "1001")}) == []

"""How each published figure is predicted, or why it is not: `benchmarks/reference/validation.toml`, read and checked.

The file's tables:

    in_nanoseconds = [KEYS]           profile keys that follow the bus or the memory: they scale with the clock
    [machine.NAME]                    the processor of a publication: profile, and mhz where its clock was another
    [loop.NAME]                       what is run: guest, region (several: their mean), iterations = [few, many], and the
                                      events of one iteration that only count it (`counting`)
    [[run]]                           rows predicted by running a loop under a strategy
    [[value]]                         rows that are values of a profile (kind parameter), or follow from one (arithmetic)
    [[not_covered]]                   rows that nothing here predicts, with why; a `beside` names a loop whose figure is
                                      printed beside them and not scored
    [[shape]]                         a claim of a publication that one figure is smaller than another

A run that `informs` says why its rows cannot be scored: it is predicted and frozen as the others are, and nothing follows from
whether it agrees. `over` names the row of the bare machine, if the ratio to that is what can be compared.

A row outside its interval must say why it may be: `explained` names the mechanism that is missing here, `unexplained`
says what was looked for. One that lies inside must say neither.
"""

import fnmatch
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import UserError
from ..guests import benchmarks_folder
from .published import Published, published_rows

FILE = "validation.toml"
ARITHMETIC, PARAMETER = "arithmetic", "parameter"


class PlanError(UserError):
    """A table of validation.toml that cannot be."""

    def __init__(self, where: str, what: str, advice: str) -> None:
        super().__init__(f"{FILE}: {where}", what, advice)


def technique(strategy: str) -> str:
    """The technique that a strategy's name begins with, before its options."""
    return strategy.partition(",")[0]


@dataclass(frozen=True)
class Host:
    """The processor of a publication: one of the profiles, at the clock of the profile (0) or another in MHz."""

    name: str
    profile: str
    mhz: int = 0


@dataclass(frozen=True)
class Loop:
    """A guest's measured regions. The cost of an iteration is that of `many` less `few` of them, over the difference."""

    name: str
    guest: str
    regions: tuple[int, ...]  # the mean of them is taken
    iterations: tuple[int, int]
    counting: tuple[str, ...]  # events of each iteration that are the loop's and not the operation's
    sentence: str


@dataclass(frozen=True)
class Run:
    """Rows that are predicted by running a loop. `column` is what its witnesses are frozen for, empty for none."""

    ids: tuple[str, ...]
    host: Host
    strategy: str
    loop: Loop
    kind: str = ""  # empty: found from where the predicted cycles went
    column: str = ""
    note: str = ""
    explained: str = ""
    unexplained: str = ""
    informs: str = ""  # why its rows are not scored
    over: str = ""  # the published row of the bare machine


@dataclass(frozen=True)
class ProfileValue:
    """Rows that stand in a profile: id -> key."""

    rows: dict[str, str]
    host: Host
    kind: str = PARAMETER
    note: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """The rows."""
        return tuple(self.rows)


@dataclass(frozen=True)
class NotCovered:
    """Rows that are not predicted, and why."""

    ids: tuple[str, ...]
    why: str
    beside: Run | None = None


@dataclass(frozen=True)
class Shape:
    """A claim that one published figure is smaller than another."""

    smaller: str
    larger: str
    sentence: str


@dataclass(frozen=True)
class Plan:
    """The whole file."""

    in_nanoseconds: tuple[str, ...]
    entries: tuple[Run | ProfileValue | NotCovered, ...]
    shapes: tuple[Shape, ...]

    def entry_of(self, row: Published) -> Run | ProfileValue | NotCovered:
        """The one table that speaks of a row. Raises PlanError if none or several do."""
        found = [entry for entry in self.entries if any(fnmatch.fnmatchcase(row.id, one) for one in entry.ids)]
        if len(found) != 1:
            raise PlanError(row.id, f"{len(found)} tables speak of this row", "let exactly one do so")
        return found[0]


@cache
def shipped_plan() -> Plan:
    """The committed plan."""
    return read_plan((benchmarks_folder() / "reference" / FILE).read_text(encoding="utf-8"))


def read_plan(text: str) -> Plan:
    """A plan from the text of its file. Raises PlanError."""
    document = tomllib.loads(text)
    hosts = {name: Host(name, **table) for name, table in document.pop("machine", {}).items()}
    loops = {name: read_loop(name, table) for name, table in document.pop("loop", {}).items()}
    entries: list[Run | ProfileValue | NotCovered] = [read_run(row, hosts, loops) for row in document.pop("run", [])]
    entries += [read_value(row, hosts) for row in document.pop("value", [])]
    entries += [read_not_covered(row, hosts, loops) for row in document.pop("not_covered", [])]
    shapes = tuple(Shape(**row) for row in document.pop("shape", []))
    in_nanoseconds = tuple(document.pop("in_nanoseconds", []))
    if document:
        raise PlanError(next(iter(document)), "unknown table", "see the head of x86virt/validation/plan.py")
    plan = Plan(in_nanoseconds, tuple(entries), shapes)
    check_ids(plan)
    return plan


def read_loop(name: str, table: dict[str, Any]) -> Loop:
    """A `[loop.NAME]`."""
    few, many = table["iterations"]
    if not 0 < few < many:
        raise PlanError(f"loop {name}", f"iterations {few} and {many}", "give few, then more")
    regions = table["region"] if isinstance(table["region"], list) else [table["region"]]
    return Loop(name, table["guest"], tuple(regions), (few, many), tuple(table["counting"]), table["sentence"])


def read_run(row: dict[str, Any], hosts: dict[str, Host], loops: dict[str, Loop]) -> Run:
    """A `[[run]]`."""
    kind = row.get("kind", "")
    if kind not in ("", ARITHMETIC):
        raise PlanError(str(row["ids"]), f"kind {kind}", "a run is arithmetic, or its kind is found from its cycles")
    if row.get("explained") and row.get("unexplained"):
        raise PlanError(str(row["ids"]), "both explained and unexplained", "keep one")
    if not kind and not row.get("column"):
        raise PlanError(str(row["ids"]), "a prediction without a column", "name the column that is frozen for it")
    if row.get("informs") and (kind or row.get("explained") or row.get("unexplained")):
        raise PlanError(str(row["ids"]), "a row that only informs", "it needs no kind and no explanation")
    keys = ("strategy", "kind", "column", "note", "explained", "unexplained", "informs", "over")
    names = {name: row[name] for name in keys if name in row}
    return Run(tuple(row["ids"]), hosts[row["machine"]], loop=loops[row["loop"]], **names)


def read_value(row: dict[str, Any], hosts: dict[str, Host]) -> ProfileValue:
    """A `[[value]]`."""
    kind = row.get("kind", PARAMETER)
    if kind not in (PARAMETER, ARITHMETIC):
        raise PlanError(str(row["rows"]), f"kind {kind}", f"a value is {PARAMETER} or {ARITHMETIC}")
    return ProfileValue(dict(row["rows"]), hosts[row["machine"]], kind, row.get("note", ""))


def read_not_covered(row: dict[str, Any], hosts: dict[str, Host], loops: dict[str, Loop]) -> NotCovered:
    """A `[[not_covered]]`."""
    beside = row.get("beside")
    if beside is not None:
        beside = read_run({"ids": row["ids"], "kind": ARITHMETIC, **beside}, hosts, loops)
    return NotCovered(tuple(row["ids"]), row["why"], beside)


def check_ids(plan: Plan) -> None:
    """Every pattern of the plan names a published row."""
    known = [row.id for row in published_rows()]
    named = [one for entry in plan.entries for one in entry.ids]
    named += [one for shape in plan.shapes for one in (shape.smaller, shape.larger)]
    named += [entry.over for entry in plan.entries if isinstance(entry, Run) and entry.over]
    for pattern in named:
        if not fnmatch.filter(known, pattern):
            raise PlanError(pattern, "no such row in published.csv", "correct or remove it")


def chosen_rows(patterns: Sequence[str]) -> list[Published]:
    """The published rows whose id one of the patterns matches, all of them without patterns. Raises UserError."""
    from ..errors import near_matches

    rows = published_rows()
    for pattern in patterns:
        if not fnmatch.filter([row.id for row in rows], pattern):
            hint = near_matches(pattern, ids_and_groups(rows))
            raise UserError(f"--id {pattern}", "no published figure has such an id", f"see x86virt validate --all{hint}")
    return [row for row in rows if not patterns or any(fnmatch.fnmatchcase(row.id, pattern) for pattern in patterns)]


def ids_and_groups(rows: Iterable[Published]) -> list[str]:
    """What `--id` may name: ids, and their groups as patterns."""
    names = dict.fromkeys(row.id for row in rows)
    return [*names, *dict.fromkeys(name.rsplit(".", 1)[0] + ".*" for name in names)]

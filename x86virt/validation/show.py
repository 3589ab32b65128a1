"""A validation as tables for people. Nothing is computed here."""

from collections.abc import Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from ..report import number, plain_table
from .judge import NOT_COVERED, SCORED, Validation, Verdict

INSIDE = {True: "inside", False: "OUTSIDE", None: ""}
HOLDS = {True: "holds", False: "DOES NOT HOLD", None: "not covered"}
MOST_IDS = 3


def show_validation(validation: Validation, every_row: bool) -> RenderableType:
    """Covered rows, the claims of shape, the rows that are not covered (all, or by reason), the score, the problems."""
    covered = [row for row in validation.rows if row.covered]
    absent = [row for row in validation.rows if not row.covered]
    parts: list[RenderableType] = []
    if covered:
        parts += [Text("published, and predicted", style="bold"), covered_table(covered)]
        parts += [Text(f"  {row.published.id}: {row.note}") for row in covered if row.note and row.inside is not None]
    if validation.shapes:
        parts.append(shape_table(validation))
    if absent:
        parts.append(absent_rows(absent) if every_row else absent_reasons(absent))
    parts.append(Text(score_line(validation)))
    parts += [Text(f"DOES NOT HOLD {problem}") for problem in validation.problems]
    return Group(*parts)


def covered_table(rows: Sequence[Verdict]) -> RenderableType:
    """The rows with a prediction."""
    columns = ["id", "kind", "strategy", "profile", "unit", "published", "predicted", "low", "high", "ratio", ""]
    table = plain_table(columns, left=5)
    for row in rows:
        table.add_row(
            row.published.id, row.kind, row.strategy, row.profile, row.published.unit, *numbers(row), INSIDE[row.inside]
        )
    return table


def numbers(row: Verdict) -> list[str]:
    """Published, predicted, low, high and ratio as texts."""
    values = (row.published.value, row.predicted, row.low, row.high)
    texts = [number(None if value is None else round(float(value), 2)) for value in values]
    return [*texts, "-" if row.ratio is None else f"{row.ratio:.3f}"]


def shape_table(validation: Validation) -> RenderableType:
    """The claims of shape."""
    table = plain_table(["shape", "smaller", "larger", ""], left=4)
    for shape in validation.shapes:
        table.add_row(shape.sentence, shape.smaller, shape.larger, HOLDS[shape.holds])
    return table


def absent_rows(rows: Sequence[Verdict]) -> RenderableType:
    """Each row that is not covered."""
    table = plain_table(["not covered", "published", "unit", "why"], left=4)
    for row in rows:
        table.add_row(row.published.id, number(float(row.published.value)), row.published.unit, row.note)
    return table


def absent_reasons(rows: Sequence[Verdict]) -> RenderableType:
    """The reasons, with how many rows each covers."""
    table = plain_table(["not covered", "why", "rows"], left=2)
    for why, same in groupby(sorted(rows, key=lambda row: row.note), key=lambda row: row.note):
        names = [row.published.id for row in same]
        shown = ", ".join(names[:MOST_IDS]) + (", ..." if len(names) > MOST_IDS else "")
        table.add_row(shown, why, str(len(names)))
    return table


def score_line(validation: Validation) -> str:
    """n, and what the score is made of."""
    score, counts = validation.score, kinds(validation.rows)
    scored = ", ".join(f"{counts[kind]} {kind}" for kind in SCORED if kind in counts) or "none yet"
    others = ", ".join(f"{count} {kind}" for kind, count in counts.items() if kind not in SCORED)
    mean = "" if score.ratio is None else f", geometric mean of predicted / published {score.ratio:.3f}"
    head = f"n = {score.scored} scored rows ({scored}), {score.inside} inside their intervals{mean}"
    return f"{head}; not scored: {others or 'none'}"


def kinds(rows: Sequence[Verdict]) -> dict[str, int]:
    """How many rows there are of each kind, those that are not covered last."""
    counts: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: row.kind == NOT_COVERED):
        counts[row.kind] = counts.get(row.kind, 0) + 1
    return counts

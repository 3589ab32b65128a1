"""Freezes: what the VMM paths and predictions of a column were when the column was first looked at.

A row whose prediction rests on paths of a VMM belongs to a column. Until its column is frozen it is not covered, so that
nobody tunes a path with an eye on it. A later change of such a prediction is an entry of its own, which names the mechanism
and has all rows of the column again: before and after stand in `benchmarks/reference/freezes.toml`. A `[[freeze]]` each:

    column = "aa06.sw"           as in validation.toml
    mechanism = "..."            what was frozen first, or what changed and why
    witness = "..."              SHA-256 of the image of the witness routines
    paths = "..."                SHA-256 of the prices of all paths, under the profile of the column's rows
    [freeze.predicted]           row = cycles

    python -m x86virt.validation.freeze aa06.sw --mechanism "first look"        adds an entry
"""

import argparse
import hashlib
import json
import pathlib
import sys
import tomllib
from dataclasses import dataclass

from ..errors import UserError
from ..guests import benchmarks_folder
from .plan import Plan, Run, chosen_rows, shipped_plan
from .predict import Predictor

FILE = "freezes.toml"
HEAD = "# The predictions of each column when it was frozen, and every change since; see x86virt/validation/freeze.py.\n"


@dataclass(frozen=True)
class Freeze:
    """One entry."""

    column: str
    mechanism: str
    witness: str
    paths: str
    predicted: dict[str, float]


def freezes_file() -> pathlib.Path:
    """The committed file."""
    return benchmarks_folder() / "reference" / FILE


def read_freezes(path: pathlib.Path | None = None) -> dict[str, Freeze]:
    """The newest entry of each column."""
    document = tomllib.loads((path or freezes_file()).read_text(encoding="utf-8"))
    return {row["column"]: Freeze(**row) for row in document.get("freeze", [])}


def paths_digest(predictor: Predictor, run: Run) -> str:
    """A hash of the prices of all paths under the profile of a run."""
    from ..vmm.prices import price_table

    table = price_table(predictor.profile(run.host))
    return hashlib.sha256(json.dumps(sorted(table.items())).encode()).hexdigest()


def make_freeze(plan: Plan, column: str, mechanism: str, predictor: Predictor) -> Freeze:
    """What a column predicts now. Raises UserError for a column that there is not, NotPredicted if a row cannot be."""
    from ..vmm.witness_run import image_hash

    runs = {row.id: entry for row in chosen_rows(()) if isinstance(entry := plan.entry_of(row), Run)}
    runs = {name: run for name, run in runs.items() if run.column == column}
    if not runs:
        raise UserError(f"column {column}", "no row of validation.toml has it", "name one that has rows")
    digests = {paths_digest(predictor, run) for run in runs.values()}
    assert len(digests) == 1, "all rows of a column are of one processor"
    predicted = {name: float(predictor.predict(run).cycles) for name, run in runs.items()}
    return Freeze(column, mechanism, image_hash(), digests.pop(), predicted)


def freeze_text(freeze: Freeze) -> str:
    """An entry as it stands in the file."""
    lines = ["", "[[freeze]]"]
    lines += [f"{name} = {json.dumps(getattr(freeze, name))}" for name in ("column", "mechanism", "witness", "paths")]
    lines += ["[freeze.predicted]", *(f'"{name}" = {cycles!r}' for name, cycles in freeze.predicted.items())]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Command line: freeze a column. Nothing of what it predicts is printed."""
    parser = argparse.ArgumentParser(description="Freeze a column of predictions before it is looked at.")
    parser.add_argument("column")
    parser.add_argument("--mechanism", required=True, help="what is frozen first, or what changed since, and why")
    options = parser.parse_args()
    plan = shipped_plan()
    freeze = make_freeze(plan, options.column, options.mechanism, Predictor(plan))
    path = freezes_file()
    path.write_text((path.read_text(encoding="utf-8") if path.exists() else HEAD) + freeze_text(freeze), encoding="utf-8")
    print(f"{path.name}: {options.column}, {len(freeze.predicted)} rows", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

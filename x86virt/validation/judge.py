"""The status of every published row, and whether what must hold does."""

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from .freeze import Freeze
from .plan import ARITHMETIC, NotCovered, Plan, ProfileValue, Run, technique
from .predict import NotPredicted, Prediction, Predictor
from .published import Published, published_rows

STRUCTURAL, PATH_DOMINATED, UNEXPLAINED, NOT_COVERED = "structural", "path_dominated", "unexplained", "not_covered"
INFORMS = "informs"
SCORED = (STRUCTURAL, PATH_DOMINATED, UNEXPLAINED)
MOSTLY = Fraction(1, 2)
LEAST_CHANGE = 1e-6  # of a frozen prediction, in cycles: files hold decimals


@dataclass(frozen=True)
class Verdict:
    """What is said of one row. Numbers are in the row's unit; `problem` says what must hold and does not."""

    published: Published
    strategy: str
    profile: str
    kind: str
    note: str = ""
    predicted: Fraction | None = None
    low: Fraction | None = None
    high: Fraction | None = None
    inside: bool | None = None
    share_of_paths: Fraction = Fraction(0)
    problem: str = ""

    @property
    def covered(self) -> bool:
        """Whether a number stands against the published one."""
        return self.kind != NOT_COVERED

    @property
    def ratio(self) -> float | None:
        """Predicted over published."""
        if not self.covered or self.predicted is None:
            return None
        return float(self.predicted / self.published.value)

    def as_json(self) -> dict[str, Any]:
        """The row as `validate --json` prints it. A figure that only stands beside it is `beside`, not `predicted`."""
        predicted = None if self.predicted is None else float(self.predicted)
        return {
            "id": self.published.id,
            "source": self.published.source,
            "evidence": self.published.evidence,
            "strategy": self.strategy,
            "profile": self.profile,
            "unit": self.published.unit,
            "published": float(self.published.value),
            "predicted": predicted if self.covered else None,
            "low": None if self.low is None or not self.covered else float(self.low),
            "high": None if self.high is None or not self.covered else float(self.high),
            "ratio": self.ratio,
            "kind": self.kind,
            "inside": self.inside,
            "scored": self.kind in SCORED,
            "share_of_paths": float(self.share_of_paths),
            "beside": None if self.covered else predicted,
            "note": self.note,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class ShapeVerdict:
    """Whether one prediction is smaller than another, as published; None where one of them is not there."""

    sentence: str
    smaller: str
    larger: str
    holds: bool | None

    def as_json(self) -> dict[str, Any]:
        """The claim as JSON."""
        return {"sentence": self.sentence, "smaller": self.smaller, "larger": self.larger, "holds": self.holds}


@dataclass(frozen=True)
class Score:
    """How many rows count, and how many of these lie inside their intervals; the geometric mean of their ratios."""

    scored: int
    inside: int
    ratio: float | None

    def as_json(self) -> dict[str, Any]:
        """The score as JSON."""
        return {"n": self.scored, "inside": self.inside, "geometric_mean_of_ratios": self.ratio}


@dataclass(frozen=True)
class Validation:
    """All verdicts, the claims of shape, the score, and what must hold and does not."""

    rows: tuple[Verdict, ...]
    shapes: tuple[ShapeVerdict, ...]

    @property
    def score(self) -> Score:
        """Over the rows that count."""
        scored = [row for row in self.rows if row.kind in SCORED]
        logarithms = [math.log(row.ratio) for row in scored if row.ratio]
        mean = math.exp(sum(logarithms) / len(logarithms)) if logarithms else None
        return Score(len(scored), sum(bool(row.inside) for row in scored), mean)

    @property
    def problems(self) -> list[str]:
        """One line each."""
        found = [f"{row.published.id}: {row.problem}" for row in self.rows if row.problem]
        broken = [shape for shape in self.shapes if shape.holds is False]
        return found + [f"{shape.smaller} is not below {shape.larger}: {shape.sentence}" for shape in broken]


def judge(
    rows: Sequence[Published], plan: Plan, predictor: Predictor, freezes: Mapping[str, Freeze]
) -> Validation:
    """Predict and judge the rows."""
    verdicts = tuple(verdict_of(row, plan, predictor, freezes) for row in rows)
    return Validation(verdicts, tuple(shapes_of(plan, verdicts)))


def verdict_of(row: Published, plan: Plan, predictor: Predictor, freezes: Mapping[str, Freeze]) -> Verdict:
    """One row."""
    entry = plan.entry_of(row)
    if isinstance(entry, NotCovered):
        return not_covered(row, entry, predictor, freezes)
    if isinstance(entry, ProfileValue):
        return of_profile_value(row, entry, predictor)
    blank = Verdict(row, entry.strategy, entry.host.profile, NOT_COVERED)
    if entry.column and entry.column not in freezes:
        return replace(blank, note=why_hidden(entry, predictor))
    try:
        prediction = predictor.predict(entry)
    except NotPredicted as why:
        return replace(blank, note=str(why))
    return with_freeze(of_run(blank, entry, prediction, predictor), prediction.cycles, entry, predictor, freezes)


def why_hidden(run: Run, predictor: Predictor) -> str:
    """Why a row without a freeze is not covered."""
    try:
        predictor.strategy(run.strategy)
    except NotPredicted as why:
        return str(why)
    return f"the VMM paths that it rests on are not frozen yet: make freeze COLUMN={run.column}"


def not_covered(row: Published, entry: NotCovered, predictor: Predictor, freezes: Mapping[str, Freeze]) -> Verdict:
    """A row that is not predicted, with the figure that stands beside it."""
    verdict = Verdict(row, "", "", NOT_COVERED, entry.why)
    run = entry.beside
    if run is None:
        return verdict
    verdict = replace(verdict, strategy=run.strategy, profile=run.host.profile)
    if run.column and run.column not in freezes:
        return replace(verdict, note=f"{entry.why}; beside it, unscored: {why_hidden(run, predictor)}")
    try:
        cycles = predictor.predict(run).cycles
    except NotPredicted as why:
        return replace(verdict, note=f"{entry.why}; beside it, unscored: {why}")
    note = f"{entry.why}; beside it, unscored: {run.loop.sentence} {float(cycles):,.2f} cycles"
    return replace(verdict, predicted=cycles, note=note)


def of_profile_value(row: Published, entry: ProfileValue, predictor: Predictor) -> Verdict:
    """A row that stands in a profile."""
    key = next(key for pattern, key in entry.rows.items() if fnmatch.fnmatchcase(row.id, pattern))
    profile = predictor.profile(entry.host)
    value, clock = profile.values[key], profile.values["cpu.mhz"].exact
    assert value.exact is not None and clock is not None

    def converted(cycles: float | Fraction) -> Fraction:
        return row.in_its_unit(Fraction(cycles), clock)

    low, high = (value.exact if end is None else end for end in (value.low, value.high))
    verdict = Verdict(
        row, "", entry.host.profile, entry.kind, "; ".join(text for text in (key, entry.note) if text),
        converted(value.exact), converted(low), converted(high),
    )  # fmt: skip
    return with_inside(verdict) if entry.kind == ARITHMETIC else verdict


def of_run(blank: Verdict, entry: Run, prediction: Prediction, predictor: Predictor) -> Verdict:
    """A row with its prediction: its kind follows from where the cycles went."""
    row, clock = blank.published, predictor.profile(entry.host).values["cpu.mhz"].exact
    assert clock is not None
    kind = entry.kind or (PATH_DOMINATED if prediction.share_of_paths > MOSTLY else STRUCTURAL)
    kind = INFORMS if entry.informs else kind
    verdict = replace(
        blank,
        kind=kind,
        note=entry.note,
        predicted=row.in_its_unit(prediction.cycles, clock),
        low=row.in_its_unit(prediction.low, clock),
        high=row.in_its_unit(prediction.high, clock),
        share_of_paths=prediction.share_of_paths,
    )
    if entry.informs:
        notes = [entry.note, entry.informs, *ratio_to_bare(row, entry, prediction, predictor)]
        return replace(with_inside(verdict), note="; ".join(filter(None, notes)))
    return with_reason(with_inside(verdict), entry)


def ratio_to_bare(row: Published, entry: Run, prediction: Prediction, predictor: Predictor) -> Iterable[str]:
    """What a row is over that of the bare machine, here and as published."""
    if not entry.over:
        return
    bare = predictor.predict(replace(entry, strategy="native"))
    published = next(one for one in published_rows() if one.id == entry.over)
    ours, theirs = prediction.cycles / bare.cycles, row.value / published.value
    yield f"over the bare machine {float(ours):,.2f} here, {float(theirs):,.2f} published"


def with_inside(verdict: Verdict) -> Verdict:
    """Whether the interval holds the published figure, which stands for all that is rounded to it."""
    row = verdict.published
    assert verdict.low is not None and verdict.high is not None
    inside = verdict.low <= row.value + row.rounding and row.value - row.rounding <= verdict.high
    problem = "" if inside or verdict.kind != ARITHMETIC else "it follows from parameters, and does not"
    return replace(verdict, inside=inside, problem=problem)


def with_reason(verdict: Verdict, entry: Run) -> Verdict:
    """A row outside its interval is explained, or `unexplained`; that must be said, and not of a row that is inside."""
    reason = entry.explained or entry.unexplained
    if verdict.inside:
        problem = "it lies inside its interval: validation.toml says why it does not" if reason else ""
        return replace(verdict, problem=problem)
    kind = verdict.kind if entry.explained or verdict.kind == ARITHMETIC else UNEXPLAINED
    problem = "" if reason else "outside its interval: find the mechanism, or say in validation.toml what was looked for"
    note = "; ".join(text for text in (verdict.note, reason) if text)
    return replace(verdict, kind=kind, note=note, problem=problem)


def with_freeze(
    verdict: Verdict, cycles: Fraction, entry: Run, predictor: Predictor, freezes: Mapping[str, Freeze]
) -> Verdict:
    """A prediction that changed since its column was frozen wants a mechanism. A stand-in's may differ."""
    own = technique(entry.strategy) in predictor.strategies or entry.host.profile in predictor.profiles
    if not entry.column or own:
        return verdict
    before = freezes[entry.column].predicted.get(verdict.published.id)
    if before is not None and abs(float(cycles) - before) <= LEAST_CHANGE:
        return verdict
    what = "not there" if before is None else f"{before:,.2f}"
    problem = f"changed since it was frozen (then {what}): name the mechanism by make freeze COLUMN={entry.column}"
    return replace(verdict, problem="; ".join(text for text in (verdict.problem, problem) if text))


def shapes_of(plan: Plan, verdicts: Iterable[Verdict]) -> Iterable[ShapeVerdict]:
    """The claims of which a row was asked for."""
    found = {row.published.id: row for row in verdicts}
    for shape in plan.shapes:
        rows = found.get(shape.smaller), found.get(shape.larger)
        if rows == (None, None):
            continue
        numbers = [row.predicted if row is not None and row.covered else None for row in rows]
        smaller, larger = numbers
        holds = None if smaller is None or larger is None else smaller < larger
        yield ShapeVerdict(shape.sentence, shape.smaller, shape.larger, holds)

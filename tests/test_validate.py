"""`x86virt validate`: every published row has one status, predictions come from prices, and what must hold can fail."""

from dataclasses import replace
from fractions import Fraction

import pytest
from command_line import Answer

from x86virt.errors import UserError
from x86virt.isa.events import EVENTS
from x86virt.profile import load_profile
from x86virt.profile_schema import SCHEMA
from x86virt.validation import freeze as freezing
from x86virt.validation.freeze import Freeze, freeze_text, read_freezes
from x86virt.validation.interval import HIGH, LOW, at_clock, at_end
from x86virt.validation.judge import (
    INFORMS,
    NOT_COVERED,
    PATH_DOMINATED,
    STRUCTURAL,
    UNEXPLAINED,
    Validation,
    judge,
    verdict_of,
)
from x86virt.validation.plan import PlanError, ProfileValue, Run, chosen_rows, read_plan, shipped_plan, technique
from x86virt.validation.predict import Iteration, NotPredicted, Prediction, Predictor
from x86virt.validation.published import half_of_last_digit, published_rows
from x86virt.validation.select import built_in_ancestor

NATIVE = "aa06.nano.in_port80.nat"
SOFTWARE = "aa06.nano.in_port80.sw"
NAMES = {row.id: row for row in published_rows()}
COLUMN = Freeze("aa06.sw", "a test", "", "", {SOFTWARE: 214.0})


class Oracle(Predictor):
    """A predictor that says what it was told, whatever the run."""

    def __init__(self, prediction=None):
        super().__init__(shipped_plan())
        self.prediction = prediction

    def strategy(self, name):
        return None

    def predict(self, run):
        if self.prediction is None:
            raise NotPredicted("the guest ran away")
        return self.prediction


def predicted(cycles, low, high, share=0):
    return Prediction(Fraction(cycles), Fraction(low), Fraction(high), Fraction(share))


def verdict(prediction, freezes=None, name=SOFTWARE, **changes):
    """The verdict on one row whose plan has some of its fields changed."""
    plan, fields = shipped_plan(), {"unexplained": "", "explained": "", **changes}
    entries = tuple(
        replace(entry, **fields) if isinstance(entry, Run) and name in entry.ids else entry for entry in plan.entries
    )
    found = {COLUMN.column: COLUMN} if freezes is None else freezes
    return verdict_of(NAMES[name], replace(plan, entries=entries), Oracle(prediction), found)


# -- the plan ------------------------------------------------------------------------------------------------------------


def test_every_published_row_is_spoken_of_exactly_once():
    plan = shipped_plan()
    assert len(NAMES) == len(published_rows()) == 249
    for row in published_rows():
        plan.entry_of(row)


def test_what_the_plan_names_is_there():
    from x86virt.guests import guests

    plan = shipped_plan()
    fixed = {event.name for event in EVENTS if event.fixed}
    assert set(plan.in_nanoseconds) <= set(SCHEMA)
    for entry in plan.entries:
        if isinstance(entry, ProfileValue):
            assert set(entry.rows.values()) <= set(SCHEMA)
        elif isinstance(entry, Run):
            assert max(entry.loop.regions) < len(guests()[entry.loop.guest].regions)
            assert set(entry.loop.counting) <= fixed


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('[[not_covered]]\nids = ["aa06.nope.*"]\nwhy = "x"', "no such row"),
        ("[nonsense]\na = 1", "unknown table"),
        ('[loop.a]\nguest="g"\nregion=0\niterations=[5, 5]\ncounting=[]\nsentence=""', "iterations"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(text, what):
    with pytest.raises(PlanError, match=what):
        read_plan(text)


def test_a_prediction_needs_a_column_and_one_reason_at_most():
    head = '[machine.m]\nprofile="nehalem"\n[loop.l]\nguest="g"\nregion=0\niterations=[1, 2]\ncounting=[]\nsentence=""\n'
    run = '[[run]]\nids=["aa06.nano.in_port80.sw"]\nmachine="m"\nstrategy="native"\nloop="l"\n'
    with pytest.raises(PlanError, match="without a column"):
        read_plan(head + run)
    with pytest.raises(PlanError, match="both"):
        read_plan(head + run + 'column="c"\nexplained="a"\nunexplained="b"')
    with pytest.raises(PlanError, match="0 tables"):
        read_plan(head + run + 'column="c"').entry_of(NAMES[NATIVE])


def test_a_printed_number_stands_for_what_is_rounded_to_it():
    assert half_of_last_digit("242") == Fraction(1, 2)
    assert half_of_last_digit("0.45") == Fraction(1, 200)


def test_units():
    nanoseconds = NAMES["aa06.vt.entry_ns.p4"]
    assert nanoseconds.in_its_unit(Fraction(2409), Fraction(3800)) == Fraction(2409 * 1000, 3800)
    assert NAMES["xen03.lmproc.fork.lup"].in_its_unit(Fraction(2400), Fraction(2400)) == 1
    with pytest.raises(ValueError, match="references"):
        NAMES["bhargava08.refs"].in_its_unit(Fraction(1), Fraction(1))


# -- intervals -----------------------------------------------------------------------------------------------------------


def test_the_ends_of_a_profile_are_the_ends_of_its_prices():
    profile = load_profile("p4_cedarmill")
    low, high = at_end(profile, LOW), at_end(profile, HIGH)
    for key, value in profile.values.items():
        if value.key.kind != "price" or value.low is None or key.startswith("mem."):
            continue
        ends = (low[key], high[key])
        assert ends == ((value.high, value.low) if value.key.unit == "bytes per cycle" else (value.low, value.high)), key
    assert low["cpuid.features"] == profile["cpuid.features"]
    assert low.digest() != profile.digest() != high.digest()


def test_no_end_makes_a_lower_level_of_memory_faster():
    for name in ("p4_cedarmill", "nehalem", "k8_opteron"):
        for end in (LOW, HIGH):
            assert (at_end(load_profile(name), end).prices() >= 0).all()


def test_another_clock_scales_what_takes_time():
    profile = load_profile("p4_cedarmill")
    faster = at_clock(profile, 3800, ("sys.in_port_lpc",))
    assert faster["cpu.mhz"] == 3800
    assert faster["sys.in_port_lpc"] == pytest.approx(2928 * 3800 / 3467)
    assert faster.values["sys.in_port_lpc"].low == pytest.approx(2500 * 3800 / 3467)
    assert faster["sys.exc_de"] == profile["sys.exc_de"]
    assert at_clock(profile, 0, ("sys.in_port_lpc",)) is profile


# -- predictions -----------------------------------------------------------------------------------------------------------


def test_a_prediction_is_what_its_instructions_cost():
    """IN, DEC and JNZ by hand, from the profile's numbers; the low end leaves out what counts the loop."""
    plan = shipped_plan()
    run = plan.entry_of(NAMES[NATIVE])
    predictor = Predictor(plan)
    found, profile = predictor.predict(run), predictor.profile(run.host)
    ticks = [profile.price_ticks(event) for event in ("sys.in_port_lpc", "ins.alu_rr", "ins.jcc_predicted")]
    assert found.cycles == Fraction(sum(ticks), 64)
    assert found.low == Fraction(at_end(profile, LOW).price_ticks("sys.in_port_lpc"), 64)
    assert found.high == Fraction(
        sum(at_end(profile, HIGH).price_ticks(event) for event in ("sys.in_port_lpc", "ins.alu_rr", "ins.jcc_predicted")), 64
    )
    assert found.share_of_paths == 0


def test_paths_of_a_vmm_are_seen_in_a_prediction():
    from x86virt.vmm.registry import find_strategy

    plan = shipped_plan()
    loop = plan.entry_of(NAMES["aa06.nano.divzero.nat"]).loop
    predictor = Predictor(plan)
    profile = load_profile("p4_cedarmill")
    under = predictor.iteration(replace(loop, iterations=(2, 6)), find_strategy("trap-and-emulate"), profile)
    bare = predictor.iteration(replace(loop, iterations=(2, 6)), find_strategy("native"), profile)
    assert isinstance(bare, Iteration)
    assert bare.paths == 0 < under.paths < under.cycles
    assert under.cycles > bare.cycles


def test_what_cannot_be_predicted_says_why():
    predictor = Predictor(shipped_plan())
    with pytest.raises(NotPredicted, match="no strategy"):
        predictor.strategy("telepathy")
    run = shipped_plan().entry_of(NAMES[NATIVE])
    with pytest.raises(NotPredicted, match="region 7"):
        predictor.predict(replace(run, loop=replace(run.loop, regions=(7,), iterations=(1, 2))))
    assert verdict(None).kind == NOT_COVERED
    assert verdict(None).note == "the guest ran away"


# -- verdicts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "kind"), [(0.2, STRUCTURAL), (0.8, PATH_DOMINATED)])
def test_the_kind_follows_from_where_the_cycles_went(share, kind):
    found = verdict(predicted(214, 100, 300, share))
    assert (found.kind, found.inside, found.problem) == (kind, True, "")


def test_a_row_outside_must_say_why():
    outside = predicted(214, 215, 300)
    found = verdict(outside)
    assert (found.kind, found.inside) == (UNEXPLAINED, False)
    assert "find the mechanism" in found.problem
    looked = verdict(outside, unexplained="the paths, one by one")
    assert (looked.kind, looked.problem, looked.note) == (UNEXPLAINED, "", "the paths, one by one")
    known = verdict(outside, explained="a cache that is not modelled")
    assert (known.kind, known.problem, known.inside) == (STRUCTURAL, "", False)


def test_a_row_inside_may_not_say_that_it_is_outside():
    assert "lies inside" in verdict(predicted(214, 100, 300), unexplained="nothing found").problem


def test_an_interval_holds_what_is_rounded_to_the_published_figure():
    assert verdict(predicted(214, 214.5, 300)).inside
    assert not verdict(predicted(214, 214.6, 300)).inside
    assert verdict(predicted(214, 100, 213.5)).inside


def test_an_arithmetic_row_must_hold():
    found = verdict(predicted(3300, 3300, 3300), name=NATIVE)
    assert found.kind == "arithmetic"
    assert found.problem


def test_the_score_counts_predictions_only():
    rows = (
        verdict(predicted(214, 100, 300)),
        verdict(predicted(428, 400, 500), {"aa06.sw": replace(COLUMN, predicted={SOFTWARE: 428.0})}, unexplained="x"),
        verdict(predicted(3209, 3209, 3209), name=NATIVE),
    )
    score = Validation(rows, ()).score
    assert (score.scored, score.inside) == (2, 1)
    assert score.ratio == pytest.approx(2**0.5)


def test_a_claim_of_shape_that_does_not_hold_is_a_problem():
    rows = [NAMES[NATIVE], NAMES[SOFTWARE]]
    found = judge(rows, shipped_plan(), Oracle(predicted(3209, 3000, 3400)), {"aa06.sw": COLUMN})
    shape = next(one for one in found.shapes if one.smaller == SOFTWARE)
    assert shape.holds is False
    assert any("faster than the real one" in problem for problem in found.problems)


XEN_FORK = "xen03.lmproc.fork.xen"
XEN_COLUMN = Freeze("xen03.xen", "a test", "", "", {XEN_FORK: 120000.0})


def test_a_row_that_informs_is_neither_scored_nor_a_problem_wherever_it_lies():
    """50 microseconds at 2,400 MHz where 198 were published; the oracle gives the bare machine the same."""
    found = verdict(predicted(120000, 110000, 130000), {"xen03.xen": XEN_COLUMN}, XEN_FORK)
    assert (found.kind, found.inside, found.problem) == (INFORMS, False, "")
    assert (found.predicted, found.low) == (50, Fraction(110000, 2400))
    assert found.note.endswith("over the bare machine 1.00 here, 1.80 published")
    assert Validation((found,), ()).score.scored == 0


def test_a_row_that_informs_is_hidden_until_its_column_is_frozen_and_may_not_change_then():
    hidden = verdict(predicted(120000, 110000, 130000), {}, XEN_FORK)
    assert (hidden.kind, hidden.predicted) == (NOT_COVERED, None)
    changed = verdict(predicted(120001, 110000, 130000), {"xen03.xen": XEN_COLUMN}, XEN_FORK)
    assert "changed since it was frozen" in changed.problem


def test_a_loop_of_several_regions_is_their_mean():
    from x86virt.vmm.registry import find_strategy

    plan = shipped_plan()
    loop = replace(plan.entry_of(NAMES["xen03.lmproc.null_io.xen"]).loop, iterations=(1, 2))
    predictor, native, profile = Predictor(plan), find_strategy("native"), load_profile("p4_prescott")
    both = predictor.iteration(loop, native, profile)
    each = [predictor.iteration(replace(loop, regions=(region,)), native, profile) for region in loop.regions]
    assert len(each) == 2 and each[0].cycles != each[1].cycles
    assert both.cycles == sum(one.cycles for one in each) / 2


# -- freezes ---------------------------------------------------------------------------------------------------------------


def test_a_column_is_hidden_until_it_is_frozen():
    found = verdict(predicted(214, 100, 300), freezes={})
    assert (found.kind, found.predicted) == (NOT_COVERED, None)
    assert "make freeze COLUMN=aa06.sw" in found.note


def test_a_prediction_that_changed_since_its_freeze_wants_a_mechanism():
    assert not verdict(predicted(214, 100, 300)).problem
    assert "then 214.00" in verdict(predicted(215, 100, 300)).problem
    assert "not there" in verdict(predicted(214, 100, 300), {"aa06.sw": replace(COLUMN, predicted={})}).problem


def test_the_newest_freeze_of_a_column_counts(tmp_path):
    file = tmp_path / "freezes.toml"
    later = replace(COLUMN, mechanism='a "mechanism"', predicted={SOFTWARE: 213.515625})
    file.write_text(freeze_text(COLUMN) + freeze_text(later), encoding="utf-8")
    assert read_freezes(file) == {"aa06.sw": later}


def test_the_committed_freezes_are_those_of_columns():
    columns = {entry.column for entry in shipped_plan().entries if isinstance(entry, Run) and entry.column}
    assert set(read_freezes()) <= columns


def test_freezing_writes_an_entry_and_shows_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(freezing, "freezes_file", lambda: tmp_path / "freezes.toml")
    monkeypatch.setattr(freezing, "Predictor", lambda plan: Oracle(predicted(123.25, 1, 200)))
    monkeypatch.setattr(freezing, "paths_digest", lambda predictor, run: "ab")
    monkeypatch.setattr("sys.argv", ["freeze", "aa06.sw", "--mechanism", "first look"])
    assert freezing.main() == 0
    out, err = capsys.readouterr()
    assert "123" not in out + err
    entry = read_freezes(tmp_path / "freezes.toml")["aa06.sw"]
    assert entry.predicted == dict.fromkeys((name for name in NAMES if name in entry.predicted), 123.25)
    assert len(entry.predicted) == 5


def test_only_a_column_can_be_frozen():
    with pytest.raises(UserError, match="no row"):
        freezing.make_freeze(shipped_plan(), "nope", "", Oracle(predicted(1, 1, 1)))


# -- the command -----------------------------------------------------------------------------------------------------------


def test_the_command_holds_for_what_is_shipped(capsys):
    answer = Answer(capsys, "validate", "--json", "-")
    document = answer.json()
    assert answer.status == 0, document["problems"]
    assert [row["id"] for row in document["rows"]] == list(NAMES)
    for row in document["rows"]:
        assert (row["predicted"] is None) == (row["kind"] == NOT_COVERED)
        assert row["note"] or row["kind"] != NOT_COVERED
        assert row["inside"] is not False or row["note"]
    beside = next(row for row in document["rows"] if row["id"] == "aa06.nano.syscall.nat")
    assert beside["predicted"] is None
    assert not beside["scored"]
    assert 300 < beside["beside"] < 400  # SYSENTER and SYSEXIT at 130 and 150, STI, the loop
    scored = [row for row in document["rows"] if row["scored"]]
    assert document["score"]["n"] == len(scored)


def test_the_command_as_a_table(capsys):
    answer = Answer(capsys, "validate", "--id", "aa06.vt.*", "--id", "bhargava08.refs")
    assert answer.status == 0
    assert "2,409" in answer.out
    assert "long mode" in answer.out
    assert "n = 0 scored rows" in answer.out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--id", "aa06.nano.in_port8"), "did you mean aa06.nano.in_port80"),
        (("--profile", "k8_opteron"), "no published row"),
        (("--strategy", "trap-and-emulate"), "no published row"),
        (("--profile", "p4_cedarmil"), "did you mean p4_cedarmill"),
        (("--strategy", "nativ"), "did you mean native"),
    ],
)
def test_what_nobody_published_is_refused(arguments, what, capsys):
    answer = Answer(capsys, "validate", *arguments)
    assert answer.status == 2
    assert what in answer.err
    assert answer.err.count("\n") == 1


def test_a_profile_of_the_users_own_stands_in_and_may_fail(tmp_path, capsys):
    """Ten times the price of a port: the arithmetic row does not come out, and the status says so."""
    file = tmp_path / "mine.toml"
    price = '[sys.in_port_lpc]\nvalue = 29280\nevidence = "estimated"\nsource = "a test"\n'
    file.write_text(f'inherits = "p4_cedarmill"\n{price}', encoding="utf-8")
    assert built_in_ancestor(file) == "p4_cedarmill"
    answer = Answer(capsys, "validate", "--profile", str(file), "--id", NATIVE, "--json", "-")
    row = answer.json()["rows"][0]
    assert answer.status == 1
    assert row["ratio"] == pytest.approx(10, rel=0.01)
    assert row["problem"]


def test_a_profile_that_inherits_nothing_stands_for_nothing(tmp_path):
    text = (load_profile("nehalem").path).read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="inherits no built-in profile"):
        built_in_ancestor(tmp_path / "mine.toml")


def test_a_strategy_with_options_is_one_of_its_technique(capsys):
    answer = Answer(capsys, "validate", "--strategy", "binary-translation", "--id", "aa06.nano.call_ret.*", "--json", "-")
    (row,) = answer.json()["rows"]
    assert row["strategy"].startswith("binary-translation,shadow=trace")
    assert technique(row["strategy"]) == "binary-translation" == technique("binary-translation")


def test_rows_are_chosen_by_strategy(capsys):
    rows = Answer(capsys, "validate", "--strategy", "native", "--id", "aa06.nano.[cs]*", "--json", "-").json()["rows"]
    assert [row["id"] for row in rows] == ["aa06.nano.syscall.nat", "aa06.nano.call_ret.nat"]
    assert len(chosen_rows(("aa06.nano.c*",))) == 6

"""The events are well declared and the ledger over them counts, subtracts, prints and refuses as it says."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from x86virt.isa import events
from x86virt.isa.events import DOMAINS, EVENT_ID, EVENTS, MODE_NAMES, N_EVENTS, N_MODES, RULES
from x86virt.ledger import SHAPE, ConservationError, Ledger, PriceError, as_cycles
from x86virt.profile import load_profile

CELL = st.tuples(st.integers(0, N_EVENTS - 1), st.integers(0, N_MODES - 1))
PRICES = load_profile("p4_prescott").prices()


@st.composite
def charges(draw):
    """A list of (event number, mode, how often)."""
    return [(*draw(CELL), draw(st.integers(1, 10**6))) for _ in range(draw(st.integers(0, 20)))]


def charged(entries):
    """A ledger to which each entry was charged at PRICES, and the ticks that were spent, both added up naively."""
    ledger, spent = Ledger.empty(), 0
    for number, mode, times in entries:
        ledger.count[number, mode] += times
        ledger.ticks[number, mode] += times * PRICES[number]
        spent += times * int(PRICES[number])
    return ledger, spent


def test_constants_are_complete_and_current():
    declared = {name: value for name, value in vars(events).items() if name.startswith("EVENT_") and name != "EVENT_ID"}
    expected = {events.constant_name(event.name): number for number, event in enumerate(EVENTS)}
    assert declared == expected
    assert len(expected) == N_EVENTS == len(EVENT_ID)
    assert events.constant_name("ins.alu_rr") == "EVENT_INS_ALU_RR"


def test_events_are_well_declared():
    for event in EVENTS:
        assert event.domain in DOMAINS and event.rule in RULES, event
        assert event.unit and event.sentence.endswith("."), event
        assert (event.price is None) == (event.rule in ("free", "dynamic")), event
        assert bool(event.above) == (event.rule == "above"), event
    assert len({event.sentence for event in EVENTS}) == N_EVENTS


def test_the_levels_of_a_reference_follow_one_another():
    """The cache model adds the level that served a reference to the event of an L2 hit."""
    for who in ("walk", "vmm", "data"):
        first = EVENT_ID[f"{who}.reference_l2"]
        names = [event.name for event in EVENTS[first : first + 3]]
        assert names == [f"{who}.reference_{level}" for level in ("l2", "l3", "memory")]


def test_modes_are_numbered_in_the_order_of_their_names():
    numbers = (events.MODE_GUEST_USER, events.MODE_GUEST_KERNEL, events.MODE_VMM, events.MODE_IDLE, events.MODE_DOMAIN_0)
    assert numbers == tuple(range(N_MODES)) and len(MODE_NAMES) == N_MODES


@given(charges())
@settings(deadline=None, max_examples=60)
def test_charges_are_conserved_and_every_lost_tick_is_found(entries):
    ledger, spent = charged(entries)
    ledger.check_conservation(spent)
    ledger.check_fixed_prices(PRICES)
    assert ledger.total_ticks() == spent == sum(ledger.ticks_by_mode().values())
    with pytest.raises(ConservationError) as caught:
        ledger.check_conservation(spent + 1)
    assert (caught.value.ledger_ticks, caught.value.tick_advance) == (spent, spent + 1)


@given(charges(), CELL, st.sampled_from([-1, 1]))
@settings(deadline=None, max_examples=60)
def test_a_tick_moved_in_one_cell_breaks_the_fixed_price_unless_the_event_has_none(entries, cell, step):
    ledger, _ = charged(entries)
    ledger.ticks[cell] += step
    if EVENTS[cell[0]].fixed:
        with pytest.raises(PriceError, match=EVENTS[cell[0]].name) as caught:
            ledger.check_fixed_prices(PRICES)
        assert [(row[0], row[1]) for row in caught.value.rows] == [(EVENTS[cell[0]].name, MODE_NAMES[cell[1]])]
    else:
        ledger.check_fixed_prices(PRICES)


@given(charges(), charges())
@settings(deadline=None, max_examples=40)
def test_a_difference_of_snapshots_is_what_happened_between_them(first, second):
    ledger, _ = charged(first)
    before = ledger.snapshot()
    later, _ = charged(second)
    ledger.count += later.count
    ledger.ticks += later.ticks
    assert ledger.snapshot() - before == later
    assert before == charged(first)[0]
    assert before + later == ledger


@given(charges())
@settings(deadline=None, max_examples=40)
def test_json_holds_every_cell_exactly(entries):
    ledger, _ = charged(entries)
    restored = Ledger.empty()
    for event, modes in json.loads(json.dumps(ledger.as_json())).items():
        for mode, cell in modes.items():
            ticks = Fraction(cell["cycles"]) * 64
            assert ticks.denominator == 1
            restored.count[EVENT_ID[event], MODE_NAMES.index(mode)] = cell["count"]
            restored.ticks[EVENT_ID[event], MODE_NAMES.index(mode)] = ticks.numerator
    assert restored == ledger


def test_cycles_are_integers_where_they_are_whole():
    assert [as_cycles(ticks) for ticks in (0, 64, 65, 96)] == [0, 1, 1.015625, 1.5]
    assert isinstance(as_cycles(64), int) and isinstance(as_cycles(96), float)
    assert Fraction(as_cycles((1 << 53) - 1)) * 64 == (1 << 53) - 1


def test_totals_do_not_wrap():
    ledger = Ledger.empty()
    ledger.ticks[:2, :] = np.iinfo(np.int64).max
    assert ledger.total_ticks() == 2 * N_MODES * (2**63 - 1)


def test_the_conservation_error_names_the_largest_events_and_the_difference():
    ledger = Ledger.empty()
    ledger.count[EVENT_ID["sys.iret_cpl0_to_cpl3"], events.MODE_GUEST_KERNEL] = 3
    ledger.ticks[EVENT_ID["sys.iret_cpl0_to_cpl3"], events.MODE_GUEST_KERNEL] = 3 * 389 * 64
    with pytest.raises(ConservationError, match=r"100 less than .* sys\.iret_cpl0_to_cpl3 3 times 1167\.00 cycles"):
        ledger.check_conservation(3 * 389 * 64 + 100)


def test_a_negative_cell_is_refused_even_if_the_sum_is_right():
    ledger = Ledger.empty()
    ledger.ticks[EVENT_ID["ins.nop"], 0] = 64
    ledger.ticks[EVENT_ID["ins.pop"], 1] = -64
    with pytest.raises(ConservationError, match=r"ins\.pop in guest_kernel is negative"):
        ledger.check_conservation(0)


@pytest.mark.parametrize(
    ("count", "ticks"),
    [
        (np.zeros((N_EVENTS, 3), np.int64), np.zeros(SHAPE, np.int64)),
        (np.zeros(SHAPE, np.int64), np.zeros((N_EVENTS + 1, N_MODES), np.int64)),
        (np.zeros(SHAPE, np.float64), np.zeros(SHAPE, np.int64)),
        (np.zeros(SHAPE, np.int64), np.zeros(SHAPE, np.uint64)),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused(count, ticks):
    with pytest.raises(ValueError, match="not int64 of shape"):
        Ledger(count, ticks)


def test_a_ledger_follows_the_machines_arrays_and_a_snapshot_does_not():
    count, ticks = np.zeros(SHAPE, np.int64), np.zeros(SHAPE, np.int64)
    ledger = Ledger(count, ticks)
    snapshot = ledger.snapshot()
    count[EVENT_ID["ins.nop"], 0], ticks[EVENT_ID["ins.nop"], 0] = 2, 46
    assert (ledger.event_count("ins.nop"), ledger.event_ticks("ins.nop")) == (2, 46)
    assert snapshot == Ledger.empty()


@given(charges(), st.sampled_from(sorted(EVENT_ID)), st.fractions(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_the_formula_adds_up_to_the_total_and_answers_what_if(entries, event, latency):
    ledger, spent = charged(entries)
    rows = ledger.formula()
    assert sum(row.cycles for row in rows) * 64 == spent
    assert all(row.frequency * row.latency == row.cycles == row.what_if_cycles for row in rows)
    assert [row.cycles for row in rows] == sorted((row.cycles for row in rows), reverse=True)
    changed = ledger.formula({event: latency})
    difference = ledger.event_count(event) * latency - Fraction(ledger.event_ticks(event), 64)
    assert sum(row.what_if_cycles for row in changed) - Fraction(spent, 64) == difference
    assert sum(row.cycles for row in changed) == Fraction(spent, 64)


@pytest.mark.parametrize("latency", [-1, float("nan"), float("inf")])
def test_a_what_if_that_is_no_latency_is_refused(latency):
    with pytest.raises(ValueError, match="a latency of"):
        Ledger.empty().formula({"ins.nop": latency})


def test_a_misspelt_what_if_event_is_refused_with_near_matches():
    with pytest.raises(ValueError, match=r"unknown event ins\.nopp, did you mean .*ins\.nop"):
        Ledger.empty().formula({"ins.nopp": 1})


def test_time_without_a_count_stays_in_the_formula():
    ledger = Ledger.empty()
    ledger.ticks[EVENT_ID["idle.halt"], events.MODE_IDLE] = 640
    (row,) = ledger.formula()
    assert (row.event, row.frequency, row.latency, row.cycles) == ("idle.halt", 0, None, 10)

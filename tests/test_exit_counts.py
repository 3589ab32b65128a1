"""Exits by reason: their parts add up to what the ledger has, in a run, in a region, and in the tables and JSON made of them."""

from functools import cache
from typing import Any

import pytest
from profile_for import profile_for

from x86virt.exit_counts import PARTS, ExitCount, parts_of, subtract
from x86virt.guests import find_guest
from x86virt.isa.events import EVENT_ID, EVENTS
from x86virt.ledger import Ledger
from x86virt.machine import Machine, RunResult
from x86virt.profile import load_profile
from x86virt.report import exits_of
from x86virt.vmm.hardware.accounts import CONTROL_EVENTS, ENTRY_EVENTS
from x86virt.vmm.registry import find_strategy

EXTENSIONS = ("vtx-shadow", "vtx-ept", "svm-shadow", "svm-npt")


@cache
def run(strategy: str, guest: str = "ptemod") -> RunResult:
    """A guest with a measured region."""
    machine = Machine(find_strategy(strategy)(), load_profile(profile_for(strategy)))
    machine.load(find_guest(guest), "iterations=20")
    result = machine.run(2_000_000_000)
    assert result.outcome == "halted" and result.regions
    return result


def test_each_event_of_an_extension_is_an_exit_s_the_structure_s_or_an_entry_s():
    """Two of them no VMM of ours uses: VMCALL in root operation, and SKINIT, which has none."""
    names = {event.name for event in EVENTS if event.name.startswith(("vmx.", "svm."))}
    assert {*CONTROL_EVENTS, *ENTRY_EVENTS} == names - {"vmx.vmcall"}
    assert not set(CONTROL_EVENTS) & set(ENTRY_EVENTS)


@pytest.mark.parametrize("strategy", EXTENSIONS)
def test_the_parts_are_all_that_a_region_spends_on_its_exits(strategy):
    for region in run(strategy).regions:
        parts = parts_of(region.exits, region.ledger)
        ledger = region.ledger
        exits = [name for name in EVENT_ID if name.startswith("exit.")]
        assert sum(row.exit for row in parts.values()) == sum(ledger.event_ticks(name) for name in exits)
        assert sum(row.count for row in parts.values()) == sum(ledger.event_count(name) for name in exits)
        assert sum(row.control for row in parts.values()) == sum(ledger.event_ticks(name) for name in CONTROL_EVENTS)
        assert sum(row.entry for row in parts.values()) == sum(ledger.event_ticks(name) for name in ENTRY_EVENTS)
        software = sum(row.handler + row.control + row.entry for row in parts.values())
        assert software == ledger.ticks_by_mode()["vmm"]
        assert all(row.handler > 0 and row.entry > 0 and row.exit > 0 for row in parts.values())


@pytest.mark.parametrize("strategy", EXTENSIONS)
def test_every_exception_that_exits_is_charged_the_way_to_its_handler(strategy):
    """Page faults of a shadow too, whoever handles them; an undefined instruction of the extension is charged the same way."""
    result = run(strategy)
    exceptions = [row.number for reason, row in result.exits.items() if reason == "exception_or_nmi"]
    assert result.ledger.event_count("vmm.exit_exception") == sum(exceptions)
    assert bool(exceptions) == strategy.endswith("shadow")


@pytest.mark.parametrize("strategy", EXTENSIONS)
def test_every_exit_is_dispatched_once(strategy):
    result = run(strategy)
    assert result.ledger.event_count("vmm.exit_dispatch") == sum(row.number for row in result.exits.values())
    assert result.unpriced == 0


def test_without_an_extension_all_is_the_handler_s():
    result = run("trap-and-emulate")
    for reason, row in parts_of(result.exits, result.ledger).items():
        assert row.ticks == row.handler == result.exits[reason].ticks
        assert row.by_part() == {}
    assert all(set(cell) == {"count", "cycles"} for cell in exits_of(result).values())


def test_the_json_has_each_part_and_their_sum():
    rows = exits_of(run("vtx-shadow"))
    assert rows and all(set(cell) == {"count", "cycles", *PARTS} for cell in rows.values())
    assert all(cell["cycles"] == sum(cell[part] for part in PARTS) for cell in rows.values())
    cycles = [cell["cycles"] for cell in rows.values()]
    assert cycles == sorted(cycles, reverse=True)


def test_the_difference_of_two_looks():
    before = {"cpuid": ExitCount(2, 20, 3, 4), "hlt": ExitCount(1, 5)}
    after = {"cpuid": ExitCount(5, 60, 9, 10), "hlt": ExitCount(1, 5), "invlpg": ExitCount(1, 7, 1, 1)}
    assert subtract(after, before) == {"cpuid": ExitCount(3, 40, 6, 6), "invlpg": ExitCount(1, 7, 1, 1)}


def test_what_if_an_exit_were_cheaper():
    """The ledger's formula takes another price for any exit, as for any event."""
    ledger: Any = run("vtx-shadow").ledger
    assert isinstance(ledger, Ledger)
    rows = {row.event: row for row in ledger.formula({"exit.exception_or_nmi": 200})}
    row = rows["exit.exception_or_nmi"]
    assert row.what_if_cycles == 200 * row.frequency < row.cycles

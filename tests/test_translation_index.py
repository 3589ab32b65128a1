"""The index of the translation cache, which the jitted exits read: it says of units what Python's own tables say."""

from __future__ import annotations

from functools import cache

import pytest

from x86virt.api import make_setup
from x86virt.guests import find_guest
from x86virt.vmm import layout
from x86virt.vmm.registry import find_strategy
from x86virt.vmm.translation.emitter import Site
from x86virt.vmm.translation.index import (
    BASE,
    HELD,
    KIND_SHIFT,
    KNOWN,
    MAX_PAGES,
    PROBES,
    RELEASE_SHIFT,
    SITE_KINDS,
    SPILLED_SHIFT,
    TARGET_IN_RECORD,
    Index,
    marks_of,
)
from x86virt.vmm.translation.recovery import Recovery
from x86virt.vmm.translation.sequences import Context
from x86virt.vmm.translation.unit import Unit

CONTEXT, OTHER = Context(8, 0, 0xFFFFFFFF, 0), Context(8, 0, 0xFFFFFFFF, 3)


@cache
def translator(options: str = ""):
    """Of a guest that has modified its own code, at its end."""
    machine = make_setup(find_strategy(f"binary-translation{options}")).load(find_guest("smc"), "iterations=5")
    machine.run()
    assert machine.vm is not None
    return machine.vm.translator


def unit_at(address: int, eips: range) -> Unit:
    """A unit of one-byte instructions."""
    boundaries = {eip: eip - eips.start for eip in eips}
    code = b"\x90" * len(eips)
    return Unit(eips.start, CONTEXT, address, guest=code, octets=code, boundaries=boundaries, frames=(7,))


def entered(index: Index, eip: int, context: Context) -> list[int]:
    """The addresses that the index has for a guest address."""
    rows, number = index.rows, index.number_of(context)
    places = Index.probes(eip, number)
    assert len(set(places)) == PROBES
    return [
        int(rows.entry_addresses[at]) for at in places if rows.entry_eips[at] == eip and rows.entry_contexts[at] == number
    ]


@pytest.mark.parametrize("options", ["", ",chaining=off", ",tc_size=4K"])
def test_every_place_of_every_unit_is_there(options: str) -> None:
    cache_of = translator(options).cache
    rows = cache_of.index.rows
    for unit in cache_of.units:
        first = unit.address - BASE
        for offset, recovery in zip(unit.offsets, unit.recoveries, strict=True):
            assert rows.marks[first + offset] == marks_of(recovery)
            assert rows.eips[first + offset] == (recovery.eip or 0)
        for site in unit.sites.values():
            marks = int(rows.site_marks[first + site.offset])
            assert (marks != 0) == (site.kind in SITE_KINDS and marks_of(site.recovery) != 0)
            assert marks == 0 or SITE_KINDS[marks >> KIND_SHIFT] == site.kind
    assert all(rows.marks[cache_of.used :] == 0) and all(rows.site_marks[cache_of.used :] == 0)


@pytest.mark.parametrize("options", ["", ",chaining=off", ",tc_size=4K"])
def test_where_the_guest_was_resumed_is_where_its_code_stands(options: str) -> None:
    cache_of = translator(options).cache
    rows, numbers = cache_of.index.rows, {number: context for context, number in cache_of.index.contexts.items()}
    found = 0
    for eip, number, address in zip(rows.entry_eips, rows.entry_contexts, rows.entry_addresses, strict=True):
        if eip >= 0:
            unit, place = cache_of.entry(int(eip), numbers[int(number)])
            assert unit.alive and not unit.unmarked and not unit.context.single
            assert unit.boundary_of(int(eip)) is not None and cache_of.unit_at(int(address)).boundary_of(int(eip)) == address
            found += place == address
    assert found > 3


def test_the_pages_with_code_are_there_in_order() -> None:
    cache_of = translator().cache
    cache_of.index.follow_pages(cache_of.by_page)
    rows = cache_of.index.rows
    assert rows.pages[: rows.page_count].tolist() == sorted(cache_of.by_page)
    for page, frame in zip(rows.pages[: rows.page_count], rows.page_frames[: rows.page_count], strict=True):
        assert {unit.frame_of(int(page)) for unit in cache_of.by_page[int(page)]} == {int(frame)} or frame == -1


def test_marks_say_all_of_a_recovery_or_nothing() -> None:
    assert marks_of(Recovery(5)) == KNOWN
    assert marks_of(Recovery(None, release=12)) == KNOWN | TARGET_IN_RECORD | 12 << RELEASE_SHIFT
    assert marks_of(Recovery(5, frozenset({1, 2}), held=True)) == KNOWN | HELD | 6 << SPILLED_SHIFT
    for odd in ("unstored", "unpushed", "called", "returning", "own_stack"):
        assert marks_of(Recovery(5, **{odd: True})) == 0
    assert Index.site_marks(Site("x87_pointer", 0, Recovery(5))) == 0


def test_an_address_is_found_in_its_context_until_its_unit_is_dropped() -> None:
    index = Index()
    unit = unit_at(BASE + 0x40, range(0x1000, 0x1004))
    index.add(unit)
    for eip in range(0x1000, 0x1004):
        index.enter(eip, CONTEXT, unit.address + eip - 0x1000)
        index.enter(eip, CONTEXT, unit.address + eip - 0x1000)  # nothing changes
    index.enter(0x1000, OTHER, BASE + 0x400)
    assert [entered(index, eip, CONTEXT) for eip in range(0x1000, 0x1005)] == [[BASE + 0x40 + n] for n in range(4)] + [[]]
    index.drop(unit)
    assert not any(entered(index, eip, CONTEXT) for eip in range(0x1000, 0x1004))
    assert entered(index, 0x1000, OTHER) == [BASE + 0x400]
    index.clear(0)
    assert entered(index, 0x1000, OTHER) == []


def test_addresses_that_share_a_place_displace_each_other_in_the_end() -> None:
    """An entry that is displaced is found by Python alone; it is never another's."""
    index = Index()
    wanted = set(Index.probes(0x1000, index.number_of(CONTEXT)))
    eips = [eip for eip in range(0x1000, 0x8_0000) if Index.probes(eip, 0)[0] in wanted][: 3 * PROBES]
    assert len(eips) == 3 * PROBES
    for number, eip in enumerate(eips):
        index.enter(eip, CONTEXT, BASE + number + 1)
        assert entered(index, eip, CONTEXT) == [BASE + number + 1]
    for number, eip in enumerate(eips):
        assert entered(index, eip, CONTEXT) in ([], [BASE + number + 1])


def test_more_pages_than_the_index_holds_are_counted_all_the_same() -> None:
    index = Index()
    units = {page: [unit_at(BASE, range(page << 12, (page << 12) + 1))] for page in range(MAX_PAGES + 5)}
    index.pages_changed = True
    index.follow_pages(units)
    assert index.rows.page_count == MAX_PAGES + 5
    units[3].append(unit_at(BASE, range(3 << 12, (3 << 12) + 1)))
    units[3][1].frames = (8,)
    index.follow_pages(units)
    assert index.rows.page_frames[3] == 7  # nothing was said to have changed
    index.add(units[3][1])
    index.follow_pages(units)
    assert index.rows.page_frames[3] == -1
    assert layout.CACHE_BYTES == len(index.rows.marks)

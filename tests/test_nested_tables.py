"""Nested tables made from the p2m as a guest touches its memory: right after every access and change, within their budget."""

from __future__ import annotations

import random

import numpy as np
import pytest
from nested_rig import FETCH, FORMS, NO_MEMORY, READ_ONLY, WRITE, NestedRig, check

from x86virt.isa.events import (
    EVENT_NESTED_ENTRY,
    EVENT_NESTED_ENTRY_DROPPED,
    EVENT_NESTED_EVICTION,
    EVENT_NESTED_HOLE,
    EVENT_NESTED_LARGE_ENTRY,
    EVENT_NESTED_TABLE,
)
from x86virt.vmm import layout
from x86virt.vmm.hardware.nested import EPT, NPT_2, ept_qualification
from x86virt.vmm.nested.check import check_tables

FIRST = layout.VMM_BYTES >> 12
KINDS = (0, WRITE, FETCH)
SMALL = 128 << 10  # the least budget


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> int:
    """Each format of the tables."""
    return FORMS[request.param]


def contiguous(megabytes: int) -> np.ndarray:
    """A p2m in one piece behind the VMM."""
    return FIRST + np.arange(megabytes << 8, dtype=np.int64)


def scattered(megabytes: int) -> np.ndarray:
    """One in descending order."""
    return contiguous(megabytes)[::-1].copy()


def region_bytes(form: int) -> int:
    """What an entry of a directory maps."""
    return 4 << 20 if form == NPT_2 else 2 << 20


def count(rig: NestedRig, event: int) -> int:
    """How often an event was counted."""
    return int(rig.processor.cpu.ledger_count[event].sum())


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_exits_once(form: int, kind: int) -> None:
    """The first access of any kind maps the page for all kinds; what is charged is the tables on the way."""
    rig = NestedRig(form, scattered(8))
    levels = rig.nested.levels
    assert rig.access(0x5008, kind) == rig.expected(0x5008)
    before = rig.exits
    assert before == (2 if form == EPT else 1)  # the guest's own directory too
    for other in KINDS:
        assert rig.access(0x5008, other) == rig.expected(0x5008)
    assert rig.exits == before and rig.flushes == 0
    assert rig.charged["nested_fill"] == before and rig.charged["nested_fill items"] == before * levels
    assert rig.charged["nested_table"] == levels - 1 == count(rig, EVENT_NESTED_TABLE)
    assert count(rig, EVENT_NESTED_ENTRY) == before and count(rig, EVENT_NESTED_HOLE) == 0
    check(rig)


def test_holes_and_memory_that_takes_no_writes(form: int) -> None:
    """Each access to a hole exits; what reads as ROM does may be fetched, and only its writes exit."""
    p2m = scattered(8)
    p2m[0x200], p2m[0x201] = NO_MEMORY, p2m[0x201] | READ_ONLY
    rig = NestedRig(form, p2m)
    end = len(p2m) << 12
    for _ in range(2):
        for gpa in (0x200123, end, 0xFEE00020, 0xFFFFFFF0):
            for kind in KINDS:
                assert rig.access(gpa, kind) is None
    assert count(rig, EVENT_NESTED_HOLE) == 24
    assert rig.access(0x201000) == rig.access(0x201000, FETCH) == rig.expected(0x201000)
    exits = rig.exits
    assert rig.access(0x201000, WRITE) is None and rig.access(0x201000, WRITE) is None
    assert rig.exits == exits + 2
    check(rig)


@pytest.mark.parametrize("large", [False, True])
def test_large_pages(form: int, large: bool) -> None:
    """Where the p2m lies in one piece, one entry maps the region: no page beside it exits."""
    rig = NestedRig(form, contiguous(16), large)
    size = region_bytes(form)
    rig.access(3 * size, WRITE)
    exits = rig.exits
    for offset in range(0, size, 0x1000):
        assert rig.access(3 * size + offset) == rig.expected(3 * size + offset)
    assert rig.exits - exits == (0 if large else size // 0x1000 - 1)
    assert count(rig, EVENT_NESTED_LARGE_ENTRY) == (large + (large and form == EPT))
    assert rig.charged["nested_fill items"] == rig.charged["nested_fill"] * (rig.nested.levels - large)
    check(rig)


def test_regions_that_cannot_be_large(form: int) -> None:
    """One frame elsewhere, without memory or read-only, or a piece that is not aligned, and the region is mapped by 4 KB."""
    size = region_bytes(form) >> 12
    p2m = contiguous(32)
    p2m[[size + 7, size + 8]] = p2m[[size + 8, size + 7]]
    p2m[2 * size] = NO_MEMORY
    p2m[3 * size - 1 + size] |= READ_ONLY
    p2m[4 * size : 5 * size] += 1  # the last frame is the next region's first
    rig = NestedRig(form, p2m)
    for region in range(6):
        gpa = region * size + 5 << 12
        assert rig.access(gpa) == rig.expected(gpa)
    sizes = {gpa // (size << 12): bytes for gpa, bytes, *_ in check(rig).pages}
    assert sizes == {0: size << 12, 1: 4096, 2: 4096, 3: 4096, 4: 4096, 5: size << 12}


def test_the_last_region_of_ram_is_in_pieces(form: int) -> None:
    """RAM that ends within a region."""
    rig = NestedRig(form, contiguous(region_bytes(form) * 2 + (1 << 20) >> 20))
    gpa = 2 * region_bytes(form)
    assert rig.access(gpa) == rig.expected(gpa) and rig.access(gpa + (1 << 20)) is None
    check(rig)


def test_a_large_page_is_taken_back_for_one_frame(form: int) -> None:
    """A frame that becomes something else breaks the large page around it; once it is itself again, all may be large."""
    rig = NestedRig(form, contiguous(16))
    size = region_bytes(form)
    gpa, frame = size + 0x3000, size + 0x3000 >> 12
    own = int(rig.p2m[frame])
    rig.access(gpa)
    rig.set_frame(frame, NO_MEMORY)
    assert rig.access(gpa) is None and rig.flushes == 1
    assert rig.access(gpa + 0x1000) == rig.expected(gpa + 0x1000)
    assert {bytes for first, bytes, *_ in check(rig).pages if first // size == 1} == {4096}
    rig.set_frame(frame, own | READ_ONLY)
    assert rig.access(gpa, FETCH) == rig.expected(gpa) and rig.access(gpa, WRITE) is None
    rig.set_frame(frame, own)
    assert rig.access(gpa, WRITE) == rig.expected(gpa)
    assert rig.charged["nested_drop items"] == 2 == count(rig, EVENT_NESTED_ENTRY_DROPPED)
    check(rig)


def test_nothing_is_flushed_without_need(form: int) -> None:
    """Entries that are only added need no invalidation, nor does a change of what was never mapped."""
    rig = NestedRig(form, scattered(8))
    rig.set_frame(0x300, NO_MEMORY)
    rig.access(0x301000)
    rig.set_frame(0x302, NO_MEMORY)
    rig.access(0x303000, WRITE)
    assert rig.flushes == 0 and count(rig, EVENT_NESTED_ENTRY_DROPPED) == 0


def test_tables_within_the_budget(form: int) -> None:
    """A guest larger than its tables may be: tables are evicted, and every access still ends where it must."""
    rig = NestedRig(form, scattered(160), size=SMALL)
    rng = random.Random(form)
    for _ in range(600):
        gpa = rng.randrange(len(rig.p2m)) << 12 | rng.randrange(1024) << 2
        assert rig.access(gpa, rng.choice(KINDS)) == rig.expected(gpa)
    assert count(rig, EVENT_NESTED_EVICTION) > 50
    assert rig.flushes >= count(rig, EVENT_NESTED_EVICTION) // 2
    assert len(check(rig).tables) == (SMALL >> 12) - 1
    # Tables that fit are not evicted: what is used again and again stays.
    evictions = count(rig, EVENT_NESTED_EVICTION)
    for _ in range(2):
        exits = rig.exits
        for region in range(8):
            rig.access(region << 22)
    assert rig.exits == exits and count(rig, EVENT_NESTED_EVICTION) <= evictions + 9


def test_frames_that_are_shown(form: int) -> None:
    """The VMM lets addresses beyond RAM show pages of its own, and takes them away again."""
    rig = NestedRig(form, scattered(8))
    rig.nested.show(0xFFFBE, 0x98)
    rig.nested.show(0xFFFBF, 0x99)
    assert rig.access(0xFFFBE004) == 0x98004 and rig.access(0xFFFBF004) == 0x99004
    assert rig.access(0xFFFBE004, WRITE) is None and rig.access(0xFFFBD000) is None
    check(rig, {0xFFFBE: 0x98 | READ_ONLY, 0xFFFBF: 0x99 | READ_ONLY})
    rig.nested.show(0xFFFBE, 0x9A)
    assert rig.access(0xFFFBE004) == 0x9A004 and rig.flushes == 1
    rig.nested.hide(0xFFFBE)
    assert rig.access(0xFFFBE004) is None and rig.access(0xFFFBF004) == 0x99004 and rig.flushes == 2
    rig.nested.hide(0xFFFBF)
    assert rig.access(0xFFFBF004) is None
    assert not check(rig, {}).pages or rig.form == EPT


@pytest.mark.parametrize("seed", range(6))
def test_random_accesses_and_changes(form: int, seed: int) -> None:
    """Any p2m, changed at any time: each access ends where the p2m says, through the TLBs too."""
    rng = random.Random(seed * 3 + form)
    p2m = rng.choice((contiguous, scattered))(24)
    for _ in range(rng.randrange(12)):
        first = rng.randrange(2, len(p2m) - 8)
        p2m[first : first + 4] = rng.choice((p2m[first : first + 4][::-1].copy(), NO_MEMORY, p2m[first : first + 4] | READ_ONLY))
    rig = NestedRig(form, p2m, rng.random() < 0.7, SMALL)
    spots = [rng.randrange(2, len(p2m)) for _ in range(24)]
    for step in range(250):
        frame = rng.choice(spots) if rng.random() < 0.8 else rng.randrange(2, len(p2m) + 4)
        if rng.random() < 0.15 and frame < len(p2m):
            other = int(p2m[rng.choice(spots)])
            rig.set_frame(frame, rng.choice((NO_MEMORY, other, other | READ_ONLY, int(p2m[frame]))))
        kind = rng.choice(KINDS)
        gpa = frame << 12 | rng.randrange(0x1000)
        assert rig.access(gpa, kind) == rig.expected(gpa, kind), (step, hex(gpa))
        if step % 50 == 49:
            check(rig)


def test_qualification_of_a_nested_page_fault() -> None:
    """EXITINFO1 in the format of an EPT violation."""
    final, tables = 1 << 32, 1 << 33
    assert ept_qualification(final | 4) == 1 | 1 << 8
    assert ept_qualification(final | 4 | 2) == 2 | 1 << 8
    assert ept_qualification(final | 4 | 16) == 4 | 1 << 8
    assert ept_qualification(tables | 4 | 2 | 1) == 2 | 5 << 3


# -- tables from a file ---------------------------------------------------------------------------------------------------


def worked(form: int) -> NestedRig:
    """Tables of some use."""
    rig = NestedRig(form, scattered(40), size=SMALL)
    for region in range(10):
        rig.access(region << 22)
    return rig


def test_tables_are_taken_back_as_they_were(form: int) -> None:
    """What was saved with machine RAM passes the check, which finds the holders again."""
    rig = worked(form)
    before = rig.nested.record.copy()
    rig.nested.record["pages"]["holder"][:] = 77
    rig.nested.restore()
    assert rig.nested.record.tobytes() == before.tobytes()


def test_tables_from_a_hostile_file(form: int) -> None:
    """Random damage to the record or the tables is refused, or leaves what jitted code can follow."""
    refused = 0
    for seed in range(30):
        rng = random.Random(seed)
        rig = worked(form) if seed % 20 == 0 else rig  # noqa: F821
        memory = rig.processor.memory
        pieces = (slice(layout.NESTED_RECORD, layout.NESTED_RECORD + 0x1000), slice(layout.SHADOW, layout.SHADOW + SMALL))
        saved = [memory[piece].copy() for piece in pieces]
        places = [layout.NESTED_RECORD + rng.randrange(36), layout.SHADOW + 0x1000 + rng.randrange(0x1000, 0x20000)]
        place = rng.choice((*places, layout.SHADOW + 0x1000 + rng.randrange(64)))
        memory[place] ^= 1 << rng.randrange(8)
        try:
            check_tables(memory, rig.nested.record[0], form, len(rig.p2m))
        except ValueError:
            refused += 1
        else:
            for _ in range(12):
                exits = rig.exits
                try:
                    rig.access(rng.randrange(len(rig.p2m)) << 12, rng.choice(KINDS))
                except AssertionError:
                    assert rig.exits > exits
        for piece, octets in zip(pieces, saved, strict=True):
            memory[piece] = octets
        rig.flush()
    assert refused > 3

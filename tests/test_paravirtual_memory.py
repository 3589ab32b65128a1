"""Hypercalls of memory by name: what is refused and harms nothing, foreign frames, stale translations, batches, reservations."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from paravirtual_machine import (
    ARGUMENTS,
    BASE_L1,
    BASE_L2,
    BASE_L3,
    DOMAIN_0,
    FIRST,
    GUEST,
    IO,
    L1S,
    L2S,
    L3S,
    LOWER_L2,
    N_DOMAIN_0,
    N_FRAMES,
    N_GUEST,
    NEW_BASEPTR,
    OTHERS,
    PIN_L1,
    PIN_L2,
    PIN_L3,
    PIN_L4,
    PLAIN,
    PS,
    PWT,
    RW,
    SELF,
    UNPIN,
    UP,
    A,
    D,
    G,
    P,
    World,
    world,
)

from x86virt.core.layout import OWNER_GUEST, OWNER_VMM
from x86virt.isa.events import EVENT_ID
from x86virt.isa.registers import EBX, ECX
from x86virt.vmm.paravirtual import layout
from x86virt.vmm.paravirtual.interface import FLAT_RING1_CS
from x86virt.vmm.paravirtual.memory_calls import hold_frame, owners_follow, release_frame
from x86virt.vmm.paravirtual.records import (
    NOBODY,
    PGC_ALLOCATED,
    PGT_COUNT,
    PGT_L1,
    PGT_PAE_XEN_L2,
    PGT_PINNED,
    PGT_SEG_DESC,
    PGT_TYPE,
    PGT_VALIDATED,
    PGT_WRITABLE,
)
from x86virt.vmm.paravirtual.recount import Hold, recount

EPERM, ESRCH, EFAULT, EINVAL, ENOSYS = -1, -3, -14, -22, -38
FORMATS = pytest.mark.parametrize("pae", [False, True], ids=["2-level", "pae"])
VMM_FRAME = 3
PREEMPTED = 1 << 31
INCREASE, DECREASE, MAXIMUM_FRAME, CURRENT, MAXIMUM, POPULATE, EXCHANGE, MACHPHYS = 0, 1, 2, 3, 4, 6, 11, 12
FREE_PAGE = 0x5000  # of the table that maps the page of arguments


def state_of(here: World) -> tuple[bytes, bytes]:
    """The frame table and the guest's frames, but for the page of arguments."""
    frames = here.memory[layout.FRAME_TABLE : layout.FRAME_TABLE + here.frames.nbytes].tobytes()
    first, middle, last = FIRST << 12, ARGUMENTS << 12, N_FRAMES << 12
    return frames, here.memory[first:middle].tobytes() + here.memory[middle + 4096 : last].tobytes()


# -- what is refused ------------------------------------------------------------------------------------------------------


def bad_l1_entries() -> dict[str, int]:
    """Entries of a page table that no guest gets, which has pinned its frame L1S[0]."""
    return {
        "another domain's frame": OTHERS << 12 | P,
        "another domain's frame, writable": OTHERS << 12 | UP,
        "a frame of the VMM": VMM_FRAME << 12 | P,
        "the VMM's frame table": layout.FRAME_TABLE | UP,
        "a frame that there is not": N_FRAMES + 7 << 12 | P,
        "a page table, writable": L1S[0] << 12 | UP,
        "the base, writable": BASE_L2 << 12 | UP,
        "a memory type": PLAIN[0] << 12 | UP | PWT,
        "a large page": PLAIN[0] << 12 | UP | PS,
        "a global page": PLAIN[0] << 12 | UP | G,
    }


@FORMATS
@pytest.mark.parametrize("which", bad_l1_entries())
def test_a_bad_entry_of_a_page_table_is_refused(pae: bool, which: str) -> None:
    """By mmu_update, by update_va_mapping and by a pin, with nothing changed."""
    here, entry = world(pae), bad_l1_entries()[which]
    assert here.extended((PIN_L1, L1S[0], 0)) == (0, 1)
    before = state_of(here)
    assert here.update((here.slot(L1S[0], 9), entry)) == (EINVAL, 0)
    assert here.update((here.slot(BASE_L1, 9), entry)) == (EINVAL, 0)
    assert here.map(here.arguments + FREE_PAGE, entry) == EINVAL
    assert state_of(here) == before
    assert here.count("xen.entry_refused") == 3
    here.put_entry(L1S[1], 7, PLAIN[1] << 12 | UP)
    here.put_entry(L1S[1], 9, entry)
    assert here.extended((PIN_L1, L1S[1], 0)) == (EINVAL, 0)
    assert int(here.frames[PLAIN[1]].type_info) & PGT_COUNT == 0
    assert here.faults() == []


@pytest.mark.parametrize("high", [1 << 44, 1 << 50, 1 << 62, 1 << 63])
def test_bits_that_pae_entries_must_not_have(high: int) -> None:
    """Addresses beyond 44 bits, and the execute-disable bit where the processor has none."""
    here = world(True)
    assert here.map(here.arguments + FREE_PAGE, PLAIN[0] << 12 | UP | high) == EINVAL
    assert here.update((here.slot(BASE_L2, 9), LOWER_L2 << 12 | P | high)) == (EINVAL, 0)
    assert here.faults() == []


def test_execute_disable_where_the_processor_has_it() -> None:
    """EFER.NXE set by the VMM."""
    here = world(True)
    here.cpu.efer = 1 << 11
    assert here.map(here.arguments + FREE_PAGE, PLAIN[0] << 12 | UP | 1 << 63) == 0
    here.cpu.efer = 0


@FORMATS
def test_bad_entries_of_directories_are_refused(pae: bool) -> None:
    """Large pages, tables of others, frames that are mapped writable, entries that are the VMM's, linear ones that write."""
    here = world(pae)
    assert here.map(here.arguments + FREE_PAGE, PLAIN[0] << 12 | UP) == 0
    before = state_of(here)
    own = 428 if pae else 1008
    for index, entry in (
        (1, PLAIN[1] << 12 | UP | PS),
        (1, OTHERS << 12 | UP),
        (1, VMM_FRAME << 12 | UP),
        (1, PLAIN[0] << 12 | UP),
        (1, BASE_L2 << 12 | UP),
        (own, L1S[0] << 12 | UP),
        (511 if pae else 1023, 0),
    ):
        assert here.update((here.slot(BASE_L2, index), entry)) == (EINVAL, 0)
        assert state_of(here) == before
    assert here.faults() == []


def test_entries_of_an_l3() -> None:
    """The last is not changed; others name L2s of the guest's that are not the last of some L3."""
    here = world(True)
    before = state_of(here)
    for index, entry in (
        (3, 0), (3, L2S[0] << 12 | P), (1, BASE_L2 << 12 | P), (1, OTHERS << 12 | P), (1, BASE_L1 << 12 | P),
        (1, L2S[0] << 12 | P | PS), (4, L2S[0] << 12 | P), (511, 0),
    ):  # fmt: skip
        assert here.update((here.slot(BASE_L3, index), entry)) == (EINVAL, 0)
        assert state_of(here) == before
    assert here.update((here.slot(BASE_L3, 1), LOWER_L2 << 12 | P)) == (0, 1)
    assert here.cpu.pdpte[1] == LOWER_L2 << 12 | P
    assert here.update((here.slot(BASE_L3, 1), LOWER_L2 << 12 | P | RW | A | D)) == (0, 1)
    assert here.cpu.pdpte[1] == LOWER_L2 << 12 | P, "what the processor reserves is not loaded"
    assert here.update((here.slot(BASE_L3, 1), 0), (here.slot(BASE_L3, 2), LOWER_L2 << 12 | P | RW | A | D)) == (0, 2)
    assert (here.cpu.pdpte[1], here.cpu.pdpte[2]) == (0, LOWER_L2 << 12 | P)
    assert here.faults() == []


def test_an_l3_without_a_last_of_its_own_is_refused() -> None:
    """No last L2; another L3's; one that is pinned as an ordinary L2."""
    here = world(True)
    assert here.extended((PIN_L3, L3S[0], 0)) == (EINVAL, 0)
    here.put_entry(L3S[0], 3, BASE_L2 << 12 | P)
    assert here.extended((PIN_L3, L3S[0], 0)) == (EINVAL, 0)
    here.put_entry(L3S[0], 3, L2S[0] << 12 | P)
    assert here.extended((PIN_L2, L2S[0], 0), (PIN_L3, L3S[0], 0)) == (EINVAL, 1)
    assert here.extended((UNPIN, L2S[0], 0), (PIN_L3, L3S[0], 0)) == (0, 2)
    assert here.faults() == []


def test_the_last_l2_is_an_ordinary_one_when_no_l3_has_it() -> None:
    """Nothing of what it was is left."""
    here = world(True)
    here.put_entry(L3S[0], 3, L2S[0] << 12 | P)
    assert here.extended((PIN_L3, L3S[0], 0)) == (0, 1)
    assert int(here.frames[L2S[0]].type_info) & PGT_PAE_XEN_L2
    assert here.extended((UNPIN, L3S[0], 0)) == (0, 1)
    assert not int(here.frames[L2S[0]].type_info) & PGT_PAE_XEN_L2
    assert here.extended((PIN_L2, L2S[0], 0)) == (0, 1)
    assert here.faults() == []


@FORMATS
def test_what_a_refused_directory_had_taken_is_given_back(pae: bool) -> None:
    """Page tables before the bad entry, with all that they map."""
    here = world(pae)
    here.put_entry(L1S[0], 5, PLAIN[0] << 12 | UP)
    here.put_entry(L2S[0], 1, L1S[0] << 12 | UP)
    here.put_entry(L2S[0], 2, L1S[1] << 12 | UP)
    here.put_entry(L2S[0], 3, OTHERS << 12 | UP)
    assert here.extended((PIN_L2, L2S[0], 0)) == (EINVAL, 0)
    for frame in (L2S[0], L1S[0], L1S[1], PLAIN[0]):
        assert int(here.frames[frame].type_info) & PGT_COUNT == 0
        assert int(here.frames[frame].count_info) == PGC_ALLOCATED | 1
    assert here.faults() == []


@FORMATS
def test_the_vmms_entries_of_a_directory_are_its_own(pae: bool) -> None:
    """Whatever stood at their places."""
    here = world(pae)
    template = here.entries((layout.DIRECTORY_TEMPLATES >> 12) + GUEST)
    first = 428 if pae else 1008
    template[first:] = np.arange(first, len(template)) << 12
    here.entries(L2S[0])[first:] = 0x1234
    if pae:
        here.put_entry(L3S[0], 3, L2S[0] << 12 | P)
        assert here.extended((PIN_L3, L3S[0], 0)) == (0, 1)
    else:
        assert here.extended((PIN_L2, L2S[0], 0)) == (0, 1)
    assert np.array_equal(here.entries(L2S[0])[first:], template[first:])


@FORMATS
def test_bad_operations_are_refused(pae: bool) -> None:
    """Pins and bases of what is no table, or not the guest's; what no operation is; what a guest without devices may not."""
    here = world(pae)
    top, base = (PIN_L3, BASE_L3) if pae else (PIN_L2, BASE_L2)
    assert here.map(here.arguments + FREE_PAGE, PLAIN[0] << 12 | UP) == 0
    before = state_of(here)
    for operation in (
        (PIN_L1, OTHERS, 0), (PIN_L1, VMM_FRAME, 0), (PIN_L1, 0xFFFFFFFF, 0), (PIN_L1, PLAIN[0], 0), (PIN_L1, ARGUMENTS, 0),
        (PIN_L1, BASE_L2, 0), (top, BASE_L1, 0), (top, base, 0), (UNPIN, L1S[0], 0), (UNPIN, OTHERS, 0),
        (NEW_BASEPTR, BASE_L1, 0), (NEW_BASEPTR, OTHERS, 0), (NEW_BASEPTR, N_FRAMES + 1, 0), (NEW_BASEPTR, PLAIN[0], 0),
        (12, 0, 0), (8, 0, 0xFFFFF000), (13, here.arguments + 1, 1), (13, 0xFFFFF000, 1), (13, 0, 8193),
        (16, OTHERS, 0), (17, PLAIN[1], OTHERS), (17, OTHERS, PLAIN[1]), (16, BASE_L1, 0), (17, BASE_L2, PLAIN[1]),
    ):  # fmt: skip
        assert here.extended(operation) == (EINVAL, 0), operation
        assert state_of(here) == before
    for command in (14, 15, 19, 20, 21, 0xFFFFFFFF):
        assert here.extended((command, 0, 0)) == (ENOSYS, 0)
    assert here.extended((PIN_L4, OTHERS, 0), (PIN_L4, PLAIN[0], 0)) == (0, 2), "a level that there is not"
    assert state_of(here) == before
    assert here.faults() == []


@FORMATS
def test_pointers_everywhere(pae: bool) -> None:
    """Batches that lie where nothing is, or reach what is the VMM's, and answers that cannot be told."""
    here = world(pae)
    start = int(here.domains[GUEST].virt_start)
    before = state_of(here)
    places = (0, 1, start - 8, start, 0xFFC00000, 0xFFFFFFF8, here.arguments + 4096, here.arguments + 4090, 0xFF800000)
    for name in ("mmu_update", "mmuext_op"):
        for place in places:
            assert here.call(name, place, 2, 0, SELF) == EFAULT
        for count in (0x7FFFFFFF, 0xFFFFFFFF, 0x10000000):
            assert here.call(name, here.put_arguments([1] * 64), count, 0, SELF) in (EFAULT, EINVAL, ENOSYS)
        for place in places[1:]:
            assert here.call(name, here.arguments, 0, place, SELF) == 0
        assert here.call(name, here.arguments, 0, 0, 1000) == ESRCH
    for command in (INCREASE, DECREASE, CURRENT, MAXIMUM, POPULATE, EXCHANGE, MACHPHYS):
        for place in places[:-2]:
            assert here.call("memory_op", command, place) == EFAULT
    assert here.call("update_va_mapping", here.arguments + FREE_PAGE, 0, 0, 1 | 0xFFFFFFF0) == EFAULT
    assert here.map(0xFFC00000, PLAIN[0] << 12 | P) == EINVAL
    assert here.map(0, PLAIN[0] << 12 | P) == EINVAL
    assert state_of(here) == before
    assert here.faults() == []


@FORMATS
def test_numbers_of_commands(pae: bool) -> None:
    """Bits of an entry's address that mean no command, and addresses of nothing."""
    here = world(pae)
    for command in range(3, 8 if pae else 4):
        assert here.update((here.slot(BASE_L1, 9) | command, 0)) == (ENOSYS, 0)
    for where in (1 << 63, 1 << 40, 0xFFFFFFF8, OTHERS << 12, 0):
        assert here.update((where, PLAIN[0] << 12 | UP)) == (EINVAL, 0)
        assert here.update((where | 1, 7)) == (EINVAL, 0)
    assert here.update((here.slot(PLAIN[0], 3), 0x123)) == (0, 1), "a frame that is no table is simply written"
    assert here.entries(PLAIN[0])[3] == 0x123
    assert here.faults() == []


# -- other domains --------------------------------------------------------------------------------------------------------


@FORMATS
def test_frames_of_another_domain(pae: bool) -> None:
    """Mapped by a privileged domain that names it; by no other, and not without naming."""
    here = world(pae)
    foreign = OTHERS << 12 | UP
    assert here.update((here.slot(BASE_L1, 9), foreign), foreign=DOMAIN_0) == (ESRCH, 0)
    assert here.call("update_va_mapping_otherdomain", here.arguments + FREE_PAGE, foreign, 0, 0, DOMAIN_0) == EPERM
    here.domains[GUEST].is_privileged = 1
    assert here.update((here.slot(BASE_L1, 9), foreign)) == (EINVAL, 0)
    assert here.update((here.slot(BASE_L1, 9), foreign), foreign=DOMAIN_0) == (0, 1)
    assert here.update((here.slot(BASE_L1, 10), PLAIN[0] << 12 | UP), foreign=DOMAIN_0) == (EINVAL, 0)
    assert here.call("update_va_mapping_otherdomain", here.arguments + FREE_PAGE, foreign, 0, 0, DOMAIN_0) == 0
    assert int(here.frames[OTHERS].count_info) == PGC_ALLOCATED | 3
    assert int(here.frames[OTHERS].type_info) & PGT_COUNT == 2
    assert here.call("update_va_mapping_otherdomain", here.arguments + FREE_PAGE, foreign, 0, 0, 2) == ESRCH
    assert here.update((here.slot(BASE_L1, 10), foreign), foreign=GUEST) == (ESRCH, 0)
    assert here.update((OTHERS << 12 | 1, 77), foreign=DOMAIN_0) == (0, 1)
    assert here.memory[layout.MACHPHYS + 4 * OTHERS] == 77
    assert here.update((here.slot(BASE_L1, 11), VMM_FRAME << 12 | P), foreign=0x7FF2) == (EINVAL, 0)
    assert here.update((here.slot(BASE_L1, 11), VMM_FRAME << 12 | P), foreign=IO) == (EINVAL, 0)
    assert here.faults() == []
    assert here.update((here.slot(BASE_L1, 9), 0), (here.slot(BASE_L1, 5), 0)) == (0, 2)
    assert int(here.frames[OTHERS].count_info) == PGC_ALLOCATED | 1
    assert here.faults() == []


@FORMATS
def test_isolation_follows_the_domain_that_runs(pae: bool) -> None:
    """Its own frames, and those of others that it maps."""
    here = world(pae)
    here.processor.check_isolation(True)
    try:
        here.domains[GUEST].is_privileged = 1
        assert here.call("update_va_mapping_otherdomain", here.arguments + FREE_PAGE, OTHERS + 1 << 12 | UP, 0, 0, DOMAIN_0) == 0
        owners_follow(here.state, here.memory, here.xens, here.domains, here.frames)
        owners = here.processor.owners
        assert set(owners[FIRST : FIRST + N_GUEST].tolist()) == {OWNER_GUEST}
        others = owners[OTHERS : OTHERS + N_DOMAIN_0].tolist()
        assert others == [OWNER_GUEST if number == 1 else OWNER_VMM for number in range(N_DOMAIN_0)]
        assert owners[0] == owners[layout.FRAME_TABLE >> 12] == OWNER_VMM
        assert owners[layout.MACHPHYS >> 12] == OWNER_GUEST
        here.xen.current = DOMAIN_0
        owners_follow(here.state, here.memory, here.xens, here.domains, here.frames)
        assert set(owners[FIRST : FIRST + N_GUEST].tolist()) == {OWNER_VMM}
        assert set(owners[OTHERS : OTHERS + N_DOMAIN_0].tolist()) == {OWNER_GUEST}
    finally:
        here.processor.check_isolation(False)


@FORMATS
def test_what_the_vmm_holds_keeps_its_type(pae: bool) -> None:
    """A frame that the VMM writes for the guest cannot become a table, and outlives its being given back."""
    here = world(pae)
    common = here.state, here.memory, here.xens, here.domains, here.frames
    assert hold_frame(*common, PLAIN[0], GUEST, PGT_WRITABLE) == 1
    assert hold_frame(*common, OTHERS, GUEST, PGT_WRITABLE) == 0
    assert here.extended((PIN_L1, PLAIN[0], 0)) == (EINVAL, 0)
    here.put_arguments([PLAIN[0]], 2048)
    where = here.put_arguments([here.arguments + 2048, 1, 0, 0, SELF])
    assert here.call("memory_op", DECREASE, where) == 1
    assert int(here.frames[PLAIN[0]].owner) == GUEST
    holds = [Hold(PLAIN[0], PGT_WRITABLE, "a test")]
    assert recount(here.memory, here.domains, here.frames, holds) == []
    assert here.faults() != [], "a recount that does not know of it finds it"
    release_frame(*common, PLAIN[0])
    assert int(here.frames[PLAIN[0]].owner) != GUEST
    assert here.faults() == []


# -- translations that are stale ------------------------------------------------------------------------------------------


def write_through(here: World, gla: int) -> None:
    """Have the VMM store a number at a linear address of the guest's, through the TLB: how many of 5 requests were done."""
    entry = PLAIN[4] << 12 | UP
    requests = [word for _ in range(5) for word in (here.slot(BASE_L1, 200), 0, entry, 0)]
    assert here.call("mmu_update", here.put_arguments(requests), 5, gla, SELF) == 0


@FORMATS
def test_a_frame_that_becomes_a_table_is_not_written_through_the_tlb(pae: bool) -> None:
    """Unmapped without a flush, the frame may still be written, by anyone; once it is a table it cannot be."""
    here = world(pae)
    gla = here.arguments + FREE_PAGE
    assert here.map(gla, PLAIN[0] << 12 | UP) == 0
    write_through(here, gla)
    assert here.entries(PLAIN[0])[0] == 5
    here.put_entry(PLAIN[0], 0, 0)
    assert here.map(gla, 0) == 0
    write_through(here, gla)
    assert here.entries(PLAIN[0])[0] == 5, "the translation is stale, which is the guest's affair"
    here.put_entry(PLAIN[0], 0, 0)
    before = here.count("sys.mov_cr3_write")
    assert here.extended((PIN_L1, PLAIN[0], 0)) == (0, 1)
    assert here.count("sys.mov_cr3_write") == before + 1
    write_through(here, gla)
    assert here.entries(PLAIN[0])[0] == 0
    assert here.faults() == []


@FORMATS
def test_a_flush_in_between_spares_the_next(pae: bool) -> None:
    """What was flushed since a frame was given up is not flushed again."""
    here = world(pae)
    gla = here.arguments + FREE_PAGE
    assert here.map(gla, PLAIN[0] << 12 | UP) == 0
    assert here.map(gla, 0, 1) == 0
    before = here.count("sys.mov_cr3_write")
    assert here.extended((PIN_L1, PLAIN[0], 0)) == (0, 1)
    assert here.count("sys.mov_cr3_write") == before


@FORMATS
def test_a_frame_given_back_is_not_written_by_who_had_it(pae: bool) -> None:
    """Before another domain gets it, what the TLB holds is flushed; and nothing of what was in it is left."""
    here = world(pae)
    gla = here.arguments + FREE_PAGE
    assert here.map(gla, PLAIN[0] << 12 | UP) == 0
    write_through(here, gla)
    assert here.map(gla, 0) == 0
    here.put_arguments([PLAIN[0]], 2048)
    where = here.put_arguments([here.arguments + 2048, 1, 0, 0, SELF])
    assert here.call("memory_op", DECREASE, where) == 1
    assert int(here.domains[GUEST].total_frames) == N_GUEST - 1
    where = here.put_arguments([here.arguments + 2048, 1, 0, 0, SELF])
    assert here.call("memory_op", INCREASE, where) == 1
    assert here.get_arguments(2048, 1) == [PLAIN[0]]
    assert not here.entries(PLAIN[0]).any()
    write_through(here, gla)
    assert not here.entries(PLAIN[0]).any()
    assert here.faults() == []


@FORMATS
@pytest.mark.parametrize(
    ("flags", "pages", "all_pages"), [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 0, 0), (1 | 4, 0, 1), (2 | 4, 1, 0)]
)
def test_what_a_mapping_update_flushes(pae: bool, flags: int, pages: int, all_pages: int) -> None:
    """Nothing, one page or everything, on all processors or on this one, which is the same."""
    here = world(pae)
    before = here.count("sys.invlpg"), here.count("sys.mov_cr3_write")
    assert here.map(here.arguments + FREE_PAGE, PLAIN[0] << 12 | UP, flags) == 0
    assert (here.count("sys.invlpg") - before[0], here.count("sys.mov_cr3_write") - before[1]) == (pages, all_pages)


@FORMATS
@pytest.mark.parametrize(("mask", "flushed"), [(1, 1), (2, 0), (0xFFFFFFFF, 1)])
def test_flushes_on_named_processors(pae: bool, mask: int, flushed: int) -> None:
    """A bit for each; this is number 0."""
    here = world(pae)
    here.put_arguments([mask], 2048)
    before = here.count("sys.invlpg"), here.count("sys.mov_cr3_write")
    assert here.map(here.arguments + FREE_PAGE, PLAIN[0] << 12 | UP, here.arguments + 2048 | 2) == 0
    assert here.extended((8, 0, here.arguments + 2048), (9, here.arguments + FREE_PAGE, here.arguments + 2048)) == (0, 2)
    assert (here.count("sys.invlpg") - before[0], here.count("sys.mov_cr3_write") - before[1]) == (2 * flushed, flushed)
    assert here.extended((6, 0, 0), (6, 0, 0), (7, here.arguments, 0), (10, 0, 0), (11, here.arguments, 0)) == (0, 5)
    assert (here.count("sys.invlpg") - before[0], here.count("sys.mov_cr3_write") - before[1]) == (2 * flushed + 2, flushed + 2)


# -- batches ----------------------------------------------------------------------------------------------------------------


def priced_batch(here: World, length: int) -> int:
    """The ticks of a batch of updates of one page table that go to and fro, after one that has warmed the caches."""
    here.put_arguments([word for number in range(length) for word in (here.slot(L1S[0], number % 16), 0, PLAIN[0] << 12 | P, 0)])
    for _ in range(2):
        before = int(here.cpu.ticks)
        assert here.call("mmu_update", here.arguments, length, 0, SELF) == 0
    return int(here.cpu.ticks) - before


@FORMATS
def test_a_batch_costs_as_much_as_it_is_long(pae: bool) -> None:
    """Each request more costs the same."""
    here = world(pae)
    event = EVENT_ID["vmm.table_update"]
    here.xen.base_ticks[event], here.xen.item_ticks[event] = 3000, 70
    assert here.extended((PIN_L1, L1S[0], 0)) == (0, 1)
    priced_batch(here, 255)
    costs = [priced_batch(here, length) for length in (63, 127, 191, 255)]
    steps = {later - earlier for earlier, later in pairwise(costs)}
    assert len(steps) == 1 and steps.pop() >= 64 * 70
    assert here.count("vmm.table_update") == sum(2 * length for length in (255, 63, 127, 191, 255))


@FORMATS
def test_a_long_batch_is_left_and_gone_on_with(pae: bool) -> None:
    """After so many requests, or at a deadline, the hypercall begins anew with the rest; the sum of what was done is told."""
    here = world(pae)
    here.put_arguments([word for _ in range(200) for word in (here.slot(BASE_L1, 9), 0, PLAIN[0] << 12 | P, 0)])
    here.put_arguments([0xDEAD], 4092)
    here.cpu.timer = 0
    here.domains[GUEST].eip = 0x1002
    assert here.call("mmu_update", here.arguments, 200, here.arguments + 4092, SELF) == 1
    assert here.get_arguments(4092, 1) == [1]
    assert int(here.domains[GUEST].eip) == 0x1000
    assert (int(here.cpu.gpr[EBX]), int(here.cpu.gpr[ECX])) == (here.arguments + 16, 199 | PREEMPTED)
    here.cpu.timer = 1 << 62
    assert here.call("mmu_update", here.arguments + 16, 199 | PREEMPTED, here.arguments + 4092, SELF) == 0
    assert here.get_arguments(4092, 1) == [200]
    here.put_arguments([word for _ in range(300) for word in (6, 0, 0)])
    here.cpu.timer = 0
    here.domains[GUEST].eip = 0x1002
    assert here.call("mmuext_op", here.arguments, 300, here.arguments + 4092, SELF) == 26
    assert (int(here.cpu.gpr[EBX]), int(here.cpu.gpr[ECX])) == (here.arguments + 12, 299 | PREEMPTED)
    here.xen.in_multicall = 1
    assert here.call("mmuext_op", here.arguments, 300, 0, SELF) == 0, "within a list a batch is not left"
    here.xen.in_multicall = 0


def test_requests_are_done_up_to_the_one_that_is_refused() -> None:
    """The guest is told how many."""
    here = world(False)
    good, bad = (here.slot(BASE_L1, 9), PLAIN[0] << 12 | P), (here.slot(BASE_L1, 10), OTHERS << 12 | P)
    assert here.update(good, good, bad, good) == (EINVAL, 2)
    assert here.extended((PIN_L1, L1S[0], 0), (UNPIN, L1S[1], 0), (PIN_L1, L1S[2], 0)) == (EINVAL, 1)
    assert int(here.frames[L1S[2]].type_info) & PGT_PINNED == 0


def test_marks_are_kept_where_the_guest_says_so() -> None:
    """MMU_PT_UPDATE_PRESERVE_AD."""
    here = world(False)
    assert here.update((here.slot(BASE_L1, 9), PLAIN[0] << 12 | P | A | D)) == (0, 1)
    assert here.update((here.slot(BASE_L1, 9) | 2, PLAIN[1] << 12 | P)) == (0, 1)
    assert here.entries(BASE_L1)[9] == PLAIN[1] << 12 | P | A | D
    assert here.update((here.slot(BASE_L1, 9), PLAIN[1] << 12 | P)) == (0, 1)
    assert here.entries(BASE_L1)[9] == PLAIN[1] << 12 | P


# -- whole pages and reservations -------------------------------------------------------------------------------------------


def test_pages_are_cleared_and_copied() -> None:
    """MMUEXT_CLEAR_PAGE and MMUEXT_COPY_PAGE."""
    here = world(False)
    here.entries(PLAIN[0])[:] = range(1024)
    assert here.extended((17, PLAIN[1], PLAIN[0])) == (0, 1)
    assert here.entries(PLAIN[1]).tolist() == list(range(1024))
    assert here.extended((16, PLAIN[0], 0)) == (0, 1)
    assert not here.entries(PLAIN[0]).any()
    assert here.faults() == []


@FORMATS
def test_reservations(pae: bool) -> None:
    """How many frames there are, and may be; pseudo-physical numbers of new ones; frames that are exchanged."""
    here = world(pae)
    where = here.put_arguments([SELF], 1024)
    assert here.call("memory_op", CURRENT, where) == here.call("memory_op", MAXIMUM, where) == N_GUEST
    assert here.call("memory_op", CURRENT, here.put_arguments([DOMAIN_0], 1024)) == EPERM
    assert here.call("memory_op", MAXIMUM_FRAME, 0) == N_FRAMES
    assert here.call("memory_op", POPULATE, here.put_arguments([here.arguments + 2048, 1, 0, 0, SELF])) == 0, "it has all it may"
    here.put_arguments([PLAIN[0], PLAIN[1], OTHERS, PLAIN[2]], 2048)
    assert here.call("memory_op", DECREASE, here.put_arguments([here.arguments + 2048, 4, 0, 0, SELF])) == 2
    here.put_arguments([0x111, 0x222, 0x333], 2048)
    assert here.call("memory_op", POPULATE, here.put_arguments([here.arguments + 2048, 3, 0, 0, SELF])) == 2
    first, second, third = here.get_arguments(2048, 3)
    assert {first, second} == {PLAIN[0], PLAIN[1]} and third == 0x333
    table = here.memory[layout.MACHPHYS :][: 4 * N_FRAMES].view("<u4")
    assert (table[first], table[second]) == (0x111, 0x222)
    here.put_arguments([PLAIN[2], 0x444], 2048)
    words = [here.arguments + 2048, 1, 0, 0, SELF, here.arguments + 2052, 1, 0, 0, SELF, 0]
    assert here.call("memory_op", EXCHANGE, here.put_arguments(words)) == 0
    (new,) = here.get_arguments(2052, 1)
    assert table[new] == 0x444 and here.get_arguments(40, 1) == [1]
    here.put_arguments([ARGUMENTS, 1], 2048)
    assert here.call("memory_op", EXCHANGE, here.put_arguments(words)) == EINVAL, "a frame that is mapped"
    assert here.call("memory_op", MACHPHYS, here.arguments + 1024) == 0
    begin, end, last = here.get_arguments(1024, 3)
    assert begin == int(here.domains[GUEST].virt_start)
    assert end - begin == 4 * (last + 1) == (16 << 20 if pae else 4 << 20)
    for command in (5, 7, 9, 10, 13, 63):
        assert here.call("memory_op", command, here.arguments) in (ENOSYS, EINVAL)
    assert here.faults() == []


def test_a_pinned_frame_given_back_is_released() -> None:
    """With all that it mapped; it is free when the last mapping of it goes."""
    here = world(False)
    here.put_entry(L1S[0], 5, PLAIN[0] << 12 | UP)
    assert here.extended((PIN_L1, L1S[0], 0)) == (0, 1)
    assert here.map(here.arguments + FREE_PAGE, L1S[0] << 12 | P) == 0
    here.put_arguments([L1S[0]], 2048)
    assert here.call("memory_op", DECREASE, here.put_arguments([here.arguments + 2048, 1, 0, 0, SELF])) == 1
    assert int(here.frames[PLAIN[0]].type_info) & PGT_COUNT == 0
    assert int(here.frames[L1S[0]].owner) == GUEST
    assert here.map(here.arguments + FREE_PAGE, 0) == 0
    assert int(here.frames[L1S[0]].owner) != GUEST
    assert here.faults() == []


# -- linear page tables -----------------------------------------------------------------------------------------------------


def test_chains_of_linear_page_tables_are_released_without_recursion() -> None:
    """L2s that map each other in a row go one by one when the first does."""
    here = world(False)
    for frame in L2S:
        assert here.extended((PIN_L2, frame, 0)) == (0, 1)
    for upper, lower in pairwise(L2S):
        assert here.update((here.slot(upper, 7), lower << 12 | P)) == (0, 1)
    for frame in L2S[1:]:
        assert here.extended((UNPIN, frame, 0)) == (0, 1)
        assert int(here.frames[frame].type_info) & PGT_COUNT == 1
    assert here.faults() == []
    before = here.count("xen.frame_released")
    assert here.extended((UNPIN, L2S[0], 0)) == (0, 1)
    assert here.count("xen.frame_released") == before + len(L2S)
    assert all(int(here.frames[frame].type_info) & PGT_COUNT == 0 for frame in L2S)
    assert here.faults() == []


@FORMATS
def test_a_linear_page_table_shows_tables_and_changes_none(pae: bool) -> None:
    """update_va_mapping through one finds no page table; mapping itself takes no reference."""
    here = world(pae)
    count = int(here.frames[BASE_L2].type_info) & PGT_COUNT
    assert here.update((here.slot(BASE_L2, 20), BASE_L2 << 12 | P)) == (0, 1)
    assert int(here.frames[BASE_L2].type_info) & PGT_COUNT == count
    gla = (0xC0000000 + (20 << 21) if pae else 20 << 22) + 4096
    assert here.map(gla, PLAIN[0] << 12 | UP) == EINVAL
    assert here.update((here.slot(BASE_L2, 20), BASE_L2 << 12 | UP)) == (EINVAL, 0)
    assert int(here.frames[BASE_L1].type_info) & PGT_TYPE == PGT_L1
    assert here.faults() == []


# -- the recount --------------------------------------------------------------------------------------------------------------


def spoil(here: World, name: str, frame: int, value: int) -> None:
    """Change a field of a frame's record."""
    here.frames[frame][name] = int(here.frames[frame][name]) + value


@pytest.mark.parametrize(
    "spoiling",
    [
        lambda here: spoil(here, "count_info", PLAIN[0], 1),
        lambda here: spoil(here, "count_info", BASE_L1, -1),
        lambda here: spoil(here, "type_info", BASE_L1, 1),
        lambda here: spoil(here, "type_info", ARGUMENTS, -1),
        lambda here: spoil(here, "type_info", PLAIN[0], PGT_L1 | PGT_VALIDATED),
        lambda here: spoil(here, "type_info", BASE_L1, -PGT_VALIDATED),
        lambda here: spoil(here, "owner", BASE_L1, -1),
        lambda here: here.put_entry(BASE_L1, 9, OTHERS << 12 | P),
        lambda here: here.put_entry(BASE_L1, 9, N_FRAMES << 12 | P),
        lambda here: here.put_entry(BASE_L1, 0, ARGUMENTS << 12 | UP | PS),
        lambda here: here.put_entry(BASE_L2, 9, BASE_L2 << 12 | UP),
        lambda here: here.put_entry(BASE_L2, 9, L1S[0] << 12 | UP),
        lambda here: here.domains[GUEST].__setitem__("total_frames", 3),
        lambda here: here.xens.__setitem__("free_frames", PLAIN[0] + 1),
        lambda here: here.xens.__setitem__("releasing", PLAIN[0] + 1),
        lambda here: here.frames[PLAIN[0]].__setitem__("owner", NOBODY),
    ],
)
def test_a_recount_finds_what_is_wrong(spoiling: Callable[[World], None]) -> None:
    """Each count, each type, each entry, each list."""
    here = world(False)
    assert here.faults() == []
    spoiling(here)
    assert here.faults() != []


@pytest.mark.parametrize(
    ("low", "high", "bad"),
    [
        (0xC400, 0x00CF9B00, 1), (0xC400, 0x00CFBB00, 0), (0xC400, 0x00CFFB00, 0), (0xC401, 0x00CFBB00, 1),
        (0xFFFF, 0x00CF3B00, 0), (0x67, 0x0000A900, 1), (0x67, 0x00008E00, 1), (FLAT_RING1_CS << 16, 0x0000EC00, 0),
        (0xFFFF, 0xFFCFBB00, 1), (0, 0x0000B300, 0), (0xC400, 0x00CFB700, 1),
    ],
)  # fmt: skip
def test_a_recount_looks_at_descriptors(low: int, high: int, bad: int) -> None:
    """Of ring 0, of the VMM's kinds, beyond the guest's room."""
    here = world(False)
    here.domains[GUEST].segment_limit = 0xFC400
    assert hold_frame(here.state, here.memory, here.xens, here.domains, here.frames, PLAIN[0], GUEST, PGT_SEG_DESC) == 1
    holds = [Hold(PLAIN[0], PGT_SEG_DESC, "a test")]
    assert recount(here.memory, here.domains, here.frames, holds, here.xen) == []
    words = here.memory[PLAIN[0] << 12 :][:4096].view("<u4")
    words[6:8] = low, high
    assert len(recount(here.memory, here.domains, here.frames, holds, here.xen)) == bad
    release_frame(here.state, here.memory, here.xens, here.domains, here.frames, PLAIN[0])

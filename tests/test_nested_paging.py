"""Nested paging: walks of two dimensions against an independent model, their longest ways, and tagged address spaces."""

from __future__ import annotations

import random

import numpy as np
import pytest
from nested_permutations import SHAPES, Layout, Permutations, Shape, walk_case
from nested_walker import PS, RW, US, A, D, Exit, G, P, Walker

from x86virt.core.address_space import (
    enter_address_space,
    flush_address_space,
    flush_all_address_spaces,
    invept,
    invlpga,
    invvpid,
)
from x86virt.core.jit import entry
from x86virt.core.layout import NESTED_EPT, NESTED_OFF, OK, ROOT, SVM_GUEST, VM_EXIT, VMX_NON_ROOT
from x86virt.core.page_directory_pointers import load_cr3
from x86virt.core.tlb import invalidate_page
from x86virt.isa.events import (
    EVENT_WALK_NESTED_HIT,
    EVENT_WALK_NESTED_REFERENCE,
    EVENT_WALK_NESTED_SKIP,
    EVENT_WALK_POINTER_REFERENCE,
)
from x86virt.isa.registers import CR0_PE, CR0_PG, CR4_PAE, CR4_PGE, CR4_PSE
from x86virt.processor import Processor
from x86virt.profile import load_profile

CASES = 60  # of each shape


@pytest.fixture(scope="module")
def permutations() -> Permutations:
    """One processor for all cases."""
    return Permutations()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("remembers", [False, True])
def test_random_tables_of_both_dimensions(permutations: Permutations, shape: Shape, remembers: bool) -> None:
    """All of them end as the manuals' model says, faults and marks included."""
    for seed in range(CASES):
        permutations.case(shape, seed + CASES * remembers, remembers)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tables_that_may_be_anything(permutations: Permutations, shape: Shape) -> None:
    """Random bytes as tables of both dimensions end as the model says, and never outside of what there is."""
    for seed in range(40):
        permutations.garbage(shape, seed)


def test_the_cases_meet_every_kind_of_end(permutations: Permutations) -> None:
    """What random tables must bring about to be worth something."""
    for shape in SHAPES:
        for seed in range(40):
            permutations.case(shape, 7000 + seed)
    ends = "\n".join(permutations.ends)
    for end in ("32 over EPT: exit 48", "32 over EPT: exit 49", "pae over EPT: exit 48", "pae over NPT 3: exit 1024"):
        assert end in ends
    for shape in SHAPES:
        assert f"{shape}: at" in ends
        assert shape.paging == "none" or f"{shape}: page fault" in ends


# The references of the longest walks: (guest's own, nested, pointers read again).
LONGEST = {
    Shape(True, 4, "32"): (2, 12, 0),  # 14
    Shape(True, 4, "pae"): (2, 12, 0),  # 14: the pointers are in registers
    Shape(False, 4, "32"): (2, 12, 0),  # 14
    Shape(False, 4, "pae"): (2, 16, 1),  # 19
    Shape(False, 3, "32"): (2, 9, 0),  # 11
    Shape(False, 3, "pae"): (2, 12, 1),  # 15
    Shape(False, 2, "32"): (2, 6, 0),  # 8
    Shape(False, 2, "pae"): (2, 8, 1),  # 11
    Shape(False, 4, "none"): (0, 4, 0),
    Shape(False, 3, "none"): (0, 3, 0),
    Shape(False, 2, "none"): (0, 2, 0),
}


def plain(shape: Shape) -> Layout:
    """A layout where everything is allowed, in pages of 4 KB."""
    seed = 0
    while True:
        layout = Layout(shape, seed)
        seed += 1
        if layout.spoil:
            continue
        walker = Walker(bytearray(layout.memory), layout.guest, layout.nested)
        try:
            walker.access(layout.gla, False, False, False)
        except Exit:  # a large page of the guest's that the nested tables do not map whole
            continue
        own, nested, pointers = (walker.count[name] for name in ("own", "nested", "pointer"))
        if (own, nested, pointers) == LONGEST[shape]:
            return layout


@pytest.mark.parametrize("shape", LONGEST, ids=str)
def test_the_longest_walks(permutations: Permutations, shape: Shape) -> None:
    """A walk from nothing makes exactly the references that the manuals' tables of both dimensions come to."""
    layout = plain(shape)
    permutations.enter(layout, remembers=False)
    end, (walks, nested, pointers) = permutations.core(layout, 0)
    own, *others = LONGEST[shape]
    assert end[0] == "at" and [nested, pointers] == others and walks == int(own > 0)
    charged = permutations.cpu.price[EVENT_WALK_NESTED_REFERENCE]
    assert charged == 64 * load_profile("nehalem")["mem.l1d_load"] > 0


@pytest.mark.parametrize("shape", LONGEST, ids=str)
def test_no_walk_makes_more_references(permutations: Permutations, shape: Shape) -> None:
    """Those are the most: no layout of large and small pages in either dimension needs more."""
    own, nested, pointers = LONGEST[shape]
    longest = 0
    for seed in range(150):
        layout = Layout(shape, 20000 + seed)
        permutations.enter(layout, remembers=False)
        _, counts = permutations.core(layout, 0)
        assert counts[1] <= nested and counts[2] <= pointers
        longest = max(longest, counts[1])
    assert longest == nested


def test_what_is_remembered_shortens_walks(permutations: Permutations) -> None:
    """A second walk finds the guest's tables in the nested TLB, and the last nested table in its cache."""
    shape = Shape(True, 4, "32")
    layout = plain(shape)
    permutations.enter(layout, remembers=True)
    cpu = permutations.cpu
    first = permutations.core(layout, 0)[1][1]
    assert first < 12
    cpu.tlb_counter += 64
    cpu.tlb_generation = cpu.tlb_counter
    hits, skips = (int(cpu.ledger_count[event].sum()) for event in (EVENT_WALK_NESTED_HIT, EVENT_WALK_NESTED_SKIP))
    end, (_, nested, _) = permutations.core(layout, 0)
    assert end[0] == "at" and nested == 1
    assert int(cpu.ledger_count[EVENT_WALK_NESTED_HIT].sum()) == hits + 2
    assert int(cpu.ledger_count[EVENT_WALK_NESTED_SKIP].sum()) == skips + 1


@entry
def load_cr3_case(state, memory, value):
    """What MOV to CR3 does."""
    return load_cr3(state[0], memory, value)


def test_pointers_under_extended_page_tables(permutations: Permutations) -> None:
    """MOV to CR3 loads them through EPT; a violation has no linear address, and leaves CR3 as it was."""
    layout = plain(Shape(True, 4, "pae"))
    permutations.enter(layout, remembers=False)
    cpu, processor = permutations.cpu, permutations.processor
    before = [int(pointer) for pointer in cpu.pdpte]
    cpu.pdpte[:] = 0
    assert load_cr3_case(processor.state, processor.memory, layout.guest.cr3) == OK
    assert [int(pointer) for pointer in cpu.pdpte] == before
    absent = 0x1FF5A0
    assert load_cr3_case(processor.state, processor.memory, absent) == VM_EXIT
    exit = cpu.vm_exit
    assert (exit.reason, exit.qualification, exit.gla, exit.gpa) == (48, 1, 0, absent)
    assert cpu.cr3 == layout.guest.cr3 and [int(pointer) for pointer in cpu.pdpte] == before


def test_pointers_are_not_loaded_under_nested_paging(permutations: Permutations) -> None:
    """MOV to CR3 reads nothing; a wrong pointer is a page fault of the first walk (15.25.10)."""
    layout = plain(Shape(False, 4, "pae"))
    permutations.enter(layout, remembers=False)
    cpu, processor = permutations.cpu, permutations.processor
    ticks = int(cpu.ticks)
    assert load_cr3_case(processor.state, processor.memory, 0xBFF00000) == OK
    assert cpu.cr3 == 0xBFF00000 and cpu.ticks == ticks
    assert permutations.core(layout, 0)[0][0] == "exit"


# -- address spaces -----------------------------------------------------------------------------------------------------


@entry
def operate(state, operation, a, b, gla):
    """One operation on the TLBs, by number."""
    cpu = state[0]
    if operation == 0:
        enter_address_space(cpu)
    elif operation == 1:
        invept(cpu, a, b)
    elif operation == 2:
        invvpid(cpu, a, b, gla)
    elif operation == 3:
        invlpga(cpu, gla, b)
    elif operation == 4:
        flush_address_space(cpu, b)
    elif operation == 5:
        flush_all_address_spaces(cpu)
    elif operation == 6:
        invalidate_page(cpu, gla)


ENTER, INVEPT, INVVPID, INVLPGA, FLUSH_ONE, FLUSH_ALL, INVLPG = range(7)
GUEST_PAGES = [0x400000 * number + 0x1000 * number for number in range(4)]


class Spaces:
    """A host and its guests, each with tables of their own that map the same linear pages to frames of their own."""

    def __init__(self) -> None:
        self.processor = Processor(load_profile("nehalem"), 4 << 20)
        self.cpu = self.processor.cpu
        self.cpu.nested.pages_2m = 1
        self.free = iter(range(1, 1 << 10))
        self.native_root = {identifier: self.tables(identifier) for identifier in range(4)}
        self.ept_root = {number: self.identity_ept() for number in range(2)}

    def frame(self) -> int:
        """A free frame."""
        return next(self.free) << 12

    def store(self, address: int, value: int, size: int) -> None:
        """Write an entry."""
        self.processor.ram[address : address + size] = np.frombuffer(value.to_bytes(size, "little"), np.uint8)

    def tables(self, number: int) -> int:
        """32-bit tables: every second page is global."""
        root = self.frame()
        for place, page in enumerate(GUEST_PAGES):
            table = self.frame()
            self.store(root + (page >> 22) * 4, table | P | RW | US | A, 4)
            flags = P | RW | US | A | D | (G if place % 2 else 0)
            self.store(table + (page >> 12 & 0x3FF) * 4, (number << 16 | place << 12) | flags, 4)
        return root

    def identity_ept(self) -> int:
        """Extended page tables that map the first 4 MB to themselves."""
        top, pointers, directory = self.frame(), self.frame(), self.frame()
        self.store(top, pointers | 7, 8)
        self.store(pointers, directory | 7, 8)
        for number in range(2):
            self.store(directory + 8 * number, number << 21 | PS | 7 | 6 << 3, 8)
        return top

    def enter(self, world: int, identifier: int, ept: int | None, tables: int) -> None:
        """Enter a world; `ept` is the number of its extended page tables."""
        cpu = self.cpu
        cpu.world, cpu.address_space = world, identifier
        cpu.cr0, cpu.cr4 = CR0_PE | CR0_PG, CR4_PSE | CR4_PGE
        cpu.cr3 = self.native_root[tables]
        cpu.nested_kind, cpu.nested_levels = NESTED_OFF, 4
        if ept is not None:
            cpu.nested_kind, cpu.nested_root = NESTED_EPT, self.ept_root[ept]
        operate(self.processor.state, ENTER, 0, 0, 0)

    def walks(self, page: int) -> int:
        """Access a page: the walks that it takes, 0 or 1. It must give the present world's own frame."""
        state, memory = self.processor.state, self.processor.memory
        outcome, physical, walks, _, _ = walk_case(state, memory, page, 0)
        number = next(n for n, root in self.native_root.items() if root == self.cpu.cr3)
        assert outcome == OK and physical == number << 16 | GUEST_PAGES.index(page) << 12
        return int(walks)


@pytest.mark.parametrize("seed", range(12))
def test_address_spaces_against_a_set_of_what_they_hold(seed: int) -> None:
    """Entries, exits and invalidations at random: each space remembers exactly what the manual lets it, and only its own.

    The TLBs have room for all pages of all spaces, so that only the operations drop anything.
    """
    rng = random.Random(seed)
    spaces = Spaces()
    cpu, state = spaces.cpu, spaces.processor.state
    spaces.processor.set_tlb_discipline(4096)
    known: set[tuple[int, int | None, int]] = set()  # VPID, extended page tables, page
    present: tuple[int, int | None] = (0, None)
    spaces.enter(ROOT, 0, None, 0)
    accesses = 0
    for _ in range(400):
        if rng.random() < 0.55:
            page = rng.choice(GUEST_PAGES)
            assert spaces.walks(page) == int((*present, page) not in known)
            known.add((*present, page))
            accesses += 1
            continue
        operation = rng.choice((ENTER, ENTER, ENTER, INVLPG, INVEPT, INVVPID))
        if operation == INVLPG:
            page = rng.choice(GUEST_PAGES)
            operate(state, INVLPG, 0, 0, page)
            known.discard((*present, page))
        elif operation == ENTER:
            if cpu.world != ROOT:
                spaces.enter(ROOT, 0, None, 0)
                if present[0] == 0:
                    known = {entry for entry in known if entry[0] != 0}
                present = (0, None)
            else:
                vpid, ept = rng.choice((0, 1, 2, 3)), rng.choice((None, 0, 1))
                spaces.enter(VMX_NON_ROOT, vpid, ept, vpid)
                if vpid == 0:
                    known = {entry for entry in known if entry[0] != 0}
                present = (vpid, ept)
        elif cpu.world == ROOT:
            known = invalidate(spaces, rng, operation, known)
    assert accesses > 100


def invalidate(spaces: Spaces, rng: random.Random, operation: int, known: set) -> set:
    """INVEPT or INVVPID in root operation: what is known afterwards."""
    state = spaces.processor.state
    if operation == INVEPT:
        kind, number = rng.choice((1, 1, 1, 2)), rng.randrange(2)
        operate(state, INVEPT, kind, spaces.ept_root[number] | 0x1E, 0)
        if kind == 2:
            # "All contexts" may drop linear mappings too, and here does.
            return set()
        return {entry for entry in known if entry[1] != number}
    kind, vpid, page = rng.randrange(4), rng.choice((1, 2, 3)), rng.choice(GUEST_PAGES)
    operate(state, INVVPID, kind, vpid, page)
    if kind == 0:
        return {entry for entry in known if not (entry[0] == vpid and entry[2] == page)}
    if kind == 1:
        return {entry for entry in known if entry[0] != vpid}
    if kind == 2:
        return {entry for entry in known if entry[0] == 0}
    return {entry for entry in known if entry[0] != vpid or GUEST_PAGES.index(entry[2]) % 2}


def test_more_address_spaces_than_tags() -> None:
    """Many VPIDs share the tags: every one still finds its own frames."""
    spaces = Spaces()
    spaces.processor.set_tlb_discipline(4096)
    for round_ in range(3):
        for vpid in range(1, 100):
            spaces.enter(VMX_NON_ROOT, vpid, None, vpid % 4)
            for page in GUEST_PAGES:
                spaces.walks(page)
            spaces.enter(ROOT, 0, None, 0)
            assert round_ == 0 or spaces.walks(GUEST_PAGES[0]) == 0
            spaces.walks(GUEST_PAGES[0])


@pytest.mark.parametrize("has_tags", [0, 1])
def test_asids(has_tags: int) -> None:
    """SVM: tagged spaces outlive transitions, untagged ones do not; INVLPGA and flushes reach another space."""
    spaces = Spaces()
    cpu, state = spaces.cpu, spaces.processor.state
    cpu.nested.has_tags = has_tags
    page, other = GUEST_PAGES[0], GUEST_PAGES[1]

    def visit(asid: int) -> tuple[int, int]:
        spaces.enter(SVM_GUEST, asid, None, asid)
        walks = spaces.walks(page), spaces.walks(other)
        spaces.enter(ROOT, 0, None, 0)
        return walks

    assert visit(1) == visit(2) == (1, 1)
    assert visit(1) == ((0, 0) if has_tags else (1, 1))
    if not has_tags:
        spaces.walks(page)
        spaces.enter(SVM_GUEST, 1, None, 1)
        spaces.enter(ROOT, 0, None, 0)
        assert spaces.walks(page) == 1
        return
    operate(state, INVLPGA, 0, 1, other)
    assert visit(1) == (0, 1) and visit(2) == (0, 0)
    operate(state, FLUSH_ONE, 0, 2, 0)
    assert visit(1) == (0, 0) and visit(2) == (1, 1)
    spaces.walks(page)
    operate(state, FLUSH_ALL, 0, 0, 0)
    assert spaces.walks(page) == 1 and visit(1) == visit(2) == (1, 1)


def test_a_guests_own_invlpga() -> None:
    """INVLPGA that a guest executes on its own ASID, and on the host's."""
    spaces = Spaces()
    state = spaces.processor.state
    page = GUEST_PAGES[2]
    spaces.enter(ROOT, 0, None, 0)
    spaces.walks(page)
    spaces.enter(SVM_GUEST, 3, None, 3)
    spaces.walks(page)
    operate(state, INVLPGA, 0, 3, page)
    assert spaces.walks(page) == 1
    operate(state, INVLPGA, 0, 0, page)
    assert spaces.walks(page) == 0
    spaces.enter(ROOT, 0, None, 0)
    assert spaces.walks(page) == 1


def test_pages_of_other_sizes_do_not_mix() -> None:
    """A guest of 2 MB pages between entries of a host with pages of 4 MB: each finds its own again."""
    spaces = Spaces()
    cpu = spaces.cpu
    root, pae_root, directory = spaces.frame(), spaces.frame(), spaces.frame()
    flags = P | RW | US | A | D | PS
    for number in range(8):
        spaces.store(root + 4 * number, number << 22 | flags, 4)
        spaces.store(directory + 8 * number, (number ^ 1) << 21 | flags, 8)

    def host() -> None:
        cpu.world, cpu.address_space, cpu.cr3 = ROOT, 0, root
        cpu.cr0, cpu.cr4 = CR0_PE | CR0_PG, CR4_PSE
        operate(spaces.processor.state, ENTER, 0, 0, 0)

    def guest() -> None:
        cpu.world, cpu.address_space, cpu.cr3 = VMX_NON_ROOT, 1, pae_root
        cpu.cr0, cpu.cr4 = CR0_PE | CR0_PG, CR4_PAE
        cpu.pdpte[0] = directory | P
        operate(spaces.processor.state, ENTER, 0, 0, 0)

    for round_ in range(3):
        for switch, flip in ((host, 0), (guest, 1 << 21)):
            switch()
            for address in (0x123456, 0x345678, 0x765432, 0x9ABCDE):
                outcome, physical, walks, _, _ = walk_case(spaces.processor.state, spaces.processor.memory, address, 0)
                assert (outcome, physical) == (OK, address ^ flip)
                expected = address not in (0x345678,) or flip != 0
                assert walks == int(round_ == 0 and expected), (round_, hex(address))


def test_nested_mappings_by_extended_page_tables() -> None:
    """Guest-physical mappings outlive entries and exits, and the change of VPIDs; INVEPT alone drops them."""
    spaces = Spaces()
    cpu, state = spaces.cpu, spaces.processor.state

    def references(vpid: int, ept: int) -> int:
        spaces.enter(VMX_NON_ROOT, vpid, ept, vpid)
        before = int(cpu.ledger_count[EVENT_WALK_NESTED_REFERENCE].sum())
        spaces.walks(GUEST_PAGES[0])
        spaces.enter(ROOT, 0, None, 0)
        return int(cpu.ledger_count[EVENT_WALK_NESTED_REFERENCE].sum()) - before

    assert references(0, 0) == 9
    assert references(0, 0) == 3  # only the address at the end is walked
    assert references(0, 1) == 9
    assert references(0, 0) == 3
    operate(state, INVEPT, 1, spaces.ept_root[1], 0)
    assert references(0, 0) == 3 and references(0, 1) == 9
    operate(state, INVEPT, 2, 0, 0)
    assert references(0, 0) == references(0, 1) == 9


def table_in(processor: Processor, address: int) -> int:
    """The table that an entry names."""
    return int.from_bytes(processor.ram[address : address + 8].tobytes(), "little") & 0xFFFFF000


def test_a_remembered_table_is_never_the_cause_of_an_exit() -> None:
    """The VMM puts another last-level table in place without INVEPT after a violation: the access then goes through."""
    layout = plain(Shape(True, 4, "32"))
    permutations = Permutations()
    permutations.enter(layout, remembers=True)
    processor = permutations.processor
    assert permutations.core(layout, 0)[0][0] == "at"
    # 1. The last-level table loses its permission to write; the write is a violation.
    top = layout.nested.root
    pointers = table_in(processor, top)
    directory = table_in(processor, pointers)
    leaves = table_in(processor, directory)
    for number in range(512):
        at = leaves + 8 * number
        processor.ram[at] &= ~2 & 0xFF
    operate(processor.state, INVEPT, 2, 0, 0)
    assert permutations.core(layout, 0)[0][0] == "at"
    end, _ = permutations.core(layout, 1)
    assert end[:2] == ("exit", 48)
    # 2. A copy of the table allows it.
    copy = layout.frame()
    processor.ram[copy : copy + 4096] = processor.ram[leaves : leaves + 4096]
    for number in range(512):
        processor.ram[copy + 8 * number] |= 2 if processor.ram[copy + 8 * number] else 0
    processor.ram[directory : directory + 8] = np.frombuffer((copy | 7).to_bytes(8, "little"), np.uint8)
    assert permutations.core(layout, 1)[0][0] == "at"


def test_events_are_free_or_priced() -> None:
    """A hit costs nothing, a reference an L1 access."""
    processor = Processor(load_profile("nehalem"), 1 << 20)
    for event in (EVENT_WALK_NESTED_HIT, EVENT_WALK_NESTED_SKIP):
        assert processor.cpu.price[event] == 0
    for event in (EVENT_WALK_NESTED_REFERENCE, EVENT_WALK_POINTER_REFERENCE):
        assert processor.cpu.price[event] == 64 * load_profile("nehalem")["mem.l1d_load"]

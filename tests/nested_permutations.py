"""Random tables of both dimensions, all shapes of them, against `nested_walker.Walker`.

    python tests/nested_permutations.py [COUNT]          that many cases of each shape (`make permutations`)

Each case lays out a guest's tables and nested tables with random rights and faults, and translates one address from empty TLBs.
Compared are the outcome, the exit or page fault, the physical address, the counted references by kind, and all of memory as
the walk left it. Then the same access again, through what the processor remembers: it must end alike, and walk no more if the
TLB may answer.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from typing import NamedTuple

import numpy as np
from nested_walker import NX, PS, RW, US, A, D, Exit, G, Guest, Nested, P, PageFault, Walker

from x86virt.core.address_space import enter_address_space
from x86virt.core.jit import entry
from x86virt.core.layout import FAULT, NESTED_EPT, NESTED_NPT, OK, SVM_GUEST, VM_EXIT, VMX_NON_ROOT
from x86virt.core.paging import peek_translation, translate
from x86virt.isa.events import (
    EVENT_WALK_NATIVE,
    EVENT_WALK_NESTED_REFERENCE,
    EVENT_WALK_POINTER_REFERENCE,
)
from x86virt.isa.registers import CR0_PE, CR0_PG, CR0_WP, CR4_PAE, CR4_PGE, CR4_PSE, EFER_NXE
from x86virt.processor import Processor
from x86virt.profile import load_profile

RAM_BYTES = 1 << 19
PAGES = RAM_BYTES >> 12
M32 = 0xFFFFFFFF
# Guest-physical windows that large nested pages map onto the start of memory.
WINDOW_2M, WINDOW_4M, WINDOW_1G = 0x200000, 0x400000, 0x40000000


@entry
def walk_case(state, memory, gla, access):
    """Translate with bit 0 write, bit 1 user, bit 2 fetch: (outcome, physical address, walks, nested references, pointers)."""
    cpu = state[0]
    mode = cpu.mode
    walks = cpu.ledger_count[EVENT_WALK_NATIVE, mode]
    nested = cpu.ledger_count[EVENT_WALK_NESTED_REFERENCE, mode]
    pointers = cpu.ledger_count[EVENT_WALK_POINTER_REFERENCE, mode]
    outcome, physical, rights = translate(cpu, memory, gla, access & 1, (access >> 1) & 1, access >> 2)
    return (
        outcome,
        physical,
        cpu.ledger_count[EVENT_WALK_NATIVE, mode] - walks,
        cpu.ledger_count[EVENT_WALK_NESTED_REFERENCE, mode] - nested,
        cpu.ledger_count[EVENT_WALK_POINTER_REFERENCE, mode] - pointers,
    )


@entry
def enter_case(state):
    """Enter the guest's address space."""
    enter_address_space(state[0])


@entry
def peek_case(state, memory, gla):
    """Where a linear address lies, for a report."""
    return peek_translation(state[0], memory, gla)


class Shape(NamedTuple):
    """The modes of both dimensions."""

    ept: bool
    levels: int
    paging: str  # of the guest: none, 32 or pae

    def __str__(self) -> str:
        return f"{self.paging} over {'EPT' if self.ept else f'NPT {self.levels}'}"


SHAPES = [Shape(True, 4, paging) for paging in ("32", "pae")]
SHAPES += [Shape(False, levels, paging) for levels in (2, 3, 4) for paging in ("none", "32", "pae")]


class Layout:
    """Builds the tables of one case in a memory of its own."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.random = random.Random(seed)
        self.shape = shape
        self.memory = bytearray(RAM_BYTES)
        self.free = list(range(1, PAGES))
        self.random.shuffle(self.free)
        chance = self.random.random
        self.spoil = chance() < 0.6  # otherwise every access is allowed
        self.guest = Guest(
            pg=shape.paging != "none", pae=shape.paging == "pae", pse=chance() < 0.8, wp=chance() < 0.5,
            nxe=chance() < 0.5, pge=chance() < 0.5,
        )  # fmt: skip
        self.nested = Nested(
            shape.ept, shape.levels, pse=chance() < 0.8, nxe=chance() < 0.7,
            execute_only=chance() < 0.5, pages_2m=chance() < 0.8, pages_1g=chance() < 0.5,
        )  # fmt: skip
        self.where: dict[int, int] = {}  # guest-physical page: frame
        self.build_nested()
        self.gla = self.random.getrandbits(32)
        if self.guest.pg:
            self.build_guest()
        else:
            self.gla = self.pick_page() << 12 | self.random.getrandbits(12)

    def frame(self) -> int:
        """A frame that nothing lies in."""
        return self.free.pop() << 12

    def store(self, address: int, value: int, size: int) -> None:
        """Write an entry."""
        self.memory[address : address + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def maybe(self, probability: float) -> bool:
        """Whether to put a fault in."""
        return self.spoil and self.random.random() < probability

    # -- the nested dimension

    def ept_entry(self, address: int, leaf: bool) -> int:
        """An entry of extended page tables, at times with fewer permissions or misconfigured."""
        value = address | 7 | (6 << 3 if leaf else 0)
        if self.maybe(0.12):
            value = value & ~7 | self.random.choice((0, 1, 3, 4, 5, 5, 3, 1, 2, 6))
        if self.maybe(0.03):
            value ^= 1 << self.random.choice((3, 4, 5, 6, 7, 12, 36, 40, 51))
        if self.random.random() < 0.3:
            value |= 1 << self.random.choice((8, 9, 11, 52, 60, 62, 63))
        return value

    def npt_entry(self, address: int, leaf: bool) -> int:
        """An entry of nested paging, at times with fewer rights or reserved bits."""
        value = address | P | RW | US | self.random.choice((0, A, A | D))
        if self.maybe(0.12):
            value &= ~self.random.choice((P, RW, US, RW, RW))
        if self.shape.levels > 2:
            if self.maybe(0.05):
                value |= 1 << self.random.choice((7, 8, 36, 51, 52, 62, 63, 63, 63))
            if self.random.random() < 0.1:
                value |= G
        elif self.maybe(0.03):
            value |= 1 << self.random.choice((7, 8))
        return value

    def nested_entry(self, address: int, leaf: bool) -> int:
        """An entry of either kind."""
        return self.ept_entry(address, leaf) if self.shape.ept else self.npt_entry(address, leaf)

    def build_nested(self) -> None:
        """Tables for the first 2 MB page by page, and a window of each large page."""
        levels, size = self.shape.levels, 4 if self.shape.levels == 2 else 8
        top = self.nested.root = self.frame()
        leaves = self.frame()
        for page in range(96):
            self.where[page] = self.frame() if page < 48 else self.random.randrange(PAGES) << 12
            self.store(leaves + page * size, self.nested_entry(self.where[page], True), size)
        if levels == 2:
            self.store(top, self.nested_entry(leaves, False), 4)
            self.store(top + 4, self.nested_entry(PS, True), 4)
            if self.maybe(0.1):
                self.store(top + 4, self.nested_entry(PS | 1 << self.random.randrange(13, 22), True), 4)
            self.window = WINDOW_4M
            return
        directory = self.frame()
        self.store(directory, self.nested_entry(leaves, False), 8)
        large = PS | (1 << self.random.randrange(13, 21) if self.maybe(0.1) else 0)
        self.store(directory + 8, self.nested_entry(large, True), 8)
        self.window = WINDOW_2M
        if levels == 3:
            pointer = directory | P
            if self.maybe(0.1):
                pointer ^= 1 << self.random.choice((0, 1, 2, 5, 8, 9, 36, 63))
            self.store(top + (0xFE0 if self.random.random() < 0.5 else 0), pointer, 8)
            if self.memory[top : top + 8] == bytes(8):
                self.nested.root = top + 0xFE0
            return
        pointers = self.frame()
        self.store(pointers, self.nested_entry(directory, False), 8)
        self.store(pointers + 8, self.nested_entry(PS, True), 8)
        self.store(top, self.nested_entry(pointers, False), 8)
        if self.random.random() < 0.3:
            self.window = WINDOW_1G

    def pick_page(self) -> int:
        """A guest-physical page: most often one of its own, at times in the window of a large page or nowhere."""
        chance = self.random.random()
        if chance < 0.75:
            return self.random.randrange(96)
        if chance < 0.97 or not self.spoil:
            return (self.window >> 12) + self.random.randrange(PAGES)
        return self.random.choice((0x1FF, 0x90000, 0x123456))

    # -- the guest's dimension

    def table_page(self) -> int:
        """A guest-physical page for a table that lies in a frame of its own, perhaps seen through the window."""
        page = self.random.randrange(48)
        if self.random.random() < 0.25:
            page = (self.window >> 12) + (self.where[page] >> 12)
        return page << 12

    def put(self, gpa: int, value: int, size: int) -> None:
        """Write an entry of the guest's at a guest-physical address."""
        at = gpa - self.window if gpa >= self.window else self.where[gpa >> 12] | gpa & 0xFFF
        self.store(at, value, size)

    def guest_entry(self, gpa: int, large: bool) -> int:
        """An entry of the guest's."""
        value = gpa | P | RW | US | self.random.choice((0, A, A | D)) | (PS if large else 0)
        if self.maybe(0.2):
            value ^= self.random.choice((P, RW, US, RW, US))
        if self.guest.pae and self.maybe(0.1):
            value |= self.random.choice((NX, NX, 1 << 36, 1 << 62))
        if self.random.random() < 0.2:
            value |= G
        return value

    def build_guest(self) -> None:
        """Directory and table for one linear address."""
        size, bits = (8, 9) if self.guest.pae else (4, 10)
        mask = (1 << bits) - 1
        directory, table = self.table_page(), self.table_page()
        large = self.random.random() < 0.25
        if large:
            frame = self.random.choice((0, 0, self.window, 0x80000000)) & -(1 << (21 if self.guest.pae else 22))
            if self.maybe(0.2):
                frame |= 1 << self.random.randrange(13, 21)
        else:
            frame = table
        self.put(table + (self.gla >> 12 & mask) * size, self.guest_entry(self.pick_page() << 12, False), size)
        self.put(directory + (self.gla >> 12 + bits & mask) * size, self.guest_entry(frame, large), size)
        self.guest.cr3 = directory
        if self.guest.pae:
            pointer = directory | P
            if self.maybe(0.1):
                pointer ^= 1 << self.random.choice((0, 1, 2, 3, 4, 5, 8, 9, 36, 63))
            at = self.table_page() | self.random.randrange(128) << 5
            self.put(at + (self.gla >> 30) * 8, pointer, 8)
            self.guest.cr3 = at
            if self.shape.ept:
                # The registers hold what was checked when CR3 was loaded.
                pointer &= P | 0xFFFFFF000
                self.guest.pointers = [pointer if number == self.gla >> 30 else 0 for number in range(4)]


class Garbage(Layout):
    """A layout all of whose memory holds random entries, most of which name frames of memory, or tables of them."""

    def build_nested(self) -> None:
        """Random quadwords or doublewords everywhere."""
        rng = np.random.default_rng(self.random.getrandbits(32))
        width = 4 if self.shape.levels == 2 or self.random.random() < 0.2 else 8
        count = RAM_BYTES // width
        entries = rng.integers(0, PAGES, count, np.uint64) << 12
        # Any flags, more often those that let a walk go on.
        entries |= rng.integers(0, 1 << 12, count, np.uint64) | np.where(rng.random(count) < 0.9, 7, 0).astype(np.uint64)
        clear = (0x78 if rng.random() < 0.5 else 0) | (0x80 if rng.random() < 0.7 else 0)
        entries &= ~np.uint64(clear)
        wild = rng.random(count) < 0.02
        entries ^= np.where(wild, np.uint64(1) << rng.integers(0, 8 * width, count, np.uint64), np.uint64(0))
        self.memory[:] = entries.astype(f"<u{width}").tobytes()
        self.nested.root = self.frame() | (self.random.randrange(128) << 5 if self.shape.levels == 3 else 0)
        self.window = 0

    def pick_page(self) -> int:
        """Any page, since a guest without paging has no other address."""
        return self.random.getrandbits(20)

    def build_guest(self) -> None:
        """A root anywhere; the pointers are as if they had been loaded."""
        self.guest.cr3 = self.random.randrange(PAGES) << 12
        if self.guest.pae:
            self.guest.cr3 |= self.random.randrange(128) << 5
            self.guest.pointers = [self.frame() | self.random.choice((0, 1, 1, 1)) for _ in range(4)]


class Permutations:
    """Runs cases on one processor and compares."""

    def __init__(self) -> None:
        self.processor = Processor(load_profile("nehalem"), RAM_BYTES)
        self.cpu = self.processor.cpu
        self.ends: Counter[str] = Counter()

    def enter(self, layout: Layout, remembers: bool) -> None:
        """Put the guest in place, its TLBs empty."""
        cpu, guest, nested = self.cpu, layout.guest, layout.nested
        cpu.cr0 = CR0_PE | CR0_PG * guest.pg | CR0_WP * guest.wp
        cpu.cr4 = CR4_PAE * guest.pae | CR4_PSE * guest.pse | CR4_PGE * guest.pge
        cpu.efer = EFER_NXE * guest.nxe
        cpu.cr3 = guest.cr3
        cpu.pdpte[:] = [pointer if pointer & P else 0 for pointer in guest.pointers]
        cpu.world, cpu.nested_kind = (VMX_NON_ROOT, NESTED_EPT) if nested.ept else (SVM_GUEST, NESTED_NPT)
        cpu.nested_root, cpu.nested_levels = nested.root, nested.levels
        cpu.nested_large, cpu.nested_no_execute = int(nested.pse), int(nested.nxe)
        cpu.nested.execute_only, cpu.nested.pages_2m = int(nested.execute_only), int(nested.pages_2m)
        cpu.nested.pages_1g = int(nested.pages_1g)
        cpu.nested.page_entries, cpu.nested.table_entries = (16, 24) if remembers else (0, 0)
        cpu.address_space = 0
        self.processor.empty_tlbs()
        enter_case(self.processor.state)
        self.processor.ram[:] = np.frombuffer(layout.memory, np.uint8)

    def core(self, layout: Layout, access: int) -> tuple[tuple[object, ...], list[int]]:
        """How the core ends an access, and what it counted."""
        cpu = self.cpu
        outcome, physical, *counts = walk_case(self.processor.state, self.processor.memory, layout.gla, access)
        if outcome == OK:
            return ("at", int(physical)), counts
        if outcome == FAULT:
            return ("page fault", int(cpu.event_error), int(cpu.cr2)), counts
        assert outcome == VM_EXIT
        exit = cpu.vm_exit
        return ("exit", int(exit.reason), int(exit.qualification), int(exit.gla), int(exit.gpa)), counts

    @staticmethod
    def model(walker: Walker, layout: Layout, access: int) -> tuple[object, ...]:
        """How the model ends it."""
        try:
            return "at", walker.access(layout.gla, bool(access & 1), bool(access & 2), bool(access & 4))[0]
        except PageFault as fault:
            return "page fault", fault.args[0], layout.gla
        except Exit as left:
            return "exit", *left.args

    def garbage(self, shape: Shape, seed: int) -> None:
        """One case of random entries: the first access from empty TLBs, then others."""
        layout = Garbage(shape, seed)
        self.enter(layout, remembers=False)
        walker = Walker(layout.memory, layout.guest, layout.nested)
        for access in layout.random.sample((0, 1, 2, 3, 4, 6), 3):
            end, _ = self.core(layout, access)
            assert end == self.model(walker, layout, access), (shape, seed, access, end)
            self.ends[f"{shape}: {end[0]} {end[1] if end[0] == 'exit' else ''}".strip()] += 1
            assert np.array_equal(self.processor.ram, np.frombuffer(layout.memory, np.uint8)), (shape, seed, access)
            self.processor.empty_tlbs()
            enter_case(self.processor.state)

    def case(self, shape: Shape, seed: int, remembers: bool = False) -> None:
        """One case, with or without what nested walks remember."""
        layout = Layout(shape, seed)
        access = layout.random.choice((0, 1, 4)) | layout.random.choice((0, 2))
        self.enter(layout, remembers)
        walker = Walker(layout.memory, layout.guest, layout.nested)
        end, (walks, nested, pointers) = self.core(layout, access)
        expected = self.model(walker, layout, access)
        what = f"{shape}, seed {seed}, access {access}"
        assert end == expected, (what, end, expected)
        self.ends[f"{shape}: {end[0]} {end[1] if end[0] == 'exit' else ''}".strip()] += 1
        assert np.array_equal(self.processor.ram, np.frombuffer(layout.memory, np.uint8)), f"{what}: memory"
        if not remembers:
            updates = 0 if end[0] == "exit" else nested - walker.count["nested"]
            assert updates >= 0 and updates % 4 == 0 and pointers == walker.count["pointer"], (what, nested, walker.count)
            if end[0] != "exit" and not layout.spoil:
                assert updates == 0, what
            assert walks == int(layout.guest.pg), what
        # Again, through what is remembered.
        again, (walks, nested, _) = self.core(layout, access)
        assert again == self.model(walker, layout, access), (what, again)
        if end[0] == "at":
            assert again == end and walks == nested == 0, (what, walks, nested)
            assert peek_case(self.processor.state, self.processor.memory, layout.gla) == end[1], what
        # Then other accesses to the same page, from entries that do not allow them yet.
        for other in layout.random.sample((0, 1, 2, 3, 4, 6), 3):
            end, _ = self.core(layout, other)
            assert end == self.model(walker, layout, other), (what, other, end)
            assert np.array_equal(self.processor.ram, np.frombuffer(layout.memory, np.uint8)), (what, other)


def main(count: int) -> None:
    """Run that many cases of each shape, and print how they ended."""
    permutations = Permutations()
    for shape in SHAPES:
        for seed in range(count):
            permutations.case(shape, seed, remembers=bool(seed & 1))
            if seed % 4 == 0:
                permutations.garbage(shape, seed)
    for end, number in sorted(permutations.ends.items()):
        print(f"{number:8} {end}")
    print(f"{len(SHAPES) * count} cases")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)

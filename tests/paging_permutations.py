"""All permutations of page-table bits, privilege, kind of access and control bits, against `page_walker.PageWalker`.

    python tests/paging_permutations.py          all of them (`make permutations`)

Each case is one walk by the core from empty TLBs, then the same access again through the TLB. Compared are the outcome, the
physical address, the vector, CR2, the error code, and both entries as the walk left them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from page_walker import NX, PS, RW, US, A, D, G, Mode, P, PageFault, PageWalker

from x86virt.core.jit import entry, load_32, store_32
from x86virt.core.layout import FAULT, OK
from x86virt.core.page_directory_pointers import load_pointers, set_large_page_size
from x86virt.core.paging import translate
from x86virt.core.tlb import flush_tlb
from x86virt.isa.events import EVENT_WALK_NATIVE
from x86virt.isa.registers import CR0_PG, CR0_WP, CR4_PAE, CR4_PGE, CR4_PSE, EFER_NXE
from x86virt.processor import Processor
from x86virt.profile import load_profile

RAM_BYTES = 1 << 20
DIRECTORY, TABLE, POINTERS = 0x40000, 0x41000, 0x42000
LINEAR = 0xC0ABCDEF
READ, WRITE, FETCH = (0, 0), (1, 0), (0, 1)


@entry
def walk_case(state, memory, cr0, cr4, efer, directory_at, directory, directory_high, table_at, table, table_high, access):
    """Write two entries, empty the TLBs, and translate twice: outcome, physical address, the second's, and what was left.

    `access` holds bit 0 write, bit 1 user, bit 2 fetch."""
    cpu = state[0]
    cpu.cr0 = cr0
    cpu.cr4 = cr4
    cpu.efer = efer
    set_large_page_size(cpu)
    store_32(memory, directory_at, directory)
    store_32(memory, table_at, table)
    if cr4 & CR4_PAE != 0:
        store_32(memory, directory_at + 4, directory_high)
        store_32(memory, table_at + 4, table_high)
    flush_tlb(cpu, 0)
    cpu.cr2 = 0
    cpu.event_error = 0
    outcome, physical, rights = translate(cpu, memory, LINEAR, access & 1, (access >> 1) & 1, access >> 2)
    error = cpu.event_error
    directory_left = load_32(memory, directory_at)
    table_left = load_32(memory, table_at)
    before = cpu.ledger_count[EVENT_WALK_NATIVE, cpu.mode]
    outcome_2, physical_2, rights = translate(cpu, memory, LINEAR, access & 1, (access >> 1) & 1, access >> 2)
    walks = cpu.ledger_count[EVENT_WALK_NATIVE, cpu.mode] - before
    return outcome, physical, error, cpu.cr2, directory_left, table_left, outcome_2, physical_2, walks


@entry
def pointers_case(state, memory, cr3):
    """Load the page-directory-pointer entries."""
    return load_pointers(state[0], memory, cr3)


class Case(NamedTuple):
    """One permutation."""

    mode: Mode
    pge: bool
    directory: int
    table: int
    write: int
    user: int
    fetch: int


def subsets(*bits: int) -> list[int]:
    """All or-combinations of some bits."""
    return [sum(chosen) for n in range(len(bits) + 1) for chosen in itertools.combinations(bits, n)]


# The frames are told apart by every address bit that an entry may hold.
FRAME_4K, FRAME_4M, FRAME_2M = 0x9A5C3000, 0x9A400000, 0x9A600000
HIGH_FRAME = 0xA << 32  # address bits 35 and 33


def cases_32bit() -> Iterator[Case]:
    """32-bit paging with and without PSE and PSE-36."""
    directories = subsets(P, RW, US, A, D, G) + [PS | bits for bits in subsets(P, RW, US, A, D, G)]
    large_extras = (0, 1 << 12, 1 << 13, 1 << 16, 1 << 17, 1 << 20, 1 << 21)
    small = [bits | TABLE for bits in directories if not bits & PS]
    large = [bits | extra for bits in directories if bits & PS for extra in large_extras]
    tables = [bits | FRAME_4K for bits in subsets(P, RW, US, A, D, G)] + [P | RW | US | PS | 7 << 9 | FRAME_4K]
    modes = [
        Mode(pse=pse, wp=wp, pse36=pse36, width=36)
        for pse, wp, pse36 in itertools.product((False, True), repeat=3)
    ]
    for mode, pge, (write, fetch), user in itertools.product(modes, (False, True), (READ, WRITE, FETCH), (0, 1)):
        for directory, table in itertools.product(small, tables):
            yield Case(mode, pge, directory, table, write, user, fetch)
        for directory in large:
            if mode.pse:
                yield Case(mode, pge, directory | FRAME_4M, FRAME_4K, write, user, fetch)
            else:
                yield Case(mode, pge, directory & 0xFFF | TABLE, P | RW | US | FRAME_4K, write, user, fetch)


def cases_pae() -> Iterator[Case]:
    """PAE paging with and without NX."""
    flags = subsets(P, RW, US, A, NX)
    small = [bits | TABLE for bits in flags] + [P | RW | US | reserved | TABLE for reserved in (1 << 36, 1 << 51, 1 << 62)]
    leaves = [bits | dirty | FRAME_4K | HIGH_FRAME for bits in flags for dirty in subsets(D, G)]
    leaves += [bits | reserved | FRAME_4K for bits in flags for reserved in (1 << 36, 1 << 62)]
    leaves += [P | RW | US | PS | 7 << 9 | FRAME_4K]
    extras = (0, 1 << 12, 1 << 13, 1 << 20, 1 << 36)
    large = [bits | dirty | extra for bits in flags for dirty in subsets(D, G) for extra in extras]
    modes = [Mode(pae=True, pse=pse, wp=wp, nxe=nxe, width=36) for pse, wp, nxe in itertools.product((False, True), repeat=3)]
    for mode, pge, (write, fetch), user in itertools.product(modes, (False, True), (READ, WRITE, FETCH), (0, 1)):
        for directory, table in itertools.product(small, leaves):
            yield Case(mode, pge, directory, table, write, user, fetch)
        for directory in large:
            yield Case(mode, pge, directory | PS | FRAME_2M | HIGH_FRAME, FRAME_4K, write, user, fetch)


class Permutations:
    """Runs cases on one processor and compares."""

    def __init__(self) -> None:
        self.processor = Processor(load_profile("p4_prescott"), RAM_BYTES)
        self.cpu = self.processor.cpu
        self.cpu.cr3 = DIRECTORY
        self.cpu.address_reserved_high = 0x7FFFFFFF & ~0xF
        self.cpu.pdpte[3] = DIRECTORY | P
        self.faults = 0
        self.entries: dict[int, int] = {}

    def expected(self, case: Case) -> tuple:
        """What the manual says: outcome, physical address, error code, CR2, both entries after the walk."""
        directory_at, table_at = self.places(case.mode)
        entries = {directory_at: case.directory, table_at: case.table}
        walker = PageWalker(
            case.mode,
            lambda address, n: entries.get(address, 0),
            lambda address, value, n: entries.update({address: value}),
        )
        pointers = [0, 0, 0, DIRECTORY | P]
        kind = (bool(case.write), bool(case.user), bool(case.fetch))
        try:
            physical = walker.access(DIRECTORY, pointers, LINEAR, *kind)
        except PageFault as fault:
            return FAULT, 0, fault.code, LINEAR, entries[directory_at] & 0xFFFFFFFF, entries[table_at] & 0xFFFFFFFF
        return OK, physical, 0, 0, entries[directory_at] & 0xFFFFFFFF, entries[table_at] & 0xFFFFFFFF

    @staticmethod
    def places(mode: Mode) -> tuple[int, int]:
        """Where the two entries of the linear address are."""
        if mode.pae:
            return DIRECTORY + (LINEAR >> 21 & 0x1FF) * 8, TABLE + (LINEAR >> 12 & 0x1FF) * 8
        return DIRECTORY + (LINEAR >> 22) * 4, TABLE + (LINEAR >> 12 & 0x3FF) * 4

    def run(self, case: Case) -> None:
        """Compare one case."""
        mode = case.mode
        self.cpu.large_page_reserved = 0x3E0000 if mode.pse36 else 0x3FE000
        cr0 = 1 | CR0_PG | mode.wp * CR0_WP
        cr4 = mode.pae * CR4_PAE | mode.pse * CR4_PSE | case.pge * CR4_PGE
        directory_at, table_at = self.places(mode)
        got = walk_case(
            self.processor.state, self.processor.memory, cr0, cr4, mode.nxe * EFER_NXE,
            directory_at, case.directory & 0xFFFFFFFF, case.directory >> 32, table_at, case.table & 0xFFFFFFFF, case.table >> 32,
            case.write | case.user << 1 | case.fetch << 2,
        )  # fmt: skip
        outcome, physical = got[0], got[1]
        expected = self.expected(case)
        assert got[:6] == expected, f"{case}: {describe(got)}, not {describe(expected)}"
        again = (OK, physical, 0) if outcome == OK else (FAULT, 0, 1)  # a fault is never concluded without a walk
        assert got[6:] == again, f"{case}: another answer through the TLB: {got[6:]}"
        self.faults += outcome != OK


def describe(result: tuple) -> str:
    """A result in hexadecimal."""
    return "(" + ", ".join(f"{int(value):#x}" for value in result[:6]) + ")"


def run_all(cases: Iterator[Case], every: int = 1, seed: int = 0) -> tuple[int, int]:
    """Run cases, or a random one in `every`: (how many, how many of them faulted)."""
    permutations = Permutations()
    chance = random.Random(seed)
    count = 0
    for case in cases:
        if every == 1 or chance.randrange(every) == 0:
            permutations.run(case)
            count += 1
    return count, permutations.faults


def run_pointers() -> tuple[int, int]:
    """Every single bit of a page-directory-pointer entry, present and not, in each of the four: (count, faults)."""
    processor = Processor(load_profile("p4_prescott"), RAM_BYTES)
    cpu = processor.cpu
    cpu.address_reserved_high = 0x7FFFFFFF & ~0xF
    mode = Mode(pae=True)
    count = faults = 0
    for number, bit, present in itertools.product(range(4), range(64), (0, 1)):
        entries = np.zeros(4, np.uint64)
        entries[number] = present | 1 << bit
        processor.memory[POINTERS : POINTERS + 32] = entries.view(np.uint8)
        walker = PageWalker(mode, lambda address, n: int(entries[(address - POINTERS) // 8]), lambda address, value, n: None)  # noqa: B023
        expected = walker.load_pointers(POINTERS)
        cpu.pdpte[:] = -1
        outcome = pointers_case(processor.state, processor.memory, POINTERS)
        assert outcome == (FAULT if expected is None else OK), (number, bit, present)
        if expected is None:
            assert cpu.pdpte.tolist() == [-1] * 4, "a failed load changes nothing"
            faults += 1
        else:
            usable = [entry & 0xFFFFFF000 | 1 if entry & 1 else 0 for entry in expected]
            assert cpu.pdpte.tolist() == usable, (number, bit, present)
        count += 1
    return count, faults


if __name__ == "__main__":
    for title, result in (
        ("32-bit paging", run_all(cases_32bit())),
        ("PAE paging", run_all(cases_pae())),
        ("page-directory-pointer entries", run_pointers()),
    ):
        print(f"paging permutations, {title}: {result[0]} cases, {result[1]} of them faults, no divergence")

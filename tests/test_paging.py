"""Paging of every mode against `page_walker.PageWalker`, the TLBs against a naive twin, and what loads of CR0, CR3, CR4 do.

The permutation suite runs here as a random slice; `make permutations` runs it whole.
"""

import random
from collections.abc import Callable

import numpy as np
import paging_permutations
import pytest
from bare_machine import CODE, DATA, DIRECTORY, ECX, HLT, TABLE, BareMachine
from page_walker import NX, PS, RW, US, A, D, G, Mode, P, PageFault, PageWalker

from x86virt.core.jit import entry
from x86virt.core.layout import FAULT, N_TLB_TAGS, OK
from x86virt.core.page_directory_pointers import load_cr3
from x86virt.core.paging import translate
from x86virt.core.tlb import flush_tlb, invalidate_page
from x86virt.guests import find_guest
from x86virt.isa.events import EVENT_ID
from x86virt.isa.registers import CR4_PAE, CR4_PGE, CR4_PSE, EFER_NXE
from x86virt.machine import Machine
from x86virt.profile import load_profile
from x86virt.vmm.registry import find_strategy

MACHINE = BareMachine()
CR0_PG, CR0_WP = 1 << 31, 1 << 16
GP, PF, DONE, SHUTDOWN = "vector 13", "vector 14", "done", "outcome 4"
POINTERS, DIRECTORY_PAE, TABLE_PAE = 0x42000, 0x43000, 0x44000
FEATURES = 1 << 3 | 1 << 6 | 1 << 13  # PSE, PAE, PGE
PAE_FLAGS = P | RW | US


@pytest.fixture
def machine() -> BareMachine:
    """A fresh machine that offers PAE and 36 address bits, with identity tables of both formats for its megabyte."""
    MACHINE.power_on()
    cpu = MACHINE.cpu
    cpu.cpuid_leaf1_edx |= FEATURES
    cpu.address_reserved_high = 0x7FFFFFFF & ~0xF
    MACHINE.put(POINTERS, DIRECTORY_PAE | P, 8)
    MACHINE.put(DIRECTORY_PAE, TABLE_PAE | PAE_FLAGS, 8)
    for page in range(0, 1 << 20, 4096):
        MACHINE.put(TABLE_PAE + (page >> 12) * 8, page | PAE_FLAGS, 8)
    return MACHINE


def le(value: int) -> bytes:
    """A little-endian doubleword."""
    return value.to_bytes(4, "little")


def to_cr(number: int, value: int) -> bytes:
    """MOV EAX, value and MOV CRn, EAX."""
    return b"\xb8" + le(value) + bytes([0x0F, 0x22, 0xC0 | number << 3])


def pae_on(cr0: int = 0) -> bytes:
    """Turn PAE paging on."""
    return to_cr(3, POINTERS) + to_cr(4, CR4_PAE) + to_cr(0, 0x11 | CR0_PG | cr0)


def load(address: int) -> bytes:
    """MOV ECX, [address]."""
    return b"\x8b\x0d" + le(address)


def run(machine: BareMachine, *pieces: bytes) -> int | str:
    """Run code: DONE if it came to its end, else what stopped it."""
    code = b"".join(pieces)
    machine.write_code(code + HLT)
    where = machine.stopped_at(machine.go())
    return DONE if where == CODE + len(code) else where


def pushed_error(machine: BareMachine) -> int:
    """The error code of the fault that stopped the run."""
    return machine.get(int(machine.gpr[4]))


# -- permutations and random tables -----------------------------------------------------------------------------------


def test_permutations_of_entries() -> None:
    """A random slice of the permutations of both formats, and all single bits of the pointers."""
    count, faults = paging_permutations.run_all(paging_permutations.cases_32bit(), 80, seed=1)
    assert count > 4000 and 0 < faults < count
    count, faults = paging_permutations.run_all(paging_permutations.cases_pae(), 80, seed=2)
    assert count > 6000 and 0 < faults < count
    assert paging_permutations.run_pointers() == (512, 136)


@entry
def cold_access(state, memory, gla, write, user, fetch):
    """One access from empty TLBs."""
    flush_tlb(state[0], 0)
    return translate(state[0], memory, gla, write, user, fetch)


def random_entry(chance: random.Random, pages: int, size: int) -> int:
    """An entry that mostly names a page of RAM: its own table, another one, or rarely something beyond."""
    value = chance.choice((P, P | RW, P | RW | US, P | RW | US, P | RW | US | A | D, P | US | G, 0))
    value |= chance.randrange(pages) << 12
    if chance.random() < 0.15:
        value |= PS
    if chance.random() < 0.08:
        value |= 1 << chance.randrange(8 * size)
    if chance.random() < 0.05:
        value = chance.getrandbits(8 * size)
    return value


@pytest.mark.parametrize("pae", [False, True])
def test_random_tables_that_may_be_anything(pae: bool) -> None:
    """Tables that name themselves, each other, device space and nothing; the root anywhere; A20 closed now and then.

    After every access the whole of RAM must be what the model left, so a mark in an entry that is its own table counts.
    """
    pages, size = 8, 8 if pae else 4
    machine, chance = BareMachine(), random.Random(7 + pae)
    cpu, memory = machine.cpu, machine.memory
    cpu.address_reserved_high = 0x7FFFFFFF & ~0xF
    model = bytearray(machine.processor.ram_bytes)
    outcomes = {OK: 0, FAULT: 0}

    def read(address: int, n: int) -> int:
        inside = address + n <= len(model)
        return int.from_bytes(model[address : address + n], "little") if inside else (1 << 8 * n) - 1

    def write(address: int, value: int, n: int) -> None:
        if address + n <= len(model):
            model[address : address + n] = value.to_bytes(n, "little")

    for _ in range(60):
        for address in range(0, pages << 12, size):
            model[address : address + size] = random_entry(chance, pages, size).to_bytes(size, "little")
        memory[: pages << 12] = np.frombuffer(bytes(model[: pages << 12]), np.uint8)
        mode = Mode(pae=pae, pse=chance.random() < 0.5, wp=chance.random() < 0.5, nxe=chance.random() < 0.5, pse36=True)
        mode.a20 = chance.random() < 0.8
        root = chance.choice((0, 0x3000, 0x7000, 0x100000, 0x106000, 0xFFFFF000, 0xFEC00000, 0x3018))
        cpu.a20_closed = 0 if mode.a20 else 1 << 20
        cpu.cr0 = 1 | CR0_PG | mode.wp * CR0_WP
        cpu.cr4 = pae * CR4_PAE | mode.pse * CR4_PSE | CR4_PGE
        cpu.efer = mode.nxe * EFER_NXE
        cpu.cr3 = root
        machine.processor.empty_tlbs()
        walker = PageWalker(mode, read, write)
        pointers = walker.load_pointers(root) or [chance.randrange(pages) << 12 | P for _ in range(4)]
        if pae:
            cpu.pdpte[:] = [pointer & 0xFFFFFF000 | pointer & P for pointer in pointers]
        for _ in range(60):
            linear = chance.choice((chance.getrandbits(32), chance.randrange(8) << 30 & 0xC0000000 | chance.getrandbits(16)))
            kind, user = chance.choice(((0, 0), (1, 0), (0, 1))), chance.randrange(2)
            outcome, physical, _ = cold_access(machine.processor.state, memory, linear, kind[0], user, kind[1])
            outcomes[outcome] += 1
            try:
                expected = walker.access(root, pointers, linear, bool(kind[0]), bool(user), bool(kind[1]))
                assert (outcome, physical) == (OK, expected), f"{mode} {root:#x} {linear:#x}"
            except PageFault as fault:
                got = (outcome, int(cpu.event_vector), int(cpu.event_error), int(cpu.cr2))
                assert got == (FAULT, 14, fault.code, linear), f"{mode} {root:#x} {linear:#x}"
            assert bytes(memory[: pages << 12]) == bytes(model[: pages << 12]), f"{mode} {root:#x} {linear:#x}"
    assert min(outcomes.values()) > 600


# -- the TLBs against a naive twin ------------------------------------------------------------------------------------


class NaiveTlb:
    """One TLB of sets with first-in first-out replacement, searched from end to end."""

    def __init__(self, entries: int, ways: int, shift: int) -> None:
        self.ways = (ways or entries) if entries else 0
        self.sets: list[list[list[int] | None]] = [[None] * self.ways for _ in range(entries // self.ways if entries else 1)]
        self.oldest = [0] * len(self.sets)
        self.shift = shift

    def place(self, linear: int) -> int:
        """The set of an address."""
        return (linear >> self.shift) % len(self.sets)

    def holds(self, linear: int) -> bool:
        """Whether the page is there."""
        return any(way and way[0] == linear >> self.shift for way in self.sets[self.place(linear)])

    def fill(self, linear: int, is_global: int) -> None:
        """Evict the oldest of the set."""
        if self.ways:
            place = self.place(linear)
            self.sets[place][self.oldest[place]] = [linear >> self.shift, is_global]
            self.oldest[place] = (self.oldest[place] + 1) % self.ways

    def drop(self, keep: Callable[[list[int]], bool]) -> None:
        """Keep only some entries, each where it is."""
        for ways in self.sets:
            ways[:] = [way if way and keep(way) else None for way in ways]


GEOMETRIES = {
    "nehalem": None,
    "p4_prescott": None,
    "k8_opteron": None,
    "one entry": ((1, 0), (1, 0), (0, 0)),
    "huge": ((4096, 0), (4096, 0), (0, 0)),
    "two ways of two levels": ((8, 2), (4, 1), (16, 4)),
}


@entry
def warm_access(state, memory, gla):
    """One read by ring 0, through the TLBs as they are."""
    return translate(state[0], memory, gla, 0, 0, 0)


@entry
def flush(state, keep_global):
    """A flush."""
    flush_tlb(state[0], keep_global)


@entry
def invalidate(state, gla):
    """INVLPG."""
    invalidate_page(state[0], gla)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_tlbs_hold_and_evict_what_a_naive_search_would(geometry: str) -> None:
    """Walks and second-level hits, one by one, over random reads, flushes of both kinds and INVLPG."""
    named = geometry if GEOMETRIES[geometry] is None else "p4_prescott"
    machine = BareMachine(named)
    cpu, processor = machine.cpu, machine.processor
    if GEOMETRIES[geometry] is not None:
        processor.set_tlb_geometry(GEOMETRIES[geometry] * 2)
    shapes = [(int(unit.sets * unit.ways), int(unit.ways)) for unit in cpu.tlb_units[:3]]
    cpu.cr0, cpu.cr4, cpu.cr3 = 1 | CR0_PG, CR4_PSE | CR4_PGE, DIRECTORY
    for number in range(16):
        machine.put(DIRECTORY + 4 * (number + 16), number << 22 | P | RW | PS | number % 3 // 2 * G)
    for page in range(1024):
        machine.put(TABLE + 4 * page, page << 12 | P | RW | page % 5 // 4 * G)
    first, large, second = (NaiveTlb(*shape, shift) for shape, shift in zip(shapes, (12, 22, 12), strict=True))
    chance, spread = random.Random(geometry), 700
    walks = hits = 0
    for step in range(12000):
        if step % 200 == 0:
            spread = chance.choice((3, 20, 70, 300, 1024))
        action = chance.random()
        page = chance.randrange(spread)
        linear = chance.randrange(16, 32) << 22 if chance.random() < 0.2 else page << 12
        if action < 0.96:
            is_large = linear >= 1 << 26
            is_global = int((linear >> 22) - 16) % 3 // 2 if is_large else page % 5 // 4
            if not first.holds(linear) and not large.holds(linear):
                if second.holds(linear):
                    hits += 1
                    first.fill(linear, is_global)
                else:
                    walks += 1
                    for tlb in (large,) if is_large else (first, second):
                        tlb.fill(linear, is_global)
            assert warm_access(processor.state, processor.memory, linear)[0] == OK
        elif action < 0.98:
            invalidate(processor.state, linear)
            for tlb in (first, large, second):
                tlb.drop(lambda way, tlb=tlb: way[0] != linear >> tlb.shift)  # noqa: B023
        else:
            keep_global = int(action < 0.995)
            flush(processor.state, keep_global)
            for tlb in (first, large, second):
                tlb.drop(lambda way: keep_global and way[1])  # noqa: B023
        counts = cpu.ledger_count.sum(axis=1)
        assert (counts[EVENT_ID["walk.native"]], counts[EVENT_ID["walk.tlb_l2_hit"]]) == (walks, hits), step
    assert walks > 100


def outcome_of(guest: str, entries: int) -> tuple:
    """What a guest says and leaves behind under TLBs of some entries; the time last."""
    machine = Machine(find_strategy("native")(), load_profile("p4_prescott"), 16 << 20)
    machine.load(find_guest(guest), "iterations=5")
    machine.processor.set_tlb_discipline(entries)
    result = machine.run()
    cpu = machine.processor.cpu
    return result.outcome, result.console, int(cpu.retired), cpu.gpr[:8].tolist(), int(cpu.ticks)


@pytest.mark.parametrize("guest", ["cr3switch", "ptemod", "pgfault"])
def test_guests_under_any_tlb(guest: str) -> None:
    """One entry and 4096: the same result, and more cycles with fewer entries."""
    results = {
        entries: outcome_of(guest, entries)
        for entries in (1, 2, 4096)
    }
    assert results[1][:-1] == results[2][:-1] == results[4096][:-1]
    assert results[1][-1] > results[4096][-1]


# -- loads of the control registers -------------------------------------------------------------------------------------


def test_pae_pages_of_both_sizes_execute_and_show_their_frames(machine: BareMachine) -> None:
    """4 KB and 2 MB pages in one address space; the large page is read above its first megabyte boundary."""
    machine.put(DIRECTORY_PAE + 8, 0 | PAE_FLAGS | PS, 8)
    machine.put(DATA + 8, 0x1234)
    assert run(machine, pae_on(), load(0x200000 + DATA + 8)) == DONE
    assert machine.gpr[ECX] == 0x1234
    assert machine.get(DIRECTORY_PAE + 8, 8) == PAE_FLAGS | PS | A
    assert machine.get(POINTERS, 8) == DIRECTORY_PAE | P, "a pointer has no accessed bit"


def test_the_pointers_are_read_when_cr3_is_loaded_and_not_by_walks(machine: BareMachine) -> None:
    """A change of a pointer in memory shows after the next MOV CR3."""
    change = b"\xc7\x05" + le(POINTERS) + le(0)
    invlpg = b"\x0f\x01\x3d" + le(DATA)
    assert run(machine, pae_on(), change, invlpg, load(DATA), to_cr(3, POINTERS)) == SHUTDOWN, "then not even a handler"
    assert machine.cpu.cr2 & 0xFFFFF000 != DATA & 0xFFFFF000


@pytest.mark.parametrize("bit", [1, 2, 5, 8, 36, 63])
@pytest.mark.parametrize("instruction", ["cr3", "cr0", "cr4"])
def test_a_reserved_bit_in_a_pointer_is_a_general_protection_fault(machine: BareMachine, instruction: str, bit: int) -> None:
    """In MOV to CR3, CR0 (PG set) and CR4 (PGE changed) alike, and every register keeps its value."""
    bad = 0x50000
    machine.put(bad, DIRECTORY_PAE | P, 8)
    machine.put(bad + 24, P | 1 << bit, 8)
    if instruction == "cr3":
        where = run(machine, pae_on(), to_cr(3, bad))
        assert machine.cpu.cr3 == POINTERS
    elif instruction == "cr0":
        where = run(machine, to_cr(3, bad), to_cr(4, CR4_PAE), to_cr(0, 0x11 | CR0_PG))
        assert machine.cpu.cr0 & CR0_PG == 0
    else:
        poison = b"\xc7\x05" + le(POINTERS + 24 + bit // 32 * 4) + le((1 << bit % 32) | (bit < 32))
        low = b"\xc7\x05" + le(POINTERS + 24) + le(P | (1 << bit if bit < 32 else 0))
        where = run(machine, pae_on(), poison, low, to_cr(4, CR4_PAE | CR4_PGE))
        assert machine.cpu.cr4 == CR4_PAE
    assert where == GP and pushed_error(machine) == 0


def test_other_bits_of_cr4_and_cr0_load_no_pointers(machine: BareMachine) -> None:
    """CR4.DE and CR0.WP change without a look at the pointers, CR0.CD does look."""
    machine.put(POINTERS + 8, P | 2, 8)
    machine.cpu.cpuid_leaf1_edx |= 1 << 2
    machine.put(POINTERS + 8, 0, 8)
    poison = b"\xc7\x05" + le(POINTERS + 8) + le(P | 2)
    assert run(machine, pae_on(), poison, to_cr(4, CR4_PAE | 8), to_cr(0, 0x11 | CR0_PG | CR0_WP)) == DONE
    assert run(machine, to_cr(0, 0x11 | CR0_PG | 1 << 30)) == GP


def test_pointers_beyond_ram_fault_and_garbage_in_cr3_of_32_bit_paging_does_not(machine: BareMachine) -> None:
    """Nothing answers there: all ones, which are reserved bits in a pointer, and in a directory a present entry."""
    assert run(machine, to_cr(3, 0xFFFFFFE0), to_cr(4, CR4_PAE), to_cr(0, 0x11 | CR0_PG)) == GP
    machine.power_on()
    # A directory of ones names a table of ones at FFFFF000, and that a page there: the next fetch reads ones, an invalid
    # opcode; the IDT reads as ones too, so no gate is good: a triple fault.
    assert run(machine, to_cr(3, 0xFFFFFFFF), to_cr(0, 0x11 | CR0_PG)) == SHUTDOWN


def test_no_execute_counts_for_fetches_only_and_says_so(machine: BareMachine) -> None:
    """With NXE a fetch faults with the I bit; data may be read. Without NXE, bit 63 is reserved."""
    machine.put(TABLE_PAE + (DATA >> 12) * 8, DATA | PAE_FLAGS | NX, 8)
    machine.memory[DATA] = HLT[0]
    jump = b"\xb8" + le(DATA) + b"\xff\xe0"
    machine.cpu.efer = EFER_NXE
    assert run(machine, pae_on(), load(DATA), jump) == PF
    assert (pushed_error(machine), int(machine.cpu.cr2)) == (0x11, DATA)
    machine.power_on()
    machine.cpu.cpuid_leaf1_edx |= FEATURES
    tables(machine)
    machine.put(TABLE_PAE + (DATA >> 12) * 8, DATA | PAE_FLAGS | NX, 8)
    assert run(machine, pae_on(), load(DATA)) == PF
    assert (pushed_error(machine), int(machine.cpu.cr2)) == (9, DATA)


def tables(machine: BareMachine) -> None:
    """The identity tables of PAE paging."""
    machine.put(POINTERS, DIRECTORY_PAE | P, 8)
    machine.put(DIRECTORY_PAE, TABLE_PAE | PAE_FLAGS, 8)
    for page in range(0, 1 << 20, 4096):
        machine.put(TABLE_PAE + (page >> 12) * 8, page | PAE_FLAGS, 8)


def test_large_pages_change_their_size_with_pae(machine: BareMachine) -> None:
    """Out of PAE paging and into it again: 4 MB and 2 MB pages are not mixed up."""
    machine.cpu.cr4 = CR4_PSE
    machine.put(DIRECTORY + 8, P | RW | PS)  # 8 to 12 MB
    machine.put(DIRECTORY_PAE + 8 * 4, P | RW | PS, 8)  # 8 to 10 MB
    machine.put(DATA, 77)
    paging_off, pse_on = to_cr(0, 0x11), to_cr(3, DIRECTORY) + to_cr(4, CR4_PSE) + to_cr(0, 0x11 | CR0_PG)
    legacy = (pse_on, load(0x800000 + DATA), paging_off)
    pae = (pae_on(), load(0x800000 + DATA), paging_off)
    run(machine, *legacy, *pae, *legacy)
    assert machine.gpr[ECX] == 77 and machine.cpu.tlb_units[1].shift == 22
    assert run(machine, *legacy, pae_on(), load(0xA00000 + DATA)) == PF, "the 2 MB page ends there"
    assert machine.cpu.cr2 == 0xA00000 + DATA and machine.cpu.tlb_units[1].shift == 21


def test_a_physical_address_of_36_bits_is_beyond_ram(machine: BareMachine) -> None:
    """A page above 4 GB reads as ones and takes writes without effect; it is not the page of the low 32 bits."""
    machine.put(TABLE_PAE + (DATA >> 12) * 8, 0x5_0000_0000 | DATA | PAE_FLAGS, 8)
    machine.put(DATA, 0x1234)
    store = b"\xc7\x05" + le(DATA) + le(0)
    assert run(machine, pae_on(), load(DATA), store) == DONE
    assert machine.gpr[ECX] == 0xFFFFFFFF and machine.get(DATA) == 0x1234


@entry
def task_switch_load(state, memory, value):
    """What a task switch calls."""
    return load_cr3(state[0], memory, value)


def test_load_cr3_as_a_task_switch_calls_it(machine: BareMachine) -> None:
    """It flushes what is not global, loads the pointers, and faults without any change."""
    run(machine, pae_on())
    state, memory = machine.processor.state, machine.memory
    generation = int(machine.cpu.tlb_generation)
    flushed = generation + N_TLB_TAGS
    assert task_switch_load(state, memory, POINTERS) == OK
    assert machine.cpu.tlb_generation == flushed and machine.cpu.pdpte[0] == DIRECTORY_PAE | P
    machine.put(POINTERS + 16, P | 4, 8)
    assert task_switch_load(state, memory, POINTERS) == FAULT
    assert machine.cpu.tlb_generation == flushed and machine.cpu.event_vector == 13


# -- A20 ----------------------------------------------------------------------------------------------------------------


OUT_92 = b"\xe6\x92"
SET_AL = b"\xb0"
CLOSE, OPEN = SET_AL + b"\0" + OUT_92, SET_AL + b"\2" + OUT_92


@pytest.fixture
def wide_machine(monkeypatch: pytest.MonkeyPatch) -> BareMachine:
    """A machine with 2 MB of RAM."""
    monkeypatch.setattr("bare_machine.RAM_BYTES", 2 << 20)
    return BareMachine()


@pytest.mark.parametrize("paging", [False, True])
def test_the_a20_gate_masks_every_physical_address(wide_machine: BareMachine, paging: bool) -> None:
    """Closed, the second megabyte is the first again: through warm front caches, tables and TLBs."""
    machine = wide_machine
    machine.put(DATA, 1)
    machine.put(0x100000 + DATA, 2)
    if paging:
        machine.put(TABLE + (0x100000 + DATA >> 12) * 4, 0x100000 + DATA | P | RW)
        machine.put(0x141000 + (0x100000 + DATA >> 12) * 4, 0)  # what the table would be with the gate open
        machine.put(DIRECTORY, 0x141000 | P | RW)
        machine.memory[0x141000 : 0x141000 + 1024] = machine.memory[TABLE : TABLE + 1024]
        machine.put(0x141000 + (0x100000 + DATA >> 12) * 4, 0x100000 + DATA | P | RW)
        machine.cpu.cr3, machine.cpu.cr0 = DIRECTORY, 0x11 | CR0_PG
    add = b"\x03\x0d" + le(0x100000 + DATA)  # ADD ECX, [mem]
    shift = b"\xc1\xe1\x04"  # SHL ECX, 4
    store = b"\xc7\x05" + le(0x100000 + DATA + 4) + le(9)
    machine.gpr[ECX] = 0
    where = run(machine, add, shift, CLOSE, add, shift, store, OPEN, add)
    assert where == DONE and machine.gpr[ECX] == 0x212
    assert (machine.get(DATA + 4), machine.get(0x100000 + DATA + 4)) == (9, 0)


def test_the_very_next_fetch_sees_the_a20_gate(wide_machine: BareMachine) -> None:
    """Code above 1 MB closes the gate: what follows is fetched from below, and the gate is read back."""
    machine = wide_machine
    high = 0x100000 + CODE
    machine.write_code(CLOSE + b"\xb1\x02" + HLT, high)
    machine.write_code(CLOSE + b"\xe4\x92\x88\xc1" + HLT, CODE)  # IN AL, 0x92; MOV CL, AL
    machine.gpr[ECX] = 7
    assert machine.stopped_at(machine.go(high)) == high + 8
    assert machine.gpr[ECX] == 0


def test_tables_are_read_behind_the_a20_gate(wide_machine: BareMachine) -> None:
    """A root above 1 MB is read from below while the gate is closed."""
    machine = wide_machine
    assert run(machine, CLOSE, to_cr(3, 0x100000 + DIRECTORY), to_cr(0, 0x11 | CR0_PG), load(DATA)) == DONE
    assert machine.get(0x100000 + DIRECTORY) == 0 and machine.get(DIRECTORY) & A



"""A hypercall's pointer: what the VMM reads and writes through the processor's own walk, and what it refuses."""

import random

import numpy as np
import pytest
from bare_machine import DATA, DIRECTORY, TABLE, BareMachine

from x86virt.isa.events import EVENT_ID, MODE_VMM
from x86virt.records import record_array
from x86virt.vmm.paravirtual.guest_access import FAULTED
from x86virt.vmm.paravirtual.memory_calls import load_memory, move_words, store_memory
from x86virt.vmm.paravirtual.records import DOMAIN, N_WORDS, XEN

PRESENT, WRITABLE, USER, ACCESSED, DIRTY = 1, 2, 4, 0x20, 0x40
VIRT_START = 0xFC000000
FAULT_EVENTS = [EVENT_ID["sys.exc_same_cpl"], EVENT_ID["sys.iret_same_cpl"]]


class Rig:
    """A processor at CPL 0 with paging and write protection, as the VMM has it, and the record of a domain."""

    def __init__(self) -> None:
        self.machine = BareMachine()
        self.machine.paging()
        self.machine.cpu.mode_table[0] = self.machine.cpu.mode = MODE_VMM
        self.state, self.memory = self.machine.processor.state, self.machine.memory
        self.cpu = self.state[0]
        self.xens, self.domains = record_array(XEN), record_array(DOMAIN)
        self.xen = self.xens[0]
        self.domains[0].virt_start = VIRT_START

    def load(self, gla: int, n: int = 4) -> int:
        """Load as a handler does."""
        return int(load_memory(self.state, self.memory, self.domains, 0, gla, n))

    def store(self, gla: int, value: int, n: int = 4) -> int:
        """Store as a handler does."""
        return int(store_memory(self.state, self.memory, self.domains, 0, gla, n, value))

    def move(self, gla: int, count: int, stores: int = 0) -> int:
        """Load or store words."""
        return int(move_words(self.state, self.memory, self.xens, self.domains, 0, gla, count, stores))

    def faults(self) -> list[int]:
        """How many faults of the VMM's own were charged: deliveries, and returns."""
        return [int(self.cpu.ledger_count[event, MODE_VMM]) for event in FAULT_EVENTS]


@pytest.fixture(scope="module")
def rig() -> Rig:
    """One rig for all; each test takes pages of its own."""
    return Rig()


def test_values_are_loaded_and_stored(rig: Rig) -> None:
    """1, 2 and 4 bytes at any alignment, zero-extended."""
    for n in (1, 2, 4):
        for offset in range(5):
            value = 0xF1E2D3C4 & ((1 << 8 * n) - 1)
            assert rig.store(DATA + offset, 0xF1E2D3C4, n) == 0
            assert rig.load(DATA + offset, n) == value == rig.machine.get(DATA + offset, n)


def test_an_access_may_cross_pages_that_lie_apart(rig: Rig) -> None:
    """Each half goes to its own frame."""
    machine = rig.machine
    page, first, second = DATA + 0x2000, DATA + 0x4000, DATA + 0x8000
    machine.set_page(page, first, PRESENT | WRITABLE)
    machine.set_page(page + 0x1000, second, PRESENT | WRITABLE)
    for offset in (0xFFD, 0xFFE, 0xFFF):
        assert rig.store(page + offset, 0xA1B2C3D4) == 0
        octets = machine.memory[first + offset : first + 0x1000].tobytes()
        octets += machine.memory[second : second + offset - 0xFFC].tobytes()
        assert octets == (0xA1B2C3D4).to_bytes(4, "little")
        assert rig.load(page + offset) == 0xA1B2C3D4


def test_the_processor_marks_what_the_vmm_uses(rig: Rig) -> None:
    """Accessed and dirty bits are set as for any access."""
    machine, page = rig.machine, DATA + 0xA000
    machine.set_page(page, page, PRESENT | WRITABLE | USER)
    entry = TABLE + (page >> 12) * 4
    assert rig.load(page) == 0 and machine.get(entry) & (ACCESSED | DIRTY) == ACCESSED
    assert rig.store(page, 1) == 0 and machine.get(entry) & (ACCESSED | DIRTY) == ACCESSED | DIRTY
    assert machine.get(DIRECTORY) & ACCESSED


@pytest.mark.parametrize("rights, can_read", [(0, False), (PRESENT, True), (PRESENT | USER, True)])
def test_what_the_tables_forbid_faults(rig: Rig, rights: int, can_read: bool) -> None:
    """A page that is absent, or may not be written: FAULTED, a fault of the VMM's own is charged, nothing is stored."""
    machine, page = rig.machine, DATA + 0xC000 + 0x1000 * rights
    machine.set_page(page, page, rights)
    machine.put(page, 0x1234)
    before = rig.faults()
    assert rig.load(page) == (0x1234 if can_read else FAULTED)
    assert rig.store(page, 5) == FAULTED and machine.get(page) == 0x1234
    assert rig.faults() == [count + 2 - can_read for count in before]
    assert rig.store(page - 2, 0x55667788) == FAULTED  # its first half may be written
    assert machine.get(page - 2, 2) == 0 and machine.get(page) == 0x1234


def test_a_pointer_into_the_vmm_is_refused_without_an_access(rig: Rig) -> None:
    """From virt_start on nothing is the guest's, nor what begins below it and ends above."""
    before, ticks = rig.faults(), int(rig.cpu.ticks)
    for gla in (VIRT_START, VIRT_START - 3, 0xFFFFFFFF, 0xFFFFFFFD, 1 << 32, (1 << 32) + DATA, -4):
        assert rig.load(gla) == FAULTED and rig.store(gla, 0) == FAULTED
        assert rig.move(gla, 1) == FAULTED
    assert rig.faults() == before and int(rig.cpu.ticks) == ticks
    assert rig.load(VIRT_START - 4) == FAULTED and rig.faults() != before  # below it the tables decide


def test_words_are_moved_in_one_piece(rig: Rig) -> None:
    """An array up to the room there is, and not beyond; what faults in its midst is FAULTED."""
    values = [random.Random(7).getrandbits(32) for _ in range(N_WORDS)]
    place = DATA + 0xF80
    rig.xen.words[:] = values
    assert rig.move(place, N_WORDS, stores=1) == 0
    assert rig.memory[place : place + 4 * N_WORDS].view(np.uint32).tolist() == values
    rig.xen.words[:] = 0
    assert rig.move(place, N_WORDS) == 0
    assert rig.xen.words.tolist() == values
    assert rig.move(place, N_WORDS + 1) == FAULTED
    absent = DATA + 0x9000
    rig.machine.set_page(absent, 0, 0)
    assert rig.move(absent - 8, 3) == FAULTED
    assert rig.move(absent - 8, 3, stores=1) == FAULTED
    assert rig.move(absent - 8, 2) == 0
    assert rig.move(VIRT_START - 8, 3) == FAULTED


def test_the_guests_data_breakpoints_do_not_see_the_vmm(rig: Rig) -> None:
    """DR7 watches a word that a handler reads and writes: nothing is noted."""
    processor = rig.machine.processor
    processor.set_debug_register(0, DATA)
    processor.set_debug_register(7, 0xF0001)
    assert rig.store(DATA, 3) == 0 and rig.load(DATA) == 3 and rig.cpu.debug_hits == 0
    processor.set_debug_register(7, 0)

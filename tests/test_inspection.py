"""Looking at a machine: page walks against the processor's own, descriptors in words, and that nothing changes by it."""

from __future__ import annotations

import random

import pytest
from bare_machine import BareMachine
from gdb_client import machine_of

from x86virt.gdb.monitor import Monitor
from x86virt.gdb.travel import Travel
from x86virt.guests import find_guest
from x86virt.inspection import Tables, View, walk
from x86virt.inspection.descriptors import describe
from x86virt.isa.registers import CR0_PE, CR0_PG, CR4_PAE, CR4_PSE, PTE_P, PTE_PS, PTE_RW, PTE_US

CASES = 400
FLAGS = PTE_P | PTE_RW | PTE_US


def tables_of(machine: BareMachine) -> Tables:
    cpu = machine.cpu
    pointers = tuple(int(entry) for entry in cpu.pdpte)
    return Tables(
        int(cpu.cr0), int(cpu.cr3), int(cpu.cr4), machine.processor.read_physical, int(cpu.efer), pointers,
        int(cpu.a20_closed),
    )  # fmt: skip


def fill(machine: BareMachine, chance: random.Random, first: int, last: int, n: int) -> None:
    """Entries of `n` bytes: absent ones, tables and pages between 40000 and 80000, large pages."""
    for address in range(first, last, n):
        entry = chance.randrange(0x40, 0x80) << 12 | chance.choice((FLAGS, PTE_P, PTE_P | PTE_RW, 0))
        if chance.random() < 0.3:
            entry = chance.randrange(0, 16) << 22 | FLAGS | PTE_PS
        machine.processor.write_physical(address, entry.to_bytes(n, "little"))


@pytest.mark.parametrize("cr4", [0, CR4_PSE, CR4_PAE], ids=["4 KB", "4 MB", "PAE"])
@pytest.mark.parametrize("a20_closed", [0, 1 << 20])
def test_a_walk_ends_where_the_processors_own_does(cr4: int, a20_closed: int) -> None:
    chance = random.Random(cr4 + a20_closed)
    machine = BareMachine()
    fill(machine, chance, 0x40000, 0x80000, 8 if cr4 & CR4_PAE else 4)
    cpu = machine.cpu
    cpu.cr0, cpu.cr3, cpu.cr4, cpu.a20_closed = CR0_PE | CR0_PG, 0x40000, cr4, a20_closed
    cpu.pdpte[:] = [0x41001, 0x42001, 0, 0x43001]
    mapped = 0
    for _ in range(CASES):
        gla = chance.getrandbits(32)
        found = walk(tables_of(machine), gla)
        assert found.physical == machine.processor.look_up(gla), found.lines()
        mapped += found.physical is not None
        assert len(found.lines()) == len(found.steps) + 2
    assert CASES // 10 < mapped < CASES


@pytest.mark.parametrize("guest", ["hello_pse", "syscall"])
def test_under_a_vmm_both_walks_lead_to_the_same_byte(guest: str) -> None:
    machine = machine_of(guest, "trap-and-emulate")
    machine.advance(900 if guest == "hello_pse" else 20_950)
    view, vm = View(machine), machine.vm
    assert vm is not None
    both = 0
    for page in range(0x100, 0x110):
        guest_physical = walk(view.tables(), page << 12).physical
        machine_physical = walk(view.shadow_tables(), page << 12).physical
        if guest_physical is not None and machine_physical is not None:
            both += 1
            assert view.machine_address(vm, guest_physical) == machine_physical
    assert both > 0


@pytest.mark.parametrize("strategy", ["native", "trap-and-emulate", "binary-translation"])
def test_looking_changes_nothing(strategy: str) -> None:
    plain, looked_at = machine_of("syscall", strategy), machine_of("syscall", strategy)
    travel = Travel(looked_at, symbols=find_guest("syscall").symbols)
    monitor = Monitor(travel)
    for limit in range(20_600, 21_200, 50):
        travel.go_on([], retired=limit)
        for name in monitor.commands:
            assert monitor.run(f"{name} esp" if name == "walk" else name)
    assert "machine_exit.next+0x7 " in monitor.run("where")
    plain.run()
    travel.go_on([])
    assert looked_at.result().ledger == plain.result().ledger
    assert (looked_at.processor.ram == plain.processor.ram).all()


def test_the_monitor_shows_the_unit_of_the_next_instruction() -> None:
    """And that of an address; without a translator it says so."""
    machine = machine_of("syscall", "binary-translation")
    monitor = Monitor(Travel(machine, symbols=find_guest("syscall").symbols))
    monitor.travel.go_on([], retired=20_700)
    here = monitor.view.instruction_address()
    text = monitor.run("unit")
    assert f"{here:08x} " in text and "translated code" in text and "=* " in text
    assert monitor.run(f"unit {here:#x}") == text
    assert "no unit of the code at 00200000" in monitor.run("unit 0x200000")
    units = machine.ledger().event_count("translator.unit")
    assert f"{units} units of" in monitor.run("translation") and "of 196,608 bytes used" in monitor.run("translation")
    bare = Monitor(Travel(machine_of("syscall", "native")))
    assert bare.run("unit") == bare.run("translation") == "nothing is translated: the technique has no translation cache\n"


@pytest.mark.parametrize(
    "low,high,text",
    [
        (0x0000FFFF, 0x00CF9B00, "base 00000000  limit ffffffff  dpl 0  code, 32-bit, readable, accessed"),
        (0x0000FFFF, 0x0000F200, "base 00000000  limit 0000ffff  dpl 3  data, 16-bit, writable"),
        (0x00001234, 0x00409600, "base 00000000  limit 00001234  dpl 0  data, 32-bit, writable, expand-down"),
        (0x0008BEEF, 0x0010EE00, "to 0008:0010beef  dpl 3  32-bit interrupt gate"),
        (0x0008BEEF, 0x00008600, "to 0008:0000beef  dpl 0  16-bit interrupt gate"),
        (0x00280000, 0x00008500, "to 0028           dpl 0  task gate"),
        (0x10000067, 0x00000B20, "base 00201000  limit 00000067  dpl 0  32-bit TSS, busy, not present"),
    ],
)
def test_descriptors_in_words(low: int, high: int, text: str) -> None:
    assert describe(low, high) == text

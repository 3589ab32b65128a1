"""A guest of a VMM in real-address and virtual-8086 mode, from a boot sector or from firmware.

A VMM without a virtualization extension interprets it. With VT-x real-address mode runs in virtual-8086 mode, and the VMM
interprets what would tell the two apart; with SVM it runs as it is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mode_tour import CHANGED_BEHIND, TOUR
from pc_guests import assembled
from profile_for import profile_for
from small_kernel import DATA, EAX, EBX, Kernel, Step, compare, log, mov, run, save, store, strategy
from x86virt.benchmarks.guests.disk import boot_disk

from x86virt import find_guest, load_profile
from x86virt.api import make_setup
from x86virt.core.layout import NEVER
from x86virt.equivalence import compare_runs
from x86virt.guests import open_guest
from x86virt.machine import Machine
from x86virt.saved import machine_bytes, machine_of
from x86virt.start.firmware import open_firmware
from x86virt.start.flat import FlatImage, parse_flat

HARDWARE = ("vtx-shadow", "vtx-ept", "svm-shadow", "svm-npt")
VMMS = ("trap-and-emulate", "binary-translation", *HARDWARE)
MEMORY = 4 << 20
BUDGET = 2_000_000_000


def tour() -> FlatImage:
    """The guest that visits every mode."""
    return parse_flat(assembled(TOUR), "tour", 0x7C00)


def started(name: str) -> Machine:
    """A machine that is about to make the tour."""
    machine = Machine(strategy(name), load_profile(profile_for(name)), MEMORY)
    machine.load(tour())
    return machine


@pytest.mark.parametrize(
    ("name", "checkpoint"),
    [("trap-and-emulate", 32), ("binary-translation", 1 << 12), *((name, 32) for name in HARDWARE), ("vtx-ept,cluster=8", 32)],
)
def test_every_mode_is_equal_in_lock_step(name: str, checkpoint: int) -> None:
    """A translator has fetched the next instruction when it stops, so that accessed bits may come one checkpoint early."""
    comparison = compare_runs(
        tour(), strategy(name), strategy("native"), load_profile(profile_for(name)), MEMORY, "", BUDGET, checkpoint
    )
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.other.outcome == "exited 1"
    assert comparison.other.console == b"every mode seen\n"


def test_only_what_cannot_run_directly_is_interpreted() -> None:
    """The loops in protected mode run directly; real-address, virtual-8086 mode and the ways there are interpreted."""
    result = started("trap-and-emulate").run(BUDGET)
    interpreted = result.ledger.event_count("vmm.interpret")
    assert 60 < interpreted < 250 < 3000 < result.instructions
    assert result.ledger.event_count("vmm.interpreter_switch") >= 2


@pytest.mark.parametrize("name", ("native", *VMMS))
def test_code_that_real_mode_has_changed_is_executed_as_it_is_in_protected_mode(name: str) -> None:
    machine = Machine(strategy(name), load_profile(profile_for(name)), MEMORY)
    machine.load(parse_flat(assembled(CHANGED_BEHIND), "changed", 0x7C00))
    assert machine.run(BUDGET).outcome == "exited 1"


@pytest.mark.parametrize("name", VMMS)
def test_a_saved_guest_goes_on_in_the_mode_that_it_was_in(name: str) -> None:
    whole = started(name).run(BUDGET)
    for instructions in (20, 60, whole.instructions - 40):
        cut = started(name)
        assert cut.advance(instructions, BUDGET)
        rest = machine_of(machine_bytes(cut), "test").run(BUDGET)
        assert (rest.outcome, rest.ticks, rest.instructions) == (whole.outcome, whole.ticks, whole.instructions)
        assert rest.console == whole.console


def test_the_cut_of_a_run_into_pieces_changes_nothing() -> None:
    whole = started("trap-and-emulate").run(BUDGET)
    pieces = started("trap-and-emulate")
    for instructions in range(7, whole.instructions, 97):
        assert pieces.advance(instructions, BUDGET)
    pieces.advance(NEVER, BUDGET)
    assert pieces.result().ticks == whole.ticks


@pytest.mark.parametrize("name", ["trap-and-emulate", "vtx-ept,cluster=32", "svm-npt"])
def test_firmware_is_given_what_the_vmm_gave_and_ends_equal(name: str) -> None:
    """E2 of a power-on self-test with its timer, clock and keyboard: the bare machine accepts the log of inputs."""
    image = open_firmware()
    comparison = compare_runs(
        image, strategy(name), strategy("native"), load_profile(profile_for(name)), MEMORY, "", 12_000_000, 1 << 14
    )
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.time_reads > 0


@pytest.mark.parametrize("name", ["trap-and-emulate", "vtx-ept,cluster=32", "svm-npt"])
def test_a_disk_boots_with_the_same_console(name: str, tmp_path: Path) -> None:
    disk = tmp_path / "hello.img"
    disk.write_bytes(boot_disk(find_guest("hello"), "iterations=2"))
    consoles = []
    for which in ("native", name):
        setup = replace(make_setup(which, profile_for(name), memory_bytes=16 << 20, max_cycles=BUDGET), disks=(str(disk),))
        result = setup.load(open_guest(str(disk)).bootable).run(BUDGET)
        assert result.outcome == "halted"
        consoles.append(result.console)
    assert consoles[0] == consoles[1]
    assert consoles[0].endswith(b"hello: passed\n")


def test_an_instruction_that_only_the_truncation_refuses_is_interpreted() -> None:
    """A read at the top of the address space, where no shadow of a segment reaches."""
    code = mov(EAX, 0xFFFFFFF0) + b"\x8b\x18" + save(DATA, EBX)  # ones: no memory answers there
    comparison = compare(Kernel([Step(code)], paging=False))
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.other.ledger.event_count("vmm.interpret") == 1


def test_breakpoints_on_data_are_met_as_on_the_bare_machine() -> None:
    dr0 = mov(EAX, DATA + 8) + b"\x0f\x23\xc0"
    dr7 = mov(EAX, 0x000D0001) + b"\x0f\x23\xf8"  # four bytes, writes
    off = mov(EAX, 0) + b"\x0f\x23\xf8"
    kernel = Kernel([Step(dr0 + dr7 + store(DATA + 8, 5)), Step(store(DATA + 4, 7) + store(DATA + 8, 9)), Step(off)])
    comparison = compare(kernel)
    assert comparison.equal, "\n".join(comparison.report)
    assert 1 in [trap[0] for trap in log(run(kernel, "trap-and-emulate")[0])]

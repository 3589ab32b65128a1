"""Jitted exits of hardware VMMs: the same state, ledger and exits as the Python handlers, to the last tick."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from jitted_exits import BUDGET, GUESTS, MEMORY_BYTES, differing, everything, run_in_slices
from nested_vmm import MAX_CYCLES
from profile_for import profile_for
from random_kernels import kernels
from small_kernel import DIRECTORY, EBX, Kernel, Step, mov, start, word

from x86virt import Machine, find_strategy, load_profile
from x86virt.api import make_setup
from x86virt.guests import find_guest
from x86virt.vmm import Strategy

TECHNIQUES = ("vtx-ept", "vtx-shadow", "svm-npt", "svm-shadow")
VARIANTS = (
    "vtx-ept,p2m=contiguous", "vtx-ept,large_pages=off,vpid=off", "vtx-ept,state=eager", "vtx-ept,cluster=4",
    "svm-npt,p2m=contiguous", "svm-npt,vpid=off", "svm-npt,nested_size=128K", "svm-npt,state=eager",
    "vtx-shadow,shadow=trace", "vtx-shadow,shadow=out-of-sync", "vtx-shadow,state=eager",
)  # fmt: skip


def loaded(
    guest: str, iterations: str = "1", jitted: bool = True, strategy: str | type[Strategy] = "vtx-ept", profile: str = ""
) -> Machine:
    """A machine about to start."""
    which = find_strategy(strategy) if isinstance(strategy, str) else strategy
    setup = make_setup(which, profile=profile or profile_for(which), memory_bytes=MEMORY_BYTES)
    machine = setup.load(find_guest(guest), f"iterations={iterations}")
    assert machine.exits_in_code is not None
    machine.exits_in_code.wanted = jitted
    return machine


def both_ways(guest: str, iterations: str, technique: str, profile: str = "") -> tuple[Machine, Machine]:
    """The guest run to its end with jitted exits and without."""
    runs = loaded(guest, iterations, True, technique, profile), loaded(guest, iterations, False, technique, profile)
    for machine in runs:
        machine.run(BUDGET)
    assert runs[1].exits_in_code.handled == 0  # type: ignore[union-attr]
    return runs


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("guest", GUESTS)
def test_every_guest_takes_the_same_course(guest: str, technique: str) -> None:
    fast, slow = both_ways(guest, GUESTS[guest], technique)
    assert differing(everything(fast), everything(slow)) == []


@pytest.mark.parametrize("technique", VARIANTS)
@pytest.mark.parametrize("guest", ["exits", "cr3switch", "ptemod", "irq"])
def test_options_change_nothing_of_that(guest: str, technique: str) -> None:
    fast, slow = both_ways(guest, "3", technique)
    assert differing(everything(fast), everything(slow)) == []


@pytest.mark.parametrize("policy", ["drop", "trace", "out-of-sync"])
@pytest.mark.parametrize("guest", ["exits", "cr3switch", "ptemod", "irq", "tasks"])
def test_a_shadow_under_a_vpid_is_flushed_alike(guest: str, policy: str) -> None:
    """The first processors with VT-x have none; where there is one, what the shadow drops is an INVVPID."""
    fast, slow = both_ways(guest, "5", f"vtx-shadow,shadow={policy}", "nehalem")
    assert differing(everything(fast), everything(slow)) == []


@pytest.mark.parametrize("technique", TECHNIQUES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(kernel=kernels)
def test_random_kernels_take_the_same_course(technique: str, kernel: Kernel) -> None:
    runs = []
    for jitted in (True, False):
        machine = start(kernel, technique)
        assert machine.exits_in_code is not None
        machine.exits_in_code.wanted = jitted
        machine.run(BUDGET)
        runs.append(everything(machine))
    assert differing(*runs) == []


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("guest", ["exits", "tasks", "portio"])
def test_slices_do_not_show(guest: str, technique: str) -> None:
    """Cut at numbers of instructions and of cycles, with jitted exits in every other slice."""
    whole = loaded(guest, "4", strategy=technique)
    whole.run(BUDGET)
    cut = loaded(guest, "4", strategy=technique)
    run_in_slices(cut)
    assert differing(everything(whole), everything(cut)) == []


def left_to_python(machine: Machine) -> tuple[int, int]:
    """Exits in all, and those that Python saw, of a run to the end."""
    result = machine.run(BUDGET)
    exits = sum(row.number for row in result.exits.values())
    assert machine.exits_in_code is not None
    return exits, exits - machine.exits_in_code.handled


@pytest.mark.parametrize(
    ("guest", "technique", "profile"),
    [
        *(("portio", technique, "") for technique in TECHNIQUES), ("cr3switch", "vtx-shadow", ""), ("ptemod", "vtx-shadow", ""),
        ("cr3switch", "vtx-shadow", "nehalem"), ("ptemod", "vtx-shadow", "nehalem"),
    ],
)  # fmt: skip
def test_the_common_exits_do_not_return_to_python(guest: str, technique: str, profile: str) -> None:
    """In steady state: the number of exits that Python sees does not grow with the iterations."""
    runs = (loaded(guest, iterations, strategy=technique, profile=profile) for iterations in ("100", "300"))
    few, many = map(left_to_python, runs)
    assert many[0] - few[0] >= 200
    assert many[1] == few[1]


def touching(memory: int) -> Kernel:
    """A kernel that touches each page of a RAM once, by tables whose pages are large."""
    directory = {DIRECTORY + 4 * number: number << 22 | 0x87 for number in range(1, memory >> 22)}
    loop = mov(EBX, 0x400000) + b"\x01\x03" + b"\x81\xc3" + word(0x1000) + b"\x81\xfb" + word(memory) + b"\x72\xf0"
    return Kernel([Step(b"\x0f\xa2" + loop)], cr4=0x10, words=directory)


@pytest.mark.parametrize("technique", ["vtx-ept", "vtx-ept,large_pages=off,p2m=contiguous", "svm-npt"])
def test_nested_fills_do_not_return_to_python(technique: str) -> None:
    """A thousand pages more that are touched for the first time, and not one exit more that Python sees."""
    seen = []
    for memory in (8 << 20, 12 << 20):
        machine = Machine(find_strategy(technique)(), load_profile(profile_for(technique)), memory)
        machine.load(touching(memory).image())
        seen.append(left_to_python(machine))
    assert seen[1][0] - seen[0][0] == 1024
    assert seen[1][1] == seen[0][1]


def test_fills_that_evict_take_the_same_course() -> None:
    """Where nested tables are evicted, the processor is told to forget them: the same ticks as by Python's handlers."""
    memory, runs = 72 << 20, []
    for jitted in (True, False):
        machine = Machine(find_strategy("vtx-ept,nested_size=128K")(), load_profile("nehalem"), memory)
        machine.load(touching(memory).image())
        assert machine.exits_in_code is not None
        machine.exits_in_code.wanted = jitted
        result = machine.run(4 * MAX_CYCLES)
        assert result.outcome == "exited 1" and result.ledger.event_count("nested.eviction") > 0
        runs.append(
            (result.ticks, result.ledger.count.tolist(), result.ledger.ticks.tolist(), list(result.exits.items()))
        )
    assert runs[0] == runs[1]


def test_unpriced_paths_are_left_to_python() -> None:
    machine = loaded("portio")
    assert machine.vm is not None and machine.exits_in_code is not None
    machine.vm.prices.table = {path: row for path, row in machine.vm.prices.table.items() if path != "exit_dispatch"}
    machine.run(BUDGET)
    assert machine.exits_in_code.handled == 0
    assert machine.vm.unpriced > 0


def test_a_hook_of_a_derived_class_is_called_all_the_same() -> None:
    class Counting(find_strategy("vtx-ept")):  # type: ignore[misc]
        """Counts the exits of one reason."""

        seen = 0

        def on_ept_violation(self, vm, exit) -> None:
            type(self).seen += 1
            super().on_ept_violation(vm, exit)

    machine = loaded("portio", "10", strategy=Counting)
    result = machine.run(BUDGET)
    assert Counting.seen == result.exits["ept_violation"].number > 0
    assert machine.exits_in_code is not None and machine.exits_in_code.handled > 0  # the others are handled without it


def test_the_check_of_isolation_leaves_all_to_python() -> None:
    machine = loaded("portio", "10")
    machine.check_isolation()
    machine.run(BUDGET)
    assert machine.exits_in_code is not None and machine.exits_in_code.handled == 0

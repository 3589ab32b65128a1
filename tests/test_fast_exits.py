"""Jitted exits of both software techniques: the same state, ledger and exits as the Python handlers, to the last tick."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from jitted_exits import BUDGET, GUESTS, MEMORY_BYTES, differing, everything, run_in_slices
from random_kernels import kernels
from small_kernel import Kernel, start

from x86virt.api import make_setup
from x86virt.guests import find_guest
from x86virt.vmm import Strategy
from x86virt.vmm.fast.base import declared_actions
from x86virt.vmm.fast.calls import JittedExits, reason_of_entry
from x86virt.vmm.fast.records import ACTIONS, N_ENTRIES, PATHS, SYSTEM_CALL
from x86virt.vmm.registry import find_strategy

TRAP_AND_EMULATE = find_strategy("trap-and-emulate")
TRANSLATION = "binary-translation"
OF_A_TRANSLATOR = ("light_dispatch", "callout", "recover", "enter_cache", "direct_port", "direct_store")
TECHNIQUES = ("trap-and-emulate", TRANSLATION)


def loaded(guest: str, iterations: str = "1", jitted: bool = True, strategy: type[Strategy] = TRAP_AND_EMULATE):
    """A machine about to start."""
    machine = make_setup(strategy, memory_bytes=MEMORY_BYTES).load(find_guest(guest), f"iterations={iterations}")
    assert machine.exits_in_code is not None
    machine.exits_in_code.wanted = jitted
    return machine


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("guest", GUESTS)
def test_every_guest_takes_the_same_course(guest: str, technique: str) -> None:
    runs = []
    for jitted in (True, False):
        machine = loaded(guest, GUESTS[guest], jitted, find_strategy(technique))
        machine.run(BUDGET)
        runs.append(everything(machine))
        assert machine.exits_in_code.handled == 0 or jitted
    assert differing(*runs) == []


@pytest.mark.parametrize("guest", ["smc", "cr3switch", "ptemod"])
@pytest.mark.parametrize(
    "options", ["chaining=off,inline_emulation=off", "tc_size=4K", "shadow=trace", "shadow=trace,direct_callouts=off"]
)
def test_a_translators_switches_change_nothing_of_that(guest: str, options: str) -> None:
    """Without chains each jump leaves the cache; a small one is thrown away while the guest runs."""
    runs = []
    for jitted in (True, False):
        machine = loaded(guest, "3", jitted, find_strategy(f"{TRANSLATION},{options}"))
        machine.run(BUDGET)
        runs.append(everything(machine))
    assert differing(*runs) == []


@pytest.mark.parametrize("technique", TECHNIQUES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(kernel=kernels)
def test_random_kernels_take_the_same_course(technique: str, kernel: Kernel) -> None:
    runs = []
    for jitted in (True, False):
        machine = start(kernel, technique)
        machine.exits_in_code.wanted = jitted
        machine.run(BUDGET)
        runs.append(everything(machine))
    assert differing(*runs) == []


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("guest", ["syscall", "tasks", "portio"])
def test_slices_do_not_show(guest: str, technique: str) -> None:
    """Cut at numbers of instructions and of cycles, with jitted exits in every other slice."""
    whole = loaded(guest, "4", strategy=find_strategy(technique))
    whole.run(BUDGET)
    cut = loaded(guest, "4", strategy=find_strategy(technique))
    run_in_slices(cut)
    assert differing(everything(whole), everything(cut)) == []


@pytest.mark.parametrize("technique", [*TECHNIQUES, f"{TRANSLATION},chaining=off"])
@pytest.mark.parametrize("guest", ["syscall", "portio", "divzero", "ptemod", "cr3switch"])
def test_the_common_exits_do_not_return_to_python(guest: str, technique: str) -> None:
    """In steady state: the number of exits that Python sees does not grow with the iterations."""
    left = []
    for iterations in (100, 300):
        machine = loaded(guest, str(iterations), strategy=find_strategy(technique))
        result = machine.run(BUDGET)
        exits = sum(row.number for row in result.exits.values())
        assert exits > 2 * iterations
        left.append(exits - machine.exits_in_code.handled)
    assert left[0] == left[1]


def test_adapted_writes_do_not_return_to_python() -> None:
    """Stores to a traced page table, which became callouts."""
    left = []
    for iterations in (100, 300):
        machine = loaded("ptemod", str(iterations), strategy=find_strategy(f"{TRANSLATION},shadow=trace"))
        result = machine.run(BUDGET)
        assert result.exits["adapted_write"][0] > iterations // 2
        left.append(sum(row.number for row in result.exits.values()) - machine.exits_in_code.handled)
    assert left[0] == left[1]


# -- who says what is jitted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_what_a_technique_declares_is_known(technique: str) -> None:
    strategy = find_strategy(technique)
    assert set(strategy.jitted.values()) <= set(ACTIONS)
    reasons = {reason_of_entry(entry) for entry in range(N_ENTRIES)}
    assert set(strategy.jitted) <= reasons
    assert {path for path in PATHS if path not in OF_A_TRANSLATOR} <= set(strategy.paths)
    assert (technique == TRANSLATION) == (set(PATHS) <= set(strategy.paths))
    assert reason_of_entry(SYSTEM_CALL) == "system_call"


def test_a_hook_of_a_derived_class_is_called_all_the_same() -> None:
    class Counting(TRAP_AND_EMULATE):  # type: ignore[misc, valid-type]
        """Counts the exits of one reason."""

        seen = 0

        def on_general_protection(self, vm, exit) -> None:
            type(self).seen += 1
            super().on_general_protection(vm, exit)

    machine = loaded("syscall", "10", strategy=Counting)
    result = machine.run(BUDGET)
    assert Counting.seen == result.exits["general_protection"][0] > 0
    assert machine.exits_in_code.handled > 0  # the others are still handled without it
    assert "general_protection" not in declared_actions(Counting)


def test_a_strategy_that_handles_exits_itself_gets_all_of_them() -> None:
    class Own(TRAP_AND_EMULATE):  # type: ignore[misc, valid-type]
        """Looks at every exit."""

        seen = 0

        def handle(self, vm, exit) -> None:
            type(self).seen += 1
            super().handle(vm, exit)

    assert declared_actions(Own) == {}
    machine = loaded("hello", strategy=Own)
    result = machine.run(BUDGET)
    assert Own.seen == sum(row.number for row in result.exits.values())


def test_a_strategy_that_declares_nothing_gets_all_of_them() -> None:
    assert declared_actions(find_strategy("native")) == {}


def test_unpriced_paths_are_left_to_python() -> None:
    machine = loaded("syscall")
    assert machine.vm is not None
    machine.vm.prices.table = {path: row for path, row in machine.vm.prices.table.items() if path != "reflect"}
    machine.run(BUDGET)
    assert machine.exits_in_code.handled == 0
    assert isinstance(machine.exits_in_code, JittedExits)
    assert machine.vm.unpriced > 0

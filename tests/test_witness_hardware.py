"""The witness routines of VMMs on VMX: each has the effect of its Python handler, at the exits of real guests and at exits made
up from one."""

from collections import Counter
from functools import cache

import pytest
from hardware_witness_machine import compare_exit, make_machine, next_exit

from x86virt.core.layout import HOOK
from x86virt.vmm.options import HARDWARE_PATHS, NESTED_PATHS

PER_PLACE = 2  # exits of one guest instruction that are compared
MOST = 300
NESTED, SHADOW = "vtx-ept", "vtx-shadow,shadow=drop"
GUESTS = {NESTED: ("hello", "irq", "exits"), SHADOW: ("hello", "ptemod", "irq")}
# Compared below, or (the last two) only taken in other ways than by these guests.
ALONE = {"exit_decode", "real_mode_switch", "nested_drop", "exit_skip"}


@cache
def compared(strategy: str, guest: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Run a guest, comparing its exits: what differed, and the paths that the image went."""
    machine, seen, places, rows = make_machine(guest, "iterations=2", strategy), Counter(), Counter(), []
    exits = 0
    while next_exit(machine) and exits < MOST:
        exits += 1
        place = machine.vm.control.stored("guest_rip"), machine.vm.control.stored("exit_reason")
        places[place] += 1
        if places[place] <= PER_PLACE:
            rows += compare_exit(machine, seen)
        else:
            machine.act(HOOK)
    return tuple(rows), frozenset(seen)


@pytest.mark.parametrize(("strategy", "guest"), [(strategy, guest) for strategy, names in GUESTS.items() for guest in names])
def test_every_exit_has_the_same_effect(strategy, guest):
    rows, seen = compared(strategy, guest)
    assert rows == ()
    assert "exit_dispatch" in seen


def test_every_path_was_compared():
    seen = set().union(*(compared(strategy, guest)[1] for strategy, names in GUESTS.items() for guest in names))
    assert seen >= {*HARDWARE_PATHS, *NESTED_PATHS} - ALONE

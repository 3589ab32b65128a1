"""Saved and restored, stepped and travelled: under every VMM a run ends as the unbroken one, in every cell of the ledger."""

from __future__ import annotations

import pytest
import test_gdb_travel
import test_saved
from hypothesis import given, settings
from hypothesis import strategies as st
from small_kernel import MAX_CYCLES, Kernel, start
from vmm_judge import VMMS
from vmm_pieces import kernels_of

from x86virt.machine import Machine
from x86virt.saved import machine_bytes, machine_of

GUESTS = ("smc", "syscall", "cr3switch", "irq")
ELSEWHERE = ("trap-and-emulate",)  # strategies of which test_saved.py and test_gdb_travel.py try every guest
OTHERS = tuple(name for name in VMMS if name not in ELSEWHERE)


def outcome_of(machine: Machine) -> dict[str, object]:
    """All that two runs can differ in, at the end."""
    return test_saved.everything(machine, machine.run(MAX_CYCLES))


@pytest.mark.parametrize("under", OTHERS)
@pytest.mark.parametrize("guest", GUESTS)
def test_a_restored_guest_ends_as_the_unbroken_one(guest: str, under: str) -> None:
    cycles = test_saved.unbroken(guest, under)["outcome"][3] // 64  # type: ignore[index]
    test_saved.assert_same(guest, under, [1, cycles // 3, cycles // 2, cycles - 100])


@pytest.mark.parametrize("under", VMMS)
@settings(max_examples=6, database=None)
@given(kernel=st.one_of(kernels_of("changes"), kernels_of("mixed")), places=st.lists(st.integers(1, 400), min_size=1, max_size=3))
def test_a_random_kernel_is_saved_anywhere(under: str, kernel: Kernel, places: list[int]) -> None:
    """Also amid code that is about to change, with tables that were edited, in either address space."""
    cut = start(kernel, under)
    for n in sorted(places):
        if not cut.advance(n, MAX_CYCLES):
            break
        cut = machine_of(machine_bytes(cut), "memory")
    whole, other = outcome_of(start(kernel, under)), outcome_of(cut)
    assert {name: value for name, value in whole.items() if other[name] != value} == {}


@pytest.mark.parametrize("under", OTHERS)
def test_steps_one_by_one_change_nothing(under: str) -> None:
    test_gdb_travel.test_steps_one_by_one_change_nothing(under)


@pytest.mark.parametrize("under", OTHERS)
def test_the_way_back_leads_to_the_states_of_the_way_there(under: str) -> None:
    """Some boundaries of the short guest, forwards and backwards."""
    travel = test_gdb_travel.Travel(test_gdb_travel.machine_of(test_gdb_travel.SHORT, under), every=100)
    there = []
    for _ in range(40):
        there.append(test_gdb_travel.state_of(travel))
        travel.step()
    back = []
    for _ in range(40):
        travel.step_back()
        back.append(test_gdb_travel.state_of(travel))
    assert back == there[::-1]

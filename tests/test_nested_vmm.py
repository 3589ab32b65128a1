"""VMMs with nested tables (EPT, NPT): guests that touch what is no memory, and what each option changes: the costs alone."""

from __future__ import annotations

import pytest
from nested_vmm import (
    HIGH,
    HOLE,
    HOLE_CASES,
    LOW,
    MAX_CYCLES,
    NESTED,
    accesses,
    assert_equal,
    lone,
    machine_of_kernel,
    profile_of,
)
from small_kernel import Kernel, Step
from test_shadow import CASES

from x86virt import find_guest, find_strategy
from x86virt.equivalence import compare_runs

VARIANTS = ("large_pages=off", "p2m=contiguous", "p2m=contiguous,large_pages=off", "vpid=off", "nested_size=128K")


def isolated(kernel: Kernel, name: str) -> str:
    """Run with every access checked: the outcome."""
    machine = machine_of_kernel(kernel, name, isolated=True)
    result = machine.run(MAX_CYCLES)
    assert not result.outcome.startswith("isolation"), result.outcome
    result.ledger.check_conservation(result.ticks)
    return result.outcome


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("access", accesses(0))
def test_accesses_to_what_is_no_memory(access: str, name: str) -> None:
    """Behind RAM, in the middle of nothing, at the end of the first 4 GB, in both rings."""
    for address in (HOLE, LOW, HIGH, HOLE + 0x7F0):
        for ring in (0, 3):
            kernel = lone(Step(accesses(address)[access], ring), b"\x40")
            comparison = assert_equal(kernel, name)
            assert isolated(kernel, name) == comparison.other.outcome


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("case", HOLE_CASES)
def test_structures_where_no_memory_is(case: str, name: str) -> None:
    """Tables, stacks and task-state segments there end as on the bare machine."""
    comparison = assert_equal(HOLE_CASES[case], name)
    assert isolated(HOLE_CASES[case], name) == comparison.other.outcome


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("case", CASES)
def test_what_makes_shadows_hard(case: str, name: str) -> None:
    """The guest has its own paging: the kernels of the shadow tests are equal, and no entry is ever taken back."""
    assert_equal(CASES[case], name)


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("guest", ["hello", "pgfault", "cr3", "tasks"])
def test_options_change_the_costs_alone(guest: str, variant: str, name: str) -> None:
    """Each option, in E1 with the bare machine."""
    image = find_guest(guest)
    under = f"{name},{variant}"
    comparison = compare_runs(
        image, find_strategy(under)(), find_strategy("native")(), profile_of(name), 16 << 20, "", None, 1024
    )
    assert comparison.equal, "\n".join(comparison.report)

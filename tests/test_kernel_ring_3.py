"""The variant of trap-and-emulate whose guest kernel runs in ring 3: paging alone keeps it from its programs."""

from __future__ import annotations

import pytest
from guest_sets import DISK_GUESTS, TIMED_GUESTS, portable_guests, short_line
from hypothesis import HealthCheck, assume, given, settings
from random_kernels import kernels
from segment_kernels import segment_kernels
from small_kernel import (
    DATA,
    EAX,
    PTE_P,
    PTE_RW,
    PTE_US,
    Kernel,
    Step,
    compare,
    load,
    log,
    run,
    store,
    strategy,
)

from x86virt import find_guest, load_profile
from x86virt.equivalence import compare_runs

NAME = "trap-and-emulate,ring=3"
NOT_EQUAL = ("stealth", *DISK_GUESTS)  # the first asks for what x86 does not hide
PAGE = 0x88000
MAX_CYCLES, MEMORY = 200_000_000, 8 << 20


@pytest.mark.parametrize("name", [name for name in portable_guests() if name not in NOT_EQUAL])
def test_every_guest_is_equal(name: str) -> None:
    under, profile = strategy(NAME), load_profile("p4_prescott")
    image = find_guest(name)
    line = short_line(name, 1 if name in ("mix", "irq", "speed") else 2)
    comparison = compare_runs(image, under, strategy("native"), profile, MEMORY, line, MAX_CYCLES, 1 << 14)
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.divergences == []
    assert (comparison.deliveries > 0) == (name in TIMED_GUESTS)  # of a log that the bare machine followed (E2)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kernels)
def test_random_kernels_are_equal(kernel: Kernel) -> None:
    comparison = compare(kernel, strategy(NAME))
    assert comparison.equal, "\n".join(comparison.report)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(segment_kernels((0,)))
def test_random_kernels_of_segments_are_equal(kernel: Kernel) -> None:
    """Selectors of RPL 0 alone: an RPL no longer restricts what a kernel in ring 3 loads."""
    comparison = compare(kernel, strategy(NAME))
    assume("budget" not in (comparison.native.outcome, comparison.other.outcome))
    assert comparison.equal, "\n".join(comparison.report)


@pytest.mark.parametrize("policy", ("drop", "trace", "out-of-sync"))
def test_programs_do_not_reach_the_kernels_pages(policy: str) -> None:
    """A page of the kernel is read by it, refused to its program, and read by it again; a read-only one likewise."""
    kernel = Kernel(
        [Step(store(PAGE, 1) + load(EAX, PAGE)), Step(load(EAX, PAGE), 3), Step(load(EAX, PAGE) + store(DATA, 2)),
         Step(store(PAGE, 3), 3), Step(store(PAGE + 0x1000, 4)), Step(store(PAGE + 0x1000, 5), 3)],
        pages={PAGE: PAGE | PTE_P | PTE_RW, PAGE + 0x1000: (PAGE + 0x1000) | PTE_P | PTE_US},
        write_protect=False,
    )  # fmt: skip
    comparison = compare(kernel, strategy(f"{NAME},shadow={policy}"), checkpoint=16)
    assert comparison.equal, "\n".join(comparison.report)
    machine, result = run(kernel, strategy(f"{NAME},shadow={policy}"))
    assert result.outcome == "exited 1"
    assert [entry[:2] for entry in log(machine)] == [(14, 5), (14, 7), (14, 7)]


@pytest.mark.parametrize("name", ("trap-and-emulate", NAME))
def test_alignment_checks_are_the_programs_own(name: str) -> None:
    """#AC with CR0.AM and EFLAGS.AC in ring 3, and never in the guest's kernel."""
    mask = b"\x0f\x20\xc0\x0d\x00\x00\x04\x00\x0f\x22\xc0" + load(EAX, DATA + 1)
    kernel = Kernel([Step(mask), Step(load(EAX, DATA + 1), 3, 0x40202), Step(load(EAX, DATA + 1))])
    comparison = compare(kernel, strategy(name), checkpoint=16)
    assert comparison.equal, "\n".join(comparison.report)
    machine, _ = run(kernel, strategy(name))
    assert [entry[:2] for entry in log(machine)] == [(17, 0)]

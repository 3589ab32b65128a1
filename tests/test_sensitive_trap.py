"""A processor whose every sensitive instruction traps: on it trap-and-emulate is exact (Popek and Goldberg 1974).

Nothing is declared and nothing is masked: every guest, `stealth` that looks for the VMM among them, and random kernels
of segments of all rings run in lock step with the bare machine, and the probe logs no divergence.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType

import pytest
from guest_sets import portable_guests
from hypothesis import HealthCheck, assume, given, settings
from segment_kernels import segment_kernels
from small_kernel import MAX_CYCLES as KERNEL_CYCLES
from small_kernel import RAM_BYTES, Kernel, Step, strategy, word
from test_equivalence import STEALTHY_KERNEL, STEALTHY_PROGRAM

from x86virt import Machine, find_guest, load_profile
from x86virt.equivalence import Comparison, compare_runs
from x86virt.isa.table import ROWS
from x86virt.profile import Profile

KEY = "feature.sensitive_instructions_trap"
TRAPPED = ("syscall", "unix")  # their programs use a sensitive instruction, which on this processor is #GP
MAX_CYCLES, MEMORY = 200_000_000, 8 << 20
IOPL_3 = 0x3202


def trapping(name: str = "p4_prescott") -> Profile:
    """A shipped profile, made virtualizable."""
    profile = load_profile(name)
    value = replace(profile.values[KEY], value=1, exact=Fraction(1))
    return replace(profile, values=MappingProxyType({**profile.values, KEY: value}))


def compare(image, command_line: str = "", memory: int = RAM_BYTES, cycles: int = KERNEL_CYCLES) -> Comparison:
    """Lock step on the processor that traps, nothing masked."""
    under = strategy("trap-and-emulate")
    return compare_runs(image, under, strategy("native"), trapping(), memory, command_line, cycles, 1 << 12)


def assert_exact(comparison: Comparison) -> None:
    """Equal, and no instruction completed with another effect."""
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.divergences == []
    assert comparison.native.outcome == comparison.other.outcome


@pytest.mark.parametrize("name", portable_guests())
def test_every_guest_is_exact(name: str) -> None:
    comparison = compare(find_guest(name), "iterations=1" if name == "mix" else "iterations=3", MEMORY, MAX_CYCLES)
    assert_exact(comparison)
    assert name in TRAPPED or comparison.native.outcome == "halted"


def test_what_looks_for_the_vmm_finds_nothing() -> None:
    program = Kernel([*map(Step, STEALTHY_KERNEL), *(Step(octets, 3, IOPL_3) for octets in STEALTHY_PROGRAM)])
    comparison = compare(program.image())
    assert_exact(comparison)
    assert comparison.native.outcome == "exited 1"


def test_the_switch_alone_makes_the_difference() -> None:
    machine = Machine(strategy("trap-and-emulate"), load_profile("p4_prescott"), RAM_BYTES)
    machine.load(Kernel([Step(b"\x0f\x01\xe0\xa3" + word(0x20000))]).image())  # SMSW EAX; MOV [20000], EAX
    assert machine.run(KERNEL_CYCLES).divergences != []


def test_every_sensitive_row_traps() -> None:
    """The rows that the table calls sensitive, software interrupts apart, are those that the processor traps."""
    from x86virt.core.tables import ROW_INFO

    marked = {row.name for row, info in zip(ROWS, ROW_INFO, strict=True) if info.sensitive}
    assert {row.name for row in ROWS if row.silent or row.silent_user} <= marked
    assert {"mov_sw_ew", "pop_ds", "jmpf_ap", "callf_ap", "retf", "iret"} <= marked
    assert not marked & {"int_ib", "int3", "cli", "mov_ev_gv"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(segment_kernels((0, 1, 2, 3)))
def test_random_kernels_of_segments_are_exact(kernel: Kernel) -> None:
    comparison = compare(kernel.image())
    assume("budget" not in (comparison.native.outcome, comparison.other.outcome))
    assert_exact(comparison)

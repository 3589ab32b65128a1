"""Hostile domains: hypercalls with pointers everywhere and numbers at random. They are refused, and harm nothing."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from paravirtual_kernel import (
    DATA,
    FLAT_RING1_CS,
    FLAT_RING1_DS,
    FLAT_RING3_DS,
    FREE,
    GDT,
    KERNEL_STACK,
    LDT,
    START,
    STEPS,
    USER_STACK,
    Kernel,
    Step,
    calls,
    frame_of,
    hypercall,
    log,
    results,
    run,
)
from small_kernel import ESP, mov, push, store

from x86virt.vmm import layout as region
from x86virt.vmm.paravirtual import layout
from x86virt.vmm.paravirtual.interface import EFAULT, ENOSYS, HYPERCALLS, N_HYPERCALLS

ABSENT, VIRT_START = 0x700000, 0xFC000000
BAD_POINTERS = (ABSENT, VIRT_START, VIRT_START - 1, 0xFFC00000, 0xFFC10000, 0xFF800000, 0xFFFFFFFF, 0xFFFFFFFD)

# Calls whose first bad pointer is theirs to refuse: name, arguments with None for the pointer.
WITH_POINTERS = (
    ("set_trap_table", (None,)), ("mmu_update", (None, 1, 0, 0x7FF0)), ("set_gdt", (None, 512)), ("multicall", (None, 1)),
    ("memory_op", (0, None)), ("memory_op", (1, None)), ("memory_op", (6, None)), ("memory_op", (12, None)),
    ("event_channel_op", (6, None)), ("event_channel_op", (1, None)), ("event_channel_op", (4, None)),
    ("event_channel_op", (3, None)),
    ("event_channel_op_compat", (None,)), ("xen_version", (1, None)), ("xen_version", (3, None)), ("xen_version", (5, None)),
    ("xen_version", (6, None)), ("console_io", (0, 5, None)), ("grant_table_op", (2, None, 1)), ("grant_table_op", (0, None, 1)),
    ("grant_table_op", (5, None, 1)), ("vcpu_op", (4, 0, None)), ("vcpu_op", (6, 0, None)), ("vcpu_op", (8, 0, None)),
    ("mmuext_op", (None, 1, 0, 0x7FF0)), ("sched_op", (2, None)), ("sched_op", (3, None)), ("callback_op", (0, None)),
    ("callback_op", (1, None)), ("nmi_op", (0, None)), ("physdev_op", (5, None)), ("physdev_op", (6, None)),
    ("physdev_op", (7, None)),
    ("physdev_op_compat", (None,)), ("sched_op_compat", (77, None)),
)  # fmt: skip


@pytest.mark.parametrize("name, arguments", WITH_POINTERS)
def test_a_pointer_that_is_none_is_refused(name: str, arguments: tuple[int | None, ...]) -> None:
    """Absent pages, what lies across the VMM's border, the VMM's own memory, the end of the space: an error, and on it goes."""
    code = calls(*(hypercall(name, *(pointer if value is None else value for value in arguments)) for pointer in BAD_POINTERS))
    machine, result = run(Kernel([Step(code), Step(b"\xcc")]))
    assert result.outcome == "exited 1"
    found = results(machine, len(BAD_POINTERS))
    assert all(-200 < value < 0 for value in found), found
    if name not in ("sched_op_compat", "physdev_op"):
        assert -EFAULT in found
    assert log(machine)[-1][0] == 3 and machine.vm.faults() == []


MISSING = [number for number in range(N_HYPERCALLS + 8) if number not in HYPERCALLS]


@pytest.mark.parametrize("number", [*MISSING, 0x80000000, 0xFFFFFFFF])
def test_a_missing_hypercall_is_named_and_counted(number: int) -> None:
    """-ENOSYS, whatever the number."""
    machine, result = run(Kernel([Step(calls(hypercall(number, 1, 2, 3, 4, 5)))]))
    assert result.outcome == "exited 1" and results(machine, 1) == [-ENOSYS]
    assert result.ledger.event_count("xen.hypercall_missing") == 1


# -- at random ------------------------------------------------------------------------------------------------------------

numbers = st.one_of(st.sampled_from(sorted(HYPERCALLS)), st.integers(0, 80))
values = st.one_of(
    st.integers(0, 12), st.integers(0, 0xFFFFFFFF), st.sampled_from((0x7FF0, 0x7FF1, 0x7FF2, 0x7FF4, 1 << 31, 0xFFFFFFFF)),
    st.sampled_from((DATA, DATA + 0x800, FREE, GDT, LDT, KERNEL_STACK, USER_STACK, START, STEPS, ABSENT, VIRT_START)),
    st.builds(lambda page, bits: frame_of(page << 12) << 12 | bits, st.integers(0, 0x7FF), st.sampled_from((0, 1, 2, 8, 0x67))),
    st.builds(lambda page: frame_of(page << 12), st.integers(0, 0x7FF)), st.integers(0, 0x400), st.sampled_from(BAD_POINTERS),
    st.sampled_from((FLAT_RING1_CS, FLAT_RING1_DS, FLAT_RING3_DS, 0xFFC0, 0xFFC8, 7)),
)  # fmt: skip
random_calls = st.builds(hypercall, numbers, values, values, values, values, values)
words = st.builds(lambda place, value: store(DATA + 4 * place, value), st.integers(0, 1023), values)
stacks = st.builds(lambda esp, value: mov(ESP, esp) + push(value) + mov(ESP, KERNEL_STACK), values, values)
instructions = st.builds(lambda octets: octets, st.binary(min_size=1, max_size=6))
pieces = st.one_of(random_calls, random_calls, random_calls, words, words, stacks)
steps = st.one_of(
    st.builds(lambda found: Step(b"".join(found)), st.lists(pieces, min_size=1, max_size=6)),
    st.builds(lambda found, octets: Step(b"".join(found) + octets), st.lists(pieces, min_size=0, max_size=2), instructions),
    st.builds(lambda octets: Step(octets, 3), instructions),
)
OUTCOMES = ("exited ", "crashed: ", "halted", "reset", "budget", "halted_forever", "unsupported: ", "shut_down ")


def vmm_memory(machine) -> list[bytes]:
    """What of the VMM's region nothing that a domain does may change: its code, gates, segments and page tables."""
    memory = machine.vm.processor.memory
    own_page = region.GDT + 0xF000
    idt = memory[region.IDT : region.IDT + 2048].copy()
    idt[8 * 0x80 : 8 * 0x81] = 0
    places = ((region.ENTRIES, 0x2000), (region.REGION_TABLE, 0x1000), (region.GDT, 0x1000 * layout.N_DOMAINS))
    places += ((own_page, region.VMM_TSS_SELECTOR - 0xF000), (layout.MACHPHYS_TABLES, 0x1000), (layout.TSS + 104, 0x2F98))
    return [idt.tobytes(), *(memory[place : place + count].tobytes() for place, count in places)]


@hypothesis.settings(deadline=None, max_examples=60, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(st.lists(steps, min_size=1, max_size=12), st.booleans())
def test_no_domain_harms_the_vmm(found: list[Step], is_pae: bool) -> None:
    """The run ends in a named outcome; the VMM's memory is as it was; every frame is counted for what it is."""
    untouched, _ = run(Kernel([], is_pae=is_pae))
    machine, result = run(Kernel(found, is_pae=is_pae))
    assert result.outcome.startswith(OUTCOMES), result.outcome
    assert vmm_memory(machine) == vmm_memory(untouched)
    if not result.outcome.startswith("crashed"):
        assert machine.vm.faults() == []
    owners = np.array([int(frame.owner) for frame in machine.vm.frames[: region.VMM_BYTES >> 12]])
    before = np.array([int(frame.owner) for frame in untouched.vm.frames[: region.VMM_BYTES >> 12]])
    assert (owners == before).all()


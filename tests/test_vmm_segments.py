"""Segments under trap-and-emulate on a real x86: every kind of descriptor, the LDT, gates, rings, and what outlives them.

Random kernels (segment_kernels.py) and named cases run in lock step with the bare machine. Selectors of RPL 1 are left
out of the random ones: where the guest's kernel itself runs in ring 1, an RPL of 1 no longer restricts a load.
"""

from __future__ import annotations

import pytest
from descriptor_machine import descriptor, gate
from hypothesis import HealthCheck, assume, given, settings
from segment_kernels import LDT, LDT_SELECTOR, OTHER_LDT, make_kernel, segment_kernels, table_code
from small_kernel import (
    CODE_0,
    CODE_3,
    DATA,
    DATA_0,
    DATA_3,
    EAX,
    GDT,
    STEPS,
    Kernel,
    Step,
    assert_equal,
    compare,
    far_jump,
    load,
    load_segment,
    log,
    mov,
    push,
    run,
    save,
    store,
    word,
)

FLAT_DATA = descriptor(0, 0xFFFFF, 3, granular=1)
HELD = descriptor(DATA, 0xFFF, 3, dpl=3)


def logged(kernel: Kernel) -> list[tuple[int, ...]]:
    """E1 holds without a divergence; what the handlers logged under the VMM."""
    assert assert_equal(kernel, checkpoint=16).divergences == []
    machine, result = run(kernel, "trap-and-emulate")
    assert result.outcome == "exited 1"
    return log(machine)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(segment_kernels((0, 3)))
def test_random_kernels_of_segments_are_equal(kernel: Kernel) -> None:
    comparison = compare(kernel)
    assume("budget" not in (comparison.native.outcome, comparison.other.outcome))
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.divergences == []


# -- the LDT --------------------------------------------------------------------------------------------------------------


def with_ldt(*steps: Step, local: dict[int, int]) -> Kernel:
    """A kernel whose first step loads an LDT with these descriptors."""
    blank = [0] * 8
    for selector, value in local.items():
        blank[selector >> 3] = value
    return make_kernel([Step(table_code(LDT_SELECTOR)), *steps], [0] * 9, blank)


def test_a_program_runs_in_segments_of_the_ldt() -> None:
    code = load_segment(4, 0x07) + b"\x64" + load(EAX, 4) + save(DATA + 0x40, EAX)
    kernel = with_ldt(Step(code, 3), Step(load_segment(5, 0x0C) + b"\x65" + load(EAX, 0)), local={0x04: HELD, 0x0C: HELD})
    assert [entry[0] for entry in logged(kernel)] == [0]  # the system call alone


def test_another_ldt_drops_what_was_shadowed_of_the_first() -> None:
    steps = (
        Step(load_segment(4, 0x0C) + b"\x64" + load(EAX, 0)),
        Step(table_code(OTHER_LDT) + b"\x64" + load(EAX, 8) + load_segment(5, 0x0C) + b"\x65" + load(EAX, 0)),
        Step(table_code(0) + b"\x65" + load(EAX, 4) + load_segment(3, 0x0C)),
    )
    assert [entry[:2] for entry in logged(with_ldt(*steps, local={0x0C: HELD, 0x14: FLAT_DATA}))] == [(13, 0x0C)]


def test_a_written_ldt_is_noticed() -> None:
    change = store(LDT + 8 + 4, HELD >> 32 & ~(1 << 15)) + load_segment(3, DATA_3)  # no longer present
    steps = (Step(load_segment(4, 0x0C)), Step(change + b"\x64" + load(EAX, 0) + load_segment(4, 0x0C)))
    assert [entry[:2] for entry in logged(with_ldt(*steps, local={0x0C: HELD}))] == [(11, 0x0C)]


# -- segments that no table says any more -----------------------------------------------------------------------------------


@pytest.mark.parametrize("segment", (0, 3, 4, 5))
def test_a_register_keeps_what_it_was_loaded_with(segment: int) -> None:
    prefix = {0: b"\x26", 3: b"\x3e", 4: b"\x64", 5: b"\x65"}[segment]
    change = b"\x36\xc7\x05" + word(GDT + 0x60) + word(FLAT_DATA & 0xFFFFFFFF)
    change += b"\x36\xc7\x05" + word(GDT + 0x64) + word(FLAT_DATA >> 32)
    use = prefix + load(EAX, 4)
    code = load_segment(segment, 0x60) + change + use + mov(EAX, 0x60) + b"\x8e\xd0" + use  # SS from the new one
    code += load_segment(segment, 0x60) + prefix + load(EAX, STEPS)
    assert logged(Kernel([Step(code)], descriptors={0x60: HELD})) == []


def test_one_that_only_its_limit_above_the_vmm_tells_apart_stays_out_of_the_shadow() -> None:
    """Two segments with the same shadow: the processor's register cannot tell which of them it was loaded from."""
    nearly = descriptor(0, 0xFFFFE, 3, granular=1)
    change = b"\x36\xc7\x05" + word(GDT + 0x60) + word(nearly & 0xFFFFFFFF)
    change += b"\x36\xc7\x05" + word(GDT + 0x64) + word(nearly >> 32)
    code = load_segment(4, 0x60) + change + load_segment(5, 0x60) + b"\x0f\x20\xc0" + load_segment(4, 0x60)
    assert logged(Kernel([Step(code)], descriptors={0x60: FLAT_DATA})) == []


def test_sysexit_leaves_data_segments_of_ring_0() -> None:
    msr = mov(1, 0x174) + mov(EAX, CODE_0) + mov(2, 0) + b"\x0f\x30"
    user = {0x18: descriptor(0, 0xFFFFF, 11, dpl=3, granular=1), 0x20: descriptor(0, 0xFFFFF, 3, dpl=3, granular=1)}
    target = STEPS + 0x100
    code = msr + load_segment(4, DATA_0) + mov(2, target) + mov(1, 0x31000) + b"\x0f\x35"
    kernel = Kernel([Step(code)], descriptors=user)
    octets = b"\x64" + load(EAX, DATA) + b"\xcd\x80"
    kernel.octets[target] = octets
    assert [entry[0] for entry in logged(kernel)] == [0]


def test_a_detached_entry_that_the_guest_loads_stays_what_it_was() -> None:
    """The one load that should fault and does not: it is harmless, and what the register holds is known ever after."""
    kernel = Kernel([Step(load_segment(0, 0xFFE1) + b"\x26" + load(EAX, 4)), Step(load_segment(0, DATA_3))])
    machine, result = run(kernel, "trap-and-emulate")
    assert result.outcome == "exited 1"
    assert machine.vm is not None and machine.vm.segments.state(0).selector == DATA_3


# -- gates ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", (4, 12))
def test_a_call_gate_copies_parameters_to_the_inner_stack(kind: int) -> None:
    inner = STEPS + 0x200
    gated = {0x60: gate(0x68, inner - STEPS, kind, dpl=3, count=2), 0x68: descriptor(STEPS, 0xFFFFF, 11, granular=1)}
    parameters = push(0x1111) + push(0x2222) if kind == 12 else b"\x66\x68\x11\x11\x66\x68\x22\x22"
    pointer = word(0) + b"\x63\x00"
    kernel = Kernel([Step(parameters + b"\x9a" + pointer, 3)], descriptors=gated)
    pops = b"\x58\x5b\x59\x5a" if kind == 12 else b"\x66\x58\x66\x5b\x66\x59\x66\x5a"
    size = 8 if kind == 12 else 4
    back = b"\x83\xec" + bytes([2 * size]) + (b"\xca" if kind == 12 else b"\x66\xca") + bytes([size, 0])
    kernel.octets[inner] = pops + save(DATA, 1) + save(DATA + 4, 2) + back
    assert [entry[0] for entry in logged(kernel)] == [0 if kind == 12 else 14]  # of a return address of 16 bits
    memory = run(kernel, "trap-and-emulate")[0].vm.guest_ram()
    assert [int(memory[DATA + 4 * n]) | int(memory[DATA + 4 * n + 1]) << 8 for n in range(2)] == [0x2222, 0x1111]


@pytest.mark.parametrize("level", (1, 2))
def test_rings_1_and_2_have_their_own_stacks_and_gates(level: int) -> None:
    """A call gate from ring 3 into ring 1 or 2, a fault there, and a privileged instruction that it may not execute."""
    inner = STEPS + 0x200
    code = descriptor(0, 0xFFFFF, 11, dpl=level, granular=1)
    stack = descriptor(0, 0xFFFFF, 3, dpl=level, granular=1)
    table = {0x60: gate(0x68, inner, 12, dpl=3), 0x68: code, 0x70: stack}
    kernel = Kernel([Step(b"\x9a" + word(0) + b"\x63\x00", 3), Step(b"\x9a" + word(0) + b"\x63\x00", 3)], descriptors=table)
    kernel.octets[0x3000 + 4 + 8 * level] = word(0x7800) + word(0x70 | level)
    kernel.octets[inner] = load_segment(4, DATA_3) + load_segment(5, DATA_0)  # the second is #GP in these rings
    assert [entry[:2] for entry in logged(kernel)] == [(13, DATA_0)] * 2
    kernel.octets[inner] = b"\x60\x61\xfa"
    assert [(entry[0], entry[3] & 3) for entry in logged(kernel)] == [(13, level)] * 2


def test_conforming_code_runs_in_the_callers_ring() -> None:
    kernel = Kernel([Step(b"\x9a" + word(STEPS + 0x200) + b"\x60\x00"), Step(b"\x9a" + word(STEPS + 0x200) + b"\x60\x00", 3)])
    kernel.descriptors[0x60] = descriptor(0, 0xFFFFF, 14, granular=1)
    kernel.octets[STEPS + 0x200] = mov(EAX, DATA_3) + b"\x8e\xe0\xcb"
    assert [entry[0] for entry in logged(kernel)] == [0]


@pytest.mark.parametrize("kind", (6, 7), ids=("interrupt", "trap"))
@pytest.mark.parametrize("ring", (0, 3))
def test_16_bit_gates(kind: int, ring: int) -> None:
    gates = {0x81: gate(0x60, 0x2000, kind, dpl=3)}
    kernel = Kernel([Step(b"\xcd\x81" + save(DATA, 4), ring)], gates=gates)
    kernel.descriptors[0x60] = descriptor(STEPS - 0x1000, 0xFFFF, 11, db=0)  # 16-bit code
    kernel.octets[STEPS + 0x1000] = b"\x90\xcf"
    assert logged(kernel)[0][2] >> 16 == 0  # the return took the low half of the address alone, and faulted there


def test_a_16_bit_code_segment_of_the_kernel() -> None:
    kernel = Kernel([Step(far_jump(0x60, 0))], descriptors={0x60: descriptor(STEPS + 0x200, 0xFFF, 11, db=0)})
    kernel.octets[STEPS + 0x200] = b"\xb8\x34\x12\x66\x50\x66\x5b\x66\xea" + word(STEPS) + bytes([CODE_3 & ~3, 0])
    assert [entry[:2] for entry in logged(kernel)] == [(13, CODE_3 & ~3)]


# -- reports ---------------------------------------------------------------------------------------------------------------


def test_expand_down_segments_below_the_vmm_are_the_processors_own() -> None:
    down = descriptor(0x10000, 0xFFF, 6, db=0)
    code = load_segment(4, 0x60) + b"\x64" + load(EAX, 0x1000) + b"\x64" + load(EAX, 0xFFC)
    assert [entry[:2] for entry in logged(Kernel([Step(code)], descriptors={0x60: down}))] == [(13, 0)]

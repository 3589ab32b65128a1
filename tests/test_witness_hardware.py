"""The witness routines of VMMs on VMX: each has the effect of its Python handler, at the exits of real guests and at exits made
up from one."""

from collections import Counter
from functools import cache

import numpy as np
import pytest
from hardware_witness_machine import RealExit, compare_exit, make_machine, next_exit
from hypothesis import given, settings
from hypothesis import strategies as st

from x86virt.core.layout import HOOK
from x86virt.isa.registers import EAX, EBP, EBX, ECX, EDX, EFLAGS_IOPL, EFLAGS_VM, ESP
from x86virt.isa.vmx import REGION_FIELDS, SLOT
from x86virt.profile import load_profile
from x86virt.vmm import layout
from x86virt.vmm.hardware.layout import VMCS_REGION
from x86virt.vmm.hardware.vtx_segments import VIRTUAL_8086_RIGHTS, can_be_virtual_8086
from x86virt.vmm.options import HARDWARE_PATHS, NESTED_PATHS
from x86virt.vmm.prices import PathPrices
from x86virt.vmm.region import region_address
from x86virt.vmm.state import SegmentState
from x86virt.vmm.witness_hardware import (
    HOST_STACK,
    REASON,
    ExitWitness,
    lay_nested_tables,
    real_mode_segments,
    ticks_of,
)
from x86virt.vmm.witness_made import ready_machine
from x86virt.vmm.witness_run import REFUSED, symbols

PER_PLACE = 2  # exits of one guest instruction that are compared
MOST = 300
NESTED, SHADOW = "vtx-ept", "vtx-shadow,shadow=drop"
GUESTS = {NESTED: ("hello", "irq", "exits"), SHADOW: ("hello", "ptemod", "exits")}
ALONE = {"exit_decode", "real_mode_switch", "nested_drop", "exit_skip", "exit_msr", "exit_interrupt"}  # compared below
FEW = settings(max_examples=12)
M32 = 0xFFFFFFFF


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


# -- and at exits made up from one ------------------------------------------------------------------------------------


class Made:
    """A guest whose kernel, with paging on, has just exited by CPUID; with another exit in its place."""

    def __init__(self, strategy: str = NESTED) -> None:
        self.machine = make_machine("exits", "iterations=1", strategy)
        while next_exit(self.machine):
            vm = self.vm = self.machine.vm
            if vm.control.stored("exit_reason") == REASON["cpuid"] and vm.guest_state.peek("guest_cr0") >> 31:
                return
            self.machine.act(HOOK)
        raise AssertionError("the guest shows no CPUID")

    def put(self, key: str, value: int) -> None:
        """Let a field of the VMCS have a value."""
        place = region_address(VMCS_REGION) + REGION_FIELDS + 8 * SLOT[key]
        self.vm.processor.write_physical(place, (value & M32).to_bytes(8, "little"))

    def exits(self, reason: str, registers: dict[int, int] | None = None, **fields: int) -> Counter:
        """Compare the exit; what was seen."""
        self.put("exit_reason", REASON[reason])
        for key, value in fields.items():
            self.put(key, value)
        for number, value in (registers or {}).items():
            self.vm.processor.cpu.gpr[number] = value
        seen: Counter = Counter()
        assert compare_exit(self.machine, seen) == []
        return seen


DOUBLEWORDS = st.one_of(st.integers(0, M32), st.sampled_from((0, 1, 0x80000011, 0x80010031, 0x60000011, 0x200, 0x1000, M32)))
STRATEGIES = st.sampled_from((NESTED, SHADOW))
REGISTERS = st.sampled_from((0, 1, 2, 3, 5, 6, 7))


@FEW
@given(
    leaf=st.one_of(st.sampled_from((0, 1, 2, 4, 0x80000001, 0x80000008)), st.integers(0, 0x20), st.integers(0, M32)),
    selected=st.integers(0, 6),
)  # fmt: skip
def test_any_leaf_of_cpuid(leaf, selected):
    assert "exit_cpuid" in Made().exits("cpuid", {EAX: leaf, ECX: selected})


PORTS = st.sampled_from((0x20, 0x21, 0xA0, 0xA1, 0x61, 0x80, 0xE9, 0x70, 0x1234))


@FEW
@given(port=PORTS, size=st.sampled_from((0, 1, 3)), write=st.booleans(), value=DOUBLEWORDS)
def test_ports(port, size, write, value):
    qualification = port << 16 | (0 if write else 8) | size
    Made().exits("io_instruction", {EAX: value}, exit_qualification=qualification)


@settings(max_examples=40)
@given(
    strategy=STRATEGIES, number=st.sampled_from((0, 3, 4)), kind=st.integers(0, 3), register=REGISTERS, value=DOUBLEWORDS
)
def test_control_registers(strategy, number, kind, register, value):
    if kind == 1:
        number = 3  # the others are read through masks and shadows, without an exit
    elif kind >= 2:
        number = 0
    qualification = (value & 0xFFFF) << 16 | register << 8 | kind << 4 | number
    Made(strategy).exits("cr_access", {register: value}, exit_qualification=qualification)


@FEW
@given(
    write=st.booleans(), number=st.one_of(st.sampled_from((0x174, 0x175, 0x176, 0x277, 0x2FF)), st.integers(0, M32)),
    low=DOUBLEWORDS, high=DOUBLEWORDS,
)  # fmt: skip
def test_model_specific_registers(write, number, low, high):
    reason = "msr_write" if write else "msr_read"
    Made().exits(reason, {ECX: number, EAX: low, EDX: high})


@FEW
@given(
    reason=st.sampled_from(("invd", "wbinvd", "pause", "vmcall", "vmread", "vmresume", "vmclear")),
    blocking=st.integers(0, 2), flags=st.sampled_from((2, 0x202, 0x10202, 0x302)),
)  # fmt: skip
def test_instructions_that_are_stepped_over_or_undefined(reason, blocking, flags):
    Made().exits(reason, guest_interruptibility_state=blocking, guest_rflags=flags)


def test_an_interrupt_of_the_host():
    information = 1 << 31 | layout.HOST_TIMER_VECTOR
    assert "exit_interrupt" in Made().exits("external_interrupt", vm_exit_interruption_information=information)


FRAME_BELOW = 48  # bytes of it that lie below the host's stack pointer
ENCODINGS = (
    "0fa2", "f4", "0f08", "0f09", "f390", "e421", "e721", "ec", "66ef", "6c", "f36f", "0f20c0", "0f22d8", "0f06", "0f32",
    "0f30", "0f0138", "0f017c2404", "0f01bc8800100000", "0f013d00100000", "260f013c24", "0f0170f0", "cd80", "9c", "cf", "0f0111",
)  # fmt: skip


@pytest.mark.parametrize("code", ENCODINGS)
def test_the_decoder_finds_the_length(code):
    """The bytes are fetched through the guest's own tables, by both."""
    machine, octets = at_exit().machine, bytes.fromhex(code)
    vm = machine.vm
    vm.vcpu.begin()
    vm.prepare_walk()
    gla = vm.linear_eip()
    saved = [vm.guest.read(gla + place, 1) for place in range(len(octets))]
    for place, octet in enumerate(octets):
        vm.guest.write(gla + place, 1, octet)
    witness = RealExit(vm)
    witness.exit["vm_exit_instruction_length"] = 0
    measured = witness.at("exit_decode_alone", {EBP: HOST_STACK - FRAME_BELOW})
    assert measured.of("exit_decode") is not None, measured
    place = layout.EXIT_RECORD + layout.EXIT.fields["vm_exit_instruction_length"][1]
    length = int(vm.processor.ram[place : place + 4].view("<u4")[0])
    witness.restore()
    assert length == vm.instruction().length == len(octets)
    for place, octet in enumerate(saved):
        vm.guest.write(gla + place, 1, octet)


@cache
def at_exit() -> Made:
    """One exit for several tests, which leave it as it is."""
    return Made()


def test_an_entry_taken_back():
    vm = at_exit().vm
    witness = RealExit(vm)
    pool = slice(layout.SHADOW, layout.SHADOW + layout.SHADOW_PAGES * 4096)
    frames = [int(vm.control.stored("guest_rip")) >> 12, 0x300, len(vm.p2m) - 1]
    for frame in frames:
        witness.at("nested_drop_alone", {EBX: frame << 12})
        mine = vm.processor.ram[pool].copy()
        witness.restore()
        before = vm.processor.ram[pool].copy()
        vm.nested.drop(frame)
        assert (mine == vm.processor.ram[pool]).all()
        assert (mine != before).any() == (frame == frames[0])
        witness.restore()


# -- real mode in the form of virtual-8086 mode ---------------------------------------------------------------------------


@cache
def vehicle(profile: str = "nehalem") -> ExitWitness:
    """The image at an exit of a software VMM, where its routines are measured."""
    return ExitWitness(ready_machine(load_profile(profile)).vm)


def laid_down(witness: ExitWitness):
    """The record as the image left it."""
    octets = witness.vm.processor.ram[layout.EXIT_RECORD : layout.EXIT_RECORD + layout.EXIT.itemsize]
    return octets.copy().view(layout.EXIT)[0]


@settings(max_examples=30)
@given(
    selectors=st.lists(st.integers(0, 0xFFFF), min_size=6, max_size=6), odd=st.sampled_from((None, None, "base", "limit")),
    which=st.integers(0, 5), iopl=st.integers(0, 3), rights=st.sampled_from((0x93, 0x9B, 0x10000)),
)  # fmt: skip
def test_the_segments_of_real_mode_go_into_virtual_8086_mode_and_back(selectors, odd, which, iopl, rights):
    witness = vehicle()
    segments = real_mode_segments()
    segments[:6, 0], segments[:6, 1], segments[:6, 3] = selectors, np.array(selectors) << 4, rights
    segments[6:] = ((0x28, 0x1000, 0x67, 0x82), (0x30, 0x2000, 0x67, 0x8B))
    if odd is not None:
        segments[which, {"base": 1, "limit": 2}[odd]] ^= 0x10
    witness.exit["segments"], witness.exit["guest_rflags"] = segments, 2 | iopl << 12
    measured = witness.at("real_mode_enter_alone")
    fits = all(can_be_virtual_8086(SegmentState(*(int(value) for value in row))) for row in segments[:6])
    assert (measured.ending == REFUSED) == (not fits or iopl == 3)
    if measured.ending != REFUSED:
        left = laid_down(witness)
        assert left["segments"][:6, 3].tolist() == [VIRTUAL_8086_RIGHTS] * 6
        assert left["segments"][:6, :3].tolist() == segments[:6, :3].tolist()
        assert int(left["guest_rflags"]) == 2 | iopl << 12 | EFLAGS_VM
        witness.exit["segments"], witness.exit["hidden"] = left["segments"], left["hidden"]
        witness.exit["guest_rflags"] = left["guest_rflags"]
        witness.at("real_mode_leave_alone")
        assert laid_down(witness)["segments"].tolist() == segments.tolist()
        assert int(laid_down(witness)["guest_rflags"]) == 2 | iopl << 12 & EFLAGS_IOPL


# -- prices -----------------------------------------------------------------------------------------------------------------


def test_a_fill_costs_by_the_tables_that_it_visits():
    witness, price = vehicle(), PathPrices(load_profile("nehalem"))
    for levels in (2, 3, 4):
        lay_nested_tables(witness, levels, levels)
        ticks = ticks_of(witness.exits("ept_violation", nested=1), "nested_fill")
        assert ticks == price.ticks("nested_fill", levels) > price.ticks("nested_fill", 0) > 0


# Path -> exits that are charged it, beside the one that it is measured at.
MEMBERS = {
    "exit_control_register": ((0, 0x80000011), (4, 0x90), (0x20, 0), (0x10 | 3, 0), (0x30 | 0x80000, 0)),
    "exit_port": ((0x21 << 16 | 8, 0), (0x80 << 16, 0), (0xE9 << 16, 0x41), (0x20 << 16, 0x20)),
}
REASONS = {"exit_control_register": "cr_access", "exit_port": "io_instruction"}


@pytest.mark.parametrize("path", sorted(MEMBERS))
def test_members_of_a_class_cost_about_as_much(path):
    witness = vehicle()
    priced = PathPrices(load_profile("nehalem")).ticks(path, 1)
    for qualification, value in MEMBERS[path]:
        measured = witness.exits(REASONS[path], {EAX: value}, exit_qualification=qualification)
        assert 0.5 <= ticks_of(measured, path) / priced <= 2.0, hex(qualification)


def test_the_stack_of_a_host_leaves_room_for_a_frame():
    """Behind the image's run the stack pointer is where the processor had put it."""
    witness = vehicle()
    measured = witness.exits("cpuid", {EAX: 1})
    assert measured.ending == "exit_dispatch"
    assert int(witness.cpu.gpr[ESP]) == layout.VMM_BASE + layout.STACK_TOP - 28
    assert symbols()["vm_exit"] > layout.VMM_BASE + layout.WITNESS

"""Isolation, checked at every access that originates in a guest operand (core/isolation.py)."""

from __future__ import annotations

import pytest
from guest_sets import portable_guests, short_line
from hypothesis import given, settings
from random_kernels import kernels
from small_kernel import (
    DATA,
    EAX,
    RAM_BYTES,
    Kernel,
    Step,
    load,
    mov,
    push,
    store,
    strategy,
    word,
)

from x86virt import Strategy, find_guest, load_profile
from x86virt.machine import Machine, RunResult
from x86virt.vmm import Exit, VirtualMachine, layout
from x86virt.vmm.region import region_address

MEMORY = 8 << 20
MAX_CYCLES = 2_000_000_000
TARGET = DATA + 0x3000
TrapAndEmulate: type = type(strategy("trap-and-emulate"))


def run_guest(name: str, which: Strategy, checked: bool) -> RunResult:
    """One run of a shipped guest."""
    machine = Machine(which, load_profile("p4_prescott"), MEMORY, check_isolation=checked)
    machine.load(find_guest(name), short_line(name, 1 if name == "mix" else 2))
    return machine.run(MAX_CYCLES)


def run_kernel(kernel: Kernel, which: Strategy, checked: bool = True) -> RunResult:
    """One run of a small kernel."""
    machine = Machine(which, load_profile("p4_prescott"), RAM_BYTES, check_isolation=checked)
    machine.load(kernel.image())
    return machine.run(MAX_CYCLES)


@pytest.mark.parametrize("under", ("native", "trap-and-emulate"))
@pytest.mark.parametrize("name", portable_guests())
def test_every_guest_is_clean_and_costs_the_same(name: str, under: str) -> None:
    checked, plain = (run_guest(name, strategy(under), on) for on in (True, False))
    assert checked.outcome == plain.outcome == "halted"
    assert (checked.ticks, checked.instructions, checked.console) == (plain.ticks, plain.instructions, plain.console)
    assert checked.ledger == plain.ledger


@settings(max_examples=30)
@given(kernels)
def test_random_kernels_are_clean(kernel: Kernel) -> None:
    checked, plain = (run_kernel(kernel, strategy("trap-and-emulate"), on) for on in (True, False))
    assert checked.outcome == plain.outcome and not checked.outcome.startswith("isolation")
    assert checked.ticks == plain.ticks


class MapsItself(TrapAndEmulate):
    """Its shadow maps one page of the guest onto the VMM's own IDT."""

    def on_page_fault(self, vm: VirtualMachine, exit: Exit) -> None:
        """Fill the shadow, and put another frame there."""
        super().on_page_fault(vm, exit)
        if exit.gla >> 12 == TARGET >> 12 and vm.vcpu.cr0 >> 31:
            table = vm.shadow.read_entry(vm.shadow.root + 4 * (exit.gla >> 22)) & 0xFFFFF000
            address = table + 4 * (exit.gla >> 12 & 0x3FF)
            vm.shadow.write_entry(address, region_address(layout.IDT) | vm.shadow.read_entry(address) & 0xFFF)


OPERANDS = {
    "read": load(EAX, TARGET + 4),
    "write": mov(EAX, 1) + store(TARGET + 8, 1),
    "read-modify-write": b"\xff\x05" + word(TARGET + 8),
    "push": mov(4, TARGET + 0x100) + push(1),
    "string": mov(7, TARGET - 8) + mov(1, 6) + b"\xfc\xf3\xab",
    "across pages": load(EAX, TARGET - 2),
    "fetch": mov(EAX, TARGET) + b"\xff\xe0",
    "fetch across pages": store(TARGET - 4, 0xB8909090) + mov(EAX, TARGET - 4) + b"\xff\xe0",
}


@pytest.mark.parametrize("ring", (0, 3))
@pytest.mark.parametrize("operand", OPERANDS)
def test_a_shadow_that_maps_the_vmm_is_caught_at_the_access(operand: str, ring: int) -> None:
    kernel = Kernel([Step(OPERANDS[operand], ring)])
    assert not run_kernel(kernel, strategy("trap-and-emulate")).outcome.startswith("isolation")
    outcome = run_kernel(kernel, MapsItself()).outcome
    access = {"read": "read", "across pages": "read"}.get(operand, "fetch" if "fetch" in operand else "write")
    if operand == "read-modify-write":
        access = "write"
    assert outcome.startswith(f"isolation: a {access} at linear 0x")
    assert f"reached machine address {layout.IDT:#x}"[:-2] in outcome
    assert not run_kernel(kernel, MapsItself(), checked=False).outcome.startswith("isolation")


class WrongFrame(TrapAndEmulate):
    """Its p2m names one of the VMM's frames."""

    def setup(self, machine: Machine) -> None:
        """Break the p2m behind the table of owners."""
        machine.vm.p2m[TARGET >> 12] = layout.GDT >> 12


def test_an_access_that_the_vmm_performs_for_the_guest_is_checked() -> None:
    """LGDT is emulated, and reads its operand through the p2m."""
    kernel = Kernel([Step(b"\x0f\x01\x15" + word(TARGET))])
    outcome = run_kernel(kernel, WrongFrame()).outcome
    assert outcome.startswith(f"isolation: the VMM's access to guest-physical {TARGET:#x} reaches machine address")


def test_an_untruncated_segment_is_caught_at_the_access() -> None:
    """The implicit accesses of the processor to the VMM's tables stay allowed."""
    machine = Machine(strategy("trap-and-emulate"), load_profile("p4_prescott"), RAM_BYTES, check_isolation=True)
    machine.load(Kernel([Step(load(EAX, layout.VMM_BASE + layout.IDT)), Step(b"\x31\xc9\xf7\xf1")]).image())
    while int(machine.processor.cpu.cpl) == 0 or int(machine.processor.cpu.retired) < 20:
        assert machine.advance(int(machine.processor.cpu.retired) + 1)
    original = machine.vm.descriptors.write

    def untruncated(selector: int, descriptor) -> None:
        original(selector, type(descriptor)(descriptor.low | 0xFFFF, descriptor.high | 0xF0000 | 1 << 23))

    machine.vm.descriptors.write = untruncated
    for segment in (0, 3, 4, 5):
        cache = machine.processor.cpu.seg[segment]
        machine.processor.set_segment(segment, int(cache.selector), 0, 0xFFFFFFFF, int(cache.access))
    outcome = machine.run(MAX_CYCLES).outcome
    assert outcome.startswith(f"isolation: a read at linear {layout.VMM_BASE + layout.IDT:#x}")

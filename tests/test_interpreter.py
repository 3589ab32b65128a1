"""The VMM's interpreter: whatever traps may be performed by it, and the guest is none the wiser.

The strategy of these tests emulates nothing: every instruction that traps is interpreted, with the fault that it may raise.
The oracle is the bare machine, in lock step (E1), or replaying what the VMM gave (E2).
"""

from __future__ import annotations

import pytest
from descriptor_machine import descriptor
from hypothesis import given, settings
from random_kernels import kernels
from small_kernel import CODE_0, DATA, DATA_0, EAX, STEPS, Kernel, Step, compare, load, load_segment, mov, strategy

from x86virt import find_guest, load_profile
from x86virt.equivalence import compare_runs
from x86virt.isa.events import EVENT_VMM_INTERPRET, EVENTS
from x86virt.machine import Machine
from x86virt.vmm import Exit, VirtualMachine

MEMORY = 16 << 20
MAX_CYCLES = 2_000_000_000
TrapAndEmulate: type = type(strategy("trap-and-emulate"))


class InterpretEach(TrapAndEmulate):
    """Everything that traps is interpreted, but INT n through an open gate and SYSENTER, which are over when they trap."""

    name = "interpret-each"

    def on_general_protection(self, vm: VirtualMachine, exit: Exit) -> None:
        """Interpret."""
        vm.interpret_one()

    on_segment_not_present = on_stack_fault = on_invalid_tss = on_general_protection
    on_divide_error = on_bound = on_invalid_opcode = on_device_not_available = on_general_protection
    on_x87_error = on_alignment_check = on_general_protection


@pytest.mark.parametrize("name", ["syscall", "divzero", "pgfault", "ptemod", "cr3switch", "portio", "smc", "clock"])
def test_a_guest_whose_traps_are_interpreted_is_equal(name: str) -> None:
    comparison = compare_runs(
        find_guest(name), InterpretEach(), strategy("native"), load_profile("nehalem"), MEMORY, "iterations=2", MAX_CYCLES
    )
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.other.ledger.event_count("vmm.interpret") > 10


@settings(max_examples=40, deadline=None)
@given(kernels)
def test_random_kernels_whose_traps_are_interpreted_are_equal(kernel: Kernel) -> None:
    comparison = compare(kernel, InterpretEach())
    assert comparison.equal, "\n".join(comparison.report)


def test_an_interpreted_sysexit_leaves_data_segments_of_ring_0() -> None:
    """They must outlive the VMM's own return to ring 3, of which the processor thinks that it is one to an outer ring."""
    msr = mov(1, 0x174) + mov(EAX, CODE_0) + mov(2, 0) + b"\x0f\x30"
    user = {0x18: descriptor(0, 0xFFFFF, 11, dpl=3, granular=1), 0x20: descriptor(0, 0xFFFFF, 3, dpl=3, granular=1)}
    code = msr + load_segment(4, DATA_0) + mov(2, STEPS + 0x100) + mov(1, 0x31000) + b"\x0f\x35"
    kernel = Kernel([Step(code)], descriptors=user)
    kernel.octets[STEPS + 0x100] = b"\x64" + load(EAX, DATA) + b"\xcd\x80"
    comparison = compare(kernel, InterpretEach())
    assert comparison.equal, "\n".join(comparison.report)


def test_an_interpreted_instruction_has_the_price_of_the_profile() -> None:
    """Count and ticks of the ledger: nothing but the two events of the interpreter, each at its fixed price."""
    machine = Machine(InterpretEach(), load_profile("nehalem"), MEMORY)
    machine.load(find_guest("ptemod"), "iterations=3")
    result = machine.run(MAX_CYCLES)
    price = int(machine.processor.cpu.price[EVENT_VMM_INTERPRET])
    assert price == 70 * 64
    for event in ("vmm.interpret", "vmm.interpreter_switch"):
        count = result.ledger.event_count(event)
        assert count > 0
        assert result.ledger.event_ticks(event) == count * int(machine.processor.cpu.price[NUMBER[event]])
    assert result.ledger.event_count("vmm.emulate_invlpg") == 0


NUMBER = {event.name: number for number, event in enumerate(EVENTS)}

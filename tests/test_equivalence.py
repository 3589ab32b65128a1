"""E1: shipped guests and random kernels behave under trap-and-emulate as on the bare machine, and the tool can fail.

What the bare machine does is checked elsewhere, against Unicorn, QEMU and the manual; here only equality is in
question.
"""

from __future__ import annotations

import re

import pytest
from guest_sets import DISK_GUESTS, TIMED_GUESTS, portable_guests
from hypothesis import given, settings
from profile_for import profile_for
from random_kernels import kernels
from small_kernel import (
    CODE_3,
    DATA,
    EAX,
    ECX,
    SHORT_DATA,
    TABLE,
    Kernel,
    Step,
    assert_equal,
    compare,
    load,
    mov,
    push,
    run,
    start,
    store,
    strategy,
    word,
)

from x86virt import Strategy, find_guest, load_profile
from x86virt.equivalence import Comparison, compare_runs
from x86virt.machine import Machine, RunResult
from x86virt.saved import machine_bytes, machine_of
from x86virt.vmm import Exit, VirtualMachine
from x86virt.vmm.probe import MOST_LOOKS, Probe

MEMORY = 8 << 20
MAX_CYCLES = 2_000_000_000
NOT_E1 = (*TIMED_GUESTS, *DISK_GUESTS, "stealth", "unix")  # they live by time (test_replay.py, test_unix.py), or look for the VMM
E1_GUESTS = [name for name in portable_guests() if name not in NOT_E1]
TrapAndEmulate: type = type(strategy("trap-and-emulate"))


def compare_guest(name: str, under: Strategy, command_line: str = "iterations=3") -> Comparison:
    """E1 of a shipped guest."""
    profile = load_profile(profile_for(under))
    return compare_runs(find_guest(name), under, strategy("native"), profile, MEMORY, command_line, MAX_CYCLES, 1 << 14)


def run_guest(name: str, strategy_name: str, command_line: str = "iterations=3") -> RunResult:
    """One run of a shipped guest."""
    machine = Machine(strategy(strategy_name), load_profile(profile_for(strategy_name)), MEMORY)
    machine.load(find_guest(name), command_line)
    return machine.run(MAX_CYCLES)


# -- the shipped guests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", E1_GUESTS)
def test_guest_is_equal_at_every_checkpoint(name: str) -> None:
    comparison = compare_guest(name, strategy("trap-and-emulate"), "iterations=1" if name == "mix" else "iterations=3")
    assert comparison.equal, "\n".join(comparison.report)
    assert (comparison.native.outcome, comparison.native.exit_code) == ("halted", 0)
    assert comparison.native.instructions == comparison.other.instructions > 1000
    assert comparison.divergences == []


def test_the_only_guests_without_e1_are_those_of_time_and_of_sensitive_instructions() -> None:
    assert set(portable_guests()) - set(E1_GUESTS) == {"blockio", "clock", "exits", "irq", "stealth", "unix"}
    assert len(E1_GUESTS) >= 10


CALL_NEXT = b"\xe8\0\0\0\0\x83\x04\x24\x05"  # push the address of what stands behind the next byte
IOPL_3, IF_OFF = 0x3202, 0x3002
# The guest's CR0.NE is clear where the processor's is set; x87 images hold the CS selector of the last instruction.
STORES = (b"\x0f\x00\x0d" + word(DATA), b"\x0f\x01\x25" + word(DATA))  # STR, SMSW to memory
STEALTHY_KERNEL = (
    *STORES,
    b"\x0f\x01\xe0",  # SMSW
    b"\xd9\xe8\xd9\x35" + word(DATA),  # FLD1, FNSTENV
    b"\xd9\xe8\x0f\xae\x05" + word(DATA),  # FLD1, FXSAVE
    b"\xd9\xe8\xdd\x35" + word(DATA),  # FLD1, FNSAVE
)
NEVER_LOADED = mov(ECX, SHORT_DATA | 3)
STEALTHY_PROGRAM = (
    *STORES,
    b"\x0f\x01\x05" + word(DATA),  # SGDT
    b"\x0f\x01\x0d" + word(DATA),  # SIDT
    b"\x0f\x00\xc8",  # STR
    b"\x0f\x01\xe0",  # SMSW
    b"\x9c\x58",  # PUSHF
    push(IF_OFF) + b"\x9d",  # POPF
    push(IF_OFF) + push(CODE_3) + CALL_NEXT + b"\xcf",  # IRET to the same ring
    *(NEVER_LOADED + octets for octets in (b"\x0f\x02\xd1", b"\x0f\x03\xd1", b"\x0f\x00\xe1", b"\x0f\x00\xe9")),
)
# In test_declared_divergences.py: far calls, and loads of the VMM's own entries.
FAR_CALLS = {(name, "guest_kernel", "memory") for name in ("callf_ap", "callf_mp")}
ELSEWHERE = FAR_CALLS | {key for key in TrapAndEmulate.known_divergences if key[2] == "segment"}


def test_exactly_the_declared_divergences_are_logged() -> None:
    """The guest `stealth` shows those of the kernel, a program with IOPL 3 those of ring 3."""
    result = run_guest("stealth", "trap-and-emulate")
    assert result.outcome == "halted"
    program = Kernel([*map(Step, STEALTHY_KERNEL), *(Step(octets, 3, IOPL_3) for octets in STEALTHY_PROGRAM)])
    _, of_program = run(program, "trap-and-emulate")
    assert of_program.outcome == "exited 1"
    logged = {found.key for found in (*result.divergences, *of_program.divergences)}
    assert logged == TrapAndEmulate.known_divergences - ELSEWHERE
    assert run_guest("stealth", "native").divergences == []


@pytest.mark.parametrize("name", ["native", "trap-and-emulate"])
def test_irq_passes_its_own_checks(name: str) -> None:
    result = run_guest("irq", name)
    assert (result.outcome, result.exit_code) == ("halted", 0), result.console
    assert result.divergences == []


# -- random kernels ---------------------------------------------------------------------------------------------------


@settings(max_examples=120)
@given(kernels)
def test_random_kernels_are_equal(kernel: Kernel) -> None:
    comparison = assert_equal(kernel)
    assert comparison.native.outcome == comparison.other.outcome


# -- the tool is able to fail: strategies with one bug each -----------------------------------------------------------


class DeafToCli(TrapAndEmulate):
    """Its CLI does nothing."""

    def on_general_protection(self, vm: VirtualMachine, exit: Exit) -> None:
        """Skip CLI."""
        instruction = vm.instruction()
        if instruction is not None and instruction.operation == "CLI":
            vm.vcpu.frame.eip += instruction.length
            vm.retire()
        else:
            self.emulate_or_reflect(vm, exit)


class ForgetsDirty(TrapAndEmulate):
    """It lets the guest write without setting the dirty bit of the guest's table."""

    def on_page_fault(self, vm: VirtualMachine, exit: Exit) -> None:
        """Fill the shadow, take the dirty bit back."""
        super().on_page_fault(vm, exit)
        entry = TABLE + (exit.gla >> 12) * 4
        if vm.vcpu.cr0 >> 31:
            vm.guest.write_gpa(entry, 4, vm.guest.read_gpa(entry, 4) & ~0x40)


class ReflectsWithoutIf(TrapAndEmulate):
    """The frame of a reflected divide error has IF clear."""

    def on_divide_error(self, vm: VirtualMachine, exit: Exit) -> None:
        """Reflect with the virtual IF already clear."""
        vm.vcpu.interrupt_flag = 0
        vm.reflect_exit(exit)


class SkipsCr3Flush(TrapAndEmulate):
    """INVLPG leaves the shadow as it is."""

    def on_general_protection(self, vm: VirtualMachine, exit: Exit) -> None:
        """Skip INVLPG."""
        instruction = vm.instruction()
        if instruction is not None and instruction.operation == "INVLPG":
            vm.vcpu.frame.eip += instruction.length
            vm.retire()
        else:
            self.emulate_or_reflect(vm, exit)


class WrongErrorCode(TrapAndEmulate):
    """Page faults are reflected with an error code that lacks U/S."""

    def on_page_fault(self, vm: VirtualMachine, exit: Exit) -> None:
        """Take the faulting access for one of the supervisor."""
        if exit.cpl == 3 and exit.gla == DATA + 0x1000:
            vm.vcpu.cr2 = exit.gla
            exit.qualification &= ~4
            vm.reflect_exit(exit)
        else:
            super().on_page_fault(vm, exit)


class WritesConsoleTwice(TrapAndEmulate):
    """OUT to the console prints every character twice."""

    def on_general_protection(self, vm: VirtualMachine, exit: Exit) -> None:
        """Perform the instruction, and its device access once more."""
        instruction = vm.instruction()
        if instruction is not None and instruction.octets == b"\xe6\xe9":
            vm.devices.write(0xE9, 1, vm.register(EAX) & 0xFF)
        self.emulate_or_reflect(vm, exit)


REMAP = store(TABLE + 0x80 * 4, DATA | 0x67) + b"\x0f\x01\x3d" + word(0x80000)
DIVIDE = b"\x31\xc9\xf7\xf1"
PLANTED = [
    (DeafToCli, Kernel([Step(b"\xfb\x90\x90"), Step(b"\xfa\x90")]), "cli"),
    (ForgetsDirty, Kernel([Step(mov(EAX, 5) + store(DATA + 8, 5))]), "mov"),
    (ReflectsWithoutIf, Kernel([Step(b"\xfb\x90" + DIVIDE)]), "div ecx"),
    (SkipsCr3Flush, Kernel([Step(load(EAX, 0x80000) + REMAP + b"\x90\xff\x05" + word(DATA) + load(ECX, 0x80000))]), ""),
    (WrongErrorCode, Kernel([Step(load(EAX, DATA + 0x1000), 3)], pages={DATA + 0x1000: 0}), "mov eax"),
    (WritesConsoleTwice, Kernel([Step(b"\xb0\x41\xe6\xe9")]), "out 0xe9, al"),
]


@pytest.mark.parametrize(("buggy", "kernel", "instruction"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_bug_is_found_and_its_instruction_named(buggy: type, kernel: Kernel, instruction: str) -> None:
    assert_equal(kernel)
    comparison = compare(kernel, buggy())
    assert not comparison.equal
    assert re.match(rf"first divergence: instruction \d+ at eip 0x[0-9a-f]+: {instruction}", comparison.report[0]), (
        comparison.report[:8]
    )


def test_the_report_shows_the_field_and_both_states() -> None:
    report = compare(PLANTED[0][1], DeafToCli()).report
    assert any(line.strip().startswith("eflags: 0x2") for line in report)
    assert any(line.startswith("state on the bare machine") for line in report)
    assert any(line.startswith("state under trap-and-emulate") for line in report)


def test_a_different_end_is_a_difference() -> None:
    class Quits(TrapAndEmulate):
        """Shuts the guest down at its first divide error."""

        def on_divide_error(self, vm: VirtualMachine, exit: Exit) -> None:
            """End the run."""
            vm.machine.stop("triple_fault")

    comparison = compare(Kernel([Step(DIVIDE), Step(b"\x90" * 40)]), Quits())
    assert not comparison.equal
    assert comparison.other.outcome == "triple_fault"


def test_a_loop_over_a_sensitive_instruction_is_looked_at_so_often_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A guest that loops over what the probe watches ends in time; a saved run counts on."""
    step = Step(mov(ECX, 20_000) + b"\x0e\x58\xe2\xfc")  # PUSH CS, POP EAX, LOOP
    machine = start(Kernel([step]), "trap-and-emulate")
    reports: list[int] = []
    report = Probe.report
    monkeypatch.setattr(Probe, "report", lambda probe: reports.append(1) or report(probe))
    result = machine.run(20_000_000)
    assert result.outcome == "exited 1" and result.instructions > 60_000
    assert len(reports) == sum(machine.probe.looks.values()) + 1  # once it was seen enough, nothing comes to Python
    assert max(machine.probe.looks.values()) == MOST_LOOKS
    assert MOST_LOOKS - 2 <= len({found.n for found in result.divergences}) <= MOST_LOOKS  # the first look may page-fault
    saved = start(Kernel([step]), "trap-and-emulate")
    assert saved.advance(200)
    restored = machine_of(machine_bytes(saved), "memory")
    assert 0 < max(restored.probe.looks.values()) < MOST_LOOKS
    again = restored.run(20_000_000)
    assert (again.divergences, again.ticks) == (result.divergences, result.ticks)

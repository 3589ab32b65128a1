"""VT-x with extended page tables: which exits are left, what an exit moves of the guest's state, and that looking on is free."""

from __future__ import annotations

import functools

import pytest
from profile_for import profile_for

from x86virt import Machine, find_guest, find_strategy, load_profile
from x86virt.gdb.registers import write_register
from x86virt.inspection import View
from x86virt.machine import RunResult

MEMORY = 8 << 20
LINE = "iterations=20"
# Exits that any guest of ours has: pages touched for the first time, ports, and the way into paging.
USUAL = {"ept_violation", "io_instruction", "cr_access"}


def machine_of(guest: str, name: str = "vtx-ept") -> Machine:
    """A machine whose guest is about to start."""
    machine = Machine(find_strategy(name)(), load_profile(profile_for(name)), MEMORY)
    machine.load(find_guest(guest), LINE)
    return machine


@functools.cache
def result_of(guest: str, name: str = "vtx-ept") -> RunResult:
    """A whole run."""
    return machine_of(guest, name).run()


@pytest.mark.parametrize("guest", ["cr3switch", "pgfault", "ptemod", "divzero", "intflag", "callret"])
def test_the_guests_own_paging_and_events_take_no_exit(guest: str) -> None:
    """Neither CR3, INVLPG, page faults, exceptions nor its interrupt flag: 2 control-register exits are those into paging."""
    exits = result_of(guest).exits
    assert set(exits) <= USUAL
    assert exits["cr_access"].number == 2


def test_a_shadow_takes_an_exit_for_each() -> None:
    exits = result_of("cr3switch", "vtx-shadow").exits
    assert exits["cr_access"].number > 20


@pytest.mark.parametrize("guest", ["portio", "syscall"])
def test_eager_switching_reads_and_writes_more_and_changes_nothing(guest: str) -> None:
    lazy, eager = result_of(guest), result_of(guest, "vtx-ept,state=eager")
    assert (lazy.outcome, lazy.instructions, lazy.console) == (eager.outcome, eager.instructions, eager.console)
    numbers = [{reason: row.number for reason, row in result.exits.items()} for result in (lazy, eager)]
    assert numbers[0] == numbers[1]
    for event in ("vmx.vmread", "vmx.vmwrite"):
        assert eager.ledger.event_count(event) > 3 * lazy.ledger.event_count(event)


def test_a_port_access_reads_what_it_needs() -> None:
    """Reason, length, qualification; RIP, RFLAGS (TF, IF) and what STI holds off: 6 reads; RIP is written back."""
    machine = machine_of("portio")
    reads, writes = [], []
    while machine.outcome is None:
        before = machine.ledger()
        reason = None
        while machine.outcome is None and reason is None:
            count = machine.exits().get("io_instruction")
            machine.advance(int(machine.processor.cpu.retired) + 1)
            now = machine.exits().get("io_instruction")
            if now is not None and (count is None or now.number > count.number):
                reason = now
            else:
                before = machine.ledger()
        spent = machine.ledger() - before
        reads.append(spent.event_count("vmx.vmread"))
        writes.append(spent.event_count("vmx.vmwrite"))
        if len(reads) == 6:
            break
    assert set(reads) == {6} and set(writes) == {1}


def test_looking_on_costs_nothing() -> None:
    """Registers, memory and what the VMM holds, at every hundredth instruction."""
    watched, alone = machine_of("syscall"), result_of("syscall")
    view = View(watched)
    while watched.advance(int(watched.processor.cpu.retired) + 100):
        registers, segments = view.state()
        assert segments["cs"].selector & 3 == registers["cpl"]
        assert view.text_at(view.instruction_address(), registers["eip"], 1)
        assert watched.vm is not None and len(watched.vm.describe()) == 4
    result = watched.result()
    assert (result.ticks, result.exits) == (alone.ticks, alone.exits) and result.ledger == alone.ledger


def test_a_debugger_writes_registers_of_the_running_guest() -> None:
    machine = machine_of("callret")
    machine.advance(3000)
    for name, value in (("ebx", 0x12345678), ("cr2", 0xABC000)):
        assert write_register(machine, name, value)
        assert View(machine).registers()[name] == value
    assert not write_register(machine, "cr3", 0)


@pytest.mark.parametrize(("name", "profile", "lacks"), [
    ("vtx-ept", "p4_cedarmill", "nested paging"), ("vtx-ept", "k10_barcelona", "VMX"), ("svm-npt", "nehalem", "SVM"),
])  # fmt: skip
def test_a_processor_without_the_hardware_says_so(name: str, profile: str, lacks: str) -> None:
    machine = Machine(find_strategy(name)(), load_profile(profile), MEMORY)
    machine.load(find_guest("hello"))
    assert machine.run().outcome.startswith(f"unsupported: {profile} has no {lacks}")

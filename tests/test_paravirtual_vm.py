"""A machine with domains as a whole: hooks and machine code alike, a debugger's view, saved files made on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from paravirtual_kernel import DATA, STEPS, Kernel, Step, calls, hypercall, log, memory_of, results, start, words_of
from small_kernel import EAX, ECX, mov, save

from x86virt import Machine, Strategy, find_strategy
from x86virt.core.layout import NEVER, STOP_ON_CODE
from x86virt.errors import UserError
from x86virt.gdb.registers import write_register
from x86virt.isa.registers import EBX
from x86virt.saved import machine_bytes, machine_of
from x86virt.vmm import Exit, ParavirtualVm
from x86virt.vmm.paravirtual import layout
from x86virt.vmm.paravirtual.interface import ENOSYS, HYPERCALLS
from x86virt.vmm.paravirtual.records import ACTIVE, ACTIVE_ENTRIES, MAPPING, MAPPINGS

CYCLES = 20_000_000
ONE_DOMAIN, TWO_DOMAINS = "paravirtual,domain_0=off,p2m=contiguous", "paravirtual,p2m=contiguous"
VERSION = hypercall("xen_version", 0)
BOTH = pytest.mark.parametrize("under", [ONE_DOMAIN, TWO_DOMAINS])


def kernel(is_pae: bool = False) -> Kernel:
    """A few hypercalls, a fault in ring 3, a hypercall from ring 3, one that is not there."""
    return Kernel(
        [Step(calls(VERSION, hypercall("sched_op", 0, 0))), Step(b"\x0f\x0b", 3), Step(VERSION, 3), Step(calls(hypercall(55)))],
        is_pae,
    )


def of(under: str, is_pae: bool = False) -> Machine:
    return start(kernel(is_pae), find_strategy(under)())


def everything(machine: Machine) -> dict[str, Any]:
    """All that two runs can differ in."""
    result = machine.run(CYCLES)
    return {
        "outcome": (result.outcome, result.instructions, result.ticks, result.console, result.unpriced),
        "ledger": (result.ledger.count.tolist(), result.ledger.ticks.tolist()),
        "exits": {reason: str(row) for reason, row in sorted(result.exits.items())},
        "state": machine.strategy.virtual_state(machine).digest(),
        "log": log(machine),
        "memory": machine.processor.ram[:].tobytes(),
    }


def assert_same(one: Machine, other: Machine) -> None:
    first, second = everything(one), everything(other)
    for name, value in first.items():
        assert second[name] == value, name


@BOTH
@pytest.mark.parametrize("is_pae", [False, True], ids=["2-level", "PAE"])
def test_hooks_do_what_machine_code_does(under: str, is_pae: bool) -> None:
    one, other = of(under, is_pae), of(under, is_pae)
    other.exits_in_code.wanted = False
    assert_same(one, other)
    assert one.outcome == "exited 1" and one.exits_in_code.handled > 5


@BOTH
def test_the_same_machine_runs_the_same(under: str) -> None:
    assert_same(of(under), of(under))


def test_a_hook_of_ones_own_looks_first() -> None:
    seen = []

    class Looks(find_strategy(ONE_DOMAIN)):  # type: ignore[misc]
        def on_hypercall(self, vm: ParavirtualVm, exit: Exit) -> None:
            seen.append(HYPERCALLS.get(vm.register(EAX)))
            super().on_hypercall(vm, exit)

    machine = start(kernel(), Looks())
    machine.run(CYCLES)
    plain = of(ONE_DOMAIN)
    plain.run(CYCLES)
    assert seen.count("xen_version") == 1 and seen[-1] is None and "sched_op" in seen
    assert machine.ledger() == plain.ledger()


def test_a_missing_hypercall_is_named_counted_and_answered() -> None:
    machine = start(Kernel([Step(calls(hypercall(55), hypercall(63), hypercall(1000)))]), find_strategy(ONE_DOMAIN)())
    result = machine.run(CYCLES)
    assert results(machine, 3) == [-ENOSYS] * 3
    assert result.exits["hypercall_unknown"].number == 3
    assert result.ledger.event_count("xen.hypercall_missing") == 3
    assert int(machine.vm.xens[0].refused[55]) == int(machine.vm.xens[0].calls[63]) == 1


def test_domain_0s_instructions_are_not_the_guests() -> None:
    one, two = of(ONE_DOMAIN).run(CYCLES), of(TWO_DOMAINS).run(CYCLES)
    assert one.instructions == two.instructions and one.ticks < two.ticks
    assert two.ledger.ticks_by_mode()["domain_0"] > 0 == one.ledger.ticks_by_mode()["domain_0"]


# -- saved ------------------------------------------------------------------------------------------------------------------


@BOTH
def test_a_saved_machine_goes_on_as_it_was(under: str) -> None:
    whole = everything(of(under))
    for cycles in (1, 3_000, 9_000, 20_000):
        machine = of(under)
        machine.advance(NEVER, CYCLES, cycles)
        again = everything(machine_of(machine_bytes(machine), "memory"))
        assert all(again[name] == value for name, value in whole.items()), cycles


def field(name: str, value: int, index: int = 1) -> Callable[[ParavirtualVm], None]:
    def change(vm: ParavirtualVm) -> None:
        vm.domains[name][index] = value

    return change


def own(name: str, value: int) -> Callable[[ParavirtualVm], None]:
    def change(vm: ParavirtualVm) -> None:
        vm.xens[name] = value

    return change


def records_of(address: int, dtype: np.dtype, name: str, value: int) -> Callable[[ParavirtualVm], None]:
    def change(vm: ParavirtualVm) -> None:
        vm.records(address, dtype, 4)[name][2] = value

    return change


def frame(name: str, value: int) -> Callable[[ParavirtualVm], None]:
    def change(vm: ParavirtualVm) -> None:
        vm.frames[name][int(vm.p2m[0x40])] = value

    return change


def wild_entry(vm: ParavirtualVm) -> None:
    """An entry of a page table names a frame that the machine has not."""
    table = int.from_bytes(vm.processor.read_physical(int(vm.domains[1].base_frame) << 12, 4), "little") & ~0xFFF
    vm.processor.write_physical(table + 4 * 0x80, (0xFFFFF067).to_bytes(4, "little"))


MADE_ON_PURPOSE = {
    "current": own("current", 1 << 40), "nobody runs": own("current", 2), "owner of the x87": own("fpu_owner", 99),
    "frames": own("n_frames", 1 << 30), "console": own("console_length", 1 << 20), "handles": own("mapping_hint", -5),
    "crash": own("crash", 1000), "shift": own("tsc_shift", 700), "multiplier": own("tsc_multiplier", 0),
    "free": own("free_frames", 1 << 33), "releasing": own("releasing", -1),
    "base": field("base_frame", 0xFFFFF), "start": field("virt_start", 0xFFFFFFFF), "number": field("domid", 2),
    "shared": field("shared_info", 0x80000), "record": field("vcpu_info", 0xFFFFFFF0), "tables": field("gdt_frames", 1 << 25),
    "format": field("is_pae", 1), "port": field("virq_port", 4096), "grants": field("grant_frames", 5000),
    "ring": field("iopl", 7), "total": field("total_frames", 3),
    "granted": records_of(ACTIVE_ENTRIES, ACTIVE, "frame", 1 << 28), "mapper": records_of(MAPPINGS, MAPPING, "mapper", 77),
    "mapped": records_of(MAPPINGS, MAPPING, "frame", 1 << 28), "owner": frame("owner", 5), "references": frame("count_info", 7),
    "type": frame("type_info", 1 << 29 | 1 << 27 | 1), "entry": wild_entry,
}  # fmt: skip


@pytest.mark.parametrize("case", MADE_ON_PURPOSE)
def test_a_file_made_on_purpose_is_refused(case: str) -> None:
    """Its hash is right, the VMM's records are not."""
    machine = of(ONE_DOMAIN)
    machine.advance(NEVER, CYCLES, 5_000)
    MADE_ON_PURPOSE[case](machine.vm)
    with pytest.raises(UserError) as found:
        machine_of(machine_bytes(machine), "a file")
    assert "\n" not in str(found.value)


def test_channels_of_a_file_are_looked_at() -> None:
    for name, value in (("state", 9), ("remote_domain", 3), ("detail", 1 << 20)):
        machine = of(ONE_DOMAIN)
        machine.vm.channels[name][1024 + 5] = value
        with pytest.raises(UserError):
            machine_of(machine_bytes(machine), "a file")


# -- a debugger --------------------------------------------------------------------------------------------------------------


@BOTH
def test_steps_one_by_one_change_nothing(under: str) -> None:
    machine = of(under)
    limit = int(machine.processor.cpu.retired)
    while machine.advance(limit, CYCLES):
        limit += 1
    assert_same(machine, of(under))


def stop_at(machine: Machine, address: int) -> None:
    """Run up to an instruction of the guest's."""
    cpu = machine.processor.cpu
    cpu.stops[0].kind, cpu.stops[0].first, cpu.stops[0].last, cpu.stop_count = STOP_ON_CODE, address, address, 1
    arm(machine)
    assert machine.advance(NEVER, CYCLES)
    cpu.stop_count = 0
    arm(machine)


def arm(machine: Machine) -> None:
    from x86virt.core.entries import arm_stops

    arm_stops(machine.processor.state)


@BOTH
def test_registers_are_shown_and_written(under: str) -> None:
    """At an instruction of the guest, and as the VMM is about to return to it."""
    machine = start(Kernel([Step(save(DATA, ECX) + save(DATA + 4, EBX) + VERSION)]), find_strategy(under)())
    stop_at(machine, STEPS + 10)
    registers, segments = machine.strategy.virtual_registers(machine)
    assert registers["eip"] == STEPS + 10 and registers["cpl"] == 1 and segments["cs"].selector & 3 == 1
    assert write_register(machine, "ecx", 0x1234) and write_register(machine, "ebx", 0xFFFFFFFF)
    assert write_register(machine, "eflags", 0x8D7) and not write_register(machine, "cr3", 0)
    assert machine.strategy.virtual_registers(machine)[0]["eflags"] == 0xAD7  # IF stays
    machine.run(CYCLES)
    assert words_of(machine, DATA, 2) == [0x1234, 0xFFFFFFFF]


def test_the_place_is_written_while_the_vmm_has_control() -> None:
    machine = start(Kernel([Step(VERSION + mov(EAX, 7) + save(DATA, EAX))]), find_strategy(ONE_DOMAIN)())
    assert machine.processor.cpu.cpl == 0  # about to enter the kernel
    assert write_register(machine, "eip", STEPS) and write_register(machine, "esp", 0x8000) and write_register(machine, "edx", 3)
    registers = machine.strategy.virtual_registers(machine)[0]
    assert (registers["eip"], registers["esp"], registers["edx"]) == (STEPS, 0x8000, 3)
    assert machine.run(CYCLES).outcome == "exited 1" and memory_of(machine, DATA, 1) == b"\x07"


def test_what_the_vmm_holds_is_told() -> None:
    machine = of(TWO_DOMAINS)
    lines = machine.vm.describe()
    assert any("domain 0:" in line for line in lines) and any("domain 1:" in line for line in lines)
    assert all("\n" not in line for line in lines) and layout.N_DOMAINS == 3


def test_frames_are_counted_where_isolation_is_checked() -> None:
    """A frame table that does not agree with the page tables is the run's outcome."""
    strategy: Strategy = find_strategy(ONE_DOMAIN)()
    machine = start(kernel(), strategy)
    machine.check_isolation()
    assert machine.run(CYCLES).outcome == "exited 1"
    machine = start(kernel(), strategy)
    machine.check_isolation()
    machine.vm.frames[int(machine.vm.p2m[0x30])].count_info += 1
    assert machine.run(CYCLES).outcome.startswith("isolation: frame 0x430: ")

"""E2: the bare machine accepts what a VMM gave its guest, ends in the same state, and refuses what is not right."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from pathlib import Path

import pytest
from guest_sets import TIMED_GUESTS
from small_kernel import strategy

from x86virt.api import Setup, make_setup
from x86virt.core.layout import NEVER
from x86virt.equivalence import compare_runs
from x86virt.errors import UserError
from x86virt.guests import find_guest
from x86virt.isa.registers import EFLAGS_IF
from x86virt.machine import Machine
from x86virt.replay import Replay, ReplayError, log_object, parse_log, read_log, record, replay, write_log
from x86virt.start.boot import Bootable
from x86virt.vmm import VirtualMachine
from x86virt.vmm.recorder import Delivery, InputLog

MEMORY = 8 << 20
GUESTS = {"irq": "iterations=2", "clock": "iterations=20", "exits": "iterations=2", "hello": "", "pgfault": "iterations=3"}
TrapAndEmulate: type = type(strategy("trap-and-emulate"))


def setup_of(name: str | type = "trap-and-emulate", **options) -> Setup:
    """A small machine, of the profile under which a timer interrupts `clock` within a repeated instruction."""
    return make_setup(name, memory_bytes=MEMORY, **{"profile": "core2_harpertown"} | options)


@functools.cache
def recorded(guest: str) -> tuple[object, InputLog]:
    """A run under trap-and-emulate and its log."""
    return record(setup_of(), find_guest(guest), GUESTS[guest])


def replayed(guest: str, log: InputLog) -> Machine:
    """The bare machine at the end of a replay."""
    return replay(setup_of("native"), find_guest(guest), log)


@pytest.mark.parametrize("guest", GUESTS)
def test_the_bare_machine_accepts_the_log_and_ends_in_the_same_state(guest: str) -> None:
    image = find_guest(guest)
    result, log = recorded(guest)
    machine = replayed(guest, log)
    other = setup_of().machine()
    other.load(image, GUESTS[guest])
    other.run()
    assert machine.strategy.virtual_state(machine).differences(other.strategy.virtual_state(other)) == []
    assert (machine.result().outcome, machine.result().instructions) == (result.outcome, result.instructions)
    assert log.missed == []
    assert bool(log.deliveries) == (guest in TIMED_GUESTS)


@pytest.mark.parametrize("guest", GUESTS)
def test_recording_changes_no_cycle(guest: str) -> None:
    result, _ = recorded(guest)
    plain = setup_of().run(find_guest(guest), GUESTS[guest])
    assert (plain.ticks, plain.instructions, plain.console) == (result.ticks, result.instructions, result.console)
    assert plain.ledger == result.ledger


def test_the_guest_clock_is_interrupted_within_a_repeated_instruction() -> None:
    _, log = recorded("clock")
    left = [event.left for event in log.deliveries]
    assert any(value is not None and 0 < value < 16384 for value in left)
    assert {row.source for row in log.reads if row.tells} == {-1, 0x40, 0x61}


@pytest.mark.parametrize("guest", ("irq", "clock"))
def test_compare_is_equal_where_the_bare_machine_alone_differs(guest: str) -> None:
    setup = setup_of()
    comparison = compare_runs(
        find_guest(guest), setup.strategy(), strategy("native"), setup.profile, MEMORY, GUESTS[guest], None, 1 << 13
    )
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.deliveries > 5 and comparison.time_reads > 5
    if guest == "clock":
        assert comparison.native.console != comparison.other.console


def test_the_file_of_a_log_reads_back(tmp_path: Path) -> None:
    for guest in GUESTS:
        _, log = recorded(guest)
        write_log(log, tmp_path / "log.json")
        assert read_log(tmp_path / "log.json") == log


# -- what is not right is refused -----------------------------------------------------------------------------------


def changed(log: InputLog, place: int, **fields: int) -> InputLog:
    """A log with one delivery changed."""
    other = copy.deepcopy(log)
    at = other.events.index(log.deliveries[place])
    other.events[at] = dataclasses.replace(log.deliveries[place], **fields)
    return other


def without(log: InputLog, kind: type, place: int) -> InputLog:
    """A log that lacks one event."""
    other = copy.deepcopy(log)
    other.events.remove([event for event in log.events if isinstance(event, kind)][place])
    return other


def refusal(guest: str, log: InputLog) -> str:
    """Why the bare machine refuses a log of a shipped guest."""
    return why_refused(setup_of("native"), find_guest(guest), log)


def why_refused(setup: Setup, image: Bootable, log: InputLog) -> str:
    """Why the bare machine refuses a log, in one line."""
    with pytest.raises(ReplayError) as caught:
        replay(setup, image, log)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("place", (0, 3, 7, -1))
@pytest.mark.parametrize("moved", (-1, 1))
@pytest.mark.parametrize("guest", ("irq", "clock"))
def test_a_delivery_moved_by_one_instruction_is_refused(guest: str, place: int, moved: int) -> None:
    _, log = recorded(guest)
    says = refusal(guest, changed(log, place, n=log.deliveries[place].n + moved))
    assert "never at" in says or "halted_forever before" in says


def test_a_delivery_at_another_iteration_is_refused() -> None:
    _, log = recorded("clock")
    place = next(number for number, event in enumerate(log.deliveries) if event.left and event.left > 1)
    for left in (0x7FFFFFFF, log.deliveries[place].left + 16384):
        assert "never at" in refusal("clock", changed(log, place, left=left))


def test_a_wrong_vector_is_refused() -> None:
    _, log = recorded("irq")
    assert "gives vector 0x20" in refusal("irq", changed(log, 4, vector=0x21))


def closed_window() -> tuple[int, int]:
    """A place of the guest irq with interrupts off: in the handler of its first tick."""
    _, log = recorded("irq")
    machine = setup_of().machine()
    machine.load(find_guest("irq"), GUESTS["irq"])
    n = log.deliveries[0].n + 2
    machine.advance(n)
    return n, machine.strategy.virtual_state(machine).registers["eip"]


def test_a_delivery_into_a_closed_window_is_refused() -> None:
    n, rip = closed_window()
    _, log = recorded("irq")
    other = copy.deepcopy(log)
    after = other.events.index(log.deliveries[0]) + 1
    other.events[after:after] = [dataclasses.replace(log.deliveries[0], n=n, rip=rip)]
    assert "interrupts are off" in refusal("irq", other)


def test_a_delivery_into_the_shadow_of_sti_is_refused() -> None:
    """The guest irq waits with STI and HLT: the tick must not come between the two."""
    _, log = recorded("irq")
    machine = setup_of("native").machine()
    follower = Replay(machine, log)
    machine.load(find_guest("irq"), GUESTS["irq"])
    follower.freeze()
    cpu = machine.processor.cpu
    follower.advance(log.deliveries[0].n - 200)
    while not (cpu.shadow and cpu.eflags & EFLAGS_IF):
        assert follower.advance(int(cpu.retired) + 1)
    other = copy.deepcopy(log)
    place = dataclasses.replace(log.deliveries[0], n=int(cpu.retired), rip=int(cpu.rip), left=None)
    other.events.insert(log.events.index(log.deliveries[0]), place)
    assert "held off" in refusal("irq", other)


def test_an_interrupt_that_no_device_asked_for_is_refused() -> None:
    _, log = recorded("clock")
    other = copy.deepcopy(log)
    other.events = [event for event in other.events if isinstance(event, Delivery)]
    assert "requests nothing" in refusal("clock", other)


def test_an_interrupt_before_its_deadline_is_refused() -> None:
    _, log = recorded("irq")
    assert "had not asked yet" in refusal("irq", changed(log, 2, tick=log.deliveries[2].deadline - 1))


def test_a_missing_delivery_is_found() -> None:
    _, log = recorded("irq")
    assert refusal("irq", without(log, Delivery, -1))


def test_a_changed_value_is_found() -> None:
    """The guest prints a sum of all that it read."""
    _, log = recorded("clock")
    other = copy.deepcopy(log)
    place = max(number for number, row in enumerate(log.reads) if row.source == -1)
    other.reads[place] = dataclasses.replace(other.reads[place], value=other.reads[place].value ^ 1)
    consoles = [replayed("clock", one).console() for one in (log, other)]
    assert consoles[0] != consoles[1]


@pytest.mark.parametrize("change", ("n", "source", "missing", "more"))
def test_a_read_at_another_place_is_refused(change: str) -> None:
    _, log = recorded("clock")
    other = copy.deepcopy(log)
    if change == "missing":
        del other.reads[-1]
    elif change == "more":
        other.reads.append(other.reads[-1])
    else:
        other.reads[300] = dataclasses.replace(other.reads[300], **{change: getattr(other.reads[300], change) + 1})
    assert "time" in refusal("clock", other)


class LateOnce(TrapAndEmulate):
    """It leaves every interrupt waiting for one exit more than it must."""

    def setup(self, machine: Machine) -> None:
        """Put a hesitating delivery in place of the toolkit's."""
        vm = machine.vm
        deliver = vm.interrupts.take
        self.skipped = False

        def hesitate() -> None:
            self.skipped = not self.skipped
            if not self.skipped:
                deliver()

        vm.interrupts.take = hesitate


class Eager(TrapAndEmulate):
    """Its devices live half a millisecond ahead of time."""

    def setup(self, machine: Machine) -> None:
        """Let the devices see a tick that has not come."""
        vm = machine.vm
        from x86virt.core.entries import device_advance

        def ahead() -> bool:
            vm.recorder.before_devices(vm)
            pending = bool(device_advance(vm.boards, int(vm.processor.cpu.ticks) + 90_000_000))
            vm.recorder.after_devices(vm)
            return pending

        vm.devices.see = ahead


class WrongVector(TrapAndEmulate):
    """It delivers the timer at the vector of the keyboard."""

    def setup(self, machine: Machine) -> None:
        """Change the vector on its way."""
        vm: VirtualMachine = machine.vm
        take = vm.recorder.on_delivery
        vm.recorder.on_delivery = lambda machine, vector: take(machine, vector + 1)


@pytest.mark.parametrize(
    ("buggy", "says"), [(LateOnce, "before an open window"), (Eager, "had not asked yet"), (WrongVector, "gives vector")]
)
def test_a_planted_bug_of_a_vmm_is_found(buggy: type, says: str) -> None:
    comparison = compare_runs(
        find_guest("irq"), buggy(), strategy("native"), setup_of().profile, MEMORY, "iterations=2", 2 * 10**9, 1 << 15
    )
    assert not comparison.equal
    assert any(says in line for line in comparison.report), comparison.report[:4]


# -- bad files --------------------------------------------------------------------------------------------------------


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    _, log = recorded("irq")
    good = log_object(log)
    bad: list[str] = ["", "{", "[]", "null", "3", '{"format": 1}', json.dumps(good)[:-30], "[" * 100000]
    for key in good:
        bad.append(json.dumps({name: value for name, value in good.items() if name != key}))
        bad.append(json.dumps(good | {key: -1}))
    for event in ({"delivery": 256}, {"n": -1}, {"rip": "x"}, {"left": 1 << 33}, {"n": True}, {"n": NEVER + 1}):
        bad.append(json.dumps(good | {"events": [good["events"][-1] | {"delivery": 32, "rip": 0, "left": None} | event]}))
    bad.append(json.dumps(good | {"reads": [[2, -1, 0], [1, -1, 0]]}))
    bad.append(json.dumps(good | {"identity": good["identity"] | {"instructions": -1}}))
    path = tmp_path / "log.json"
    for text in bad:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as caught:
            read_log(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        read_log(tmp_path / "nothing")
    assert parse_log(good) == log

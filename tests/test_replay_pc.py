"""E2 of a PC: what disks, keys, serial lines, the clock, APICs and resets give a guest of a VMM, the bare machine accepts.

Each case is recorded under a VMM and replayed on the bare machine, whose devices live in the record's time; both end in the
same state, devices and disks included. A record that was tampered with is refused, or shows.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import test_ide_guest
from pc_tour import FOUND, tour_disk
from profile_for import USUAL, profile_for
from small_kernel import DATA, ECX, RAM_BYTES, Kernel, Step, mov, strategy
from test_pc_guest import CLOCK, ENDS, HLT_WITH_INTERRUPTS, KEYBOARD, PICS, SERIAL, keep_in, out
from test_pc_vmm import INTERRUPTS, IO, IO_PAGE, LOCAL, LOCAL_PAGE, STEPS, UP, VERSION
from test_replay import why_refused

from x86virt.api import Setup, make_setup
from x86virt.console.conversation import Conversation
from x86virt.guests import open_guest
from x86virt.machine import Machine
from x86virt.replay import log_object, parse_log, record_machine, replay
from x86virt.start.boot import Bootable
from x86virt.vmm.recorder import Clock, Input, InputLog, Reset

VMMS = ("trap-and-emulate", "binary-translation", "vtx-ept", "vtx-shadow", "svm-npt", "svm-shadow")
BUDGET = 2_000_000_000


@dataclass(frozen=True)
class Case:
    """A guest, its machine, and who talks to it."""

    image: Bootable
    options: dict[str, object]
    conversation: Conversation | None = None

    def setup(self, name: str, profile: str = USUAL) -> Setup:
        """The machine under a strategy."""
        return replace(make_setup(strategy_of(name), profile, max_cycles=BUDGET), **self.options)


def strategy_of(name: str) -> type:
    """The class of a strategy."""
    return type(strategy(name))


def kernel_case(kernel: Kernel, **options: object) -> Case:
    """A kernel of the system tests."""
    return Case(kernel.image(), {"memory_bytes": RAM_BYTES, **options})


def waits(setting: bytes, behind: bytes) -> Kernel:
    """A kernel that a device wakes from HLT."""
    return Kernel([Step(PICS + setting + HLT_WITH_INTERRUPTS), Step(behind + ENDS)])


def tour(folder: Path) -> Case:
    """Firmware, a boot sector, the A20 gate, a reset of the processor, one of the machine, power off; with APICs."""
    disk = str(tour_disk(folder))
    return Case(open_guest(disk).bootable, {"memory_bytes": 4 << 20, "disks": (disk,), "apic": True})


def disk_user(folder: Path) -> Case:
    """PIO by REP INS and OUTS, blocks of several sectors, bus-master DMA, each ended by an interrupt."""
    disk = folder / "disk.img"
    disk.write_bytes(test_ide_guest.IMAGE)
    return kernel_case(test_ide_guest.kernel(), disks=(str(disk),))


def apics(folder: Path) -> Case:
    """The local APIC's timer, a message to itself, the timer by the I/O APIC, the PICs behind LINT0, the APIC moved."""
    pages = {LOCAL_PAGE: LOCAL | UP, IO_PAGE: IO | UP}
    return kernel_case(Kernel(STEPS, pages=pages, words={0x80000 + VERSION: 0xCAFE}), apic=True)


def typed(folder: Path) -> Case:
    """A key is struck, which the controller translates, and wakes the processor; twice, for its make and its break."""
    enable = out(0x64, 0x60) + out(0x60, 0x41)
    kernel = Kernel(
        [
            Step(PICS + enable + HLT_WITH_INTERRUPTS),
            Step(keep_in(0x60, 0) + ENDS + HLT_WITH_INTERRUPTS),
            Step(keep_in(0x60, 1) + ENDS),
        ]
    )
    return replace(kernel_case(kernel, rtc=1_000_000_000), conversation=Conversation(script=":key a\n"))


def serial_line(folder: Path) -> Case:
    """Bytes arrive on the serial line, each with an interrupt; the guest sends one back, which ends the run."""
    enable = out(0x3FC, 0x08) + out(0x3F9, 0x01) + HLT_WITH_INTERRUPTS
    kernel = Kernel([Step(PICS + enable), Step(keep_in(0x3F8, 0) + ENDS + out(0x3F8, 0x21) + b"\xeb\xfe")])
    return replace(kernel_case(kernel), conversation=Conversation(script=":to serial\nQ\n", until="!"))


CASES: dict[str, Callable[[Path], Case]] = {
    "clock": lambda folder: kernel_case(waits(CLOCK, out(0x70, 0x0C) + keep_in(0x71, 0))),
    "serial": lambda folder: kernel_case(waits(SERIAL + out(0x3F8, 65), keep_in(0x3FA, 0))),
    "keyboard": lambda folder: kernel_case(waits(KEYBOARD, keep_in(0x60, 0))),
    "disk": disk_user,
    "apics": apics,
    "typed": typed,
    "serial line": serial_line,
}
KINDS = {"typed": Input, "serial line": Input, "disk": Clock, "clock": Clock}


def recorded(case: Case, name: str) -> tuple[Machine, InputLog]:
    """A run under a VMM and its log, which has been a file."""
    machine, log = record_machine(case.setup(name, profile_for(name)), case.image, "", case.conversation)
    assert parse_log(log_object(log)) == log
    return machine, log


def replayed(case: Case, log: InputLog) -> Machine:
    """The bare machine at the end of a log."""
    return replay(case.setup("native", log.identity["profile"]), case.image, log)


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Machine, InputLog]:
    """The tour, recorded once: firmware is interpreted, port by port."""
    case = tour(tmp_path_factory.mktemp("tour"))
    return case, *recorded(case, "trap-and-emulate")


def test_the_bare_machine_accepts_a_boot_with_resets(toured: tuple[Case, Machine, InputLog]) -> None:
    """Firmware, its disk, both resets and the power off."""
    bare = agreed(*toured)
    assert FOUND[0] in bare.console() and bare.console().endswith(FOUND[1])
    assert any(isinstance(event, Reset) for event in toured[2].events)


@pytest.mark.parametrize("name", VMMS)
@pytest.mark.parametrize("which", CASES)
def test_the_bare_machine_accepts_what_a_vmm_gave_a_pc(which: str, name: str, tmp_path: Path) -> None:
    case = CASES[which](tmp_path)
    machine, log = recorded(case, name)
    agreed(case, machine, log)
    assert any(isinstance(event, KINDS.get(which, Clock)) for event in log.events)
    if which == "apics":
        assert [event.vector for event in log.deliveries] == INTERRUPTS


def agreed(case: Case, machine: Machine, log: InputLog) -> Machine:
    """The bare machine at the end of a log, where it is what the recorded one was."""
    bare = replayed(case, log)
    assert log.missed == [] and not log.empty
    assert machine.strategy.virtual_state(machine).differences(bare.strategy.virtual_state(bare)) == []
    one, two = machine.result(), bare.result()
    assert (one.outcome, one.exit_code, one.instructions) == (two.outcome, two.exit_code, two.instructions)
    assert (one.console, one.serial, one.screen) == (two.console, two.serial, two.screen)
    return bare


@pytest.mark.parametrize("name", VMMS)
def test_recording_a_pc_changes_no_cycle(name: str, tmp_path: Path) -> None:
    for which in ("disk", "apics"):
        case = CASES[which](tmp_path)
        result = recorded(case, name)[0].result()
        plain = case.setup(name, profile_for(name)).run(case.image, "", case.conversation)
        assert (plain.ticks, plain.instructions, plain.console) == (result.ticks, result.instructions, result.console), which
        assert plain.ledger == result.ledger, which


@pytest.mark.parametrize("name", [*VMMS, "vtx-shadow,state=eager"])
def test_what_devices_do_when_the_guest_has_ended_is_in_no_log(name: str) -> None:
    """The timer's output moves so often that it does by the time in which the VMM sees to the guest's last OUT."""
    fast = out(0x43, 0x36) + out(0x40, 2, 0) + b"\xfb" + mov(ECX, 2000) + b"\xe2\xfe" + out(0x80, 1, 2, 3)
    case = kernel_case(Kernel([Step(fast)]))
    machine, log = recorded(case, name)
    assert any(isinstance(event, Clock) for event in log.events)
    agreed_where_nothing_came(case, machine, log)


def agreed_where_nothing_came(case: Case, machine: Machine, log: InputLog) -> None:
    """The bare machine ends in the same state, without an interrupt."""
    bare = replayed(case, log)
    assert log.deliveries == [] and machine.result().outcome == bare.result().outcome == "exited 1"
    assert machine.strategy.virtual_state(machine).differences(bare.strategy.virtual_state(bare)) == []


def refusal(case: Case, log: InputLog) -> str:
    """Why the bare machine refuses a log of a case."""
    return why_refused(case.setup("native", log.identity["profile"]), case.image, log)


def with_event(log: InputLog, kind: type, **fields: int | None) -> InputLog:
    """A log whose first event of a kind is changed, or missing without fields."""
    other = copy.deepcopy(log)
    place = next(number for number, event in enumerate(log.events) if isinstance(event, kind))
    other.events[place : place + 1] = [dataclasses.replace(log.events[place], **fields)] if fields else []
    return other


def test_what_is_not_right_is_refused_or_shows(tmp_path: Path) -> None:
    case = CASES["disk"](tmp_path)
    machine, log = recorded(case, "trap-and-emulate")
    late = with_event(log, Clock, tick=log.deliveries[0].deadline - 1)
    assert "requests nothing" in refusal(case, late)
    assert "requests nothing" in refusal(case, with_event(log, Clock))
    other = copy.deepcopy(log)
    other.reads.pop(len(other.reads) // 2)
    assert "has to do with time" in refusal(case, other)
    (tmp_path / "disk.img").write_bytes(bytes(len(test_ide_guest.IMAGE)))
    assert "other disks" in refusal(case, log)

    case = CASES["typed"](tmp_path)
    machine, log = recorded(case, "trap-and-emulate")
    states = [one.strategy.virtual_state(one) for one in (machine, replayed(case, with_event(log, Input, octet=0x32)))]
    assert states[0].memory[DATA] == 0x1E and states[1].memory[DATA] == 0x30, "A, and B of set 1"
    assert "requests nothing" in refusal(case, with_event(log, Input))


def test_a_reset_stands_in_the_log(toured: tuple[Case, Machine, InputLog]) -> None:
    case, _, log = toured
    assert "a reset after" in refusal(case, with_event(log, Reset))
    n = next(event for event in log.events if isinstance(event, Reset)).n
    early = copy.deepcopy(log)
    early.events.insert(0, Reset(5, 10_000))
    assert "does not ask for" in refusal(case, early) and n > 5

"""Equivalence E2: the bare machine is given what a VMM gave its guest, and must accept it (design, section 2a).

`record` runs a guest under a strategy and keeps its input log; `replay` runs it on the bare machine, whose devices (timers,
clock, keyboard, serial ports, disks, APICs) live in the log's time and not in its own: each access of the guest's comes at
the tick of the log, and so does what they do by themselves. Counters give the log's values, interrupts come where the log
says. One is accepted only at the logged instruction, with IF set, no interrupt shadow, no debug trap waiting, and if the
guest's own interrupt controllers would deliver that very vector. Anything else is a `ReplayError`. At the end both states S
must be equal.

The file of a log is JSON:

    format      "x86virt-input-log"         version   2
    identity    guest, guest_sha256, strategy, profile, command_line, memory_bytes, apic, disks (their digests), rtc (null, or
                what the clock showed at power on), rtc_tick, outcome, instructions
    events      in their order: {"delivery": vector, "n", "rip", "left", "tick", "deadline"}; {"clock": tick, "n", "rip", "left"}
                where time has done something to a device; {"key": byte, "n", "tick"}, {"serial": byte, "port", "n", "tick"};
                {"reset": tick, "n"}. `left` is ECX within a repeated string instruction, else null
    reads       [n, source, value]: of a port (a write: port + 65536) and of the local APIC (131072) the tick of the access; of
                the time-stamp counter (-1) and of performance counter or MSR n (-2 - n) what was read
    missed      [n, rip] where the VMM had control and left an interrupt waiting before an open window: none, if it is right

`n` counts the guest's instructions retired before.
"""

import json
import os
import pathlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .api import Setup, converse, strategy_errors
from .core.device_entries import device_key, device_serial_input, device_set_clock
from .core.entries import all_eflags
from .core.layout import NEVER, TIME_APIC, TIME_ENTRIES, TIME_REPLAY
from .errors import UserError
from .isa.registers import ECX, EFLAGS_IF
from .machine import Machine, RunResult
from .start.boot import Bootable
from .vmm.fast.apics import virtual_acknowledge, virtual_advance
from .vmm.recorder import KEYBOARD, SERIAL, Clock, Delivery, Event, Input, InputLog, Recorder, Reset, TimeRead

if TYPE_CHECKING:
    from .console.conversation import Conversation

FORMAT, VERSION = "x86virt-input-log", 2
LARGEST_FILE = 1 << 28
MOST_STEPS = 1 << 22  # without an instruction retired, on the way to a place in the log
SOURCES = range(-0x1000, TIME_APIC + 1)
LATEST = 1 << 62  # tick
OUTSIDE = ("budget", "until", "left")  # outcomes that somebody outside decided


class ReplayError(Exception):
    """The bare machine does not accept a log: one line that says where and why."""


class LogFileError(UserError):
    """A file that is no input log."""


class Replay:
    """A bare machine that follows an input log, which may still grow; make it before the guest is loaded."""

    def __init__(self, machine: Machine, log: InputLog) -> None:
        self.machine, self.log = machine, log
        self.next_event = self.next_read = 0
        machine.time_log = self
        machine.processor.cpu.time_mode = TIME_REPLAY

    def freeze(self) -> None:
        """Stop the devices' own time; to be called when the guest is loaded."""
        self.machine.processor.board.frozen = 1

    # -- the devices' time ----------------------------------------------------------------------------------------

    def see(self, tick: int) -> bool:
        """Bring the devices to a tick of the log; whether they request an interrupt."""
        processor = self.machine.processor
        processor.board.frozen = 0
        pending = bool(virtual_advance(processor.state, processor.boards, tick))
        self.freeze()
        return pending

    def give(self, event: Input) -> None:
        """Give a device a byte from outside, which it must take."""
        boards, octets = self.machine.processor.boards, np.array([event.octet], np.uint8)
        self.machine.processor.board.frozen = 0
        if event.device == KEYBOARD:
            taken = device_key(boards, event.tick, octets)
        else:
            taken = device_serial_input(boards, event.tick, event.device, octets)
        self.freeze()
        if taken != 1:
            raise ReplayError(f"its device has no room for {event}")

    def before_input(self, machine: Machine) -> None:
        """Nobody offers anything to a machine that follows a log."""
        raise ReplayError("a byte from outside, which the log does not have")

    def on_input(self, machine: Machine, device: int, octet: int) -> None:
        """So nothing is taken either."""

    def on_reset(self, machine: Machine) -> None:
        """The guest pulls its reset line: so it must in the log, at once."""
        n = int(machine.processor.cpu.retired)
        while self.next_event < len(self.log.events):
            event = self.log.events[self.next_event]
            if event.n != n or isinstance(event, Delivery):
                break
            self.next_event += 1
            if isinstance(event, Input):
                self.give(event)
            else:
                self.see(event.tick)
                if isinstance(event, Reset):
                    return
        raise ReplayError(f"a reset after {n} instructions, which the log does not have")

    # -- time reads -----------------------------------------------------------------------------------------------

    def serve(self, machine: Machine) -> None:
        """The processor is about to deal with time and finds nothing for it in its part of the log: give it the next part."""
        cpu = machine.processor.cpu
        self.next_read += int(cpu.time_next)
        rows = self.log.reads[self.next_read : self.next_read + TIME_ENTRIES]
        at = f"instruction {int(cpu.retired)} at eip {int(cpu.rip):#x} has to do with time"
        if not rows:
            raise ReplayError(f"{at}, which the log does not have")
        if rows[0].n != cpu.retired:
            raise ReplayError(f"{at}, in the log instruction {rows[0].n} is the next that has")
        rows = together(rows)
        for number, row in enumerate(rows):
            cpu.time_log[number] = (row.n, row.source, row.value)
        if cpu.time_next == 0 and cpu.time_count:
            raise ReplayError(f"{at} from another source than {rows[0].source:#x}, which the log has")
        cpu.time_count, cpu.time_next = len(rows), 0

    # -- events ---------------------------------------------------------------------------------------------------

    def advance(self, retired_limit: int) -> bool:
        """Go on to that many retired instructions (True) or the guest's end (False), through the log's events."""
        while self.next_event < len(self.log.events):
            number = self.next_event
            event = self.log.events[number]
            if event.n > retired_limit:
                break
            if not self.machine.advance(event.n):
                raise ReplayError(f"the guest ended as {self.machine.result().outcome} before {event}")
            if self.next_event == number:  # else a reset took it on the way
                self.next_event += 1
                self.perform(event)
        return self.machine.advance(retired_limit)

    def perform(self, event: Event) -> None:
        """The guest has come to an event's instruction: let it happen."""
        if isinstance(event, Reset):
            raise ReplayError(f"the guest does not ask for {event}")
        if isinstance(event, Input):
            self.give(event)
        elif isinstance(event, Delivery):
            self.deliver(event)
        else:
            if event.left is not None:
                self.find_place(event)
            self.see(event.tick)
        if self.machine.board.attention:
            self.machine.on_board()

    def deliver(self, event: Delivery) -> None:
        """Check that the processor would take this interrupt here and now, and let it."""
        self.find_place(event)
        processor = self.machine.processor
        cpu = processor.cpu
        if not int(all_eflags(processor.state)) & EFLAGS_IF:
            raise ReplayError(f"interrupts are off at {event}")
        if cpu.shadow:
            raise ReplayError(f"interrupts are held off for one instruction at {event}")
        if cpu.debug_pending:
            raise ReplayError(f"a debug trap comes before {event}")
        if event.tick < event.deadline:
            raise ReplayError(f"its device had not asked yet for {event}")
        if not self.see(int(processor.board.tick)):
            raise ReplayError(f"the interrupt controller requests nothing at {event}")
        vector = int(virtual_acknowledge(processor.state, processor.boards))
        if vector != event.vector:
            raise ReplayError(f"the interrupt controller gives vector {vector:#x} at {event}")
        cpu.timer_vector, cpu.timer_pending = vector, 1
        self.machine.advance(event.n)

    def find_place(self, event: Delivery | Clock) -> None:
        """Through faults, and iterations of a repeated instruction, to the event's EIP within its instruction number."""
        machine = self.machine
        cpu = machine.processor.cpu
        for _ in range(MOST_STEPS):
            if cpu.retired != event.n:
                break
            if cpu.rip == event.rip and event.left in (None, int(cpu.gpr[ECX])):
                return
            if cpu.halted:
                break
            cpu.retired_limit, cpu.budget = event.n + 1, cpu.ticks + 1  # which stops a repeated instruction at once
            outcome = machine.processor.run(single=True)
            cpu.budget = NEVER
            if outcome:
                machine.act(outcome)
        raise ReplayError(f"eip is {int(cpu.rip):#x} after {int(cpu.retired)} instructions, never at {event}")

    def finish(self) -> None:
        """The guest has ended: nothing of the log may be left."""
        cpu = self.machine.processor.cpu
        left = len(self.log.events) - self.next_event
        waiting = [event for event in self.log.events[self.next_event :] if isinstance(event, Delivery)]
        if waiting:
            raise ReplayError(f"{left} events lie behind the guest's end, the first is {waiting[0]}")
        reads = len(self.log.reads) - self.next_read - int(cpu.time_next)
        if reads:
            raise ReplayError(f"{reads} dealings with time lie behind the guest's end")


def together(rows: list[TimeRead]) -> list[TimeRead]:
    """A part of the log that does not end amid an instruction that accesses registers in memory twice."""
    if len(rows) < TIME_ENTRIES or rows[-1].source != TIME_APIC:
        return rows
    kept = [row for row in rows if row.n != rows[-1].n]
    return kept or rows


# -- whole runs -----------------------------------------------------------------------------------------------------


def record(
    setup: Setup, image: Bootable, command_line: str = "", conversation: "Conversation | None" = None
) -> tuple[RunResult, InputLog]:
    """Run a guest under a strategy and keep what it was given. Raises what `Setup.run` raises."""
    machine, log = record_machine(setup, image, command_line, conversation)
    return machine.result(), log


def record_machine(
    setup: Setup, image: Bootable, command_line: str = "", conversation: "Conversation | None" = None
) -> tuple[Machine, InputLog]:
    """The same; the machine at its end, its disks closed."""
    with strategy_errors(setup.name):
        machine = setup.machine()
        try:
            disks = digests(machine)
            recorder = Recorder(machine)
            machine.load(image, command_line)
            rtc_tick = int(machine.processor.cpu.ticks)
            if setup.rtc is not None:
                machine.set_clock(setup.rtc)
            result = converse(machine, setup.max_cycles, conversation)
            recorder.drain()
        finally:
            machine.disks.close()
    recorder.log.identity = {
        "guest": image.name,
        "guest_sha256": image.sha256,
        "strategy": setup.name,
        "profile": setup.profile.name,
        "command_line": command_line,
        "memory_bytes": setup.memory_bytes,
        "apic": setup.apic,
        "disks": disks,
        "rtc": setup.rtc,
        "rtc_tick": rtc_tick,
        "outcome": result.outcome,
        "instructions": result.instructions,
    }
    return machine, recorder.log


def digests(machine: Machine) -> list[str]:
    """What is on a machine's disks, by place."""
    return [disk.base_digest() for _, disk in sorted(machine.disks.disks.items())]


def replay(setup: Setup, image: Bootable, log: InputLog) -> Machine:
    """Run a guest on the bare machine with the inputs of a log; the machine at its end, its disks closed.

    What it writes to disks is forgotten. Whether it has APICs, and what its clock shows, stands in the log. Raises
    ReplayError if the bare machine does not accept the log, or ends otherwise than it says.
    """
    if log.missed:
        n, rip = log.missed[0]
        raise ReplayError(f"the VMM left an interrupt waiting before an open window after {n} instructions at {rip:#x}")
    if image.sha256 != log.identity["guest_sha256"]:
        raise ReplayError(f"the log is of another image than {image.name}")
    for name, here in (("profile", setup.profile.name), ("memory_bytes", setup.memory_bytes)):
        if log.identity[name] != here:
            raise ReplayError(f"the log is of a machine with {name} {log.identity[name]}, not {here}")
    machine = replace(setup, apic=log.identity["apic"], disk_write=False).machine()
    try:
        if digests(machine) != log.identity["disks"]:
            raise ReplayError("the log is of a machine with other disks")
        follow(machine, image, log)
    finally:
        machine.disks.close()
    return machine


def follow(machine: Machine, image: Bootable, log: InputLog) -> None:
    """Load a guest and run it to the end of a log. Raises ReplayError."""
    follower = Replay(machine, log)
    machine.load(image, log.identity["command_line"])
    if log.identity["rtc"] is not None:
        device_set_clock(machine.processor.boards, log.identity["rtc_tick"], log.identity["rtc"])
    follower.freeze()
    instructions, outcome = log.identity["instructions"], log.identity["outcome"]
    # One instruction more than there are: a guest that should have ended does not run on for ever.
    going = follower.advance(instructions + (outcome not in OUTSIDE))
    if outcome in OUTSIDE:
        machine.stop(outcome)
    elif going:
        raise ReplayError(f"the guest goes on behind instruction {instructions}, where it ended as {outcome}")
    follower.finish()
    result = machine.result()
    if (result.outcome, result.instructions) != (outcome, instructions):
        raise ReplayError(
            f"the guest ended as {result.outcome} after {result.instructions} instructions, "
            f"in the log as {outcome} after {instructions}"
        )


# -- the file -------------------------------------------------------------------------------------------------------


def log_object(log: InputLog) -> dict[str, Any]:
    """A log as JSON."""
    reads = [[row.n, row.source, row.value] for row in log.reads]
    return {
        "format": FORMAT,
        "version": VERSION,
        "identity": log.identity,
        "events": [event_object(event) for event in log.events],
        "reads": reads,
        "missed": [list(place) for place in log.missed],
    }


def event_object(event: Event) -> dict[str, int | None]:
    """An event as JSON."""
    if isinstance(event, Delivery):
        return {"delivery": event.vector, "n": event.n, "rip": event.rip, "left": event.left, "tick": event.tick,
                "deadline": event.deadline}  # fmt: skip
    if isinstance(event, Clock):
        return {"clock": event.tick, "n": event.n, "rip": event.rip, "left": event.left}
    if isinstance(event, Reset):
        return {"reset": event.tick, "n": event.n}
    if event.device == KEYBOARD:
        return {"key": event.octet, "n": event.n, "tick": event.tick}
    return {"serial": event.octet, "port": event.device - SERIAL, "n": event.n, "tick": event.tick}


def write_log(log: InputLog, path: str | os.PathLike[str]) -> None:
    """Write a log's file. Raises UserError if it cannot be written."""
    try:
        pathlib.Path(path).write_text(json.dumps(log_object(log)) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(path, f"cannot be written ({error.strerror})", "give another file") from None


def read_log(path: str | os.PathLike[str]) -> InputLog:
    """Read a log's file. Raises LogFileError."""
    advice = "record it again (x86virt run GUEST --record FILE)"
    try:
        with open(path, "rb") as file:
            octets = file.read(LARGEST_FILE + 1)
        if len(octets) > LARGEST_FILE:
            raise LogFileError(path, "too large for an input log", advice)
        document = json.loads(octets)
        return parse_log(document)
    except OSError as error:
        raise LogFileError(path, f"cannot be read ({error.strerror})", "give the file of an input log") from None
    except LogFileError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LogFileError(path, f"not an input log of version {VERSION} ({error})", advice) from None


def parse_log(document: Any) -> InputLog:
    """A log from JSON. Raises ValueError, KeyError or TypeError for anything that is not one."""
    if document["format"] != FORMAT or document["version"] != VERSION:
        raise ValueError(f"format {document['format']!r}, version {document['version']!r}")
    if document.keys() != {"format", "version", "identity", "events", "reads", "missed"}:
        raise ValueError("unknown or missing keys")
    identity = document["identity"]
    for name, kind in IDENTITY.items():
        if type(identity[name]) is not kind:
            raise ValueError(f"identity.{name}")
    for name in ("instructions", "rtc_tick"):
        whole(identity[name], LATEST)
    if identity["rtc"] is not None:
        whole(identity["rtc"], 1 << 40)
    if not all(isinstance(digest, str) for digest in identity["disks"]):
        raise ValueError("identity.disks")
    log = InputLog(identity=identity)
    log.events = [parse_event(event) for event in document["events"]]
    log.reads = [TimeRead(whole(n), choice(source, SOURCES), signed(value)) for n, source, value in document["reads"]]
    log.missed = [(whole(n), whole(rip)) for n, rip in document["missed"]]
    for rows in (log.events, log.reads):
        places = [row.n for row in rows]
        if places != sorted(places):
            raise ValueError("not in the order of n")
    return log


IDENTITY: dict[str, type] = {
    "guest": str, "guest_sha256": str, "strategy": str, "profile": str, "command_line": str, "memory_bytes": int,
    "apic": bool, "disks": list, "rtc_tick": int, "outcome": str, "instructions": int,
}  # fmt: skip


def parse_event(event: dict[str, Any]) -> Event:
    """One event from JSON."""
    n = whole(event["n"])
    if "delivery" in event:
        rip, left = parse_place(event)
        vector, tick, deadline = whole(event["delivery"], 0xFF), whole(event["tick"], LATEST), whole(event["deadline"])
        return Delivery(n, rip, left, vector, tick, deadline)
    if "clock" in event:
        return Clock(n, *parse_place(event), whole(event["clock"], LATEST))
    if "reset" in event:
        return Reset(n, whole(event["reset"], LATEST))
    if "key" in event:
        return Input(n, whole(event["tick"], LATEST), KEYBOARD, whole(event["key"], 0xFF))
    return Input(n, whole(event["tick"], LATEST), SERIAL + choice(event["port"], (0, 1)), whole(event["serial"], 0xFF))


def parse_place(event: dict[str, Any]) -> tuple[int, int | None]:
    """EIP and the iterations left of an event."""
    left = event["left"] if event["left"] is None else whole(event["left"], 0xFFFFFFFF)
    return whole(event["rip"], 0xFFFFFFFF), left


def whole(value: Any, most: int = NEVER) -> int:
    """An integer from 0 to `most`."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r:.40} is no integer from 0 to {most}")
    return value


def signed(value: Any) -> int:
    """A 64-bit integer."""
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{value!r:.40} is no 64-bit integer")
    return value


def choice(value: Any, allowed: Any) -> int:
    """An integer that is one of a few."""
    if type(value) is not int or value not in allowed:
        raise ValueError(f"{value!r:.40} is not among the allowed values")
    return value

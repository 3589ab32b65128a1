"""Equivalence E2: the bare machine is given what a VMM gave its guest, and must accept it (design, section 2a).

`record` runs a guest under a strategy and keeps its input log; `replay` runs it on the bare machine, whose timer stands
still: interrupts come where the log says, time-dependent reads give the log's values. An interrupt is accepted only at
the logged instruction, with IF set, no interrupt shadow, no debug trap waiting, and if the guest's own interrupt
controller would deliver that very vector. Anything else is a `ReplayError`. At the end both states S must be equal.

The file of a log is JSON:

    format      "x86virt-input-log"         version   1
    identity    guest, guest_sha256, strategy, profile, command_line, memory_bytes, outcome, instructions
    events      in their order: {"delivery": vector, "n", "rip", "left", "tick", "deadline"} and
                {"timer": rises, "level", "n"}; `left` is ECX within a repeated string instruction, else null
    reads       [n, source, value]: a port, -1 for the time-stamp counter, -2 - n for performance counter (or MSR) n
    missed      [n, rip] where the VMM had control and left an interrupt waiting before an open window: none, if it is right

`n` counts the guest's instructions retired before.
"""

import json
import os
import pathlib
from dataclasses import replace
from typing import Any

from .api import Setup, strategy_errors
from .core.entries import all_eflags, device_acknowledge, device_advance, device_timer_edges
from .core.layout import NEVER, TIME_ENTRIES, TIME_REPLAY
from .errors import UserError
from .isa.registers import ECX, EFLAGS_IF
from .machine import Machine, RunResult
from .start.boot import Bootable
from .vmm.recorder import Delivery, InputLog, Recorder, TimeRead, TimerLine

FORMAT, VERSION = "x86virt-input-log", 1
LARGEST_FILE = 1 << 28
MOST_STEPS = 1 << 22  # without an instruction retired, on the way to a place in the log
SOURCES = range(-0x1000, 0x10000)


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
        """Stop the time of the board's devices; to be called when the guest is loaded.

        What the timer does is in the log. What other devices do by themselves is not yet: of those only reads are, and a
        delivery of their interrupts is refused.
        """
        self.machine.processor.board.frozen = 1

    # -- time reads -----------------------------------------------------------------------------------------------

    def serve(self, machine: Machine) -> None:
        """The processor wants to read time and finds nothing for it in its part of the log: give it the next part."""
        cpu = machine.processor.cpu
        self.next_read += int(cpu.time_next)
        rows = self.log.reads[self.next_read : self.next_read + TIME_ENTRIES]
        at = f"instruction {int(cpu.retired)} at eip {int(cpu.rip):#x} reads time"
        if not rows:
            raise ReplayError(f"{at}, which the log does not have")
        if rows[0].n != cpu.retired:
            raise ReplayError(f"{at}, in the log instruction {rows[0].n} is the next that does")
        for number, row in enumerate(rows):
            cpu.time_log[number] = (row.n, row.source, row.value)
        if cpu.time_next == 0 and cpu.time_count:
            raise ReplayError(f"{at} from another source than {rows[0].source:#x}, which the log has")
        cpu.time_count, cpu.time_next = len(rows), 0

    # -- events ---------------------------------------------------------------------------------------------------

    def advance(self, retired_limit: int) -> bool:
        """Go on to that many retired instructions (True) or the guest's end (False), through the log's events."""
        while self.next_event < len(self.log.events):
            event = self.log.events[self.next_event]
            if event.n > retired_limit:
                break
            if not self.machine.advance(event.n):
                raise ReplayError(f"the guest ended as {self.machine.result().outcome} before {event}")
            self.next_event += 1
            if isinstance(event, TimerLine):
                device_timer_edges(self.machine.processor.boards, event.edges, event.level)
            else:
                self.deliver(event)
        return self.machine.advance(retired_limit)

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
        if not device_advance(processor.boards, cpu.ticks):
            raise ReplayError(f"the interrupt controller requests nothing at {event}")
        vector = int(device_acknowledge(processor.boards))
        if vector != event.vector:
            raise ReplayError(f"the interrupt controller gives vector {vector:#x} at {event}")
        cpu.timer_vector, cpu.timer_pending = vector, 1
        self.machine.advance(event.n)

    def find_place(self, event: Delivery) -> None:
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
            raise ReplayError(f"{reads} reads of time lie behind the guest's end")


# -- whole runs -----------------------------------------------------------------------------------------------------


def record(setup: Setup, image: Bootable, command_line: str = "") -> tuple[RunResult, InputLog]:
    """Run a guest under a strategy and keep what it was given. Raises what `Setup.run` raises.

    A disk's interrupts and the times that its status tells are in no log yet: a guest with disks is refused.
    """
    if setup.disks:
        raise UserError(setup.disks[0], "what a disk does in time cannot be recorded yet", "run it without --record")
    with strategy_errors(setup.name):
        machine = replace(setup, apic=False).machine()  # whose interrupts are in no log yet either
        recorder = Recorder(machine)
        machine.load(image, command_line)
        result = machine.run(setup.max_cycles)
        recorder.drain()
    recorder.log.identity = {
        "guest": image.name,
        "guest_sha256": image.sha256,
        "strategy": setup.name,
        "profile": setup.profile.name,
        "command_line": command_line,
        "memory_bytes": setup.memory_bytes,
        "outcome": result.outcome,
        "instructions": result.instructions,
    }
    return result, recorder.log


def replay(setup: Setup, image: Bootable, log: InputLog) -> Machine:
    """Run a guest on the bare machine with the inputs of a log; the machine at its end.

    Raises ReplayError if the bare machine does not accept the log, or ends otherwise than it says.
    """
    if log.missed:
        n, rip = log.missed[0]
        raise ReplayError(f"the VMM left an interrupt waiting before an open window after {n} instructions at {rip:#x}")
    if image.sha256 != log.identity["guest_sha256"]:
        raise ReplayError(f"the log is of another image than {image.name}")
    if setup.disks:
        raise ReplayError("the log is of a machine without disks")
    for name, here in (("profile", setup.profile.name), ("memory_bytes", setup.memory_bytes)):
        if log.identity[name] != here:
            raise ReplayError(f"the log is of a machine with {name} {log.identity[name]}, not {here}")
    machine = replace(setup, apic=False).machine()
    follower = Replay(machine, log)
    machine.load(image, log.identity["command_line"])
    follower.freeze()
    instructions, outcome = log.identity["instructions"], log.identity["outcome"]
    # One instruction more than there are: a guest that should have ended does not run on for ever.
    going = follower.advance(instructions + (outcome != "budget"))
    if outcome == "budget":
        machine.stop("budget")
    elif going:
        raise ReplayError(f"the guest goes on behind instruction {instructions}, where it ended as {outcome}")
    follower.finish()
    result = machine.result()
    if (result.outcome, result.instructions) != (outcome, instructions):
        raise ReplayError(
            f"the guest ended as {result.outcome} after {result.instructions} instructions, "
            f"in the log as {outcome} after {instructions}"
        )
    return machine


# -- the file -------------------------------------------------------------------------------------------------------


def log_object(log: InputLog) -> dict[str, Any]:
    """A log as JSON."""
    events: list[dict[str, int | None]] = []
    for event in log.events:
        if isinstance(event, Delivery):
            events.append(
                {"delivery": event.vector, "n": event.n, "rip": event.rip, "left": event.left, "tick": event.tick,
                 "deadline": event.deadline}
            )  # fmt: skip
        else:
            events.append({"timer": event.edges, "level": event.level, "n": event.n})
    reads = [[row.n, row.source, row.value] for row in log.reads]
    return {
        "format": FORMAT,
        "version": VERSION,
        "identity": log.identity,
        "events": events,
        "reads": reads,
        "missed": [list(place) for place in log.missed],
    }


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
        if not isinstance(identity[name], kind) or isinstance(identity[name], bool):
            raise ValueError(f"identity.{name}")
    whole(identity["instructions"])
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
    "outcome": str, "instructions": int,
}  # fmt: skip


def parse_event(event: dict[str, Any]) -> Delivery | TimerLine:
    """One event from JSON."""
    if "delivery" in event:
        left = event["left"] if event["left"] is None else whole(event["left"], 0xFFFFFFFF)
        return Delivery(
            whole(event["n"]), whole(event["rip"], 0xFFFFFFFF), left, whole(event["delivery"], 0xFF),
            whole(event["tick"]), whole(event["deadline"]),
        )  # fmt: skip
    return TimerLine(whole(event["n"]), whole(event["timer"]), choice(event["level"], (0, 1)))


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

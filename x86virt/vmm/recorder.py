"""What a VMM's guest was given from outside, instruction by instruction: the input log of equivalence E2.

What its own instructions do not determine reaches a guest in these ways: interrupts; what it reads of time; the time of its
devices, of which all that they do by themselves is a function; keys and bytes of serial lines; and what it was started
with. A recorder notes them without costing a cycle. `x86virt/replay.py` gives them to the bare machine again.

A place in the guest's run is `n`, the number of instructions retired before; `rip`; and, within a repeated string
instruction, `left`, the iterations that are still to come (ECX).

Devices stand still between the moments at which they are looked at. Such a moment is an access of the guest's (an entry of
the processor's log of time, with its tick), or a look of the VMM's own. Of these a `Clock` is kept where time has done
something since the last, so that a replay's devices go through the same states in the same order.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..core.layout import NEVER, TIME_APIC, TIME_OUT, TIME_RECORD
from ..isa.registers import ECX

if TYPE_CHECKING:
    from ..machine import Machine
    from .virtual_machine import VirtualMachine


class Place(NamedTuple):
    """Where the guest stands, and when."""

    n: int
    rip: int
    left: int | None
    tick: int


class TimeLog(Protocol):
    """Who records a machine, or replays a record on it."""

    def serve(self, machine: "Machine") -> None:
        """The processor's log is full, or empty in a replay: make room in it, or fill it."""

    def on_reset(self, machine: "Machine") -> None:
        """The guest's reset line is about to be pulled."""

    def before_input(self, machine: "Machine") -> None:
        """A device is about to be offered a byte from outside."""

    def on_input(self, machine: "Machine", device: int, octet: int) -> None:
        """A device took a byte from outside: KEYBOARD, or SERIAL and a port's number."""


KEYBOARD, SERIAL = -1, 0  # devices of an Input; serial ports are 0 and 1


@dataclass(frozen=True)
class Delivery:
    """An interrupt that the guest took; `tick` is when, `deadline` when its device had asked for it."""

    n: int
    rip: int
    left: int | None
    vector: int
    tick: int
    deadline: int


@dataclass(frozen=True)
class Clock:
    """The devices saw tick `tick`, since the last one time did something to them."""

    n: int
    rip: int
    left: int | None
    tick: int


@dataclass(frozen=True)
class Input:
    """A byte from outside that a device took."""

    n: int
    tick: int
    device: int
    octet: int


@dataclass(frozen=True)
class Reset:
    """The guest began anew by its own reset line."""

    n: int
    tick: int


Event = Delivery | Clock | Input | Reset


@dataclass(frozen=True)
class TimeRead:
    """A dealing with time: a counter's value, or the tick of an access to a device (sources: core/layout.py)."""

    n: int
    source: int
    value: int

    @property
    def tells(self) -> bool:
        """Whether the guest may have learnt something of time by it: not by a write to a port."""
        return not TIME_OUT <= self.source < TIME_APIC


@dataclass
class InputLog:
    """All that a run was given. `events` are in the order in which they came; `missed` names every place at which the
    VMM had control and did not deliver an interrupt that waited before an open window."""

    events: list[Event] = field(default_factory=list)
    reads: list[TimeRead] = field(default_factory=list)
    missed: list[tuple[int, int]] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def deliveries(self) -> list[Delivery]:
        """The interrupts alone."""
        return [event for event in self.events if isinstance(event, Delivery)]

    @property
    def time_reads(self) -> int:
        """How often the guest may have learnt of time."""
        return sum(row.tells for row in self.reads)

    @property
    def empty(self) -> bool:
        """Whether nothing of time, and nothing from outside, reached the guest."""
        return not any(row.tells for row in self.reads) and not any(
            isinstance(event, Delivery | Input) for event in self.events
        )


class Recorder:
    """Records the inputs of one machine's guest; make it before the guest is loaded."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.log = InputLog()
        self.requested = 0  # the tick at which time last did something that may have asked for an interrupt
        self._due = NEVER
        machine.time_log = self
        machine.processor.cpu.time_mode = TIME_RECORD
        if machine.vm is not None:
            machine.vm.recorder = self

    # -- the processor's log of time ------------------------------------------------------------------------------

    def serve(self, machine: "Machine") -> None:
        """The processor's log is full: take it."""
        self.drain()

    def drain(self) -> None:
        """Take what the processor has logged."""
        self.take(self.machine.processor.cpu)

    def take(self, cpu: Any) -> None:
        """Take what a processor's record has logged: the machine's, or that of the VMM's interpreter."""
        rows = cpu.time_log[: int(cpu.time_count)]
        self.log.reads += [TimeRead(int(row["n"]), int(row["source"]), int(row["value"])) for row in rows]
        cpu.time_count = 0

    def on_time(self, vm: "VirtualMachine", source: int, value: int) -> None:
        """The VMM itself deals with time for an instruction that it emulates."""
        self.drain()
        self.log.reads.append(TimeRead(int(vm.processor.cpu.retired), source, value))

    # -- devices and interrupts -------------------------------------------------------------------------------------

    def before_devices(self, vm: "VirtualMachine") -> None:
        """Note when time next does something to the devices, before they are shown a tick."""
        self._due = vm.devices.next_event()

    def after_devices(self, vm: "VirtualMachine") -> None:
        """They were shown one: keep it, if that time had come."""
        tick = int(vm.board.tick)
        if tick >= self._due:
            self.requested = self._due
            n, rip, left, _ = self.place(vm)
            if left is not None and (vm.interrupts.at_repeated_string() is None or self.was_delivered(n, rip)):
                left = None
            self.log.events.append(Clock(n, rip, left, tick))

    def was_delivered(self, n: int, rip: int) -> bool:
        """Whether an interrupt was the last event at this place but for looks at the devices: it may still be being delivered."""
        events = reversed(self.log.events)
        last = next((event for event in events if not isinstance(event, Clock) or (event.n, event.rip) != (n, rip)), None)
        return isinstance(last, Delivery) and (last.n, last.rip) == (n, rip)

    def on_delivery(self, vm: "VirtualMachine", vector: int) -> None:
        """The VMM is about to deliver an interrupt."""
        self.note_delivery(self.place(vm), vector)

    def place(self, vm: "VirtualMachine") -> Place:
        """Where the guest is, and when."""
        cpu = vm.processor.cpu
        return Place(int(cpu.retired), vm.eip(), iterations_left(vm), int(cpu.ticks))

    def note_delivery(self, place: Place, vector: int) -> None:
        """An interrupt is delivered there."""
        self.log.events.append(Delivery(place.n, place.rip, place.left, vector, place.tick, self.requested))

    def on_resume(self, vm: "VirtualMachine") -> None:
        """The VMM gives control back to a guest that has not ended: nothing may wait before an open window.

        While one instruction is let write a traced frame, it is in the middle of that instruction.
        """
        if vm.machine.outcome is None and vm.interrupts.is_open() and vm.devices.see():
            self.log.missed.append((int(vm.processor.cpu.retired), vm.eip()))

    # -- from outside -----------------------------------------------------------------------------------------------

    def before_input(self, machine: "Machine") -> None:
        """Let the devices see the present before one is offered a byte."""
        if machine.vm is not None:
            machine.vm.devices.see()

    def on_input(self, machine: "Machine", device: int, octet: int) -> None:
        """A device took a byte from outside."""
        cpu = machine.processor.cpu
        self.log.events.append(Input(int(cpu.retired), int(cpu.ticks), device, octet))

    def on_reset(self, machine: "Machine") -> None:
        """The guest's reset line is about to be pulled."""
        self.before_input(machine)
        cpu = machine.processor.cpu
        self.log.events.append(Reset(int(cpu.retired), int(cpu.ticks)))


def iterations_left(vm: "VirtualMachine") -> int | None:
    """ECX if the guest may stand at a repeated string instruction, else None.

    The bytes are looked up without any effect; where the shadow does not map them now, ECX is kept, which is never wrong.
    """
    return None if vm.interrupts.at_repeated_string() is False else vm.register(ECX)

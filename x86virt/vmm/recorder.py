"""What a VMM's guest was given from outside, instruction by instruction: the input log of equivalence E2.

Three things reach a guest that its own instructions do not determine: interrupts, what it reads of time, and what it was
started with. A recorder notes them without costing a cycle. `x86virt/replay.py` gives them to the bare machine again.

A place in the guest's run is `n`, the number of instructions retired before; `rip`; and, within a repeated string
instruction, `left`, the iterations that are still to come (ECX).
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..core.entries import device_advance, device_deadline
from ..core.layout import NEVER, TIME_RECORD
from ..isa.registers import ECX

if TYPE_CHECKING:
    from ..machine import Machine
    from .virtual_machine import VirtualMachine


Place = tuple[int, int, int | None, int]  # n, EIP, iterations left, tick


class TimeLog(Protocol):
    """Who sees to the processor's log of time reads when it is full, or empty in a replay."""

    def serve(self, machine: "Machine") -> None:
        """Make room in the log, or fill it."""


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
class TimerLine:
    """What time did to the timer's output: so many rises, and its level then."""

    n: int
    edges: int
    level: int


@dataclass(frozen=True)
class TimeRead:
    """A time-dependent value that the guest read from a port, or (source -1) from the time-stamp counter."""

    n: int
    source: int
    value: int


@dataclass
class InputLog:
    """All that a run was given. `events` are in the order in which they came; `missed` names every place at which the
    VMM had control and did not deliver an interrupt that waited before an open window."""

    events: list[Delivery | TimerLine] = field(default_factory=list)
    reads: list[TimeRead] = field(default_factory=list)
    missed: list[tuple[int, int]] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def deliveries(self) -> list[Delivery]:
        """The interrupts alone."""
        return [event for event in self.events if isinstance(event, Delivery)]

    @property
    def empty(self) -> bool:
        """Whether nothing of time reached the guest."""
        return not self.deliveries and not self.reads


class Recorder:
    """Records the inputs of one machine's guest; make it before the guest is loaded."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.log = InputLog()
        self.requested = 0  # the tick at which the timer last asked
        self._deadline, self._edges, self._level = NEVER, 0, 0
        machine.time_log = self
        machine.processor.cpu.time_mode = TIME_RECORD
        if machine.vm is not None:
            machine.vm.recorder = self

    # -- time reads -----------------------------------------------------------------------------------------------

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

    def on_time_read(self, vm: "VirtualMachine", source: int, value: int) -> None:
        """The VMM itself read time for an instruction that it emulates."""
        self.drain()
        self.log.reads.append(TimeRead(int(vm.processor.cpu.retired), source, value))

    # -- devices and interrupts -------------------------------------------------------------------------------------

    def before_devices(self, vm: "VirtualMachine") -> None:
        """Note how the timer stands before time or a port moves it."""
        board = vm.board
        self._deadline = int(device_deadline(vm.boards))
        self._edges, self._level = int(board.timer_edges), int(board.pit[0].output)

    def after_devices(self, vm: "VirtualMachine", instructions: int, by_guest: bool = False) -> None:
        """Log what moved; `instructions` is 1 for a port access, whose effect is behind the instruction.

        `by_guest`: an instruction that has retired may have moved it, not time alone."""
        board, cpu = vm.board, vm.processor.cpu
        edges, level = int(board.timer_edges) - self._edges, int(board.pit[0].output)
        if edges or level != self._level:
            if edges:
                asked = instructions or by_guest or self._deadline == NEVER
                self.requested = int(cpu.ticks) if asked else self._deadline
            self.log.events.append(TimerLine(int(cpu.retired) + instructions, edges, level))

    def on_delivery(self, vm: "VirtualMachine", vector: int) -> None:
        """The VMM is about to deliver an interrupt."""
        self.note_delivery(self.place(vm), vector)

    def place(self, vm: "VirtualMachine") -> Place:
        """Where the guest is, and when."""
        return int(vm.processor.cpu.retired), vm.eip(), iterations_left(vm), int(vm.processor.cpu.ticks)

    def note_delivery(self, place: Place, vector: int) -> None:
        """An interrupt is delivered there."""
        n, rip, left, tick = place
        self.log.events.append(Delivery(n, rip, left, vector, tick, self.requested))

    def on_resume(self, vm: "VirtualMachine") -> None:
        """The VMM gives control back: nothing may wait before an open window.

        While one instruction is let write a traced frame, it is in the middle of that instruction.
        """
        open_window = vm.interrupts.is_open()
        if open_window and device_advance(vm.boards, vm.processor.cpu.ticks):
            self.log.missed.append((int(vm.processor.cpu.retired), vm.eip()))


def iterations_left(vm: "VirtualMachine") -> int | None:
    """ECX if the guest may stand at a repeated string instruction, else None.

    The bytes are looked up without any effect; where the shadow does not map them now, ECX is kept, which is never wrong.
    """
    return None if vm.interrupts.at_repeated_string() is False else vm.register(ECX)

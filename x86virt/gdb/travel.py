"""Forwards and backwards in time: the way back is a snapshot, and the same run again up to just before.

A run is the same each time: all that reaches the guest comes from the machine itself, at its own simulated time. Whatever
the debugger wrote is part of the history from there on (x86virt/gdb/history.py).
"""

import types
from collections.abc import Callable, Mapping, Sequence

from ..core.layout import NEVER
from ..machine import Machine
from ..symbols import Symbols
from .execution import Execution, Halt, Stop, Why
from .history import EVERY, History
from .place import Place
from .snapshots import Camera, Snapshot

NO_SYMBOLS: Mapping[str, int] = types.MappingProxyType({})


class TravelError(Exception):
    """The run did not come to where it was before."""


def never() -> bool:
    """No one interrupts."""
    return False


class Travel:
    """A machine that can be run forwards and backwards."""

    def __init__(self, machine: Machine, every: int = EVERY, symbols: Mapping[str, int] = NO_SYMBOLS) -> None:
        self.machine = machine
        self.symbols = Symbols(symbols)
        self.execution = Execution(machine)
        self.camera = Camera(machine)
        self.history = History(self.camera, every)

    @property
    def place(self) -> Place:
        """Where the machine is."""
        return self.execution.place

    @property
    def ended(self) -> bool:
        """Whether the guest has come to its end."""
        return self.machine.outcome is not None

    # -- forwards -------------------------------------------------------------------------------------------------

    def go_on(self, stops: Sequence[Stop], poll: Callable[[], bool] = never, retired: int = NEVER) -> Halt:
        """Run to a stop, the guest's end, or a number of instructions."""
        self.begin_forwards(stops, False)
        return self.execution.run(retired, NEVER, self.looking(poll))

    def step(self, stops: Sequence[Stop] = (), poll: Callable[[], bool] = never) -> Halt:
        """One instruction, or the delivery of an event that comes instead of it or behind it."""
        self.begin_forwards(stops, True)
        return self.execution.run(self.place.retired + 1, NEVER, self.looking(poll))

    def begin_forwards(self, stops: Sequence[Stop], deliveries: bool) -> None:
        """What comes before every run forwards."""
        self.history.go_on(self.place)
        self.history.look(self.place)
        self.execution.arm(stops, deliveries)
        self.execution.begin_here()

    def looking(self, poll: Callable[[], bool]) -> Callable[[], bool]:
        """Between two slices: take a snapshot if it is time, and ask whether to go on."""

        def look() -> bool:
            self.history.look(self.place)
            return poll()

        return look

    # -- backwards ------------------------------------------------------------------------------------------------

    def step_back(self, poll: Callable[[], bool] = never) -> Halt:
        """To the boundary before this one."""
        if not self.history.before(self.place):
            return Halt(Why.BEGIN)
        present = self.place
        if not self.to_previous(present, poll):
            self.to_place(present, never)
            return Halt(Why.INTERRUPTED)
        return Halt(Why.LIMIT)

    def go_back(self, stops: Sequence[Stop], poll: Callable[[], bool] = never) -> Halt:
        """To the last stop before now, or to where the history begins.

        A watchpoint's stop is, backwards, the boundary before the instruction that touches it.
        """
        present = end = self.place
        for snapshot in self.history.before(present):
            found = self.last_stop(snapshot, end, end == present, stops, poll)
            if isinstance(found, Halt):
                self.to_place(present, never)
                return found
            if found is not None:
                stop, place = found
                if Execution.is_code(stop):
                    self.to_place(place, never)
                else:
                    self.to_previous(place, never)
                return Halt(Why.STOP, stop, stop.first)
            end = snapshot.place
        if self.history.before(present):
            self.camera.put_back(self.history.snapshots[0])
        return Halt(Why.BEGIN)

    def last_stop(
        self, snapshot: Snapshot, end: Place, is_present: bool, stops: Sequence[Stop], poll: Callable[[], bool]
    ) -> tuple[Stop, Place] | Halt | None:
        """The last stop behind a snapshot and up to a place, noted in one run; a Halt if the client interrupts.

        What is reached at the very place of a snapshot is found from the one before it. At the present nothing is.
        """
        execution = self.execution
        self.camera.put_back(snapshot)
        execution.arm(stops)
        first = execution.stop_here() if snapshot is self.history.snapshots[0] else None
        execution.noted = None if first is None else (first, snapshot.place)
        execution.go_on_here()
        cpu = self.machine.processor.cpu
        cpu.stop_end_retired, cpu.stop_end_ticks = end if is_present else (NEVER, NEVER)
        cpu.stop_notes = 1
        try:
            if not self.run_to(end, poll):
                return Halt(Why.INTERRUPTED)
        finally:
            cpu.stop_notes = 0
        last = None if is_present else execution.stop_here()
        return execution.noted if last is None else (last, end)

    def to_previous(self, place: Place, poll: Callable[[], bool]) -> bool:
        """To the last boundary before a place; False if the client interrupts."""
        if not self.to_first(place.retired - 1, place, poll):
            return False
        while True:
            here = self.camera.take()
            self.execution.arm((), True)
            self.execution.begin_here()
            self.execution.advance(here.place.retired + 1)
            if self.place >= place or self.ended:
                self.camera.put_back(here)
                return True

    def to_first(self, retired: int, before: Place, poll: Callable[[], bool]) -> bool:
        """To the first boundary behind `retired` instructions; from an altered snapshot, at the earliest to that."""
        self.camera.put_back(self.history.base(retired, before))
        self.execution.arm()
        self.execution.begin_here()
        return self.execution.run(retired, NEVER, self.looking(poll)).why is not Why.INTERRUPTED

    def to_place(self, place: Place, poll: Callable[[], bool]) -> bool:
        """To a place where the run has been before; False if the client interrupts. Raises TravelError."""
        self.camera.put_back(self.history.at_or_before(place))
        self.execution.arm()
        self.execution.begin_here()
        return self.run_to(place, self.looking(poll))

    def run_to(self, place: Place, between: Callable[[], bool]) -> bool:
        """Run on to a place; False if interrupted. Raises TravelError."""
        run = self.execution.run
        if self.place.retired < place.retired and run(place.retired, NEVER, between).why is Why.INTERRUPTED:
            return False
        if self.place < place and run(place.retired + 1, place.ticks, between).why is Why.INTERRUPTED:
            return False
        if self.place != place:
            raise TravelError(f"the run came to {self.place} instead of {place}: it cannot be repeated")
        return True

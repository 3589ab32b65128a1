"""Runs of a machine under the debugger's stops: what ended each, and nothing of it known to the guest."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from ..core.entries import arm_stops
from ..core.layout import (
    DELIVERIES_IGNORED,
    DELIVERIES_OF_PROCESSOR,
    DELIVERIES_OF_VMM,
    DELIVERY_MET,
    MAX_STOPS,
    NEVER,
    STOP_ON_CODE,
)
from ..inspection import View
from ..machine import TICKS, Machine
from .place import Place, place_of

SLICE_SECONDS = 0.03  # between looks at the connection
FIRST_SLICE, LARGEST_SLICE = 1_000_000 * TICKS, 1 << 50
NOT_PASSED = -1  # no number of instructions


@dataclass(frozen=True)
class Stop:
    """A breakpoint (STOP_ON_CODE) or watchpoint on linear addresses."""

    kind: int
    first: int
    last: int


class Why(Enum):
    """What ended a run."""

    LIMIT = auto()  # so many instructions, or so many ticks
    STOP = auto()  # a breakpoint or watchpoint
    DELIVERY = auto()  # an interrupt or exception came first
    ENDED = auto()  # the guest's end
    BEGIN = auto()  # backwards: the history begins here
    INTERRUPTED = auto()  # by the client


@dataclass(frozen=True)
class Halt:
    """Why a run ended; for a stop, which one, and the linear address that was reached or touched."""

    why: Why
    stop: Stop | None = None
    address: int = 0


class Execution:
    """Runs one machine forwards."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.view = machine, View(machine)
        self.cpu = machine.processor.cpu
        self.armed: tuple[tuple[Stop, ...], bool] = ((), False)
        self.slice = FIRST_SLICE
        self.noted: tuple[Stop, Place] | None = None

    @property
    def place(self) -> Place:
        """Where the machine is."""
        return place_of(self.machine)

    def arm(self, stops: Sequence[Stop] = (), deliveries: bool = False) -> None:
        """Set the stops of the next runs; `deliveries`: the delivery of an event to the guest is one too."""
        if self.armed == (tuple(stops), deliveries):
            return
        self.armed = (tuple(stops), deliveries)
        cpu = self.cpu
        cpu.stop_count = min(len(stops), MAX_STOPS)
        for number, stop in enumerate(stops[:MAX_STOPS]):
            cpu.stops[number].kind, cpu.stops[number].first, cpu.stops[number].last = stop.kind, stop.first, stop.last
        whose = DELIVERIES_OF_PROCESSOR if self.machine.vm is None else DELIVERIES_OF_VMM
        cpu.stop_deliveries = whose if deliveries else DELIVERIES_IGNORED
        arm_stops(self.machine.processor.state)
        if self.machine.translation is not None:
            self.machine.translation.stops.arm(int(cpu.stop_count))

    def beginning(self) -> int:
        """The address at which the processor begins the present instruction: the guest's own, or its translation's."""
        address = self.view.instruction_address()
        return address if self.machine.translation is None else self.machine.translation.stops.beginning(address)

    def begin_here(self) -> None:
        """The run begins at this instruction: it is no stop now."""
        self.cpu.stop_passed, self.cpu.stop_passed_retired = self.beginning(), self.cpu.retired
        self.cpu.stop_met = 0

    def go_on_here(self) -> None:
        """The run goes on at this instruction: it is no stop again, but one if it is yet to begin."""
        self.begin_here()
        if self.is_yet_to_begin():
            self.cpu.stop_passed_retired = NOT_PASSED

    def is_yet_to_begin(self) -> bool:
        """Whether the guest stands behind an instruction whose successor is not reached yet: in translated code alone."""
        translation = self.machine.translation
        return translation is not None and translation.stops.is_yet_to_begin(self.view.instruction_address())

    def stop_here(self) -> Stop | None:
        """The armed breakpoint at the present instruction, unless that was begun and met it before, or is yet to begin."""
        cpu, address = self.cpu, self.view.instruction_address()
        if self.is_yet_to_begin():
            return None
        if cpu.stop_passed in (address, self.beginning()) and cpu.stop_passed_retired == cpu.retired:
            return None
        return next((stop for stop in self.armed[0] if self.is_code(stop) and stop.first == address), None)

    def advance(self, retired: int = NEVER, ticks: int = NEVER) -> Halt:
        """Run up to a number of instructions, a number of ticks, a stop, or the guest's end.

        With cpu.stop_notes set no stop ends the run, and the last one is kept in `noted`.
        """
        self.cpu.stop_number = 0
        going = self.machine.advance(retired, None, None, ticks)
        if self.machine.translation is not None:
            self.machine.translation.stops.settle()
        number = int(self.cpu.stop_number)
        if number and self.cpu.stop_notes:
            self.noted = self.armed[0][number - 1], Place(int(self.cpu.stop_retired), int(self.cpu.stop_ticks))
        if not going:
            return Halt(Why.ENDED)
        if number == 0 or self.cpu.stop_notes:
            return Halt(Why.LIMIT)
        if number == DELIVERY_MET:
            return Halt(Why.DELIVERY)
        return Halt(Why.STOP, self.armed[0][number - 1], int(self.cpu.stop_address))

    def run(self, retired: int, ticks: int, between: Callable[[], bool]) -> Halt:
        """The same in slices; `between` them the caller looks about, and may interrupt by True."""
        while True:
            began, start = time.monotonic(), int(self.cpu.ticks)
            halt = self.advance(retired, min(ticks, start + self.slice))
            self.adapt_slice(time.monotonic() - began, int(self.cpu.ticks) - start)
            if halt.why is not Why.LIMIT or self.cpu.retired >= retired or self.cpu.ticks >= ticks:
                return halt
            if between():
                return Halt(Why.INTERRUPTED)

    def adapt_slice(self, seconds: float, ticks: int) -> None:
        """Choose the next slice so that it takes about SLICE_SECONDS."""
        if ticks < self.slice:
            return
        factor = min(4.0, SLICE_SECONDS / max(seconds, 1e-6))
        self.slice = int(min(max(self.slice * factor, FIRST_SLICE // 100), LARGEST_SLICE))

    @staticmethod
    def is_code(stop: Stop) -> bool:
        """Whether a stop is met before the instruction rather than behind it."""
        return stop.kind == STOP_ON_CODE

"""Passing over what a filter would not show, at full speed.

The machine runs a stretch ahead; the ledger tells whether anything in it could pass the filter. If so, the machine is put
back to where the stretch began, and a shorter one is tried, until single steps take over. For a few addresses the stops
of the debugger serve better. Nothing of this changes a cycle: a run is the same each time.
"""

from itertools import chain
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..core.layout import MAX_STOPS, NEVER, STOP_ON_CODE
from ..gdb.execution import Execution, Stop
from ..gdb.snapshots import Camera, Snapshot
from ..isa.events import EVENT_ID, EVENT_VMM_INTERPRET, EVENTS, MODE_NAMES
from .filters import Filter

if TYPE_CHECKING:
    from ..machine import Machine

SHORTEST, FIRST, LONGEST = 2_000, 32_000, 50_000_000  # guest instructions of a stretch
# What a change of ring, processor mode or owner is charged: deliveries, returns, gates, the VMM, and CR0, which holds PE.
CHANGES = {event.name for event in EVENTS if event.domain in ("transition", "vmm")} | {"sys.mov_cr0_write", "sys.iret_same_cpl"}


class Forward(Protocol):
    """Runs one machine past what is dull."""

    def run(self, last_retired: int, last_tick: int) -> None:
        """Run on, up to an instruction or a tick at the latest, and stop where something may come that is shown."""


def forward_for(machine: "Machine", shown: Filter | None) -> Forward | None:
    """The way to pass over what a filter hides; None where single steps are the only one."""
    if not shown:
        return None
    if not shown.addresses:
        return ByLedger(machine, shown)
    if machine.translation is not None:
        return None  # where code is translated, the processor never comes to the addresses of the guest's kernel
    places = list(dict.fromkeys(chain(*(addresses[: MAX_STOPS + 1] for addresses in shown.addresses))))
    return ByStops(machine, places) if len(places) <= MAX_STOPS else None


class ByStops:
    """Runs on to one of a few addresses. Where the VMM's code lies no stop is met, nor is anything shown."""

    def __init__(self, machine: "Machine", places: list[int]) -> None:
        self.execution = Execution(machine)
        self.stops = [Stop(STOP_ON_CODE, place, place) for place in places]

    def run(self, last_retired: int, last_tick: int) -> None:
        """Run on to an address."""
        self.execution.arm(self.stops)
        self.execution.begin_here()
        self.execution.advance(last_retired, last_tick)
        self.execution.arm()
        self.execution.machine.retired_limit = NEVER


class ByLedger:
    """Runs on by stretches."""

    def __init__(self, machine: "Machine", shown: Filter) -> None:
        self.machine = machine
        self.camera = Camera(machine)
        self.cells = interesting_cells(shown, machine.vm is not None)
        self.stretch = FIRST

    def run(self, last_retired: int, last_tick: int) -> None:
        """Run on, up to an instruction or a tick at the latest, and stop where something may come that is shown."""
        machine, cpu = self.machine, self.machine.processor.cpu
        before: Snapshot | None = None
        while machine.outcome is None and self.stretch >= SHORTEST:
            target = int(cpu.retired) + self.stretch
            if target > last_retired:
                self.stretch //= 4
                continue
            before = before or self.camera.take()
            seen = cpu.ledger_count.copy() + cpu.ledger_ticks
            machine.advance(target, None, None, last_tick)
            machine.processor.settle()
            changed = (cpu.ledger_count + cpu.ledger_ticks != seen) & self.cells
            if machine.outcome is None and not changed.any() and cpu.ticks < last_tick and cpu.retired >= target:
                self.stretch = min(2 * self.stretch, LONGEST)
                before = None
                continue
            self.camera.put_back(before)
            machine.outcome = None
            self.stretch //= 4
        self.stretch = max(self.stretch, SHORTEST)
        machine.retired_limit = NEVER


def interesting_cells(shown: Filter, has_vmm: bool) -> np.ndarray:
    """The cells of the ledger that something shown would be charged to: events by modes, one for each kind of filter."""
    cells = np.ones((len(EVENTS), len(MODE_NAMES)), bool)
    if shown.events:
        cells &= rows_of(shown.events)
    if shown.transitions:
        cells &= rows_of(CHANGES)
    if shown.rings:
        modes = {mode for ring in shown.rings for mode in modes_of(ring, has_vmm)}
        chosen = cells & np.array([name in modes for name in MODE_NAMES])
        chosen[EVENT_VMM_INTERPRET] = cells[EVENT_VMM_INTERPRET]  # an interpreted guest may be in any ring
        cells = chosen
    return cells


def rows_of(events: "set[str] | frozenset[str]") -> np.ndarray:
    """The rows of some events."""
    chosen = np.zeros((len(EVENTS), 1), bool)
    chosen[[EVENT_ID[name] for name in events]] = True
    return chosen


def modes_of(ring: int | str, has_vmm: bool) -> tuple[str, ...]:
    """The modes of the ledger in which a ring, or something named as one, is charged; a halted processor is in any ring."""
    if isinstance(ring, str):
        return (ring,)
    if ring == 3:
        return "guest_user", "idle"
    return ("vmm", "guest_kernel", "idle") if has_vmm else ("guest_kernel", "idle")

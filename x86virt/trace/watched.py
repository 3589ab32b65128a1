"""Whichever processor executes the guest at the moment: the machine's, or that of the VMM's interpreter."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..isa.events import MODE_NAMES, MODE_VMM
from ..isa.registers import AR_DB, CR0_PE, CS, EFLAGS_VM

if TYPE_CHECKING:
    from ..machine import Machine
    from ..processor import Processor

M32 = 0xFFFFFFFF
NO_EVENT = -1


@dataclass(frozen=True)
class Place:
    """Where the processor is."""

    ring: int
    mode: str  # of the ledger
    processor_mode: str
    bits: int  # of the code segment
    selector: int
    offset: int
    address: int
    interpreted: bool = False


class WatchedProcessor:
    """A processor, with views of single fields: reading them is several times as fast as through the record."""

    def __init__(self, processor: "Processor", interpreted: bool) -> None:
        self.processor, self.cpu, self.interpreted = processor, processor.cpu, interpreted
        state = processor.state
        self.fields = [state[name] for name in ("cpl", "mode", "cr0", "eflags", "rip")]
        self.code = [state["seg"][name][:, CS] for name in ("selector", "seg_base", "access")]
        self.event_before = NO_EVENT

    def place(self) -> Place:
        """Where it is. What an interpreter does is the VMM's time, whatever the guest's ring is."""
        ring, mode, cr0, eflags, offset = (int(field[0]) for field in self.fields)
        selector, base, access = (int(field[0]) for field in self.code)
        processor_mode = "real"
        if cr0 & CR0_PE:
            processor_mode = "virtual-8086" if eflags & EFLAGS_VM else "protected"
        bits = 32 if access & AR_DB else 16
        name = MODE_NAMES[MODE_VMM if self.interpreted else mode]
        return Place(ring, name, processor_mode, bits, selector, offset, (offset + base) & M32, self.interpreted)

    def expect_delivery(self) -> None:
        """From here on an event that is delivered shall be seen: the ledger does not tell those of an interpreted guest."""
        self.event_before = int(self.cpu.event_vector)
        self.cpu.event_vector = NO_EVENT

    def has_delivered(self) -> bool:
        """Whether one was."""
        if int(self.cpu.event_vector) != NO_EVENT:
            return True
        self.cpu.event_vector = self.event_before
        return False


class Watch:
    """The processors of one machine."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.own = WatchedProcessor(machine.processor, False)
        self.interpreters: WatchedProcessor | None = None

    @property
    def now(self) -> WatchedProcessor:
        """The one that has the guest."""
        vm = self.machine.vm
        if vm is None or not vm.is_interpreted:
            return self.own
        if self.interpreters is None or self.interpreters.processor is not vm.interpreter.processor:
            self.interpreters = WatchedProcessor(vm.interpreter.processor, True)
        return self.interpreters

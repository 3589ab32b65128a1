"""A virtual machine under a VMM of the software kind: the guest's kernel is deprivileged, and what it may not do traps.

To what every virtual machine has (virtual_machine.py) come the rooms that stand between a deprivileged guest and the
processor: `events` (exceptions are delivered through the guest's IDT), `entries` (open gates, SYSENTER), `segments` and
`descriptors` (shadow descriptor tables), `translation`. What a strategy's hooks call is in the last part of the class.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..isa.vectors import KIND_EXTERNAL
from . import hardware_state
from .crossings import Crossings
from .emulate import emulate
from .emulate.system_calls import sysenter
from .emulate.writes import simulate_write
from .exits import Exit, GuestFault, NotDirect
from .guest_events import GuestEvents
from .instruction import Instruction
from .interpreter import Interpreter
from .launch import launch
from .open_entries import OpenEntries
from .reflect import reflect
from .saved_state import restore_software, software_state
from .shadow_descriptors import ShadowDescriptors
from .software_lines import software_lines
from .state import SegmentState, virtual_registers
from .translation import Translator
from .vcpu import VirtualCpu
from .virtual_interrupts import VirtualInterrupts
from .virtual_machine import VirtualMachine
from .virtual_segments import VirtualSegments

if TYPE_CHECKING:
    from ..machine import Machine
    from ..start.boot import Boot


class SoftwareVm(VirtualMachine):
    """One guest with one virtual processor, and the parts of a VMM that software techniques share."""

    segments: VirtualSegments
    crossings: Crossings

    def __init__(self, machine: "Machine", ring: int) -> None:
        super().__init__(machine, ring)
        self.descriptors = ShadowDescriptors(self, ring)
        self.segments = VirtualSegments(self)
        self.crossings = Crossings(self)
        self.events = GuestEvents(self)
        self.interrupts = VirtualInterrupts(self)
        self.entries = OpenEntries(self)
        translates = machine.strategy.processor == "binary_translation"
        self.translation = Translator(self) if translates else None

    def make_vcpu(self, record: np.ndarray) -> VirtualCpu:
        """The virtual processor, of which the hardware holds the general registers."""
        return VirtualCpu(record, self.ring)

    # -- running --------------------------------------------------------------------------------------------------

    def launch(self, boot: "Boot") -> None:
        """Put the processor under the VMM, the guest at its first instruction."""
        launch(self, boot)

    def before_running(self) -> None:
        """A run goes on that may have paused as the guest was about to."""
        if self.translation is not None:
            self.translation.mark_entered()

    def charge_dispatch(self) -> None:
        """Charge the dispatch of a trap, or of a callout that stays in its ring."""
        in_ring = self.translation is not None and self.translation.serving
        if not self.is_served_directly:
            self.charge("light_dispatch" if in_ring else "trap_dispatch", 1)

    @property
    def is_served_directly(self) -> bool:
        """Whether a routine made for it serves a callout, which it then charges alone."""
        return self.translation is not None and self.translation.direct

    @property
    def owes_step_trap(self) -> bool:
        """Whether the guest has executed an instruction under TF in translated code, and its trap is yet to come."""
        return self.translation is not None and not self.is_interpreted and self.translation.owes_step_trap()

    @property
    def translator(self) -> Translator:
        """The binary translator of a technique that has one."""
        assert self.translation is not None, "the technique translates"
        return self.translation

    # -- memory ---------------------------------------------------------------------------------------------------

    def flush_shadow(self) -> None:
        """The guest's address space may be another one: CR3, CR0 or CR4 was written, or what lies behind its frames changed."""
        if self.translation is not None:
            self.translation.leave_ring()  # MOV CR3
        self.shadow.change_space()
        self.descriptors.check_table_pages()
        if self.translation is not None:
            self.translation.pages.revalidate()

    # -- what is saved, and shown to a debugger ---------------------------------------------------------------------

    def own_state(self) -> dict[str, Any]:
        """What the rooms of this class keep, as JSON has it."""
        return software_state(self)

    def restore_own(self, state: dict[str, Any]) -> None:
        """Put it back."""
        restore_software(self, state)

    def virtual_registers(self) -> tuple[dict[str, int], dict[str, SegmentState]]:
        """The guest's registers and segments, read from what VMM and hardware hold."""
        return virtual_registers(self)

    def describe(self) -> list[str]:
        """What VMM and processor really hold behind the guest's view."""
        return software_lines(self)

    # -- between the hardware and the interpreter -----------------------------------------------------------------

    def before_interpreting(self) -> None:
        """The pointer to the last x87 instruction is the guest's."""
        if self.translation is not None:
            self.translation.set_x87_pointer()

    def can_hold(self, interpreter: Interpreter) -> bool:
        """Whether the guest can run directly in the state that the interpreter has."""
        return hardware_state.can_hold(self, interpreter)

    def give_state(self, interpreter: Interpreter, invalidates: bool) -> None:
        """Take that state back; `invalidates`: translations were invalidated, so that the shadow has to start anew."""
        hardware_state.store(self, interpreter, invalidates)

    # -- the guest's registers ------------------------------------------------------------------------------------

    def register(self, number: int) -> int:
        """A general register of the guest; ESP is in the frame."""
        if self.translation is not None and not self.is_interpreted and number in self.translation.overlay:
            return self.translation.overlay[number]
        return super().register(number)

    def segment_cache(self, segment: int):
        """What the processor holds of a segment register of the guest's, or would if the guest's code ran as it is."""
        if self.translation is not None:
            return self.translation.segment_cache(segment)
        return self.processor.cpu.seg[segment]

    # -- what a strategy's hooks call, with `register`, `set_register` and `charge` -------------------------------

    def emulate(self, instruction: Instruction) -> bool:
        """Perform a sensitive instruction on the virtual processor; False if it is none."""
        return emulate(self, instruction)

    def complete_instruction(self, stepped: bool) -> None:
        """Count an emulated guest instruction, and raise the trap that TF before it asks for."""
        self.retire()
        if stepped:
            self.events.single_step_trap()

    def simulate_write(self) -> None:
        """Perform the guest's instruction, which may write what is traced, where it stands. Raises GuestFault."""
        simulate_write(self, self.instruction())

    def shadow_fault(self, exit: Exit) -> None:
        """A page fault of the processor: the guest's own (GuestFault), a missing shadow entry, or a traced frame."""
        self.shadow.fault(exit)

    def reflect_exit(self, exit: Exit) -> None:
        """Deliver the exception that caused an exit to the guest as it is."""
        self.events.reflect_exit(exit)

    def inject_exception(self, fault: GuestFault) -> None:
        """Deliver a fault to the guest."""
        self.events.inject_exception(fault)

    def deliver_interrupt(self, vector: int) -> None:
        """Deliver an external interrupt that was acknowledged; the interpreter does where the hardware cannot hold the way."""
        try:
            reflect(self, vector, None, KIND_EXTERNAL)
        except NotDirect:
            self.interpreter.deliver_external(vector)

    def on_sysenter_registers(self) -> None:
        """The guest wrote what SYSENTER goes by."""
        self.entries.open_sysenter()

    def deliver_open_gate(self, exit: Exit) -> None:
        """INT n came through a gate that was opened to ring 3."""
        self.entries.deliver_open_gate(exit)

    def enter_system_call(self) -> None:
        """SYSENTER of the guest."""
        sysenter(self)

"""A virtual machine under a VMM of the software kind: its processor, memory and devices, and where the VMM's parts meet.

Each part is a room of its own: `crossings` (exit and resume), `events` and `interrupts` (what the guest is delivered),
`entries` (open gates, SYSENTER), `segments` and `descriptors`, `shadow`, `devices`, `physical`, `translation`, `interpreter`.
What a strategy's hooks call is here, in the last part of the class.

The guest's frames are machine frames in descending order unless its strategy asks for others (the p2m says which), so
that nothing can take guest-physical for machine addresses.
"""

from typing import TYPE_CHECKING

import numpy as np

from ..core.board import BOARD
from ..core.entries import vmm_charge, vmm_reference
from ..core.layout import MODEL_SPECIFIC
from ..identity import reset_model_specific
from ..isa.events import EVENT_ID, EVENT_VMM_UNPRICED_HOOK, EVENTS
from ..isa.registers import CS, ESP
from ..isa.vmx import FEATURE_CONTROL_LOCK
from ..records import record_array
from . import layout
from .crossings import Crossings
from .emulate import emulate
from .emulate.system_calls import sysenter
from .emulate.writes import simulate_write
from .exits import Exit, GuestFault, NotDirect
from .guest_events import GuestEvents
from .guest_memory import GuestMemory
from .instruction import Instruction, decode_at_trap
from .interpreter import Interpreter
from .isolation import set_owners
from .open_entries import OpenEntries
from .physical_map import PhysicalMap
from .prices import PathPrices
from .region import region_address
from .shadow.memory import ShadowMemory
from .shadow_descriptors import ShadowDescriptors
from .translation import Translator
from .vcpu import VirtualCpu
from .virtual_devices import VirtualDevices
from .virtual_interrupts import VirtualInterrupts
from .virtual_segments import VirtualSegments

if TYPE_CHECKING:
    from ..machine import Machine
    from .recorder import Recorder

M32 = 0xFFFFFFFF
PAGE = 4096


class VirtualMachine:
    """One guest with one virtual processor, and the parts of a VMM that software techniques share."""

    def __init__(self, machine: "Machine", ring: int) -> None:
        self.machine, self.ring = machine, ring
        self.processor = machine.processor
        self.prices = PathPrices(machine.profile)
        option = machine.strategy.option
        frames = machine.memory_bytes // PAGE
        first = layout.VMM_BYTES // PAGE
        self.p2m = np.arange(first, first + frames, dtype=np.int64)
        if option("p2m") == "scattered":  # in descending order
            self.p2m = self.p2m[::-1].copy()
        self.boards = record_array(BOARD)
        self.board = self.boards[0]
        self.guest = GuestMemory(self)
        region = self.processor.memory[layout.VCPU_RECORD : layout.VCPU_RECORD + layout.VCPU.itemsize]
        self.vcpu = VirtualCpu(region, ring)
        self.model_specific = record_array(MODEL_SPECIFIC)
        self.model_specific[0] = self.processor.cpu.msr
        reset_model_specific(self.model_specific[0])
        self.model_specific["has_svm"] = 0  # as where firmware has disabled it: CPUID tells of it, EFER.SVME cannot be set
        self.model_specific["feature_control"] = FEATURE_CONTROL_LOCK  # likewise of VMX
        self.unpriced = 0
        self.exits: dict[str, list[int]] = {}
        policy, size = str(option("shadow")), int(option("shadow_size"))
        self.shadow = ShadowMemory(self, policy, size, int(option("shadow_writes")))
        self.descriptors = ShadowDescriptors(self, ring)
        self.segments = VirtualSegments(self)
        self.crossings = Crossings(self)
        self.events = GuestEvents(self)
        self.interrupts = VirtualInterrupts(self)
        self.entries = OpenEntries(self)
        self.devices = VirtualDevices(self)
        self.made_interpreter: Interpreter | None = None
        self.physical = PhysicalMap(self)
        self.follow_p2m()
        translates = machine.strategy.processor == "binary_translation"
        self.translation = Translator(self) if translates else None
        self.recorder: Recorder | None = None
        self.last_exit: Exit | None = None
        self.last_delivery: tuple[int, int | None, int] | None = None  # to the guest: vector, error code, kind
        set_owners(self)

    # -- running --------------------------------------------------------------------------------------------------

    def run(self, single: bool = False) -> int:
        """Run the guest, directly or in the interpreter: an outcome of core/layout.py; OK: it goes on."""
        if self.is_interpreted:
            return self.interpreter.run(single)
        return self.processor.run(single)

    def before_running(self) -> None:
        """A run goes on that may have paused as the guest was about to."""
        if self.translation is not None:
            self.translation.mark_entered()

    def handle_hook(self) -> None:
        """One exit: read it, charge the dispatch, let the strategy act, resume."""
        before = int(self.processor.cpu.ticks)
        exit = self.last_exit = self.crossings.read_exit()
        in_ring = self.translation is not None and self.translation.serving
        if not self.is_served_directly:
            self.charge("light_dispatch" if in_ring else "trap_dispatch", 1)
        try:
            self.machine.strategy.handle(self, exit)
        except NotDirect:
            self.interpret_one()
        if self.board.attention:
            self.machine.on_board()
        self.crossings.resume()
        row = self.exits.setdefault(exit.reason, [0, 0])
        row[0] += 1
        row[1] += int(self.processor.cpu.ticks) - before

    @property
    def interpreter(self) -> Interpreter:
        """The VMM's interpreter, made when it is first needed."""
        if self.made_interpreter is None:
            self.made_interpreter = Interpreter(self)
        return self.made_interpreter

    @property
    def is_interpreted(self) -> bool:
        """Whether the guest is in the interpreter's hands, and with it the state of the virtual processor."""
        return self.made_interpreter is not None and self.made_interpreter.holds

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

    # -- costs ----------------------------------------------------------------------------------------------------

    def charge(self, path: str, items: int) -> None:
        """Charge a path of the VMM by the witness table of the profile, or by the profile itself where it has a price."""
        event = EVENT_ID[f"vmm.{path}"]
        if EVENTS[event].fixed:
            vmm_charge(self.processor.state, event, items, items * int(self.processor.cpu.price[event]))
            return
        ticks = self.prices.ticks(path, items)
        if ticks is None:
            self.unpriced += 1
            event, ticks = EVENT_VMM_UNPRICED_HOOK, int(self.processor.cpu.price[EVENT_VMM_UNPRICED_HOOK])
        vmm_charge(self.processor.state, event, items, ticks)

    def reference(self, address: int) -> None:
        """A live reference of the VMM: latency above L1 is charged."""
        vmm_reference(self.processor.state, address)

    # -- memory ---------------------------------------------------------------------------------------------------

    def write_region(self, offset: int, octets: bytes) -> None:
        """Write into the VMM's region."""
        self.processor.write_physical(region_address(offset), octets)

    def guest_frame(self, frame: int) -> int | None:
        """The guest frame that a machine frame is, None if it is none of the guest's RAM."""
        found = int(self.m2p[frame])
        return None if found < 0 else found

    def follow_p2m(self) -> None:
        """The p2m is set: its inverse follows."""
        self.m2p = np.full(self.processor.ram_bytes // PAGE, -1, np.int64)
        self.m2p[self.p2m] = np.arange(len(self.p2m))

    def guest_ram(self, into: np.ndarray | None = None) -> np.ndarray:
        """Guest RAM in guest-physical order, a copy: a new one, or in an array that is there."""
        pages = self.processor.ram.reshape(-1, PAGE)
        if into is None:
            return pages[self.p2m].reshape(-1)
        # "clip": what would check each number first takes a second copy.
        pages.take(self.p2m, axis=0, out=into.reshape(-1, PAGE), mode="clip")
        return into

    def flush_shadow(self) -> None:
        """The guest's address space may be another one: CR3, CR0 or CR4 was written, or what lies behind its frames changed."""
        if self.translation is not None:
            self.translation.leave_ring()  # MOV CR3
        self.shadow.change_space()
        self.descriptors.check_table_pages()
        if self.translation is not None:
            self.translation.pages.revalidate()

    def on_guest_frame_written(self, frame: int) -> None:
        """The VMM itself wrote somewhere in a guest frame."""
        self.shadow.note_frame_written(frame)

    def on_physical_hole(self, exit: Exit, gpa: int, write: bool) -> None:
        """The guest's access reaches a guest-physical address where no RAM answers, or takes what is written."""
        self.interpret_one()

    # -- the guest's registers ------------------------------------------------------------------------------------

    def register(self, number: int) -> int:
        """A general register of the guest; ESP is in the frame."""
        if self.is_interpreted:
            return int(self.interpreter.cpu.gpr[number])
        if self.translation is not None and number in self.translation.overlay:
            return self.translation.overlay[number]
        return self.vcpu.frame.esp if number == ESP else int(self.processor.cpu.gpr[number])

    def set_register(self, number: int, value: int, width: int = 32) -> None:
        """Write a general register of the guest, 16 or 32 bits wide."""
        if width == 16:
            value = self.register(number) & 0xFFFF0000 | value & 0xFFFF
        if number == ESP:
            self.vcpu.frame.esp = value & M32
        else:
            self.processor.cpu.gpr[number] = value & M32

    def eip(self) -> int:
        """The guest's EIP."""
        return int(self.interpreter.cpu.rip) if self.is_interpreted else self.vcpu.frame.eip

    def linear_eip(self) -> int:
        """Where the guest's next instruction is."""
        return self.segments.base(CS) + self.vcpu.frame.eip & M32

    def segment_cache(self, segment: int):
        """What the processor holds of a segment register of the guest's, or would if the guest's code ran as it is."""
        if self.translation is not None:
            return self.translation.segment_cache(segment)
        return self.processor.cpu.seg[segment]

    def retire(self) -> None:
        """Count an emulated guest instruction."""
        self.processor.cpu.retired += 1

    # -- what a strategy's hooks call, with `register`, `set_register` and `charge` -------------------------------

    def instruction(self) -> Instruction | None:
        """The instruction at which the guest trapped."""
        return decode_at_trap(self)

    def emulate(self, instruction: Instruction) -> bool:
        """Perform a sensitive instruction on the virtual processor; False if it is none."""
        return emulate(self, instruction)

    def simulate_write(self) -> None:
        """Perform the guest's instruction, which may write what is traced, where it stands. Raises GuestFault."""
        simulate_write(self, self.instruction())

    def interpret_one(self) -> None:
        """Perform the instruction at which the guest trapped in the VMM's interpreter, its fault included."""
        self.interpreter.one()

    def shadow_fault(self, exit: Exit) -> None:
        """A page fault of the processor: the guest's own (GuestFault), a missing shadow entry, or a traced frame."""
        self.shadow.fault(exit)

    def reflect_exit(self, exit: Exit) -> None:
        """Deliver the exception that caused an exit to the guest as it is."""
        self.events.reflect_exit(exit)

    def inject_exception(self, fault: GuestFault) -> None:
        """Deliver a fault to the guest."""
        self.events.inject_exception(fault)

    def deliver_open_gate(self, exit: Exit) -> None:
        """INT n came through a gate that was opened to ring 3."""
        self.entries.deliver_open_gate(exit)

    def enter_system_call(self) -> None:
        """SYSENTER of the guest."""
        sysenter(self)

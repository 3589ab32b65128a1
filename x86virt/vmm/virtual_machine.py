"""A virtual machine, as every technique has it: a processor, memory and devices that are the guest's.

Each part is a room of its own: `crossings` (exit and resume), `interrupts`, `segments`, `shadow`, `devices`, `physical`,
`interpreter`. What holds the virtual processor while the guest runs, and what brings the VMM control, is the technique's:
`SoftwareVm` (vm.py) deprivileges the guest, `HardwareVm` (hardware/vm.py) runs it under the processor's own extension.

The guest's frames are machine frames in descending order unless its strategy asks for others (the p2m says which), so
that nothing can take guest-physical for machine addresses.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..core.board import BOARD
from ..core.entries import vmm_charge, vmm_reference
from ..core.layout import MODEL_SPECIFIC, SVM_DISABLED
from ..identity import reset_model_specific
from ..isa.events import EVENT_ID, EVENT_VMM_UNPRICED_HOOK, EVENTS
from ..isa.registers import CS, ESP
from ..isa.vmx import FEATURE_CONTROL_LOCK
from ..records import record_array
from . import layout
from .exits import Exit, GuestFault, NotDirect
from .guest_memory import GuestMemory
from .instruction import Instruction, decode_at_trap
from .interpreter import Interpreter
from .isolation import set_owners
from .physical_map import PhysicalMap
from .prices import PathPrices
from .region import region_address
from .segment_operands import SegmentOperands
from .shadow.memory import ShadowMemory
from .state import SegmentState
from .vcpu import VirtualCpu
from .virtual_devices import VirtualDevices
from .virtual_interrupts import VirtualInterrupts
from .ways import Ways

if TYPE_CHECKING:
    from ..machine import Machine
    from ..start.boot import Boot
    from .recorder import Recorder
    from .translation import Translator

M32 = 0xFFFFFFFF
PAGE = 4096


class VirtualMachine(ABC):
    """One guest with one virtual processor, and the parts of a VMM that all techniques share."""

    translation: "Translator | None" = None  # of a technique that translates
    runs_every_mode: ClassVar[bool] = False  # the guest may run directly in real-address and virtual-8086 mode too
    drives_machine: ClassVar[bool] = False  # its devices are the machine's own, driven by one of its domains
    cluster = 0  # instructions that the interpreter performs behind one that exited
    segments: SegmentOperands
    crossings: Ways
    interrupts: VirtualInterrupts

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
        self.vcpu = self.make_vcpu(self.processor.memory[layout.VCPU_RECORD : layout.VCPU_RECORD + layout.VCPU.itemsize])
        self.model_specific = record_array(MODEL_SPECIFIC)
        self.model_specific[0] = self.processor.cpu.msr
        reset_model_specific(self.model_specific[0])
        self.model_specific["has_svm"] *= SVM_DISABLED  # if it is there: CPUID tells of it, EFER.SVME cannot be set
        self.model_specific["feature_control"] = FEATURE_CONTROL_LOCK  # likewise of VMX
        self.unpriced = 0
        self.exits: dict[str, list[int]] = {}  # by reason: how many, and what `spent` counts of them
        policy, size = str(option("shadow")), int(option("shadow_size"))
        self.shadow = ShadowMemory(self, policy, size, int(option("shadow_writes")))
        self.devices = VirtualDevices(self)
        self.made_interpreter: Interpreter | None = None
        self.physical = PhysicalMap(self)
        self.follow_p2m()
        self.recorder: Recorder | None = None
        self.last_exit: Exit | None = None
        self.last_delivery: tuple[int, int | None, int] | None = None  # to the guest: vector, error code, kind
        set_owners(self)

    @abstractmethod
    def make_vcpu(self, record: np.ndarray) -> VirtualCpu:
        """The virtual processor over its record in the VMM's region."""

    # -- running --------------------------------------------------------------------------------------------------

    @abstractmethod
    def launch(self, boot: "Boot") -> None:
        """Put the processor under the VMM, the guest at its first instruction."""

    def run(self, single: bool = False) -> int:
        """Run the guest, directly or in the interpreter: an outcome of core/layout.py; OK: it goes on."""
        if self.is_interpreted:
            return self.interpreter.run(single)
        return self.processor.run(single)

    def before_running(self) -> None:
        """A run goes on that may have paused anywhere."""
        return

    def handle_hook(self) -> None:
        """One exit: read it, charge the dispatch, let the strategy act, resume."""
        before = self.spent()
        exit = self.last_exit = self.crossings.read_exit()
        self.charge_dispatch()
        try:
            self.machine.strategy.handle(self, exit)
        except NotDirect:
            self.interpret_one()
        if self.board.attention:
            self.machine.on_board()
        self.crossings.resume()
        self.count_exits(exit.reason, 1, [now - then for now, then in zip(self.spent(), before, strict=True)])

    def spent(self) -> tuple[int, int, int]:
        """Ticks so far; under an extension those of them that went into its control structure and into entries."""
        return int(self.processor.cpu.ticks), 0, 0

    def count_exits(self, reason: str, count: int, ticks: Sequence[int]) -> None:
        """Add exits of a reason, and what `spent` has grown by, to the exits by reason."""
        row = self.exits.setdefault(reason, [0, 0, 0, 0])
        for place, number in enumerate((count, *ticks)):
            row[place] += number

    @abstractmethod
    def charge_dispatch(self) -> None:
        """Charge the way from an exit that was read to the hook."""

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
        return False

    @property
    def owes_step_trap(self) -> bool:
        """Whether the guest has executed an instruction under TF, and its trap is yet to come."""
        return False

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

    def count(self, name: str, items: int = 1) -> None:
        """Count an event that costs nothing by itself."""
        vmm_charge(self.processor.state, EVENT_ID[name], items, 0)

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

    @abstractmethod
    def flush_shadow(self) -> None:
        """The guest's address space may be another one: CR3, CR0 or CR4 was written, or what lies behind its frames changed."""

    def prepare_walk(self) -> None:
        """The VMM is about to walk the guest's tables: the vCPU record holds what they depend on."""
        return

    def set_frame(self, frame: int, machine_frame: int | None, writable: bool = True) -> None:
        """What is behind a guest frame from now on; `flush_shadow` follows before the guest goes on."""
        self.shadow.set_frame(frame, machine_frame, writable)

    def on_guest_frame_written(self, frame: int) -> None:
        """The VMM itself wrote somewhere in a guest frame."""
        self.shadow.note_frame_written(frame)

    def on_physical_hole(self, exit: Exit, gpa: int, write: bool) -> None:
        """The guest's access reaches a guest-physical address where no RAM answers, or takes what is written."""
        self.interpret_one()

    # -- what is saved, and shown to a debugger ---------------------------------------------------------------------

    @abstractmethod
    def own_state(self) -> dict[str, Any]:
        """What this kind of virtual machine keeps in Python objects, as JSON has it (saved_state.py)."""

    @abstractmethod
    def restore_own(self, state: dict[str, Any]) -> None:
        """Put it back. Raises KeyError, TypeError or ValueError for anything that `own_state` does not give."""

    def restore_memory(self, control: np.ndarray, state: dict[str, list[int]]) -> None:
        """What the VMM has in machine RAM is back: check it, and make again what follows from it. Raises as `restore_own`."""
        self.shadow.restore(control, state)

    def faults(self) -> list[str]:
        """What is wrong in what the VMM has counted of its guest's memory."""
        return []

    def on_clock_set(self) -> None:
        """The machine's clock was set, before the guest first runs."""
        return

    @abstractmethod
    def virtual_registers(self) -> tuple[dict[str, int], dict[str, SegmentState]]:
        """The guest's registers and segments, read without any effect."""

    def peek_cpl(self) -> int:
        """The guest's privilege level, for those who look on."""
        return self.vcpu.cpl

    def peek_cr2(self) -> int:
        """CR2, for those who look on."""
        return self.vcpu.cr2

    def debug_registers(self) -> np.ndarray:
        """DR0 to DR7, for those who look on."""
        return self.vcpu.dr

    def peek_pointers(self) -> list[int]:
        """The page-directory-pointer entries of PAE paging, for those who look on."""
        if self.is_interpreted:
            return self.interpreter.cpu.pdpte.tolist()
        return self.shadow.pointers.tolist()

    def bytes_at(self, gla: int, count: int) -> bytes:
        """Bytes at a linear address as the processor translates it now, without any effect; fewer at a hole."""
        if self.is_interpreted:
            return self.interpreter.bytes_at(gla, count)
        return self.processor.bytes_at(gla, count)

    @abstractmethod
    def describe(self) -> list[str]:
        """What VMM and processor really hold behind the guest's view, as lines of text."""

    # -- between the hardware and the interpreter -----------------------------------------------------------------

    def before_interpreting(self) -> None:
        """The interpreter is about to take the state of the virtual processor: what it uses directly is the guest's."""
        return

    def load_pointers(self, cr3: int) -> None:
        """Load what PAE paging loads with CR3. Raises GuestFault with all as before."""
        self.shadow.load_pointers(cr3)

    def pointers(self) -> np.ndarray:
        """The four page-directory-pointer entries that PAE paging has loaded."""
        return self.shadow.pointers

    @abstractmethod
    def can_hold(self, interpreter: Interpreter) -> bool:
        """Whether the guest can run directly in the state that the interpreter has."""

    @abstractmethod
    def give_state(self, interpreter: Interpreter, invalidates: bool) -> None:
        """Take that state back, for the hardware; `invalidates`: translations were invalidated."""

    # -- the guest's registers ------------------------------------------------------------------------------------

    def register(self, number: int) -> int:
        """A general register of the guest."""
        if self.is_interpreted:
            return int(self.interpreter.cpu.gpr[number])
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

    def retire(self) -> None:
        """Count an emulated guest instruction."""
        self.processor.cpu.retired += 1

    # -- what a strategy's hooks call, with `register`, `set_register` and `charge` -------------------------------

    def instruction(self) -> Instruction | None:
        """The instruction at which the guest trapped."""
        return decode_at_trap(self)

    def interpret_one(self) -> None:
        """Perform the instruction at which the guest trapped in the VMM's interpreter, its fault included."""
        self.interpreter.one()

    @abstractmethod
    def complete_instruction(self, stepped: bool) -> None:
        """Count an emulated guest instruction, and raise the trap that TF before it asks for."""

    def simulate_write(self) -> None:
        """Perform the guest's instruction, which may write what is traced, where it stands. Raises GuestFault."""
        self.interpret_one()

    @abstractmethod
    def inject_exception(self, fault: GuestFault) -> None:
        """Deliver a fault to the guest."""

    @abstractmethod
    def deliver_interrupt(self, vector: int) -> None:
        """Deliver an external interrupt that was acknowledged."""

    def on_sysenter_registers(self) -> None:
        """The guest wrote what SYSENTER goes by."""
        return

"""A virtual machine that the processor's own extension runs: VT-x with a VMCS, or SVM with a VMCB.

The guest has the processor to itself until something happens that its control structure names: then the processor saves
the guest's state there and goes on in the VMM, which reads what it needs (`vcpu`), acts, and enters the guest again. What
is not the guest's own is a matter of controls, not of rings: its kernel runs in ring 0, with its own descriptor tables.

`control` is the control structure as the hardware has it, `guest_state` what the guest believes of its registers, `vcpu` the
VMM's cache of that.
"""

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from ...core.layout import MAX_INSTRUCTION, SHUTDOWN
from ...isa.registers import (
    AR_DPL,
    AR_DPL_SHIFT,
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    CS,
    ECX,
    EFLAGS_RF,
    ESP,
    GENERAL_REGISTERS,
    PF_W,
    SEGMENT_REGISTERS,
)
from ...isa.vectors import DB, DF, KIND_EXCEPTION, KIND_EXTERNAL, KIND_SOFTWARE_INTERRUPT
from ..emulate.writes import simulate_write
from ..exits import FAULT_VECTORS, Exit, GuestFault, VmmError
from ..guest_events import DR7_ENABLES
from ..instruction import Instruction
from ..interpreter import Interpreter
from ..reflect import TripleFault, doubles
from ..state import SYSTEM_REGISTERS, SegmentState, processor_registers, x87_state
from ..stops import note_delivery
from ..vcpu import VirtualCpu
from ..virtual_machine import VirtualMachine
from . import saving
from .accounts import spent
from .clusters import Clusters
from .cpu import KEYS, POINTER_KEYS, HardwareCpu
from .crossings import HardwareCrossings
from .extensions import make_control, make_guest_state, work_of_change
from .interrupts import HardwareInterrupts
from .launch import launch
from .lines import hardware_lines
from .nested import EPT, NPT_2, NestedMemory
from .segments import HardwareSegments
from .transfer import can_hold, give_state
from .vtx_state import VIRTUAL_8086, VtxGuestState

if TYPE_CHECKING:
    from ...machine import Machine
    from ...start.boot import Boot

M32 = 0xFFFFFFFF
DR6_BS = 1 << 14
DR7_GD = 1 << 13
EPT_FETCH = 1 << 2  # of the qualification
NOTHING_COMPLETED = -1
NOTHING_FILLED = (-1, -1)


class HardwareVm(VirtualMachine):
    """One guest with one virtual processor under VT-x or SVM. `injected`: the next entry delivers an event."""

    segments: HardwareSegments
    crossings: HardwareCrossings
    interrupts: HardwareInterrupts
    vcpu: HardwareCpu
    runs_every_mode: ClassVar[bool] = True

    def __init__(self, machine: "Machine") -> None:
        super().__init__(machine, 0)
        self.cluster = int(machine.strategy.option("cluster"))
        self.injected = False
        self.filled_at = NOTHING_FILLED  # instructions retired, and ECX, as the guest last went on with an access seen to
        self.interrupts_string = False  # the last interrupt that was injected pushes RF, as amid a repeated string
        self.completed_at = NOTHING_COMPLETED  # instructions retired, with one that the last VM entry was to complete
        form = EPT if self.control.extension == "vtx" else NPT_2  # as the VMM's own paging has it
        self.nested = NestedMemory(self, form) if machine.strategy.memory == "nested" else None
        self.segments = HardwareSegments(self)
        self.crossings = HardwareCrossings(self)
        self.clusters = Clusters(self, self.cluster)
        self.interrupts = HardwareInterrupts(self)

    def make_vcpu(self, record: np.ndarray) -> VirtualCpu:
        """The virtual processor, over the control structure that the extension has for it."""
        self.control = make_control(self)
        self.guest_state = make_guest_state(self, self.control)
        return HardwareCpu(record, self.guest_state, self.machine.strategy.option("state") == "eager")

    # -- running --------------------------------------------------------------------------------------------------

    def launch(self, boot: "Boot") -> None:
        """Put the processor under the VMM, the guest at its first instruction."""
        launch(self, boot)

    def spent(self) -> tuple[int, int, int]:
        """Ticks so far, and those of them that went into the control structure and into entries."""
        return spent(self.processor)

    def charge_dispatch(self) -> None:
        """Charge the way from an exit to its handler."""
        self.charge("exit_dispatch", 1)

    def enter(self) -> None:
        """Enter the guest."""
        if self.nested is not None:
            self.nested.before_entry()
        self.vcpu.forget()
        if self.control.enter() == SHUTDOWN:
            raise VmmError("the processor shut down as the VMM entered the guest")

    @property
    def holds_plainly(self) -> bool:
        """Whether the control structure has all registers as the guest believes them to be, but control registers."""
        state = self.guest_state
        return not state.unsettled and not state.pending and (not isinstance(state, VtxGuestState) or state.form != VIRTUAL_8086)

    @property
    def completes(self) -> bool:
        """Whether the last VM entry was to complete an instruction, which the next exit may have to take back."""
        return self.completed_at != NOTHING_COMPLETED

    # -- memory ---------------------------------------------------------------------------------------------------

    def flush_shadow(self) -> None:
        """What lies behind the guest's frames, or its address space, may be another."""
        if self.nested is None:
            self.shadow.change_space()
        else:
            self.control.flush()

    def shadow_fault(self, exit: Exit) -> None:
        """A page fault: the shadow's, which lacked an entry, or the guest's own, which it is delivered."""
        self.charge("exit_exception", 1)
        self.shadow.begin_fault()
        self.finish_shadow_fault(exit, None)

    def finish_shadow_fault(self, exit: Exit, outcome: int | None) -> None:
        """What follows the charge of a page fault, and the walk and fill unless these have come to an outcome already."""
        try:
            if self.shadow.end_fault(exit, outcome):
                self.make_again(exit, not exit.error & PF_W and self.is_fetched(exit.gla))
        except GuestFault as fault:
            self.inject_exception(fault)

    def set_frame(self, frame: int, machine_frame: int | None, writable: bool = True) -> None:
        """What is behind a guest frame from now on."""
        super().set_frame(frame, machine_frame, writable)
        if self.nested is not None:
            self.nested.drop(frame)

    def use_nested_tables(self) -> None:
        """The guest's physical memory is what nested tables say, which are filled as it is touched."""
        self.nested_memory.install()
        self.control.set_nested(self.nested_memory.root, self.nested_memory.levels)

    def watch_cr3(self, most_targets: int) -> None:
        """Let MOV to CR3 exit though nested tables need not know of it, but for some of the values loaded last (VT-x)."""
        assert isinstance(self.guest_state, VtxGuestState), "only VT-x has CR3-target values"
        self.guest_state.watch_cr3(most_targets)

    @property
    def nested_memory(self) -> NestedMemory:
        """The nested tables of a technique that has them."""
        assert self.nested is not None, "the technique nests"
        return self.nested

    def fill_nested(self, exit: Exit) -> None:
        """A nested page fault: the entry that lacked, and again the event whose delivery met it."""
        if self.nested_memory.violation(exit):
            self.make_again(exit, bool(exit.qualification & EPT_FETCH))

    def show_frame(self, frame: int, machine_frame: int) -> None:
        """Let the guest's walks find a page of the VMM's at a guest-physical frame."""
        self.nested_memory.show(frame, machine_frame)

    def hide_frame(self, frame: int) -> None:
        """No longer."""
        self.nested_memory.hide(frame)

    def note_form(self, before: str, after: str) -> None:
        """The guest is held in another form than before."""
        for path, counted in work_of_change(before, after, self.nested is not None):
            self.charge(path, 1)
            if counted:
                self.count(counted)

    def prepare_walk(self) -> None:
        """The VMM is about to walk the guest's tables: the record must hold what they depend on.

        Behind a shadow it does, since what they depend on changes by the VMM's own hand alone.
        """
        if self.nested is not None:
            self.vcpu.prepare_walk()

    def load_pointers(self, cr3: int) -> None:
        """Load what PAE paging loads with CR3, where the processor has it for a guest."""
        super().load_pointers(cr3)
        self.vcpu.set_pointers(self.shadow.pointers.tolist())

    def pointers(self) -> np.ndarray:
        """The four page-directory-pointer entries that PAE paging has loaded."""
        uses = self.vcpu.cr0 & CR0_PG and self.vcpu.cr4 & CR4_PAE
        return np.array(self.vcpu.pointers() if uses else (0, 0, 0, 0), np.int64)

    # -- the guest's registers ------------------------------------------------------------------------------------

    def eip(self) -> int:
        """The guest's EIP, for those who look on."""
        return int(self.interpreter.cpu.rip) if self.is_interpreted else self.vcpu.peek("guest_rip")

    def linear_eip(self) -> int:
        """Where the guest's next instruction is, for those who look on."""
        return self.segments.peek_state(CS).base + self.eip() & M32

    def peek_cpl(self) -> int:
        """The guest's privilege level, for those who look on."""
        return (self.vcpu.peek("guest_ss_access_rights") & AR_DPL) >> AR_DPL_SHIFT

    def peek_cr2(self) -> int:
        """CR2, for those who look on."""
        return self.vcpu.peek("guest_cr2")

    def debug_registers(self) -> np.ndarray:
        """DR0 to DR7, for those who look on."""
        if self.is_interpreted:
            return np.array(self.interpreter.cpu.dr)
        registers = np.array(self.processor.cpu.dr)
        registers[6], registers[7] = self.vcpu.peek("guest_dr6"), self.vcpu.peek("guest_dr7")
        return registers

    def peek_pointers(self) -> list[int]:
        """The page-directory-pointer entries of PAE paging, for those who look on."""
        if self.is_interpreted or not self.control.has(POINTER_KEYS[0]) or self.nested is None:
            return super().peek_pointers()
        return [self.vcpu.peek(key) for key in POINTER_KEYS]

    def bytes_at(self, gla: int, count: int) -> bytes:
        """Bytes at a linear address as the processor translates it now, without any effect; none while it is the VMM's."""
        if self.is_interpreted or self.control.in_guest:
            return super().bytes_at(gla, count)
        return b""

    # -- what a strategy's hooks call, with `register`, `set_register` and `charge` -------------------------------

    def take_back_injection(self) -> None:
        """The guest goes on in the interpreter, before what the next entry would have delivered."""
        raise VmmError("an event waits for a VM entry that the guest's state does not allow")

    def instruction(self) -> Instruction | None:
        """The instruction at which the guest exited, which the VMM fetches through the guest's tables and decodes."""
        self.charge("exit_decode", 1)
        return super().instruction()

    def skip(self, exit: Exit) -> None:
        """An instruction was performed for the guest: it stands behind it, with the trap that TF may ask for."""
        length = exit.length
        if length == 0:
            instruction = self.instruction()
            if instruction is None:
                raise VmmError(f"no instruction where the guest exited, at eip {exit.rip:#x}")
            length = instruction.length
        frame = self.vcpu.frame
        frame.eip = frame.eip + length
        self.complete_instruction(self.vcpu.single_stepped)

    def complete_instruction(self, stepped: bool) -> None:
        """Count an emulated guest instruction, and raise the trap that TF before it asks for: nothing is held off any more."""
        self.interrupts.set_shadow(0)
        self.retire()
        if stepped:
            self.single_step_trap()

    def simulate_write(self) -> None:
        """Perform the guest's instruction, which may write what is traced, where it stands. Raises GuestFault.

        What an event's delivery writes there, no instruction does.
        """
        if self.last_exit is not None and self.last_exit.vectoring is not None:
            self.interpret_one()
        else:
            simulate_write(self, self.instruction())

    def single_step_trap(self) -> None:
        """#DB behind an instruction that was performed under the guest's TF."""
        registers = self.vcpu.dr
        self.vcpu.set_field("guest_dr6", int(registers[6]) | DR6_BS)
        self.vcpu.set_field("guest_dr7", int(registers[7]) & ~DR7_GD)
        self.inject(DB, KIND_EXCEPTION)

    def inject(self, vector: int, kind: int, error: int | None = None, length: int = 0) -> None:
        """Let the next entry deliver an event."""
        self.charge("inject", 1)
        self.control.inject(vector, kind, error, length)
        self.injected = True
        self.last_delivery = vector, error, kind
        note_delivery(self.processor)

    def inject_exception(self, fault: GuestFault) -> None:
        """Deliver a fault to the guest: a double fault if it arose as another was being delivered (SDM table 6-5)."""
        if not self.can_inject:
            self.interpret_one()
            return
        vector, error = fault.vector, fault.error
        if fault.cr2 is not None:
            self.vcpu.cr2 = fault.cr2
        first = None if self.last_exit is None else self.last_exit.vectoring
        if first is not None and first[1] == KIND_EXCEPTION:
            if first[0] == DF:
                self.shut_down()
            if doubles(first[0], vector):
                vector, error = DF, 0
        if vector in FAULT_VECTORS:
            self.vcpu.frame.eflags |= EFLAGS_RF
        else:
            self.drop_resume_flag()
        self.inject(vector, KIND_EXCEPTION, error)

    def shut_down(self) -> NoReturn:
        """A triple fault: the guest's processor shuts down. RF was set for the image of an exception, by VMM or processor."""
        self.vcpu.frame.eflags &= ~EFLAGS_RF
        raise TripleFault

    def make_again(self, exit: Exit, fetched: bool) -> None:
        """The guest makes an access again that the VMM has seen to: an instruction's fetch, one of an event's delivery."""
        self.filled_at = self.progress
        if exit.vectoring is not None:
            self.reinject(exit)
        elif fetched:
            self.drop_resume_flag()

    @property
    def progress(self) -> tuple[int, int]:
        """How far the guest has come: instructions retired, and ECX, which counts the iterations of a repeated string."""
        cpu = self.processor.cpu
        return int(cpu.retired), int(cpu.gpr[ECX])

    @property
    def accesses_again(self) -> bool:
        """Whether the guest has yet to make an access that the VMM has seen to.

        It may have been entered for it in vain: an interrupt of the host that waits then makes it exit at once.
        """
        return self.filled_at == self.progress

    def is_fetched(self, gla: int) -> bool:
        """Whether a linear address may be that of the guest's next instruction."""
        return gla - self.segments.base(CS) - self.vcpu.frame.eip & M32 < MAX_INSTRUCTION

    def reinject(self, exit: Exit) -> None:
        """An exit interrupted the delivery of an event, and what it was for is done: the event is delivered again."""
        if exit.vectoring is None:
            return
        vector, kind, error = exit.vectoring
        if error is not None and error > self.control.largest_error:
            self.drop_resume_flag()
            self.interpreter.deliver_exception(vector, error)
            return
        self.count("hardware.reinjection")
        keeps = self.interrupts_string if kind == KIND_EXTERNAL else kind == KIND_EXCEPTION and vector in FAULT_VECTORS
        if not keeps:
            self.drop_resume_flag()
        if kind >= KIND_SOFTWARE_INTERRUPT and self.control.completes_instructions:
            self.retire()
            self.completed_at = int(self.processor.cpu.retired)
        self.inject(vector, kind, error, exit.length)

    def take_back_completion(self, exit: Exit) -> None:
        """The instruction that VM entry was to complete, by delivering its event, has not completed: that exited too."""
        if self.completed_at == int(self.processor.cpu.retired) and self.interrupts_delivery(exit):
            self.processor.cpu.retired -= 1
        self.completed_at = NOTHING_COMPLETED

    def interrupts_delivery(self, exit: Exit) -> bool:
        """Whether the event that the last VM entry delivered came to nothing: of a double or triple fault the hardware does not
        tell what led to it, but the guest stands where it stood."""
        if exit.reason == "triple_fault" or (exit.reason == "exception_or_nmi" and exit.vector == DF):
            return self.last_exit is None or exit.rip == self.last_exit.rip
        return exit.vectoring is not None

    def drop_resume_flag(self) -> None:
        """RF is not the guest's, which has what it saves of it in images: the processor set it for an exit in place of a fault.

        Where breakpoints are set it may be, and stays.
        """
        frame = self.vcpu.frame
        if frame.eflags & EFLAGS_RF and not self.vcpu.field("guest_dr7") & DR7_ENABLES:
            frame.eflags &= ~EFLAGS_RF

    def deliver_interrupt(self, vector: int) -> None:
        """Deliver an external interrupt that was acknowledged."""
        if self.can_inject:
            self.interrupts_string = bool(self.vcpu.frame.eflags & EFLAGS_RF)
            self.inject(vector, KIND_EXTERNAL)
        else:
            self.interpreter.deliver_external(vector)

    @property
    def can_inject(self) -> bool:
        """Whether the next entry can deliver an event: not where real mode is held as virtual-8086 mode, which delivers
        through descriptors that the guest has none of."""
        return self.guest_state.injects_in_real_mode or bool(self.vcpu.peek("guest_cr0") & CR0_PE)

    def interpret_one(self) -> None:
        """Perform the guest's instruction in the VMM's interpreter, its fault included; or the delivery that was interrupted.

        What a fault's delivery was interrupted by, its instruction meets again. An interrupt has none.
        """
        exit = self.last_exit
        if exit is not None and exit.vectoring is not None and exit.vectoring[1] == KIND_EXTERNAL:
            self.interpreter.deliver_external(exit.vectoring[0])
        else:
            self.interpreter.one()

    # -- between the hardware and the interpreter -----------------------------------------------------------------

    def can_hold(self, interpreter: Interpreter) -> bool:
        """Whether the guest can run directly in the state that the interpreter has."""
        return can_hold(self, interpreter)

    def give_state(self, interpreter: Interpreter, invalidates: bool) -> None:
        """Take that state back; `invalidates`: translations were invalidated."""
        give_state(self, interpreter, invalidates)

    # -- what is saved, and shown to a debugger ---------------------------------------------------------------------

    def own_state(self) -> dict[str, Any]:
        """What the rooms of this class keep, as JSON has it."""
        return saving.own_state(self)

    def restore_own(self, state: dict[str, Any]) -> None:
        """Put it back."""
        saving.restore_own(self, state)

    def virtual_registers(self) -> tuple[dict[str, int], dict[str, SegmentState]]:
        """The guest's registers and segments: the processor's own while it runs the guest, else as the structure has them."""
        if self.is_interpreted:
            return processor_registers(self.interpreter.processor)
        peek, cpu = self.vcpu.peek, self.processor.cpu
        registers = {name: int(cpu.gpr[number]) for number, name in enumerate(GENERAL_REGISTERS)}
        registers[GENERAL_REGISTERS[ESP]] = peek("guest_rsp")
        registers |= {"eip": peek("guest_rip"), "eflags": peek("guest_rflags"), "cpl": self.peek_cpl()}
        registers |= {name: peek(KEYS[name]) for name in SYSTEM_REGISTERS if name != "cpl"} | x87_state(cpu)
        segments = {name: self.segments.peek_state(number) for number, name in enumerate(SEGMENT_REGISTERS)}
        return registers, segments

    def describe(self) -> list[str]:
        """What VMM and processor really hold behind the guest's view."""
        return hardware_lines(self)

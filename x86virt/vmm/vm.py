"""A virtual machine under a VMM of the software kind: its region in machine RAM, entry and exit, virtual devices.

The guest's frames are machine frames in descending order unless its strategy asks for others (the p2m says which), so
that nothing can take guest-physical for machine addresses. A trap is an ordinary delivery through the VMM's IDT; the
jitted call returns when it lands on an entry. To resume, the VMM writes the frame back on its stack and lets the
processor execute the IRETD in its region.
"""

from typing import TYPE_CHECKING

import numpy as np

from ..core.board import BOARD
from ..core.breakpoints import DR6_BS
from ..core.entries import (
    all_eflags,
    device_acknowledge,
    device_advance,
    device_deadline,
    device_read,
    device_reads_time,
    device_write,
    enter_level,
    set_all_eflags,
    vmm_charge,
    vmm_program_timer,
    vmm_reference,
)
from ..core.layout import MAX_INSTRUCTION, MODEL_SPECIFIC, NEVER, OWNER_GUEST, OWNER_VMM, TIME_STAMP
from ..identity import reset_model_specific
from ..isa.events import EVENT_ID, EVENT_VMM_UNPRICED_HOOK, EVENTS, MODE_GUEST_KERNEL, MODE_GUEST_USER, MODE_VMM
from ..isa.registers import (
    AR_UNUSABLE,
    CR0_ET,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PGE,
    CR4_PSE,
    CS,
    DS,
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_RF,
    EFLAGS_TF,
    ES,
    ESP,
    FS,
    GENERAL_REGISTERS,
    GS,
    LDTR,
    SEGMENT_REGISTERS,
    SS,
    TR,
    TYPE_TSS_32_BUSY,
)
from ..isa.vectors import DB, KIND_EXTERNAL, PF
from ..processor import FLAT_CODE, FLAT_DATA, record_array
from ..start.boot import PROTECTED, Boot
from . import layout
from .descriptor import Descriptor
from .emulate import emulate
from .emulate.system_calls import sysenter
from .exits import (
    ERROR_CODE_VECTORS,
    FAULT_VECTORS,
    REASON_OF_VECTOR,
    Exit,
    GuestFault,
    IsolationViolation,
    NotDirect,
)
from .guest_events import GuestEvents
from .guest_memory import GuestMemory
from .instruction import Instruction, decode_at_trap, fetch, repeats
from .interpreter import Interpreter
from .open_entries import OpenEntries
from .options import Value
from .physical_map import PhysicalMap
from .prices import PathPrices
from .reflect import reflect
from .shadow.memory import ShadowMemory
from .shadow.records import DESCRIPTORS
from .shadow_descriptors import ShadowDescriptors
from .state import (
    SYSTEM_REGISTERS,
    SegmentState,
    VirtualState,
    devices_of,
    processor_registers,
    segment_state,
    x87_state,
)
from .stops import note_arrival
from .translation import Translator
from .vcpu import Frame, VirtualCpu
from .virtual_segments import VirtualSegments

if TYPE_CHECKING:
    from ..machine import Machine
    from .recorder import Recorder

M32 = 0xFFFFFFFF
PAGE = 4096
GATE_PRESENT = 0x8E00
DR6_CONDITIONS = 0xE00F
IRETD, STI, HLT = 0xCF, 0xFB, 0xF4
SHADOW_BYTES = layout.SHADOW_PAGES * PAGE
SCATTERED = "scattered"  # the guest's frames in descending order


def chosen(vm: "VirtualMachine", name: str, default: Value) -> Value:
    """What is chosen for an option of the toolkit's parts, which a strategy need not declare."""
    strategy = vm.machine.strategy
    return strategy.option(name) if any(option.name == name for option in strategy.options) else default


class VirtualMachine:
    """One guest with one virtual processor, and the parts of a VMM that software techniques share."""

    def __init__(self, machine: "Machine", ring: int) -> None:
        self.machine, self.ring = machine, ring
        self.processor = machine.processor
        self.prices = PathPrices(machine.profile)
        frames = machine.memory_bytes // PAGE
        first = layout.VMM_BYTES // PAGE
        self.p2m = np.arange(first, first + frames, dtype=np.int64)
        if chosen(self, "p2m", SCATTERED) == SCATTERED:
            self.p2m = self.p2m[::-1].copy()
        self.boards = record_array(BOARD)
        self.board = self.boards.view(np.recarray)[0]
        self.guest = GuestMemory(self)
        region = self.processor.memory[layout.VCPU_RECORD : layout.VCPU_RECORD + layout.VCPU.itemsize]
        self.vcpu = VirtualCpu(region, ring)
        self.model_specific = record_array(MODEL_SPECIFIC)
        self.model_specific[0] = self.processor.cpu.msr
        reset_model_specific(self.model_specific.view(np.recarray)[0])
        self.debug_bits = 0  # of DR6, at the last #DB of the processor
        self.resumed_at, self.resumed_with_flag = -1, False  # instructions retired then; whether the guest had RF set
        self.own_step = False  # TF is the VMM's, to get control after one instruction
        self.updating_descriptor = False
        self.table_written = False
        self.unpriced = 0
        self.exits: dict[str, list[int]] = {}
        self.shadow = ShadowMemory(self, str(chosen(self, "shadow", "drop")), int(chosen(self, "shadow_size", SHADOW_BYTES)))
        self.shadow.listeners[DESCRIPTORS] = self.on_descriptors_written
        self.descriptors = ShadowDescriptors(self, ring)
        self.segments = VirtualSegments(self)
        self.events = GuestEvents(self)
        self.entries = OpenEntries(self)
        self.made_interpreter: Interpreter | None = None
        self.physical = PhysicalMap(self)
        self.follow_p2m()
        translates = machine.strategy.processor == "binary_translation"
        self.translation = Translator(self) if translates else None
        self.interrupt_waits = False  # a virtual device requests one, whatever the guest's IF
        self.recorder: Recorder | None = None
        self.last_exit: Exit | None = None
        self.last_delivery: tuple[int, int | None, int] | None = None  # to the guest: vector, error code, kind
        self.set_owners()

    def set_owners(self) -> None:
        """Say whose each machine frame is: the guest's RAM and ROM, all others the VMM's."""
        owners = self.processor.owners
        owners[:] = OWNER_VMM
        owners[self.p2m] = OWNER_GUEST
        first = layout.VMM_BYTES + self.machine.memory_bytes >> 12
        owners[first : first + (layout.GUEST_ROM_BYTES >> 12)] = OWNER_GUEST

    def guest_frame(self, frame: int) -> int | None:
        """The guest frame that a machine frame is, None if it is none of the guest's RAM."""
        found = int(self.m2p[frame])
        return None if found < 0 else found

    def follow_p2m(self) -> None:
        """The p2m is set: its inverse follows."""
        self.m2p = np.full(self.processor.ram_bytes // PAGE, -1, np.int64)
        self.m2p[self.p2m] = np.arange(len(self.p2m))

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

    def interpret_one(self) -> None:
        """Perform the instruction at which the guest trapped in the VMM's interpreter, its fault included."""
        self.interpreter.one()

    def on_physical_hole(self, exit: Exit, gpa: int, write: bool) -> None:
        """The guest's access reaches a guest-physical address where no RAM answers, or takes what is written."""
        self.interpret_one()

    def check_owner(self, gpa: int, address: int) -> None:
        """The check of isolation, where it is on, for an access that the VMM performs in the guest's name."""
        if self.processor.checks_isolation and self.processor.owners[address >> 12] == OWNER_VMM:
            raise IsolationViolation(
                f"the VMM's access to guest-physical {gpa:#x} reaches machine address {address:#x}, "
                f"which is not the guest's, at eip {self.vcpu.frame.eip:#x}"
            )

    # -- the region -----------------------------------------------------------------------------------------------

    @staticmethod
    def region_address(offset: int) -> int:
        """The machine address of a place in the VMM's region, which begins at machine address 0."""
        return offset

    def reference(self, address: int) -> None:
        """A live reference of the VMM: latency above L1 is charged."""
        vmm_reference(self.processor.state, address)

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

    def write_region(self, offset: int, octets: bytes) -> None:
        """Write into the VMM's region."""
        self.processor.write_physical(self.region_address(offset), octets)

    def build_region(self) -> None:
        """Fill GDT, IDT, TSS and the code with which the VMM resumes and idles."""
        self.shadow.install_p2m()
        flat = {
            layout.VMM_CODE_SELECTOR: Descriptor(0x0000FFFF, 0x00CF9B00),
            layout.VMM_DATA_SELECTOR: Descriptor(0x0000FFFF, 0x00CF9300),
            layout.VMM_TSS_SELECTOR: self.tss_descriptor(),
        }
        for selector, descriptor in flat.items():
            self.descriptors.write(selector, descriptor)
        tss = bytearray(layout.TSS_BYTES)
        tss[layout.TSS_ESP0 : layout.TSS_ESP0 + 4] = (layout.VMM_BASE + layout.STACK_TOP).to_bytes(4, "little")
        tss[layout.TSS_SS0 : layout.TSS_SS0 + 2] = layout.VMM_DATA_SELECTOR.to_bytes(2, "little")
        tss[layout.TSS_IO_MAP : layout.TSS_IO_MAP + 2] = layout.TSS_BYTES.to_bytes(2, "little")
        self.write_region(layout.TSS, bytes(tss))
        for vector in range(256):
            self.write_gate(vector, 0)
        self.write_region(layout.RESUME, bytes([IRETD]))
        self.write_region(layout.IDLE, bytes([STI, HLT]))

    def tss_descriptor(self) -> Descriptor:
        """The VMM's TSS."""
        base = layout.VMM_BASE + layout.TSS
        low = (layout.TSS_BYTES - 1) | (base & 0xFFFF) << 16
        return Descriptor(low, base & 0xFF000000 | base >> 16 & 0xFF | (0x80 | TYPE_TSS_32_BUSY) << 8)

    def write_gate(self, vector: int, dpl: int) -> None:
        """An interrupt gate of the VMM's IDT to the entry of its vector."""
        target = layout.VMM_BASE + layout.ENTRIES + vector * layout.ENTRY_BYTES
        low = layout.VMM_CODE_SELECTOR << 16 | target & 0xFFFF
        high = target & 0xFFFF0000 | GATE_PRESENT | dpl << 13
        self.write_region(layout.IDT + 8 * vector, low.to_bytes(4, "little") + high.to_bytes(4, "little"))

    def start(self, boot: Boot) -> None:
        """Put the processor under the VMM, the guest at its first instruction."""
        self.build_region()
        cpu = self.processor.cpu
        cpu.cr0 = CR0_ET | CR0_PE | CR0_PG | CR0_WP | CR0_NE
        cpu.cr3 = self.shadow.root
        cpu.cr4 = CR4_PSE | CR4_PGE
        cpu.gdtr_base, cpu.gdtr_limit = layout.VMM_BASE + layout.GDT, 0xFFFF
        cpu.idtr_base, cpu.idtr_limit = layout.VMM_BASE + layout.IDT, 256 * 8 - 1
        cpu.mode_table[:4] = (MODE_VMM, MODE_GUEST_KERNEL, MODE_GUEST_KERNEL, MODE_GUEST_USER)
        self.segments.share_ring()
        cpu.hook_first = layout.VMM_BASE + layout.ENTRIES
        cpu.hook_last = layout.VMM_BASE + layout.RESUME - 1
        cpu.timer_vector = layout.HOST_TIMER_VECTOR
        set_segment = self.processor.set_segment
        set_segment(CS, layout.VMM_CODE_SELECTOR, 0, M32, 0xC09B)
        set_segment(SS, layout.VMM_DATA_SELECTOR, 0, M32, 0xC093)
        set_segment(LDTR, 0, 0, 0, AR_UNUSABLE)
        set_segment(TR, layout.VMM_TSS_SELECTOR, layout.VMM_BASE + layout.TSS, layout.TSS_BYTES - 1, 0x8B)
        enter_level(self.processor.state, 0)
        self.vcpu.reset()
        if self.translation is not None:
            self.translation.build()
        if boot.mode == PROTECTED:
            self.start_directly(boot)
        else:
            self.interpreter.start(boot)

    def start_directly(self, boot: Boot) -> None:
        """The guest begins in flat protected mode, as a Multiboot loader leaves it."""
        cpu = self.processor.cpu
        self.vcpu.gdtr_base, self.vcpu.gdtr_limit = boot.gdt
        for number, value in boot.registers.items():
            cpu.gpr[number] = value
        self.vcpu.frame = Frame(eip=boot.entry, eflags=EFLAGS_FIXED | EFLAGS_IF)
        self.segments.set_framed(CS, SegmentState(boot.code_selector, 0, M32, FLAT_CODE))
        for segment in (SS, DS, ES, FS, GS):
            self.segments.set(segment, SegmentState(boot.data_selector, 0, M32, FLAT_DATA))
        self.resume()

    # -- entry and exit -------------------------------------------------------------------------------------------

    def read_exit(self) -> Exit:
        """What brought control here: the entry's vector, the error code, the frame on the stack."""
        cpu = self.processor.cpu
        entry = int(cpu.rip) - layout.VMM_BASE - layout.ENTRIES
        if entry == layout.SYSENTER_ENTRY:
            self.vcpu.frame.eflags = int(all_eflags(self.processor.state)) | EFLAGS_IF
            self.vcpu.own_resume = False
            return Exit("system_call", -1, cpl=self.vcpu.cpl)
        if entry == layout.CALLOUT_ENTRY:
            return self.read_callout()
        vector = entry // layout.ENTRY_BYTES
        stack = int(cpu.gpr[ESP]) - layout.VMM_BASE
        error = 0
        if vector in ERROR_CODE_VECTORS:
            error = int.from_bytes(self.processor.read_physical(self.region_address(stack), 4), "little")
            stack += 4
        site = None
        if stack + 20 == layout.STACK_TOP:  # from the guest; an interrupt of the idle VMM pushed no stack pointer
            frame = self.vcpu.frame = Frame.from_octets(self.processor.read_physical(self.region_address(stack), 20))
            if self.translation is not None and self.translation.runs_inside(frame):
                site = self.translation.leave(frame, vector)
        self.note_resume_flag(vector)
        if vector == DB:
            self.debug_bits = int(cpu.dr[6]) & DR6_CONDITIONS
            self.processor.set_debug_register(6, 0)
        stepped = self.own_step
        if stepped:
            self.vcpu.frame.eflags &= ~EFLAGS_TF
        if self.shadow.open_frames and vector != PF:
            self.close_frames()
        gla = int(cpu.cr2) if vector == PF else 0
        if site is not None:
            reason = site.kind
        elif vector == layout.HOST_TIMER_VECTOR:
            reason = "host_timer"
        elif vector == DB and stepped and self.debug_bits & DR6_BS:
            reason = "own_step"
        else:
            reason = REASON_OF_VECTOR.get(vector, "software_interrupt")
        return Exit(reason, vector, error, gla, rip=self.vcpu.frame.eip, cpl=self.vcpu.cpl)

    def read_callout(self) -> Exit:
        """A callout of translated code that stays in its ring: there is no frame, the translator knows the guest's."""
        self.vcpu.frame, site = self.translator.leave_in_ring()
        self.note_resume_flag(layout.CALLOUT_VECTOR)
        if self.shadow.open_frames:
            self.close_frames()
        return Exit(site.kind, layout.CALLOUT_VECTOR, rip=self.vcpu.frame.eip, cpl=self.vcpu.cpl)

    def note_resume_flag(self, vector: int) -> None:
        """Whose the RF of the frame is: the processor sets it in the image of a fault, and the VMM when it resumes.

        The guest's own stays as it was until the instruction at which the guest was resumed completes.
        """
        vcpu = self.vcpu
        fault = vector in FAULT_VECTORS
        if int(self.processor.cpu.retired) != self.resumed_at or vector == DB:
            vcpu.own_resume = fault
        else:
            vcpu.own_resume = vcpu.own_resume or (fault and not self.resumed_with_flag)

    def resume(self) -> None:
        """Let the processor return to the guest: the frame goes on the stack, EIP to the IRETD."""
        if self.is_interpreted:
            return
        if self.table_written:
            self.descriptors.resynchronise()
        if self.vcpu.halted and not self.wait_over():
            return
        if self.board.a20_closed or (self.translation is not None and not self.translation.can_translate()):
            if self.translation is not None:
                self.translation.leave_ring()
            self.interpreter.take_over()
            return
        if self.translation is not None:
            self.translation.resynchronise()
        self.take_virtual_interrupt()
        if self.is_interpreted:
            return
        self.segments.release_detached()
        if self.recorder is not None:
            self.recorder.on_resume(self)
        cpu = self.processor.cpu
        frame = self.vcpu.frame
        self.resumed_at = int(cpu.retired)
        self.resumed_with_flag = bool(frame.eflags & EFLAGS_RF) and not self.vcpu.own_resume
        stack = layout.STACK_TOP - 20
        if self.translation is not None and self.translation.applies():
            image, code = self.translation.enter(frame), layout.RESUME_TRANSLATED
        else:
            image, code = frame.with_trap_flag(self.own_step), layout.RESUME
            if self.translation is not None:
                self.translation.leave_ring()
        if self.translation is not None and self.translation.serving:
            self.translation.come_back(image)
        else:
            self.write_region(stack, image.octets())
            self.enter_vmm_code(code, self.segments.return_stack(layout.VMM_BASE + stack))
        self.program_timer()
        cpu.retired_limit = self.machine.retired_limit
        note_arrival(self)

    def before_running(self) -> None:
        """A run goes on that may have paused as the guest was about to."""
        if self.translation is not None:
            self.translation.mark_entered()

    def run(self, single: bool = False) -> int:
        """Run the guest, directly or in the interpreter: an outcome of core/layout.py; OK: it goes on."""
        if self.is_interpreted:
            return self.interpreter.run(single)
        return self.processor.run(single)

    def enter_vmm_code(self, offset: int, stack: int) -> None:
        """Go on in the VMM's own code at an offset of its region."""
        cpu = self.processor.cpu
        cpu.rip = layout.VMM_BASE + offset
        cpu.gpr[ESP] = stack
        set_all_eflags(self.processor.state, EFLAGS_FIXED)

    def leave_vmm(self) -> None:
        """The processor stopped while the guest runs: take its frame from the registers."""
        cpu = self.processor.cpu
        if cpu.cpl == 0 or (self.translation is not None and self.translation.serving):
            return
        if int(cpu.retired) != self.resumed_at:
            self.vcpu.own_resume = False
        self.vcpu.frame = Frame(
            eip=int(cpu.rip),
            cs=int(cpu.seg[CS].selector),
            eflags=int(all_eflags(self.processor.state)) & ~(EFLAGS_TF if self.own_step else 0),
            esp=int(cpu.gpr[ESP]),
            ss=int(cpu.seg[SS].selector),
        )
        if self.translation is not None and self.translation.runs_inside(self.vcpu.frame):
            self.translation.look(self.vcpu.frame)

    def handle_hook(self) -> None:
        """One exit: read it, charge the dispatch, let the strategy act, resume."""
        before = int(self.processor.cpu.ticks)
        exit = self.last_exit = self.read_exit()
        self.charge("trap_dispatch", 1)
        try:
            self.machine.strategy.handle(self, exit)
        except NotDirect:
            self.interpret_one()
        if self.board.attention:
            self.machine.on_board()
        self.resume()
        row = self.exits.setdefault(exit.reason, [0, 0])
        row[0] += 1
        row[1] += int(self.processor.cpu.ticks) - before

    # -- the guest's registers and segments -----------------------------------------------------------------------

    def register(self, number: int) -> int:
        """A general register of the guest; ESP is in the frame."""
        if self.is_interpreted:
            return int(self.interpreter.cpu.gpr[number])
        if self.translation is not None and number in self.translation.overlay:
            return self.translation.overlay[number]
        return self.vcpu.frame.esp if number == ESP else int(self.processor.cpu.gpr[number])

    def eip(self) -> int:
        """The guest's EIP."""
        return int(self.interpreter.cpu.rip) if self.is_interpreted else self.vcpu.frame.eip

    def linear_eip(self) -> int:
        """Where the guest's next instruction is."""
        return self.segments.base(CS) + self.vcpu.frame.eip & M32

    @property
    def translator(self) -> Translator:
        """The binary translator of a technique that has one."""
        assert self.translation is not None, "the technique translates"
        return self.translation

    def segment_cache(self, segment: int):
        """What the processor holds of a segment register of the guest's, or would if the guest's code ran as it is."""
        if self.translation is not None:
            return self.translation.segment_cache(segment)
        return self.processor.cpu.seg[segment]

    def set_register(self, number: int, value: int, width: int = 32) -> None:
        """Write a general register of the guest, 16 or 32 bits wide."""
        if width == 16:
            value = self.register(number) & 0xFFFF0000 | value & 0xFFFF
        if number == ESP:
            self.vcpu.frame.esp = value & M32
        else:
            self.processor.cpu.gpr[number] = value & M32

    # -- shadows --------------------------------------------------------------------------------------------------

    def flush_shadow(self) -> None:
        """The guest's address space may be another one: CR3, CR0 or CR4 was written, or what lies behind its frames changed."""
        self.shadow.change_space()
        self.descriptors.check_table_pages()
        if self.translation is not None:
            self.translation.pages.revalidate()

    def shadow_fault(self, exit: Exit) -> None:
        """A page fault of the processor: the guest's own (GuestFault), a missing shadow entry, or a traced frame."""
        self.shadow.fault(exit)


    def trace_linear(self, gla: int, n: int) -> None:
        """Trace the guest frames that hold `n` bytes of a descriptor table at a linear address."""
        for address in {gla & M32, gla + n - 1 & M32}:
            self.shadow.trace(self.guest.walk(address, False, False, mark=False).gpa >> 12, DESCRIPTORS)

    def on_guest_frame_written(self, frame: int) -> None:
        """The VMM itself wrote somewhere in a guest frame."""
        self.shadow.note_write(frame << 12, PAGE)

    def on_descriptors_written(self, frame: int, first: int, count: int) -> None:
        """Bytes of a frame with descriptors were written; what it holds is looked at before the guest goes on."""
        if not self.updating_descriptor:
            self.table_written = True

    def close_frames(self) -> None:
        """The instruction that could write traced frames is over: protect them again, drop what it changed."""
        self.shadow.close_frames()
        self.descriptors.resynchronise()

    # -- events to the guest --------------------------------------------------------------------------------------

    def inject_exception(self, fault: GuestFault) -> None:
        """Deliver a fault to the guest."""
        self.events.inject_exception(fault)

    def reflect_exit(self, exit: Exit) -> None:
        """Deliver the exception that caused an exit to the guest as it is."""
        self.events.reflect_exit(exit)

    def deliver_open_gate(self, exit: Exit) -> None:
        """INT n came through a gate that was opened to ring 3."""
        self.entries.deliver_open_gate(exit)

    def enter_system_call(self) -> None:
        """SYSENTER of the guest."""
        sysenter(self)

    def emulate(self, instruction: Instruction) -> bool:
        """Perform a sensitive instruction on the virtual processor; False if it is none."""
        return emulate(self, instruction)

    def hold_interrupts(self) -> None:
        """The interrupt shadow of STI, MOV SS and POP SS: it ends when one more instruction has retired."""
        self.vcpu.shadow_count = int(self.processor.cpu.retired) + 1

    def interrupts_held(self) -> bool:
        """Whether the interrupt shadow still covers the next instruction."""
        return self.vcpu.shadow_count == int(self.processor.cpu.retired)

    def at_repeated_string(self) -> bool | None:
        """Whether the guest stands at a repeated string instruction; None where the shadow does not map its bytes now."""
        if self.is_interpreted:
            return self.interpreter.at_repeated_string()
        gla = self.segments.base(CS) + self.vcpu.frame.eip & M32
        if self.translation is not None:
            return repeats(self.translation.pages.peek(gla, MAX_INSTRUCTION))
        return repeats(self.machine.bytes_at(gla, MAX_INSTRUCTION))

    def must_step(self) -> bool:
        """Whether no interrupt may be delivered before the guest's next instruction, or iteration, has completed.

        Within a repeated string instruction the RF that is pushed says whether iterations were made. After a fault of
        the processor that is not the guest's, the VMM cannot know that before one more was.
        """
        if self.shadow.open_frames or self.interrupts_held():
            return True
        return self.vcpu.own_resume and self.at_repeated_string() is True

    def take_virtual_interrupt(self) -> None:
        """Deliver a virtual interrupt if one waits and the guest's window is open; see that the window is noticed."""
        self.own_step = bool(self.shadow.open_frames) and not self.vcpu.frame.eflags & EFLAGS_TF
        if self.shadow.open_frames:
            return
        pending = self.interrupt_waits = self.see_devices()
        if not pending or not self.vcpu.interrupt_flag or self.machine.outcome is not None:
            return  # nothing is delivered to a guest that has ended
        if self.must_step():
            self.own_step = not self.vcpu.frame.eflags & EFLAGS_TF
            return
        self.vcpu.halted = 0
        vector = int(device_acknowledge(self.boards))
        if self.recorder is not None:
            self.recorder.on_delivery(self, vector)
        self.charge("device_request", 1)
        try:
            reflect(self, vector, None, KIND_EXTERNAL)
        except NotDirect:
            self.interpreter.deliver_external(vector)

    def see_devices(self, tick: int | None = None) -> bool:
        """Let the virtual devices see the present, or a later tick; whether they request an interrupt."""
        if self.recorder is not None:
            self.recorder.before_devices(self)
        pending = bool(device_advance(self.boards, self.processor.cpu.ticks if tick is None else tick))
        if self.recorder is not None:
            self.recorder.after_devices(self, 0)
        return pending

    def program_timer(self) -> None:
        """Set the host's one-shot timer to the earliest virtual deadline, if it is not set to it."""
        deadline = device_deadline(self.boards)
        if self.processor.cpu.timer != deadline:
            vmm_program_timer(self.processor.state, deadline)

    def wait_over(self) -> bool:
        """The guest is halted: True once an interrupt wakes it; else the VMM idles with HLT until its timer."""
        pending = self.see_devices()
        if not self.vcpu.interrupt_flag:
            self.machine.stop("halted_forever")
            return False
        if pending:
            self.vcpu.halted = 0
            return True
        if device_deadline(self.boards) == NEVER:
            self.machine.stop("halted_forever")
            return False
        self.program_timer()
        self.enter_vmm_code(layout.IDLE, layout.VMM_BASE + layout.STACK_TOP - 20)
        return False

    def retire(self) -> None:
        """Count an emulated guest instruction."""
        self.processor.cpu.retired += 1

    # -- devices, time, reports -----------------------------------------------------------------------------------

    def device_read(self, port: int, n: int) -> int:
        """IN from a virtual device."""
        self.charge("device_request", 1)
        if self.recorder is not None:
            self.see_devices()
        value = int(device_read(self.boards, port, n, self.processor.cpu.ticks))
        if self.recorder is not None and device_reads_time(self.boards, port, n):
            self.recorder.on_time_read(self, port, value)
        return value

    def device_write(self, port: int, n: int, value: int, completes: bool = True) -> None:
        """OUT to a virtual device; unless iterations of OUTS are still to come, it completes the instruction."""
        self.charge("device_request", 1)
        if self.recorder is not None:
            self.see_devices()
            self.recorder.before_devices(self)
        device_write(self.boards, port, n, value, self.processor.cpu.ticks)
        if self.recorder is not None:
            self.recorder.after_devices(self, int(completes))
        if self.physical.follow():
            self.flush_shadow()

    def time_stamp(self) -> int:
        """What an emulated RDTSC reads now, in cycles."""
        return self.time_read(TIME_STAMP, int(self.processor.cpu.ticks >> 6) + int(self.processor.cpu.tsc_offset))

    def time_read(self, source: int, value: int) -> int:
        """A value that tells the guest the time, which a recorder notes."""
        if self.recorder is not None:
            self.recorder.on_time_read(self, source, value)
        return value

    def instruction(self) -> Instruction | None:
        """The instruction at which the guest trapped."""
        return decode_at_trap(self)

    def bytes_at_trap(self) -> str:
        """Its bytes in hexadecimal, for reports."""
        try:
            return fetch(self, 8).hex(" ")
        except GuestFault:
            return "not readable"

    def text_at_trap(self) -> str:
        """Its disassembly, for reports."""
        from ..disassembly import disassemble

        try:
            return disassemble(fetch(self, 15), self.vcpu.frame.eip)
        except GuestFault:
            return "not readable"

    def guest_ram(self) -> np.ndarray:
        """Guest RAM in guest-physical order, a copy."""
        pages = self.processor.ram.reshape(-1, PAGE)
        return pages[self.p2m].reshape(-1)

    def virtual_registers(self) -> tuple[dict[str, int], dict[str, SegmentState]]:
        """The guest's registers and segments, read from what the VMM and the hardware hold."""
        if self.is_interpreted:
            return processor_registers(self.interpreter.processor)
        self.leave_vmm()
        vcpu = self.vcpu
        registers = {name: self.register(number) for number, name in enumerate(GENERAL_REGISTERS)}
        registers |= {"eip": vcpu.frame.eip, "eflags": vcpu.virtual_flags(vcpu.frame.eflags)}
        registers |= {name: getattr(vcpu, name) for name in SYSTEM_REGISTERS} | x87_state(self.processor.cpu)
        if self.translation is not None:
            registers["fpu_instruction"] = self.translation.guest_address(registers["fpu_instruction"])
        segments = {
            name: self.segments.state(number) for number, name in enumerate(SEGMENT_REGISTERS) if number < LDTR
        }
        segments["ldtr"] = segment_state(vcpu.ldtr, vcpu.ldtr_base, vcpu.ldtr_limit, vcpu.ldtr_access)
        segments["tr"] = segment_state(vcpu.tr, vcpu.tr_base, vcpu.tr_limit, vcpu.tr_access)
        return registers, segments

    def virtual_state(self) -> VirtualState:
        """S, read from what the VMM and the hardware hold."""
        registers, segments = self.virtual_registers()
        machine = self.machine
        return VirtualState(
            registers, segments, self.guest_ram(), machine.console(), devices_of(self.board), machine.disks.written()
        )

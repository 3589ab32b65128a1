"""The ways between guest and VMM: an exit is read, and the guest resumed.

A trap is an ordinary delivery through the VMM's IDT; the jitted call returns when it lands on an entry. To resume, the
VMM writes the frame back on its stack and lets the processor execute the IRETD in its region.
"""

from typing import TYPE_CHECKING

from ..core.breakpoints import DR6_BS
from ..core.entries import all_eflags
from ..isa.registers import CS, EFLAGS_IF, EFLAGS_RF, EFLAGS_TF, ESP, SS
from ..isa.vectors import DB, PF
from . import layout
from .exits import ERROR_CODE_VECTORS, FAULT_VECTORS, REASON_OF_VECTOR, Exit, NotDirect
from .region import region_address
from .translation.direct import come_back_directly, make_general, returns_directly
from .translation.sequences import INNERMOST_RING
from .vcpu import Frame
from .ways import Ways

if TYPE_CHECKING:
    from .translation.emitter import Site
    from .vm import SoftwareVm

DR6_CONDITIONS = 0xE00F
FRAME_BYTES = 20  # EIP, CS, EFLAGS, ESP, SS


class Crossings(Ways):
    """From the guest to the VMM and back by traps and IRET, for one virtual processor."""

    vm: "SoftwareVm"

    def __init__(self, vm: "SoftwareVm") -> None:
        super().__init__(vm)
        self.debug_bits = 0  # of DR6, at the last #DB of the processor
        self.resumed_at, self.resumed_with_flag = -1, False  # instructions retired then; whether the guest had RF set

    # -- from the guest to the VMM --------------------------------------------------------------------------------

    def read_exit(self) -> Exit:
        """What brought control here: the entry's vector, the error code, the frame on the stack."""
        vm, cpu = self.vm, self.vm.processor.cpu
        entry = int(cpu.rip) - layout.VMM_BASE - layout.ENTRIES
        if entry == layout.SYSENTER_ENTRY:
            return self.read_system_call()
        if entry == layout.CALLOUT_ENTRY or entry in layout.DIRECT_ENTRIES:
            return self.read_callout()
        vector = entry // layout.ENTRY_BYTES
        error, site = self.read_stack(vector)
        self.note_resume_flag(vector)
        if vector == DB:
            self.debug_bits = int(cpu.dr[6]) & DR6_CONDITIONS
            vm.processor.set_debug_register(6, 0)
        if self.own_step:
            vm.vcpu.frame.eflags &= ~EFLAGS_TF
        gla = int(cpu.cr2) if vector == PF else 0
        reason = self.reason(vector) if site is None else site.kind
        return Exit(reason, vector, error, gla, rip=vm.vcpu.frame.eip, cpl=vm.vcpu.cpl)

    def read_stack(self, vector: int) -> "tuple[int, Site | None]":
        """Take the guest's frame from the VMM's stack: the error code, and where translated code was left, if it was."""
        vm = self.vm
        stack = int(vm.processor.cpu.gpr[ESP]) - layout.VMM_BASE
        error, site = 0, None
        if vector in ERROR_CODE_VECTORS:
            error = int.from_bytes(vm.processor.read_physical(region_address(stack), 4), "little")
            stack += 4
        if stack + FRAME_BYTES == layout.STACK_TOP:  # from the guest; an interrupt of the idle VMM pushed no stack pointer
            octets = vm.processor.read_physical(region_address(stack), FRAME_BYTES)
            frame = vm.vcpu.frame = Frame.from_octets(octets)
            if vm.translation is not None and vm.translation.runs_inside(frame):
                site = vm.translation.leave(frame, vector)
        return error, site

    def reason(self, vector: int) -> str:
        """Why control came through the entry of a vector."""
        if vector == layout.HOST_TIMER_VECTOR:
            return "host_timer"
        if vector == DB and self.own_step and self.debug_bits & DR6_BS:
            return "own_step"
        return REASON_OF_VECTOR.get(vector, "software_interrupt")

    def read_system_call(self) -> Exit:
        """SYSENTER: the processor keeps nothing of the guest's EIP and ESP, which is the guest's affair."""
        vcpu = self.vm.vcpu
        vcpu.frame.eflags = int(all_eflags(self.vm.processor.state)) | EFLAGS_IF
        vcpu.own_resume = False
        return Exit("system_call", -1, cpl=vcpu.cpl)

    def read_callout(self) -> Exit:
        """A callout of translated code that stays in its ring: there is no frame, the translator knows the guest's."""
        vm = self.vm
        vm.vcpu.frame, site = vm.translator.leave_in_ring()
        self.note_resume_flag(layout.CALLOUT_VECTOR)
        return Exit(site.kind, layout.CALLOUT_VECTOR, rip=vm.vcpu.frame.eip, cpl=vm.vcpu.cpl)

    def note_resume_flag(self, vector: int) -> None:
        """Whose the RF of the frame is: the processor sets it in the image of a fault, and the VMM when it resumes.

        The guest's own stays as it was until the instruction at which the guest was resumed completes.
        """
        vcpu = self.vm.vcpu
        fault = vector in FAULT_VECTORS
        if int(self.vm.processor.cpu.retired) != self.resumed_at or vector == DB:
            vcpu.own_resume = fault
        else:
            vcpu.own_resume = vcpu.own_resume or (fault and not self.resumed_with_flag)

    def take_frame(self) -> None:
        """The processor stopped while the guest runs: take its frame from the registers."""
        vm, cpu = self.vm, self.vm.processor.cpu
        if cpu.cpl == 0 or (vm.translation is not None and vm.translation.serving):
            return
        if int(cpu.retired) != self.resumed_at:
            vm.vcpu.own_resume = False
        vm.vcpu.frame = Frame(
            eip=int(cpu.rip),
            cs=int(cpu.seg[CS].selector),
            eflags=int(all_eflags(vm.processor.state)) & ~(EFLAGS_TF if self.own_step else 0),
            esp=int(cpu.gpr[ESP]),
            ss=int(cpu.seg[SS].selector),
        )
        if vm.translation is not None and vm.translation.runs_inside(vm.vcpu.frame):
            vm.translation.look(vm.vcpu.frame)

    # -- from the VMM to the guest --------------------------------------------------------------------------------

    def resume(self) -> None:
        """Let the guest go on: halted, in the interpreter, or on the processor with an interrupt that waits."""
        vm = self.vm
        if vm.is_interpreted:
            return
        if vm.descriptors.table_written:
            vm.descriptors.resynchronise()
        if vm.vcpu.halted and not vm.interrupts.wait_over():
            return
        if not self.can_run_on_processor():
            self.interpret()
            return
        if vm.translation is not None:
            vm.translation.resynchronise()
        vm.interrupts.take()
        if vm.is_interpreted:  # the delivery was left to the interpreter
            return
        if not self.can_run_on_processor():  # the handler's code is of another kind
            self.interpret()
            return
        vm.segments.release_detached()
        if vm.recorder is not None:
            vm.recorder.on_resume(vm)
        try:
            self.return_to_guest()
        except NotDirect:
            self.interpret()

    def can_run_on_processor(self) -> bool:
        """Whether the hardware can hold what the guest's own would: an open A20 gate, segments that can be shadowed."""
        vm = self.vm
        return not vm.board.a20_closed and (vm.translation is None or vm.translation.can_translate())

    def interpret(self) -> None:
        """Let the guest go on in the interpreter."""
        if self.vm.translation is not None:
            self.vm.translation.leave_ring()
        self.vm.interpreter.take_over()

    def return_to_guest(self) -> None:
        """The frame goes on the stack and EIP to the IRETD; translated code gets another image and another way back.

        Raises NotDirect where no translation can be made.
        """
        vm, cpu = self.vm, self.vm.processor.cpu
        frame, translation = vm.vcpu.frame, vm.translation
        self.resumed_at = int(cpu.retired)
        self.resumed_with_flag = bool(frame.eflags & EFLAGS_RF) and not vm.vcpu.own_resume
        if translation is not None and translation.direct:
            if returns_directly(translation):
                come_back_directly(translation, frame)
                self.see_to_time()
                return
            make_general(translation)
        if translation is not None and translation.applies():
            image, code = translation.enter(frame), layout.RESUME_TRANSLATED
        else:
            image, code = frame.with_trap_flag(self.own_step), layout.RESUME
            if translation is not None:
                translation.leave_ring()
                translation.change_ring(INNERMOST_RING)  # nothing of it is open to code that runs directly
        if translation is not None and translation.serving:
            translation.come_back(image)
        else:
            stack = layout.STACK_TOP - FRAME_BYTES
            vm.write_region(stack, image.octets())
            self.enter_vmm_code(code, vm.segments.return_stack(layout.VMM_BASE + stack))
        self.see_to_time()

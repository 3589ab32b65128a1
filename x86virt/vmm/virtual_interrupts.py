"""Virtual interrupts: when the guest may take one, how it is delivered, and how long a halted guest sleeps."""

from typing import TYPE_CHECKING

from ..core.layout import HOLDS_INTERRUPTS, MAX_INSTRUCTION, NEVER
from ..isa.registers import EFLAGS_TF
from . import layout
from .instruction import repeats

if TYPE_CHECKING:
    from .virtual_machine import VirtualMachine

M32 = 0xFFFFFFFF


class VirtualInterrupts:
    """The interrupt window of one virtual processor."""

    def __init__(self, vm: "VirtualMachine") -> None:
        self.vm = vm
        self.waits = False  # a virtual device requests one, whatever the guest's IF

    # -- the window -----------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """The interrupt shadow of STI, MOV SS and POP SS: it ends when one more instruction has retired."""
        self.vm.vcpu.shadow_count = int(self.vm.processor.cpu.retired) + 1

    def held(self) -> bool:
        """Whether the interrupt shadow still covers the next instruction."""
        return self.vm.vcpu.shadow_count == int(self.vm.processor.cpu.retired)

    def shadow(self) -> int:
        """The same, as the processor's record has it."""
        return HOLDS_INTERRUPTS if self.held() else 0

    def at_repeated_string(self) -> bool | None:
        """Whether the guest stands at a repeated string instruction; None where the shadow does not map its bytes now."""
        vm = self.vm
        if vm.is_interpreted:
            return vm.interpreter.at_repeated_string()
        gla = vm.linear_eip()
        if vm.translation is not None:
            return repeats(vm.translation.pages.peek(gla, MAX_INSTRUCTION))
        return repeats(vm.machine.bytes_at(gla, MAX_INSTRUCTION))

    def must_step(self) -> bool:
        """Whether no interrupt may be delivered before the guest's next instruction, or iteration, has completed.

        Within a repeated string instruction the RF that is pushed says whether iterations were made. After a fault of
        the processor that is not the guest's, the VMM cannot know that before one more was.
        """
        if self.held():
            return True
        return self.vm.vcpu.own_resume and self.at_repeated_string() is True

    def is_open(self) -> bool:
        """Whether the guest could take an interrupt now."""
        return bool(self.vm.vcpu.interrupt_flag) and not self.must_step()

    # -- delivery -------------------------------------------------------------------------------------------------

    def take(self) -> None:
        """Deliver a virtual interrupt if one waits and the guest's window is open; see that the window is noticed."""
        vm = self.vm
        guest_steps = bool(vm.vcpu.frame.eflags & EFLAGS_TF)
        vm.crossings.own_step = False
        pending = self.waits = vm.devices.see()
        if not pending or not vm.vcpu.interrupt_flag or vm.machine.outcome is not None or vm.board.reset_requested:
            return  # nothing is delivered to a guest that has ended, or is about to begin anew
        if self.must_step():
            vm.crossings.own_step = not guest_steps
            return
        self.deliver()

    def deliver(self) -> None:
        """Acknowledge the interrupt at the virtual controllers and deliver it; a halted guest wakes."""
        vm = self.vm
        vm.vcpu.halted = 0
        vector = vm.devices.acknowledge()
        if vm.recorder is not None:
            vm.recorder.on_delivery(vm, vector)
        self.waits = vm.devices.see()
        vm.charge("device_request", 1)
        vm.deliver_interrupt(vector)

    def wait_over(self) -> bool:
        """The guest is halted: True once an interrupt wakes it; else the VMM idles with HLT until its timer."""
        vm = self.vm
        pending = vm.devices.see()
        if not vm.vcpu.interrupt_flag:
            vm.machine.stop("halted_forever")
            return False
        if pending:
            vm.vcpu.halted = 0
            return True
        if vm.devices.deadline() == NEVER:
            vm.machine.stop("halted_forever")
            return False
        vm.devices.program_timer()
        vm.crossings.enter_vmm_code(layout.IDLE, layout.VMM_BASE + layout.STACK_TOP - 20)
        return False

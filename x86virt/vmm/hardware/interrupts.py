"""Virtual interrupts of a guest that the hardware runs: the control structure says whether its window is open, and delivers."""

from typing import TYPE_CHECKING

from ...core.layout import HOLDS_DEBUG, HOLDS_INTERRUPTS, MAX_INSTRUCTION
from ...isa.registers import EFLAGS_IF
from ..instruction import repeats
from ..virtual_interrupts import VirtualInterrupts

if TYPE_CHECKING:
    from .vm import HardwareVm

INTERRUPTIBILITY = "guest_interruptibility_state"
BY_STI, BY_MOV_SS = 1, 2  # its bits 0 and 1


class HardwareInterrupts(VirtualInterrupts):
    """The interrupt window of one virtual processor."""

    vm: "HardwareVm"

    def __init__(self, vm: "HardwareVm") -> None:
        super().__init__(vm)
        self.window_asked = False  # the guest exits as soon as it can take an interrupt

    def held(self) -> bool:
        """Whether STI, MOV SS or POP SS hold interrupts off."""
        return bool(self.vm.vcpu.field(INTERRUPTIBILITY) & (BY_STI | BY_MOV_SS))

    def shadow(self) -> int:
        """The same, as the processor's record has it."""
        state = self.vm.vcpu.field(INTERRUPTIBILITY)
        if state & BY_MOV_SS:
            return HOLDS_DEBUG
        return HOLDS_INTERRUPTS if state & BY_STI else 0

    def set_shadow(self, shadow: int) -> None:
        """Let them be held off as the processor's record says."""
        bit = BY_MOV_SS if shadow == HOLDS_DEBUG else BY_STI if shadow else 0
        blocking = self.vm.vcpu.field(INTERRUPTIBILITY) & ~(BY_STI | BY_MOV_SS)
        self.vm.vcpu.set_field(INTERRUPTIBILITY, blocking | bit)

    def at_repeated_string(self) -> bool | None:
        """Whether the guest stands at a repeated string instruction, for those who look on."""
        from ...inspection.view import View

        vm = self.vm
        if vm.is_interpreted:
            return vm.interpreter.at_repeated_string()
        return repeats(View(vm.machine).read(vm.linear_eip(), MAX_INSTRUCTION))

    def is_open(self) -> bool:
        """Whether the guest could take an interrupt now, for those who look on."""
        vcpu = self.vm.vcpu
        held = vcpu.peek(INTERRUPTIBILITY) & (BY_STI | BY_MOV_SS)
        return not self.vm.injected and not held and bool(vcpu.peek("guest_rflags") & EFLAGS_IF)

    def take(self) -> None:
        """Let the next entry deliver an interrupt that waits, if the guest's window is open; else the guest exits when it is."""
        vm = self.vm
        if vm.machine.outcome is not None or vm.board.reset_requested:
            return  # the guest has ended, or is about to begin anew: what its devices do now it will not see
        self.waits = vm.devices.see()
        if self.waits and not vm.injected and vm.vcpu.interrupt_flag and not self.held():
            self.deliver_or_hold()
        self.ask_window(self.waits)

    def deliver_or_hold(self) -> None:
        """Let the next entry deliver the interrupt that waits.

        Within an access that a fill was made for, it is held off for the instruction: the access has marked the guest's own
        tables already, and within a repeated string the processor alone knows what RF to push. Under TF it is not, since
        an entry with TF and an interrupt shadow asks for a debug exception of its own (SDM volume 3, section 26.3.1.5).
        """
        if self.vm.accesses_again and not self.vm.vcpu.single_stepped:
            self.set_shadow(HOLDS_INTERRUPTS)
        else:
            self.deliver()

    def ask_window(self, wanted: bool) -> None:
        """Set or clear interrupt-window exiting, if it is otherwise."""
        if wanted != self.window_asked:
            self.vm.charge("window", 1)
            self.window_asked = wanted
            self.vm.control.want_window(wanted)

"""The ways between a guest and a VMM on a virtualization extension: an exit is read, and the guest entered again.

An exit arrives at HOST_RIP, an address of the VMM's entry range. Between two exits the VMM may also wait for its own timer,
with HLT: that interrupt comes through the VMM's IDT.
"""

from typing import TYPE_CHECKING

from .. import layout
from ..exits import Exit
from ..ways import Ways
from .layout import EXIT_ENTRY

if TYPE_CHECKING:
    from .vm import HardwareVm

IDLE_STACK = layout.VMM_BASE + layout.STACK_TOP - 20


class HardwareCrossings(Ways):
    """From the guest to the VMM and back, for one virtual processor."""

    vm: "HardwareVm"

    # -- from the guest to the VMM --------------------------------------------------------------------------------

    def read_exit(self) -> Exit:
        """Why the guest was left; or the VMM's own timer, for which it waited with the guest halted."""
        vm = self.vm
        entry = int(vm.processor.cpu.rip) - layout.VMM_BASE
        if entry != EXIT_ENTRY:
            return Exit("host_timer", (entry - layout.ENTRIES) // layout.ENTRY_BYTES)
        vm.vcpu.begin()
        vm.injected = False
        exit = vm.control.read_exit()
        vm.take_back_completion(exit)
        exit.rip, exit.cpl = vm.vcpu.peek("guest_rip"), vm.peek_cpl()
        return exit

    def take_frame(self) -> None:
        """The guest's registers are where `peek` finds them."""

    # -- from the VMM to the guest --------------------------------------------------------------------------------

    def resume(self) -> None:
        """Let the guest go on: halted, in the interpreter, or on the processor with an interrupt that waits."""
        vm = self.vm
        if vm.is_interpreted:
            return
        if vm.vcpu.halted and not vm.interrupts.wait_over():
            return
        if vm.board.a20_closed:
            vm.interpreter.take_over()
            return
        if not self.settle():
            return
        if vm.clusters.go_on(vm.last_exit):
            return
        vm.interrupts.take()
        if vm.is_interpreted or not self.settle():
            return
        if vm.recorder is not None:
            vm.recorder.on_resume(vm)
        self.see_to_time()
        vm.enter()

    def enter_vmm_code(self, offset: int, stack: int) -> None:
        """Go on in the VMM's own code, where it waits for an interrupt of its own."""
        self.vm.control.before_idle()
        super().enter_vmm_code(offset, stack)

    def settle(self) -> bool:
        """Put the guest's state into the control structure; False: the hardware cannot run it so, and the interpreter has it."""
        vm = self.vm
        vm.vcpu.write_back()
        if vm.nested is None:
            vm.shadow.before_entry(vm.guest_state, vm.control)
        if vm.guest_state.settle():
            return True
        if vm.injected:
            vm.take_back_injection()
        vm.interpreter.take_over()
        return False

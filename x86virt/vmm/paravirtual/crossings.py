"""The ways between a domain and its VMM, from Python: the same code as the loop's, one part at a time."""

from typing import TYPE_CHECKING

from ...isa.vectors import PF
from ..exits import Exit
from ..vcpu import Frame
from ..ways import Ways
from .exits import reason_of_vector
from .loop import ARRIVE, LEAVE

if TYPE_CHECKING:
    from .vm import ParavirtualVm


class DomainCrossings(Ways):
    """From a domain to the VMM and back."""

    vm: "ParavirtualVm"

    def read_exit(self) -> Exit:
        """What brought control to the VMM."""
        vm = self.vm
        vm.part(ARRIVE)
        xen, domain = vm.xen, vm.domain
        vector = int(xen.vector)
        gla = int(vm.processor.cpu.cr2) if vector == PF else 0
        exit = Exit(reason_of_vector(vector), vector, int(xen.error), gla, rip=int(domain.eip), cpl=int(domain.cs) & 3)
        vm.last_exit = exit
        return exit

    def take_frame(self) -> None:
        """The processor stopped: know where the domain is."""
        vm, cpu = self.vm, self.vm.processor.cpu
        if cpu.cpl == 0:
            domain = vm.domain
            values = (domain.eip, domain.cs, domain.eflags, domain.esp, domain.ss)
            vm.vcpu.frame = Frame(*map(int, values))

    def resume(self) -> None:
        """Let the domain go on that is to run next."""
        if self.vm.machine.outcome is None:
            self.vm.go_on(self.vm.part(LEAVE))

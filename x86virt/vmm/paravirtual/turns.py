"""What a machine calls: turns of the processor and the VMM's code where nothing else is asked of it, plain runs otherwise."""

from typing import TYPE_CHECKING

from ..fast.base import DEALT_WITH, declared_actions
from .exits import N_VECTORS, reason_of_vector
from .loop import TURNS

if TYPE_CHECKING:
    from ...machine import Machine
    from .vm import ParavirtualVm


class JittedDomains:
    """The exits of a paravirtual machine in code. Set `wanted` to False to have each go through the strategy's hook."""

    def __init__(self, machine: "Machine", vm: "ParavirtualVm") -> None:
        self.machine, self.vm = machine, vm
        self.wanted = True
        self.handled = 0  # exits
        declared = declared_actions(type(machine.strategy))
        for vector in range(N_VECTORS):
            vm.shared[0].in_code[vector] = int(reason_of_vector(vector) in declared)

    def run(self) -> int:
        """Run until an outcome of the processor that is not dealt with here, or DEALT_WITH."""
        vm = self.vm
        if not self.usable():
            return self.machine.run_guest()
        outcome = vm.part(TURNS)
        dealt_with = vm.go_on(outcome)
        self.handled += vm.copy_counts()
        if not dealt_with:
            return outcome
        if vm.board.attention:
            self.machine.on_board()
        return DEALT_WITH

    def usable(self) -> bool:
        """Whether nothing is on that this code knows nothing of: stops of a debugger."""
        cpu = self.vm.processor.cpu
        return self.wanted and not cpu.stop_count and not cpu.stop_deliveries

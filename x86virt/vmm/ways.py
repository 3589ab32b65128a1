"""The ways between a guest and its VMM, as every technique has them: an exit is read, and the guest goes on."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ..core.entries import set_all_eflags
from ..isa.registers import EFLAGS_FIXED, ESP
from . import layout
from .exits import Exit
from .stops import note_arrival

if TYPE_CHECKING:
    from .virtual_machine import VirtualMachine


class Ways(ABC):
    """From the guest to the VMM and back, for one virtual processor."""

    def __init__(self, vm: "VirtualMachine") -> None:
        self.vm = vm
        self.own_step = False  # the guest's next instruction is executed for the VMM alone, which gets control behind it

    @abstractmethod
    def read_exit(self) -> Exit:
        """What brought control to the VMM."""

    @abstractmethod
    def take_frame(self) -> None:
        """The processor stopped while the guest runs: know where it is."""

    @abstractmethod
    def resume(self) -> None:
        """Let the guest go on."""

    def see_to_time(self) -> None:
        """The guest goes on: until the next deadline of a device, the end of the run, or a stop."""
        vm = self.vm
        vm.devices.program_timer()
        vm.processor.cpu.retired_limit = vm.machine.retired_limit
        note_arrival(vm)

    def enter_vmm_code(self, offset: int, stack: int) -> None:
        """Go on in the VMM's own code at an offset of its region."""
        vm = self.vm
        cpu = vm.processor.cpu
        cpu.rip = layout.VMM_BASE + offset
        cpu.gpr[ESP] = stack
        set_all_eflags(vm.processor.state, EFLAGS_FIXED)

"""Which kind of virtual machine a strategy runs its guest in."""

from typing import TYPE_CHECKING

from .virtual_machine import VirtualMachine
from .vm import SoftwareVm

if TYPE_CHECKING:
    from ..machine import Machine


def make_vm(machine: "Machine") -> VirtualMachine:
    """The virtual machine that the strategy's choice of `processor` asks for."""
    return SoftwareVm(machine, machine.strategy.kernel_ring)

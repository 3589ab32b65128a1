"""Which kind of virtual machine a strategy runs its guest in."""

from typing import TYPE_CHECKING

from .hardware.vm import HardwareVm
from .virtual_machine import VirtualMachine
from .vm import SoftwareVm

if TYPE_CHECKING:
    from ..machine import Machine

BY_HARDWARE = ("vtx", "svm")  # choices of Strategy.processor


def make_vm(machine: "Machine") -> VirtualMachine:
    """The virtual machine that the strategy's choice of `processor` asks for."""
    strategy = machine.strategy
    if strategy.processor in BY_HARDWARE:
        return HardwareVm(machine)
    return SoftwareVm(machine, strategy.kernel_ring)

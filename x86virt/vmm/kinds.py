"""Which kind of virtual machine a strategy runs its guest in."""

from typing import TYPE_CHECKING

from .fast.calls import JittedExits
from .fast_hardware.calls import JittedHardwareExits
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


def jitted_exits(machine: "Machine", vm: VirtualMachine | None) -> JittedExits | JittedHardwareExits | None:
    """What handles the exits of a virtual machine that are always handled alike."""
    if isinstance(vm, SoftwareVm):
        return JittedExits(machine, vm)
    return JittedHardwareExits(machine, vm) if isinstance(vm, HardwareVm) else None

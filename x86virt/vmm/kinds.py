"""Which kind of virtual machine a strategy runs its guest in."""

from typing import TYPE_CHECKING

from . import layout
from .fast.calls import JittedExits
from .fast_hardware.calls import JittedHardwareExits
from .hardware.vm import HardwareVm
from .paravirtual.layout import DOMAIN_0_BYTES
from .paravirtual.turns import JittedDomains
from .paravirtual.vm import ParavirtualVm
from .virtual_machine import VirtualMachine
from .vm import SoftwareVm

if TYPE_CHECKING:
    from ..machine import Machine
    from .strategy import Strategy

PARAVIRTUAL = "paravirtual"
BY_HARDWARE = ("vtx", "svm")  # choices of Strategy.processor


def vmm_bytes(strategy: "Strategy") -> int:
    """How much machine RAM a strategy's VMM takes beside the guest's."""
    if not strategy.needs_vmm:
        return 0
    own = layout.VMM_BYTES + layout.GUEST_ROM_BYTES
    return own + DOMAIN_0_BYTES if strategy.processor == PARAVIRTUAL else own


def make_vm(machine: "Machine") -> VirtualMachine:
    """The virtual machine that the strategy's choice of `processor` asks for."""
    strategy = machine.strategy
    if strategy.processor in BY_HARDWARE:
        return HardwareVm(machine)
    if strategy.processor == PARAVIRTUAL:
        return ParavirtualVm(machine)
    return SoftwareVm(machine, strategy.kernel_ring)


def jitted_exits(machine: "Machine", vm: VirtualMachine | None) -> JittedExits | JittedHardwareExits | JittedDomains | None:
    """What handles the exits of a virtual machine that are always handled alike."""
    if isinstance(vm, ParavirtualVm):
        return JittedDomains(machine, vm)
    if isinstance(vm, SoftwareVm):
        return JittedExits(machine, vm)
    return JittedHardwareExits(machine, vm) if isinstance(vm, HardwareVm) else None

"""What the virtual CPL and IOPL permit."""

from typing import TYPE_CHECKING

from ...isa.vectors import GP
from ..exits import GuestFault

if TYPE_CHECKING:
    from ..virtual_machine import VirtualMachine


def privileged(vm: "VirtualMachine") -> None:
    """#GP(0) unless the virtual CPL is 0."""
    if vm.vcpu.cpl != 0:
        raise GuestFault(GP, 0)


def by_iopl(vm: "VirtualMachine") -> None:
    """#GP(0) unless the virtual CPL is within the virtual IOPL."""
    if vm.vcpu.cpl > vm.vcpu.iopl:
        raise GuestFault(GP, 0)

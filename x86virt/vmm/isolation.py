"""Isolation: whose each machine frame is, and the check of what the VMM accesses in the guest's name.

The processor checks the guest's own accesses by the same table of owners.
"""

from typing import TYPE_CHECKING

from ..core.layout import OWNER_GUEST, OWNER_VMM
from . import layout
from .exits import IsolationViolation

if TYPE_CHECKING:
    from .virtual_machine import VirtualMachine


def set_owners(vm: "VirtualMachine") -> None:
    """Say whose each machine frame is: the guest's RAM and ROM, all others the VMM's."""
    owners = vm.processor.owners
    owners[:] = OWNER_VMM
    owners[vm.p2m] = OWNER_GUEST
    first = layout.VMM_BYTES + vm.machine.memory_bytes >> 12
    owners[first : first + (layout.GUEST_ROM_BYTES >> 12)] = OWNER_GUEST


def check_owner(vm: "VirtualMachine", gpa: int, address: int) -> None:
    """The check of isolation, where it is on, for an access that the VMM performs in the guest's name."""
    if vm.processor.checks_isolation and vm.processor.owners[address >> 12] != OWNER_GUEST:
        raise IsolationViolation(
            f"the VMM's access to guest-physical {gpa:#x} reaches machine address {address:#x}, "
            f"which is not the guest's, at eip {vm.vcpu.frame.eip:#x}"
        )

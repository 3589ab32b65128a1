"""The manual's rules for loading segment registers, applied to the guest's own tables at its virtual CPL.

SDM volume 2, MOV and POP; volume 3, sections 5.5 to 5.8. Each check raises the fault the guest's processor would.
"""

from typing import TYPE_CHECKING

from ..isa.registers import TYPE_ACCESSED, TYPE_READABLE, TYPE_WRITABLE
from ..isa.vectors import GP, NP, SS_FAULT
from .descriptor import Descriptor
from .exits import GuestFault

if TYPE_CHECKING:
    from .vm import SoftwareVm


def error_code(selector: int) -> int:
    """The error code that names a selector."""
    return selector & 0xFFFC


def descriptor_of(vm: "SoftwareVm", selector: int, vector: int = GP) -> tuple[int, Descriptor]:
    """The linear address and value of a descriptor; a null selector faults with 0, one beyond the table with itself."""
    if selector & 0xFFFC == 0:
        raise GuestFault(vector, 0)
    found = vm.descriptors.guest_descriptor(selector)
    if found is None:
        raise GuestFault(vector, error_code(selector))
    return found


def check_stack_load(vm: "SoftwareVm", selector: int, cpl: int, vector: int = GP) -> tuple[int, Descriptor]:
    """SS: RPL = CPL = DPL, writable data, present."""
    gla, descriptor = descriptor_of(vm, selector, vector)
    writable = descriptor.is_segment and not descriptor.is_code and descriptor.kind & TYPE_WRITABLE
    if selector & 3 != cpl or not writable or descriptor.dpl != cpl:
        raise GuestFault(vector, error_code(selector))
    if not descriptor.is_present:
        raise GuestFault(SS_FAULT, error_code(selector))
    return gla, descriptor


def check_data_load(vm: "SoftwareVm", selector: int) -> tuple[int, Descriptor] | None:
    """DS, ES, FS or GS; None for a null selector, which may be loaded."""
    if selector & 0xFFFC == 0:
        return None
    gla, descriptor = descriptor_of(vm, selector)
    readable = descriptor.is_segment and (not descriptor.is_code or descriptor.kind & TYPE_READABLE)
    if not readable:
        raise GuestFault(GP, error_code(selector))
    if not descriptor.is_conforming and max(vm.vcpu.cpl, selector & 3) > descriptor.dpl:
        raise GuestFault(GP, error_code(selector))
    if not descriptor.is_present:
        raise GuestFault(NP, error_code(selector))
    return gla, descriptor


def check_code_jump(vm: "SoftwareVm", selector: int, descriptor: Descriptor) -> None:
    """A far jump or call straight to a code segment at the same CPL."""
    cpl = vm.vcpu.cpl
    if descriptor.is_conforming:
        allowed = descriptor.dpl <= cpl
    else:
        allowed = selector & 3 <= cpl and descriptor.dpl == cpl
    if not allowed:
        raise GuestFault(GP, error_code(selector))
    if not descriptor.is_present:
        raise GuestFault(NP, error_code(selector))


def check_code_return(vm: "SoftwareVm", selector: int) -> tuple[int, Descriptor]:
    """A far return or IRET to the same or an outer ring, which the selector's RPL names."""
    gla, descriptor = descriptor_of(vm, selector)
    rpl = selector & 3
    if not descriptor.is_code or rpl < vm.vcpu.cpl:
        raise GuestFault(GP, error_code(selector))
    if descriptor.dpl > rpl if descriptor.is_conforming else descriptor.dpl != rpl:
        raise GuestFault(GP, error_code(selector))
    if not descriptor.is_present:
        raise GuestFault(NP, error_code(selector))
    return gla, descriptor


def mark_accessed(vm: "SoftwareVm", gla: int, descriptor: Descriptor) -> None:
    """Set the accessed bit in the guest's table, as a load does."""
    if not descriptor.kind & TYPE_ACCESSED:
        vm.descriptors.write_back(gla + 5, 1, descriptor.accessed.high >> 8 & 0xFF)

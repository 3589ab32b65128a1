"""CR0, CR3 and CR4 of a guest that reaches them itself, but for bits of the VMM's (SDM volume 3, section 2.5; table 27-3)."""

from typing import TYPE_CHECKING

from ...core.entries import offered_cr4
from ...isa.registers import (
    CR0_CD,
    CR0_EM,
    CR0_ET,
    CR0_IMPLEMENTED,
    CR0_MP,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR0_WP,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
)
from ...isa.vectors import GP
from ..emulate.control_registers import load_pointers, write_cr3
from ..exits import Exit, GuestFault, NotDirect

if TYPE_CHECKING:
    from .vm import HardwareVm

NUMBER, TYPE_SHIFT, REGISTER_SHIFT, SOURCE_SHIFT = 0xF, 4, 8, 16  # of the qualification
MOV_TO, MOV_FROM, CLTS, LMSW = range(4)
LMSW_BITS = CR0_MP | CR0_EM | CR0_TS
PAGING_CR0 = CR0_PG | CR0_WP | CR0_PE
PAGING_CR4 = CR4_PSE | CR4_PGE | CR4_PAE


def access_control_register(vm: "HardwareVm", exit: Exit) -> None:
    """Perform the access that an exit's qualification describes. Raises GuestFault with nothing changed."""
    qualification, vcpu = exit.qualification, vm.vcpu
    number, kind = qualification & NUMBER, qualification >> TYPE_SHIFT & 3
    register = qualification >> REGISTER_SHIFT & NUMBER
    if kind == MOV_TO:
        {0: write_cr0, 3: write_cr3, 4: write_cr4}[number](vm, vm.register(register))
    elif kind == MOV_FROM:
        vm.set_register(register, {0: lambda: vcpu.cr0, 3: lambda: vcpu.cr3, 4: lambda: vcpu.cr4}[number]())
    elif kind == CLTS:
        vcpu.cr0 = vcpu.cr0 & ~CR0_TS
    else:
        source = qualification >> SOURCE_SHIFT & 0xFFFF
        write_cr0(vm, vcpu.cr0 & ~LMSW_BITS | source & (LMSW_BITS | CR0_PE))


def write_cr0(vm: "HardwareVm", value: int) -> None:
    """MOV CR0, and what LMSW makes of it."""
    if not value & CR0_PE:
        raise NotDirect
    old = vm.vcpu.cr0
    value = (value & CR0_IMPLEMENTED) | CR0_ET
    if value & (CR0_PG | CR0_PE) == CR0_PG or value & (CR0_NW | CR0_CD) == CR0_NW:
        raise GuestFault(GP, 0)
    if (value ^ old) & (CR0_PG | CR0_CD | CR0_NW):
        load_pointers(vm, value, vm.vcpu.cr3, vm.vcpu.cr4)
    vm.vcpu.cr0 = value
    if (value ^ old) & PAGING_CR0:
        vm.flush_shadow()


def write_cr4(vm: "HardwareVm", value: int) -> None:
    """MOV CR4."""
    if value & ~int(offered_cr4(vm.processor.state)):
        raise GuestFault(GP, 0)
    old = vm.vcpu.cr4
    if (value ^ old) & PAGING_CR4:
        load_pointers(vm, vm.vcpu.cr0, vm.vcpu.cr3, value)
    vm.vcpu.cr4 = value
    if (value ^ old) & PAGING_CR4:
        vm.flush_shadow()

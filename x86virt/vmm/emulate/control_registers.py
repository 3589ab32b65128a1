"""Control registers: MOV to and from them, LMSW, CLTS, INVLPG, and the caches' WBINVD and INVD (SDM volume 3, chapter 2)."""

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
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    CR4_PVI,
    CR4_TSD,
    CR4_VME,
)
from ...isa.vectors import GP, UD
from ..exits import GuestFault, NotDirect
from ..instruction import Instruction, effective_address
from .operands import source_word
from .privilege import privileged

if TYPE_CHECKING:
    from ..virtual_machine import VirtualMachine
    from ..vm import SoftwareVm

M32 = 0xFFFFFFFF
CR4_NOT_VIRTUALIZED = CR4_VME | CR4_PVI


def mov_to_cr(vm: "SoftwareVm", instruction: Instruction) -> None:
    """MOV CR0, CR2, CR3, CR4."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)
    value = vm.register(instruction.rm)
    {0: write_cr0, 2: write_cr2, 3: write_cr3, 4: write_cr4}[instruction.reg](vm, value)


def write_cr0(vm: "SoftwareVm", value: int) -> None:
    """MOV CR0: paging may go on or off, WP may change; either way the shadow starts anew."""
    value = (value & CR0_IMPLEMENTED) | CR0_ET
    if value & (CR0_PG | CR0_PE) == CR0_PG or value & (CR0_NW | CR0_CD) == CR0_NW:
        raise GuestFault(GP, 0)
    if not value & CR0_PE:
        raise NotDirect
    if (value ^ vm.vcpu.cr0) & (CR0_PG | CR0_CD | CR0_NW):
        load_pointers(vm, value, vm.vcpu.cr3, vm.vcpu.cr4)
    carry_x87_bits(vm, value)
    vm.vcpu.cr0 = value
    vm.segments.share_ring()  # alignment checks are the guest's own
    vm.flush_shadow()


def load_pointers(vm: "VirtualMachine", cr0: int, cr3: int, cr4: int) -> None:
    """Load the page-directory-pointer entries if these values mean PAE paging (SDM volume 3, section 4.4.1)."""
    if cr0 & CR0_PG and cr4 & CR4_PAE:
        vm.load_pointers(cr3)


def carry_x87_bits(vm: "SoftwareVm", value: int) -> None:
    """The guest uses the x87 FPU itself: MP, EM and TS go into the processor's CR0, so that #NM arises there.

    NE stays set in the processor whatever the guest asks for: an x87 exception comes to the VMM as #MF.
    """
    changeable = CR0_MP | CR0_EM | CR0_TS
    vm.processor.cpu.cr0 = (vm.processor.cpu.cr0 & ~changeable) | value & changeable


def write_cr2(vm: "SoftwareVm", value: int) -> None:
    """MOV CR2."""
    vm.vcpu.cr2 = value


def write_cr3(vm: "VirtualMachine", value: int) -> None:
    """MOV CR3."""
    load_pointers(vm, vm.vcpu.cr0, value & M32, vm.vcpu.cr4)
    vm.vcpu.cr3 = value & M32
    vm.flush_shadow()


def write_cr4(vm: "SoftwareVm", value: int) -> None:
    """MOV CR4."""
    if value & ~int(offered_cr4(vm.processor.state)):
        raise GuestFault(GP, 0)
    if value & CR4_NOT_VIRTUALIZED:
        raise NotDirect
    if (value ^ vm.vcpu.cr4) & (CR4_PGE | CR4_PSE | CR4_PAE):
        load_pointers(vm, vm.vcpu.cr0, vm.vcpu.cr3, value)
    vm.vcpu.cr4 = value
    # RDTSC under CR4.TSD must trap at ring 3 as the guest asked.
    vm.processor.cpu.cr4 = vm.processor.cpu.cr4 & ~CR4_TSD | value & CR4_TSD
    vm.flush_shadow()


def mov_from_cr(vm: "SoftwareVm", instruction: Instruction) -> None:
    """MOV from CR0, CR2, CR3, CR4."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)
    vcpu = vm.vcpu
    values = {0: vcpu.cr0, 2: vcpu.cr2, 3: vcpu.cr3, 4: vcpu.cr4}
    if instruction.reg not in values:
        raise GuestFault(UD)
    vm.set_register(instruction.rm, values[instruction.reg])


def clts(vm: "SoftwareVm", instruction: Instruction) -> None:
    """CLTS."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)
    vm.vcpu.cr0 = vm.vcpu.cr0 & ~CR0_TS
    vm.processor.cpu.cr0 &= ~CR0_TS


def lmsw(vm: "SoftwareVm", instruction: Instruction) -> None:
    """LMSW: MP, EM and TS change, PE can only be set."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)
    value = source_word(vm, instruction)
    changeable = CR0_MP | CR0_EM | CR0_TS
    vm.vcpu.cr0 = (vm.vcpu.cr0 & ~changeable) | value & (changeable | CR0_PE)
    carry_x87_bits(vm, value)


def invlpg(vm: "SoftwareVm", instruction: Instruction) -> None:
    """INVLPG."""
    vm.charge("emulate_invlpg", 1)
    privileged(vm)
    gla = vm.segments.base(instruction.segment) + effective_address(vm, instruction) & M32
    vm.shadow.invalidate(gla)
    if vm.translation is not None:
        vm.translation.pages.revalidate(gla)


def wbinvd(vm: "SoftwareVm", instruction: Instruction) -> None:
    """WBINVD and INVD: the guest's caches are the machine's, which stay coherent."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)

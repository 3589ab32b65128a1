"""How a guest starts under a VMM on a virtualization extension: the host's state, the controls, the guest's first state."""

from typing import TYPE_CHECKING

from ...isa.registers import AR_UNUSABLE, CR0_ET, CR0_PE, CS, DS, EFLAGS_FIXED, ES, FS, GS, LDTR, SS, TR
from ...processor import FLAT_CODE, FLAT_DATA
from ...start.boot import PROTECTED, Boot
from .. import layout
from ..launch import take_host
from ..region import build_region, region_address
from ..state import SegmentState
from .extensions import require_extension
from .identity import IdentityTables
from .layout import EXIT_ENTRY, GUEST_TABLES

if TYPE_CHECKING:
    from .vm import HardwareVm

M32 = 0xFFFFFFFF
PAGE_BYTES = 4096
HOST_DIRECTORY = layout.TRANSLATOR  # there is none: the guest's code runs as it is
DIRECTORY_FLAGS = 0x63  # present, writable, accessed, dirty
DR6_INITIAL, DR7_INITIAL = 0xFFFF0FF0, 0x400
BUSY_TSS = SegmentState(0, 0, 0xFFFF, 0x8B)
NO_LDT = SegmentState(0, 0, 0, AR_UNUSABLE)


def launch(vm: "HardwareVm", boot: Boot) -> None:
    """Put the processor under the VMM, set the controls that the strategy asks for, and enter the guest."""
    require_extension(vm)
    build_region(vm)
    take_host(vm, build_directory(vm))
    vm.control.start(region_address(HOST_DIRECTORY), layout.VMM_BASE + EXIT_ENTRY)
    vm.write_region(GUEST_TABLES, IdentityTables.octets())
    vm.machine.strategy.set_controls(vm)
    set_first_state(vm)
    if boot.mode == PROTECTED:
        start_directly(vm, boot)
    else:
        vm.interpreter.start(boot)


def build_directory(vm: "HardwareVm") -> int:
    """The VMM's own page directory, which maps its region alone: its machine address."""
    slot = HOST_DIRECTORY + 4 * (layout.VMM_BASE >> 22)
    entry = region_address(layout.REGION_TABLE) | DIRECTORY_FLAGS
    vm.write_region(HOST_DIRECTORY, bytes(PAGE_BYTES))
    vm.write_region(slot, entry.to_bytes(4, "little"))
    return region_address(HOST_DIRECTORY)


def set_first_state(vm: "HardwareVm") -> None:
    """What a Multiboot loader leaves to chance, and what a virtual processor begins with that is interpreted first."""
    vcpu = vm.vcpu
    vcpu.cr0, vcpu.cr2, vcpu.cr3, vcpu.cr4 = CR0_ET | CR0_PE, 0, 0, 0
    vcpu.gdtr_base, vcpu.gdtr_limit = 0, 0
    vcpu.idtr_base, vcpu.idtr_limit = 0, 0
    vcpu.sysenter_cs = vcpu.sysenter_esp = vcpu.sysenter_eip = 0
    vcpu.set_field("guest_dr6", DR6_INITIAL)
    vcpu.set_field("guest_dr7", DR7_INITIAL)
    vcpu.frame.esp, vcpu.frame.eflags = 0, EFLAGS_FIXED
    vm.segments.set(TR, BUSY_TSS)
    vm.segments.set(LDTR, NO_LDT)


def start_directly(vm: "HardwareVm", boot: Boot) -> None:
    """The guest begins in flat protected mode, as a Multiboot loader leaves it."""
    vm.vcpu.gdtr_base, vm.vcpu.gdtr_limit = boot.gdt
    for number, value in boot.registers.items():
        vm.set_register(number, value)
    vm.vcpu.frame.eip = boot.entry
    vm.segments.set(CS, SegmentState(boot.code_selector, 0, M32, FLAT_CODE))
    for segment in (SS, DS, ES, FS, GS):
        vm.segments.set(segment, SegmentState(boot.data_selector, 0, M32, FLAT_DATA))
    vm.crossings.resume()

"""How a guest starts under a VMM: the region is built, the processor is put under the VMM, the guest gets its first state."""

from typing import TYPE_CHECKING

from ..core.entries import enter_level
from ..isa.events import MODE_GUEST_KERNEL, MODE_GUEST_USER, MODE_VMM
from ..isa.registers import (
    AR_UNUSABLE,
    CR0_ET,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PGE,
    CR4_PSE,
    CS,
    DS,
    EFLAGS_FIXED,
    EFLAGS_IF,
    ES,
    FS,
    GS,
    LDTR,
    SS,
    TR,
)
from ..processor import FLAT_CODE, FLAT_DATA
from ..start.boot import PROTECTED, Boot
from . import layout
from .region import build_region
from .state import SegmentState
from .vcpu import Frame

if TYPE_CHECKING:
    from .virtual_machine import VirtualMachine
    from .vm import SoftwareVm

M32 = 0xFFFFFFFF


def launch(vm: "SoftwareVm", boot: Boot) -> None:
    """Put the processor under the VMM, the guest at its first instruction."""
    build_region(vm)
    take_processor(vm)
    vm.vcpu.reset()
    if vm.translation is not None:
        vm.translation.build()
    if boot.mode == PROTECTED:
        start_directly(vm, boot)
    else:
        vm.interpreter.start(boot)


def take_processor(vm: "SoftwareVm") -> None:
    """The processor runs in the VMM's ring 0, the guest's code in the rings that are left."""
    take_host(vm, vm.shadow.root)
    vm.processor.cpu.mode_table[1:4] = (MODE_GUEST_KERNEL, MODE_GUEST_KERNEL, MODE_GUEST_USER)
    vm.segments.share_ring()


def take_host(vm: "VirtualMachine", directory: int) -> None:
    """The processor is the VMM's: with its tables and page directory, on its stack, its timer in its IDT."""
    cpu = vm.processor.cpu
    cpu.cr0 = CR0_ET | CR0_PE | CR0_PG | CR0_WP | CR0_NE
    cpu.cr3 = directory
    cpu.cr4 = CR4_PSE | CR4_PGE
    cpu.gdtr_base, cpu.gdtr_limit = layout.VMM_BASE + layout.GDT, 0xFFFF
    cpu.idtr_base, cpu.idtr_limit = layout.VMM_BASE + layout.IDT, 256 * 8 - 1
    cpu.mode_table[0] = MODE_VMM
    cpu.hook_first = layout.VMM_BASE + layout.ENTRIES
    cpu.hook_last = layout.VMM_BASE + layout.RESUME - 1
    cpu.timer_vector = layout.HOST_TIMER_VECTOR
    set_segment = vm.processor.set_segment
    set_segment(CS, layout.VMM_CODE_SELECTOR, 0, M32, 0xC09B)
    set_segment(SS, layout.VMM_DATA_SELECTOR, 0, M32, 0xC093)
    set_segment(LDTR, 0, 0, 0, AR_UNUSABLE)
    set_segment(TR, layout.VMM_TSS_SELECTOR, layout.VMM_BASE + layout.TSS, layout.TSS_BYTES - 1, 0x8B)
    enter_level(vm.processor.state, 0)


def start_directly(vm: "SoftwareVm", boot: Boot) -> None:
    """The guest begins in flat protected mode, as a Multiboot loader leaves it."""
    cpu = vm.processor.cpu
    vm.vcpu.gdtr_base, vm.vcpu.gdtr_limit = boot.gdt
    for number, value in boot.registers.items():
        cpu.gpr[number] = value
    vm.vcpu.frame = Frame(eip=boot.entry, eflags=EFLAGS_FIXED | EFLAGS_IF)
    vm.segments.set_framed(CS, SegmentState(boot.code_selector, 0, M32, FLAT_CODE))
    for segment in (SS, DS, ES, FS, GS):
        vm.segments.set(segment, SegmentState(boot.data_selector, 0, M32, FLAT_DATA))
    vm.crossings.resume()

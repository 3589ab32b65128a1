"""SYSENTER, which comes in by an entry of the VMM, and SYSEXIT (SDM volume 2)."""

from typing import TYPE_CHECKING

from ...isa.registers import ECX, EDX
from ...isa.vectors import GP
from ..exits import GuestFault, Unsupported
from ..instruction import Instruction
from ..state import SegmentState
from .privilege import privileged

if TYPE_CHECKING:
    from ..vm import VirtualMachine

M32 = 0xFFFFFFFF
FLAT_CODE = SegmentState(0, 0, M32, 0xC09B)
FLAT_DATA = SegmentState(0, 0, M32, 0xC093)


def enter_flat(vm: "VirtualMachine", selector: int, cpl: int, eip: int, esp: int) -> None:
    """SYSENTER and SYSEXIT: flat segments whatever the tables say; here the tables must say so too."""
    for number, flat in ((selector, FLAT_CODE), (selector + 8, FLAT_DATA)):
        found = vm.descriptors.guest_descriptor(number)
        access = flat.access | cpl << 5
        if found is None or (found[1].base, found[1].limit) != (0, M32) or found[1].access | 1 != access:
            raise Unsupported(f"SYSENTER and SYSEXIT with descriptors at {selector:#x} that are not flat")
    vm.segments.set_cpl(cpl)
    frame = vm.vcpu.frame
    frame.cs = vm.vcpu.hardware_selector(selector & ~3 | cpl)
    frame.ss = vm.vcpu.hardware_selector(selector + 8 & ~3 | cpl)
    frame.eip, frame.esp = eip & M32, esp & M32
    vm.descriptors.install(frame.cs)
    vm.descriptors.install(frame.ss)


def sysenter(vm: "VirtualMachine") -> None:
    """SYSENTER: ring 0 at the guest's own entry, with IF clear."""
    vm.charge("emulate_system_call", 1)
    vcpu = vm.vcpu
    vcpu.interrupt_flag = 0
    enter_flat(vm, vcpu.sysenter_cs & 0xFFFC, 0, vcpu.sysenter_eip, vcpu.sysenter_esp)


def sysexit(vm: "VirtualMachine", instruction: Instruction) -> None:
    """SYSEXIT: to ring 3 at EDX with the stack of ECX, through flat segments."""
    vm.charge("emulate_system_call", 1)
    privileged(vm)
    selector = vm.vcpu.sysenter_cs & 0xFFFC
    if selector == 0:
        raise GuestFault(GP, 0)
    enter_flat(vm, selector + 16, 3, vm.register(EDX), vm.register(ECX))

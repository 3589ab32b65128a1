"""SYSENTER, which comes in by an entry of the VMM, and SYSEXIT (SDM volume 2)."""

from typing import TYPE_CHECKING

from ...isa.registers import AR_UNUSABLE, CS, ECX, EDX, SS
from ...isa.vectors import GP
from ...processor import FLAT_CODE, FLAT_DATA
from ..descriptor import dpl_of
from ..exits import GuestFault
from ..instruction import Instruction
from ..state import SegmentState
from ..virtual_segments import DATA_SEGMENTS
from .privilege import privileged

if TYPE_CHECKING:
    from ..vm import SoftwareVm

M32 = 0xFFFFFFFF


def enter_flat(vm: "SoftwareVm", selector: int, cpl: int, eip: int, esp: int) -> None:
    """Flat CS:EIP and SS:ESP at a privilege level, whatever the tables say; SS stands 8 behind CS."""
    vm.segments.set_cpl(cpl)
    vm.segments.set(CS, SegmentState(selector & ~3 | cpl, 0, M32, FLAT_CODE | cpl << 5))
    vm.segments.set(SS, SegmentState(selector + 8 & ~3 | cpl, 0, M32, FLAT_DATA | cpl << 5))
    vm.vcpu.frame.eip, vm.vcpu.frame.esp = eip & M32, esp & M32


def sysenter(vm: "SoftwareVm") -> None:
    """SYSENTER: ring 0 at the guest's own entry, with IF clear."""
    vm.charge("emulate_system_call", 1)
    vcpu = vm.vcpu
    vcpu.interrupt_flag = 0
    enter_flat(vm, vcpu.sysenter_cs & 0xFFFC, 0, vcpu.sysenter_eip, vcpu.sysenter_esp)


def sysenter_of_kernel(vm: "SoftwareVm", instruction: Instruction) -> None:
    """SYSENTER where it is not executed: in translated code of the guest's kernel, whose CPL does not matter to it."""
    if vm.vcpu.sysenter_cs & 0xFFFC == 0:
        vm.charge("emulate_system_call", 1)
        raise GuestFault(GP, 0)
    sysenter(vm)


def sysexit(vm: "SoftwareVm", instruction: Instruction) -> None:
    """SYSEXIT: to ring 3 at EDX with the stack of ECX, through flat segments."""
    vm.charge("emulate_system_call", 1)
    privileged(vm)
    selector = vm.vcpu.sysenter_cs & 0xFFFC
    if selector == 0:
        raise GuestFault(GP, 0)
    enter_flat(vm, selector + 16, 3, vm.register(EDX), vm.register(ECX))
    keep_data_segments(vm)


def keep_data_segments(vm: "SoftwareVm") -> None:
    """SYSEXIT leaves DS, ES, FS and GS as they are, those of ring 0 too; the VMM's own return must not drop them."""
    for segment in DATA_SEGMENTS:
        state = vm.segments.state(segment)
        if not state.access & AR_UNUSABLE and dpl_of(state.access) < vm.vcpu.cpl:
            vm.segments.set(segment, state)

"""CLI, STI, PUSHF, POPF and HLT (SDM volume 2)."""

from typing import TYPE_CHECKING

from ...isa.registers import EFLAGS_RF, EFLAGS_VM
from ..instruction import Instruction
from .privilege import by_iopl, privileged
from .returns import loadable_flags

if TYPE_CHECKING:
    from ..vm import SoftwareVm


def cli(vm: "SoftwareVm", instruction: Instruction) -> None:
    """CLI."""
    vm.charge("emulate_flags", 1)
    by_iopl(vm)
    vm.vcpu.interrupt_flag = 0


def sti(vm: "SoftwareVm", instruction: Instruction) -> None:
    """STI: interrupts stay held off for one more instruction if they were off."""
    vm.charge("emulate_flags", 1)
    by_iopl(vm)
    if not vm.vcpu.interrupt_flag:
        vm.interrupts.hold()
    vm.vcpu.interrupt_flag = 1


def hlt(vm: "SoftwareVm", instruction: Instruction) -> None:
    """HLT."""
    vm.charge("emulate_halt", 1)
    privileged(vm)
    vm.vcpu.halted = 1


# -- what does not trap on x86 --------------------------------------------------------------------------------------------


def pushf(vm: "SoftwareVm", instruction: Instruction) -> None:
    """PUSHF and PUSHFD: the image has RF and VM clear."""
    vm.charge("emulate_flags_image", 1)
    image = vm.vcpu.virtual_flags(vm.vcpu.frame.eflags) & ~(EFLAGS_RF | EFLAGS_VM)
    vm.segments.push(instruction.width // 8, image)


def popf(vm: "SoftwareVm", instruction: Instruction) -> None:
    """POPF and POPFD: what the virtual CPL may not change stays; RF is cleared."""
    vm.charge("emulate_flags_image", 1)
    vcpu, n = vm.vcpu, instruction.width // 8
    image, mask = vm.segments.peek(0, n), loadable_flags(vm, n)
    flags = vcpu.virtual_flags(vcpu.frame.eflags) & ~(mask | EFLAGS_RF) | image & mask
    vcpu.frame.eflags = vcpu.load_flags(flags)
    vm.segments.set_stack_pointer(vcpu.frame.esp + n)

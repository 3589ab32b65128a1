"""CLI, STI and HLT (SDM volume 2)."""

from typing import TYPE_CHECKING

from ..instruction import Instruction
from .privilege import by_iopl, privileged

if TYPE_CHECKING:
    from ..vm import VirtualMachine


def cli(vm: "VirtualMachine", instruction: Instruction) -> None:
    """CLI."""
    vm.charge("emulate_flags", 1)
    by_iopl(vm)
    vm.vcpu.interrupt_flag = 0


def sti(vm: "VirtualMachine", instruction: Instruction) -> None:
    """STI: interrupts stay held off for one more instruction if they were off."""
    vm.charge("emulate_flags", 1)
    by_iopl(vm)
    if not vm.vcpu.interrupt_flag:
        vm.hold_interrupts()
    vm.vcpu.interrupt_flag = 1


def hlt(vm: "VirtualMachine", instruction: Instruction) -> None:
    """HLT."""
    vm.charge("emulate_halt", 1)
    privileged(vm)
    vm.vcpu.halted = 1

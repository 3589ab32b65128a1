"""MOV to and from debug registers (SDM volume 3, chapter 17)."""

from typing import TYPE_CHECKING

from ...core.breakpoints import DR7_GD
from ...isa.registers import CR4_DE
from ...isa.vectors import UD
from ..exits import GuestFault, NotDirect
from ..instruction import Instruction
from .privilege import privileged

if TYPE_CHECKING:
    from ..vm import SoftwareVm

M32 = 0xFFFFFFFF


class GeneralDetect(Exception):
    """MOV to or from a debug register under DR7.GD."""


def mov_to_dr(vm: "SoftwareVm", instruction: Instruction) -> None:
    """MOV to a debug register; instruction breakpoints are the processor's own."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)
    value = vm.register(instruction.rm)
    number = debug_register(vm, instruction)
    registers = [int(register) for register in vm.vcpu.dr]
    registers[number] = with_fixed_bits(number, value)
    if not vm.events.can_load(registers):
        raise NotDirect
    vm.vcpu.dr[number] = registers[number]
    if number != 6:
        vm.events.load_breakpoints()


def debug_register(vm: "SoftwareVm", instruction: Instruction) -> int:
    """DR4 and DR5 are DR6 and DR7 unless CR4.DE forbids them; under general detect there is #DB instead."""
    number = instruction.reg
    if number in (4, 5):
        if vm.vcpu.cr4 & CR4_DE:
            raise GuestFault(UD)
        number += 2
    if vm.vcpu.dr[7] & DR7_GD:
        raise GeneralDetect
    return number


def mov_from_dr(vm: "SoftwareVm", instruction: Instruction) -> None:
    """MOV from a debug register."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)
    number = debug_register(vm, instruction)
    vm.set_register(instruction.rm, with_fixed_bits(number, int(vm.vcpu.dr[number])))


def with_fixed_bits(number: int, value: int) -> int:
    """A debug register's value with the reserved bits of DR6 and DR7 as they read (SDM volume 3, section 17.2)."""
    if number == 6:
        return (value & 0xE00F) | 0xFFFF0FF0
    if number == 7:
        return (value & 0xFFFF2BFF) | 0x400
    return value & M32

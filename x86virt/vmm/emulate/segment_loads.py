"""Loads of segment registers: MOV, POP, LDS and its kind (SDM volume 2)."""

from typing import TYPE_CHECKING

from ...isa.registers import SS
from ..exits import Unsupported
from ..instruction import Instruction, effective_address
from ..segments import check_data_load, check_stack_load, mark_accessed
from .operands import source_word

if TYPE_CHECKING:
    from ..vm import VirtualMachine

M32 = 0xFFFFFFFF


def load_segment(vm: "VirtualMachine", segment: int, selector: int) -> bool:
    """Load a segment register; False: the shadow now has the descriptor, and the instruction is to be retried."""
    if segment == SS:
        gla, descriptor = check_stack_load(vm, selector, vm.vcpu.cpl)
        mark_accessed(vm, gla, descriptor)
        vm.vcpu.frame.ss = vm.vcpu.hardware_selector(selector)
        vm.descriptors.install(vm.vcpu.frame.ss)
        return True
    check_data_load(vm, selector)
    if not vm.descriptors.install(selector):
        raise Unsupported(f"selector {selector:#x} cannot be loaded deprivileged as the guest's processor would")
    return False


def mov_to_sreg(vm: "VirtualMachine", instruction: Instruction) -> bool:
    """MOV to a segment register."""
    vm.charge("emulate_segment", 1)
    done = load_segment(vm, instruction.reg, source_word(vm, instruction))
    if done:
        vm.hold_interrupts()
    return done


def pop_sreg(vm: "VirtualMachine", instruction: Instruction) -> bool:
    """POP into a segment register."""
    vm.charge("emulate_segment", 1)
    n = instruction.width // 8
    selector = vm.segments.read(SS, vm.vcpu.frame.esp, n) & 0xFFFF
    done = load_segment(vm, instruction.row.condition, selector)
    if done:
        vm.vcpu.frame.esp = vm.vcpu.frame.esp + n & M32
        vm.hold_interrupts()
    return done


def load_far_pointer(vm: "VirtualMachine", instruction: Instruction) -> bool:
    """LDS, LES, LSS, LFS, LGS."""
    vm.charge("emulate_segment", 1)
    n = instruction.width // 8
    offset = effective_address(vm, instruction)
    value = vm.segments.read(instruction.segment, offset, n)
    selector = vm.segments.read(instruction.segment, offset + n & M32, 2)
    if not load_segment(vm, instruction.row.condition, selector):
        return False
    vm.set_register(instruction.reg, value, instruction.width)
    return True


def loads_stack_segment(instruction: Instruction) -> bool:
    """Whether the instruction was MOV SS or POP SS."""
    segment = instruction.reg if instruction.operation == "REGISTER_TO_SREG" else instruction.row.condition
    return instruction.operation in ("REGISTER_TO_SREG", "POP_SREG") and segment == SS

"""Segment registers: MOV and PUSH, POP, LDS and its kind (SDM volume 2)."""

from typing import TYPE_CHECKING

from ...isa.registers import CS, SS
from ...isa.vectors import UD
from ..descriptor import Descriptor
from ..exits import GuestFault
from ..instruction import Instruction, effective_address
from ..segments import check_data_load, check_stack_load, mark_accessed
from .operands import far_pointer, source_word

if TYPE_CHECKING:
    from ..vm import SoftwareVm

M32 = 0xFFFFFFFF


def load_segment(vm: "SoftwareVm", segment: int, selector: int) -> bool:
    """Load a segment register; False: the shadow now has the descriptor, and the processor itself can load it."""
    if segment == SS:
        found: tuple[int, Descriptor] | None = check_stack_load(vm, selector, vm.vcpu.cpl)
    else:
        found = check_data_load(vm, selector)
    if found is None:
        vm.segments.drop(segment, selector)
        return True
    gla, descriptor = found
    mark_accessed(vm, gla, descriptor)
    retries = segment != SS and vm.translation is None and not vm.processor.cpu.sensitive_trap
    if retries and vm.descriptors.install(selector) and vm.descriptors.can_load(selector):
        return False
    vm.segments.load(segment, selector, descriptor)
    return True


def mov_to_sreg(vm: "SoftwareVm", instruction: Instruction) -> bool:
    """MOV to a segment register; one to SS holds interrupts off for one more instruction."""
    vm.charge("emulate_segment", 1)
    if instruction.reg == CS:
        raise GuestFault(UD)
    done = load_segment(vm, instruction.reg, source_word(vm, instruction))
    if done and instruction.reg == SS:
        vm.interrupts.hold()
    return done


def pop_sreg(vm: "SoftwareVm", instruction: Instruction) -> bool:
    """POP into a segment register: the stack pointer moves in the size of the stack that was popped from."""
    vm.charge("emulate_segment", 1)
    n = instruction.width // 8
    segment, frame, mask = instruction.row.condition, vm.vcpu.frame, vm.segments.stack_mask
    done = load_segment(vm, segment, vm.segments.peek(0, n) & 0xFFFF)
    if done:
        frame.esp = frame.esp & ~mask & M32 | frame.esp + n & mask
        if segment == SS:
            vm.interrupts.hold()
    return done


def load_far_pointer(vm: "SoftwareVm", instruction: Instruction) -> bool:
    """LDS, LES, LSS, LFS, LGS."""
    vm.charge("emulate_segment", 1)
    selector, value = far_pointer(vm, instruction)
    if not load_segment(vm, instruction.row.condition, selector):
        return False
    vm.set_register(instruction.reg, value, instruction.width)
    return True


# -- stores, which do not trap on x86 -----------------------------------------------------------------------------------


def mov_from_sreg(vm: "SoftwareVm", instruction: Instruction) -> None:
    """MOV from a segment register: 16 bits to memory, zero-extended into a 32-bit register."""
    vm.charge("emulate_state_read", 1)
    selector = vm.segments.state(instruction.reg).selector
    if instruction.has_memory:
        vm.segments.write(instruction.segment, effective_address(vm, instruction), 2, selector)
    else:
        vm.set_register(instruction.rm, selector, instruction.width)


def push_sreg(vm: "SoftwareVm", instruction: Instruction) -> None:
    """PUSH of a segment register."""
    vm.charge("emulate_state_read", 1)
    vm.segments.push(instruction.width // 8, vm.segments.state(instruction.row.condition).selector)


def loads_stack_segment(instruction: Instruction) -> bool:
    """Whether the instruction was MOV SS or POP SS."""
    segment = instruction.reg if instruction.operation == "REGISTER_TO_SREG" else instruction.row.condition
    return instruction.operation in ("REGISTER_TO_SREG", "POP_SREG") and segment == SS

"""Operands that several chapters read."""

from typing import TYPE_CHECKING

from ..instruction import Instruction, effective_address

if TYPE_CHECKING:
    from ..virtual_machine import VirtualMachine


def source_word(vm: "VirtualMachine", instruction: Instruction) -> int:
    """A 16-bit source operand: register or memory."""
    if instruction.has_memory:
        return vm.segments.read(instruction.segment, effective_address(vm, instruction), 2)
    return vm.register(instruction.rm) & 0xFFFF


def far_pointer(vm: "VirtualMachine", instruction: Instruction) -> tuple[int, int]:
    """Selector and offset, immediate or in memory; the selector's offset wraps at the address size."""
    if not instruction.has_memory:
        return instruction.imm >> 32 & 0xFFFF, instruction.imm & 0xFFFFFFFF
    n = instruction.width // 8
    offset = effective_address(vm, instruction)
    value = vm.segments.read(instruction.segment, offset, n)
    beyond = offset + n & (1 << instruction.address_width) - 1
    return vm.segments.read(instruction.segment, beyond, 2), value

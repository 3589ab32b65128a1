"""Operands that several chapters read."""

from typing import TYPE_CHECKING

from ..instruction import Instruction, effective_address

if TYPE_CHECKING:
    from ..vm import VirtualMachine


def source_word(vm: "VirtualMachine", instruction: Instruction) -> int:
    """A 16-bit source operand: register or memory."""
    if instruction.has_memory:
        return vm.segments.read(instruction.segment, effective_address(vm, instruction), 2)
    return vm.register(instruction.rm) & 0xFFFF

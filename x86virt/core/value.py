"""System instructions that only answer: they read state into an operand or the stack, and their block goes on."""

from .jit import kernel
from .system import system_instruction


@kernel
def system_value(cpu, ram, board, u):
    """Execute such an instruction; an outcome other than OK leaves the block."""
    return system_instruction(cpu, ram, board, u)

"""System instructions behind which their block goes on: most only answer, into an operand or the stack."""

from .jit import kernel
from .privileged_flags import cli
from .system import system_instruction


@kernel
def system_value(cpu, ram, board, u):
    """Execute such an instruction; an outcome other than OK leaves the block."""
    return system_instruction(cpu, ram, board, u)


@kernel
def clear_interrupt_flag(cpu, ram, board, u):
    """CLI: with fewer interrupts let in, the boundary behind it has nothing to do."""
    return cli(cpu)

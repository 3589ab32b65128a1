"""IN and OUT of a byte at a constant port that touches nothing but the board: their block goes on behind them.

No time passes for such a port, and no boundary can get anything to do from it (core/port_map.py, `is_plain_port`).
"""

from ..isa.registers import EAX
from .breakpoints import WATCH_PORTS
from .jit import inline, kernel
from .layout import OK, RESTART
from .port_decode import byte_read, byte_write
from .port_map import PORT_POST
from .ports import check_port


@inline
def check_plain_port(cpu, ram, u):
    """As `check_port`; the trap of an I/O breakpoint comes behind the instruction, which executes by itself for it."""
    if cpu.watch & WATCH_PORTS != 0 and cpu.in_block == 1:
        return RESTART
    return check_port(cpu, ram, u.imm, 1)


@kernel
def in_plain(cpu, ram, board, u):
    """IN AL, imm8."""
    outcome = check_plain_port(cpu, ram, u)
    if outcome != OK:
        return outcome
    if u.imm == PORT_POST:
        value = board.post_code
    else:
        value = byte_read(board, u.imm, cpu.ticks)
    cpu.gpr[EAX] = (cpu.gpr[EAX] & ~0xFF) | value
    return OK


@kernel
def out_plain(cpu, ram, board, u):
    """OUT imm8, AL."""
    outcome = check_plain_port(cpu, ram, u)
    if outcome != OK:
        return outcome
    if u.imm == PORT_POST:
        board.post_code = cpu.gpr[EAX] & 0xFF
    else:
        byte_write(board, u.imm, cpu.gpr[EAX] & 0xFF, cpu.ticks)
    return OK

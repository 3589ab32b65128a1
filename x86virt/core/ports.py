"""IN and OUT: the permission that IOPL and the TSS's bitmap give, and the board behind the ports.

SDM volume 1, section 18.5; volume 2, IN and OUT.
"""

from ..isa.registers import (
    AR_S,
    AR_TYPE,
    EAX,
    EDX,
    TR,
    TYPE_TSS_32_BUSY,
)
from ..isa.vectors import GP
from .a20 import follow_a20_gate
from .breakpoints import WATCH_PORTS, note_port_access
from .fault import raise_fault
from .jit import kernel
from .layout import OK, TIME_LOG, TIME_OUT
from .memory import read_linear
from .mode import MASK_32, in_virtual_8086_mode, io_privilege, operand_bytes, write_register
from .physical_map import follow_host_bridge
from .port_decode import depends_on_time, port_read, port_write
from .time_log import logged_time, time_is_logged, time_log_blocks

IO_MAP_BASE = 102  # where a 32-bit TSS holds the offset of its I/O permission bitmap


@kernel
def check_port(cpu, ram, port, n):
    """May `n` ports from `port` be used? If CPL <= IOPL outside virtual-8086 mode, or their bits in the TSS are clear.

    I/O breakpoints are met here; a fault forgets them.
    """
    if cpu.watch & WATCH_PORTS != 0:
        note_port_access(cpu, port, n)
    if cpu.cpl <= io_privilege(cpu) and not in_virtual_8086_mode(cpu):
        return OK
    # 1. Only a 32-bit TSS has a bitmap, and its limit must cover the bitmap's offset.
    tss = cpu.seg[TR]
    if tss.access & (AR_S | AR_TYPE) != TYPE_TSS_32_BUSY or tss.limit < IO_MAP_BASE + 1:
        return raise_fault(cpu, GP, 0)
    outcome, offset = read_linear(cpu, ram, (tss.seg_base + IO_MAP_BASE) & MASK_32, 2, 0)
    if outcome != OK:
        return outcome
    # 2. Two bytes are always read, and both must lie within the limit.
    offset += port >> 3
    if offset + 1 > tss.limit:
        return raise_fault(cpu, GP, 0)
    outcome, bits = read_linear(cpu, ram, (tss.seg_base + offset) & MASK_32, 2, 0)
    if outcome != OK:
        return outcome
    # 3. Every bit of the access must be clear.
    if (bits >> (port & 7)) & ((1 << n) - 1):
        return raise_fault(cpu, GP, 0)
    return OK


@kernel
def port_of(cpu, u):
    """The port that IN or OUT names."""
    if u.condition == 1:
        return cpu.gpr[EDX] & 0xFFFF
    return u.imm & 0xFFFF


@kernel
def input_blocked(cpu, board, port, n):
    """1 if the log of time must be seen to before these ports are read; nothing may be committed then."""
    return int(time_log_blocks(cpu, port) == 1 and depends_on_time(board, port, n, 0) == 1)


@kernel
def output_blocked(cpu, board, port, n):
    """The same of ports that are written."""
    return int(time_log_blocks(cpu, TIME_OUT + port) == 1 and depends_on_time(board, port, n, 1) == 1)


@kernel
def tick_of_access(cpu, board, port, n, writes):
    """The tick at which ports are accessed: the present, which is recorded where it matters; in a replay the log's.

    A frozen board's time stands where the log has brought it; it moves on for this access."""
    if depends_on_time(board, port, n, writes) == 0:
        if board.frozen == 1:
            return board.tick
        return cpu.ticks
    now = logged_time(cpu, writes * TIME_OUT + port, cpu.ticks)
    if board.frozen == 1:
        now = max(now, board.tick)
        board.frozen = 0
    return now


@kernel
def follow_deadlines(cpu, board):
    """After an access that may have moved a deadline: the boundary looks at them anew once the limit is reached."""
    if board.deadlines_moved != 0:
        board.deadlines_moved = 0
        cpu.limit_ticks = min(cpu.limit_ticks, cpu.ticks)


@kernel
def receive_from_port(cpu, board, port, n):
    """Read `n` ports."""
    if time_is_logged(cpu):
        frozen = board.frozen
        value = port_read(board, port, n, tick_of_access(cpu, board, port, n, 0))
        board.frozen = frozen
    else:
        value = port_read(board, port, n, cpu.ticks)
    follow_deadlines(cpu, board)
    return value


@kernel
def port_in(cpu, ram, board, u):
    """IN AL/AX/EAX, imm8 or DX."""
    port = port_of(cpu, u)
    n = operand_bytes(u.width)
    outcome = check_port(cpu, ram, port, n)
    if outcome != OK:
        return outcome
    if input_blocked(cpu, board, port, n) == 1:
        return TIME_LOG
    write_register(cpu, EAX, 0, u.width, receive_from_port(cpu, board, port, n))
    return OK


@kernel
def send_to_port(cpu, board, port, n, value):
    """Write a port. What asks for attention is noted on the board."""
    if time_is_logged(cpu):
        frozen = board.frozen
        board.attention |= port_write(board, port, n, value, tick_of_access(cpu, board, port, n, 1))
        board.frozen = frozen
    else:
        board.attention |= port_write(board, port, n, value, cpu.ticks)
    follow_a20_gate(cpu, board.a20_closed)
    follow_host_bridge(cpu, board.pci.pam, board.pci.rom_window)
    follow_deadlines(cpu, board)


@kernel
def port_out(cpu, ram, board, u):
    """OUT imm8 or DX, AL/AX/EAX."""
    port = port_of(cpu, u)
    n = operand_bytes(u.width)
    outcome = check_port(cpu, ram, port, n)
    if outcome != OK:
        return outcome
    if output_blocked(cpu, board, port, n) == 1:
        return TIME_LOG
    send_to_port(cpu, board, port, n, cpu.gpr[EAX] & ((1 << (8 * n)) - 1))
    return OK

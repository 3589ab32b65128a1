"""INS and OUTS: ports and memory, with REP one iteration at a time (SDM volume 2, INS and OUTS; volume 1, section 18.4).

What may fault is checked before the port is touched, so that no datum is lost and none is sent twice.
"""

from ..isa.events import (
    EVENT_INS_REP_INS_ITERATION,
    EVENT_INS_REP_OUTS_ITERATION,
    EVENT_SYS_IN_PORT_LPC,
    EVENT_SYS_OUT_PORT_LPC,
)
from ..isa.registers import ECX, EDI, EDX, EFLAGS_RF, ES, ESI
from .charge import charge
from .jit import kernel
from .layout import OK, RESTART, TIME_LOG
from .memory import check_write_segment, read_segment, write_translated
from .ports import check_port, input_blocked, output_blocked, receive_from_port, send_to_port
from .string import advance, must_stop, string_step

INS, OUTS = range(2)  # variants of the row


@kernel
def input_once(cpu, ram, board, u, repeated):
    """One INS: the destination is made writable first."""
    n = u.width >> 3
    port = cpu.gpr[EDX] & 0xFFFF
    outcome = check_port(cpu, ram, port, n)
    if outcome != OK:
        return outcome
    outcome = check_write_segment(cpu, ram, ES, cpu.gpr[EDI] & u.address_mask, n)
    if outcome != OK:
        return outcome
    if input_blocked(cpu, board, port, n) == 1:
        return TIME_LOG
    charge(cpu, EVENT_SYS_IN_PORT_LPC, repeated)
    charge(cpu, EVENT_INS_REP_INS_ITERATION, 1)
    write_translated(cpu, ram, n, receive_from_port(cpu, board, port, n))
    advance(cpu, EDI, string_step(cpu, n), u.address_mask)
    return OK


@kernel
def output_once(cpu, ram, board, u, repeated):
    """One OUTS: the source is read first."""
    n = u.width >> 3
    port = cpu.gpr[EDX] & 0xFFFF
    outcome = check_port(cpu, ram, port, n)
    if outcome != OK:
        return outcome
    outcome, value = read_segment(cpu, ram, u.segment, cpu.gpr[ESI] & u.address_mask, n)
    if outcome != OK:
        return outcome
    if output_blocked(cpu, board, port, n) == 1:
        return TIME_LOG
    charge(cpu, EVENT_SYS_OUT_PORT_LPC, repeated)
    charge(cpu, EVENT_INS_REP_OUTS_ITERATION, 1)
    send_to_port(cpu, board, port, n, value)
    advance(cpu, ESI, string_step(cpu, n), u.address_mask)
    return OK


@kernel
def port_string_once(cpu, ram, board, u, repeated):
    """One iteration of INS or OUTS; nothing changes if it faults. A repeated one pays for its port access here."""
    if u.condition == INS:
        return input_once(cpu, ram, board, u, repeated)
    return output_once(cpu, ram, board, u, repeated)


@kernel
def port_string(cpu, ram, board, u):
    """INS and OUTS, with REP (`u.imm` not 0) as many times as ECX or CX says.

    Between iterations it asks to be restarted at a deadline, and when a device asks for attention.
    """
    if u.imm == 0:
        return port_string_once(cpu, ram, board, u, 0)
    resume_flag = 0
    while cpu.gpr[ECX] & u.address_mask != 0:
        outcome = port_string_once(cpu, ram, board, u, 1)
        if outcome != OK:
            if outcome == TIME_LOG:
                cpu.eflags |= resume_flag
            return outcome
        advance(cpu, ECX, -1, u.address_mask)
        resume_flag = EFLAGS_RF  # what arrives between iterations pushes RF as 1 (SDM volume 3, section 17.3.1.1)
        if cpu.gpr[ECX] & u.address_mask != 0 and (must_stop(cpu) or board.attention != 0):
            cpu.eflags |= resume_flag
            return RESTART
    return OK

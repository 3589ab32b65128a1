"""String instructions. A repeated one stops between iterations when the deadline is reached, and restarts there."""

from ..isa.events import (
    EVENT_INS_REP_CMPS_ITERATION,
    EVENT_INS_REP_LODS_BYTE,
    EVENT_INS_REP_MOVS_BYTE,
    EVENT_INS_REP_SCAS_ITERATION,
    EVENT_INS_REP_STOS_BYTE,
)
from ..isa.registers import EAX, ECX, EDI, EFLAGS_DF, EFLAGS_RF, EFLAGS_TF, ES, ESI
from ..isa.table.strings import CMPS, LODS, MOVS, SCAS, STOS
from .alu import any_width_flags, borrows_of_subtract
from .bulk_string import run_at_once
from .charge import charge
from .jit import inline, kernel
from .layout import OK, RESTART
from .memory import read_segment, write_segment
from .mode import write_register

REPEAT_EQUAL = 0xF3


@inline
def advance(cpu, register, step, mask):
    """Move a string pointer or a count; a 16-bit address size leaves the register's upper half."""
    cpu.gpr[register] = (cpu.gpr[register] & ~mask) | ((cpu.gpr[register] + step) & mask)


@inline
def string_step(cpu, n):
    """What an iteration on `n` bytes adds to the pointers, by DF."""
    if cpu.eflags & EFLAGS_DF != 0:
        return -n
    return n


@kernel
def string_once(cpu, ram, u):
    """One iteration of the string operation `u.condition`; nothing changes if it faults."""
    operation = u.condition
    n = u.width >> 3
    mask = (1 << u.width) - 1
    step = string_step(cpu, n)
    source = cpu.gpr[EAX] & mask
    if operation == MOVS or operation == CMPS or operation == LODS:
        outcome, source = read_segment(cpu, ram, u.segment, cpu.gpr[ESI] & u.address_mask, n)
        if outcome != OK:
            return outcome
    if operation == MOVS or operation == STOS:
        outcome = write_segment(cpu, ram, ES, cpu.gpr[EDI] & u.address_mask, n, source)
        if outcome != OK:
            return outcome
    elif operation == CMPS or operation == SCAS:
        outcome, other = read_segment(cpu, ram, ES, cpu.gpr[EDI] & u.address_mask, n)
        if outcome != OK:
            return outcome
        result = (source - other) & mask
        any_width_flags(cpu, result, borrows_of_subtract(source, other, result), u.width)
    else:
        write_register(cpu, EAX, 0, u.width, source)
    if operation == MOVS or operation == CMPS or operation == LODS:
        advance(cpu, ESI, step, u.address_mask)
    if operation != LODS:
        advance(cpu, EDI, step, u.address_mask)
    return OK


@kernel
def charge_iteration(cpu, u):
    """Price one iteration: by bytes for the moving ones, by iteration for the comparing ones."""
    operation = u.condition
    n = u.width >> 3
    if operation == MOVS:
        charge(cpu, EVENT_INS_REP_MOVS_BYTE, n)
    elif operation == STOS:
        charge(cpu, EVENT_INS_REP_STOS_BYTE, n)
    elif operation == LODS:
        charge(cpu, EVENT_INS_REP_LODS_BYTE, n)
    elif operation == SCAS:
        charge(cpu, EVENT_INS_REP_SCAS_ITERATION, 1)
    else:
        charge(cpu, EVENT_INS_REP_CMPS_ITERATION, 1)


@inline
def must_stop(cpu):
    """Whether something waits between two iterations: a deadline, stale code, or a debug trap."""
    return (
        cpu.ticks >= cpu.limit_ticks
        or cpu.code_write_count > 0
        or cpu.flush_code == 1
        or (cpu.debug_hits | cpu.stop_met) != 0
        or cpu.eflags & EFLAGS_TF != 0
    )


@inline
def run_of_iterations(cpu, ram, u):
    """Iterations that were made at once, 0 when the next one must be made by itself."""
    if u.condition == MOVS:
        return run_at_once(cpu, ram, u, EVENT_INS_REP_MOVS_BYTE)
    if u.condition == STOS:
        return run_at_once(cpu, ram, u, EVENT_INS_REP_STOS_BYTE)
    return 0


@kernel
def string_repeat(cpu, ram, board, u):
    """REP, REPE and REPNE (`u.imm`): one instruction of ECX or CX iterations (SDM volume 2, REP).

    At a deadline between iterations it asks to be restarted; at least one iteration is made each time.
    """
    while cpu.gpr[ECX] & u.address_mask != 0:
        if run_of_iterations(cpu, ram, u) == 0:
            outcome = string_once(cpu, ram, u)
            if outcome != OK:
                return outcome
            charge_iteration(cpu, u)
            advance(cpu, ECX, -1, u.address_mask)
        if u.condition == CMPS or u.condition == SCAS:
            equal = int(cpu.flag_result == 0)
            if equal != int(u.imm == REPEAT_EQUAL):
                break
        if cpu.gpr[ECX] & u.address_mask != 0 and must_stop(cpu):
            cpu.eflags |= EFLAGS_RF  # what arrives between iterations pushes RF as 1 (SDM volume 3, section 17.3.1.1)
            return RESTART
    cpu.rip = u.target
    return OK

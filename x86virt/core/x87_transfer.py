"""Loads, stores, exchanges and conditional moves of the x87 stack (SDM volume 1, section 8.3.2 to 8.3.4)."""

from ..isa.x87_ops import DECIMAL, EXTENDED, FORMAT, FORMAT_BYTES, POPS_SHIFT, REGISTER, WORD
from .alu import condition_holds
from .float80 import copy_value
from .float80_round import round_significand
from .float80_series import CONSTANT, ONE
from .jit import kernel
from .layout import OK
from .x87_formats import from_memory_format, integer_indefinite, to_memory_format
from .x87_memory import check_range, read_words, write_words
from .x87_operands import any_empty, deliver
from .x87_state import (
    CLASS_DENORMAL,
    CLASS_SIGNALING,
    DENORMAL,
    INVALID,
    OPERAND_A,
    OPERAND_B,
    OVERFLOW,
    PRE_COMPUTATION,
    QUIET_BIT,
    RESULT,
    STACK_OVERFLOW,
    STACK_UNDERFLOW,
    UNDERFLOW,
    finish,
    is_empty,
    physical,
    pop,
    push,
    rounding_mode,
    set_default_nan,
    set_register,
    unmasked,
)

FUNCTION_ZERO = 6  # variant of CONSTANT


@kernel
def alignment_of(n):
    """What an operand of `n` bytes is aligned to where alignment is checked: extended and decimal ones to 8."""
    if n == 10:
        return 8
    return n


@kernel
def format_bytes(form):
    """Bytes of a format in memory."""
    return FORMAT_BYTES[form]


@kernel
def fetch(cpu, ram, u, number):
    """Read the memory operand, convert it to operand `number`, and note its class."""
    form = u.condition & FORMAT
    n = format_bytes(form)
    outcome = check_range(cpu, ram, u, n, alignment_of(n), 0)
    if outcome != OK:
        return outcome
    read_words(cpu, ram, 0, n)
    cpu.fpu_class[number - OPERAND_A] = from_memory_format(cpu, cpu.fpu_value[number], form)
    return OK


@kernel
def push_result(cpu):
    """Push the result, or the indefinite when the stack overflows, unless an unmasked exception forbids it."""
    if not is_empty(cpu, 7):
        cpu.fpu_flags = STACK_OVERFLOW
        set_default_nan(cpu.fpu_value[RESULT])
    if unmasked(cpu, PRE_COMPUTATION) == 0:
        push(cpu, cpu.fpu_value[RESULT])
    finish(cpu)


@kernel
def load(cpu, ram, u):
    """FLD, FILD, FBLD."""
    form = u.condition & FORMAT
    r = cpu.fpu_value[RESULT]
    if form != REGISTER:
        outcome = fetch(cpu, ram, u, OPERAND_A)
        if outcome != OK:
            return outcome
        copy_value(r, cpu.fpu_value[OPERAND_A])
        if form < EXTENDED:
            quieten(cpu)
    elif is_empty(cpu, u.src_shift):
        cpu.fpu_flags = STACK_UNDERFLOW
        set_default_nan(r)
    else:
        copy_value(r, cpu.fpu_value[physical(cpu, u.src_shift)])
    push_result(cpu)
    return OK


@kernel
def quieten(cpu):
    """What loading a single or double value meets: a denormal, or a signaling NaN, which becomes quiet."""
    if cpu.fpu_class[0] == CLASS_DENORMAL:
        cpu.fpu_flags |= DENORMAL
    elif cpu.fpu_class[0] == CLASS_SIGNALING:
        cpu.fpu_flags |= INVALID
        cpu.fpu_value[RESULT].high |= QUIET_BIT


@kernel
def load_constant(cpu, u):
    """FLD1 to FLDZ: the constants are rounded by RC."""
    r = cpu.fpu_value[RESULT]
    copy_value(r, CONSTANT[ONE + u.condition % FUNCTION_ZERO])
    round_significand(r, 64, rounding_mode(cpu))
    if u.condition == FUNCTION_ZERO:
        r.exponent = 0
        r.high = 0
    push_result(cpu)


@kernel
def store(cpu, ram, u):
    """FST, FSTP, FIST, FISTP, FBSTP. A memory operand is checked before anything else happens."""
    form = u.condition & FORMAT
    pops = u.condition >> POPS_SHIFT & 1
    if form == REGISTER:
        store_register(cpu, u.src_shift, pops)
        return OK
    n = format_bytes(form)
    outcome = check_range(cpu, ram, u, n, alignment_of(n), 1)
    if outcome != OK:
        return outcome
    v = cpu.fpu_value[OPERAND_A]
    copy_value(v, cpu.fpu_value[physical(cpu, 0)])
    if not is_empty(cpu, 0):
        to_memory_format(cpu, v, form)
    else:
        cpu.fpu_flags = STACK_UNDERFLOW
        if form == DECIMAL or form >= WORD:
            integer_indefinite(cpu, form)
        else:
            set_default_nan(v)
            to_memory_format(cpu, v, form)
    if unmasked(cpu, INVALID | OVERFLOW | UNDERFLOW) == 0:
        write_words(cpu, ram, 0, n)
        if pops == 1:
            pop(cpu)
    finish(cpu)
    return OK


@kernel
def store_register(cpu, i, pops):
    """FST and FSTP to ST(i)."""
    if is_empty(cpu, 0):
        cpu.fpu_flags = STACK_UNDERFLOW
        set_default_nan(cpu.fpu_value[RESULT])
    else:
        copy_value(cpu.fpu_value[RESULT], cpu.fpu_value[physical(cpu, 0)])
    if deliver(cpu, i) and pops == 1:
        pop(cpu)
    finish(cpu)


@kernel
def filled(cpu, number, i):
    """Copy ST(i) to an operand; an empty register counts as the indefinite."""
    v = cpu.fpu_value[number]
    copy_value(v, cpu.fpu_value[physical(cpu, i)])
    if is_empty(cpu, i):
        cpu.fpu_flags = STACK_UNDERFLOW
        set_default_nan(v)


@kernel
def exchange(cpu, i):
    """FXCH."""
    filled(cpu, OPERAND_A, 0)
    filled(cpu, OPERAND_B, i)
    if unmasked(cpu, INVALID) == 0:
        set_register(cpu, 0, cpu.fpu_value[OPERAND_B])
        set_register(cpu, i, cpu.fpu_value[OPERAND_A])
    finish(cpu)


@kernel
def move_condition(cpu, u):
    """FCMOVcc: an empty register is a stack underflow whether or not the condition holds."""
    if any_empty(cpu, u.src_shift):
        deliver(cpu, 0)
    elif condition_holds(cpu, u.condition) == 1:
        set_register(cpu, 0, cpu.fpu_value[physical(cpu, u.src_shift)])
    finish(cpu)

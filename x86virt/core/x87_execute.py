"""The x87 instructions that compute: operands are taken, an operation is done, and its result is delivered."""

from ..isa.registers import X87_C0, X87_C1, X87_C2, X87_C3
from ..isa.x87_ops import (
    ABSOLUTE,
    ARCTANGENT,
    CHANGE_SIGN,
    COSINE,
    EXTRACT,
    FORMAT,
    FUNCTION_SHIFT,
    IEEE_REMAINDER,
    LOGARITHM,
    LOGARITHM_PLUS_1,
    POPS_SHIFT,
    POWER_OF_2,
    QUIET,
    REGISTER,
    REMAINDER,
    ROUND,
    SCALE,
    SINE,
    SINE_COSINE,
    SQUARE_ROOT,
    TANGENT,
    TO_EFLAGS,
    TO_STACK,
    WITH_ZERO,
)
from .flags import set_arithmetic_flags
from .float80 import copy_value, set_value
from .jit import kernel
from .layout import OK
from .x87_arithmetic import UNORDERED, arithmetic, compare, extract, remainder, root, round_to_integral, scale
from .x87_operands import any_empty, deliver, take
from .x87_state import (
    CLASS_DENORMAL,
    CLASS_INFINITY,
    CLASS_NORMAL,
    CLASS_UNSUPPORTED,
    CLASS_ZERO,
    OPERAND_A,
    OPERAND_B,
    PRE_COMPUTATION,
    RESULT,
    SECOND,
    STACK_OVERFLOW,
    classify,
    finish,
    is_empty,
    physical,
    pop,
    push,
    set_default_nan,
    unmasked,
)
from .x87_transcendental import (
    arctangent,
    cosine,
    logarithm,
    logarithm_plus_1,
    power_of_2,
    sine,
    sine_cosine,
    tangent,
)
from .x87_transfer import fetch

CODES = X87_C0 | X87_C2 | X87_C3
ZF, PF, CF = 1 << 6, 1 << 2, 1 << 0


@kernel
def set_codes(cpu, codes):
    """Write the condition codes C0, C2 and C3; C1 only if it is among them."""
    cpu.fpu_status = (cpu.fpu_status & ~CODES) | codes


@kernel
def execute_arithmetic(cpu, ram, u):
    """FADD to FDIVR in every form."""
    i = u.src_shift
    if u.condition & FORMAT == REGISTER:
        take(cpu, OPERAND_B, i)
    else:
        outcome = fetch(cpu, ram, u, OPERAND_B)
        if outcome != OK:
            return outcome
        i = 0
    if not any_empty(cpu, i):
        take(cpu, OPERAND_A, 0)
        arithmetic(cpu, u.condition >> FUNCTION_SHIFT)
    target = 0
    if u.condition & TO_STACK != 0:
        target = i
    if deliver(cpu, target) and u.condition >> POPS_SHIFT & 1 == 1:
        pop(cpu)
    finish(cpu)
    return OK


@kernel
def execute_compare(cpu, ram, u):
    """FCOM, FUCOM, FICOM, FTST, FCOMI and their popping forms."""
    i = u.src_shift
    if u.condition & WITH_ZERO != 0:
        set_value(cpu.fpu_value[OPERAND_B], 0, 0, 0, 0, 0)
        cpu.fpu_class[1] = CLASS_ZERO
        i = 0
    elif u.condition & FORMAT == REGISTER:
        take(cpu, OPERAND_B, i)
    else:
        outcome = fetch(cpu, ram, u, OPERAND_B)
        if outcome != OK:
            return outcome
        i = 0
    codes = UNORDERED
    if not any_empty(cpu, i):
        take(cpu, OPERAND_A, 0)
        codes = compare(cpu, int(u.condition & QUIET != 0))
    finish(cpu)
    if u.condition & TO_EFLAGS != 0:
        if unmasked(cpu, PRE_COMPUTATION) == 0:
            set_arithmetic_flags(cpu, int(codes & X87_C3 != 0) * ZF | int(codes & X87_C2 != 0) * PF | int(codes & X87_C0 != 0) * CF)
    else:
        set_codes(cpu, codes)
    if unmasked(cpu, PRE_COMPUTATION) == 0:
        for _ in range(u.condition >> POPS_SHIFT & 3):
            pop(cpu)
    return OK


@kernel
def examine(cpu):
    """FXAM (volume 2): the class of ST(0) in C3, C2, C0, its sign in C1, whether it is empty or not."""
    v = cpu.fpu_value[physical(cpu, 0)]
    kind = classify(v)
    codes = X87_C0
    if is_empty(cpu, 0):
        codes = X87_C3 | X87_C0
    elif kind == CLASS_UNSUPPORTED:
        codes = 0
    elif kind == CLASS_NORMAL:
        codes = X87_C2
    elif kind == CLASS_INFINITY:
        codes = X87_C2 | X87_C0
    elif kind == CLASS_ZERO:
        codes = X87_C3
    elif kind == CLASS_DENORMAL:
        codes = X87_C3 | X87_C2
    cpu.fpu_status = (cpu.fpu_status & ~X87_C1) | v.sign * X87_C1
    set_codes(cpu, codes)


@kernel
def execute_unary(cpu, how):
    """The operations on ST(0), or on ST(0) and ST(1)."""
    if how == REMAINDER or how == IEEE_REMAINDER or how == SCALE:
        partner(cpu, how)
    elif how == LOGARITHM or how == LOGARITHM_PLUS_1 or how == ARCTANGENT:
        pop_after(cpu, how)
    elif how == EXTRACT or how == TANGENT or how == SINE_COSINE:
        push_after(cpu, how)
    else:
        alone(cpu, how)


@kernel
def alone(cpu, how):
    """FCHS, FABS, FSQRT, FRNDINT, F2XM1, FSIN, FCOS."""
    a, r = cpu.fpu_value[OPERAND_A], cpu.fpu_value[RESULT]
    in_range = True
    if not any_empty(cpu, 0):
        take(cpu, OPERAND_A, 0)
        if how == CHANGE_SIGN:
            copy_value(r, a)
            r.sign = 1 - a.sign
        elif how == ABSOLUTE:
            copy_value(r, a)
            r.sign = 0
        elif how == SQUARE_ROOT:
            root(cpu)
        elif how == ROUND:
            round_to_integral(cpu)
        elif how == POWER_OF_2:
            power_of_2(cpu)
        elif how == SINE:
            in_range = sine(cpu)
        elif how == COSINE:
            in_range = cosine(cpu)
    if in_range:
        deliver(cpu, 0)
    finish(cpu)
    if how == SINE or how == COSINE:
        set_range_code(cpu, in_range)


@kernel
def set_range_code(cpu, in_range):
    """C2 says that an argument was out of range and nothing was done."""
    cpu.fpu_status &= ~X87_C2
    if not in_range:
        cpu.fpu_status |= X87_C2


@kernel
def partner(cpu, how):
    """FPREM, FPREM1, FSCALE: ST(0) by ST(1), into ST(0)."""
    codes = 0
    if not any_empty(cpu, 1):
        take(cpu, OPERAND_A, 0)
        take(cpu, OPERAND_B, 1)
        if how == SCALE:
            scale(cpu)
        else:
            codes = remainder(cpu, int(how == IEEE_REMAINDER))
    written = deliver(cpu, 0)
    finish(cpu)
    if how != SCALE and written:
        set_codes(cpu, codes)


@kernel
def pop_after(cpu, how):
    """FYL2X, FYL2XP1, FPATAN: the result replaces ST(1), and ST(0) is popped."""
    if not any_empty(cpu, 1):
        take(cpu, OPERAND_A, 0)
        take(cpu, OPERAND_B, 1)
        if how == LOGARITHM:
            logarithm(cpu)
        elif how == LOGARITHM_PLUS_1:
            logarithm_plus_1(cpu)
        else:
            arctangent(cpu)
    if deliver(cpu, 1):
        pop(cpu)
    finish(cpu)


@kernel
def push_after(cpu, how):
    """FXTRACT, FPTAN, FSINCOS: one result replaces ST(0), another is pushed."""
    in_range = True
    r, second = cpu.fpu_value[RESULT], cpu.fpu_value[SECOND]
    if any_empty(cpu, 0):
        copy_value(second, r)
    elif not is_empty(cpu, 7):
        cpu.fpu_flags |= STACK_OVERFLOW
        set_default_nan(r)
        set_default_nan(second)
    else:
        take(cpu, OPERAND_A, 0)
        if how == EXTRACT:
            extract(cpu)
        elif how == TANGENT:
            in_range = tangent(cpu)
        else:
            in_range = sine_cosine(cpu)
    if in_range and deliver(cpu, 0):
        push(cpu, second)
    finish(cpu)
    if how != EXTRACT:
        set_range_code(cpu, in_range)

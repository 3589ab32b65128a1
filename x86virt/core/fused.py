"""A comparison and the conditional jump right behind it, as one micro-operation: it knows the answer without the flags.

The jump keeps its own micro-operation behind the comparison's, where its addresses stand and its price is told.
"""

import numpy as np

from .alu import borrows_of_subtract, dec_32, sign_extend_32, source_32
from .branch import leave
from .handlers import FUSED, NUMBER
from .jit import inline, kernel

M32 = 0xFFFFFFFF
OP_FIRST_CONDITION = NUMBER["jo"]
CONDITIONS = 16

# By the micro-operation ahead and the condition: the one for both, -1 where there is none.
FUSED_OP = np.full((OP_FIRST_CONDITION, CONDITIONS), -1, np.int64)
for _name in FUSED:
    _ahead, _jump = _name.split("_")
    FUSED_OP[NUMBER[f"{_ahead}_32"], NUMBER[_jump] - OP_FIRST_CONDITION] = NUMBER[_name]


@kernel
def fuse(uops, i):
    """Let the micro-operation before `i` do the work of both if `i` is a conditional jump that can be fused with it."""
    condition = uops[i].op - OP_FIRST_CONDITION
    ahead = uops[i - 1].op
    if condition < 0 or condition >= CONDITIONS or ahead >= OP_FIRST_CONDITION:
        return
    if FUSED_OP[ahead, condition] >= 0:
        uops[i - 1].op = FUSED_OP[ahead, condition]


@inline
def compare(cpu, a, b):
    """The flags of CMP."""
    result = (a - b) & M32
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = borrows_of_subtract(a, b, result) & M32


@inline
def cmp_je(cpu, u, jump):
    """CMP and JE."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    compare(cpu, a, b)
    return leave(cpu, jump, a == b)


@inline
def cmp_jne(cpu, u, jump):
    """CMP and JNE."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    compare(cpu, a, b)
    return leave(cpu, jump, a != b)


@inline
def cmp_jb(cpu, u, jump):
    """CMP and JB."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    compare(cpu, a, b)
    return leave(cpu, jump, a < b)


@inline
def cmp_jae(cpu, u, jump):
    """CMP and JAE."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    compare(cpu, a, b)
    return leave(cpu, jump, a >= b)


@inline
def cmp_jbe(cpu, u, jump):
    """CMP and JBE."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    compare(cpu, a, b)
    return leave(cpu, jump, a <= b)


@inline
def cmp_ja(cpu, u, jump):
    """CMP and JA."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    compare(cpu, a, b)
    return leave(cpu, jump, a > b)


@inline
def cmp_jl(cpu, u, jump):
    """CMP and JL."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    compare(cpu, a, b)
    return leave(cpu, jump, sign_extend_32(a) < sign_extend_32(b))


@inline
def cmp_jge(cpu, u, jump):
    """CMP and JGE."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    compare(cpu, a, b)
    return leave(cpu, jump, sign_extend_32(a) >= sign_extend_32(b))


@inline
def cmp_jle(cpu, u, jump):
    """CMP and JLE."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    compare(cpu, a, b)
    return leave(cpu, jump, sign_extend_32(a) <= sign_extend_32(b))


@inline
def cmp_jg(cpu, u, jump):
    """CMP and JG."""
    a = cpu.gpr[u.dst]
    b = source_32(cpu, u)
    compare(cpu, a, b)
    return leave(cpu, jump, sign_extend_32(a) > sign_extend_32(b))


@inline
def test_je(cpu, u, jump):
    """TEST and JE."""
    result = cpu.gpr[u.dst] & source_32(cpu, u)
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = 0
    return leave(cpu, jump, result == 0)


@inline
def test_jne(cpu, u, jump):
    """TEST and JNE."""
    result = cpu.gpr[u.dst] & source_32(cpu, u)
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = 0
    return leave(cpu, jump, result != 0)


@inline
def dec_jne(cpu, u, jump):
    """DEC and JNE."""
    dec_32(cpu, u)
    return leave(cpu, jump, cpu.flag_result != 0)

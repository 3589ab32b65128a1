"""Near control transfers. A handler writes cpu.rip and returns the edge by which it leaves the block.

`u.target` is where the branch goes, `u.imm` the address of the next instruction. The decoder turns a direct branch
beyond the code segment's limit into `branch_beyond`; indirect ones check here (SDM volume 2, JMP, CALL, RET).
"""

from ..isa.registers import CS, ECX, ESP, SS
from ..isa.vectors import GP
from .alu import condition_holds
from .fault import raise_fault
from .flags import carry_flag, overflow_flag, parity_flag, sign_flag
from .jit import inline, kernel
from .layout import EDGE_FALL, EDGE_FAULT, EDGE_INDIRECT, EDGE_TAKEN, OK
from .memory import load_to_slot_32, read_segment, store_value_32, write_segment
from .mode import set_stack_pointer, stack_mask

SLOT = 16


@inline
def leave(cpu, u, taken):
    """Go to the target or fall through."""
    if taken:
        cpu.rip = u.target
        return EDGE_TAKEN
    cpu.rip = u.imm
    return EDGE_FALL


@inline
def jo(cpu, ram, u):
    """JO."""
    return leave(cpu, u, overflow_flag(cpu) == 1)


@inline
def jno(cpu, ram, u):
    """JNO."""
    return leave(cpu, u, overflow_flag(cpu) == 0)


@inline
def jb(cpu, ram, u):
    """JB."""
    return leave(cpu, u, carry_flag(cpu) == 1)


@inline
def jae(cpu, ram, u):
    """JAE."""
    return leave(cpu, u, carry_flag(cpu) == 0)


@inline
def je(cpu, ram, u):
    """JE."""
    return leave(cpu, u, cpu.flag_result == 0)


@inline
def jne(cpu, ram, u):
    """JNE."""
    return leave(cpu, u, cpu.flag_result != 0)


@inline
def jbe(cpu, ram, u):
    """JBE."""
    return leave(cpu, u, carry_flag(cpu) == 1 or cpu.flag_result == 0)


@inline
def ja(cpu, ram, u):
    """JA."""
    return leave(cpu, u, carry_flag(cpu) == 0 and cpu.flag_result != 0)


@inline
def js(cpu, ram, u):
    """JS."""
    return leave(cpu, u, sign_flag(cpu) == 1)


@inline
def jns(cpu, ram, u):
    """JNS."""
    return leave(cpu, u, sign_flag(cpu) == 0)


@inline
def jp(cpu, ram, u):
    """JP."""
    return leave(cpu, u, parity_flag(cpu) == 1)


@inline
def jnp(cpu, ram, u):
    """JNP."""
    return leave(cpu, u, parity_flag(cpu) == 0)


@inline
def jl(cpu, ram, u):
    """JL."""
    return leave(cpu, u, sign_flag(cpu) != overflow_flag(cpu))


@inline
def jge(cpu, ram, u):
    """JGE."""
    return leave(cpu, u, sign_flag(cpu) == overflow_flag(cpu))


@inline
def jle(cpu, ram, u):
    """JLE."""
    return leave(cpu, u, cpu.flag_result == 0 or sign_flag(cpu) != overflow_flag(cpu))


@inline
def jg(cpu, ram, u):
    """JG."""
    return leave(cpu, u, cpu.flag_result != 0 and sign_flag(cpu) == overflow_flag(cpu))


@inline
def jmp(cpu, ram, u):
    """JMP to a constant."""
    cpu.rip = u.target
    return EDGE_TAKEN


@kernel
def loop_taken(cpu, kind, mask):
    """Count ECX, or by a 16-bit address size CX, down and tell whether LOOPNE 0, LOOPE 1 or LOOP 2 jumps.

    JECXZ 3 jumps if it is zero as it stands.
    """
    if kind == 3:
        return int(cpu.gpr[ECX] & mask == 0)
    count = (cpu.gpr[ECX] - 1) & mask
    cpu.gpr[ECX] = (cpu.gpr[ECX] & ~mask) | count
    if kind == 2:
        return int(count != 0)
    return int(count != 0 and int(cpu.flag_result == 0) == kind)


@inline
def loop(cpu, ram, u):
    """LOOP, LOOPE, LOOPNE and JECXZ."""
    return leave(cpu, u, loop_taken(cpu, u.condition, u.address_mask) == 1)


@kernel
def branch_beyond(cpu, ram, u):
    """A conditional branch (`u.condition`) or LOOP (16 more) whose target lies beyond the limit: #GP(0) if taken."""
    count = cpu.gpr[ECX]
    if u.condition >= 16:
        taken = loop_taken(cpu, u.condition - 16, u.address_mask)
    else:
        taken = condition_holds(cpu, u.condition)
    if taken == 1:
        cpu.gpr[ECX] = count
        return EDGE_FAULT + raise_fault(cpu, GP, 0)
    cpu.rip = u.imm
    return EDGE_FALL


@inline
def push_return_32(cpu, ram, u):
    """Push the address of the next instruction."""
    top = (cpu.gpr[ESP] - 4) & stack_mask(cpu.seg[SS].access)
    outcome = store_value_32(cpu, ram, SS, top, u.imm)
    if outcome == OK:
        set_stack_pointer(cpu, top)
    return outcome


@inline
def call(cpu, ram, u):
    """CALL of a constant."""
    outcome = push_return_32(cpu, ram, u)
    if outcome != OK:
        return EDGE_FAULT + outcome
    cpu.rip = u.target
    return EDGE_TAKEN


@inline
def call_indirect(cpu, ram, u):
    """CALL through a register or a loaded operand."""
    target = cpu.gpr[u.src]
    if target > cpu.seg[CS].limit:
        return EDGE_FAULT + raise_fault(cpu, GP, 0)
    outcome = push_return_32(cpu, ram, u)
    if outcome != OK:
        return EDGE_FAULT + outcome
    cpu.rip = target
    return EDGE_INDIRECT


@inline
def jmp_indirect(cpu, ram, u):
    """JMP through a register or a loaded operand."""
    target = cpu.gpr[u.src]
    if target > cpu.seg[CS].limit:
        return EDGE_FAULT + raise_fault(cpu, GP, 0)
    cpu.rip = target
    return EDGE_INDIRECT


@inline
def ret(cpu, ram, u):
    """RET, releasing `u.imm` bytes of parameters."""
    top = cpu.gpr[ESP] & stack_mask(cpu.seg[SS].access)
    outcome = load_to_slot_32(cpu, ram, SS, top, SLOT)
    if outcome != OK:
        return EDGE_FAULT + outcome
    target = cpu.gpr[SLOT]
    if target > cpu.seg[CS].limit:
        return EDGE_FAULT + raise_fault(cpu, GP, 0)
    set_stack_pointer(cpu, top + 4 + u.imm)
    cpu.rip = target
    return EDGE_INDIRECT


@kernel
def near_16(cpu, ram, u):
    """CALL, JMP (indirect) and RET with a 16-bit operand size; `u.condition` 0 RET, 1 JMP, 2 CALL.

    The target is IP: its upper half is cleared.
    """
    mask = stack_mask(cpu.seg[SS].access)
    top = cpu.gpr[ESP] & mask
    target = cpu.gpr[u.src] & 0xFFFF
    if u.condition == 0:
        outcome, target = read_segment(cpu, ram, SS, top, 2)
        if outcome != OK:
            return EDGE_FAULT + outcome
    if target > cpu.seg[CS].limit:
        return EDGE_FAULT + raise_fault(cpu, GP, 0)
    if u.condition == 2:
        outcome = write_segment(cpu, ram, SS, (top - 2) & mask, 2, u.imm)
        if outcome != OK:
            return EDGE_FAULT + outcome
        set_stack_pointer(cpu, top - 2)
    elif u.condition == 0:
        set_stack_pointer(cpu, top + 2 + u.imm)
    cpu.rip = target
    return EDGE_INDIRECT


@inline
def fall_through(cpu, ram, u):
    """The end of a block that does not end in a branch."""
    cpu.rip = u.target
    return EDGE_FALL


@kernel
def raise_general_protection(cpu, ram, u):
    """#GP(0): a privileged instruction at CPL above 0, or a direct branch beyond the limit."""
    return EDGE_FAULT + raise_fault(cpu, GP, 0)

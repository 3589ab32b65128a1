"""Far transfers as instructions, and far pointers in memory (SDM volume 2, JMP, CALL, RET and LDS; volume 3, section 5.8).

Everything is checked before anything is committed; parameters and return addresses are written before registers.
"""

from ..isa.system_ops import (
    SYSTEM_CALL_FAR_INDIRECT,
    SYSTEM_JMP_FAR,
    SYSTEM_JMP_FAR_INDIRECT,
    SYSTEM_RET_FAR,
)
from .far_call import far_call
from .far_jump import far_jump
from .far_return import far_return
from .jit import kernel
from .layout import OK
from .memory import effective_address, read_segment
from .mode import MASK_32, operand_bytes


@kernel
def read_far_pointer(cpu, ram, u):
    """Read m16:32 or m16:16: (outcome, selector, offset). The selector's offset wraps at the address size."""
    address = effective_address(cpu, u)
    n = operand_bytes(u.width)
    outcome, offset = read_segment(cpu, ram, u.segment, address, n)
    if outcome != OK:
        return outcome, 0, 0
    outcome, selector = read_segment(cpu, ram, u.segment, (address + n) & u.address_mask, 2)
    return outcome, selector, offset


@kernel
def far_instruction(cpu, ram, u):
    """The operations SYSTEM_JMP_FAR to SYSTEM_CALL_FAR_INDIRECT."""
    op = u.dst_shift
    n = operand_bytes(u.width)
    if op == SYSTEM_RET_FAR:
        return far_return(cpu, ram, u.imm & 0xFFFF, n)
    selector = (u.imm >> 32) & 0xFFFF
    offset = u.imm & MASK_32
    if op == SYSTEM_JMP_FAR_INDIRECT or op == SYSTEM_CALL_FAR_INDIRECT:
        outcome, selector, offset = read_far_pointer(cpu, ram, u)
        if outcome != OK:
            return outcome
    if op == SYSTEM_JMP_FAR or op == SYSTEM_JMP_FAR_INDIRECT:
        return far_jump(cpu, ram, selector, offset)
    return far_call(cpu, ram, selector, offset, n)

"""LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT, STR, SMSW and LMSW (SDM volume 2; volume 3, section 2.4)."""


from ..isa.registers import (
    CR0_EM,
    CR0_MP,
    CR0_PE,
    CR0_TS,
    LDTR,
    TR,
)
from ..isa.system_ops import (
    SYSTEM_LGDT,
    SYSTEM_LIDT,
    SYSTEM_LLDT,
    SYSTEM_LMSW,
    SYSTEM_LTR,
    SYSTEM_SGDT,
    SYSTEM_SIDT,
    SYSTEM_SLDT,
    SYSTEM_STR,
)
from .control import write_cr0
from .jit import kernel
from .layout import OK
from .memory import effective_address, read_segment, write_segment
from .mode import (
    MASK_32,
    write_register,
)
from .segment import (
    load_ldtr,
    load_tr,
)


@kernel
def load_table(cpu, ram, u):
    """LGDT and LIDT: a 16-bit limit, then the base (24 bits of it with 16-bit operands)."""
    offset = effective_address(cpu, u)
    outcome, limit = read_segment(cpu, ram, u.segment, offset, 2)
    if outcome != OK:
        return outcome
    outcome, table_base = read_segment(cpu, ram, u.segment, (offset + 2) & MASK_32, 4)
    if outcome != OK:
        return outcome
    if u.width == 16:
        table_base &= 0xFFFFFF
    if u.dst_shift == SYSTEM_LGDT:
        cpu.gdtr_limit = limit
        cpu.gdtr_base = table_base
    else:
        cpu.idtr_limit = limit
        cpu.idtr_base = table_base
    return OK


@kernel
def store_table(cpu, ram, u, limit, table_base):
    """SGDT and SIDT: all 32 bits of the base, at any operand size (as processors since the 80386 do)."""
    offset = effective_address(cpu, u)
    outcome = write_segment(cpu, ram, u.segment, offset, 2, limit)
    if outcome != OK:
        return outcome
    return write_segment(cpu, ram, u.segment, (offset + 2) & MASK_32, 4, table_base)


@kernel
def lmsw(cpu, ram, value):
    """LMSW: PE, MP, EM and TS; PE cannot be cleared."""
    changeable = CR0_MP | CR0_EM | CR0_TS
    return write_cr0(cpu, ram, (cpu.cr0 & ~changeable) | (value & (changeable | CR0_PE)))


@kernel
def table_instruction(cpu, ram, u):
    """The operations SYSTEM_LGDT to SYSTEM_LMSW."""
    op = u.dst_shift
    if op == SYSTEM_LGDT or op == SYSTEM_LIDT:
        return load_table(cpu, ram, u)
    if op == SYSTEM_SGDT:
        return store_table(cpu, ram, u, cpu.gdtr_limit, cpu.gdtr_base)
    if op == SYSTEM_SIDT:
        return store_table(cpu, ram, u, cpu.idtr_limit, cpu.idtr_base)
    if op == SYSTEM_LLDT:
        return load_ldtr(cpu, ram, cpu.gpr[u.src])
    if op == SYSTEM_LTR:
        return load_tr(cpu, ram, cpu.gpr[u.src])
    if op == SYSTEM_LMSW:
        return lmsw(cpu, ram, cpu.gpr[u.src])
    if op == SYSTEM_SLDT:
        value = cpu.seg[LDTR].selector
    elif op == SYSTEM_STR:
        value = cpu.seg[TR].selector
    else:  # SYSTEM_SMSW; a 32-bit register receives all of CR0
        value = cpu.cr0
    write_register(cpu, u.dst, 0, u.width, value)
    return OK

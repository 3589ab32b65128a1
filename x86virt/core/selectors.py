"""Selectors: LAR, LSL, VERR, VERW, ARPL, and loads and stores of segment registers (SDM volume 2)."""


from ..isa.registers import (
    AR_S,
    AR_TYPE,
    CS,
    EFLAGS_ZF,
    ESP,
    SS,
    TYPE_CALL_GATE_16,
    TYPE_CALL_GATE_32,
    TYPE_LDT,
    TYPE_TASK_GATE,
    TYPE_TSS_16,
    TYPE_TSS_16_BUSY,
    TYPE_TSS_32,
    TYPE_TSS_32_BUSY,
)
from ..isa.system_ops import (
    SYSTEM_ARPL,
    SYSTEM_LAR,
    SYSTEM_LSL,
    SYSTEM_POP_SREG,
    SYSTEM_PUSH_SREG,
    SYSTEM_REGISTER_TO_SREG,
    SYSTEM_SREG_TO_REGISTER,
    SYSTEM_SYSENTER,
    SYSTEM_SYSEXIT,
    SYSTEM_VERR,
    SYSTEM_VERW,
)
from ..isa.vectors import (
    UD,
)
from .far import read_far_pointer
from .fast_call import sysenter, sysexit
from .fault import raise_plain
from .flags import get_eflags, set_eflags
from .jit import kernel
from .layout import HOLDS_DEBUG, OK
from .mode import (
    MASK_32,
    operand_bytes,
    peek_stack,
    push,
    stack_mask,
    write_register,
)
from .segment import (
    access_of,
    descriptor_address,
    dpl_of,
    is_conforming,
    is_null,
    is_readable,
    is_writable_data,
    limit_of,
    load_segment_register,
    read_descriptor_at,
)

LAR_TYPES = (
    1 << TYPE_TSS_16
    | 1 << TYPE_LDT
    | 1 << TYPE_TSS_16_BUSY
    | 1 << TYPE_CALL_GATE_16
    | 1 << TYPE_TASK_GATE
    | 1 << TYPE_TSS_32
    | 1 << TYPE_TSS_32_BUSY
    | 1 << TYPE_CALL_GATE_32
)
LSL_TYPES = 1 << TYPE_TSS_16 | 1 << TYPE_LDT | 1 << TYPE_TSS_16_BUSY | 1 << TYPE_TSS_32 | 1 << TYPE_TSS_32_BUSY


@kernel
def set_zero_flag(cpu, zero):
    """Write ZF and leave the other flags."""
    image = get_eflags(cpu) & ~EFLAGS_ZF
    if zero:
        image |= EFLAGS_ZF
    set_eflags(cpu, image)


@kernel
def inspect(cpu, ram, selector):
    """Read a descriptor without faulting on the selector: (outcome, found, low, high)."""
    if is_null(selector):
        return OK, False, 0, 0
    gla = descriptor_address(cpu, selector)
    if gla < 0:
        return OK, False, 0, 0
    outcome, low, high = read_descriptor_at(cpu, ram, gla)
    return outcome, True, low, high


@kernel
def visible(cpu, selector, access):
    """May the current code look at this descriptor: conforming code, or CPL and RPL no less privileged than DPL?"""
    return is_conforming(access) or (cpu.cpl <= dpl_of(access) and selector & 3 <= dpl_of(access))


@kernel
def load_access_or_limit(cpu, ram, u, types):
    """LAR and LSL: ZF tells whether the destination was written."""
    selector = cpu.gpr[u.src] & 0xFFFF
    outcome, found, low, high = inspect(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if access & AR_S == 0:
        found = found and (types >> (access & AR_TYPE)) & 1 == 1
    found = found and visible(cpu, selector, access)
    if found:
        value = high & 0x00FFFF00
        if u.dst_shift == SYSTEM_LSL:
            value = limit_of(low, high)
        write_register(cpu, u.dst, 0, u.width, value)
    set_zero_flag(cpu, found)
    return OK


@kernel
def verify(cpu, ram, u):
    """VERR and VERW."""
    selector = cpu.gpr[u.src] & 0xFFFF
    outcome, found, _, high = inspect(cpu, ram, selector)
    if outcome != OK:
        return outcome
    access = access_of(high)
    if u.dst_shift == SYSTEM_VERR:
        found = found and is_readable(access)
    else:
        found = found and is_writable_data(access)
    set_zero_flag(cpu, found and visible(cpu, selector, access))
    return OK


@kernel
def arpl(cpu, u):
    """ARPL: `dst` holds the selector to adjust (register or loaded operand), `src` the one to compare with."""
    selector = cpu.gpr[u.dst]
    level = cpu.gpr[u.src] & 3
    lower = selector & 3 < level
    if lower:
        cpu.gpr[u.dst] = (selector & ~3) | level
    set_zero_flag(cpu, lower)
    return OK


# -- segment registers --------------------------------------------------------------------------------------------------


@kernel
def register_to_sreg(cpu, ram, u):
    """MOV Sreg, r/m16. Loading SS holds interrupts and debug exceptions off for one instruction. CS is #UD."""
    if u.condition == CS:
        return raise_plain(cpu, UD)
    outcome = load_segment_register(cpu, ram, u.condition, cpu.gpr[u.src])
    if outcome == OK and u.condition == SS:
        cpu.shadow = HOLDS_DEBUG
    return outcome


@kernel
def pop_sreg(cpu, ram, u):
    """POP Sreg: the stack pointer moves in the size of the stack that was popped from."""
    n = operand_bytes(u.width)
    outcome, selector = peek_stack(cpu, ram, 0, n)
    if outcome != OK:
        return outcome
    mask = stack_mask(cpu.seg[SS].access)
    pointer = (cpu.gpr[ESP] & ~mask & MASK_32) | ((cpu.gpr[ESP] + n) & mask)
    outcome = load_segment_register(cpu, ram, u.condition, selector)
    if outcome != OK:
        return outcome
    cpu.gpr[ESP] = pointer
    if u.condition == SS:
        cpu.shadow = HOLDS_DEBUG
    return OK


@kernel
def load_far_pointer(cpu, ram, u):
    """LDS, LES, LSS, LFS, LGS."""
    outcome, selector, offset = read_far_pointer(cpu, ram, u)
    if outcome != OK:
        return outcome
    outcome = load_segment_register(cpu, ram, u.condition, selector)
    if outcome == OK:
        write_register(cpu, u.dst, 0, u.width, offset)
    return outcome


@kernel
def selector_instruction(cpu, ram, u):
    """The operations SYSTEM_SYSENTER to SYSTEM_LOAD_FAR_POINTER."""
    op = u.dst_shift
    if op == SYSTEM_SYSENTER:
        return sysenter(cpu)
    if op == SYSTEM_SYSEXIT:
        return sysexit(cpu)
    if op == SYSTEM_LAR:
        return load_access_or_limit(cpu, ram, u, LAR_TYPES)
    if op == SYSTEM_LSL:
        return load_access_or_limit(cpu, ram, u, LSL_TYPES)
    if op == SYSTEM_VERR or op == SYSTEM_VERW:
        return verify(cpu, ram, u)
    if op == SYSTEM_ARPL:
        return arpl(cpu, u)
    if op == SYSTEM_REGISTER_TO_SREG:
        return register_to_sreg(cpu, ram, u)
    if op == SYSTEM_SREG_TO_REGISTER:
        write_register(cpu, u.dst, 0, u.width, cpu.seg[u.condition].selector)
        return OK
    if op == SYSTEM_PUSH_SREG:
        return push(cpu, ram, operand_bytes(u.width), cpu.seg[u.condition].selector)
    if op == SYSTEM_POP_SREG:
        return pop_sreg(cpu, ram, u)
    return load_far_pointer(cpu, ram, u)

"""SYSENTER and SYSEXIT: flat segments whatever the tables say (SDM volume 2)."""


from ..isa.registers import (
    AR_DB,
    AR_G,
    AR_P,
    AR_S,
    CS,
    ECX,
    EDX,
    EFLAGS_IF,
    EFLAGS_RF,
    EFLAGS_VM,
    ESP,
    SS,
)
from ..isa.vectors import (
    GP,
)
from .fault import raise_fault
from .jit import kernel
from .layout import OK
from .mode import (
    MASK_32,
    in_real_mode,
    set_context,
    set_cpl,
)
from .segment import (
    segment_limits,
)

FLAT_CODE = AR_G | AR_DB | AR_P | AR_S | 11  # execute/read, accessed
FLAT_DATA = AR_G | AR_DB | AR_P | AR_S | 3  # read/write, accessed


@kernel
def set_flat_segment(cpu, segment, selector, access):
    """A segment of 4 GB from 0, loaded without reading a descriptor."""
    entry = cpu.seg[segment]
    entry.selector = selector & 0xFFFF
    entry.access = access
    entry.seg_base = 0
    entry.limit = MASK_32
    segment_limits(cpu, segment)


@kernel
def enter_flat(cpu, code_selector, level, eip, pointer):
    """Flat CS:EIP and SS:ESP at a privilege level; SS stands 8 behind CS."""
    set_flat_segment(cpu, CS, code_selector | level, FLAT_CODE | level << 5)
    set_flat_segment(cpu, SS, (code_selector + 8) | level, FLAT_DATA | level << 5)
    cpu.gpr[ESP] = pointer
    cpu.rip = eip
    set_cpl(cpu, level)
    set_context(cpu)


@kernel
def sysenter(cpu):
    """SYSENTER: from any ring to ring 0, with IF clear."""
    selector = cpu.sysenter_cs & 0xFFFC
    if selector == 0 or in_real_mode(cpu):
        return raise_fault(cpu, GP, 0)
    cpu.eflags &= ~(EFLAGS_VM | EFLAGS_IF | EFLAGS_RF)
    enter_flat(cpu, selector, 0, cpu.sysenter_eip & MASK_32, cpu.sysenter_esp & MASK_32)
    return OK


@kernel
def sysexit(cpu):
    """SYSEXIT: from ring 0 to ring 3 at EDX, with the stack pointer of ECX."""
    selector = cpu.sysenter_cs & 0xFFFC
    if selector == 0 or cpu.cpl != 0 or in_real_mode(cpu):
        return raise_fault(cpu, GP, 0)
    enter_flat(cpu, selector + 16, 3, cpu.gpr[EDX], cpu.gpr[ECX])
    return OK

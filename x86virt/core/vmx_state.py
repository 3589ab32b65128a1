"""Processor state as VM entry and VM exit load it, without the checks of the instructions that load the same registers."""

from ..isa.registers import CR0_CD, CR0_ET, CR0_IMPLEMENTED, CR0_NW, EFLAGS_IMPLEMENTED, EFLAGS_VM
from .flags import set_eflags
from .jit import inline, kernel
from .mode import set_context, set_cpl
from .segment import set_plain_limits

CR0_KEPT = CR0_ET | CR0_CD | CR0_NW  # bits that no transition changes


@inline
def load_segment_state(cpu, segment, selector, seg_base, limit, access):
    """Load all parts of a segment register; one that is unusable keeps them beside the mark that it is."""
    entry = cpu.seg[segment]
    entry.selector = selector & 0xFFFF
    entry.seg_base = seg_base
    entry.limit = limit
    entry.access = access
    set_plain_limits(entry, access, limit)


@inline
def cr0_loaded(cpu, value):
    """CR0 behind a transition that loads `value`: ET, CD, NW and reserved bits stay as they are (section 26.3.2.1)."""
    return (value & CR0_IMPLEMENTED & ~CR0_KEPT) | (cpu.cr0 & CR0_KEPT)


@kernel
def load_flags(cpu, value):
    """Load RFLAGS."""
    set_eflags(cpu, value & EFLAGS_IMPLEMENTED)


@kernel
def enter_code(cpu, level):
    """Begin to execute at a privilege level; all of CS, CR0, RFLAGS and cpu.world are loaded."""
    if cpu.eflags & EFLAGS_VM != 0:
        level = 3
    set_cpl(cpu, level)
    set_context(cpu)

"""Micro-operations that hand control to the loop's caller instead of executing an instruction."""

from ..isa.registers import EBX
from ..isa.vectors import UD
from .fault import raise_plain
from .jit import kernel
from .layout import EDGE_FAULT, EDGE_SYSTEM, MARK_BEGIN, MARK_END, PROBE


@kernel
def raise_invalid_opcode(cpu, ram, u):
    """#UD: an opcode that the processor does not have, or a LOCK prefix where none may be."""
    return EDGE_FAULT + raise_plain(cpu, UD)


@kernel
def stop_probe(cpu, ram, u):
    """The instruction's row is in the probe mask: report it before it executes."""
    cpu.probe_row = u.imm
    return EDGE_FAULT + PROBE


@kernel
def stop_mark(cpu, ram, u):
    """XCHG BX,BX begins a measured region, XCHG CX,CX ends it; both are no operation."""
    cpu.mark = MARK_END
    if u.dst == EBX:
        cpu.mark = MARK_BEGIN
    cpu.rip = u.target
    return EDGE_SYSTEM

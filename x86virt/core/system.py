"""The system instructions (SDM volume 2). Which field carries which operand is told in `isa/system_ops.py`.

A handler runs with `cpu.rip` at the next instruction and after its price was charged. It returns OK, or FAULT with
nothing committed. Privilege that is plainly CPL 0 was checked at decoding.
"""

from ..isa.registers import (
    EFLAGS_OF,
)
from ..isa.system_ops import (
    SYSTEM_CALL_FAR_INDIRECT,
    SYSTEM_HLT,
    SYSTEM_IN,
    SYSTEM_INT3,
    SYSTEM_INT_N,
    SYSTEM_INTO,
    SYSTEM_INVD,
    SYSTEM_INVLPGA,
    SYSTEM_INVVPID,
    SYSTEM_IRET,
    SYSTEM_LMSW,
    SYSTEM_LOAD_FAR_POINTER,
    SYSTEM_OUT,
    SYSTEM_POPF,
    SYSTEM_PUSHF,
    SYSTEM_RDPMC,
    SYSTEM_STI,
    SYSTEM_UD2,
    SYSTEM_VMCALL,
    SYSTEM_VMRUN,
    SYSTEM_WBINVD,
    SYSTEM_WRMSR,
)
from ..isa.vectors import (
    BP,
    KIND_SOFTWARE_EXCEPTION,
    KIND_SOFTWARE_INTERRUPT,
    OF,
    UD,
)
from .control import control_instruction
from .debug import int1
from .deliver import software_interrupt
from .extensions import svm_instruction, vmx_instruction
from .far import far_instruction
from .fault import raise_plain
from .flags import get_eflags
from .iret import iret, iret_16
from .jit import inline, kernel
from .layout import OK
from .performance import rdpmc
from .ports import port_in, port_out
from .privileged_flags import popf, pushf, sti
from .selectors import selector_instruction
from .table_registers import table_instruction

# -- flags, halting, interrupts -----------------------------------------------------------------------------------------


@kernel
def into(cpu, ram):
    """INTO."""
    if get_eflags(cpu) & EFLAGS_OF:
        return software_interrupt(cpu, ram, OF, KIND_SOFTWARE_EXCEPTION)
    return OK


@inline
def iret_of_width(cpu, ram, u):
    """IRET and IRETD."""
    if u.width == 16:
        return iret_16(cpu, ram)
    return iret(cpu, ram)


@inline
def flag_instruction(cpu, ram, board, u):
    """The operations SYSTEM_STI to SYSTEM_OUT."""
    op = u.dst_shift
    if op == SYSTEM_STI:
        return sti(cpu)
    if op == SYSTEM_PUSHF:
        return pushf(cpu, ram, u)
    if op == SYSTEM_POPF:
        return popf(cpu, ram, u)
    if op == SYSTEM_HLT:
        cpu.halted = 1
        return OK
    if op == SYSTEM_INT_N:
        return software_interrupt(cpu, ram, u.imm & 0xFF, KIND_SOFTWARE_INTERRUPT)
    if op == SYSTEM_INT3:
        return software_interrupt(cpu, ram, BP, KIND_SOFTWARE_EXCEPTION)
    if op == SYSTEM_INTO:
        return into(cpu, ram)
    if op == SYSTEM_IRET:
        return iret_of_width(cpu, ram, u)
    if op == SYSTEM_IN:
        return port_in(cpu, ram, board, u)
    return port_out(cpu, ram, board, u)


@kernel
def rare_instruction(cpu, ram, u):
    """The operations from SYSTEM_UD2 on."""
    op = u.dst_shift
    if op == SYSTEM_WBINVD or op == SYSTEM_INVD:
        return OK
    if op == SYSTEM_UD2:
        return raise_plain(cpu, UD)
    if op == SYSTEM_RDPMC:
        return rdpmc(cpu)
    if SYSTEM_VMRUN <= op <= SYSTEM_INVLPGA:
        return svm_instruction(cpu, ram, u)
    if SYSTEM_VMCALL <= op <= SYSTEM_INVVPID:
        return vmx_instruction(cpu, ram, u)
    return int1(cpu, ram)


@kernel
def system_instruction(cpu, ram, board, u):
    """Execute the system instruction whose operation number (`isa/system_ops.py`) is in `u.dst_shift`."""
    op = u.dst_shift
    if op <= SYSTEM_OUT:
        return flag_instruction(cpu, ram, board, u)
    if op <= SYSTEM_LMSW:
        return table_instruction(cpu, ram, u)
    if op <= SYSTEM_WRMSR:
        return control_instruction(cpu, ram, u)
    if op <= SYSTEM_LOAD_FAR_POINTER:
        return selector_instruction(cpu, ram, u)
    if op <= SYSTEM_CALL_FAR_INDIRECT:
        return far_instruction(cpu, ram, u)
    return rare_instruction(cpu, ram, u)

"""Debug registers and the debug exception (SDM volume 3, sections 6.15 interrupt 1, 17.2 and 17.3; volume 2, MOV DR, INT1).

Traps are collected while an instruction executes (`cpu.debug_hits`, and TF and a task's T flag in `cpu.debug_pending`)
and raised as one #DB at the instruction boundary. After MOV SS or POP SS they wait for one more instruction.
"""

from ..isa.registers import CR4_DE, EFLAGS_RF
from ..isa.vectors import DB, KIND_PRIVILEGED_EXCEPTION, UD
from .breakpoints import DR6_BD, DR7_GD, note_debug_registers, raise_debug
from .debug_registers import DR6_FIXED, DR6_WRITABLE, DR7_FIXED, DR7_WRITABLE, set_debug_register
from .deliver import deliver_event, software_interrupt
from .fault import raise_plain
from .jit import inline, kernel
from .layout import HOLDS_DEBUG, OK


@kernel
def check_debug_register(cpu, number):
    """#UD for DR4 and DR5 under CR4.DE; #DB for any of them under general detect, before the instruction."""
    if (number == 4 or number == 5) and cpu.cr4 & CR4_DE != 0:
        return raise_plain(cpu, UD)
    if cpu.dr[7] & DR7_GD != 0:
        cpu.eflags |= EFLAGS_RF  # a fault that is no instruction breakpoint pushes RF as 1 (section 17.3.1.1)
        return raise_debug(cpu, DR6_BD)
    return OK


@inline
def register_of(number):
    """DR4 and DR5 are DR6 and DR7."""
    if number == 4 or number == 5:
        return number + 2
    return number


@kernel
def register_to_dr(cpu, u):
    """MOV DRn, r32."""
    outcome = check_debug_register(cpu, u.condition)
    if outcome == OK:
        set_debug_register(cpu, register_of(u.condition), cpu.gpr[u.src])
    return outcome


@kernel
def dr_to_register(cpu, u):
    """MOV r32, DRn."""
    outcome = check_debug_register(cpu, u.condition)
    if outcome != OK:
        return outcome
    number = register_of(u.condition)
    value = cpu.dr[number]
    if number == 6:
        value = (value & DR6_WRITABLE) | DR6_FIXED
    elif number == 7:
        value = (value & DR7_WRITABLE) | DR7_FIXED
    cpu.gpr[u.dst] = value
    return OK


@kernel
def int1(cpu, ram):
    """INT1: the debug exception as a trap, without a look at the gate's DPL and without a bit in DR6."""
    note_debug_registers(cpu, 0)
    cpu.dr[7] &= ~DR7_GD
    return software_interrupt(cpu, ram, DB, KIND_PRIVILEGED_EXCEPTION)


# -- traps --------------------------------------------------------------------------------------------------------------


@inline
def debug_trap_waits(cpu):
    """Whether a debug trap is to be raised now."""
    cpu.debug_pending |= cpu.debug_hits
    cpu.debug_hits = 0
    return cpu.debug_pending != 0 and cpu.shadow != HOLDS_DEBUG


@kernel
def take_debug_trap(cpu, ram):
    """Raise all that waits as one #DB."""
    bits = cpu.debug_pending
    cpu.debug_pending = 0
    raise_debug(cpu, bits)
    return deliver_event(cpu, ram)

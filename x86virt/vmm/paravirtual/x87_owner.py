"""Whose x87 state the processor holds: it stays there until another domain uses it.

CR0.TS is set for every domain but the owner, so that their first x87 instruction traps, and the state changes hands.
"""

import numpy as np

from ...core.charge import charge as charge_hardware
from ...core.jit import kernel
from ...isa.events import EVENT_INS_FRSTOR, EVENT_INS_FSAVE
from ...isa.registers import CR0_TS

NOBODY = -1


@kernel
def put_fpu_away(cpu, domain):
    """Keep the x87 state of its owner."""
    for number in range(8):
        value = cpu.fpu_value[number]
        domain.fpu_sign[number] = value.sign
        domain.fpu_exponent[number] = value.exponent
        domain.fpu_high[number] = value.high
        domain.fpu_low[number] = value.low
    domain.fpu_control = cpu.fpu_control
    domain.fpu_status = cpu.fpu_status
    domain.fpu_occupied = cpu.fpu_occupied
    domain.fpu_instruction = cpu.fpu_instruction
    domain.fpu_instruction_selector = cpu.fpu_instruction_selector
    domain.fpu_operand = cpu.fpu_operand
    domain.fpu_operand_selector = cpu.fpu_operand_selector
    domain.fpu_opcode = cpu.fpu_opcode


@kernel
def take_fpu_up(cpu, domain):
    """Give the processor the x87 state that was kept."""
    for number in range(8):
        value = cpu.fpu_value[number]
        value.sign = np.int64(domain.fpu_sign[number])
        value.exponent = np.int64(domain.fpu_exponent[number])
        value.high = np.int64(domain.fpu_high[number])
        value.low = np.int64(domain.fpu_low[number])
        value.extra = 0
    cpu.fpu_control = np.int64(domain.fpu_control)
    cpu.fpu_status = np.int64(domain.fpu_status)
    cpu.fpu_occupied = np.int64(domain.fpu_occupied)
    cpu.fpu_instruction = np.int64(domain.fpu_instruction)
    cpu.fpu_instruction_selector = np.int64(domain.fpu_instruction_selector)
    cpu.fpu_operand = np.int64(domain.fpu_operand)
    cpu.fpu_operand_selector = np.int64(domain.fpu_operand_selector)
    cpu.fpu_opcode = np.int64(domain.fpu_opcode)


@kernel
def take_fpu(cpu, xen, domains):
    """Make the current domain the owner of the x87 state."""
    if xen.fpu_owner == xen.current:
        return
    if xen.fpu_owner != NOBODY:
        charge_hardware(cpu, EVENT_INS_FSAVE, 1)
        put_fpu_away(cpu, domains[xen.fpu_owner])
    charge_hardware(cpu, EVENT_INS_FRSTOR, 1)
    take_fpu_up(cpu, domains[xen.current])
    xen.fpu_owner = xen.current
    follow_task_switched(cpu, xen, domains)


@kernel
def follow_task_switched(cpu, xen, domains):
    """CR0.TS as the current domain asked for it, and set for all but the owner of the x87 state."""
    if np.int64(domains[xen.current].task_switched) != 0 or xen.fpu_owner != xen.current:
        cpu.cr0 |= CR0_TS
    else:
        cpu.cr0 &= ~CR0_TS

"""Privileged instructions of a domain, which raise #GP(0) in ring 1: those that the interface performs for it.

IN and OUT; CLI and STI, which change nothing (events are masked by a byte in memory); CLTS, WBINVD, moves to and from control and
debug registers, RDMSR, WRMSR, RDTSC and CPUID. Of all others, HLT among them, the #GP is the domain's own.
"""

import numpy as np

from ...core.charge import charge as charge_processor
from ...core.debug_registers import refresh_breakpoints
from ...core.identity import rdtsc
from ...core.jit import kernel
from ...core.layout import OK
from ...core.model_specific import rdmsr
from ...core.physical import write_physical
from ...isa.events import (
    EVENT_SYS_MOV_CR4_WRITE,
    EVENT_SYS_RDMSR,
    EVENT_SYS_WBINVD,
    EVENT_VMM_EMULATE_CONTROL_REGISTER,
    EVENT_VMM_EMULATE_FLAGS,
    EVENT_VMM_EMULATE_MSR,
    EVENT_VMM_TRAP_DISPATCH,
)
from ...isa.registers import CR0_TS, CR4_TSD, EAX, ECX, EDX
from .bounce import complete, is_kernel
from .charge import charge
from .debug_registers import GUEST_CR4, guest_register, set_guest_register
from .extended import switch_base
from .forced_cpuid import HYPERVISOR_LEAF, cpuid_of_domain
from .hypercall_page import write_hypercall_page
from .instruction_fetch import (
    NOT_FETCHED,
    begin_instruction,
    fetch,
    fetch_opcode,
    general_register,
    set_general_register,
)
from .interface import VCPU_CR2
from .ports import IN_DX, IN_IMMEDIATE, INS, PORT_MASK, STRING_MASK, access_port, has_port_privilege, port_string
from .trap_table import set_task_switched

M32 = 0xFFFFFFFF
CLI, STI, TWO_BYTES = 0xFA, 0xFB, 0x0F
CLTS, WBINVD, FROM_CR, FROM_DR, TO_CR, TO_DR = 0x06, 0x09, 0x20, 0x21, 0x22, 0x23
WRMSR, RDTSC, RDMSR, CPUID = 0x30, 0x31, 0x32, 0xA2
REGISTERS_ONLY = 0xC0  # the first ModRM without memory
# What performing one came to.
NOT_OURS, DONE, DELIVERED = 0, 1, 2  # DELIVERED: an exception of its own, or nothing is left to be done


@kernel
def charge_work(cpu, xen, path):
    """The way to the handler, and the handler's own path."""
    charge(cpu, xen, EVENT_VMM_TRAP_DISPATCH, 1)
    charge(cpu, xen, path, 1)


# -- control registers ----------------------------------------------------------------------------------------------------


@kernel
def control_register(cpu, xen, domain, number):
    """What MOV from a control register gives, -1 for those that there are not."""
    if number == 0:
        return (cpu.cr0 & ~CR0_TS) | np.int64(domain.task_switched) * CR0_TS
    if number == 2:
        return np.int64(domain.cr2)
    if number == 3:
        return np.int64(domain.base_frame) << 12
    if number == 4:
        return (cpu.cr4 & ~GUEST_CR4) | np.int64(domain.cr4)
    return -1


@kernel
def set_control_register(cpu, ram, xen, domains, frames, number, value):
    """MOV to a control register: True, or the domain may not."""
    domain = domains[xen.current]
    if number == 0:
        if (value ^ cpu.cr0) & ~CR0_TS != 0:
            return False
        set_task_switched(cpu, xen, domains, int(value & CR0_TS != 0))
    elif number == 2:
        domain.cr2 = value
        write_physical(cpu, ram, np.int64(domain.vcpu_info) + VCPU_CR2, 4, value)
    elif number == 3:
        return switch_base(cpu, ram, xen, domains, frames, value >> 12) == 0
    elif number == 4:
        domain.cr4 = value & GUEST_CR4
        charge_processor(cpu, EVENT_SYS_MOV_CR4_WRITE, 1)
        cpu.cr4 = (cpu.cr4 & ~GUEST_CR4) | (value & GUEST_CR4)
        refresh_breakpoints(cpu)
    else:
        return False
    return True


@kernel
def move_control_register(cpu, ram, xen, domains, frames, opcode, modrm):
    """MOV between a general and a control or debug register: DONE, or NOT_OURS."""
    domain = domains[xen.current]
    number, register = (modrm >> 3) & 7, modrm & 7
    if opcode & 1 == 0:
        number += 8 * xen.lock  # LOCK MOV CR0 is AMD's CR8
    charge_work(cpu, xen, EVENT_VMM_EMULATE_CONTROL_REGISTER)
    if opcode == FROM_CR or opcode == FROM_DR:
        value = guest_register(domain, number)
        if opcode == FROM_CR:
            value = control_register(cpu, xen, domain, number)
        if value < 0:
            return NOT_OURS
        set_general_register(cpu, domain, register, value)
        return DONE
    value = general_register(cpu, domain, register)
    if opcode == TO_CR:
        return int(set_control_register(cpu, ram, xen, domains, frames, number, value))
    return int(set_guest_register(cpu, domain, number, value) == 0)


# -- model-specific registers ---------------------------------------------------------------------------------------------


@kernel
def write_model_specific(cpu, ram, xen, domains, frames):
    """WRMSR: the page of hypercalls is written where it says; to no other register does the write go."""
    if cpu.gpr[ECX] == HYPERVISOR_LEAF:
        write_hypercall_page(cpu, ram, xen, domains, frames, cpu.gpr[EAX], cpu.gpr[EDX])


@kernel
def read_time_stamp(cpu, domain):
    """RDTSC of a domain that has CR4.TSD set: NOT_OURS in the rings that it forbids."""
    if np.int64(domain.cr4) & CR4_TSD != 0 and not is_kernel(domain):
        return NOT_OURS
    return int(rdtsc(cpu) == OK)


# -- by opcode --------------------------------------------------------------------------------------------------------------


@kernel
def perform_two_bytes(cpu, ram, xen, domains, frames, channels):
    """An instruction of the map behind 0F."""
    domain = domains[xen.current]
    opcode = fetch(cpu, ram, xen, domains, frames, channels)
    if opcode < 0:
        return DELIVERED * int(opcode == NOT_FETCHED)
    if not is_kernel(domain) and opcode != RDTSC and opcode != CPUID:
        return NOT_OURS
    if xen.lock == 1 and opcode & ~3 != FROM_CR:
        return NOT_OURS
    if opcode & ~3 == FROM_CR:
        modrm = fetch(cpu, ram, xen, domains, frames, channels)
        if modrm < REGISTERS_ONLY:
            return DELIVERED * int(modrm == NOT_FETCHED)
        return move_control_register(cpu, ram, xen, domains, frames, opcode, modrm)
    if opcode == CLTS:
        charge_work(cpu, xen, EVENT_VMM_EMULATE_CONTROL_REGISTER)
        set_task_switched(cpu, xen, domains, 0)
    elif opcode == WBINVD:
        charge_work(cpu, xen, EVENT_VMM_EMULATE_CONTROL_REGISTER)
        if np.int64(domain.is_privileged) != 0:
            charge_processor(cpu, EVENT_SYS_WBINVD, 1)
    elif opcode == WRMSR:
        charge_work(cpu, xen, EVENT_VMM_EMULATE_MSR)
        write_model_specific(cpu, ram, xen, domains, frames)
    elif opcode == RDMSR:
        charge_work(cpu, xen, EVENT_VMM_EMULATE_MSR)
        charge_processor(cpu, EVENT_SYS_RDMSR, 1)
        return int(rdmsr(cpu) == OK)
    elif opcode == RDTSC:
        charge_work(cpu, xen, EVENT_VMM_EMULATE_MSR)
        return read_time_stamp(cpu, domain)
    elif opcode == CPUID:
        charge_work(cpu, xen, EVENT_VMM_EMULATE_MSR)
        cpuid_of_domain(cpu, domain)
    else:
        return NOT_OURS
    return DONE


@kernel
def perform(cpu, ram, xen, domains, frames, channels, board):
    """Decode and perform the instruction at which the domain trapped."""
    domain = domains[xen.current]
    if not begin_instruction(cpu, ram, xen, domains, frames):
        return NOT_OURS
    opcode = fetch_opcode(cpu, ram, xen, domains, frames, channels)
    if opcode < 0:
        return DELIVERED * int(opcode == NOT_FETCHED)
    if opcode == TWO_BYTES:
        return perform_two_bytes(cpu, ram, xen, domains, frames, channels)
    if xen.lock == 1:
        return NOT_OURS
    if opcode & STRING_MASK == INS:
        return DELIVERED * port_string(cpu, ram, xen, domains, frames, channels, board, opcode)
    if opcode & PORT_MASK == IN_IMMEDIATE or opcode & PORT_MASK == IN_DX:
        return DELIVERED * access_port(cpu, ram, xen, domains, frames, channels, board, opcode)
    if (opcode == CLI or opcode == STI) and has_port_privilege(domain):
        charge_work(cpu, xen, EVENT_VMM_EMULATE_FLAGS)
        return DONE
    return NOT_OURS


@kernel
def perform_privileged(cpu, ram, xen, domains, frames, channels, board):
    """#GP(0): 1 if the VMM performed the instruction, or delivered an exception of its; 0 if the #GP is the domain's."""
    outcome = perform(cpu, ram, xen, domains, frames, channels, board)
    if outcome == DONE:
        complete(cpu, ram, xen, domains, frames, channels, 0)
    return int(outcome != NOT_OURS)

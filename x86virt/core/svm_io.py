"""Intercepts of ports: the I/O permission map and EXITINFO1 (AMD publication 24593, section 15.10).

The exceptions that IOPL and the TSS's bitmap make come first; those of a string instruction's memory operand come after.
"""

from ..isa.registers import ECX, EDX
from ..isa.svm import (
    EXIT_IOIO,
    INTERCEPT_IOIO,
    IO_ADDRESS_16,
    IO_ADDRESS_32,
    IO_IN,
    IO_PORT_SHIFT,
    IO_REP,
    IO_SIZE_SHIFT,
    IO_STRING,
)
from ..isa.system_ops import INTERCEPT_INS, SYSTEM_IN
from .cache import VMM, reference
from .jit import kernel
from .layout import OK, VM_EXIT
from .mode import operand_bytes
from .physical import read_memory
from .ports import check_port, port_of


@kernel
def port_intercepted(cpu, ram, port, n):
    """Whether the map has the bit of any of `n` ports; the bits behind FFFF are those of ports that wrap around."""
    address = cpu.svm.iopm + (port >> 3)
    reference(cpu, address, VMM)
    bits = read_memory(cpu, ram, address, 1) | read_memory(cpu, ram, address + 1, 1) << 8
    return (bits >> (port & 7)) & ((1 << n) - 1) != 0


@kernel
def intercept_access(cpu, ram, u, port, information):
    """One access to `u.width` bits of ports, of which EXITINFO1 says `information` besides what is here."""
    n = operand_bytes(u.width)
    outcome = check_port(cpu, ram, port, n)
    if outcome != OK or not port_intercepted(cpu, ram, port, n):
        return outcome
    if u.address_mask == 0xFFFF:
        information |= IO_ADDRESS_16
    else:
        information |= IO_ADDRESS_32
    cpu.vm_exit.reason = EXIT_IOIO
    cpu.vm_exit.qualification = information | n << IO_SIZE_SHIFT | port << IO_PORT_SHIFT
    cpu.vm_exit.gpa = u.target
    cpu.svm.next_rip = u.target
    return VM_EXIT


@kernel
def intercept_port(cpu, ram, u):
    """IN and OUT."""
    if cpu.svm.intercepts_1 & INTERCEPT_IOIO == 0:
        return OK
    return intercept_access(cpu, ram, u, port_of(cpu, u), int(u.dst_shift == SYSTEM_IN) * IO_IN)


@kernel
def intercept_port_string(cpu, ram, u):
    """INS and OUTS; with REP (`u.imm`) and a count of zero there is no access."""
    repeated = int(u.imm != 0)
    if cpu.svm.intercepts_1 & INTERCEPT_IOIO == 0 or (repeated == 1 and cpu.gpr[ECX] & u.address_mask == 0):
        return OK
    information = IO_STRING | repeated * IO_REP | int(u.dst_shift == INTERCEPT_INS) * IO_IN
    return intercept_access(cpu, ram, u, cpu.gpr[EDX] & 0xFFFF, information)

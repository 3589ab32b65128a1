"""Debug registers of a domain: set_debugreg, get_debugreg, and what is loaded for it."""

import numpy as np

from ...core.debug_registers import DR6_FIXED, DR6_WRITABLE, DR7_FIXED, set_debug_register
from ...core.jit import kernel
from ...isa.events import EVENT_VMM_SMALL_HYPERCALL
from ...isa.registers import CR4_DE, CR4_TSD, EBX, ECX
from .charge import charge
from .guest_access import is_within
from .interface import EINVAL, EPERM

DR7_GUEST = 0xFFFF23FF  # without LE's and GE's neighbours, which are reserved
DR7_GD = 1 << 13
DR7_ENABLES = 0xFF
FIRST_KIND, KIND_BITS, PORTS = 16, 4, 2  # where the kind of each breakpoint stands, and that of ports
STASH = 5  # the guest's breakpoints on ports, which are the VMM's to serve, as they stand in DR7
GUEST_CR4 = CR4_TSD | CR4_DE


@kernel
def port_breakpoints(value):
    """The enabling bits of the breakpoints on ports in an image of DR7."""
    enables = 0
    for number in range(4):
        if (value >> (FIRST_KIND + KIND_BITS * number)) & 3 == PORTS:
            enables |= value & (3 << (2 * number))
    return enables


@kernel
def has_port_kind(value):
    """Whether some breakpoint in an image of DR7 is one on ports, enabled or not."""
    for number in range(4):
        if (value >> (FIRST_KIND + KIND_BITS * number)) & 3 == PORTS:
            return True
    return False


@kernel
def set_guest_register(cpu, domain, number, value):
    """Write a debug register for the domain that runs: 0, or an error."""
    if number < 4:
        if not is_within(domain, value, 4):
            return -EPERM
        domain.dr[number] = value
        set_debug_register(cpu, number, value)
        return 0
    if number == 6:
        domain.dr[6] = (value & DR6_WRITABLE) | DR6_FIXED
        set_debug_register(cpu, 6, value)
        return 0
    if number != 7:
        return -EINVAL
    value = (value & DR7_GUEST) | DR7_FIXED
    if value & DR7_GD != 0:
        return -EPERM
    stash = 0
    if value & DR7_ENABLES != 0:
        if has_port_kind(value) and np.int64(domain.cr4) & CR4_DE == 0:
            return -EPERM
        stash = port_breakpoints(value)
    domain.dr[STASH] = stash
    domain.dr[7] = value & ~stash
    set_debug_register(cpu, 7, value & ~stash)
    return 0


@kernel
def guest_register(domain, number):
    """A debug register of a domain, or an error."""
    if number < 4 or number == 6:
        return np.int64(domain.dr[number])
    if number == 7:
        return np.int64(domain.dr[7]) | np.int64(domain.dr[STASH])
    return -EINVAL


@kernel
def do_set_debugreg(cpu, ram, xen, domains, frames, channels):
    """set_debugreg(number, value)."""
    charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
    return set_guest_register(cpu, domains[xen.current], cpu.gpr[EBX], cpu.gpr[ECX])


@kernel
def do_get_debugreg(cpu, ram, xen, domains, frames, channels):
    """get_debugreg(number)."""
    charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
    return guest_register(domains[xen.current], cpu.gpr[EBX])


@kernel
def load_debug_registers(cpu, domains, index):
    """Give a domain its debug registers, and its bits of CR4, when the processor comes to it."""
    domain = domains[index]
    cpu.cr4 = (cpu.cr4 & ~GUEST_CR4) | np.int64(domain.cr4)
    if np.int64(domain.dr[7]) & DR7_ENABLES != 0:
        for number in range(4):
            set_debug_register(cpu, number, np.int64(domain.dr[number]))
    set_debug_register(cpu, 6, np.int64(domain.dr[6]))
    set_debug_register(cpu, 7, np.int64(domain.dr[7]))

"""IN, OUT, INS and OUTS of a domain that trapped: whether it may, and the machine's own ports behind them.

A port is a domain's if it asked for it (its IOPL, or an I/O bitmap, which is the processor's and does not trap) and the machine's
owner has granted it: all ports to domain 0; to others those by which a guest says how it fared.
"""

import numpy as np

from ...core.charge import charge as charge_processor
from ...core.jit import kernel
from ...core.ports import receive_from_port, send_to_port
from ...core.segment import access_of, base_of, is_readable, is_writable_data, limit_of
from ...isa.events import EVENT_SYS_IN_PORT_LPC, EVENT_SYS_OUT_PORT_LPC, EVENT_VMM_EMULATE_PORT, EVENT_VMM_TRAP_DISPATCH
from ...isa.registers import AR_P, CR4_DE, EAX, ECX, EDI, EDX, EFLAGS_DF, ES, ESI, PF_W
from .bounce import KERNEL_RING, complete, guest_page_fault, is_kernel
from .charge import charge
from .debug_registers import FIRST_KIND, KIND_BITS, STASH
from .guest_access import FAULTED, is_within, load_guest, store_guest
from .instruction_fetch import NOT_FETCHED, descriptor_of, fetch, selector_of, set_part

M32 = 0xFFFFFFFF
USER_RING = 3
GRANTED_PORTS = (0x80, 0xE9, 0xF4, 0x8900)  # POST code, console, exit, shutdown
IN_IMMEDIATE, IN_DX, PORT_MASK = 0xE4, 0xEC, 0xFC  # IN AL, IN eAX, OUT AL, OUT eAX, four in a row
INS, STRING_MASK = 0x6C, 0xFC  # INSB, INS, OUTSB, OUTS
WIDE, OUT = 1, 2  # the two lowest bits of such an opcode
BREAKPOINT_BYTES = (1, 2, 8, 4)  # by the length field of DR7
ITERATIONS = 4096  # of a REP at most, before the domain is looked at again


@kernel
def has_port_privilege(domain):
    """Whether the IOPL that the domain asked for lets its ring use ports: the kernel, in ring 1, with an IOPL of 1."""
    ring = USER_RING
    if is_kernel(domain):
        ring = KERNEL_RING
    return np.int64(domain.iopl) >= ring


@kernel
def is_granted(domain, port):
    """Whether the domain may use a port at all, and asked for it."""
    if not has_port_privilege(domain):
        return False
    if np.int64(domain.is_privileged) != 0:
        return True
    for granted in GRANTED_PORTS:
        if port == granted:
            return True
    return False


@kernel
def met_breakpoints(domain, port, n):
    """DR6's bits of the domain's breakpoints on these ports."""
    stash = np.int64(domain.dr[STASH])
    if stash == 0 or np.int64(domain.cr4) & CR4_DE == 0:
        return 0
    met = 0
    for number in range(4):
        if stash & (3 << (2 * number)) != 0:
            start = np.int64(domain.dr[number])
            length = BREAKPOINT_BYTES[(np.int64(domain.dr[7]) >> (FIRST_KIND + KIND_BITS * number + 2)) & 3]
            if start < port + n and start + length > port:
                met |= 1 << number
    return met


@kernel
def read_ports(cpu, board, port, n):
    """IN by the VMM, for the domain."""
    charge_processor(cpu, EVENT_SYS_IN_PORT_LPC, 1)
    return receive_from_port(cpu, board, port, n)


@kernel
def write_ports(cpu, board, port, n, value):
    """OUT by the VMM, for the domain."""
    charge_processor(cpu, EVENT_SYS_OUT_PORT_LPC, 1)
    send_to_port(cpu, board, port, n, value)


@kernel
def access_bytes(xen, opcode):
    """Bytes of an access: one, or those of the operand size."""
    if opcode & WIDE == 0:
        return 1
    return xen.operand_bytes


@kernel
def access_port(cpu, ram, xen, domains, frames, channels, board, opcode):
    """IN or OUT: 1, or 0 if the domain may not."""
    domain = domains[xen.current]
    port, n = cpu.gpr[EDX] & 0xFFFF, access_bytes(xen, opcode)
    if opcode & PORT_MASK == IN_IMMEDIATE:
        port = fetch(cpu, ram, xen, domains, frames, channels)
        if port < 0:
            return int(port == NOT_FETCHED)
    if not is_granted(domain, port):
        return 0
    charge(cpu, xen, EVENT_VMM_TRAP_DISPATCH, 1)
    charge(cpu, xen, EVENT_VMM_EMULATE_PORT, 1)
    if opcode & OUT != 0:
        write_ports(cpu, board, port, n, cpu.gpr[EAX] & ((1 << (8 * n)) - 1))
    else:
        set_part(cpu, EAX, n, read_ports(cpu, board, port, n))
    complete(cpu, ram, xen, domains, frames, channels, met_breakpoints(domain, port, n))
    return 1


# -- strings ------------------------------------------------------------------------------------------------------------


@kernel
def string_segment(cpu, ram, xen, domains, frames, opcode):
    """The segment of a string's memory operand: (whether it may be used, base, limit)."""
    segment = ES
    if opcode & OUT != 0:
        segment = xen.data_segment
    there, low, high = descriptor_of(cpu, ram, xen, domains, frames, selector_of(domains[xen.current], segment))
    access = access_of(high)
    usable = there and access & AR_P != 0
    if opcode & OUT != 0:
        usable = usable and is_readable(access)
    else:
        usable = usable and is_writable_data(access)
    return usable, base_of(low, high), limit_of(low, high)


@kernel
def address_register(cpu, xen, number):
    """A register as the address size has it."""
    return cpu.gpr[number] & ((1 << (8 * xen.address_bytes)) - 1)


@kernel
def refused_address(cpu, domain, gla, n):
    """Where an access to the guest's memory faulted that came to nothing: the processor says it, if it was asked."""
    if not is_within(domain, gla, n):
        return gla
    return cpu.cr2


@kernel
def string_once(cpu, ram, xen, domains, frames, channels, board, opcode, base, limit, port, n):
    """One iteration: 1, 0 if it may not be made, -1 if a page fault was delivered."""
    domain = domains[xen.current]
    register = EDI
    if opcode & OUT != 0:
        register = ESI
    offset = address_register(cpu, xen, register)
    if limit < n - 1 or offset > limit - (n - 1) or not is_granted(domain, port):
        return 0
    gla = (base + offset) & M32
    charge(cpu, xen, EVENT_VMM_EMULATE_PORT, 1)
    if opcode & OUT != 0:
        value = load_guest(cpu, ram, domain, gla, n)
        if value == FAULTED:
            guest_page_fault(cpu, ram, xen, domains, frames, channels, refused_address(cpu, domain, gla, n), 0)
            return -1
        write_ports(cpu, board, port, n, value)
    elif store_guest(cpu, ram, domain, gla, n, read_ports(cpu, board, port, n)) == FAULTED:
        guest_page_fault(cpu, ram, xen, domains, frames, channels, refused_address(cpu, domain, gla, n), PF_W)
        return -1
    step = n
    if np.int64(domain.eflags) & EFLAGS_DF != 0:
        step = -n
    set_part(cpu, register, xen.address_bytes, offset + step)
    return 1


@kernel
def port_string(cpu, ram, xen, domains, frames, channels, board, opcode):
    """INS or OUTS, with or without REP: 1, or 0 if the domain may not."""
    domain = domains[xen.current]
    port, n = cpu.gpr[EDX] & 0xFFFF, access_bytes(xen, opcode)
    usable, base, limit = string_segment(cpu, ram, xen, domains, frames, opcode)
    if not usable:
        return 0
    charge(cpu, xen, EVENT_VMM_TRAP_DISPATCH, 1)
    left = 1
    if xen.repeat == 1:
        left = address_register(cpu, xen, ECX)
    for _ in range(min(left, ITERATIONS)):
        outcome = string_once(cpu, ram, xen, domains, frames, channels, board, opcode, base, limit, port, n)
        if outcome != 1:
            return abs(outcome)
        left -= 1
        if xen.repeat == 1:
            set_part(cpu, ECX, xen.address_bytes, left)
    if left == 0:
        complete(cpu, ram, xen, domains, frames, channels, met_breakpoints(domain, port, n))
    return 1

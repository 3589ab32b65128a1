"""The bytes of an instruction that the VMM performs for a domain, and its prefixes: by the descriptor of CS as it stands now."""

import numpy as np

from ...core.jit import kernel
from ...core.layout import OK
from ...core.segment import access_of, base_of, is_code, limit_of, read_descriptor
from ...isa.registers import AR_DB, AR_P, CS, DS, ES, ESP, FS, GS, SS
from ...isa.vectors import PF
from .bounce import guest_page_fault
from .frames import DATA_SEGMENTS
from .guest_access import FAULTED, fault, load_guest
from .local_table import map_faulting_ldt_page

M32 = 0xFFFFFFFF
MAX_PREFIXES = 8
NOT_THERE = -1  # beyond the limit of CS
NOT_FETCHED = -2  # a page fault, which has been delivered
OPERAND_SIZE, ADDRESS_SIZE, LOCK, REPNE, REP = 0x66, 0x67, 0xF0, 0xF2, 0xF3
SEGMENT_PREFIXES = (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65)  # ES, CS, SS, DS, FS, GS, as segment registers are numbered
assert (ES, CS, SS, DS, FS, GS) == tuple(range(6))


@kernel
def selector_of(domain, segment):
    """The selector that a domain has in a segment register."""
    if segment == CS:
        return np.int64(domain.cs)
    if segment == SS:
        return np.int64(domain.ss)
    for number in range(len(DATA_SEGMENTS)):
        if DATA_SEGMENTS[number] == segment:
            return np.int64(domain.selectors[number])
    return 0


@kernel
def general_register(cpu, domain, number):
    """A general register of the domain that runs; ESP is in the frame."""
    if number == ESP:
        return np.int64(domain.esp)
    return cpu.gpr[number]


@kernel
def set_general_register(cpu, domain, number, value):
    """Write a general register of the domain that runs."""
    if number == ESP:
        domain.esp = value
    else:
        cpu.gpr[number] = value


@kernel
def set_part(cpu, number, octets, value):
    """Write the low bytes of a general register other than ESP."""
    mask = (1 << (8 * octets)) - 1
    cpu.gpr[number] = (cpu.gpr[number] & ~mask & M32) | (value & mask)


@kernel
def descriptor_of(cpu, ram, xen, domains, frames, selector):
    """The descriptor behind a selector of the domain's, as the VMM looks it up: (whether there is one, low, high)."""
    if selector & ~3 == 0:
        return False, 0, 0
    outcome, low, high = read_descriptor(cpu, ram, selector)
    if outcome != OK and cpu.event_vector == PF and map_faulting_ldt_page(cpu, ram, xen, domains, frames) == 1:
        outcome, low, high = read_descriptor(cpu, ram, selector)
    if outcome != OK:
        fault(cpu)
    return outcome == OK, low, high


@kernel
def begin_instruction(cpu, ram, xen, domains, frames):
    """Note the code segment of the domain that runs, and its sizes; False if it is none."""
    domain = domains[xen.current]
    there, low, high = descriptor_of(cpu, ram, xen, domains, frames, np.int64(domain.cs))
    access = access_of(high)
    if not there or not is_code(access) or access & AR_P == 0:
        return False
    xen.code_base, xen.code_limit = base_of(low, high), limit_of(low, high)
    xen.next_eip = np.int64(domain.eip)
    xen.operand_bytes = 2
    if access & AR_DB != 0:
        xen.operand_bytes = 4
    xen.address_bytes = xen.operand_bytes
    xen.data_segment = DS
    xen.lock = 0
    xen.repeat = 0
    return True


@kernel
def fetch(cpu, ram, xen, domains, frames, channels):
    """The next byte of the instruction, NOT_THERE, or NOT_FETCHED."""
    if xen.next_eip > xen.code_limit:
        return NOT_THERE
    gla = (xen.code_base + xen.next_eip) & M32
    octet = load_guest(cpu, ram, domains[xen.current], gla, 1)
    if octet == FAULTED:
        guest_page_fault(cpu, ram, xen, domains, frames, channels, gla, 0)
        return NOT_FETCHED
    xen.next_eip += 1
    return octet


@kernel
def note_prefix(xen, octet, default):
    """Take a prefix into account; False if the byte is none."""
    if octet == OPERAND_SIZE:
        xen.operand_bytes = 6 - default
    elif octet == ADDRESS_SIZE:
        xen.address_bytes = 6 - default
    elif octet == LOCK:
        xen.lock = 1
    elif octet == REP or octet == REPNE:
        xen.repeat = 1
    else:
        for segment in range(len(SEGMENT_PREFIXES)):
            if octet == SEGMENT_PREFIXES[segment]:
                xen.data_segment = segment
                return True
        return False
    return True


@kernel
def fetch_opcode(cpu, ram, xen, domains, frames, channels):
    """The first byte behind the prefixes, NOT_THERE, or NOT_FETCHED."""
    default = xen.operand_bytes
    octet = fetch(cpu, ram, xen, domains, frames, channels)
    for _ in range(MAX_PREFIXES):
        if octet < 0 or not note_prefix(xen, octet, default):
            return octet
        octet = fetch(cpu, ram, xen, domains, frames, channels)
    return octet

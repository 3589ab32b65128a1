"""memory_op: frames that a domain gives back or asks for, and what it may know of its memory and of the machine's."""

import numpy as np

from ...core.charge import charge as charge_processor
from ...core.jit import inline, kernel, store_32
from ...core.physical import write_physical
from ...isa.events import EVENT_INS_REP_START, EVENT_INS_REP_STOS_BYTE, EVENT_VMM_MEMORY_OP
from ...isa.registers import EBX, ECX
from . import layout
from .charge import charge
from .frame_counts import REFUSED, count_info, flush_stale, free_frame, get_page, owner_of, put_page, type_info
from .guest_access import FAULTED, is_within, load_guest, load_words, store_guest, store_words
from .interface import (
    DOMID_SELF,
    EFAULT,
    EINVAL,
    ENOSYS,
    EPERM,
    ESRCH,
    INVALID_M2P_ENTRY,
    MACH2PHYS_BYTES,
    MACH2PHYS_BYTES_PAE,
    XENMEM_add_to_physmap,
    XENMEM_current_reservation,
    XENMEM_decrease_reservation,
    XENMEM_exchange,
    XENMEM_increase_reservation,
    XENMEM_machphys_mapping,
    XENMEM_maximum_ram_page,
    XENMEM_maximum_reservation,
    XENMEM_populate_physmap,
)
from .mmu import M32
from .owners import follow_frame
from .page_types import put_page_and_type
from .records import PGC_ALLOCATED, PGC_COUNT, PGT_PINNED
from .table_entries import PAGE_SHIFT

COMMAND_BITS = 6
PAGE_BYTES = 1 << PAGE_SHIFT
RESERVATION_WORDS = 5
EXTENTS, COUNT, ORDER, _ADDRESS_BITS, DOMAIN = range(RESERVATION_WORDS)  # of a reservation
EXCHANGED = 2 * RESERVATION_WORDS  # the word of an exchange that says how many frames were
N_DOMAINS = layout.N_DOMAINS
MACHPHYS = layout.MACHPHYS
NO_FRAME = -1
LARGEST_ORDER = 9  # of an extent that is given back
UNKNOWN, FORBIDDEN = -1, -2


@inline
def named_domain(xen, domains, domid):
    """The domain of a number that the caller gives; UNKNOWN, or FORBIDDEN to it."""
    domid &= 0xFFFF
    index = domid
    if domid == DOMID_SELF or domid == xen.current:
        index = xen.current
    elif np.int64(domains[xen.current].is_privileged) == 0:
        index = FORBIDDEN
    elif domid >= N_DOMAINS or np.int64(domains[domid].exists) == 0:
        index = UNKNOWN
    return index


@inline
def refusal(index):
    """The error for what named_domain has found instead of a domain."""
    error = -ESRCH
    if index == FORBIDDEN:
        error = -EPERM
    return error


@kernel
def do_memory_op(cpu, ram, xen, domains, frames, channels):
    """memory_op: EBX the command, and how many extents were done before; ECX what it is about."""
    command = cpu.gpr[EBX] & ((1 << COMMAND_BITS) - 1)
    begin = (cpu.gpr[EBX] & M32) >> COMMAND_BITS
    pointer = cpu.gpr[ECX] & M32
    if command == XENMEM_maximum_ram_page:
        charge(cpu, xen, EVENT_VMM_MEMORY_OP, 1)
        return xen.n_frames
    if command == XENMEM_current_reservation or command == XENMEM_maximum_reservation:
        return tell_reservation(cpu, ram, xen, domains, command, pointer)
    if command == XENMEM_machphys_mapping:
        return tell_machphys(cpu, ram, xen, domains, pointer)
    if command == XENMEM_exchange:
        return exchange(cpu, ram, xen, domains, frames, pointer)
    if command == XENMEM_add_to_physmap:
        return -EINVAL
    kinds = command == XENMEM_increase_reservation or command == XENMEM_populate_physmap
    if kinds or command == XENMEM_decrease_reservation:
        return change_reservation(cpu, ram, xen, domains, frames, command, begin, pointer)
    return -ENOSYS


@kernel
def tell_reservation(cpu, ram, xen, domains, command, pointer):
    """How many frames a domain has, or may have."""
    charge(cpu, xen, EVENT_VMM_MEMORY_OP, 1)
    domid = load_guest(cpu, ram, domains[xen.current], pointer, 2)
    if domid == FAULTED:
        return -EFAULT
    index = named_domain(xen, domains, domid)
    if index < 0:
        return refusal(index)
    if command == XENMEM_current_reservation:
        return np.int64(domains[index].total_frames)
    return np.int64(domains[index].max_frames)


@kernel
def tell_machphys(cpu, ram, xen, domains, pointer):
    """Where the machine-to-physical table shows in the linear space."""
    charge(cpu, xen, EVENT_VMM_MEMORY_OP, 1)
    domain = domains[xen.current]
    octets = MACH2PHYS_BYTES
    if np.int64(domain.is_pae) != 0:
        octets = MACH2PHYS_BYTES_PAE
    xen.words[0] = np.int64(domain.virt_start)
    xen.words[1] = np.int64(domain.virt_start) + octets
    xen.words[2] = octets // 4 - 1
    if store_words(cpu, ram, xen, domain, pointer, 3) == FAULTED:
        return -EFAULT
    return 0


# -- frames ------------------------------------------------------------------------------------------------------------


@kernel
def allocate(cpu, ram, xen, domains, frames, index):
    """A frame that was nobody's, filled with zeros, for a domain that may have it; NO_FRAME if there is none."""
    domain = domains[index]
    if xen.free_frames == 0 or np.int64(domain.total_frames) >= np.int64(domain.max_frames):
        return NO_FRAME
    frame = xen.free_frames - 1
    xen.free_frames = type_info(frames, frame)
    flush_stale(cpu, ram, xen, frames, frame)
    frames[frame].owner = index
    frames[frame].count_info = PGC_ALLOCATED | 1
    frames[frame].type_info = 0
    domain.total_frames = np.int64(domain.total_frames) + 1
    charge_processor(cpu, EVENT_INS_REP_START, 1)
    charge_processor(cpu, EVENT_INS_REP_STOS_BYTE, PAGE_BYTES)
    for offset in range(0, PAGE_BYTES, 4):
        write_physical(cpu, ram, (frame << PAGE_SHIFT) + offset, 4, 0)
    follow_frame(cpu, ram, xen, frames, frame)
    return frame


@kernel
def remove(cpu, ram, xen, domains, frames, index, frame):
    """Take a frame from a domain that gives it back; it is free when nobody has references any more. 1, or 0: not its own."""
    if get_page(cpu, frames, frame, index) == REFUSED:
        return REFUSED
    info = type_info(frames, frame)
    if info & PGT_PINNED != 0:
        frames[frame].type_info = info & ~PGT_PINNED
        put_page_and_type(cpu, ram, xen, domains, frames, frame)
    if count_info(frames, frame) & PGC_ALLOCATED != 0:
        frames[frame].count_info = count_info(frames, frame) & ~PGC_ALLOCATED
        put_page(cpu, xen, domains, frames, frame)
    store_32(ram, MACHPHYS + 4 * frame, INVALID_M2P_ENTRY)
    put_page(cpu, xen, domains, frames, frame)
    follow_frame(cpu, ram, xen, frames, frame)
    return 1


@kernel
def change_reservation(cpu, ram, xen, domains, frames, command, begin, pointer):
    """Give extents back, or ask for some: how many were done."""
    domain = domains[xen.current]
    if load_words(cpu, ram, xen, domain, pointer, RESERVATION_WORDS) == FAULTED:
        return -EFAULT
    extents, count, order = xen.words[EXTENTS], xen.words[COUNT], xen.words[ORDER]
    index = named_domain(xen, domains, xen.words[DOMAIN])
    if index < 0:
        return refusal(index)
    number = begin
    if is_within(domain, extents, 4 * count) and is_possible(command, order):
        done = 1
        while number < count and done == 1:
            if command == XENMEM_decrease_reservation:
                done = decrease(cpu, ram, xen, domains, frames, index, extents + 4 * number, order)
            else:
                done = increase(cpu, ram, xen, domains, frames, index, command, extents, number)
            number += done
    charge(cpu, xen, EVENT_VMM_MEMORY_OP, max(number - begin, 1))
    return number


@inline
def is_possible(command, order):
    """Whether extents may have this size; new ones are single frames."""
    largest = 0
    if command == XENMEM_decrease_reservation:
        largest = LARGEST_ORDER
    return order <= largest


@kernel
def decrease(cpu, ram, xen, domains, frames, index, place, order):
    """Give one extent back, whose first frame stands at a linear address: 1, or 0."""
    first = load_guest(cpu, ram, domains[xen.current], place, 4)
    if first == FAULTED:
        return 0
    for number in range(1 << order):
        if remove(cpu, ram, xen, domains, frames, index, first + number) == REFUSED:
            return 0
    return 1


@kernel
def increase(cpu, ram, xen, domains, frames, index, command, extents, number):
    """A frame more, told where the guest says, and for populate_physmap the pseudo-physical one that stands there: 1, or 0."""
    domain = domains[xen.current]
    place = extents + 4 * number
    physical = INVALID_M2P_ENTRY
    if command == XENMEM_populate_physmap:
        physical = load_guest(cpu, ram, domain, place, 4)
        if physical == FAULTED:
            return 0
    frame = allocate(cpu, ram, xen, domains, frames, index)
    if frame == NO_FRAME:
        return 0
    store_32(ram, MACHPHYS + 4 * frame, physical)
    if extents != 0:
        store_guest(cpu, ram, domain, place, 4, frame)
    return 1


@kernel
def exchange(cpu, ram, xen, domains, frames, pointer):
    """Give single frames back for others: 0, or a negated error; the guest is told how many were exchanged."""
    domain = domains[xen.current]
    if load_words(cpu, ram, xen, domain, pointer, EXCHANGED + 1) == FAULTED:
        return -EFAULT
    given, count, taken, number = xen.words[EXTENTS], xen.words[COUNT], xen.words[RESERVATION_WORDS], xen.words[EXCHANGED]
    same = count == xen.words[RESERVATION_WORDS + COUNT] and xen.words[DOMAIN] == xen.words[RESERVATION_WORDS + DOMAIN]
    if not same or number > count or xen.words[ORDER] != 0 or xen.words[RESERVATION_WORDS + ORDER] != 0:
        return -EINVAL
    if named_domain(xen, domains, xen.words[DOMAIN]) != xen.current:
        return -EPERM
    if not is_within(domain, given, 4 * count) or not is_within(domain, taken, 4 * count):
        return -EFAULT
    begin, result = number, 0
    while number < count and result == 0:
        result = exchange_frame(cpu, ram, xen, domains, frames, given + 4 * number, taken + 4 * number)
        number += int(result == 0)
    charge(cpu, xen, EVENT_VMM_MEMORY_OP, max(number - begin, 1))
    if store_guest(cpu, ram, domain, pointer + 4 * EXCHANGED, 4, number) == FAULTED:
        return -EFAULT
    return result


@kernel
def exchange_frame(cpu, ram, xen, domains, frames, given, taken):
    """Exchange the frame named at one linear address for one that becomes the pseudo-physical one at another."""
    domain = domains[xen.current]
    old = load_guest(cpu, ram, domain, given, 4)
    physical = load_guest(cpu, ram, domain, taken, 4)
    if old == FAULTED or physical == FAULTED:
        return -EFAULT
    mine = 0 <= old < len(frames) and owner_of(frames, old) == xen.current
    if not mine or count_info(frames, old) & (PGC_ALLOCATED | PGC_COUNT) != PGC_ALLOCATED | 1:
        return -EINVAL
    free_frame(xen, domains, frames, old)
    store_32(ram, MACHPHYS + 4 * old, INVALID_M2P_ENTRY)
    follow_frame(cpu, ram, xen, frames, old)
    new = allocate(cpu, ram, xen, domains, frames, xen.current)
    store_32(ram, MACHPHYS + 4 * new, physical)
    if store_guest(cpu, ram, domain, taken, 4, new) == FAULTED:
        return -EFAULT
    return 0

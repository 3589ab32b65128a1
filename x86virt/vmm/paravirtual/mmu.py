"""mmu_update and update_va_mapping: how a guest writes its page tables.

A batch is done request by request up to the first that is refused; the guest is told how many were done. A long batch is
left from time to time, as an interrupted one: the hypercall begins anew where it stopped, with the rest of its requests.
"""

import numpy as np

from ...core.cache import VMM, reference
from ...core.jit import inline, kernel, store_32
from ...isa.events import (
    EVENT_VMM_DIRECTORY_UPDATE,
    EVENT_VMM_MACHPHYS_UPDATE,
    EVENT_VMM_MAPPING_UPDATE,
    EVENT_VMM_TABLE_UPDATE,
)
from ...isa.registers import EBX, ECX, EDI, EDX, ESI
from . import layout
from .charge import charge
from .frame_counts import GOT, REFUSED, flush_now, get_page, put_page
from .guest_access import FAULTED, is_within, load_guest, load_words, store_guest
from .interface import (
    DOMID_IO,
    DOMID_SELF,
    DOMID_XEN,
    EFAULT,
    EINVAL,
    ENOSYS,
    EPERM,
    ESRCH,
    MMU_MACHPHYS_UPDATE,
    MMU_PT_UPDATE_PRESERVE_AD,
    NUMBER_OF,
    UVMF_ALL,
    UVMF_FLUSHTYPE_MASK,
    UVMF_INVLPG,
    UVMF_LOCAL,
    UVMF_TLB_FLUSH,
)
from .page_types import get_page_type, kind_of, put_page_type
from .records import PGT_L1, PGT_L2, PGT_L3, PGT_TYPE, PGT_WRITABLE
from .table_checks import is_pae
from .table_entries import PAGE_SHIFT, entry_shift, write_entry
from .table_updates import flush_page, l1_place, update_l1_entry, update_l2_entry, update_l3_entry

M32 = 0xFFFFFFFF
NOBODY_FOREIGN = -1
REQUEST_BYTES = 16
MACHPHYS = layout.MACHPHYS
N_DOMAINS = layout.N_DOMAINS
MMU_UPDATE = NUMBER_OF["mmu_update"]
PREEMPTED = 1 << 31  # in a count: the number of those done before stands where it is to be told
MOST_AT_ONCE = 1024  # requests
N_KINDS = 3
TABLES, DIRECTORIES, MACHPHYS_ENTRIES = range(N_KINDS)  # of xen.updates


@kernel
def foreign_domain(xen, domains, domid):
    """The domain whose frames may be mapped for a caller who gives this number; -1: it may not."""
    domid &= 0xFFFF
    if domid == DOMID_SELF:
        return xen.current
    if domid == DOMID_IO:
        return domid
    privileged = np.int64(domains[xen.current].is_privileged) != 0
    if not privileged or domid == xen.current:
        return NOBODY_FOREIGN
    if domid == DOMID_XEN or (domid < N_DOMAINS and np.int64(domains[domid].exists) != 0):
        return domid
    return NOBODY_FOREIGN


# -- batches -----------------------------------------------------------------------------------------------------------


@kernel
def done_before(cpu, ram, domain, count, pointer):
    """How many requests of a batch were done before it was left."""
    done = 0
    if count & PREEMPTED != 0 and pointer != 0:
        done = load_guest(cpu, ram, domain, pointer, 4)
        if done == FAULTED:
            done = 0
    return done


@kernel
def tell_done(cpu, ram, domain, pointer, done):
    """Tell the guest how many requests of a batch were done, if it has said where."""
    if pointer != 0:
        store_guest(cpu, ram, domain, pointer, 4, done & M32)


@inline
def is_to_be_left(cpu, xen, number):
    """Whether so many requests of a batch are enough for now: an interrupt waits, or it takes long."""
    if xen.in_multicall != 0 or number == 0:
        return False
    return number >= MOST_AT_ONCE or cpu.ticks >= cpu.timer


@inline
def leave_batch(cpu, domain, call, number, request_bytes):
    """Have the hypercall begin anew after so many of its requests; its result is what is then in EAX."""
    cpu.gpr[EBX] = (cpu.gpr[EBX] + number * request_bytes) & M32
    cpu.gpr[ECX] = ((cpu.gpr[ECX] & ~PREEMPTED) - number) | PREEMPTED
    domain.eip = (np.int64(domain.eip) - 2) & M32
    return call


# -- mmu_update --------------------------------------------------------------------------------------------------------


@kernel
def do_mmu_update(cpu, ram, xen, domains, frames, channels):
    """mmu_update: EBX the requests, ECX how many, EDX where to tell how many were done, ESI whose frames."""
    domain = domains[xen.current]
    requests = cpu.gpr[EBX] & M32
    count = cpu.gpr[ECX] & ~PREEMPTED & M32
    pointer = cpu.gpr[EDX] & M32
    done = done_before(cpu, ram, domain, cpu.gpr[ECX], pointer)
    number = 0
    foreign = foreign_domain(xen, domains, cpu.gpr[ESI])
    if not is_within(domain, requests, count * REQUEST_BYTES):
        result = -EFAULT
    elif foreign == NOBODY_FOREIGN:
        result = -ESRCH
    else:
        for kind in range(N_KINDS):
            xen.updates[kind] = 0
        result = 0
        while number < count and result == 0:
            if load_words(cpu, ram, xen, domain, requests + number * REQUEST_BYTES, 4) == FAULTED:
                result = -EFAULT
            else:
                result = perform_request(cpu, ram, xen, domains, frames, foreign)
            number += int(result == 0)
            if result == 0 and number < count and is_to_be_left(cpu, xen, number):
                result = leave_batch(cpu, domain, MMU_UPDATE, number, REQUEST_BYTES)
        charge_updates(cpu, xen)
    tell_done(cpu, ram, domain, pointer, done + number)
    return result


@kernel
def charge_updates(cpu, xen):
    """The price of a batch, by what its requests wrote."""
    if xen.updates[TABLES] != 0:
        charge(cpu, xen, EVENT_VMM_TABLE_UPDATE, xen.updates[TABLES])
    if xen.updates[DIRECTORIES] != 0:
        charge(cpu, xen, EVENT_VMM_DIRECTORY_UPDATE, xen.updates[DIRECTORIES])
    if xen.updates[MACHPHYS_ENTRIES] != 0:
        charge(cpu, xen, EVENT_VMM_MACHPHYS_UPDATE, xen.updates[MACHPHYS_ENTRIES])


@kernel
def perform_request(cpu, ram, xen, domains, frames, foreign):
    """Perform the request in xen.words: 0, or a negated error."""
    low, high = xen.words[0], xen.words[1]
    pae = is_pae(domains, xen.current)
    command = low & ((1 << entry_shift(pae)) - 1)
    if command > MMU_PT_UPDATE_PRESERVE_AD:
        return -ENOSYS
    frame = low >> PAGE_SHIFT | high << (32 - PAGE_SHIFT)
    if command == MMU_MACHPHYS_UPDATE:
        xen.updates[MACHPHYS_ENTRIES] += 1
        return write_machphys(cpu, ram, xen, domains, frames, frame, xen.words[2], foreign)
    if get_page(cpu, frames, frame, xen.current) == REFUSED:
        xen.updates[TABLES] += 1
        return -EINVAL
    preserve = int(command == MMU_PT_UPDATE_PRESERVE_AD)
    new_high = xen.words[3]
    if pae == 0:
        new_high = 0
    place = low - command
    kind = kind_of(frames, frame)
    table = kind & PGT_TYPE
    xen.updates[int(table == PGT_L2 or table == PGT_L3)] += 1
    is_table = table == PGT_L1 or table == PGT_L2 or table == PGT_L3
    if not is_table or get_page_type(cpu, ram, xen, domains, frames, frame, kind) == REFUSED:
        got = write_plain(cpu, ram, xen, domains, frames, place, xen.words[2], new_high)
    else:
        got = update_entry(cpu, ram, xen, domains, frames, table, place, xen.words[2], new_high, preserve, foreign)
        put_page_type(cpu, ram, xen, domains, frames, frame)
    put_page(cpu, xen, domains, frames, frame)
    if got == REFUSED:
        return -EINVAL
    return 0


@kernel
def update_entry(cpu, ram, xen, domains, frames, table, place, low, high, preserve, foreign):
    """Write an entry of a table by its level: 1, or 0."""
    if table == PGT_L1:
        return update_l1_entry(cpu, ram, xen, domains, frames, place, low, high, preserve, foreign)
    if table == PGT_L2:
        return update_l2_entry(cpu, ram, xen, domains, frames, place, low, high, preserve)
    return update_l3_entry(cpu, ram, xen, domains, frames, place, low, high, preserve)


@kernel
def write_plain(cpu, ram, xen, domains, frames, place, low, high):
    """Write an entry into a frame that is no page table: 1, or 0 if it may not be written."""
    frame = place >> PAGE_SHIFT
    if get_page_type(cpu, ram, xen, domains, frames, frame, PGT_WRITABLE) == REFUSED:
        return REFUSED
    reference(cpu, place, VMM)
    write_entry(cpu, ram, place, low, high, is_pae(domains, xen.current))
    put_page_type(cpu, ram, xen, domains, frames, frame)
    return GOT


@kernel
def write_machphys(cpu, ram, xen, domains, frames, frame, number, foreign):
    """Set the pseudo-physical number of a machine frame: 0, or -EINVAL."""
    if get_page(cpu, frames, frame, foreign) == REFUSED:
        return -EINVAL
    place = MACHPHYS + 4 * frame
    reference(cpu, place, VMM)
    store_32(ram, place, number)
    put_page(cpu, xen, domains, frames, frame)
    return 0


# -- update_va_mapping -------------------------------------------------------------------------------------------------


@kernel
def do_update_va_mapping(cpu, ram, xen, domains, frames, channels):
    """update_va_mapping: EBX the linear address, EDX:ECX the entry, ESI what to flush."""
    return update_mapping(cpu, ram, xen, domains, frames, xen.current)


@kernel
def do_update_va_mapping_otherdomain(cpu, ram, xen, domains, frames, channels):
    """update_va_mapping_otherdomain: the same for a frame of domain EDI, by a privileged domain."""
    if np.int64(domains[xen.current].is_privileged) == 0:
        return -EPERM
    foreign = foreign_domain(xen, domains, cpu.gpr[EDI])
    if foreign == NOBODY_FOREIGN:
        return -ESRCH
    return update_mapping(cpu, ram, xen, domains, frames, foreign)


@kernel
def update_mapping(cpu, ram, xen, domains, frames, foreign):
    """Write the page-table entry of a linear address, and flush what the guest says, even if the entry is refused."""
    charge(cpu, xen, EVENT_VMM_MAPPING_UPDATE, 1)
    gla, low, high, how = cpu.gpr[EBX] & M32, cpu.gpr[ECX] & M32, cpu.gpr[EDX] & M32, cpu.gpr[ESI] & M32
    domain = domains[xen.current]
    if gla >= np.int64(domain.virt_start):
        return -EINVAL
    if np.int64(domain.is_pae) == 0:
        high = 0
    place = l1_place(cpu, ram, xen, domains, frames, gla)
    result = -EINVAL
    if place >= 0 and update_l1_entry(cpu, ram, xen, domains, frames, place, low, high, 0, foreign) == GOT:
        result = 0
    return flush_mapping(cpu, ram, xen, domain, gla, how, result)


@kernel
def flush_mapping(cpu, ram, xen, domain, gla, how, result):
    """Flush after a mapping has changed; the result, or -EFAULT if it cannot be read whose TLBs are meant."""
    kind = how & UVMF_FLUSHTYPE_MASK
    if kind != UVMF_TLB_FLUSH and kind != UVMF_INVLPG:
        return result
    processors = 1
    whose = how & ~UVMF_FLUSHTYPE_MASK
    if whose != UVMF_LOCAL and whose != UVMF_ALL:
        processors = load_guest(cpu, ram, domain, whose, 4)
        if processors == FAULTED:
            return -EFAULT
    if processors & 1 != 0:
        if kind == UVMF_TLB_FLUSH:
            flush_now(cpu, ram, xen)
        else:
            flush_page(cpu, gla)
    return result

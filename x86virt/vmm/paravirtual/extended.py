"""mmuext_op: tables pinned and unpinned, a new base, the TLB flushed, and what else one virtual processor does with pages."""

import numpy as np

from ...core.charge import charge as charge_processor
from ...core.jit import inline, kernel, load_32
from ...core.physical import write_physical
from ...isa.events import (
    EVENT_INS_REP_MOVS_BYTE,
    EVENT_INS_REP_START,
    EVENT_INS_REP_STOS_BYTE,
    EVENT_SYS_WBINVD,
    EVENT_VMM_BASE_SWITCH,
    EVENT_VMM_EXTENDED_OPERATION,
)
from ...isa.registers import EBX, ECX, EDX, ESI
from .charge import charge
from .frame_counts import GOT, REFUSED, flush_now, get_page, load_base, put_page, type_info
from .guest_access import FAULTED, is_within, load_guest, load_words
from .interface import (
    EFAULT,
    EINVAL,
    ENOSYS,
    ESRCH,
    MMUEXT_CLEAR_PAGE,
    MMUEXT_COPY_PAGE,
    MMUEXT_FLUSH_CACHE,
    MMUEXT_FLUSH_CACHE_GLOBAL,
    MMUEXT_INVLPG_ALL,
    MMUEXT_INVLPG_MULTI,
    MMUEXT_NEW_BASEPTR,
    MMUEXT_PIN_L2_TABLE,
    MMUEXT_PIN_L3_TABLE,
    MMUEXT_PIN_L4_TABLE,
    MMUEXT_SET_LDT,
    MMUEXT_TLB_FLUSH_ALL,
    MMUEXT_TLB_FLUSH_LOCAL,
    MMUEXT_TLB_FLUSH_MULTI,
    MMUEXT_UNPIN_TABLE,
    NUMBER_OF,
)
from .local_table import forget_ldt_pages, set_ldt
from .mmu import M32, NOBODY_FOREIGN, PREEMPTED, done_before, foreign_domain, is_to_be_left, leave_batch, tell_done
from .page_types import get_page_and_type, put_page_and_type
from .records import PGT_L1, PGT_L2, PGT_L3, PGT_PINNED, PGT_WRITABLE
from .table_checks import is_pae
from .table_entries import PAGE_SHIFT
from .table_updates import flush_page

MMUEXT_OP = NUMBER_OF["mmuext_op"]
OPERATION_BYTES = 12
PAGE_BYTES = 1 << PAGE_SHIFT
MOST_LDT_ENTRIES = 8192


@inline
def top_kind(domains, domid):
    """What the top table of a domain is used as."""
    kind = PGT_L2
    if is_pae(domains, domid) != 0:
        kind = PGT_L3
    return kind


@kernel
def do_mmuext_op(cpu, ram, xen, domains, frames, channels):
    """mmuext_op: EBX the operations, ECX how many, EDX where to tell how many were done, ESI whose frames."""
    domain = domains[xen.current]
    operations = cpu.gpr[EBX] & M32
    count = cpu.gpr[ECX] & ~PREEMPTED & M32
    pointer = cpu.gpr[EDX] & M32
    done = done_before(cpu, ram, domain, cpu.gpr[ECX], pointer)
    number = 0
    foreign = foreign_domain(xen, domains, cpu.gpr[ESI])
    if not is_within(domain, operations, count * OPERATION_BYTES):
        result = -EFAULT
    elif foreign == NOBODY_FOREIGN:
        result = -ESRCH
    else:
        result = 0
        xen.flush_due = 0
        while number < count and result == 0:
            if load_words(cpu, ram, xen, domain, operations + number * OPERATION_BYTES, 3) == FAULTED:
                result = -EFAULT
            else:
                first, second = xen.words[1], xen.words[2]
                result = perform(cpu, ram, xen, domains, frames, xen.words[0], first, second, foreign)
            number += int(result == 0)
            if result == 0 and number < count and is_to_be_left(cpu, xen, number):
                result = leave_batch(cpu, domain, MMUEXT_OP, number, OPERATION_BYTES)
        charge(cpu, xen, EVENT_VMM_EXTENDED_OPERATION, number + int(result < 0))
        if xen.flush_due != 0:
            flush_now(cpu, ram, xen)
    tell_done(cpu, ram, domain, pointer, done + number)
    return result


@kernel
def perform(cpu, ram, xen, domains, frames, command, first, second, foreign):
    """Perform one operation: 0, or a negated error."""
    if command <= MMUEXT_PIN_L4_TABLE:
        return pin(cpu, ram, xen, domains, frames, command, first, foreign)
    if command == MMUEXT_UNPIN_TABLE:
        return unpin(cpu, ram, xen, domains, frames, first)
    if command == MMUEXT_NEW_BASEPTR:
        return switch_base(cpu, ram, xen, domains, frames, first)
    if MMUEXT_TLB_FLUSH_LOCAL <= command <= MMUEXT_INVLPG_ALL:
        return flush(cpu, ram, xen, domains, command, first, second)
    if command == MMUEXT_FLUSH_CACHE or command == MMUEXT_FLUSH_CACHE_GLOBAL:
        return flush_cache(cpu, domains, xen.current)
    if command == MMUEXT_SET_LDT:
        return choose_ldt(cpu, ram, xen, domains, frames, first, second)
    if command == MMUEXT_CLEAR_PAGE:
        return clear_page(cpu, ram, xen, domains, frames, first, foreign)
    if command == MMUEXT_COPY_PAGE:
        return copy_page(cpu, ram, xen, domains, frames, first, second, foreign)
    return -ENOSYS


# -- tables ------------------------------------------------------------------------------------------------------------


@kernel
def pin(cpu, ram, xen, domains, frames, command, frame, foreign):
    """Keep a frame used as a table of some level, whoever names it: 0, or -EINVAL. Levels that there are not are ignored."""
    if command == MMUEXT_PIN_L4_TABLE or (command == MMUEXT_PIN_L3_TABLE and is_pae(domains, xen.current) == 0):
        return 0
    kind = PGT_L1
    if command == MMUEXT_PIN_L2_TABLE:
        kind = PGT_L2
    elif command == MMUEXT_PIN_L3_TABLE:
        kind = PGT_L3
    if get_page_and_type(cpu, ram, xen, domains, frames, frame, foreign, kind) == REFUSED:
        return -EINVAL
    info = type_info(frames, frame)
    if info & PGT_PINNED != 0:
        put_page_and_type(cpu, ram, xen, domains, frames, frame)
        return -EINVAL
    frames[frame].type_info = info | PGT_PINNED
    return 0


@kernel
def unpin(cpu, ram, xen, domains, frames, frame):
    """Keep a table no more: 0, or -EINVAL."""
    if get_page(cpu, frames, frame, xen.current) == REFUSED:
        return -EINVAL
    result = -EINVAL
    info = type_info(frames, frame)
    if info & PGT_PINNED != 0:
        frames[frame].type_info = info & ~PGT_PINNED
        put_page_and_type(cpu, ram, xen, domains, frames, frame)
        result = 0
    put_page(cpu, xen, domains, frames, frame)
    return result


@kernel
def switch_base(cpu, ram, xen, domains, frames, frame):
    """Have the processor walk by another top table: 0, or -EINVAL."""
    charge(cpu, xen, EVENT_VMM_BASE_SWITCH, 1)
    domain = domains[xen.current]
    kind = top_kind(domains, xen.current)
    if get_page_and_type(cpu, ram, xen, domains, frames, frame, xen.current, kind) == REFUSED:
        return -EINVAL
    forget_ldt_pages(cpu, ram, xen, domains, frames)
    before = np.int64(domain.base_frame)
    domain.base_frame = frame
    load_base(cpu, ram, xen, domains)
    put_page_and_type(cpu, ram, xen, domains, frames, before)
    xen.flush_due = 0
    return 0


@kernel
def adopt(cpu, ram, xen, domains, frames, index, frame):
    """Take the first tables of a domain that its builder made, pinned, as its base: 1, or 0 if they break the rules."""
    kind = top_kind(domains, index)
    if get_page_and_type(cpu, ram, xen, domains, frames, frame, index, kind) == REFUSED:
        return REFUSED
    if get_page_and_type(cpu, ram, xen, domains, frames, frame, index, kind) == REFUSED:
        return REFUSED
    frames[frame].type_info = type_info(frames, frame) | PGT_PINNED
    domains[index].base_frame = frame
    return GOT


# -- the TLB, the caches, the LDT --------------------------------------------------------------------------------------


@kernel
def flush(cpu, ram, xen, domains, command, gla, pointer):
    """Flush the TLB, or a page of it; where the guest names processors, if this one is among them: 0, or -EINVAL."""
    if command == MMUEXT_TLB_FLUSH_LOCAL:
        xen.flush_due = 1
        return 0
    processors = 1
    if command == MMUEXT_TLB_FLUSH_MULTI or command == MMUEXT_INVLPG_MULTI:
        processors = load_guest(cpu, ram, domains[xen.current], pointer, 4)
        if processors == FAULTED:
            return -EINVAL
    if processors & 1 != 0:
        if command == MMUEXT_TLB_FLUSH_ALL or command == MMUEXT_TLB_FLUSH_MULTI:
            flush_now(cpu, ram, xen)
        else:
            flush_page(cpu, gla)
    return 0


@inline
def flush_cache(cpu, domains, index):
    """WBINVD, for a domain that has devices: 0, or -EINVAL."""
    if np.int64(domains[index].is_privileged) == 0:
        return -EINVAL
    charge_processor(cpu, EVENT_SYS_WBINVD, 1)
    return 0


@kernel
def choose_ldt(cpu, ram, xen, domains, frames, gla, entries):
    """Set the LDT: 0, or -EINVAL."""
    if gla & (PAGE_BYTES - 1) != 0 or entries > MOST_LDT_ENTRIES:
        return -EINVAL
    if not is_within(domains[xen.current], gla, 8 * entries):
        return -EINVAL
    return set_ldt(cpu, ram, xen, domains, frames, gla, entries)


# -- whole pages -------------------------------------------------------------------------------------------------------


@kernel
def clear_page(cpu, ram, xen, domains, frames, frame, foreign):
    """Fill a frame with zeros: 0, or -EINVAL."""
    if get_page_and_type(cpu, ram, xen, domains, frames, frame, foreign, PGT_WRITABLE) == REFUSED:
        return -EINVAL
    charge_processor(cpu, EVENT_INS_REP_START, 1)
    charge_processor(cpu, EVENT_INS_REP_STOS_BYTE, PAGE_BYTES)
    for offset in range(0, PAGE_BYTES, 4):
        write_physical(cpu, ram, (frame << PAGE_SHIFT) + offset, 4, 0)
    put_page_and_type(cpu, ram, xen, domains, frames, frame)
    return 0


@kernel
def copy_page(cpu, ram, xen, domains, frames, frame, source, foreign):
    """Copy a frame to another: 0, or -EINVAL."""
    if get_page(cpu, frames, source, foreign) == REFUSED:
        return -EINVAL
    result = -EINVAL
    if get_page_and_type(cpu, ram, xen, domains, frames, frame, foreign, PGT_WRITABLE) == GOT:
        charge_processor(cpu, EVENT_INS_REP_START, 1)
        charge_processor(cpu, EVENT_INS_REP_MOVS_BYTE, PAGE_BYTES)
        for offset in range(0, PAGE_BYTES, 4):
            write_physical(cpu, ram, (frame << PAGE_SHIFT) + offset, 4, load_32(ram, (source << PAGE_SHIFT) + offset))
        put_page_and_type(cpu, ram, xen, domains, frames, frame)
        result = 0
    put_page(cpu, xen, domains, frames, source)
    return result

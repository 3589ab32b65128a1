"""set_gdt and update_descriptor: a domain's GDT is frames of its own, which only the VMM can write as long as they are that."""

import numpy as np

from ...core.jit import kernel
from ...core.physical import write_physical
from ...isa.events import EVENT_VMM_SET_GDT, EVENT_VMM_UPDATE_DESCRIPTOR
from ...isa.registers import EBX, ECX, EDX, ESI
from .charge import charge
from .descriptors import checked_descriptor
from .guest_access import FAULTED, load_words
from .interface import EFAULT, EINVAL, FIRST_RESERVED_GDT_ENTRY, FIRST_RESERVED_GDT_PAGE
from .layout import PER_DOMAIN_GDT
from .local_table import map_own_page
from .page_types import get_page, get_page_and_type, get_page_type, put_page, put_page_and_type, put_page_type
from .records import ASK_FLUSH, PGT_SEG_DESC, PGT_TYPE, PGT_WRITABLE

ENTRIES_OF_PAGE = 512


@kernel
def put_gdt_frames(cpu, ram, xen, domains, frames, count):
    """Give the first frames in xen.words back."""
    for number in range(count):
        put_page_and_type(cpu, ram, xen, domains, frames, xen.words[number])


@kernel
def get_gdt_frames(cpu, ram, xen, domains, frames, count):
    """Take the frames in xen.words as pages of descriptors: True, or none of them."""
    domid = np.int64(domains[xen.current].domid)
    for number in range(count):
        if get_page_and_type(cpu, ram, xen, domains, frames, xen.words[number], domid, PGT_SEG_DESC) == 0:
            put_gdt_frames(cpu, ram, xen, domains, frames, number)
            return False
    return True


@kernel
def do_set_gdt(cpu, ram, xen, domains, frames, channels):
    """set_gdt(list of frames, entries)."""
    domain = domains[xen.current]
    entries = cpu.gpr[ECX]
    if entries > FIRST_RESERVED_GDT_ENTRY:
        return -EINVAL
    count = (entries + ENTRIES_OF_PAGE - 1) // ENTRIES_OF_PAGE
    charge(cpu, xen, EVENT_VMM_SET_GDT, count)
    if load_words(cpu, ram, xen, domain, cpu.gpr[EBX], count) == FAULTED:
        return -EFAULT
    if not get_gdt_frames(cpu, ram, xen, domains, frames, count):
        return -EINVAL
    for number in range(FIRST_RESERVED_GDT_PAGE):
        new = 0
        if number < count:
            new = xen.words[number]
        xen.words[number] = np.int64(domain.gdt_frames[number])
        domain.gdt_frames[number] = new
        map_own_page(ram, domains, xen.current, PER_DOMAIN_GDT + (number << 12), new)
    domain.gdt_entries = entries
    for number in range(FIRST_RESERVED_GDT_PAGE):
        if xen.words[number] != 0:
            put_page_and_type(cpu, ram, xen, domains, frames, xen.words[number])
    xen.asked |= ASK_FLUSH
    return 0


@kernel
def do_update_descriptor(cpu, ram, xen, domains, frames, channels):
    """update_descriptor(machine address, descriptor), both of 64 bits: in a page of descriptors, or one that may become it."""
    charge(cpu, xen, EVENT_VMM_UPDATE_DESCRIPTOR, 1)
    domain = domains[xen.current]
    address = cpu.gpr[EBX]
    allowed, low, high = checked_descriptor(cpu.gpr[EDX], cpu.gpr[ESI], np.int64(domain.segment_limit))
    if address & 7 != 0 or cpu.gpr[ECX] != 0 or allowed == 0:
        return -EINVAL
    frame = address >> 12
    if get_page(cpu, frames, frame, np.int64(domain.domid)) == 0:
        return -EINVAL
    kind = PGT_WRITABLE
    if np.int64(frames[frame].type_info) & PGT_TYPE == PGT_SEG_DESC:
        kind = PGT_SEG_DESC
    if get_page_type(cpu, ram, xen, domains, frames, frame, kind) == 0:
        put_page(cpu, xen, domains, frames, frame)
        return -EINVAL
    write_physical(cpu, ram, address, 4, low)
    write_physical(cpu, ram, address + 4, 4, high)
    put_page_type(cpu, ram, xen, domains, frames, frame)
    put_page(cpu, xen, domains, frames, frame)
    return 0

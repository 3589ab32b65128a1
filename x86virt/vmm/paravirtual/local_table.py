"""A domain's LDT, whose pages are mapped when a selector is first looked up there; and data segments that the VMM loads.

MMUEXT_SET_LDT gives a linear address. The processor sees the table at PER_DOMAIN_LDT, through the domain's own page table:
its descriptors could not be trusted at an address that the guest may map anew. A page of it is looked up in the guest's
page tables, taken as a page of descriptors, and mapped, at the #PF of the first selector in it.
"""

import numpy as np

from ...core.charge import charge as charge_processor
from ...core.jit import inline, kernel, load_32, store_32
from ...core.layout import OK
from ...core.segment import load_data_segment, load_ldtr
from ...core.tlb import invalidate_page
from ...isa.events import EVENT_SYS_INVLPG
from ...isa.registers import PTE_A, PTE_D, PTE_P, PTE_RW
from ...isa.vectors import PF
from ..layout import GDT as VMM_GDT
from .guest_access import fault
from .interface import EINVAL
from .layout import PER_DOMAIN_LDT, PER_DOMAIN_START, PER_DOMAIN_TABLE_BYTES, PER_DOMAIN_TABLES
from .page_types import get_page_and_type, put_page_and_type
from .records import PGT_SEG_DESC
from .table_updates import l1_place

LDT_PAGES = 16
LDT_BYTES = LDT_PAGES << 12
MAX_LDT_ENTRIES = 8192
LDT_SELECTOR = 0xFFD8  # of the VMM's descriptor for the LDT of the domain that runs
LDT_ACCESS = 0x8200
MAPPED = PTE_P | PTE_RW | PTE_A | PTE_D


@kernel
def map_own_page(ram, domains, index, gla, frame):
    """Map a frame at an address of what a domain has of its own, or nothing if it is 0. The TLB is the caller's."""
    number = (gla - PER_DOMAIN_START) >> 12
    table = PER_DOMAIN_TABLES + index * PER_DOMAIN_TABLE_BYTES
    entry = 0
    if frame != 0:
        entry = frame << 12 | MAPPED
    if np.int64(domains[index].is_pae) != 0:
        store_32(ram, table + 8 * number, entry)
        store_32(ram, table + 8 * number + 4, 0)
    else:
        store_32(ram, table + 4 * number, entry)


@kernel
def map_ldt_page(cpu, ram, xen, domains, frames, number):
    """Map a page of the LDT of the domain that runs: 1, or 0 if the guest's own tables have none that can be it."""
    domain = domains[xen.current]
    place = l1_place(cpu, ram, xen, domains, frames, np.int64(domain.ldt_base) + (number << 12))
    if place < 0:
        return 0
    entry = load_32(ram, place)
    if entry & PTE_P == 0 or (np.int64(domain.is_pae) != 0 and load_32(ram, place + 4) != 0):
        return 0
    frame, domid = entry >> 12, np.int64(domain.domid)
    if get_page_and_type(cpu, ram, xen, domains, frames, frame, domid, PGT_SEG_DESC) == 0:
        return 0
    domain.ldt_frames[number] = frame
    map_own_page(ram, domains, xen.current, PER_DOMAIN_LDT + (number << 12), frame)
    return 1


@kernel
def forget_ldt_pages(cpu, ram, xen, domains, frames):
    """Give the mapped pages of the LDT back."""
    domain = domains[xen.current]
    for number in range(LDT_PAGES):
        frame = np.int64(domain.ldt_frames[number])
        if frame != 0:
            gla = PER_DOMAIN_LDT + (number << 12)
            domain.ldt_frames[number] = 0
            map_own_page(ram, domains, xen.current, gla, 0)
            charge_processor(cpu, EVENT_SYS_INVLPG, 1)
            invalidate_page(cpu, gla)
            put_page_and_type(cpu, ram, xen, domains, frames, frame)


@kernel
def load_local_table(cpu, ram, domains, index):
    """Load LDTR for a domain, by the VMM's own descriptor."""
    entries = np.int64(domains[index].ldt_entries)
    if entries == 0:
        load_ldtr(cpu, ram, 0)
        return
    store_32(ram, VMM_GDT + LDT_SELECTOR, (PER_DOMAIN_LDT & 0xFFFF) << 16 | (8 * entries - 1))
    store_32(ram, VMM_GDT + LDT_SELECTOR + 4, PER_DOMAIN_LDT & 0xFF000000 | (PER_DOMAIN_LDT >> 16) & 0xFF | LDT_ACCESS)
    load_ldtr(cpu, ram, LDT_SELECTOR)


@kernel
def set_ldt(cpu, ram, xen, domains, frames, gla, entries):
    """MMUEXT_SET_LDT: entries from a linear address, which must begin a page."""
    domain = domains[xen.current]
    if gla & 0xFFF != 0 or entries > MAX_LDT_ENTRIES or gla + 8 * entries > np.int64(domain.virt_start):
        return -EINVAL
    if gla == np.int64(domain.ldt_base) and entries == np.int64(domain.ldt_entries):
        return 0
    forget_ldt_pages(cpu, ram, xen, domains, frames)
    domain.ldt_base = gla
    domain.ldt_entries = entries
    load_local_table(cpu, ram, domains, xen.current)
    if entries != 0:
        map_ldt_page(cpu, ram, xen, domains, frames, 0)
    return 0


@inline
def is_in_ldt(gla):
    """Whether an address is one of the area where the LDT shows."""
    return PER_DOMAIN_LDT <= gla < PER_DOMAIN_LDT + LDT_BYTES


@kernel
def map_faulting_ldt_page(cpu, ram, xen, domains, frames):
    """A page of the LDT was missed: 1 if it is there now."""
    if not is_in_ldt(cpu.cr2):
        return 0
    return map_ldt_page(cpu, ram, xen, domains, frames, (cpu.cr2 - PER_DOMAIN_LDT) >> 12)


@kernel
def load_data_selector(cpu, ram, xen, domains, frames, channels, segment, selector):
    """Load a data segment register at CPL 0 for the domain that runs; False if that faults."""
    outcome = load_data_segment(cpu, ram, segment, selector & 0xFFFF)
    if outcome != OK and cpu.event_vector == PF and map_faulting_ldt_page(cpu, ram, xen, domains, frames) == 1:
        outcome = load_data_segment(cpu, ram, segment, selector & 0xFFFF)
    if outcome != OK:
        fault(cpu)
    return outcome == OK

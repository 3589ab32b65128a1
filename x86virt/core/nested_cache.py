"""What a processor remembers of nested tables: the nested TLB, and a cache of the last-level tables.

The nested TLB holds where pages with the guest's own tables really lie. The addresses at the end of a walk do not go through
it: the TLB proper remembers those. The cache of tables lets any nested walk begin at the last level. Both are fully
associative, replaced first-in first-out, and of the sizes that the profile gives.

Entries belong to a set of extended page tables (SDM volume 3, section 28.3.1: guest-physical mappings are tagged by EP4TA,
and neither VM entries nor exits invalidate them) or to an ASID of SVM.
"""

from .jit import inline, kernel
from .layout import MAX_NESTED_ENTRIES, NESTED_EPT, NESTED_NPT


@inline
def space_of_ept(root):
    """The number of the space of extended page tables, which lie at the start of a page."""
    return root | 1


@inline
def space_of_asid(asid):
    """The number of the space of an ASID: told from the others by its second bit."""
    return asid << 2 | 2


@inline
def present_space(cpu):
    """The number of the space that the present guest's nested tables belong to."""
    if cpu.nested_kind == NESTED_EPT:
        return space_of_ept(cpu.nested_root)
    return space_of_asid(cpu.address_space)


@inline
def table_region_shift(cpu):
    """The bits of the region that a last-level table maps: 4 MB where its entries have 4 bytes, else 2 MB."""
    if cpu.nested_kind == NESTED_NPT and cpu.nested_levels == 2:
        return 22
    return 21


@kernel
def find_page(cpu, page):
    """The index of the nested TLB's entry for a guest-physical page, or -1."""
    space = present_space(cpu)
    for index in range(cpu.nested.page_entries):
        entry = cpu.nested.pages[index]
        if entry.page == page and entry.space == space:
            return index
    return -1


@kernel
def find_table(cpu, region):
    """The index of the cached last-level table for a region of guest-physical addresses, or -1."""
    space = present_space(cpu)
    for index in range(cpu.nested.table_entries):
        entry = cpu.nested.tables[index]
        if entry.page == region and entry.space == space:
            return index
    return -1


@kernel
def remember_page(cpu, page, frame, rights):
    """Fill an entry of the nested TLB: the page's own if it has one, else the oldest."""
    nested = cpu.nested
    if nested.page_entries == 0:
        return
    index = find_page(cpu, page)
    if index < 0:
        index = nested.page_victim
        nested.page_victim = index + 1
        if nested.page_victim >= nested.page_entries:
            nested.page_victim = 0
    entry = nested.pages[index]
    entry.space = present_space(cpu)
    entry.page = page
    entry.frame = frame
    entry.rights = rights


@kernel
def remember_table(cpu, region, table, rights):
    """Fill an entry of the cache of last-level tables: the region's own if it has one, else the oldest."""
    nested = cpu.nested
    if nested.table_entries == 0:
        return
    index = find_table(cpu, region)
    if index < 0:
        index = nested.table_victim
        nested.table_victim = index + 1
        if nested.table_victim >= nested.table_entries:
            nested.table_victim = 0
    entry = nested.tables[index]
    entry.space = present_space(cpu)
    entry.page = region
    entry.frame = table
    entry.rights = rights


@kernel
def forget_table(cpu, index):
    """Drop one cached last-level table, which led to a fault."""
    cpu.nested.tables[index].space = 0


@kernel
def forget_space(cpu, space):
    """Drop what is remembered of one space."""
    for index in range(MAX_NESTED_ENTRIES):
        if cpu.nested.pages[index].space == space:
            cpu.nested.pages[index].space = 0
        if cpu.nested.tables[index].space == space:
            cpu.nested.tables[index].space = 0


@kernel
def forget_all_spaces(cpu):
    """Drop everything."""
    for index in range(MAX_NESTED_ENTRIES):
        cpu.nested.pages[index].space = 0
        cpu.nested.tables[index].space = 0

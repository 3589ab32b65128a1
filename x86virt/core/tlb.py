"""The modelled TLBs, and the front cache that is a strict subset of them.

Replacement is first-in first-out within a set, which needs no write on a hit, so that a hit in the front cache and a
hit in the model are the same thing. A flush is one new generation; global entries outlive it, unless it also marks its
generation as the first that counts for them.

Address spaces of guests (VPIDs, ASIDs) are kept apart by tags, the low bits of a generation: each has its own present
generation, which core/address_space.py puts in place, so that an entry of another one is never valid.

An entry is found by its page through buckets that follow the model in every fill; what is found, and what is evicted, is
the same as a search of the set would give.
"""

from ..isa.registers import CS, PTE_G
from .jit import inline, kernel
from .layout import (
    DTLB,
    DTLB_L2,
    DTLB_LARGE,
    FRONT_MASK,
    FRONT_SIZE,
    FRONT_SLOTS,
    ITLB,
    ITLB_L2,
    ITLB_LARGE,
    MAX_GENERATION,
    N_TLB_TAGS,
    TLB_BUCKETS,
)

M32 = 0xFFFFFFFF


@kernel
def drop_front(cpu):
    """Forget the front cache for data; the modelled TLBs keep their entries."""
    cpu.front_generation += 1
    if cpu.front_generation > MAX_GENERATION:
        cpu.front_generation = 1
        for slot in range(FRONT_SIZE):
            cpu.front_read[slot] = 0
            cpu.front_write[slot] = 0


@kernel
def drop_fetch_front(cpu):
    """Forget the front cache for instruction fetch."""
    cpu.fetch_generation += 1
    if cpu.fetch_generation > MAX_GENERATION:
        cpu.fetch_generation = 1
        for slot in range(FRONT_SIZE):
            cpu.front_fetch[slot] = 0


@inline
def new_generation(cpu, tag):
    """A generation that was never used, for one address space."""
    cpu.tlb_counter += N_TLB_TAGS
    return cpu.tlb_counter + tag


@kernel
def flush_tlb(cpu, keep_global):
    """Flush all TLBs of the present address space; global entries stay if `keep_global`."""
    drop_front(cpu)
    drop_fetch_front(cpu)
    cpu.tlb_generation = new_generation(cpu, cpu.tlb_tag)
    if keep_global == 0:
        cpu.tlb_full_flush = cpu.tlb_generation


@inline
def tag_of(generation):
    """The address space that a generation belongs to."""
    return generation & (N_TLB_TAGS - 1)


@inline
def is_valid(cpu, entry):
    """Whether a TLB entry is live: of this generation, or global, of this address space, and since its last full flush."""
    return entry.generation == cpu.tlb_generation or (
        entry.rights & PTE_G != 0
        and entry.generation >= cpu.tlb_full_flush
        and tag_of(entry.generation) == cpu.tlb_tag
    )


@inline
def is_valid_elsewhere(cpu, entry):
    """Whether an entry is live in an address space that is not the present one."""
    tag = tag_of(entry.generation)
    if tag == cpu.tlb_tag:
        return False
    space = cpu.tlb_tags[tag]
    return entry.generation == space.generation or (entry.rights & PTE_G != 0 and entry.generation >= space.full_flush)


@inline
def bucket_of_page(unit, page):
    """The bucket that chains the entries of one unit for a page: every valid entry is in one, and some that are stale."""
    return unit * TLB_BUCKETS + (page & (TLB_BUCKETS - 1))


@inline
def find(cpu, unit, gla):
    """The index of the valid entry that translates `gla` in one TLB, or -1."""
    page = gla >> cpu.tlb_units[unit].shift
    at = cpu.tlb_buckets[bucket_of_page(unit, page)]
    if at == 0:
        return -1
    entry = cpu.tlb[at - 1]
    if entry.page == page and is_valid(cpu, entry):
        return at - 1
    if entry.following == 0:
        return -1
    return search_bucket(cpu, unit, page)


@kernel
def search_bucket(cpu, unit, page):
    """Look through a whole bucket; what is no longer valid, and cannot become so again, is taken out on the way."""
    bucket = bucket_of_page(unit, page)
    previous = 0
    at = cpu.tlb_buckets[bucket]
    while at != 0:
        entry = cpu.tlb[at - 1]
        following = entry.following
        if is_valid(cpu, entry):
            if entry.page == page:
                return at - 1
            previous = at
        elif is_valid_elsewhere(cpu, entry):
            previous = at
        else:
            entry.page = -1
            if previous == 0:
                cpu.tlb_buckets[bucket] = following
            else:
                cpu.tlb[previous - 1].following = following
        at = following
    return -1


@kernel
def unchain_behind(cpu, at, index):
    """Take an entry out of its bucket, which begins with another one."""
    while cpu.tlb[at - 1].following != index + 1:
        at = cpu.tlb[at - 1].following
    cpu.tlb[at - 1].following = cpu.tlb[index].following


@inline
def unchain(cpu, unit, index):
    """Take an entry out of its bucket."""
    entry = cpu.tlb[index]
    bucket = bucket_of_page(unit, entry.page)
    at = cpu.tlb_buckets[bucket]
    if at == index + 1:
        cpu.tlb_buckets[bucket] = entry.following
    else:
        unchain_behind(cpu, at, index)


@inline
def fill(cpu, unit, gla, frame, rights):
    """Fill an entry of a unit that exists, evicting the oldest of its set; returns its index."""
    geometry = cpu.tlb_units[unit]
    page = gla >> geometry.shift
    selected = page & (geometry.sets - 1)
    way = geometry.victim[selected]
    next_way = way + 1
    if next_way >= geometry.ways:
        next_way = 0
    geometry.victim[selected] = next_way
    index = geometry.first + selected * geometry.ways + way
    entry = cpu.tlb[index]
    if is_valid(cpu, entry):
        forget_front(cpu, unit, entry.page)
    if entry.page != page:
        if entry.page >= 0:
            unchain(cpu, unit, index)
        bucket = bucket_of_page(unit, page)
        entry.page = page
        entry.following = cpu.tlb_buckets[bucket]
        cpu.tlb_buckets[bucket] = index + 1
    entry.frame = frame
    entry.rights = rights
    entry.generation = cpu.tlb_generation
    return index


@kernel
def insert(cpu, unit, gla, frame, rights):
    """Fill an entry, evicting the oldest of its set; returns its index, -1 if the unit does not exist."""
    if cpu.tlb_units[unit].ways == 0:
        return -1
    return fill(cpu, unit, gla, frame, rights)


@kernel
def forget_front(cpu, unit, page):
    """Drop what the front cache holds of a page that left a first-level TLB; second levels are not what it mirrors."""
    if unit == DTLB:
        drop_data_slots(cpu, page)
    elif unit == ITLB:
        drop_fetch_slots(cpu, page)
    elif unit == DTLB_LARGE:
        drop_front(cpu)
    elif unit == ITLB_LARGE:
        drop_fetch_front(cpu)


@inline
def drop_data_slots(cpu, page):
    """Drop the data slots of a 4 KB page in both banks."""
    slot = page & FRONT_MASK
    cpu.front_read[slot] = 0
    cpu.front_write[slot] = 0
    cpu.front_read[slot + FRONT_SLOTS] = 0
    cpu.front_write[slot + FRONT_SLOTS] = 0


@inline
def drop_fetch_slots(cpu, page):
    """Drop the fetch slots of a 4 KB page in both banks."""
    slot = page & FRONT_MASK
    cpu.front_fetch[slot] = 0
    cpu.front_fetch[slot + FRONT_SLOTS] = 0


@inline
def remove(cpu, unit, index):
    """Make an entry invalid."""
    unchain(cpu, unit, index)
    entry = cpu.tlb[index]
    entry.page = -1
    entry.generation = -1


@kernel
def drop_entry(cpu, unit, gla):
    """Drop the entry of one unit that translates `gla`, if it has one; of the front cache what a large page covers."""
    index = find(cpu, unit, gla)
    if index < 0:
        return
    if unit == DTLB_LARGE or unit == ITLB_LARGE:
        forget_front(cpu, unit, cpu.tlb[index].page)
    remove(cpu, unit, index)


@inline
def drop_if_chained(cpu, unit, page, gla):
    """Drop the entry of one unit that translates `gla`; most often the very bucket of its page is empty."""
    if cpu.tlb_buckets[bucket_of_page(unit, page)] != 0:
        drop_entry(cpu, unit, gla)


@inline
def has_pieces(cpu):
    """Whether pieces of larger pages of a guest's may be in the TLBs of the present address space."""
    return cpu.tlb_tags[cpu.tlb_tag].in_pieces == cpu.tlb_full_flush + 1


@kernel
def note_piece(cpu):
    """An entry is about to be filled that is smaller than the page of the guest's own tables."""
    cpu.tlb_tags[cpu.tlb_tag].in_pieces = cpu.tlb_full_flush + 1


@inline
def invalidate_page(cpu, gla):
    """INVLPG: drop every entry for the page, global or not (SDM volume 3, section 4.10.4.1).

    All pieces of a page go that is larger in the guest's tables than in nested ones (section 4.10.2.3). Nothing tells which
    these are, so that everything goes.
    """
    if has_pieces(cpu):
        flush_tlb(cpu, 0)
        return
    page = gla >> 12
    index = find(cpu, DTLB, gla)
    if index >= 0:
        remove(cpu, DTLB, index)
    drop_if_chained(cpu, DTLB_L2, page, gla)
    drop_if_chained(cpu, ITLB, page, gla)
    drop_if_chained(cpu, ITLB_L2, page, gla)
    large_page = gla >> cpu.tlb_units[DTLB_LARGE].shift
    drop_if_chained(cpu, DTLB_LARGE, large_page, gla)
    drop_if_chained(cpu, ITLB_LARGE, large_page, gla)
    drop_data_slots(cpu, page)
    drop_fetch_slots(cpu, page)


@inline
def translates_code(cpu, gla):
    """Whether INVLPG of an address may drop the translation of the code that runs, which has to be fetched anew then."""
    code = (cpu.rip + cpu.seg[CS].seg_base) & M32
    if ((gla ^ code) >> 12) & FRONT_MASK == 0 or has_pieces(cpu):
        return True
    return (gla ^ code) >> cpu.tlb_units[ITLB_LARGE].shift == 0 and find(cpu, ITLB_LARGE, gla) >= 0


@inline
def front_read_fill(cpu, gla, addend, user):
    """Remember a translation for plain reads."""
    slot = (user * FRONT_SLOTS) + ((gla >> 12) & FRONT_MASK)
    cpu.front_read[slot] = (gla & 0xFFFFF000) | cpu.front_generation
    cpu.read_addend[slot] = addend


@inline
def front_write_fill(cpu, gla, addend, user):
    """Remember a translation for plain writes: the page is dirty and holds no decoded code."""
    slot = (user * FRONT_SLOTS) + ((gla >> 12) & FRONT_MASK)
    cpu.front_write[slot] = (gla & 0xFFFFF000) | cpu.front_generation
    cpu.write_addend[slot] = addend


@inline
def front_fetch_fill(cpu, gla, addend, user):
    """Remember a translation for instruction fetch."""
    slot = (user * FRONT_SLOTS) + ((gla >> 12) & FRONT_MASK)
    cpu.front_fetch[slot] = (gla & 0xFFFFF000) | cpu.fetch_generation
    cpu.fetch_addend[slot] = addend

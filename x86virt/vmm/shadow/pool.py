"""Pages for shadow tables: found again by what they are the shadow of, allocated, evicted when the budget is spent.

The first page is the directory of the policy `drop`; the others are handed out in order, then those that were given
back, then a clock's hand chooses: a page that was of use since the hand came by is spared once, the running directory
always.
"""

from ...core.charge import charge
from ...core.jit import inline, kernel, load_32, store_32
from ...isa.events import EVENT_SHADOW_EVICTION, EVENT_SHADOW_TABLE, EVENT_SHADOW_TABLE_FOUND
from ...isa.registers import PTE_A, PTE_D, PTE_G, PTE_P, PTE_PS, PTE_RW, PTE_US
from .. import layout
from .chains import clear_slot, is_pae, page_address, slot_address, write_leaf
from .records import (
    ENTRIES,
    FREE,
    IDENTITY_ROOT,
    LOOSE,
    LOOSE_ROOT,
    N_BUCKETS,
    PAGE_TABLE,
    QUARTERS,
    ROLE_QUARTER_SHIFT,
    ROOT,
    TABLE,
    VMM_SLOT,
    VMM_SLOT_PAE,
)
from .tracing import trace, untrace

NEXT = layout.vcpu_address("shadow_next")
REGION = layout.REGION_TABLE | PTE_P | PTE_RW | PTE_A  # the supervisor's alone
REGION_PAE = layout.REGION_TABLES_PAE | PTE_P | PTE_RW | PTE_A | PTE_US  # of two tables
LARGE_REGION = PTE_PS | PTE_P | PTE_RW | PTE_A | PTE_D | PTE_G  # its two large pages under PAE paging, from machine address 0
LARGE_PAE = 1 << 21


@inline
def holds_tables(kind):
    """Whether a page of that kind is a directory."""
    return kind == ROOT or kind == IDENTITY_ROOT or kind == LOOSE_ROOT


@inline
def bucket_of(frame):
    """The bucket of all pages that are shadows of a frame."""
    return frame & (N_BUCKETS - 1)


@kernel
def find(control, kind, frame, role):
    """The page that is the shadow of this, -1 if there is none."""
    at = control.buckets[bucket_of(frame)]
    while at != 0:
        page = control.pages[at - 1]
        if page.frame == frame and page.kind == kind and page.role == role:
            return at - 1
        at = page.following
    return -1


@kernel
def is_followed(control, frame):
    """Whether some page is the shadow of a guest table in this frame."""
    at = control.buckets[bucket_of(frame)]
    while at != 0:
        page = control.pages[at - 1]
        if page.frame == frame and (page.kind == TABLE or page.kind == ROOT):
            return True
        at = page.following
    return False


@kernel
def obtain(cpu, ram, control, links, kind, frame, role):
    """The page that is the shadow of this: found, or allocated, empty."""
    number = find(control, kind, frame, role)
    if number >= 0:
        charge(cpu, EVENT_SHADOW_TABLE_FOUND, 1)
        control.pages[number].used = 1
        return number
    number = allocate(cpu, ram, control, links, kind, frame, role)
    page = control.pages[number]
    page.following = control.buckets[bucket_of(frame)]
    control.buckets[bucket_of(frame)] = number + 1
    if kind == TABLE or kind == ROOT:
        trace(cpu, ram, control, links, frame, PAGE_TABLE)
    return number


@kernel
def allocate(cpu, ram, control, links, kind, frame, role):
    """An empty page of the pool, in no bucket yet."""
    charge(cpu, EVENT_SHADOW_TABLE, 1)
    control.tables_made += 1
    # 1. A page.
    fresh = load_32(ram, NEXT)
    if fresh < control.budget:
        store_32(ram, NEXT, fresh + 1)
        number = fresh
    else:
        if control.free == 0:
            evict(cpu, ram, control, links)
        number = control.free - 1
        control.free = control.pages[number].following
    # 2. Empty, but for the VMM's region in a directory; its record.
    address = page_address(number)
    for place in range(ENTRIES):
        store_32(ram, address + 4 * place, 0)
    page = control.pages[number]
    page.kind = kind
    page.frame = frame
    page.role = role
    page.parents = 0
    page.following = 0
    page.place = -1
    page.aliased = 0
    page.used = 1
    page.unsync = 0
    page.writes = 0
    if holds_tables(kind):
        map_region(ram, control, page, address)
    return number


@kernel
def map_region(ram, control, page, address):
    """Let an empty directory map the VMM's region; under PAE paging that of the last quarter does, by large pages unless
    some of the region is within reach of ring 3."""
    if not is_pae(page):
        store_32(ram, address + 4 * VMM_SLOT, control.region)
    elif control.region == 0 or page.role >> ROLE_QUARTER_SHIFT != QUARTERS - 1:
        return
    elif control.region & PTE_US != 0:
        store_32(ram, address + 4 * VMM_SLOT_PAE, REGION_PAE)
        store_32(ram, address + 4 * VMM_SLOT_PAE + 8, REGION_PAE + 4096)
    else:
        store_32(ram, address + 4 * VMM_SLOT_PAE, LARGE_REGION)
        store_32(ram, address + 4 * VMM_SLOT_PAE + 8, LARGE_PAE | LARGE_REGION)


@inline
def is_loaded(control, number):
    """Whether a page is a directory that the processor walks now."""
    found = number == control.root
    for quarter in range(QUARTERS):
        if control.roots[quarter] == number:
            found = True
    return found


@kernel
def evict(cpu, ram, control, links):
    """Give the page up to which the clock's hand comes."""
    charge(cpu, EVENT_SHADOW_EVICTION, 1)
    while True:
        control.hand += 1
        if control.hand >= control.budget:
            control.hand = 1
        page = control.pages[control.hand]
        if page.used == 0 and not is_loaded(control, control.hand):
            release(ram, control, links, control.hand)
            return
        page.used = 0


@kernel
def release(ram, control, links, number):
    """Give a page up: nothing holds it any more, it maps nothing, and what it followed need not be traced for it."""
    page = control.pages[number]
    # 1. The directories that hold it.
    while page.parents != 0:
        clear_slot(ram, control, links, page.parents - 1)
    # 2. What it holds or maps.
    for slot in range(number * ENTRIES, (number + 1) * ENTRIES):
        if load_32(ram, slot_address(slot)) & PTE_P != 0:
            if holds_tables(page.kind):
                clear_slot(ram, control, links, slot)
            else:
                write_leaf(ram, control, links, slot, 0)
    # 3. The cache, and the tracing of its frame.
    kind = page.kind
    if kind != LOOSE and kind != LOOSE_ROOT:
        leave_bucket(control, number)
    control.unsync_count -= page.unsync
    page.kind = FREE
    if (kind == TABLE or kind == ROOT) and not is_followed(control, page.frame):
        untrace(control, links, page.frame, PAGE_TABLE)
    # 4. It is free.
    page.following = control.free
    control.free = number + 1


@kernel
def leave_bucket(control, number):
    """Take a page out of its bucket."""
    bucket = bucket_of(control.pages[number].frame)
    following = control.pages[number].following
    at = control.buckets[bucket]
    if at == number + 1:
        control.buckets[bucket] = following
        return
    while control.pages[at - 1].following != number + 1:
        at = control.pages[at - 1].following
    control.pages[at - 1].following = following

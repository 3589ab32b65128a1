"""What the VMM keeps of its shadow page tables, as records for jitted code.

Shadow pages come from a pool in the VMM's region. A *slot* is an entry of one of them: page * 1024 + index. Three
policies say how a shadow follows the guest's tables:

* `drop`: it behaves as a large TLB would. INVLPG drops an entry, MOV CR3 everything.
* `trace`: pages are kept, by what they are the shadow of. The guest's tables are not writable; after each write to one,
  what no longer agrees with it is dropped.
* `out-of-sync`: as `trace`, but a page table becomes writable at its first write, and is compared with its shadow at the
  next MOV CR3; INVLPG looks at one entry. Page directories stay traced.

The tables that the processor walks have the format of the guest's, so that each follows one of the guest's: under PAE
paging an entry takes two slots, and the four directories are pages by themselves, for one quarter of the linear space
each. Under `drop` they have the 32-bit format always.
"""

import numpy as np

from .. import layout

N_PAGES = layout.SHADOW_PAGES
ENTRIES = 1024
N_SLOTS = N_PAGES * ENTRIES
MAX_FRAMES = (1 << 19) + 1024  # of the machine: 2 GB, and ROM behind
VMM_SLOT = layout.VMM_BASE >> 22  # the directory entry of the VMM's region
VMM_SLOT_PAE = 2 * (layout.VMM_BASE >> 21 & 0x1FF)  # the first of its two, in the last quarter's directory
QUARTERS = 4  # of the linear space, each with a directory under PAE paging
N_BUCKETS = 256

DROP, TRACE, OUT_OF_SYNC = 0, 1, 2
POLICIES = ("drop", "trace", "out-of-sync")

# What a page of the pool is the shadow of.
FREE = 0
ROOT = 1  # a page directory of the guest, `frame`; under PAE paging of the quarter that its role says
TABLE = 2  # a page table of the guest, `frame`
BROKEN = 3  # a large page of the guest that begins at `frame`, in 4 KB entries
IDENTITY_ROOT = 4  # the linear space of a guest without paging; under PAE paging a quarter without a directory
IDENTITY = 5  # 4 MB of it
LOOSE_ROOT = 6  # under `drop`: whatever directory is loaded
LOOSE = 7  # under `drop`: whatever table stands at its place in the directory

# Modes of the guest's paging on which a shadow depends; the lowest bits of a page's role.
MODE_PG, MODE_WP, MODE_PSE, MODE_PGE, MODE_PAE = 1, 2, 4, 8, 16
MODE_KERNEL = 32  # the guest's kernel is running, in ring 3 like its programs: every page is the processor's user page
ROLE_RIGHTS_SHIFT = 8  # R/W and U/S of the directory entry above, in their places
ROLE_LEAF_SHIFT = 12  # of a large page: D and G, in their places
ROLE_QUARTER_SHIFT = 22  # of a directory under PAE paging

# Outcomes of a walk and of a fill.
FILLED = 0
REFUSED = 1  # the guest's own tables refuse the access: a page fault of the guest's, with `error`
HOLE = 2  # no memory is at the guest-physical address, or none that takes writes
TRACED = 3  # the write reaches a traced frame

# Why a frame is traced.
PAGE_TABLE, DESCRIPTORS, CODE = 1, 2, 4
KINDS = PAGE_TABLE | DESCRIPTORS | CODE

# Entries of the p2m in machine RAM.
NO_MEMORY = 0xFFFFFFFF
READ_ONLY = 1 << 31
MACHINE_FRAME = 0xFFFFF

# Dropped entries that a TLB may still hold: without and with the global bit.
STALE, STALE_GLOBAL = 1, 2

# What the next VM entry has to flush of a hardware guest's translations.
FLUSH_NOTHING, FLUSH_ALL_BUT_GLOBAL, FLUSH_EVERYTHING = range(3)
MOST_FLUSH_PAGES = 8  # noted singly; more of them are everything

SHADOW_PAGE = np.dtype(
    [
        ("kind", "i8"),
        ("frame", "i8"),
        ("role", "i8"),
        ("parents", "i8"),  # the first directory slot that holds it, plus 1
        ("following", "i8"),  # in its bucket, or among the free pages, plus 1
        ("place", "i8"),  # the directory index at which it was held first
        ("aliased", "i8"),  # 1: it was held at another one too
        ("used", "i8"),  # 1: since the clock's hand passed
        ("unsync", "i8"),  # 1: the guest's table may have changed since it was compared
        ("writes", "i8"),  # traced ones since the page was last of use
    ]
)
CONTROL = np.dtype(
    [
        ("policy", "i8"),
        ("budget", "i8"),  # pages of the pool that may be used
        ("frames", "i8"),  # of the guest
        ("root", "i8"),  # page of the directory that the processor walks
        ("mode", "i8"),  # MODE_ bits for which it was made
        ("free", "i8"),  # first page that was given back, plus 1
        ("hand", "i8"),  # of the clock that chooses what is evicted
        ("unsync_count", "i8"),
        ("stale", "i8"),
        ("globals", "i8"),  # 1: a TLB may hold an entry with the global bit
        # work done since Python last looked, which is charged then
        ("tables_made", "i8"),
        ("scans", "i8"),  # whole tables compared
        ("scanned", "i8"),  # entries compared in them
        ("checked", "i8"),  # entries compared singly
        # what the last walk found
        ("gpa", "i8"),
        ("rights", "i8"),  # PTE_RW | PTE_US of all levels
        ("leaf", "i8"),  # the leaf entry, low doubleword, as marked
        ("directory", "i8"),  # the directory entry above it
        ("shift", "i8"),  # bits of the offset: 12, 21 or 22
        ("accessed", "i8"),  # 1: every level had been accessed before
        ("error", "i8"),  # the error code of the guest's page fault
        ("touched", "i8"),  # a frame traced for other reasons than paging that the walk marked, plus 1
        ("violation", "i8"),  # a machine address that is not the guest's, plus 1
        ("buckets", "i8", N_BUCKETS),  # first page by frame, plus 1
        ("pages", SHADOW_PAGE, N_PAGES),
        ("shares_ring", "i8"),  # 1: the guest's kernel runs in ring 3, in a shadow of its own
        ("most_writes", "i8"),  # traced ones after which a page that is of no use meanwhile is given up
        ("directory_high", "i8"),  # of the last walk: the high doubleword of the directory entry, under PAE paging
        ("roots", "i8", QUARTERS),  # pages of the directories that the processor walks; all the same without PAE paging
        ("region", "i8"),  # what stands in a directory for the VMM's region; 0: it is not in the guest's linear space
        ("hardware", "i8"),  # 1: a hardware guest walks the tables, in which it has the whole linear space
        ("cr3", "i8"),  # of a hardware guest: what its processor is to walk from the next VM entry on
        ("flush", "i8"),  # and what that entry has to flush: FLUSH_ ...
        ("flush_count", "i8"),  # if nothing more: so many pages
        ("flush_pages", "i8", MOST_FLUSH_PAGES),
        ("global_entries", "i8"),  # 1: some shadow may hold an entry with the global bit
    ]
)
# Made again from the shadow tables and the pages when a machine is restored.
LINKS = np.dtype(
    [
        ("following", "i8", N_SLOTS),  # the next slot of a chain, plus 1
        ("preceding", "i8", N_SLOTS),
        ("writable", "i8", MAX_FRAMES),  # by machine frame: the first slot that maps it writable, plus 1
        ("traced", "u1", MAX_FRAMES),  # by guest frame
        ("broken", "u1", ENTRIES),  # by directory index: 1 if pieces of a large page of the guest may be in a TLB, or in a shadow
    ]
)

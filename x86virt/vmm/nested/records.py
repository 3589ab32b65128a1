"""What the VMM keeps of its nested tables: a record in machine RAM, where jitted code, Python and witness routines find it.

Tables are pages of the pool that other techniques have for shadow page tables; its first page is left alone. A *region* is
what one entry of a directory maps: 2 MB, or 4 MB where entries have 4 bytes.
"""

import numpy as np

from .. import layout

EPT, NPT_2, NPT_3 = range(3)  # extended page tables; SVM's in the format of 32-bit and of PAE paging
LEVELS = (4, 2, 3)

FIRST_PAGE = 1
N_PAGES = layout.SHADOW_PAGES
MAX_REGIONS = 1024  # 2 GB of 2 MB each
HOLE = 0  # what a fill returns where the p2m has no memory; else how many tables lead to the entry that it made

# What a region's byte says: the p2m maps it to one aligned piece of machine memory, so that one entry can.
IN_PIECES, WHOLE = range(2)

PAGE = np.dtype(
    [
        ("holder", "<u4"),  # machine address of the entry that names this table; 0: it is above the last level, or not in use
        ("used", "<u4"),  # 1: since the clock's hand passed
    ]
)
N_SHOWN = 4
SHOWN = np.dtype(  # a page of the VMM's that a guest-physical frame beyond the guest's RAM shows, which takes no writes
    [
        ("frame", "<u4"),  # 0: none
        ("target", "<u4"),  # as an entry of the p2m
    ]
)
RECORD = np.dtype(
    [
        ("form", "<u4"),
        ("frames", "<u4"),  # of the guest
        ("budget", "<u4"),  # pages of the pool that may be used, the first included
        ("next", "<u4"),  # the first that was never used
        ("hand", "<u4"),  # of the clock that chooses what is evicted
        ("large", "<u4"),  # 1: large pages where they can be
        ("stale", "<u4"),  # 1: entries were taken back that the processor may still remember
        # work done since Python last looked, which is charged then
        ("tables_made", "<u4"),
        ("dropped", "<u4"),
        ("pages", PAGE, N_PAGES),
        ("regions", "u1", MAX_REGIONS),
        ("shown", SHOWN, N_SHOWN),
    ]
)


def place_of(name: str) -> int:
    """The machine address of a field of the record."""
    assert RECORD.fields is not None
    return layout.NESTED_RECORD + int(RECORD.fields[name][1])


FORM, FRAMES, BUDGET, NEXT = place_of("form"), place_of("frames"), place_of("budget"), place_of("next")
HAND, LARGE, STALE = place_of("hand"), place_of("large"), place_of("stale")
TABLES_MADE, DROPPED = place_of("tables_made"), place_of("dropped")
HOLDERS, USED, REGIONS = place_of("pages"), place_of("pages") + 4, place_of("regions")
PAGE_RECORD, SHOWN_FRAMES, SHOWN_RECORD = PAGE.itemsize, place_of("shown"), SHOWN.itemsize

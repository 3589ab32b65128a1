"""One entry of the nested tables, made as the guest first needs it; entries taken back as the p2m changes.

All that the p2m allows is allowed at once: reads and fetches, and writes unless what is there takes none. Where a whole
region lies in one aligned piece of machine memory, one entry of the directory maps it.
"""

from ...core.cache import VMM, reference
from ...core.charge import charge
from ...core.jit import inline, kernel, load_8, load_32, store_8
from ...isa.events import EVENT_NESTED_ENTRY, EVENT_NESTED_ENTRY_DROPPED, EVENT_NESTED_HOLE, EVENT_NESTED_LARGE_ENTRY
from .. import layout
from ..shadow.records import NO_MEMORY, READ_ONLY
from .entries import (
    ADDRESS,
    PAGE_SHIFT,
    ROOT,
    form_of,
    is_large,
    is_present,
    mapping,
    mapping_large,
    place_in,
    region_shift,
    top_shift,
    write_entry,
)
from .pool import note_dropped, note_use, table_behind
from .records import (
    FRAMES,
    HOLE,
    IN_PIECES,
    LARGE,
    LEVELS,
    N_SHOWN,
    NPT_2,
    NPT_3,
    REGIONS,
    SHOWN_FRAMES,
    SHOWN_RECORD,
    WHOLE,
)

P2M = layout.P2M


@inline
def levels_of(form):
    """How many tables a walk visits that ends at a page of 4 KB."""
    if form == NPT_2:
        return LEVELS[NPT_2]
    if form == NPT_3:
        return LEVELS[NPT_3]
    return 4


@kernel
def shown_entry(ram, frame):
    """What a guest-physical frame beyond the guest's RAM shows, as an entry of the p2m."""
    for number in range(N_SHOWN):
        place = SHOWN_FRAMES + number * SHOWN_RECORD
        if frame != 0 and load_32(ram, place) == frame:
            return load_32(ram, place + 4)
    return NO_MEMORY


@kernel
def frame_entry(ram, frame):
    """The p2m's entry of a guest frame."""
    if frame >= load_32(ram, FRAMES):
        return shown_entry(ram, frame)
    return load_32(ram, P2M + 4 * frame)


@kernel
def is_whole(ram, frame, region):
    """Whether one entry may map the region of a frame."""
    return frame < load_32(ram, FRAMES) and load_32(ram, LARGE) == 1 and load_8(ram, REGIONS + region) == WHOLE


@kernel
def directory_place(cpu, ram, form, gpa):
    """Where the directory's entry of an address is; tables above it are made if there are none."""
    table = ROOT
    shift = top_shift(form)
    while shift > region_shift(form):
        place = place_in(form, table, gpa, shift)
        reference(cpu, place, VMM)
        table = table_behind(cpu, ram, form, place, shift, False)
        shift -= 9
    return place_in(form, table, gpa, shift)


@kernel
def is_hole(ram, gpa, write):
    """Whether no memory takes an access, so that nothing can be mapped for it."""
    target = frame_entry(ram, gpa >> PAGE_SHIFT)
    return target == NO_MEMORY or (write == 1 and target & READ_ONLY != 0)


@kernel
def fill(cpu, ram, gpa, write):
    """Map the page of one access: how many tables lead to the entry that was made, HOLE if no memory takes the access."""
    # 1. What the p2m says.
    form = form_of(ram)
    frame = gpa >> PAGE_SHIFT
    target = frame_entry(ram, frame)
    if is_hole(ram, gpa, write):
        charge(cpu, EVENT_NESTED_HOLE, 1)
        return HOLE
    if frame < load_32(ram, FRAMES):
        reference(cpu, P2M + 4 * frame, VMM)
    # 2. A large page, if the region can be one and was not begun in pieces.
    place = directory_place(cpu, ram, form, gpa)
    reference(cpu, place, VMM)
    entry = load_32(ram, place)
    region = gpa >> region_shift(form)
    if is_present(form, entry) and is_large(entry):
        return levels_of(form) - 1
    if not is_present(form, entry) and is_whole(ram, frame, region):
        first = frame_entry(ram, region << (region_shift(form) - PAGE_SHIFT))
        write_entry(ram, form, place, mapping_large(form, first))
        charge(cpu, EVENT_NESTED_LARGE_ENTRY, 1)
        return levels_of(form) - 1
    # 3. A page of 4 KB.
    table = table_behind(cpu, ram, form, place, region_shift(form), True)
    note_use(ram, table)
    place = place_in(form, table, gpa, PAGE_SHIFT)
    reference(cpu, place, VMM)
    write_entry(ram, form, place, mapping(form, target))
    charge(cpu, EVENT_NESTED_ENTRY, 1)
    return levels_of(form)


@kernel
def existing_place(ram, form, gpa):
    """The entry that maps an address, of whatever size; 0 if the tables do not come to one."""
    table = ROOT
    shift = top_shift(form)
    while True:
        place = place_in(form, table, gpa, shift)
        entry = load_32(ram, place)
        if not is_present(form, entry):
            return 0
        if shift == PAGE_SHIFT or (shift == region_shift(form) and is_large(entry)):
            return place
        table = entry & ADDRESS
        if shift == region_shift(form):
            shift = PAGE_SHIFT
        else:
            shift -= 9


@kernel
def drop(cpu, ram, frame):
    """What is at a guest frame has changed: what maps it is taken back, and its region looked at anew."""
    form = form_of(ram)
    if frame < load_32(ram, FRAMES):
        look_at_region(ram, frame >> (region_shift(form) - PAGE_SHIFT))
    place = existing_place(ram, form, frame << PAGE_SHIFT)
    if place != 0:
        write_entry(ram, form, place, 0)
        note_dropped(ram)
        charge(cpu, EVENT_NESTED_ENTRY_DROPPED, 1)


@kernel
def look_at_region(ram, region):
    """See whether a region lies in one aligned piece of machine memory that takes writes."""
    pages = 1 << (region_shift(form_of(ram)) - PAGE_SHIFT)
    first = frame_entry(ram, region * pages)
    whole = WHOLE
    if first == NO_MEMORY or first & READ_ONLY != 0 or first & (pages - 1) != 0:
        whole = IN_PIECES
    number = 1
    while whole == WHOLE and number < pages:
        if frame_entry(ram, region * pages + number) != first + number:
            whole = IN_PIECES
        number += 1
    store_8(ram, REGIONS + region, whole)


@kernel
def look_at_regions(ram):
    """The same of all regions."""
    pages = 1 << (region_shift(form_of(ram)) - PAGE_SHIFT)
    for region in range((load_32(ram, FRAMES) + pages - 1) // pages):
        look_at_region(ram, region)

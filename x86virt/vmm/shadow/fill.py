"""One shadow entry, made on demand from what the walk of the guest's tables found.

Permissions are withheld until the guest's processor would have them: writing until the guest's entry is dirty, which the
first write to the page makes it, and writing to traced frames always. With CR0.WP = 0 the guest's kernel may write what is
read-only; the processor itself always runs with WP = 1, so that such a page is made writable for the supervisor alone.
Where the guest's kernel itself runs in ring 3, it has shadows of its own, in which every page is a user page.
"""

from ...core.cache import VMM, reference
from ...core.charge import charge
from ...core.jit import inline, kernel, load_32
from ...isa.events import (
    EVENT_SHADOW_ENTRY,
    EVENT_SHADOW_GLOBAL_ENTRY,
    EVENT_SHADOW_LARGE_ENTRY,
    EVENT_SHADOW_PIECE,
    EVENT_SHADOW_TRACED_WRITE,
)
from ...isa.registers import PTE_A, PTE_D, PTE_G, PTE_P, PTE_PS, PTE_RW, PTE_US
from .chains import clear_slot, hold_table, is_vmms, page_of, slot_address, write_leaf
from .follow import directory_slot, is_loose, source_of, synchronise_frame, table_index, walks_pae
from .guest_walk import P2M, frame_entry, walk
from .pool import allocate, obtain
from .records import (
    ENTRIES,
    FILLED,
    HOLE,
    IDENTITY,
    LOOSE,
    MACHINE_FRAME,
    MODE_KERNEL,
    MODE_PG,
    MODE_PGE,
    NO_MEMORY,
    READ_ONLY,
    TABLE,
    TRACED,
)
from .tracing import kinds_of


@kernel
def fill(cpu, ram, control, links, gla, write, user):
    """Walk the guest's tables for one access and map its page; FILLED, or why not."""
    # 1. What the guest's tables say.
    outcome = walk(cpu, ram, control, links, gla, write, user, 1)
    if outcome != FILLED:
        return outcome
    # 2. What the p2m says.
    frame = control.gpa >> 12
    target = frame_entry(ram, control, frame)
    place = directory_slot(control, gla)
    if target == NO_MEMORY or (write == 1 and target & READ_ONLY != 0) or is_vmms(control, place):
        return HOLE
    reference(cpu, P2M + 4 * frame, VMM)
    # 3. Is it a frame that is traced?
    kinds = kinds_of(control, links, frame)
    if write == 1 and kinds != 0:
        charge(cpu, EVENT_SHADOW_TRACED_WRITE, 1)
        return TRACED
    # 4. A large page, if it can be kept.
    count = 1 << (control.shift - 12)
    if keeps_large(control) and is_whole(ram, control, links, frame, count):
        first = frame & ~(count - 1)
        large = (frame_entry(ram, control, first) & MACHINE_FRAME) << 12 | PTE_PS | permissions(control, write, 0, target)
        clear_slot(ram, control, links, place)
        reference(cpu, slot_address(place), VMM)
        write_leaf(ram, control, links, place, large)
        charge(cpu, EVENT_SHADOW_LARGE_ENTRY, 1)
        return FILLED
    # 5. A page of 4 KB.
    slot = table_for(cpu, ram, control, links, gla, place) * ENTRIES + table_index(control, gla)
    reference(cpu, slot_address(slot), VMM)
    entry = (target & MACHINE_FRAME) << 12 | permissions(control, write, kinds, target)
    write_leaf(ram, control, links, slot, entry)
    count_entry(cpu, control, links, gla, entry)
    return FILLED


@inline
def count_entry(cpu, control, links, gla, entry):
    """Count what was made, and remember where pieces of a large page are."""
    event = EVENT_SHADOW_ENTRY
    if control.shift != 12:
        event = EVENT_SHADOW_PIECE
        links.broken[gla >> 22] = 1
    charge(cpu, event, 1)
    if entry & PTE_G != 0:
        charge(cpu, EVENT_SHADOW_GLOBAL_ENTRY, 1)


@inline
def permissions(control, write, kinds, target):
    """The low bits of an entry for what the last walk found."""
    user = control.rights & PTE_US
    writable = control.rights & PTE_RW
    if write == 1 and writable == 0:  # allowed by WP = 0 alone
        user = 0
        writable = PTE_RW
    if control.mode & MODE_KERNEL != 0:
        user = PTE_US
    if control.leaf & PTE_D == 0 or target & READ_ONLY != 0 or (kinds != 0):
        writable = 0
    bits = PTE_P | PTE_A | user | writable
    if writable != 0:
        bits |= PTE_D
    if control.mode & MODE_PGE != 0:
        bits |= control.leaf & PTE_G
    return bits


@inline
def keeps_large(control):
    """Whether the guest's page is as large as a large page of the tables that the processor walks."""
    if walks_pae(control):
        return control.shift == 21
    return control.shift == 22


@kernel
def is_whole(ram, control, links, frame, count):
    """Whether the large page of `count` frames around a guest frame lies in one aligned piece of machine memory, writable
    and not traced."""
    first = frame & ~(count - 1)
    base = frame_entry(ram, control, first)
    if base == NO_MEMORY or base & READ_ONLY != 0 or base & (count - 1) != 0:
        return False
    for number in range(count):
        if frame_entry(ram, control, first + number) != base + number:
            return False
        if kinds_of(control, links, first + number) != 0:
            return False
    return True


@inline
def wanted(control, gla):
    """What has to stand at the directory's place for a linear address, after a walk: kind, frame, role."""
    if is_loose(control):
        return LOOSE, 0, 0
    if control.mode & MODE_PG == 0:
        return IDENTITY, gla >> 22, 0
    return source_of(control.mode, control.directory, control.directory_high)


@kernel
def table_for(cpu, ram, control, links, gla, place):
    """The page of the pool that holds the entry of a linear address, found or allocated, and held by the directory."""
    reference(cpu, slot_address(place), VMM)
    entry = load_32(ram, slot_address(place))
    kind, frame, role = wanted(control, gla)
    if entry & PTE_P != 0 and entry & PTE_PS == 0:
        number = page_of(entry)
        page = control.pages[number]
        if page.kind == kind and page.frame == frame and page.role == role:
            page.used = 1
            page.writes = 0
            return number
    clear_slot(ram, control, links, place)
    if kind == LOOSE:
        number = allocate(cpu, ram, control, links, kind, frame, role)
    else:
        if kind == TABLE:
            synchronise_frame(cpu, ram, control, links, frame)
        number = obtain(cpu, ram, control, links, kind, frame, role)
    hold_table(ram, control, links, place, number)
    return number

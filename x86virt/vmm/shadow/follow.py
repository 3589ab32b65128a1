"""How a shadow follows the guest's tables: at a write to one, at INVLPG and at MOV CR3, by policy.

An entry agrees with the guest's as long as it permits nothing that the guest's does not, accessed and dirty bits
included; one that does not agree is dropped, and made again on demand.
"""

from ...core.cache import VMM, reference
from ...core.charge import charge
from ...core.jit import inline, kernel, load_32, store_32
from ...core.page_directory_pointers import set_large_page_size
from ...core.tlb import flush_tlb
from ...core.walk_32bit import large_frame
from ...core.walk_pae import with_high
from ...isa.events import (
    EVENT_SHADOW_ENTRY_DROPPED,
    EVENT_SHADOW_OUT_OF_SYNC,
    EVENT_SHADOW_RELEASE,
    EVENT_SHADOW_SPACE_FOUND,
    EVENT_SHADOW_SPACE_MADE,
    EVENT_SHADOW_SYNCHRONISED,
    EVENT_SYS_MOV_CR0_WRITE,
    EVENT_SYS_MOV_CR3_WRITE,
    EVENT_SYS_MOV_CR4_WRITE,
)
from ...isa.registers import (
    CR4_PAE,
    PDE_2M_ADDRESS,
    PDE_2M_RESERVED,
    PTE_A,
    PTE_ADDRESS,
    PTE_D,
    PTE_G,
    PTE_HIGH_NX,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
)
from .. import layout
from .chains import clear_slot, is_pae, is_vmms, page_address, page_of, slot_address, write_leaf
from .guest_walk import CR3, POINTERS, frame_entry, machine_address, mode_of
from .pool import NEXT, bucket_of, find, is_loaded, obtain, release
from .records import (
    BROKEN,
    DROP,
    ENTRIES,
    FLUSH_ALL_BUT_GLOBAL,
    FREE,
    IDENTITY_ROOT,
    LOOSE_ROOT,
    MACHINE_FRAME,
    MODE_KERNEL,
    MODE_PAE,
    MODE_PG,
    MODE_PGE,
    MODE_PSE,
    MODE_WP,
    NO_MEMORY,
    OUT_OF_SYNC,
    PAGE_TABLE,
    QUARTERS,
    ROLE_LEAF_SHIFT,
    ROLE_QUARTER_SHIFT,
    ROLE_RIGHTS_SHIFT,
    ROOT,
    STALE,
    STALE_GLOBAL,
    TABLE,
    VMM_SLOT,
)
from .tracing import flush_everything, forget_stale, invalidate, kinds_of, trace, untrace

RIGHTS = PTE_RW | PTE_US
SET = PTE_P | PTE_A
LINE_ENTRIES = 16  # of a cache line


# -- agreement --------------------------------------------------------------------------------------------------------


@inline
def is_loose(control):
    """Whether the policy `drop` is what follows the guest's tables."""
    return control.policy == DROP


@inline
def walks_pae(control):
    """Whether the tables that the processor walks have the format of PAE paging."""
    return control.policy != DROP and control.mode & MODE_PAE != 0


@inline
def directory_slot(control, gla):
    """The slot of the directory entry for a linear address, in the directories that the processor walks."""
    if walks_pae(control):
        return control.roots[gla >> 30] * ENTRIES + 2 * ((gla >> 21) & 0x1FF)
    return control.root * ENTRIES + (gla >> 22)


@inline
def table_index(control, gla):
    """The index of the slot for a linear address in its page table."""
    if walks_pae(control):
        return 2 * ((gla >> 12) & 0x1FF)
    return (gla >> 12) & (ENTRIES - 1)


@inline
def source_of(mode, pde, pde_high):
    """What has to stand at a place of the shadow's directory whose entry in the guest's is this: kind, frame, role."""
    role = mode | (pde & RIGHTS) << ROLE_RIGHTS_SHIFT
    if mode & MODE_PAE != 0:
        if pde & PTE_PS == 0:
            return TABLE, with_high(pde & PTE_ADDRESS, pde_high) >> 12, role
        frame = with_high(pde & PDE_2M_ADDRESS, pde_high) >> 12
        return BROKEN, frame, role | (pde & (PTE_D | PTE_G)) << ROLE_LEAF_SHIFT
    if pde & PTE_PS != 0 and mode & MODE_PSE != 0:
        return BROKEN, large_frame(pde) >> 12, role | (pde & (PTE_D | PTE_G)) << ROLE_LEAF_SHIFT
    return TABLE, pde >> 12, role


@kernel
def leaf_agrees(ram, control, mode, rights, guest, frame, entry):
    """Whether a leaf of the shadow agrees with the guest's, which maps `frame` with `rights` of all its levels."""
    if guest & SET != SET:
        return False
    target = frame_entry(ram, control, frame)
    if target == NO_MEMORY or target & MACHINE_FRAME != entry >> 12:
        return False
    kernel = mode & MODE_KERNEL != 0
    if (entry & PTE_US & ~rights != 0 and not kernel) or entry & PTE_G & ~guest != 0:
        return False
    if entry & PTE_RW == 0:
        return True
    if guest & PTE_D == 0:
        return False
    return rights & PTE_RW != 0 or (mode & MODE_WP == 0 and (kernel or entry & PTE_US == 0))


@kernel
def directory_agrees(cpu, ram, control, mode, guest, guest_high, entry):
    """Whether an entry of a shadow's directory agrees with the guest's."""
    if guest & SET != SET:
        return False
    kind, frame, role = source_of(mode, guest, guest_high)
    reserved = cpu.large_page_reserved
    if mode & MODE_PAE != 0:
        reserved = PDE_2M_RESERVED
    if kind == BROKEN and guest & reserved != 0:
        return False
    if entry & PTE_PS != 0:
        return kind == BROKEN and leaf_agrees(ram, control, mode, guest & RIGHTS, guest, frame, entry)
    page = control.pages[page_of(entry)]
    return page.kind == kind and page.frame == frame and page.role == role


@kernel
def compare(cpu, ram, control, links, number, first, last):
    """Compare entries of a shadow with the guest's table, and drop what does not agree."""
    page = control.pages[number]
    source = machine_address(cpu, ram, control, page.frame << 12)
    if source < 0:
        return
    mode = page.role & ((1 << ROLE_RIGHTS_SHIFT) - 1)
    above = (page.role >> ROLE_RIGHTS_SHIFT) & RIGHTS
    pae = is_pae(page)
    reserved_high = cpu.address_reserved_high | PTE_HIGH_NX
    high = 0
    compared = 0
    for index in range(first, last + 1):
        slot = number * ENTRIES + index
        if index == first or index % LINE_ENTRIES == 0:
            reference(cpu, slot_address(slot), VMM)
            reference(cpu, source + 4 * index, VMM)
        entry = load_32(ram, slot_address(slot))
        if entry & PTE_P == 0 or (page.kind == ROOT and is_vmms(control, slot)):
            continue
        compared += 1
        guest = load_32(ram, source + 4 * index)
        if pae:
            high = load_32(ram, source + 4 * index + 4)
        if high & reserved_high != 0:
            guest = 0
        frame = with_high(guest & PTE_ADDRESS, high) >> 12
        if page.kind == ROOT:
            if not directory_agrees(cpu, ram, control, mode, guest, high, entry):
                charge(cpu, EVENT_SHADOW_ENTRY_DROPPED, 1)
                clear_slot(ram, control, links, slot)
        elif not leaf_agrees(ram, control, mode, guest & above, guest, frame, entry):
            charge(cpu, EVENT_SHADOW_ENTRY_DROPPED, 1)
            write_leaf(ram, control, links, slot, 0)
    if last - first == ENTRIES - 1:
        control.scans += 1
        control.scanned += compared
    else:
        control.checked += (last - first + 1) >> int(pae)


# -- writes to the guest's tables -----------------------------------------------------------------------------------------


@kernel
def after_write(cpu, ram, control, links, frame, first, count):
    """Some bytes of a traced table were written: compare its shadows."""
    at = control.buckets[bucket_of(frame)]
    while at != 0:
        number = at - 1
        page = control.pages[number]
        at = page.following
        if page.frame != frame or (page.kind != TABLE and page.kind != ROOT):
            continue
        others = int(is_pae(page))  # an entry has two doublewords
        compare(cpu, ram, control, links, number, (first >> 2) & ~others, ((first + count - 1) >> 2) | others)
        page.writes += 1
        if page.writes >= control.most_writes and not is_loaded(control, number):
            charge(cpu, EVENT_SHADOW_RELEASE, 1)
            release(ram, control, links, number)


@kernel
def let_out_of_sync(cpu, control, links, frame):
    """Let a page table of the guest be written from now on; False if it must stay traced."""
    if control.policy != OUT_OF_SYNC or kinds_of(control, links, frame) != PAGE_TABLE:
        return False
    at = control.buckets[bucket_of(frame)]
    while at != 0:
        page = control.pages[at - 1]
        if page.frame == frame and page.kind == ROOT:
            return False
        at = page.following
    at = control.buckets[bucket_of(frame)]
    while at != 0:
        page = control.pages[at - 1]
        if page.frame == frame and page.kind == TABLE and page.unsync == 0:
            charge(cpu, EVENT_SHADOW_OUT_OF_SYNC, 1)
            page.unsync = 1
            control.unsync_count += 1
        at = page.following
    untrace(control, links, frame, PAGE_TABLE)
    return True


@kernel
def synchronise_frame(cpu, ram, control, links, frame):
    """Compare the shadows of a page table that was let out of sync, and trace it again."""
    found = False
    at = control.buckets[bucket_of(frame)]
    while at != 0:
        number = at - 1
        page = control.pages[number]
        at = page.following
        if page.frame == frame and page.unsync == 1:
            charge(cpu, EVENT_SHADOW_SYNCHRONISED, 1)
            compare(cpu, ram, control, links, number, 0, ENTRIES - 1)
            page.unsync = 0
            control.unsync_count -= 1
            found = True
    if found:
        trace(cpu, ram, control, links, frame, PAGE_TABLE)


@kernel
def synchronise_all(cpu, ram, control, links):
    """Compare everything that was let out of sync."""
    for number in range(1, load_32(ram, NEXT)):
        if control.unsync_count == 0:
            break
        if control.pages[number].unsync == 1:
            synchronise_frame(cpu, ram, control, links, control.pages[number].frame)


# -- INVLPG -----------------------------------------------------------------------------------------------------------------


@kernel
def invalidate_page(cpu, ram, control, links, gla):
    """INVLPG of the guest."""
    place = directory_slot(control, gla)
    entry = load_32(ram, slot_address(place))
    held = entry & PTE_P != 0 and entry & PTE_PS == 0 and not is_vmms(control, place)
    broken = links.broken[gla >> 22] != 0
    stale = control.stale
    alone = True
    if held:
        number = page_of(entry)
        index = table_index(control, gla)
        alone = control.pages[number].aliased == 0
        if is_loose(control) and broken:
            empty(ram, control, links, number)
        elif is_loose(control):
            write_leaf(ram, control, links, number * ENTRIES + index, 0)
        elif control.pages[number].unsync == 1:
            compare(cpu, ram, control, links, number, index, index + int(is_pae(control.pages[number])))
    elif entry & PTE_PS != 0 and is_loose(control):
        clear_slot(ram, control, links, place)
    if broken:
        flush_everything(cpu, control, links)
        links.broken[gla >> 22] = 0
        return
    invalidate(cpu, control, gla)
    if alone:
        control.stale = stale


@kernel
def empty(ram, control, links, number):
    """Drop every entry of a shadow page table."""
    for slot in range(number * ENTRIES, (number + 1) * ENTRIES):
        write_leaf(ram, control, links, slot, 0)


# -- what is behind guest frames ----------------------------------------------------------------------------------------------


@kernel
def forget_frames(cpu, ram, control, links):
    """Other memory is behind some guest frames: drop every entry, in the TLBs too. A change of space has to follow."""
    if control.globals == 1 or control.hardware == 1:
        flush_everything(cpu, control, links)
    if is_loose(control):
        return
    for number in range(1, load_32(ram, NEXT)):
        if control.pages[number].kind == FREE:
            continue
        if not is_loaded(control, number):
            release(ram, control, links, number)
            continue
        for slot in range(number * ENTRIES, (number + 1) * ENTRIES):
            clear_slot(ram, control, links, slot)


# -- MOV CR3, and other changes of the address space --------------------------------------------------------------------------


@kernel
def forget_writable(ram, control, links):
    """Empty the chains of everything that a shadow under `drop` maps writable, which is about to go."""
    for slot in range(ENTRIES * load_32(ram, NEXT)):
        entry = load_32(ram, slot_address(slot))
        if entry & PTE_RW != 0 and (slot >= ENTRIES or entry & PTE_PS != 0):
            links.writable[entry >> 12] = 0


@kernel
def clear_loose(ram, control, links):
    """Drop the whole shadow that `drop` keeps."""
    forget_writable(ram, control, links)
    for number in range(load_32(ram, NEXT)):
        control.pages[number].kind = FREE
        control.pages[number].following = 0
    control.free = 0
    store_32(ram, NEXT, 1)
    for slot in range(ENTRIES):
        store_32(ram, slot_address(slot), 0)
    control.pages[0].kind = LOOSE_ROOT
    store_32(ram, slot_address(VMM_SLOT), control.region)
    control.stale |= STALE
    if control.globals == 1:
        control.stale |= STALE_GLOBAL
    control.global_entries = 0


@kernel
def find_space(cpu, ram, control, links, mode):
    """The directory that is the shadow of the guest's address space: found in the cache, or made, empty."""
    kind = IDENTITY_ROOT
    frame = 0
    if mode & MODE_PG != 0:
        kind = ROOT
        frame = load_32(ram, CR3) >> 12
        synchronise_frame(cpu, ram, control, links, frame)
    found = find(control, kind, frame, mode) >= 0
    count_space(cpu, found)
    return obtain(cpu, ram, control, links, kind, frame, mode)


@inline
def count_space(cpu, found):
    """Count an address space whose shadow was found in the cache, or was not."""
    event = EVENT_SHADOW_SPACE_MADE
    if found:
        event = EVENT_SHADOW_SPACE_FOUND
    charge(cpu, event, 1)


@kernel
def find_quarters(cpu, ram, control, links, mode):
    """The directories of the four quarters under PAE paging, by the pointers that the guest's processor holds.

    Where the guest has none there is nothing, but that the last quarter may need one for the VMM's region.
    """
    found = True
    for quarter in range(QUARTERS):
        low = load_32(ram, POINTERS + 8 * quarter)
        role = mode | quarter << ROLE_QUARTER_SHIFT
        kind = IDENTITY_ROOT
        frame = 0
        if low & PTE_P != 0:
            kind = ROOT
            frame = with_high(low & PTE_ADDRESS, load_32(ram, POINTERS + 8 * quarter + 4)) >> 12
            synchronise_frame(cpu, ram, control, links, frame)
        elif quarter != QUARTERS - 1 or control.region == 0:
            control.roots[quarter] = 0
            set_pointer(cpu, ram, control, quarter, 0)
            continue
        found = found and find(control, kind, frame, role) >= 0
        number = obtain(cpu, ram, control, links, kind, frame, role)
        control.roots[quarter] = number
        set_pointer(cpu, ram, control, quarter, page_address(number) | PTE_P)
    control.root = control.roots[QUARTERS - 1]
    count_space(cpu, found)


@inline
def set_pointer(cpu, ram, control, quarter, pointer):
    """What the processor loads with CR3 under PAE paging, or a VM entry does."""
    store_32(ram, layout.SHADOW_POINTERS + 8 * quarter, pointer)
    store_32(ram, layout.SHADOW_POINTERS + 8 * quarter + 4, 0)
    if control.hardware == 0:
        cpu.pdpte[quarter] = pointer


@kernel
def set_format(cpu, control, links):
    """Let the processor walk tables of the other format: with paging off for a moment, all translations are flushed."""
    charge(cpu, EVENT_SYS_MOV_CR0_WRITE, 2)
    charge(cpu, EVENT_SYS_MOV_CR4_WRITE, 1)
    cpu.cr4 ^= CR4_PAE
    flush_tlb(cpu, 0)
    set_large_page_size(cpu)
    forget_stale(control, links)


@kernel
def load_root(cpu, control, links, cr3):
    """MOV CR3, which flushes all but global entries; of a hardware guest, by the next VM entry."""
    if control.hardware == 1:
        control.cr3 = cr3
        control.flush = max(control.flush, FLUSH_ALL_BUT_GLOBAL)
    else:
        charge(cpu, EVENT_SYS_MOV_CR3_WRITE, 1)
        cpu.cr3 = cr3
        flush_tlb(cpu, 1)
    control.stale &= ~STALE
    if control.globals == 0:
        for place in range(ENTRIES):
            links.broken[place] = 0


@kernel
def change_space(cpu, ram, control, links):
    """The guest's CR3, or the mode of its paging, may have changed: walk the right shadow."""
    mode = mode_of(ram, control)
    # 1. Other modes, other meanings of what the TLBs hold.
    if mode != control.mode and (control.globals == 1 or control.hardware == 1):
        flush_everything(cpu, control, links)
        control.globals = 0
    control.mode = mode
    if control.hardware == 0 and walks_pae(control) != (cpu.cr4 & CR4_PAE != 0):
        set_format(cpu, control, links)
    # 2. The directories.
    cr3 = layout.SHADOW_POINTERS
    if is_loose(control):
        clear_loose(ram, control, links)
    else:
        synchronise_all(cpu, ram, control, links)
    if walks_pae(control):
        find_quarters(cpu, ram, control, links, mode)
    else:
        control.root = 0
        if not is_loose(control):
            control.root = find_space(cpu, ram, control, links, mode)
        for quarter in range(QUARTERS):
            control.roots[quarter] = control.root
        cr3 = page_address(control.root)
    if mode & MODE_PGE != 0 and control.global_entries == 1:
        control.globals = 1
    # 3. MOV CR3.
    load_root(cpu, control, links, cr3)

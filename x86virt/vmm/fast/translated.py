"""Exits from translated code, and the way back into the cache (translation/translator.py: leave, leave_in_ring, enter).

What an exit makes of the processor is undone where the exit is left to Python, which then does it itself.
"""

from ...core.charge import charge_ticks
from ...core.flags import get_eflags, set_eflags
from ...core.jit import inline, kernel, load_32, store_32
from ...isa.events import (
    EVENT_TRANSLATOR_ENTRY,
    EVENT_TRANSLATOR_LOOKUP_MISS,
    EVENT_TRANSLATOR_PAGE_CHECK,
    MODE_VMM,
)
from ...isa.registers import (
    AR_DPL,
    AR_DPL_SHIFT,
    AR_G,
    AR_UNUSABLE,
    CS,
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_TF,
    ESP,
    GS,
    SS,
    TYPE_CODE,
    TYPE_CONFORMING,
)
from .. import layout
from ..translation.index import (
    HELD,
    KIND_SHIFT,
    KNOWN,
    N_ENTRIES,
    PROBES,
    RELEASE_SHIFT,
    SPILLED_SHIFT,
    TARGET_IN_RECORD,
)
from ..translation.record import N_SELECTORS
from .descriptors import is_detached, is_plain
from .exits import can_commit, commit, note_path, virtual_selector
from .guest_access import guest_physical
from .records import (
    CALLOUT,
    CPL,
    DETACHED_CS,
    DETACHED_SS,
    DONE,
    ENTER_CACHE,
    FIRST_SITE,
    GS_BEFORE,
    GUEST_GS,
    INTERRUPT_FLAG,
    IOPL,
    N_SPILLED,
    NOT_FAST,
    OWN_GS,
    RECOVER,
    record_place,
)

M32 = 0xFFFFFFFF
RING = 1
TRANSLATED_CODE = layout.TRANSLATED_CODE_SELECTOR | RING
CALLOUT_VECTOR, CALLOUT_BYTES = layout.CALLOUT_VECTOR, 2
CACHE, CACHE_BYTES = layout.VMM_BASE + layout.CACHE, layout.CACHE_BYTES
RESUME_TRANSLATED = layout.VMM_BASE + layout.RESUME_TRANSLATED
VMM_BASE, GDT = layout.VMM_BASE, layout.GDT
FRAME = layout.STACK_TOP - 20
DIRECT_SITE_BYTES, CALLOUT_STACK = layout.DIRECT_SITE_BYTES, layout.VMM_BASE + layout.CALLOUT_STACK_TOP
IMAGE = layout.CALLOUT_STACK_TOP - 36  # registers as PUSHA leaves them, and the flags
GUEST_GS_SELECTOR = layout.GUEST_GS_SELECTOR
SAVED, TARGET, JUMP, SITE = (record_place(name) for name in ("saved_eax", "target", "jump", "site"))
VIRTUAL_FLAG, PENDING, SELECTORS = (record_place(name) for name in ("interrupt_flag", "pending", "selectors"))
GS_FOR_GUEST, CS_FOR_GUEST = record_place("guest_gs"), record_place("guest_cs")
STACK_POINTER, STACK_SEGMENT, RESUME_EIP = (record_place(name) for name in ("guest_esp", "guest_ss", "resume_eip"))
IF_SHIFT = EFLAGS_IF.bit_length() - 1
MOST_BYTES_LIMIT = (1 << 20) - 1
LOOKUP_MISS = FIRST_SITE + 2


@inline
def copy_segment(to, source):
    """Copy what the processor holds of a segment."""
    to.selector = source.selector
    to.access = source.access
    to.limit = source.limit
    to.seg_base = source.seg_base
    to.read_last = source.read_last
    to.write_last = source.write_last


# -- from the cache to the guest ---------------------------------------------------------------------------------------------


@kernel
def view(cpu, ram, exits, marks, eip):
    """Make the frame and the registers the guest's, by the recovery of the place that control came from."""
    exits.eip = eip
    if marks & TARGET_IN_RECORD != 0:
        exits.eip = load_32(ram, TARGET)
    exits.esp = (exits.esp + ((marks >> RELEASE_SHIFT) & 0xFFFF)) & M32
    exits.cs = exits.guest_cs
    exits.eflags &= ~EFLAGS_TF
    exits.spilled = (marks >> SPILLED_SHIFT) & ((1 << N_SPILLED) - 1)
    for number in range(N_SPILLED):
        if (exits.spilled >> number) & 1 == 1:
            exits.spilled_values[number] = cpu.gpr[number]
            cpu.gpr[number] = load_32(ram, SAVED + 4 * number)
    store_32(ram, INTERRUPT_FLAG, (load_32(ram, VIRTUAL_FLAG) >> IF_SHIFT) & 1)
    if marks & HELD != 0:
        exits.shadow_count = cpu.retired
    copy_segment(exits.gs[GS_BEFORE], cpu.seg[GS])
    copy_segment(cpu.seg[GS], exits.gs[GUEST_GS])
    exits.inside = 0
    exits.left = 1


@kernel
def undo(cpu, exits):
    """The exit is left to Python: the processor is again as it came, where it came from translated code."""
    if exits.left == 0:
        return
    for number in range(N_SPILLED):
        if (exits.spilled >> number) & 1 == 1:
            cpu.gpr[number] = exits.spilled_values[number]
    copy_segment(cpu.seg[GS], exits.gs[GS_BEFORE])
    exits.inside = 1
    exits.serving = 0
    exits.direct = 0


@kernel
def leave(cpu, ram, exits, index):
    """The frame of an exit is that of translated code: make it the guest's; NOT_FAST where Python must."""
    place = exits.eip - CACHE
    called = exits.entry == CALLOUT_VECTOR
    if called:
        place -= CALLOUT_BYTES
    if place < 0 or place >= CACHE_BYTES:
        return NOT_FAST
    marks, eip = index.marks[place], index.eips[place]
    if called:
        marks, eip = index.site_marks[place], index.site_eips[place]
    if marks & KNOWN == 0:
        return NOT_FAST
    view(cpu, ram, exits, marks, eip)
    if called:
        note_path(exits, CALLOUT)
        exits.entry = FIRST_SITE + (marks >> KIND_SHIFT)
    else:
        note_path(exits, RECOVER)
    return DONE


@kernel
def leave_in_ring(cpu, ram, exits, index, direct):
    """A callout stays in ring 1: there is no frame, the guest's stack is in the record and its flags are the processor's."""
    place = load_32(ram, SITE) - CACHE
    if place < 0 or place >= CACHE_BYTES:
        return NOT_FAST
    marks = index.site_marks[place]
    if marks & KNOWN == 0:
        return NOT_FAST
    if direct == 0:
        note_path(exits, CALLOUT)
    exits.entry = FIRST_SITE + (marks >> KIND_SHIFT)
    exits.site = place
    exits.error = 0
    exits.eflags = get_eflags(cpu)
    exits.esp = load_32(ram, STACK_POINTER)
    exits.ss = load_32(ram, STACK_SEGMENT)
    view(cpu, ram, exits, marks, index.site_eips[place])
    copy_segment(exits.gs[OWN_GS], exits.gs[GS_BEFORE])
    exits.serving = 1
    exits.direct = direct
    return DONE


@kernel
def leave_unit(cpu, exits):
    """A jump or an indirect transfer of a guest whose jumps are never chained; those that may be are Python's."""
    if exits.chaining == 1 or not can_commit(exits):
        return NOT_FAST
    commit(cpu, exits)
    if exits.entry == LOOKUP_MISS:
        charge_ticks(cpu, EVENT_TRANSLATOR_LOOKUP_MISS, 1, cpu.price[EVENT_TRANSLATOR_LOOKUP_MISS], MODE_VMM)
    return DONE


# -- from the guest to the cache ----------------------------------------------------------------------------------------------


@kernel
def address_of(cpu, ram, exits, index):
    """Where the guest goes on in the cache, 0 if Python must see to it."""
    if exits.cs != exits.context_cs or load_32(ram, IOPL) != exits.context_iopl or exits.context < 0:
        return 0
    if exits.eflags & EFLAGS_TF != 0 or exits.shadow_count == cpu.retired or cpu.retired >= exits.retired_limit:
        return 0
    if not is_plain(ram, exits.ss):
        return 0
    place = exits.eip ^ (exits.eip >> 13) ^ (exits.context * 0x9E5)
    for step in range(PROBES):
        at = (place + step) & (N_ENTRIES - 1)
        if index.entry_eips[at] == exits.eip and index.entry_contexts[at] == exits.context:
            return index.entry_addresses[at]
    return 0


@kernel
def show_gs(cpu, ram):
    """Let translated code load what the guest has in GS (translator.show_gs): the selector for it."""
    if cpu.seg[GS].access & AR_UNUSABLE != 0:
        return 0
    access = (cpu.seg[GS].access & ~(AR_DPL | AR_G)) | (RING << AR_DPL_SHIFT)
    if access & TYPE_CODE != 0:
        access &= ~TYPE_CONFORMING
    base, limit = cpu.seg[GS].seg_base, cpu.seg[GS].limit
    if limit > MOST_BYTES_LIMIT:
        limit >>= 12
        access |= AR_G
    store_32(ram, GDT + GUEST_GS_SELECTOR, ((base & 0xFFFF) << 16) | (limit & 0xFFFF))
    high = (base & 0xFF000000) | (limit & 0xF0000) | (access << 8) | ((base >> 16) & 0xFF)
    store_32(ram, GDT + GUEST_GS_SELECTOR + 4, high)
    return GUEST_GS_SELECTOR | RING


@inline
def framed_selector(ram, selector, detached):
    """The guest's selector in CS or SS; `detached` is where that of an entry of the VMM's own is kept."""
    if is_detached(selector):
        return load_32(ram, detached)
    return virtual_selector(load_32(ram, CPL), selector)


@kernel
def prepare_record(cpu, ram, exits):
    """Let the translator's record say what translated code takes from it."""
    store_32(ram, GS_FOR_GUEST, show_gs(cpu, ram))
    store_32(ram, CS_FOR_GUEST, exits.cs)
    for segment in range(N_SELECTORS):
        if segment != CS and segment != SS:
            store_32(ram, SELECTORS + 4 * segment, cpu.seg[segment].selector)
    store_32(ram, SELECTORS + 4 * CS, framed_selector(ram, exits.cs, DETACHED_CS))
    store_32(ram, SELECTORS + 4 * SS, framed_selector(ram, exits.ss, DETACHED_SS))
    store_32(ram, STACK_SEGMENT, exits.ss)
    store_32(ram, VIRTUAL_FLAG, load_32(ram, INTERRUPT_FLAG) << IF_SHIFT)
    store_32(ram, PENDING, exits.interrupt_waits)


@kernel
def come_back(cpu, ram, exits, address):
    """Return from a callout that stays in ring 1 by the code that does it."""
    store_32(ram, STACK_POINTER, exits.esp)
    store_32(ram, JUMP, address)
    store_32(ram, RESUME_EIP, exits.eip)
    for number in range(8):
        value = exits.esp
        if number != ESP:
            value = cpu.gpr[number]
        store_32(ram, IMAGE + 4 * (7 - number), value)
    store_32(ram, IMAGE + 32, exits.eflags)
    cpu.gpr[ESP] = VMM_BASE + IMAGE
    cpu.rip = exits.come_back
    set_eflags(cpu, exits.eflags)
    copy_segment(cpu.seg[GS], exits.gs[OWN_GS])
    exits.serving = 0


@kernel
def come_back_directly(cpu, ram, exits):
    """Return behind a direct callout (translator.come_back_directly)."""
    store_32(ram, JUMP, load_32(ram, SITE) + DIRECT_SITE_BYTES)
    store_32(ram, PENDING, exits.interrupt_waits)
    for number in range(N_SPILLED):
        store_32(ram, SAVED + 4 * number, cpu.gpr[number])
    cpu.gpr[ESP] = CALLOUT_STACK
    cpu.rip = exits.come_back_directly
    set_eflags(cpu, exits.eflags)
    copy_segment(cpu.seg[GS], exits.gs[OWN_GS])
    exits.inside = 1
    exits.serving = 0
    exits.direct = 0


@kernel
def enter(cpu, ram, exits, address):
    """Let the processor go on at an address of the cache."""
    charge_ticks(cpu, EVENT_TRANSLATOR_ENTRY, 1, cpu.price[EVENT_TRANSLATOR_ENTRY], MODE_VMM)
    charge_ticks(cpu, exits.event[ENTER_CACHE], 1, exits.price[ENTER_CACHE], MODE_VMM)
    exits.guest_cs = exits.cs
    copy_segment(exits.gs[GUEST_GS], cpu.seg[GS])
    prepare_record(cpu, ram, exits)
    exits.inside = 1
    if exits.serving == 1:
        come_back(cpu, ram, exits, address)
        return
    store_32(ram, FRAME, address)
    store_32(ram, FRAME + 4, TRANSLATED_CODE)
    store_32(ram, FRAME + 8, exits.eflags)
    store_32(ram, FRAME + 12, exits.esp)
    store_32(ram, FRAME + 16, exits.ss)
    cpu.rip = RESUME_TRANSLATED
    cpu.gpr[ESP] = VMM_BASE + FRAME
    set_eflags(cpu, EFLAGS_FIXED)


# -- coherence ----------------------------------------------------------------------------------------------------------------


@kernel
def page_stays(ram, exits, index, number):
    """Whether a linear page with translated code lies where it lay, and can be fetched without any effect."""
    gpa = guest_physical(ram, exits, index.pages[number] << 12, 0, 0)
    return gpa >= 0 and gpa >> 12 == index.page_frames[number]


@kernel
def code_stays(ram, exits, index):
    """Whether all of them do (CodePages.revalidate)."""
    if index.page_count > len(index.pages):
        return False
    stay = True
    for number in range(index.page_count):
        stay = stay and page_stays(ram, exits, index, number)
    return stay


@kernel
def number_of_page(index, gla):
    """The number of the linear page of an address among those with translated code: -1 none, `page_count` not known."""
    if index.page_count > len(index.pages):
        return index.page_count
    for number in range(index.page_count):
        if index.pages[number] == gla >> 12:
            return number
    return -1


@inline
def charge_page_checks(cpu, count):
    """Count the pages that were looked up."""
    if count > 0:
        price = cpu.price[EVENT_TRANSLATOR_PAGE_CHECK]
        charge_ticks(cpu, EVENT_TRANSLATOR_PAGE_CHECK, count, count * price, MODE_VMM)

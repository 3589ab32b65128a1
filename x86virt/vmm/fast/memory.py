"""What the shadow answers: missing entries, INVLPG and MOV CR3 (shadow/memory.py, vm.flush_shadow)."""

from ...core.cache import VMM, reference
from ...core.charge import charge_ticks
from ...core.jit import inline, kernel, load_8, load_32, store_32
from ...isa.events import MODE_VMM
from ...isa.registers import AR_UNUSABLE, DS, EBP, ESP, PF_W, TYPE_EXPAND_DOWN
from ...isa.vectors import KIND_EXCEPTION, PF
from ..shadow.fill import fill
from ..shadow.follow import change_space, invalidate_page, is_loose
from ..shadow.guest_walk import mode_of
from ..shadow.records import DESCRIPTORS, FILLED, MODE_PAE, REFUSED
from .delivery import deliver
from .descriptors import base_of, shadow_high, shadow_low
from .exits import can_commit, commit, note_path
from .guest_access import UNKNOWN, guest_physical
from .records import (
    CPL,
    CR2,
    CR3,
    DONE,
    EMULATE_CONTROL_REGISTER,
    EMULATE_INVLPG,
    NOT_FAST,
    REFLECT,
    REST,
    SHADOW_CHECK,
    SHADOW_FILL,
    SHADOW_FLUSH,
    SHADOW_SWITCH,
    SHADOW_SYNC,
    SHADOW_TABLE,
)
from .translated import charge_page_checks, code_stays, number_of_page, page_stays

M32 = 0xFFFFFFFF
NO_INDEX = 4


@inline
def charge_items(cpu, exits, path, items):
    """Charge a path whose items are counted (vm.charge)."""
    charge_ticks(cpu, exits.event[path], items, exits.base_price[path] + items * exits.item_price[path], MODE_VMM)


@kernel
def charge_work(cpu, exits, control):
    """The time for shadow tables that were allocated, and entries that were compared (ShadowMemory.charge_work)."""
    if control.tables_made > 0:
        charge_items(cpu, exits, SHADOW_TABLE, control.tables_made)
    if control.scans > 0:
        charge_items(cpu, exits, SHADOW_SYNC, control.scanned)
        for _ in range(control.scans - 1):
            charge_items(cpu, exits, SHADOW_SYNC, 0)
    if control.checked > 0:
        charge_items(cpu, exits, SHADOW_CHECK, control.checked)
    control.tables_made = 0
    control.scans = 0
    control.scanned = 0
    control.checked = 0


@inline
def commit_first(cpu, exits, count):
    """Commit, of the references only so many; how many there are in all."""
    noted = exits.reference_count
    exits.reference_count = count
    commit(cpu, exits)
    return noted


@inline
def commit_rest(cpu, exits, first, noted):
    """Charge the other references."""
    for number in range(first, noted):
        reference(cpu, exits.references[number], VMM)


@kernel
def page_fault(cpu, ram, exits, links, control):
    """A missing shadow entry is made; a fault that the guest's own tables raise is the guest's. REST: Python goes on."""
    write, user = int(exits.error & PF_W != 0), int(load_32(ram, CPL) == 3)
    note_path(exits, SHADOW_FILL)
    commit(cpu, exits)
    exits.outcome = fill(cpu, ram, control, links, cpu.cr2, write, user)
    if control.violation != 0 or control.touched != 0:
        return REST
    if exits.outcome == FILLED:
        charge_work(cpu, exits, control)
        return DONE
    if exits.outcome != REFUSED:
        return REST
    charge_work(cpu, exits, control)
    exits.reference_count = 0
    for path in range(len(exits.items)):
        exits.items[path] = 0
    note_path(exits, REFLECT)
    if deliver(cpu, ram, exits, links, PF, control.error, KIND_EXCEPTION, exits.eip, 0) == NOT_FAST:
        return REST
    store_32(ram, CR2, cpu.cr2)
    return DONE


# -- INVLPG -----------------------------------------------------------------------------------------------------------------


@inline
def register(cpu, exits, number):
    """A general register of the guest; ESP is in the frame."""
    value = exits.esp
    if number != ESP:
        value = cpu.gpr[number]
    return value


@kernel
def effective_address(cpu, ram, exits, place):
    """The memory operand of a ModRM byte in 32-bit code: (bytes of ModRM, SIB and displacement, offset, 1 if it is in SS)."""
    modrm = load_8(ram, place)
    mode, base = modrm >> 6, modrm & 7
    length, offset = 1, 0
    if base == ESP:
        sib = load_8(ram, place + 1)
        base, length = sib & 7, 2
        if (sib >> 3) & 7 != NO_INDEX:
            offset = register(cpu, exits, (sib >> 3) & 7) << (sib >> 6)
    if mode == 0 and base == EBP:
        return length + 4, (offset + load_32(ram, place + length)) & M32, 0
    offset += register(cpu, exits, base)
    if mode == 1:
        displacement = load_8(ram, place + length)
        offset += displacement - ((displacement & 0x80) << 1)
        length += 1
    elif mode == 2:
        offset += load_32(ram, place + length)
        length += 4
    return length, offset & M32, int(base == ESP or base == EBP)


@kernel
def operand_base(cpu, ram, exits, in_stack):
    """The base of the guest's DS or SS, -1 if left to Python."""
    if in_stack == 1:
        return base_of(shadow_low(ram, exits.ss), shadow_high(ram, exits.ss))
    segment = cpu.seg[DS]
    if segment.access & AR_UNUSABLE != 0 or segment.access & TYPE_EXPAND_DOWN != 0:
        return UNKNOWN
    return segment.seg_base


@kernel
def invalidate(cpu, ram, exits, links, control, index, place):
    """INVLPG with its ModRM byte at a place: bytes behind the opcode, -1 if left to Python."""
    note_path(exits, EMULATE_INVLPG)
    length, offset, in_stack = effective_address(cpu, ram, exits, place)
    base = operand_base(cpu, ram, exits, in_stack)
    gla = (base + offset) & M32
    if load_32(ram, CPL) != 0 or base < 0 or (place & 0xFFF) + length > 0x1000:
        return -1
    # 1. Whether translated code on the page stays as it is.
    before, checked = exits.reference_count, 0
    if exits.translates == 1:
        number = number_of_page(index, gla)
        checked = int(number >= 0)
        if checked == 1 and (number == index.page_count or not page_stays(ram, exits, index, number)):
            return -1
    if not can_commit(exits):
        return -1
    # 2. Its own references and paths; the walk of that page comes behind the invalidation.
    noted = commit_first(cpu, exits, before)
    invalidate_page(cpu, ram, control, links, gla)
    charge_work(cpu, exits, control)
    charge_page_checks(cpu, checked)
    commit_rest(cpu, exits, before, noted)
    return length


# -- MOV CR3 ----------------------------------------------------------------------------------------------------------------


@kernel
def tables_stay(ram, exits, links, index, value):
    """Whether the guest's descriptor tables are traced and accessed in the address space of another CR3 too.

    So must be the pages with translated code, in their frames.
    """
    old = load_32(ram, CR3)
    store_32(ram, CR3, value)
    stay = True
    for number in range(exits.page_count):
        gpa = guest_physical(ram, exits, exits.pages[number] << 12, 0, 0)
        stay = stay and 0 <= gpa >> 12 < exits.guest_frames and links.traced[gpa >> 12] & DESCRIPTORS != 0
    if exits.translates == 1:
        stay = stay and code_stays(ram, exits, index)
    store_32(ram, CR3, old)
    return stay


@kernel
def load_page_directory(cpu, ram, exits, links, control, index, number):
    """MOV CR3 from a register."""
    note_path(exits, EMULATE_CONTROL_REGISTER)
    value = register(cpu, exits, number)
    before = exits.reference_count
    if mode_of(ram, control) & MODE_PAE != 0:  # pointers are loaded with it, which may fault
        return NOT_FAST
    if load_32(ram, CPL) != 0 or not tables_stay(ram, exits, links, index, value) or not can_commit(exits):
        return NOT_FAST
    # 1. Its own references and paths, the walks in the other address space apart: these come behind the switch.
    noted = commit_first(cpu, exits, before)
    # 2. The other address space.
    store_32(ram, CR3, value)
    path = SHADOW_SWITCH
    if is_loose(control):
        path = SHADOW_FLUSH
    charge_items(cpu, exits, path, 1)
    change_space(cpu, ram, control, links)
    charge_work(cpu, exits, control)
    # 3. The walks of the pages with tables and code in it.
    if exits.translates == 1:
        charge_page_checks(cpu, index.page_count)
    commit_rest(cpu, exits, before, noted)
    return DONE

"""What the shadow answers: missing entries, INVLPG and MOV CR3 (shadow/memory.py, vm.flush_shadow)."""

from ...core.cache import VMM, reference
from ...core.jit import inline, kernel, load_32, store_32
from ...isa.registers import CR3_PAE_ADDRESS, PF_W
from ...isa.vectors import KIND_EXCEPTION, PF
from ..shadow.fill import fill
from ..shadow.follow import change_space, invalidate_page, is_loose
from ..shadow.guest_walk import mode_of
from ..shadow.pointers import set_pointers
from ..shadow.records import DESCRIPTORS, FILLED, MODE_PAE, REFUSED, TRACED
from .delivery import deliver
from .exits import can_commit, charge_items, charge_work, commit, note_path
from .guest_access import POINTERS, guest_physical, machine_address, note_reference
from .operands import M32, effective_address, operand_base, register
from .records import (
    CPL,
    CR2,
    CR3,
    DONE,
    EMULATE_CONTROL_REGISTER,
    EMULATE_INVLPG,
    N_POINTERS,
    NOT_FAST,
    REFLECT,
    REST,
    SHADOW_FILL,
    SHADOW_FLUSH,
    SHADOW_SWITCH,
)
from .traced_writes import traced_write
from .translated import charge_page_checks, code_stays, number_of_page, page_stays


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
    if exits.outcome == TRACED:
        return traced_write(cpu, ram, exits, links, control, user)
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
def load_other_pointers(cpu, ram, exits, control, value):
    """Load the page-directory-pointer entries of another CR3, the present ones kept; False if that faults."""
    place = machine_address(ram, exits, value & CR3_PAE_ADDRESS)
    if place < 0:
        return False
    note_reference(exits, place)
    for number in range(N_POINTERS):
        exits.pointers[number] = load_32(ram, POINTERS + 4 * number)
    return set_pointers(cpu, ram, control, value)


@kernel
def restore_pointers(ram, exits):
    """MOV CR3 is left to Python after all."""
    for number in range(N_POINTERS):
        store_32(ram, POINTERS + 4 * number, exits.pointers[number])


@kernel
def load_page_directory(cpu, ram, exits, links, control, index, number):
    """MOV CR3 from a register."""
    note_path(exits, EMULATE_CONTROL_REGISTER)
    value = register(cpu, exits, number)
    if load_32(ram, CPL) != 0:
        return NOT_FAST
    pae = mode_of(ram, control) & MODE_PAE != 0
    if pae and not load_other_pointers(cpu, ram, exits, control, value):
        return NOT_FAST
    before = exits.reference_count
    if not tables_stay(ram, exits, links, index, value) or not can_commit(exits):
        if pae:
            restore_pointers(ram, exits)
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

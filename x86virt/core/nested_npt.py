"""Nested paging of SVM: guest-physical to physical addresses (AMD publication 24593, section 15.25).

The nested tables have the format of the host's paging mode at VMRUN: 32-bit paging (2 levels), PAE (3 levels, whose pointers are
read at each walk) or long mode (4 levels). Every access counts as a user's, and one to the guest's own tables as a write.
Accessed and dirty bits are set as in any tables. Addresses beyond 4 GB are not present in tables of 2 and 3 levels.
"""

from ..isa.events import EVENT_WALK_NESTED_REFERENCE, EVENT_WALK_NESTED_SKIP
from ..isa.registers import (
    PDE_2M_RESERVED,
    PDPTE_RESERVED,
    PF_I,
    PF_P,
    PF_RSVD,
    PF_U,
    PF_W,
    PTE_A,
    PTE_ADDRESS,
    PTE_D,
    PTE_HIGH_NX,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
)
from ..isa.svm import EXIT_NPF
from .charge import charge
from .jit import inline, kernel
from .layout import NESTED_FETCH, NESTED_READ, NESTED_WRITE, OK, VM_EXIT
from .nested_cache import find_table, forget_table, remember_table, table_region_shift
from .nested_ept import AT_END
from .physical import read_memory, read_table, write_physical

FINAL_ADDRESS, GUEST_TABLES = 1 << 32, 1 << 33  # of EXITINFO1: what was translated
RIGHTS = PTE_RW | PTE_US
FOUR_GIGABYTES = 1 << 32
HIGH_ADDRESS = 0xFFFFF  # bits 51:32 of an address


@kernel
def nested_page_fault(cpu, gpa, access, purpose, cause):
    """Leave the guest for a nested page fault: EXITINFO1 is an error code and what was translated, EXITINFO2 the address."""
    information = cpu.vm_exit
    information.reason = EXIT_NPF
    code = cause | PF_U
    if access == NESTED_WRITE:
        code |= PF_W
    elif access == NESTED_FETCH:
        code |= PF_I
    if purpose == AT_END:
        code |= FINAL_ADDRESS
    else:
        code |= GUEST_TABLES
    information.qualification = code
    information.gpa = gpa
    information.gla = 0
    return VM_EXIT


@inline
def entry_bytes(cpu):
    """The bytes of an entry."""
    if cpu.nested_levels == 2:
        return 4
    return 8


@inline
def nested_entry_address(cpu, table, gpa, shift):
    """Where the entry of a guest-physical address is."""
    if cpu.nested_levels == 2:
        return (table | ((gpa >> shift) & 0x3FF) << 2) & ~cpu.a20_closed
    if cpu.nested_levels == 3 and shift == 30:
        return (table | ((gpa >> 30) & 3) << 3) & ~cpu.a20_closed
    return (table | ((gpa >> shift) & 0x1FF) << 3) & ~cpu.a20_closed


@inline
def top_shift(cpu):
    """The bits of the region that an entry of the top table maps."""
    if cpu.nested_levels == 2:
        return 22
    return 12 + 9 * (cpu.nested_levels - 1)


@inline
def next_shift(cpu, shift):
    """The same of the table below."""
    if cpu.nested_levels == 2:
        return 12
    return shift - 9


@inline
def is_pointer(cpu, shift):
    """Whether an entry is a page-directory-pointer entry of PAE paging, which has no rights and no marks."""
    return cpu.nested_levels == 3 and shift == 30


@inline
def maps_page(cpu, low, shift):
    """Whether an entry above the last level maps a page."""
    if shift == 22:
        return low & PTE_PS != 0 and cpu.nested_large == 1
    return low & PTE_PS != 0 and (shift == 21 or (shift == 30 and cpu.nested_levels == 4))


@kernel
def sets_reserved_bit(cpu, low, high, shift):
    """Whether a present entry sets a bit that is reserved in its format."""
    if cpu.nested_levels == 2:
        return shift == 22 and maps_page(cpu, low, shift) and low & cpu.large_page_reserved != 0
    reserved = cpu.address_reserved_high
    if cpu.nested_levels == 4:
        reserved &= HIGH_ADDRESS  # long mode leaves bits 62:52 to software
    if cpu.nested_no_execute == 0 or is_pointer(cpu, shift):
        reserved |= PTE_HIGH_NX
    if high & reserved != 0:
        return True
    if is_pointer(cpu, shift):
        return low & PDPTE_RESERVED != 0
    if shift == 39:
        return low & PTE_PS != 0
    if shift == 30 and low & PTE_PS != 0:
        return low & 0x3FFFE000 != 0  # bits 29:13
    return shift == 21 and low & PTE_PS != 0 and low & PDE_2M_RESERVED != 0


@inline
def frame_or_table(cpu, low, high, shift):
    """The address in an entry: of a table, or of the page that it maps."""
    if cpu.nested_levels == 2:
        if shift == 22 and maps_page(cpu, low, shift):
            return (low & 0xFFC00000) | ((low >> 13) & 0xFF) << 32
        return low & PTE_ADDRESS
    address = (low & PTE_ADDRESS) | (high & HIGH_ADDRESS) << 32
    if shift > 12 and maps_page(cpu, low, shift):
        address &= ~((1 << shift) - 1)
    return address


@kernel
def mark_steps(cpu, ram, steps, write):
    """Set the accessed bits of the entries that a walk used, and the dirty bit of the last for a write; is the last dirty?"""
    entry = 0
    for step in range(steps):
        entry = cpu.nested.step_entry[step]
        marked = entry | PTE_A
        if write and step == steps - 1:
            marked |= PTE_D
        if marked != entry:
            write_physical(cpu, ram, cpu.nested.step_address[step], 4, marked)
            entry = marked
    return entry & PTE_D != 0


@kernel
def descend_npt(cpu, ram, gpa, access, purpose, table, rights, high_bits, shift):
    """Walk from a table whose entries each map `1 << shift` bytes: (outcome, frame of 4 KB, what is allowed, bits of the page).

    `rights` and `high_bits` are the AND of R/W and U/S, and the OR of NX, of the levels above.
    """
    steps = last_table = last_rights = last_high = 0
    while True:
        # 1. The entry.
        address = nested_entry_address(cpu, table, gpa, shift)
        charge(cpu, EVENT_WALK_NESTED_REFERENCE, 1)
        low = read_table(cpu, ram, address)
        high = 0
        if cpu.nested_levels != 2:
            high = read_memory(cpu, ram, address + 4, 4)
        if low & PTE_P == 0:
            return nested_page_fault(cpu, gpa, access, purpose, 0), 0, 0, 0
        if sets_reserved_bit(cpu, low, high, shift):
            return nested_page_fault(cpu, gpa, access, purpose, PF_P | PF_RSVD), 0, 0, 0
        table = frame_or_table(cpu, low, high, shift)
        # 2. Its rights, and that it is to be marked.
        if not is_pointer(cpu, shift):
            rights &= low
            high_bits |= high
            cpu.nested.step_address[steps] = address
            cpu.nested.step_entry[steps] = low
            steps += 1
        if shift == 12 or maps_page(cpu, low, shift):
            break
        shift = next_shift(cpu, shift)
        if shift == 12:
            last_table = table
            last_rights = rights
            last_high = high_bits
    # 3. Every access is a user's.
    forbidden = rights & PTE_US == 0 or (access == NESTED_WRITE and rights & PTE_RW == 0)
    if forbidden or (access == NESTED_FETCH and high_bits & PTE_HIGH_NX != 0):
        return nested_page_fault(cpu, gpa, access, purpose, PF_P), 0, 0, 0
    # 4. Marks. A page that is not dirty yet cannot be written without another walk.
    dirty = mark_steps(cpu, ram, steps, access == NESTED_WRITE)
    if last_table != 0:
        remember_table(cpu, gpa >> table_region_shift(cpu), last_table, (last_rights & RIGHTS) | (last_high & PTE_HIGH_NX))
    allowed = NESTED_READ
    if dirty and rights & PTE_RW != 0:
        allowed |= NESTED_WRITE
    if high_bits & PTE_HIGH_NX == 0:
        allowed |= NESTED_FETCH
    return OK, table | (gpa & ((1 << shift) - 1) & ~0xFFF), allowed, shift


@kernel
def walk_npt(cpu, ram, gpa, access, purpose):
    """Translate a guest-physical address for one access: (outcome, frame of 4 KB, what is allowed, bits of the page)."""
    if cpu.nested_levels != 4 and gpa >= FOUR_GIGABYTES:
        return nested_page_fault(cpu, gpa, access, purpose, 0), 0, 0, 0
    index = find_table(cpu, gpa >> table_region_shift(cpu))
    if index >= 0:
        entry = cpu.nested.tables[index]
        outcome, frame, allowed, shift = descend_npt(
            cpu, ram, gpa, access, purpose, entry.frame, entry.rights & RIGHTS, entry.rights & PTE_HIGH_NX, 12
        )
        if outcome == OK:
            charge(cpu, EVENT_WALK_NESTED_SKIP, 1)
            return OK, frame, allowed, shift
        forget_table(cpu, index)
    return descend_npt(cpu, ram, gpa, access, purpose, cpu.nested_root, RIGHTS, 0, top_shift(cpu))


@kernel
def peek_npt(cpu, ram, gpa):
    """The physical address of a guest-physical one, or -1; without any effect."""
    if cpu.nested_levels != 4 and gpa >= FOUR_GIGABYTES:
        return -1
    table = cpu.nested_root
    shift = top_shift(cpu)
    while True:
        address = nested_entry_address(cpu, table, gpa, shift)
        low = read_memory(cpu, ram, address, 4)
        high = 0
        if cpu.nested_levels != 2:
            high = read_memory(cpu, ram, address + 4, 4)
        if low & PTE_P == 0 or sets_reserved_bit(cpu, low, high, shift):
            return -1
        table = frame_or_table(cpu, low, high, shift)
        if shift == 12 or maps_page(cpu, low, shift):
            return table | (gpa & ((1 << shift) - 1))
        shift = next_shift(cpu, shift)

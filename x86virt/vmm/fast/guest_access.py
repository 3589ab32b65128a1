"""The guest's memory, read and written through its own tables where no bit of them changes and nobody traces it.

Nothing here has an effect: what is read is noted as a reference to be charged, an address to be written is given back. -1 stands
for all that is left to Python: faults, holes, bits to be set, accesses that cross a page.
"""

from ...core.jit import inline, kernel, load_8, load_16, load_32
from ...isa.registers import (
    CR0_PG,
    CR0_WP,
    CR3_ADDRESS,
    CR4_PAE,
    CR4_PSE,
    PDE_2M_ADDRESS,
    PDE_2M_RESERVED,
    PDE_4M_ADDRESS,
    PDE_4M_RESERVED,
    PTE_A,
    PTE_ADDRESS,
    PTE_D,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
)
from .. import layout
from .records import CR0, CR3, CR4, MAX_REFERENCES

M32 = 0xFFFFFFFF
P2M = layout.P2M
POINTERS = layout.vcpu_address("pdpte")
MACHINE_FRAMES = 1 << 20  # what an entry of the p2m names unless it says more than a frame
UNKNOWN = -1


@inline
def machine_address(ram, exits, gpa):
    """The machine address of a guest-physical one, -1 where the p2m has no plain frame."""
    frame = gpa >> 12
    address = UNKNOWN
    if frame < exits.guest_frames:
        entry = load_32(ram, P2M + 4 * frame)
        if entry < MACHINE_FRAMES:
            address = entry << 12 | (gpa & 0xFFF)
    return address


@inline
def note_reference(exits, address):
    """A live reference of the VMM, to be charged when the exit is committed."""
    if exits.reference_count < MAX_REFERENCES:
        exits.references[exits.reference_count] = address
    exits.reference_count += 1


@inline
def refuses(ram, rights, write, user):
    """Section 4.6: whether an access may not be made with these combined rights."""
    if user == 1:
        return rights & PTE_US == 0 or (write == 1 and rights & PTE_RW == 0)
    return write == 1 and rights & PTE_RW == 0 and load_32(ram, CR0) & CR0_WP != 0


@kernel
def guest_physical(ram, exits, gla, write, user):
    """The guest-physical address of a linear one by the guest's tables (SDM volume 3, section 4.3), -1 if left to Python."""
    if load_32(ram, CR0) & CR0_PG == 0:
        return gla
    cr4 = load_32(ram, CR4)
    marks = PTE_A
    if write == 1:
        marks |= PTE_D
    if cr4 & CR4_PAE != 0:
        return guest_physical_pae(ram, exits, gla, marks, write, user)
    # 1. The page-directory entry; a 4 MB page?
    place = machine_address(ram, exits, (load_32(ram, CR3) & CR3_ADDRESS) | (gla >> 22) << 2)
    if place < 0:
        return UNKNOWN
    note_reference(exits, place)
    pde = load_32(ram, place)
    if pde & PTE_P == 0:
        return UNKNOWN
    if pde & PTE_PS != 0 and cr4 & CR4_PSE != 0:
        if pde & PDE_4M_RESERVED != 0 or pde & marks != marks or refuses(ram, pde, write, user):
            return UNKNOWN
        return (pde & PDE_4M_ADDRESS) | (gla & 0x3FFFFF)
    # 2. The page-table entry.
    place = machine_address(ram, exits, (pde & PTE_ADDRESS) | ((gla >> 12) & 0x3FF) << 2)
    if place < 0:
        return UNKNOWN
    note_reference(exits, place)
    pte = load_32(ram, place)
    # 3. Rights of both levels; accessed and dirty bits that are set already.
    if pte & PTE_P == 0 or pde & PTE_A == 0 or pte & marks != marks or refuses(ram, pde & pte, write, user):
        return UNKNOWN
    return (pte & PTE_ADDRESS) | (gla & 0xFFF)


@kernel
def guest_physical_pae(ram, exits, gla, marks, write, user):
    """The same under PAE paging (section 4.4), from the pointers that the guest's processor holds."""
    # 1. The page-directory entry; a 2 MB page?
    pointer = load_32(ram, POINTERS + 8 * (gla >> 30))
    if pointer & PTE_P == 0 or load_32(ram, POINTERS + 8 * (gla >> 30) + 4) != 0:
        return UNKNOWN
    pde = read_pae_entry(ram, exits, (pointer & PTE_ADDRESS) | ((gla >> 21) & 0x1FF) << 3)
    if pde & PTE_P == 0:
        return UNKNOWN
    if pde & PTE_PS != 0:
        if pde & PDE_2M_RESERVED != 0 or pde & marks != marks or refuses(ram, pde, write, user):
            return UNKNOWN
        return (pde & PDE_2M_ADDRESS) | (gla & 0x1FFFFF)
    # 2. The page-table entry, rights and bits as in 32-bit paging.
    pte = read_pae_entry(ram, exits, (pde & PTE_ADDRESS) | ((gla >> 12) & 0x1FF) << 3)
    if pte & PTE_P == 0 or pde & PTE_A == 0 or pte & marks != marks or refuses(ram, pde & pte, write, user):
        return UNKNOWN
    return (pte & PTE_ADDRESS) | (gla & 0xFFF)


@inline
def read_pae_entry(ram, exits, gpa):
    """The low doubleword of an entry, noted as a reference; 0, not present, if left to Python: its high one is not 0."""
    place = machine_address(ram, exits, gpa)
    entry = 0
    if place >= 0:
        note_reference(exits, place)
        if load_32(ram, place + 4) == 0:
            entry = load_32(ram, place)
    return entry


@kernel
def place_to_read(ram, exits, gla, n, user):
    """The machine address of `n` bytes to be read at a linear address."""
    if (gla & 0xFFF) + n > 0x1000:
        return UNKNOWN
    gpa = guest_physical(ram, exits, gla, 0, user)
    if gpa < 0:
        return UNKNOWN
    return machine_address(ram, exits, gpa)


@kernel
def place_to_write(ram, exits, links, gla, n, user):
    """The machine address of `n` bytes to be written at a linear address; not of a traced frame."""
    if (gla & 0xFFF) + n > 0x1000:
        return UNKNOWN
    gpa = guest_physical(ram, exits, gla, 1, user)
    if gpa < 0:
        return UNKNOWN
    if gpa >> 12 >= exits.guest_frames or links.traced[gpa >> 12] != 0:
        return UNKNOWN
    return machine_address(ram, exits, gpa)


@kernel
def read_guest(ram, exits, gla, n, user):
    """One, two or four bytes at a linear address, -1 if left to Python."""
    place = place_to_read(ram, exits, gla & M32, n, user)
    if place < 0:
        return UNKNOWN
    if n == 1:
        return load_8(ram, place)
    if n == 2:
        return load_16(ram, place)
    return load_32(ram, place)

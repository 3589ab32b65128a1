"""The walk of the guest's own page tables over the p2m, as its processor would make it (SDM volume 3, sections 4.3 to 4.8).

A walk leaves what it found in the control record. It sets accessed and dirty bits as the guest's processor would.
"""

import numpy as np

from ...core.cache import VMM, reference
from ...core.charge import charge
from ...core.jit import inline, kernel, load_8, load_32
from ...core.layout import OWNER_GUEST
from ...core.physical import write_physical
from ...core.walk_32bit import large_frame
from ...core.walk_pae import with_high
from ...isa.events import EVENT_SHADOW_ACCESSED_SET, EVENT_SHADOW_DIRTY_SET
from ...isa.registers import (
    CR0_PG,
    CR0_WP,
    CR3_ADDRESS,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    PDE_2M_ADDRESS,
    PDE_2M_RESERVED,
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
from .. import layout
from .records import (
    FILLED,
    KINDS,
    MACHINE_FRAME,
    MODE_KERNEL,
    MODE_PAE,
    MODE_PG,
    MODE_PGE,
    MODE_PSE,
    MODE_WP,
    NO_MEMORY,
    PAGE_TABLE,
    READ_ONLY,
    REFUSED,
)

P2M = layout.P2M
CR0 = layout.vcpu_address("cr0")
CR3 = layout.vcpu_address("cr3")
CR4 = layout.vcpu_address("cr4")
CPL = layout.vcpu_address("cpl")
POINTERS = layout.vcpu_address("pdpte")
ALL_ONES = 0xFFFFFFFF


# -- guest-physical memory ------------------------------------------------------------------------------------------


@inline
def frame_entry(ram, control, frame):
    """The p2m's entry of a guest frame."""
    if frame >= control.frames:
        return NO_MEMORY
    return load_32(ram, P2M + 4 * frame)


@kernel
def machine_address(cpu, ram, control, gpa):
    """The machine address of a guest-physical one, -1 where no memory is."""
    entry = frame_entry(ram, control, gpa >> 12)
    if entry == NO_MEMORY:
        return -1
    address = (entry & MACHINE_FRAME) << 12 | gpa & 0xFFF
    if cpu.owner_table != 0 and load_8(ram, cpu.owner_table + (address >> 12)) != OWNER_GUEST:
        control.violation = address + 1
    return address


@inline
def read_guest(cpu, ram, control, gpa):
    """The doubleword at a guest-physical address; ones where no memory is."""
    address = machine_address(cpu, ram, control, gpa)
    if address < 0:
        return ALL_ONES
    return load_32(ram, address)


@inline
def read_entry(cpu, ram, control, gpa):
    """A doubleword of one of the guest's tables: a live reference of the VMM."""
    address = machine_address(cpu, ram, control, gpa)
    if address < 0:
        return ALL_ONES
    reference(cpu, address, VMM)
    return load_32(ram, address)


@kernel
def update(cpu, ram, control, links, gpa, old, new):
    """Write a table's entry if a bit of it was set; what is read-only stays as it is."""
    entry = frame_entry(ram, control, gpa >> 12)
    if new == old or entry & READ_ONLY != 0:
        return
    if (new ^ old) & PTE_A != 0:
        charge(cpu, EVENT_SHADOW_ACCESSED_SET, 1)
    if (new ^ old) & PTE_D != 0:
        charge(cpu, EVENT_SHADOW_DIRTY_SET, 1)
    write_physical(cpu, ram, machine_address(cpu, ram, control, gpa), 4, new)
    if np.int64(links.traced[gpa >> 12]) & KINDS & ~PAGE_TABLE != 0:
        control.touched = (gpa >> 12) + 1


# -- access rights ----------------------------------------------------------------------------------------------------


@inline
def permits(ram, rights, write, user):
    """Section 4.6: may this access be made with these combined rights?"""
    if user == 1:
        return rights & PTE_US != 0 and (write == 0 or rights & PTE_RW != 0)
    return write == 0 or rights & PTE_RW != 0 or load_32(ram, CR0) & CR0_WP == 0


@inline
def refuse(control, write, user, cause):
    """Section 4.7: the error code of the page fault that the guest's processor would raise."""
    control.error = cause | write * PF_W | user * PF_U
    return REFUSED


@kernel
def mode_of(ram, control):
    """The modes of the guest's paging, as MODE_ bits; WP, PSE and the others mean nothing while it is off.

    Where kernel and programs share the processor's ring 3, a page that is global for one must not be so for the other.
    """
    cr0 = load_32(ram, CR0)
    cr4 = load_32(ram, CR4)
    if cr0 & CR0_PG == 0:
        return 0
    mode = MODE_PG
    if cr0 & CR0_WP != 0:
        mode |= MODE_WP
    if cr4 & CR4_PSE != 0:
        mode |= MODE_PSE
    if control.shares_ring == 1 and load_32(ram, CPL) < 3:
        mode |= MODE_KERNEL
    if cr4 & CR4_PGE != 0 and control.shares_ring == 0:
        mode |= MODE_PGE
    if cr4 & CR4_PAE != 0:
        mode |= MODE_PAE
    return mode


# -- walks --------------------------------------------------------------------------------------------------------------


@kernel
def walk(cpu, ram, control, links, gla, write, user, mark):
    """Walk the guest's tables for one access; with `mark` 1, set accessed and dirty bits. FILLED or REFUSED."""
    control.directory_high = 0
    if load_32(ram, CR0) & CR0_PG == 0:
        control.gpa = gla
        control.rights = PTE_RW | PTE_US
        control.leaf = PTE_A | PTE_D
        control.directory = 0
        control.shift = 12
        control.accessed = 1
        return FILLED
    if load_32(ram, CR4) & CR4_PAE != 0:
        return walk_pae(cpu, ram, control, links, gla, write, user, mark)
    return walk_32bit(cpu, ram, control, links, gla, write, user, mark)


@inline
def found(control, gpa, rights, leaf, directory, shift, accessed):
    """Note what a walk found."""
    control.gpa = gpa
    control.rights = rights
    control.leaf = leaf
    control.directory = directory
    control.shift = shift
    control.accessed = int(accessed != 0)
    return FILLED


@kernel
def walk_32bit(cpu, ram, control, links, gla, write, user, mark):
    """The two levels of 32-bit paging (section 4.3)."""
    # 1. The page-directory entry; a 4 MB page?
    directory = (load_32(ram, CR3) & CR3_ADDRESS) | (gla >> 22) << 2
    pde = read_entry(cpu, ram, control, directory)
    if pde & PTE_P == 0:
        return refuse(control, write, user, 0)
    if pde & PTE_PS != 0 and load_32(ram, CR4) & CR4_PSE != 0:
        if pde & cpu.large_page_reserved != 0:
            return refuse(control, write, user, PF_P | PF_RSVD)
        gpa = large_frame(pde) | (gla & 0x3FFFFF)
        return finish_large(cpu, ram, control, links, directory, pde, gpa, 22, write, user, mark)
    # 2. The page-table entry.
    table = (pde & PTE_ADDRESS) | ((gla >> 12) & 0x3FF) << 2
    pte = read_entry(cpu, ram, control, table)
    if pte & PTE_P == 0:
        return refuse(control, write, user, 0)
    # 3. Access rights are the AND of both levels.
    rights = pde & pte & (PTE_RW | PTE_US)
    if not permits(ram, rights, write, user):
        return refuse(control, write, user, PF_P)
    # 4. Accessed bits at both levels, the dirty bit in the leaf.
    marked = pte | PTE_A | write * PTE_D
    if mark == 1:
        update(cpu, ram, control, links, directory, pde, pde | PTE_A)
        update(cpu, ram, control, links, table, pte, marked)
    gpa = (pte & PTE_ADDRESS) | (gla & 0xFFF)
    return found(control, gpa, rights, marked, pde | PTE_A, 12, pde & pte & PTE_A)


@kernel
def finish_large(cpu, ram, control, links, place, pde, gpa, shift, write, user, mark):
    """The end of a walk at a large page."""
    rights = pde & (PTE_RW | PTE_US)
    if not permits(ram, rights, write, user):
        return refuse(control, write, user, PF_P)
    marked = pde | PTE_A | write * PTE_D
    if mark == 1:
        update(cpu, ram, control, links, place, pde, marked)
    return found(control, gpa, rights, marked, marked, shift, pde & PTE_A)


@kernel
def walk_pae(cpu, ram, control, links, gla, write, user, mark):
    """PAE paging (section 4.4), from the pointers that the last load of CR3 read. No-execute pages are not virtualized."""
    # 1. The page-directory-pointer entry.
    pointer = POINTERS + 8 * (gla >> 30)
    low = load_32(ram, pointer)
    if low & PTE_P == 0:
        return refuse(control, write, user, 0)
    # 2. The page-directory entry; a 2 MB page?
    reserved = cpu.address_reserved_high | PTE_HIGH_NX
    directory = with_high(low & PTE_ADDRESS, load_32(ram, pointer + 4)) | ((gla >> 21) & 0x1FF) << 3
    pde = read_entry(cpu, ram, control, directory)
    pde_high = read_guest(cpu, ram, control, directory + 4)
    if pde & PTE_P == 0:
        return refuse(control, write, user, 0)
    control.directory_high = pde_high
    if pde_high & reserved != 0 or (pde & PTE_PS != 0 and pde & PDE_2M_RESERVED != 0):
        return refuse(control, write, user, PF_P | PF_RSVD)
    if pde & PTE_PS != 0:
        gpa = with_high(pde & PDE_2M_ADDRESS, pde_high) | (gla & 0x1FFFFF)
        return finish_large(cpu, ram, control, links, directory, pde, gpa, 21, write, user, mark)
    # 3. The page-table entry.
    table = with_high(pde & PTE_ADDRESS, pde_high) | ((gla >> 12) & 0x1FF) << 3
    pte = read_entry(cpu, ram, control, table)
    pte_high = read_guest(cpu, ram, control, table + 4)
    if pte & PTE_P == 0:
        return refuse(control, write, user, 0)
    if pte_high & reserved != 0:
        return refuse(control, write, user, PF_P | PF_RSVD)
    # 4. Rights, accessed and dirty bits as in 32-bit paging.
    rights = pde & pte & (PTE_RW | PTE_US)
    if not permits(ram, rights, write, user):
        return refuse(control, write, user, PF_P)
    marked = pte | PTE_A | write * PTE_D
    if mark == 1:
        update(cpu, ram, control, links, directory, pde, pde | PTE_A)
        update(cpu, ram, control, links, table, pte, marked)
    gpa = with_high(pte & PTE_ADDRESS, pte_high) | (gla & 0xFFF)
    return found(control, gpa, rights, marked, pde | PTE_A, 12, pde & pte & PTE_A)

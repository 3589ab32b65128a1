"""Access rights of a translation, and the page fault (SDM volume 3, sections 4.6 and 4.7): alike in all paging modes."""

from ..isa.registers import (
    CR0_WP,
    CR4_PAE,
    CR4_PGE,
    EFER_NXE,
    PF_I,
    PF_P,
    PF_RSVD,
    PF_U,
    PF_W,
    PTE_D,
    PTE_G,
    PTE_RW,
    PTE_US,
)
from ..isa.vectors import PF
from .fault import raise_fault
from .jit import inline, kernel
from .layout import RIGHT_NX

# The causes of a page fault, as the bits of the error code that tell them apart.
NOT_PRESENT = 0
PROTECTION = PF_P
RESERVED_BIT = PF_P | PF_RSVD


@inline
def permits(cpu, rights, write, user, fetch):
    """Whether the combined U/S, R/W and NX bits of a walk allow the access (section 4.6)."""
    if fetch == 1 and rights & RIGHT_NX != 0:
        return False
    if user == 1:
        return rights & PTE_US != 0 and (write == 0 or rights & PTE_RW != 0)
    return write == 0 or rights & PTE_RW != 0 or cpu.cr0 & CR0_WP == 0


@inline
def leaf_rights(cpu, entry):
    """The dirty bit and, if CR4.PGE allows it, the global bit of a leaf entry."""
    return (entry & PTE_D) | (entry & PTE_G) * int(cpu.cr4 & CR4_PGE != 0)


@kernel
def page_fault(cpu, gla, write, user, fetch, cause):
    """Raise #PF with CR2 and the error code of section 4.7; a fetch is told apart only where NX is enabled."""
    cpu.cr2_before = cpu.cr2
    cpu.fault_address = gla
    cpu.cr2 = gla
    code = cause | write * PF_W | user * PF_U
    if fetch == 1 and cpu.cr4 & CR4_PAE != 0 and cpu.efer & EFER_NXE != 0:
        code |= PF_I
    return raise_fault(cpu, PF, code)

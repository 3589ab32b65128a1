"""Guest memory as the VMM reaches it: guest-physical through the p2m, linear through the guest's own page tables.

An emulated access does what the processor would have done: it checks U/S, R/W and WP, raises the guest's page fault,
and sets accessed and dirty bits in the guest's tables (SDM volume 3, sections 4.3 to 4.8).
"""

from typing import TYPE_CHECKING

from ..isa.registers import (
    CR0_PG,
    CR0_WP,
    CR3_ADDRESS,
    CR4_PSE,
    PDE_4M_ADDRESS,
    PDE_4M_RESERVED,
    PF_P,
    PF_RSVD,
    PF_U,
    PF_W,
    PTE_A,
    PTE_ADDRESS,
    PTE_D,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
)
from ..isa.vectors import PF
from .exits import GuestFault
from .stops import note_access

if TYPE_CHECKING:
    from .vm import VirtualMachine

PAGE_BYTES = 4096


class Translation:
    """The result of a guest page walk: `gpa`, combined `rights` (PTE_RW | PTE_US), the leaf's dirty bit, and whether
    every level was marked accessed before."""

    def __init__(self, gpa: int, rights: int, dirty: bool, accessed: bool) -> None:
        self.gpa, self.rights, self.dirty, self.accessed = gpa, rights, dirty, accessed


class GuestMemory:
    """Reads and writes guest memory of one virtual machine."""

    def __init__(self, vm: "VirtualMachine") -> None:
        self.vm = vm

    # -- guest-physical -----------------------------------------------------------------------------------------

    def machine_address(self, gpa: int) -> int | None:
        """The machine address of a guest-physical one, None beyond the guest's RAM."""
        frame = gpa >> 12
        if frame >= len(self.vm.p2m):
            return None
        address = int(self.vm.p2m[frame]) << 12 | gpa & 0xFFF
        self.vm.check_owner(gpa, address)
        return address

    def read_gpa(self, gpa: int, n: int) -> int:
        """`n` bytes, little-endian, within one page; ones where there is no RAM."""
        address = self.machine_address(gpa)
        if address is None:
            return (1 << (8 * n)) - 1
        return int.from_bytes(self.vm.processor.read_physical(address, n), "little")

    def write_gpa(self, gpa: int, n: int, value: int) -> None:
        """Store `n` bytes within one page; lost where there is no RAM."""
        address = self.machine_address(gpa)
        if address is not None:
            self.vm.processor.write_physical(address, (value & ((1 << (8 * n)) - 1)).to_bytes(n, "little"))
            self.vm.on_guest_frame_written(gpa >> 12)

    def reference(self, gpa: int) -> None:
        """A live reference to a guest structure: its latency above L1 is charged."""
        address = self.machine_address(gpa)
        if address is not None:
            self.vm.reference(address)

    # -- linear -------------------------------------------------------------------------------------------------

    def walk(self, gla: int, write: bool, user: bool, mark: bool = True) -> Translation:
        """Walk the guest's tables; `mark` sets accessed and dirty bits. Raises GuestFault."""
        vcpu = self.vm.vcpu
        if not vcpu.cr0 & CR0_PG:
            return Translation(gla, PTE_RW | PTE_US, True, True)
        pde_address = (int(vcpu.cr3) & CR3_ADDRESS) | (gla >> 22) << 2
        self.reference(pde_address)
        pde = self.read_gpa(pde_address, 4)
        if not pde & PTE_P:
            raise self.page_fault(gla, False, write, user)
        if pde & PTE_PS and vcpu.cr4 & CR4_PSE:
            if pde & PDE_4M_RESERVED:
                raise self.page_fault(gla, True, write, user, PF_RSVD)
            return self.finish(gla, pde_address, pde, None, None, write, user, mark)
        pte_address = (pde & PTE_ADDRESS) | ((gla >> 12) & 0x3FF) << 2
        self.reference(pte_address)
        pte = self.read_gpa(pte_address, 4)
        if not pte & PTE_P:
            raise self.page_fault(gla, False, write, user)
        return self.finish(gla, pde_address, pde, pte_address, pte, write, user, mark)

    def finish(
        self, gla: int, pde_address: int, pde: int, pte_address: int | None, pte: int | None,
        write: bool, user: bool, mark: bool,
    ) -> Translation:  # fmt: skip
        """The end of a walk: rights, accessed and dirty bits."""
        rights = pde & (PTE_RW | PTE_US)
        if pte is not None:
            rights &= pte
        if not self.permits(rights, write, user):
            raise self.page_fault(gla, True, write, user)
        leaf = pde if pte is None else pte
        marked = leaf | PTE_A | (PTE_D if write else 0)
        if mark:
            if pte is None or pte_address is None:
                self.update(pde_address, pde, marked)
            else:
                self.update(pde_address, pde, pde | PTE_A)
                self.update(pte_address, pte, marked)
        if pte is None:
            gpa = (pde & PDE_4M_ADDRESS) | (gla & 0x3FFFFF)
        else:
            gpa = (pte & PTE_ADDRESS) | (gla & 0xFFF)
        return Translation(gpa, rights, bool(marked & PTE_D), bool(pde & leaf & PTE_A))

    def update(self, gpa: int, old: int, new: int) -> None:
        """Write a table entry if it changed."""
        if new != old:
            self.write_gpa(gpa, 4, new)

    def permits(self, rights: int, write: bool, user: bool) -> bool:
        """Section 4.6: may this access be made with these combined rights?"""
        if user:
            return bool(rights & PTE_US) and (not write or bool(rights & PTE_RW))
        return not write or bool(rights & PTE_RW) or not self.vm.vcpu.cr0 & CR0_WP

    def page_fault(self, gla: int, present: bool, write: bool, user: bool, more: int = 0) -> GuestFault:
        """The page fault that the guest's processor would raise."""
        code = (PF_P if present else 0) | (PF_W if write else 0) | (PF_U if user else 0) | more
        return GuestFault(PF, code, gla)

    def read_bytes(self, gla: int, count: int, user: bool = False) -> bytes:
        """Read `count` bytes at a linear address, a walk for each page."""
        octets = b""
        while len(octets) < count:
            place = gla + len(octets) & 0xFFFFFFFF
            room = min(count - len(octets), PAGE_BYTES - (place & 0xFFF))
            address = self.machine_address(self.walk(place, False, user).gpa)
            octets += b"\xff" * room if address is None else self.vm.processor.read_physical(address, room)
        return octets

    def read(self, gla: int, n: int, user: bool = False) -> int:
        """Read `n` bytes at a linear address, across pages."""
        gla &= 0xFFFFFFFF
        note_access(self.vm.processor, gla, n, False)
        head = min(n, PAGE_BYTES - (gla & 0xFFF))
        first = self.walk(gla, False, user).gpa
        value = 0
        if head < n:
            second = self.walk((gla + head) & 0xFFFFFFFF, False, user).gpa
            value = self.read_gpa(second, n - head) << (8 * head)
        return value | self.read_gpa(first, head)

    def read_pair(self, gla: int) -> tuple[int, int]:
        """The two doublewords of a descriptor or gate, as the supervisor."""
        value = self.read(gla, 8)
        return value & 0xFFFFFFFF, value >> 32

    def write(self, gla: int, n: int, value: int, user: bool = False) -> None:
        """Write `n` bytes at a linear address, across pages; nothing is written if either page faults."""
        gla &= 0xFFFFFFFF
        note_access(self.vm.processor, gla, n, True)
        head = min(n, PAGE_BYTES - (gla & 0xFFF))
        first = self.walk(gla, True, user).gpa
        if head < n:
            second = self.walk((gla + head) & 0xFFFFFFFF, True, user).gpa
            self.write_gpa(second, n - head, value >> (8 * head))
        self.write_gpa(first, head, value)

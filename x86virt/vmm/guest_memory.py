"""Guest memory as the VMM reaches it: guest-physical through the p2m, linear through the guest's own page tables.

An emulated access does what the processor would have done: it checks U/S, R/W and WP, raises the guest's page fault,
and sets accessed and dirty bits in the guest's tables (SDM volume 3, sections 4.3 to 4.8).
"""

from typing import TYPE_CHECKING

from ..isa.registers import PTE_D
from .isolation import check_owner
from .stops import note_access

if TYPE_CHECKING:
    from .virtual_machine import VirtualMachine

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

    def machine_address(self, gpa: int, write: bool = False) -> int | None:
        """The machine address of a guest-physical one, None where no memory gives or takes anything."""
        frame = gpa >> 12
        if frame >= len(self.vm.p2m):
            return None
        found: int | None = int(self.vm.p2m[frame])
        if frame in self.vm.physical.moved:
            found = self.vm.physical.moved[frame][write]
        if found is None:
            return None
        address = found << 12 | gpa & 0xFFF
        check_owner(self.vm, gpa, address)
        return address

    def read_gpa(self, gpa: int, n: int) -> int:
        """`n` bytes, little-endian, within one page; ones where there is no RAM."""
        address = self.machine_address(gpa)
        if address is None:
            return (1 << (8 * n)) - 1
        return int.from_bytes(self.vm.processor.read_physical(address, n), "little")

    def write_gpa(self, gpa: int, n: int, value: int) -> None:
        """Store `n` bytes within one page; lost where there is no RAM."""
        address = self.machine_address(gpa, True)
        if address is not None:
            self.vm.processor.write_physical(address, (value & ((1 << (8 * n)) - 1)).to_bytes(n, "little"))
            self.vm.shadow.note_write(gpa, n)

    # -- linear -------------------------------------------------------------------------------------------------

    def walk(self, gla: int, write: bool, user: bool, mark: bool = True) -> Translation:
        """Walk the guest's tables; `mark` sets accessed and dirty bits. Raises GuestFault."""
        self.vm.prepare_walk()
        self.vm.shadow.walk(gla, write, user, mark)
        found = self.vm.shadow.control
        return Translation(int(found.gpa), int(found.rights), bool(found.leaf & PTE_D), bool(found.accessed))

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

"""Shadow page tables: what the processor really walks, filled on demand from the guest's tables and the p2m.

They behave as a TLB would. A missing entry is filled at the page fault; a write to a clean page faults once more, so
that the guest's dirty bit can be set; INVLPG drops one entry, a CR3 write all of them. While the guest is unpaged the
same tables hold the identity. Guest large pages are broken into 4 KB ones. Frames whose modification must be seen
(the guest's descriptor tables) are never mapped writable.

Writing with CR0.WP = 0: the processor always runs with WP = 1; such a page is mapped writable for the supervisor only.
"""

from typing import TYPE_CHECKING

from ..isa.registers import PTE_A, PTE_ADDRESS, PTE_D, PTE_G, PTE_P, PTE_RW, PTE_US
from . import layout
from .exits import Unsupported

if TYPE_CHECKING:
    from .guest_memory import Translation
    from .vm import VirtualMachine

VMM_PDE = layout.VMM_BASE >> 22
PRESENT = PTE_P | PTE_A


class ShadowPages:
    """The shadow tables of the current guest address space, in the VMM's region."""

    def __init__(self, vm: "VirtualMachine") -> None:
        self.vm = vm
        self.root = vm.region_address(layout.SHADOW)
        self.frames: dict[int, set[int]] = {}  # guest frame -> linear pages that map it writable
        self.install_region()
        self.clear()

    def install_region(self) -> None:
        """Map the VMM's own region: global, supervisor, by 4 KB pages."""
        table = self.vm.region_address(layout.REGION_TABLE)
        flags = PTE_P | PTE_RW | PTE_A | PTE_D | PTE_G
        for page in range(1024):
            self.write_entry(table + 4 * page, self.vm.region_address(page << 12) | flags)

    def read_entry(self, address: int) -> int:
        """An entry of a shadow table."""
        return int.from_bytes(self.vm.processor.read_physical(address, 4), "little")

    def write_entry(self, address: int, value: int) -> None:
        """Write an entry of a shadow table."""
        self.vm.processor.write_physical(address, value.to_bytes(4, "little"))

    def clear(self) -> None:
        """Drop every guest entry; the VMM's region stays."""
        self.vm.processor.write_physical(self.root, bytes(4096))
        self.write_entry(self.root + 4 * VMM_PDE, self.vm.region_address(layout.REGION_TABLE) | PRESENT | PTE_RW)
        self.vm.vcpu.shadow_next = 1
        self.frames.clear()

    def table_for(self, gla: int) -> int:
        """The machine address of the shadow page table for a linear address, allocated if need be."""
        entry_address = self.root + 4 * (gla >> 22)
        self.vm.reference(entry_address)
        entry = self.read_entry(entry_address)
        if entry & PTE_P:
            return entry & PTE_ADDRESS
        if self.vm.vcpu.shadow_next >= layout.SHADOW_PAGES:
            self.vm.flush_shadow()
        page = int(self.vm.vcpu.shadow_next)
        self.vm.vcpu.shadow_next = page + 1
        table = self.vm.region_address(layout.SHADOW + page * 4096)
        self.vm.processor.write_physical(table, bytes(4096))
        self.write_entry(entry_address, table | PRESENT | PTE_RW | PTE_US)
        return table

    def fill(self, gla: int, translation: "Translation", write: bool) -> None:
        """Map one page as the guest's walk found it."""
        address = self.vm.guest.machine_address(translation.gpa)
        if address is None:
            raise Unsupported(f"access to guest-physical {translation.gpa:#x}, beyond RAM: give the guest more memory")
        frame = translation.gpa >> 12
        rights = translation.rights & PTE_US
        writable = translation.rights & PTE_RW
        if write and not writable:  # allowed by WP = 0 alone
            rights, writable = 0, PTE_RW
        if not translation.dirty or (self.vm.is_traced(frame) and frame not in self.vm.open_frames):
            writable = 0
        table = self.table_for(gla)
        entry_address = table + 4 * ((gla >> 12) & 0x3FF)
        self.vm.reference(entry_address)
        dirty = PTE_D if writable else 0
        self.write_entry(entry_address, (address & PTE_ADDRESS) | PRESENT | rights | writable | dirty)
        if writable:
            self.frames.setdefault(frame, set()).add(gla >> 12)

    def drop(self, gla: int) -> None:
        """Forget one page."""
        entry = self.read_entry(self.root + 4 * (gla >> 22))
        if entry & PTE_P and gla >> 22 != VMM_PDE:
            self.write_entry((entry & PTE_ADDRESS) + 4 * ((gla >> 12) & 0x3FF), 0)

    def protect_frame(self, frame: int) -> None:
        """Take write permission for a guest frame from every mapping of it."""
        for page in self.frames.pop(frame, ()):
            self.drop(page << 12)
            self.vm.invalidate(page << 12)

"""The shadow of the guest's GDT and LDT: what the processor really loads segments from.

A shadow descriptor is the guest's with its DPL raised to the kernel's ring, its limit truncated below the VMM, and its
accessed bit already set. It is installed when the guest first uses it, which the missing entry reports by a fault; that
is when the accessed bit is carried back to the guest's table. From then on the frames that hold the table are traced:
a write to them drops the whole shadow. Ring 3 code segments are present only while the virtual CPL is 3, so that a
return from the guest's kernel to ring 3 traps.
"""

from typing import TYPE_CHECKING

from ..isa.registers import AR_P, AR_S, TYPE_ACCESSED, TYPE_CODE, TYPE_CONFORMING, TYPE_EXPAND_DOWN
from . import layout
from .exits import Unsupported

if TYPE_CHECKING:
    from .vm import VirtualMachine

G_BIT = 1 << 23
TABLE_INDICATOR = 4


class Descriptor:
    """A segment descriptor, from its two doublewords (SDM volume 3, section 3.4.5)."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    @property
    def access(self) -> int:
        """Access rights in the layout of a VMCS field."""
        return (self.high >> 8) & 0xF0FF

    @property
    def dpl(self) -> int:
        """The descriptor privilege level."""
        return (self.high >> 13) & 3

    @property
    def kind(self) -> int:
        """The type field."""
        return (self.high >> 8) & 0xF

    @property
    def base(self) -> int:
        """The base address."""
        return (self.low >> 16) | (self.high & 0xFF) << 16 | self.high & 0xFF000000

    @property
    def limit(self) -> int:
        """The limit in bytes."""
        limit = (self.low & 0xFFFF) | self.high & 0xF0000
        return limit << 12 | 0xFFF if self.high & G_BIT else limit

    @property
    def is_segment(self) -> bool:
        """Code or data rather than a system descriptor."""
        return bool(self.access & AR_S)

    @property
    def is_present(self) -> bool:
        """The P flag."""
        return bool(self.access & AR_P)

    @property
    def is_code(self) -> bool:
        """A code segment."""
        return self.is_segment and bool(self.kind & TYPE_CODE)

    @property
    def is_conforming(self) -> bool:
        """A conforming code segment."""
        return self.is_code and bool(self.kind & TYPE_CONFORMING)

    def octets(self) -> bytes:
        """As it stands in memory."""
        return self.low.to_bytes(4, "little") + self.high.to_bytes(4, "little")


def shadow_of(guest: Descriptor, ring: int) -> Descriptor:
    """The shadow of a guest code or data descriptor for a kernel that runs in `ring`."""
    if guest.is_segment and not guest.is_code and guest.kind & TYPE_EXPAND_DOWN:
        raise Unsupported("an expand-down data segment under truncated segments: use a flat or expand-up segment")
    if guest.base >= layout.VMM_BASE:
        # No limit would do: one of 0 still leaves a byte.
        raise Unsupported(f"a segment that begins at {guest.base:#x}, where the VMM lies: use a base below it")
    dpl = max(guest.dpl, ring)
    room = layout.VMM_BASE - 1 - guest.base
    limit, high = guest.limit, guest.high
    if limit > room:
        # Whole pages: the last page below the VMM is the last of the segment.
        limit = room if room < (1 << 20) else (room + 1 >> 12 << 12) - 1
    if limit >= 1 << 20:
        encoded, high = limit >> 12, high | G_BIT
    else:
        encoded, high = limit, high & ~G_BIT
    high = (high & ~0x000F6000) | encoded & 0xF0000 | dpl << 13 | TYPE_ACCESSED << 8
    return Descriptor((guest.low & 0xFFFF0000) | encoded & 0xFFFF, high)


class ShadowDescriptors:
    """The shadow GDT in the VMM's region."""

    def __init__(self, vm: "VirtualMachine", ring: int) -> None:
        self.vm, self.ring = vm, ring
        self.address = vm.region_address(layout.GDT)
        self.originals: dict[int, Descriptor] = {}  # selector index -> the guest's descriptor when it was installed
        self.former: dict[int, Descriptor] = {}  # what segment registers may still have been loaded from
        self.detached: dict[int, Descriptor] = {}  # VMM selector -> what CS or SS was loaded from
        self.user_code: set[int] = set()  # indices of ring 3 code, present only at virtual CPL 3

    def write(self, selector: int, descriptor: Descriptor) -> None:
        """Store a descriptor in the real GDT."""
        self.vm.processor.write_physical(self.address + (selector & 0xFFF8), descriptor.octets())

    def guest_descriptor(self, selector: int) -> tuple[int, Descriptor] | None:
        """The linear address and descriptor of a guest selector; None beyond the table. May raise GuestFault."""
        vcpu = self.vm.vcpu
        if selector & TABLE_INDICATOR:
            base, limit = int(vcpu.ldtr_base), int(vcpu.ldtr_limit) if vcpu.ldtr & 0xFFFC else -1
        else:
            base, limit = int(vcpu.gdtr_base), int(vcpu.gdtr_limit)
        offset = selector & 0xFFF8
        if offset + 7 > limit:
            return None
        gla = (base + offset) & 0xFFFFFFFF
        return gla, Descriptor(*self.vm.guest.read_pair(gla))

    def install(self, selector: int) -> bool:
        """Bring one descriptor into the shadow; False if it is there already or cannot be."""
        index = selector >> 3
        if selector & TABLE_INDICATOR or selector & 0xFFF8 >= layout.FIRST_VMM_SELECTOR or index in self.originals:
            return False
        found = self.guest_descriptor(selector)
        if found is None:
            return False
        gla, guest = found
        if not guest.is_segment or not guest.is_present:
            return False
        self.vm.charge("descriptor_shadow", 1)
        if not guest.kind & TYPE_ACCESSED:
            guest = Descriptor(guest.low, guest.high | TYPE_ACCESSED << 8)
            self.vm.write_descriptor(gla + 4, 4, guest.high)
        self.originals[index] = guest
        if guest.is_code and guest.dpl == 3:
            self.user_code.add(index)
        self.write_shadow(index)
        self.vm.trace_linear(gla, 8)
        return True

    def write_shadow(self, index: int) -> None:
        """Write the shadow of one installed descriptor for the present virtual CPL."""
        shadow = shadow_of(self.originals[index], self.ring)
        if index in self.user_code and self.vm.vcpu.cpl != 3:
            shadow = Descriptor(shadow.low, shadow.high & ~(AR_P << 8))
        self.write(index << 3, shadow)

    def on_virtual_cpl_change(self) -> None:
        """Show or hide the ring 3 code segments."""
        for index in self.user_code:
            self.write_shadow(index)

    def original(self, hardware_selector: int) -> Descriptor | None:
        """The guest descriptor from which the hardware's segment register was loaded."""
        selector = hardware_selector & 0xFFF8
        index = selector >> 3
        return self.detached.get(selector) or self.originals.get(index) or self.former.get(index)

    def detach(self, selector: int, descriptor: Descriptor) -> None:
        """Keep a descriptor loadable for the VMM's own IRET at one of its selectors, away from the guest's table."""
        self.detached[selector] = descriptor
        self.write(selector, shadow_of(descriptor, self.ring))

    def forget(self, index: int) -> None:
        """Drop one descriptor; registers loaded from it keep what they hold."""
        self.former[index] = self.originals.pop(index)
        self.user_code.discard(index)
        self.write(index << 3, Descriptor(0, 0))

    def drop(self) -> None:
        """Drop every descriptor of the guest."""
        for index in list(self.originals):
            self.forget(index)

    def changed(self) -> list[int]:
        """The installed descriptors that no longer are what the guest's table holds."""
        rows = []
        for index, original in self.originals.items():
            found = self.guest_descriptor(index << 3)
            if found is None or (found[1].low, found[1].high) != (original.low, original.high):
                rows.append(index)
        return rows

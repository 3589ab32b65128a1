"""The shadows of the guest's GDT and LDT: what the processor really loads segments from.

A shadow is installed when the guest first uses its descriptor, which the missing entry reports by a fault; that is when
the accessed bit is carried back to the guest's table. From then on the frames that hold the descriptor are traced: what
a write to them changed is dropped, and traps again. Registers keep what they were loaded from (virtual_segments.py).

An entry is present only while the processor's own checks come to the guest's own result (`is_shown`): code of outer
rings is absent while an inner ring runs, so that every return to it traps, and of two rings of the guest's that share
one of the processor's, the outer one sees nothing of the inner one's.
"""

from typing import TYPE_CHECKING

from ..isa.registers import AR_P, LDTR, TYPE_LDT
from . import layout
from .descriptor import ABSENT, Descriptor, encode, is_out_of_reach, shadow_of
from .exits import GuestFault
from .shadow.records import DESCRIPTORS
from .state import SegmentState

if TYPE_CHECKING:
    from .vm import SoftwareVm

TABLE_INDICATOR = 4
M32 = 0xFFFFFFFF
PRESENT_BIT = AR_P << 8


def key_of(selector: int) -> int:
    """A selector without its RPL: index and table indicator."""
    return selector & 0xFFFC


def is_shown(guest: Descriptor, cpl: int, ring: int) -> bool:
    """Whether the processor may load the shadow by itself at a virtual CPL, for a kernel that runs in `ring`."""
    if guest.is_code and is_out_of_reach(guest.loaded(0)):
        return False
    if guest.is_conforming:
        return cpl == 3
    if guest.is_code:
        return guest.dpl == cpl and cpl in (0, 3) or cpl == 3 > ring
    # Data of an inner ring that the processor's checks would not keep from this one.
    return guest.dpl >= cpl or max(guest.dpl, ring) < max(cpl, ring)


class ShadowDescriptors:
    """The shadow GDT and LDT in the VMM's region."""

    def __init__(self, vm: "SoftwareVm", ring: int) -> None:
        self.vm, self.ring = vm, ring
        self.originals: dict[int, Descriptor] = {}  # by selector without RPL: the guest's, when it was installed
        self.shown: dict[int, tuple[bool, ...]] = {}  # likewise: whether the processor may load it, by virtual CPL
        self.detached: dict[int, SegmentState] = {}  # VMM selector -> what CS or SS was loaded with
        self.table_written = False  # a frame that holds descriptors, since they were compared
        self.updating = False  # the VMM itself sets an accessed or busy bit
        vm.shadow.listeners[DESCRIPTORS] = self.on_written

    # -- the tables in the region -----------------------------------------------------------------------------------

    def write(self, selector: int, descriptor: Descriptor) -> None:
        """Store a descriptor in the processor's GDT or LDT."""
        table = layout.LDT if selector & TABLE_INDICATOR else layout.GDT
        self.vm.write_region(table + (selector & 0xFFF8), descriptor.octets())

    def write_shadow(self, key: int) -> None:
        """Write the shadow of one installed descriptor for the present virtual CPL."""
        original = self.originals[key]
        shadow = encode(shadow_of(original.loaded(key), self.ring))
        if not self.shown[key][self.vm.vcpu.cpl]:
            shadow = Descriptor(shadow.low, shadow.high & ~PRESENT_BIT)
        self.write(key, shadow)

    def on_virtual_cpl_change(self, old: int) -> None:
        """Show or hide the entries that another privilege level sees otherwise."""
        new = self.vm.vcpu.cpl
        for key, shown in self.shown.items():
            if shown[old] != shown[new]:
                self.write_shadow(key)

    @property
    def user_code(self) -> set[int]:
        """Indices of ring 3 code in the GDT, present only while the guest is in ring 3."""
        return {key >> 3 for key, guest in self.originals.items() if guest.is_code and guest.dpl == 3 and not key & 4}

    # -- the guest's tables -------------------------------------------------------------------------------------------

    def address_of(self, selector: int) -> int | None:
        """The linear address of the descriptor that a guest's selector names; None beyond its table."""
        vcpu = self.vm.vcpu
        if selector & TABLE_INDICATOR:
            base, limit = int(vcpu.ldtr_base), int(vcpu.ldtr_limit) if vcpu.ldtr & 0xFFFC else -1
        else:
            base, limit = int(vcpu.gdtr_base), int(vcpu.gdtr_limit)
        offset = selector & 0xFFF8
        return None if offset + 7 > limit else base + offset & M32

    def guest_descriptor(self, selector: int) -> tuple[int, Descriptor] | None:
        """The linear address and descriptor of a guest selector; None beyond the table. May raise GuestFault."""
        gla = self.address_of(selector)
        return None if gla is None else (gla, Descriptor(*self.vm.guest.read_pair(gla)))

    def peek(self, selector: int) -> Descriptor | None:
        """The same without any effect in the guest; None also where its tables do not map it, or not yet accessed."""
        gla = self.address_of(selector)
        if gla is None:
            return None
        try:
            places = [self.vm.guest.walk(gla + part & M32, False, False, mark=False) for part in (0, 4)]
        except GuestFault:
            return None
        if not all(place.accessed for place in places):
            return None
        low, high = (self.vm.guest.read_gpa(place.gpa, 4) for place in places)
        return Descriptor(low, high)

    # -- installing and dropping ----------------------------------------------------------------------------------------

    def install(self, selector: int) -> bool:
        """Bring one descriptor into the shadow; False if it is there already or cannot be."""
        key = key_of(selector)
        is_own = not key & TABLE_INDICATOR and key >= layout.FIRST_VMM_SELECTOR
        if key in self.originals or is_own or key == 0:
            return False
        found = self.guest_descriptor(selector)
        if found is None:
            return False
        gla, guest = found
        if not guest.is_segment or not guest.is_present or self.vm.segments.is_ambiguous(key, guest.accessed):
            return False
        self.vm.charge("descriptor_shadow", 1)
        if guest != guest.accessed:
            guest = guest.accessed
            self.write_back(gla + 4, 4, guest.high)
        self.add(key, guest)
        self.write_shadow(key)
        self.trace(gla, 8)
        return True

    def add(self, key: int, guest: Descriptor) -> None:
        """Note a descriptor as installed."""
        self.originals[key] = guest
        self.shown[key] = tuple(is_shown(guest, cpl, self.ring) for cpl in range(4))

    def forget_all(self) -> None:
        """Note none as installed; the shadow table itself stays as it is."""
        self.originals.clear()
        self.shown.clear()

    def can_load(self, selector: int) -> bool:
        """Whether the processor loads the guest's selector by itself at the present virtual CPL."""
        shown = self.shown.get(key_of(selector))
        return shown is not None and shown[self.vm.vcpu.cpl]

    def write_back(self, gla: int, n: int, value: int) -> None:
        """Set an accessed or busy bit in the guest's table, which changes nothing that is shadowed."""
        self.updating = True
        try:
            self.vm.guest.write(gla, n, value)
        finally:
            self.updating = False

    def detach(self, selector: int, state: SegmentState) -> None:
        """Keep what CS or SS holds loadable for the VMM's own IRET at one of its selectors, away from the guest's table."""
        self.detached[selector] = state
        if selector == layout.DETACHED_CODE_SELECTOR:
            self.vm.vcpu.detached_cs = state.selector
        else:
            self.vm.vcpu.detached_ss = state.selector
        self.write(selector, encode(shadow_of(state, self.ring)))

    def attach(self, selector: int) -> None:
        """Take the entry of a detached segment away again."""
        if self.detached.pop(selector, None) is not None:
            self.write(selector, ABSENT)

    def forget(self, key: int) -> None:
        """Drop one descriptor; registers loaded from it keep what they hold."""
        self.vm.segments.keep(key)
        del self.originals[key], self.shown[key]
        self.write(key, ABSENT)

    def drop_all(self) -> None:
        """Forget the shadowed descriptors and stop tracing their tables."""
        self.vm.charge("descriptor_shadow", 1)
        for key in list(self.originals):
            self.forget(key)
        self.vm.shadow.untrace_all(DESCRIPTORS)

    def drop_local(self) -> None:
        """Forget those of the LDT: the guest has another one."""
        local = [key for key in self.originals if key & TABLE_INDICATOR]
        self.vm.charge("descriptor_shadow", max(len(local), 1))
        for key in local:
            self.forget(key)

    # -- keeping up with the guest's tables ---------------------------------------------------------------------------

    def trace(self, gla: int, n: int) -> None:
        """Trace the guest frames that hold `n` bytes of a descriptor table at a linear address."""
        for address in {gla & M32, gla + n - 1 & M32}:
            self.vm.shadow.trace(self.vm.guest.walk(address, False, False, mark=False).gpa >> 12, DESCRIPTORS)

    def on_written(self, frame: int, first: int, count: int) -> None:
        """Bytes of a frame with descriptors were written; what it holds is looked at before the guest goes on."""
        if not self.updating:
            self.table_written = True

    def resynchronise(self) -> None:
        """Drop the shadowed descriptors that the guest's table no longer holds."""
        self.table_written = False
        changed = [key for key, original in self.originals.items() if not self.is_current(key, original)]
        if changed:
            self.vm.charge("descriptor_shadow", len(changed))
        for key in changed:
            self.forget(key)

    def is_current(self, key: int, original: Descriptor) -> bool:
        """Whether the guest's table still holds what was installed."""
        found = self.guest_descriptor(key)
        return found is not None and found[1] == original

    def check_table_pages(self) -> None:
        """In a new address space the tables may lie in other frames, or in pages not accessed yet: then they must trap
        again."""
        pages = {gla >> 12 for gla in map(self.address_of, self.originals) if gla is not None}
        for page in sorted(pages):
            try:
                translation = self.vm.guest.walk(page << 12, False, False, mark=False)
            except GuestFault:
                self.drop_all()
                return
            if not self.vm.shadow.kinds(translation.gpa >> 12) & DESCRIPTORS or not translation.accessed:
                self.drop_all()
                return

    def load_local_table(self) -> None:
        """Point the processor's LDTR at the shadow of the guest's LDT, under the guest's own selector.

        While the guest has none, neither has the processor: a selector of an LDT is then refused as it should be.
        """
        vcpu, processor = self.vm.vcpu, self.vm.processor
        if vcpu.ldtr & 0xFFFC:
            limit = min(int(vcpu.ldtr_limit), 0xFFFF)
            processor.set_segment(LDTR, vcpu.ldtr, layout.VMM_BASE + layout.LDT, limit, AR_P | TYPE_LDT)
        else:
            processor.set_segment(LDTR, vcpu.ldtr, 0, 0, 1 << 16)

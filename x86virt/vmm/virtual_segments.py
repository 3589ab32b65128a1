"""The guest's segment registers, as the guest has them and as the hardware holds them.

The hardware's registers are loaded from the shadow tables (shadow_descriptors.py). CS and SS are in the frame of the
trap, so that the VMM's IRET loads them anew at each resume; the others stay in the processor.

A register may hold what no table says any more (Robin and Irvine call it a segment that cannot be restored): CS and SS
are then loaded from entries of the VMM's own, and of the others `held` says what they were loaded with, for as long as
the hardware's register is as that load left it.

While CS or SS hangs on an entry of the VMM's own, which must be one that its ring may load, the guest can load that entry
too, by a selector at the end of the largest table (0xFFE0 and 0xFFE8): its processor would have raised #GP. No GDT can
tell the two loads apart; it is a declared divergence of ring deprivileging on x86, which the probe logs (probe.py).
"""

from typing import TYPE_CHECKING

from ..isa.events import MODE_GUEST_KERNEL, MODE_GUEST_USER
from ..isa.registers import (
    AR_DPL,
    AR_DPL_SHIFT,
    AR_UNUSABLE,
    CR0_AM,
    CS,
    DS,
    ES,
    FS,
    GS,
    LDTR,
    SEGMENT_REGISTERS,
    SS,
    TR,
)
from ..processor import FLAT_DATA
from . import layout
from .descriptor import Descriptor, dpl_of, is_conforming, is_out_of_reach, is_truncated, shadow_of
from .exits import Unsupported
from .segment_operands import SegmentOperands
from .shadow_descriptors import key_of
from .state import SegmentState, segment_state

if TYPE_CHECKING:
    from .vm import SoftwareVm

M32 = 0xFFFFFFFF
DATA_SEGMENTS = (ES, DS, FS, GS)
NULL = SegmentState(0, 0, 0, AR_UNUSABLE)
DETACHED_SELECTOR = {CS: layout.DETACHED_CODE_SELECTOR, SS: layout.DETACHED_STACK_SELECTOR}


class VirtualSegments(SegmentOperands):
    """Segment registers of one virtual processor, and operands in memory that are reached through them."""

    vm: "SoftwareVm"

    def __init__(self, vm: "SoftwareVm") -> None:
        super().__init__(vm)
        self.held: dict[int, tuple[SegmentState, SegmentState]] = {}  # register -> the guest's, the hardware's

    # -- what the guest has -------------------------------------------------------------------------------------------

    def state(self, segment: int) -> SegmentState:
        """A segment register as the guest has it, decompressed from what the hardware holds."""
        if segment in DETACHED_SELECTOR:
            return self.framed_state(segment)
        hardware = self.hardware_state(segment)
        if hardware.access & AR_UNUSABLE:
            return segment_state(hardware.selector, 0, 0, AR_UNUSABLE)
        held = self.held.get(segment)
        if held is not None and held[1] == hardware:
            return held[0]
        own = self.vm.descriptors.detached.get(hardware.selector & 0xFFF8)
        if own is not None:  # which the guest's processor would have refused
            return SegmentState(hardware.selector, own.base, own.limit, own.access)
        original = self.vm.descriptors.originals.get(key_of(hardware.selector))
        if original is None:
            name = SEGMENT_REGISTERS[segment]
            raise Unsupported(f"segment {name} holds selector {hardware.selector:#x}, whose origin is lost")
        return original.loaded(hardware.selector)

    def framed_state(self, segment: int) -> SegmentState:
        """CS or SS, whose selector is in the frame of the trap."""
        vcpu, descriptors = self.vm.vcpu, self.vm.descriptors
        hardware = vcpu.frame.cs if segment == CS else vcpu.frame.ss
        if hardware & 0xFFF8 == DETACHED_SELECTOR[segment]:
            return descriptors.detached[hardware & 0xFFF8]
        original = descriptors.originals.get(key_of(hardware))
        if original is None:
            raise Unsupported(f"segment {SEGMENT_REGISTERS[segment]} holds selector {hardware:#x}, whose origin is lost")
        return original.loaded(vcpu.virtual_selector(hardware))

    def hardware_state(self, segment: int) -> SegmentState:
        """DS, ES, FS or GS as the processor holds it."""
        cache = self.vm.segment_cache(segment)
        return SegmentState(int(cache.selector), int(cache.seg_base), int(cache.limit), int(cache.access))

    # -- loading ------------------------------------------------------------------------------------------------------

    def set(self, segment: int, state: SegmentState) -> None:
        """Load a segment register, LDTR or TR with whatever selector, base, limit and access rights."""
        vcpu = self.vm.vcpu
        if segment == LDTR:
            vcpu.ldtr, vcpu.ldtr_base, vcpu.ldtr_limit, vcpu.ldtr_access = self.fields(state)
            self.vm.descriptors.drop_local()
            self.vm.descriptors.load_local_table()
        elif segment == TR:
            vcpu.tr, vcpu.tr_base, vcpu.tr_limit, vcpu.tr_access = self.fields(state)
        elif segment in DETACHED_SELECTOR:
            descriptor = self.vm.descriptors.peek(state.selector)
            if descriptor is not None and descriptor.loaded(state.selector) == state:
                self.vm.descriptors.install(state.selector)
            self.set_framed(segment, state)
        else:
            self.set_data(segment, state)

    @staticmethod
    def fields(state: SegmentState) -> tuple[int, int, int, int]:
        """Selector, base, limit and access rights."""
        return state.selector, state.base, state.limit, state.access

    def load(self, segment: int, selector: int, descriptor: Descriptor) -> None:
        """Load a register from a descriptor of the guest's tables that passed the guest's checks and is accessed."""
        self.vm.descriptors.install(selector)
        if segment in DETACHED_SELECTOR:
            self.set_framed(segment, descriptor.accessed.loaded(selector))
        else:
            self.set_data(segment, descriptor.accessed.loaded(selector))

    def set_framed(self, segment: int, state: SegmentState) -> None:
        """Load CS or SS: the frame gets the selector that the VMM's IRET can load it from."""
        descriptors, vcpu = self.vm.descriptors, self.vm.vcpu
        if segment == CS and self.vm.translation is None and is_out_of_reach(state):
            raise Unsupported(f"a code segment that begins at {state.base:#x}, where the VMM lies: use a base below it")
        original = descriptors.originals.get(key_of(state.selector))
        current = original is not None and original.loaded(state.selector) == state
        if current and descriptors.can_load(state.selector):
            selector = vcpu.hardware_selector(state.selector)
        else:
            selector = DETACHED_SELECTOR[segment] | max(vcpu.cpl, vcpu.ring)
            descriptors.detach(selector & 0xFFF8, state)
        if segment == CS:
            vcpu.frame.cs = selector
        else:
            vcpu.frame.ss = selector

    def set_data(self, segment: int, state: SegmentState) -> None:
        """Load DS, ES, FS or GS as the VMM can: with a shadow that its own return to the guest does not drop."""
        if state.access & AR_UNUSABLE:
            self.drop(segment, state.selector)
            return
        hardware = shadow_of(state, self.vm.vcpu.ring)
        level = max(dpl_of(hardware.access), self.vm.vcpu.cpl)
        access = hardware.access & ~AR_DPL | level << AR_DPL_SHIFT
        hardware = SegmentState(state.selector, hardware.base, hardware.limit, access)
        self.held[segment] = state, hardware
        self.vm.processor.set_segment(segment, *self.fields(hardware))

    def drop(self, segment: int, selector: int = 0) -> None:
        """Load a null selector into DS, ES, FS or GS."""
        self.held.pop(segment, None)
        self.vm.processor.set_segment(segment, selector, 0, 0, AR_UNUSABLE)

    def drop_inner(self, level: int) -> None:
        """What a return to an outer level does with DS, ES, FS and GS (SDM volume 2, RET and IRET operation)."""
        for segment in DATA_SEGMENTS:
            access = self.state(segment).access
            if not access & AR_UNUSABLE and dpl_of(access) < level and not is_conforming(access):
                self.drop(segment)

    # -- when the guest's tables change ---------------------------------------------------------------------------------

    def keep(self, key: int) -> None:
        """A descriptor is about to leave the shadow: registers that were loaded from it keep what they hold."""
        frame = self.vm.vcpu.frame
        for segment, selector in ((CS, frame.cs), (SS, frame.ss)):
            if key_of(selector) == key and key in self.vm.descriptors.originals:
                state = self.state(segment)
                selector = DETACHED_SELECTOR[segment] | selector & 3
                self.vm.descriptors.detach(selector & 0xFFF8, state)
                if segment == CS:
                    frame.cs = selector
                else:
                    frame.ss = selector
        self.keep_data(key)

    def keep_data(self, key: int) -> None:
        """Note what DS, ES, FS and GS hold that were loaded from a descriptor of the shadow."""
        for segment in DATA_SEGMENTS:
            hardware = self.hardware_state(segment)
            if key_of(hardware.selector) == key and not hardware.access & AR_UNUSABLE:
                self.held[segment] = self.state(segment), hardware

    def is_ambiguous(self, key: int, descriptor: Descriptor) -> bool:
        """Whether a register holds another segment that the processor could not tell from this one under its selector.

        Such a descriptor stays out of the shadow, so that each load of it is seen.
        """
        for segment, (state, hardware) in self.held.items():
            if key_of(state.selector) == key and self.hardware_state(segment) == hardware:
                guest = descriptor.loaded(state.selector)
                if guest != state and shadow_of(guest, self.vm.vcpu.ring) == hardware:
                    return True
        return False

    def release_detached(self) -> None:
        """The guest is about to go on: entries for CS and SS that are not in use are none that it may load."""
        frame = self.vm.vcpu.frame
        for segment, selector in ((CS, frame.cs), (SS, frame.ss)):
            own = DETACHED_SELECTOR[segment]
            if selector & 0xFFF8 != own and own in self.vm.descriptors.detached:
                self.keep_data(own)
                self.vm.descriptors.attach(own)

    # -- the stack ------------------------------------------------------------------------------------------------

    def return_stack(self, gla: int) -> int:
        """Where ESP must point for the VMM's IRET from a frame at a linear address.

        A return to a 16-bit stack loads SP alone, and the upper half of the VMM's own ESP would be left in the guest's:
        then the VMM's stack segment is based so that its ESP has the guest's upper half.
        """
        pointer = gla
        if self.stack_mask != M32:
            pointer = self.vm.vcpu.frame.esp & 0xFFFF0000 | gla & 0xFFFF
        base = gla - pointer & M32
        if int(self.vm.processor.cpu.seg[SS].seg_base) != base:
            self.vm.processor.set_segment(SS, layout.VMM_DATA_SELECTOR, base, M32, FLAT_DATA)
        return pointer

    # -- the privilege level ----------------------------------------------------------------------------------------

    def set_cpl(self, cpl: int) -> None:
        """Enter a virtual privilege level."""
        old = self.vm.vcpu.cpl
        if cpl != old:
            self.vm.vcpu.cpl = cpl
            self.vm.descriptors.on_virtual_cpl_change(old)
            if self.vm.ring == 3 and 3 in (cpl, old):
                self.share_ring()
                self.vm.shadow.change_space()

    def share_ring(self) -> None:
        """Where kernel and programs share the processor's ring 3, what ring 3 is follows the virtual CPL."""
        cpu, vcpu = self.vm.processor.cpu, self.vm.vcpu
        if self.vm.ring == 3:
            cpu.mode_table[3] = MODE_GUEST_USER if vcpu.cpl == 3 else MODE_GUEST_KERNEL
        checks = vcpu.cr0 & CR0_AM if self.vm.ring < 3 or vcpu.cpl == 3 else 0
        cpu.cr0 = int(cpu.cr0) & ~CR0_AM | checks

    def are_truncated(self) -> bool:
        """Whether the shadow of some segment lets less pass than the guest's own: a fault may be the VMM's doing."""
        states = [self.state(segment) for segment in (CS, SS, *DATA_SEGMENTS)]
        return any(not state.access & AR_UNUSABLE and is_truncated(state) for state in states)

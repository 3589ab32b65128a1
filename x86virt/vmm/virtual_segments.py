"""The guest's segment registers, as the guest has them and as the hardware holds them.

The hardware's registers are loaded from the shadow tables (shadow_descriptors.py). CS and SS are in the frame of the
trap, so that the VMM's IRET loads them anew at each resume; the others stay in the processor.
"""

from typing import TYPE_CHECKING

from ..isa.registers import AR_DB, AR_TYPE, AR_UNUSABLE, CS, SEGMENT_REGISTERS, SS
from ..isa.vectors import GP, SS_FAULT
from . import layout
from .exits import GuestFault, Unsupported
from .state import SegmentState, segment_state

if TYPE_CHECKING:
    from .vm import VirtualMachine

M32 = 0xFFFFFFFF


class VirtualSegments:
    """Segment registers of one virtual processor, and operands in memory that are reached through them."""

    def __init__(self, vm: "VirtualMachine") -> None:
        self.vm = vm

    def state(self, segment: int) -> SegmentState:
        """A segment register as the guest has it, decompressed from what the hardware holds."""
        vcpu = self.vm.vcpu
        cache = self.vm.processor.cpu.seg[segment]
        hardware = {CS: vcpu.frame.cs, SS: vcpu.frame.ss}.get(segment, int(cache.selector))
        own = segment in (CS, SS) or hardware & 0xFFF8 >= layout.FIRST_VMM_SELECTOR
        selector = vcpu.virtual_selector(hardware) if own else hardware
        if segment not in (CS, SS) and int(cache.access) & AR_UNUSABLE:
            return segment_state(selector, 0, 0, AR_UNUSABLE)
        original = self.vm.descriptors.original(hardware)
        if original is None:
            raise Unsupported(f"segment {SEGMENT_REGISTERS[segment]} holds selector {selector:#x}, whose origin is lost")
        if segment not in (CS, SS) and vcpu.cpl == 3 and original.dpl < 3 and not original.is_conforming:
            return segment_state(0, 0, 0, AR_UNUSABLE)  # the IRET with which the VMM resumes is about to drop it
        return SegmentState(selector, original.base, original.limit, original.access)

    def base(self, segment: int) -> int:
        """The base of a segment."""
        return self.state(segment).base

    # -- operands -------------------------------------------------------------------------------------------------

    def read(self, segment: int, offset: int, n: int) -> int:
        """Read memory as an operand of the emulated instruction: segment and page checks at the virtual CPL."""
        return self.vm.guest.read(self.linear(segment, offset, n), n, self.vm.vcpu.cpl == 3)

    def write(self, segment: int, offset: int, n: int, value: int) -> None:
        """Write memory as an operand of the emulated instruction."""
        self.vm.guest.write(self.linear(segment, offset, n, True), n, value, self.vm.vcpu.cpl == 3)

    def check_write(self, segment: int, offset: int, n: int) -> None:
        """See to it that memory can be written as an operand of the emulated instruction."""
        gla = self.linear(segment, offset, n, True)
        for address in {gla, gla + n - 1 & M32}:
            self.vm.guest.walk(address, True, self.vm.vcpu.cpl == 3)

    def linear(self, segment: int, offset: int, n: int, write: bool = False) -> int:
        """The linear address of an operand that its segment lets be read or written, within its limit."""
        state = self.state(segment)
        kind = state.access & AR_TYPE
        permitted = kind & 0xA == 2 if write else kind & 0xA != 8  # no code, no read-only data; no execute-only code
        inside = offset + n - 1 <= state.limit
        if kind & 0xC == 4:  # expand-down data
            inside = offset > state.limit and offset + n - 1 <= (M32 if state.access & AR_DB else 0xFFFF)
        if state.access & AR_UNUSABLE or not permitted or not inside:
            raise GuestFault(SS_FAULT if segment == SS else GP, 0)
        return state.base + offset & M32

    # -- the privilege level ----------------------------------------------------------------------------------------

    def set_cpl(self, cpl: int) -> None:
        """Enter a virtual privilege level."""
        if cpl != self.vm.vcpu.cpl:
            self.vm.vcpu.cpl = cpl
            self.vm.descriptors.on_virtual_cpl_change()

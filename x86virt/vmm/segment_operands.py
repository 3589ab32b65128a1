"""Operands in memory that are reached through the guest's segment registers, as an emulated instruction reaches them."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ..isa.registers import AR_DB, AR_TYPE, AR_UNUSABLE, SS
from ..isa.vectors import GP, SS_FAULT
from .descriptor import offsets_of
from .exits import GuestFault
from .state import SegmentState

if TYPE_CHECKING:
    from .virtual_machine import VirtualMachine

M32 = 0xFFFFFFFF


class SegmentOperands(ABC):
    """Segment registers of one virtual processor. What holds them is the technique's: the hardware or the VMM."""

    def __init__(self, vm: "VirtualMachine") -> None:
        self.vm = vm

    @abstractmethod
    def state(self, segment: int) -> SegmentState:
        """A segment register as the guest has it."""

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
        first, last = offsets_of(state)
        if state.access & AR_UNUSABLE or not permitted or offset < first or offset + n - 1 > last:
            raise GuestFault(SS_FAULT if segment == SS else GP, 0)
        return state.base + offset & M32

    # -- the stack ------------------------------------------------------------------------------------------------

    @property
    def stack_mask(self) -> int:
        """What the stack pointer wraps at: the stack segment's B flag decides."""
        return M32 if self.state(SS).access & AR_DB else 0xFFFF

    def set_stack_pointer(self, value: int) -> None:
        """Load ESP, or only SP when the stack segment's B flag is clear."""
        frame, mask = self.vm.vcpu.frame, self.stack_mask
        frame.esp = frame.esp & ~mask & M32 | value & mask

    def peek(self, displacement: int, n: int) -> int:
        """Read an item of the stack; the pointer stays."""
        return self.read(SS, self.vm.vcpu.frame.esp + displacement & self.stack_mask, n)

    def push(self, n: int, value: int) -> None:
        """Push an item at the virtual CPL."""
        pointer = self.vm.vcpu.frame.esp - n
        self.write(SS, pointer & self.stack_mask, n, value)
        self.set_stack_pointer(pointer)

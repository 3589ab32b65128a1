"""The guest's segment registers, which the control structure holds as they are."""

from typing import TYPE_CHECKING

from ..segment_operands import SegmentOperands
from ..state import SegmentState, segment_state
from .control import SEGMENT_KEYS

if TYPE_CHECKING:
    from .vm import HardwareVm


class HardwareSegments(SegmentOperands):
    """Segment registers of one virtual processor."""

    vm: "HardwareVm"

    def state(self, segment: int) -> SegmentState:
        """A segment register as the guest has it."""
        selector, base, limit, access = (self.vm.vcpu.field(key) for key in SEGMENT_KEYS[segment])
        return segment_state(selector, base, limit, access)

    def peek_state(self, segment: int) -> SegmentState:
        """The same, for those who look on."""
        selector, base, limit, access = (self.vm.vcpu.peek(key) for key in SEGMENT_KEYS[segment])
        return segment_state(selector, base, limit, access)

    def base(self, segment: int) -> int:
        """The base of a segment."""
        return self.vm.vcpu.field(SEGMENT_KEYS[segment][1])

    def set(self, segment: int, state: SegmentState) -> None:
        """Load a segment register, LDTR or TR with whatever selector, base, limit and access rights."""
        values = state.selector, state.base, state.limit, state.access
        for key, value in zip(SEGMENT_KEYS[segment], values, strict=True):
            self.vm.vcpu.set_field(key, value)

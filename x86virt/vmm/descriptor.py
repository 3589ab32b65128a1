"""Segment descriptors as values, and the shadow that stands for one where the processor loads segments from.

A shadow has its DPL raised to the ring of the deprivileged kernel, its accessed bit set, and no byte of the VMM within
reach: a limit that would reach it is cut off, and a segment that no limit can cut off lets no access pass at all.
"""

from dataclasses import dataclass

from ..isa.registers import (
    AR_DB,
    AR_DPL,
    AR_DPL_SHIFT,
    AR_G,
    AR_P,
    AR_S,
    AR_UNUSABLE,
    TYPE_ACCESSED,
    TYPE_CODE,
    TYPE_CONFORMING,
    TYPE_EXPAND_DOWN,
)
from . import layout
from .state import SegmentState

M32 = 0xFFFFFFFF
G_BIT = 1 << 23
MOST_BYTES_LIMIT = (1 << 20) - 1  # the largest limit that is counted in bytes


@dataclass(frozen=True)
class Descriptor:
    """A segment descriptor, from its two doublewords (SDM volume 3, section 3.4.5)."""

    low: int
    high: int

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

    @property
    def accessed(self) -> "Descriptor":
        """The same with its accessed bit set."""
        return Descriptor(self.low, self.high | TYPE_ACCESSED << 8)

    def loaded(self, selector: int) -> SegmentState:
        """What a segment register holds that was loaded from it."""
        return SegmentState(selector, self.base, self.limit, self.access)

    def octets(self) -> bytes:
        """As it stands in memory."""
        return self.low.to_bytes(4, "little") + self.high.to_bytes(4, "little")


ABSENT = Descriptor(0, 0)


def encode(state: SegmentState) -> Descriptor:
    """The descriptor from which a segment register would be loaded so; limits of 1 MB and more are counted in pages."""
    pages = state.limit > MOST_BYTES_LIMIT
    limit = state.limit >> 12 if pages else state.limit
    access = state.access & ~(AR_G | AR_UNUSABLE) | (AR_G if pages else 0)
    high = state.base & 0xFF000000 | limit & 0xF0000 | access << 8 | state.base >> 16 & 0xFF
    return Descriptor((state.base & 0xFFFF) << 16 | limit & 0xFFFF, high)


def is_conforming(access: int) -> bool:
    """A conforming code segment, by its access rights."""
    return access & (AR_S | TYPE_CODE | TYPE_CONFORMING) == AR_S | TYPE_CODE | TYPE_CONFORMING


def dpl_of(access: int) -> int:
    """The descriptor privilege level in access rights."""
    return (access & AR_DPL) >> AR_DPL_SHIFT


def is_expand_down(access: int) -> bool:
    """A data segment that grows downwards."""
    return access & (AR_S | TYPE_CODE | TYPE_EXPAND_DOWN) == AR_S | TYPE_EXPAND_DOWN


def offsets_of(state: SegmentState) -> tuple[int, int]:
    """The first and the last offset within a segment; the first is the greater one if there is none."""
    if is_expand_down(state.access):
        return state.limit + 1, M32 if state.access & AR_DB else 0xFFFF
    return 0, state.limit


def reaches_vmm(state: SegmentState) -> bool:
    """Whether some byte of a segment lies in the VMM's region, the top of the linear space."""
    first, last = offsets_of(state)
    if first > last:
        return False
    low, high = state.base + first, state.base + last
    return high - M32 > layout.VMM_BASE or low <= M32 and high >= layout.VMM_BASE


def is_out_of_reach(state: SegmentState) -> bool:
    """Whether no limit can keep a segment that reaches the VMM out of it: it begins there, or grows downwards."""
    return reaches_vmm(state) and (is_expand_down(state.access) or state.base >= layout.VMM_BASE)


def shadow_of(state: SegmentState, ring: int) -> SegmentState:
    """What the processor holds for a segment of the guest, when the guest runs in `ring` or further out."""
    access = state.access & ~AR_DPL | max(dpl_of(state.access), ring) << AR_DPL_SHIFT | TYPE_ACCESSED
    if not reaches_vmm(state):
        return SegmentState(state.selector, state.base, state.limit, with_granularity(access, state.limit))
    if is_out_of_reach(state):
        # Data that grows downwards from the very top has no offsets at all.
        access = access & ~TYPE_CODE | TYPE_EXPAND_DOWN
        return SegmentState(state.selector, 0, M32, with_granularity(access | AR_DB, M32))
    room = layout.VMM_BASE - 1 - state.base
    # In whole pages beyond 1 MB: the last page below the VMM is the last of the segment.
    limit = room if room <= MOST_BYTES_LIMIT else (room + 1 >> 12 << 12) - 1
    return SegmentState(state.selector, state.base, limit, with_granularity(access, limit))


def with_granularity(access: int, limit: int) -> int:
    """Access rights with the G flag that `encode` gives to a limit."""
    return access & ~AR_G | (AR_G if limit > MOST_BYTES_LIMIT else 0)


def is_truncated(state: SegmentState) -> bool:
    """Whether the shadow lets less pass than the guest's own segment."""
    return reaches_vmm(state)

"""The virtual processor: what the hardware holds of it, what the VMM's record holds, and the trap frame between them.

General registers are the hardware's own at every exit; CS:EIP, EFLAGS and SS:ESP are in the frame that the trap pushed
on the VMM's stack; control registers, table registers, the interrupt flag and the like are in the vCPU record in
machine RAM. A selector that the hardware holds carries the deprivileged ring in its RPL; the virtual one is
decompressed from it.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..isa.registers import CR0_ET, EFLAGS_FIXED, EFLAGS_IF, EFLAGS_IOPL, EFLAGS_IOPL_SHIFT, EFLAGS_RF, EFLAGS_TF
from . import layout


@dataclass
class Frame:
    """The frame of a trap from the guest, as the processor pushed it; what the IRET of the resume will load."""

    eip: int = 0
    cs: int = 0
    eflags: int = 0
    esp: int = 0
    ss: int = 0

    def octets(self) -> bytes:
        """As it stands on the VMM's stack."""
        return b"".join(value.to_bytes(4, "little") for value in (self.eip, self.cs, self.eflags, self.esp, self.ss))

    def with_trap_flag(self, wanted: bool) -> "Frame":
        """The same, with TF set if that is wanted."""
        return replace(self, eflags=self.eflags | (EFLAGS_TF if wanted else 0))

    @classmethod
    def from_octets(cls, octets: bytes) -> "Frame":
        """Read a frame off the stack."""
        return cls(*(int.from_bytes(octets[place : place + 4], "little") for place in range(0, 20, 4)))


class VirtualCpu:
    """Fields of the vCPU record as plain integers, and the virtual views of selectors and flags."""

    def __init__(self, octets: np.ndarray, ring: int) -> None:
        object.__setattr__(self, "record", octets.view(layout.VCPU)[0])
        object.__setattr__(self, "ring", ring)
        object.__setattr__(self, "frame", Frame())
        object.__setattr__(self, "shadow_count", -1)
        object.__setattr__(self, "own_resume", False)  # RF in the frame is that of the trap, not the guest's

    def __getattr__(self, name: str):
        value = self.record[name]
        return value if value.ndim else int(value)

    def __setattr__(self, name: str, value) -> None:
        if name in self.__dict__:
            object.__setattr__(self, name, value)
        else:
            self.record[name] = value

    def reset(self) -> None:
        """The state that a Multiboot loader hands over: protected mode without paging, flat segments, ring 0."""
        self.cr0 = CR0_ET | 1
        self.gdtr_limit = self.idtr_limit = 0
        self.tr_limit, self.tr_access = 0xFFFF, 0x8B
        self.ldtr_access = 1 << 16

    # -- selectors ----------------------------------------------------------------------------------------------

    def virtual_selector(self, selector: int) -> int:
        """The guest's view of a selector that the hardware holds."""
        detached = {
            layout.DETACHED_CODE_SELECTOR: self.detached_cs,
            layout.DETACHED_STACK_SELECTOR: self.detached_ss,
        }
        if selector & 0xFFF8 in detached:
            return detached[selector & 0xFFF8]
        return selector & ~3 | self.cpl if selector & 3 == max(self.cpl, self.ring) else selector

    def hardware_selector(self, selector: int) -> int:
        """What the hardware holds for a selector that the guest has in CS or SS."""
        return selector & ~3 | max(selector & 3, self.ring)

    # -- flags --------------------------------------------------------------------------------------------------

    def virtual_flags(self, eflags: int) -> int:
        """EFLAGS as the guest has them, from those the hardware runs with."""
        kept = eflags & ~(EFLAGS_IF | EFLAGS_IOPL)
        if self.own_resume:
            kept &= ~EFLAGS_RF
        return kept | self.interrupt_flag * EFLAGS_IF | self.iopl << EFLAGS_IOPL_SHIFT | EFLAGS_FIXED

    def load_flags(self, eflags: int) -> int:
        """Take a whole guest EFLAGS image; returns what the hardware runs with: IF on, IOPL 0."""
        self.interrupt_flag = int(bool(eflags & EFLAGS_IF))
        self.iopl = (eflags & EFLAGS_IOPL) >> EFLAGS_IOPL_SHIFT
        return eflags & ~EFLAGS_IOPL | EFLAGS_IF | EFLAGS_FIXED

    @property
    def single_stepped(self) -> bool:
        """Whether the guest itself has TF set."""
        return bool(self.frame.eflags & EFLAGS_TF)

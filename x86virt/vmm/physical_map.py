"""What lies at the guest-physical addresses that are not RAM always: the segments from C0000 to FFFFF, and the local APIC.

The host bridge's PAM registers say for each of them whether reads and writes go to RAM or to the bus, where reads find the
BIOS. The shadow maps such a frame as what reads find, and lets only those be written whose writes go to the same place;
any other access is interpreted. ROM lies in machine RAM, behind the guest's own. The registers of a local APIC, which its
guest may place over RAM, hide that from the processor.
"""

from typing import TYPE_CHECKING

from ..core.entries import place_of, writable_place_of
from ..core.physical_map import BUS, PAM_ALL_RAM, SHADOW_END, SHADOW_FIRST

if TYPE_CHECKING:
    from .virtual_machine import VirtualMachine

FIRST_FRAME, END_FRAME = SHADOW_FIRST >> 12, SHADOW_END >> 12
NO_FRAME = -1


class PhysicalMap:
    """The part of the guest-physical map of one virtual machine that may change.

    `moved`: guest frame -> the machine frames for reads and for writes (None: no memory answers); empty while all is RAM.
    """

    def __init__(self, vm: "VirtualMachine") -> None:
        self.vm = vm
        self.seen = PAM_ALL_RAM, NO_FRAME
        self.moved: dict[int, tuple[int | None, int | None]] = {}

    def apic_frame(self) -> int:
        """The guest frame of RAM that the registers of the guest's local APIC hide, NO_FRAME if none."""
        if not self.vm.devices.has_apics:
            return NO_FRAME
        page = int(self.vm.interpreter.cpu.apic.page)
        return page if page < len(self.vm.p2m) else NO_FRAME

    def ruled(self, apic_frame: int) -> list[int]:
        """The guest frames of RAM that may be something else."""
        frames = range(FIRST_FRAME, min(END_FRAME, len(self.vm.p2m)))
        return [*frames] if apic_frame == NO_FRAME else [*frames, apic_frame]

    def look(self) -> bool:
        """See what chipset and APIC say now; whether that is something else than before."""
        now = int(self.vm.board.pci.pam), self.apic_frame()
        if now == self.seen:
            return False
        self.seen = now
        self.moved = {}
        if now != (PAM_ALL_RAM, NO_FRAME):
            self.vm.interpreter.follow_chipset()
            self.moved = {frame: self.frames(frame) for frame in self.ruled(now[1])}
        return True

    def frames(self, frame: int) -> tuple[int | None, int | None]:
        """Where reads and writes of a guest frame go in machine memory."""
        processor = self.vm.interpreter.processor
        read = int(place_of(processor.state, processor.memory, frame << 12))
        write = int(writable_place_of(processor.state, processor.memory, frame << 12))
        return None if read >= BUS else read >> 12, None if write >= BUS else write >> 12

    def follow(self) -> bool:
        """Lay down for the shadow what they say; whether that changed, so that the shadow must start anew."""
        hidden = self.seen[1]
        if not self.look():
            return False
        for frame in {*self.ruled(hidden), *self.ruled(self.seen[1])}:
            read, write = self.moved.get(frame, (int(self.vm.p2m[frame]), int(self.vm.p2m[frame])))
            self.vm.set_frame(frame, read, read == write)
        self.vm.shadow.forget_frames()
        return True

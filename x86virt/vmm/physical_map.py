"""What lies at the guest-physical addresses that the virtual chipset rules: the segments from C0000 to FFFFF.

The host bridge's PAM registers say for each of them whether reads and writes go to RAM or to the bus, where reads find the
BIOS. The shadow maps such a frame as what reads find, and lets only those be written whose writes go to the same place;
any other access is interpreted. ROM lies in machine RAM, behind the guest's own.
"""

from typing import TYPE_CHECKING

from ..core.entries import place_of, writable_place_of
from ..core.physical_map import BUS, PAM_ALL_RAM, SHADOW_END, SHADOW_FIRST

if TYPE_CHECKING:
    from .vm import VirtualMachine

FIRST_FRAME, END_FRAME = SHADOW_FIRST >> 12, SHADOW_END >> 12


class PhysicalMap:
    """The chipset's part of the guest-physical map of one virtual machine.

    `moved`: guest frame -> the machine frames for reads and for writes (None: no memory answers); empty while all is RAM.
    """

    def __init__(self, vm: "VirtualMachine") -> None:
        self.vm = vm
        self.seen = PAM_ALL_RAM
        self.moved: dict[int, tuple[int | None, int | None]] = {}

    def look(self) -> bool:
        """See what the chipset says now; whether that is something else than before."""
        pam = int(self.vm.board.pci.pam)
        if pam == self.seen:
            return False
        self.seen = pam
        self.moved = {}
        if pam != PAM_ALL_RAM:
            self.vm.interpreter.follow_chipset()
            last = min(END_FRAME, len(self.vm.p2m))
            self.moved = {frame: self.frames(frame) for frame in range(FIRST_FRAME, last)}
        return True

    def frames(self, frame: int) -> tuple[int | None, int | None]:
        """Where reads and writes of a guest frame go in machine memory."""
        processor = self.vm.interpreter.processor
        read = int(place_of(processor.state, processor.memory, frame << 12))
        write = int(writable_place_of(processor.state, processor.memory, frame << 12))
        return None if read >= BUS else read >> 12, None if write >= BUS else write >> 12

    def follow(self) -> bool:
        """Lay down for the shadow what the chipset says; whether that changed, so that the shadow must start anew."""
        if not self.look():
            return False
        for frame in range(FIRST_FRAME, min(END_FRAME, len(self.vm.p2m))):
            read, write = self.moved.get(frame, (int(self.vm.p2m[frame]), int(self.vm.p2m[frame])))
            self.vm.shadow.set_frame(frame, read, read == write)
        return True

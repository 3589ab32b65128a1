"""The host's half of the drives: it answers the requests of the IDE channels with sectors of disk images.

`serve` is called when the board asks for attention (BOARD_DISK), before the guest's next instruction. When the guest
sees the answer was decided by the channel, in simulated time.
"""

from typing import TYPE_CHECKING, Any

from .bus_master import Memory, gather, scatter
from .core.entries import device_request_answered
from .core.ide_state import (
    REQUEST_DMA_READ,
    REQUEST_DMA_WRITE,
    REQUEST_FLUSH,
    REQUEST_IDENTIFY,
    REQUEST_NONE,
    REQUEST_READ,
    REQUEST_WRITE,
    SECTOR_BYTES,
)
from .disk import Disk, DiskError
from .disk_identity import identify

if TYPE_CHECKING:
    from .machine import Machine

PLACES = ("primary master", "primary slave", "secondary master", "secondary slave")
PAGE_SHIFT = 12


class GuestMemory:
    """A machine's guest-physical memory, as the bus master sees it."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine

    def read(self, address: int, count: int) -> bytes | None:
        """Bytes of RAM; None if there is none at one of them."""
        if address + count > self.machine.memory_bytes:
            return None
        return self.machine.read_guest(address, count)

    def write(self, address: int, octets: bytes) -> bool:
        """Store bytes in RAM; False if there is none at one of them."""
        if address + len(octets) > self.machine.memory_bytes:
            return False
        self.machine.write_guest(address, octets)
        if self.machine.vm is not None:
            for frame in range(address >> PAGE_SHIFT, (address + len(octets) - 1 >> PAGE_SHIFT) + 1):
                self.machine.vm.on_guest_frame_written(frame)
        return True


class MachineMemory:
    """Machine memory, as the bus master of the machine's own board sees it: there is nothing between that confines a device."""

    def __init__(self, machine: "Machine") -> None:
        self.processor = machine.processor

    def read(self, address: int, count: int) -> bytes | None:
        """Bytes of RAM; None if there is none at one of them."""
        return self.processor.read_physical(address, count) if self.has(address, count) else None

    def write(self, address: int, octets: bytes) -> bool:
        """Store bytes in RAM; False if there is none at one of them."""
        if not self.has(address, len(octets)):
            return False
        self.processor.write_physical(address, octets)
        return True

    def has(self, address: int, count: int) -> bool:
        """Whether there is RAM at all of these addresses."""
        return address + count <= self.processor.ram_bytes


class DiskService:
    """The disks of a machine, by place: 0 primary master, 1 primary slave, 2 and 3 the same of the secondary channel."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        drives_machine = machine.vm is not None and machine.vm.drives_machine
        self.memory: Memory = MachineMemory(machine) if drives_machine else GuestMemory(machine)
        self.disks: dict[int, Disk] = {}

    # -- plugging in ----------------------------------------------------------------------------------------------

    def attach(self, disk: Disk, place: int | None = None) -> int:
        """Plug a disk in at a place, the first free one by default; returns the place. Raises DiskError."""
        free = [number for number in range(len(PLACES)) if number not in self.disks]
        if place is None:
            if not free:
                raise DiskError(disk.name, f"is the fifth disk: there are {len(PLACES)} places", "give fewer")
            place = free[0]
        if place not in free:
            raise DiskError(disk.name, f"there is no free place {place}", "give one of 0 to 3 that no disk has")
        self.disks[place] = disk
        drive = self.drive(place)
        drive.present, drive.capacity = 1, disk.sectors
        drive.default_cylinders, drive.default_heads, drive.default_track = disk.geometry
        drive.cylinders, drive.heads, drive.track = disk.geometry
        return place

    def drive(self, place: int) -> Any:
        """The record of the drive at a place."""
        return self.machine.board.ide.channels[place >> 1].drives[place & 1]

    def written(self) -> dict[tuple[int, int], bytes]:
        """What the guest has written to overlays: the sectors by place and number."""
        return {
            (place, number): content
            for place, disk in self.disks.items()
            for number, content in disk.overlay.items()
        }

    def close(self) -> None:
        """Let go of the host's files."""
        for disk in self.disks.values():
            disk.close()

    # -- answering ------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Answer what the channels ask for. Raises DiskError if the host's file fails."""
        for number in range(2):
            channel = self.machine.board.ide.channels[number]
            if channel.request != REQUEST_NONE:
                self.answer(channel, 2 * number + int(channel.selected))
                channel.request = REQUEST_NONE
        device_request_answered(self.boards)

    @property
    def boards(self) -> Any:
        """The board as the jitted code takes it."""
        return self.machine.processor.boards if self.machine.vm is None else self.machine.vm.boards

    def answer(self, channel: Any, place: int) -> None:
        """One request of a channel, for the drive at a place."""
        disk, request = self.disks[place], int(channel.request)
        first, count = int(channel.request_lba), int(channel.request_count)
        octets = count * SECTOR_BYTES
        if request == REQUEST_READ:
            self.fill(channel, disk.read(first, count))
        elif request == REQUEST_IDENTIFY:
            self.fill(channel, identify(disk, self.drive(place), place))
        elif request == REQUEST_FLUSH:
            disk.flush()
        elif request == REQUEST_DMA_READ:
            channel.dma_outcome = scatter(self.memory, int(channel.master_table), disk.read(first, count))
        elif request == REQUEST_DMA_WRITE:
            outcome, content = gather(self.memory, int(channel.master_table), octets)
            channel.dma_outcome = outcome
            disk.write(first, content[: len(content) // SECTOR_BYTES * SECTOR_BYTES])
        elif request == REQUEST_WRITE:
            disk.write(first, channel.buffer[:octets].tobytes())

    def fill(self, channel: Any, content: bytes) -> None:
        """Put bytes into a channel's buffer."""
        channel.buffer[: len(content)] = bytearray(content)

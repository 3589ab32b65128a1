"""The processor that the VMM's interpreter simulates: a record of its own over the machine's memory.

It executes what the guest executes, on the guest's own terms: guest-physical addresses, which the p2m turns into machine
addresses, the guest's tables, the guest's devices. It is the same jitted loop as the machine's processor. What differs is
the meaning of its prices: an instruction costs what it costs an interpreter in C to perform, page walks and references
included, so that its tick counter tells the machine's time while it runs (x86virt/vmm/interpreter.py settles both).
"""

from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError
from ..isa.events import EVENT_IDLE_HALT, EVENT_SYS_HLT_WAKE, EVENT_VMM_INTERPRET, EVENTS
from ..processor import CODE_MASK_BYTES, PAGE_BYTES, VGA_ROM_WINDOW, Processor
from . import layout

if TYPE_CHECKING:
    from ..machine import Machine

# One of these events is one thing that the interpreter performs; "byte" events are iterations that it leaves to the
# processor's own string instructions.
PERFORMED_DOMAINS = ("instruction", "transition", "device")
MEASURED_UNIT = "byte"
FREE = ("ins.mark",)
MAP_ENTRY_BYTES = 4


def spare_bytes(ram_bytes: int) -> int:
    """What the interpreter needs at the end of the machine's array: masks of decoded code, where the guest's RAM lies, and
    its log of writes."""
    return ram_bytes // PAGE_BYTES * (CODE_MASK_BYTES + MAP_ENTRY_BYTES + 1)


class InterpreterProcessor(Processor):
    """The interpreter's processor of one machine. `performed` are the numbers of the events that count as interpreted."""

    def __init__(self, machine: "Machine", boards: np.ndarray) -> None:
        self.host = machine.processor
        self.profile = machine.profile
        self.ram_bytes = machine.memory_bytes
        self.rom_bytes = 0
        self.spare_bytes = self.host.spare_bytes
        self.memory = self.host.memory
        self.boards = boards
        self._make_records("tables")
        self._load_profile()
        self._set_prices()
        self.cpu.interrupt_exits = self.cpu.protected_exits = 1
        self._power_on_processor()

    def _set_prices(self) -> None:
        """An interpreted instruction has one price; what an interpreter leaves to the processor has the processor's."""
        own = self.host.cpu.price
        names = [event.name for event in EVENTS]
        measured = [
            number
            for number, event in enumerate(EVENTS)
            if event.unit == MEASURED_UNIT or number in (EVENT_SYS_HLT_WAKE, EVENT_IDLE_HALT)
        ]
        self.performed = [
            number
            for number, event in enumerate(EVENTS)
            if event.domain in PERFORMED_DOMAINS and number not in measured and names[number] not in FREE
        ]
        self.passed_on = [number for number in measured if number != EVENT_IDLE_HALT]
        self.cpu.price[:] = 0
        self.cpu.price[self.performed] = own[EVENT_VMM_INTERPRET]
        self.cpu.price[self.passed_on] = own[self.passed_on]

    def _lay_out_memory(self) -> None:
        """RAM is the guest's, found through the p2m; its ROM lies in machine RAM behind it."""
        cpu = self.cpu
        cpu.ram_last = self.ram_bytes - 1
        cpu.rom_first = layout.VMM_BYTES + self.ram_bytes
        cpu.place_last = self.host.ram_bytes - 1
        frames = self.host.ram_bytes // PAGE_BYTES
        cpu.code_map = self.host.spare_first
        cpu.frame_map = cpu.code_map + frames * CODE_MASK_BYTES
        cpu.write_log = cpu.frame_map + frames * MAP_ENTRY_BYTES

    def set_frame_map(self, p2m: np.ndarray) -> None:
        """Say where each frame of the guest's RAM lies."""
        first = int(self.cpu.frame_map)
        octets = p2m.astype("<u4").view(np.uint8)
        self.memory[first : first + len(octets)] = octets

    @property
    def _owners_first(self) -> int:
        """The owners of frames are the machine's."""
        return self.host._owners_first

    def install_firmware(self, bios: bytes, vga_rom: bytes = b"") -> None:
        """Put a BIOS image and an expansion ROM into machine RAM; a reset follows. Raises ImageError if they do not fit."""
        content = bios + (vga_rom.ljust(VGA_ROM_WINDOW, b"\xff") if vga_rom else b"")
        if len(content) > layout.GUEST_ROM_BYTES:
            what = f"firmware of {len(content) >> 10} KB"
            raise ImageError("firmware", what, f"under a VMM give one of at most {layout.GUEST_ROM_BYTES >> 10} KB")
        self.rom_bytes = len(content)
        self.cpu.bios_bytes, self.cpu.vga_rom_bytes = len(bios), len(content) - len(bios)
        self.reset()
        self.host.write_physical(int(self.cpu.rom_first), content)

    def is_plain_ram(self, address: int, end: int) -> bool:
        """No guest-physical address is its own place."""
        return False

    def _clear_code_masks(self) -> None:
        """Forget which pieces of memory hold code that the interpreter has decoded."""
        self.memory[int(self.cpu.code_map) : int(self.cpu.frame_map)] = 0

    # -- the log of writes ----------------------------------------------------------------------------------------

    def take_written(self) -> list[int]:
        """The machine frames that were written since the last call, in the order of their numbers."""
        frames = self.written()
        self.write_log[frames] = 0
        self.cpu.written_count = 0
        return frames

    def written(self) -> list[int]:
        """The same, which stay noted."""
        count = int(self.cpu.written_count)
        if count <= len(self.cpu.written):
            return sorted(int(frame) for frame in self.cpu.written[:count])
        return [int(frame) for frame in np.flatnonzero(self.write_log)]

    def note_written(self, frames: list[int]) -> None:
        """Take these for the frames that were written."""
        self.write_log[:] = 0
        self.write_log[frames] = 1
        self.cpu.written_count = len(frames)
        known = frames[: len(self.cpu.written)]
        self.cpu.written[: len(known)] = known

    @property
    def write_log(self) -> np.ndarray:
        """A byte for each machine frame, 1 where it was written."""
        return self.memory[int(self.cpu.write_log) : int(self.cpu.write_log) + self.host.ram_bytes // PAGE_BYTES]

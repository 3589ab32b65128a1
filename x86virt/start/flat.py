"""A flat binary at an address of its user's choice: no header, entered at its first byte."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ImageError
from ..isa.registers import ESP
from .bios_area import bios_data
from .boot import ADDRESS_SPACE, HIGH_START, LOW_END, PROTECTED, REAL, Boot, command_line_bytes

REAL_MODE_SEGMENT_BYTES = 1 << 16
REAL_MODE_STACK = 0x7C00  # grows down from where a BIOS puts a boot sector


@dataclass(frozen=True)
class FlatImage:
    """Bytes, the physical address that they go to, and the mode that they are entered in.

    In real-address mode CS is 0 for an address below 64 KB, so that a boot sector at 0x7C00 starts as 0000:7C00; above, CS:IP is
    the segment's beginning with IP in its low 16 bits. The other segments are 0, SS:SP is 0000:7C00. In protected mode all
    segments are flat, ESP is 0, interrupts are off. There is no command line.
    """

    name: str
    content: bytes = field(repr=False)
    address: int
    mode: str
    sha256: str
    symbols: Mapping[str, int] = field(default_factory=dict, repr=False)

    def boot(self, memory_bytes: int, command_line: str = "") -> Boot:
        """Where everything goes in a machine with that much RAM. Raises ImageError if it does not fit."""
        command_line_bytes(self.name, command_line, 0)
        end = self.address + len(self.content)
        if end > memory_bytes:
            what = f"its {len(self.content)} bytes at {self.address:#x} end outside of RAM ({memory_bytes:#x} bytes)"
            raise ImageError(self.name, what, "give more memory (--memory) or another --at")
        writes = [(self.address, self.content)]
        if self.mode == PROTECTED:
            return Boot(self.address, tuple(writes))
        selector = (self.address & ~0xFFFF) >> 4
        below_content = [piece for piece in bios_data() if not overlaps(piece, self.address, end)]
        return Boot(
            self.address & 0xFFFF, (*below_content, *writes), {ESP: REAL_MODE_STACK}, mode=REAL, code_selector=selector
        )


def overlaps(piece: tuple[int, bytes], start: int, end: int) -> bool:
    """Whether a piece of memory shares a byte with a range."""
    return piece[0] < end and start < piece[0] + len(piece[1])


def parse_flat(content: bytes, name: str, address: int, mode: str | None = None, where: object = "image") -> FlatImage:
    """A flat binary; without a mode it is entered in real-address mode below 1 MB, else in protected mode.

    Raises ImageError if it cannot be entered so.
    """
    mode = mode or (REAL if address < HIGH_START else PROTECTED)
    if address + len(content) > ADDRESS_SPACE:
        raise ImageError(where, f"its {len(content)} bytes at {address:#x} end behind 4 GB", "give another --at")
    if mode == REAL and address + len(content) > LOW_END:
        what = f"its {len(content)} bytes at {address:#x} do not fit below {LOW_END:#x}, where real mode has its RAM"
        raise ImageError(where, what, "give a lower --at, or --entry protected")
    digest = hashlib.sha256(f"{mode} {address}\0".encode() + content).hexdigest()
    return FlatImage(name, content, address, mode, digest)

"""A boot disk that holds a Multiboot kernel, for emulators that know no Multiboot (see ``boot/sector.asm``)."""

from __future__ import annotations

import struct
from pathlib import Path

from x86virt.start.multiboot import Image

BOOT_SECTOR = Path(__file__).resolve().parent / "images" / "boot_sector.bin"
SECTOR = 512
CHUNK = 64  # the boot sector reads that many sectors at once
BUFFER, BUFFER_BYTES = 0x10000, 448 << 10  # where it reads to, and how much
PARAMETERS = 480
CYLINDER = 16 * 63 * SECTOR  # 16 heads, 63 sectors
INFO_MEMORY, INFO_COMMAND_LINE = 1 << 0, 1 << 2
LOWER_KILOBYTES, UPPER_KILOBYTES = 639, 7 << 10
COMMAND_LINE_OFFSET = 116


def boot_disk(image: Image, command_line: str = "") -> bytes:
    """The disk's bytes, whole cylinders. Raises ValueError if the kernel or the command line is too large."""
    target = min(segment.address for segment in image.segments)
    end = max(segment.end for segment in image.segments)
    flat = flat_kernel(image, target)
    line = command_line.encode() + b"\0"
    if SECTOR + len(flat) > BUFFER_BYTES or COMMAND_LINE_OFFSET + len(line) > SECTOR:
        raise ValueError(f"{image.name}: too large for the boot sector")
    content = information(line) + flat
    content += bytes(-len(content) % (CHUNK * SECTOR))
    clear = max(-(-(end - target - len(flat)) // 4), 0)
    sector = bytearray(BOOT_SECTOR.read_bytes())
    struct.pack_into("<5I", sector, PARAMETERS, len(content) // SECTOR, target, len(flat) // 4, clear, image.entry)
    disk = bytes(sector) + content
    return disk + bytes(-len(disk) % CYLINDER)


def flat_kernel(image: Image, target: int) -> bytes:
    """The kernel's bytes from its lowest address to the last that the file gives, whole doublewords."""
    flat = bytearray(max(segment.address + len(segment.content) for segment in image.segments) - target)
    for segment in image.segments:
        start = segment.address - target
        flat[start : start + len(segment.content)] = segment.content
    return bytes(flat) + bytes(-len(flat) % 4)


def information(line: bytes) -> bytes:
    """One sector: the Multiboot information (specification, section 3.3) and the command line."""
    info = bytearray(SECTOR)
    flags = INFO_MEMORY | INFO_COMMAND_LINE
    struct.pack_into("<5I", info, 0, flags, LOWER_KILOBYTES, UPPER_KILOBYTES, 0, BUFFER + COMMAND_LINE_OFFSET)
    info[COMMAND_LINE_OFFSET : COMMAND_LINE_OFFSET + len(line)] = line
    return bytes(info)

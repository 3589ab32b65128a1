"""What IDENTIFY DEVICE answers: 256 words about a drive (ATA/ATAPI-6, table 20)."""

import struct
from typing import Any

from .core.ide_state import MOST_MULTIPLE
from .disk import Disk

MODEL = "x86virt disk"
FIRMWARE = "1"
MOST_28_BIT = (1 << 28) - 1
CYCLE_NANOSECONDS = 120  # of a word, in PIO mode 4 and multiword DMA mode 2
FIXED_DISK = 0x0040
COMPLETE = 0xC837  # no SET FEATURES is needed to spin up, all words are here
CAPABILITIES = 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11  # DMA, LBA, IORDY and its disabling; standby timers are its own
VALID_WORDS = 7  # 54 to 58, 64 to 70, 88
VERSIONS = 1 << 4 | 1 << 5 | 1 << 6  # ATA/ATAPI-4, 5 and 6
NOP, LOOK_AHEAD, WRITE_CACHE, POWER_MANAGEMENT = 1 << 14, 1 << 6, 1 << 5, 1 << 3  # command sets, word 82
FLUSH_EXT, FLUSH, ADDRESSES_48 = 1 << 13, 1 << 12, 1 << 10  # word 83
WORD_IS_VALID = 1 << 14
SIGNATURE = 0xA5


def text(value: str, count: int) -> list[int]:
    """A string as words: two characters each, the first in the upper byte, padded with spaces."""
    octets = value.encode("ascii", "replace")[: 2 * count].ljust(2 * count)
    return [octets[place] << 8 | octets[place + 1] for place in range(0, 2 * count, 2)]


def doubleword(value: int) -> list[int]:
    """A number as two words, the lower one first."""
    return [value & 0xFFFF, value >> 16 & 0xFFFF]


def selected_mode(mode: int, kind: int) -> int:
    """The bit of a word of DMA modes that says which one is set."""
    return 1 << 8 + (mode & 7) if mode >> 3 == kind else 0


def identify(disk: Disk, drive: Any, place: int) -> bytes:
    """The 512 bytes; `drive` is the drive's record (core/ide_state.py), `place` its place among the machine's four."""
    words = [0] * 256
    words[0], words[2] = FIXED_DISK, COMPLETE
    words[1], words[3], words[6] = disk.geometry
    words[10:20] = text(f"x86virt-{place}", 10)
    words[23:27] = text(FIRMWARE, 4)
    words[27:47] = text(MODEL, 20)
    words[47] = 0x8000 | MOST_MULTIPLE
    words[49], words[50], words[51] = CAPABILITIES, WORD_IS_VALID, 0x0200
    words[53] = VALID_WORDS
    cylinders, heads, track = int(drive.cylinders), int(drive.heads), int(drive.track)
    words[54:57] = cylinders, heads, track
    words[57:59] = doubleword(cylinders * heads * track)
    words[59] = 0x0100 | int(drive.multiple) if drive.multiple else 0
    words[60:62] = doubleword(min(disk.sectors, MOST_28_BIT))
    words[63] = 0x0007 | selected_mode(int(drive.dma_mode), 4)
    words[64] = 0x0003
    words[65:69] = [CYCLE_NANOSECONDS] * 4
    words[80] = VERSIONS
    words[82] = NOP | LOOK_AHEAD | WRITE_CACHE | POWER_MANAGEMENT
    words[83] = WORD_IS_VALID | FLUSH_EXT | FLUSH | ADDRESSES_48
    words[84] = words[87] = WORD_IS_VALID
    words[85] = NOP | POWER_MANAGEMENT | LOOK_AHEAD * int(drive.look_ahead) | WRITE_CACHE * int(drive.write_cache)
    words[86] = FLUSH_EXT | FLUSH | ADDRESSES_48
    words[88] = 0x0007 | selected_mode(int(drive.dma_mode), 8)
    words[93] = 0x6100 if place & 1 else 0x6001  # the cable has 80 conductors; how this device found its number
    words[100:104] = doubleword(disk.sectors & 0xFFFFFFFF) + doubleword(disk.sectors >> 32)
    octets = struct.pack("<255H", *words[:255]) + bytes([SIGNATURE])
    return octets + bytes([-sum(octets) & 0xFF])

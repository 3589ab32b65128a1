"""Bus-master DMA: the physical region descriptors of a transfer, and the memory that they name.

Source: Intel 82371FB/82371SB and 82371AB data sheets, "Physical region descriptor format". A descriptor is a doubleword
address (bit 0 is 0), a word count of bytes (bit 0 is 0; 0 means 64 KB) and a word whose bit 15 ends the table. The
counter behind an address has bits 1 to 15, so that a region wraps within its 64 KB; a table may not cross 64 KB.
"""

import struct
from collections.abc import Iterator
from typing import Protocol

from .core.ide_state import DMA_EXACT, DMA_FAILED, DMA_LONGER, DMA_SHORTER

WINDOW = 1 << 16
DESCRIPTOR_BYTES = 8
END_OF_TABLE = 0x8000


class Memory(Protocol):
    """Guest-physical memory as a device on the PCI bus sees it."""

    def read(self, address: int, count: int) -> bytes | None:
        """Bytes; None if nothing answers at one of them."""

    def write(self, address: int, octets: bytes) -> bool:
        """Store bytes; False if nothing answers at one of them."""


class NoAnswer(Exception):
    """Nothing on the bus answers an address: the bus master gives up."""


def regions(memory: Memory, table: int) -> Iterator[tuple[int, int]]:
    """(address, bytes) of each contiguous piece that a table names, up to its end. Raises NoAnswer."""
    place = table
    while True:
        octets = None if place % WINDOW + DESCRIPTOR_BYTES > WINDOW else memory.read(place, DESCRIPTOR_BYTES)
        if octets is None:
            raise NoAnswer
        address, count, flags = struct.unpack("<IHH", octets)
        address, count = address & ~1, (count & ~1) or WINDOW
        first = min(count, WINDOW - address % WINDOW)
        yield address, first
        if count > first:
            yield address - address % WINDOW, count - first
        if flags & END_OF_TABLE:
            return
        place += DESCRIPTOR_BYTES
        if place % WINDOW < DESCRIPTOR_BYTES:
            raise NoAnswer  # the table has come to the end of its 64 KB


def scatter(memory: Memory, table: int, octets: bytes) -> int:
    """Sectors to memory; returns a DMA outcome."""
    done = 0
    try:
        for address, room in regions(memory, table):
            if done == len(octets):
                return DMA_LONGER
            piece = octets[done : done + room]
            if not memory.write(address, piece):
                return DMA_FAILED
            done += len(piece)
            if len(piece) < room:
                return DMA_LONGER
    except NoAnswer:
        return DMA_LONGER if done == len(octets) else DMA_FAILED
    return DMA_EXACT if done == len(octets) else DMA_SHORTER


def gather(memory: Memory, table: int, count: int) -> tuple[int, bytes]:
    """`count` bytes from memory: a DMA outcome, and as many bytes as were read."""
    octets = bytearray()
    try:
        for address, room in regions(memory, table):
            if len(octets) == count:
                return DMA_LONGER, bytes(octets)
            wanted = min(room, count - len(octets))
            piece = memory.read(address, wanted)
            if piece is None:
                return DMA_FAILED, bytes(octets)
            octets += piece
            if wanted < room:
                return DMA_LONGER, bytes(octets)
    except NoAnswer:
        return (DMA_LONGER if len(octets) == count else DMA_FAILED), bytes(octets)
    return (DMA_EXACT if len(octets) == count else DMA_SHORTER), bytes(octets)

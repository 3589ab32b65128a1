"""A walk of the page tables as the manual tells it (SDM volume 3, chapter 4), for no paging, 32-bit and PAE paging.

It shares nothing with the core but the bit positions that both take from the manual, and is written for the reader: every
access walks, nothing is cached, an entry is one integer of 32 or 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

P, RW, US, A, D, PS, G, NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 63


@dataclass
class Mode:
    """The control bits that paging depends on, and the processor's physical-address width (`width`, bits)."""

    pg: bool = True
    pae: bool = False
    pse: bool = False
    wp: bool = False
    nxe: bool = False
    pse36: bool = False
    width: int = 36
    a20: bool = True


class PageFault(Exception):
    """#PF with its error code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class PageWalker:
    """Walks tables in a memory of the caller's: `read(address, n)` and `write(address, value, n)`."""

    def __init__(self, mode: Mode, read: Callable[[int, int], int], write: Callable[[int, int, int], None]) -> None:
        self.mode = mode
        self.read = read
        self.write = write
        self.steps: list[tuple[int, int]] = []  # (address, entry) of each level

    def bus(self, address: int) -> int:
        """The address that leaves the processor."""
        return address if self.mode.a20 else address & ~(1 << 20)

    def load_pointers(self, cr3: int) -> list[int] | None:
        """The page-directory-pointer entries, or None if loading them is a #GP (section 4.4.1)."""
        base = self.bus(cr3 & 0xFFFFFFE0)
        entries = [self.read(base + 8 * number, 8) for number in range(4)]
        forbidden = 0b110 | 0b1111 << 5 | sum(1 << bit for bit in range(self.mode.width, 64))
        return None if any(entry & P and entry & forbidden for entry in entries) else entries

    def access(self, cr3: int, pointers: list[int], linear: int, write: bool, user: bool, fetch: bool) -> int:
        """The physical address of an access; sets accessed and dirty bits. Raises PageFault."""
        mode = self.mode
        if not mode.pg:
            return self.bus(linear)
        self.steps = []
        request = write << 1 | user << 2 | (fetch and mode.nxe and mode.pae) << 4
        offset_bits = self.descend(cr3, pointers, linear, request)
        entries = [entry for _, entry in self.steps]
        # Section 4.6: determination of access rights.
        writable = all(entry & RW for entry in entries)
        user_page = all(entry & US for entry in entries)
        executable = not (mode.pae and mode.nxe and any(entry & NX for entry in entries))
        allowed = user_page if user else True
        if write:
            allowed = allowed and (writable or (not user and not mode.wp))
        if fetch:
            allowed = allowed and executable
        if not allowed:
            raise PageFault(request | 1)
        # Section 4.8: accessed bits at every level, the dirty bit in the leaf. An entry may serve two levels.
        size = 8 if mode.pae else 4
        for number, (address, _) in enumerate(self.steps):
            marks = A | (D if write and number == len(self.steps) - 1 else 0)
            self.write(address, self.read(address, size) | marks, size)
        return self.bus(self.frame(entries[-1], offset_bits) | linear & (1 << offset_bits) - 1)

    def descend(self, cr3: int, pointers: list[int], linear: int, request: int) -> int:
        """Read the entries from the root to the leaf into `steps`; the bits of the page's offset."""
        mode = self.mode
        if mode.pae:
            pointer = pointers[linear >> 30]
            if not pointer & P:
                raise PageFault(request)
            table = pointer & (1 << mode.width) - 1 & ~0xFFF
            levels = ((21, 9), (12, 9))
        else:
            table = cr3 & 0xFFFFF000
            levels = ((22, 10), (12, 10))
        size = 8 if mode.pae else 4
        for shift, index_bits in levels:
            address = self.bus(table + (linear >> shift & (1 << index_bits) - 1) * size)
            entry = self.read(address, size)
            large = shift > 12 and bool(entry & PS) and (mode.pae or mode.pse)
            if not entry & P:
                raise PageFault(request)
            if entry & self.reserved(large):
                raise PageFault(request | 1 | 8)
            self.steps.append((address, entry))
            if large:
                return shift
            table = entry & 0xFFFFF000 if not mode.pae else entry & (1 << 52) - 1 & ~0xFFF
        return 12

    def reserved(self, large: bool) -> int:
        """The reserved bits of a directory or table entry (tables 4-4, 4-9 to 4-11; the processor has PAT)."""
        mode = self.mode
        if not mode.pae:
            if not large:
                return 0
            address_bits = min(mode.width, 40) if mode.pse36 else 32
            return sum(1 << bit for bit in range(13, 22) if bit == 21 or bit - 13 + 32 >= address_bits)
        mask = sum(1 << bit for bit in range(mode.width, 63))
        if not mode.nxe:
            mask |= NX
        return mask | (0x1FE000 if large else 0)

    def frame(self, leaf: int, offset_bits: int) -> int:
        """The page that a leaf entry names."""
        if self.mode.pae:
            return leaf & (1 << 52) - 1 & ~((1 << offset_bits) - 1)
        if offset_bits == 22:
            return leaf & 0xFFC00000 | (leaf >> 13 & 0xFF) << 32
        return leaf & 0xFFFFF000

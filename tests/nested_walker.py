"""A walk of two dimensions as the manuals tell it: SDM volume 3 chapter 28 for EPT, AMD publication 24593 section 15.25 for NPT.

It shares nothing with the core, caches nothing, and takes entries as whole integers. Memory is a bytearray; what lies beyond it
reads as ones. Every reference is counted by kind.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

P, RW, US, A, D, PS, G, NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 63
WIDTH = 36  # of a physical address
BEYOND = sum(1 << bit for bit in range(WIDTH, 52))


class Exit(Exception):
    """The guest is left: reason (or exit code), qualification (or EXITINFO1), guest-linear and guest-physical address."""


class PageFault(Exception):
    """The guest's own #PF, with its error code."""


@dataclass
class Guest:
    """The guest's paging mode."""

    pg: bool = True
    pae: bool = False
    pse: bool = True
    wp: bool = False
    nxe: bool = False
    pge: bool = False
    cr3: int = 0
    pointers: list[int] = field(default_factory=lambda: [0, 0, 0, 0])


@dataclass
class Nested:
    """The nested tables: EPT, or NPT of 2 to 4 levels, and what the processor has."""

    ept: bool = True
    levels: int = 4
    root: int = 0
    pse: bool = True  # of the host, for NPT of 2 levels
    nxe: bool = True  # of the host, for NPT of 3 and 4 levels
    execute_only: bool = True
    pages_2m: bool = True
    pages_1g: bool = False


class Walker:
    """Translates linear addresses of a guest."""

    def __init__(self, memory: bytearray, guest: Guest, nested: Nested) -> None:
        self.memory, self.guest, self.nested = memory, guest, nested
        self.count: Counter[str] = Counter()
        self.gla = 0

    # -- memory

    def load(self, address: int, size: int) -> int:
        """An entry in memory."""
        octets = self.memory[address : address + size]
        return int.from_bytes(octets, "little") if len(octets) == size else (1 << 8 * size) - 1

    def mark(self, address: int, size: int, bits: int) -> None:
        """Set marks in an entry."""
        value = self.load(address, size)
        if value | bits != value and address + size <= len(self.memory):
            self.memory[address : address + size] = (value | bits).to_bytes(size, "little")

    # -- the nested dimension

    def to_host(self, gpa: int, access: str, purpose: str) -> tuple[int, int]:
        """Physical address, and bits of the nested page; `access` is r, w or x, `purpose` end, tables or pointers."""
        if self.nested.ept:
            return self.to_host_by_ept(gpa, access, purpose)
        return self.to_host_by_npt(gpa, access, purpose)

    def violation(self, gpa: int, access: str, allowed: int, purpose: str) -> Exit:
        """Table 27-7: exit qualification for EPT violations."""
        qualification = {"r": 1, "w": 2, "x": 4}[access] | allowed << 3
        gla = 0
        if purpose != "pointers":
            qualification |= 1 << 7
            gla = self.gla
        if purpose == "end":
            qualification |= 1 << 8
        return Exit(48, qualification, gla, gpa)

    def to_host_by_ept(self, gpa: int, access: str, purpose: str) -> tuple[int, int]:
        """Section 28.2.2, with misconfigurations by section 28.2.3.1."""
        table, allowed = self.nested.root, 7
        for shift in (39, 30, 21, 12):
            self.count["nested"] += 1
            entry = self.load(table + (gpa >> shift & 0x1FF) * 8, 8)
            if entry & 7 == 0:
                raise self.violation(gpa, access, 0, purpose)
            page_here = shift == 12 or bool(
                entry & PS and (shift == 21 and self.nested.pages_2m or shift == 30 and self.nested.pages_1g)
            )
            wrong = entry & 7 in (2, 6) or (entry & 7 == 4 and not self.nested.execute_only) or entry & BEYOND
            if page_here:
                wrong = wrong or entry >> 3 & 7 in (2, 3, 7) or (entry & (1 << shift) - 1) >> 12
            else:
                wrong = wrong or entry & 0xF8
            if wrong:
                raise Exit(49, 0, 0, gpa)
            allowed &= entry & 7
            table = entry & 0xFFFFFFFFFF000
            if page_here:
                break
        if not allowed & {"r": 1, "w": 2, "x": 4}[access]:
            raise self.violation(gpa, access, allowed, purpose)
        return table | gpa & (1 << shift) - 1, shift

    def to_host_by_npt(self, gpa: int, access: str, purpose: str) -> tuple[int, int]:
        """Section 15.25: ordinary tables in the host's format, each access a user's."""
        nested = self.nested
        size = 4 if nested.levels == 2 else 8
        shifts = {2: (22, 12), 3: (30, 21, 12), 4: (39, 30, 21, 12)}[nested.levels]
        code = US | {"r": 0, "w": RW, "x": 1 << 4}[access] | 1 << (32 if purpose == "end" else 33)
        if nested.levels < 4 and gpa >> 32:
            raise Exit(0x400, code, 0, gpa)
        table, path = nested.root, []
        for shift in shifts:
            self.count["nested"] += 1
            index = gpa >> shift & ((1 << 10) - 1 if size == 4 else 0x1FF)
            entry = self.load(table + index * size, size)
            pointer = nested.levels == 3 and shift == 30
            if not entry & P:
                raise Exit(0x400, code, 0, gpa)
            page_here = shift == 12 or self.npt_page(entry, shift)
            if entry & self.npt_reserved(shift, page_here):
                raise Exit(0x400, code | P | 1 << 3, 0, gpa)
            if not pointer:
                path.append((table + index * size, entry))
            table = entry & 0xFFFFFFFFFF000
            if page_here:
                if size == 4 and shift == 22:
                    table = entry & 0xFFC00000 | (entry >> 13 & 0xFF) << 32
                table &= ~((1 << shift) - 1)
                break
        allowed = all(entry & US for _, entry in path)
        if access == "w":
            allowed = allowed and all(entry & RW for _, entry in path)
        if access == "x" and size == 8:
            allowed = allowed and not any(entry & NX for _, entry in path)
        if not allowed:
            raise Exit(0x400, code | P, 0, gpa)
        for place, (address, _) in enumerate(path):
            self.mark(address, size, A | (D if access == "w" and place == len(path) - 1 else 0))
        return table | gpa & (1 << shift) - 1, shift

    def npt_page(self, entry: int, shift: int) -> bool:
        """Whether an entry above the last level maps a page."""
        if not entry & PS:
            return False
        if shift == 22:
            return self.nested.pse
        return shift == 21 or (shift == 30 and self.nested.levels == 4)

    def npt_reserved(self, shift: int, page_here: bool) -> int:
        """The reserved bits of an entry."""
        levels = self.nested.levels
        if levels == 2:
            # The processor has PSE-36: bits 20:13 hold address bits 39:32, of which it has 36.
            return 0x3E0000 if shift == 22 and page_here else 0
        if levels == 3 and shift == 30:
            return BEYOND | 0xFFF << 52 | 0x1E6
        mask = BEYOND | (0 if levels == 4 else 0x7FF << 52) | (0 if self.nested.nxe else NX)
        if shift == 39:
            mask |= PS
        if page_here and shift > 12:
            mask |= (1 << shift) - (1 << 13)
        return mask

    # -- the guest's dimension

    def access(self, gla: int, write: bool, user: bool, fetch: bool) -> tuple[int, int]:
        """Physical address, and bits of the combined page. Raises PageFault or Exit."""
        self.gla = gla
        gpa, shift = gla, 22
        if self.guest.pg:
            gpa, shift = self.walk_guest(gla, write, user, fetch)
        physical, nested_shift = self.to_host(gpa, "w" if write else "x" if fetch else "r", "end")
        return physical, min(shift, nested_shift)

    def walk_guest(self, gla: int, write: bool, user: bool, fetch: bool) -> tuple[int, int]:
        """The guest's tables, each entry of them found through the nested ones."""
        guest, npt = self.guest, not self.nested.ept
        code = write << 1 | user << 2 | (fetch and guest.pae and guest.nxe) << 4
        size, bits = (8, 9) if guest.pae else (4, 10)
        table = guest.cr3 & 0xFFFFF000
        if guest.pae:
            pointer = guest.pointers[gla >> 30]
            if npt:
                at = self.to_host((guest.cr3 & 0xFFFFFFE0) + (gla >> 30) * 8, "w", "tables")[0]
                self.count["pointer"] += 1
                pointer = self.load(at, 8)
                if pointer & P and pointer & (BEYOND | 0xFFF << 52 | 0x1E6):
                    raise PageFault(code | P | 8)
            if not pointer & P:
                raise PageFault(code)
            table = pointer & 0xFFFFFFFFFF000
        path = []
        for shift in (21, 12) if guest.pae else (22, 12):
            gpa = table + (gla >> shift & (1 << bits) - 1) * size
            at = self.to_host(gpa, "w" if npt else "r", "tables")[0]
            self.count["own"] += 1
            entry = self.load(at, size)
            if not entry & P:
                raise PageFault(code)
            large = shift > 12 and bool(entry & PS) and (guest.pae or guest.pse)
            if entry & self.guest_reserved(large):
                raise PageFault(code | P | 8)
            path.append((at, gpa, entry))
            table = entry & 0xFFFFFFFFFF000
            if large:
                break
        entries = [entry for _, _, entry in path]
        allowed = not user or all(entry & US for entry in entries)
        if write:
            allowed = allowed and (all(entry & RW for entry in entries) or (not user and not guest.wp))
        if fetch and guest.pae and guest.nxe:
            allowed = allowed and not any(entry & NX for entry in entries)
        if not allowed:
            raise PageFault(code | P)
        self.set_marks(path, size, write)
        if large and not guest.pae:
            table = entry & 0xFFC00000 | (entry >> 13 & 0xFF) << 32
        return table & ~((1 << shift) - 1) | gla & (1 << shift) - 1, shift

    def set_marks(self, path: list[tuple[int, int, int]], size: int, write: bool) -> None:
        """Accessed and dirty bits; with EPT each is a write, which the nested tables must allow."""
        for place, (at, gpa, _) in enumerate(path):
            marks = A | (D if write and place == len(path) - 1 else 0)
            if self.load(at, size) | marks != self.load(at, size):
                if self.nested.ept:
                    before = self.count["nested"]
                    self.to_host(gpa, "w", "tables")
                    self.count["nested"] = before
                self.mark(at, size, marks)

    def guest_reserved(self, large: bool) -> int:
        """The reserved bits of an entry of the guest's."""
        if not self.guest.pae:
            return 0x3E0000 if large else 0
        return BEYOND | 0x7FF << 52 | (0 if self.guest.nxe else NX) | (0x1FE000 if large else 0)

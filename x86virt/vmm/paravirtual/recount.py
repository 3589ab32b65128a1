"""The frame table counted anew: what every reference and every use of a frame comes from, by the page tables alone.

Run at the end of a run, and by tests. It shares nothing with the code that keeps the counts: types follow from the tables
that are pinned, or that processors walk by, and from what the VMM holds besides.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from . import layout
from .records import (
    NOBODY,
    PGC_ALLOCATED,
    PGC_COUNT,
    PGT_COUNT,
    PGT_L1,
    PGT_L2,
    PGT_L3,
    PGT_PAE_XEN_L2,
    PGT_PINNED,
    PGT_SEG_DESC,
    PGT_TYPE,
    PGT_VALIDATED,
    PGT_WRITABLE,
)

PAGE = 4096
PRESENT, WRITABLE = 1, 2
DISALLOWED, POINTER_DISALLOWED = 0x198, 0x1FE
TABLES = (PGT_L1, PGT_L2, PGT_L3)
NAMES = {0: "nothing", PGT_L1: "L1", PGT_L2: "L2", PGT_L3: "L3", PGT_SEG_DESC: "descriptors", PGT_WRITABLE: "writable"}


@dataclass(frozen=True)
class Hold:
    """What the VMM has of a frame besides page tables: a reference, and a use as `kind` unless that is 0."""

    frame: int
    kind: int
    why: str


class Recount:
    """References and uses by frame, as they follow from the tables."""

    def __init__(self, memory: np.ndarray, domains: np.ndarray, frames: np.ndarray, holds: Iterable[Hold]) -> None:
        self.memory, self.domains, self.frames = memory, domains, frames
        self.references: Counter[int] = Counter()
        self.uses: Counter[tuple[int, int]] = Counter()
        self.faults: list[str] = []
        self.tables = [frame for frame in range(len(frames)) if self.is_table(frame)]
        for frame in range(len(frames)):
            if int(frames[frame].count_info) & PGC_ALLOCATED:
                self.references[frame] += 1
            if int(frames[frame].type_info) & PGT_PINNED and int(frames[frame].owner) != NOBODY:
                self.take(frame, self.kind(frame))
        for hold in holds:
            self.take(hold.frame, hold.kind)
        for index in range(layout.N_DOMAINS):
            if domains[index].exists and domains[index].base_frame:
                self.take(int(domains[index].base_frame), PGT_L3 if domains[index].is_pae else PGT_L2)
        for table in self.tables:
            self.look_into(table)
        for frame in range(len(frames)):
            self.compare(frame)
        self.look_at_free()

    def kind(self, frame: int) -> int:
        """What a frame is used as, by its record."""
        return int(self.frames[frame].type_info) & PGT_TYPE

    def is_table(self, frame: int) -> bool:
        """Whether a frame's record says that it is in use as a page table."""
        info = int(self.frames[frame].type_info)
        return int(self.frames[frame].owner) != NOBODY and info & PGT_TYPE in TABLES and info & PGT_COUNT != 0

    def take(self, frame: int, kind: int) -> None:
        """Count a reference and, unless the kind is 0, a use."""
        self.references[frame] += 1
        if kind:
            self.uses[frame, kind] += 1

    def entries(self, table: int) -> Iterator[tuple[int, int]]:
        """The present entries of the guest's in a table: number and value."""
        domain = self.domains[int(self.frames[table].owner)]
        size = "<u8" if domain.is_pae else "<u4"
        values = self.memory[table * PAGE : (table + 1) * PAGE].view(size)
        count = len(values)
        if self.kind(table) == PGT_L3:
            count = 4
        elif self.kind(table) == PGT_L2 and not domain.is_pae:
            count = int(domain.virt_start) >> 22
        elif int(self.frames[table].type_info) & PGT_PAE_XEN_L2:
            count = int(domain.virt_start) >> 21 & 511
        return ((number, int(value)) for number, value in enumerate(values[:count]) if int(value) & PRESENT)

    def look_into(self, table: int) -> None:
        """Count what the entries of a table hold, and note those that may not stand there."""
        kind, domain = self.kind(table), int(self.frames[table].owner)
        for number, value in self.entries(table):
            frame = value >> 12 & 0xFFFFFFFF
            bad = POINTER_DISALLOWED if kind == PGT_L3 else DISALLOWED
            if value & bad or frame >= len(self.frames) or value >> 44 & ~(1 << 19):
                self.faults.append(f"entry {number} of {NAMES[kind]} {table:#x} is {value:#x}")
            elif kind == PGT_L1:
                self.take(frame, PGT_WRITABLE if value & WRITABLE else 0)
            elif kind == PGT_L3:
                self.take(frame, PGT_L2)
            elif frame != table:
                self.take(frame, PGT_L2 if self.kind(frame) == PGT_L2 else PGT_L1)
                if self.kind(frame) == PGT_L2 and value & WRITABLE:
                    self.faults.append(f"entry {number} of L2 {table:#x} maps an L2 writable")
            elif value & WRITABLE:
                self.faults.append(f"entry {number} of L2 {table:#x} maps it writable")
            if kind != PGT_L1 and int(self.frames[frame].owner) != domain:
                self.faults.append(f"entry {number} of {NAMES[kind]} {table:#x} names a table that is not its owner's")

    def compare(self, frame: int) -> None:
        """Compare a frame's record with what was counted."""
        record = self.frames[frame]
        owner, info = int(record.owner), int(record.type_info)
        if owner == NOBODY:
            if int(record.count_info) or self.references[frame]:
                self.faults.append(f"frame {frame:#x} is nobody's and has {self.references[frame]} references")
            return
        self.expect(frame, "references", int(record.count_info) & PGC_COUNT, self.references[frame])
        for kind, name in NAMES.items():
            if kind:
                uses = info & PGT_COUNT if info & PGT_TYPE == kind else 0
                self.expect(frame, f"uses as {name}", uses, self.uses[frame, kind])
        if info & PGT_COUNT and not info & PGT_VALIDATED:
            self.faults.append(f"frame {frame:#x} is in use and not validated")

    def expect(self, frame: int, what: str, kept: int, counted: int) -> None:
        """Note a count that is not what it should be."""
        if kept != counted:
            self.faults.append(f"frame {frame:#x}: {kept} {what} in its record, {counted} counted")

    def look_at_free(self) -> None:
        """Domains have as many frames as their records say."""
        owners = Counter(int(owner) for owner in self.frames["owner"])
        for index in range(layout.N_DOMAINS):
            if self.domains[index].exists:
                self.expect(index, "frames of the domain", int(self.domains[index].total_frames), owners[index])


def recount(memory: np.ndarray, domains: np.ndarray, frames: np.ndarray, holds: Iterable[Hold] = ()) -> list[str]:
    """What is wrong in the frame table; nothing, if all is well."""
    return Recount(memory, domains, frames, holds).faults

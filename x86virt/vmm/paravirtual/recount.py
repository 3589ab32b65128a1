"""The frame table counted anew: what every reference and every use of a frame comes from, by the page tables alone.

Run at the end of a run, and by tests. It shares nothing with the code that keeps the counts: it goes by the entries of the
tables that are in use, pins, the bases of the domains, and what the VMM holds besides.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..layout import VMM_BYTES
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
DISALLOWED = 0x198
BEYOND = 0x7FFFF << 44  # bits of an entry that no frame has, but for the execute-disable bit
NAMES = {PGT_L1: "L1", PGT_L2: "L2", PGT_L3: "L3", PGT_SEG_DESC: "descriptors", PGT_WRITABLE: "writable"}
P_BIT, DPL_BITS, S_BIT, G_BIT = 1 << 15, 3 << 13, 1 << 12, 1 << 23  # of a descriptor's high doubleword
CODE_BIT, DIRECTION_BIT = 1 << 11, 1 << 10
CALL_GATE = 12
MOST_FAULTS = 20  # that are told


@dataclass(frozen=True)
class Hold:
    """What the VMM has of a frame besides page tables: a reference, and a use as `kind` unless that is 0."""

    frame: int
    kind: int
    why: str


class Recount:
    """References and uses by frame, as they follow from the tables."""

    def __init__(self, memory: np.ndarray, domains: np.ndarray, frames: np.ndarray, holds: Iterable[Hold]) -> None:
        self.memory, self.domains = memory, domains
        self.owner = frames["owner"].astype(np.int64)
        self.count_info = frames["count_info"].astype(np.int64)
        self.type_info = np.where(self.owner == NOBODY, 0, frames["type_info"].astype(np.int64))
        self.kind = self.type_info & PGT_TYPE
        self.in_use = self.type_info & PGT_COUNT != 0
        self.references = np.zeros(len(frames), np.int64)
        self.uses = {kind: np.zeros(len(frames), np.int64) for kind in NAMES}
        self.faults: list[str] = []
        self.count_roots(holds)
        for kind in (PGT_L1, PGT_L2, PGT_L3):
            for table in np.flatnonzero(self.in_use & (self.kind == kind)):
                self.look_into(int(table), kind)
        self.compare()

    # -- what there is ------------------------------------------------------------------------------------------------

    def take(self, frames: np.ndarray, kind: int) -> None:
        """Count a reference to each of these frames and, unless the kind is 0, a use."""
        np.add.at(self.references, frames, 1)
        if kind:
            np.add.at(self.uses[kind], frames, 1)

    def count_roots(self, holds: Iterable[Hold]) -> None:
        """What is not by page tables."""
        self.take(np.flatnonzero(self.count_info & PGC_ALLOCATED), 0)
        for kind in (PGT_L1, PGT_L2, PGT_L3):
            self.take(np.flatnonzero((self.type_info & PGT_PINNED != 0) & (self.kind == kind)), kind)
        for hold in holds:
            self.take(np.array([hold.frame]), hold.kind)
        for index in range(layout.N_DOMAINS):
            if self.domains[index].exists and self.domains[index].base_frame:
                kind = PGT_L3 if self.domains[index].is_pae else PGT_L2
                self.take(np.array([int(self.domains[index].base_frame)]), kind)

    def entries(self, table: int, kind: int) -> np.ndarray:
        """The present entries of the guest's in a table."""
        domain = self.domains[int(self.owner[table])]
        values = self.memory[table * PAGE : (table + 1) * PAGE].view("<u8" if domain.is_pae else "<u4")
        count = len(values)
        if kind == PGT_L3:
            count = 4
        elif kind == PGT_L2 and not domain.is_pae:
            count = int(domain.virt_start) >> 22
        elif self.type_info[table] & PGT_PAE_XEN_L2:
            count = int(domain.virt_start) >> 21 & 511
        values = values[:count].astype(np.int64)
        return values[values & PRESENT != 0]

    def look_into(self, table: int, kind: int) -> None:
        """Count what the entries of a table hold, and note those that may not stand there."""
        values = self.entries(table, kind)
        named = values >> 12 & 0xFFFFFFFF
        bad = values & DISALLOWED != 0
        bad |= (named >= len(self.owner)) | (values & BEYOND != 0)
        self.note(values[bad], f"{NAMES[kind]} {table:#x} has the entry")
        values, named = values[~bad], named[~bad]
        writable = values & WRITABLE != 0
        if kind == PGT_L1:
            self.take(named[writable], PGT_WRITABLE)
            self.take(named[~writable], 0)
            return
        self.note(named[self.owner[named] != self.owner[table]], f"{NAMES[kind]} {table:#x} names another's table")
        if kind == PGT_L3:
            self.take(named, PGT_L2)
            return
        linear = (self.kind[named] == PGT_L2) | (named == table)
        self.note(named[linear & writable], f"L2 {table:#x} maps writable the L2")
        self.take(named[linear & (named != table)], PGT_L2)
        self.take(named[~linear], PGT_L1)

    def look_at_descriptors(self, frame: int) -> None:
        """Note the descriptors of a page that no domain may have: of ring 0, of what the VMM alone has, beyond its room."""
        words = self.memory[frame * PAGE : (frame + 1) * PAGE].view("<u4").astype(np.int64)
        low, high = words[::2], words[1::2]
        base = low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000
        octets = (low & 0xFFFF | high & 0xF0000) + 1 << np.where(high & G_BIT, 12, 0) & 0xFFFFFFFF
        end = int(self.domains[int(self.owner[frame])].segment_limit) + 1 << 12
        downward = high & (CODE_BIT | DIRECTION_BIT) == DIRECTION_BIT
        within = np.where(downward, (octets == 0) | (base + octets > 0xFFFFFFFF), (octets != 0) & (base + octets <= end))
        segment = high & S_BIT != 0
        gate = np.isin(high >> 8 & 15, (0, CALL_GATE))
        bad = (high & P_BIT != 0) & ((high & DPL_BITS == 0) | np.where(segment, ~within, ~gate))
        self.note(np.flatnonzero(bad), f"page of descriptors {frame:#x} has a bad one at")

    # -- what is wrong --------------------------------------------------------------------------------------------------

    def note(self, numbers: np.ndarray, what: str) -> None:
        """Something is wrong with each of these."""
        self.faults += [f"{what} {int(number):#x}" for number in numbers[:MOST_FAULTS]]

    def compare(self) -> None:
        """Compare the records with what was counted."""
        free = self.owner == NOBODY
        self.note(np.flatnonzero(free & ((self.count_info != 0) | (self.references != 0))), "referred to, though nobody's: frame")
        self.expect(np.where(free, 0, self.count_info & PGC_COUNT), self.references, "references")
        for kind, name in NAMES.items():
            kept = np.where(self.kind == kind, self.type_info & PGT_COUNT, 0)
            self.expect(kept, self.uses[kind], f"uses as {name}")
        validated = self.type_info & PGT_VALIDATED != 0
        self.note(np.flatnonzero(self.in_use & ~validated), "in use and not validated: frame")
        tables = np.isin(self.kind, (PGT_L1, PGT_L2, PGT_L3))
        self.note(np.flatnonzero(tables & validated & ~self.in_use), "a valid table that nobody uses: frame")
        for frame in np.flatnonzero(validated & (self.kind == PGT_SEG_DESC)):
            self.look_at_descriptors(int(frame))
        owned = self.count_info & PGC_COUNT != 0
        owned[: VMM_BYTES // PAGE] = False  # pages of the VMM's region that a domain shares are none of its own
        for index in range(layout.N_DOMAINS):
            total = int(np.count_nonzero(owned & (self.owner == index)))
            if self.domains[index].exists and int(self.domains[index].total_frames) != total:
                self.faults.append(f"domain {index}: {self.domains[index].total_frames} frames in its record, {total} counted")

    def expect(self, kept: np.ndarray, counted: np.ndarray, what: str) -> None:
        """Note counts that are not what they should be."""
        for frame in np.flatnonzero(kept != counted)[:MOST_FAULTS]:
            self.faults.append(f"frame {int(frame):#x}: {kept[frame]} {what} in its record, {counted[frame]} counted")


def free_list_faults(frames: np.ndarray, xen: np.record) -> list[str]:
    """What is wrong with the list of frames that are to be had: each is nobody's, and in it once."""
    left = set(np.flatnonzero(frames["owner"] == NOBODY).tolist())
    following = int(xen.free_frames)
    while following - 1 in left:
        left.remove(following - 1)
        following = int(frames[following - 1].type_info)
    faults = [f"the list of free frames goes on at {following - 1:#x}"] if following else []
    return faults + ["an L2 waits to be released"] * bool(xen.releasing)


def recount(
    memory: np.ndarray, domains: np.ndarray, frames: np.ndarray, holds: Iterable[Hold] = (), xen: np.record | None = None
) -> list[str]:
    """What is wrong in the frame table; nothing, if all is well."""
    faults = Recount(memory, domains, frames, holds).faults
    return faults if xen is None else faults + free_list_faults(frames, xen)

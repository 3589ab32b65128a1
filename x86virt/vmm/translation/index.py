"""What the jitted exits know of the translation cache: a copy of what they need, in arrays.

Python's units are the truth. For each place in the cache the index has the recovery in front of the instruction there,
and the site of a callout; of the guest's addresses it has those at which the guest was resumed before, in the context
in which that was. Whatever it lacks is left to Python, which then adds it.
"""

from typing import TYPE_CHECKING

import numpy as np

from ...records import record_array
from .. import layout
from ..shadow.records import MAX_FRAMES
from .recovery import Recovery
from .sequences import Context

if TYPE_CHECKING:
    from .emitter import Site
    from .unit import Unit

# Marks of a place: a Recovery that says no more than these, and the kind of a site.
KNOWN, TARGET_IN_RECORD, HELD = 1, 2, 4
SPILLED_SHIFT = 4  # one bit for each of EAX, ECX and EDX, by its number
RELEASE_SHIFT = 8  # 16 bits
KIND_SHIFT = 24
ADAPTED = "adapted_write"
PORT_ACCESS = "port_access"
SITE_KINDS = ("sensitive_instruction", "unchained_jump", "lookup_miss", ADAPTED, PORT_ACCESS)

N_ENTRIES = 1 << 15
PROBES = 8  # places at which an entry may lie
MAX_PAGES = 256
PAGE = 0x1000
MAX_CODE_FRAMES = 512  # whose bytes are known; slot 0 is none
NO_SLOT = 0
MAX_COUNTERS = 4096
NO_COUNTER = -1
NOWHERE = -1  # as the guest address of an entry: it is empty
NO_FRAME = -1  # of a page of which units were made in different frames, or for programs, whose rights Python looks up

INDEX = np.dtype(
    [
        ("marks", "i8", layout.CACHE_BYTES),  # by place in the cache
        ("eips", "i8", layout.CACHE_BYTES),
        ("site_marks", "i8", layout.CACHE_BYTES),
        ("site_eips", "i8", layout.CACHE_BYTES),
        ("site_counters", "i8", layout.CACHE_BYTES),  # of a site of an adapted instruction
        ("idle", "i8", MAX_COUNTERS),  # by counter: callouts in a row that wrote nothing traced
        # by guest frame: its slot; by slot and byte: units that were made from it
        ("frame_slots", "i8", MAX_FRAMES),
        ("code_bytes", "i8", MAX_CODE_FRAMES * PAGE),
        # where the guest's code may be entered, by open addressing
        ("entry_eips", "i8", N_ENTRIES),
        ("entry_contexts", "i8", N_ENTRIES),
        ("entry_addresses", "i8", N_ENTRIES),
        # the linear pages that hold translated code, in order, and the guest frame of each
        ("page_count", "i8"),
        ("pages", "i8", MAX_PAGES),
        ("page_frames", "i8", MAX_PAGES),
    ]
)
BASE = layout.VMM_BASE + layout.CACHE


def marks_of(recovery: Recovery) -> int:
    """A recovery as marks, 0 if they do not say all of it."""
    plain = Recovery(recovery.eip, recovery.spilled, recovery.release, recovery.held)
    if recovery != plain:
        return 0
    spilled = sum(1 << number for number in recovery.spilled) << SPILLED_SHIFT
    marks = KNOWN | spilled | recovery.release << RELEASE_SHIFT
    return marks | (TARGET_IN_RECORD if recovery.eip is None else 0) | (HELD if recovery.held else 0)


def first_probe(eip: int, context: int) -> int:
    """Where the entry of a guest address lies, if it is not further on."""
    return (eip ^ eip >> 13 ^ context * 0x9E5) & N_ENTRIES - 1


class Index:
    """The index of one translation cache."""

    def __init__(self) -> None:
        self.records = record_array(INDEX)
        self.rows = self.records[0]
        self.contexts: dict[Context, int] = {}  # the numbers of those in which the guest was resumed
        self.pages_changed = False
        self.adapted: dict[int, int] = {}  # the counters of adapted instructions, by linear address
        self.free_counters = list(range(MAX_COUNTERS - 1, -1, -1))
        self.frames: list[int] = []  # guest frames with a slot, from slot 1 on
        self.rows.entry_eips[:] = NOWHERE

    def number_of(self, context: Context) -> int:
        """The number of a context."""
        return self.contexts.setdefault(context, len(self.contexts))

    # -- places ---------------------------------------------------------------------------------------------------------

    def add(self, unit: "Unit") -> None:
        """Note the places of a unit that stands in the cache."""
        rows, first = self.rows, unit.address - BASE
        for offset, recovery in zip(unit.offsets, unit.recoveries, strict=True):
            rows.marks[first + offset], rows.eips[first + offset] = marks_of(recovery), recovery.eip or 0
        for site in unit.sites.values():
            rows.site_marks[first + site.offset] = self.site_marks(site)
            rows.site_eips[first + site.offset] = site.recovery.eip or 0
            gla = unit.context.segment_base + (site.recovery.eip or 0) & 0xFFFFFFFF
            rows.site_counters[first + site.offset] = self.adapted.get(gla, NO_COUNTER)
        self.count_bytes(unit, 1)
        self.pages_changed = True

    @staticmethod
    def site_marks(site: "Site") -> int:
        """A callout as marks, 0 if it is none that machine code knows."""
        marks = marks_of(site.recovery)
        if marks == 0 or site.kind not in SITE_KINDS:
            return 0
        return marks | SITE_KINDS.index(site.kind) << KIND_SHIFT

    def drop(self, unit: "Unit") -> None:
        """Nothing enters a unit any more. Its places stay: control may still come from there."""
        for eip in unit.boundaries:
            for place in self.probes(eip, self.number_of(unit.context)):
                if unit.address <= self.rows.entry_addresses[place] < unit.address + len(unit.octets):
                    self.rows.entry_eips[place] = NOWHERE
        self.count_bytes(unit, -1)
        self.pages_changed = True

    def count_bytes(self, unit: "Unit", change: int) -> None:
        """A unit is made from bytes of its frames, or no longer; one that crosses a page counts as all of both."""
        first = unit.gla & PAGE - 1
        last = first + max(len(unit.guest), 1) - 1
        for frame in unit.frames:
            slot = self.slot_of(frame)
            if slot != NO_SLOT and last < PAGE:
                self.rows.code_bytes[slot * PAGE + first : slot * PAGE + last + 1] += change
            elif slot != NO_SLOT:
                self.rows.code_bytes[slot * PAGE : (slot + 1) * PAGE] += change

    def slot_of(self, frame: int) -> int:
        """The slot of a guest frame, given to it now if it has none and there is one."""
        if not self.rows.frame_slots[frame] and len(self.frames) < MAX_CODE_FRAMES - 1:
            self.frames.append(frame)
            self.rows.frame_slots[frame] = len(self.frames)
        return int(self.rows.frame_slots[frame])

    def clear(self, first: int) -> None:
        """Forget all that lies behind the first bytes of the cache."""
        for name in ("marks", "site_marks"):
            self.rows[name][first:] = 0
        self.rows.entry_eips[:] = NOWHERE
        self.rows.code_bytes[: (len(self.frames) + 1) * PAGE] = 0
        self.rows.frame_slots[self.frames] = NO_SLOT
        self.frames.clear()
        self.pages_changed = True

    # -- adapted instructions ------------------------------------------------------------------------------------------------

    def adapt(self, gla: int, idle: int = 0) -> bool:
        """Give an instruction a counter; False if there are too many."""
        if not self.free_counters:
            return False
        self.adapted[gla] = self.free_counters.pop()
        self.rows.idle[self.adapted[gla]] = idle
        return True

    def restore(self, gla: int) -> None:
        """An instruction needs its counter no longer."""
        self.free_counters.append(self.adapted.pop(gla))

    # -- where the guest goes on -------------------------------------------------------------------------------------------

    @staticmethod
    def probes(eip: int, context: int) -> list[int]:
        """The places at which the entry of a guest address may lie."""
        first = first_probe(eip, context)
        return [first + step & N_ENTRIES - 1 for step in range(PROBES)]

    def enter(self, eip: int, context: Context, address: int) -> None:
        """The guest goes on at an address of the cache, as it will whenever it is resumed there."""
        rows, number = self.rows, self.number_of(context)
        places = self.probes(eip, number)
        same = [at for at in places if rows.entry_eips[at] == eip and rows.entry_contexts[at] == number]
        free = [at for at in places if rows.entry_eips[at] == NOWHERE]
        place = [*same, *free, places[eip % PROBES]][0]
        rows.entry_eips[place], rows.entry_contexts[place], rows.entry_addresses[place] = eip, number, address

    # -- pages ----------------------------------------------------------------------------------------------------------------

    def follow_pages(self, by_page: "dict[int, list[Unit]]") -> None:
        """Note the linear pages that hold units, if they may be others than before."""
        if not self.pages_changed:
            return
        self.pages_changed = False
        self.rows.page_count = len(by_page)
        for number, page in enumerate(sorted(by_page)[:MAX_PAGES]):
            frames = {NO_FRAME if unit.context.cpl else unit.frame_of(page) for unit in by_page[page]}
            self.rows.pages[number] = page
            self.rows.page_frames[number] = frames.pop() if len(frames) == 1 else NO_FRAME

"""The translation cache: units in machine RAM, found by guest address, chained to each other, thrown away.

Bytes are written once, a unit behind the other; what is dropped leaves a gap until the cache is full, and then
everything is thrown away at once and made again as it is needed. Beside the bytes lies the table of notes that says
which of them complete a guest instruction (core/retirement.py).
"""

from bisect import bisect_right
from typing import TYPE_CHECKING

from .. import layout
from .emitter import CALLOUT, FILLER, JUMP_BYTES, Site, dword, jump_octets
from .index import Index
from .sequences import Context
from .unit import Unit

if TYPE_CHECKING:
    from ..vm import SoftwareVm

BASE = layout.VMM_BASE + layout.CACHE
ALIGNMENT = 16


class TranslationCache:
    """The cache of one virtual machine."""

    def __init__(self, vm: "SoftwareVm", room: int) -> None:
        self.vm, self.room = vm, room
        self.used = 0
        self.starts: list[int] = []  # offsets of the units in it, dropped ones too, in order
        self.units: list[Unit] = []
        self.at: dict[tuple[int, Context], Unit] = {}  # where the guest's code enters a unit: (EIP, context)
        self.by_page: dict[int, list[Unit]] = {}  # linear page of the guest's
        self.by_frame: dict[int, list[Unit]] = {}  # guest frame
        self.index = Index()

    @property
    def next_address(self) -> int:
        """Where the next unit will begin."""
        return BASE + self.used

    def has_room(self, length: int) -> bool:
        """Whether a unit of so many bytes fits."""
        return self.used + length <= self.room

    def holds(self, address: int) -> bool:
        """Whether a linear address lies in the cache."""
        return BASE <= address < BASE + self.room

    def add(self, unit: Unit) -> None:
        """Write a unit that was made for `next_address`, and let its guest addresses find it."""
        self.write(unit)
        self.register(unit)

    def register(self, unit: Unit) -> None:
        """Let the guest addresses of a unit that stands in the cache find it, and its own address."""
        self.starts.append(unit.address - BASE)
        self.units.append(unit)
        for eip in unit.boundaries:
            self.at.setdefault((eip, unit.context), unit)
        for page in unit.pages if unit.guest else ():
            self.by_page.setdefault(page, []).append(unit)
        for frame in set(unit.frames):
            self.by_frame.setdefault(frame, []).append(unit)
        self.index.add(unit)

    def write(self, unit: Unit) -> None:
        """Write the bytes and notes of a unit."""
        self.vm.write_region(layout.CACHE_NOTES + self.used, unit.notes)
        self.vm.write_region(layout.CACHE + self.used, unit.octets)
        self.used += len(unit.octets) + -len(unit.octets) % ALIGNMENT

    def unit_at(self, address: int) -> Unit:
        """The unit that holds an address of the cache."""
        return self.units[bisect_right(self.starts, address - BASE) - 1]

    def site_before(self, address: int) -> tuple[Unit, Site]:
        """The callout whose return address is `address`."""
        unit = self.unit_at(address - 1)
        return unit, unit.sites[address - len(CALLOUT) - unit.address]

    def entry(self, eip: int, context: Context) -> tuple[Unit, int] | None:
        """The unit and address at which the guest's code at `eip` may be entered, None if it is not translated."""
        unit = self.at.get((eip, context))
        if unit is None:
            return None
        address = unit.boundary_of(eip)
        assert address is not None, "a unit is found by its boundaries alone"
        return unit, address

    # -- chains -------------------------------------------------------------------------------------------------------------

    def chain(self, unit: Unit, site: Site, target: Unit, address: int) -> None:
        """Let a callout jump to its target by itself from now on."""
        site.chained = address
        at = unit.address + site.offset
        self.patch(at, jump_octets(at, address))
        if site.branch is not None:
            self.patch(unit.address + site.branch, dword(address - (unit.address + site.branch + 4)))
        target.incoming.append((unit, site))

    def unchain(self, unit: Unit, site: Site) -> None:
        """Let a jump be a callout again."""
        site.chained = None
        self.patch(unit.address + site.offset, CALLOUT + FILLER)
        if site.branch is not None:
            self.patch(unit.address + site.branch, dword(site.offset - site.branch - 4))

    def patch(self, address: int, octets: bytes) -> None:
        """Change bytes of the cache, which the processor notices as any write to code."""
        self.vm.write_region(address - layout.VMM_BASE, octets)

    # -- dropping ---------------------------------------------------------------------------------------------------------

    def drop(self, unit: Unit) -> None:
        """Forget a unit: nothing enters it any more. Whoever drops it sees to the hash table."""
        unit.alive = False
        self.index.drop(unit)
        for source, site in unit.incoming:
            if source.alive and site.chained is not None:
                self.unchain(source, site)
        unit.incoming.clear()
        others = [other for page in sorted(unit.pages) for other in self.by_page[page] if other is not unit]
        for eip in unit.boundaries:
            if self.at[eip, unit.context] is unit:
                self.find_again(eip, unit.context, others)
        for table, keys in ((self.by_page, unit.pages), (self.by_frame, set(unit.frames))):
            for key in keys:
                table[key].remove(unit)
                if not table[key]:
                    del table[key]
        place = bisect_right(self.starts, unit.address - BASE) - 1
        del self.starts[place], self.units[place]

    def find_again(self, eip: int, context: Context, units: list[Unit]) -> None:
        """A guest address has lost its unit: of others that hold it, it finds the oldest."""
        del self.at[eip, context]
        holders = [unit for unit in units if eip in unit.boundaries and unit.context == context]
        if holders:
            self.at[eip, context] = min(holders, key=lambda unit: unit.address)

    def clear(self, kept: int) -> None:
        """Forget all units but the first `kept`, the common code."""
        for unit in self.units[kept:]:
            unit.alive = False
        last = self.units[kept - 1]
        self.used = self.starts[kept - 1] + len(last.octets) + -len(last.octets) % ALIGNMENT
        del self.units[kept:], self.starts[kept:]
        self.index.clear(self.used)
        self.forget()

    def forget(self) -> None:
        """No guest address finds a unit."""
        self.at.clear()
        self.by_page.clear()
        self.by_frame.clear()


assert len(CALLOUT) + len(FILLER) == JUMP_BYTES

"""The guest's code pages: fetched as its processor would fetch them, watched for what changes them.

A unit is as good as the bytes that it was made from. The frames that hold them are traced, so that a write to them is
seen; and when the guest's address space may have changed, each linear page with units is looked up anew.
"""

from typing import TYPE_CHECKING

from ..exits import GuestFault, NotDirect
from ..shadow.records import CODE
from .unit import Unit

if TYPE_CHECKING:
    from .translator import Translator

PAGE = 0x1000


class CodePages:
    """The pages of one virtual machine that hold translated code."""

    def __init__(self, translator: "Translator") -> None:
        self.translator, self.vm = translator, translator.vm
        self.found: dict[int, int] = {}  # linear page -> guest-physical page, of the unit that is being made
        self.unmarked: list[int] = []  # linear addresses of it whose pages its guest has not marked accessed
        self.written: set[tuple[int, int, int]] = set()  # since the guest last ran: guest frame, first and last byte
        self.vm.shadow.listeners[CODE] = self.note_write

    # -- fetching -----------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A unit is about to be made."""
        self.found, self.unmarked = {}, []

    def fetch(self, gla: int, count: int) -> bytes:
        """The guest's code at a linear address, each page walked once for a unit. Raises GuestFault, and NotDirect beyond RAM."""
        octets = b""
        while len(octets) < count:
            place = gla + len(octets) & 0xFFFFFFFF
            page = place & ~(PAGE - 1)
            if page not in self.found:
                translation = self.vm.guest.walk(place, False, self.vm.vcpu.cpl == 3, mark=False)
                self.found[page] = translation.gpa & ~(PAGE - 1)
                if not translation.accessed:
                    self.unmarked.append(place)
            room = min(count - len(octets), page + PAGE - place)
            address = self.vm.guest.machine_address(self.found[page] | place & PAGE - 1)
            if address is None:
                raise NotDirect  # an expansion ROM at its own address, or nothing at all
            octets += self.vm.processor.read_physical(address, room)
        return octets

    def peek(self, gla: int, count: int) -> bytes:
        """The guest's code at a linear address without any effect, as far as its tables map it."""
        octets = b""
        try:
            while len(octets) < count:
                place = gla + len(octets) & 0xFFFFFFFF
                gpa = self.vm.guest.walk(place, False, False, mark=False).gpa
                octets += self.vm.machine.read_guest(gpa, min(count - len(octets), PAGE - (place & PAGE - 1)))
                if gpa >> 12 >= len(self.vm.p2m):
                    break
        except GuestFault:
            pass
        return octets

    def frames(self) -> tuple[int, ...]:
        """The guest frames that the unit was made from: those of its linear pages, in their order."""
        return tuple(gpa >> 12 for gpa in self.found.values())

    def mark(self, unit: Unit) -> None:
        """The guest is about to execute a unit: its processor would mark the pages accessed as it fetches."""
        self.mark_accessed(unit.unmarked)
        unit.unmarked = []

    def mark_fetched(self) -> None:
        """The guest's next instruction faults as it is fetched, behind what could be fetched of it."""
        self.mark_accessed(self.unmarked)
        self.unmarked = []

    def mark_accessed(self, addresses: list[int]) -> None:
        """Mark the pages of linear addresses accessed."""
        for gla in addresses:
            self.vm.guest.walk(gla, False, self.vm.vcpu.cpl == 3)

    # -- writes ---------------------------------------------------------------------------------------------------------------

    def trace(self, unit: Unit) -> None:
        """Let writes to the frames of a unit be seen."""
        for frame in unit.frames:
            self.vm.shadow.trace(frame, CODE)

    def is_traced(self, frame: int) -> bool:
        """Whether a guest frame holds code that was translated."""
        return frame in self.translator.cache.by_frame

    def note_write(self, frame: int, first: int, count: int) -> None:
        """A frame that holds translated code, or held it, was written."""
        if self.is_traced(frame):
            self.written.add((frame, first, first + count - 1))
        else:
            self.vm.shadow.untrace(frame, CODE)

    def resynchronise(self) -> None:
        """Drop the units of written bytes that are no longer what they were made from."""
        written, self.written = sorted(self.written), set()
        for frame, first, last in written:
            units = [unit for unit in self.translator.cache.by_frame.get(frame, []) if unit.overlaps(first, last)]
            if units:
                self.translator.count("page_check")
                self.translator.drop([unit for unit in units if not self.is_current(unit)])

    def is_current(self, unit: Unit) -> bool:
        """Whether a unit's guest code is still what it was made from, and can be fetched without any effect."""
        octets = b""
        try:
            while len(octets) < len(unit.guest):
                gla = unit.gla + len(octets) & 0xFFFFFFFF
                translation = self.vm.guest.walk(gla, False, unit.context.cpl == 3, mark=False)
                address = self.vm.guest.machine_address(translation.gpa)
                if address is None or translation.gpa >> 12 not in unit.frames or not translation.accessed:
                    return False
                octets += self.vm.processor.read_physical(address, min(len(unit.guest) - len(octets), PAGE - (gla & PAGE - 1)))
        except GuestFault:
            return False
        return octets == unit.guest

    # -- address spaces -------------------------------------------------------------------------------------------------------

    def revalidate(self, gla: int | None = None) -> None:
        """The guest's tables may translate one page, or all, otherwise than before.

        The bytes of a frame with units are those that these were made from: writes to it are traced. Programs' units of
        other address spaces are looked at when their address space is entered.
        """
        by_page, root = self.translator.cache.by_page, self.vm.vcpu.cr3
        for page in [gla >> 12] if gla is not None else sorted(by_page):
            units = [unit for unit in by_page.get(page, ()) if unit.context.cpl == 0 or unit.context.root == root]
            if units:
                self.translator.count("page_check")
                frames = [self.frame_of(page, user) for user in (False, True)]
                self.translator.drop([unit for unit in units if unit.frame_of(page) != frames[unit.context.cpl == 3]])

    def frame_of(self, page: int, user: bool) -> int | None:
        """The guest frame in which a linear page lies now; None where its code could not be fetched without any effect."""
        try:
            translation = self.vm.guest.walk(page << 12, False, user, mark=False)
        except GuestFault:
            return None
        return translation.gpa >> 12 if translation.accessed else None

    def clear(self) -> None:
        """No frame holds translated code any more. Write permission comes back with the next fault."""
        self.written.clear()
        self.vm.shadow.untrace_all(CODE)

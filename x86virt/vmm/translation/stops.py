"""A debugger's breakpoints in translated code: where the guest has one instruction, the cache may have several, or none yet.

The debugger arms the guest's linear addresses. Behind these the table of stops gets every place in the cache at which a
guest instruction with a breakpoint begins, anew whenever units come or go. Nothing of this changes the guest's course.

An instruction that the guest reaches through the VMM is reached as the VMM lets the guest go on; one that it reaches within
the cache, where its translation begins. Between the end of one instruction and that place lie a few of the translator's.
"""

from typing import TYPE_CHECKING

from ...core.entries import arm_stops
from ...core.layout import DELIVERY_MET, MAX_PLACES, NOTE_RETIRES, STOP_ON_CODE
from .. import layout
from .emitter import M32

if TYPE_CHECKING:
    from .translator import Translator
    from .unit import Unit

FRAME_BYTES = 20


class TranslatedStops:
    """The breakpoints of one virtual machine's translator."""

    def __init__(self, translator: "Translator") -> None:
        self.translator = translator
        self.cpu = translator.vm.processor.cpu
        self.armed = 0  # stops of the debugger's own, the first of the table
        self.places: list[tuple[int, int]] = []  # behind them: address in the cache, number of the debugger's stop

    # -- the table --------------------------------------------------------------------------------------------------------

    def arm(self, count: int) -> None:
        """The debugger has armed so many stops."""
        self.armed, self.places = count, []
        self.follow()

    def follow(self) -> None:
        """Units may have come or gone. The run ends where the table has no room for all places."""
        if not self.armed:
            return
        places = self.found()
        if places == self.places:
            return
        if len(places) > MAX_PLACES:
            self.translator.vm.machine.stop(f"unsupported: breakpoints at more than {MAX_PLACES} places of translated code")
            del places[MAX_PLACES:]
        self.settle()
        self.places = places
        cpu = self.cpu
        cpu.stop_count = self.armed + len(places)
        for row, (address, _) in enumerate(places, self.armed):
            cpu.stops[row].kind, cpu.stops[row].first, cpu.stops[row].last = STOP_ON_CODE, address, address
        arm_stops(self.translator.vm.processor.state)

    def found(self) -> list[tuple[int, int]]:
        """All places in the cache of instructions that have a breakpoint."""
        places = []
        for number in range(self.armed):
            stop = self.cpu.stops[number]
            if stop.kind == STOP_ON_CODE:
                places += [(address, number) for address in self.addresses_of(int(stop.first))]
        return places

    def addresses_of(self, gla: int) -> list[int]:
        """Where the instruction at a linear address begins in the cache."""
        units = self.translator.cache.by_page.get(gla >> 12, [])
        found = (unit.boundary_of(gla - unit.context.segment_base & M32) for unit in units)
        return [address for address in found if address is not None]

    # -- what was met -----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let the number of the stop that was met last be that of the debugger's own."""
        number = int(self.cpu.stop_number)
        if self.armed < number < DELIVERY_MET:
            own = self.places[number - 1 - self.armed][1]
            self.cpu.stop_number, self.cpu.stop_address = own + 1, self.cpu.stops[own].first

    def passed(self) -> int:
        """The guest's linear address of the instruction that is no stop now, wherever in the cache it was begun."""
        address = int(self.cpu.stop_passed)
        linear = self.guest_linear(address)
        return address if linear is None else linear

    def remember_passed(self) -> None:
        """Units are about to go: the instruction that was passed is known by the guest's address from now on."""
        self.cpu.stop_passed = self.passed()

    # -- where the guest stands -------------------------------------------------------------------------------------------

    def beginning(self, gla: int) -> int:
        """The address at which the processor begins the instruction at which the guest stands."""
        place = self.place()
        return gla if place is None or self.guest_linear(place) != gla else place

    def place(self) -> int | None:
        """Where in the cache the processor stands, or where it is about to enter it; None outside."""
        translator, memory = self.translator, self.translator.vm.processor
        if not translator.inside:
            return None
        address = int(self.cpu.rip)
        if not translator.cache.holds(address):
            return int.from_bytes(memory.read_physical(layout.STACK_TOP - FRAME_BYTES, 4), "little")
        unit = translator.cache.unit_at(address)
        returning = unit.recovery_at(address - unit.address).returning
        return int(translator.record["jump"]) if returning else address

    def is_yet_to_begin(self, gla: int) -> bool:
        """Whether the guest has completed the instruction before the one at which it stands, and the processor has not come
        to this one's translation yet, nor has the VMM let the guest go on at it."""
        translator = self.translator
        address = int(self.cpu.rip)
        if not translator.inside or not translator.cache.holds(address):
            return False
        unit = translator.cache.unit_at(address)
        recovery = unit.recovery_at(address - unit.address)
        if recovery.returning:
            return False
        if recovery.called:
            address = int(translator.record["site"])
            unit = translator.cache.unit_at(address)
        return not self.is_within(unit, address - unit.address, gla)

    @staticmethod
    def is_within(unit: "Unit", offset: int, gla: int) -> bool:
        """Whether a place lies in the translation of an instruction, before that completes."""
        begin = unit.boundaries.get(gla - unit.context.segment_base & M32)
        if begin is None or not begin <= offset or any(begin < other <= offset for other in unit.boundaries.values()):
            return False
        return not any(note & NOTE_RETIRES for note in unit.notes[begin:offset])

    def guest_linear(self, address: int) -> int | None:
        """The linear address of the guest instruction that begins at an address of the cache, None for no such place."""
        cache = self.translator.cache
        if not cache.holds(address):
            return None
        unit = cache.unit_at(address)
        for eip, offset in unit.boundaries.items():
            if unit.address + offset == address:
                return unit.context.segment_base + eip & M32
        return None

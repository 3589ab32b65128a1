"""A translation unit: up to a dozen guest instructions, ended by control flow, the page, or what changes the mode.

The scan decodes with the processor's own decoder, at the address where the guest is about to execute; what the guest's
processor would not find in one fetch (the next page) is left to the unit that begins there.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...core.decode import DECODED_OK, TOO_LONG, TRUNCATED
from ...core.entries import decode_bytes
from ...core.layout import MAX_INSTRUCTION
from ...isa.vectors import GP
from ..exits import GuestFault, NotDirect
from ..instruction import Instruction, from_record
from .emitter import M32, Emitter, Site
from .recovery import Recovery
from .sequences import Choices, Context, Writer

if TYPE_CHECKING:
    from ..vm import SoftwareVm

UNIT_INSTRUCTIONS = 12
PAGE = 0x1000
UNDEFINED = b"\x0f\x0b"  # UD2
Fetch = Callable[[int, int], bytes]  # (linear address, bytes) -> the guest's code there


@dataclass
class Unit:
    """Guest code and its translation. `places` maps offsets in the cache's bytes to recoveries, both in order."""

    eip: int
    context: Context
    address: int  # linear, in the cache
    guest: bytes = b""
    octets: bytes = b""
    notes: bytes = b""
    offsets: list[int] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    sites: dict[int, Site] = field(default_factory=dict)  # by offset
    boundaries: dict[int, int] = field(default_factory=dict)  # guest EIP -> offset at which it may be entered
    instructions: int = 0
    frames: tuple[int, ...] = ()  # guest frames that hold the code, by linear page
    unmarked: list[int] = field(default_factory=list)  # linear addresses whose pages are not marked accessed yet
    incoming: list[tuple["Unit", Site]] = field(default_factory=list)  # jumps that were chained to it
    alive: bool = True

    @property
    def gla(self) -> int:
        """The linear address of the first guest instruction."""
        return self.context.segment_base + self.eip & M32

    @property
    def pages(self) -> set[int]:
        """The linear pages of the guest's that hold its code."""
        return {self.gla >> 12, (self.gla + max(len(self.guest), 1) - 1 & M32) >> 12}

    def holds(self, gla: int) -> bool:
        """Whether the guest's instruction at a linear address is one of its own."""
        return gla - self.context.segment_base & M32 in self.boundaries

    def overlaps(self, first: int, last: int) -> bool:
        """Whether some of its code may lie in these bytes of one of its pages."""
        start = self.gla & PAGE - 1
        end = start + max(len(self.guest), 1) - 1
        return end >= PAGE or (start <= last and end >= first)

    def frame_of(self, page: int) -> int:
        """The guest frame in which one of these pages lay when the unit was made."""
        return self.frames[0 if page == self.gla >> 12 else -1]

    def recovery_at(self, offset: int) -> Recovery:
        """The guest's state in front of the instruction at an offset."""
        return self.recoveries[bisect_right(self.offsets, offset) - 1]

    def eip_at(self, offset: int) -> int:
        """The guest instruction to whose translation an offset belongs."""
        return max(self.boundaries.items(), key=lambda row: (row[1] <= offset, row[1]))[0]

    def boundary_of(self, eip: int) -> int | None:
        """The address at which the guest instruction at `eip` may be entered."""
        offset = self.boundaries.get(eip)
        return None if offset is None else self.address + offset


class Scan:
    """Makes one unit from the guest's code."""

    def __init__(self, vm: "SoftwareVm", context: Context, choices: Choices, fetch: Fetch) -> None:
        self.vm, self.context, self.choices, self.fetch = vm, context, choices, fetch

    def unit(self, eip: int, address: int) -> Unit:
        """Translate from `eip` on, for a place in the cache.

        Raises GuestFault for what faults before it executes, NotDirect where no translation can be made.
        """
        emitter = Emitter(address, eip)
        writer = Writer(emitter, self.context, self.choices)
        unit = Unit(eip, self.context, address)
        adaptation = self.vm.translator.adaptation
        at, goes_on = eip, True
        most = 1 if self.context.single else UNIT_INSTRUCTIONS
        while goes_on and (unit.instructions < most or (emitter.now.held and not self.context.single)):
            emitter.now = Recovery(at, held=emitter.now.held or self.context.single)
            if unit.instructions and self.context.segment_base + at >> 12 not in unit.pages:
                break  # the guest has not fetched from that page yet, and may never do
            try:
                octets, instruction = self.decode(at, unit.instructions == 0)
            except (GuestFault, NotDirect):
                if unit.instructions == 0:
                    raise
                break
            unit.boundaries[at] = len(emitter.octets)
            unit.instructions += 1
            unit.guest += octets
            if instruction is None:
                emitter.put(UNDEFINED)
                goes_on = False
                break
            goes_on = writer.write(instruction, at, adaptation.holds(self.context.segment_base + at & M32))
            at = writer.next_eip
        if goes_on:
            writer.chain(at)
        return self.finished(unit, emitter)

    def finished(self, unit: Unit, emitter: Emitter) -> Unit:
        """Take over what the emitter has written."""
        unit.octets, unit.notes = bytes(emitter.octets), bytes(emitter.notes)
        unit.offsets, unit.recoveries = emitter.offsets, emitter.recoveries
        unit.sites = {site.offset: site for site in emitter.sites}
        return unit

    def decode(self, eip: int, first: bool) -> tuple[bytes, Instruction | None]:
        """The bytes of the instruction at `eip` and its fields, None for what is no instruction.

        Raises GuestFault for a fetch that faults, or where only the first instruction of a unit may look further.
        """
        if eip > self.context.limit:
            raise GuestFault(GP, 0)
        gla = self.context.segment_base + eip & M32
        room = PAGE - (gla & PAGE - 1)
        octets = self.fetch(gla, min(room, MAX_INSTRUCTION))
        why = self.decode_octets(octets, eip)
        if why == TRUNCATED:
            if not first or eip + room > self.context.limit:
                raise GuestFault(GP, 0)
            octets = self.fetch(gla, MAX_INSTRUCTION)
            why = self.decode_octets(octets, eip)
        if why == TOO_LONG:
            raise GuestFault(GP, 0)
        if why != DECODED_OK:
            return octets, None
        instruction = from_record(self.vm.processor.code.decoded[0], octets)
        if eip + instruction.length - 1 > self.context.limit:
            raise GuestFault(GP, 0)
        return instruction.octets, instruction

    def decode_octets(self, octets: bytes, eip: int) -> int:
        """Let the processor's decoder look at bytes: why it stopped."""
        decoded = self.vm.processor.code.decoded[0]
        decoded.window[: len(octets)] = list(octets)
        decoded.available = len(octets)
        decoded.rip = eip
        decoded.code_16 = 0
        return int(decode_bytes(self.vm.processor.codes))

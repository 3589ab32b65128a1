"""Translated code beside the guest's: each instruction of the translation cache, and the guest's that it stands for.

The text is Capstone's, of the bytes as they lie in the cache now; what the VMM keeps behind the prefix `gs:` is named.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.layout import NOTE_RETIRES
from ..disassembly import decode_text
from ..vmm import layout
from ..vmm.translation.emitter import FILLER
from ..vmm.translation.record import ADDRESS as RECORD_ADDRESS
from ..vmm.translation.record import RECORD
from ..vmm.translation.sequences import FLAG_INTERRUPTS, FLAG_KINDS

if TYPE_CHECKING:
    from ..machine import Machine
    from ..vmm.translation.emitter import Site
    from ..vmm.translation.unit import Unit

M32 = 0xFFFFFFFF
LONGEST_INSTRUCTION = 15
# What an instruction of the cache is.
IDENTICAL = "identical"  # the guest's own bytes
INJECTED = "injected"  # the translator's
CALLOUT = "callout"  # calls the VMM
CHAINED = "chained"  # a callout that became a jump to another unit
ROOM = "room"  # what stands behind a callout, so that a jump can replace both
SHARED = "shared"  # of the code that all units share
DISPLACEMENT = re.compile(r"(?P<segment>[cg]s:\[)(?P<registers>[^\]]*?)(?P<sign>[+-] )?(?P<number>0x[0-9a-f]{5,8})\]")


@dataclass(frozen=True)
class GuestInstruction:
    """An instruction of the guest that was translated: EIP, linear address, bytes, text."""

    eip: int
    gla: int
    octets: bytes
    text: str

    def as_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"eip": self.eip, "address": self.gla, "bytes": self.octets.hex(), "text": self.text}


@dataclass(frozen=True)
class Translated:
    """An instruction of the cache. `guest` is None in the code that all units share.

    `begins`: the guest's instruction is entered here. `completes`: it retires with this one. `kind` is a callout's, and
    `target` the guest's EIP to which a callout or jump leads, where that is a constant.
    """

    address: int
    octets: bytes
    text: str
    part: str
    guest: GuestInstruction | None = None
    begins: bool = False
    completes: bool = False
    kind: str = ""
    target: int | None = None

    @property
    def role(self) -> str:
        """What it is, in words: `injected, completes`, `callout sensitive_instruction`, `chained, to 00101000`."""
        words = [f"{self.part} {self.kind}".rstrip()]
        if self.completes and self.part != IDENTICAL:
            words.append("completes")
        if self.target is not None:
            words.append(f"to {self.target:08x}")
        return ", ".join(words)

    def as_json(self) -> dict[str, Any]:
        """As JSON has it, without its own address, bytes and text."""
        row: dict[str, Any] = {"part": self.part, "begins": self.begins, "completes": self.completes}
        row |= {"callout": self.kind} if self.kind else {}
        row |= {"target": self.target} if self.target is not None else {}
        return row | {"guest": None if self.guest is None else self.guest.as_json()}


class TranslatedCode:
    """The translation cache of a machine, read without any effect."""

    def __init__(self, machine: "Machine") -> None:
        self.processor = machine.processor
        self.translation = machine.translation

    def units(self) -> list["Unit"]:
        """The units that hold code of the guest's, in the order of the cache."""
        return [] if self.translation is None else [unit for unit in self.translation.cache.units if unit.guest]

    def units_of(self, gla: int) -> list["Unit"]:
        """The units made from the guest's code at a linear address; one that begins there comes first."""
        found = [unit for unit in self.units() if gla in (one.gla for one in guest_code(unit))]
        return sorted(found, key=lambda unit: unit.gla != gla)

    def unit_at(self, address: int) -> "Unit | None":
        """The unit that holds an address of the cache."""
        if self.translation is None or not self.translation.cache.holds(address):
            return None
        unit = self.translation.cache.unit_at(address)
        return unit if address < unit.address + len(unit.octets) else None

    def at(self, address: int) -> Translated | None:
        """The instruction at a linear address, None where no translated code lies."""
        unit = self.unit_at(address)
        return None if unit is None else self.instruction(unit, address - unit.address)

    def lines_of(self, unit: "Unit") -> Iterator[Translated]:
        """All instructions of a unit."""
        offset = 0
        while offset < len(unit.octets):
            one = self.instruction(unit, offset)
            yield one
            offset += len(one.octets)

    def instruction(self, unit: "Unit", offset: int) -> Translated:
        """The instruction at an offset of a unit."""
        address = unit.address + offset
        octets = self.processor.read_physical(address - layout.VMM_BASE, min(LONGEST_INSTRUCTION, len(unit.octets) - offset))
        length, text = decode_text(octets, address)
        octets = octets[:length]
        guest = guest_instruction(unit, offset)
        part = part_of(unit, offset, octets, guest)
        site = unit.sites.get(offset) or site_of_branch(unit, offset, length)
        return Translated(
            address,
            octets,
            text if part == IDENTICAL else with_names(text),
            part,
            guest,
            begins=offset in unit.boundaries.values(),
            completes=bool(unit.notes[offset] & NOTE_RETIRES),
            kind=site.kind if site is not None and part == CALLOUT else "",
            target=None if site is None else site.target,
        )


def guest_code(unit: "Unit") -> list[GuestInstruction]:
    """The guest's instructions that a unit was made from."""
    eips = list(unit.boundaries)
    ends = [eip - unit.eip & M32 for eip in eips[1:]] + [len(unit.guest)]
    rows = []
    for eip, end in zip(eips, ends, strict=True):
        first = eip - unit.eip & M32
        length, text = decode_text(unit.guest[first:end], eip)
        rows.append(GuestInstruction(eip, unit.gla + first & M32, unit.guest[first : first + length], text))
    return rows


def guest_instruction(unit: "Unit", offset: int) -> GuestInstruction | None:
    """The guest's instruction whose translation holds an offset of a unit."""
    place = bisect_right(list(unit.boundaries.values()), offset) - 1
    return guest_code(unit)[place] if place >= 0 else None


def part_of(unit: "Unit", offset: int, octets: bytes, guest: GuestInstruction | None) -> str:
    """What the instruction at an offset is."""
    site = unit.sites.get(offset)
    if site is not None:
        return CALLOUT if site.chained is None else CHAINED
    if guest is None:
        return SHARED
    if octets == FILLER and any(at < offset <= at + LONGEST_INSTRUCTION for at in unit.sites):
        return ROOM
    return IDENTICAL if octets == guest.octets and unit.notes[offset] & NOTE_RETIRES else INJECTED


def site_of_branch(unit: "Unit", offset: int, length: int) -> "Site | None":
    """The callout to which a conditional jump goes when it is taken."""
    return next(
        (site for site in unit.sites.values() if site.branch is not None and offset <= site.branch < offset + length), None
    )


# -- names of the VMM's data -----------------------------------------------------------------------------------------


def data_names() -> dict[int, str]:
    """Linear addresses that translated code uses, by the names of what lies there."""
    tables = {"hash": layout.VMM_BASE + layout.HASH, "outer_hash": layout.VMM_BASE + layout.OUTER_HASH}
    names = {place + part: name + (" + 4" if part else "") for name, place in tables.items() for part in (0, 4)}
    names |= {FLAG_KINDS: "flag_kinds", FLAG_INTERRUPTS: "flag_interrupts"}
    for first, record in ((RECORD_ADDRESS, RECORD), (layout.VMM_BASE + layout.VCPU_RECORD, layout.VCPU)):
        assert record.fields is not None
        for name, field in record.fields.items():
            size = field[0].base.itemsize
            for number in range(field[0].itemsize // size):
                index = f"[{number}]" if field[0].shape else ""
                names[first + field[1] + number * size] = name + index
    return names


DATA_NAMES = data_names()


def with_names(text: str) -> str:
    """An injected instruction with the names of the VMM's data in place of their addresses."""

    def name_for(found: re.Match[str]) -> str:
        number = int(found["number"], 16)
        name = DATA_NAMES.get(-number & M32 if found["sign"] == "- " else number)
        plus = "+ " if found["sign"] else ""
        return found[0] if name is None else f"{found['segment']}{found['registers']}{plus}{name}]"

    return DISPLACEMENT.sub(name_for, text)

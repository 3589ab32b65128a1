"""A translation unit beside its guest code, and the translation cache as a whole, as lines of text and as data."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..isa.events import EVENTS
from ..symbols import Symbols
from ..vmm.translation import common
from .translated import CALLOUT, CHAINED, IDENTICAL, INJECTED, ROOM, Translated, TranslatedCode, guest_code

if TYPE_CHECKING:
    from ..machine import Machine
    from ..vmm.translation.unit import Unit

JUMP_REL32, JUMP_BYTES = 0xE9, 5
LOOK_UP = "the look-up"
MARKS = {IDENTICAL: "=", INJECTED: "+", CALLOUT: "!", CHAINED: ">", ROOM: " "}
LEGEND = "= the guest's own bytes   + injected   ! callout to the VMM   > chained jump   * the guest's instruction completes"
LEAST_GUEST_WIDTH, MOST_GUEST_WIDTH = 24, 46
MOST_TEXT_WIDTH = 48
NOT_TRANSLATED = "nothing is translated: the technique has no translation cache"


class UnitText:
    """Makes the lines and data of units of one machine."""

    def __init__(self, code: TranslatedCode, symbols: Symbols) -> None:
        self.code, self.symbols = code, symbols

    # -- one unit -----------------------------------------------------------------------------------------------------

    def lines(self, unit: "Unit") -> list[str]:
        """A unit in two columns, with its figures above and what leads out of it below."""
        translated = list(self.code.lines_of(unit))
        return [*self.head(unit, translated), "", *self.columns(unit, translated), "", LEGEND]

    def head(self, unit: "Unit", translated: list[Translated]) -> list[str]:
        """Where a unit stands, what it grew to, and how control leaves it and comes to it."""
        context = unit.context
        special = [
            *(["one instruction at a time"] if context.single else []),
            *(["TF set"] if context.trap_flag else []),
            *(["16-bit stack"] if context.narrow_stack else []),
        ]
        mode = ", ".join([f"cs {context.selector:04x}", f"iopl {context.iopl}", *special])
        growth = len(unit.octets) / len(unit.guest)
        return [
            f"guest code at {self.where(unit.gla)}: {counted(unit.instructions, 'instruction')}, "
            f"{counted(len(unit.guest), 'byte')} ({mode})",
            f"in the cache at {unit.address:08x}: {counted(len(translated), 'instruction')}, "
            f"{counted(len(unit.octets), 'byte')}, {growth:.2f} times as many",
            f"leaves by: {self.ways_out(translated)}",
            f"comes from: {counted(len(unit.incoming), 'chained jump')} of other units, the look-up, or the VMM",
        ]

    def ways_out(self, translated: list[Translated]) -> str:
        """Chained jumps, the look-up, and callouts by kind."""
        kinds: Counter[str] = Counter()
        for one in translated:
            if one.part == CHAINED:
                kinds["chained jump"] += 1
            elif one.part == CALLOUT:
                kinds[f"callout {one.kind}"] += 1
            elif self.shared_target(one) == LOOK_UP:
                kinds["look-up"] += 1
        return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())

    def columns(self, unit: "Unit", translated: list[Translated]) -> Iterator[str]:
        """The guest's code on the left; on the right what stands for it in the cache."""
        texts = [f"{one.eip:08x} {one.text}" for one in guest_code(unit)]
        left = min(max(LEAST_GUEST_WIDTH, *map(len, texts)), MOST_GUEST_WIDTH)
        right = min(max(len(one.text) for one in translated), MOST_TEXT_WIDTH)
        yield f"{'guest code':<{left}}  translated code"
        for one in translated:
            beside = f"{one.guest.eip:08x} {one.guest.text}" if one.begins and one.guest is not None else ""
            marks = MARKS.get(one.part, " ") + ("*" if one.completes else " ")
            yield f"{beside:<{left}}  {one.address:08x} {marks} {one.text:<{right}}  {self.note(one)}".rstrip()

    def note(self, one: Translated) -> str:
        """Why it calls, and where it leads."""
        to = "" if one.target is None else self.where(one.target)
        if one.part == CALLOUT:
            return f"{one.kind} to {to}" if to else one.kind
        if one.part == CHAINED:
            return f"chained to {to}"
        if one.part == ROOM:
            return "room for a jump"
        shared = self.shared_target(one)
        if shared:
            return f"to {shared}"
        return f"taken: to {to}" if to else ""

    def shared_target(self, one: Translated) -> str:
        """The code that all units share to which a jump goes, empty if it goes elsewhere."""
        if one.part != INJECTED or one.octets[0] != JUMP_REL32 or len(one.octets) != JUMP_BYTES:
            return ""
        unit = self.code.unit_at(one.address + JUMP_BYTES + int.from_bytes(one.octets[1:], "little", signed=True))
        if unit is None or unit.guest or self.code.translation is None:
            return ""
        units = self.code.translation.cache.units
        look_ups = units[common.LOOK_UP], units[common.OUTER_LOOK_UP]
        return LOOK_UP if any(unit is other for other in look_ups) else "the shared callout"

    def where(self, address: int) -> str:
        """An address of the guest's and its symbol."""
        return f"{address:08x} {self.symbols.text(address)}".rstrip()

    def unit_json(self, unit: "Unit") -> dict[str, Any]:
        """A unit for programs: each instruction of the guest with those of the cache that stand for it."""
        rows = [one.as_json() | {"translated": []} for one in guest_code(unit)]
        by_eip = {row["eip"]: row["translated"] for row in rows}
        for one in self.code.lines_of(unit):
            if one.guest is not None:
                row = one.as_json()
                del row["guest"]
                by_eip[one.guest.eip].append({"address": one.address, "bytes": one.octets.hex(), "text": one.text, **row})
        return {**self.summary_json(unit), "instructions": rows}

    def summary_json(self, unit: "Unit") -> dict[str, Any]:
        """A unit's figures."""
        context = unit.context
        return {
            "eip": unit.eip,
            "symbol": self.symbols.text(unit.gla) or None,
            "address": unit.address,
            "cs": context.selector,
            "iopl": context.iopl,
            "single": context.single,
            "guest_instructions": unit.instructions,
            "guest_bytes": len(unit.guest),
            "bytes": len(unit.octets),
            "chained_from": len(unit.incoming),
            "callouts": dict(Counter(site.kind for site in unit.sites.values() if site.chained is None)),
            "chained_to": [site.target for site in unit.sites.values() if site.chained is not None],
        }

    # -- all units ----------------------------------------------------------------------------------------------------

    def table(self) -> Iterator[str]:
        """All units, in the order of the guest's addresses."""
        yield f"{'guest code':<34} {'instr.':>6} {'bytes':>6} {'cache':>9} {'bytes':>6} {'growth':>6}  leaves by"
        for unit in sorted(self.code.units(), key=lambda unit: (unit.gla, unit.address)):
            growth = len(unit.octets) / len(unit.guest)
            yield (
                f"{self.where(unit.gla):<34.34} {unit.instructions:>6} {len(unit.guest):>6}  {unit.address:08x} "
                f"{len(unit.octets):>6} {growth:>6.2f}  {self.ways_out(list(self.code.lines_of(unit)))}"
            ).rstrip()


def counted(number: int, what: str) -> str:
    """A number and what it counts."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def occupancy_lines(machine: "Machine") -> list[str]:
    """How full the translation cache is, what its units grew to, and what the translator has done so far."""
    translation = machine.translation
    if translation is None:
        return [NOT_TRANSLATED]
    cache, units = translation.cache, TranslatedCode(machine).units()
    guest, own = sum(len(unit.guest) for unit in units), sum(len(unit.octets) for unit in units)
    chained = sum(site.chained is not None for unit in units for site in unit.sites.values())
    growth = f", {own / guest:.2f} times the guest's" if guest else ""
    rows = [
        f"translation cache: {cache.used:,} of {cache.room:,} bytes used ({100 * cache.used / cache.room:.1f} %)",
        f"{counted(len(units), 'unit')} of {counted(guest, 'byte')} of guest code: {counted(own, 'byte')}{growth}",
        f"{counted(chained, 'chained jump')}; the hash table holds {counted(len(translation.hash.entered), 'guest place')}",
    ]
    ledger = machine.ledger()
    return rows + [
        f"  {event.name:<28}{ledger.event_count(event.name):>12,}" for event in EVENTS if event.domain == "translator"
    ]


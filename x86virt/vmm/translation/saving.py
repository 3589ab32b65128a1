"""The translator's part of a saved machine, as plain values and back.

The bytes of the cache, its notes, the hash table and the record are in machine RAM and are saved with it. Units are not
saved but made again from the guest bytes that they were made from, at the same place, which gives the same.
"""

from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from ...core.layout import SEGMENT
from ...isa.vectors import PF
from ..exits import GuestFault
from .hash_table import HashTable
from .sequences import Context
from .unit import Scan, Unit

if TYPE_CHECKING:
    from .translator import Translator

SAVED = {
    "serving", "direct", "own_gs", "ring", "cs", "trap_flag", "inside", "gs", "passed", "entered", "iopl", "cache", "hash",
    "outer_hash", "pages", "adaptation", "accounts",
}  # fmt: skip
MADE = {
    "vm", "chaining", "inline_emulation", "direct_callouts", "translate_user", "record", "site", "overlay", "context_entered",
    "stops", "step_owed",
}  # fmt: skip


def translator_state(translator: "Translator") -> dict[str, Any]:
    """All of it."""
    cache = translator.cache
    return {
        "cs": translator.cs,
        "trap_flag": int(translator.trap_flag),
        "inside": int(translator.inside),
        "serving": int(translator.serving),
        "direct": int(translator.direct),
        "gs": [int(translator.gs[name]) for name in SEGMENT.names or ()],
        "own_gs": [int(translator.own_gs[name]) for name in SEGMENT.names or ()],
        "entered": None if translator.entered is None else translator.entered.address,
        "passed": None if translator.passed is None else list(translator.passed),
        "iopl": translator.iopl,
        "used": cache.used,
        "units": [unit_state(unit) for unit in cache.units if unit.alive and unit.guest],
        "ring": translator.ring,
        "hash": hash_state(translator.hash),
        "outer_hash": hash_state(translator.outer_hash),
        "written": sorted(map(list, translator.pages.written)),
        "adaptation": translator.adaptation.state(),
        "program_since": translator.accounts.since,
    }


def hash_state(table: HashTable) -> list[Any]:
    """Of which context a hash table holds addresses, and which."""
    context = None if table.context is None else [int(value) for value in astuple(table.context)]
    return [context, sorted([place, eip] for place, eip in table.entered.items())]


def unit_state(unit: Unit) -> list[Any]:
    """What a unit is made of, and which of its jumps go where."""
    chained = [[site.offset, site.chained] for site in unit.sites.values() if site.chained is not None]
    context = [int(value) for value in astuple(unit.context)]
    return [unit.eip, context, unit.address, unit.guest.hex(), list(unit.frames), unit.unmarked, chained]


def restore_translator(translator: "Translator", state: dict[str, Any]) -> None:
    """Put it back. Raises KeyError, TypeError or ValueError for anything that `translator_state` does not give."""
    translator.cs = word(state["cs"])
    translator.trap_flag, translator.inside = bool(word(state["trap_flag"])), bool(word(state["inside"]))
    translator.serving, translator.direct = bool(word(state["serving"])), bool(word(state["direct"]))
    translator.ring = word(state["ring"])
    for cache_of, values in ((translator.gs, state["gs"]), (translator.own_gs, state["own_gs"])):
        for name, value in zip(SEGMENT.names or (), values, strict=True):
            cache_of[name] = value
    passed = state["passed"]
    translator.passed = None if passed is None else (int(passed[0]), word(passed[1]), word(passed[2]))
    translator.iopl = int(state["iopl"])
    since = state["program_since"]
    accounts = translator.accounts
    accounts.since = None if since is None else ticks_of(since, accounts.program_ticks())
    cache = translator.cache
    if cache.units:
        cache.clear(translator.COMMON)
    else:
        translator.lay_common_code()
    translator.grant()
    translator.adaptation.restore(state["adaptation"])
    for row in state["units"]:
        cache.register(remade(translator, row))
    for unit in cache.units:
        restore_chains(translator, unit)
    cache.used = word(state["used"])
    entered = state["entered"]
    translator.entered = None if entered is None else cache.unit_at(word(entered))
    for name in ("hash", "outer_hash"):
        context, entered = state[name]
        table: HashTable = getattr(translator, name)
        table.context = None if context is None else context_of(context)
        table.entered = {word(place): word(eip) for place, eip in entered}
    translator.stops.follow()
    translator.pages.written = {(word(frame), word(first), word(last)) for frame, first, last in state["written"]}


def remade(translator: "Translator", row: list[Any]) -> Unit:
    """A unit from its guest bytes."""
    eip, context, address, guest, frames, unmarked, chained = row
    octets = bytes.fromhex(guest)
    known = context_of(context)
    first = known.segment_base + word(eip) & 0xFFFFFFFF

    def fetch(gla: int, count: int) -> bytes:
        """The bytes that the unit was made from; what lies behind them was not part of it."""
        place = gla - first & 0xFFFFFFFF
        if place >= len(octets):
            raise GuestFault(PF)
        return octets[place : place + count]

    if not octets or not translator.cache.holds(word(address)):
        raise ValueError("a unit without code or place")
    try:
        unit = Scan(translator.vm, known, translator.choices, fetch).unit(word(eip), address)
    except GuestFault as fault:
        raise ValueError("a unit that cannot be made") from fault
    unit.frames = tuple(word(frame) for frame in frames)
    if len(unit.frames) != len(unit.pages) or any(frame >= len(translator.vm.p2m) for frame in unit.frames):
        raise ValueError("a unit of other frames than it lies in")
    unit.unmarked = [word(gla) for gla in unmarked]
    for offset, target in chained:
        unit.sites[offset].chained = word(target)
    return unit


def restore_chains(translator: "Translator", unit: Unit) -> None:
    """Let the units to which a unit's jumps go know it."""
    for site in unit.sites.values():
        if site.chained is not None:
            translator.cache.unit_at(site.chained).incoming.append((unit, site))


def context_of(values: list[int]) -> Context:
    """A context from its numbers."""
    selector, segment_base, limit, iopl, narrow_stack, single, trap_flag, cpl, root = map(word, values)
    return Context(selector, segment_base, limit, iopl, bool(narrow_stack), bool(single), bool(trap_flag), cpl, root)


def ticks_of(value: Any, most: int) -> int:
    """A number of ticks that have passed."""
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{value!r:.40} is no number of ticks up to {most}")
    return value


def word(value: Any) -> int:
    """An integer of 32 bits."""
    if not isinstance(value, int) or not 0 <= value <= 0xFFFFFFFF:
        raise ValueError(f"{value!r:.40} is no word")
    return value


"""What binary translation has made of a guest's code: the guest runs, and its units are shown as they then stand."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UserError, near_matches, show
from ..inspection import TranslatedCode
from ..inspection.unit_text import UnitText, occupancy_lines
from ..symbols import Symbols
from .page import Explanation, Section

if TYPE_CHECKING:
    from ..machine import Machine
    from ..vmm.translation.unit import Unit

FIRST_SLICE, LARGEST_SLICE = 500, 1_000_000  # guest instructions between looks at the cache
LAST = 1 << 62  # more instructions than any run
HEXADECIMAL = r"(0[xX])?[0-9a-fA-F]{1,8}"


@dataclass(frozen=True)
class Seen:
    """The sections that show units, as data too, and after how many guest instructions they stood so."""

    sections: list[Section]
    units: list[dict[str, Any]]
    retired: int


def split_place(text: str) -> tuple[str, str]:
    """`GUEST:PLACE` in its two parts; the second is empty if it is not said."""
    guest, _, place = text.partition(":")
    return guest, place


def guest_place(text: str, symbols: Symbols) -> int:
    """A symbol's address, or a hexadecimal number. Raises UserError."""
    if text in symbols.addresses:
        return symbols.addresses[text]
    if re.fullmatch(HEXADECIMAL, text):
        return int(text, 16)
    advice = "give a symbol or a hexadecimal address" + near_matches(text, symbols.addresses)
    raise UserError(f"explain unit {show(text)}", "no such place in the guest", advice)


def explain_units(machine: "Machine", guest: str, symbols: Symbols, place: str, instructions: int | None) -> Explanation:
    """The units of a loaded machine's guest: that at a place, or a table of all. Raises UserError.

    The guest runs for so many instructions, or to its end. A unit may be gone by then; what was seen of it last is shown.
    """
    if machine.vm is None or machine.vm.translation is None:
        raise UserError(f"--strategy {machine.strategy.name}", "does not translate", "give binary-translation")
    if not place:
        machine.advance(LAST if instructions is None else instructions, machine.usual_cycles)
        return all_units(machine, guest, symbols)
    address = guest_place(place, symbols)
    return one_place(machine, guest, symbols, address, instructions)


def all_units(machine: "Machine", guest: str, symbols: Symbols) -> Explanation:
    """The table of all units, and the cache's figures."""
    code = TranslatedCode(machine)
    text = UnitText(code, symbols)
    cache, table = Section(""), Section("")
    cache.verbatim = occupancy_lines(machine)
    table.verbatim = list(text.table())
    retired = int(machine.processor.cpu.retired)
    units = [text.summary_json(unit) for unit in code.units()]
    data = facts(machine, guest, retired) | {"units": units}
    return Explanation("units", guest, f"translated by {machine.strategy.name}, {after(retired)}", [cache, table], data)


def one_place(machine: "Machine", guest: str, symbols: Symbols, address: int, instructions: int | None) -> Explanation:
    """The unit at an address. Raises UserError if none was ever seen there."""
    seen = watch(machine, symbols, address, LAST if instructions is None else instructions)
    name = f"{address:08x} {symbols.text(address)}".rstrip()
    if seen is None:
        advice = f"`x86virt explain unit {guest}` lists the units; programs are translated with translate_user=on"
        raise UserError(f"explain unit {guest}:{name}", "no unit of this code was seen", advice)
    data = facts(machine, guest, seen.retired) | {"place": address, "units": seen.units}
    title = f"of {guest}, translated by {machine.strategy.name}, {after(seen.retired)}"
    return Explanation("unit", name, title, seen.sections, data)


def watch(machine: "Machine", symbols: Symbols, address: int, instructions: int) -> Seen | None:
    """Run a machine, and look ever and again: the units at an address as they stood the last time there were any."""
    code = TranslatedCode(machine)
    text = UnitText(code, symbols)
    seen: Seen | None = None
    length, going = FIRST_SLICE, True
    while going and machine.processor.cpu.retired < instructions:
        going = machine.advance(min(instructions, int(machine.processor.cpu.retired) + length), machine.usual_cycles)
        length = min(2 * length, LARGEST_SLICE)
        found = code.units_of(address)
        if found:
            seen = see(text, found, int(machine.processor.cpu.retired))
    return seen


def see(text: UnitText, units: "list[Unit]", retired: int) -> Seen:
    """Units as they stand now."""
    sections = []
    for unit in units:
        section = Section("")
        section.verbatim = text.lines(unit)
        sections.append(section)
    return Seen(sections, [text.unit_json(unit) for unit in units], retired)


def after(retired: int) -> str:
    """When."""
    return f"as it stood after {retired:,} guest instructions"


def facts(machine: "Machine", guest: str, retired: int) -> dict[str, Any]:
    """What the run was, for programs."""
    return {
        "guest": guest,
        "strategy": machine.strategy.name,
        "profile": machine.profile.name,
        "instructions": retired,
    }

"""The translator's tables as the witness routines find them: callout sites, places of the cache, entry points.

The translator keeps units, sites and recoveries as objects of the host's; here they are laid down in the VMM's region as
the hash tables and the sorted table that a VMM in machine code would keep of them. What the routines leave to a slower
path (other contexts, jumps to be chained, the common code) is marked, or left out.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..isa.registers import EAX, ECX, EDX
from . import layout

if TYPE_CHECKING:
    from .translation import Translator
    from .translation.recovery import Recovery
    from .translation.sequences import Context
    from .vm import SoftwareVm

SPILLED = {EAX: 1 << 0, ECX: 1 << 1, EDX: 1 << 2}
HELD, UNSTORED, FROM_TARGET, SLOWER = 1 << 3, 1 << 4, 1 << 5, 1 << 6
KIND_SHIFT, RELEASE_SHIFT = 8, 16
FRAME_BYTES = 20  # EIP, CS, EFLAGS, ESP, SS
SLOWER_KIND = len(layout.SITE_KINDS)


class TooLarge(Exception):
    """More code was translated than the tables of the witness routines hold."""


def publish_translation(vm: "SoftwareVm") -> None:
    """Lay down the tables of a technique that translates, and say whether it does."""
    assert len(vm.p2m) * 4 <= layout.TRANSLATOR_TABLES - layout.P2M, "a small guest leaves the p2m's tail free"
    header = np.zeros(1, layout.TABLES)
    if vm.translation is not None:
        places = list(places_of(vm.translation))
        context, selector = present_context(vm)
        header["translates"], header["place_count"] = 1, len(places)
        if context is not None and is_plain(context):
            header["context_cs"] = selector
            header["context_iopl"] = context.iopl
        put(vm, layout.PLACES, places, layout.N_PLACES, 3)
        put(vm, layout.SITES, hashed(sites_of(vm.translation), layout.N_SITES, 3, 1), layout.N_SITES, 3)
        rows = hashed(entry_points_of(vm.translation, context), layout.N_ENTRY_POINTS, 2, 0)
        put(vm, layout.ENTRY_POINTS, rows, layout.N_ENTRY_POINTS, 2)
    vm.write_region(layout.TRANSLATOR_TABLES, header.tobytes())


def put(vm: "SoftwareVm", offset: int, rows: list[tuple[int, ...]], most: int, width: int) -> None:
    """Write rows of doublewords at an offset of the region. Raises TooLarge."""
    if len(rows) > most:
        raise TooLarge(f"{len(rows)} rows, where {most} have room")
    table = np.zeros((most, width), "<u4")
    table[: len(rows)] = np.array(rows, np.int64).reshape(-1, width)
    vm.write_region(offset, table.tobytes())


def hashed(rows: Iterator[tuple[int, ...]], count: int, width: int, shift: int) -> list[tuple[int, ...]]:
    """The rows of a hash table: each at its first number, shifted, or the next place that is free. Raises TooLarge."""
    table: list[tuple[int, ...]] = [(0,) * width] * count
    for used, row in enumerate(rows, 1):
        if used == count:
            raise TooLarge(f"a hash table of {count} places is full")
        place = row[0] >> shift & count - 1
        while table[place] != (0,) * width:
            place = place + 1 & count - 1
        table[place] = row
    return table


def word_of(recovery: "Recovery") -> int:
    """How the guest's state is had at a place: the word of a row."""
    word = sum(SPILLED[register] for register in recovery.spilled) | recovery.release << RELEASE_SHIFT
    word |= HELD * recovery.held | UNSTORED * recovery.unstored | FROM_TARGET * (recovery.eip is None)
    slower = recovery.unpushed or recovery.called or recovery.returning or recovery.own_stack or recovery.unflagged
    return word | SLOWER * slower


def places_of(translator: "Translator") -> Iterator[tuple[int, ...]]:
    """Each instruction of the cache: its address, the guest's EIP, how the rest of its state is had."""
    for unit in translator.cache.units:
        for offset, recovery in zip(unit.offsets, unit.recoveries, strict=True):
            yield unit.address + offset, recovery.eip or 0, word_of(recovery)


def sites_of(translator: "Translator") -> Iterator[tuple[int, ...]]:
    """Each callout, likewise, and why it calls."""
    kinds = {name: number for number, name in enumerate(layout.SITE_KINDS)}
    for unit in translator.cache.units:
        for site in unit.sites.values():
            word = word_of(site.recovery) | kinds.get(site.kind, SLOWER_KIND) << KIND_SHIFT
            yield unit.address + site.offset, site.recovery.eip or 0, word


def present_context(vm: "SoftwareVm") -> "tuple[Context | None, int]":
    """The context that the guest's kernel has just left, or else that most of its code was translated in, and what the
    hardware would hold in CS."""
    cpu, cache = vm.processor.cpu, vm.translator.cache
    if int(cpu.rip) - layout.VMM_BASE in (layout.CALLOUT_ENTRY, *layout.DIRECT_ENTRIES):
        address = int(vm.translator.record["site"])
    else:
        place = layout.STACK_TOP - FRAME_BYTES
        address = int.from_bytes(vm.processor.read_physical(place, 4), "little")
    if cache.holds(address) and cache.unit_at(address).guest:
        return replace(cache.unit_at(address).context, single=False), int(vm.translator.record["guest_cs"])
    found = Counter(context for _, context in cache.at if is_plain(context))
    commonest = found.most_common(1)[0][0] if found else None
    return commonest, vm.vcpu.hardware_selector(commonest.selector) if commonest else 0


def is_plain(context: "Context") -> bool:
    """Whether units of a context hold as many instructions as they may, without the guest's TF, on a 32-bit stack."""
    return not (context.single or context.trap_flag or context.narrow_stack)


def entry_points_of(translator: "Translator", context: "Context | None") -> Iterator[tuple[int, ...]]:
    """Guest addresses and their places in the cache. A unit whose pages are not marked accessed yet is not entered so."""
    for (eip, own), unit in translator.cache.at.items():
        if own == context and not unit.unmarked:
            yield eip, unit.address + unit.boundaries[eip]

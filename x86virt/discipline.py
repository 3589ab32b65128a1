"""The TLB rules: does a guest behave the same whatever the TLB holds?

A guest that changes a translation must say so (INVLPG, a load of CR3), because the processor may keep the old one or
drop any at any time (SDM volume 3, section 4.10). Equivalence is claimed only for guests that do. Here a guest runs on
the bare machine with TLBs of one entry, with huge ones, and with ones that are flushed at random places; its end state
must be that of the profile's own TLBs. For a guest that takes interrupts or reads time, whose state tells how long
everything took, only its own verdict is compared.
"""

import random
from dataclasses import dataclass

from .core.entries import flush_translations
from .machine import Machine
from .profile import Profile
from .start.boot import Bootable
from .vmm.recorder import Recorder
from .vmm.registry import find_strategy

HUGE = 4096  # entries
VARIANTS = ("one entry", "huge", "flushed at random")
LONGEST_STRETCH = 200  # instructions between two flushes


@dataclass
class DisciplineRow:
    """One variant: the differences of its end state, none if the guest keeps the rules; `walks` that it took."""

    variant: str
    differences: list[tuple[str, str, str]]
    walks: int
    verdict_only: bool


def run_variant(machine: Machine, variant: str, max_cycles: int | None, seed: int) -> None:
    """Run a loaded machine to its end."""
    if variant == "one entry":
        machine.processor.set_tlb_discipline(1)
    elif variant == "huge":
        machine.processor.set_tlb_discipline(HUGE)
    if variant != "flushed at random":
        machine.run(max_cycles)
        return
    chance = random.Random(seed)
    stretch = LONGEST_STRETCH
    while machine.advance(int(machine.processor.cpu.retired) + chance.randrange(1, stretch), max_cycles):
        flush_translations(machine.processor.state)
        stretch += stretch >> 6  # a long run needs not be flushed a million times


def tlb_discipline(
    image: Bootable,
    profile: Profile,
    memory_bytes: int,
    command_line: str = "",
    max_cycles: int | None = None,
    seed: int = 0,
) -> list[DisciplineRow]:
    """A row for each variant of the TLB."""

    def start() -> tuple[Machine, Recorder]:
        machine = Machine(find_strategy("native")(), profile, memory_bytes)
        recorder = Recorder(machine)
        machine.load(image, command_line)
        return machine, recorder

    plain, recorder = start()
    plain.run(max_cycles)
    recorder.drain()
    timed = not recorder.log.empty or plain.ledger().event_count("sys.ext_interrupt_delivery") > 0
    rows = []
    for variant in VARIANTS:
        machine, _ = start()
        run_variant(machine, variant, max_cycles, seed)
        rows.append(DisciplineRow(variant, differences(machine, plain, timed), walks_of(machine), timed))
    return rows


def differences(machine: Machine, plain: Machine, timed: bool) -> list[tuple[str, str, str]]:
    """(field, here, with the profile's TLBs)."""
    one, two = machine.result(), plain.result()
    rows = [
        (name, str(here), str(there))
        for name, here, there in (("outcome", one.outcome, two.outcome), ("exit code", one.exit_code, two.exit_code))
        if here != there
    ]
    if timed:
        return rows
    if one.instructions != two.instructions:
        rows.append(("instructions", str(one.instructions), str(two.instructions)))
    state = plain.strategy.virtual_state(plain)
    return rows + machine.strategy.virtual_state(machine).differences(state)


def walks_of(machine: Machine) -> int:
    """Table walks of a run."""
    return machine.ledger().event_count("walk.native")

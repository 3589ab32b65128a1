"""Equivalence E1 (design, section 2a): a guest under a strategy against the same guest on the bare machine.

Both runs stop at every checkpoint (a fixed number of retired guest instructions), where the whole state S is compared.
At the first difference the interval is searched for the first instruction behind which the two differ, and reported
with its disassembly and both states.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from .disassembly import disassemble
from .loader import Image
from .machine import Machine, RunResult
from .profile import Profile
from .vmm.probe import Divergence
from .vmm.state import VirtualState
from .vmm.strategy import Strategy

CHECKPOINT = 1 << 12  # guest instructions
MAX_ROWS = 24  # of a report


@dataclass
class Comparison:
    """What a comparison found; `report` says it in lines of text."""

    equal: bool
    checkpoints: int
    report: list[str]
    native: RunResult
    other: RunResult
    divergences: list[Divergence] = field(default_factory=list)


MakeMachine = Callable[[Strategy], Machine]


def compare_runs(
    image: Image,
    strategy: Strategy,
    native: Strategy,
    profile: Profile,
    memory_bytes: int,
    command_line: str = "",
    max_cycles: int | None = None,
    checkpoint: int = CHECKPOINT,
) -> Comparison:
    """Run a guest under both strategies in lock step; the first difference ends the comparison."""

    def start(which: Strategy) -> Machine:
        machine = Machine(which, profile, memory_bytes)
        machine.load(image, command_line)
        return machine

    bare, other = start(native), start(strategy)
    checkpoints = 0
    while True:
        checkpoints += 1
        limit = checkpoints * checkpoint
        going = [machine.advance(limit, max_cycles) for machine in (bare, other)]
        states = bare.strategy.virtual_state(bare), other.strategy.virtual_state(other)
        ended = outcomes(bare, other)
        differences = states[1].differences(states[0])
        if differences or going[0] != going[1] or (not going[0] and ended):
            report = [*ended, *describe(differences)]
            report = locate(start, native, strategy, limit - checkpoint, limit, max_cycles) + report
            return Comparison(False, checkpoints, report, bare.result(), other.result(), found(other))
        if not going[0]:
            return Comparison(True, checkpoints, [], bare.result(), other.result(), found(other))


def found(machine: Machine) -> list[Divergence]:
    """The divergences that the probe of a machine logged."""
    return [] if machine.probe is None else machine.probe.divergences


def outcomes(bare: Machine, other: Machine) -> list[str]:
    """A line if the two ended differently."""
    one, two = bare.result(), other.result()
    if (one.outcome, one.exit_code) == (two.outcome, two.exit_code):
        return []
    return [f"outcome: {other.strategy.name} {two.outcome}, {bare.strategy.name} {one.outcome}"]


def describe(differences: list[tuple[str, str, str]]) -> list[str]:
    """A line for each field that differs."""
    return [f"  {name}: {mine}, on the bare machine {theirs}" for name, mine, theirs in differences[:MAX_ROWS]]


def locate(
    start: MakeMachine, native: Strategy, strategy: Strategy, low: int, high: int, max_cycles: int | None
) -> list[str]:
    """Find the first instruction in (low, high] behind which the states differ, by bisection with fresh runs."""
    while high - low > 1:
        middle = (low + high) // 2
        pair = start(native), start(strategy)
        for machine in pair:
            machine.advance(middle, max_cycles)
        one, two = (machine.strategy.virtual_state(machine) for machine in pair)
        if two.differences(one):
            high = middle
        else:
            low = middle
    pair = start(native), start(strategy)
    for machine in pair:
        machine.advance(low, max_cycles)
    before = pair[0].strategy.virtual_state(pair[0])
    for machine in pair:
        machine.advance(high, max_cycles)
    one, two = (machine.strategy.virtual_state(machine) for machine in pair)
    return [
        f"first divergence: instruction {high} at eip {before.registers['eip']:#x}: {text_at(before)}",
        *describe(two.differences(one)),
        "state on the bare machine:",
        *state_lines(one),
        f"state under {strategy.name}:",
        *state_lines(two),
        "at the checkpoint behind it:",
    ]


def text_at(state: VirtualState) -> str:
    """The disassembly of the instruction at which a state stands, found through the state's own tables."""
    gla = state.segments["cs"].base + state.registers["eip"] & 0xFFFFFFFF
    octets = bytes(octet for place in range(15) if (octet := byte_of(state, gla + place)) is not None)
    return disassemble(octets, state.registers["eip"])


def byte_of(state: VirtualState, gla: int) -> int | None:
    """A byte of guest memory at a linear address, by a walk of the guest's tables."""
    gpa = gla & 0xFFFFFFFF
    if state.registers["cr0"] >> 31:
        entry = entry_of(state, (state.registers["cr3"] & 0xFFFFF000) + (gpa >> 22) * 4)
        if not entry & 1:
            return None
        if entry & 0x80 and state.registers["cr4"] & 0x10:
            gpa = entry & 0xFFC00000 | gpa & 0x3FFFFF
        else:
            leaf = entry_of(state, (entry & 0xFFFFF000) + (gpa >> 12 & 0x3FF) * 4)
            if not leaf & 1:
                return None
            gpa = leaf & 0xFFFFF000 | gpa & 0xFFF
    return int(state.memory[gpa]) if gpa < len(state.memory) else None


def entry_of(state: VirtualState, gpa: int) -> int:
    """A table entry, zero beyond RAM."""
    return int.from_bytes(state.memory[gpa : gpa + 4].tobytes(), "little")


def state_lines(state: VirtualState) -> list[str]:
    """Registers and segments in a few lines."""
    registers = [f"{name} {value:08x}" for name, value in state.registers.items()]
    lines = ["  " + "  ".join(registers[place : place + 6]) for place in range(0, len(registers), 6)]
    segments = [f"{name} {value.selector:04x}/{value.base:x}/{value.limit:x}" for name, value in state.segments.items()]
    return [*lines, "  " + "  ".join(segments)]

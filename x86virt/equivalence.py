"""Equivalence (design, section 2a): a guest under a strategy against the same guest on the bare machine.

Both runs stop at every checkpoint (a fixed number of retired guest instructions), where the whole state S is compared.
At the first difference the interval is searched for the first instruction behind which the two differ, and reported
with its disassembly and both states.

A guest to which nothing of time comes is held to E1: the bare machine runs by itself. As soon as it takes an interrupt
or reads time it is held to E2: the bare machine is given what the VMM gave, and must accept it (`replay.py`).
"""

from dataclasses import dataclass, field

from .core.layout import NEVER
from .disassembly import disassemble
from .machine import Machine, RunResult
from .profile import Profile
from .replay import Replay, ReplayError
from .start.boot import Bootable
from .vmm.probe import Divergence
from .vmm.recorder import Clock, Recorder
from .vmm.state import VirtualState
from .vmm.strategy import Strategy

CHECKPOINT = 1 << 12  # guest instructions
SAME_STEP = 64  # after so many checkpoints the distance to the next one doubles
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
    deliveries: int = 0  # interrupts that the bare machine was given, for a guest of E2
    time_reads: int = 0  # and values of time
    held_to: str = ""  # what two builds of a guest agree on (E3, ported.py); nothing where every state was compared


class Pair:
    """The bare machine and another with the same guest; with `replayed` the bare one follows the other's input log."""

    def __init__(self, start: "Start", replayed: bool) -> None:
        self.bare, self.other = start.machine(start.native), start.machine(start.strategy)
        self.recorder = Recorder(self.other)
        self.follower = Replay(self.bare, self.recorder.log) if replayed else None
        self.bare_recorder = None if replayed else Recorder(self.bare)
        self.refusal = ""
        start.load(self.bare)
        start.load(self.other)
        if self.follower is not None:
            self.follower.freeze()

    def advance(self, limit: int, max_cycles: int | None) -> list[bool]:
        """Both to a number of retired instructions: whether each goes on (bare, other)."""
        going = self.other.advance(limit, max_cycles)
        self.recorder.drain()
        if self.follower is None:
            return [self.bare.advance(limit, max_cycles), going]
        return [self.follow(self.follower, limit, going), going]

    def follow(self, follower: Replay, limit: int, going: bool) -> bool:
        """Replay up to where the other one is; what the bare machine refuses is kept in `refusal`."""
        ended = self.other.result()
        try:
            if going:
                return follower.advance(limit)
            if ended.outcome == "budget":
                follower.advance(ended.instructions)
                self.bare.stop("budget")
                return False
            if follower.advance(ended.instructions + 1):
                return True
            follower.finish()
        except ReplayError as error:
            self.refusal = f"the bare machine refuses the run: {error}"
        return False

    def time_matters(self) -> bool:
        """Whether anything of time has come to the guest, on either side."""
        if self.bare_recorder is None:
            return True
        self.bare_recorder.drain()
        taken = self.bare.ledger().event_count("sys.ext_interrupt_delivery")
        return not self.recorder.log.empty or not self.bare_recorder.log.empty or taken > 0

    def devices_moved(self) -> bool:
        """Whether time has done something to a device under the strategy, perhaps not yet on the bare machine."""
        return any(isinstance(event, Clock) for event in self.recorder.log.events)

    def states(self) -> tuple[VirtualState, VirtualState]:
        """S of both (bare, other)."""
        return self.bare.strategy.virtual_state(self.bare), self.other.strategy.virtual_state(self.other)

    def complaints(self) -> list[str]:
        """What is wrong with the inputs themselves."""
        lines = [self.refusal] if self.refusal else []
        if self.recorder.log.missed and self.follower is not None:
            n, rip = self.recorder.log.missed[0]
            lines.append(f"the VMM left an interrupt waiting before an open window after {n} instructions at {rip:#x}")
        return lines


@dataclass
class Start:
    """What both machines are made of."""

    image: Bootable
    strategy: Strategy
    native: Strategy
    profile: Profile
    memory_bytes: int
    command_line: str

    def machine(self, which: Strategy) -> Machine:
        """A machine without a guest."""
        return Machine(which, self.profile, self.memory_bytes)

    def load(self, machine: Machine) -> None:
        """Load the guest."""
        machine.load(self.image, self.command_line)


def compare_runs(
    image: Bootable,
    strategy: Strategy,
    native: Strategy,
    profile: Profile,
    memory_bytes: int,
    command_line: str = "",
    max_cycles: int | None = None,
    checkpoint: int = CHECKPOINT,
) -> Comparison:
    """Run a guest under both strategies in lock step; the first difference ends the comparison."""
    start = Start(image, strategy, native, profile, memory_bytes, command_line)
    comparison = lock_step(start, max_cycles, checkpoint, False) or lock_step(start, max_cycles, checkpoint, True)
    assert comparison is not None
    return comparison


def lock_step(start: Start, max_cycles: int | None, checkpoint: int, replayed: bool) -> Comparison | None:
    """Checkpoint by checkpoint; None if this is no guest for E1 and was not replayed."""
    pair = Pair(start, replayed)
    checkpoints = limit = 0
    while True:
        low, limit = limit, limit + (checkpoint << checkpoints // SAME_STEP)
        checkpoints += 1
        going = pair.advance(limit, max_cycles)
        if not replayed and pair.time_matters():
            return None
        states = pair.states()
        ended = outcomes(pair.bare, pair.other) if not any(going) else []
        differences = states[1].differences(states[0])
        complaints = pair.complaints()
        if not replayed and {row[0] for row in differences} == {"devices"} and pair.devices_moved():
            return None
        if differences or complaints or going[0] != going[1] or ended:
            report = [*complaints, *(outcomes(pair.bare, pair.other)), *describe(differences)]
            if not complaints and (differences or going[0] != going[1]):
                report = locate(start, replayed, low, limit, max_cycles) + report
            return comparison_of(start, pair, checkpoints, report, max_cycles)
        if not going[0]:
            return comparison_of(start, pair, checkpoints, [], max_cycles)


def comparison_of(start: Start, pair: Pair, checkpoints: int, report: list[str], max_cycles: int | None) -> Comparison:
    """What was found. A bare machine that followed a log says nothing of its own time: it runs once more by itself."""
    bare = pair.bare
    if pair.follower is not None:
        bare = start.machine(start.native)
        start.load(bare)
        bare.advance(NEVER, max_cycles)
        if not report:
            report = outcomes(bare, pair.other)
    log = pair.recorder.log
    inputs = (len(log.deliveries), log.time_reads) if pair.follower is not None else (0, 0)
    return Comparison(
        not report, checkpoints, report, bare.result(), pair.other.result(), found(pair.other), *inputs
    )


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


def locate(start: Start, replayed: bool, low: int, high: int, max_cycles: int | None) -> list[str]:
    """Find the first instruction in (low, high] behind which the states differ, by bisection with fresh runs."""

    def pair_at(instructions: int) -> Pair:
        pair = Pair(start, replayed)
        pair.advance(instructions, max_cycles)
        return pair

    while high - low > 1:
        middle = (low + high) // 2
        pair = pair_at(middle)
        one, two = pair.states()
        if two.differences(one) or pair.refusal:
            high = middle
        else:
            low = middle
    before, _ = pair_at(low).states()
    one, two = pair_at(high).states()
    return [
        f"first divergence: instruction {high} at eip {before.registers['eip']:#x}: {text_at(before)}",
        *describe(two.differences(one)),
        "state on the bare machine:",
        *state_lines(one),
        f"state under {start.strategy.name}:",
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

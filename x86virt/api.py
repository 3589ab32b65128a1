"""The library calls behind the command line: `run`, `bench`, `compare` and `validate`."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .errors import StrategyError, UnsupportedError
from .guests import PARAVIRTUAL, find_guest, open_guest
from .start.recognise import NO_OPTIONS, Opened, StartOptions

if TYPE_CHECKING:  # the command line must answer --help without NumPy and Numba
    from .console.conversation import Conversation
    from .equivalence import Comparison
    from .machine import Machine, Region, RunResult
    from .profile import Profile
    from .start.boot import Bootable
    from .suites import Row
    from .validation.judge import Validation
    from .vmm import Strategy

DEFAULT_PROFILE = "p4_prescott"
DEFAULT_MEMORY_BYTES = 16 << 20
DEFAULT_MAX_CYCLES = 20_000_000_000
PC_MEMORY_BYTES = 128 << 20  # what starts by firmware or by the Linux boot protocol gets
PC_MAX_CYCLES = 2_000_000_000_000
DONE = ("halted", "exited 0", "until", "reset", "left")


@dataclass(frozen=True)
class Setup:
    """What a guest runs on: a strategy, a profile, the guest's RAM in bytes, the budget in cycles, the cache model."""

    strategy: "type[Strategy]"
    profile: "Profile"
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    max_cycles: int | None = DEFAULT_MAX_CYCLES
    cache_model: str = "tables"
    check_isolation: bool = False
    disks: tuple[str | os.PathLike[str], ...] = ()
    disk_write: bool = False  # write to the disks' files; otherwise what the guest writes is forgotten
    rtc: int | None = None  # what the real-time clock shows at power on, in seconds since the beginning of 1970
    reboots: bool = True  # whether a reset starts firmware anew
    apic: bool = False  # a local APIC and an I/O APIC

    @property
    def name(self) -> str:
        """The strategy's name."""
        return str(self.strategy.name)

    def machine(self) -> "Machine":
        """A new machine of this setup, without a guest."""
        from .disk import Disk
        from .machine import Machine

        machine = Machine(self.strategy(), self.profile, self.memory_bytes, self.cache_model, self.check_isolation)
        machine.reboots, machine.usual_cycles = self.reboots, self.max_cycles
        if self.apic:
            machine.fit_apic()
        try:
            for path in self.disks:
                machine.disks.attach(Disk.open(path, self.disk_write))
        except BaseException:
            machine.disks.close()
            raise
        return machine

    def load(self, image: "Bootable", command_line: str = "") -> "Machine":
        """A new machine that is about to start. Raises ImageError if the image does not fit, DiskError for a bad disk."""
        machine = self.machine()
        machine.load(image, command_line)
        if self.rtc is not None:
            machine.set_clock(self.rtc)
        return machine

    def run(
        self, image: "Bootable", command_line: str = "", conversation: "Conversation | None" = None
    ) -> "RunResult":
        """Boot the image on a new machine and run it to its end.

        Raises ImageError if it does not fit, UnsupportedError if the strategy cannot run it.
        """
        with strategy_errors(self.name):
            machine = self.load(image, command_line)
            try:
                return converse(machine, self.max_cycles, conversation)
            finally:
                machine.disks.close()


def converse(machine: "Machine", max_cycles: int | None, conversation: "Conversation | None") -> "RunResult":
    """Run a machine to its end, with those who talk to it."""
    if conversation is None:
        return machine.run(max_cycles)
    with conversation.with_machine(machine):
        return machine.run(max_cycles)


@contextlib.contextmanager
def strategy_errors(name: str) -> Iterator[None]:
    """Turn what a VMM cannot do into UnsupportedError, and an exit that it has no hook for into StrategyError."""
    from .vmm.exits import Unsupported, VmmError

    try:
        yield
    except Unsupported as error:
        raise UnsupportedError(f"strategy {name}", str(error), "run this guest under another strategy") from error
    except VmmError as error:
        raise StrategyError(f"strategy {name}", str(error), "complete the strategy") from error


def is_pc(bootable: "Bootable") -> bool:
    """Whether a start is one of firmware or of Linux, which want the memory and the time of a PC."""
    from .start.firmware import FirmwareImage
    from .start.linux import LinuxImage

    return isinstance(bootable, FirmwareImage | LinuxImage)


def make_setup(
    strategy: "str | type[Strategy]" = "native",
    profile: "str | pathlib.Path | Profile" = DEFAULT_PROFILE,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    max_cycles: int | None = DEFAULT_MAX_CYCLES,
    cache_model: str = "tables",
    check_isolation: bool = False,
) -> Setup:
    """A setup from names. Raises StrategyError or ProfileError."""
    from .profile import Profile, load_profile
    from .vmm.registry import find_strategy

    chosen = find_strategy(strategy) if isinstance(strategy, str) else strategy
    loaded = profile if isinstance(profile, Profile) else load_profile(profile)
    return Setup(chosen, loaded, memory_bytes, max_cycles, cache_model, check_isolation)


def setup_of_start(setup: Setup, opened: "Opened", memory_bytes: int, max_cycles: int | None, apic: bool | None) -> Setup:
    """A setup with what a start wants of its machine where nothing is said: memory and cycles 0, `apic` None.

    What starts by firmware or by the Linux boot protocol gets the memory, the time and the APICs of a PC; a boot disk is the
    first of the disks.
    """
    pc = is_pc(opened.bootable)
    disks = setup.disks if opened.disk is None else (opened.disk, *setup.disks)
    return replace(
        setup,
        memory_bytes=memory_bytes or (PC_MEMORY_BYTES if pc else DEFAULT_MEMORY_BYTES),
        max_cycles=max_cycles if max_cycles != 0 else PC_MAX_CYCLES if pc else DEFAULT_MAX_CYCLES,
        apic=apic if apic is not None else pc,
        disks=disks,
    )


def run(
    guest: "str | os.PathLike[str] | None" = None,
    strategy: "str | type[Strategy]" = "native",
    profile: "str | pathlib.Path | Profile" = DEFAULT_PROFILE,
    command_line: str = "",
    memory_bytes: int = 0,
    max_cycles: int | None = 0,
    cache_model: str = "tables",
    check_isolation: bool = False,
    *,
    start: "StartOptions | None" = None,
    disks: "Sequence[str | os.PathLike[str]]" = (),
    disk_write: bool = False,
    rtc: int | None = None,
    apic: bool | None = None,
    reboots: bool = True,
    conversation: "Conversation | None" = None,
) -> "RunResult":
    """Run a guest: a shipped one's name, or a file that is taken for what it is; without a guest, firmware and disks.

    `start` says more of the start (StartOptions: bios, vga_bios, initrd, at, entry), `conversation` who talks to the machine
    (Conversation: script, until, serial). Memory or cycles of 0 are those that such a start usually gets, cycles None are no
    limit. `rtc` is what the real-time clock shows at power on, in seconds since the beginning of 1970.

    Raises UserError (its text is one line) for anything wrong in what was given, UnsupportedError if the strategy
    cannot run this guest or profile.
    """
    opened = open_guest(guest, start or NO_OPTIONS)
    setup = make_setup(strategy, profile, cache_model=cache_model, check_isolation=check_isolation)
    setup = replace(setup, disks=tuple(disks), disk_write=disk_write, rtc=rtc, reboots=reboots)
    return setup_of_start(setup, opened, memory_bytes, max_cycles, apic).run(opened.bootable, command_line, conversation)


def bench(
    suite_name: str = "syscall",
    strategies: "Sequence[str | type[Strategy]] | None" = None,
    profile: "str | pathlib.Path | Profile" = DEFAULT_PROFILE,
    iterations: int | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> "list[Row]":
    """The rows of a suite (any but `speed`) under the given strategies, all of them if none is given."""
    from .suites import measure, suite
    from .vmm.registry import strategy_names

    benchmarks = suite(suite_name)
    setups = [make_setup(strategy, profile) for strategy in strategies or strategy_names()]
    return measure(benchmarks, setups, iterations, progress)


def compare(
    guest: str | pathlib.Path,
    strategy: "str | type[Strategy]" = "trap-and-emulate",
    profile: "str | pathlib.Path | Profile" = DEFAULT_PROFILE,
    command_line: str = "",
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    max_cycles: int | None = DEFAULT_MAX_CYCLES,
) -> "Comparison":
    """Run a guest on the bare machine and under a strategy, in lock step (equivalence E1)."""
    setup = make_setup(strategy, profile, memory_bytes, max_cycles)
    return compare_setup(setup, find_guest(guest), command_line)


def compare_setup(setup: Setup, image: "Bootable", command_line: str = "") -> "Comparison":
    """The bare machine and a setup in lock step; under a VMM whose guests are ported to it, the ends of both builds (E3)."""
    from .equivalence import compare_runs
    from .vmm.registry import find_strategy

    native = find_strategy("native")
    with strategy_errors(setup.name):
        if setup.strategy.processor == PARAVIRTUAL:
            from .ported import compare_builds

            return compare_builds(setup, replace(setup, strategy=native), image, command_line)
        return compare_runs(
            image,
            setup.strategy(),
            native(),
            setup.profile,
            setup.memory_bytes,
            command_line,
            setup.max_cycles,
        )


def validate(
    ids: Sequence[str] = (),
    strategies: Sequence[str] = (),
    profiles: Sequence[str] = (),
    progress: Callable[[str], None] = lambda text: None,
) -> "Validation":
    """The published figures of these ids (patterns), strategies and profiles, all without any, against their predictions.

    A strategy with options or of the user's own, and a profile's file that inherits a built-in one, run in the place of
    the built-in ones. Raises UserError.
    """
    from .validation.freeze import read_freezes
    from .validation.judge import judge
    from .validation.plan import shipped_plan
    from .validation.predict import Predictor
    from .validation.select import selected, stand_in_profiles, stand_in_strategies

    plan = shipped_plan()
    own_strategies, own_profiles = stand_in_strategies(strategies), stand_in_profiles(profiles)
    rows = selected(plan, ids, list(own_strategies), list(own_profiles))
    given = {name: strategy for name, strategy in own_strategies.items() if name not in strategies}
    own = {name: profile for name, profile in own_profiles.items() if name not in profiles}
    return judge(rows, plan, Predictor(plan, given, own, progress), read_freezes())


def run_setup(setup: Setup, guest: str, command_line: str) -> "tuple[str, dict[int, Region]]":
    """Run a benchmark's guest: `done` and its regions by number, or why there are none."""
    try:
        result = setup.run(find_guest(guest), command_line)
    except UnsupportedError as error:
        return f"unsupported: {error.what}", {}
    if not passed(result.outcome, result.exit_code):
        return result.outcome, {}
    return "done", by_number(result.regions)


def by_number(regions: "Sequence[Region]") -> "dict[int, Region]":
    """Regions by number; what a guest marked several times under one number is one region of all their iterations."""
    found: dict[int, Region] = {}
    for region in regions:
        found[region.number] = found[region.number] + region if region.number in found else region
    return found


def passed(outcome: str, exit_code: int | None) -> bool:
    """Whether a guest ended well: it shut down or left with the verdict 0."""
    return outcome in DONE and not exit_code

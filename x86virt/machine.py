"""The machine: a processor with RAM and a board, a guest, and the strategy under which it runs."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .console.dialogue import Dialogue
from .console.screen import Screen
from .core import layout as core
from .core.board import BOARD_DISK, BOARD_POLL
from .core.device_entries import (
    device_disk_settings,
    device_firmware_settings,
    device_set_clock,
    devices_as_firmware_left_them,
)
from .core.entries import reset_devices
from .disk import SECTOR, Disk
from .disk_service import DiskService
from .errors import UnsupportedError, show
from .exit_counts import ExitCount, subtract
from .guests import build_for, scratch_sectors
from .isa.registers import EAX, EDX, FEATURE_APIC
from .ledger import Ledger
from .processor import Processor
from .profile import Profile
from .start.boot import PARAVIRTUAL, RESET, Boot, Bootable
from .start.enter import enter
from .start.mp_table import mp_tables
from .vmm.exits import IsolationViolation, Unsupported, VmmError
from .vmm.fast.base import DEALT_WITH
from .vmm.interpreter_processor import spare_bytes
from .vmm.kinds import jitted_exits, make_vm, vmm_bytes
from .vmm.probe import Divergence, Probe
from .vmm.reflect import TripleFault
from .vmm.strategy import Strategy
from .vmm.vm import SoftwareVm

if TYPE_CHECKING:
    from .vmm.recorder import TimeLog
    from .vmm.translation import Translator

DEFAULT_MEMORY = 16 << 20
TICKS = 64
BOOT_NOTHING, BOOT_DISK = 0, 2


@dataclass
class Region:
    """A measured region of a guest: its number, iterations, and the part of the ledger that fell into it."""

    number: int
    iterations: int
    instructions: int
    ticks: int
    ledger: Ledger
    exits: dict[str, ExitCount] = field(default_factory=dict)

    def __add__(self, other: "Region") -> "Region":
        """Both parts of a region that the guest marked in parts."""
        exits = dict(self.exits)
        for reason, row in other.exits.items():
            exits[reason] = exits.get(reason, ExitCount(0, 0)).plus(row)
        return Region(
            number=self.number,
            iterations=self.iterations + other.iterations,
            instructions=self.instructions + other.instructions,
            ticks=self.ticks + other.ticks,
            ledger=self.ledger + other.ledger,
            exits=exits,
        )


@dataclass
class RunResult:
    """How a run ended and what it cost (ticks are sixty-fourths of a cycle)."""

    outcome: str
    exit_code: int | None
    instructions: int
    ticks: int
    ledger: Ledger
    regions: list[Region]
    console: bytes
    exits: dict[str, ExitCount]
    divergences: list[Divergence]
    unpriced: int = 0
    serial: bytes = b""  # what the first serial port sent
    serial2: bytes = b""
    screen: Screen | None = None  # the text screen at the end, None if it is blank
    script_waits_for: str = ""  # what an input script that was not played to its end waited for


def check_start(strategy: Strategy, boot: Boot, name: str) -> None:
    """A kernel that is ported to a VMM goes with that kind of VMM, and no other does. Raises UnsupportedError."""
    ported, wanted = boot.mode == PARAVIRTUAL, strategy.processor == "paravirtual"
    where = f"strategy {strategy.name}"
    if ported and not wanted:
        what = f"{show(name)} is a kernel for Xen's paravirtual interface"
        raise UnsupportedError(where, what, "run it with --strategy paravirtual")
    if wanted and not ported:
        what = f"{show(name)} is no kernel for Xen's paravirtual interface"
        raise UnsupportedError(where, what, "give a build that is ported to it, or run this one under another strategy")


class Machine:
    """One host with one guest.

    `memory_bytes` is the guest's RAM. Under a VMM the machine has 4 MB more, where the VMM lives. With
    `check_isolation` every access of a guest's operand is checked against the owners of the machine's frames
    (core/isolation.py), which costs time but no cycle.
    """

    def __init__(
        self,
        strategy: Strategy,
        profile: Profile,
        memory_bytes: int = DEFAULT_MEMORY,
        cache_model: str = "tables",
        check_isolation: bool = False,
    ) -> None:
        self.strategy, self.profile, self.memory_bytes = strategy, profile, memory_bytes
        self.cache_model = cache_model
        host_bytes = memory_bytes + vmm_bytes(strategy)
        spare = spare_bytes(host_bytes) if strategy.needs_vmm else 0
        self.processor = Processor(profile, host_bytes, cache_model, spare)
        self.retired_limit = core.NEVER
        self.vm = make_vm(self) if strategy.needs_vmm else None
        self.probe = Probe(self) if isinstance(self.vm, SoftwareVm) else None
        self.exits_in_code = jitted_exits(self, self.vm)
        self.regions: list[Region] = []
        self.outcome: str | None = None
        self.dialogue = Dialogue(self)
        self.disks = DiskService(self)
        self.has_firmware = False
        self.usual_cycles: int | None = None  # the budget that a run of it has unless another is given; None: no limit
        self.reboots = True  # whether a reset that the guest asks for starts its firmware anew, or ends the run
        self.open_region: tuple[int, int, int, Ledger, dict[str, ExitCount]] | None = None
        self.time_log: TimeLog | None = None
        self.guest: tuple[str, str] = ("", "")  # name and SHA-256 of the image
        if check_isolation:
            self.check_isolation()

    def fit_apic(self) -> None:
        """Give the machine a local APIC and an I/O APIC, before it first runs; the guest of a VMM gets virtual ones too."""
        self.processor.fit_apic(True)
        if self.vm is not None:
            self.vm.devices.fit_apics()

    def check_isolation(self) -> None:
        """Check every access of a guest's operand from now on. On the bare machine all frames are the guest's."""
        if self.vm is None:
            self.processor.owners[:] = core.OWNER_GUEST
        self.processor.check_isolation(True)

    @property
    def board(self) -> np.record:
        """The devices that the guest sees: the machine's own, or the virtual ones."""
        return self.processor.board if self.vm is None else self.vm.board

    @property
    def boards(self) -> np.ndarray:
        """The same, as the jitted code takes it."""
        return self.processor.boards if self.vm is None else self.vm.boards

    # -- loading --------------------------------------------------------------------------------------------------

    def load(self, image: Bootable, command_line: str = "") -> None:
        """Put a guest into RAM as its boot loader does, and start the strategy.

        Of a shipped guest with two builds it is the one that the strategy runs. Raises UnsupportedError if there is none.
        """
        image = build_for(self.strategy, image)
        self.plug_in_scratch_disk(scratch_sectors(image))
        boot = image.boot(self.memory_bytes, command_line)
        self.guest = (image.name, image.sha256)
        check_start(self.strategy, boot, image.name)
        self.has_firmware = boot.mode == RESET
        for address, octets in (*self.mp_tables(), *boot.writes):
            self.write_guest(address, octets)
        if self.vm is None:
            enter(self.processor, boot)
        else:
            reset_devices(self.vm.boards, TICKS * self.processor.clock_hz)
            devices_as_firmware_left_them(self.vm.boards)
            with self.ends_run():
                self.vm.launch(boot)
        if self.probe is not None:
            self.probe.arm()
        self.set_up_devices()
        self.dialogue.watch()
        self.strategy.setup(self)

    def plug_in_scratch_disk(self, sectors: int) -> None:
        """The empty disk that a shipped guest wants, unless it gets another."""
        if sectors and not self.disks.disks:
            self.disks.attach(Disk.of_bytes("scratch", bytes(sectors * SECTOR)))

    def mp_tables(self) -> list[tuple[int, bytes]]:
        """What an operating system that starts without firmware finds out about the APICs from."""
        cpu = self.processor.cpu
        if self.has_firmware or not cpu.apic.present:
            return []
        return mp_tables(int(cpu.cpuid[1, 0]), int(cpu.cpuid_leaf1_edx) | 1 << FEATURE_APIC)

    def set_up_devices(self) -> None:
        """What firmware finds in the CMOS memory of a PC (or would have left there): memory, disks, what to boot from."""
        device_firmware_settings(self.boards, self.memory_bytes, BOOT_DISK, BOOT_NOTHING, BOOT_NOTHING)
        for place, disk in self.disks.disks.items():
            if place < 2:
                device_disk_settings(self.boards, place, *disk.geometry)

    def set_clock(self, seconds: int) -> None:
        """Set the real-time clock: seconds since the beginning of 1970."""
        device_set_clock(self.boards, int(self.processor.cpu.ticks), seconds)
        if self.vm is not None:
            self.vm.on_clock_set()

    def write_guest(self, gpa: int, octets: bytes) -> None:
        """Write guest-physical memory."""
        if self.vm is None:
            self.processor.write_physical(gpa, octets)
            return
        while octets:
            room = 0x1000 - (gpa & 0xFFF)
            address = self.vm.guest.machine_address(gpa, True)
            if address is not None:
                self.processor.write_physical(address, octets[:room])
            gpa, octets = gpa + room, octets[room:]

    def read_guest(self, gpa: int, count: int) -> bytes:
        """Read guest-physical memory; fewer bytes where the guest's RAM ends."""
        if self.vm is None:
            return self.processor.read_physical(gpa, count)
        octets = bytearray()
        while len(octets) < count:
            address = self.vm.guest.machine_address(gpa + len(octets))
            if address is None:
                break
            room = min(0x1000 - (address & 0xFFF), count - len(octets))
            octets += self.processor.read_physical(address, room)
        return bytes(octets)

    # -- running --------------------------------------------------------------------------------------------------

    def stop(self, outcome: str) -> None:
        """End the run with an outcome."""
        if self.outcome is None:
            self.outcome = outcome
            self.settle()

    def settle(self) -> None:
        """Count what is counted when the guest is left: a region of it, or the run, ends within."""
        if self.translation is not None:
            self.translation.accounts.settle()

    def run(self, max_cycles: int | None = None) -> RunResult:
        """Run to the end, or until `max_cycles` cycles have passed since power on."""
        self.advance(core.NEVER, max_cycles)
        self.dialogue.finish()
        faults = self.vm.faults() if self.vm is not None else []
        if faults:
            self.outcome = f"isolation: {faults[0]}"
        return self.result()

    def advance(
        self,
        retired_limit: int,
        max_cycles: int | None = None,
        pause_cycles: int | None = None,
        pause_ticks: int = core.NEVER,
    ) -> bool:
        """Run until `retired_limit` guest instructions have retired in all, or until the tick counter has reached
        `pause_cycles` or `pause_ticks`, or a debugger's stop is met (True), or the run has ended (False)."""
        cpu = self.processor.cpu
        self.retired_limit = retired_limit
        cpu.retired_limit = retired_limit
        budget = core.NEVER if max_cycles is None else max_cycles * TICKS
        pause = pause_ticks if pause_cycles is None else pause_cycles * TICKS
        cpu.budget = min(budget, pause)
        if self.vm is not None:
            self.vm.before_running()
        with self.ends_run():
            while self.outcome is None:
                outcome = self.run_guest() if self.exits_in_code is None else self.exits_in_code.run()
                if outcome == core.RETIRED_LIMIT and self.vm is not None and self.vm.owes_step_trap:
                    cpu.retired_limit = core.NEVER  # the trap of TF belongs to the instruction before it
                    outcome = self.processor.run(True)
                    cpu.retired_limit = retired_limit
                if outcome in (core.OK, DEALT_WITH):
                    continue
                if outcome == core.STOPPED:
                    return True
                if outcome == core.RETIRED_LIMIT or (outcome == core.BUDGET and cpu.ticks < budget):
                    return True
                self.act(outcome)
        return False

    def run_guest(self, single: bool = False) -> int:
        """One call of the processor, or of the VMM's interpreter while that has the guest."""
        return self.processor.run(single) if self.vm is None else self.vm.run(single)

    @contextlib.contextmanager
    def ends_run(self) -> Iterator[None]:
        """Make an outcome of what ends a run from within the VMM."""
        try:
            yield
        except TripleFault:
            self.stop("triple_fault")
        except IsolationViolation as error:
            self.stop(f"isolation: {error}")
        except Unsupported as error:
            began = int(self.processor.cpu.retired) > 0  # else the machine itself is refused, not an instruction
            self.stop(f"unsupported: {error}" + (f" (at eip {self.trapped_at():#x})" if began else ""))
        except VmmError as error:
            self.stop(f"unsupported: {error}")

    def trapped_at(self) -> int:
        """EIP of the guest where it last trapped to the VMM."""
        return 0 if self.vm is None else self.vm.eip()

    def act(self, outcome: int) -> None:
        """Do what an outcome of the processor asks for."""
        if outcome == core.MARK:
            self.on_mark()
        elif outcome == core.BOARD:
            self.on_board()
        elif outcome == core.HOOK and self.vm is not None:
            self.vm.handle_hook()
            if self.vm.board.attention:
                self.on_board()
        elif outcome == core.PROBE and self.probe is not None:
            self.probe.report()
        elif outcome == core.BUDGET:
            self.stop("budget")
        elif outcome == core.SHUTDOWN:
            self.stop("triple_fault")
        elif outcome == core.HALTED_FOREVER:
            self.stop("halted_forever")
        elif outcome == core.ISOLATION:
            self.stop(self.isolation_violation())
        elif outcome == core.TIME_LOG and self.time_log is not None:
            self.time_log.serve(self)
        else:
            raise AssertionError(f"unexpected outcome {outcome} of the processor")

    def isolation_violation(self) -> str:
        """The outcome that names an access of the guest's to a frame that is not its own."""
        cpu = self.processor.cpu
        access = ("a read", "a write", "a fetch")[int(cpu.violation_access)]
        return (
            f"isolation: {access} at linear {int(cpu.violation_gla):#x} reached machine address "
            f"{int(cpu.violation_hpa):#x}, which is not the guest's, at eip {int(cpu.rip):#x}"
        )

    def bytes_at(self, gla: int, count: int) -> bytes:
        """Bytes at a linear address as the processor translates it now, without any effect; fewer at a hole."""
        return self.processor.bytes_at(gla, count) if self.vm is None else self.vm.bytes_at(gla, count)

    def on_board(self) -> None:
        """Devices asked for attention: a disk's data, text for the host, a look at the time set for it, the guest's end."""
        board = self.board
        attention = int(board.attention)
        board.attention = 0
        if attention & BOARD_DISK:
            self.disks.serve()
        if attention & BOARD_POLL:
            self.dialogue.poll()
        else:
            self.dialogue.drain()
        if board.exit_requested and board.exit_code:
            self.stop(f"exited {int(board.exit_code)}")
        elif board.shutdown_requested or board.power_off_requested:
            self.stop("halted")
        elif board.reset_requested:
            self.reset()

    def reset(self) -> None:
        """The guest asked for a reset: its firmware starts anew, with RAM as it is.

        A kernel that was started without firmware has nothing to come back to: its run ends, as one without reboots does.
        """
        if self.has_firmware and self.reboots:
            if self.time_log is not None:
                self.time_log.on_reset(self)
            if self.vm is None:
                self.processor.system_reset()
            else:
                self.vm.interpreter.reset()
            self.set_up_devices()
            self.dialogue.watch()
        else:
            self.stop("reset")

    @property
    def translation(self) -> "Translator | None":
        """The binary translator of a technique that has one."""
        return None if self.vm is None else self.vm.translation

    def console(self) -> bytes:
        """All text so far that came out of the debug ports 0xE9 and 0x402."""
        self.dialogue.drain()
        return bytes(self.dialogue.console)

    def serial(self, port: int = 0) -> bytes:
        """All that a serial port (0 or 1) has sent so far."""
        self.dialogue.drain()
        return bytes(self.dialogue.serial[port])

    def screen(self) -> Screen:
        """The text screen as it is now."""
        return self.dialogue.screen()

    # -- measuring ------------------------------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        """The ledger as it stands, a copy."""
        self.processor.settle()
        return self.processor.ledger().snapshot()

    def exits(self) -> dict[str, ExitCount]:
        """Exits so far, by reason."""
        return {} if self.vm is None else {reason: ExitCount(*row) for reason, row in self.vm.exits.items()}

    def on_mark(self) -> None:
        """A region begins or ends."""
        cpu = self.processor.cpu
        marked = self.vm.interpreter.cpu if self.vm is not None and self.vm.is_interpreted else cpu
        began = marked.mark == core.MARK_BEGIN
        marked.mark = 0
        self.settle()
        if began:
            self.open_region = (int(marked.gpr[EDX]), int(cpu.ticks), int(cpu.retired), self.ledger(), self.exits())
        elif self.open_region is not None:
            number, ticks, retired, ledger, exits = self.open_region
            self.open_region = None
            self.regions.append(
                Region(
                    number=number,
                    iterations=int(marked.gpr[EAX]),
                    instructions=int(cpu.retired) - retired,
                    ticks=int(cpu.ticks) - ticks,
                    ledger=self.ledger() - ledger,
                    exits=subtract(self.exits(), exits),
                )
            )

    def result(self) -> RunResult:
        """The result so far; conservation is checked."""
        ledger = self.ledger()
        cpu = self.processor.cpu
        ledger.check_conservation(int(cpu.ticks))
        board = self.board
        screen = self.screen()
        return RunResult(
            outcome=self.outcome or "running",
            exit_code=int(board.exit_code) if board.exit_requested else None,
            instructions=int(cpu.retired),
            ticks=int(cpu.ticks),
            ledger=ledger,
            regions=self.regions,
            console=self.console(),
            exits=self.exits(),
            divergences=[] if self.probe is None else self.probe.divergences,
            unpriced=0 if self.vm is None else self.vm.unpriced,
            serial=self.serial(0),
            serial2=self.serial(1),
            screen=screen if screen.lines else None,
            script_waits_for=self.dialogue.player.waits_for(),
        )

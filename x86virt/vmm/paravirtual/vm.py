"""A virtual machine whose guest is ported to its VMM: domains on Xen's interface.

The guest is domain 1: its kernel runs in ring 1 on its own page tables, which the VMM has validated, and calls the VMM where
others trap. What the machine's devices do is the business of domain 0, which runs on the same processor in an address space of
its own. The VMM's part is code that handles an exit as a whole (loop.py); a strategy's hook calls it by `serve`.

All that the VMM keeps of its domains is in records in machine RAM. `xens`, `domains`, `frames` and `channels` are views of them.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...core.jit import machine_code
from ...core.run import run as run_processor
from ...isa.events import EVENT_ID, EVENTS
from ...isa.registers import CS, ESP
from ...records import with_attributes
from ...start.boot import Boot
from ..exits import GuestFault, Unsupported, VmmError
from ..interpreter import Interpreter
from ..prices import fixed_prices
from ..state import SegmentState
from ..vcpu import VirtualCpu
from ..virtual_interrupts import VirtualInterrupts
from ..virtual_machine import VirtualMachine
from . import layout
from .crashes import CRASHES
from .crossings import DomainCrossings
from .domain_start import run_first, set_wall_clock, start_clock
from .domain_zero import create_domain_0
from .domains import DOMAIN_0, GUEST, create, take_processor
from .exits import ATTENTION, CRASHED, DONE, ENDED, make_exits, reason_of_entry
from .guest_view import DomainSegments, describe, virtual_registers, write_register
from .held import frame_faults
from .host import build_host, list_free_frames
from .interface import (
    SHUTDOWN_crash,
    SHUTDOWN_poweroff,
    SHUTDOWN_reboot,
    SHUTDOWN_suspend,
)
from .loop import LEAVE, SERVE, run_domains
from .memory_calls import owners_follow
from .records import CHANNEL, DOMAIN, FRAME, N_CHANNELS, XEN
from .saving import check_records

if TYPE_CHECKING:
    from ...machine import Machine

PAGE_BYTES = 4096
M32 = 0xFFFFFFFF
NO_PRICE = -1
NO_EXIT = -1
SHUTDOWNS = {SHUTDOWN_poweroff: "halted", SHUTDOWN_reboot: "reset", SHUTDOWN_suspend: "unsupported: the guest suspends itself"}


class ParavirtualVm(VirtualMachine):
    """Domains under a VMM of Xen's interface, of which domain 1 is the guest."""

    segments: DomainSegments
    crossings: DomainCrossings
    runs_every_mode: ClassVar[bool] = False
    drives_machine: ClassVar[bool] = True

    def __init__(self, machine: "Machine") -> None:
        super().__init__(machine, 1)
        self.machine_frames = self.processor.ram_bytes // PAGE_BYTES
        if self.machine_frames > layout.MAX_FRAMES:
            raise Unsupported(f"a machine with more than {layout.MAX_FRAMES >> 8} MB in all: give less memory (--memory)")
        self.boards = self.processor.boards  # the machine's own devices, which domain 0 drives
        self.board = self.boards[0]
        self.xens = self.records(layout.XEN_RECORD, XEN, 1)
        self.domains = self.records(layout.DOMAINS, DOMAIN, layout.N_DOMAINS)
        self.frames = self.records(layout.FRAME_TABLE, FRAME, self.machine_frames)
        self.channels = self.records(layout.CHANNELS, CHANNEL, N_CHANNELS)
        self.machphys = self.processor.memory[layout.MACHPHYS :][: 4 * self.machine_frames].view("<u4")
        self.shared = make_exits()
        self.priced: object = None  # the table of prices that the record has
        self.code: int | None = None
        self.has_domain_0 = False
        self.segments = DomainSegments(self)
        self.crossings = DomainCrossings(self)
        self.interrupts = VirtualInterrupts(self)

    def records(self, address: int, dtype: np.dtype, count: int) -> np.ndarray:
        """Records in machine RAM."""
        return self.processor.memory[address : address + count * dtype.itemsize].view(with_attributes(dtype))

    def make_vcpu(self, record: np.ndarray) -> VirtualCpu:
        """The record that every virtual machine has; what is known of a domain's processor is in the domain's."""
        return VirtualCpu(record, 1)

    @property
    def xen(self) -> np.record:
        """The VMM's own record."""
        return self.xens[0]

    @property
    def domain(self) -> np.record:
        """The record of the domain that runs."""
        return self.domains[int(self.xen.current)]

    # -- starting ---------------------------------------------------------------------------------------------------

    def launch(self, boot: Boot) -> None:
        """Build the domains, put the processor under the VMM, and let the first go on."""
        assert boot.domain is not None, "the machine has checked it"
        build_host(self)
        self.follow_prices()
        start_clock(self)
        self.has_domain_0 = bool(self.machine.strategy.option("domain_0"))
        ports = create(self, GUEST, boot.domain, self.p2m)
        if self.has_domain_0:
            create_domain_0(self, boot.domain.name, ports)
        list_free_frames(self)
        first = DOMAIN_0 if self.has_domain_0 else GUEST
        take_processor(self, first)
        run_first(self, first)
        self.before_running()
        self.shared[0].entry = NO_EXIT
        self.go_on(self.part(LEAVE))

    def follow_prices(self) -> None:
        """The prices of the VMM's paths, to where its handlers read them."""
        table = self.prices.table
        if table is self.priced:
            return
        self.priced = table
        names = [event.name.removeprefix("vmm.") for event in EVENTS if event.name.startswith("vmm.")]
        prices = table | fixed_prices(self.processor, names)
        for name in names:
            base, item = prices.get(name, (NO_PRICE, 0))
            self.xen.base_ticks[EVENT_ID[f"vmm.{name}"]], self.xen.item_ticks[EVENT_ID[f"vmm.{name}"]] = base, item

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self, single: bool = False) -> int:
        """Run the domain that has the processor."""
        return self.processor.run(single)

    def before_running(self) -> None:
        """The run's limit and prices, to where the handlers read them."""
        self.shared[0].retired_limit = self.machine.retired_limit
        self.follow_prices()
        if self.processor.checks_isolation:
            owners_follow(self.processor.state, self.processor.memory, self.xens, self.domains, self.frames)

    def part(self, part: int) -> int:
        """The VMM's code, or one part of it for a single exit."""
        processor = self.processor
        processors = (
            processor.state, processor.memory, processor.boards, processor.codes, processor.blocks, processor.uops,
            processor.details,
        )  # fmt: skip
        if self.code is None:
            self.code = machine_code(run_processor, *processors, 0)
        records = (self.shared, self.xens, self.domains, self.frames, self.channels)
        return int(run_domains(*processors, *records, part, self.code))

    def handle_hook(self) -> None:
        """One exit by way of the strategy's hook, which calls `serve`."""
        self.machine.strategy.handle(self, self.crossings.read_exit())
        self.crossings.resume()
        self.copy_counts()
        if self.board.attention:
            self.machine.on_board()

    def serve(self) -> None:
        """Do what the exit at hand asks for."""
        self.part(SERVE)

    def go_on(self, outcome: int) -> bool:
        """What the way out came to; False: the processor is to act on the outcome."""
        if outcome == CRASHED:
            self.machine.stop(f"crashed: {CRASHES[int(self.xen.crash)]}")
        elif outcome == ENDED:
            self.machine.stop(self.how_it_ended())
        return outcome in (DONE, ATTENTION, CRASHED, ENDED)

    def how_it_ended(self) -> str:
        """The outcome of a run in which no domain can go on."""
        guest = self.domains[GUEST]
        if not guest.shut_down:
            return "halted_forever"
        if int(guest.shutdown_code) == SHUTDOWN_crash:
            return "crashed: it shut itself down as crashed"
        return SHUTDOWNS.get(int(guest.shutdown_code), f"shut_down {int(guest.shutdown_code)}")

    def copy_counts(self) -> int:
        """Exits that came since the last time, to where Python keeps them; how many."""
        exits = self.shared[0]
        handled = 0
        for entry in exits.order[: exits.order_count].tolist():
            handled += int(exits.count[entry])
            self.count_exits(reason_of_entry(entry), int(exits.count[entry]), (int(exits.ticks[entry]), 0, 0))
            exits.count[entry] = exits.ticks[entry] = 0
        exits.order_count = 0
        self.unpriced = int(self.xen.unpriced)
        return handled

    def charge_dispatch(self) -> None:
        """The handlers charge it themselves."""

    # -- memory -----------------------------------------------------------------------------------------------------

    def flush_shadow(self) -> None:
        """There is none."""

    def guest_ram(self, into: np.ndarray | None = None) -> np.ndarray:
        """The memory that the guest was started with, in pseudo-physical order, a copy."""
        return super().guest_ram(into)

    # -- what is saved, and shown to a debugger -----------------------------------------------------------------------

    def own_state(self) -> dict[str, Any]:
        """Nothing: all is in machine RAM."""
        return {}

    def restore_own(self, state: dict[str, Any]) -> None:
        """Put it back."""

    def restore_memory(self, control: np.ndarray, state: dict[str, list[int]]) -> None:
        """The records of domains are back."""
        check_records(self)

    def faults(self) -> list[str]:
        """What a count of all frames finds wrong in the frame table; a domain that crashed may have been amid a request."""
        return [] if self.xen.crash else frame_faults(self)

    def on_clock_set(self) -> None:
        """The domains are told."""
        set_wall_clock(self)

    def virtual_registers(self) -> tuple[dict[str, int], dict[str, SegmentState]]:
        """The guest's registers and segments, read from what the VMM and the hardware hold."""
        return virtual_registers(self)

    def describe(self) -> list[str]:
        """What VMM and processor really hold."""
        return describe(self)

    def eip(self) -> int:
        """The EIP of the domain that runs."""
        cpu = self.processor.cpu
        return int(self.domain.eip) if cpu.cpl == 0 else int(cpu.rip)

    def linear_eip(self) -> int:
        """Where its next instruction is."""
        return self.segments.base(CS) + self.eip() & M32

    def register(self, number: int) -> int:
        """A general register of the domain that runs."""
        cpu = self.processor.cpu
        return int(self.domain.esp) if number == ESP and cpu.cpl == 0 else int(cpu.gpr[number])

    def write_register(self, name: str, value: int) -> bool:
        """A debugger writes a register of the guest's; False if this one cannot be written."""
        return write_register(self, name, value)

    # -- the interpreter has no part in this ----------------------------------------------------------------------------

    def can_hold(self, interpreter: Interpreter) -> bool:
        """No state of an interpreter's is a domain's."""
        return False

    def give_state(self, interpreter: Interpreter, invalidates: bool) -> None:
        """There is none to be taken back."""
        raise VmmError("a domain is never interpreted")

    def complete_instruction(self, stepped: bool) -> None:
        """Count an emulated guest instruction."""
        self.retire()

    def inject_exception(self, fault: GuestFault) -> None:
        """The handlers bounce exceptions themselves."""
        raise VmmError("a domain's exceptions are delivered by the VMM's own code")

    def deliver_interrupt(self, vector: int) -> None:
        """A domain has events in the place of interrupts."""
        raise VmmError("a domain has events in the place of interrupts")

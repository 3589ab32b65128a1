"""What jitted exits of software and of hardware VMMs have in common: when the machine's loop calls them, and what with."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...core.jit import machine_code
from ...core.run import run as run_processor
from ..prices import fixed_prices

if TYPE_CHECKING:
    from ...machine import Machine
    from ..strategy import Strategy
    from ..virtual_machine import VirtualMachine

# What a derived class may override without a say in how exits are handled.
HARMLESS = {"setup", "set_controls", "save", "restore", "configure", "option", "virtual_state", "virtual_registers"}
PATHS_OF_SHADOWS = ("shadow_table", "shadow_sync", "shadow_check")
DEALT_WITH = -1  # the VMM has done what an outcome of the processor asked for


def declared_actions(strategy: "type[Strategy]") -> dict[str, str]:
    """What a strategy lets the toolkit do by reason; where a class derived from the one that says so has a hook, it is that."""
    classes = strategy.__mro__
    declares = next(one for one in classes if "jitted" in vars(one))

    derived = {name for one in classes[: classes.index(declares)] for name in vars(one)}
    helpers = {name for name in derived if callable(getattr(declares, name, None))} - HARMLESS
    if any(not name.startswith(("on_", "__")) for name in helpers):
        return {}
    return {reason: action for reason, action in strategy.jitted.items() if f"on_{reason}" not in derived}


class ExitsInCode(ABC):
    """The jitted exits of one virtual machine. Set `wanted` to False to have Python handle all of them."""

    paths: ClassVar[Sequence[str]]  # of the VMM, by their numbers in jitted code
    vm: "VirtualMachine"

    def __init__(self, machine: "Machine", shared: np.ndarray, loop: Callable[..., Any]) -> None:
        self.machine, self.processor = machine, machine.processor
        self.wanted = True
        self.handled = 0  # exits
        self.shared, self.exits = shared, shared[0]
        self.exits.table_path, self.exits.sync_path, self.exits.check_path = map(self.paths.index, PATHS_OF_SHADOWS)
        self.declared = declared_actions(type(machine.strategy))
        self.loop = loop
        self.prices: Mapping[str, tuple[int, int]] | None = None
        self.priced = False
        self.code: int | None = None

    @abstractmethod
    def is_usual(self) -> bool:
        """Whether the state of the VMM is one that the jitted exits know."""

    @abstractmethod
    def copy_prices(self, prices: Mapping[str, tuple[int, int]]) -> bool:
        """Take the prices of the paths to where the exits read them; whether each that they need is there."""

    @abstractmethod
    def copy_in(self) -> None:
        """What the exits depend on, from where Python keeps it."""

    @abstractmethod
    def own_records(self) -> tuple[np.ndarray, ...]:
        """What the loop takes besides the processor's records."""

    @abstractmethod
    def take_outcome(self, outcome: int) -> bool:
        """What the exits have changed, to where Python keeps it, and what they left to do; False: the machine is to act."""

    def run(self) -> int:
        """Run until an outcome of the processor that is not dealt with here, or DEALT_WITH."""
        if not self.usable():
            return self.machine.run_guest()
        self.copy_in()
        outcome = int(self.run_jitted())
        if not self.take_outcome(outcome):
            return outcome
        if self.vm.board.attention:
            self.machine.on_board()
        return DEALT_WITH

    def run_jitted(self) -> int:
        """The jitted loop."""
        processor = self.processor
        processors = (
            processor.state, processor.memory, processor.boards, processor.codes, processor.blocks, processor.uops,
            processor.details,
        )  # fmt: skip
        if self.code is None:
            self.code = machine_code(run_processor, *processors, 0)
        return self.loop(*processors, self.shared, *self.own_records(), self.code)

    def usable(self) -> bool:
        """Whether nothing is on that the jitted exits know nothing of: a recorder, stops, checks, the interpreter."""
        vm, cpu = self.vm, self.processor.cpu
        if not self.declared or not self.wanted or vm.recorder is not None or self.processor.checks_isolation:
            return False
        if vm.is_interpreted or vm.vcpu.halted or cpu.stop_count or cpu.stop_deliveries or cpu.watch:
            return False
        return self.is_usual() and self.have_prices()

    def have_prices(self) -> bool:
        """Whether every path that is needed has a price; they are copied when the table is another."""
        table = self.vm.prices.table
        if table is not self.prices:
            self.prices = table
            self.priced = self.copy_prices(table | fixed_prices(self.processor, self.paths))
        return self.priced

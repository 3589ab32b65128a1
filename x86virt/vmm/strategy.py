"""What a strategy is: three choices, the ring it gives the guest's kernel, and a hook for each reason to exit."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .exits import Exit, VmmError
from .instruction import bytes_at_trap, text_at_trap
from .options import OF_TOOLKIT, Option, Value
from .state import (
    SegmentState,
    VirtualState,
    bare_registers,
    bare_state,
    virtual_state,
)

if TYPE_CHECKING:
    from ..machine import Machine


class Strategy:
    """A way to run a guest. Subclass it, name it, and write the `on_<reason>` hooks that your technique needs.

    A hook gets the machine's virtual machine and the exit; when it returns, the guest is resumed. A reason without a
    hook goes to `on_exit`, whose default explains what is missing.
    """

    name: ClassVar[str] = ""
    processor: ClassVar[str] = "native"  # native, trap_and_emulate, binary_translation, paravirtual, vtx, svm
    memory: ClassVar[str] = "native"  # native, shadow, validated, nested
    devices: ClassVar[str] = "native"  # native, emulated, split
    kernel_ring: ClassVar[int] = 0
    # What the guest can see differently than on the bare machine: (instruction row, virtual mode, field).
    known_divergences: ClassVar[frozenset[tuple[str, str, str]]] = frozenset()
    paths: ClassVar[tuple[str, ...]] = ()  # paths of the VMM that it may charge
    # What the toolkit does for an exit, by reason, in machine code (vmm/fast): emulate, reflect, open_gate, nothing,
    # system_call, fill, leave_unit, simulate_write. The hook of the same reason must do just that; one in a derived class
    # takes it back.
    jitted: ClassVar[Mapping[str, str]] = {}
    needs_vmm: ClassVar[bool] = False  # whether the machine carries a VMM below the guest
    options: ClassVar[tuple[Option, ...]] = ()  # what `NAME,option=value` may choose
    chosen: ClassVar[Mapping[str, Value]] = {}  # what was chosen; `option` reads it

    @classmethod
    def option(cls, name: str) -> Value:
        """What was chosen for an option that the strategy declares, or its default; the default of one of the toolkit's."""
        declared = OF_TOOLKIT | {option.name: option for option in cls.options}
        return cls.chosen.get(name, declared[name].default)

    @classmethod
    def configure(cls) -> None:
        """Called on the derived class for which options were chosen: set what else of it follows from them."""

    def setup(self, machine: "Machine") -> None:
        """Called once, when the guest has been loaded and before it starts."""

    def set_controls(self, vm: Any) -> None:
        """Called once, before the guest first runs, where a virtualization extension runs it: what shall make it exit."""
        return

    def save(self) -> dict[str, Any]:
        """What the strategy itself must keep when its machine is saved, as JSON has it; a strategy that sets attributes of
        its own overrides this and `restore`."""
        if vars(self):
            raise NotImplementedError(f"it keeps {', '.join(sorted(vars(self)))} and does not say how to save it")
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `save` gave."""
        if state:
            raise ValueError(f"strategy {self.name} takes no state of its own")

    def on_exit(self, vm, exit: Exit) -> None:
        """Every reason that has no hook of its own."""
        raise VmmError(
            f"{self.name or type(self).__name__}: no hook for exit '{exit.reason}' at eip {exit.rip:#x}, "
            f"cpl {exit.cpl}, bytes {bytes_at_trap(vm)} ({text_at_trap(vm)}): write on_{exit.reason}(self, vm, exit)"
        )

    def handle(self, vm, exit: Exit) -> None:
        """Call the hook for an exit."""
        getattr(self, f"on_{exit.reason}", self.on_exit)(vm, exit)

    def virtual_registers(self, machine: "Machine") -> tuple[dict[str, int], dict[str, SegmentState]]:
        """The guest's registers and segments: what of its state a debugger shows at every stop."""
        if machine.vm is None:
            return bare_registers(machine)
        return machine.vm.virtual_registers()

    def virtual_state(self, machine: "Machine", into: np.ndarray | None = None) -> VirtualState:
        """The guest's state as this technique really holds it (design, section 2a); a VMM's copy of memory may have its place."""
        if machine.vm is None:
            return bare_state(machine)
        return virtual_state(machine.vm, into)

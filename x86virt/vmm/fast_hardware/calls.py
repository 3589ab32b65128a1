"""What a machine calls under VT-x or SVM: jitted exits, and what Python keeps of the state that they work on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...isa.vectors import KIND_EXCEPTION, PF
from ...isa.vmx import EXIT_REASONS
from ...records import record_array
from .. import layout
from ..exits import Exit, NotDirect, VmmError
from ..fast.base import ExitsInCode
from ..hardware.guest_state import CR0, CR3, CR4, GuestState
from ..hardware.layout import EXIT_ENTRY
from .loop import run_hardware_exits
from .records import (
    ACTIONS,
    ATTENTION,
    ENTRY_FAILED,
    FILL_BEGUN,
    HARDWARE_EXITS,
    KNOWS_FLAGS,
    KNOWS_PLACE,
    KNOWS_PLACE_AND_FLAGS,
    PATH_EVENTS,
    PATHS,
    RESUME,
    STEPPED,
)
from .svm_loop import run_svm_exits

if TYPE_CHECKING:
    from ...machine import Machine
    from ..hardware.vm import HardwareVm

NAMES = {reason.number: reason.name for reason in EXIT_REASONS}
RIP, FLAGS, INTERRUPTIBILITY, CODE_BASE = "guest_rip", "guest_rflags", "guest_interruptibility_state", "guest_cs_base"
DR7 = "guest_dr7"


class JittedHardwareExits(ExitsInCode):
    """The jitted exits of a VMM on VT-x or SVM."""

    paths = PATHS
    vm: "HardwareVm"

    def __init__(self, machine: "Machine", vm: "HardwareVm") -> None:
        super().__init__(
            machine, record_array(HARDWARE_EXITS), run_hardware_exits if vm.control.extension == "vtx" else run_svm_exits
        )
        self.vm = vm
        for number, name in NAMES.items():
            self.exits.actions[number] = ACTIONS.index(self.declared.get(name, ""))
        self.exits.event[:] = PATH_EVENTS

    def take_outcome(self, outcome: int) -> bool:
        """What the exits have changed; a fill that they began, and the way back to the guest, are Python's."""
        self.copy_back(outcome in (RESUME, FILL_BEGUN))
        if outcome == ENTRY_FAILED:
            raise VmmError("the processor refused to enter the guest again")
        if outcome in (RESUME, FILL_BEGUN):
            self.finish(outcome == FILL_BEGUN)
        return outcome in (RESUME, FILL_BEGUN, ATTENTION)

    def own_records(self) -> tuple[np.ndarray, ...]:
        """Of shadow memory, and the virtual devices."""
        shadow = self.vm.shadow
        return shadow.links, shadow.controls, self.vm.boards, self.vm.devices.apics

    def is_usual(self) -> bool:
        """Whether the guest is entered as it stands, and its registers are moved as they are asked for."""
        vm = self.vm
        if vm.vcpu.eager or vm.cluster or not vm.control.enters_plainly:
            return False
        return vm.holds_plainly and not vm.completes

    def copy_prices(self, prices: Mapping[str, tuple[int, int]]) -> bool:
        """The paths that the technique goes."""
        for number, path in enumerate(PATHS):
            self.exits.base_price[number], self.exits.item_price[number] = prices.get(path, (0, 0))
        return all(path in prices for path in PATHS if path in self.machine.strategy.paths)

    def copy_in(self) -> None:
        """What the exits depend on, from where Python keeps it."""
        exits = self.exits
        exits.host_rip = layout.VMM_BASE + EXIT_ENTRY
        exits.retired_limit = self.machine.retired_limit
        exits.nests = int(self.vm.nested is not None)
        exits.window_asked = int(self.vm.interrupts.window_asked)
        exits.filled_at[:] = self.vm.filled_at
        exits.order_count = 0
        if self.vm.nested is None:
            self.copy_guest_state(self.vm.guest_state)

    def copy_guest_state(self, state: GuestState) -> None:
        """How the guest's control registers are held while memory is shadowed."""
        exits = self.exits
        exits.vpid = self.vm.control.vpid
        exits.mask_cr0, exits.mask_cr4 = state.held.cr0_mask, state.held.cr4_mask
        exits.own_cr0, exits.own_cr3, exits.own_cr4 = state.own[CR0], state.own[CR3], state.own[CR4]
        exits.root, exits.switched = state.root, 0

    def take_guest_state(self, state: GuestState) -> None:
        """The guest's address space, or what stands for it, is another."""
        exits = self.exits
        state.own |= {CR0: int(exits.own_cr0), CR3: int(exits.own_cr3), CR4: int(exits.own_cr4)}
        state.root = int(exits.root)
        state.held = replace(state.held, cr3=state.root)

    def copy_back(self, resumes: bool) -> None:
        """What the exits have changed, to where Python keeps it; `resumes`: Python has the way back to the guest before it."""
        exits, vm = self.exits, self.vm
        vm.filled_at = int(exits.filled_at[0]), int(exits.filled_at[1])
        if exits.order_count or resumes:
            vm.injected, vm.interrupts.waits, vm.last_exit = False, False, None
        if vm.nested is None and exits.switched:
            self.take_guest_state(vm.guest_state)
        for reason in exits.order[: exits.order_count].tolist():
            self.count_exits(reason, int(exits.count[reason]), exits.ticks[reason].tolist())
            exits.count[reason] = 0
            exits.ticks[reason] = 0

    def count_exits(self, reason: int, count: int, ticks: list[int]) -> None:
        """Add to the exits by reason."""
        self.vm.count_exits(NAMES[reason], count, ticks)
        self.handled += count

    def finish(self, fills: bool) -> None:
        """An exit was handled, or begun if it is a fill; Python sees to the way back (vm.handle_hook)."""
        vm, exits = self.vm, self.exits
        before = vm.spent()
        reason, spent = int(exits.reason), exits.spent.tolist()
        self.take_registers()
        if fills:
            self.finish_fill()
        if vm.board.attention:
            self.machine.on_board()
        vm.crossings.resume()
        after = [now - then for now, then in zip(vm.spent(), before, strict=True)]
        self.count_exits(reason, 1, [sum(pair) for pair in zip(spent, after, strict=True)])

    def finish_fill(self) -> None:
        """A page fault was charged and looked up (ShadowMemory.fault, HardwareVm.shadow_fault)."""
        vm, exits = self.vm, self.exits
        error, gla, eip = int(exits.error), int(exits.gla), vm.vcpu.peek(RIP)
        fault = Exit("exception_or_nmi", PF, gla=gla, rip=eip, cpl=vm.peek_cpl(), error=error, kind=KIND_EXCEPTION)
        vm.last_exit = fault
        try:
            vm.finish_shadow_fault(fault, int(exits.outcome))
        except NotDirect:
            vm.interpret_one()

    def take_registers(self) -> None:
        """What was read of the guest's registers, and what of it is to be written, as the VMM's cache has it."""
        vcpu, exits = self.vm.vcpu, self.exits
        knows = int(exits.knows)
        vcpu.forget()
        if exits.loads_cr3:
            vcpu.fields |= {CR0: int(exits.cr0), CR3: int(exits.cr3), CR4: int(exits.cr4)}
        if knows in (KNOWS_PLACE, KNOWS_PLACE_AND_FLAGS, STEPPED):
            vcpu.fields[RIP] = int(exits.rip)
        if knows in (KNOWS_PLACE, KNOWS_PLACE_AND_FLAGS):
            vcpu.fields[CODE_BASE] = int(exits.cs_base)
        if knows in (KNOWS_FLAGS, KNOWS_PLACE_AND_FLAGS, STEPPED):
            vcpu.fields[FLAGS] = int(exits.rflags)
        if knows == STEPPED:
            vcpu.fields[INTERRUPTIBILITY] = int(exits.blocking)
        if exits.knows_dr7:
            vcpu.fields[DR7] = int(exits.dr7)
        if not exits.written:
            ended, moved = exits.blocking_ended, knows == STEPPED
            changed = {CR3: exits.loads_cr3, RIP: moved, INTERRUPTIBILITY: ended, FLAGS: exits.drops_flag}
            vcpu.changed.update((key, None) for key, is_so in changed.items() if is_so)

"""What a machine calls: runs the guest with jitted exits where the VMM's state lets it, plainly otherwise."""

from dataclasses import replace
from typing import TYPE_CHECKING

from ...core.jit import machine_code
from ...core.run import run as run_processor
from ...isa.vectors import KIND_EXCEPTION, PF
from ...isa.vmx import EXIT_REASONS
from ...records import record_array
from .. import layout
from ..exits import Exit, NotDirect, VmmError
from ..fast.calls import DEALT_WITH, declared_actions
from ..hardware.guest_state import CR0, CR3, CR4, GuestState
from ..hardware.layout import EXIT_ENTRY
from ..prices import fixed_prices
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


class JittedHardwareExits:
    """The jitted exits of one virtual machine under VT-x or SVM. Set `wanted` to False to have Python handle all of them."""

    def __init__(self, machine: "Machine", vm: "HardwareVm") -> None:
        self.machine, self.vm, self.processor = machine, vm, machine.processor
        self.wanted = True
        self.handled = 0  # exits
        self.shared = record_array(HARDWARE_EXITS)
        self.exits = self.shared[0]
        declared = declared_actions(type(machine.strategy))
        self.declares = bool(declared)
        self.run_exits = run_hardware_exits if vm.control.extension == "vtx" else run_svm_exits
        for number, name in NAMES.items():
            self.exits.actions[number] = ACTIONS.index(declared.get(name, ""))
        self.exits.event[:] = PATH_EVENTS
        self.prices: dict[str, tuple[int, int]] | None = None
        self.priced = False
        self.code: int | None = None

    def run(self) -> int:
        """Run until an outcome of the processor that is not dealt with here, or DEALT_WITH."""
        if not self.usable():
            return self.machine.run_guest()
        self.copy_in()
        outcome = int(self.run_jitted())
        self.copy_back(outcome in (RESUME, FILL_BEGUN))
        if outcome == ENTRY_FAILED:
            raise VmmError("the processor refused to enter the guest again")
        if outcome in (RESUME, FILL_BEGUN):
            self.finish(outcome == FILL_BEGUN)
        if outcome in (RESUME, FILL_BEGUN, ATTENTION):
            if self.vm.board.attention:
                self.machine.on_board()
            return DEALT_WITH
        return outcome

    def run_jitted(self) -> int:
        """The jitted loop."""
        processor = self.processor
        processors = (
            processor.state, processor.memory, processor.boards, processor.codes, processor.blocks, processor.uops,
            processor.details,
        )  # fmt: skip
        if self.code is None:
            self.code = machine_code(run_processor, *processors, 0)
        shadow = self.vm.shadow
        own = self.shared, shadow.links, shadow.controls, self.vm.boards, self.vm.devices.apics
        return self.run_exits(*processors, *own, self.code)

    def usable(self) -> bool:
        """Whether nothing is on that the jitted exits know nothing of: a recorder, stops, checks, another form of guest."""
        vm, cpu = self.vm, self.processor.cpu
        if not self.declares or not self.wanted or vm.recorder is not None or self.processor.checks_isolation:
            return False
        if vm.is_interpreted or vm.vcpu.halted or vm.vcpu.eager or vm.cluster or not vm.control.enters_plainly:
            return False
        if cpu.stop_count or cpu.stop_deliveries or cpu.watch or not vm.holds_plainly or vm.completes:
            return False
        return self.have_prices()

    def have_prices(self) -> bool:
        """Whether every path that the technique goes has a price; they are copied when the table is another."""
        table = self.vm.prices.table
        if table is not self.prices:
            self.prices = table
            prices = table | fixed_prices(self.processor, PATHS)
            wanted = [path for path in PATHS if path in self.machine.strategy.paths]
            self.priced = all(path in prices for path in wanted)
            for number, path in enumerate(PATHS):
                self.exits.base_price[number], self.exits.item_price[number] = prices.get(path, (0, 0))
        return self.priced

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

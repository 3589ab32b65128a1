"""The probe: which sensitive unprivileged instructions executed deprivileged with another effect than on the bare
machine, and with which.

It belongs to the simulator, costs the guest nothing and changes no state. Rows marked `silent` in the instruction table
make the jitted call return before they execute; the probe executes the instruction once on a bare machine that is put
into the guest's virtual state, lets the real one execute it deprivileged, and compares what the guest can see.

That takes milliseconds of the host's time. An instruction is therefore looked at MOST_LOOKS times, and afterwards
executes unwatched: a guest that loops over it must not take for ever.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.entries import enter_level, let_probe_pass, set_all_eflags
from ..core.layout import HOLDS_INTERRUPTS, MAX_INSTRUCTION, NEVER
from ..disassembly import disassemble
from ..isa.events import MODE_GUEST_KERNEL, MODE_GUEST_USER
from ..isa.registers import CS, GENERAL_REGISTERS, SEGMENT_REGISTERS
from ..isa.table import ROWS
from ..processor import Processor
from . import layout
from .state import X87_FIELDS, VirtualState, bare_state

if TYPE_CHECKING:
    from ..machine import Machine

# By row, the modes in which it is watched, a bit each.
WATCHED = np.array(
    [
        int(row.silent) << MODE_GUEST_KERNEL | int(row.silent or row.silent_user) << MODE_GUEST_USER
        for row in ROWS
    ],
    np.int64,
)
# The same for what loads a segment register: it may take an entry of the VMM's own, where CS or SS hangs on one.
LOADS = frozenset(
    f"system:{name}"
    for name in (
        "REGISTER_TO_SREG", "POP_SREG", "LOAD_FAR_POINTER", "JMP_FAR", "JMP_FAR_INDIRECT", "CALL_FAR", "CALL_FAR_INDIRECT",
        "RET_FAR", "IRET",
    )
)  # fmt: skip
EITHER_MODE = 1 << MODE_GUEST_KERNEL | 1 << MODE_GUEST_USER
WATCHED_LOADS = np.array([EITHER_MODE * (row.operation in LOADS) for row in ROWS], np.int64)
OWN_ENTRIES = (layout.DETACHED_CODE_SELECTOR, layout.DETACHED_STACK_SELECTOR)
MOST_LOOKS = 64  # at an instruction of one place, in one mode
MODE_NAME = {MODE_GUEST_KERNEL: "guest_kernel", MODE_GUEST_USER: "guest_user"}


@dataclass(frozen=True)
class Divergence:
    """One field of the guest's state that an instruction left different than the bare machine would have."""

    n: int  # guest instructions retired before it
    rip: int
    row: str
    mode: str
    field: str
    got: str
    bare: str
    text: str = ""  # the disassembly

    def __str__(self) -> str:
        return f"{self.rip:#x} {self.text or self.row} ({self.mode}): {self.field} {self.got}, bare machine {self.bare}"

    @property
    def key(self) -> tuple[str, str, str]:
        """As strategies declare it: (row, virtual mode, field); a general register is just that."""
        return self.row, self.mode, "register" if self.field in GENERAL_REGISTERS else self.field


class BareTwin:
    """A bare machine that can be put into a virtual state and executes one instruction."""

    def __init__(self, machine: "Machine") -> None:
        self.processor = Processor(machine.profile, machine.memory_bytes)
        self.memory_behind = np.zeros_like(self.processor.ram)  # the guest's behind the instruction that is looked at
        self.machine = machine
        self.disks = machine.disks  # it has none of its own

    def console(self) -> bytes:
        """The twin has no console of its own."""
        return self.machine.console()

    def enter(self, state: VirtualState) -> None:
        """Take over a virtual state, whose memory has been copied to this machine's."""
        processor = self.processor
        cpu = processor.cpu
        processor.reset()
        for number, name in enumerate(GENERAL_REGISTERS):
            cpu.gpr[number] = state.registers[name]
        for name in ("cr0", "cr2", "cr3", "cr4", "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit"):
            cpu[name] = state.registers[name]
        for name in ("sysenter_cs", "sysenter_esp", "sysenter_eip"):
            cpu[name] = state.registers[name]
        for number, name in enumerate(SEGMENT_REGISTERS):
            segment = state.segments[name]
            processor.set_segment(number, segment.selector, segment.base, segment.limit, segment.access)
        set_all_eflags(processor.state, state.registers["eflags"])
        for name in (*X87_FIELDS, "fpu_value"):  # the guest's own are in the processor itself
            cpu[name] = self.machine.processor.cpu[name]
        assert self.machine.vm is not None
        for name in ("fpu_instruction_selector", "fpu_operand_selector"):
            cpu[name] = self.machine.vm.vcpu.virtual_selector(int(self.machine.processor.cpu[name]))
        cpu.rip = state.registers["eip"]
        cpu.shadow = HOLDS_INTERRUPTS  # the instruction must execute before any interrupt
        enter_level(processor.state, state.registers["cpl"])

    def step(self) -> VirtualState:
        """Execute one instruction and give the state behind it."""
        self.processor.run(single=True)
        return bare_state(self)  # type: ignore[arg-type]


class Probe:
    """Watches the silent rows of one machine."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.divergences: list[Divergence] = []
        self.looks: Counter[tuple[int, str, str]] = Counter()  # by place, row and mode
        self.twin: BareTwin | None = None

    def arm(self) -> None:
        """Set the mask of rows."""
        cpu = self.machine.processor.cpu
        watched = WATCHED
        if self.machine.translation is not None:
            watched = WATCHED & ~(1 << MODE_GUEST_KERNEL)  # a kernel that is translated is not watched at all
        elif not cpu.sensitive_trap:
            watched = WATCHED | WATCHED_LOADS
        cpu.probe[: len(watched)] = watched
        cpu.probe_on = 1
        enter_level(self.machine.processor.state, int(cpu.cpl))

    def execute(self) -> int:
        """Execute the instruction deprivileged."""
        cpu = self.machine.processor.cpu
        cpu.probe_skip = 1
        cpu.retired_limit = NEVER
        outcome = self.machine.processor.run(single=True)
        cpu.retired_limit = self.machine.retired_limit
        return outcome

    def report(self) -> None:
        """A probed instruction is about to execute: look at it, unless that was done often enough, or is the translator's."""
        cpu = self.machine.processor.cpu
        rip, number, mode_number = int(cpu.rip), int(cpu.probe_row), int(cpu.mode)
        row, mode = ROWS[number].name, MODE_NAME[mode_number]
        site = rip, row, mode
        is_translated = self.machine.translation is not None and self.machine.translation.cache.holds(rip)
        if not is_translated and self.looks[site] < MOST_LOOKS:
            self.looks[site] += 1
            if WATCHED[number] >> mode_number & 1:
                self.look(row, mode, bool(WATCHED_LOADS[number]))
            else:
                self.look_at_load(row, mode)
            return
        outcome = self.execute()
        let_probe_pass(self.machine.processor.state, rip, number, mode_number)
        if outcome:
            self.machine.act(outcome)

    def look(self, row: str, mode: str, loads: bool) -> None:
        """Execute the instruction on the twin and deprivileged, log what differs; `loads`: it loads a segment register."""
        machine = self.machine
        cpu = machine.processor.cpu
        if self.twin is None:
            self.twin = BareTwin(machine)
        before = machine.strategy.virtual_state(machine, self.twin.processor.ram)
        text = self.text()
        n, rip = int(cpu.retired), int(cpu.rip)
        self.twin.enter(before)
        expected = self.twin.step()
        outcome = self.execute()
        if int(cpu.cpl) == 0:  # it trapped after all: the VMM performs it, nothing was silent
            machine.act(outcome) if outcome else None
            return
        if loads and self.is_own_entry(text):
            self.log_own_entry(n, rip, row, mode, text)
            machine.act(outcome) if outcome else None
            return
        got = machine.strategy.virtual_state(machine, self.twin.memory_behind)
        expected.devices = got.devices
        for field, mine, bare in got.differences(expected):
            name = field.split("[")[0]
            self.divergences.append(Divergence(n, rip, row, mode, name, mine, bare, text))
        if outcome:
            machine.act(outcome)

    def text(self) -> str:
        """The instruction that is about to execute."""
        cpu = self.machine.processor.cpu
        return disassemble(self.machine.bytes_at(int(cpu.seg[CS].seg_base + cpu.rip) & 0xFFFFFFFF, MAX_INSTRUCTION), int(cpu.rip))

    # -- loads of the VMM's own entries -------------------------------------------------------------------------------

    def look_at_load(self, row: str, mode: str) -> None:
        """Execute a load of a segment register that should have faulted if it takes an entry of the VMM's own."""
        cpu = self.machine.processor.cpu
        n, rip, text = int(cpu.retired), int(cpu.rip), self.text()
        outcome = self.execute()
        if int(cpu.cpl) > 0 and self.is_own_entry(text):
            self.log_own_entry(n, rip, row, mode, text)
        if outcome:
            self.machine.act(outcome)

    def is_own_entry(self, text: str) -> bool:
        """Whether the register that an instruction loads came from an entry of the VMM's own."""
        return int(self.machine.processor.cpu.seg[loaded_segment(text)].selector) & ~3 in OWN_ENTRIES

    def log_own_entry(self, n: int, rip: int, row: str, mode: str, text: str) -> None:
        """An instruction has loaded an entry of the VMM's own: what the guest's own table says of that selector."""
        assert self.machine.vm is not None
        selector = int(self.machine.processor.cpu.seg[loaded_segment(text)].selector)
        beyond = selector | 7 > int(self.machine.vm.vcpu.gdtr_limit)
        bare = f"#GP({selector & ~3:#x})" if beyond else "of the guest's own table"
        self.divergences.append(Divergence(n, rip, row, mode, "segment", f"{selector:#x} of the VMM", bare, text))


def loaded_segment(text: str) -> int:
    """The segment register that an instruction loads; a far transfer loads CS."""
    mnemonic, _, operands = text.partition(" ")
    target = operands.split(",")[0] if mnemonic in ("mov", "pop") else mnemonic[1:]
    return SEGMENT_REGISTERS.index(target) if target in SEGMENT_REGISTERS else CS

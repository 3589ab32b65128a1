"""The VMM's interpreter: it performs the guest's instructions on the virtual processor, one or many.

A VMM needs it wherever the guest cannot run directly: an instruction that reaches registers in memory or ROM, an access
that faults only because a segment was truncated, real-address and virtual-8086 mode, and whatever the strategy does not
emulate by itself. Its processor (interpreter_processor.py) is loaded from what the VMM and the hardware hold of the
virtual processor, and what it leaves is stored back there. While the guest is in a state that the hardware cannot hold,
the state stays in the interpreter (`holds`).

Every instruction that it performs, and every delivery, is charged as `vmm.interpret`; moving the state there and back is a
`vmm.interpreter_switch`. What the guest wrote is made known to whoever derived something from it: decoded code, shadows.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.entries import (
    arm_stops,
    enter_level,
    flush_translations,
    set_all_eflags,
    vmm_charge,
    vmm_idle,
)
from ..core.handlers import NUMBER
from ..core.layout import (
    BUDGET,
    INTERRUPT,
    MARK,
    MARK_PROTECTED,
    MAX_INSTRUCTION,
    NEVER,
    OK,
    PROBE,
    RETIRED_LIMIT,
    SHUTDOWN,
)
from ..core.run import deliver_external, take_requested_interrupt
from ..isa.events import EVENT_IDLE_HALT, EVENT_INS_NOP, EVENT_VMM_INTERPRET
from ..isa.registers import CR0_PE, CR4_PAE, CS, EFLAGS_VM, ESP
from ..isa.table import ROWS
from ..processor import PAGE_BYTES, debugger_bytes
from ..start.boot import Boot
from ..start.enter import enter
from .instruction import repeats
from .interpreter_calls import deliver_exception
from .interpreter_processor import InterpreterProcessor
from .reflect import TripleFault
from .state import SegmentState, segment_state

if TYPE_CHECKING:
    from .virtual_machine import VirtualMachine

# Fields of the processor's record that the guest uses directly, as they are: no VMM stands between.
SHARED_FIELDS = [
    "gpr", "flag_result", "flag_carry", "tsc_offset", "performance_select", "performance_start", "ticks", "retired", "budget",
    "retired_limit", "time_mode", "fpu_value", "fpu_control", "fpu_status", "fpu_occupied", "fpu_instruction",
    "fpu_instruction_selector", "fpu_operand", "fpu_operand_selector", "fpu_opcode",
]  # fmt: skip
# What the interpreter may change of these; time and instructions are settled by `settle`.
RETURNED_FIELDS = [name for name in SHARED_FIELDS if name not in ("ticks", "retired", "budget", "retired_limit", "time_mode")]
# What the VMM's record holds.
RECORD_FIELDS = (
    "cr0", "cr2", "cr3", "cr4", "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit", "sysenter_cs", "sysenter_esp",
    "sysenter_eip",
)  # fmt: skip
N_MEMORY_SEGMENTS = 6
PORT_ROWS = tuple(number for number, row in enumerate(ROWS) if row.mnemonic in ("IN", "OUT", "INS", "OUTS"))
EVERY_MODE = 0xF  # of a row's bits in the probe mask
LONGEST_STRIDE = 4096  # instructions between two looks whether a guest in protected mode can run directly
A20_SHIFT = 20
OP_INVLPG = NUMBER["invlpg"]


class Interpreter:
    """The interpreter of one virtual machine. `holds`: the state of the virtual processor is here."""

    def __init__(self, vm: "VirtualMachine") -> None:
        self.vm = vm
        self.processor = InterpreterProcessor(vm.machine, vm.boards)
        self.processor.set_frame_map(vm.p2m)
        self.cpu = self.processor.cpu
        self.holds = False
        self.loaded_segments: list[SegmentState] = []
        mine, machines = (record.view(np.ndarray) for record in (self.processor.state, vm.processor.state))
        self._shared = mine[SHARED_FIELDS], machines[SHARED_FIELDS]
        self._returned = mine[RETURNED_FIELDS], machines[RETURNED_FIELDS]
        self._debugger = debugger_bytes(mine), debugger_bytes(machines)
        self.stride, self.next_look = 1, 0

    # -- one instruction --------------------------------------------------------------------------------------------

    def one(self) -> None:
        """Perform the instruction at which the guest trapped, and deliver the fault that it may raise.

        The guest stands behind it then, between two iterations if it is repeated, or at the handler of a fault.
        """
        self.load()
        cpu = self.cpu
        cpu.budget = cpu.retired_limit = NEVER
        cpu.begun = 1  # the boundary before it is over: it trapped
        cpu.probe_skip = cpu.probe_on  # and a recorder sees what it does to the devices
        generation = int(cpu.tlb_generation)
        outcome = self.perform(single=True)
        if outcome == OK and self.vm.cluster:
            self.go_on(self.vm.cluster)
        else:
            self.finish(outcome, int(cpu.tlb_generation) != generation or self.was_invalidation())

    def go_on(self, instructions: int) -> None:
        """Keep the guest for some instructions more, most likely of the same kind: each would be an exit by itself."""
        self.publish_writes()
        self.begin()
        self.next_look = int(self.cpu.retired) + instructions

    def deliver_external(self, vector: int) -> None:
        """Deliver an external interrupt that was acknowledged, through whatever gate the guest has for it."""
        self.deliver(lambda state, memory: deliver_external(state, memory, vector))

    def deliver_exception(self, vector: int, error: int) -> None:
        """Deliver an exception with an error code that was raised at the instruction where the guest stands."""
        self.deliver(lambda state, memory: deliver_exception(state, memory, vector, error))

    def deliver(self, how: Callable[[Any, np.ndarray], int]) -> None:
        """Deliver an event at the boundary where the guest stands."""
        self.load()
        generation = int(self.cpu.tlb_generation)
        outcome = how(self.processor.state, self.processor.memory)
        self.settle()
        self.finish(outcome, int(self.cpu.tlb_generation) != generation)

    def finish(self, outcome: int, invalidates: bool) -> None:
        """Give the virtual processor back to the hardware, or keep it here if the hardware cannot hold its state."""
        self.publish_writes()
        if outcome == SHUTDOWN:
            self.begin()  # as it shut down, perhaps in a task that the hardware could not hold
            raise TripleFault
        if self.vm.can_hold(self):
            self.vm.give_state(self, invalidates)
        else:
            self.begin()

    def was_invalidation(self) -> bool:
        """Whether the instruction that was performed by itself was INVLPG."""
        return int(self.processor.uops[0]["op"]) == OP_INVLPG

    # -- starts -----------------------------------------------------------------------------------------------------

    def start(self, boot: Boot) -> None:
        """The guest begins in real-address mode, at a boot sector or at its firmware."""
        enter(self.processor, boot)
        self.loaded_segments = []
        self.begin()

    def reset(self) -> None:
        """The guest's reset line: its processor and devices begin anew, RAM, time and ledger go on."""
        host = self.vm.processor.cpu
        self.cpu.ticks, self.cpu.retired = host.ticks, host.retired
        self.processor.system_reset()
        self.loaded_segments = []
        self.begin()

    # -- many instructions ------------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Take the guest as it stands; it is interpreted until it can run directly again."""
        if not self.holds:
            self.load()
        self.begin()

    def begin(self) -> None:
        """The state is here: from now on the guest is interpreted, by its code as it stands now.

        While the guest ran directly nothing told the interpreter what was written to code that it had decoded."""
        if self.vm.translation is not None:
            self.vm.translation.leave_ring()
        self.holds = True
        self.cpu.flush_code = 1
        self.look_soon()

    def look_soon(self) -> None:
        """See after the next instruction whether the guest can run directly, then ever more rarely."""
        self.stride = 1
        self.next_look = int(self.cpu.retired) + 1

    def run(self, single: bool = False) -> int:
        """Interpret until something outside must act (an outcome of core/layout.py), or until the guest runs directly (OK)."""
        while self.holds:
            self.follow_machine()
            outcome = self.perform(single)
            self.return_debugger()
            if outcome == PROBE:
                outcome = self.access_port()
            if outcome == BUDGET and int(self.cpu.ticks) < int(self.vm.processor.cpu.budget):
                outcome = OK  # time does something to a device, of which a recorder keeps account
            elif outcome == INTERRUPT:
                outcome = self.take_interrupt()
            elif outcome == MARK and int(self.cpu.mark) == MARK_PROTECTED:
                self.cpu.mark = 0
                self.look_soon()
                self.next_look -= 1
                outcome = OK
            elif outcome == RETIRED_LIMIT and int(self.cpu.retired) < int(self.vm.processor.cpu.retired_limit):
                outcome = OK
            if outcome != OK:
                return outcome
            self.look()
            if single:
                break
        return OK

    def follow_machine(self) -> None:
        """Limits of the run, the debugger's stops, and the time, which the machine's processor has."""
        cpu, host = self.cpu, self.vm.processor.cpu
        cpu.ticks, cpu.retired, cpu.budget = host.ticks, host.retired, host.budget
        cpu.time_mode = host.time_mode
        if self.vm.recorder is not None:
            self.stop_at_ports()
            cpu.budget = min(int(host.budget), self.vm.devices.next_event())
        cpu.retired_limit = host.retired_limit
        if self.may_run_directly():
            cpu.retired_limit = min(int(host.retired_limit), self.next_look)
        self.follow_debugger()

    def stop_at_ports(self) -> None:
        """For a recorder, which must see each access to the devices by itself."""
        if self.cpu.probe_on == 0:
            self.cpu.probe[list(PORT_ROWS)] = EVERY_MODE
            self.cpu.probe_on = 1
            enter_level(self.processor.state, int(self.cpu.cpl))
            self.cpu.mark = 0

    def access_port(self) -> int:
        """Perform the port instruction at which the processor stands, under the recorder's eyes."""
        self.cpu.probe_skip = 1
        self.cpu.budget = self.vm.processor.cpu.budget
        return self.perform(single=True)

    def may_run_directly(self) -> bool:
        """Whether the guest is in a mode in which it may be able to: without an extension only protected mode is one."""
        return self.vm.runs_every_mode or (bool(self.cpu.cr0 & CR0_PE) and not self.cpu.eflags & EFLAGS_VM)

    def look(self) -> None:
        """If it is time for it, see whether the guest can run directly, and let it."""
        if int(self.cpu.retired) < self.next_look or not self.may_run_directly():
            return
        if not self.cpu.begun and not self.cpu.debug_pending and self.vm.can_hold(self):
            self.publish_writes()
            self.vm.give_state(self, True)
            self.vm.crossings.resume()
            return
        self.stride = min(2 * self.stride, LONGEST_STRIDE)
        self.next_look = int(self.cpu.retired) + self.stride

    def take_interrupt(self) -> int:
        """Deliver the external interrupt that waits before an open window: OK or SHUTDOWN."""
        recorder, processor = self.vm.recorder, self.processor
        place = None if recorder is None else recorder.place(self.vm)
        outcome, vector = take_requested_interrupt(processor.state, processor.memory, self.vm.boards)
        if recorder is not None and place is not None:
            recorder.note_delivery(place, int(vector))
        self.settle()
        return int(outcome)

    def follow_debugger(self) -> None:
        """The debugger's stops are those of the machine's processor."""
        mine, machines = self._debugger
        if mine.tobytes() != machines.tobytes():
            mine[...] = machines
            arm_stops(self.processor.state)

    def return_debugger(self) -> None:
        """What the debugger's stops met."""
        mine, machines = self._debugger
        machines[...] = mine

    # -- the state of the virtual processor ---------------------------------------------------------------------------

    def load(self) -> None:
        """Take the virtual processor from where the VMM and the hardware hold it."""
        vm, cpu, vcpu = self.vm, self.cpu, self.vm.vcpu
        vm.charge("interpreter_switch", 1)
        vm.before_interpreting()
        mine, machines = self._shared
        mine[...] = machines
        cpu.gpr[ESP], cpu.rip = vcpu.frame.esp, vcpu.frame.eip
        for name in ("fpu_instruction_selector", "fpu_operand_selector"):
            cpu[name] = vcpu.virtual_selector(int(cpu[name]))
        if (int(cpu.cr4) ^ vcpu.cr4) & CR4_PAE:
            cpu.cr4 = vcpu.cr4
            self.processor.empty_tlbs()
        for name in RECORD_FIELDS:
            cpu[name] = getattr(vcpu, name)
        cpu.pdpte = vm.pointers()
        cpu.msr = vm.model_specific[0]
        cpu.efer = cpu.msr.efer
        self.load_debug_registers()
        set_all_eflags(self.processor.state, vcpu.virtual_flags(vcpu.frame.eflags))
        self.load_segments()
        cpu.shadow = vm.interrupts.shadow()
        cpu.halted = vcpu.halted
        cpu.debug_pending = cpu.debug_hits = cpu.mark = cpu.begun = 0
        cpu.idt_vector = -1
        self.follow_chipset()
        enter_level(self.processor.state, vcpu.cpl)
        flush_translations(self.processor.state)
        cpu.mark = 0
        cpu.ticks = vm.processor.cpu.ticks  # to read a control structure takes time

    def load_debug_registers(self) -> None:
        """DR0 to DR3, DR6 and DR7, where they differ."""
        for number in (0, 1, 2, 3, 6, 7):
            value = int(self.vm.vcpu.dr[number])
            if int(self.cpu.dr[number]) != value:
                self.processor.set_debug_register(number, value)

    def load_segments(self) -> None:
        """All segment registers with their hidden parts."""
        vm, vcpu = self.vm, self.vm.vcpu
        states = [vm.segments.state(number) for number in range(N_MEMORY_SEGMENTS)]
        states.append(segment_state(vcpu.ldtr, vcpu.ldtr_base, vcpu.ldtr_limit, vcpu.ldtr_access))
        states.append(segment_state(vcpu.tr, vcpu.tr_base, vcpu.tr_limit, vcpu.tr_access))
        self.loaded_segments = states
        for number, state in enumerate(states):
            if self.segment(number) != state:
                self.processor.set_segment(number, state.selector, state.base, state.limit, state.access)

    def segment(self, number: int) -> SegmentState:
        """A segment register of the interpreter's processor."""
        cache = self.cpu.seg[number]
        return SegmentState(int(cache.selector), int(cache.seg_base), int(cache.limit), int(cache.access))

    def follow_chipset(self) -> None:
        """The A20 gate and the map of ROM and RAM as the virtual chipset has them."""
        cpu, board = self.cpu, self.vm.board
        cpu.a20_closed = int(board.a20_closed) << A20_SHIFT
        cpu.pam, cpu.vga_rom_address = board.pci.pam, board.pci.rom_window
        self.processor.refresh_map()

    def perform(self, single: bool) -> int:
        """Run the processor, between two looks of the recorder at the devices: an outcome of core/layout.py.

        A single instruction is performed at the tick at which its price has passed.
        """
        recorder = self.vm.recorder
        if recorder is not None:
            ahead = int(self.cpu.price[EVENT_INS_NOP]) if single else 0
            self.vm.devices.see(int(self.cpu.ticks) + ahead)
            recorder.before_devices(self.vm)
        outcome = self.processor.run(single)
        self.settle()
        if recorder is not None:
            recorder.after_devices(self.vm)
            recorder.drain()
            recorder.take(self.cpu)
        return outcome

    # -- time, and what was written -----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Charge the machine for what was interpreted since the last time; both tick counters agree then."""
        cpu, host = self.cpu, self.vm.processor
        counts = cpu.ledger_count.sum(axis=1)
        items = int(counts[self.processor.performed].sum())
        price = int(host.cpu.price[EVENT_VMM_INTERPRET])
        vmm_charge(host.state, EVENT_VMM_INTERPRET, items, items * price)
        for event in self.processor.passed_on:
            count = int(counts[event])
            if count:
                vmm_charge(host.state, event, count, count * int(host.cpu.price[event]))
        idle = int(cpu.ledger_ticks[EVENT_IDLE_HALT].sum())
        if idle or counts[EVENT_IDLE_HALT]:
            vmm_idle(host.state, int(counts[EVENT_IDLE_HALT]), idle)
        cpu.ledger_count[:] = 0
        cpu.ledger_ticks[:] = 0
        assert int(host.cpu.ticks) == int(cpu.ticks), "the interpreter's time is the machine's"
        host.cpu.retired = cpu.retired

    def return_shared(self) -> None:
        """Give back to the machine's processor what the guest uses of it directly."""
        mine, machines = self._returned
        machines[...] = mine

    def bytes_at(self, gla: int, count: int) -> bytes:
        """Bytes at a linear address as the interpreter's processor translates it, without any effect; fewer at a hole."""
        octets = bytearray()
        while len(octets) < count:
            place = gla + len(octets) & 0xFFFFFFFF
            physical = self.processor.look_up(place)
            if physical is None:
                break
            room = min(count - len(octets), PAGE_BYTES - (place & 0xFFF))
            piece = self.processor.read_physical(physical, room)
            octets += piece
            if len(piece) < room:
                break
        return bytes(octets)

    def linear_eip(self) -> int:
        """Where the next instruction is."""
        return int(self.cpu.seg[CS].seg_base + self.cpu.rip) & 0xFFFFFFFF

    def at_repeated_string(self) -> bool | None:
        """Whether the guest stands at a repeated string instruction."""
        return repeats(self.bytes_at(self.linear_eip(), MAX_INSTRUCTION))

    def publish_writes(self) -> None:
        """Make known what the guest wrote: code that the machine's processor has decoded, and frames that are traced."""
        vm = self.vm
        for frame in self.processor.take_written():
            vm.processor.discard_code(frame)
            guest_frame = vm.guest_frame(frame)
            if guest_frame is not None:
                vm.on_guest_frame_written(guest_frame)

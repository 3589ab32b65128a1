"""The virtual devices in time: port accesses, deadlines, and what the guest reads the time from.

The devices themselves are the hardware's (core/devices), on a board that is the guest's.
"""

from typing import TYPE_CHECKING

from ..core.entries import (
    device_depends_on_time,
    device_read,
    device_write,
    vmm_charge,
    vmm_program_timer,
    write_apic_base,
)
from ..core.layout import TIME_OUT, TIME_STAMP
from ..core.local_apic import BASE_ENABLED
from ..isa.events import EVENT_SYS_WRMSR
from .fast.apics import virtual_acknowledge, virtual_advance, virtual_deadline, virtual_event

if TYPE_CHECKING:
    from .virtual_machine import VirtualMachine


class VirtualDevices:
    """One guest's devices, emulated."""

    def __init__(self, vm: "VirtualMachine") -> None:
        self.vm = vm
        self.apics = vm.processor.state  # the record with the guest's APICs: the machine's own, which shows none

    def fit_apics(self) -> None:
        """Give the guest a local APIC and an I/O APIC, before it first runs."""
        processor = self.vm.interpreter.processor
        processor.fit_apic(True)
        self.apics = processor.state

    @property
    def has_apics(self) -> bool:
        """Whether the guest has APICs."""
        return self.apics is not self.vm.processor.state

    def follow_apic(self) -> None:
        """Enable or disable the machine's own local APIC as the guest has its virtual one.

        CPUID cannot be made to trap, and shows the processor's own; what the guest has done to IA32_APIC_BASE it must see there.
        """
        if self.has_apics:
            processor, enabled = self.vm.processor, int(self.apics[0]["apic"]["enabled"])
            own = processor.cpu.apic
            if int(own.enabled) != enabled:
                vmm_charge(processor.state, EVENT_SYS_WRMSR, 1, int(processor.cpu.price[EVENT_SYS_WRMSR]))
                write_apic_base(processor.state, int(own.base_msr) & ~BASE_ENABLED | enabled * BASE_ENABLED)

    def see(self, tick: int | None = None) -> bool:
        """Let the virtual devices see the present, or a later tick; whether they request an interrupt."""
        vm = self.vm
        if vm.recorder is not None:
            vm.recorder.before_devices(vm)
        pending = bool(virtual_advance(self.apics, vm.boards, vm.processor.cpu.ticks if tick is None else tick))
        if vm.recorder is not None:
            vm.recorder.after_devices(vm)
        return pending

    def program_timer(self) -> None:
        """Set the host's one-shot timer to the earliest virtual deadline, if it is not set to it."""
        processor = self.vm.processor
        deadline = self.deadline()
        if processor.cpu.timer != deadline:
            vmm_program_timer(processor.state, deadline)

    def deadline(self) -> int:
        """The next tick at which a device can raise an interrupt, NEVER if none."""
        return int(virtual_deadline(self.apics, self.vm.boards))

    def next_event(self) -> int:
        """The next tick at which time alone does anything to a device that somebody could notice, NEVER if none."""
        return int(virtual_event(self.apics, self.vm.boards))

    def acknowledge(self) -> int:
        """Take the interrupt that is requested: its vector."""
        return int(virtual_acknowledge(self.apics, self.vm.boards))

    # -- ports ----------------------------------------------------------------------------------------------------

    def read(self, port: int, n: int) -> int:
        """IN from a virtual device."""
        vm = self.vm
        vm.charge("device_request", 1)
        if vm.recorder is not None:
            self.see()
            self.note_access(port, n, False)
        return int(device_read(vm.boards, port, n, vm.processor.cpu.ticks))

    def write(self, port: int, n: int, value: int) -> None:
        """OUT to a virtual device."""
        vm = self.vm
        vm.charge("device_request", 1)
        if vm.recorder is not None:
            self.see()
            self.note_access(port, n, True)
        device_write(vm.boards, port, n, value, vm.processor.cpu.ticks)
        if vm.physical.follow():
            vm.flush_shadow()

    def note_access(self, port: int, n: int, writes: bool) -> None:
        """Let the recorder note the tick of an access, if it matters."""
        vm = self.vm
        if vm.recorder is not None and device_depends_on_time(vm.boards, port, n, int(writes)):
            tick = max(int(vm.processor.cpu.ticks), int(vm.board.tick))  # the board's never goes back
            vm.recorder.on_time(vm, port + writes * TIME_OUT, tick)

    # -- time -----------------------------------------------------------------------------------------------------

    def time_stamp(self) -> int:
        """What an emulated RDTSC reads now, in cycles."""
        cpu = self.vm.processor.cpu
        return self.time_read(TIME_STAMP, int(cpu.ticks >> 6) + int(cpu.tsc_offset))

    def time_read(self, source: int, value: int) -> int:
        """A value that tells the guest the time, which a recorder notes."""
        if self.vm.recorder is not None:
            self.vm.recorder.on_time(self.vm, source, value)
        return value

"""What a VMM on a virtualization extension really holds behind the guest's view, as lines of text."""

from typing import TYPE_CHECKING

from .cpu import KEYS

if TYPE_CHECKING:
    from .vm import HardwareVm


def hardware_lines(vm: "HardwareVm") -> list[str]:
    """The processor, what the control structure holds, and what the guest believes."""
    cpu, control, vcpu = vm.processor.cpu, vm.control, vm.vcpu
    where = "runs the guest" if control.in_guest else "runs the VMM"
    if vm.is_interpreted:
        where = "waits while the VMM interprets the guest"
    held = "  ".join(f"{name} {control.peek(KEYS[name]):08x}" for name in ("cr0", "cr3", "cr4"))
    believed = "  ".join(f"{name} {vcpu.peek(KEYS[name]):08x}" for name in ("cr0", "cr3", "cr4"))
    return [
        f"strategy {vm.machine.strategy.name}: {control.extension}, the processor {where}, ring {int(cpu.cpl)}",
        f"for the guest the processor has: {held}",
        f"the guest believes to have:      {believed}",
        f"halted {vcpu.halted}, an event to be delivered {int(vm.injected)}, "
        f"interrupt window asked for {int(vm.interrupts.window_asked)}",
    ]

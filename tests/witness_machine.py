"""The witness image beside the Python handlers: both do the work of one exit from the same state, then are compared."""

from collections import Counter

import numpy as np

from x86virt.core import layout as core
from x86virt.core.entries import device_deadline
from x86virt.guests import find_guest
from x86virt.isa.registers import ESP
from x86virt.machine import Machine
from x86virt.profile import load_profile
from x86virt.vmm import GuestFault, Unsupported, layout
from x86virt.vmm.instruction import bytes_at_trap, text_at_trap
from x86virt.vmm.reflect import TripleFault
from x86virt.vmm.registry import find_strategy
from x86virt.vmm.state import x87_state
from x86virt.vmm.vcpu import Frame
from x86virt.vmm.witness_run import MEMORY_BYTES, REFUSED, Measured, Witness, bits, device_record

PAGE = 4096
# Fields of the vCPU record that only one side keeps, or that mean something during an exit alone.
NOT_COMPARED = {
    "trap_vector", "trap_error", "trap_gla", "window_tags", "guest_frames", "interrupt_shadow", "installed_count",
    "user_code_count", "user_code", "open_gates", "reverse_generation",
}  # fmt: skip
QUIET_TICKS = 64 * 20_000
TIMER_LINE = 1  # falls by itself as time goes by
FRAME = ("eip", "cs", "eflags", "esp", "ss")


def make_machine(
    guest: str, command_line: str = "", profile: str = "p4_prescott", strategy: str = "trap-and-emulate"
) -> Machine:
    """A machine under a software VMM with a guest loaded."""
    machine = Machine(find_strategy(strategy)(), load_profile(profile), MEMORY_BYTES)
    machine.load(find_guest(guest), command_line)
    return machine


def next_exit(machine: Machine) -> bool:
    """Run to the next arrival at the VMM; False once the guest has ended."""
    cpu = machine.processor.cpu
    cpu.retired_limit = cpu.budget = core.NEVER
    while machine.outcome is None:
        outcome = machine.processor.run()
        if outcome == core.HOOK:
            return True
        machine.act(outcome)
    return False


def comparable(vm) -> bool:
    """Whether no instruction of the guest is being stepped over by the VMM, which the image does not do, and no virtual
    timer rises while the Python handlers are being charged for their work."""
    quiet = device_deadline(vm.boards) - int(vm.processor.cpu.ticks) > QUIET_TICKS
    return quiet and not (vm.crossings.own_step or vm.descriptors.table_written)


class Compared:
    """Values by name, guest memory, and pieces of the VMM's memory by name: what a routine or the VMM itself left."""

    values: dict[str, object]
    guest: np.ndarray
    regions: dict[str, np.ndarray]

    def differences(self, other: "Compared") -> list[str]:
        """Where the two differ."""
        rows = [
            f"{name}: {value} / {other.values[name]}"
            for name, value in self.values.items()
            if value != other.values[name]
        ]
        rows += [f"guest memory at {place:#x}" for place in np.nonzero(self.guest != other.guest)[0][:4]]
        for name, octets in self.regions.items():
            rows += [f"{name} at {place:#x}" for place in np.nonzero(octets != other.regions[name])[0][:4]]
        return rows


class Effect(Compared):
    """What an exit left behind, by name."""

    def __init__(self, vm, frame: Frame, general) -> None:
        cpu, ram = vm.processor.cpu, vm.processor.ram
        self.values = {name: getattr(frame, name) for name in FRAME}
        self.values |= {f"gpr{number}": int(general[number]) for number in range(8) if number != ESP}
        self.values["x87"] = x87_state(cpu)
        for name in ("cr0", "cr4", "sysenter_cs", "sysenter_esp", "sysenter_eip"):
            self.values[f"hardware_{name}"] = int(cpu[name])
        self.values["hardware_dr"] = [int(cpu.dr[number]) for number in (0, 1, 2, 3, 7)]
        for name in layout.VCPU.names:
            if name not in NOT_COMPARED:
                self.values[name] = np.asarray(vm.vcpu.record[name]).tolist()
        self.guest = ram[layout.VMM_BYTES :].copy()
        regions = {"idt": (layout.IDT, 2048), "gdt": (layout.GDT, 65536), "shadow": (layout.SHADOW, 192 * PAGE)}
        self.regions = {name: ram[first : first + size].copy() for name, (first, size) in regions.items()}


def image_effect(witness: Witness, ending: str) -> Effect:
    """What the image left."""
    vm, cpu = witness.vm, witness.cpu
    stack = layout.STACK_TOP - 20
    if ending == "trap_dispatch":
        assert int(cpu.gpr[ESP]) == layout.VMM_BASE + stack
        general = [int(value) for value in cpu.gpr[:8]]
    else:  # idle, or a segment gone: the guest's registers stay in the frame
        saved = vm.processor.ram[stack - 40 : stack - 8].view("<u4")
        general = [int(value) for value in saved[::-1]]
    frame = Frame.from_octets(vm.processor.read_physical(stack, 20))
    effect = Effect(vm, frame, general)
    record = vm.vcpu.record
    effect.values["held"] = int(record["interrupt_shadow"])
    effect.values["installed"] = int(record["installed_count"])
    effect.values["user code"] = sorted(record["user_code"][: int(record["user_code_count"])].tolist())
    effect.values["open gates"] = record["open_gates"].tolist()
    length = -(-len(vm.p2m) // 8)
    effect.values["traced"] = vm.processor.ram[layout.TRACED : layout.TRACED + length].tolist()
    octets = vm.processor.ram[layout.DEVICES : layout.DEVICES + layout.DEVICE.itemsize]
    effect.values |= device_values(octets.copy().view(layout.DEVICE)[0])
    return effect


def python_effect(vm, console: int) -> Effect:
    """What the Python handlers left."""
    effect = Effect(vm, vm.vcpu.frame, [int(value) for value in vm.processor.cpu.gpr[:8]])
    effect.values["held"] = int(vm.interrupts.held())
    effect.values["installed"] = len(vm.descriptors.originals)
    effect.values["user code"] = sorted(vm.descriptors.user_code)
    effect.values["open gates"] = bits(vm.entries.open_vectors, 256).view("<u4").tolist()
    effect.values["traced"] = bits(vm.shadow.traced_frames(), -(-len(vm.p2m) // 8) * 8).tolist()
    device = device_record(vm)
    text = vm.boards[0]["console"][console : int(vm.boards[0]["console_length"])]
    device["console_length"] = len(text)
    device["console"][0, : len(text)] = text
    effect.values |= device_values(device[0])
    return effect


def device_values(device) -> dict[str, object]:
    """The device record, by name."""
    device["master"]["lines"] &= ~np.uint32(TIMER_LINE)
    return {f"device {name}": device[name].tolist() for name in layout.DEVICE.names}


def compare_exit(machine: Machine, seen: Counter) -> list[str]:
    """Do the work of the present exit twice, the second time for good; what differed.

    `seen` counts the paths that were compared, and what the image refused.
    """
    vm = machine.vm
    if not comparable(vm):
        vm.handle_hook()
        return []
    witness = Witness(vm)
    try:
        measured = witness.effect()
    except GuestFault:  # on a page that the VMM itself touches
        measured = Measured(REFUSED)
    mine = None if measured.refused else image_effect(witness, measured.ending)
    witness.restore()
    console = int(vm.boards[0]["console_length"])
    exit = vm.crossings.read_exit()
    what = f"{exit.reason} {exit.vector:#x} at {exit.rip:#x}: {bytes_at_trap(vm)} {text_at_trap(vm)[:30]}"
    if mine is None:
        seen[f"refused: {what}"] += 1
    vm.charge("trap_dispatch", 1)
    try:
        machine.strategy.handle(vm, exit)
    except (Unsupported, TripleFault) as end:
        machine.stop(f"{end}")
        return [] if mine is None else [f"{what}: {end!r} is not refused"]
    if not vm.vcpu.halted and not vm.descriptors.table_written:
        vm.interrupts.take()
    rows: list[str] = []
    if mine is not None:
        seen.update(dict.fromkeys((name for name, _ in measured.ticks), 1))
        rows = [f"{what}: {row}" for row in mine.differences(python_effect(vm, console))]
    vm.crossings.resume()
    if vm.boards[0]["attention"]:
        machine.on_board()
    return rows

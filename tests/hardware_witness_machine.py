"""The witness routines of hardware VMMs beside the Python handlers: both do the work of one VM exit from the same state.

The control structure is read for both before the exit is dealt with, and compared as the guest is entered again: what the image
leaves in its record, the handlers have written to the VMCS.
"""

from collections import Counter

import numpy as np
from witness_machine import QUIET_TICKS, device_values

from x86virt.core import layout as core
from x86virt.core.entries import device_deadline, read_model_specific, read_performance
from x86virt.guests import find_guest
from x86virt.isa.registers import (
    ECX,
    ESP,
    FEATURE_APIC,
    MSR_APIC_BASE,
    MSR_SYSENTER_CS,
    MSR_SYSENTER_EIP,
    MSR_SYSENTER_ESP,
    MSR_TSC,
)
from x86virt.machine import Machine
from x86virt.profile import load_profile
from x86virt.vmm import HardwareVm, layout
from x86virt.vmm.hardware.layout import EXIT_ENTRY
from x86virt.vmm.nested.entries import EPT_FETCH, EPT_READ, EPT_WRITE, EPT_WRITE_BACK
from x86virt.vmm.registry import find_strategy
from x86virt.vmm.witness_hardware import HOST_STACK, REASON, ExitWitness
from x86virt.vmm.witness_run import MEMORY_BYTES, Measured, device_record, symbols

PAGE = 4096
FIELDS = layout.EXIT_FIELDS[:-1]
# What an entry loads, or what the VMM keeps for the next exit; the others are the exit's own.
COMPARED = tuple(name for name in FIELDS if name.startswith(("guest_r", "guest_i", "guest_cr", "cr0_", "cr4_", "primary_")))
INJECTED = ("vm_entry_interruption_information", "vm_entry_exception_error_code", "vm_entry_instruction_length")
VALID, HAS_ERROR, SOFTWARE = 1 << 31, 1 << 11, 1 << 10
SYSENTER = {
    MSR_SYSENTER_CS: "guest_ia32_sysenter_cs", MSR_SYSENTER_ESP: "guest_ia32_sysenter_esp",
    MSR_SYSENTER_EIP: "guest_ia32_sysenter_eip",
}  # fmt: skip
STORED = (0x277, 0x1A0, 0x2FF, 0x250)  # registers that only store: PAT, MISC_ENABLE, MTRRs
UNWRITTEN = ("guest_rip", "guest_rflags", "guest_interruptibility_state")  # until a guest that waits is entered again
REGIONS = {"tables": (layout.SHADOW, layout.SHADOW_PAGES * PAGE)}
M32 = 0xFFFFFFFF


def make_machine(guest: str, command_line: str, strategy: str, profile: str = "nehalem") -> Machine:
    """A machine under a VMM on VMX with a guest loaded."""
    machine = Machine(find_strategy(strategy)(), load_profile(profile), MEMORY_BYTES)
    machine.load(find_guest(guest), command_line)
    return machine


def next_exit(machine: Machine) -> bool:
    """Run to the next VM exit; False once the guest has ended."""
    processor, cpu = machine.processor, machine.processor.cpu
    cpu.retired_limit = cpu.budget = core.NEVER
    while machine.outcome is None:
        if machine.vm.is_interpreted:
            machine.act(machine.vm.run())
            continue
        outcome = processor.run()
        if outcome == core.HOOK and int(cpu.rip) == layout.VMM_BASE + EXIT_ENTRY:
            return True
        machine.act(outcome)
    return False


class RealExit(ExitWitness):
    """The image at a VM exit of a guest, with the record as the VMCS has it."""

    def __init__(self, vm: HardwareVm) -> None:
        super().__init__(vm)
        self.fill_record()
        self.publish()
        self.save()

    def publish(self) -> None:
        """Lay down what the handlers keep in their own objects."""
        vm = self.vm
        vm.vcpu.record["guest_frames"] = len(vm.p2m)
        vm.vcpu.record["halted"] = 0
        for name in ("cr0", "cr2", "cr3", "cr4"):
            vm.vcpu.record[name] = vm.guest_state.peek(f"guest_{name}")
        vm.vcpu.record["cpl"] = vm.peek_cpl()
        self.lay(layout.DEVICES, device_record(vm))
        self.lay(layout.EXIT_RECORD, self.exit)

    def fill_record(self) -> None:
        """The fields of the VMCS, and what the VMM keeps beside them."""
        vm, row = self.vm, self.exit[0]
        stored = vm.control.stored
        row["reason"] = stored("exit_reason") & 0xFFFF
        for name in FIELDS:
            row[name] = stored(name) & M32
        row["nested"] = vm.nested is not None
        held = vm.guest_state.held
        row["cr0_mask"], row["cr0_forced"] = held.cr0_mask, held.cr0_forced
        row["cr4_mask"], row["cr4_forced"] = held.cr4_mask, held.cr4_forced
        row["cpuid"][1, 3] |= int(vm.devices.apics[0]["apic"]["enabled"]) << FEATURE_APIC
        row["model_specific"] = model_specific_rows(vm)
        if vm.nested is not None:
            record = vm.nested.record[0]
            row["nested_root"], row["nested_levels"] = vm.nested.root, vm.nested.levels
            row["nested_next"] = record["next"] if record["next"] < record["budget"] else layout.SHADOW_PAGES
            row["nested_rights"] = EPT_READ | EPT_WRITE | EPT_FETCH | EPT_WRITE_BACK
            row["nested_table_rights"] = EPT_READ | EPT_WRITE | EPT_FETCH


def model_specific_rows(vm: HardwareVm) -> list[tuple[int, int, int, int]]:
    """Some registers as the image keeps them: number, low, high, whether any value may be written."""
    rows = [(number, vm.control.stored(key) & M32, 0, 1) for number, key in SYSENTER.items()]
    for number in STORED:
        known, value = read_model_specific(vm.model_specific, number)
        if known:
            rows.append((number, int(value) & M32, int(value) >> 32 & M32, 0))
    return rows + [(M32, 0, 0, 0)] * (layout.N_MODEL_SPECIFIC - len(rows))


class Entered:
    """What the guest is about to be entered with, by name."""

    def __init__(self, vm: HardwareVm, fields: dict[str, int], general: list[int]) -> None:
        ram = vm.processor.ram
        self.values: dict[str, object] = {name: fields[name] & M32 for name in COMPARED}
        self.values |= injected(fields)
        self.values |= {f"gpr{number}": value for number, value in enumerate(general) if number != ESP}
        self.values["cr2"] = int(vm.processor.cpu.cr2)
        self.guest = ram[layout.VMM_BYTES :].copy()
        self.regions = {name: ram[first : first + size].copy() for name, (first, size) in REGIONS.items()}

    def differences(self, other: "Entered") -> list[str]:
        """Where the two differ."""
        rows = [
            f"{name}: {value} / {other.values[name]}" for name, value in self.values.items() if value != other.values[name]
        ]
        rows += [f"guest memory at {place:#x}" for place in np.nonzero(self.guest != other.guest)[0][:4]]
        for name, octets in self.regions.items():
            rows += [f"{name} at {place:#x}" for place in np.nonzero(octets != other.regions[name])[0][:4]]
        return rows


def injected(fields: dict[str, int]) -> dict[str, int]:
    """The event that entry delivers, without what it does not look at."""
    information = fields["vm_entry_interruption_information"] & M32
    if not information & VALID:
        return dict.fromkeys(INJECTED, 0)
    error = fields["vm_entry_exception_error_code"] if information & HAS_ERROR else 0
    length = fields["vm_entry_instruction_length"] if information & SOFTWARE else 0
    return dict(zip(INJECTED, (information, error, length), strict=True))


def image_entered(witness: RealExit, measured: Measured) -> Entered:
    """What the image left."""
    vm = witness.vm
    general = [int(value) for value in witness.cpu.gpr[:8]]
    if measured.ending == "idle":  # they stay in the frame
        place = HOST_STACK - layout.VMM_BASE
        general = [int(value) for value in vm.processor.ram[place - 32 : place].view("<u4")[::-1]]
    octets = vm.processor.ram[layout.EXIT_RECORD : layout.EXIT_RECORD + layout.EXIT.itemsize]
    record = octets.copy().view(layout.EXIT)[0]
    entered = Entered(vm, {name: int(record[name]) for name in FIELDS}, general)
    device = vm.processor.ram[layout.DEVICES : layout.DEVICES + layout.DEVICE.itemsize]
    entered.values |= device_values(device.copy().view(layout.DEVICE)[0])
    rows = {int(number): int(low) for number, low, _, _ in record["model_specific"]}
    entered.values |= {key: rows[number] for number, key in SYSENTER.items()}
    return entered


def python_entered(vm: HardwareVm, console: int) -> Entered:
    """What the handlers left."""
    stored = vm.control.stored
    fields = {name: stored(name) for name in FIELDS}
    fields |= {name: vm.vcpu.field(name) for name in UNWRITTEN if vm.vcpu.halted}
    entered = Entered(vm, fields, [int(value) for value in vm.processor.cpu.gpr[:8]])
    device = device_record(vm)
    text = vm.boards[0]["console"][console : int(vm.boards[0]["console_length"])]
    device["console_length"] = len(text)
    device["console"][0, : len(text)] = text
    entered.values |= device_values(device[0])
    entered.values |= {key: stored(key) for key in SYSENTER.values()}
    return entered


def changes_tables(vm: HardwareVm, measured: Measured) -> bool:
    """Whether the handlers change tables for a reason that has a path of its own: the identity table's frames come or go, or a
    shadow follows the guest's control registers."""
    control = measured.of("exit_control_register") is not None
    return measured.of("paging_switch") is not None or (control and vm.nested is None)


def is_elsewhere(vm: HardwareVm) -> bool:
    """Whether the exit is for a register that the image's table lacks and the VMM knows."""
    reason = vm.control.stored("exit_reason") & 0xFFFF
    if reason not in (REASON["msr_read"], REASON["msr_write"]):
        return False
    number = int(vm.processor.cpu.gpr[ECX])
    known = read_model_specific(vm.model_specific, number)[0] or read_performance(vm.processor.state, number)[0]
    return bool(known or number in (MSR_TSC, MSR_APIC_BASE)) and number not in (*SYSENTER, *STORED)


def is_quiet(vm: HardwareVm) -> bool:
    """Whether no virtual timer rises while the handlers are charged for their work."""
    return device_deadline(vm.boards) - int(vm.processor.cpu.ticks) > QUIET_TICKS


def compare_exit(machine: Machine, seen: Counter) -> list[str]:
    """Do the work of the present exit twice, the second time for good; what differed.

    `seen` counts the paths that were compared, and what the image refused.
    """
    vm = machine.vm
    assert isinstance(vm, HardwareVm)
    if not is_quiet(vm) or is_elsewhere(vm):
        machine.act(core.HOOK)
        return []
    witness = RealExit(vm)
    measured = witness.run(symbols()["vm_exit"])
    mine = image_entered(witness, measured) if measured.ending in ("exit_dispatch", "idle") else None
    witness.restore()
    console = int(vm.boards[0]["console_length"])
    entered: list[Entered] = []
    vm.enter = lambda: entered.append(python_entered(vm, console))
    machine.act(core.HOOK)
    del vm.enter
    exit = vm.last_exit
    what = f"{exit.reason} at {exit.rip:#x}, qualification {exit.qualification:#x}, vector {exit.vector}"
    rows: list[str] = []
    if mine is None:
        seen[f"{measured.ending}: {exit.reason}"] += 1
    elif bool(entered) == (measured.ending == "idle"):
        rows.append(f"{what}: {measured.ending}, and the handlers entered the guest {len(entered)} times")
    else:
        theirs = entered[0] if entered else python_entered(vm, console)
        seen.update(dict.fromkeys((name for name, _ in measured.ticks), 1))
        seen[f"reason {exit.reason}"] += 1
        if changes_tables(vm, measured):
            mine.regions.clear()
        rows = [f"{what}: {row}" for row in mine.differences(theirs)]
    if entered:
        vm.enter()
    return rows

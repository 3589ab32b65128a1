"""The state S that equivalence is about: what the guest can know of its processor, memory and devices."""

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..core.entries import all_eflags
from ..isa.registers import GENERAL_REGISTERS, LDTR, SEGMENT_REGISTERS

if TYPE_CHECKING:
    from ..machine import Machine
    from ..processor import Processor
    from .virtual_machine import VirtualMachine
    from .vm import SoftwareVm

# Fields of board records that a guest can come to know; the console is compared as text.
BOARD_FIELDS = (
    "system_control", "ferr", "ignne", "post_code", "exit_requested", "exit_code", "shutdown_requested", "a20_closed",
    "reset_control", "fast_reset", "reset_requested", "power_off_requested", "bus_master_ports", "power_ports", "vga",
)  # fmt: skip
LOGGED_INPUTS = (0x05, 0x20)  # inputs of the interrupt controllers that recorded time and the guest alone drive: 0, 2, 13
# Of devices in which time does something by itself, the registers that software alone sets.
SET_FIELDS = {
    "pci": ("address", "space"),
    "cmos": ("address", "nmi_masked"),
    "keyboard": ("memory", "expected_by", "command_last", "scanning", "code_set", "rate", "indicators", "parameter_of"),
    "uart": ("interrupt_enable", "fifo_control", "line_control", "modem_control", "scratch", "divisor"),
    "power": ("pm1_enable", "pm1_control", "events_enable", "apm_control", "apm_status"),
}
CMOS_BYTES = (*range(1, 6, 2), 0x0A, 0x0B, *range(0x0E, 0x32), *range(0x33, 0x80))  # all but the time and its flags
MOST_BYTES = 64  # of differing memory that a report looks at
MOST_SECTORS = 4
NEIGHBOURS = 4
SYSTEM_REGISTERS = (
    "cpl", "cr0", "cr2", "cr3", "cr4", "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit", "sysenter_cs",
    "sysenter_esp", "sysenter_eip",
)  # fmt: skip

X87_FIELDS = ("fpu_control", "fpu_status", "fpu_occupied", "fpu_instruction", "fpu_operand", "fpu_opcode")


@dataclass(frozen=True)
class SegmentState:
    """A segment register: selector and the cache behind it, access rights in the layout of a VMCS."""

    selector: int
    base: int
    limit: int
    access: int


@dataclass
class VirtualState:
    """General registers, EIP, EFLAGS, segments, control and table registers, MSRs; memory, console, devices, disks."""

    registers: dict[str, int]
    segments: dict[str, SegmentState]
    memory: np.ndarray = field(repr=False)  # guest RAM, bytes by guest-physical address
    console: bytes = b""
    devices: bytes = b""
    sectors: dict[tuple[int, int], bytes] = field(default_factory=dict, repr=False)  # what was written, by place and number

    def digest(self) -> str:
        """A hash of everything."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr(sorted(self.registers.items())).encode())
        digest.update(repr(sorted(self.segments.items())).encode())
        digest.update(self.console)
        digest.update(self.devices)
        digest.update(self.memory.tobytes())
        for place in sorted(self.sectors):
            digest.update(repr(place).encode() + self.sectors[place])
        return digest.hexdigest()

    def differences(self, other: "VirtualState") -> list[tuple[str, str, str]]:
        """(field, mine, the other's) where the two differ; memory by the first runs of differing bytes."""
        rows = [
            (name, f"{value:#x}", f"{other.registers[name]:#x}")
            for name, value in self.registers.items()
            if value != other.registers[name]
        ]
        rows += [
            (name, str(value), str(other.segments[name]))
            for name, value in self.segments.items()
            if value != other.segments[name]
        ]
        if self.console != other.console:
            rows.append(("console", repr(self.console[-60:]), repr(other.console[-60:])))
        if self.devices != other.devices:
            rows.append(("devices", self.devices.hex(), other.devices.hex()))
        for first, last in runs(differing_bytes(self.memory, other.memory)):
            mine, theirs = (which.memory[first : last + 1].tobytes().hex(" ") for which in (self, other))
            rows.append((f"memory[{first:#x}]", mine, theirs))
        if self.sectors != other.sectors:
            rows += self.sector_differences(other)
        return rows

    def sector_differences(self, other: "VirtualState") -> list[tuple[str, str, str]]:
        """The first sectors of disks that one has not written, or otherwise."""
        places = [
            place
            for place in sorted(self.sectors.keys() | other.sectors.keys())
            if self.sectors.get(place) != other.sectors.get(place)
        ]
        return [
            (
                f"disk {disk} sector {number}",
                sector_text(self.sectors.get((disk, number))),
                sector_text(other.sectors.get((disk, number))),
            )
            for disk, number in places[:MOST_SECTORS]
        ]


def sector_text(content: bytes | None) -> str:
    """How a report names a sector."""
    return "not written" if content is None else hashlib.blake2b(content, digest_size=8).hexdigest()


def differing_bytes(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The first places at which two memories differ; most often none, which is seen eight bytes at a time."""
    if np.array_equal(mine.view(np.int64), theirs.view(np.int64)):
        return np.zeros(0, np.int64)
    return np.nonzero(mine != theirs)[0][:MOST_BYTES]


def runs(places: np.ndarray) -> list[tuple[int, int]]:
    """Ascending places as runs of neighbours: (first, last); a gap of up to three equal bytes does not end a run."""
    found: list[tuple[int, int]] = []
    for place in map(int, places):
        if found and place - found[-1][1] <= NEIGHBOURS:
            found[-1] = found[-1][0], place
        else:
            found.append((place, place))
    return found


def devices_of(board) -> bytes:
    """The devices' registers, as bytes; what time alone does to them is left out."""
    pieces = [np.asarray(board[name]).tobytes() for name in BOARD_FIELDS]
    controllers = np.array(board["pic"])
    for name in ("irr", "lines"):
        controllers[name] &= LOGGED_INPUTS
    pieces.append(controllers.tobytes())
    pieces += [np.asarray(board[device][name]).tobytes() for device, names in SET_FIELDS.items() for name in names]
    pieces.append(np.asarray(board["cmos"]["memory"])[list(CMOS_BYTES)].tobytes())
    return b"".join(pieces)


def x87_state(cpu) -> dict[str, int]:
    """The x87 state; the selectors of the last instruction and operand are those that the hardware runs with."""
    values = {name: int(cpu[name]) for name in X87_FIELDS}
    for number in range(8):
        v = cpu.fpu_value[number]
        values[f"fpu_r{number}"] = (int(v.sign) << 15 | int(v.exponent)) << 64 | int(v.high) << 32 | int(v.low)
    return values


def bare_registers(machine: "Machine") -> tuple[dict[str, int], dict[str, SegmentState]]:
    """Registers and segments of a guest on the bare machine: the processor's own."""
    return processor_registers(machine.processor)


def processor_registers(processor: "Processor") -> tuple[dict[str, int], dict[str, SegmentState]]:
    """Registers and segments of a processor that executes a guest on the guest's own terms."""
    cpu = processor.cpu
    registers = {name: int(cpu.gpr[number]) for number, name in enumerate(GENERAL_REGISTERS)}
    registers |= {
        "eip": int(cpu.rip),
        "eflags": int(all_eflags(processor.state)),
    }
    registers |= {name: int(cpu[name]) for name in SYSTEM_REGISTERS} | x87_state(cpu)
    segments = {}
    for number, name in enumerate(SEGMENT_REGISTERS):
        cache = cpu.seg[number]
        segments[name] = segment_state(
            int(cache.selector), int(cache.seg_base), int(cache.limit), int(cache.access)
        )
    return registers, segments


def bare_state(machine: "Machine") -> VirtualState:
    """S of a guest on the bare machine: the processor's own."""
    processor = machine.processor
    registers, segments = bare_registers(machine)
    devices = devices_of(processor.board)
    return VirtualState(registers, segments, processor.ram, machine.console(), devices, machine.disks.written())


def virtual_registers(vm: "SoftwareVm") -> tuple[dict[str, int], dict[str, SegmentState]]:
    """A guest's registers and segments, read from what a VMM of the software kind and the hardware hold."""
    if vm.is_interpreted:
        return processor_registers(vm.interpreter.processor)
    vm.crossings.take_frame()
    vcpu = vm.vcpu
    registers = {name: vm.register(number) for number, name in enumerate(GENERAL_REGISTERS)}
    registers |= {"eip": vcpu.frame.eip, "eflags": vcpu.virtual_flags(vcpu.frame.eflags)}
    registers |= {name: getattr(vcpu, name) for name in SYSTEM_REGISTERS} | x87_state(vm.processor.cpu)
    if vm.translation is not None:
        registers["fpu_instruction"] = vm.translation.guest_address(registers["fpu_instruction"])
    segments = {name: vm.segments.state(number) for number, name in enumerate(SEGMENT_REGISTERS) if number < LDTR}
    segments["ldtr"] = segment_state(vcpu.ldtr, vcpu.ldtr_base, vcpu.ldtr_limit, vcpu.ldtr_access)
    segments["tr"] = segment_state(vcpu.tr, vcpu.tr_base, vcpu.tr_limit, vcpu.tr_access)
    return registers, segments


def virtual_state(vm: "VirtualMachine", into: np.ndarray | None = None) -> VirtualState:
    """S of a guest under a VMM, read from what the VMM and the hardware hold; memory is copied, to a place that may be given."""
    registers, segments = vm.virtual_registers()
    machine = vm.machine
    devices = devices_of(vm.board)
    memory = vm.guest_ram(into)
    return VirtualState(registers, segments, memory, machine.console(), devices, machine.disks.written())


def segment_state(selector: int, base: int, limit: int, access: int) -> SegmentState:
    """A segment register; nothing but the selector of an unusable one can be known."""
    if access & 1 << 16:
        return SegmentState(selector, 0, 0, 1 << 16)
    return SegmentState(selector, base, limit, access)

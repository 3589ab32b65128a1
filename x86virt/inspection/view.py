"""What the guest has: its registers, segments and memory, on the bare machine and under a VMM, read without any effect."""

from typing import TYPE_CHECKING

from ..core.debug_registers import DR6_FIXED, DR6_WRITABLE, DR7_FIXED, DR7_WRITABLE
from ..disassembly import decode_text
from ..isa.registers import AR_DB, CR0_PE
from .walk import Tables, walk

if TYPE_CHECKING:
    from ..machine import Machine
    from ..vmm.state import SegmentState
    from ..vmm.virtual_machine import VirtualMachine

M32 = 0xFFFFFFFF
PAGE_BYTES = 4096
LONGEST_INSTRUCTION = 15


class View:
    """The guest of a machine as it sees itself. Everything is read anew at each call."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine

    # -- registers ------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, int], dict[str, "SegmentState"]]:
        """Registers and segments by name: those of a state S, and DR0 to DR7 and EFER."""
        machine = self.machine
        registers, segments = machine.strategy.virtual_registers(machine)
        cpu = machine.processor.cpu
        debug = cpu.dr if machine.vm is None else machine.vm.debug_registers()
        registers |= {f"dr{number}": int(debug[number]) & M32 for number in range(4)}
        registers["dr6"] = int(debug[6]) & DR6_WRITABLE | DR6_FIXED
        registers["dr7"] = int(debug[7]) & DR7_WRITABLE | DR7_FIXED
        model_specific = cpu.msr if machine.vm is None else machine.vm.model_specific[0]
        registers["efer"] = int(model_specific["efer"])
        return registers, segments

    def registers(self) -> dict[str, int]:
        """The registers of `state`."""
        return self.state()[0]

    def segments(self) -> dict[str, "SegmentState"]:
        """The segments of `state`."""
        return self.state()[1]

    def instruction_address(self) -> int:
        """The linear address of the next instruction."""
        registers, segments = self.state()
        return segments["cs"].base + registers["eip"] & M32

    def code_bits(self) -> int:
        """16 or 32: what CS makes of instructions."""
        return 32 if self.segments()["cs"].access & AR_DB else 16

    def in_protected_mode(self) -> bool:
        """Whether the guest has CR0.PE set."""
        return bool(self.registers()["cr0"] & CR0_PE)

    # -- memory ---------------------------------------------------------------------------------------------------

    def read_physical(self, address: int, n: int) -> bytes:
        """`n` bytes of guest-physical memory, fewer where it ends."""
        vm = self.machine.vm
        if vm is None:
            return self.machine.processor.read_physical(address, n) if address >= 0 else b""
        octets = b""
        while len(octets) < n:
            place = self.machine_address(vm, address + len(octets))
            if place is None:
                break
            room = PAGE_BYTES - (place & 0xFFF)
            octets += self.machine.processor.read_physical(place, min(room, n - len(octets)))
        return octets

    @staticmethod
    def machine_address(vm: "VirtualMachine", gpa: int) -> int | None:
        """The machine address of a guest-physical one under a VMM, None beyond the guest's RAM."""
        frame = gpa >> 12
        return int(vm.p2m[frame]) << 12 | gpa & 0xFFF if 0 <= frame < len(vm.p2m) else None

    def tables(self) -> Tables:
        """What the guest's own page walks begin with."""
        registers = self.registers()
        cpu = self.machine.processor.cpu
        vm = self.machine.vm
        pointers = cpu.pdpte.tolist() if vm is None else vm.peek_pointers()
        return Tables(
            registers["cr0"], registers["cr3"], registers["cr4"], self.read_physical, registers["efer"],
            tuple(pointers), int(cpu.a20_closed) if vm is None else 0,
        )  # fmt: skip

    def shadow_tables(self) -> Tables:
        """What the processor's page walks begin with; under a VMM these are its shadow tables."""
        cpu = self.machine.processor.cpu
        pointers = tuple(int(entry) for entry in cpu.pdpte)
        read = self.machine.processor.read_physical
        return Tables(int(cpu.cr0), int(cpu.cr3), int(cpu.cr4), read, int(cpu.efer), pointers, int(cpu.a20_closed))

    def read(self, gla: int, n: int) -> bytes:
        """`n` bytes at a linear address by the guest's own tables, fewer where a page is not mapped."""
        tables = self.tables()
        octets = b""
        while len(octets) < n:
            place = gla + len(octets) & M32
            room = min(PAGE_BYTES - (place & 0xFFF), n - len(octets))
            physical = walk(tables, place).physical
            piece = b"" if physical is None else self.read_physical(physical, room)
            octets += piece
            if len(piece) < room:
                break
        return octets

    def write(self, gla: int, octets: bytes) -> bool:
        """Write at a linear address, whatever the rights of its page; False where a byte is not in RAM.

        Nothing is written if a page is not mapped.
        """
        tables = self.tables()
        pieces = []
        place = 0
        while place < len(octets):
            address = gla + place & M32
            room = min(PAGE_BYTES - (address & 0xFFF), len(octets) - place)
            physical = walk(tables, address).physical
            if physical is None or len(self.read_physical(physical, room)) < room:
                return False
            pieces.append((physical, octets[place : place + room]))
            place += room
        for physical, piece in pieces:
            self.machine.write_guest(physical, piece)
            if self.machine.vm is not None:
                self.machine.vm.on_guest_frame_written(physical >> 12)
        return all(self.read_physical(physical, len(piece)) == piece for physical, piece in pieces)

    def text_at(self, gla: int, eip: int, count: int) -> list[tuple[int, bytes, str]]:
        """`count` instructions from a linear address on, whose first has an EIP: (EIP, bytes, text)."""
        rows = []
        bits = self.code_bits()
        for _ in range(count):
            octets = self.read(gla, LONGEST_INSTRUCTION)
            if not octets:
                break
            length, text = decode_text(octets, eip, bits)
            rows.append((eip, octets[:length], text))
            gla, eip = gla + length & M32, eip + length & M32
        return rows

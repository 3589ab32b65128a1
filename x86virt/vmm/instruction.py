"""The instruction at which the guest trapped: fetched through its own tables, decoded by the processor's decoder."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.code_layout import DECODED
from ..core.decode import DECODED_OK, TRUNCATED
from ..core.entries import decode_bytes
from ..core.layout import MAX_INSTRUCTION
from ..isa.registers import AR_DB, CS, DS, ZERO
from ..isa.rows import Row
from ..isa.table import ROWS
from .exits import GuestFault

if TYPE_CHECKING:
    from .virtual_machine import VirtualMachine


PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
REPEAT_PREFIXES = (0xF2, 0xF3)
STRING_OPCODES = {*range(0x6C, 0x70), *range(0xA4, 0xA8), *range(0xAA, 0xB0)}


@dataclass
class Instruction:
    """One decoded instruction: its table row and operand fields (widths in bits, lengths in bytes)."""

    row: Row
    octets: bytes
    width: int
    address_width: int
    reg: int
    rm: int
    has_memory: bool
    segment: int
    base: int
    index: int
    scale: int
    disp: int
    imm: int
    override: int  # the segment that a prefix names, -1 for none
    repeated: bool

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self.octets)

    @property
    def operation(self) -> str:
        """The system operation, INS or OUTS, `x87:` and that operation, an empty string for other instructions."""
        if self.row.operation.startswith("x87:"):
            return self.row.operation
        if self.row.operation in ("port_string", "port_string_byte"):
            return self.row.mnemonic
        return self.row.operation.removeprefix("system:") if self.row.operation.startswith("system:") else ""

    @property
    def string_segment(self) -> int:
        """The segment of a string instruction's source: DS, unless a prefix names another."""
        return DS if self.override < 0 else self.override


def repeats(octets: bytes) -> bool | None:
    """Whether an instruction is a string instruction under REP, REPE or REPNE; None if too few bytes are known."""
    repeated = False
    for octet in octets:
        if octet not in PREFIXES:
            return repeated and octet in STRING_OPCODES
        repeated = repeated or octet in REPEAT_PREFIXES
    return None


def fetch(vm: "VirtualMachine", count: int, eip: int | None = None) -> bytes:
    """`count` instruction bytes at the guest's CS:EIP, or at another offset of that segment."""
    gla = vm.segments.state(CS).base + (vm.vcpu.frame.eip if eip is None else eip)
    return vm.guest.read_bytes(gla, count, vm.vcpu.cpl == 3)


def decode_at_trap(vm: "VirtualMachine") -> Instruction | None:
    """Decode the trapping instruction; None if its bytes are none that the table knows."""
    return decode_at(vm, vm.vcpu.frame.eip)


def decode_at(vm: "VirtualMachine", eip: int) -> Instruction | None:
    """Decode the instruction at an offset of the guest's code segment; None if its bytes are none that the table knows."""
    page_room = 0x1000 - (vm.segments.state(CS).base + eip & 0xFFF)
    for count in (min(page_room, MAX_INSTRUCTION), MAX_INSTRUCTION):
        octets = fetch(vm, count, eip)
        decoded = vm.processor.code.decoded[0]
        decoded.window[: len(octets)] = list(octets)
        decoded.available = len(octets)
        decoded.rip = eip
        decoded.code_16 = int(vm.segments.state(CS).access & AR_DB == 0)
        why = decode_bytes(vm.processor.codes)
        if why == DECODED_OK:
            return from_record(decoded, octets)
        if why != TRUNCATED or eip + page_room > vm.segments.state(CS).limit:
            return None
    return None


def from_record(decoded: np.void, octets: bytes) -> Instruction:
    """Copy the decoder's record."""
    value = dict(zip(DECODED.names or (), decoded.item(), strict=True))
    return Instruction(
        row=ROWS[value["row"]],
        octets=octets[: value["length"]],
        width=value["width"],
        address_width=value["address_width"],
        reg=value["modrm_reg"],
        rm=value["modrm_rm"],
        has_memory=bool(value["has_memory"]),
        segment=value["segment"],
        base=value["base_register"],
        index=value["index_register"],
        scale=value["scale"],
        disp=value["disp"],
        imm=value["imm"],
        override=value["override"],
        repeated=bool(value["rep_prefix"]),
    )


def effective_address(vm: "VirtualMachine", instruction: Instruction) -> int:
    """The offset of the memory operand."""
    base = 0 if instruction.base == ZERO else vm.register(instruction.base)
    index = 0 if instruction.index == ZERO else vm.register(instruction.index)
    return (base + (index << instruction.scale) + instruction.disp) & ((1 << instruction.address_width) - 1)


def bytes_at_trap(vm: "VirtualMachine") -> str:
    """The bytes at which the guest trapped, in hexadecimal, for reports."""
    try:
        return fetch(vm, 8).hex(" ")
    except GuestFault:
        return "not readable"


def text_at_trap(vm: "VirtualMachine") -> str:
    """The disassembly of the instruction at which the guest trapped, for reports."""
    from ..disassembly import disassemble

    try:
        return disassemble(fetch(vm, MAX_INSTRUCTION), vm.vcpu.frame.eip)
    except GuestFault:
        return "not readable"

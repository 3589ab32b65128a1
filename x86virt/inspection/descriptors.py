"""Descriptor tables and task states as lines of text (SDM volume 3, sections 3.4.5, 3.5, 6.11, 7.2)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..isa.registers import (
    AR_DB,
    TYPE_ACCESSED,
    TYPE_CALL_GATE_16,
    TYPE_CALL_GATE_32,
    TYPE_CODE,
    TYPE_CONFORMING,
    TYPE_EXPAND_DOWN,
    TYPE_INTERRUPT_GATE_16,
    TYPE_INTERRUPT_GATE_32,
    TYPE_LDT,
    TYPE_READABLE,
    TYPE_TASK_GATE,
    TYPE_TRAP_GATE_16,
    TYPE_TRAP_GATE_32,
    TYPE_TSS_16,
    TYPE_TSS_16_BUSY,
    TYPE_TSS_32,
    TYPE_TSS_32_BUSY,
    TYPE_WRITABLE,
)
from ..vmm.descriptor import Descriptor

if TYPE_CHECKING:
    from .view import View

SYSTEM_TYPES = {
    TYPE_TSS_16: "16-bit TSS, available",
    TYPE_LDT: "LDT",
    TYPE_TSS_16_BUSY: "16-bit TSS, busy",
    TYPE_CALL_GATE_16: "16-bit call gate",
    TYPE_TASK_GATE: "task gate",
    TYPE_INTERRUPT_GATE_16: "16-bit interrupt gate",
    TYPE_TRAP_GATE_16: "16-bit trap gate",
    TYPE_TSS_32: "32-bit TSS, available",
    TYPE_TSS_32_BUSY: "32-bit TSS, busy",
    TYPE_CALL_GATE_32: "32-bit call gate",
    TYPE_INTERRUPT_GATE_32: "32-bit interrupt gate",
    TYPE_TRAP_GATE_32: "32-bit trap gate",
}
GATES = {
    TYPE_CALL_GATE_16, TYPE_CALL_GATE_32, TYPE_TASK_GATE, TYPE_INTERRUPT_GATE_16, TYPE_INTERRUPT_GATE_32,
    TYPE_TRAP_GATE_16, TYPE_TRAP_GATE_32,
}  # fmt: skip
REAL_VECTOR_BYTES, GATE_BYTES = 4, 8
TSS_32_FIELDS = (
    ("link", 0, 2), ("esp0", 4, 4), ("ss0", 8, 2), ("esp1", 12, 4), ("ss1", 16, 2), ("esp2", 20, 4), ("ss2", 24, 2),
    ("cr3", 28, 4), ("eip", 32, 4), ("eflags", 36, 4), ("eax", 40, 4), ("ecx", 44, 4), ("edx", 48, 4), ("ebx", 52, 4),
    ("esp", 56, 4), ("ebp", 60, 4), ("esi", 64, 4), ("edi", 68, 4), ("es", 72, 2), ("cs", 76, 2), ("ss", 80, 2),
    ("ds", 84, 2), ("fs", 88, 2), ("gs", 92, 2), ("ldt", 96, 2), ("trap", 100, 2), ("io_map", 102, 2),
)  # fmt: skip
TSS_16_NAMES = (
    "link", "sp0", "ss0", "sp1", "ss1", "sp2", "ss2", "ip", "flags", "ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "es",
    "cs", "ss", "ds", "ldt",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line: a selector, a vector or a field's name, and what stands there."""

    name: str
    text: str


def descriptor_rows(view: "View", base: int, limit: int, local: bool = False) -> list[Row]:
    """The descriptors of a table that are not all zero, by selector."""
    octets = view.read(base, min(limit, 0xFFFF) + 1)
    rows = []
    for place in range(0, len(octets) - 7, 8):
        low, high = (int.from_bytes(octets[place + at : place + at + 4], "little") for at in (0, 4))
        if low | high:
            rows.append(Row(f"{place | local << 2:04x}", describe(low, high)))
    return rows


def describe(low: int, high: int) -> str:
    """A descriptor or gate in words."""
    descriptor = Descriptor(low, high)
    present = "" if descriptor.is_present else ", not present"
    if descriptor.is_segment:
        return segment_text(descriptor) + present
    kind = descriptor.kind
    name = SYSTEM_TYPES.get(kind, f"reserved type {kind}")
    if kind not in GATES:
        return f"base {descriptor.base:08x}  limit {descriptor.limit:08x}  dpl {descriptor.dpl}  {name}{present}"
    if kind == TYPE_TASK_GATE:
        return f"to {low >> 16:04x}           dpl {descriptor.dpl}  {name}{present}"
    offset = low & 0xFFFF | (high & 0xFFFF0000 if kind & 8 else 0)
    return f"to {low >> 16:04x}:{offset:08x}  dpl {descriptor.dpl}  {name}{present}"


def segment_text(descriptor: Descriptor) -> str:
    """A code or data segment in words."""
    kind = descriptor.kind
    bits = "32-bit" if descriptor.access & AR_DB else "16-bit"
    if kind & TYPE_CODE:
        words = ["code", bits, "readable" if kind & TYPE_READABLE else "execute-only"]
        words += ["conforming"] if kind & TYPE_CONFORMING else []
    else:
        words = ["data", bits, "writable" if kind & TYPE_WRITABLE else "read-only"]
        words += ["expand-down"] if kind & TYPE_EXPAND_DOWN else []
    words += ["accessed"] if kind & TYPE_ACCESSED else []
    return f"base {descriptor.base:08x}  limit {descriptor.limit:08x}  dpl {descriptor.dpl}  {', '.join(words)}"


def gate_rows(view: "View", base: int, limit: int) -> list[Row]:
    """The entries of the interrupt table that are not all zero, by vector: gates, or the vectors of real-address mode."""
    protected = view.in_protected_mode()
    size = GATE_BYTES if protected else REAL_VECTOR_BYTES
    octets = view.read(base, min(limit + 1, 256 * size))
    rows = []
    for place in range(0, len(octets) - size + 1, size):
        low = int.from_bytes(octets[place : place + 4], "little")
        high = int.from_bytes(octets[place + 4 : place + 8], "little") if protected else 0
        if low | high:
            text = describe(low, high) if protected else f"to {low >> 16:04x}:{low & 0xFFFF:04x}"
            rows.append(Row(f"{place // size:02x}", text))
    return rows


def task_rows(view: "View", base: int, limit: int, access: int) -> list[Row]:
    """The fields of a task-state segment."""
    if access & 0xF in (TYPE_TSS_16, TYPE_TSS_16_BUSY):
        fields = [(name, 2 * place, 2) for place, name in enumerate(TSS_16_NAMES)]
    else:
        fields = list(TSS_32_FIELDS)
    rows = []
    for name, offset, n in fields:
        octets = view.read(base + offset, n) if offset + n - 1 <= limit else b""
        if len(octets) == n:
            rows.append(Row(name, f"{int.from_bytes(octets, 'little'):0{2 * n}x}"))
    return rows

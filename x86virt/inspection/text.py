"""What a machine holds as lines of text for people: registers, TLBs, ledger, devices, and what waits for the processor."""

from typing import TYPE_CHECKING

import numpy as np

from ..core.layout import N_TLB_TAGS, NEVER
from ..isa.registers import (
    AR_DB,
    AR_DPL_SHIFT,
    AR_P,
    AR_UNUSABLE,
    EFLAGS_IF,
    EFLAGS_IOPL_SHIFT,
    PTE_D,
    PTE_G,
    PTE_RW,
    PTE_US,
    SEGMENT_REGISTERS,
)
from ..isa.vectors import (
    KIND_EXCEPTION,
    KIND_EXTERNAL,
    KIND_PRIVILEGED_EXCEPTION,
    KIND_SOFTWARE_EXCEPTION,
    KIND_SOFTWARE_INTERRUPT,
)
from ..ledger import Ledger

if TYPE_CHECKING:
    from ..machine import Machine
    from ..processor import Processor
    from .view import View

TICKS = 64
TLB_NAMES = ("data, 4 KB", "data, large", "data, second level", "code, 4 KB", "code, large", "code, second level")
FLAG_NAMES = (
    (0, "CF"), (2, "PF"), (4, "AF"), (6, "ZF"), (7, "SF"), (8, "TF"), (9, "IF"), (10, "DF"), (11, "OF"), (14, "NT"),
    (16, "RF"), (17, "VM"), (18, "AC"), (19, "VIF"), (20, "VIP"), (21, "ID"),
)  # fmt: skip
CR0_NAMES = (
    (0, "PE"), (1, "MP"), (2, "EM"), (3, "TS"), (4, "ET"), (5, "NE"), (16, "WP"), (18, "AM"), (29, "NW"), (30, "CD"),
    (31, "PG"),
)  # fmt: skip
CR4_NAMES = (
    (0, "VME"), (1, "PVI"), (2, "TSD"), (3, "DE"), (4, "PSE"), (5, "PAE"), (6, "MCE"), (7, "PGE"), (8, "PCE"),
    (9, "OSFXSR"), (10, "OSXMMEXCPT"),
)  # fmt: skip
KINDS = {
    KIND_EXTERNAL: "interrupt", KIND_EXCEPTION: "exception", KIND_SOFTWARE_INTERRUPT: "software interrupt",
    KIND_PRIVILEGED_EXCEPTION: "privileged software exception", KIND_SOFTWARE_EXCEPTION: "software exception",
}  # fmt: skip
MOST_ITEMS = 16  # of an array in a device's record


def bit_names(value: int, names: tuple[tuple[int, str], ...]) -> str:
    """The names of the bits that are set."""
    return " ".join(name for bit, name in names if value >> bit & 1)


def cycles_text(ticks: int) -> str:
    """Ticks as cycles."""
    return f"{ticks // TICKS:,}" if ticks % TICKS == 0 else f"{ticks / TICKS:,.2f}"


def register_lines(view: "View") -> list[str]:
    """General, segment and system registers."""
    registers, segments = view.state()
    rows = []
    for names in (("eax", "ebx", "ecx", "edx"), ("esi", "edi", "ebp", "esp")):
        rows.append("  ".join(f"{name} {registers[name]:08x}" for name in names))
    flags = registers["eflags"]
    level = f"iopl {flags >> EFLAGS_IOPL_SHIFT & 3}"
    rows.append(f"eip {registers['eip']:08x}  cpl {registers['cpl']}")
    rows.append(f"eflags {flags:08x}  {level}  {bit_names(flags, FLAG_NAMES)}")
    for name in SEGMENT_REGISTERS:
        segment = segments[name]
        if segment.access & AR_UNUSABLE:
            rows.append(f"{name:<4} {segment.selector:04x}  unusable")
            continue
        dpl, size = segment.access >> AR_DPL_SHIFT & 3, "32-bit" if segment.access & AR_DB else "16-bit"
        present = "" if segment.access & AR_P else "  not present"
        rows.append(
            f"{name:<4} {segment.selector:04x}  base {segment.base:08x}  limit {segment.limit:08x}  "
            f"access {segment.access:04x}  dpl {dpl}  {size}{present}"
        )
    rows.append(f"gdtr base {registers['gdtr_base']:08x}  limit {registers['gdtr_limit']:04x}")
    rows.append(f"idtr base {registers['idtr_base']:08x}  limit {registers['idtr_limit']:04x}")
    rows.append(f"cr0 {registers['cr0']:08x}  {bit_names(registers['cr0'], CR0_NAMES)}")
    rows.append(f"cr2 {registers['cr2']:08x}  cr3 {registers['cr3']:08x}")
    rows.append(f"cr4 {registers['cr4']:08x}  {bit_names(registers['cr4'], CR4_NAMES)}")
    rows.append(f"efer {registers['efer']:08x}")
    rows.append("  ".join(f"{name} {registers[name]:08x}" for name in ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7")))
    return rows


def tlb_lines(processor: "Processor") -> list[str]:
    """What each TLB holds, by linear page."""
    cpu = processor.state.view(np.ndarray)[0]
    rows = []
    for unit, name in enumerate(TLB_NAMES):
        shape = cpu["tlb_units"][unit]
        capacity = int(shape["sets"] * shape["ways"])
        if capacity == 0:
            continue
        entries = cpu["tlb"][int(shape["first"]) : int(shape["first"]) + capacity]
        same = entries["generation"] == cpu["tlb_generation"]
        lasting = (entries["rights"] & PTE_G != 0) & (entries["generation"] >= cpu["tlb_full_flush"])
        lasting &= entries["generation"] % N_TLB_TAGS == cpu["tlb_tag"]
        valid = entries[(entries["page"] >= 0) & (same | lasting)]
        rows.append(f"{name}: {len(valid)} of {capacity} entries, {int(shape['ways'])} ways")
        shift = int(shape["shift"])
        for entry in np.sort(valid, order="page"):
            rows.append(
                f"  {int(entry['page']) << shift & 0xFFFFFFFF:08x} -> {int(entry['frame']):08x}  "
                f"{rights_text(int(entry['rights']))}"
            )
    return rows


def rights_text(rights: int) -> str:
    """The rights of a TLB entry in words."""
    words = ["writable" if rights & PTE_RW else "read-only", "user" if rights & PTE_US else "supervisor"]
    words += ["dirty"] if rights & PTE_D else []
    return ", ".join(words + (["global"] if rights & PTE_G else []))


def ledger_lines(ledger: Ledger, most: int) -> list[str]:
    """The events that took most cycles, and the sum of all."""
    rows = ledger.formula()
    total = ledger.total_ticks()
    lines = [f"{'event':<36}{'count':>14}{'cycles':>18}{'share':>8}"]
    for row in rows[:most]:
        share = 100 * float(row.cycles) * TICKS / total if total else 0.0
        lines.append(f"{row.event:<36}{row.frequency:>14,}{float(row.cycles):>18,.2f}{share:>7.1f}%")
    if len(rows) > most:
        lines.append(f"... and {len(rows) - most} more events")
    lines.append(f"{'all':<36}{'':>14}{cycles_text(total):>18}")
    lines.append("by mode: " + ", ".join(f"{n} {cycles_text(t)}" for n, t in ledger.ticks_by_mode().items() if t))
    return lines


def device_lines(board: np.record) -> list[str]:
    """Every field of the board's records that is neither 0 nor never."""
    row = np.asarray(board)
    lines: list[str] = []
    plain = []
    for name in row.dtype.names or ():
        value = row[name]
        if value.dtype.names is None and value.ndim == 0:
            plain += field_words(name, int(value))
        else:
            lines += record_lines(name, value)
    return ["board: " + ", ".join(plain), *lines]


def record_lines(name: str, value: np.ndarray) -> list[str]:
    """A device's record, or each of several."""
    if value.dtype.names is None:
        return array_lines(name, value)
    if value.ndim:
        return [line for number, one in enumerate(value) for line in record_lines(f"{name}[{number}]", one)]
    words, lines = [], []
    for field in value.dtype.names:
        inner = value[field]
        if inner.dtype.names is None and inner.ndim == 0:
            words += field_words(field, int(inner))
        else:
            lines += record_lines(f"{name}.{field}", inner)
    return [f"{name}: {', '.join(words) or 'all 0'}", *lines]


def array_lines(name: str, value: np.ndarray) -> list[str]:
    """A short array; of a long one only how much of it is not 0."""
    if not value.any():
        return []
    if value.size > MOST_ITEMS:
        return [f"{name}: {value.size} items, {np.count_nonzero(value)} not 0"]
    return [f"{name}: {' '.join(shown(int(one)) for one in value.reshape(-1))}"]


def field_words(name: str, value: int) -> list[str]:
    """A field and its value; nothing for what is 0 or never."""
    return [f"{name} {shown(value)}"] if value not in (0, NEVER) else []


def shown(value: int) -> str:
    """A number: small ones in decimal, others in hexadecimal too."""
    return str(value) if -10 < value < 10 else f"{value} ({value:#x})"


def waiting_lines(machine: "Machine", view: "View") -> list[str]:
    """What waits for the processor, and what it held off: interrupts, traps, timers."""
    cpu, board = machine.processor.cpu, machine.board
    registers = view.registers()
    halted = bool(cpu.halted) if machine.vm is None else bool(machine.vm.vcpu.halted)
    now = int(cpu.ticks)
    rows = [
        f"interrupts {'enabled' if registers['eflags'] & EFLAGS_IF else 'disabled'} (IF)"
        f"{', the processor is halted' if halted else ''}",
        f"interrupt shadow {int(cpu.shadow)}, debug trap pending {int(cpu.debug_pending):#x}",
    ]
    for name, pic in zip(("master", "slave"), board.pic, strict=True):
        rows.append(
            f"PIC {name}: requested {int(pic.irr):02x}, in service {int(pic.isr):02x}, masked {int(pic.imr):02x}"
        )
    for name in ("deadline", "timer"):
        when = int(cpu[name])
        if when < NEVER:
            rows.append(f"{name} at cycle {cycles_text(when)}, in {cycles_text(max(0, when - now))} cycles")
    return [*rows, f"last event{'' if machine.vm is None else ' of the processor (not of the guest)'}: {event_text(cpu)}"]


def event_text(cpu: np.record) -> str:
    """The interrupt or exception that was delivered last."""
    if cpu.event_kind == KIND_EXTERNAL and not cpu.event_vector:
        return "none yet"
    kind = KINDS.get(int(cpu.event_kind), "event")
    return f"{kind} {int(cpu.event_vector):#04x}" + (f", error code {int(cpu.event_error):#x}" if cpu.event_has_error else "")

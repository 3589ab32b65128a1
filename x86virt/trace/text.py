"""Records as lines for people, for a given width."""

import textwrap
from collections.abc import Iterator, Sequence

from ..inspection.translated import IDENTICAL
from ..isa.events import TICKS_PER_CYCLE
from ..symbols import Symbols
from ..vmm.layout import VMM_BASE
from .record import Charge, ExitWork, Record, Transition

NARROW = 110  # below that many columns symbols stand on lines of their own
INDENT = " " * 15
MODES = {"guest_user": "user", "guest_kernel": "kernel", "vmm": "vmm", "idle": "idle", "domain_0": "domain 0"}
SHORT_MODES = {"real": "real", "virtual-8086": "v86"}


class TextFormat:
    """Makes the lines of one trace."""

    def __init__(self, symbols: Symbols, width: int) -> None:
        self.symbols, self.width = symbols, max(width, 40)
        self.wide = width >= NARROW
        self.bytes_width = 14
        self.symbol_width = 22 if self.wide and symbols else 0
        self.last_symbol = ""

    def lines(self, record: Record) -> Iterator[str]:
        """The lines of one record."""
        if record.kind == "before":
            yield from self.before(record)
        elif record.kind == "end":
            yield from self.end(record)
        else:
            yield from self.label(record)
            yield from self.first_line(record)
            yield from self.consequences(record)

    def heading(self) -> str:
        """The names of the columns."""
        symbol = f"{'symbol':<{self.symbol_width}} " if self.symbol_width else ""
        return f"{'cycle':>14} {'ring':<8} {'address':<8} {symbol}{'bytes':<{self.bytes_width}} instruction; events, cycles"

    def before(self, record: Record) -> Iterator[str]:
        """What was not looked at, and the columns."""
        if record.n or record.charges:
            yield f"{cycles(record.tick)} cycles and {record.n:,} guest instructions passed before this"
        yield self.heading()

    def end(self, record: Record) -> Iterator[str]:
        """How the run stands."""
        state = "the guest would go on" if record.outcome == "running" else record.outcome
        yield f"{cycles(record.tick)} end: {state}, {record.n:,} guest instructions"

    def label(self, record: Record) -> Iterator[str]:
        """On a narrow terminal, the function's name when it changes."""
        if self.wide or not self.symbols or record.kind == "exit":
            return
        found = self.symbols.at(record.place)
        name = found[0].split(".")[0] if found else ""
        if name != self.last_symbol:
            self.last_symbol = name
            if name:
                yield f"{'':14} {self.symbols.text(record.place)}:"

    def first_line(self, record: Record) -> Iterator[str]:
        """Cycle, ring, address, bytes, text, and the events if they fit."""
        head = f"{cycles(record.tick)} {self.ring(record):<8} {record.address:08x} "
        if self.symbol_width:
            head += f"{self.short_symbol(record):<{self.symbol_width}} "
        octets = record.octets.hex() if record.kind == "instruction" else ""
        head += f"{octets:<{self.bytes_width if octets or self.wide else 0}} {self.title(record)}"
        origin = self.origin(record)
        if len(head) + len(origin) <= self.width:
            head, origin = head + origin, ""
        pieces = [charge_text(charge, record.mode) for charge in record.charges]
        whole = head + "  ; " + ", ".join(pieces)
        if pieces and len(whole) <= self.width and not origin:
            yield whole
            return
        yield head.rstrip()
        if origin:
            yield from textwrap.wrap(origin.strip(), self.width, initial_indent=INDENT, subsequent_indent=f"{INDENT}  ")
        yield from self.wrapped("; ", pieces)

    def ring(self, record: Record) -> str:
        """Ring, what runs there, and the mode of the processor if it is not the usual one."""
        mode = "interp" if record.interpreted else MODES[record.mode]
        if record.kind == "exit":
            mode = "vmm"
        return f"{0 if record.kind == 'exit' else record.ring} {SHORT_MODES.get(record.processor_mode, mode)}"

    def title(self, record: Record) -> str:
        """What stands in place of the instruction."""
        if record.kind == "instruction":
            return record.text
        if record.kind == "exit":
            return "" if record.exit is None else self.exit_title(record.exit)
        if record.kind == "idle":
            return "(halted)"
        return "(between instructions)"

    @staticmethod
    def origin(record: Record) -> str:
        """Behind an instruction of the cache: the guest's that it stands for, and what it is."""
        translated = record.translated
        if translated is None or record.address != translated.address:
            return ""
        guest = translated.guest
        if guest is None:
            return f"  | {translated.role}"
        text = "" if translated.part == IDENTICAL else f"{guest.text}: "
        return f"  | {guest.eip:08x} {text}{translated.role}"

    def exit_title(self, exit: ExitWork) -> str:
        """The reason, and what the processor told."""
        text = f"exit {exit.reason}"
        if exit.error:
            text += f", error {exit.error:#x}"
        return text if exit.gla is None else f"{text} at {exit.gla:#x}"

    def consequences(self, record: Record) -> Iterator[str]:
        """Further lines: deliveries, the VMM's work, divergences, remarks."""
        for transition in record.transitions:
            yield from self.arrow(self.transition(transition))
        if record.exit is not None:
            for line in self.exit_lines(record.exit):
                yield from self.arrow(line)
        for line in record.divergences:
            yield from self.arrow(f"not as on the bare machine: {line}")
        for line in record.remarks:
            yield from self.arrow(line)

    def transition(self, transition: Transition) -> str:
        """From where to where."""
        text = transition.what
        if transition.ring_before != transition.ring_after:
            text += f": ring {transition.ring_before} -> ring {transition.ring_after}"
        if transition.mode_before != transition.mode_after:
            text += f", {transition.mode_before} -> {transition.mode_after} mode"
        return f"{text}, {self.where(transition.address)}"

    def exit_lines(self, exit: ExitWork) -> Iterator[str]:
        """What the VMM did for the guest, and where the guest goes on."""
        if exit.emulated:
            yield f"the VMM performs {exit.emulated}"
        if exit.delivered is not None:
            yield f"the VMM delivers {exit.delivered.text} through the guest's IDT"
        if exit.halted:
            yield "the guest's processor is halted"
            return
        rings = f"ring {exit.ring_after}"
        if exit.ring_before != exit.ring_after:
            rings = f"ring {exit.ring_before} -> ring {exit.ring_after}"
        yield f"the guest goes on in its {rings}, {self.where(exit.address_after)}"

    def where(self, address: int) -> str:
        """An address and its name."""
        name = self.symbol(address)
        return f"{address:08x}" + (f" {name}" if name else "")

    def symbol(self, address: int) -> str:
        """The name of an address."""
        return "VMM" if address >= VMM_BASE else self.symbols.text(address)

    def short_symbol(self, record: Record) -> str:
        """The name for its column: of a long one with a local label, that label."""
        name = self.symbol(record.place) if record.is_vmms else self.symbols.text(record.place)
        if len(name) > self.symbol_width and "." in name:
            name = name[name.index(".", 1) :]
        return name[: self.symbol_width]

    def arrow(self, text: str) -> Iterator[str]:
        """A consequence, on as many lines as it needs."""
        yield from textwrap.wrap(text, self.width, initial_indent=f"{INDENT}-> ", subsequent_indent=f"{INDENT}   ")

    def wrapped(self, mark: str, pieces: Sequence[str]) -> Iterator[str]:
        """Events on as many lines as they need."""
        line = ""
        for piece in pieces:
            grown = f"{line}, {piece}" if line else f"{INDENT}{mark}{piece}"
            if line and len(grown) > self.width:
                yield line
                grown = f"{INDENT}{mark}{piece}"
            line = grown
        if line:
            yield line


def cycles(ticks: int) -> str:
    """Ticks as cycles, for the first column."""
    return f"{ticks / TICKS_PER_CYCLE:>14,.2f}"


def charge_text(charge: Charge, mode: str) -> str:
    """An event: its name, its count unless 1, its cycles; its mode if that is not the record's."""
    amount = f"{charge.ticks / TICKS_PER_CYCLE:.2f}".rstrip("0").rstrip(".")
    count = "" if charge.count in (0, 1) else f"{charge.count} x "
    other = "" if charge.mode == mode or charge.mode == "vmm" else f" ({MODES[charge.mode]})"
    return f"{count}{charge.event} {amount}{other}"

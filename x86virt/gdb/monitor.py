"""The `monitor` commands: what gdb has no word for, as text for people. None of them changes the machine."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from ..inspection import TranslatedCode, View, descriptor_rows, gate_rows, task_rows, walk
from ..inspection.text import cycles_text, device_lines, ledger_lines, register_lines, tlb_lines, waiting_lines
from ..inspection.unit_text import NOT_TRANSLATED, UnitText, occupancy_lines
from ..inspection.vmm_text import vmm_lines
from ..isa.registers import AR_UNUSABLE
from ..vmm.exits import VmmError
from .travel import Travel

DEFAULT_EVENTS, MOST_EVENTS = 12, 500
DEFAULT_INSTRUCTIONS, MOST_INSTRUCTIONS = 8, 200


class MonitorError(ValueError):
    """A monitor command that cannot be done: one line says why."""


@dataclass(frozen=True)
class Command:
    """A monitor command: its arguments, what it shows, and the function that makes the lines."""

    arguments: str
    sentence: str
    lines: Callable[[list[str]], list[str]]


class Monitor:
    """The monitor commands of one client."""

    def __init__(self, travel: Travel) -> None:
        self.travel, self.machine = travel, travel.machine
        self.view: View = travel.execution.view
        self.earlier = self.machine.ledger()
        self.commands = {
            "help": Command("", "these commands", self.help),
            "regs": Command("", "registers, segments and system registers of the guest", self.registers),
            "where": Command("[COUNT]", "the next instructions, whatever the code segment's base and size", self.where),
            "cycles": Command("", "cycles and instructions so far, and where the history begins", self.cycles),
            "ledger": Command("[COUNT] [since]", "what took most cycles so far, or since the last time", self.ledger),
            "events": Command("", "what waits for the processor: interrupts, traps, timers", self.events),
            "walk": Command("ADDRESS", "the page walk of a linear address, step by step", self.walk),
            "tlb": Command("", "what the TLBs hold", self.tlb),
            "gdt": Command("", "the global descriptor table", self.gdt),
            "ldt": Command("", "the local descriptor table", self.ldt),
            "idt": Command("", "the interrupt descriptor table, or the vectors of real-address mode", self.idt),
            "tss": Command("", "the task-state segment", self.tss),
            "devices": Command("", "the devices that the guest sees", self.devices),
            "vmm": Command("", "what the VMM really holds", self.vmm),
            "unit": Command("[ADDRESS]", "translated code beside the guest's, here or at a linear address", self.unit),
            "translation": Command("", "how full the translation cache is, and what the translator has done", self.translation),
            "console": Command("", "all that the guest has printed on its debug ports and first serial port", self.console),
            "screen": Command("", "the text screen", self.screen),
        }

    def run(self, line: str) -> str:
        """The text that answers a line."""
        words = line.split()
        name = words[0] if words else "help"
        try:
            return "".join(f"{row}\n" for row in self.find(name).lines(words[1:]))
        except (MonitorError, VmmError) as error:
            return f"monitor {name}: {error}\n"

    def find(self, name: str) -> Command:
        """The command of a name or of its unambiguous beginning."""
        if name in self.commands:
            return self.commands[name]
        begun = [one for one in self.commands if one.startswith(name)]
        if len(begun) == 1:
            return self.commands[begun[0]]
        near = begun or difflib.get_close_matches(name, self.commands, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "see monitor help"
        raise MonitorError(f"no such command; {hint}")

    def one_line(self) -> str:
        """Where the machine is, in a few words."""
        cpu = self.machine.processor.cpu
        return f"{int(cpu.retired):,} instructions, {cycles_text(int(cpu.ticks))} cycles"

    # -- arguments ------------------------------------------------------------------------------------------------

    @staticmethod
    def count(words: list[str], default: int, most: int) -> int:
        """The first argument as a count."""
        if not words:
            return default
        if not words[0].isascii() or not words[0].isdigit() or not 1 <= int(words[0][:9]) <= most:
            raise MonitorError(f"{words[0]:.40} is not a number from 1 to {most}")
        return int(words[0])

    def address(self, words: list[str]) -> int:
        """An argument that is a number or a register's name."""
        if len(words) != 1:
            raise MonitorError("give one linear address, such as 0x101000 or esp")
        registers = self.view.registers()
        name = words[0].lstrip("$").lower()
        if name in registers:
            return registers[name] & 0xFFFFFFFF
        try:
            value = int(words[0][:20], 0)
        except ValueError:
            raise MonitorError(f"{words[0]:.40} is neither a number nor a register") from None
        if not 0 <= value <= 0xFFFFFFFF:
            raise MonitorError(f"{words[0]:.40} is no linear address: it has 32 bits")
        return value

    # -- commands -------------------------------------------------------------------------------------------------

    def help(self, words: list[str]) -> list[str]:
        """What there is."""
        rows = [f"  {f'{name} {one.arguments}':<26}{one.sentence}" for name, one in self.commands.items()]
        return ["monitor commands (a name's beginning is enough):", *rows]

    def registers(self, words: list[str]) -> list[str]:
        """All registers."""
        return register_lines(self.view)

    def where(self, words: list[str]) -> list[str]:
        """Disassembly from the next instruction on."""
        registers, segments = self.view.state()
        count = self.count(words, DEFAULT_INSTRUCTIONS, MOST_INSTRUCTIONS)
        rows = self.view.text_at(self.view.instruction_address(), registers["eip"], count)
        selector = segments["cs"].selector
        lines = [
            f"{'=>' if not place else '  '} {selector:04x}:{eip:08x} {self.name_of(segments['cs'].base + eip):<20} "
            f"{octets.hex(' '):<24} {text}"
            for place, (eip, octets, text) in enumerate(rows)
        ]
        return lines or [f"=> {selector:04x}:{registers['eip']:08x}  not mapped"]

    def name_of(self, address: int) -> str:
        """The symbol at or below a linear address, empty if none is near."""
        return self.travel.symbols.text(address & 0xFFFFFFFF)

    def cycles(self, words: list[str]) -> list[str]:
        """Time, and the reach of going back."""
        place, begin = self.travel.place, self.travel.history.begin
        modes = ", ".join(f"{n} {cycles_text(t)}" for n, t in self.machine.ledger().ticks_by_mode().items() if t)
        return [
            f"{self.one_line()} ({modes})",
            f"the history begins at instruction {begin.retired:,}, {place.retired - begin.retired:,} ago",
            f"outcome: {self.machine.outcome or 'running'}",
        ]

    def ledger(self, words: list[str]) -> list[str]:
        """The largest events."""
        since = "since" in words
        count = self.count([word for word in words if word != "since"], DEFAULT_EVENTS, MOST_EVENTS)
        now = self.machine.ledger()
        shown = now - self.earlier if since else now
        self.earlier = now
        if since and (shown.count < 0).any():
            return ["the machine has gone back since the last look: there is nothing to subtract"]
        return ledger_lines(shown, count)

    def events(self, words: list[str]) -> list[str]:
        """What waits."""
        return waiting_lines(self.machine, self.view)

    def walk(self, words: list[str]) -> list[str]:
        """A page walk; under a VMM of the shadow tables too."""
        gla = self.address(words)
        rows = walk(self.view.tables(), gla).lines()
        if self.machine.vm is None:
            return rows
        return ["the guest's tables:", *rows, "the processor's (shadow) tables:", *walk(self.view.shadow_tables(), gla).lines()]

    def tlb(self, words: list[str]) -> list[str]:
        """All valid entries."""
        return tlb_lines(self.machine.processor)

    def gdt(self, words: list[str]) -> list[str]:
        """The GDT."""
        registers = self.view.registers()
        return self.table("gdt", registers["gdtr_base"], registers["gdtr_limit"], False)

    def ldt(self, words: list[str]) -> list[str]:
        """The LDT."""
        segment = self.view.segments()["ldtr"]
        if segment.access & AR_UNUSABLE or segment.selector & 0xFFFC == 0:
            return ["no LDT: LDTR holds a null selector"]
        return self.table("ldt", segment.base, segment.limit, True)

    def table(self, name: str, base: int, limit: int, local: bool) -> list[str]:
        """A descriptor table."""
        rows = descriptor_rows(self.view, base, limit, local)
        return [f"{name} at {base:08x}, limit {limit:04x}", *(f"  {row.name}  {row.text}" for row in rows)]

    def idt(self, words: list[str]) -> list[str]:
        """The IDT."""
        registers = self.view.registers()
        base, limit = registers["idtr_base"], registers["idtr_limit"]
        rows = gate_rows(self.view, base, limit)
        return [f"idt at {base:08x}, limit {limit:04x}", *(f"  {row.name}  {row.text}" for row in rows)]

    def tss(self, words: list[str]) -> list[str]:
        """The TSS."""
        segment = self.view.segments()["tr"]
        if segment.access & AR_UNUSABLE or segment.selector & 0xFFFC == 0:
            return ["no task: TR was never loaded"]
        rows = task_rows(self.view, segment.base, segment.limit, segment.access)
        head = f"tss {segment.selector:04x} at {segment.base:08x}, limit {segment.limit:04x}"
        return [head, *(f"  {row.name:<7} {row.text}" for row in rows)]

    def devices(self, words: list[str]) -> list[str]:
        """The board."""
        return device_lines(self.machine.board)

    def vmm(self, words: list[str]) -> list[str]:
        """The VMM."""
        return vmm_lines(self.machine)

    def unit(self, words: list[str]) -> list[str]:
        """The units of the guest's next instruction, or of another."""
        code = TranslatedCode(self.machine)
        if code.translation is None:
            return [NOT_TRANSLATED]
        gla = self.address(words) if words else self.view.instruction_address()
        text = UnitText(code, self.travel.symbols)
        units = code.units_of(gla)
        if not units:
            return [f"no unit of the code at {text.where(gla)}: it has not run yet, or runs as it is in ring 3"]
        return [line for number, unit in enumerate(units) for line in (*([""] if number else []), *text.lines(unit))]

    def translation(self, words: list[str]) -> list[str]:
        """The translation cache."""
        return occupancy_lines(self.machine)

    def console(self, words: list[str]) -> list[str]:
        """The console's text."""
        octets = self.machine.console() + self.machine.serial()
        return octets.decode("utf-8", "replace").splitlines() or ["nothing was printed yet"]

    def screen(self, words: list[str]) -> list[str]:
        """The screen's rows."""
        return list(self.machine.screen().lines) or ["the screen is blank"]

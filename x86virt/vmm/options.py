"""What a strategy leaves to be chosen: `trap-and-emulate,shadow=trace` is trap-and-emulate with one option chosen.

A strategy declares its options in `options`, each with its default. Choosing makes a class derived from the strategy's,
whose name says what was chosen: options in the order of their declaration, those that stay at their default left out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import StrategyError, near_matches, show

if TYPE_CHECKING:
    from . import Strategy

Value = str | bool | int
CHOSEN = re.compile(r"(?P<strategy>.*?)(?P<options>(?:,[A-Za-z_]\w*=[\w-]*)*)", re.DOTALL)
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    name: str
    sentence: str
    words: tuple[str, ...]
    default: Value

    @property
    def expected(self) -> str:
        """What may be given."""
        return "|".join(self.words)

    def read(self, text: str) -> Value:
        """The value that a text stands for. Raises ValueError."""
        if text not in self.words:
            raise ValueError(text)
        return text

    def text(self, value: Value) -> str:
        """The text that stands for a value."""
        return str(value)


@dataclass(frozen=True)
class Switch:
    """Something on or off."""

    name: str
    sentence: str
    default: Value
    expected = "on|off"

    def read(self, text: str) -> Value:
        """The value that a text stands for. Raises ValueError."""
        if text not in ("on", "off"):
            raise ValueError(text)
        return text == "on"

    def text(self, value: Value) -> str:
        """The text that stands for a value."""
        return "on" if value else "off"


@dataclass(frozen=True)
class Size:
    """A number of bytes, as in 65536, 64K or 1M."""

    name: str
    sentence: str
    default: Value
    least: int
    most: int

    @property
    def expected(self) -> str:
        """What may be given."""
        return f"{self.text(self.least)} to {self.text(self.most)} bytes"

    def read(self, text: str) -> Value:
        """The value that a text stands for. Raises ValueError."""
        match = re.fullmatch(r"([0-9]{1,12})([KM]?)", text, re.ASCII)
        if match is None:
            raise ValueError(text)
        value = int(match[1]) * UNITS[match[2]]
        if not self.least <= value <= self.most:
            raise ValueError(text)
        return value

    def text(self, value: Value) -> str:
        """The text that stands for a value: the largest unit of which it is a multiple."""
        for unit in ("M", "K"):
            if value and int(value) % UNITS[unit] == 0:
                return f"{int(value) // UNITS[unit]}{unit}"
        return str(value)


@dataclass(frozen=True)
class Count:
    """A number of things."""

    name: str
    sentence: str
    default: Value
    least: int
    most: int

    @property
    def expected(self) -> str:
        """What may be given."""
        return f"{self.least} to {self.most}"

    def read(self, text: str) -> Value:
        """The value that a text stands for. Raises ValueError."""
        if not re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) or not self.least <= int(text) <= self.most:
            raise ValueError(text)
        return int(text)

    def text(self, value: Value) -> str:
        """The text that stands for a value."""
        return str(value)


Option = Choice | Switch | Size | Count

# KVM gives a shadow page up at the third write to the guest's page between two uses of it (write_flooding_count in
# arch/x86/kvm/mmu/mmu.c of Linux; last_pt_write_count before): the page is most likely no table any more, or is being filled.
MOST_WRITES = 3

VPID = Switch("vpid", "The processor tells the guest's translations from the VMM's, if it can, and keeps them.", True)
P2M = Choice("p2m", "Which machine frames the guest has.", ("scattered", "contiguous"), "scattered")

PARAVIRTUAL_PATHS = (
    "trap_dispatch", "hypercall", "multicall", "small_hypercall", "set_trap_table", "set_gdt", "update_descriptor",
    "stack_switch", "fpu_taskswitch", "bounce", "upcall", "hypercall_iret", "forced_cpuid", "table_update",
    "directory_update", "machphys_update", "mapping_update", "table_scan", "entry_reference", "extended_operation",
    "base_switch", "writable_table", "memory_op", "event_channel_op", "event_send", "grant_map", "grant_unmap",
    "grant_copy", "set_timer", "time_update", "timer_interrupt", "physical_interrupt", "schedule", "domain_switch",
    "console_write",
)  # fmt: skip
SHADOW_PATHS = (
    "shadow_fill", "shadow_table", "shadow_flush", "shadow_switch", "shadow_sync", "shadow_check", "traced_write",
)  # fmt: skip

# What a VMM on VMX or SVM does at its exits, and with nested tables.
HARDWARE_PATHS = (
    "exit_dispatch", "exit_cpuid", "exit_port", "exit_control_register", "exit_msr", "exit_halt", "exit_invlpg",
    "exit_exception", "exit_interrupt", "exit_skip", "exit_decode", "inject", "window", "real_mode_switch",
    "paging_switch", "device_request",
)  # fmt: skip
NESTED_PATHS = ("nested_fill", "nested_table", "nested_drop")


def shadow_options(policy: str = "drop") -> tuple[Option, ...]:
    """The options of shadow memory, for every strategy that has it; `policy` is its usual one."""
    return (
        Choice("shadow", "How shadow page tables follow the guest's.", ("drop", "trace", "out-of-sync"), policy),
        Size("shadow_size", "Memory for shadow page tables.", 768 << 10, 64 << 10, 768 << 10),
        Count("shadow_writes", "Writes to a table, its shadow not used meanwhile, that end it.", MOST_WRITES, 1, 1 << 20),
        P2M,
    )


def hardware_shadow_options() -> tuple[Option, ...]:
    """The options of shadow memory that a hardware guest's processor walks."""
    return (VPID, *shadow_options())


def hardware_options() -> tuple[Option, ...]:
    """The options of every technique that has a virtualization extension."""
    return (
        Choice("state", "How the guest's registers are moved at exits and entries.", ("lazy", "eager"), "lazy"),
        Count("cluster", "Instructions that the interpreter performs behind one that it performed for an exit.", 0, 0, 4096),
        Switch("descriptor_tables", "Loads and stores of descriptor-table registers exit, if the processor lets them.", False),
    )


def nested_options() -> tuple[Option, ...]:
    """The options of nested paging, for every strategy that has it."""
    return (
        Switch("large_pages", "Nested tables map 2 MB or 4 MB by one entry, where machine frames lie in one piece.", True),
        VPID,
        Size("nested_size", "Memory for nested tables.", 768 << 10, 128 << 10, 768 << 10),
        P2M,
    )


def translation_options() -> tuple[Option, ...]:
    """The options of binary translation, for every strategy whose processor is that."""
    return (
        Switch("chaining", "jumps are patched to go from unit to unit, and the hash table is filled", True),
        Switch("inline_emulation", "CLI, STI, PUSHF, POPF, reads of control registers and selectors without a callout", True),
        Switch("direct_callouts", "IN, OUT and adapted stores go to a routine made for them, with what was decoded", True),
        Switch("adaptive", "an instruction that faults often at traced memory becomes a callout", True),
        Count("adapt_after", "faults of an instruction at traced memory until it is a callout", 4, 1, 1 << 20),
        Count("restore_after", "callouts in a row that wrote nothing traced until it is itself again", 32, 1, 1 << 20),
        Switch("translate_user", "programs run translated too, and see nothing of the VMM", False),
        Size("tc_size", "room for translated code", 192 << 10, 4 << 10, 192 << 10),
    )


def paravirtual_options() -> tuple[Option, ...]:
    """The options of a VMM whose guests are ported to it."""
    return (
        Switch("domain_0", "A second domain drives the devices; without it a guest has its own text alone.", True),
        P2M,
    )


# What the toolkit's parts look up, also where a strategy does not declare it: then it is the default.
_ALL = (*shadow_options(), *nested_options(), *hardware_options(), *translation_options(), *paravirtual_options())
OF_TOOLKIT = {option.name: option for option in _ALL}


def split_options(name: str) -> tuple[str, list[tuple[str, str]]]:
    """The strategy that a name begins with, and what is chosen behind it."""
    match = CHOSEN.fullmatch(name)
    assert match is not None, "every text matches"
    pairs = [part.split("=") for part in match["options"].split(",")[1:]]
    return match["strategy"], [(key, value) for key, value in pairs]


def with_options(strategy: "type[Strategy]", pairs: Sequence[tuple[str, str]]) -> "type[Strategy]":
    """The strategy with options chosen: a class derived from it, or itself if all are as they are. Raises StrategyError."""
    declared = {option.name: option for option in strategy.options}
    chosen = dict(strategy.chosen)
    for key, text in pairs:
        if key not in declared:
            known = ", ".join(declared) or "none"
            advice = f"its options are: {known}{near_matches(key, declared)}"
            raise StrategyError(f"strategy {strategy.name}", f"no option {show(key)}", advice)
        if sum(name == key for name, _ in pairs) > 1:
            raise StrategyError(f"strategy {strategy.name}", f"{key} is chosen twice", f"give {key} once")
        try:
            chosen[key] = declared[key].read(text)
        except ValueError:
            what = f"{key}={show(text)} is not possible"
            raise StrategyError(f"strategy {strategy.name}", what, f"give {key}={declared[key].expected}") from None
    chosen = {key: option.default for key, option in declared.items()} | chosen
    if all(chosen[key] == strategy.option(key) for key in declared):
        return strategy
    members = {
        "name": full_name(strategy, chosen), "chosen": chosen, "__doc__": strategy.__doc__, "__module__": strategy.__module__
    }  # fmt: skip
    configured: type[Strategy] = type(strategy.__name__, (strategy,), members)
    configured.configure()
    return configured


def full_name(strategy: "type[Strategy]", chosen: dict[str, Value]) -> str:
    """The name that says what was chosen."""
    rows = [
        f",{option.name}={option.text(chosen[option.name])}"
        for option in strategy.options
        if chosen[option.name] != option.default
    ]
    return split_options(strategy.name)[0] + "".join(rows)

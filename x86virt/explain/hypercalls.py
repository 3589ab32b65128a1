"""What brings control to the VMM of a paravirtual guest beside exceptions: hypercalls, and interrupts of devices."""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..vmm.paravirtual.interface import HYPERCALLS, NUMBER_OF
from .page import Explanation, Section
from .price import price_json, price_text

if TYPE_CHECKING:
    from ..profile import Profile

PREFIX = "hypercall_"  # of exit reasons
STRATEGY = "paravirtual"
OF_TABLES = ("entry_reference", "table_scan")


@dataclass(frozen=True)
class Hypercall:
    """What one is for, and the VMM's paths that it may charge beside the way to it and back."""

    meaning: str
    paths: tuple[str, ...] = ("small_hypercall",)


# Those that this VMM performs; the others of the interface end with -ENOSYS or -EPERM.
PERFORMED: dict[str, Hypercall] = {
    "set_trap_table": Hypercall("The handlers of the guest's exceptions, and the gate of its system calls.", ("set_trap_table",)),
    "mmu_update": Hypercall(
        "Entries of page tables, and of the machine-to-physical table, named by their machine addresses.",
        ("table_update", "directory_update", "machphys_update", *OF_TABLES),
    ),
    "set_gdt": Hypercall("The frames of the guest's own descriptor table.", ("set_gdt",)),
    "stack_switch": Hypercall("The kernel's stack for traps from ring 3, as a TSS says it.", ("stack_switch",)),
    "set_callbacks": Hypercall("Where the guest is entered for events, and for returns that failed."),
    "fpu_taskswitch": Hypercall("CR0.TS, which makes the next x87 instruction raise #NM.", ("fpu_taskswitch",)),
    "set_debugreg": Hypercall("A debug register written."),
    "get_debugreg": Hypercall("A debug register read."),
    "update_descriptor": Hypercall("One entry of the guest's GDT or LDT, checked and written.", ("update_descriptor",)),
    "memory_op": Hypercall("Frames given back or asked for, and questions about them.", ("memory_op",)),
    "multicall": Hypercall("A list of hypercalls in one trap.", ("multicall",)),
    "update_va_mapping": Hypercall(
        "The entry that maps a linear page, found through the tables in use, with a flush of the TLB if asked.",
        ("mapping_update", *OF_TABLES),
    ),
    "update_va_mapping_otherdomain": Hypercall(
        "The same with a frame of another domain's: domain 0 builds domains by it.", ("mapping_update", *OF_TABLES)
    ),
    "set_timer_op": Hypercall("The one-shot timer of the virtual processor, in nanoseconds of system time.", ("set_timer",)),
    "xen_version": Hypercall("What the VMM is, and what it offers."),
    "console_io": Hypercall("Text for the VMM's own console.", ("console_write",)),
    "physdev_op": Hypercall("Ports and interrupts of the machine's devices, for the domain that drives them."),
    "grant_table_op": Hypercall(
        "Memory that one domain grants to another: mapped, given back, copied.", ("grant_map", "grant_unmap", "grant_copy")
    ),
    "vm_assist": Hypercall("Assists switched on and off, among them writable page tables."),
    "iret": Hypercall("The return from a trap that also restores the event mask.", ("hypercall_iret",)),
    "vcpu_op": Hypercall("The virtual processor: its run state, its periodic timer, where its record lies."),
    "set_segment_base": Hypercall("Segment bases of 64-bit guests: refused."),
    "mmuext_op": Hypercall(
        "Tables pinned and unpinned, a new base of the page tables, flushes of the TLB, the LDT.",
        ("extended_operation", "base_switch", *OF_TABLES),
    ),
    "nmi_op": Hypercall("Where the guest is entered for NMIs."),
    "sched_op": Hypercall("Yield, block until an event, poll, shut down.", ("schedule", "domain_switch")),
    "callback_op": Hypercall("One of the entries of set_callbacks."),
    "event_channel_op": Hypercall("Event channels bound, closed, and notified through.", ("event_channel_op", "event_send")),
}  # fmt: skip

MEANINGS = {
    "hypercall": "The guest's kernel called its VMM by int $0x82; `x86virt explain mmu_update` says what that call is.",
    "physical_interrupt": "A device of the machine raised its line, while any domain ran.",
}
EXIT_EVENTS = {"hypercall": "sys.int_n_cpl3_to_cpl0", "physical_interrupt": "sys.ext_interrupt_delivery"}
EXIT_PATHS = {
    "hypercall": ("hypercall",),
    "physical_interrupt": ("physical_interrupt", "event_send", "schedule", "domain_switch"),
}
ALWAYS = ("hypercall",)
ON_RETURN = ("upcall",)


def hypercall_named(word: str) -> str | None:
    """The hypercall that a word means: its name, `hypercall NAME`, or its exit reason."""
    name = word.removeprefix("hypercall ").removeprefix(PREFIX)
    return name if name in NUMBER_OF else None


def explain_hypercall(name: str, profile: "Profile") -> Explanation:
    """The explanation of a hypercall of the interface."""
    row = PERFORMED.get(name)
    paths = (*ALWAYS, *row.paths, *ON_RETURN) if row else ALWAYS
    section = Section("")
    section.add("number", f"{NUMBER_OF[name]}, in EAX at int $0x82")
    section.add("arguments", "EBX, ECX, EDX, ESI, EDI; the result, or a negated error, comes back in EAX")
    section.add("in this VMM", "" if row else "it is not performed, and ends with an error (-ENOSYS or -EPERM)")
    data: dict[str, Any] = {
        "number": NUMBER_OF[name],
        "performed": row is not None,
        "paths": [f"vmm.{path}" for path in paths],
        "profile": profile.name,
        "prices": [price_json(f"vmm.{path}", profile) for path in paths],
    }
    meaning = row.meaning if row else "A hypercall of Xen's interface."
    return Explanation("hypercall", name, meaning, [section, prices_of(paths, profile)], data)


def explain_domain_exit(reason: str, profile: "Profile") -> Explanation:
    """The explanation of an exit that only domains have."""
    paths = (*EXIT_PATHS[reason], *ON_RETURN)
    hook = f"on_{reason}: {first_line_of(reason)}"
    section = Section("")
    section.add("the event before it", f"{EXIT_EVENTS[reason]}: {price_text(EXIT_EVENTS[reason], profile)}")
    section.add(f"in {STRATEGY}", hook)
    section.add("hypercalls", ", ".join(HYPERCALLS.values()) if reason == "hypercall" else "")
    data: dict[str, Any] = {
        "events": [EXIT_EVENTS[reason]],
        "hooks": {STRATEGY: hook},
        "paths": [f"vmm.{path}" for path in paths],
        "profile": profile.name,
        "prices": [price_json(event, profile) for event in (EXIT_EVENTS[reason], *(f"vmm.{path}" for path in paths))],
    }
    return Explanation("exit", reason, MEANINGS[reason], [section, prices_of(paths, profile)], data)


def first_line_of(reason: str) -> str:
    """What the strategy's hook says of itself."""
    from ..vmm.registry import find_strategy

    return (inspect.getdoc(getattr(find_strategy(STRATEGY), f"on_{reason}")) or "").split("\n")[0]


def prices_of(paths: tuple[str, ...], profile: "Profile") -> Section:
    """What they cost."""
    prices = Section(f"paths of the VMM on {profile.name}")
    for path in paths:
        when = "always" if path in ALWAYS else "on the way back, if events wait" if path in ON_RETURN else "if due"
        prices.add(f"vmm.{path}", f"{when}: {price_text(f'vmm.{path}', profile)}")
    return prices

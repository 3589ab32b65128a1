"""What brings control to a VMM of the software kind: its exit reasons. Those of VT-x and SVM are in hardware.py."""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..vmm.exits import REASON_OF_VECTOR
from .page import Explanation, Section
from .price import price_json, price_text

if TYPE_CHECKING:
    from ..profile import Profile

EMULATES = (
    "emulate_flags", "emulate_control_register", "emulate_descriptor_table", "emulate_segment", "emulate_far_transfer",
    "emulate_port", "emulate_msr", "emulate_halt", "emulate_invlpg", "emulate_system_call",
)  # fmt: skip
# What following the guest's page tables takes: entries, tables, another address space, a table read anew.
SHADOW = ("shadow_fill", "shadow_flush", "shadow_table", "shadow_switch", "shadow_sync", "shadow_check")
# What any exit may end with: an interrupt of a virtual device, and descriptors that the guest has written.
ON_RESUME = ("device_request", "reflect", "descriptor_shadow")
# What an exit from translated code adds, and the way back to it.
TRANSLATED = ("light_dispatch", "callout", "recover", "leave_ring", "enter_cache")


@dataclass(frozen=True)
class Reason:
    """One exit reason: meaning, the events that lead to it, what the VMM does, and the paths it may charge."""

    meaning: str
    events: tuple[str, ...]
    work: str
    paths: tuple[str, ...]


def _reflected(what: str, event: str) -> Reason:
    return Reason(
        f"The guest raised {what}.",
        (event,),
        "It is the guest's own: delivered through the guest's IDT.",
        ("reflect",),
    )


_SELECTOR_WORK = (
    "The VMM decodes the instruction and performs it on the virtual processor, or fills in a descriptor and lets it run "
    "again; if it faults there too, the fault is the guest's."
)
_SELECTOR_PATHS = (*EMULATES, "reflect", *SHADOW, "descriptor_shadow", "device_request")

REASONS: dict[str, Reason] = {
    "divide_error": _reflected("a divide error (#DE)", "sys.exc_de"),
    "debug": _reflected("a debug exception (#DB)", "sys.exc_db"),
    "breakpoint": Reason(
        "The guest executed INT3 in ring 3, where its own gate allows it.", ("sys.exc_bp",),
        "It is delivered through the guest's own gate, checked as it stands now.", ("reflect",),
    ),
    "overflow": Reason(
        "The guest executed INTO with OF set, in ring 3, where its own gate allows it.", ("sys.exc_of",),
        "It is delivered through the guest's own gate, checked as it stands now.", ("reflect",),
    ),
    "bound": _reflected("a bound range exception (#BR)", "sys.exc_br"),
    "invalid_opcode": _reflected("an invalid opcode exception (#UD)", "sys.exc_ud"),
    "device_not_available": _reflected("a device-not-available exception (#NM): its own CR0.TS or EM is in "
    "force", "sys.exc_nm"),
    "double_fault": Reason(
        "An exception could not be delivered to the VMM, which must not happen.", ("sys.exc_df",),
        "There is no hook for it: the run ends.", (),
    ),
    "invalid_tss": Reason("An instruction met an invalid task-state segment "
    "(#TS).", ("sys.exc_ts",), _SELECTOR_WORK, _SELECTOR_PATHS),
    "segment_not_present": Reason(
        "An instruction met a segment that is not present (#NP): mostly the guest kernel's return to ring 3, whose "
        "code segments "
        "are absent while the kernel runs.",
        ("sys.exc_np",), _SELECTOR_WORK, _SELECTOR_PATHS,
    ),
    "stack_fault": Reason("An access left the stack segment, or SS could not be loaded "
    "(#SS).", ("sys.exc_ss",), _SELECTOR_WORK, _SELECTOR_PATHS),
    "general_protection": Reason(
        "The guest executed what its real ring may not (#GP): a privileged instruction, a return within its kernel, "
        "or a selector "
        "that the VMM's table lacks.",
        ("sys.exc_gp",), _SELECTOR_WORK, _SELECTOR_PATHS,
    ),
    "page_fault": Reason(
        "The processor found no translation in the shadow page tables, or one that does not allow the access (#PF).",
        ("sys.exc_pf",),
        "The VMM walks the guest's own tables: if they allow the access, the shadow gets the entry and the "
        "instruction runs again; "
        "if not, the fault is the guest's.",
        (*SHADOW, "reflect", "descriptor_shadow"),
    ),
    "x87_error": _reflected("an x87 floating-point error (#MF)", "sys.exc_mf"),
    "alignment_check": _reflected("an alignment check (#AC)", "sys.exc_ac"),
    "machine_check": Reason("The hardware failed (#MC); this machine's does not.", (), "There is no hook for "
    "it.", ()),
    "software_interrupt": Reason(
        "A program executed INT n through a gate that the VMM has opened to ring 3, because the guest's own gate is "
        "open.",
        ("sys.int_n_cpl3_to_cpl0",), "It is delivered through the guest's own gate, checked as it stands now: the "
            "way of a system call.",
        ("reflect",),
    ),
    "system_call": Reason(
        "The guest executed SYSENTER, which leads to the VMM.", ("sys.sysenter",),
        "The guest's kernel is entered where its own SYSENTER registers say.", ("emulate_system_call",),
    ),
    "host_timer": Reason(
        "The VMM's timer went off: it is set to the next deadline of a virtual "
        "device.", ("sys.ext_interrupt_delivery",),
        "Nothing but what every exit ends with: the interrupt of the device is delivered if the guest's window is "
        "open.", (),
    ),
    "sensitive_instruction": Reason(
        "Translated code came to an instruction that the translator left to the VMM.",
        ("sys.int_n_cpl3_to_cpl0", "ins.jmp_taken"),  # what needs no ring 0 is performed in ring 1, reached by a jump
        "The VMM performs it on the virtual processor; translated code goes on behind it.", _SELECTOR_PATHS,
    ),
    "adapted_write": Reason(
        "Translated code came to an instruction that has often faulted because it wrote traced memory, and that was then "
        "translated anew as a callout.",
        ("ins.jmp_taken",), "The VMM performs it, and looks at what it wrote; no page fault is needed.", SHADOW,
    ),
    "port_access": Reason(
        "Translated code came to an IN or OUT of the guest's kernel.", ("ins.jmp_taken",),
        "The virtual device answers; translated code goes on behind it, where no interrupt comes first.",
        ("direct_port", "device_request"),
    ),
    "unchained_jump": Reason(
        "Translated code came to a jump, or to its end, whose target was not yet reached from there.",
        ("sys.int_n_cpl3_to_cpl0",),
        "The target is translated if need be, and the callout becomes a jump to it (chaining).", SHADOW,
    ),
    "lookup_miss": Reason(
        "An indirect jump, call or return went to an address that the hash table of translated code lacks.",
        ("sys.int_n_cpl3_to_cpl0",),
        "The target is translated if need be, and entered in the hash table.", SHADOW,
    ),
    "open_window": Reason(
        "Translated code has set the virtual IF while an interrupt waits.", ("sys.int_n_cpl3_to_cpl0",),
        "Resuming the guest delivers the interrupt, behind the shadow of an STI.", (),
    ),
    "begin": Reason(
        "The instruction at which the guest was to go on could not be fetched when it was resumed.",
        ("sys.int_n_cpl3_to_cpl0",), "It is fetched again, and the fault is the guest's.", (*SHADOW, "reflect"),
    ),
    "x87_pointer": Reason(
        "Translated code is about to store an image of the x87 FPU, which holds the address of an instruction.",
        ("sys.int_n_cpl3_to_cpl0",), "That address is made the guest's; the instruction follows.", (),
    ),
    "own_step": Reason(
        "One instruction is over that the VMM wanted to see the end of: it had set TF.", ("sys.exc_db",),
        "What it had opened for that instruction is closed again.", SHADOW,
    ),
}  # fmt: skip
VECTOR_OF = {reason: vector for vector, reason in REASON_OF_VECTOR.items()}


def paths_of(reason: str) -> tuple[str, ...]:
    """All paths of the VMM that an exit may charge."""
    return tuple(dict.fromkeys(("trap_dispatch", *REASONS[reason].paths, *ON_RESUME, *TRANSLATED)))


def hooks_of(reason: str) -> dict[str, str]:
    """What the built strategies with a VMM do: the first line of the hook."""
    from ..vmm.registry import find_strategy, strategy_names

    found = {}
    for name in strategy_names():
        strategy = find_strategy(name)
        if strategy.needs_vmm and strategy.processor not in ("vtx", "svm"):
            hook = getattr(strategy, f"on_{reason}", None)
            line = (
                (inspect.getdoc(hook) or "").split("\n")[0] if hook else "no hook: the run ends with an explanation"
            )
            found[name] = f"on_{reason}: {line}" if hook else line
    return found


def when_charged(path: str, row: Reason) -> str:
    """When an exit charges a path."""
    if path == "trap_dispatch":
        return "always, but for a light callout"
    if path in row.paths:
        return "if due"
    return "of translated code, if due" if path in TRANSLATED else "on resuming, if due"


def explain_exit(reason: str, profile: "Profile") -> Explanation:
    """The explanation of an exit reason of a software technique."""
    row = REASONS[reason]
    section = Section("")
    section.add("comes by", f"vector {VECTOR_OF[reason]}" if reason in VECTOR_OF else "")
    for event in row.events:
        section.add("the event before it", f"{event}: {price_text(event, profile)}")
    section.add("what the VMM does", row.work)
    for name, hook in hooks_of(reason).items():
        section.add(f"in {name}", hook)
    prices = Section(f"paths of the VMM on {profile.name}")
    for path in paths_of(reason):
        prices.add(f"vmm.{path}", f"{when_charged(path, row)}: {price_text(f'vmm.{path}', profile)}")
    prices.add("sys.iret_cpl0_to_cpl3", f"the way back: {price_text('sys.iret_cpl0_to_cpl3', profile)}")
    data: dict[str, Any] = {
        "vector": VECTOR_OF.get(reason),
        "events": list(row.events),
        "work": row.work,
        "hooks": hooks_of(reason),
        "paths": [f"vmm.{path}" for path in paths_of(reason)],
        "profile": profile.name,
        "prices": [
            price_json(event, profile) for event in (*row.events, *(f"vmm.{path}" for path in paths_of(reason)))
        ],
    }
    return Explanation("exit", reason, row.meaning, [section, prices], data)

"""What a virtual machine keeps in Python objects, as plain values and back: its part of a saved machine.

The VMM's tables, stack and vCPU record are in machine RAM and are saved with it. Every attribute of the objects below
is named here, either as saved or as made again from what is saved; a test holds this.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any

from ..isa.registers import LDTR
from . import layout
from .descriptor import Descriptor
from .probe import Divergence
from .saved_interpreter import interpreter_state
from .saved_values import within
from .state import SegmentState
from .translation.saving import restore_translator, translator_state
from .vcpu import Frame

if TYPE_CHECKING:
    from ..machine import Machine
    from .virtual_machine import VirtualMachine
    from .vm import SoftwareVm

# Flags in the file -> the part of the virtual machine that holds it, and its name there.
FLAGS = {
    "interrupt_waits": ("interrupts", "waits"),
    "own_step": ("crossings", "own_step"),
}
SOFTWARE_FLAGS = {
    "resumed_with_flag": ("crossings", "resumed_with_flag"),
    "updating_descriptor": ("descriptors", "updating"),
    "table_written": ("descriptors", "table_written"),
}
ARRAYS = ("p2m", "boards", "model_specific")  # saved as they are, beside `vm_state`
SAVED_OF_VM = {"unpriced", "exits", "translation", *ARRAYS}
MADE_OF_VM = {
    "machine", "ring", "processor", "prices", "board", "guest", "vcpu", "shadow", "descriptors", "recorder", "last_exit",
    "last_delivery", "segments", "crossings", "events", "interrupts", "entries", "devices", "made_interpreter", "m2p", "physical",
}  # fmt: skip
SAVED_OF_CROSSINGS, MADE_OF_CROSSINGS = {"own_step", "resumed_with_flag", "debug_bits", "resumed_at"}, {"vm"}
SAVED_OF_INTERRUPTS, MADE_OF_INTERRUPTS = {"waits"}, {"vm"}
SAVED_OF_DEVICES: set[str] = set()
MADE_OF_DEVICES = {"vm", "apics"}
SAVED_OF_DESCRIPTORS = {"originals", "detached", "table_written", "updating"}
MADE_OF_DESCRIPTORS = {"vm", "ring", "shown"}
SAVED_OF_SEGMENTS, MADE_OF_SEGMENTS = {"held"}, {"vm"}
SAVED_OF_ENTRIES, MADE_OF_ENTRIES = {"open_vectors"}, {"vm"}
SAVED_OF_SHADOW, MADE_OF_SHADOW = {"controls"}, {"vm", "state", "control", "links", "listeners", "watched", "notices"}
SAVED_OF_VCPU, MADE_OF_VCPU = {"frame", "shadow_count", "own_resume"}, {"record", "ring"}
FRAME_FIELDS = ("eip", "cs", "eflags", "esp", "ss")
DIVERGENCE_FIELDS = ("n", "rip", "row", "mode", "field", "got", "bare", "text")


def vm_state(vm: "VirtualMachine") -> dict[str, Any]:
    """All of it but ARRAYS."""
    state: dict[str, Any] = flags_of(vm, FLAGS)
    state["interpreter"] = None if vm.made_interpreter is None else interpreter_state(vm.made_interpreter)
    state["unpriced"] = vm.unpriced
    state["exits"] = {reason: list(row) for reason, row in vm.exits.items()}
    state["shadow"] = vm.shadow.state_of()
    return state | vm.own_state()


def restore_vm(vm: "VirtualMachine", state: dict[str, Any]) -> None:
    """Put it back. Raises KeyError, TypeError or ValueError for anything that `vm_state` does not give."""
    set_flags(vm, FLAGS, state)
    vm.unpriced = within(state["unpriced"], 0, 1 << 62)
    vm.exits = exits_of(state["exits"])
    vm.restore_own(state)


def software_state(vm: "SoftwareVm") -> dict[str, Any]:
    """What the rooms of a VMM of the software kind keep."""
    state: dict[str, Any] = flags_of(vm, SOFTWARE_FLAGS)
    state["open_vectors"] = sorted(vm.entries.open_vectors)
    state["debug_bits"] = int(vm.crossings.debug_bits)
    state["resumed_at"] = vm.crossings.resumed_at
    state["frame"] = [getattr(vm.vcpu.frame, name) for name in FRAME_FIELDS]
    state["own_resume"] = int(vm.vcpu.own_resume)
    state["shadow_count"] = vm.vcpu.shadow_count
    state["originals"] = [[key, guest.low, guest.high] for key, guest in vm.descriptors.originals.items()]
    state["detached"] = [[selector, segment_fields(held)] for selector, held in vm.descriptors.detached.items()]
    state["held"] = [[number, *map(segment_fields, pair)] for number, pair in vm.segments.held.items()]
    state["translation"] = None if vm.translation is None else translator_state(vm.translation)
    return state


def restore_software(vm: "SoftwareVm", state: dict[str, Any]) -> None:
    """Put it back. Raises KeyError, TypeError or ValueError for anything that `software_state` does not give."""
    set_flags(vm, SOFTWARE_FLAGS, state)
    vm.entries.open_vectors = {within(vector, 0, 255) for vector in state["open_vectors"]}
    vm.crossings.debug_bits = within(state["debug_bits"], 0, 0xFFFFFFFF)
    vm.crossings.resumed_at = within(state["resumed_at"], -1, 1 << 62)
    values = [within(value, 0, 0xFFFFFFFF) for value in state["frame"]]
    vm.vcpu.frame = Frame(**dict(zip(FRAME_FIELDS, values, strict=True)))
    vm.vcpu.own_resume = within(state["own_resume"], 0, 1) == 1
    vm.vcpu.shadow_count = within(state["shadow_count"], -1, 1 << 62)
    vm.descriptors.forget_all()
    for key, low, high in state["originals"]:
        vm.descriptors.add(within(key, 0, 0xFFFC), Descriptor(within(low, 0, 0xFFFFFFFF), within(high, 0, 0xFFFFFFFF)))
    vm.descriptors.detached = {
        within(selector, layout.FIRST_VMM_SELECTOR, 0xFFF8): segment_of(held) for selector, held in state["detached"]
    }
    vm.segments.held = {
        within(number, 0, LDTR - 1): (segment_of(guest), segment_of(hardware)) for number, guest, hardware in state["held"]
    }
    if vm.translation is not None:
        restore_translator(vm.translation, state["translation"])


def flags_of(vm: "VirtualMachine", flags: dict[str, tuple[str, str]]) -> dict[str, bool]:
    """The named flags."""
    return {name: bool(getattr(getattr(vm, part), flag)) for name, (part, flag) in flags.items()}


def set_flags(vm: "VirtualMachine", flags: dict[str, tuple[str, str]], state: dict[str, Any]) -> None:
    """Put them back."""
    for name, (part, flag) in flags.items():
        setattr(getattr(vm, part), flag, within(state[name], 0, 1) == 1)


def segment_fields(state: SegmentState) -> list[int]:
    """A segment register as a list."""
    return [state.selector, state.base, state.limit, state.access]


def segment_of(fields: list[int]) -> SegmentState:
    """And back."""
    selector, base, limit, access = fields
    base, limit = within(base, 0, 0xFFFFFFFF), within(limit, 0, 0xFFFFFFFF)
    return SegmentState(within(selector, 0, 0xFFFF), base, limit, within(access, 0, 0x1FFFF))


def exits_of(rows: dict[str, Any]) -> dict[str, list[int]]:
    """Counts and ticks by reason (ExitCount)."""
    return {
        str(reason): [within(number, 0, 1 << 62) for number in (count, ticks, control, entry)]
        for reason, (count, ticks, control, entry) in rows.items()
    }


def divergences_state(machine: "Machine") -> list[list[int | str]]:
    """What the probe has logged."""
    found = [] if machine.probe is None else machine.probe.divergences
    return [[getattr(row, name) for name in DIVERGENCE_FIELDS] for row in found]


def restore_divergences(machine: "Machine", rows: list[list[int | str]]) -> None:
    """Put it back."""
    found = []
    for n, rip, *texts in rows:
        named = dict(zip(DIVERGENCE_FIELDS[2:], map(str, texts), strict=True))
        found.append(Divergence(within(n, 0, 1 << 62), within(rip, 0, 0xFFFFFFFF), **named))
    if machine.probe is not None:
        machine.probe.divergences = found


def looks_state(machine: "Machine") -> list[list[int | str]]:
    """How often the probe has looked at which instruction."""
    looks = {} if machine.probe is None else machine.probe.looks
    return [[*site, count] for site, count in sorted(looks.items())]


def restore_looks(machine: "Machine", rows: list[list[Any]]) -> None:
    """Put it back."""
    looks = {(within(rip, 0, 0xFFFFFFFF), str(row), str(mode)): within(count, 0, 1 << 62) for rip, row, mode, count in rows}
    if machine.probe is not None:
        machine.probe.looks = Counter(looks)

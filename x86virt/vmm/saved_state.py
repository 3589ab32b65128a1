"""What a virtual machine keeps in Python objects, as plain values and back: its part of a saved machine.

The VMM's tables, stack and vCPU record are in machine RAM and are saved with it. Every attribute of the objects below
is named here, either as saved or as made again from what is saved; a test holds this.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any

from .probe import Divergence
from .shadow_descriptors import Descriptor
from .vcpu import Frame

if TYPE_CHECKING:
    from ..machine import Machine
    from .vm import VirtualMachine

FLAGS = ("own_step", "resumed_with_flag", "updating_descriptor", "table_written")
FRAME_SETS = ("traced_frames", "open_frames")
ARRAYS = ("p2m", "boards", "model_specific")  # saved as they are, beside `vm_state`
SAVED_OF_VM = {*FLAGS, *FRAME_SETS, "unpriced", "exits", "debug_bits", "resumed_at", *ARRAYS}
MADE_OF_VM = {
    "machine", "ring", "processor", "prices", "board", "guest", "vcpu", "shadow", "descriptors", "recorder", "last_exit",
    "last_delivery", "segments", "events", "entries", "interpreter", "m2p",
}  # fmt: skip
DESCRIPTOR_TABLES = ("originals", "former", "detached")
SAVED_OF_DESCRIPTORS = {*DESCRIPTOR_TABLES, "user_code"}
MADE_OF_DESCRIPTORS = {"vm", "ring", "address"}
SAVED_OF_ENTRIES, MADE_OF_ENTRIES = {"open_vectors"}, {"vm"}
SAVED_OF_SHADOW, MADE_OF_SHADOW = {"frames"}, {"vm", "root"}
SAVED_OF_VCPU, MADE_OF_VCPU = {"frame", "shadow_count", "own_resume", "boot_data"}, {"record", "ring"}
FRAME_FIELDS = ("eip", "cs", "eflags", "esp", "ss")
DIVERGENCE_FIELDS = ("n", "rip", "row", "mode", "field", "got", "bare", "text")


def vm_state(vm: "VirtualMachine") -> dict[str, Any]:
    """All of it but ARRAYS."""
    state: dict[str, Any] = {name: bool(getattr(vm, name)) for name in FLAGS}
    state |= {name: sorted(getattr(vm, name)) for name in FRAME_SETS}
    state["open_vectors"] = sorted(vm.entries.open_vectors)
    state["unpriced"] = vm.unpriced
    state["debug_bits"] = int(vm.debug_bits)
    state["resumed_at"] = vm.resumed_at
    state["exits"] = {reason: list(row) for reason, row in vm.exits.items()}
    state["frame"] = [getattr(vm.vcpu.frame, name) for name in FRAME_FIELDS]
    state["own_resume"] = int(vm.vcpu.own_resume)
    state["boot_data"] = int(vm.vcpu.boot_data)
    state["shadow_count"] = vm.vcpu.shadow_count
    state["shadow_frames"] = sorted([frame, sorted(pages)] for frame, pages in vm.shadow.frames.items())
    for name in DESCRIPTOR_TABLES:
        table = getattr(vm.descriptors, name)
        state[name] = [[index, descriptor.low, descriptor.high] for index, descriptor in table.items()]
    state["user_code"] = sorted(vm.descriptors.user_code)
    return state


def restore_vm(vm: "VirtualMachine", state: dict[str, Any]) -> None:
    """Put it back. Raises KeyError, TypeError or ValueError for anything that `vm_state` does not give."""
    for name in FLAGS:
        setattr(vm, name, within(state[name], 0, 1) == 1)
    for name in FRAME_SETS:
        setattr(vm, name, {within(frame, 0, len(vm.p2m) - 1) for frame in state[name]})
    vm.entries.open_vectors = {within(vector, 0, 255) for vector in state["open_vectors"]}
    vm.unpriced = within(state["unpriced"], 0, 1 << 62)
    vm.debug_bits = within(state["debug_bits"], 0, 0xFFFFFFFF)
    vm.resumed_at = within(state["resumed_at"], -1, 1 << 62)
    vm.exits = exits_of(state["exits"])
    values = [within(value, 0, 0xFFFFFFFF) for value in state["frame"]]
    vm.vcpu.frame = Frame(**dict(zip(FRAME_FIELDS, values, strict=True)))
    vm.vcpu.own_resume = within(state["own_resume"], 0, 1) == 1
    vm.vcpu.boot_data = within(state["boot_data"], 0, 0xFFFF)
    vm.vcpu.shadow_count = within(state["shadow_count"], -1, 1 << 62)
    vm.shadow.frames = {
        within(frame, 0, len(vm.p2m) - 1): {within(page, 0, 0xFFFFF) for page in pages}
        for frame, pages in state["shadow_frames"]
    }
    for name in DESCRIPTOR_TABLES:
        table = {
            within(index, 0, 0xFFFF): Descriptor(within(low, 0, 0xFFFFFFFF), within(high, 0, 0xFFFFFFFF))
            for index, low, high in state[name]
        }
        setattr(vm.descriptors, name, table)
    vm.descriptors.user_code = {within(index, 0, 8191) for index in state["user_code"]}


def exits_of(rows: dict[str, Any]) -> dict[str, list[int]]:
    """Counts and ticks by reason."""
    return {
        str(reason): [within(count, 0, 1 << 62), within(ticks, 0, 1 << 62)] for reason, (count, ticks) in rows.items()
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


def within(value: Any, least: int, most: int) -> int:
    """An integer between two bounds."""
    if not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{value!r:.40} is not an integer from {least} to {most}")
    return int(value)

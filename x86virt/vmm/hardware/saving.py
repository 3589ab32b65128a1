"""What a virtual machine on a virtualization extension keeps in Python objects, as plain values and back.

The control structure, its bitmaps and tables lie in machine RAM, and the processor's part of it in the processor's record.
"""

from typing import TYPE_CHECKING, Any

from ..saved_values import within

if TYPE_CHECKING:
    from .vm import HardwareVm

M64 = 2**64 - 1
SAVED_OF_VM = {
    "clusters", "injected", "completed_at", "filled_at", "interrupts_string", "unpriced", "exits", "p2m", "boards",
    "model_specific",
}  # fmt: skip
MADE_OF_VM = {
    "board", "cluster", "control", "crossings", "devices", "guest", "guest_state", "interrupts",
    "last_delivery", "last_exit", "m2p", "machine", "made_interpreter", "nested", "physical", "prices", "processor",
    "recorder", "ring", "segments", "shadow", "vcpu",
}  # fmt: skip
SAVED_OF_VCPU = {"fields", "changed"}
MADE_OF_VCPU = {"eager", "frame", "guest_state", "own_resume", "record", "ring", "shadow_count"}
SAVED_OF_CROSSINGS, MADE_OF_CROSSINGS = {"own_step"}, {"vm"}
SAVED_OF_INTERRUPTS, MADE_OF_INTERRUPTS = {"waits", "window_asked"}, {"vm"}
SAVED_OF_SEGMENTS: set[str] = set()
MADE_OF_SEGMENTS = {"vm"}
SAVED_OF_GUEST_STATE = {"own", "pending", "_held", "root", "root_cr4", "unsettled", "most_targets", "targets"}
MADE_OF_GUEST_STATE = {"control", "hidden", "masks", "note_form", "tables"}


def own_state(vm: "HardwareVm") -> dict[str, Any]:
    """Every attribute that is not made again."""
    vcpu = vm.vcpu
    return {
        "injected": int(vm.injected),
        "clusters": [[place, length] for place, length in vm.clusters.known.items()],
        "completed_at": vm.completed_at,
        "filled_at": list(vm.filled_at),
        "interrupts_string": int(vm.interrupts_string),
        "window_asked": int(vm.interrupts.window_asked),
        "fields": dict(vcpu.fields),
        "changed": list(vcpu.changed),
        "control": vm.control.save(),
        "guest_state": vm.guest_state.save(),
    }


def restore_own(vm: "HardwareVm", state: dict[str, Any]) -> None:
    """Put it back. Raises KeyError, TypeError or ValueError for anything that `own_state` does not give."""
    vm.injected = within(state["injected"], 0, 1) == 1
    vm.clusters.known = {
        within(place, 0, 2**32 - 1): within(length, 0, vm.clusters.most) for place, length in state["clusters"]
    }
    vm.completed_at = within(state["completed_at"], -1, 1 << 62)
    vm.interrupts_string = within(state["interrupts_string"], 0, 1) == 1
    retired, count = state["filled_at"]
    vm.filled_at = within(retired, -1, 1 << 62), within(count, -1, 2**32 - 1)
    vm.interrupts.window_asked = within(state["window_asked"], 0, 1) == 1
    vm.vcpu.fields.clear()
    vm.vcpu.changed.clear()
    for key, value in state["fields"].items():
        if not vm.control.has(key):
            raise ValueError(f"{key!r:.40} is no field of the control structure")
        vm.vcpu.fields[key] = within(value, 0, M64)
    for key in state["changed"]:
        if key not in vm.vcpu.fields:
            raise ValueError(f"{key!r:.40} was changed and has no value")
        vm.vcpu.changed[key] = None
    vm.control.restore(state["control"])
    vm.guest_state.restore(state["guest_state"])
    if vm.nested is not None:
        vm.nested.restore()

"""What a virtual machine on a virtualization extension keeps in Python objects, as plain values and back.

The control structure, its bitmaps and tables lie in machine RAM, and the processor's part of it in the processor's record.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..saved_values import within
from .guest_state import GuestState

if TYPE_CHECKING:
    from .vm import HardwareVm


M64 = 2**64 - 1


def own_state(vm: "HardwareVm") -> dict[str, Any]:
    """Every attribute that is not made again."""
    vcpu = vm.vcpu
    return {
        "injected": int(vm.injected),
        "clusters": [[place, length] for place, length in vm.clusters.known.items()],
        "completed_at": vm.completed_at,
        "window_asked": int(vm.interrupts.window_asked),
        "fields": dict(vcpu.fields),
        "changed": list(vcpu.changed),
        "control": vm.control.save(),
        "guest_state": guest_state_of(vm.guest_state),
    }


def restore_own(vm: "HardwareVm", state: dict[str, Any]) -> None:
    """Put it back. Raises KeyError, TypeError or ValueError for anything that `own_state` does not give."""
    vm.injected = within(state["injected"], 0, 1) == 1
    vm.clusters.known = {
        within(place, 0, 2**32 - 1): within(length, 0, vm.clusters.most) for place, length in state["clusters"]
    }
    vm.completed_at = within(state["completed_at"], -1, 1 << 62)
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
    restore_guest_state(vm.guest_state, state["guest_state"])


def guest_state_of(state: GuestState) -> dict[str, Any]:
    """What the guest believes where the control structure says something else, and how it is held."""
    return {
        "own": dict(state.own), "pending": dict(state.pending), "held": asdict(state.held), "root": state.root,
        "root_cr4": state.root_cr4, "unsettled": int(state.unsettled),
    }  # fmt: skip


def restore_guest_state(state: GuestState, saved: dict[str, Any]) -> None:
    """Put it back."""
    for name in ("own", "pending"):
        setattr(state, name, {str(key): within(value, 0, M64) for key, value in saved[name].items()})
    state.held = type(state.held)(**saved["held"])
    state.root = None if saved["root"] is None else within(saved["root"], 0, M64)
    state.root_cr4, state.unsettled = within(saved["root_cr4"], 0, M64), within(saved["unsettled"], 0, 1) == 1

"""What a virtual machine on a virtualization extension keeps in Python objects, as plain values and back.

The control structure, its bitmaps and tables lie in machine RAM, and the processor's part of it in the processor's record.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .vm import HardwareVm


def own_state(vm: "HardwareVm") -> dict[str, Any]:
    """Every attribute that is not made again."""
    vcpu = vm.vcpu
    return {
        "injected": int(vm.injected),
        "window_asked": int(vm.interrupts.window_asked),
        "fields": dict(vcpu.fields),
        "changed": list(vcpu.changed),
        "control": vm.control.save(),
        "guest_state": vm.guest_state.save(),
    }


def restore_own(vm: "HardwareVm", state: dict[str, Any]) -> None:
    """Put it back. Raises KeyError, TypeError or ValueError for anything that `own_state` does not give."""
    from ..saved_state import within

    vm.injected = within(state["injected"], 0, 1) == 1
    vm.interrupts.window_asked = within(state["window_asked"], 0, 1) == 1
    vm.vcpu.fields.clear()
    vm.vcpu.changed.clear()
    for key, value in state["fields"].items():
        if not vm.control.has(key):
            raise ValueError(f"{key!r:.40} is no field of the control structure")
        vm.vcpu.fields[key] = within(value, 0, 2**64 - 1)
    for key in state["changed"]:
        if key not in vm.vcpu.fields:
            raise ValueError(f"{key!r:.40} was changed and has no value")
        vm.vcpu.changed[key] = None
    vm.control.restore(state["control"])
    vm.guest_state.restore(state["guest_state"])

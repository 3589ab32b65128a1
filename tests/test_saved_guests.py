"""A saved processor inside a guest: what a file says of VMX and SVM is within bounds, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from vmx_guest import VMCS, VmxGuest

from x86virt.core.layout import VMX_NON_ROOT
from x86virt.saved_guests import check_guests

HLT = b"\xf4"


@pytest.fixture(scope="module")
def machine() -> VmxGuest:
    """A processor in a guest that is halted."""
    machine = VmxGuest()
    machine.write_code(HLT)
    machine.enter_and_run()
    assert machine.cpu.world == VMX_NON_ROOT
    return machine


def arrays_of(machine: VmxGuest) -> dict[str, np.ndarray]:
    """The parts of the processor's record that are looked at, as a file has them."""
    state = machine.processor.state.view(np.ndarray)
    return {f"cpu.{name}": np.ascontiguousarray(state[name]).reshape(-1).copy() for name in ("world", "msr", "svm", "vmx")}


def fresh_of(machine: VmxGuest) -> np.ndarray:
    """The record that the file is compared with."""
    return machine.processor.state.view(np.ndarray).copy()


def test_a_guest_as_it_is_passes(machine: VmxGuest) -> None:
    arrays = arrays_of(machine)
    check_guests(arrays, fresh_of(machine))
    assert int(arrays["cpu.vmx"][0]["place"]) == VMCS


REFUSED = (
    ("place", -0x1000), ("place", VMCS + 1), ("place", 1 << 20), ("place", VMCS + 0x1000), ("current", 0), ("current", -1),
    ("operation", 0), ("operation", 2), ("cr3_targets", 5), ("cr3_targets", -1), ("io_bitmap_a", -1), ("msr_bitmaps", 1 << 60),
    ("exception_bitmap", -1), ("timer_due", -1), ("nmi_blocked", 2), ("ept_pointer", -1), ("field_offered", 7),
)  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_is_out_of_bounds_is_refused(machine: VmxGuest, name: str, value: int) -> None:
    arrays = arrays_of(machine)
    arrays["cpu.vmx"][0][name] = value
    with pytest.raises(ValueError, match="guest of VMX"):
        check_guests(arrays, fresh_of(machine))


def test_other_capabilities_are_refused(machine: VmxGuest) -> None:
    arrays = arrays_of(machine)
    arrays["cpu.msr"][0]["vmx_capability"] = 0
    with pytest.raises(ValueError, match="capabilities"):
        check_guests(arrays, fresh_of(machine))


def test_a_guest_of_svm_needs_svm(machine: VmxGuest) -> None:
    arrays = arrays_of(machine)
    arrays["cpu.world"][0] = 2
    with pytest.raises(ValueError, match="guest of SVM"):
        check_guests(arrays, fresh_of(machine))

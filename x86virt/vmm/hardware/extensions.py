"""The control structure of each extension, and how it holds a guest."""

from typing import TYPE_CHECKING

from ..exits import VmmError
from .control import GuestControl
from .guest_state import GuestState
from .identity import IdentityTables
from .layout import GUEST_TABLES
from .svm_control import SvmControl
from .svm_state import SvmGuestState
from .vtx import VtxControl
from .vtx_state import DIRECT, IDENTITY, VIRTUAL_8086, VtxGuestState

if TYPE_CHECKING:
    from .vm import HardwareVm


def make_control(vm: "HardwareVm") -> GuestControl:
    """The control structure that an extension keeps a guest in."""
    if vm.machine.strategy.processor == "vtx":
        return VtxControl(vm.processor)
    return SvmControl(vm.processor, vm.machine.strategy.option("state") == "eager")


def require_extension(vm: "HardwareVm") -> None:
    """Raises VmmError if the processor has not got what the technique needs."""
    strategy, profile = vm.machine.strategy, vm.machine.profile
    msr = vm.processor.cpu.msr
    name, has = ("VMX", msr.vmx_capability.any()) if strategy.processor == "vtx" else ("SVM", msr.has_svm)
    if not has:
        raise VmmError(f"{profile.name} has no {name}: take a profile that has it")
    if strategy.memory == "nested" and not profile["feature.nested_paging"]:
        raise VmmError(f"{profile.name} has no nested paging: take a profile that has it, or shadow page tables")


def make_guest_state(vm: "HardwareVm", control: GuestControl) -> GuestState:
    """What the guest of a control structure believes of its registers."""
    if isinstance(control, SvmControl):
        return SvmGuestState(control)
    assert isinstance(control, VtxControl)
    tables = IdentityTables(GUEST_TABLES, vm.show_frame, vm.hide_frame) if vm.machine.strategy.memory == "nested" else None
    return VtxGuestState(control, tables, vm.note_form)


def work_of_change(before: str, after: str, nested: bool) -> list[tuple[str, str]]:
    """What a change of the form in which VT-x holds a guest is: the paths of the VMM, and what is counted.

    A shadow maps a guest without paging as it maps any other.
    """
    work = []
    if VIRTUAL_8086 in (before, after):
        work.append(("real_mode_switch", "hardware.real_mode" if after == VIRTUAL_8086 else ""))
    if nested and (before == DIRECT) != (after == DIRECT):
        work.append(("paging_switch", "hardware.identity_paging" if after == IDENTITY else ""))
    return work

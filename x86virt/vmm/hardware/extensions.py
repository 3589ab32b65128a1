"""The control structure of each extension, and how it holds a guest."""

from typing import TYPE_CHECKING

from ..exits import Unsupported
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

FLAGS = {"vtx": ("has_vmx", "VMX"), "svm": ("has_svm", "SVM")}


def make_control(vm: "HardwareVm") -> GuestControl:
    """The control structure that an extension keeps a guest in. Raises Unsupported if the processor has not got it."""
    extension = vm.machine.strategy.processor
    flag, name = FLAGS[extension]
    if not int(vm.processor.cpu.msr[flag]):
        raise Unsupported(f"{vm.machine.profile.name} has no {name}")
    if extension == "vtx":
        return VtxControl(vm.processor)
    return SvmControl(vm.processor, vm.machine.strategy.option("state") == "eager")


def make_guest_state(vm: "HardwareVm", control: GuestControl) -> GuestState:
    """What the guest of a control structure believes of its registers."""
    if isinstance(control, SvmControl):
        return SvmGuestState(control)
    assert isinstance(control, VtxControl)
    tables = IdentityTables(GUEST_TABLES, vm.show_frame, vm.hide_frame) if vm.machine.strategy.memory == "nested" else None
    return VtxGuestState(control, tables, vm.note_form)


def work_of_change(before: str, after: str) -> list[tuple[str, str]]:
    """What a change of the form in which VT-x holds a guest is: the paths of the VMM, and what is counted."""
    work = []
    if VIRTUAL_8086 in (before, after):
        work.append(("real_mode_switch", "hardware.real_mode" if after == VIRTUAL_8086 else ""))
    if (before == DIRECT) != (after == DIRECT):
        work.append(("paging_switch", "hardware.identity_paging" if after == IDENTITY else ""))
    return work

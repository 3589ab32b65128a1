"""Bounds of a saved processor's hypervisor state: no address or index of it lies outside of what it names."""

import numpy as np

from .core.layout import NEVER, SVM_GUEST, VMX_NON_ROOT
from .isa.vmx import REGION_BYTES

MOST_PHYSICAL = (1 << 52) - 1
WORD = 0xFFFFFFFF
# The greatest values of the record of SVM; none is negative.
SVM_BOUNDS = {
    "gif": 1, "vmcb": WORD, "cr_intercepts": WORD, "dr_intercepts": WORD, "exception_intercepts": WORD, "intercepts_1": WORD,
    "intercepts_2": WORD, "iopm": MOST_PHYSICAL, "msrpm": MOST_PHYSICAL, "asid": 0xFFFF, "v_tpr": 0xFF, "v_irq": 1,
    "v_intr_prio": 0xF, "v_ign_tpr": 1, "v_intr_masking": 1, "v_intr_vector": 0xFF, "nested_paging": 1, "host_if": 1,
    "next_rip": WORD,
}  # fmt: skip
PAGES = ("vmcb", "iopm", "msrpm")


def check_svm(svm: np.void, msr: np.void, world: int) -> None:
    """The record of SVM, and where its host's state lies; raises ValueError."""
    good = all(0 <= svm[name] <= most for name, most in SVM_BOUNDS.items())
    good = good and not any(svm[name] & 0xFFF for name in PAGES)
    good = good and 0 <= msr["vm_hsave_pa"] <= MOST_PHYSICAL and not msr["vm_hsave_pa"] & 0xFFF
    if not good or (world == SVM_GUEST and not msr["has_svm"]):
        raise ValueError("its guest of SVM is out of range")


# The greatest values of the record of VMX; none is negative.
VMX_BOUNDS = {
    "operation": 1, "nmi_blocked": 1, "pin": WORD, "processor": WORD, "secondary": WORD, "exit_controls": WORD,
    "entry_controls": WORD, "exception_bitmap": WORD, "page_fault_mask": WORD, "page_fault_match": WORD, "cr0_mask": WORD,
    "cr4_mask": WORD, "cr0_shadow": WORD, "cr4_shadow": WORD, "cr3_targets": 4, "cr3_target": WORD,
    "io_bitmap_a": MOST_PHYSICAL, "io_bitmap_b": MOST_PHYSICAL, "msr_bitmaps": MOST_PHYSICAL, "ept_pointer": MOST_PHYSICAL,
    "vpid": 0xFFFF, "timer_due": NEVER,
}  # fmt: skip


def check_vmx(vmx: np.void, fresh: np.void, ram_last: int, world: int) -> None:
    """The record of VMX, and where the current VMCS lies; raises ValueError."""
    good = all((vmx[name] >= 0).all() and (vmx[name] <= most).all() for name, most in VMX_BOUNDS.items())
    good = good and bool((vmx["field_offered"] == fresh["field_offered"]).all())
    good = good and 0 <= vmx["place"] <= ram_last + 1 - REGION_BYTES and not vmx["place"] & 0xFFF
    good = good and (vmx["current"] == -1 or vmx["current"] == vmx["place"])
    if not good or (world == VMX_NON_ROOT and (vmx["operation"] == 0 or vmx["current"] == -1)):
        raise ValueError("its guest of VMX is out of range")


def check_guests(arrays: dict[str, np.ndarray], fresh: np.ndarray) -> None:
    """What the processor holds of a hypervisor's guest; raises ValueError."""
    own = fresh.reshape(-1)[0]
    world = int(arrays["cpu.world"][0])
    registers = arrays["cpu.msr"].reshape(-1)[0]
    if (registers["vmx_capability"] != own["msr"]["vmx_capability"]).any():
        raise ValueError("its capabilities of VMX are not those of the profile")
    check_svm(arrays["cpu.svm"].reshape(-1)[0], registers, world)
    check_vmx(arrays["cpu.vmx"].reshape(-1)[0], own["vmx"], int(own["ram_last"]), world)

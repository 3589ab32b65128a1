"""Bounds of a saved processor's hypervisor state: no address or index of it lies outside of what it names."""

import numpy as np

from .core.layout import ROOT, SVM_GUEST

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
    if not good or (world != ROOT and (world != SVM_GUEST or not msr["has_svm"])):
        raise ValueError("its guest of SVM is out of range")

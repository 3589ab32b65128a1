"""The model-specific registers of SVM (AMD publication 24593, sections 15.30 and 15.31)."""

from ..isa.svm import (
    EFER_SVME,
    FEATURE_SVM_LOCK,
    MSR_SVM_KEY,
    MSR_VM_CR,
    MSR_VM_HSAVE_PA,
    VM_CR_BITS,
    VM_CR_LOCK,
    VM_CR_SVMDIS,
)
from .jit import kernel
from .layout import SVM_DISABLED


@kernel
def has_lock(msr):
    """Whether VM_CR can be locked, and SVM_KEY is there to unlock it."""
    return (msr.svm_features >> FEATURE_SVM_LOCK) & 1 != 0


@kernel
def is_svm_register(number):
    """VM_CR, VM_HSAVE_PA or SVM_KEY."""
    return number == MSR_VM_CR or number == MSR_VM_HSAVE_PA or number == MSR_SVM_KEY


@kernel
def forced_bits(msr):
    """The bits of VM_CR that firmware has set for good, where it has disabled SVM."""
    if msr.has_svm == SVM_DISABLED:
        return VM_CR_LOCK | VM_CR_SVMDIS
    return 0


@kernel
def read_svm_register(msr, number):
    """Read one; the key reads as 0."""
    if number == MSR_VM_CR:
        return msr.vm_cr | forced_bits(msr)
    if number == MSR_VM_HSAVE_PA:
        return msr.vm_hsave_pa
    return 0


@kernel
def write_vm_cr(msr, low, high):
    """VM_CR: LOCK and SVMDIS keep their values once locked; SVMDIS cannot be set while SVM is enabled. False: #GP(0)."""
    if high != 0 or low & ~VM_CR_BITS != 0:
        return False
    if low & VM_CR_SVMDIS != 0 and msr.efer & EFER_SVME != 0:
        return False
    kept = VM_CR_LOCK * int(not has_lock(msr))
    if msr.vm_cr & VM_CR_LOCK != 0:
        kept = VM_CR_LOCK | VM_CR_SVMDIS
    msr.vm_cr = (low & ~kept) | (msr.vm_cr & kept)
    return True


@kernel
def write_key(msr, low, high):
    """SVM_KEY: while VM_CR is unlocked the key is set; while it is locked, the same key unlocks it, unless it is 0."""
    value = low | high << 32
    if msr.vm_cr & VM_CR_LOCK == 0:
        msr.svm_key = value
    elif msr.svm_key != 0 and msr.svm_key == value:
        msr.vm_cr &= ~VM_CR_LOCK
    return True


@kernel
def write_svm_register(msr, number, low, high):
    """Write one; False: #GP(0) is due. VM_HSAVE_PA takes the physical address of a page."""
    if number == MSR_VM_CR:
        return write_vm_cr(msr, low, high)
    if number == MSR_SVM_KEY:
        return has_lock(msr) and write_key(msr, low, high)
    if low & 0xFFF != 0 or high >> (msr.physical_bits - 32) != 0:
        return False
    msr.vm_hsave_pa = low | high << 32
    return True

"""The VMCB for jitted handlers: reads and writes at their price, and the same fields at none, for those that look first."""

from ...core.charge import charge
from ...core.jit import kernel
from ...core.svm_vmcb import get_32, page_for_reading, page_for_writing, put_32
from ...isa.events import EVENT_SVM_VMCB_READ, EVENT_SVM_VMCB_WRITE
from ..hardware.svm_layout import VMCB


@kernel
def peek(cpu, ram, offset):
    """A doubleword, at no cost."""
    return get_32(ram, page_for_reading(cpu, ram, VMCB), offset)


@kernel
def read(cpu, ram, offset):
    """A doubleword."""
    charge(cpu, EVENT_SVM_VMCB_READ, 1)
    return peek(cpu, ram, offset)


@kernel
def write(cpu, ram, offset, value):
    """Write a doubleword."""
    charge(cpu, EVENT_SVM_VMCB_WRITE, 1)
    put_32(ram, page_for_writing(cpu, ram, VMCB), offset, value)

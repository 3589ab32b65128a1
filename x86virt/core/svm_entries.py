"""SVM for a hypervisor in Python: each function does what one instruction does in its host, at its price.

EFER.SVME and VM_HSAVE_PA are set as WRMSR would. The host's EIP at VMRUN is `cpu.rip`: an address of the entry range, where
`run` ends once the guest was left (core/layout.py, HOOK). Addresses are those of pages.
"""

from ..isa.events import (
    EVENT_SVM_CLGI,
    EVENT_SVM_INVLPGA,
    EVENT_SVM_STGI,
    EVENT_SVM_VMCB_READ,
    EVENT_SVM_VMCB_WRITE,
    EVENT_SVM_VMLOAD,
    EVENT_SVM_VMRUN,
    EVENT_SVM_VMSAVE,
    EVENT_SYS_WRMSR,
)
from .charge import charge
from .extensions import run_guest
from .jit import entry
from .model_specific import write_stored
from .svm_instructions import clgi, invalidate_in_space, stgi, vmload, vmsave
from .svm_vmcb import get_8, get_16, get_32, page_for_reading, page_for_writing, put_8, put_16, put_32


@entry
def svm_write_register(state, number, low, high):
    """WRMSR of EFER, VM_CR, VM_HSAVE_PA or SVM_KEY; False: #GP(0) is due."""
    cpu = state[0]
    charge(cpu, EVENT_SYS_WRMSR, 1)
    allowed = write_stored(cpu.msr, number, low, high)
    cpu.efer = cpu.msr.efer
    return allowed


@entry
def svm_run(state, ram, address):
    """VMRUN: OK with the guest about to begin, or back in the host if it was refused; SHUTDOWN."""
    charge(state[0], EVENT_SVM_VMRUN, 1)
    return run_guest(state[0], ram, address)


@entry
def svm_load(state, ram, address):
    """VMLOAD."""
    charge(state[0], EVENT_SVM_VMLOAD, 1)
    vmload(state[0], ram, address)


@entry
def svm_save(state, ram, address):
    """VMSAVE."""
    charge(state[0], EVENT_SVM_VMSAVE, 1)
    vmsave(state[0], ram, address)


@entry
def svm_set_interrupts(state, on):
    """STGI (1) or CLGI (0)."""
    if on == 1:
        charge(state[0], EVENT_SVM_STGI, 1)
        stgi(state[0])
    else:
        charge(state[0], EVENT_SVM_CLGI, 1)
        clgi(state[0])


@entry
def svm_invalidate(state, gla, asid):
    """INVLPGA."""
    charge(state[0], EVENT_SVM_INVLPGA, 1)
    invalidate_in_space(state[0], gla, asid)


@entry
def vmcb_read(state, ram, address, offset, count):
    """A read of 1, 2 or 4 bytes of a VMCB by the hypervisor's own code."""
    cpu = state[0]
    charge(cpu, EVENT_SVM_VMCB_READ, 1)
    place = page_for_reading(cpu, ram, address)
    if count == 4:
        return get_32(ram, place, offset)
    if count == 2:
        return get_16(ram, place, offset)
    return get_8(ram, place, offset)


@entry
def vmcb_write(state, ram, address, offset, count, value):
    """A write of 1, 2 or 4 bytes of a VMCB by the hypervisor's own code."""
    cpu = state[0]
    charge(cpu, EVENT_SVM_VMCB_WRITE, 1)
    place = page_for_writing(cpu, ram, address)
    if count == 4:
        put_32(ram, place, offset, value)
    elif count == 2:
        put_16(ram, place, offset, value)
    else:
        put_8(ram, place, offset, value)

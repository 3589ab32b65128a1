"""What VMRUN refuses: the consistency checks of AMD publication 24593, section 15.5.1, and an illegal event injection.

The controls stand in `cpu.svm` already; the guest's state is looked at in the VMCB, before any of it is loaded.
"""

from ..isa.registers import CR0_CD, CR0_NW, CR0_PG, EFER_NXE
from ..isa.svm import (
    EFER_SVME,
    EVENT_TYPE,
    EVENT_TYPE_SHIFT,
    EVENT_VALID,
    EVENT_VECTOR,
    INTERCEPT_VMRUN,
    IOPM_BYTES,
    MSRPM_BYTES,
    TYPE_EXCEPTION,
    TYPE_INTERRUPT,
    TYPE_NMI,
    TYPE_SOFTWARE_INTERRUPT,
    VMCB_CR0,
    VMCB_CR3,
    VMCB_CR4,
    VMCB_DR6,
    VMCB_DR7,
    VMCB_EFER,
    VMCB_EVENT_INJECTION,
    VMCB_IOPM_BASE,
    VMCB_MSRPM_BASE,
    VMCB_PAT,
)
from ..isa.vectors import NMI
from .control_bits import cr4_offered
from .jit import kernel
from .layout import CPUID_EXTENDED
from .model_specific import PAT_TYPES, all_types
from .svm_vmcb import get_32, get_high

SVM_ROW = CPUID_EXTENDED + 10  # leaf 8000000A
CR3_RESERVED_HIGH = 0xFFF00000  # bits 63:52
LAST_EXCEPTION = 31


@kernel
def address_spaces(cpu):
    """How many address-space identifiers there are, the host's 0 included."""
    return cpu.cpuid[SVM_ROW, 1]


@kernel
def map_is_reachable(cpu, ram, place, offset, count):
    """Whether a permission map of `count` bytes ends within the physical addresses; bits 11:0 of its base do not count."""
    high = get_high(ram, place, offset)
    if high >> (cpu.msr.physical_bits - 32) != 0:
        return False
    return ((get_32(ram, place, offset) & ~0xFFF) | high << 32) + count <= 1 << cpu.msr.physical_bits


@kernel
def controls_allowed(cpu, ram, place):
    """Whether VMRUN accepts the controls; `place` is where the VMCB lies."""
    svm = cpu.svm
    if svm.intercepts_2 & INTERCEPT_VMRUN == 0:
        return False
    if svm.asid == 0 or svm.asid >= address_spaces(cpu):
        return False
    if not map_is_reachable(cpu, ram, place, VMCB_IOPM_BASE, IOPM_BYTES):
        return False
    if not map_is_reachable(cpu, ram, place, VMCB_MSRPM_BASE, MSRPM_BYTES):
        return False
    return svm.nested_paging == 0 or nested_paging_allowed(cpu, ram, place)


@kernel
def nested_paging_allowed(cpu, ram, place):
    """Nested paging needs a host that pages, and a PAT of known memory types (section 15.25.3)."""
    if cpu.cr0 & CR0_PG == 0:
        return False
    return all_types(get_32(ram, place, VMCB_PAT), PAT_TYPES) and all_types(get_high(ram, place, VMCB_PAT), PAT_TYPES)


@kernel
def guest_state_allowed(cpu, ram, place):
    """Whether VMRUN accepts the guest's registers. CR0.PE clear with CR0.PG set is allowed: paged real mode."""
    if get_high(ram, place, VMCB_CR0) != 0 or get_32(ram, place, VMCB_CR0) & (CR0_NW | CR0_CD) == CR0_NW:
        return False
    if get_high(ram, place, VMCB_CR3) & CR3_RESERVED_HIGH != 0:
        return False
    if get_high(ram, place, VMCB_CR4) != 0 or get_32(ram, place, VMCB_CR4) & ~cr4_offered(cpu) != 0:
        return False
    if get_high(ram, place, VMCB_DR6) | get_high(ram, place, VMCB_DR7) != 0:
        return False
    efer = get_32(ram, place, VMCB_EFER)
    return get_high(ram, place, VMCB_EFER) == 0 and efer & ~EFER_NXE == EFER_SVME


@kernel
def injection_allowed(ram, place):
    """Whether EVENTINJ asks for an event that there is, or for none (section 15.20)."""
    event = get_32(ram, place, VMCB_EVENT_INJECTION)
    if event & EVENT_VALID == 0:
        return True
    kind = (event >> EVENT_TYPE_SHIFT) & EVENT_TYPE
    if kind == TYPE_EXCEPTION:
        return event & EVENT_VECTOR <= LAST_EXCEPTION and event & EVENT_VECTOR != NMI
    return kind == TYPE_INTERRUPT or kind == TYPE_NMI or kind == TYPE_SOFTWARE_INTERRUPT

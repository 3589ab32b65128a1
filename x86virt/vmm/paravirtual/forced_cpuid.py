"""CPUID by the forced emulation of the interface: UD2, "xen", CPUID. It answers for the domain, not for the processor.

CPUID itself does not trap on these processors: a guest that executes it sees the features of the machine.
"""

import numpy as np

from ...core.identity import cpuid
from ...core.jit import kernel
from ...isa.events import EVENT_VMM_FORCED_CPUID, EVENT_VMM_TRAP_DISPATCH
from ...isa.registers import EAX, EBX, ECX, EDX
from .bounce import complete, guest_page_fault
from .charge import charge
from .guest_access import FAULTED, load_guest
from .interface import XEN_MAJOR_VERSION, XEN_MINOR_VERSION

M32 = 0xFFFFFFFF
SIGNATURE = (0x0F, 0x0B, 0x78, 0x65, 0x6E)  # UD2, "xen"
INSTRUCTION = (0x0F, 0xA2)
EXTENDED = 0x80000000
HYPERVISOR_LEAF, N_HYPERVISOR_LEAVES = 0x40000000, 3
SIGNATURE_EBX, SIGNATURE_ECX, SIGNATURE_EDX = 0x566E6558, 0x65584D4D, 0x4D4D566E  # XenVMMXenVMM
PRESERVES_MARKS = 1  # of leaf 2: MMU_PT_UPDATE_PRESERVE_AD is there

# Features that a domain does not have, by their bits of leaf 1.
TABLES = 1 << 1 | 1 << 3 | 1 << 13 | 1 << 17  # VME, PSE, PGE, PSE-36
MACHINE = 1 << 7 | 1 << 12 | 1 << 14  # MCE, MTRR, MCA: of a domain that does not own the machine
FAST_CALLS_AND_MONITORING = 1 << 11 | 1 << 21 | 1 << 22 | 1 << 31  # SEP, DS, ACPI, PBE
HIDDEN_ECX = (
    1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 17 | 1 << 18
)
HYPERVISOR_PRESENT = 1 << 31
HIDDEN_EXTENDED = 1 << 11 | 1 << 26 | 1 << 27 | 1 << 29  # SYSCALL, pages of 1 GB, RDTSCP, long mode
HIDDEN_EXTENDED_ECX = 1 << 0 | 1 << 2 | 1 << 12  # LAHF in 64-bit mode, SVM, SKINIT
MONITOR_LEAF, PERFORMANCE_LEAF, TOPOLOGY_LEAF, SVM_LEAF = 5, 0xA, 0xB, 0x8000000A


@kernel
def read_octets(cpu, ram, domain, eip, octets):
    """Compare what stands at an address with some bytes: (1 if equal, FAULTED if one cannot be read; where)."""
    equal = 1
    for number in range(len(octets)):
        gla = (eip + number) & M32
        octet = load_guest(cpu, ram, domain, gla, 1)
        if octet == FAULTED:
            return FAULTED, gla
        if octet != octets[number]:
            equal = 0
    return equal, eip


@kernel
def answer(cpu, eax, ebx, ecx, edx):
    """The four registers of CPUID."""
    cpu.gpr[EAX], cpu.gpr[EBX], cpu.gpr[ECX], cpu.gpr[EDX] = eax, ebx, ecx, edx


@kernel
def hypervisor_leaf(cpu, leaf):
    """What the VMM says of itself."""
    if leaf == 0:
        answer(cpu, HYPERVISOR_LEAF + N_HYPERVISOR_LEAVES - 1, SIGNATURE_EBX, SIGNATURE_ECX, SIGNATURE_EDX)
    elif leaf == 1:
        answer(cpu, XEN_MAJOR_VERSION << 16 | XEN_MINOR_VERSION, 0, 0, 0)
    else:
        answer(cpu, 1, HYPERVISOR_LEAF, PRESERVES_MARKS, 0)  # one page of hypercalls, by this model-specific register


@kernel
def cpuid_of_domain(cpu, domain):
    """CPUID, less what the domain cannot use."""
    leaf = cpu.gpr[EAX]
    if HYPERVISOR_LEAF <= leaf < HYPERVISOR_LEAF + N_HYPERVISOR_LEAVES:
        hypervisor_leaf(cpu, leaf - HYPERVISOR_LEAF)
        return
    cpuid(cpu)
    if leaf & ~EXTENDED == 1:
        cpu.gpr[EDX] &= ~TABLES
        if np.int64(domain.is_privileged) == 0:
            cpu.gpr[EDX] &= ~MACHINE
    if leaf == 1:
        cpu.gpr[EDX] &= ~FAST_CALLS_AND_MONITORING
        cpu.gpr[ECX] = (cpu.gpr[ECX] & ~HIDDEN_ECX) | HYPERVISOR_PRESENT
    elif leaf == EXTENDED + 1:
        cpu.gpr[EDX] &= ~HIDDEN_EXTENDED
        cpu.gpr[ECX] &= ~HIDDEN_EXTENDED_ECX
    elif leaf == MONITOR_LEAF or leaf == PERFORMANCE_LEAF or leaf == TOPOLOGY_LEAF or leaf == SVM_LEAF:
        answer(cpu, 0, 0, 0, 0)


@kernel
def forced_cpuid(cpu, ram, xen, domains, frames, channels):
    """#UD: 1 if it was this, or a fault of its own, 0 if the exception is the domain's."""
    domain = domains[xen.current]
    eip = np.int64(domain.eip)
    equal, gla = read_octets(cpu, ram, domain, eip, SIGNATURE)
    if equal == 1:
        equal, gla = read_octets(cpu, ram, domain, eip + len(SIGNATURE), INSTRUCTION)
    if equal == FAULTED:
        guest_page_fault(cpu, ram, xen, domains, frames, channels, gla, 0)
        return 1
    if equal == 0:
        return 0
    charge(cpu, xen, EVENT_VMM_TRAP_DISPATCH, 1)
    charge(cpu, xen, EVENT_VMM_FORCED_CPUID, 1)
    cpuid_of_domain(cpu, domain)
    xen.next_eip = eip + len(SIGNATURE) + len(INSTRUCTION)
    complete(cpu, ram, xen, domains, frames, channels, 0)
    return 1

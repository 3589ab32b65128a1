"""CPUID as the bare machine's processor answers it (SDM volume 2, CPUID)."""

from typing import TYPE_CHECKING

from ...core.identity import CACHE_LEAF, EXTENDED
from ...core.layout import CPUID_CACHES, CPUID_EXTENDED
from ...isa.registers import EAX, EBX, ECX, EDX, FEATURE_APIC

if TYPE_CHECKING:
    from ..virtual_machine import VirtualMachine

LAST_CACHE = 4
NOTHING = (0, 0, 0, 0)


def cpuid(vm: "VirtualMachine") -> None:
    """CPUID; what it says of the local APIC is what the guest has made of its own."""
    cpu = vm.processor.cpu
    row = row_of(cpu, vm.register(EAX), vm.register(ECX))
    values = NOTHING if row < 0 else [int(value) for value in cpu.cpuid[row]]
    eax, ebx, ecx, edx = values
    apic = int(vm.devices.apics[0]["apic"]["enabled"]) << FEATURE_APIC
    if row == 1:
        edx = int(cpu.cpuid_leaf1_edx) | apic
    elif row == CPUID_EXTENDED + 1 and not cpu.msr.is_intel:
        edx |= apic
    for number, value in ((EAX, eax), (EBX, ebx), (ECX, ecx), (EDX, edx)):
        vm.set_register(number, value)


def row_of(cpu, leaf: int, selected: int) -> int:
    """The row of the processor's table that answers a leaf, -1 for zeros (core/identity.py)."""
    if EXTENDED <= leaf <= cpu.cpuid_highest_extended:
        return CPUID_EXTENDED + leaf - EXTENDED
    if leaf > cpu.cpuid_highest:
        if not cpu.cpuid_repeats:
            return -1
        leaf = int(cpu.cpuid_highest)
    return CPUID_CACHES + min(selected, LAST_CACHE) if leaf == CACHE_LEAF else leaf

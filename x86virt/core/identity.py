"""CPUID and the time-stamp counter (SDM volume 2, CPUID and RDTSC; volume 3, section 17.17)."""

from ..isa.events import EVENT_INS_CPUID_LEAF0, EVENT_INS_CPUID_LEAF1
from ..isa.registers import CR4_TSD, EAX, EBX, ECX, EDX, FEATURE_APIC
from ..isa.vectors import GP
from .charge import charge
from .fault import raise_fault
from .jit import kernel
from .layout import CPUID_CACHES, CPUID_EXTENDED, OK, TIME_LOG, TIME_STAMP
from .mode import MASK_32
from .time_log import logged_time, time_log_blocks

TICKS_PER_CYCLE_SHIFT = 6
CACHE_LEAF = 4  # the only one that ECX selects from
EXTENDED = 0x80000000


@kernel
def cpuid_row(cpu, leaf, selected):
    """The row of `cpu.cpuid` that answers a leaf; -1: zeros.

    Beyond its highest leaf an Intel processor answers as that one does, an AMD processor with zeros.
    """
    if EXTENDED <= leaf <= cpu.cpuid_highest_extended:
        return CPUID_EXTENDED + leaf - EXTENDED
    if leaf > cpu.cpuid_highest:
        if cpu.cpuid_repeats == 0:
            return -1
        leaf = cpu.cpuid_highest
    if leaf == CACHE_LEAF:
        return CPUID_CACHES + min(selected, 4)  # the last row says that there are no more
    return leaf


@kernel
def cpuid(cpu):
    """CPUID. The features of leaf 1 stand in `cpu.cpuid_leaf1_edx`, where all who depend on one look."""
    leaf = cpu.gpr[EAX]
    if leaf == 1:
        charge(cpu, EVENT_INS_CPUID_LEAF1, 1)
    else:
        charge(cpu, EVENT_INS_CPUID_LEAF0, 1)
    row = cpuid_row(cpu, leaf, cpu.gpr[ECX])
    if row < 0:
        cpu.gpr[EAX] = 0
        cpu.gpr[EBX] = 0
        cpu.gpr[ECX] = 0
        cpu.gpr[EDX] = 0
        return OK
    cpu.gpr[EAX] = cpu.cpuid[row, 0]
    cpu.gpr[EBX] = cpu.cpuid[row, 1]
    cpu.gpr[ECX] = cpu.cpuid[row, 2]
    cpu.gpr[EDX] = cpu.cpuid[row, 3]
    if row == 1:
        cpu.gpr[EDX] = cpu.cpuid_leaf1_edx | cpu.apic.enabled << FEATURE_APIC
    elif row == CPUID_EXTENDED + 1 and cpu.msr.is_intel == 0:
        cpu.gpr[EDX] |= cpu.apic.enabled << FEATURE_APIC  # AMD repeats it there
    return OK


@kernel
def offset_by(count, offset):
    """The sum of two signed 64-bit numbers, modulo 2^64."""
    low = (count & MASK_32) + (offset & MASK_32)
    return ((count >> 32) + (offset >> 32) + (low >> 32)) << 32 | low & MASK_32


@kernel
def time_stamp(cpu):
    """The time-stamp counter in cycles, as the program that runs sees it: a hypervisor may offset it for its guest."""
    count = (cpu.ticks >> TICKS_PER_CYCLE_SHIFT) + cpu.tsc_offset
    if cpu.guest_tsc_offset != 0:
        return offset_by(count, cpu.guest_tsc_offset)
    return count


@kernel
def set_time_stamp(cpu, low, high):
    """Write the time-stamp counter: all 64 bits, as on every processor from family 15 model 3 and family 6 model 14 on."""
    cpu.tsc_offset = (low | high << 32) - (cpu.ticks >> TICKS_PER_CYCLE_SHIFT)


@kernel
def write_pair(cpu, value):
    """Write a 64-bit value to EDX:EAX."""
    cpu.gpr[EAX] = value & MASK_32
    cpu.gpr[EDX] = (value >> 32) & MASK_32


@kernel
def rdtsc(cpu):
    """RDTSC: forbidden outside ring 0 by CR4.TSD."""
    if cpu.cr4 & CR4_TSD != 0 and cpu.cpl != 0:
        return raise_fault(cpu, GP, 0)
    if time_log_blocks(cpu, TIME_STAMP) == 1:
        return TIME_LOG
    write_pair(cpu, logged_time(cpu, TIME_STAMP, time_stamp(cpu)))
    return OK

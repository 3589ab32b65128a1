"""The MSR areas of VM entries and VM exits (SDM volume 3, sections 24.7.2, 26.4, 27.4 and 27.6).

entry of 16 bytes   31:0 number of the register   63:32 reserved   127:64 contents
"""

from .jit import kernel
from .model_specific import read_msr, read_time_register, write_msr
from .physical import read_memory, write_physical

ENTRY_BYTES = 16
MSR_FS_BASE, MSR_GS_BASE = 0xC0000100, 0xC0000101
X2APIC_FIRST, X2APIC_SHIFT = 0x800, 8
MSR_SMM_MONITOR_CONTROL = 0x9B
DONE = 0  # instead of the number of the entry that failed


@kernel
def may_be_in_area(number):
    """Whether a register may be named in an area: no segment base, none of the x2APIC, none of system-management mode."""
    if number == MSR_FS_BASE or number == MSR_GS_BASE or number == MSR_SMM_MONITOR_CONTROL:
        return False
    return number >> X2APIC_SHIFT != X2APIC_FIRST >> X2APIC_SHIFT


@kernel
def load_entry(cpu, ram, address):
    """Load the register that an entry names, as WRMSR in ring 0 would; False if that cannot be."""
    number = read_memory(cpu, ram, address, 4)
    if read_memory(cpu, ram, address + 4, 4) != 0 or not may_be_in_area(number):
        return False
    return write_msr(cpu, number, read_memory(cpu, ram, address + 8, 4), read_memory(cpu, ram, address + 12, 4))


@kernel
def load_msr_area(cpu, ram, address, count):
    """Load all registers of an area: DONE, or the number (from 1) of the entry that could not be loaded."""
    for index in range(count):
        if not load_entry(cpu, ram, address + ENTRY_BYTES * index):
            return index + 1
    return DONE


@kernel
def store_entry(cpu, ram, address):
    """Store the register that an entry names, as RDMSR in ring 0 would read it; False if that cannot be."""
    number = read_memory(cpu, ram, address, 4)
    if read_memory(cpu, ram, address + 4, 4) != 0 or not may_be_in_area(number):
        return False
    known, _, value = read_time_register(cpu, number)
    if not known:
        known, value = read_msr(cpu, number)
    if not known:
        return False
    write_physical(cpu, ram, address + 8, 4, value & 0xFFFFFFFF)
    write_physical(cpu, ram, address + 12, 4, (value >> 32) & 0xFFFFFFFF)
    return True


@kernel
def store_msr_area(cpu, ram, address, count):
    """Store all registers of an area: DONE, or the number (from 1) of the entry that could not be stored."""
    for index in range(count):
        if not store_entry(cpu, ram, address + ENTRY_BYTES * index):
            return index + 1
    return DONE

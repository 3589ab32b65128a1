"""Model-specific registers (SDM volume 3, chapters 11 and 15; volume 4; AMD volume 2, appendix A).

What only stores lies in the record MODEL_SPECIFIC, apart from the processor, so that a VMM can keep one for its guest.
Memory types are kept and checked but change nothing: the modelled caches are always write-back. The machine-check
banks are those of a processor that met no error.
"""

from ..isa.registers import (
    EAX,
    ECX,
    EDX,
    EFER_NXE,
    FEATURE_MCA,
    FEATURE_MTRR,
    FEATURE_NX,
    FEATURE_PAT,
    FEATURE_SEP,
    FEATURE_TSC,
    MSR_APIC_BASE,
    MSR_BIOS_SIGNATURE,
    MSR_EFER,
    MSR_MC0_CTL,
    MSR_MCG_CAP,
    MSR_MCG_STATUS,
    MSR_MISC_ENABLE,
    MSR_MTRR_CAP,
    MSR_MTRR_DEFAULT_TYPE,
    MSR_MTRR_FIXED,
    MSR_MTRR_PHYSICAL,
    MSR_PAT,
    MSR_PLATFORM_ID,
    MSR_SYSENTER_CS,
    MSR_SYSENTER_EIP,
    MSR_SYSENTER_ESP,
    MSR_TSC,
)
from ..isa.svm import EFER_SVME, VM_CR_SVMDIS
from ..isa.vectors import GP
from ..isa.vmx import (
    FEATURE_CONTROL_LOCK,
    FEATURE_CONTROL_VMX,
    MSR_FEATURE_CONTROL,
    MSR_VMX_BASIC,
    VMX_BASIC,
)
from .fault import raise_fault
from .identity import set_time_stamp, time_stamp, write_pair
from .jit import kernel
from .layout import (
    MC_BANKS,
    N_VMX_CAPABILITIES,
    OK,
    SVM_ABSENT,
    SVM_PRESENT,
    TIME_COUNTER,
    TIME_LOG,
    TIME_STAMP,
    VARIABLE_RANGES,
)
from .local_apic import write_base
from .performance import is_performance_register, read_performance_register, write_performance_register
from .physical_map import refresh_map
from .svm_registers import is_svm_register, read_svm_register, write_svm_register
from .time_log import logged_time, time_log_blocks
from .tlb import flush_tlb

M32 = 0xFFFFFFFF
APIC_BASE_DISABLED = 0xFEE00100  # the architectural base, bootstrap processor, APIC disabled
APIC_BASE_RESERVED = 0x6FF
MTRR_CAP = 0x500 | VARIABLE_RANGES  # fixed ranges and write-combining
MCG_CAP = MC_BANKS
MCG_STATUS_BITS = 7  # RIPV, EIPV, MCIP
MISC_ENABLE_FAST_STRINGS = 1
MTRR_TYPES = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6  # UC, WC, WT, WP, WB
PAT_TYPES = MTRR_TYPES | 1 << 7  # and UC-
DEFAULT_TYPE_BITS = 0xCFF  # the type, FE and E
MASK_VALID = 1 << 11
# MTRR_FIX64K, 2 x 16K, 8 x 4K: their numbers less the first.
FIXED_NUMBERS = (0, 8, 9, 24, 25, 26, 27, 28, 29, 30, 31)


@kernel
def has_feature(msr, bit):
    """Whether CPUID leaf 1 EDX has a bit."""
    return (msr.features >> bit) & 1 != 0


@kernel
def fixed_range(number):
    """The index of a fixed-range MTRR, -1 for another register."""
    for index in range(len(FIXED_NUMBERS)):
        if number == MSR_MTRR_FIXED + FIXED_NUMBERS[index]:
            return index
    return -1


@kernel
def all_types(octets, types):
    """Whether each byte of a doubleword is one of a set of memory types."""
    for shift in range(0, 32, 8):
        kind = (octets >> shift) & 0xFF
        if kind > 7 or (types >> kind) & 1 == 0:
            return False
    return True


@kernel
def beyond_physical(msr, high):
    """Whether the high half of an address has a bit that no physical address has."""
    return high >> (msr.physical_bits - 32) != 0


# -- memory types -------------------------------------------------------------------------------------------------------


@kernel
def read_memory_type(msr, number):
    """MTRRs and the PAT: (known, value)."""
    if number == MSR_PAT and has_feature(msr, FEATURE_PAT):
        return True, msr.pat
    if not has_feature(msr, FEATURE_MTRR):
        return False, 0
    if number == MSR_MTRR_CAP:
        return True, MTRR_CAP
    if number == MSR_MTRR_DEFAULT_TYPE:
        return True, msr.mtrr_default
    if MSR_MTRR_PHYSICAL <= number < MSR_MTRR_PHYSICAL + 2 * VARIABLE_RANGES:
        return True, msr.mtrr_physical[number - MSR_MTRR_PHYSICAL]
    index = fixed_range(number)
    if index >= 0:
        return True, msr.mtrr_fixed[index]
    return False, 0


@kernel
def physical_allowed(msr, number, low, high):
    """May a variable range's base (even) or mask (odd register) have this value?"""
    if beyond_physical(msr, high):
        return False
    if number & 1:
        return low & 0xFFF & ~MASK_VALID == 0
    return low & 0xF00 == 0 and low & 0xFF <= 7 and (MTRR_TYPES >> (low & 7)) & 1 != 0


@kernel
def write_memory_type(msr, number, low, high):
    """MTRRs and the PAT: whether the register exists and may have the value."""
    value = low | high << 32
    if number == MSR_PAT and has_feature(msr, FEATURE_PAT):
        if not all_types(low, PAT_TYPES) or not all_types(high, PAT_TYPES):
            return False
        msr.pat = value
        return True
    if not has_feature(msr, FEATURE_MTRR):
        return False
    if number == MSR_MTRR_DEFAULT_TYPE:
        if high != 0 or low & ~DEFAULT_TYPE_BITS != 0 or low & 0xFF > 7 or (MTRR_TYPES >> (low & 7)) & 1 == 0:
            return False
        msr.mtrr_default = value
        return True
    if MSR_MTRR_PHYSICAL <= number < MSR_MTRR_PHYSICAL + 2 * VARIABLE_RANGES:
        if not physical_allowed(msr, number, low, high):
            return False
        msr.mtrr_physical[number - MSR_MTRR_PHYSICAL] = value
        return True
    index = fixed_range(number)
    if index < 0 or not all_types(low, MTRR_TYPES) or not all_types(high, MTRR_TYPES):
        return False
    msr.mtrr_fixed[index] = value
    return True


# -- machine checks -------------------------------------------------------------------------------------------------------


@kernel
def read_machine_check(msr, number):
    """MCG_CAP, MCG_STATUS and the banks' CTL, STATUS, ADDR and MISC: (known, value)."""
    if not has_feature(msr, FEATURE_MCA):
        return False, 0
    if number == MSR_MCG_CAP:
        return True, MCG_CAP
    if number == MSR_MCG_STATUS:
        return True, msr.mcg_status
    bank = (number - MSR_MC0_CTL) >> 2
    if number < MSR_MC0_CTL or bank >= MC_BANKS:
        return False, 0
    if number & 3 == 0:
        return True, msr.mc_control[bank]
    return True, 0


@kernel
def write_machine_check(msr, number, low, high):
    """The same, written: a bank's CTL takes any value, of the rest of a bank only zero can be written."""
    if not has_feature(msr, FEATURE_MCA):
        return False
    if number == MSR_MCG_STATUS:
        if high != 0 or low & ~MCG_STATUS_BITS != 0:
            return False
        msr.mcg_status = low
        return True
    bank = (number - MSR_MC0_CTL) >> 2
    if number < MSR_MC0_CTL or bank >= MC_BANKS:
        return False
    if number & 3 == 0:
        msr.mc_control[bank] = low | high << 32
        return True
    return low == 0 and high == 0


@kernel
def efer_bits(msr):
    """The bits of EFER that can be set; 0: there is no EFER. SVME can be while VM_CR.SVMDIS is clear."""
    bits = (msr.extended_features >> FEATURE_NX & 1) * EFER_NXE
    if msr.has_svm == SVM_PRESENT and msr.vm_cr & VM_CR_SVMDIS == 0:
        bits |= EFER_SVME
    return bits


# -- VMX ----------------------------------------------------------------------------------------------------------------


@kernel
def read_vmx_register(msr, number):
    """IA32_FEATURE_CONTROL and the capability registers (SDM volume 3, appendix A): (known, value)."""
    if msr.vmx_capability[VMX_BASIC] == 0:
        return False, 0
    if number == MSR_FEATURE_CONTROL:
        return True, msr.feature_control
    index = number - MSR_VMX_BASIC
    if index < 0 or index >= N_VMX_CAPABILITIES:
        return False, 0
    return msr.vmx_capability[index] != 0, msr.vmx_capability[index]


@kernel
def write_feature_control(msr, low, high):
    """IA32_FEATURE_CONTROL: whether it exists, is not locked, and may have the value."""
    if msr.vmx_capability[VMX_BASIC] == 0 or msr.feature_control & FEATURE_CONTROL_LOCK != 0:
        return False
    if high != 0 or low & ~(FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX) != 0:
        return False
    msr.feature_control = low
    return True


# -- all that stores ------------------------------------------------------------------------------------------------------


@kernel
def read_stored(msr, number):
    """A register that only stores: (known, value)."""
    if number == MSR_APIC_BASE:
        # A processor whose APIC is disabled has this register still, and no APIC in CPUID (SDM volume 3, 10.4.3).
        return True, APIC_BASE_DISABLED
    if number == MSR_EFER and efer_bits(msr) != 0:
        return True, msr.efer
    if msr.has_svm != SVM_ABSENT and is_svm_register(number):
        return True, read_svm_register(msr, number)
    if number == MSR_BIOS_SIGNATURE:  # no microcode update was loaded
        return True, 0
    if msr.is_intel == 1 and number == MSR_PLATFORM_ID:
        return True, 0
    if msr.is_intel == 1 and number == MSR_MISC_ENABLE:
        return True, msr.misc_enable
    known, value = read_memory_type(msr, number)
    if not known:
        known, value = read_vmx_register(msr, number)
    if known:
        return True, value
    return read_machine_check(msr, number)


@kernel
def write_stored(msr, number, low, high):
    """Write a register that only stores; False: it does not exist, or may not have the value, and #GP(0) is due."""
    if number == MSR_APIC_BASE:
        # Once disabled, the APIC comes back with a reset only (SDM volume 3, section 10.4.3).
        return low == APIC_BASE_DISABLED and high == 0
    if msr.has_svm != SVM_ABSENT and is_svm_register(number):
        return write_svm_register(msr, number, low, high)
    if number == MSR_EFER and efer_bits(msr) != 0:
        if high != 0 or low & ~efer_bits(msr) != 0:
            return False
        msr.efer = low
        return True
    if number == MSR_BIOS_SIGNATURE:  # written before CPUID to ask for the signature, which stays 0
        return True
    if msr.is_intel == 1 and number == MSR_MISC_ENABLE:
        if (low ^ msr.misc_enable) & M32 & ~MISC_ENABLE_FAST_STRINGS != 0 or high != 0:
            return False
        msr.misc_enable = low
        return True
    if number == MSR_FEATURE_CONTROL:
        return write_feature_control(msr, low, high)
    return write_memory_type(msr, number, low, high) or write_machine_check(msr, number, low, high)


# -- the instructions -----------------------------------------------------------------------------------------------------


@kernel
def has_system_call(cpu, number):
    """Whether a register is one of SYSENTER's, and the processor has it."""
    return MSR_SYSENTER_CS <= number <= MSR_SYSENTER_EIP and (cpu.cpuid_leaf1_edx >> FEATURE_SEP) & 1 != 0


@kernel
def write_apic_base(cpu, low, high):
    """IA32_APIC_BASE of a processor with a local APIC (SDM volume 3, section 10.4.4): enabled, disabled or moved.

    Disabled, it can be enabled again without a reset, as on processors whose APIC is on the system bus. False: the value
    may not be written.
    """
    if low & APIC_BASE_RESERVED != 0 or beyond_physical(cpu.msr, high):
        return False
    write_base(cpu.apic, low | high << 32)
    refresh_map(cpu)
    cpu.limit_ticks = min(cpu.limit_ticks, cpu.ticks)
    return True


@kernel
def has_time_stamp(cpu):
    """Whether the processor has the time-stamp counter."""
    return (cpu.cpuid_leaf1_edx >> FEATURE_TSC) & 1 != 0


@kernel
def read_msr(cpu, number):
    """A model-specific register but those that tell time: (known, value)."""
    if has_system_call(cpu, number):
        if number == MSR_SYSENTER_CS:
            return True, cpu.sysenter_cs
        if number == MSR_SYSENTER_ESP:
            return True, cpu.sysenter_esp
        return True, cpu.sysenter_eip
    if number == MSR_APIC_BASE and cpu.apic.present == 1:
        return True, cpu.apic.base_msr
    return read_stored(cpu.msr, number)


@kernel
def read_time_register(cpu, number):
    """A register that tells time: (known, its source in the log of time reads, value)."""
    if number == MSR_TSC and has_time_stamp(cpu):
        return True, TIME_STAMP, time_stamp(cpu)
    if is_performance_register(cpu, number):
        return True, TIME_COUNTER - number, read_performance_register(cpu, number)
    return False, 0, 0


@kernel
def rdmsr(cpu):
    """RDMSR; #GP(0) for a register that this processor does not have."""
    number = cpu.gpr[ECX]
    known, source, value = read_time_register(cpu, number)
    if known:
        if time_log_blocks(cpu, source) == 1:
            return TIME_LOG
        write_pair(cpu, logged_time(cpu, source, value))
        return OK
    known, value = read_msr(cpu, number)
    if not known:
        return raise_fault(cpu, GP, 0)
    write_pair(cpu, value)
    return OK


@kernel
def write_msr(cpu, number, low, high):
    """Write a model-specific register; False: it does not exist, or may not have the value, and #GP(0) is due.

    The SYSENTER registers keep 32 bits.
    """
    if number == MSR_TSC and has_time_stamp(cpu):
        set_time_stamp(cpu, low, high)
    elif has_system_call(cpu, number):
        if number == MSR_SYSENTER_CS:
            cpu.sysenter_cs = low
        elif number == MSR_SYSENTER_ESP:
            cpu.sysenter_esp = low
        else:
            cpu.sysenter_eip = low
    elif is_performance_register(cpu, number):
        write_performance_register(cpu, number, low)
    elif number == MSR_APIC_BASE and cpu.apic.present == 1:
        return write_apic_base(cpu, low, high)
    elif not write_stored(cpu.msr, number, low, high):
        return False
    if number == MSR_EFER:
        follow_efer(cpu)
    return True


@kernel
def follow_efer(cpu):
    """Let paging see IA32_EFER: the meaning of bit 63 of all entries may have changed."""
    if cpu.efer != cpu.msr.efer:
        cpu.efer = cpu.msr.efer
        flush_tlb(cpu, 0)


@kernel
def wrmsr(cpu):
    """WRMSR; #GP(0) for a register that this processor does not have, or a value that it may not have."""
    if not write_msr(cpu, cpu.gpr[ECX], cpu.gpr[EAX], cpu.gpr[EDX]):
        return raise_fault(cpu, GP, 0)
    return OK

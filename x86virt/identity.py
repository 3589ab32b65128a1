"""What CPUID answers: the table of `core/identity.py`, made from a profile (SDM volume 2, CPUID; AMD publication 25481).

Only what the simulated machine has is reported: no SSE, no long mode, no APIC before it has one, one processor without
threads. Sizes and associativities are those of the modelled TLBs and caches.
"""

from typing import Any

import numpy as np

from .core.layout import CPUID_CACHES, CPUID_EXTENDED, CPUID_ROWS
from .isa.svm import (
    CPUID_SVM,
    FEATURE_DECODE_ASSISTS,
    FEATURE_FLUSH_BY_ASID,
    FEATURE_NESTED_PAGING,
    FEATURE_NRIP_SAVE,
    FEATURE_SVM_LOCK,
)
from .isa.vmx import CPUID_ECX_VMX
from .profile import Profile
from .vmx_capabilities import capability_registers, has_vmx, offered_fields, signed

Row = tuple[int, int, int, int]
LINEAR_ADDRESS_BITS = 32
SVM_REVISION = 1
INTEL = "GenuineIntel"
DATA, INSTRUCTIONS, UNIFIED = 1, 2, 3  # cache types of leaf 4
RESET_PAT = 0x0007040600070406
RESET_MISC_ENABLE = 0x1801  # fast strings on; neither branch-trace storage nor precise sampling
# Ways by the codes of leaf 80000006, in rising order.
ASSOCIATIVITY = {1: 1, 2: 2, 4: 4, 8: 6, 16: 8, 32: 10, 48: 11, 64: 12, 96: 13, 128: 14}
FULLY = 15


def doublewords(text: bytes) -> list[int]:
    """Text as little-endian doublewords."""
    return [int.from_bytes(text[place : place + 4], "little") for place in range(0, len(text), 4)]


def is_intel(profile: Profile) -> bool:
    """Whether the processor is Intel's, whose CPUID has leaves of its own."""
    return profile["cpuid.vendor"] == INTEL


def sets_of(profile: Profile, level: str) -> int:
    """The sets of a cache."""
    lines = profile.integer(f"cache.{level}_kb") * 1024 // profile.integer("cache.line_bytes")
    return lines // profile.integer(f"cache.{level}_ways")


def deterministic_caches(profile: Profile) -> list[Row]:
    """The sub-leaves of leaf 4; a cache of no ways (a trace cache, or none) is not listed."""
    rows = []
    for name, kind, level in (("l1d", DATA, 1), ("l1i", INSTRUCTIONS, 1), ("l2", UNIFIED, 2), ("l3", UNIFIED, 3)):
        ways = profile.integer(f"cache.{name}_ways")
        if ways and profile.integer(f"cache.{name}_kb"):
            line = profile.integer("cache.line_bytes")
            rows.append((kind | level << 5 | 1 << 8, line - 1 | (ways - 1) << 22, sets_of(profile, name) - 1, 0))
    return rows


def ways_byte(profile: Profile, key: str) -> int:
    """An associativity as leaf 80000005 gives it: 0 ways are full associativity."""
    return profile.integer(key) or 0xFF


def ways_code(ways: int, entries: int) -> int:
    """An associativity as leaf 80000006 gives it: the code of the most ways that are not more."""
    if entries == 0:
        return 0
    if ways == 0:
        return FULLY
    return ASSOCIATIVITY[max(known for known in ASSOCIATIVITY if known <= ways)]


def first_level(profile: Profile) -> Row:
    """Leaf 80000005 of an AMD processor: first-level TLBs and caches."""

    def tlbs(data: str, instructions: str) -> int:
        return (
            ways_byte(profile, f"tlb.{data}_ways") << 24
            | min(profile.integer(f"tlb.{data}_entries"), 255) << 16
            | ways_byte(profile, f"tlb.{instructions}_ways") << 8
            | min(profile.integer(f"tlb.{instructions}_entries"), 255)
        )

    def cache(name: str) -> int:
        size = min(profile.integer(f"cache.{name}_kb"), 255)
        return size << 24 | profile.integer(f"cache.{name}_ways") << 16 | 1 << 8 | profile.integer("cache.line_bytes")

    return (
        tlbs("dtlb_large", "itlb_large"),
        tlbs("dtlb_4k_l1", "itlb_4k"),
        cache("l1d"),
        cache("l1i"),
    )


def outer_levels(profile: Profile) -> Row:
    """Leaf 80000006: second-level TLBs (AMD only) and the outer caches (of Intel's only the second level)."""
    line = profile.integer("cache.line_bytes")
    size, ways = profile.integer("cache.l2_kb"), profile.integer("cache.l2_ways")
    second = size << 16 | ways_code(ways, size) << 12 | line
    if is_intel(profile):
        return 0, 0, second, 0
    entries = [profile.integer(f"tlb.{name}_l2_entries") for name in ("dtlb_4k", "itlb_4k")]
    codes = [
        ways_code(profile.integer(f"tlb.{name}_l2_ways"), number)
        for name, number in zip(("dtlb_4k", "itlb_4k"), entries, strict=True)
    ]
    tlb = codes[0] << 28 | entries[0] << 16 | codes[1] << 12 | entries[1]
    size, ways = profile.integer("cache.l3_kb"), profile.integer("cache.l3_ways")
    third = (size // 512) << 18 | ways_code(ways, size) << 12 | 1 << 8 | line if size else 0
    return 0, tlb, second | 1 << 8, third


def has_svm(profile: Profile) -> int:
    """1 if the processor has the secure virtual machine."""
    return int(not is_intel(profile) and profile.integer("feature.hw_virt") == 1)


def svm_features(profile: Profile) -> int:
    """Leaf 8000000A EDX, as far as the machine has it: no virtualization of last-branch records, which it has none of."""
    if not has_svm(profile):
        return 0
    bits = {
        FEATURE_NESTED_PAGING: "nested_paging",
        FEATURE_SVM_LOCK: "svm_lock",
        FEATURE_NRIP_SAVE: "svm_nrip_save",
        FEATURE_FLUSH_BY_ASID: "svm_flush_by_asid",
        FEATURE_DECODE_ASSISTS: "svm_decode_assists",
    }
    return sum(profile.integer(f"feature.{name}") << bit for bit, name in bits.items())


def basic_leaves(profile: Profile) -> dict[int, Row]:
    """The basic leaves by number; those that only report what the machine lacks are zeros."""
    vendor = doublewords(str(profile["cpuid.vendor"]).encode())
    rows = {
        0: (profile.integer("cpuid.highest_leaf"), vendor[0], vendor[2], vendor[1]),
        1: (profile.cpuid_signature(), 0, CPUID_ECX_VMX * has_vmx(profile), profile.integer("cpuid.features")),
    }
    if is_intel(profile):
        a, b, c, d = (profile.integer(f"cpuid.descriptors_{name}") for name in ("eax", "ebx", "ecx", "edx"))
        rows[2] = (a, b, c, d)
    return rows


def extended_leaves(profile: Profile) -> dict[int, Row]:
    """The extended leaves by number less 80000000."""
    intel = is_intel(profile)
    vendor = (0, 0, 0) if intel else basic_leaves(profile)[0][1:]
    brand = doublewords(str(profile["cpuid.brand"]).encode().ljust(48, b"\0"))
    rows: dict[int, Row] = {
        0: (profile.integer("cpuid.highest_extended_leaf"), *vendor),
        1: (
            0 if intel else profile.cpuid_signature(),
            0,
            has_svm(profile) << CPUID_SVM,
            profile.integer("cpuid.extended_features"),
        ),
        6: outer_levels(profile),
        8: (profile.integer("cpuid.physical_address_bits") | LINEAR_ADDRESS_BITS << 8, 0, 0, 0),
    }
    for number in range(3):
        a, b, c, d = brand[4 * number : 4 * number + 4]
        rows[2 + number] = (a, b, c, d)
    if not intel:
        rows[5] = first_level(profile)
    if has_svm(profile):
        rows[10] = (SVM_REVISION, profile.integer("svm.asids"), 0, svm_features(profile))
    return rows


def cpuid_table(profile: Profile) -> np.ndarray:
    """All answers of CPUID: int64, shape (CPUID_ROWS, 4), rows as core/layout.py numbers them."""
    table = np.zeros((CPUID_ROWS, 4), np.int64)
    for leaf, row in basic_leaves(profile).items():
        table[leaf] = row
    for leaf, row in extended_leaves(profile).items():
        table[CPUID_EXTENDED + leaf] = row
    if is_intel(profile):
        for number, row in enumerate(deterministic_caches(profile)):
            table[CPUID_CACHES + number] = row
    return table


def load_identity(cpu: Any, profile: Profile) -> None:
    """Give a processor record its identity: CPUID's answers, and which model-specific registers there are."""
    cpu.cpuid[:] = cpuid_table(profile)
    cpu.cpuid_highest = profile.integer("cpuid.highest_leaf")
    cpu.cpuid_highest_extended = profile.integer("cpuid.highest_extended_leaf")
    cpu.cpuid_repeats = int(is_intel(profile))
    cpu.cpuid_leaf1_edx = profile.integer("cpuid.features")
    cpu.sensitive_trap = profile.integer("feature.sensitive_instructions_trap")
    msr = cpu.msr
    msr.features = profile.integer("cpuid.features")
    msr.extended_features = profile.integer("cpuid.extended_features")
    msr.is_intel = int(is_intel(profile))
    msr.physical_bits = profile.integer("cpuid.physical_address_bits")
    for number, value in capability_registers(profile).items():
        msr.vmx_capability[number] = signed(value)
    cpu.vmx.field_offered[:] = offered_fields(profile)
    msr.has_svm = has_svm(profile)
    msr.svm_features = svm_features(profile)


def reset_model_specific(msr: Any) -> None:
    """The model-specific registers that only store, as after a reset (SDM volume 3, table 9-1)."""
    for name in ("efer", "mtrr_default", "mtrr_physical", "mtrr_fixed", "mcg_status", "mc_control", "feature_control"):
        msr[name] = 0
    for name in ("vm_cr", "vm_hsave_pa", "svm_key"):
        msr[name] = 0
    msr.pat = RESET_PAT
    msr.misc_enable = RESET_MISC_ENABLE

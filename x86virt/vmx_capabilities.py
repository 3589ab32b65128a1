"""What a profile's processor offers of VMX: the capability registers and the fields of its VMCS (SDM volume 3, appendix A)."""

from .isa.registers import CR0_NE, CR0_PE, CR0_PG, CR4_VMXE
from .isa.vmx import (
    BASIC_INS_OUTS,
    BASIC_TRUE_CONTROLS,
    CONTROLS,
    ENTRY_DEFAULT1,
    ENTRY_TRUE_OPTIONAL,
    EXIT_DEFAULT1,
    EXIT_TRUE_OPTIONAL,
    FIELDS,
    MISC_ACTIVITY_HLT,
    MISC_CR3_TARGETS_SHIFT,
    PIN_DEFAULT1,
    PROCESSOR_DEFAULT1,
    PROCESSOR_TRUE_OPTIONAL,
    REGION_BYTES,
    VMX_BASIC,
    VMX_CR0_FIXED0,
    VMX_CR0_FIXED1,
    VMX_CR4_FIXED0,
    VMX_ENTRY,
    VMX_EPT_VPID,
    VMX_EXIT,
    VMX_MISC,
    VMX_PINBASED,
    VMX_PROCBASED,
    VMX_PROCBASED2,
    VMX_TRUE_ENTRY,
    VMX_TRUE_EXIT,
    VMX_TRUE_PINBASED,
    VMX_TRUE_PROCBASED,
    VMX_VMCS_ENUM,
)
from .profile import Profile

M32 = 0xFFFFFFFF
FLAGS = {"ept": "feature.nested_paging", "vpid": "feature.tlb_vm_tag"}  # the others are feature.vmx_...
WRITE_BACK = 6 << 50  # the memory type of the VMCS region
EPT_BASE = 1 << 6 | 1 << 8 | 1 << 14 | 1 << 20 | 1 << 25 | 1 << 26  # four levels, UC and WB, INVEPT of both types
EPT_PAGES = {"vmx_ept_execute_only": 1 << 0, "vmx_ept_2mb_pages": 1 << 16, "vmx_ept_1gb_pages": 1 << 17}
VPID_BASE = 1 << 32 | 15 << 40  # INVVPID of all four types


def has_vmx(profile: Profile) -> bool:
    """Whether the processor has VMX, and not SVM."""
    return bool(profile.integer("feature.hw_virt")) and profile["cpuid.vendor"] == "GenuineIntel"


def offers(profile: Profile, need: str) -> bool:
    """Whether the processor has a capability of isa/vmx.py; none is always there."""
    return not need or bool(profile.integer(FLAGS.get(need, f"feature.vmx_{need}")))


def controls(profile: Profile, register: str, must: int) -> int:
    """A capability register of controls: in its low half those that must be 1, in its high half those that may be."""
    may = must
    for control in CONTROLS:
        if control.register == register and offers(profile, control.needs):
            may |= control.bit
    return must | may << 32


def default_controls(profile: Profile) -> dict[int, int]:
    """The four capability registers of controls that every processor with VMX has."""
    return {
        VMX_PINBASED: controls(profile, "pin", PIN_DEFAULT1),
        VMX_PROCBASED: controls(profile, "processor", PROCESSOR_DEFAULT1),
        VMX_EXIT: controls(profile, "exit", EXIT_DEFAULT1),
        VMX_ENTRY: controls(profile, "entry", ENTRY_DEFAULT1),
    }


def true_controls(registers: dict[int, int]) -> dict[int, int]:
    """Their TRUE counterparts, where some of the default ones need not be 1."""
    return {
        VMX_TRUE_PINBASED: registers[VMX_PINBASED],
        VMX_TRUE_PROCBASED: registers[VMX_PROCBASED] & ~PROCESSOR_TRUE_OPTIONAL,
        VMX_TRUE_EXIT: registers[VMX_EXIT] & ~EXIT_TRUE_OPTIONAL,
        VMX_TRUE_ENTRY: registers[VMX_ENTRY] & ~ENTRY_TRUE_OPTIONAL,
    }


def translation_capability(profile: Profile) -> int:
    """IA32_VMX_EPT_VPID_CAP."""
    value = 0
    if offers(profile, "ept"):
        value |= EPT_BASE | sum(bit for name, bit in EPT_PAGES.items() if profile.integer(f"feature.{name}"))
    if offers(profile, "vpid"):
        value |= VPID_BASE
    return value


def offered_fields(profile: Profile) -> list[int]:
    """By slot: 1 if the processor's VMCS has the field."""
    return [int(has_vmx(profile) and offers(profile, field.needs)) for field in FIELDS]


def capability_registers(profile: Profile) -> dict[int, int]:
    """The capability registers that exist, less IA32_VMX_CR4_FIXED1, which follows the processor's other features."""
    if not has_vmx(profile):
        return {}
    basic = profile.integer("vmx.revision") | REGION_BYTES << 32 | WRITE_BACK
    basic |= BASIC_INS_OUTS * offers(profile, "ins_outs_information") | BASIC_TRUE_CONTROLS * offers(profile, "true_controls")
    misc = profile.integer("vmx.timer_rate") | MISC_ACTIVITY_HLT
    registers = {
        VMX_BASIC: basic,
        VMX_MISC: misc | profile.integer("vmx.cr3_targets") << MISC_CR3_TARGETS_SHIFT,
        VMX_CR0_FIXED0: CR0_PG | CR0_NE | CR0_PE,
        VMX_CR0_FIXED1: M32,
        VMX_CR4_FIXED0: CR4_VMXE,
        VMX_VMCS_ENUM: max(field.index for field in FIELDS if offers(profile, field.needs)) << 1,
        **default_controls(profile),
    }
    if offers(profile, "secondary_controls"):
        registers[VMX_PROCBASED2] = controls(profile, "secondary", 0)
    if translation_capability(profile):
        registers[VMX_EPT_VPID] = translation_capability(profile)
    if offers(profile, "true_controls"):
        registers |= true_controls(registers)
    return registers


def signed(value: int) -> int:
    """A register of 64 bits as the record holds it."""
    return value - (value >> 63 << 64)

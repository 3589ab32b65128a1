"""Where a VMCB has what the common interface of control structures names by the keys of a VMCS (isa/vmx.py, `Field.key`).

What a VMCS lacks because the processor keeps it in registers has a key of its own here: CR2, DR6 and EAX. Access rights and the
interruptibility state have other formats in the two; `from_vmcb` and `to_vmcb` go between them.
"""

from dataclasses import dataclass

from ...isa import svm
from ...isa.registers import AR_P, AR_UNUSABLE, SEGMENT_REGISTERS
from ...isa.vmx import BLOCKING_BY_STI

PLAIN, ACCESS_RIGHTS, INTERRUPTIBILITY, EXTENDED_FEATURES = range(4)  # formats


@dataclass(frozen=True)
class Place:
    """A field of the VMCB: its offset, the bytes that a VMM of 32 bits reads and writes, and its format."""

    offset: int
    count: int = 4
    format: int = PLAIN


_SEGMENTS = {
    "es": svm.VMCB_ES, "cs": svm.VMCB_CS, "ss": svm.VMCB_SS, "ds": svm.VMCB_DS, "fs": svm.VMCB_FS, "gs": svm.VMCB_GS,
    "ldtr": svm.VMCB_LDTR, "tr": svm.VMCB_TR,
}  # fmt: skip
assert tuple(_SEGMENTS) == SEGMENT_REGISTERS, "in the order of the registers' numbers"

PLACES: dict[str, Place] = {
    "exception_bitmap": Place(svm.VMCB_EXCEPTION_INTERCEPTS),
    "guest_interruptibility_state": Place(svm.VMCB_INTERRUPT_SHADOW, 4, INTERRUPTIBILITY),
    "guest_ia32_efer": Place(svm.VMCB_EFER, 4, EXTENDED_FEATURES),
    "guest_cr0": Place(svm.VMCB_CR0),
    "guest_cr2": Place(svm.VMCB_CR2),
    "guest_cr3": Place(svm.VMCB_CR3),
    "guest_cr4": Place(svm.VMCB_CR4),
    "guest_dr6": Place(svm.VMCB_DR6),
    "guest_dr7": Place(svm.VMCB_DR7),
    "guest_rflags": Place(svm.VMCB_RFLAGS),
    "guest_rip": Place(svm.VMCB_RIP),
    "guest_rsp": Place(svm.VMCB_RSP),
    "guest_rax": Place(svm.VMCB_RAX),
    "guest_ia32_sysenter_cs": Place(svm.VMCB_SYSENTER_CS),
    "guest_ia32_sysenter_esp": Place(svm.VMCB_SYSENTER_ESP),
    "guest_ia32_sysenter_eip": Place(svm.VMCB_SYSENTER_EIP),
}
for _name, _offset in _SEGMENTS.items():
    PLACES[f"guest_{_name}_selector"] = Place(_offset + svm.SEGMENT_SELECTOR, 2)
    PLACES[f"guest_{_name}_access_rights"] = Place(_offset + svm.SEGMENT_ATTRIBUTES, 2, ACCESS_RIGHTS)
    PLACES[f"guest_{_name}_limit"] = Place(_offset + svm.SEGMENT_LIMIT)
    PLACES[f"guest_{_name}_base"] = Place(_offset + svm.SEGMENT_BASE)
for _name, _offset in (("gdtr", svm.VMCB_GDTR), ("idtr", svm.VMCB_IDTR)):
    PLACES[f"guest_{_name}_limit"] = Place(_offset + svm.SEGMENT_LIMIT, 2)
    PLACES[f"guest_{_name}_base"] = Place(_offset + svm.SEGMENT_BASE)

# What VMRUN and #VMEXIT leave alone: VMLOAD and VMSAVE carry it (section 15.5.2).
CARRIED_SEGMENTS = ("fs", "gs", "ldtr", "tr")
CARRIED = frozenset(
    key
    for key in PLACES
    if key.startswith("guest_ia32_sysenter") or key.removeprefix("guest_").rpartition("_")[0] in CARRIED_SEGMENTS
    or key in {f"guest_{name}_access_rights" for name in CARRIED_SEGMENTS}
)  # fmt: skip


def from_vmcb(place: Place, value: int) -> int:
    """What a VMCS would hold."""
    if place.format == ACCESS_RIGHTS:
        if not value & AR_P:
            return AR_UNUSABLE
        return value & svm.ATTRIBUTES_LOW | (value & svm.ATTRIBUTES_HIGH) << svm.ATTRIBUTES_HIGH_SHIFT
    if place.format == INTERRUPTIBILITY:
        return (value & 1) * BLOCKING_BY_STI
    if place.format == EXTENDED_FEATURES:
        return value & ~svm.EFER_SVME
    return value


def to_vmcb(place: Place, value: int) -> int:
    """What the VMCB must hold: an unusable segment is a null one, either kind of blocking an interrupt shadow."""
    if place.format == ACCESS_RIGHTS:
        if value & AR_UNUSABLE:
            return 0
        return value & svm.ATTRIBUTES_LOW | value >> svm.ATTRIBUTES_HIGH_SHIFT & svm.ATTRIBUTES_HIGH
    if place.format == INTERRUPTIBILITY:
        return int(value != 0)
    if place.format == EXTENDED_FEATURES:
        return value | svm.EFER_SVME
    return value

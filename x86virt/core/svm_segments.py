"""Segment registers between the processor and a VMCB (AMD publication 24593, section 15.5.1).

The attributes of a VMCB are bits 55:52 and 47:40 of a descriptor. P clear means a null segment, where there can be one; of CS
only the bits that say what code it is count, of LDTR only P, of TR only the size of the TSS.
"""

from ..isa.registers import (
    AR_AVL,
    AR_DB,
    AR_DPL,
    AR_G,
    AR_L,
    AR_P,
    AR_S,
    AR_TYPE,
    AR_UNUSABLE,
    CS,
    LDTR,
    TR,
    TYPE_ACCESSED,
    TYPE_CODE,
    TYPE_LDT,
    TYPE_TSS_16_BUSY,
    TYPE_TSS_32_BUSY,
)
from ..isa.svm import (
    ATTRIBUTES_HIGH,
    ATTRIBUTES_HIGH_SHIFT,
    ATTRIBUTES_LOW,
    SEGMENT_ATTRIBUTES,
    SEGMENT_BASE,
    SEGMENT_LIMIT,
    SEGMENT_SELECTOR,
)
from .jit import kernel
from .mode import segments_are_paragraphs
from .segment import segment_limits
from .svm_vmcb import get_16, get_32, put_16, put_32, put_64

EITHER_TSS_32 = 8  # of a TSS's type: that of a 32-bit one
DESCRIPTOR_BITS = AR_TYPE | AR_S | AR_DPL | AR_P | AR_AVL | AR_L | AR_DB | AR_G


@kernel
def access_from(attributes):
    """The access-rights word of a VMCB's attributes."""
    return (attributes & ATTRIBUTES_LOW) | (attributes & ATTRIBUTES_HIGH) << ATTRIBUTES_HIGH_SHIFT


@kernel
def attributes_from(access):
    """The attributes of an access-rights word; all zero for a null segment."""
    if access & AR_UNUSABLE != 0 or access & AR_P == 0:
        return 0
    return (access & ATTRIBUTES_LOW) | (access >> ATTRIBUTES_HIGH_SHIFT) & ATTRIBUTES_HIGH


@kernel
def loaded_access(cpu, segment, attributes):
    """The access rights that a segment register gets: what does not count is as it must be."""
    access = access_from(attributes)
    if segment == TR:
        if access & EITHER_TSS_32 != 0:
            return AR_P | TYPE_TSS_32_BUSY
        return AR_P | TYPE_TSS_16_BUSY
    if segment == LDTR:
        if access & AR_P == 0:
            return AR_UNUSABLE
        return AR_P | TYPE_LDT
    if segments_are_paragraphs(cpu):
        return access | AR_P | AR_S
    if segment == CS:
        return access | AR_P | AR_S | TYPE_CODE | TYPE_ACCESSED
    if access & AR_P == 0:
        return access | AR_S | AR_UNUSABLE
    return access | AR_S


@kernel
def load_segment_from(cpu, ram, place, segment, offset):
    """Load a segment register from a VMCB; the mode is already that of its guest."""
    entry = cpu.seg[segment]
    entry.selector = get_16(ram, place, offset + SEGMENT_SELECTOR)
    entry.access = loaded_access(cpu, segment, get_16(ram, place, offset + SEGMENT_ATTRIBUTES))
    entry.limit = get_32(ram, place, offset + SEGMENT_LIMIT)
    entry.seg_base = get_32(ram, place, offset + SEGMENT_BASE)
    segment_limits(cpu, segment)


@kernel
def save_segment_to(cpu, ram, place, segment, offset):
    """Store a segment register in a VMCB."""
    entry = cpu.seg[segment]
    put_16(ram, place, offset + SEGMENT_SELECTOR, entry.selector)
    put_16(ram, place, offset + SEGMENT_ATTRIBUTES, attributes_from(entry.access))
    put_32(ram, place, offset + SEGMENT_LIMIT, entry.limit)
    put_64(ram, place, offset + SEGMENT_BASE, entry.seg_base)

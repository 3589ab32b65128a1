"""VMREAD and VMWRITE of a field by its encoding (SDM volume 3, sections 24.11.2 and 30.3)."""

import numpy as np

from ..isa.vmx import (
    ENCODING_RESERVED,
    ERROR_READ_ONLY_FIELD,
    ERROR_UNSUPPORTED_FIELD,
    FIELDS,
    HIGH_HALF,
    READ_ONLY,
)
from .jit import kernel, store_32
from .vmcs import field_place, note_vmcs_written, vmcs_read, vmcs_read_64, vmcs_write, vmcs_write_64

M32 = 0xFFFFFFFF
WIDTH_16, WIDTH_64 = 0, 1  # bits 14:13 of an encoding
INDICES = 32  # of bits 9:1: no group has more fields
NO_SLOT = -1


def slots_by_encoding() -> np.ndarray:
    """The slot of each field by width, group and index of its encoding, NO_SLOT for none."""
    slots = np.full(16 * INDICES, NO_SLOT, np.int64)
    for slot, field in enumerate(FIELDS):
        slots[((field.encoding >> 13) * 4 + field.group) * INDICES + field.index] = slot
    return slots


SLOTS = slots_by_encoding()


@kernel
def slot_of(cpu, encoding):
    """The slot of the field that an encoding names, NO_SLOT if this processor has none."""
    width = (encoding >> 13) & 3
    index = (encoding >> 1) & 0x1FF
    if encoding & ENCODING_RESERVED != 0 or index >= INDICES or (encoding & HIGH_HALF != 0 and width != WIDTH_64):
        return NO_SLOT
    slot = SLOTS[(width * 4 + ((encoding >> 10) & 3)) * INDICES + index]
    if slot >= 0 and cpu.vmx.field_offered[slot] == 0:
        return NO_SLOT
    return slot


@kernel
def read_field(cpu, ram, encoding):
    """(0 or the error number, the field's 32 bits): of a field of 64 bits, those that the access type names."""
    slot = slot_of(cpu, encoding)
    if slot < 0:
        return ERROR_UNSUPPORTED_FIELD, 0
    if encoding & HIGH_HALF != 0:
        return 0, (vmcs_read_64(cpu, ram, slot) >> 32) & M32
    return 0, vmcs_read(cpu, ram, slot)


@kernel
def write_field(cpu, ram, encoding, value):
    """Write 32 bits: 0 or the error number. The full access to a field of 64 bits clears its upper half."""
    slot = slot_of(cpu, encoding)
    if slot < 0:
        return ERROR_UNSUPPORTED_FIELD
    if (encoding >> 10) & 3 == READ_ONLY:
        return ERROR_READ_ONLY_FIELD
    width = (encoding >> 13) & 3
    if encoding & HIGH_HALF != 0:
        store_32(ram, field_place(cpu, slot) + 4, value)
    elif width == WIDTH_64:
        vmcs_write_64(cpu, ram, slot, value)
    elif width == WIDTH_16:
        vmcs_write(cpu, ram, slot, value & 0xFFFF)
    else:
        vmcs_write(cpu, ram, slot, value)
    note_vmcs_written(cpu, ram)
    return 0

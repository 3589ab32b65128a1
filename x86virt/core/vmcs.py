"""The fields of the current VMCS, which lie in RAM, each in its slot (isa/vmx.py; SDM volume 3, chapter 24).

`cpu.vmx.place` is where the region lies, for as long as it is current: VMPTRLD saw to it that it is RAM. Hardware and VMREAD
and VMWRITE use the same slots, and nothing of a VMCS is kept elsewhere but the controls of the guest that runs.
"""

from ..isa.vmx import REGION_FIELDS, REGION_LAUNCH_STATE
from .cache import VMM, reference
from .jit import inline, kernel, load_32, store_32
from .layout import CODE_SHIFT
from .physical import note_code_write, page_holds_code
from .physical_map import log_write

LINE_BYTES = 64
REGION_LINES = 17  # header and fields


@inline
def field_place(cpu, slot):
    """Where a field of the current VMCS lies."""
    return cpu.vmx.place + REGION_FIELDS + 8 * slot


@inline
def vmcs_read(cpu, ram, slot):
    """A field of up to 32 bits of the current VMCS."""
    return load_32(ram, field_place(cpu, slot))


@inline
def vmcs_read_64(cpu, ram, slot):
    """A field of 64 bits, as a signed number."""
    at = field_place(cpu, slot)
    return load_32(ram, at) | load_32(ram, at + 4) << 32


@inline
def vmcs_write(cpu, ram, slot, value):
    """Write a field of up to 32 bits; `note_vmcs_written` is due once after all writes."""
    store_32(ram, field_place(cpu, slot), value)


@inline
def vmcs_write_64(cpu, ram, slot, value):
    """Write a field of 64 bits; `note_vmcs_written` is due once after all writes."""
    at = field_place(cpu, slot)
    store_32(ram, at, value)
    store_32(ram, at + 4, (value >> 32) & 0xFFFFFFFF)


@kernel
def drop_code_of_region(cpu, ram):
    """Discard decoded code of the region, which was written."""
    for piece in range(1 << (12 - CODE_SHIFT)):
        note_code_write(cpu, ram, cpu.vmx.place + (piece << CODE_SHIFT))


@inline
def note_vmcs_written(cpu, ram):
    """Whoever wrote fields of the current VMCS says so: code decoded there is stale, and a log of writes names the frame."""
    if page_holds_code(cpu, ram, cpu.vmx.place):
        drop_code_of_region(cpu, ram)
    if cpu.write_log != 0:
        log_write(cpu, ram, cpu.vmx.place)


@kernel
def reference_region(cpu):
    """The region's lines go through the cache model, as a VM entry reads them and an exit writes them."""
    for line in range(REGION_LINES):
        reference(cpu, cpu.vmx.place + LINE_BYTES * line, VMM)


@inline
def launch_state(cpu, ram):
    """LAUNCH_CLEAR or LAUNCH_LAUNCHED, as the region says."""
    return load_32(ram, cpu.vmx.place + REGION_LAUNCH_STATE)

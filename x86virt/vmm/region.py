"""What the VMM has in its region of machine RAM before the guest starts: GDT, IDT, TSS, and the code that resumes and idles.

The region begins at machine address 0 and shows at the top of every linear space (layout.py).
"""

from typing import TYPE_CHECKING

from ..isa.registers import TYPE_TSS_32_BUSY
from . import layout
from .descriptor import Descriptor

if TYPE_CHECKING:
    from .virtual_machine import VirtualMachine

GATE_PRESENT = 0x8E00
IRETD, STI, HLT = 0xCF, 0xFB, 0xF4


def region_address(offset: int) -> int:
    """The machine address of a place in the VMM's region."""
    return offset


def build_region(vm: "VirtualMachine") -> None:
    """Fill the region; every vector's gate is the VMM's own, so that each event of the processor comes to an entry."""
    vm.shadow.install_p2m()
    flat = {
        layout.VMM_CODE_SELECTOR: Descriptor(0x0000FFFF, 0x00CF9B00),
        layout.VMM_DATA_SELECTOR: Descriptor(0x0000FFFF, 0x00CF9300),
        layout.VMM_TSS_SELECTOR: tss_descriptor(),
    }
    for selector, descriptor in flat.items():
        vm.write_region(layout.GDT + selector, descriptor.octets())
    vm.write_region(layout.TSS, task_state_segment())
    for vector in range(256):
        write_gate(vm, vector, 0)
    vm.write_region(layout.RESUME, bytes([IRETD]))
    vm.write_region(layout.IDLE, bytes([STI, HLT]))


def task_state_segment() -> bytes:
    """The VMM's TSS: its stack for exits, and no I/O permission map, so that ports are IOPL's alone."""
    tss = bytearray(layout.TSS_BYTES)
    tss[layout.TSS_ESP0 : layout.TSS_ESP0 + 4] = (layout.VMM_BASE + layout.STACK_TOP).to_bytes(4, "little")
    tss[layout.TSS_SS0 : layout.TSS_SS0 + 2] = layout.VMM_DATA_SELECTOR.to_bytes(2, "little")
    tss[layout.TSS_IO_MAP : layout.TSS_IO_MAP + 2] = layout.TSS_BYTES.to_bytes(2, "little")
    return bytes(tss)


def tss_descriptor() -> Descriptor:
    """The descriptor of the VMM's TSS."""
    base = layout.VMM_BASE + layout.TSS
    low = (layout.TSS_BYTES - 1) | (base & 0xFFFF) << 16
    return Descriptor(low, base & 0xFF000000 | base >> 16 & 0xFF | (0x80 | TYPE_TSS_32_BUSY) << 8)


def write_gate(vm: "VirtualMachine", vector: int, dpl: int) -> None:
    """An interrupt gate of the VMM's IDT to the entry of its vector."""
    target = layout.VMM_BASE + layout.ENTRIES + vector * layout.ENTRY_BYTES
    low = layout.VMM_CODE_SELECTOR << 16 | target & 0xFFFF
    high = target & 0xFFFF0000 | GATE_PRESENT | dpl << 13
    vm.write_region(layout.IDT + 8 * vector, low.to_bytes(4, "little") + high.to_bytes(4, "little"))

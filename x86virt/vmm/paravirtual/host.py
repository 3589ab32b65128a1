"""What the VMM has in machine RAM before a domain starts: descriptors, gates, a TSS, its tables in every address space.

The region's own page tables are those of every VMM of ours, in both formats (shadow/memory.py).
"""

from typing import TYPE_CHECKING

import numpy as np

from ...isa.registers import PTE_A, PTE_D, PTE_G, PTE_P, PTE_RW, TYPE_TSS_32_BUSY
from .. import layout as region
from ..descriptor import Descriptor
from ..region import HLT, IRETD, STI, write_gate
from . import layout
from .interface import (
    DOMID_XEN,
    FIRST_RESERVED_GDT_PAGE,
    FLAT_RING1_CS,
    FLAT_RING1_DS,
    FLAT_RING3_CS,
    FLAT_RING3_DS,
    HYPERCALL_VECTOR,
    HYPERVISOR_VIRT_START,
    HYPERVISOR_VIRT_START_PAE,
    INVALID_M2P_ENTRY,
    MACH2PHYS_BYTES,
    MACH2PHYS_BYTES_PAE,
)
from .records import NOBODY, PGC_ALLOCATED, PGT_VALIDATED, PGT_WRITABLE

if TYPE_CHECKING:
    from .vm import ParavirtualVm

PAGE_BYTES = 4096
GDT_PAGES = 16
OPEN_VECTORS = {3: 3, 4: 3, HYPERCALL_VECTOR: 1}  # vector -> DPL of its gate; all others are the VMM's alone
LINK = PTE_P | PTE_RW | PTE_A  # what a directory has for a table of the VMM's
OWN_PAGE = PTE_P | PTE_RW | PTE_A | PTE_D  # of one address space
READ_ONLY_PAGE = PTE_P | PTE_A | PTE_G  # of all
CODE_OF_RING, DATA_OF_RING = 0x9B, 0x93  # access rights but for the DPL, accessed already
DPL_SHIFT = 5
TABLE_OF_PAE = 0x1000  # the machine-to-physical table's page table in that format, behind the other


def build_host(vm: "ParavirtualVm") -> None:
    """Everything that is there before the first domain."""
    write_descriptors(vm)
    for vector in range(256):
        write_gate(vm, vector, OPEN_VECTORS.get(vector, 0))
    vm.write_region(layout.TSS, task_state_segment())
    vm.write_region(region.RESUME, bytes([IRETD]))
    vm.write_region(region.IDLE, bytes([STI, HLT]))
    map_machphys(vm)
    own_frames(vm)
    xen = vm.xens[0]
    xen.n_frames, xen.flush_clock = vm.machine_frames, 1
    xen.base_ticks[:] = -1


def write_descriptors(vm: "ParavirtualVm") -> None:
    """The VMM's own segments, in the last page of every domain's GDT."""
    base = region.VMM_BASE + layout.TSS
    low = (layout.TSS_BYTES - 1) & 0xFFFF | (base & 0xFFFF) << 16
    task = Descriptor(low, base & 0xFF000000 | base >> 16 & 0xFF | (0x80 | TYPE_TSS_32_BUSY) << 8)
    for selector, descriptor in (
        (region.VMM_CODE_SELECTOR, Descriptor(0x0000FFFF, 0x00CF9B00)),
        (region.VMM_DATA_SELECTOR, Descriptor(0x0000FFFF, 0x00CF9300)),
        (region.VMM_TSS_SELECTOR, task),
    ):
        vm.write_region(region.GDT + selector, descriptor.octets())


def task_state_segment() -> bytes:
    """The VMM's TSS: its stack for traps. No port is open but to domain 0; the kernel's stack is the running domain's."""
    tss = bytearray(layout.TSS_BYTES)
    tss[region.TSS_ESP0 : region.TSS_ESP0 + 4] = (region.VMM_BASE + region.STACK_TOP).to_bytes(4, "little")
    tss[region.TSS_SS0 : region.TSS_SS0 + 2] = region.VMM_DATA_SELECTOR.to_bytes(2, "little")
    tss[region.TSS_IO_MAP : region.TSS_IO_MAP + 2] = layout.CLOSED_IO_MAP.to_bytes(2, "little")
    tss[layout.IO_MAP :] = b"\xff" * (layout.TSS_BYTES - layout.IO_MAP)
    return bytes(tss)


def map_machphys(vm: "ParavirtualVm") -> None:
    """The machine-to-physical table, empty, and the page tables that show it to the guests, read-only."""
    vm.machphys[:] = INVALID_M2P_ENTRY
    pages = -(-4 * vm.machine_frames // PAGE_BYTES)
    entries = layout.MACHPHYS + PAGE_BYTES * np.arange(pages) | READ_ONLY_PAGE
    vm.write_region(layout.MACHPHYS_TABLES, entries.astype("<u4").tobytes())
    vm.write_region(layout.MACHPHYS_TABLES + TABLE_OF_PAE, entries.astype("<u8").tobytes())


def own_frames(vm: "ParavirtualVm") -> None:
    """No frame is a domain's yet: the region's are the VMM's."""
    frames = vm.frames[: vm.machine_frames]
    frames["owner"] = NOBODY
    frames["owner"][: region.VMM_BYTES // PAGE_BYTES] = DOMID_XEN
    for name in ("count_info", "type_info", "flush"):
        frames[name] = 0


def list_free_frames(vm: "ParavirtualVm") -> None:
    """The frames that are nobody's once all domains are built, in a list in ascending order."""
    free = np.flatnonzero(vm.frames["owner"] == NOBODY)
    if free.size:
        vm.frames["type_info"][free] = [*(free[1:] + 1), 0]
        vm.xen.free_frames = free[0] + 1


# -- of each domain -----------------------------------------------------------------------------------------------------


def virt_start(is_pae: bool) -> int:
    """Where the VMM's part of a domain's linear space begins."""
    return HYPERVISOR_VIRT_START_PAE if is_pae else HYPERVISOR_VIRT_START


def segment_limit(is_pae: bool) -> int:
    """The last page that a domain's segments may reach: the end of the machine-to-physical table's window."""
    return virt_start(is_pae) + (MACH2PHYS_BYTES_PAE if is_pae else MACH2PHYS_BYTES) - 1 >> 12


def flat_descriptor(access: int, dpl: int, limit: int) -> Descriptor:
    """A segment from address 0 to a page, 32-bit."""
    return Descriptor(limit & 0xFFFF, 0x00C00000 | limit & 0xF0000 | (access | dpl << DPL_SHIFT) << 8)


def build_own_area(vm: "ParavirtualVm", index: int, is_pae: bool) -> None:
    """A domain's page of flat segments, the page table of its own area, the VMM's entries of its directories."""
    limit = segment_limit(is_pae)
    flat_page = region.GDT + PAGE_BYTES * index
    for selector, access in ((FLAT_RING1_CS, CODE_OF_RING), (FLAT_RING1_DS, DATA_OF_RING)):
        vm.write_region(flat_page + (selector & 0xFF8), flat_descriptor(access, 1, limit).octets())
    for selector, access in ((FLAT_RING3_CS, CODE_OF_RING), (FLAT_RING3_DS, DATA_OF_RING)):
        vm.write_region(flat_page + (selector & 0xFF8), flat_descriptor(access, 3, limit).octets())
    table = layout.PER_DOMAIN_TABLES + 2 * PAGE_BYTES * index
    write_entry(vm, table, FIRST_RESERVED_GDT_PAGE, flat_page | OWN_PAGE, is_pae)
    write_entry(vm, table, GDT_PAGES - 1, region.GDT + PAGE_BYTES * (GDT_PAGES - 1) | OWN_PAGE, is_pae)
    for place, entry in own_entries(index, is_pae):
        write_entry(vm, layout.DIRECTORY_TEMPLATES + PAGE_BYTES * index, place, entry, is_pae)


def own_entries(index: int, is_pae: bool) -> list[tuple[int, int]]:
    """Place and value of the VMM's entries in a domain's directory; under PAE paging in that of the last quarter."""
    own_table = layout.PER_DOMAIN_TABLES + 2 * PAGE_BYTES * index
    machphys, tables = layout.MACHPHYS_TABLES, [region.REGION_TABLE]
    if is_pae:
        machphys += TABLE_OF_PAE
        tables = [region.REGION_TABLES_PAE, region.REGION_TABLES_PAE + PAGE_BYTES]
    first = place_of(virt_start(is_pae), is_pae)
    places = [(first, machphys | LINK & ~PTE_RW), (place_of(layout.PER_DOMAIN_START, is_pae), own_table | LINK)]
    return places + [(place_of(region.VMM_BASE, is_pae) + number, table | LINK) for number, table in enumerate(tables)]


def place_of(address: int, is_pae: bool) -> int:
    """The place of a linear address's entry in its directory."""
    return address >> 21 & 0x1FF if is_pae else address >> 22


def write_entry(vm: "ParavirtualVm", table: int, place: int, entry: int, is_pae: bool) -> None:
    """Write an entry of a table of the VMM's."""
    width = 8 if is_pae else 4
    vm.write_region(table + width * place, entry.to_bytes(width, "little"))


def share_own_frames(vm: "ParavirtualVm", index: int) -> None:
    """The frames of the region that a domain may map: its shared information page and its grant table."""
    first = layout.GRANT_FRAMES // PAGE_BYTES + layout.N_GRANT_FRAMES * index
    shared = layout.SHARED_INFO // PAGE_BYTES + index
    for frame in (shared, *range(first, first + layout.N_GRANT_FRAMES)):
        entry = vm.frames[frame]
        entry.owner, entry.count_info, entry.type_info = index, PGC_ALLOCATED | 2, PGT_WRITABLE | PGT_VALIDATED | 1

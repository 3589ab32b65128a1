"""The domain builder: a domain's first memory, as Xen's interface has it for a kernel's start (xen.h, start of day).

From `virt_base` on, page by page, in this order: the kernel's image, a RAM disk, the list of its machine frames, start_info,
the pages of store and console, the page tables, the stack; and then at least 512 KB up to a multiple of 4 MB, all mapped in
the order of pseudo-physical pages. The page tables are mapped read-only, because the VMM has them in use as such.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...isa.registers import PTE_A, PTE_D, PTE_P, PTE_RW, PTE_US
from ...start.xen import XenImage
from ..exits import Unsupported
from .host import virt_start
from .hypercall_page import hypercall_page
from .structures import START_INFO

if TYPE_CHECKING:
    from .vm import ParavirtualVm

PAGE_BYTES = 4096
REGION_BYTES = 4 << 20  # a multiple of which the first mapped memory ends at
PADDING_BYTES = 512 << 10
LEAF = PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D
LINK = PTE_P | PTE_RW | PTE_US | PTE_A
QUARTERS = 4
QUARTER = 1 << 30
MAGIC, MAGIC_PAE = b"xen-3.0-x86_32", b"xen-3.0-x86_32p"


@dataclass
class Plan:
    """Where a domain's first memory has what, by pseudo-physical page; `end` is the first linear address not mapped."""

    ramdisk: int
    frame_list: int
    start_info: int
    store: int
    console: int
    tables: int
    stack: int
    end: int

    @property
    def table_count(self) -> int:
        """How many pages of page tables there are."""
        return self.stack - self.tables


def pages_of(octets: int) -> int:
    """How many pages hold so many bytes."""
    return -(-octets // PAGE_BYTES)


def plan_memory(image: XenImage, pages: int) -> Plan:
    """The places for a domain of so many pages. Raises Unsupported if it has too few, or no linear space for it."""
    ramdisk = pages_of(image.end)
    frame_list = ramdisk + pages_of(len(image.ramdisk))
    start_info = frame_list + pages_of(4 * pages)
    tables = start_info + 3
    stack = tables
    while True:
        behind = (stack + 1) * PAGE_BYTES + image.virt_base + PADDING_BYTES
        end = -(-behind // REGION_BYTES) * REGION_BYTES
        needed = tables + tables_needed(image.virt_base, end, image.is_pae)
        if needed == stack:
            break
        stack = needed
    if stack >= pages:
        raise Unsupported(f"the domain's first memory takes {stack + 1} pages, and it has {pages}: give more memory (--memory)")
    if end > virt_start(image.is_pae):
        raise Unsupported(f"the domain's first memory ends at {end:#x}, in what is the VMM's: link the kernel lower")
    return Plan(ramdisk, frame_list, start_info, start_info + 1, start_info + 2, tables, stack, end)


def tables_needed(first: int, end: int, is_pae: bool) -> int:
    """How many page tables map a range of the linear space; under PAE paging the last quarter has a directory always."""
    if not is_pae:
        return 1 + len(range(first >> 22, end - 1 >> 22)) + 1
    quarters = {*range(first >> 30, (end - 1 >> 30) + 1), QUARTERS - 1}
    return 1 + len(quarters) + len(range(first >> 21, (end - 1 >> 21) + 1))


class Builder:
    """Builds one domain: `frames` are its machine frames by pseudo-physical page."""

    def __init__(self, vm: "ParavirtualVm", index: int, image: XenImage, frames: np.ndarray) -> None:
        self.vm, self.index, self.image, self.frames = vm, index, image, frames
        self.plan = plan_memory(image, len(frames))

    def linear(self, page: int) -> int:
        """The linear address of a page of the first memory."""
        return self.image.virt_base + PAGE_BYTES * page

    def address(self, page: int) -> int:
        """The machine address of a page."""
        return int(self.frames[page]) << 12

    def write(self, address: int, octets: bytes) -> None:
        """Write pseudo-physical memory."""
        written = 0
        while written < len(octets):
            page, offset = divmod(address + written, PAGE_BYTES)
            room = min(PAGE_BYTES - offset, len(octets) - written)
            self.vm.processor.write_physical(self.address(page) + offset, octets[written : written + room])
            written += room

    def load(self) -> None:
        """The kernel, its hypercall page, the RAM disk, and the list of machine frames."""
        image, plan = self.image, self.plan
        for segment in image.segments:
            self.write(segment.address, segment.content)
        if image.hypercall_page is not None:
            self.write(image.hypercall_page - image.virt_base, hypercall_page())
        self.write(plan.ramdisk * PAGE_BYTES, image.ramdisk)
        self.write(plan.frame_list * PAGE_BYTES, self.frames.astype("<u4").tobytes())

    def write_start_info(self, store_port: int, console_port: int, flags: int) -> None:
        """What the kernel finds at ESI."""
        image, plan = self.image, self.plan
        info = np.zeros((), START_INFO)
        magic, line = MAGIC_PAE if image.is_pae else MAGIC, image.command_line
        info["magic"][: len(magic)] = np.frombuffer(magic, np.uint8)
        info["cmd_line"][: len(line)] = np.frombuffer(line, np.uint8)
        info["nr_pages"] = len(self.frames)
        info["shared_info"] = int(self.vm.domains[self.index].shared_info) << 12
        info["flags"] = flags
        if store_port and console_port:  # somebody serves them
            info["store_mfn"], info["store_evtchn"] = self.frames[plan.store], store_port
            info["console_mfn"], info["console_evtchn"] = self.frames[plan.console], console_port
        info["pt_base"], info["nr_pt_frames"] = self.linear(plan.tables), plan.table_count
        info["mfn_list"] = self.linear(plan.frame_list)
        if image.ramdisk:
            info["mod_start"], info["mod_len"] = self.linear(plan.ramdisk), len(image.ramdisk)
        self.write(plan.start_info * PAGE_BYTES, info.tobytes())

    # -- page tables ------------------------------------------------------------------------------------------------

    def build_tables(self) -> int:
        """The page tables of the first memory: the machine frame of the top one, which is the first."""
        tables = iter(range(self.plan.tables, self.plan.stack))
        top = next(tables)
        if self.image.is_pae:
            self.build_tables_of_pae(top, tables)
        else:
            self.build_directory(top, 0, tables)
        return int(self.frames[top])

    def build_tables_of_pae(self, top: int, tables) -> None:
        """Page-directory-pointer entries, and a directory for each quarter that needs one."""
        for quarter in range(QUARTERS):
            first, end = quarter * QUARTER, (quarter + 1) * QUARTER
            if (first < self.plan.end and end > self.image.virt_base) or quarter == QUARTERS - 1:
                directory = next(tables)
                self.write(top * PAGE_BYTES + 8 * quarter, (self.address(directory) | PTE_P).to_bytes(8, "little"))
                self.build_directory(directory, first, tables)

    def build_directory(self, directory: int, first: int, tables) -> None:
        """A directory of the linear space from an address on, and its page tables."""
        width, reach = (8, 1 << 21) if self.image.is_pae else (4, 1 << 22)
        for place in range(PAGE_BYTES // width):
            address = first + place * reach
            if address < self.plan.end and address + reach > self.image.virt_base:
                table = next(tables)
                self.write(directory * PAGE_BYTES + width * place, (self.address(table) | LINK).to_bytes(width, "little"))
                self.fill_table(table, address, width)

    def fill_table(self, table: int, first: int, width: int) -> None:
        """The entries of a page table: each page of the first memory at its place, page tables read-only."""
        count = PAGE_BYTES // width
        pages = (first - self.image.virt_base >> 12) + np.arange(count)
        there = (pages >= 0) & (pages < min(len(self.frames), self.plan.end - self.image.virt_base >> 12))
        entries = np.zeros(count, np.int64)
        entries[there] = self.frames[pages[there]] << 12 | LEAF
        is_table = (pages >= self.plan.tables) & (pages < self.plan.stack) & there
        entries[is_table] &= ~PTE_RW
        self.write(table * PAGE_BYTES, entries.astype("<u8" if width == 8 else "<u4").tobytes())

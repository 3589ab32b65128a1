"""A page walk, step by step: which entry was read where, what it grants, where the walk ends (SDM volume 3, 4.3, 4.4).

It is read from memory, not from a TLB, and has no effect: no accessed or dirty bit is set, nothing is charged.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from ..isa.registers import (
    CR0_PG,
    CR3_ADDRESS,
    CR4_PAE,
    CR4_PSE,
    EFER_NXE,
    PDE_2M_ADDRESS,
    PDE_4M_ADDRESS,
    PTE_A,
    PTE_ADDRESS,
    PTE_D,
    PTE_G,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
)

NX = 1 << 63
ADDRESS_64 = 0x000FFFFFFFFFF000


@dataclass(frozen=True)
class Tables:
    """What a walk begins with: control registers, EFER, the page-directory-pointer entries that the processor holds (PAE), the
    bit that the A20 gate keeps at 0, and how to read physical memory (fewer bytes where there is none)."""

    cr0: int
    cr3: int
    cr4: int
    read: Callable[[int, int], bytes] = field(repr=False)
    efer: int = 0
    pointers: tuple[int, ...] = (0, 0, 0, 0)
    a20_closed: int = 0

    def entry(self, address: int, n: int) -> int:
        """An entry of `n` bytes; ones where there is no memory."""
        octets = self.read(address & ~self.a20_closed, n)
        return int.from_bytes(octets.ljust(n, b"\xff"), "little")


@dataclass(frozen=True)
class Step:
    """One entry of a walk: the table's name, the entry's physical address (-1: a register), its value."""

    table: str
    address: int
    entry: int
    leaf: bool = False

    @property
    def is_present(self) -> bool:
        """The P flag."""
        return bool(self.entry & PTE_P)

    def rights(self) -> str:
        """The flags in words."""
        if not self.is_present:
            return "not present"
        if self.address < 0:
            return "present"
        words = ["writable" if self.entry & PTE_RW else "read-only", "user" if self.entry & PTE_US else "supervisor"]
        words += ["accessed"] if self.entry & PTE_A else []
        words += ["dirty"] if self.leaf and self.entry & PTE_D else []
        words += ["global"] if self.leaf and self.entry & PTE_G else []
        words += ["no-execute"] if self.entry & NX else []
        return ", ".join(words)


@dataclass(frozen=True)
class Walk:
    """A whole walk: the paging mode, its steps, and the physical address (None: it ends in a page fault)."""

    mode: str
    gla: int
    steps: tuple[Step, ...]
    physical: int | None
    page_bytes: int = 0

    @property
    def writable(self) -> bool:
        """Whether every level has R/W set."""
        return all(step.entry & PTE_RW for step in self.steps if step.address >= 0)

    @property
    def user(self) -> bool:
        """Whether every level has U/S set."""
        return all(step.entry & PTE_US for step in self.steps if step.address >= 0)

    def lines(self) -> list[str]:
        """The walk as text, a line for each step."""
        rows = [f"linear {self.gla:#010x}, {self.mode}"]
        for step in self.steps:
            place = "held by the processor" if step.address < 0 else f"at {step.address:#010x}"
            width = 16 if self.mode.startswith("PAE") else 8
            rows.append(f"  {step.table:<29} {place:<22} {step.entry:0{width}x}  {step.rights()}")
        return [*rows, "  " + self.end()]

    def end(self) -> str:
        """Where it ends."""
        if self.physical is None:
            return "page fault: not present"
        if not self.steps:
            return f"physical {self.physical:#010x}: the same"
        granted = f"{'writable' if self.writable else 'read-only'}, {'user' if self.user else 'supervisor'}"
        return f"physical {self.physical:#010x}, page of {self.page_bytes >> 10} KB, {granted}"


def walk(tables: Tables, gla: int) -> Walk:
    """Walk the tables for a linear address."""
    gla &= 0xFFFFFFFF
    if not tables.cr0 & CR0_PG:
        return Walk("no paging", gla, (), gla & ~tables.a20_closed)
    if tables.cr4 & CR4_PAE:
        return walk_pae(tables, gla)
    return walk_32bit(tables, gla)


def walk_32bit(tables: Tables, gla: int) -> Walk:
    """Section 4.3: page directory, page table; or a page of 4 MB."""
    mode = "32-bit paging"
    address = (tables.cr3 & CR3_ADDRESS) | gla >> 22 << 2
    entry = tables.entry(address, 4)
    large = bool(entry & PTE_PS and tables.cr4 & CR4_PSE)
    steps = [Step(f"page directory [{gla >> 22}]", address, entry, large)]
    if not entry & PTE_P:
        return Walk(mode, gla, tuple(steps), None)
    if large:
        frame = (entry & PDE_4M_ADDRESS) | (entry >> 13 & 0xFF) << 32
        return Walk(mode, gla, tuple(steps), (frame | gla & 0x3FFFFF) & ~tables.a20_closed, 4 << 20)
    number = gla >> 12 & 0x3FF
    address = (entry & PTE_ADDRESS) | number << 2
    entry = tables.entry(address, 4)
    steps.append(Step(f"page table [{number}]", address, entry, True))
    if not entry & PTE_P:
        return Walk(mode, gla, tuple(steps), None)
    return Walk(mode, gla, tuple(steps), (entry & PTE_ADDRESS | gla & 0xFFF) & ~tables.a20_closed, 4096)


def walk_pae(tables: Tables, gla: int) -> Walk:
    """Section 4.4: the pointer entry that the processor holds, page directory, page table; or a page of 2 MB."""
    mode = "PAE paging" + (", EFER.NXE" if tables.efer & EFER_NXE else "")
    number = gla >> 30
    entry = tables.pointers[number]
    steps = [Step(f"page-directory pointer [{number}]", -1, entry)]
    for table, shift in (("page directory", 21), ("page table", 12)):
        if not entry & PTE_P:
            return Walk(mode, gla, tuple(steps), None)
        number = gla >> shift & 0x1FF
        address = (entry & ADDRESS_64) | number << 3
        entry = tables.entry(address, 8)
        large = shift == 21 and bool(entry & PTE_PS)
        steps.append(Step(f"{table} [{number}]", address, entry, large or shift == 12))
        if large and entry & PTE_P:
            frame = entry & ~NX & ~0xFFFFFFFF | entry & PDE_2M_ADDRESS
            return Walk(mode, gla, tuple(steps), (frame | gla & 0x1FFFFF) & ~tables.a20_closed, 2 << 20)
    if not entry & PTE_P:
        return Walk(mode, gla, tuple(steps), None)
    return Walk(mode, gla, tuple(steps), (entry & ADDRESS_64 | gla & 0xFFF) & ~tables.a20_closed, 4096)

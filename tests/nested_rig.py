"""Nested tables of a VMM with the processor that walks them, without a machine around: a p2m, and a guest that is one access.

The guest's linear addresses are its physical ones: under EPT by a directory of 4 MB pages in its first frames, under NPT it has
no paging. `Reader` reads the tables once more by the manuals' formats, with nothing of the VMM's.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
from nested_permutations import enter_case, walk_case

from x86virt.core.address_space import flush_all_address_spaces
from x86virt.core.jit import entry
from x86virt.core.layout import NESTED_EPT, NESTED_NPT, OK, SVM_GUEST, VM_EXIT, VMX_NON_ROOT
from x86virt.isa.registers import CR0_PE, CR0_PG, CR4_PSE
from x86virt.processor import Processor
from x86virt.profile import load_profile
from x86virt.vmm import layout
from x86virt.vmm.exits import Exit
from x86virt.vmm.hardware.nested import EPT, NPT_2, NPT_3, NestedMemory, ept_qualification

FORMS = {"ept": EPT, "npt 2": NPT_2, "npt 3": NPT_3}
PROFILES = {EPT: "nehalem", NPT_2: "k10_barcelona", NPT_3: "k10_barcelona"}
NO_MEMORY, READ_ONLY = 0xFFFFFFFF, 1 << 31  # entries of the p2m in machine RAM
DIRECTORY_FRAME = 1
WRITE, FETCH = 1, 4  # of `walk_case`
TRIES = 12


@entry
def flush_case(state):
    """What the controls' flush does at its largest."""
    flush_all_address_spaces(state[0])


class NestedRig:
    """Nested tables in one format over a p2m of the caller's, whose entries are as in machine RAM."""

    def __init__(self, form: int, p2m: np.ndarray, large: bool = True, size: int = 768 << 10) -> None:
        host_bytes = layout.VMM_BYTES + (len(p2m) << 12) + layout.GUEST_ROM_BYTES
        self.processor = Processor(load_profile(PROFILES[form]), host_bytes)
        self.form, self.p2m = form, p2m.astype(np.int64)
        options: dict[str, Any] = {"large_pages": large, "nested_size": size}
        self.charged: Counter[str] = Counter()
        self.exits = self.flushes = 0
        self.hole: tuple[int, bool] | None = None
        self.vm: Any = SimpleNamespace(
            processor=self.processor, p2m=self.p2m, machine=SimpleNamespace(strategy=SimpleNamespace(option=options.get)),
            charge=self.charge, write_region=self.processor.write_physical, on_physical_hole=self.on_hole,
            control=SimpleNamespace(flush=self.flush),
        )  # fmt: skip
        self.processor.write_physical(layout.P2M, self.p2m.astype("<u4").tobytes())
        self.nested = NestedMemory(self.vm, form)
        self.nested.install()
        self.begin_guest()

    def begin_guest(self) -> None:
        """The guest's mode, and its tables."""
        cpu = self.processor.cpu
        cpu.nested_root, cpu.nested_levels, cpu.nested_large = self.nested.root, self.nested.levels, 1
        cpu.cr0 = CR0_PE
        cpu.world, cpu.nested_kind = SVM_GUEST, NESTED_NPT
        if self.form == EPT:
            cpu.world, cpu.nested_kind = VMX_NON_ROOT, NESTED_EPT
            cpu.cr0, cpu.cr4, cpu.cr3 = CR0_PE | CR0_PG, CR4_PSE, DIRECTORY_FRAME << 12
            entries = np.arange(1024, dtype=np.int64) << 22 | 0xE7
            address = (int(self.p2m[DIRECTORY_FRAME]) & 0xFFFFF) << 12
            self.processor.write_physical(address, entries.astype("<u4").tobytes())
        cpu.address_space = 1
        enter_case(self.processor.state)

    # -- what the virtual machine has

    def charge(self, path: str, items: int) -> None:
        """A path of the VMM."""
        self.charged[path] += 1
        self.charged[f"{path} items"] += items

    def flush(self) -> None:
        """The processor forgets."""
        self.flushes += 1
        flush_case(self.processor.state)

    def on_hole(self, exit: Exit, gpa: int, write: bool) -> None:
        """The access would be interpreted."""
        self.hole = gpa, write

    def set_frame(self, frame: int, entry: int) -> None:
        """Another entry of the p2m."""
        self.p2m[frame] = entry
        self.processor.write_physical(layout.P2M + 4 * frame, entry.to_bytes(4, "little"))
        self.nested.drop(frame)

    # -- accesses

    def violate(self) -> None:
        """What the VMM does for the exit that the processor has just made."""
        information = self.processor.cpu.vm_exit
        qualification = int(information.qualification)
        if self.form != EPT:
            qualification = ept_qualification(qualification)
        self.exits += 1
        exit = Exit("ept_violation", 0, qualification, int(information.gla), int(information.gpa))
        assert self.nested.violation(exit) == (self.hole is None)

    def access(self, gla: int, kind: int = 0) -> int | None:
        """Where an access ends in machine memory, None for a hole; entries are filled on the way."""
        for _ in range(TRIES):
            self.nested.before_entry()
            outcome, physical, *_ = walk_case(self.processor.state, self.processor.memory, gla, kind)
            if outcome == OK:
                return int(physical)
            assert outcome == VM_EXIT, outcome
            self.hole = None
            self.violate()
            if self.hole is not None:
                assert self.hole == (gla, kind == WRITE), (self.hole, gla)
                return None
        raise AssertionError(f"{gla:x} is never reached")

    def expected(self, gla: int, kind: int = 0) -> int | None:
        """The same by the p2m."""
        frame = gla >> 12
        entry = int(self.p2m[frame]) if frame < len(self.p2m) else NO_MEMORY
        if entry == NO_MEMORY or (kind == WRITE and entry & READ_ONLY):
            return None
        return (entry & 0xFFFFF) << 12 | gla & 0xFFF


class Reader:
    """Every page that tables map, by the formats of the manuals."""

    def __init__(self, rig: NestedRig) -> None:
        self.memory, self.form = rig.processor.memory, rig.form
        self.tables: list[int] = []
        self.pages: list[tuple[int, int, int, bool]] = []  # gpa, bytes, machine address, whether it may be written
        top = {EPT: 39, NPT_2: 22, NPT_3: 30}[self.form]
        self.read(rig.nested.root, 0, top)

    def read(self, table: int, first: int, shift: int) -> None:
        """A table whose entries map `1 << shift` bytes, from an address on."""
        self.tables.append(table)
        kind, count = ("<u4", 1024) if self.form == NPT_2 else ("<u8", 4 if (self.form, shift) == (NPT_3, 30) else 512)
        entries = self.memory[table : table + count * int(kind[2])].view(kind)
        for index in np.flatnonzero(entries):
            entry = int(entries[index])
            self.read_entry(entry, first + (int(index) << shift), shift)

    def read_entry(self, entry: int, gpa: int, shift: int) -> None:
        """One entry, with every bit of it accounted for."""
        ept, pointer, address = self.form == EPT, self.form == NPT_3 and shift == 30, entry & 0xFFFFFF000
        large = shift in (21, 22) and entry & 0x80 != 0
        if shift > 12 and not large:
            assert entry - address == (7 if ept else 1 if pointer else 0x27), hex(entry)
            below = 12 if shift in (21, 22) else shift - 9
            self.read(address, gpa, below)
            return
        writable = entry & 2 != 0
        low = 0x35 if ept else 0x65  # read, fetch, write-back; present, user, accessed, dirty
        assert entry - address == low | 2 * writable | 0x80 * large, hex(entry)
        assert address % (1 << shift) == 0
        self.pages.append((gpa, 1 << shift, address, writable))


def check(rig: NestedRig, shown: dict[int, int] | None = None) -> Reader:
    """Every page is mapped to what the p2m says, or to what is shown; tables lie in the pool, each in one place."""
    reader = Reader(rig)
    first, end = layout.SHADOW + 0x1000, layout.SHADOW + (layout.SHADOW_PAGES << 12)
    assert len(set(reader.tables)) == len(reader.tables)
    assert all(first <= table < end and table % 0x1000 == 0 for table in reader.tables)
    for gpa, size, address, writable in reader.pages:
        for offset in range(0, size, 0x1000):
            frame = gpa + offset >> 12
            entry = int(rig.p2m[frame]) if frame < len(rig.p2m) else (shown or {})[frame]
            assert entry & 0xFFFFF == address + offset >> 12 and entry != NO_MEMORY
            assert writable == (entry & READ_ONLY == 0)
    return reader

"""Nested paging as the rest of the toolkit sees it: violations, changes of the p2m, and what the processor must forget."""

from typing import TYPE_CHECKING

import numpy as np

from ...isa.registers import PF_I, PF_P, PF_W
from .. import layout
from ..exits import Exit
from ..nested import calls
from ..nested.check import check_tables
from ..nested.entries import EPT_FETCH, EPT_READ, EPT_WRITE, ROOT
from ..nested.records import EPT, FIRST_PAGE, HOLE, LEVELS, NPT_2, NPT_3, RECORD
from ..shadow.records import READ_ONLY

if TYPE_CHECKING:
    from .vm import HardwareVm

__all__ = ["EPT", "NPT_2", "NPT_3", "NestedMemory", "ept_qualification"]

PAGE = 4096
QUALIFICATION_PERMISSIONS_SHIFT = 3
QUALIFICATION_AT_END = 1 << 8
FINAL_ADDRESS = 1 << 32  # of EXITINFO1: what was translated is the access's own address, no entry of the guest's tables


def ept_qualification(info_1: int) -> int:
    """What the EXITINFO1 of a nested page fault says, in the format of an EPT violation's qualification."""
    access = EPT_READ
    if info_1 & PF_W:
        access = EPT_WRITE
    elif info_1 & PF_I:
        access = EPT_FETCH
    allowed = EPT_READ | EPT_FETCH if info_1 & PF_P else 0
    at_end = QUALIFICATION_AT_END if info_1 & FINAL_ADDRESS else 0
    return access | allowed << QUALIFICATION_PERMISSIONS_SHIFT | at_end


class NestedMemory:
    """The nested tables of one virtual machine, in the format `form` (records.EPT, NPT_2, NPT_3)."""

    def __init__(self, vm: "HardwareVm", form: int) -> None:
        self.vm, self.form = vm, form

    @property
    def record(self) -> np.ndarray:
        """The record in machine RAM, as an array of one."""
        memory = self.vm.processor.memory
        return memory[layout.NESTED_RECORD : layout.NESTED_RECORD + RECORD.itemsize].view(RECORD)

    @property
    def root(self) -> int:
        """The machine address of the top table."""
        return ROOT

    @property
    def levels(self) -> int:
        """How many levels the tables have."""
        return LEVELS[self.form]

    def install(self) -> None:
        """Begin with an empty root, once the p2m lies in machine RAM."""
        option = self.vm.machine.strategy.option
        record = self.record
        self.vm.write_region(layout.NESTED_RECORD, bytes(RECORD.itemsize))
        self.vm.write_region(ROOT, bytes(PAGE))
        record["form"] = self.form
        record["frames"] = len(self.vm.p2m)
        record["budget"] = int(option("nested_size")) // PAGE
        record["next"], record["hand"] = FIRST_PAGE + 1, FIRST_PAGE
        record["large"] = option("large_pages") and self.has_large_pages
        calls.nested_regions(self.vm.processor.memory)

    @property
    def has_large_pages(self) -> bool:
        """Whether the processor takes an entry above the last level for a page; SVM does in every format that a VMM's own
        paging may have."""
        return self.form != EPT or bool(self.vm.processor.cpu.nested.pages_2m)

    def violation(self, exit: Exit) -> bool:
        """An EPT violation or nested page fault: a page that was not mapped yet (True), or an access that no memory takes."""
        write = exit.qualification & EPT_WRITE != 0
        visited = int(calls.nested_fill(self.vm.processor.state, self.vm.processor.memory, exit.gpa, int(write)))
        self.vm.charge("nested_fill", visited)
        self.charge_work()
        if visited == HOLE:
            self.vm.on_physical_hole(exit, exit.gpa, write)
        return visited != HOLE

    def drop(self, frame: int) -> None:
        """What is at a guest frame has changed: the p2m's entry in machine RAM, or what is shown there."""
        calls.nested_drop(self.vm.processor.state, self.vm.processor.memory, frame)

    def show(self, frame: int, machine_frame: int) -> None:
        """Let a guest-physical frame beyond the guest's RAM show a page of the VMM's, which takes no writes."""
        shown = self.record[0]["shown"]
        known = shown["frame"] == frame
        place = int(np.argmax(known)) if known.any() else int(np.argmin(shown["frame"]))
        assert known.any() or shown["frame"][place] == 0, "room for what the guest is shown"
        shown[place] = frame, machine_frame | READ_ONLY
        self.drop(frame)

    def hide(self, frame: int) -> None:
        """Such a frame is a hole again."""
        shown = self.record[0]["shown"]
        shown[shown["frame"] == frame] = 0, 0
        self.drop(frame)

    def before_entry(self) -> None:
        """The guest is about to go on: the processor must not remember what was taken back."""
        record = self.record[0]
        if record["stale"]:
            self.charge_work()
            self.vm.control.flush()
            record["stale"] = 0

    def charge_work(self) -> None:
        """The time for tables that were allocated and entries that were taken back, since the last time."""
        record = self.record[0]
        for _ in range(int(record["tables_made"])):
            self.vm.charge("nested_table", 1)
        if record["dropped"]:
            self.vm.charge("nested_drop", int(record["dropped"]))
        record["tables_made"] = record["dropped"] = 0

    def restore(self) -> None:
        """Machine RAM came from a file. Raises ValueError for tables that were never made here."""
        check_tables(self.vm.processor.memory, self.record[0], self.form, len(self.vm.p2m))

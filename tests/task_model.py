"""A task switch in plain Python, written from SDM volume 3 chapter 7 and the JMP, CALL, INT n and IRET operations.

It shares no code with the core: memory is a `bytearray`, registers are a dataclass, every number stands where it is used.
Linear addresses are physical ones (no paging, or identity paging).
"""

import copy
from dataclasses import dataclass, field

UD, DF, TS, NP, SS, GP, PF = 6, 8, 10, 11, 12, 13, 14
NT, RF, VM, IMPLEMENTED = 1 << 14, 1 << 16, 1 << 17, 0x3F7FD5
JUMP, CALL, EVENT, RETURN = "jmp", "call", "event", "iret"
ES_, CS_, SS_, DS_, FS_, GS_, LDT_, TR_ = range(8)


class Fault(Exception):
    """An exception with its error code."""

    def __init__(self, vector: int, error: int) -> None:
        super().__init__(vector, error)
        self.vector, self.error = vector, error


@dataclass
class Segment:
    """A segment register; `access` None: its cache cannot be used."""

    selector: int = 0
    base: int = 0
    limit: int = 0
    access: int | None = None


@dataclass
class Registers:
    """What a task switch reads or writes."""

    gpr: list[int]
    eip: int
    eflags: int
    cr0: int
    cr3: int
    dr7: int
    cpl: int
    seg: list[Segment]
    gdt: tuple[int, int]
    debug_pending: int = 0


@dataclass
class Outcome:
    """What came of it: the exception and whether it is one of the new task, the registers, the memory."""

    registers: Registers
    memory: bytearray
    fault: tuple[int, int] | None = None
    committed: bool = False


@dataclass
class Event:
    """The event that goes through a task gate."""

    hardware: bool = True
    error: int | None = None
    saves_rf: bool = False


@dataclass
class TaskModel:
    """One task switch over a copy of the registers and of memory."""

    registers: Registers
    memory: bytearray
    event: Event = field(default_factory=Event)
    committed: bool = False

    def number(self, address: int, n: int) -> int:
        return int.from_bytes(self.memory[address : address + n], "little")

    def store(self, address: int, n: int, value: int) -> None:
        self.memory[address : address + n] = (value & (1 << 8 * n) - 1).to_bytes(n, "little")

    @property
    def ext(self) -> int:
        return int(self.cause == EVENT and self.event.hardware)

    def place(self, selector: int, vector: int) -> int:
        """The address of a descriptor, or the exception for a selector beyond its table."""
        offset = selector & 0xFFF8
        base, limit = self.registers.gdt
        if selector & 4:
            ldt = self.registers.seg[LDT_]
            if ldt.access is None:
                raise Fault(vector, selector & 0xFFFC | self.ext)
            base, limit = ldt.base, ldt.limit
        if offset + 7 > limit:
            raise Fault(vector, selector & 0xFFFC | self.ext)
        return base + offset

    def descriptor(self, selector: int, vector: int) -> tuple[int, int, int, int]:
        """(type with S, DPL, present, address)."""
        place = self.place(selector, vector)
        octet = self.memory[place + 5]
        return octet & 31, octet >> 5 & 3, octet >> 7, place

    def cache(self, selector: int, place: int) -> Segment:
        """A segment register filled from the descriptor at an address."""
        low, high = self.number(place, 4), self.number(place + 4, 4)
        limit = low & 0xFFFF | high & 0xF0000
        if high >> 23 & 1:
            limit = limit << 12 | 0xFFF
        base = low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000
        return Segment(selector, base, limit, high >> 8 & 0xF0FF)

    # -- who may ask -----------------------------------------------------------------------------------------------

    def run(self, cause: str, selector: int) -> Outcome:
        """JMP or CALL to `selector`, an event through a task gate whose TSS selector it is, or IRET."""
        self.cause = cause
        self.memory = bytearray(self.memory)
        self.registers = copy.deepcopy(self.registers)
        before = copy.deepcopy(self.registers)
        try:
            if cause == RETURN:
                self.iret()
            elif cause == EVENT:
                self.switch(selector, GP)
            else:
                self.transfer(selector)
        except Fault as fault:
            kept = self.registers if self.committed else before
            return Outcome(kept, self.memory, (fault.vector, fault.error), self.committed)
        return Outcome(self.registers, self.memory, None, True)

    def transfer(self, selector: int) -> None:
        """JMP and CALL: a TSS, or a task gate in the GDT or LDT."""
        kind, dpl, present, place = self.descriptor(selector, GP)
        if kind not in (1, 3, 5, 9, 11) or dpl < max(self.registers.cpl, selector & 3):
            raise Fault(GP, selector & 0xFFFC)
        if kind != 5:
            self.switch(selector, GP)
            return
        if not present:
            raise Fault(NP, selector & 0xFFFC)
        self.switch(self.number(place + 2, 2), GP)

    def iret(self) -> None:
        """TASK-RETURN."""
        tr = self.registers.seg[TR_]
        if tr.limit < 1:
            raise Fault(TS, tr.selector & 0xFFFC)
        self.switch(self.number(tr.base, 2), TS)

    # -- the switch ------------------------------------------------------------------------------------------------

    def switch(self, selector: int, vector: int) -> None:
        registers = self.registers
        error = selector & 0xFFFC | self.ext
        if selector & 4:
            raise Fault(vector, error)
        kind, _, present, place = self.descriptor(selector, vector)
        if kind not in ((3, 11) if self.cause == RETURN else (1, 9)):
            raise Fault(vector, error)
        if not present:
            raise Fault(NP, error)
        new = self.cache(selector, place)
        wide = kind >= 9
        if new.limit < (103 if wide else 43):
            raise Fault(TS, error)
        old = registers.seg[TR_]
        old_kind = None if old.access is None else old.access & 31
        if old_kind not in (3, 11) or old.limit < (95 if old_kind == 11 else 41):
            raise Fault(TS, old.selector & 0xFFFC | self.ext)
        # The commit point.
        self.committed = True
        flags = registers.eflags
        if self.cause == RETURN:
            flags &= ~NT
        elif self.cause == EVENT and self.event.saves_rf:
            flags |= RF
        if self.cause in (JUMP, RETURN):
            busy = registers.gdt[0] + (old.selector & 0xFFF8) + 5
            self.memory[busy] &= ~2
        self.save(old.base, old_kind == 11, flags)
        if self.cause in (CALL, EVENT):
            self.store(new.base, 2, old.selector)
        if self.cause != RETURN:
            self.memory[place + 5] |= 2
        registers.seg[TR_] = self.cache(selector, place)
        registers.seg[TR_].access |= 2
        trap = self.load(new.base, wide)
        self.qualify()
        if self.cause == EVENT and self.event.error is not None:
            self.push(4 if wide else 2, self.event.error)
        if registers.eip > registers.seg[CS_].limit:
            raise Fault(GP, self.ext)
        if trap:
            registers.debug_pending |= 1 << 15

    def save(self, tss: int, wide: bool, flags: int) -> None:
        """Figures 7-2 and 7-10: what is written."""
        registers = self.registers
        if wide:
            self.store(tss + 0x20, 4, registers.eip)
            self.store(tss + 0x24, 4, flags)
            for n in range(8):
                self.store(tss + 0x28 + 4 * n, 4, registers.gpr[n])
            for n in range(6):
                self.store(tss + 0x48 + 4 * n, 2, registers.seg[n].selector)
            return
        self.store(tss + 0x0E, 2, registers.eip)
        self.store(tss + 0x10, 2, flags)
        for n in range(8):
            self.store(tss + 0x12 + 2 * n, 2, registers.gpr[n])
        for n in range(4):
            self.store(tss + 0x22 + 2 * n, 2, registers.seg[n].selector)

    def load(self, tss: int, wide: bool) -> int:
        """Everything but the descriptors; returns the T flag."""
        registers = self.registers
        trap = 0
        if wide:
            if registers.cr0 >> 31:
                registers.cr3 = self.number(tss + 0x1C, 4)
            registers.eip = self.number(tss + 0x20, 4)
            flags = self.number(tss + 0x24, 4)
            registers.gpr = [self.number(tss + 0x28 + 4 * n, 4) for n in range(8)]
            selectors = [self.number(tss + 0x48 + 4 * n, 2) for n in range(6)]
            ldt = self.number(tss + 0x60, 2)
            trap = self.memory[tss + 0x64] & 1
        else:
            registers.eip = self.number(tss + 0x0E, 2)
            flags = self.number(tss + 0x10, 2)
            registers.gpr = [self.number(tss + 0x12 + 2 * n, 2) | 0xFFFF0000 for n in range(8)]
            selectors = [self.number(tss + 0x22 + 2 * n, 2) for n in range(4)] + [0, 0]
            ldt = self.number(tss + 0x2A, 2)
        if self.cause in (CALL, EVENT):
            flags |= NT
        registers.eflags = flags & IMPLEMENTED | 2
        registers.cr0 |= 8
        registers.dr7 &= ~0x155
        registers.seg[:6] = [Segment(selector) for selector in selectors]
        registers.seg[LDT_] = Segment(ldt)
        registers.cpl = 3 if registers.eflags & VM else selectors[CS_] & 3
        return trap

    def qualify(self) -> None:
        """Table 7-1 behind "Registers are loaded"."""
        registers = self.registers
        self.load_ldt(registers.seg[LDT_].selector)
        if registers.eflags & VM:
            for n in range(6):
                selector = registers.seg[n].selector
                registers.seg[n] = Segment(selector, selector << 4, 0xFFFF, 0xF3)
            return
        cpl = registers.cpl
        code = registers.seg[CS_].selector
        kind, dpl, code_present, code_place = self.needed(code)
        if kind < 24 or (dpl > cpl if kind & 4 else dpl != cpl):
            raise Fault(TS, code & 0xFFFC | self.ext)
        stack = registers.seg[SS_].selector
        kind, dpl, present, place = self.needed(stack)
        if kind & 0x1A != 0x12:
            raise Fault(TS, stack & 0xFFFC | self.ext)
        if not present:
            raise Fault(SS, stack & 0xFFFC | self.ext)
        if dpl != cpl:
            raise Fault(TS, stack & 0xFFFC | self.ext)
        if not code_present:
            raise Fault(NP, code & 0xFFFC | self.ext)
        if stack & 3 != cpl:
            raise Fault(TS, stack & 0xFFFC | self.ext)
        self.accept(CS_, code, code_place)
        self.accept(SS_, stack, place)
        for n in (DS_, ES_, FS_, GS_):
            self.load_data(n, registers.seg[n].selector)

    def needed(self, selector: int) -> tuple[int, int, int, int]:
        if selector & 0xFFFC == 0:
            raise Fault(TS, self.ext)
        return self.descriptor(selector, TS)

    def accept(self, n: int, selector: int, place: int) -> None:
        self.memory[place + 5] |= 1
        self.registers.seg[n] = self.cache(selector, place)

    def load_ldt(self, selector: int) -> None:
        if selector & 0xFFFC == 0:
            return
        if selector & 4:
            raise Fault(TS, selector & 0xFFFC | self.ext)
        kind, _, present, place = self.descriptor(selector, TS)
        if kind != 2 or not present:
            raise Fault(TS, selector & 0xFFFC | self.ext)
        self.registers.seg[LDT_] = self.cache(selector, place)

    def load_data(self, n: int, selector: int) -> None:
        if selector & 0xFFFC == 0:
            return
        kind, dpl, present, place = self.descriptor(selector, TS)
        code = kind & 0x18 == 0x18
        if kind < 16 or (code and not kind & 2):
            raise Fault(TS, selector & 0xFFFC | self.ext)
        if not present:
            raise Fault(NP, selector & 0xFFFC | self.ext)
        if not (code and kind & 4) and (dpl < self.registers.cpl or dpl < selector & 3):
            raise Fault(TS, selector & 0xFFFC | self.ext)
        self.accept(n, selector, place)

    def push(self, n: int, value: int) -> None:
        """The error code on the new stack: #SS(EXT) without room."""
        stack = self.registers.seg[SS_]
        mask = 0xFFFFFFFF if stack.access >> 14 & 1 else 0xFFFF
        pointer = self.registers.gpr[4] - n & mask
        last = pointer + n - 1
        fits = last <= stack.limit
        if stack.access & 4:
            fits = pointer > stack.limit and last <= mask
        if not fits:
            raise Fault(SS, self.ext)
        self.store(stack.base + pointer, n, value)
        self.registers.gpr[4] = self.registers.gpr[4] & ~mask | pointer

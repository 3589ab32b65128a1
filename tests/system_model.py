"""The system half of a 32-bit processor in a few hundred lines of Python, written from the manual, for the permutation tests.

It shares no code and no tables with the core. Everything works on copies, so that a fault is an exception and what was
changed before it is simply dropped. Paging is off. Sections are those of SDM volumes 2 (operations) and 3.
"""

import dataclasses

ES, CS, SS, DS, FS, GS, LDTR, TR = range(8)
DF, TS, NP, SS_FAULT, GP = 8, 10, 11, 12, 13
EXTERNAL, EXCEPTION, INT_N, INT_3 = 0, 3, 4, 6
CF, ZF, TF, IF, DIRECTION, NT, RF, VM, AC = 1, 1 << 6, 1 << 8, 1 << 9, 1 << 10, 1 << 14, 1 << 16, 1 << 17, 1 << 18
VIF, VIP, ID = 1 << 19, 1 << 20, 1 << 21
STATUS = 0x8D5
IMPLEMENTED = 0x3F7FD5
UNUSABLE = 1 << 16
FAULTS = {0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17}
CONTRIBUTORY = {0, 10, 11, 12, 13}


class Fault(Exception):
    """An exception of the simulated processor."""

    def __init__(self, vector, error=0):
        self.vector, self.error = vector, error


class TaskSwitch(Exception):
    """Where the manual goes on in chapter 7: not part of this model."""


class Shutdown(Exception):
    """A triple fault."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """A segment register: `access` as bits 15:8 and 23:20 of the descriptor, unusable as bit 16."""

    selector: int
    base: int
    limit: int
    access: int

    @property
    def wrap(self):
        return 0xFFFFFFFF if self.access >> 14 & 1 else 0xFFFF

    def holds(self, offset, n):
        """Volume 3, section 5.3: are the bytes within the limit?"""
        if self.access & UNUSABLE:
            return False
        if self.access & 0xC == 4:
            return self.limit < offset and offset + n - 1 <= self.wrap
        return offset + n - 1 <= self.limit

    def room(self, pointer, count, n):
        return all(self.holds((pointer - n * k) & self.wrap, n) for k in range(1, count + 1))


@dataclasses.dataclass
class Descriptor:
    """The fields of a descriptor (volume 3, figures 3-8 and 6-2)."""

    value: int
    address: int

    def __post_init__(self):
        value = self.value
        self.type, self.s, self.dpl, self.p = value >> 40 & 15, value >> 44 & 1, value >> 45 & 3, value >> 47 & 1
        self.base = value >> 16 & 0xFFFFFF | value >> 56 << 24
        limit = value & 0xFFFF | (value >> 48 & 15) << 16
        self.limit = limit << 12 | 0xFFF if value >> 55 & 1 else limit
        self.code = self.s and self.type >= 8
        self.conforming = self.code and self.type & 4
        self.writable = self.s and self.type in (2, 3, 6, 7)
        self.readable = self.s and not (self.code and self.type & 2 == 0)
        self.gate_selector = value >> 16 & 0xFFFF
        self.gate_offset = value & 0xFFFF | (value >> 48) << 16

    def segment(self, selector, accessed=1):
        access = (self.value >> 40 & 0xFF) | (self.value >> 52 & 15) << 12 | accessed
        return Segment(selector, self.base, self.limit, access)


class Model:
    """The processor: `gpr`, `eip`, `eflags`, `segments`, `cpl`, `cr0`, `cr4`, the table registers, and `memory`."""

    def __init__(self, memory, gpr, eip, eflags, segments, cpl, cr0, cr4, gdtr, idtr):
        self.memory, self.gpr, self.eip, self.eflags = bytearray(memory), list(gpr), eip, eflags
        self.segments, self.cpl, self.cr0, self.cr4 = list(segments), cpl, cr0, cr4
        self.gdtr, self.idtr = gdtr, idtr

    # -- memory and tables ----------------------------------------------------------------------------------------------

    @property
    def real(self):
        return self.cr0 & 1 == 0

    @property
    def virtual_8086(self):
        return self.eflags & VM != 0

    @property
    def iopl(self):
        return self.eflags >> 12 & 3

    @property
    def virtual_if(self):
        """Is VIF in the place of IF (volume 3, sections 20.3.2 and 20.4)?"""
        if self.real or self.iopl == 3:
            return False
        return bool(self.cr4 & 1) if self.virtual_8086 else self.cpl == 3 and bool(self.cr4 & 2)

    def read(self, linear, n):
        linear &= 0xFFFFFFFF
        if linear + n > len(self.memory):
            return (1 << 8 * n) - 1
        return int.from_bytes(self.memory[linear : linear + n], "little")

    def write(self, linear, n, value):
        linear &= 0xFFFFFFFF
        if linear + n <= len(self.memory):
            self.memory[linear : linear + n] = (value & (1 << 8 * n) - 1).to_bytes(n, "little")

    def find(self, selector, vector=GP, ext=0):
        """The descriptor that a selector names."""
        base, limit = self.gdtr
        if selector & 4:
            table = self.segments[LDTR]
            base, limit = table.base, -1 if table.access & UNUSABLE else table.limit
        if (selector | 7) > limit:
            raise Fault(vector, selector & 0xFFFC | ext)
        address = base + (selector & 0xFFF8)
        return Descriptor(self.read(address, 8), address)

    def accessed(self, descriptor):
        self.write(descriptor.address + 5, 1, self.read(descriptor.address + 5, 1) | 1)

    def paragraph(self, register, selector):
        """Load a segment register where selectors are paragraphs (volume 3, sections 20.1 and 20.2)."""
        old = self.segments[register]
        if self.virtual_8086:
            self.segments[register] = Segment(selector, selector << 4, 0xFFFF, 0xF3)
        else:
            self.segments[register] = Segment(selector, selector << 4, old.limit, old.access)

    # -- the stack ------------------------------------------------------------------------------------------------------

    def peek(self, displacement, n):
        stack = self.segments[SS]
        offset = (self.gpr[4] + displacement) & stack.wrap
        if not stack.holds(offset, n):
            raise Fault(SS_FAULT, 0)
        return self.read(stack.base + offset, n)

    def move_stack(self, pointer):
        wrap = self.segments[SS].wrap
        self.gpr[4] = self.gpr[4] & ~wrap & 0xFFFFFFFF | pointer & wrap

    def store(self, stack, pointer, n, values):
        """Push values on a stack that has room; the new pointer."""
        for value in values:
            pointer -= n
            self.write(stack.base + (pointer & stack.wrap), n, value)
        return pointer

    # -- segment registers ----------------------------------------------------------------------------------------------

    def load(self, register, selector):
        """MOV to a segment register."""
        if self.real or self.virtual_8086:
            self.paragraph(register, selector)
        elif register == SS:
            self.load_stack(selector)
        elif selector & ~3 == 0:
            self.segments[register] = Segment(selector, 0, 0, UNUSABLE)
        else:
            found = self.find(selector)
            private = not found.conforming
            if not found.readable or (private and max(selector & 3, self.cpl) > found.dpl):
                raise Fault(GP, selector & ~3)
            if not found.p:
                raise Fault(NP, selector & ~3)
            self.accessed(found)
            self.segments[register] = found.segment(selector)

    def load_stack(self, selector):
        if selector & ~3 == 0:
            raise Fault(GP, 0)
        found = self.find(selector)
        if selector & 3 != self.cpl or not found.writable or found.dpl != self.cpl:
            raise Fault(GP, selector & ~3)
        if not found.p:
            raise Fault(SS_FAULT, selector & ~3)
        self.accessed(found)
        self.segments[SS] = found.segment(selector)

    def load_system(self, register, selector):
        """LLDT and LTR."""
        if selector & ~3 == 0:
            if register == TR:
                raise Fault(GP, 0)
            self.segments[LDTR] = Segment(selector, 0, 0, UNUSABLE)
            return
        if selector & 4:
            raise Fault(GP, selector & ~3)
        found = self.find(selector)
        if found.s or found.type not in ((1, 9) if register == TR else (2,)):
            raise Fault(GP, selector & ~3)
        if not found.p:
            raise Fault(NP, selector & ~3)
        busy = 2 if register == TR else 0
        self.write(found.address + 5, 1, self.read(found.address + 5, 1) | busy)
        self.segments[register] = found.segment(selector, busy)

    def inspect(self, what, selector):
        """LAR, LSL, VERR, VERW: the value for the destination (or None), and ZF."""
        try:
            found = self.find(selector)
        except Fault:
            return None, 0
        if selector & ~3 == 0 or (not found.conforming and max(self.cpl, selector & 3) > found.dpl):
            return None, 0
        if what in ("VERR", "VERW"):
            return None, int(bool(found.readable if what == "VERR" else found.writable))
        known = (1, 2, 3, 4, 5, 9, 11, 12) if what == "LAR" else (1, 2, 3, 9, 11)
        if not found.s and found.type not in known:
            return None, 0
        return (found.value >> 32 & 0xFFFF00 if what == "LAR" else found.limit), 1

    # -- flags ----------------------------------------------------------------------------------------------------------

    def change_if(self, value):
        """CLI and STI."""
        if self.cpl <= self.iopl:
            self.eflags = self.eflags & ~IF | IF * value
        elif self.virtual_if and not (value and self.eflags & VIP):
            self.eflags = self.eflags & ~VIF | VIF * value
        else:
            raise Fault(GP)

    def seen_flags(self):
        """The image that a virtual-8086 program is shown."""
        image = self.eflags
        if self.virtual_if:
            image = image & ~IF | 3 << 12 | IF * (self.eflags >> 19 & 1)
        return image

    def pushf(self, n):
        image = self.eflags
        if self.virtual_8086:
            if self.iopl < 3 and (n == 4 or not self.cr4 & 1):
                raise Fault(GP)
            image = self.seen_flags()
        stack = self.segments[SS]
        if not stack.room(self.gpr[4], 1, n):
            raise Fault(SS_FAULT)
        self.move_stack(self.store(stack, self.gpr[4], n, [image & 0xFCFFFF]))

    def popf(self, n):
        if self.virtual_8086 and self.iopl < 3 and (n == 4 or not self.cr4 & 1):
            raise Fault(GP)
        image = self.peek(0, n)
        self.take_flags(image, n)
        self.move_stack(self.gpr[4] + n)

    def take_flags(self, image, n):
        """What POPF loads, and IRET where it does the same."""
        changes = STATUS | TF | DIRECTION | NT
        if n == 4:
            changes |= AC | ID
        if self.virtual_8086 and self.virtual_if:
            if image & TF or (image & IF and self.eflags & VIP):
                raise Fault(GP)
            changes |= VIF
            image = image & ~VIF | VIF * (image >> 9 & 1)
        elif self.cpl <= self.iopl:
            changes |= IF
        if self.cpl == 0:
            changes |= 3 << 12
        self.eflags = (self.eflags & ~changes | image & changes) & ~RF

    def port(self, port, n):
        """Volume 1, section 18.5: may these ports be used?"""
        if not self.virtual_8086 and self.cpl <= self.iopl:
            return
        task = self.segments[TR]
        if task.access & 0x1F != 11 or task.limit < 103:
            raise Fault(GP)
        place = self.read(task.base + 102, 2) + port // 8
        if place + 1 > task.limit or self.read(task.base + place, 2) >> port % 8 & (1 << n) - 1:
            raise Fault(GP)

    # -- interrupts -----------------------------------------------------------------------------------------------------

    def interrupt(self, vector, kind, error=None):
        """INT n operation, for every kind of event."""
        if kind == INT_N and self.virtual_8086:
            if self.cr4 & 1 and self.redirected(vector):
                return self.real_handler(vector, 0, self.seen_flags(), VIF if self.iopl < 3 else IF)
            if self.iopl < 3:
                raise Fault(GP)
        if self.real:
            if vector * 4 + 3 > self.idtr[1]:
                raise Fault(GP)
            return self.real_handler(vector, self.idtr[0], self.eflags, IF | AC)
        return self.protected_handler(vector, kind, error)

    def redirected(self, vector):
        """Volume 3, section 20.3.3: the software interrupt redirection bit map."""
        task = self.segments[TR]
        if task.access & 0x1F != 11 or task.limit < 103:
            raise Fault(GP)
        place = self.read(task.base + 102, 2) - 32 + vector // 8
        if not 0 <= place <= task.limit:
            raise Fault(GP)
        return not self.read(task.base + place, 1) >> vector % 8 & 1

    def real_handler(self, vector, table, image, cleared):
        stack = self.segments[SS]
        offset, selector = self.read(table + 4 * vector, 2), self.read(table + 4 * vector + 2, 2)
        if not stack.room(self.gpr[4], 3, 2):
            raise Fault(SS_FAULT)
        self.move_stack(self.store(stack, self.gpr[4], 2, [image, self.segments[CS].selector, self.eip]))
        self.eflags &= ~(cleared | TF | RF)
        self.paragraph(CS, selector)
        self.eip = offset

    def protected_handler(self, vector, kind, error):
        ext = int(kind not in (INT_N, INT_3))
        code = vector * 8 + 2 + ext
        base, limit = self.idtr
        if vector * 8 + 7 > limit:
            raise Fault(GP, code)
        gate = Descriptor(self.read(base + vector * 8, 8), 0)
        if gate.s or gate.type not in (5, 6, 7, 14, 15):
            raise Fault(GP, code)
        if not ext and gate.dpl < self.cpl:
            raise Fault(GP, code)
        if not gate.p:
            raise Fault(NP, code)
        if gate.type == 5:
            raise TaskSwitch
        selector = gate.gate_selector
        if selector & ~3 == 0:
            raise Fault(GP, ext)
        found = self.find(selector, GP, ext)
        if not found.code or found.dpl > self.cpl:
            raise Fault(GP, selector & ~3 | ext)
        if not found.p:
            raise Fault(NP, selector & ~3 | ext)
        inner = not found.conforming and found.dpl < self.cpl
        if self.virtual_8086 and not (inner and found.dpl == 0):
            raise Fault(GP, selector & ~3 | ext)
        n = 4 if gate.type >= 14 else 2
        entry = gate.gate_offset & (1 << 8 * n) - 1
        image = self.eflags | (RF if kind == EXCEPTION and vector in FAULTS else 0)
        frame = [image, self.segments[CS].selector, self.eip] + ([] if error is None else [error])
        if inner:
            frame = [self.segments[SS].selector, self.gpr[4], *frame]
            if self.virtual_8086:
                frame = [self.segments[number].selector for number in (GS, FS, DS, ES)] + frame
            level = found.dpl
            stack, stack_descriptor, pointer = self.inner_stack(level, ext)
            full = Fault(SS_FAULT, stack.selector & ~3 | ext)
        else:
            level, stack, stack_descriptor, pointer = self.cpl, self.segments[SS], None, self.gpr[4]
            full = Fault(SS_FAULT, ext)
        if not stack.room(pointer, len(frame), n):
            raise full
        if entry > found.limit:
            raise Fault(GP, ext)
        if stack_descriptor:
            self.accessed(stack_descriptor)
        self.accessed(found)
        pointer = self.store(stack, pointer, n, frame)
        if self.virtual_8086:
            for number in (ES, DS, FS, GS):
                self.segments[number] = Segment(0, 0, 0, UNUSABLE)
        self.segments[SS] = stack
        self.move_stack(pointer)
        self.segments[CS] = found.segment(selector & ~3 | level)
        self.eip, self.cpl = entry, level
        self.eflags &= ~(TF | VM | RF | NT | (IF if gate.type in (6, 14) else 0))

    def inner_stack(self, level, ext):
        """The stack for an inner level: the segment register to be, its descriptor, the pointer."""
        task = self.segments[TR]
        wide = task.access & 0x1F == 11
        place = 8 * level + 4 if wide else 4 * level + 2
        if task.access & 0x1F not in (3, 11) or place + (5 if wide else 3) > task.limit:
            raise Fault(TS, task.selector & ~3 | ext)
        size = 4 if wide else 2
        pointer, selector = self.read(task.base + place, size), self.read(task.base + place + size, 2)
        if selector & ~3 == 0:
            raise Fault(TS, ext)
        found = self.find(selector, TS, ext)
        if selector & 3 != level or found.dpl != level or not found.writable:
            raise Fault(TS, selector & ~3 | ext)
        if not found.p:
            raise Fault(SS_FAULT, selector & ~3 | ext)
        return found.segment(selector), found, pointer

    def event(self, vector, kind, error=None):
        """An event and what arises from it (volume 3, tables 6-4 and 6-5)."""
        while True:
            trial = Model(
                self.memory, self.gpr, self.eip, self.eflags, self.segments, self.cpl, self.cr0, self.cr4, self.gdtr, self.idtr
            )
            try:
                trial.interrupt(vector, kind, error)
                self.__dict__.update(trial.__dict__)
                return
            except Fault as fault:
                serious = kind == EXCEPTION and vector in CONTRIBUTORY
                if kind == EXCEPTION and vector == DF:
                    raise Shutdown from None
                vector, error = (DF, 0) if serious else (fault.vector, fault.error)
                kind = EXCEPTION

    # -- IRET -----------------------------------------------------------------------------------------------------------

    def iret(self, n):
        if self.real or self.virtual_8086:
            return self.iret_to_paragraphs(n)
        if self.eflags & NT:
            raise TaskSwitch
        eip, selector, image = self.peek(0, n), self.peek(n, n) & 0xFFFF, self.peek(2 * n, n)
        if image & VM and self.cpl == 0:
            return self.iret_to_virtual_8086(eip, selector, image)
        return self.iret_in_protected_mode(n, eip, selector, image)

    def iret_to_paragraphs(self, n):
        if self.virtual_8086 and self.iopl < 3 and (n == 4 or not self.cr4 & 1):
            raise Fault(GP)
        eip, selector, image = self.peek(0, n), self.peek(n, n) & 0xFFFF, self.peek(2 * n, n)
        if eip > self.segments[CS].limit:
            raise Fault(GP)
        self.take_flags(image, n)
        self.eflags |= image & RF if n == 4 else 0
        self.move_stack(self.gpr[4] + 3 * n)
        self.paragraph(CS, selector)
        self.eip = eip

    def iret_to_virtual_8086(self, eip, selector, image):
        frame = [self.peek(12 + 4 * k, 4) for k in range(6)]
        if eip > 0xFFFF:
            raise Fault(GP)
        self.eflags = image & IMPLEMENTED | 2
        self.gpr[4] = frame[0]
        for register, value in zip((SS, ES, DS, FS, GS), frame[1:], strict=True):
            self.paragraph(register, value & 0xFFFF)
        self.paragraph(CS, selector)
        self.eip, self.cpl = eip, 3

    def returned_code(self, selector):
        if selector & ~3 == 0:
            raise Fault(GP)
        found = self.find(selector)
        level = selector & 3
        wrong = found.dpl > level if found.conforming else found.dpl != level
        if not found.code or level < self.cpl or wrong:
            raise Fault(GP, selector & ~3)
        if not found.p:
            raise Fault(NP, selector & ~3)
        return found

    def returned_stack(self, selector, level):
        if selector & ~3 == 0:
            raise Fault(GP)
        found = self.find(selector)
        if selector & 3 != level or not found.writable or found.dpl != level:
            raise Fault(GP, selector & ~3)
        if not found.p:
            raise Fault(SS_FAULT, selector & ~3)
        return found

    def iret_in_protected_mode(self, n, eip, selector, image):
        code, level, stack = self.returned_code(selector), selector & 3, None
        if level > self.cpl:
            pointer, stack_selector = self.peek(3 * n, n), self.peek(4 * n, n) & 0xFFFF
            stack = self.returned_stack(stack_selector, level)
        if eip > code.limit:
            raise Fault(GP)
        self.accessed(code)
        kernel = self.cpl == 0
        virtual = self.eflags & (VIF | VIP)
        self.take_flags(image, n)
        self.eflags = self.eflags & ~(VIF | VIP) | (image & (VIF | VIP) if kernel and n == 4 else virtual)
        self.eflags |= image & RF if n == 4 else 0
        self.segments[CS] = code.segment(selector)
        self.eip = eip
        if stack is None:
            self.move_stack(self.gpr[4] + 3 * n)
            return
        self.accessed(stack)
        self.segments[SS] = stack.segment(stack_selector)
        self.move_stack(pointer)
        self.cpl = level
        for register in (ES, DS, FS, GS):
            access = self.segments[register].access
            conforming = access & 0x1C == 0x1C
            if not access & UNUSABLE and access & 16 and not conforming and access >> 5 & 3 < level:
                self.segments[register] = Segment(0, 0, 0, UNUSABLE)

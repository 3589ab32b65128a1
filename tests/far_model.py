"""Far jumps, calls and returns in plain Python, written from the JMP, CALL and RET operations of SDM volume 2.

`n` is the operand size in bytes. No code is shared with the core.
"""

import copy
from dataclasses import dataclass

from task_model import CS_, GP, NP, SS, SS_, TR_, TS, VM, Fault, Outcome, Segment, TaskModel

DATA_REGISTERS = (0, 3, 4, 5)


@dataclass
class FarModel(TaskModel):
    """One far transfer over a copy of the registers and of memory."""

    cause: str = ""

    def run_far(self, what: str, selector: int, offset: int, n: int) -> Outcome:
        """`jmp` and `call` to selector:offset; `ret` releases `offset` bytes."""
        self.memory = bytearray(self.memory)
        before = self.registers
        self.registers = copy.deepcopy(before)
        try:
            if what == "ret":
                self.far_return(offset, n)
            elif not self.registers.cr0 & 1 or self.registers.eflags & VM:
                self.paragraph(what, selector, offset, n)
            else:
                self.protected(what, selector, offset, n)
        except Fault as fault:
            return Outcome(before, self.memory, (fault.vector, fault.error))
        return Outcome(self.registers, self.memory, None, True)

    # -- the stack -------------------------------------------------------------------------------------------------

    @staticmethod
    def stack_mask(stack: Segment) -> int:
        return 0xFFFFFFFF if stack.access >> 14 & 1 else 0xFFFF

    def inside(self, stack: Segment, offset: int, n: int) -> bool:
        if stack.access & 4:
            return offset > stack.limit and offset + n - 1 <= self.stack_mask(stack)
        return offset + n - 1 <= stack.limit

    def room(self, stack: Segment, pointer: int, count: int, n: int, error: int) -> None:
        mask = self.stack_mask(stack)
        if not all(self.inside(stack, pointer - n * (k + 1) & mask, n) for k in range(count)):
            raise Fault(SS, error)

    def push_all(self, stack: Segment, pointer: int, values: list[int], n: int) -> int:
        for value in values:
            pointer = pointer - n & self.stack_mask(stack)
            self.store(stack.base + pointer, n, value)
        return pointer

    def on_stack(self, displacement: int, n: int) -> int:
        stack = self.registers.seg[SS_]
        offset = self.registers.gpr[4] + displacement & self.stack_mask(stack)
        if not self.inside(stack, offset, n):
            raise Fault(SS, 0)
        return self.number(stack.base + offset, n)

    def set_pointer(self, value: int) -> None:
        mask = self.stack_mask(self.registers.seg[SS_])
        self.registers.gpr[4] = self.registers.gpr[4] & ~mask | value & mask

    # -- jumps and calls -------------------------------------------------------------------------------------------

    def paragraph(self, what: str, selector: int, offset: int, n: int) -> None:
        """Real-address and virtual-8086 mode."""
        registers = self.registers
        stack = registers.seg[SS_]
        if what == "call":
            self.room(stack, registers.gpr[4], 2, n, 0)
        if offset > registers.seg[CS_].limit:
            raise Fault(GP, 0)
        if what == "call":
            self.set_pointer(self.push_all(stack, registers.gpr[4], [registers.seg[CS_].selector, registers.eip], n))
        self.enter_paragraph(selector, offset)

    def enter_paragraph(self, selector: int, offset: int) -> None:
        code = self.registers.seg[CS_]
        code.selector, code.base = selector, selector << 4
        if self.registers.eflags & VM:
            code.limit, code.access = 0xFFFF, 0xF3
        self.registers.eip = offset

    def protected(self, what: str, selector: int, offset: int, n: int) -> None:
        registers = self.registers
        error = selector & 0xFFFC
        if error == 0:
            raise Fault(GP, 0)
        kind, dpl, present, place = self.descriptor(selector, GP)
        cpl = registers.cpl
        if kind >= 24:
            if dpl > cpl if kind & 4 else (selector & 3 > cpl or dpl != cpl):
                raise Fault(GP, error)
            if not present:
                raise Fault(NP, error)
            self.to_code(what, selector, offset, place, n, cpl)
            return
        if kind not in (4, 12) or dpl < cpl or dpl < selector & 3:
            raise Fault(GP, error)
        if not present:
            raise Fault(NP, error)
        self.through_gate(what, place, kind == 12)

    def through_gate(self, what: str, gate: int, wide: bool) -> None:
        n = 4 if wide else 2
        offset = self.number(gate, 2) | (self.number(gate + 6, 2) << 16 if wide else 0)
        count = self.memory[gate + 4] & 31
        selector = self.number(gate + 2, 2)
        error = selector & 0xFFFC
        if error == 0:
            raise Fault(GP, 0)
        kind, dpl, present, place = self.descriptor(selector, GP)
        cpl = self.registers.cpl
        if kind < 24 or dpl > cpl or (what == "jmp" and not kind & 4 and dpl != cpl):
            raise Fault(GP, error)
        if not present:
            raise Fault(NP, error)
        if what == "call" and not kind & 4 and dpl < cpl:
            self.inwards(selector, offset, place, n, count, dpl)
        else:
            self.to_code(what, selector, offset, place, n, cpl)

    def to_code(self, what: str, selector: int, offset: int, place: int, n: int, level: int) -> None:
        """Within the ring."""
        registers = self.registers
        stack = registers.seg[SS_]
        if what == "call":
            self.room(stack, registers.gpr[4], 2, n, 0)
        if offset > self.cache(0, place).limit:
            raise Fault(GP, 0)
        if what == "call":
            self.set_pointer(self.push_all(stack, registers.gpr[4], [registers.seg[CS_].selector, registers.eip], n))
        self.accept(CS_, selector & 0xFFFC | level, place)
        registers.eip = offset

    def inwards(self, selector: int, offset: int, place: int, n: int, count: int, level: int) -> None:
        """More privilege: the stack of the TSS."""
        registers = self.registers
        tss = registers.seg[TR_]
        wide = tss.access & 8
        at, size = (4 + 8 * level, 4) if wide else (2 + 4 * level, 2)
        if at + size + 1 > tss.limit:
            raise Fault(TS, tss.selector & 0xFFFC)
        pointer = self.number(tss.base + at, size)
        stack_selector = self.number(tss.base + at + size, 2)
        error = stack_selector & 0xFFFC
        if error == 0:
            raise Fault(TS, 0)
        kind, dpl, present, stack_place = self.descriptor(stack_selector, TS)
        if stack_selector & 3 != level or dpl != level or kind & 0x1A != 0x12:
            raise Fault(TS, error)
        if not present:
            raise Fault(SS, error)
        stack = self.cache(stack_selector, stack_place)
        self.room(stack, pointer, 4 + count, n, error)
        if offset > self.cache(0, place).limit:
            raise Fault(GP, 0)
        old = registers.seg[SS_].selector, registers.gpr[4]
        parameters = [self.on_stack(n * k, n) for k in reversed(range(count))]
        self.memory[stack_place + 5] |= 1
        values = [*old, *parameters, registers.seg[CS_].selector, registers.eip]
        pointer = self.push_all(stack, pointer, values, n)
        self.accept(SS_, stack_selector, stack_place)
        self.set_pointer(pointer)
        self.accept(CS_, selector & 0xFFFC | level, place)
        registers.eip, registers.cpl = offset, level

    # -- returns ---------------------------------------------------------------------------------------------------

    def far_return(self, released: int, n: int) -> None:
        registers = self.registers
        eip = self.on_stack(0, n)
        selector = self.on_stack(n, n) & 0xFFFF
        if not registers.cr0 & 1 or registers.eflags & VM:
            if eip > registers.seg[CS_].limit:
                raise Fault(GP, 0)
            self.set_pointer(registers.gpr[4] + 2 * n + released)
            self.enter_paragraph(selector, eip)
            return
        error = selector & 0xFFFC
        if error == 0:
            raise Fault(GP, 0)
        kind, dpl, present, place = self.descriptor(selector, GP)
        level = selector & 3
        if kind < 24 or level < registers.cpl or (dpl > level if kind & 4 else dpl != level):
            raise Fault(GP, error)
        if not present:
            raise Fault(NP, error)
        if level > registers.cpl:
            self.outwards(selector, eip, place, released, n)
            return
        if eip > self.cache(0, place).limit:
            raise Fault(GP, 0)
        self.set_pointer(registers.gpr[4] + 2 * n + released)
        self.accept(CS_, selector, place)
        registers.eip = eip

    def outwards(self, selector: int, eip: int, place: int, released: int, n: int) -> None:
        registers = self.registers
        level = selector & 3
        pointer = self.on_stack(2 * n + released, n)
        stack_selector = self.on_stack(3 * n + released, n) & 0xFFFF
        error = stack_selector & 0xFFFC
        if error == 0:
            raise Fault(GP, 0)
        kind, dpl, present, stack_place = self.descriptor(stack_selector, GP)
        if stack_selector & 3 != level or dpl != level or kind & 0x1A != 0x12:
            raise Fault(GP, error)
        if not present:
            raise Fault(SS, error)
        if eip > self.cache(0, place).limit:
            raise Fault(GP, 0)
        self.accept(CS_, selector, place)
        self.accept(SS_, stack_selector, stack_place)
        self.set_pointer(pointer)
        self.set_pointer(registers.gpr[4] + released)
        registers.eip, registers.cpl = eip, level
        for number in DATA_REGISTERS:
            access = registers.seg[number].access
            if access is None or access & 0x1C == 0x1C:
                continue
            if access >> 5 & 3 < level:
                registers.seg[number] = Segment(0)

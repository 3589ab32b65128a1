"""Our processor and Unicorn side by side at CPL 0, in code and stacks of either size: what `fuzz_instructions` compares.

Both have the same GDT. Data and stack share one segment base, so that 16-bit offsets reach what is compared; segments
have no limits to speak of, since Unicorn checks none.
"""

import numpy as np
import unicorn
from bare_machine import CODE, CODE_0, CODE_FIRST, CS, DATA, DS, ES, FS, GS, HANDLERS, SS, STACK_END, BareMachine
from descriptor_machine import descriptor
from unicorn import x86_const as x86
from unicorn_machine import STATE, UnicornMachine

from x86virt.core.entries import enter_level

CODE_32, CODE_16, FLAT_DATA, STACK_16, FS_DATA, GS_DATA = 0x30, 0x38, 0x40, 0x48, 0x50, 0x58
OPERANDS = STACK_END - DATA
G_AND_B, G = 0xC000, 0x8000
# Selector: base, access rights, descriptor type, D or B.
SEGMENTS = {
    CODE_32: (0, 0x9B | G_AND_B, 11, 1),
    CODE_16: (CODE_FIRST, 0x9B | G, 11, 0),
    FLAT_DATA: (DATA, 0x93 | G_AND_B, 3, 1),
    STACK_16: (DATA, 0x93 | G, 3, 0),
    FS_DATA: (DATA + 0x1000, 0x93 | G_AND_B, 3, 1),
    GS_DATA: (DATA + 0x800, 0x93 | G_AND_B, 3, 1),
}
UNICORN_SEGMENTS = (
    (CS, x86.UC_X86_REG_CS),
    (SS, x86.UC_X86_REG_SS),
    (DS, x86.UC_X86_REG_DS),
    (ES, x86.UC_X86_REG_ES),
    (FS, x86.UC_X86_REG_FS),
    (GS, x86.UC_X86_REG_GS),
)
REFUSED = {
    unicorn.UC_ERR_INSN_INVALID: "vector 6",
    unicorn.UC_ERR_READ_UNMAPPED: "outside RAM",
    unicorn.UC_ERR_WRITE_UNMAPPED: "outside RAM",
}


class SizedMachines:
    """The pair. `arrange` chooses the sizes; `ours` and `theirs` execute one instruction."""

    def __init__(self) -> None:
        self.bare, self.oracle = BareMachine(), UnicornMachine()
        table = bytearray(0x80)
        for selector, (base, _, kind, db) in SEGMENTS.items():
            table[selector : selector + 8] = descriptor(base, 0xFFFFF, kind, db=db, granular=1).to_bytes(8, "little")
        self.oracle.load_tables(bytes(table), len(table) - 1)
        self.selectors: tuple[int, ...] = ()
        self.eip = CODE

    def arrange(self, code_16: bool, stack_16: bool) -> None:
        """Load the segments for a code size and a stack size."""
        code, stack = CODE_16 if code_16 else CODE_32, STACK_16 if stack_16 else FLAT_DATA
        self.selectors = (code, stack, FLAT_DATA, FLAT_DATA, FS_DATA, GS_DATA)
        self.eip = CODE - SEGMENTS[code][0]
        self.load_ours()
        self.load_theirs()

    def load_ours(self) -> None:
        """The segments of our processor."""
        for (segment, _), selector in zip(UNICORN_SEGMENTS, self.selectors, strict=True):
            base, access, _, _ = SEGMENTS[selector]
            self.bare.processor.set_segment(segment, selector, base, 0xFFFFFFFF, access)
        enter_level(self.bare.processor.state, 0)

    def load_theirs(self) -> None:
        """The segments of Unicorn."""
        for (_, register), selector in zip(UNICORN_SEGMENTS, self.selectors, strict=True):
            self.oracle.engine.reg_write(register, selector)
        self.oracle.fresh = self.oracle.engine.context_save()

    def ours(self, octets: bytes, registers: list[int], eflags: int) -> tuple[str, list[int], int, int]:
        """Execute one instruction: ("" or "vector N", general registers, EIP, EFLAGS)."""
        bare = self.bare
        cpu = bare.cpu
        bare.write_code(octets)
        bare.gpr[:8] = registers
        bare.eflags = eflags
        cpu.rip, cpu.halted, cpu.shadow, cpu.mark = self.eip, 0, 0, 0
        bare.processor.run(single=True)
        rip = int(cpu.rip)
        if int(cpu.seg[CS].selector) == CODE_0:
            vector = (rip - HANDLERS) // 16
            after = bare.registers()
            self.load_ours()
            return f"vector {vector}", after, rip, bare.eflags
        return "", bare.registers(), rip, bare.eflags

    def theirs(self, octets: bytes, registers: list[int], eflags: int, repeats: bool) -> tuple[str, list[int], int, int]:
        """The same on Unicorn; SILENT stands for an exception that it does not name."""
        oracle = self.oracle
        engine = oracle.engine
        engine.mem_write(CODE, octets)
        engine.ctl_remove_cache(CODE, CODE + 16)
        engine.reg_write_batch(list(zip(STATE, (*registers, self.eip, eflags), strict=True)))
        oracle.raised = fault = ""
        try:
            if repeats:
                engine.emu_start(self.eip, CODE + len(octets))
            else:
                engine.emu_start(self.eip, 0xFFFFFFFF, count=1)
        except unicorn.UcError as error:
            if error.errno != unicorn.UC_ERR_FETCH_UNMAPPED:
                fault = REFUSED[error.errno]
        values = [value & 0xFFFFFFFF for value in engine.reg_read_batch(STATE)]
        if fault or oracle.raised:
            engine.context_restore(oracle.fresh)
        return fault or oracle.raised, values[:8], values[8], values[9]

    def operands(self) -> tuple[bytes, bytes]:
        """Data and stack of both."""
        return self.bare.memory[DATA:STACK_END].tobytes(), bytes(self.oracle.engine.mem_read(DATA, OPERANDS))

    def set_operands(self, octets: bytes) -> None:
        """Make data and stack of both the same."""
        self.bare.memory[DATA:STACK_END] = np.frombuffer(octets, np.uint8)
        self.oracle.write(DATA, octets)

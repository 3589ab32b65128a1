"""One working example of every instruction row, executed on the bare processor in every mode and ring.

The operands are such that only the mode, the CPL, the IOPL, or control bits can stand in the way.
"""

from __future__ import annotations

from bare_machine import CODE as CODE_PLACE
from bare_machine import CODE_0, CODE_3, CODE_LAST, DATA, DATA_0, DATA_3, GDT, STACK, TSS, TSS_SELECTOR, BareMachine
from descriptor_machine import descriptor

from x86virt.core.entries import enter_level
from x86virt.explain.facts import CONTEXTS
from x86virt.isa.registers import (
    CR0_ET,
    CR0_NE,
    CR0_PE,
    CS,
    DS,
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    EDX,
    ES,
    ESI,
    ESP,
    FS,
    GS,
    SS,
)
from x86virt.isa.rows import Row
from x86virt.isa.vectors import MNEMONIC

VM = 1 << 17
OPERAND = 0x100  # offset of the memory operand
FREE_TSS, FREE_TSS_BASE, RING_1_CODE, RING_1_DATA, RING_2_CODE, RING_2_DATA = 0x30, 0x5000, 0x38, 0x40, 0x48, 0x50
CODE_OF = (CODE_0, RING_1_CODE | 1, RING_2_CODE | 2, CODE_3)
DATA_OF = (DATA_0, RING_1_DATA | 1, RING_2_DATA | 2, DATA_3)
SIZES = {"ib": 1, "iw": 2, "jb": 1, "iz": 0, "jz": 0, "ap": 0, "o": 0}
PORT = 0x80
TSC = 0x10


def sample(row: Row, wide: bool, selector: int) -> bytes:
    """The bytes of one example: a memory operand where there can be one, in 32-bit or 16-bit code."""
    octets = bytearray(row.opcode)
    if row.modrm:
        field = (
            int(row.modrm)
            if row.modrm.isdigit()
            else DS
            if "Sw" in row.operands
            else 2
            if "Dd" in row.operands
            else 0
        )
        if "Cd" in row.operands or "Dd" in row.operands or not row.operands:
            octets.append(0xC0 | field << 3)
        else:
            octets.append(field << 3 | (5 if wide else 6))
            octets += OPERAND.to_bytes(4 if wide else 2, "little")
    size = 4 if wide else 2
    for name in row.immediates:
        if name == "ap":
            octets += (0x1000).to_bytes(size, "little") + selector.to_bytes(2, "little")
        else:
            value = PORT if row.mnemonic in ("IN", "OUT") else 3 if row.mnemonic in ("INT", "AAM") else 0
            octets += value.to_bytes(SIZES[name] or size, "little")
    return bytes(octets)


class Rows:
    """Executes examples."""

    def __init__(self) -> None:
        self.machine = BareMachine()
        self.cpu = self.machine.cpu

    def prepare(self, context: str) -> None:
        """The processor in a mode and ring, with tables that allow everything but what needs privilege."""
        machine, cpu = self.machine, self.cpu
        mode, level, iopl = CONTEXTS[context]
        machine.power_on()
        machine.unlimited()
        cpu.hook_first, cpu.hook_last = 1, 0
        machine.initialize_float()
        cpu.fpu_instruction_selector = 0
        for place, ring in ((RING_1_CODE, 1), (RING_2_CODE, 2)):
            machine.put(GDT + place, descriptor(0, 0xFFFFF, 11, dpl=ring, granular=1), 8)
            machine.put(GDT + place + 8, descriptor(0, 0xFFFFF, 3, dpl=ring, granular=1), 8)
        machine.put(GDT + FREE_TSS, descriptor(FREE_TSS_BASE, 0x67, 9, s=0, db=0), 8)
        machine.put(TSS + 102, 0x68, 2)  # no I/O permission map
        for ring in (1, 2):
            machine.put(TSS + 4 + 8 * ring, 0x7000)
            machine.put(TSS + 8 + 8 * ring, DATA_OF[ring])
        cpu.sysenter_cs, cpu.sysenter_esp, cpu.sysenter_eip = CODE_0, 0x6000, 0x4000
        cpu.cr0 = CR0_ET | CR0_NE | (CR0_PE if mode != "real" else 0)
        if mode == "protected":
            for segment in (ES, SS, DS, FS, GS):
                base = 0 if segment == SS else DATA
                machine.processor.set_segment(segment, DATA_OF[level], base, 0xFFFFFFFF, 0xC093 | level << 5)
            machine.processor.set_segment(CS, CODE_OF[level], 0, 0xFFFFFFFF, 0xC09B | level << 5)
        else:
            for segment in (ES, SS, DS, FS, GS):
                base = STACK if segment == SS else DATA
                machine.processor.set_segment(segment, base >> 4, base, 0xFFFF, 0x93 if mode == "real" else 0xF3)
            machine.processor.set_segment(CS, CODE_PLACE >> 4, CODE_PLACE, 0xFFFF, 0x93 if mode == "real" else 0xF3)
        if mode == "real":
            cpu.idtr_base, cpu.idtr_limit = 0, 0x3FF
        machine.eflags = 2 | iopl << 12 | (VM if mode == "v86" else 0)
        enter_level(machine.processor.state, level)

    def load(self, row: Row, context: str) -> int:
        """Registers, memory and stack for a row, and its bytes; gives EIP."""
        machine, cpu = self.machine, self.cpu
        mode, level, iopl = CONTEXTS[context]
        wide = mode == "protected"
        code, data = (CODE_OF[level], DATA_OF[level]) if wide else (CODE_PLACE >> 4, DATA >> 4)
        octets = sample(row, wide, code)
        start = CODE_PLACE if wide else 0
        machine.write_code(octets, CODE_PLACE)
        values = dict.fromkeys(range(8), 1) | {ESI: 0x200, EDI: 0x300, EDX: PORT, ECX: 1, EBX: 0x40}
        stack = STACK + 0x2000 if wide else 0x2000
        values[ESP] = values[EBP] = stack
        operation = row.operation.removeprefix("system:")
        memory = {
            **dict.fromkeys(("LAR", "LSL", "VERR", "VERW"), data), "LLDT": 0, "LTR": FREE_TSS, "LMSW": int(cpu.cr0) & 0xF,
            "REGISTER_TO_SREG": data, "LGDT": GDT << 16 | 0x7F,
            "LOAD_FAR_POINTER": data << (32 if wide else 16) | 0x10, "JMP_FAR_INDIRECT": code << (32 if wide else 16),
            "CALL_FAR_INDIRECT": code << (32 if wide else 16), "bound": 0x7FFFFFFF00000000 if wide else 0x7FFF0000,
        }.get(operation, 1)  # fmt: skip
        machine.put(DATA + OPERAND, memory, 8)
        values[EAX] = {
            "REGISTER_TO_CR": {0: int(cpu.cr0)}.get(int(row.modrm or 0) if row.modrm.isdigit() else 0, 0),
            "REGISTER_TO_DR": 0, "div": 4, "RDMSR": 0, "WRMSR": 0,
        }.get(operation, values[EAX])  # fmt: skip
        if operation in ("RDMSR", "WRMSR"):
            values[ECX], values[EDX] = TSC, 0
        if operation == "RDPMC":
            values[ECX] = 0
        if operation == "div":
            values[EDX] = 0
        if operation == "SYSEXIT":
            values[EDX], values[ECX] = 0x4000, 0x6000
        for register, value in values.items():
            cpu.gpr[register] = value
        n = 4 if wide else 2
        frame = [data if operation == "POP_SREG" else 1]
        if operation in ("IRET", "RET_FAR"):
            frame = [start + 0x20, code, int(machine.eflags)]
        linear = stack if wide else STACK + stack
        for place, value in enumerate(frame):
            machine.put(linear + n * place, value & (1 << 8 * n) - 1, n)
        return start

    def outcome(self, row: Row, context: str) -> str:
        """`executes`, or the exception in the manual's notation."""
        self.prepare(context)
        return self.step(self.load(row, context))

    def step(self, start: int) -> str:
        """Execute what has been loaded."""
        cpu = self.cpu
        cpu.rip, cpu.halted = start, 0
        before, cpu.event_vector = int(cpu.retired), -1
        self.machine.processor.run(single=True)
        if int(cpu.retired) > before:
            return "executes"
        name = MNEMONIC[int(cpu.event_vector)]
        return f"{name}({int(cpu.event_error)})" if cpu.event_has_error else name


assert CODE_LAST > CODE_PLACE + 0x1000 and TSS_SELECTOR < FREE_TSS

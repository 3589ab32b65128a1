"""Restartability: a fault leaves registers, flags and EIP as before, and the mended instruction completes as if unfaulted.

Every user-mode row that touches memory runs at CPL 3 with paging on, its operand across a page boundary. An unfaulted
run tells by the accessed and dirty bits which pages it touches; then each of them is taken away (not present), made
read-only, or cut off by a segment limit; the frame on the ring-0 stack and CR2 are what the handler would see.
"""

import random

import numpy as np
import pytest
from bare_machine import (
    AF,
    ARITHMETIC,
    CODE,
    CODE_FIRST,
    DATA,
    DATA_3,
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
    HLT,
    KERNEL_STACK,
    PTE_P,
    PTE_RW,
    PTE_US,
    SS,
    STACK,
    STACK_END,
    TABLE,
    BareMachine,
)  # fmt: skip

from x86virt.isa.rows import ANY, Row
from x86virt.isa.table import ROWS

MACHINE = BareMachine()
OPERAND = DATA + 0x1000
ACCESSED, DIRTY = 0x20, 0x40
RF = 1 << 16
NOP = b"\x90"
PAGES = range(DATA, STACK_END, 0x1000)
OPEN = PTE_P | PTE_RW | PTE_US
POPS = ("pop", "popa", "ret", "system:POPF", "system:POP_SREG")
SYSTEM = {
    f"system:{name}"
    for name in ("PUSHF", "POPF", "PUSH_SREG", "POP_SREG", "SGDT", "SIDT", "SLDT", "STR", "SMSW", "SREG_TO_REGISTER", "LAR",
                 "REGISTER_TO_SREG", "LSL", "VERR", "VERW", "ARPL", "LOAD_FAR_POINTER")
}  # fmt: skip
STACK_OPERATIONS = {
    "push",
    "pusha",
    "enter",
    "leave",
    "call",
    "call_indirect",
    *POPS,
    "system:PUSHF",
    "system:PUSH_SREG",
}


def touches_memory(row: Row) -> bool:
    """Whether some form of the row accesses data or the stack at CPL 3."""
    if row.privilege != ANY or (row.operation.startswith("system:") and row.operation not in SYSTEM):
        return False
    if (
        row.operation in STACK_OPERATIONS
        or row.operation in ("xlat", "cmpxchg8b")
        or row.operation.startswith("string")
    ):
        return True
    if row.operation in ("lea", "nop", "hint", "undefined"):
        return False
    return any(code[0] in "EMO" and code != "M" for code in row.operands)


TOUCHING = [row for row in ROWS if touches_memory(row)]


class Start:
    """Code, registers, flags and memory before one instruction at CODE + 1, between two NOPs."""

    def __init__(self, row: Row, width: int) -> None:
        rng = random.Random(f"{row.name} {row.encoding} {width}")
        self.registers = [rng.getrandbits(32) for _ in range(8)]
        pops = row.operation in POPS
        self.registers[ESP] = STACK + (0xFFE if pops else 0x1002)
        self.registers[EBP] = STACK + 0x1FFE
        self.registers[ESI], self.registers[EDI] = OPERAND - 1, OPERAND + 0x2FFF
        self.registers[ECX] = 3
        self.eflags = 2 | rng.getrandbits(12) & ARITHMETIC
        self.memory = np.frombuffer(rng.randbytes(STACK_END - DATA), np.uint8).copy()
        address = OPERAND if self.is_byte(row) else OPERAND - 1
        if row.operation == "xlat":
            self.registers[EBX], self.registers[EAX] = OPERAND - 0x10, 0x10
        if row.operation == "bit_string":
            self.registers[EAX] = self.registers[EDX] = self.registers[EBX] = 3
        if row.operation == "div":
            self.registers[EDX], self.registers[EAX] = 0, 1
        content = self.content(row, width)
        for place in (address, self.registers[ESP]) if content else ():
            self.store(place, content)
        self.code = self.encode(row, width, address, rng)

    @staticmethod
    def is_byte(row: Row) -> bool:
        """Whether the memory operand is a byte."""
        return any(code in ("Eb", "Ob", "Mb") for code in row.operands) or row.operation in ("setcc", "xlat")

    @staticmethod
    def content(row: Row, width: int) -> bytes:
        """What the operand must hold for the instruction to complete; empty if anything will do."""
        if row.operation in ("jmp_indirect", "call_indirect", "ret"):
            return (0x9000 if width == 16 else CODE_FIRST + 0x100).to_bytes(4, "little")
        if row.operation in ("system:POP_SREG", "system:REGISTER_TO_SREG"):
            return DATA_3.to_bytes(4, "little")
        if row.operation == "system:LOAD_FAR_POINTER":
            return bytes(width // 8) + DATA_3.to_bytes(2, "little")
        if row.operation == "system:POPF":
            return (0x8D7).to_bytes(4, "little")
        if row.operation == "bound":
            lower, upper = 1 << width - 1, (1 << width - 1) - 1
            return lower.to_bytes(width // 8, "little") + upper.to_bytes(width // 8, "little")
        return b"\xff\xff\xff\x7f" if row.operation == "div" else b""

    def store(self, address: int, octets: bytes) -> None:
        """Write the memory image."""
        self.memory[address - DATA : address - DATA + len(octets)] = list(octets)

    @staticmethod
    def encode(row: Row, width: int, address: int, rng: random.Random) -> bytes:
        """The instruction with its memory operand at an absolute address."""
        prefix = b"\x66" if width == 16 else b""
        modrm = b""
        if row.modrm:
            registers = (0, 3) if "Sw" in row.operands else (0, 2, 3)
            reg = int(row.modrm) if row.modrm.isdigit() else rng.choice(registers)
            modrm = bytes([reg << 3 | 5]) + address.to_bytes(4, "little")
        sizes = {"ib": 1, "iw": 2, "iz": width // 8, "jz": width // 8, "o": 4}
        immediates = b""
        for name in row.immediates:
            value = {"o": address, "iw": 8, "ib": 3, "jz": 0x20}.get(name, 0x12345678)
            immediates += (value & (1 << 8 * sizes[name]) - 1).to_bytes(sizes[name], "little")
        return prefix + bytes(row.opcode) + modrm + immediates

    def arrange(self) -> None:
        """Put the machine into this state, with clean page tables and cold TLBs."""
        MACHINE.ring(3)
        MACHINE.write_code(NOP + self.code + NOP + HLT * 16)
        MACHINE.memory[DATA:STACK_END] = self.memory
        MACHINE.gpr[:8] = self.registers
        MACHINE.eflags = self.eflags
        MACHINE.initialize_float()
        MACHINE.cpu.cr2 = 0
        for page in PAGES:
            MACHINE.set_page(page, page, OPEN)
        MACHINE.forget_translations()


def frame() -> tuple[int, int, int, int]:
    """Error code, EIP, EFLAGS without RF, and ESP that the delivery pushed."""
    error, eip, _, eflags, esp, _ = (MACHINE.get(KERNEL_STACK - 24 + 4 * n) for n in range(6))
    return error, eip, eflags & ~RF, esp


def run(address: int = CODE) -> tuple[int | str, tuple, list[int], bytes]:
    """Run until a fault: where it stopped, its frame, the registers but ESP, the memory."""
    MACHINE.cpu.retired_limit = MACHINE.cpu.retired + 1000
    stopped = MACHINE.stopped_at(MACHINE.go(address))
    others = [value for number, value in enumerate(MACHINE.registers()) if number != ESP]
    return stopped, frame(), others, MACHINE.memory[DATA:STACK_END].tobytes()


def entry(page: int) -> int:
    """The page-table entry of a page."""
    return MACHINE.get(TABLE + (page >> 12) * 4)


@pytest.fixture(autouse=True, scope="module")
def paging():
    """Identity paging."""
    MACHINE.power_on()
    MACHINE.paging()


def widths(row: Row) -> tuple[int, ...]:
    """Both operand sizes where they differ."""
    return (32,) if Start.is_byte(row) or row.operation == "cmpxchg8b" else (16, 32)


def masked(row: Row, result: tuple) -> tuple:
    """A result whose undefined flags are cleared."""
    stopped, (error, eip, eflags, esp), others, memory = result
    undefined = ARITHMETIC if row.flags_undefined else 0
    return stopped, (error, eip, eflags & ~undefined & ~AF, esp), others, memory


@pytest.mark.parametrize("row", TOUCHING, ids=lambda row: f"{row.name}-{row.encoding.replace(' ', '')}")
def test_a_fault_changes_nothing_and_the_mended_instruction_completes(row: Row) -> None:
    """Each page that the instruction touches: not present, read-only if it is written, and beyond the segment limit."""
    for width in widths(row):
        start = Start(row, width)
        start.arrange()
        unfaulted = run()
        assert unfaulted[0] == "vector 13" and unfaulted[1][1] != CODE + 1, (
            f"does not complete: {start.code.hex()} {unfaulted[:3]}"
        )
        touched = [page for page in PAGES if entry(page) & ACCESSED]
        written = [page for page in PAGES if entry(page) & DIRTY]
        assert touched, f"{start.code.hex()} touches nothing"
        causes = [(page, 0) for page in touched] + [(page, PTE_P | PTE_US) for page in written]
        for page, rights in causes:
            check_page_fault(row, start, unfaulted, page, rights, page in written)
        for page in touched:
            check_limit(row, start, unfaulted, page)


def check_page_fault(row: Row, start: Start, unfaulted: tuple, page: int, rights: int, writes: bool) -> None:
    """Take a page's rights away, see the fault, give them back."""
    facts = f"{start.code.hex()} page {page:x} rights {rights}"
    start.arrange()
    MACHINE.set_page(page, page, rights)
    stopped, pushed, others, _ = run()
    expected = [value for number, value in enumerate(start.registers) if number != ESP]
    assert stopped == "vector 14", f"{facts}: {stopped} {pushed}"
    assert pushed[1:] == (CODE + 1, start.eflags, start.registers[ESP]), f"{facts}: {pushed}"
    assert others == expected, f"{facts}: registers changed"
    assert MACHINE.cpu.cr2 >> 12 == page >> 12, f"{facts}: CR2 {MACHINE.cpu.cr2:x}"
    present = int(rights & PTE_P != 0)
    assert pushed[0] & ~2 == (4 | present), f"{facts}: error code {pushed[0]}"
    assert writes or not pushed[0] & 2, f"{facts}: a read that claims to write"
    assert not present or pushed[0] & 2, f"{facts}: error code {pushed[0]}"
    mend(row, start, unfaulted, facts)


def check_limit(row: Row, start: Start, unfaulted: tuple, page: int) -> None:
    """Cut every data segment off below a page."""
    facts = f"{start.code.hex()} limit below {page:x}"
    start.arrange()
    for segment in (ES, SS, DS, FS, GS):
        MACHINE.processor.set_segment(segment, DATA_3, 0, page - 1, 0xC0F3)
    stopped, pushed, others, _ = run()
    expected = [value for number, value in enumerate(start.registers) if number != ESP]
    assert stopped in ("vector 12", "vector 13") and pushed[0] == 0, f"{facts}: {stopped}"
    assert pushed[1:] == (CODE + 1, start.eflags, start.registers[ESP]), f"{facts}: {pushed}"
    assert others == expected, f"{facts}: registers changed"
    mend(row, start, unfaulted, facts)


def mend(row: Row, start: Start, unfaulted: tuple, facts: str) -> None:
    """Repair pages and segments, return from the handler, and compare the end with the unfaulted run's."""
    for page in PAGES:
        MACHINE.set_page(page, page, OPEN)
    MACHINE.forget_translations()
    MACHINE.ring(3)
    MACHINE.gpr[ESP] = start.registers[ESP]
    MACHINE.eflags = start.eflags
    assert masked(row, run(CODE + 1)) == masked(row, unfaulted), f"{facts}: another end"


@pytest.mark.parametrize("name", ("a4", "a5", "66a5", "a6", "aa", "ab", "ac", "ad", "ae", "af"))
def test_a_repeated_string_instruction_restarts_at_its_iteration(name: str) -> None:
    """The second page is missing: the registers tell the finished iterations; the rest follows after mending."""
    code = bytes.fromhex("f3" + name)
    width = 1 if code[-1] & 1 == 0 else 2 if code[1] == 0x66 else 4
    done, total = 4, 10
    start = Start(next(row for row in ROWS if row.mnemonic == "MOVS"), 32)
    start.code = code
    start.memory[:] = 0x41
    start.registers[EAX] = 0x41414141
    start.registers[ESI] = start.registers[EDI] = OPERAND - done * width
    if code[-1] in (0xA4, 0xA5):
        start.registers[EDI] += 0x2000
    start.registers[ECX] = total
    start.arrange()
    unfaulted = run()
    assert unfaulted[2][ECX] == 0
    start.arrange()
    MACHINE.set_page(OPERAND, OPERAND, 0)
    stopped, pushed, _, _ = run()
    assert (stopped, pushed[1], MACHINE.cpu.cr2) == ("vector 14", CODE + 1, OPERAND)
    assert MACHINE.gpr[ECX] == total - done
    for register in (ESI, EDI):
        moved = int(MACHINE.gpr[register]) - start.registers[register]
        assert moved in (0, done * width)
    MACHINE.set_page(OPERAND, OPERAND, OPEN)
    MACHINE.ring(3)
    MACHINE.gpr[ESP] = start.registers[ESP]
    MACHINE.eflags = pushed[2]
    assert run(CODE + 1) == unfaulted


def test_cmpxchg8b_reports_its_lowest_address() -> None:
    """The quadword is read from its low half on: CR2 is the operand's address."""
    row = next(row for row in ROWS if row.mnemonic == "CMPXCHG8B")
    start = Start(row, 32)
    start.code = bytes.fromhex("0fc70d") + (OPERAND + 0x10).to_bytes(4, "little")
    start.arrange()
    MACHINE.set_page(OPERAND, OPERAND, 0)
    assert run()[0] == "vector 14"
    assert MACHINE.cpu.cr2 == OPERAND + 0x10

"""Small guest kernels, assembled byte by byte: a boot to ring 0 with paging, then steps, each in ring 0 or ring 3.

Guest-physical layout of its RAM (1 MB), identity-mapped; 80000 and above may be mapped as a test pleases:

    01000 GDT   02000 IDT   03000 TSS   04000 handlers   05000 what the handlers logged   06000 words of the kernel
    07000-07FFF stack of ring 0   08000 more tables   10000 boot   12000-1EFFF steps   1F000 common handler
    20000-2FFFF data   30000-30FFF stack of ring 3   40000 page directory   41000 page table of the first 4 MB

Every trap is logged (vector, error code, EIP, CS, EFLAGS, CR2) and goes on with the next step in ring 0; vectors 0x81
and 0x83 return by IRET. A kernel ends by the exit port with code 1. No sensitive unprivileged instruction is used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from descriptor_machine import descriptor, gate
from profile_for import profile_for

from x86virt import Image, Machine, RunResult, find_strategy, load_profile
from x86virt.equivalence import Comparison, compare_runs
from x86virt.start.elf import Segment
from x86virt.vmm import Strategy

RAM_BYTES = 1 << 20
MAX_CYCLES = 20_000_000
GDT, IDT, TSS, HANDLERS, LOG, WORDS, KERNEL_STACK = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x8000
TABLES, BOOT, STEPS, STEPS_END, COMMON = 0x8000, 0x10000, 0x12000, 0x1F000, 0x1F000
DATA, USER_STACK, DIRECTORY, TABLE = 0x20000, 0x31000, 0x40000, 0x41000
NEXT, CURSOR = WORDS, WORDS + 4
CODE_0, DATA_0, CODE_3, DATA_3, TSS_SELECTOR = 0x08, 0x10, 0x1B, 0x23, 0x28
READ_ONLY, ABSENT_DATA, CODE_READ, SHORT_DATA, DATA_0_TOO, ABSENT_CODE = 0x30, 0x38, 0x40, 0x48, 0x50, 0x58
GDT_BYTES, IDT_BYTES, TSS_BYTES = 0x80, 0x90 * 8, 0x68
RETURNING = (0x81, 0x83)
OPEN = (3, 4, 0x80, 0x81)  # gates that ring 3 may use
ERROR_CODES = (8, 10, 11, 12, 13, 14, 17)
PTE_P, PTE_RW, PTE_US, PTE_A, PTE_D, PTE_PS = 1, 2, 4, 0x20, 0x40, 0x80
CR0_PG, CR0_WP, CR0_PE, CR0_ET = 1 << 31, 1 << 16, 1, 1 << 4
LOG_BYTES = 24
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)


def word(value: int) -> bytes:
    """Four bytes, little-endian."""
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


def mov(register: int, value: int) -> bytes:
    """MOV r32, imm32."""
    return bytes([0xB8 + register]) + word(value)


def store(address: int, value: int) -> bytes:
    """MOV dword [address], imm32."""
    return b"\xc7\x05" + word(address) + word(value)


def load(register: int, address: int) -> bytes:
    """MOV r32, [address]."""
    return bytes([0x8B, 0x05 | register << 3]) + word(address)


def save(address: int, register: int) -> bytes:
    """MOV [address], r32."""
    return bytes([0x89, 0x05 | register << 3]) + word(address)


def to_cr(number: int, register: int = EAX) -> bytes:
    """MOV CRn, r32."""
    return bytes([0x0F, 0x22, 0xC0 | number << 3 | register])


def from_cr(number: int, register: int = EAX) -> bytes:
    """MOV r32, CRn."""
    return bytes([0x0F, 0x20, 0xC0 | number << 3 | register])


def set_cr(number: int, value: int) -> bytes:
    """MOV EAX, imm32 and MOV CRn, EAX."""
    return mov(EAX, value) + to_cr(number)


def load_segment(segment: int, selector: int) -> bytes:
    """MOV EAX, imm32 and MOV Sreg, AX; segments are numbered ES, CS, SS, DS, FS, GS."""
    return mov(EAX, selector) + bytes([0x8E, 0xC0 | segment << 3])


def invlpg(address: int) -> bytes:
    """INVLPG [address]."""
    return b"\x0f\x01\x3d" + word(address)


def lgdt(address: int) -> bytes:
    """LGDT [address]."""
    return b"\x0f\x01\x15" + word(address)


def lidt(address: int) -> bytes:
    """LIDT [address]."""
    return b"\x0f\x01\x1d" + word(address)


def far_jump(selector: int, target: int) -> bytes:
    """JMP ptr16:32."""
    return b"\xea" + word(target) + struct.pack("<H", selector)


def jump(address: int, target: int) -> bytes:
    """JMP rel32, for an instruction at `address`."""
    return b"\xe9" + word(target - address - 5)


def push(value: int) -> bytes:
    """PUSH imm32."""
    return b"\x68" + word(value)


LEAVE_RING_0 = b"\xb0\x01\xe6\xf4"  # MOV AL, 1; OUT 0xF4, AL
SYSTEM_CALL = b"\xcd\x80"
GDT_POINTER, IDT_POINTER = WORDS + 0x10, WORDS + 0x18


@dataclass
class Step:
    """A piece of position-independent code and the ring that executes it; `flags` is the EFLAGS of a user step."""

    code: bytes
    ring: int = 0
    flags: int = 0x202


@dataclass
class Kernel:
    """What a small kernel is made of; `gates` and `descriptors` replace entries of its tables, by vector and selector.

    `pages` gives page-table entries by page address, `words` any doublewords of RAM.
    """

    steps: list[Step]
    paging: bool = True
    write_protect: bool = True
    cr4: int = 0
    gates: dict[int, int] = field(default_factory=dict)
    descriptors: dict[int, int] = field(default_factory=dict)
    pages: dict[int, int] = field(default_factory=dict)
    words: dict[int, int] = field(default_factory=dict)
    octets: dict[int, bytes] = field(default_factory=dict)
    tss_bytes: int = TSS_BYTES
    gdt_bytes: int = GDT_BYTES

    def image(self) -> Image:
        """The kernel as an image."""
        ram = bytearray(RAM_BYTES)

        def put(address: int, octets: bytes) -> None:
            ram[address : address + len(octets)] = octets

        for selector, value in (self.gdt() | self.descriptors).items():
            put(GDT + (selector & ~7), value.to_bytes(8, "little"))
        for vector in range(IDT_BYTES // 8):
            default = gate(CODE_0, HANDLERS + 16 * vector, 14, dpl=3 if vector in OPEN else 0)
            put(IDT + 8 * vector, self.gates.get(vector, default).to_bytes(8, "little"))
            put(HANDLERS + 16 * vector, stub(vector))
        put(COMMON, COMMON_HANDLER)
        put(TSS + 4, word(KERNEL_STACK) + word(DATA_0))
        put(TSS + 100, struct.pack("<HH", 0, TSS_BYTES))
        put(GDT_POINTER, struct.pack("<HI", self.gdt_bytes - 1, GDT))
        put(IDT_POINTER, struct.pack("<HI", IDT_BYTES - 1, IDT))
        put(CURSOR, word(LOG))
        put(DIRECTORY, word(TABLE | PTE_P | PTE_RW | PTE_US))
        for page in range(0, RAM_BYTES, 0x1000):
            put(TABLE + page // 0x400, word(self.pages.get(page, page | PTE_P | PTE_RW | PTE_US)))
        put(BOOT, self.boot())
        put(STEPS, self.code())
        for address, value in self.words.items():
            put(address, word(value))
        for address, octets in self.octets.items():
            put(address, octets)
        return Image("small_kernel", BOOT, (Segment(0x1000, bytes(ram[0x1000:0x90000]), 0x8F000),), "")

    def gdt(self) -> dict[int, int]:
        """The descriptors by selector."""
        return {
            CODE_0: descriptor(0, 0xFFFFF, 11, granular=1),
            DATA_0: descriptor(0, 0xFFFFF, 3, granular=1),
            CODE_3: descriptor(0, 0xFFFFF, 11, dpl=3, granular=1),
            DATA_3: descriptor(0, 0xFFFFF, 3, dpl=3, granular=1),
            TSS_SELECTOR: descriptor(TSS, self.tss_bytes - 1, 9, s=0, db=0),
            READ_ONLY: descriptor(0, 0xFFFFF, 1, dpl=3, granular=1),
            ABSENT_DATA: descriptor(0, 0xFFFFF, 3, dpl=3, granular=1, present=0),
            CODE_READ: descriptor(0, 0xFFFFF, 10, granular=1),
            SHORT_DATA: descriptor(DATA, 0xFFF, 2, dpl=3),
            DATA_0_TOO: descriptor(0, 0xFFFFF, 2, granular=1),
            ABSENT_CODE: descriptor(0, 0xFFFFF, 10, granular=1, present=0),
        }

    def boot(self) -> bytes:
        """From the Multiboot state to the first step."""
        code = mov(ESP, KERNEL_STACK) + lgdt(GDT_POINTER)
        code += far_jump(CODE_0, BOOT + len(code) + 7)
        code += load_segment(2, DATA_0)
        for segment in (0, 3, 4, 5):
            code += load_segment(segment, DATA_3)
        code += mov(EAX, TSS_SELECTOR) + b"\x0f\x00\xd8" + lidt(IDT_POINTER)
        code += set_cr(4, self.cr4) if self.cr4 else b""
        if self.paging:
            code += set_cr(3, DIRECTORY)
            code += set_cr(0, CR0_PG | CR0_PE | CR0_ET | (CR0_WP if self.write_protect else 0))
        return code + jump(BOOT + len(code), STEPS)

    def code(self) -> bytes:
        """All steps; each begins by saying where a trap goes on, and a user step by an IRET to ring 3."""
        code = b""
        for step in self.steps:
            body = b""
            if step.ring == 3:
                start = STEPS + len(code) + 10 + 5 * 5 + 1
                for value in (DATA_3, USER_STACK, step.flags, CODE_3, start):
                    body += push(value)
                body += b"\xcf"
            body += step.code + (SYSTEM_CALL if step.ring == 3 else b"")
            code += store(NEXT, STEPS + len(code) + 10 + len(body)) + body
        code += LEAVE_RING_0 + b"\xfa\xf4"
        assert len(code) < STEPS_END - STEPS, "too many steps"
        return code


def stub(vector: int) -> bytes:
    """The entry of one vector."""
    if vector in RETURNING:
        return b"\xff\x05" + word(WORDS + 0x20) + b"\xcf"  # INC dword [count]; IRETD
    code = b"" if vector in ERROR_CODES else push(0)
    code += b"\x6a" + bytes([vector & 0x7F])
    return code + jump(HANDLERS + 16 * vector + len(code), COMMON)


def common_handler() -> bytes:
    """Log the trap and go on with the next step; the frame is vector, error code, EIP, CS, EFLAGS."""
    code = b"\x60"  # PUSHAD
    code += load_segment(3, DATA_3) + load_segment(0, DATA_3)
    code += load(EDI, CURSOR)
    for place in range(5):
        code += b"\x8b\x44\x24" + bytes([32 + 4 * place])  # MOV EAX, [ESP + ...]
        code += b"\x89\x47" + bytes([4 * place])  # MOV [EDI + ...], EAX
    code += from_cr(2) + b"\x89\x47\x14"
    code += b"\x83\xc7" + bytes([LOG_BYTES])  # ADD EDI, then AND and OR, so that the log wraps
    code += b"\x81\xe7" + word(0x5FFF) + b"\x81\xcf" + word(LOG) + save(CURSOR, EDI) + b"\x61"  # POPAD
    return code + mov(ESP, KERNEL_STACK) + b"\xff\x25" + word(NEXT)  # JMP [next]


COMMON_HANDLER = common_handler()


# -- running ------------------------------------------------------------------------------------------------------


def strategy(name: str) -> Strategy:
    """A new instance of a built-in strategy."""
    return find_strategy(name)()


def start(kernel: Kernel | Image, name: str | Strategy = "native", profile: str = "") -> Machine:
    """A machine with the kernel loaded."""
    which = strategy(name) if isinstance(name, str) else name
    machine = Machine(which, load_profile(profile or profile_for(which)), RAM_BYTES)
    machine.load(kernel.image() if isinstance(kernel, Kernel) else kernel)
    return machine


def run(kernel: Kernel | Image, name: str | Strategy = "native") -> tuple[Machine, RunResult]:
    """Run a kernel to its end."""
    machine = start(kernel, name)
    return machine, machine.run(MAX_CYCLES)


def log(machine: Machine) -> list[tuple[int, int, int, int, int, int]]:
    """What the handlers logged: vector, error code, EIP, CS, EFLAGS, CR2."""
    memory = machine.strategy.virtual_state(machine).memory
    end = int.from_bytes(memory[CURSOR : CURSOR + 4].tobytes(), "little")
    return [struct.unpack("<6I", memory[place : place + LOG_BYTES].tobytes()) for place in range(LOG, end, LOG_BYTES)]


def compare(kernel: Kernel | Image, other: Strategy | None = None, checkpoint: int = 64) -> Comparison:
    """E1 of a kernel."""
    image = kernel.image() if isinstance(kernel, Kernel) else kernel
    under = other or strategy("trap-and-emulate")
    profile = load_profile(profile_for(under))
    return compare_runs(image, under, strategy("native"), profile, RAM_BYTES, "", MAX_CYCLES, checkpoint)


def assert_equal(kernel: Kernel, checkpoint: int = 64) -> Comparison:
    """E1 holds, and the kernel reached its end."""
    comparison = compare(kernel, checkpoint=checkpoint)
    assert comparison.equal, "\n".join(comparison.report)
    return comparison


def both(kernel: Kernel, outcome: str = "exited 1") -> Machine:
    """E1 holds; gives the machine of a run under the VMM that ended with the outcome."""
    assert assert_equal(kernel).other.outcome == outcome
    machine, result = run(kernel, "trap-and-emulate")
    assert result.outcome == outcome
    return machine

"""Small kernels for domains, assembled byte by byte: a start in ring 1, then steps, each in ring 1 or ring 3.

Linear and pseudo-physical layout (the domain builder's own pages lie behind it):

    01000 the page of hypercalls   02000 stubs, 16 bytes each   03000 the common handler   04000 what the handlers logged
    06000 words of the kernel, the trap table at 06800   07000-07FFF stack of the kernel   08000 data
    0A000-0AFFF stack of ring 3   0B000 a GDT   0C000 an LDT   0D000 free   10000 start   12000-1EFFF steps

Every trap is logged as it stands on the stack (vector, then the words from ESP on) and goes on with the next step in ring 1.
A kernel ends by the exit port with code 1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from profile_for import profile_for
from small_kernel import EAX, EBX, ECX, EDI, EDX, ESI, ESP, jump, load, load_segment, mov, push, save, store, word

from x86virt import Machine, RunResult, Strategy, find_strategy, load_profile
from x86virt.start.elf import Segment
from x86virt.start.xen import XenImage
from x86virt.vmm.layout import VMM_BYTES
from x86virt.vmm.paravirtual.interface import (
    FLAT_RING1_CS,
    FLAT_RING1_DS,
    FLAT_RING3_CS,
    FLAT_RING3_DS,
    NUMBER_OF,
    TI_MASK_EVENTS,
)

RAM_BYTES = 8 << 20
IMAGE_BYTES = 0x20000
MAX_CYCLES = 20_000_000
HYPERCALLS, STUBS, COMMON, LOG, WORDS, TRAPS, KERNEL_STACK = 0x1000, 0x2000, 0x3000, 0x4000, 0x6000, 0x6800, 0x8000
DATA, USER_STACK, GDT, LDT, FREE, START, STEPS, STEPS_END = (
    0x8000,
    0xB000,
    0xB000,
    0xC000,
    0xD000,
    0x10000,
    0x12000,
    0x1F000,
)
NEXT, CURSOR = WORDS, WORDS + 4
LOGGED = 12  # words: the vector, and what stands on the stack
VECTORS = (*range(20), 0x80, 0x81, 0x82, 0x90)
EVENT, FAILSAFE = 0x100, 0x101  # what the log says of callbacks
ERROR_CODES = (8, 10, 11, 12, 13, 14, 17)
OPEN = {3: 3, 4: 3, 0x80: 3, 0x81: 1}  # DPL in the trap table
IF = 0x200
M32 = 0xFFFFFFFF
LEAVE = b"\xb0\x01\xe6\xf4\xeb\xfe"  # MOV AL, 1; OUT 0xF4, AL; JMP $
ARGUMENTS = (EBX, ECX, EDX, ESI, EDI)


def frame_of(address: int) -> int:
    """The machine frame of a page of the guest's memory, which lies behind the VMM's region as a whole."""
    return (VMM_BYTES + address) >> 12


def hypercall(name: str | int, *arguments: int) -> bytes:
    """A hypercall with constant arguments."""
    number = NUMBER_OF[name] if isinstance(name, str) else name
    code = b"".join(mov(register, value) for register, value in zip(ARGUMENTS, arguments, strict=False))
    return code + mov(EAX, number) + b"\xcd\x82"


def calls(*hypercalls: bytes) -> bytes:
    """Hypercalls one after the other, the results in words from DATA on."""
    return b"".join(code + save(DATA + 4 * number, EAX) for number, code in enumerate(hypercalls))


def to_user(
    entry: int, flags: int = 0x202, stack: int = USER_STACK, cs: int = FLAT_RING3_CS, ss: int = FLAT_RING3_DS
) -> bytes:
    """IRETD from ring 1 to ring 3."""
    return b"".join(push(value) for value in (ss, stack, flags, cs, entry)) + b"\xcf"


@dataclass
class Step:
    """A piece of position-independent code, and the ring that executes it; one of ring 3 ends with INT 0x80."""

    code: bytes
    ring: int = 1


@dataclass
class Kernel:
    """What a small kernel is made of; `traps` replaces entries of its trap table: vector -> (flags, CS, address)."""

    steps: list[Step]
    is_pae: bool = False
    flags: int = TI_MASK_EVENTS  # of all entries of the trap table but that of 0x80
    traps: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    octets: dict[int, bytes] = field(default_factory=dict)

    def image(self) -> XenImage:
        """The kernel as an image."""
        ram = bytearray(IMAGE_BYTES)

        def put(address: int, octets: bytes) -> None:
            ram[address : address + len(octets)] = octets

        for number, vector in enumerate((*VECTORS, EVENT, FAILSAFE)):
            put(STUBS + 16 * number, stub(vector, STUBS + 16 * number))
        put(COMMON, COMMON_HANDLER)
        put(TRAPS, self.trap_table())
        put(CURSOR, word(LOG))
        put(START, self.start())
        put(STEPS, self.code())
        for address, octets in self.octets.items():
            put(address, octets)
        return XenImage(
            "paravirtual_kernel", "", START, 0, HYPERCALLS, self.is_pae, (Segment(0, bytes(ram), IMAGE_BYTES),)
        )

    def trap_table(self) -> bytes:
        """The table for set_trap_table, which ends with an address of 0."""
        table = b""
        for vector in VECTORS:
            flags = OPEN.get(vector, 0) | (0 if vector == 0x80 else self.flags)
            flags, selector, address = self.traps.get(vector, (flags, FLAT_RING1_CS, entry_of(vector)))
            table += struct.pack("<BBHI", vector, flags, selector, address)
        return table + bytes(8)

    def start(self) -> bytes:
        """From the domain's first instruction to the first step."""
        code = mov(ESP, KERNEL_STACK) + b"".join(load_segment(segment, FLAT_RING3_DS) for segment in (0, 3, 4, 5))
        code += hypercall("set_trap_table", TRAPS)
        code += hypercall("stack_switch", FLAT_RING1_DS, KERNEL_STACK)
        code += hypercall("set_callbacks", FLAT_RING1_CS, entry_of(EVENT), FLAT_RING1_CS, entry_of(FAILSAFE))
        return code + jump(START + len(code), STEPS)

    def code(self) -> bytes:
        """All steps; each begins by saying where a trap goes on."""
        code = b""
        for step in self.steps:
            body = b""
            if step.ring == 3:
                start = STEPS + len(code) + 10 + len(to_user(0))
                body = to_user(start)
            body += step.code + (b"\xcd\x80" if step.ring == 3 else b"")
            code += store(NEXT, STEPS + len(code) + 10 + len(body)) + body
        code += LEAVE
        assert len(code) < STEPS_END - STEPS, "too many steps"
        return code


def entry_of(vector: int) -> int:
    """Where the stub of a vector or callback is."""
    return STUBS + 16 * (*VECTORS, EVENT, FAILSAFE).index(vector)


def stub(vector: int, place: int) -> bytes:
    """The entry of a vector."""
    return push(vector) + jump(place + 5, COMMON)


def common_handler() -> bytes:
    """Log the vector and what stands on the stack, and go on with the next step."""
    code = b"\x60"  # PUSHAD
    code += mov(EAX, FLAT_RING3_DS) + b"\x8e\xd8\x8e\xc0"  # to DS and ES
    code += load(EDI, CURSOR)
    code += b"\x8d\x74\x24\x20"  # LEA ESI, [ESP + 32]
    code += mov(ECX, LOGGED) + b"\xfc\xf3\x36\xa5"  # CLD; REP MOVSD from SS
    code += save(CURSOR, EDI)
    return code + mov(ESP, KERNEL_STACK) + b"\xff\x25" + word(NEXT)  # JMP [next]


COMMON_HANDLER = common_handler()


# -- running ------------------------------------------------------------------------------------------------------


def start(kernel: Kernel, strategy: Strategy | None = None) -> Machine:
    """A machine with the kernel loaded."""
    which = strategy or find_strategy("paravirtual,domain_0=off,p2m=contiguous")()
    machine = Machine(which, load_profile(profile_for(which)), RAM_BYTES)
    machine.load(kernel.image())
    return machine


def run(kernel: Kernel, strategy: Strategy | None = None) -> tuple[Machine, RunResult]:
    """Run a kernel to its end."""
    machine = start(kernel, strategy)
    return machine, machine.run(MAX_CYCLES)


def memory_of(machine: Machine, address: int, count: int) -> bytes:
    """Bytes of the domain's memory; all of it lies at its pseudo-physical place."""
    assert int(machine.vm.p2m[address >> 12]) == frame_of(address)
    return machine.vm.processor.read_physical(VMM_BYTES + address, count)


def words_of(machine: Machine, address: int, count: int) -> list[int]:
    """Doublewords of the domain's memory."""
    return list(struct.unpack(f"<{count}I", memory_of(machine, address, 4 * count)))


def results(machine: Machine, count: int) -> list[int]:
    """What `calls` kept, as signed numbers."""
    return list(struct.unpack(f"<{count}i", memory_of(machine, DATA, 4 * count)))


def log(machine: Machine) -> list[list[int]]:
    """What the handlers logged: the vector, then the words from ESP on."""
    (end,) = words_of(machine, CURSOR, 1)
    return [words_of(machine, place, LOGGED) for place in range(LOG, end, 4 * LOGGED)]

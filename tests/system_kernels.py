"""Kernels made of many system cases: one image performs them one after the other and writes what came of each into RAM.

A case changes tables (its `pokes`), enters its ring with chosen registers and flags, and executes a few bytes that load
segments, pass gates, touch pages and so on. Whatever happens next ends in a handler, which records it: a fault, or the
INT 0x40 behind the bytes or at the place that a far transfer reached. Then all tables are as before, and the
next case begins. The same image runs on our machine, on Bochs and on QEMU, and the records are compared.

Layout of its RAM, mapped one to one (110000 to 120FFF also 1 MB lower); every other page is not present:

    100000 Multiboot header, boot, restore, handlers   110000 GDT LDT IDT TSS   111000 pristine copies
    112000 data   114000 page directory, 115000 page table of 0 to 4 MB, 116000 of 4 to 8 MB, 117000 a copy of its start
    118000-11BFFF stacks of rings 0 to 3   11C000 stack of the driver   11D000 words   120000 landing: INT 0x40, 2048 times
    121000 the cases   300000 records   400000-40FFFF sixteen linear pages for the cases of paging (frames from 130000 * 16)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from descriptor_machine import descriptor, gate
from small_kernel import EAX, ECX, EDI, ESI, ESP, far_jump, jump, lgdt, lidt, mov, push, set_cr, store, word

from x86virt.start.elf import Segment
from x86virt.start.multiboot import Image

BASE, STUBS, COMMON, RESTORE = 0x100000, 0x101000, 0x102000, 0x103000
TABLES, PRISTINE = 0x110000, 0x111000
GDT, LDT, IDT, TSS = TABLES, TABLES + 0x200, TABLES + 0x280, TABLES + 0x600
GDT_ENTRIES, LDT_ENTRIES, VECTORS = 64, 16, 0x60
TSS_BYTES, IO_MAP, IO_MAP_BYTES = 0x68, 0x68, 0x21
TABLES_BYTES = 0x700
DATA, DATA_BYTES = 0x112000, 0x100
DIRECTORY, TABLE, WINDOW_TABLE, WINDOW_PRISTINE = 0x114000, 0x115000, 0x116000, 0x117000
STACKS, DRIVER_STACK, WORDS = 0x118000, 0x11D000, 0x11D000
LANDING, CASES = 0x120000, 0x121000
FRAMES, RECORDS = 0x280000, 0x300000
WINDOW, WINDOW_PAGES = 0x400000, 16
ALIASED_END = CASES  # virtual-8086 mode sees from the tables to here 1 MB lower
RAM_BYTES = 16 << 20
STACK_BYTES = 0x80  # of each stack's top, cleared before each case and part of the record's sums
RESUME, INDEX, GDT_POINTER, IDT_POINTER = WORDS, WORDS + 4, WORDS + 0x10, WORDS + 0x18

CODE = (0x08, 0x19, 0x2A, 0x3B)
DATA_SELECTOR = (0x10, 0x21, 0x32, 0x43)
TSS_SELECTOR, LDT_SELECTOR = 0x48, 0x50
FIRST_FREE = 11  # entries of the GDT from here on are the generator's
DONE_VECTOR = 0x40
FIRST_GATE = 0x41  # vectors from here on are the generator's
ERROR_CODES = (8, 10, 11, 12, 13, 14, 17)
CR0_FIXED = 0x80000031  # PG, NE, ET, PE
CR0_WP = 1 << 16
PTE_P, PTE_RW, PTE_US = 1, 2, 4
MAGIC_BREAK = b"\x66\x87\xdb"  # XCHG BX, BX: Bochs' debugger takes over; a region mark on our machine

FIELDS = (
    "vector", "error", "eip", "cs", "eflags", "esp", "outer_esp", "outer_ss", "cr2",
    "edi", "esi", "ebp", "esp_inner", "ebx", "edx", "ecx", "eax",
    "es", "ds", "fs", "gs", "ss", "ldtr", "tr", "cr0", "descriptors", "pages", "memory",
    "vm_es", "vm_ds", "vm_fs", "vm_gs", "dr6",
)  # fmt: skip
RECORD_BYTES = 4 * len(FIELDS)


def stack_top(ring: int) -> int:
    """The first address behind the stack of a ring."""
    return STACKS + 0x1000 * (ring + 1)


@dataclass
class Case:
    """One case. `pokes` are doublewords written before it, `registers` EAX to EDI but ESP, `judges` who decides."""

    what: str
    code: bytes
    ring: int = 0
    flags: int = 0x2
    cr0: int = CR0_FIXED
    pokes: list[tuple[int, int]] = field(default_factory=list)
    registers: dict[int, int] = field(default_factory=dict)
    segments: dict[int, int] = field(default_factory=dict)
    stack: tuple[int, ...] = ()
    setup: bytes = b""  # ring-0 code before the registers are loaded; may use EAX
    judges: tuple[str, ...] = ("bochs", "qemu")
    start: int = 0


@dataclass
class Tables:
    """The random part of a kernel's tables: GDT and LDT entries by index, gates by vector, bits of the I/O map."""

    gdt: dict[int, int] = field(default_factory=dict)
    ldt: dict[int, int] = field(default_factory=dict)
    gates: dict[int, int] = field(default_factory=dict)
    io_map: bytes = b"\xff" * IO_MAP_BYTES
    gdt_limit: int = GDT_ENTRIES * 8 - 1
    idt_limit: int = VECTORS * 8 - 1


def system_image(cases: Sequence[Case], tables: Tables, name: str = "system") -> Image:
    """The kernel as an image; each case's `start` becomes the address of its bytes."""
    ram = bytearray(CASES - BASE)

    def put(address: int, octets: bytes) -> None:
        ram[address - BASE : address - BASE + len(octets)] = octets

    octets = tables_bytes(tables)
    put(TABLES, octets)
    put(PRISTINE, octets)
    put(TABLES + TSS_SELECTOR, descriptor(TSS, tss_limit(), 9, s=0, db=0).to_bytes(8, "little"))
    for page in mapped_pages():
        rights = PTE_P | PTE_RW | (0 if page in (TABLES, PRISTINE) else PTE_US)
        put(TABLE + page // 0x400, word(page | rights))
        if TABLES <= page < ALIASED_END:
            put(TABLE + (page - BASE) // 0x400, word(page | rights))
    put(DIRECTORY, word(TABLE | PTE_P | PTE_RW | PTE_US) + word(WINDOW_TABLE | PTE_P | PTE_RW | PTE_US))
    for number in range(WINDOW_PAGES):
        entry = word((FRAMES + 0x1000 * number) | PTE_P | PTE_RW | PTE_US)
        put(WINDOW_TABLE + 4 * number, entry)
        put(WINDOW_PRISTINE + 4 * number, entry)
    put(GDT_POINTER, struct.pack("<HI", tables.gdt_limit, GDT))
    put(IDT_POINTER, struct.pack("<HI", tables.idt_limit, IDT))
    put(LANDING, bytes([0xCD, DONE_VECTOR]) * 0x800)
    for vector in range(VECTORS):
        put(STUBS + 16 * vector, stub(vector))
    put(COMMON, common_handler())
    put(RESTORE, restore())
    put(BASE, boot())
    ram += cases_code(cases)
    assert BASE + len(ram) <= FRAMES, "too many cases"
    end = RECORDS + RECORD_BYTES * len(cases)
    return Image(name, BASE + 32, (Segment(BASE, bytes(ram), -(-end // 0x1000) * 0x1000 - BASE),), "")


def mapped_pages() -> list[int]:
    """The pages of the first 4 MB that are present."""
    return [*range(BASE, FRAMES, 0x1000), *range(RECORDS, 0x400000, 0x1000)]


def tss_limit() -> int:
    """The task-state segment ends with the I/O map."""
    return IO_MAP + IO_MAP_BYTES - 1


def tables_bytes(tables: Tables) -> bytes:
    """GDT, LDT, IDT and TSS as they are before each case."""
    octets = bytearray(TABLES_BYTES)

    def put(address: int, value: int, n: int = 8) -> None:
        octets[address - TABLES : address - TABLES + n] = value.to_bytes(n, "little")

    for ring in range(4):
        put(GDT + (CODE[ring] & ~7), descriptor(0, 0xFFFFF, 11, dpl=ring, granular=1))
        put(GDT + (DATA_SELECTOR[ring] & ~7), descriptor(0, 0xFFFFF, 3, dpl=ring, granular=1))
    put(GDT + TSS_SELECTOR, descriptor(TSS, tss_limit(), 11, s=0, db=0))
    put(GDT + LDT_SELECTOR, descriptor(LDT, 8 * LDT_ENTRIES - 1, 2, s=0, db=0))
    for index, value in tables.gdt.items():
        put(GDT + 8 * index, value)
    for index, value in tables.ldt.items():
        put(LDT + 8 * index, value)
    for vector in range(VECTORS):
        dpl = 3 if vector in (3, 4, DONE_VECTOR) else 0
        default = gate(CODE[0], STUBS + 16 * vector, 14, dpl=dpl)
        put(IDT + 8 * vector, tables.gates.get(vector, default))
    for ring in range(3):
        put(TSS + 4 + 8 * ring, stack_top(ring), 4)
        put(TSS + 8 + 8 * ring, DATA_SELECTOR[ring], 4)
    put(TSS + 102, IO_MAP, 2)
    octets[TSS - TABLES + IO_MAP : TSS - TABLES + IO_MAP + IO_MAP_BYTES] = tables.io_map
    return bytes(octets)


def boot() -> bytes:
    """The Multiboot header with address fields (for QEMU; others jump behind it), then from its state to the first case."""
    magic, flags = 0x1BADB002, 1 << 16
    header = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, BASE, BASE, 0, 0, BASE + 32)
    code = mov(ESP, DRIVER_STACK) + lgdt(GDT_POINTER)
    code += far_jump(CODE[0], BASE + 32 + len(code) + 7)
    for segment in range(6):
        if segment != 1:
            code += mov(EAX, DATA_SELECTOR[0]) + bytes([0x8E, 0xC0 | segment << 3])
    code += b"\xb0\xff\xe6\x21\xe6\xa1"  # mask both interrupt controllers
    code += mov(EAX, TSS_SELECTOR) + b"\x0f\x00\xd8" + lidt(IDT_POINTER)
    done = int.from_bytes(bytes([0xCD, DONE_VECTOR]) * 2, "little")
    code += mov(EAX, done) + mov(EDI, FRAMES) + mov(ECX, 0x400 * WINDOW_PAGES) + b"\xfc\xf3\xab"
    code += set_cr(3, DIRECTORY) + set_cr(0, CR0_FIXED)
    return header + code + jump(BASE + 32 + len(code), CASES)


def restore() -> bytes:
    """Everything as before the first case. Called by the driver; clobbers all but ESP."""
    code = b"\x6a\x02\x9d\xfc"  # PUSH 2; POPFD; CLD
    for source, target, size in (
        (PRISTINE, TABLES, TABLES_BYTES),
        (WINDOW_PRISTINE, WINDOW_TABLE, 4 * WINDOW_PAGES),
    ):
        code += mov(ESI, source) + mov(EDI, target) + mov(ECX, size // 4) + b"\xf3\xa5"
    code += store(DIRECTORY + 4, WINDOW_TABLE | PTE_P | PTE_RW | PTE_US)
    code += b"\x31\xc0" + mov(EDI, DATA) + mov(ECX, DATA_BYTES // 4) + b"\xf3\xab"
    for ring in range(4):
        code += mov(EDI, stack_top(ring) - STACK_BYTES) + mov(ECX, STACK_BYTES // 4) + b"\xf3\xab"
    code += b"\x0f\x22\xd0\x0f\x23\xf0"  # CR2, DR6 = 0
    code += set_cr(3, DIRECTORY) + set_cr(0, CR0_FIXED)
    code += mov(EAX, LDT_SELECTOR) + b"\x0f\x00\xd0"  # LLDT
    # A case may have switched to another task: TR, by way of a descriptor that is available for a moment.
    code += b"\xc6\x05" + word(GDT + TSS_SELECTOR + 5) + b"\x89"
    code += mov(EAX, TSS_SELECTOR) + b"\x0f\x00\xd8"
    return code + b"\xc3"


def cases_code(cases: Sequence[Case]) -> bytes:
    """The driver: all cases in turn, then the end."""
    code = bytearray()
    for number, case in enumerate(cases):
        code += case_code(case, number, CASES + len(code))
    code += MAGIC_BREAK
    code += b"\x31\xc0\xe6\xf4"  # exit code 0
    code += mov(2, 0x8900) + b"".join(bytes([0xB0, letter, 0xEE]) for letter in b"Shutdown")
    return bytes(code) + b"\xfa\xf4\xeb\xfd"


def case_code(case: Case, number: int, address: int) -> bytes:
    """One case, position known: restore, pokes, registers, its ring, its bytes, INT 0x40."""
    body = b"\xe8" + word(RESTORE - (address + 20 + 5))
    for place, value in case.pokes:
        body += store(place, value)
    top = stack_top(case.ring)
    for place, value in enumerate(case.stack):
        body += store(top - 4 * len(case.stack) + 4 * place, value)
    stack = top - 4 * len(case.stack)
    body += case.setup + (set_cr(0, case.cr0) if case.cr0 != CR0_FIXED else b"")
    for segment in (0, 3, 4, 5):
        body += mov(EAX, case.segments.get(segment, DATA_SELECTOR[3])) + bytes([0x8E, 0xC0 | segment << 3])
    entry = mov(ESP, stack_top(0)) if case.ring else mov(EAX, DATA_SELECTOR[0]) + b"\x8e\xd0" + mov(ESP, stack)
    loads = b"".join(mov(register, case.registers.get(register, 0)) for register in (0, 1, 2, 3, 5, 6, 7))
    if case.ring == 0:
        entry += push(case.flags) + b"\x9d" + loads
    else:
        case.start = address + 20 + len(body) + len(entry) + 25 + len(loads) + 1
        for value in (DATA_SELECTOR[case.ring], stack, case.flags, CODE[case.ring], case.start):
            entry += push(value)
        entry += loads + b"\xcf"
    body += entry
    case.start = address + 20 + len(body)
    body += case.code + bytes([0xCD, DONE_VECTOR])
    return store(INDEX, number) + store(RESUME, address + 20 + len(body)) + body


def stub(vector: int) -> bytes:
    """The entry of one vector: an error code if the processor pushed none, the vector."""
    code = b"" if vector in ERROR_CODES else push(0)
    code += push(vector)
    return code + jump(STUBS + 16 * vector + len(code), COMMON)


def common_handler() -> bytes:
    """Record the state of the trap. The frame behind PUSHAD: vector, error code, EIP, CS, EFLAGS, ESP, SS, and in
    virtual-8086 mode ES, DS, FS, GS."""
    load_frame = lambda offset: b"\x8b\x45" + bytes([offset])  # noqa: E731  MOV EAX, [EBP + offset]
    keep = lambda name: b"\x89\x87" + word(4 * FIELDS.index(name))  # noqa: E731  MOV [EDI + field], EAX
    code = b"\x60\x89\xe5\xfc\x31\xc0\x0f\x23\xf8"  # PUSHAD; MOV EBP, ESP; CLD; DR7 = 0
    for segment, name in enumerate(("es", None, None, "ds", "fs", "gs")):
        if name:
            code += b"\x8c" + bytes([0xC0 | segment << 3]) + push_eax()
    # The record lies in a flat data segment, which DS is from here on.
    code += mov(EAX, DATA_SELECTOR[0]) + b"\x8e\xd8\x8e\xc0"
    code += b"\x69\x3d" + word(INDEX) + word(RECORD_BYTES)  # IMUL EDI, [INDEX], RECORD_BYTES
    code += b"\x81\xc7" + word(RECORDS)
    for name, offset in (("gs", -16), ("fs", -12), ("ds", -8), ("es", -4)):
        code += load_frame(offset & 0xFF) + b"\x0f\xb7\xc0" + keep(name)
    order = ("edi", "esi", "ebp", "esp_inner", "ebx", "edx", "ecx", "eax", "vector", "error", "eip")
    for place, name in enumerate(order):
        code += load_frame(4 * place) + keep(name)
    code += load_frame(44) + b"\x0f\xb7\xc0" + keep("cs")
    # QEMU pushes no RF: off with it, once it is recorded, so that the sum over the stacks does not depend on it.
    code += load_frame(48) + keep("eflags") + b"\x80\x65\x32\xfe"
    code += b"\x8d\x45\x28" + keep("esp")  # LEA EAX, [EBP + 40]: where the frame's EIP lies
    code += b"\x8c\xd0\x0f\xb7\xc0" + keep("ss")
    code += b"\x31\xc0\x0f\x00\xc0\x0f\xb7\xc0" + keep("ldtr")
    code += b"\x31\xc0\x0f\x00\xc8\x0f\xb7\xc0" + keep("tr")
    code += b"\x0f\x20\xc0" + keep("cr0") + b"\x0f\x20\xd0" + keep("cr2") + b"\x0f\x21\xf0" + keep("dr6")
    virtual = b""
    for place, name in enumerate(("vm_es", "vm_ds", "vm_fs", "vm_gs")):
        virtual += load_frame(60 + 4 * place) + b"\x0f\xb7\xc0" + keep(name)
    outer = load_frame(52) + keep("outer_esp") + load_frame(56) + b"\x0f\xb7\xc0" + keep("outer_ss")
    # An outer stack is there if the interrupted code ran in another ring: CS.RPL not 0, or VM set.
    code += b"\xf6\x45\x32\x02\x74" + bytes([len(virtual) + len(outer) + 2])  # TEST byte [EBP + 50], 2; JZ
    code += virtual + outer + b"\xeb" + bytes([6 + len(outer)])
    code += b"\xf6\x45\x2c\x03\x74" + bytes([len(outer)]) + outer
    for name, areas in (
        ("descriptors", [(GDT, GDT_ENTRIES * 8), (LDT, LDT_ENTRIES * 8)]),
        ("pages", [(DIRECTORY + 4, 4), (WINDOW_TABLE, 4 * WINDOW_PAGES)]),
        (
            "memory",
            [(TSS, TSS_BYTES), (DATA, DATA_BYTES), *((stack_top(r) - STACK_BYTES, STACK_BYTES) for r in range(4))],
        ),
    ):
        code += b"\x31\xc0"
        for start, size in areas:
            # XOR the doublewords into EAX, rotated by 5 before each.
            code += mov(ESI, start) + mov(ECX, size // 4) + b"\xc1\xc0\x05\x33\x06\x83\xc6\x04\x49\x75\xf5"
        code += keep(name)
    return code + mov(ESP, DRIVER_STACK) + b"\xff\x25" + word(RESUME)


def push_eax() -> bytes:
    """PUSH EAX."""
    return b"\x50"


def records(memory: bytes, count: int) -> list[dict[str, int]]:
    """What the handlers recorded, from the bytes of RAM at RECORDS."""
    rows = struct.iter_unpack(f"<{len(FIELDS)}I", memory[: count * RECORD_BYTES])
    return [dict(zip(FIELDS, row, strict=True)) for row in rows]

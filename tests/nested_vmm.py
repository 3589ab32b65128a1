"""Kernels for VMMs with nested tables: accesses of every kind where no memory is, tables and stacks there, and memory that
the chipset or an APIC hides."""

from __future__ import annotations

from small_kernel import (
    CODE_0,
    CR0_ET,
    CR0_PE,
    CR0_PG,
    DATA,
    DATA_0_TOO,
    DIRECTORY,
    EAX,
    EBX,
    ECX,
    EDI,
    ESI,
    ESP,
    GDT,
    IDT,
    PTE_P,
    PTE_RW,
    PTE_US,
    RAM_BYTES,
    SYSTEM_CALL,
    TABLE,
    TSS,
    WORDS,
    Kernel,
    Step,
    far_jump,
    from_cr,
    invlpg,
    lgdt,
    lidt,
    load,
    load_segment,
    mov,
    push,
    save,
    set_cr,
    store,
    word,
)

from x86virt import Machine, find_strategy, load_profile
from x86virt.equivalence import Comparison, compare_runs
from x86virt.vmm.registry import strategy_names

UP = PTE_P | PTE_RW | PTE_US
PROFILES = {"vtx": "nehalem", "svm": "k10_barcelona"}
NESTED = tuple(name for name in strategy_names() if find_strategy(name).memory == "nested")
MAX_CYCLES = 100_000_000

HOLE, EDGE = 0x88000, 0x87000  # a page that is nowhere, and memory before it
NOWHERE = 0x40000000
LOW, HIGH = 0x8A000, 0x8B000  # the first page behind RAM, and the last of the first 4 GB
POINTER = WORDS + 0x40
PAGES = {HOLE: NOWHERE | UP, LOW: RAM_BYTES | UP, HIGH: 0xFFFFF000 | UP}
WORDS_AT_EDGE = {EDGE + 0xFFC: 0x11223344, EDGE: 0x55667788}


def keep(number: int, register: int = EAX) -> bytes:
    """Keep a register where the comparison sees it."""
    return save(DATA + 0x800 + 4 * number, register)


def accesses(address: int) -> dict[str, bytes]:
    """Ways to reach an address in ring 0 or 3."""
    return {
        "load": load(EAX, address) + keep(0),
        "byte": b"\xa0" + word(address + 1) + keep(0),
        "store": store(address, 0x41414141) + load(EAX, address) + keep(0),
        "read-modify-write": b"\xff\x05" + word(address) + b"\x81\x35" + word(address + 8) + word(0x0F0F0F0F),
        "locked": b"\xf0\x0f\xba\x2d" + word(address) + b"\x07" + b"\x0f\xb1\x0d" + word(address),
        "exchange": mov(EAX, 5) + b"\x87\x05" + word(address) + keep(0),
        "across": load(EAX, address - 2) + keep(0) + save(address - 3, EAX) + b"\x66\xff\x05" + word(address - 1),
        "across its end": load(EAX, address + 0xFFE) + keep(0) + save(address + 0xFFD, EAX),
        "from it": mov(ESI, address) + mov(EDI, DATA) + mov(ECX, 5) + b"\xfc\xf3\xa5",
        "to it": mov(ESI, DATA) + mov(EDI, address - 8) + mov(ECX, 5) + b"\xfc\xf3\xa5",
        "fill": mov(EDI, address - 6) + mov(ECX, 12) + b"\xfc\xf3\xaa",
        "compare": mov(ESI, address) + mov(EDI, DATA) + mov(ECX, 4) + b"\xfc\xf3\xa7" + keep(1, ECX),
        "push": mov(ESP, address + 8) + b"\x68\x01\x02\x03\x04\x58" + keep(0),
        "call": mov(ESP, address + 8) + b"\xe8\x00\x00\x00\x00\x58",
        "jump": far_jump(CODE_0, address),
        "jump before": b"\xb8" + word(address - 1) + b"\xff\xe0",
        "x87": b"\xd9\xe8\xdd\x1d" + word(address) + b"\xdd\x05" + word(address),
        "segment": b"\xc4\x05" + word(address),  # LES
        "bound": mov(EAX, 3) + b"\x62\x05" + word(address),
        "xlat": mov(EBX, address) + b"\xd7" + keep(0),
        "invlpg": invlpg(address),
    }  # fmt: skip


def lone(*codes: bytes, **more) -> Kernel:
    """A kernel of ring 0 steps; one of ring 3 is given as such."""
    pages = PAGES | more.pop("pages", {})
    words = WORDS_AT_EDGE | more.pop("words", {})
    return Kernel([code if isinstance(code, Step) else Step(code) for code in codes], pages=pages, words=words, **more)


def pointer_to(address: int, limit: int = 0x7F) -> dict[int, int]:
    """The words of a pseudo-descriptor at POINTER."""
    return {POINTER: (limit | address << 16) & 0xFFFFFFFF, POINTER + 4: address >> 16}


HOLE_CASES: dict[str, Kernel] = {
    "its page table is nowhere": lone(
        store(DIRECTORY + 8, NOWHERE | UP) + load(EAX, 0x800000) + keep(0) + store(0x800004, 1) + Step(b"").code,
        Step(load(EAX, 0x900000), 3),
    ),
    "its directory is nowhere": lone(set_cr(3, NOWHERE) + b"\x90"),
    "a program's stack is nowhere": lone(Step(mov(ESP, HOLE + 0x800) + push(7) + b"\x58" + push(1), 3)),
    "the kernel's stack is nowhere": lone(mov(ESP, HOLE + 0x800) + b"\xcd\x83" + b"\x90"),
    "the kernel's stack for a program's trap is nowhere": lone(
        store(TSS + 4, HOLE + 0x800), Step(b"\x40" + SYSTEM_CALL, 3), Step(b"\x0f\x0b", 3)
    ),
    "a fault on a stack that is nowhere": lone(mov(ESP, HOLE + 0x800) + b"\x0f\x0b"),
    "a page fault on a stack that is nowhere": lone(mov(ESP, HOLE + 0x800) + load(EAX, 0xC0000000)),
    "the stack is partly nowhere": lone(mov(ESP, HOLE + 6) + b"\x0f\x0b", mov(ESP, HOLE + 6) + SYSTEM_CALL),
    "its GDT is nowhere": lone(lgdt(POINTER) + load_segment(0, DATA_0_TOO) + b"\x90", words=pointer_to(HOLE)),
    "its GDT ends nowhere": lone(
        lgdt(POINTER) + load_segment(0, DATA_0_TOO) + b"\x90", words=pointer_to(HOLE - DATA_0_TOO - 4)
    ),
    "its IDT is nowhere": lone(lidt(POINTER) + SYSTEM_CALL, words=pointer_to(HOLE, 0x7FF)),
    "its IDT is nowhere at a fault": lone(lidt(POINTER) + b"\x0f\x0b", words=pointer_to(HOLE, 0x7FF)),
    "its TSS is nowhere": lone(
        store(GDT + 0x28, 0x0067 | (HOLE & 0xFFFF) << 16) + store(GDT + 0x2C, 0x8908 | HOLE & 0xFF000000)
        + mov(EAX, 0x28) + b"\x0f\x00\xd8" + b"\x90",
        Step(b"\x40", 3),
    ),
    "a task that is nowhere": lone(
        store(GDT + 0x50, 0x0067 | (HOLE & 0xFFFF) << 16) + store(GDT + 0x54, 0x8908) + far_jump(0x50, 0)
    ),
    "pointers that are nowhere": lone(set_cr(4, 0x20) + b"\x90", set_cr(3, NOWHERE) + b"\x90"),
    "without paging": Kernel(
        [Step(load(EAX, NOWHERE) + keep(0) + store(NOWHERE, 1) + b"\xff\x05" + word(RAM_BYTES - 2)),
         Step(load(EAX, 0xFFFBE000) + keep(0) + load(EAX, 0xFFFBF000) + keep(1) + store(0xFFFBE000, 5))],
        paging=False,
    ),
    "without paging, then with": Kernel(
        [Step(load(EAX, NOWHERE) + keep(0) + set_cr(3, DIRECTORY) + set_cr(0, CR0_PG | CR0_PE | CR0_ET) + load(EAX, HOLE)
              + keep(1) + load(EAX, LOW) + keep(2)),
         Step(set_cr(0, CR0_PE | CR0_ET) + load(EAX, HOLE) + keep(3) + store(NOWHERE, 7)),
         Step(set_cr(0, CR0_PG | CR0_PE | CR0_ET) + load(EAX, LOW) + keep(4))],
        pages={**PAGES, LOW: 0xFFFBE000 | UP}, paging=False,
    ),
    "a page moves into a hole and out": lone(
        load(EAX, DATA) + store(TABLE + DATA // 0x400, NOWHERE | UP) + invlpg(DATA) + load(EAX, DATA) + b"\x89\xc3"
        + store(DATA, 8) + store(TABLE + DATA // 0x400, DATA | UP) + invlpg(DATA) + load(EAX, DATA) + keep(0) + keep(1, EBX),
    ),
    "tables are read there": lone(from_cr(3) + keep(0) + store(IDT + 0x88 * 8, 0) + load(EAX, HIGH + 0xFFC) + keep(1)),
}  # fmt: skip


def profile_of(name: str):
    """The profile of a processor that has what a strategy needs."""
    return load_profile(PROFILES[find_strategy(name).processor])


def compare(kernel: Kernel, name: str, memory: int = RAM_BYTES, checkpoint: int = 64) -> Comparison:
    """E1 of a kernel."""
    image = kernel.image()
    return compare_runs(
        image, find_strategy(name)(), find_strategy("native")(), profile_of(name), memory, "", MAX_CYCLES, checkpoint
    )


def assert_equal(kernel: Kernel, name: str, memory: int = RAM_BYTES) -> Comparison:
    """E1 holds up to the end."""
    comparison = compare(kernel, name, memory)
    assert comparison.equal, "\n".join(comparison.report)
    return comparison


def machine_of_kernel(kernel: Kernel, name: str, memory: int = RAM_BYTES, isolated: bool = False) -> Machine:
    """A machine about to run a kernel."""
    machine = Machine(find_strategy(name)(), profile_of(name), memory, check_isolation=isolated)
    machine.load(kernel.image())
    return machine

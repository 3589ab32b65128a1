"""Hypothesis strategies for what makes a software VMM's life hard: tables edited in every way, two address spaces, aliases,
segments that outlive their descriptors, control transfers of all kinds, code that changes, odd stacks, flags that live.

Every edit of a page-table entry is followed by the invalidation that the manual asks for (SDM volume 3, section 4.10.4),
by none where it asks for none, or belongs to an address space that is not in use. What a kernel needs of it lies in RAM
beside what `small_kernel` has:

    42000 directory and 43000 table of the second address space   44000 local descriptor table   45000 another GDT
    50000 routines, some across pages   54000 code that changes   5F000 routines that run into the page behind
    60000 a page that is not mapped   88000 two pages that are global in both address spaces
"""

from __future__ import annotations

import struct

from descriptor_machine import descriptor, gate
from hypothesis import strategies as st
from random_kernels import (
    PLAYGROUND,
    RELOAD,
    RIGHTS,
    anywhere,
    edit,
    how_told,
    index,
    kernel_code,
    places,
    registers,
    user_code,
    values,
)
from small_kernel import (
    CODE_0,
    CODE_3,
    DATA,
    DATA_0,
    DATA_0_TOO,
    DATA_3,
    DIRECTORY,
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    EDX,
    ESI,
    ESP,
    GDT,
    GDT_BYTES,
    PTE_A,
    PTE_D,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
    RAM_BYTES,
    SHORT_DATA,
    STEPS,
    TABLE,
    USER_STACK,
    Kernel,
    Step,
    far_jump,
    invlpg,
    lgdt,
    load,
    load_segment,
    mov,
    push,
    save,
    set_cr,
    store,
    word,
)

DIRECTORY_B, TABLE_B, LDT, OTHER_GDT = 0x42000, 0x43000, 0x44000, 0x45000
ROUTINES, CHANGING, EDGE, BEHIND = 0x50000, 0x54000, 0x5F000, 0x60000
GLOBALS = (0x88000, 0x89000)
UP, PTE_G = PTE_P | PTE_RW | PTE_US, 0x100
RECURSIVE, WINDOW, LARGE = 2, 3, 1  # directory entries: the directory as a table, one that is edited, a large page
SPARE, LDT_SELECTOR, CALL_GATE, OTHER_GATE = 0x60, 0x68, 0x70, 0x78
OTHER_GDT_POINTER, GDT_POINTER_AGAIN, LDT_FAR = DATA + 0xFF0, DATA + 0xFE8, DATA + 0xFE0
NO_LOCAL, WITH_LOCAL = b"\x31\xc0\x0f\x00\xd0", mov(EAX, LDT_SELECTOR) + b"\x0f\x00\xd0"  # LLDT AX


# -- page tables ------------------------------------------------------------------------------------------------------


def edit_elsewhere(second: bool, page: int, frame: int, rights: int, register: int) -> bytes:
    """Edit the address space that is not in use, tell nobody, and enter it."""
    here, table, there = (DIRECTORY, TABLE_B, DIRECTORY_B) if second else (DIRECTORY_B, TABLE, DIRECTORY)
    return set_cr(3, here) + store(table + index(page), frame | rights) + set_cr(3, there) + load(register, page)


def make_present(page: int, frame: int, rights: int, use: bytes) -> bytes:
    """From not present to present, of which nobody needs to be told (section 4.10.4.3)."""
    both = b"".join(store(table + index(page), 0) for table in (TABLE, TABLE_B)) + invlpg(page)
    return both + b"".join(store(table + index(page), frame | rights | PTE_P) for table in (TABLE, TABLE_B)) + use


def edit_by(instruction: bytes, page: int, how: int) -> bytes:
    """Change the entry in place by some instruction that reads and writes [EBX], with EAX as its operand."""
    return mov(EBX, TABLE + index(page)) + instruction + how_told(page, how)


IN_PLACE = (
    b"\x80\x23\xfe", b"\x80\x0b\x07", b"\x80\x33\x02", b"\x80\x33\x04",  # AND, OR, XOR byte [EBX]
    b"\x83\x23\x9f", b"\xf0\x0f\xba\x33\x01", b"\xf0\x0f\xba\x2b\x06",  # AND without A and D, LOCK BTR, LOCK BTS
    b"\x66\x83\x0b\x20", b"\x80\x63\x01\xfd", b"\x8b\x03\x83\xf0\x01\x87\x03",  # OR word, AND byte 1, XCHG
    b"\x8b\x03\x0f\xc7\x0b",  # CMPXCHG8B
    b"\x8b\x03\x8b\xc8\x83\xf1\x04\xf0\x0f\xb1\x0b", b"\x8b\x03\x89\x03", b"\x33\xc0\x0f\xc1\x03",  # CMPXCHG, MOV, XADD
    b"\x8f\x03", b"\xff\x33\x8f\x03", b"\x0f\xc3\xc0", b"\x8b\x53\x04\x89\x13",  # POP, PUSH and POP, the neighbour's
)  # fmt: skip


def fill_entries(first: int, count: int, value: int, down: bool) -> bytes:
    """REP STOSD over entries, one piece that changes many; then CR3."""
    start = TABLE + index(first) + (4 * (count - 1) if down else 0)
    direction = b"\xfd" if down else b"\xfc"
    return mov(EAX, value) + mov(EDI, start) + mov(ECX, count) + direction + b"\xf3\xab\xfc" + RELOAD


def copy_entries(first: int, count: int, to_second: bool) -> bytes:
    """REP MOVSD of entries from one table to the other, as a fork does; then CR3."""
    source, target = (TABLE, TABLE_B) if to_second else (TABLE_B, TABLE)
    registers = mov(ESI, source + index(first)) + mov(EDI, target + index(first)) + mov(ECX, count)
    return registers + b"\xfc\xf3\xa5" + RELOAD


def push_entries(page: int, entries: list[int]) -> bytes:
    """The table's own page as a stack: entries are pushed, and the stack put back."""
    code = b"\x89\xe5" + mov(ESP, TABLE + index(page) + 4)  # MOV EBP, ESP
    return code + b"".join(push(entry) for entry in entries) + b"\x89\xec" + RELOAD


def edit_through_alias(at: int, table: int, page: int, entry: int) -> bytes:
    """Map the table at a page of the playground, and edit an entry through it."""
    mapping = b"".join(store(one + index(at), table | UP) for one in (TABLE, TABLE_B)) + invlpg(at)
    return mapping + store(at + index(page), entry) + invlpg(page)


def edit_recursively(page: int, entry: int) -> bytes:
    """Edit the table in use through the directory's entry that leads to the directory itself."""
    return store((RECURSIVE << 22) + index(page), entry) + invlpg(page)


def edit_directory(value: int, use: bytes) -> bytes:
    """Change a directory entry in both address spaces, write CR3, and go through it."""
    return b"".join(store(one + 4 * WINDOW, value) for one in (DIRECTORY, DIRECTORY_B)) + RELOAD + use


def globally(page: int, frame: int, rights: int, use: bytes) -> bytes:
    """A page that is global, and the same in both address spaces; INVLPG drops global entries too."""
    code = b"".join(store(one + index(page), frame | rights | PTE_G) for one in (TABLE, TABLE_B))
    return code + invlpg(page) + use


def watch_entry(page: int, second: bool, place: int) -> bytes:
    """Read an entry, so that accessed and dirty bits are seen, and keep it."""
    return load(EAX, (TABLE_B if second else TABLE) + index(page)) + save(DATA + 4 * place, EAX)


frames = st.sampled_from((*PLAYGROUND, DATA, CHANGING, TABLE, GDT))
rights = st.sampled_from((*RIGHTS, *(right | PTE_A for right in RIGHTS), UP | PTE_D, UP | PTE_A | PTE_D))
pages, told = st.sampled_from(PLAYGROUND), st.integers(0, 1)
entries = st.builds(lambda frame, right: frame | right, frames, rights)
window_values = st.one_of(
    st.sampled_from((0, TABLE, TABLE_B, DIRECTORY, TABLE | PTE_PS, PTE_PS)).flatmap(
        lambda frame: rights.map(lambda right: frame | right if not frame & PTE_PS else PTE_PS | right)
    )
)
window_uses = st.one_of(
    st.builds(lambda register, place: load(register, (WINDOW << 22) + place), registers, places),
    st.builds(lambda place, value: store((WINDOW << 22) + place, value), places, values),
)
uses = st.one_of(st.builds(load, registers, pages), st.builds(store, pages, values))
table_edits = st.one_of(
    st.builds(edit, st.sampled_from((TABLE, TABLE_B)), pages, frames, rights, told),
    st.builds(edit_elsewhere, st.booleans(), pages, frames, rights, registers),
    st.builds(make_present, pages, frames, rights, uses),
    st.builds(edit_by, st.sampled_from(IN_PLACE), pages, told),
    st.builds(fill_entries, pages, st.integers(1, 3), entries, st.booleans()),
    st.builds(copy_entries, st.just(PLAYGROUND[0]), st.integers(1, len(PLAYGROUND)), st.booleans()),
    st.builds(push_entries, pages, st.lists(entries, min_size=1, max_size=3)),
    st.builds(edit_through_alias, pages, st.sampled_from((TABLE, TABLE_B)), pages, entries),
    st.builds(edit_recursively, pages, entries),
    st.builds(edit_directory, window_values, window_uses),
    st.builds(globally, st.sampled_from(GLOBALS), frames, rights, uses),
    st.builds(watch_entry, st.sampled_from((*PLAYGROUND, *GLOBALS, DATA)), st.booleans(), st.integers(0, 7)),
)
controls = st.sampled_from(
    (set_cr(3, DIRECTORY), set_cr(3, DIRECTORY_B), set_cr(3, DIRECTORY | 0x18), RELOAD, set_cr(4, 0x10), set_cr(4, 0x90),
     set_cr(4, 0x80), set_cr(4, 0), set_cr(0, 0x8000_0011), set_cr(0, 0x8001_0011),
     set_cr(0, 0x11) + load(EBX, DATA) + store(PLAYGROUND[0], 1) + set_cr(0, 0x8001_0011))
)  # fmt: skip
global_uses = st.one_of(
    st.builds(load, registers, st.sampled_from(GLOBALS)), st.builds(store, st.sampled_from(GLOBALS), values)
)
paging_in_kernel = st.one_of(table_edits, table_edits, controls, uses, uses, global_uses, window_uses)
# A user's stores into the tables themselves, which its pages let it do. They go with a system call, whose handler stays
# in the address space: what tells the TLB is the next piece of the kernel's.
paging_in_user = st.one_of(uses, uses, global_uses, window_uses, st.builds(watch_entry, pages, st.booleans(), st.just(1)))


# -- segments ---------------------------------------------------------------------------------------------------------

SPARE_DESCRIPTORS = (
    0, descriptor(DATA, 0xFFF, 3, dpl=3), descriptor(DATA, 0x7FF, 2, dpl=3), descriptor(DATA, 0xFFF, 1, dpl=3),
    descriptor(DATA, 0xFFF, 3), descriptor(DATA + 4, 0xFFFFF, 3, dpl=3, granular=1), descriptor(DATA, 0xFFF, 3, dpl=3, present=0),
    descriptor(0, 0xFFFFF, 11, dpl=3, granular=1), descriptor(0, 0xFFFFF, 14, granular=1), descriptor(DATA, 0, 3, dpl=3),
    descriptor(DATA, 0xFFF, 3, dpl=3, db=0), descriptor(DATA, 0xFFF, 11, s=0), descriptor(DATA, 0x1FFFF, 2, dpl=3),
)  # fmt: skip
DATA_REGISTERS = (0, 3, 4, 5)
PREFIX_OF = {0: 0x26, 1: 0x2E, 2: 0x36, 3: 0x3E, 4: 0x64, 5: 0x65}


def through(segment: int, write: bool, register: int, offset: int) -> bytes:
    """MOV through a segment register, with an offset as its operand."""
    return bytes([PREFIX_OF[segment], 0x89 if write else 0x8B, 0x05 | register << 3]) + word(offset)


def edit_spare(value: int, selector: int, table: int, halves: int) -> bytes:
    """Change a descriptor, half by half."""
    place = table + (selector & ~7)
    low, high = store(place, value), store(place + 4, value >> 32)
    return (low, high, low + high, high + low)[halves]


def keep_selector(segment: int, place: int) -> bytes:
    """Read a data segment register twice, to memory and through the stack."""
    push_it = {0: b"\x06", 3: b"\x1e", 4: b"\x0f\xa0", 5: b"\x0f\xa8"}[segment]
    return b"\x8c" + bytes([0x05 | segment << 3]) + word(DATA + 4 * place) + push_it + b"\x58"


def string_through(segment: int, opcode: int, count: int, source: int, target: int, prefix: bytes) -> bytes:
    """A repeated string instruction with a segment override; offsets are within the short segment."""
    code = mov(ESI, source) + mov(EDI, DATA + target) + mov(ECX, count) + b"\xfc"
    return code + bytes([PREFIX_OF[segment]]) + prefix + bytes([opcode])


far_pointers = st.builds(
    lambda opcode, selector, offset: store(LDT_FAR, offset) + b"\x66\xc7\x05" + word(LDT_FAR + 4)
    + selector.to_bytes(2, "little") + opcode + word(LDT_FAR),
    st.sampled_from((b"\xc4\x35", b"\xc5\x35", b"\x0f\xb4\x35", b"\x0f\xb5\x35")),
    st.sampled_from((DATA_3, SPARE | 3, SHORT_DATA | 3, 0, DATA_0)), values,
)  # fmt: skip
segment_uses = st.one_of(
    st.builds(
        through, st.sampled_from((0, 3, 4, 5)), st.booleans(), registers,
        st.sampled_from((0, 4, 0x7FC, 0xFFC, 0xFFD, 0x1000, 0x10000, 0x20000, 0x80000)),
    ),
    st.builds(through, st.just(1), st.just(False), registers, st.sampled_from((ROUTINES, STEPS, DATA, ROUTINES + 0xFFE))),
    st.builds(
        string_through, st.sampled_from((0, 1, 3, 4, 5)), st.sampled_from((0xA4, 0xA5, 0xA6, 0xAD)), st.integers(0, 9),
        st.sampled_from((0, 0xFF0, DATA, 0xFFE)), st.integers(0, 64), st.sampled_from((b"", b"\xf3", b"\xf2")),
    ),
    st.builds(keep_selector, st.sampled_from(DATA_REGISTERS), st.integers(0, 7)),
)  # fmt: skip
spare_loads = st.builds(
    load_segment, st.sampled_from((*DATA_REGISTERS, 4, 5)),
    st.sampled_from((SPARE | 3, SPARE | 3, SPARE, SHORT_DATA | 3, DATA_3)),
)  # fmt: skip
local_loads = st.builds(load_segment, st.sampled_from(DATA_REGISTERS), st.sampled_from((0x07, 0x07, 0x0F, 0x04, 0x17)))
segments_in_kernel = st.one_of(
    st.builds(
        edit_spare, st.sampled_from(SPARE_DESCRIPTORS), st.sampled_from((SPARE, SPARE, SPARE, SHORT_DATA)),
        st.just(GDT), st.sampled_from((0, 1, 2, 2, 2, 3)),
    ),
    spare_loads, spare_loads, segment_uses, segment_uses, far_pointers,
    st.sampled_from((NO_LOCAL, lgdt(OTHER_GDT_POINTER), lgdt(GDT_POINTER_AGAIN))),
    st.sampled_from((mov(EAX, DATA_0_TOO) + b"\x8e\xd0", mov(EAX, DATA_0) + b"\x8e\xd0")),
)  # fmt: skip
segments_in_user = st.one_of(spare_loads, segment_uses, segment_uses, far_pointers)
local_in_kernel = st.one_of(
    st.builds(edit_spare, st.sampled_from(SPARE_DESCRIPTORS), st.sampled_from((0, 8)), st.just(LDT), st.integers(0, 3)),
    st.sampled_from((WITH_LOCAL, WITH_LOCAL, NO_LOCAL)), local_loads, local_loads, segment_uses,
)  # fmt: skip
local_in_user = st.one_of(local_loads, segment_uses)
gate_calls = st.sampled_from(
    (b"\x9a" + word(0) + struct.pack("<H", CALL_GATE), b"\x9a" + word(0x1234) + struct.pack("<H", CALL_GATE | 3),
     far_jump(CALL_GATE, 0), push(7) + push(8) + b"\x9a" + word(0) + struct.pack("<H", OTHER_GATE | 3),
     far_jump(OTHER_GATE, 0), far_jump(CODE_3, 0), b"\x9a" + word(ROUTINES + 0x80) + struct.pack("<H", CODE_0))
)  # fmt: skip


# -- control transfers ------------------------------------------------------------------------------------------------

COUNTER = DATA + 0x800  # what the routines count in
JUMP_TABLE = ROUTINES + 0x200


def count_up(number: int) -> bytes:
    """ADD dword [counter], n."""
    return b"\x83\x05" + word(COUNTER) + bytes([number])


ROUTINE_CODE = {
    ROUTINES: b"\x42\xc3",  # INC EDX; RET
    ROUTINES + 0x10: count_up(1) + b"\xc2\x08\x00",  # RET 8
    ROUTINES + 0x20: b"\x49\x7e\x05\xe8\xf8\xff\xff\xff\xc3",  # DEC ECX; JLE out; CALL itself; out: RET
    ROUTINES + 0x30: b"\x58\xff\xe0",  # POP EAX; JMP EAX
    ROUTINES + 0x38: b"\x83\x04\x24\x02\xc3",  # ADD dword [ESP], 2; RET
    ROUTINES + 0x40: b"\xe8\x00\x00\x00\x00\x5b\xc3",  # CALL behind; POP EBX; RET
    ROUTINES + 0x50: b"\x83\xe0\x03\xff\x24\x85" + word(JUMP_TABLE),  # AND EAX, 3; JMP [table + 4*EAX]
    ROUTINES + 0x60: b"\xf9\xc3",  # STC; RET
    ROUTINES + 0x64: b"\xf8\xc3",  # CLC; RET
    ROUTINES + 0x68: b"\x72\x02\xeb\x94\xf5\xc3",  # JC +2; JMP to INC EDX; CMC; RET
    ROUTINES + 0x80: b"\x42\xcb",  # INC EDX; RETF
    ROUTINES + 0x90: b"\x8b\x44\x24\x08" + save(COUNTER + 4, EAX) + b"\xca\x08\x00",  # a parameter; RETF 8
    ROUTINES + 0xA0: mov(ECX, 40) + b"\x42\x01\xd0\xe2\xfb\xc3",  # a loop: INC EDX; ADD EAX, EDX; LOOP
    ROUTINES + 0xC0: b"\x55\x89\xe5\x83\xec\x10\x89\x55\xf8\x8b\x45\xf8\xc9\xc3",  # a frame: EBP, locals, LEAVE
    ROUTINES + 0xD0: b"\x55\x89\xe5\xc8\x10\x00\x02\xc9\x5d\xc3",  # EBP; ENTER 16, 2; LEAVE; EBP; RET
    ROUTINES + 0xE0: b"\x87\x04\x24\x50\xc3",  # XCHG EAX, [ESP]; PUSH EAX; RET: goes back, and leaves a word
    ROUTINES + 0x100: bytes([0x40 + (number % 4) for number in range(30)]) + b"\xc3",  # longer than a unit
    ROUTINES + 0x140: b"\x83\xe0\x1f\x74\x08\x78\x06\x42\x48\x75\xfb\xf5\xc3\xc3",  # AND EAX, 31; branches, a loop
    ROUTINES + 0xFFD: b"\x81\xc2" + word(0x1234) + b"\x42\xc3",  # ADD EDX, imm32 across a page
    ROUTINES + 0x1FFF: b"\x0f\xb6\xc2\xc3",  # MOVZX EAX, DL across a page
    ROUTINES + 0x2FFE: b"\xe8\xfd\xef\xff\xff\xc3",  # a CALL across a page, to the MOVZX
    JUMP_TABLE: b"".join(word(ROUTINES + at) for at in (0, 0x60, 0x40, 0xA0)),
    EDGE + 0xFFE: b"\x42\x81\xc2" + word(0x4321) + b"\x42\xc3",  # INC EDX; ADD EDX, imm32: into a page that may not be there
    EDGE + 0xFF0: b"\x42\xe9\x09\x00\x00\x00",  # a jump to the ADD, half of which lies there
}
NEAR = tuple(place for place in ROUTINE_CODE if place not in (JUMP_TABLE, ROUTINES + 0x80, ROUTINES + 0x90, ROUTINES + 0x10))
CALL_EAX, CALL_EBX = b"\xff\xd0", b"\xff\xd3"


def call_at(place: int, how: int, value: int) -> bytes:
    """Call a routine: through a register, through memory, by a pushed return address."""
    before = mov(ECX, 3) + mov(EAX, value)
    if how == 0:
        return before + mov(EBX, place) + CALL_EBX
    if how == 1:
        return before + store(DATA + 0x900, place) + b"\xff\x15" + word(DATA + 0x900)
    if how == 2:  # CALL behind; ADD dword [ESP], 12; PUSH place; RET: to the routine, which returns behind
        return before + b"\xe8\x00\x00\x00\x00\x83\x04\x24\x0a" + push(place) + b"\xc3"
    return before + mov(EDI, DATA + 0x900) + store(DATA + 0x940, place) + b"\xff\x57\x40"  # CALL [EDI + 40]


def call_with_two(place: int) -> bytes:
    """A routine that drops its two arguments."""
    return push(1) + push(2) + mov(EBX, place) + CALL_EBX


OVERLAPPING = (
    b"\xeb\xff\xc0",  # JMP into its own displacement: INC EAX
    b"\xb8\x42\x42\xeb\x02\xeb\xfa",  # MOV EAX, imm32; JMP into the immediate: INC EDX twice, JMP over the JMP
    b"\x31\xc9\xe3\x01\xb8\x41\x41\x90\x90\x90",  # JECXZ into an immediate
)


def loop_of(body: bytes, count: int) -> bytes:
    """LOOP over a body."""
    return mov(ECX, count) + body + b"\xe2" + bytes([-(len(body) + 2) & 0xFF])


def branch_over(condition: int, skipped: bytes, compared: int) -> bytes:
    """Compare EAX, and jump over some code by any condition."""
    return b"\x3d" + word(compared) + bytes([0x70 | condition, len(skipped)]) + skipped


def branch_far(condition: int, skipped: bytes) -> bytes:
    """The same with a displacement of 32 bits."""
    return bytes([0x0F, 0x80 | condition]) + word(len(skipped)) + skipped


small = st.sampled_from((b"\x42", b"\x40\x43", b"\x01\xd8", b"\xf5", b"\x90" * 5, b"\x83\xc2\x05", b"\x9f"))  # without ECX
transfers = st.one_of(
    st.builds(call_at, st.sampled_from(NEAR), st.integers(0, 3), values),
    st.builds(call_at, st.sampled_from(NEAR), st.integers(0, 3), values),
    st.builds(call_with_two, st.just(ROUTINES + 0x10)),
    st.sampled_from(OVERLAPPING),
    st.builds(loop_of, small, st.integers(1, 70)),
    st.builds(branch_over, st.integers(0, 15), small, values),
    st.builds(branch_far, st.integers(0, 15), small),
)


# -- flags and stacks -------------------------------------------------------------------------------------------------


def keep_flags(place: int, before: bytes, between: bytes) -> bytes:
    """Make flags, do something that leaves them, and keep them: SETcc, LAHF, ADC, RCR."""
    kept = b"\x0f\x90\x05" + word(DATA + 0xA00 + place) + b"\x0f\x9c\x05" + word(DATA + 0xA01 + place)
    return before + between + kept + b"\x9f\x88\x25" + word(DATA + 0xA02 + place) + b"\x83\xd2\x00\xd1\xd8"


flag_makers = st.builds(
    lambda one, two, opcode: mov(EAX, one) + bytes([opcode]) + word(two),
    values, values, st.sampled_from((0x05, 0x2D, 0x3D, 0x25, 0x35, 0x15, 0x1D, 0xA9)),
)  # fmt: skip
flag_keepers = st.one_of(
    st.builds(store, st.sampled_from((DATA + 0xB00, PLAYGROUND[0])), values), st.builds(mov, st.just(EBX), values),
    st.just(b"\x8d\x5b\x04"), st.just(b"\xe8\x00\x00\x00\x00\x5b"), st.just(b"\xeb\x00"), st.just(push(5) + b"\x5b"),
    st.just(mov(EBX, ROUTINES + 0xFFE) + b"\x87\xdb"), st.just(b"\x0f\xca"),
    st.just(b"\xcd\x81"), st.just(b"\x55\x5d\x0f\x20\xd9"), st.just(invlpg(DATA)), st.just(b"\xe6\x80"),
)  # fmt: skip
flags = st.builds(keep_flags, st.integers(0, 30).map(lambda n: 4 * n), flag_makers, flag_keepers)
OTHER_STACK = 0x70000
stacks = st.one_of(
    st.sampled_from(
        (b"\x54\x5b", b"\x54\x5c", b"\xff\x34\x24\x5b", b"\xff\x74\x24\x04\x58", b"\x50\x8f\x04\x24",  # of ESP itself
         b"\x89\xe5\x44\x50\x5b\x4c", b"\x89\xe5\x83\xec\x03\x60\x61\x89\xec", b"\x6a\x80\x59", b"\x66\x50\x66\x5b",
         b"\x87\xe0\x87\xc4", b"\x8d\x64\x24\xfc\x59", b"\x68\x78\x56\x34\x12\x66\x58\x66\x59", b"\x55\x89\xe5\xc9",
         b"\x16\x58"[1:] + b"\x50\x58"),
    ),
    st.builds(
        lambda esp, body: b"\x89\xe5" + mov(ESP, esp) + body + b"\x89\xec",
        st.sampled_from((OTHER_STACK, OTHER_STACK + 1, OTHER_STACK + 0x1002, PLAYGROUND[0] + 4, OTHER_STACK + 0xFFE)),
        st.sampled_from((b"\x60\x61", push(3) + b"\x58", b"\xe8\x00\x00\x00\x00\x58", b"\xc8\x20\x00\x03\xc9", b"\xcd\x81")),
    ),
)  # fmt: skip


# -- code that changes ------------------------------------------------------------------------------------------------

PATCHED = CHANGING + 0x100  # a loop that changes its own immediate
FAR_LOOP = CHANGING + 0x200  # a loop of two units, one of which changes the other
CROSSING = CHANGING + 0xFFD  # changed code across two pages
CHANGING_CODE = {
    CHANGING: b"\xb8" + word(1) + b"\xc3",  # MOV EAX, imm32; RET
    PATCHED: b"\xff\x05" + word(PATCHED + 7) + b"\xb8" + word(7) + b"\x01\xc2\x49\x75\xf0\xc3",
    FAR_LOOP: b"\x80\x35" + word(FAR_LOOP + 9) + b"\x08\xeb\x00\x42\x49\x75\xf3\xc3",  # INC EDX becomes DEC EDX and back
    CROSSING: b"\xb8" + word(2) + b"\xc3",
    CHANGING + 0x300: b"\xb8" + word(3) + b"\xe9" + word(0) + b"\xc3",
}


def write_and_call(place: int, value: int, way: int) -> bytes:
    """Change the immediate of a routine in different ways, and call it before and behind."""
    call = mov(EBX, place) + CALL_EBX
    change = (
        store(place + 1, value),
        b"\xc6\x05" + word(place + 4) + bytes([value & 0xFF]),
        mov(EAX, value) + mov(EDI, place + 1) + b"\xfc\xab",
        mov(ESP, place + 5) + push(value),
        b"\xff\x05" + word(place + 1),
        mov(EAX, value) + b"\xf0\x0f\xc1\x05" + word(place + 1),
    )[way]
    if way == 3:
        change = b"\x89\xe5" + change + b"\x89\xec"
    return call + b"\x01\xc2" + change + call + b"\x01\xc2"


def change_next(octet: int, distance: int) -> bytes:
    """CALL behind; POP EBX; a store into code that follows within the same page, some instructions ahead; that code."""
    code = b"\xe8\x00\x00\x00\x00\x5b\xc6\x43" + bytes([5 + distance, octet])
    return code + b"\x42" * distance + b"\x40" + b"\x43"


def change_behind_jump(octet: int) -> bytes:
    """The same as the manual has it: a jump stands between the store and the code."""
    return b"\xe8\x00\x00\x00\x00\x5b\xc6\x43\x07" + bytes([octet]) + b"\xeb\x00\x40"


def copy_and_call(source: int, offset: int, count: int) -> bytes:
    """Copy a routine, and call the copy."""
    target = CHANGING + 0x400 + offset
    code = mov(ESI, source) + mov(EDI, target) + mov(ECX, count) + b"\xfc\xf3\xa4"
    return code + mov(ECX, 3) + mov(EBX, target) + CALL_EBX


def remap_and_call(page: int, one: int, two: int) -> bytes:
    """A page of code, remapped to another: each time the code that is mapped runs."""
    call = mov(EBX, page) + CALL_EBX

    def mapped(frame: int) -> bytes:
        return b"".join(store(table + index(page), frame | UP) for table in (TABLE, TABLE_B)) + invlpg(page)

    return mapped(one) + call + mapped(two) + call


def change_through_alias(page: int, value: int) -> bytes:
    """Change code at another linear address, serialize (CPUID), and call it."""
    mapping = b"".join(store(table + index(page), CHANGING | UP) for table in (TABLE, TABLE_B)) + invlpg(page)
    call = mov(EBX, CHANGING) + CALL_EBX
    return mapping + call + store(page + 1, value) + b"\x0f\xa2" + call


octets = st.sampled_from((0x40, 0x41, 0x42, 0x48, 0x90, 0xF5, 0x98, 0xFC))
changes = st.one_of(
    st.builds(write_and_call, st.sampled_from((CHANGING, CROSSING)), values, st.integers(0, 5)),
    st.builds(change_next, octets, st.integers(0, 14)),
    st.builds(change_behind_jump, octets),
    st.builds(
        copy_and_call, st.sampled_from((ROUTINES, ROUTINES + 0x60, ROUTINES + 0xA0, ROUTINES + 0x40)),
        st.sampled_from((0, 1, 0x80, 0xBF8)), st.just(16),
    ),
    st.builds(lambda start, n: mov(ECX, n) + mov(EBX, start) + CALL_EBX, st.sampled_from((PATCHED, FAR_LOOP)), st.integers(1, 9)),
)  # fmt: skip
changes_in_kernel = st.one_of(
    changes, changes,
    st.builds(remap_and_call, pages, st.sampled_from((CHANGING, ROUTINES)), st.sampled_from((CHANGING, ROUTINES))),
    st.builds(change_through_alias, pages, values),
)  # fmt: skip


# -- kernels ----------------------------------------------------------------------------------------------------------

ORDINARY = st.one_of(transfers, flags, stacks, changes)
IN_KERNEL = {
    "paging": st.one_of(paging_in_kernel, paging_in_kernel, anywhere),
    "segments": st.one_of(segments_in_kernel, segments_in_kernel, anywhere),
    "local": st.one_of(local_in_kernel, local_in_kernel, segments_in_kernel),
    "gates": st.one_of(gate_calls, segments_in_kernel, transfers),
    "transfers": st.one_of(transfers, flags, stacks),
    "changes": st.one_of(changes_in_kernel, changes_in_kernel, transfers, uses),
    "mixed": st.one_of(paging_in_kernel, segments_in_kernel, transfers, flags, stacks, changes_in_kernel, kernel_code),
}
IN_USER = {
    "paging": st.one_of(paging_in_user, paging_in_user, anywhere),
    "segments": st.one_of(segments_in_user, segments_in_user, anywhere),
    "local": st.one_of(local_in_user, local_in_user, segments_in_user),
    "gates": st.one_of(gate_calls, segments_in_user, transfers),
    "transfers": st.one_of(transfers, flags, stacks),
    "changes": st.one_of(changes, changes, transfers, uses),
    "mixed": st.one_of(paging_in_user, segments_in_user, transfers, flags, stacks, changes, user_code),
}
CLASSES = tuple(IN_KERNEL)


def second_table() -> bytes:
    """The table of the second address space: the playground is mapped in turned order."""
    turned = dict(zip(PLAYGROUND, (*PLAYGROUND[1:], PLAYGROUND[0]), strict=True))
    return b"".join(word(turned.get(page, page) | UP) for page in range(0, RAM_BYTES, 0x1000))


def furnished(steps: list[Step], write_protect: bool = True, cr4: int = 0x10, behind: int = UP | BEHIND) -> Kernel:
    """A kernel with all that the pieces need."""
    kernel = Kernel(steps, write_protect=write_protect, cr4=cr4, pages={BEHIND: behind})
    kernel.words |= {DIRECTORY + 4 * RECURSIVE: DIRECTORY | UP, DIRECTORY_B: TABLE_B | UP}
    kernel.words[DIRECTORY_B + 4 * RECURSIVE] = DIRECTORY_B | UP
    table = bytearray(second_table())
    table[index(BEHIND) : index(BEHIND) + 4] = word(behind)
    kernel.descriptors |= {
        SPARE: descriptor(DATA, 0xFFF, 3, dpl=3),
        LDT_SELECTOR: descriptor(LDT, 0x1F, 2, s=0, db=0),
        CALL_GATE: gate(CODE_0, ROUTINES + 0x80, 12, dpl=3),
        OTHER_GATE: gate(CODE_0, ROUTINES + 0x90, 12, dpl=3, count=2),
    }
    local = (descriptor(DATA, 0xFFF, 3, dpl=3), descriptor(0, 0xFFFFF, 11, dpl=3, granular=1))
    other = bytearray(GDT_BYTES)
    for selector, value in (kernel.gdt() | kernel.descriptors).items():
        other[selector & ~7 : (selector & ~7) + 8] = value.to_bytes(8, "little")
    kernel.octets |= {
        TABLE_B: bytes(table), LDT: b"".join(value.to_bytes(8, "little") for value in local), OTHER_GDT: bytes(other),
        OTHER_GDT_POINTER: struct.pack("<HI", GDT_BYTES - 1, OTHER_GDT),
        GDT_POINTER_AGAIN: struct.pack("<HI", GDT_BYTES - 1, GDT),
    }  # fmt: skip
    kernel.octets |= ROUTINE_CODE | CHANGING_CODE
    return kernel


user_flags = st.sampled_from((0x202, 0x202, 0x202, 0x2, 0x3202, 0x302))


def steps_of(name: str):
    """Steps of a class of kernels, in ring 0 or ring 3, or the shape of a process: ring 3 between two of ring 0."""
    kernel = st.builds(lambda found: Step(b"".join(found)), st.lists(IN_KERNEL[name], min_size=1, max_size=5))
    user = st.builds(
        lambda found, image: Step(b"".join(found), 3, image), st.lists(IN_USER[name], min_size=1, max_size=5), user_flags
    )
    return st.lists(st.one_of(kernel, kernel, user), min_size=1, max_size=10)


def kernels_of(name: str):
    """Kernels of a class."""
    return st.builds(
        furnished, steps_of(name), st.booleans(), st.sampled_from((0x10, 0x90, 0)),
        st.sampled_from((UP | BEHIND, 0, PTE_P | BEHIND)),
    )  # fmt: skip


assert USER_STACK < TABLE and EBP and EDX and ESI

"""Random small kernels that live by segments: descriptors of every kind in GDT and LDT, loads, stores, far transfers.

Every kernel has the tables of `small_kernel.py`, eight slots of random descriptors from GDT 60h on, an LDT with eight
more, call gates of both sizes, and stacks of rings 1 and 2 in its TSS. Each step does one thing with them in ring 0 or 3;
whatever faults goes on with the next step. Nothing here knows what should happen: two machines must agree.
"""

from __future__ import annotations

import struct

from descriptor_machine import descriptor, gate
from hypothesis import strategies as st
from small_kernel import (
    CODE_0,
    CODE_3,
    DATA,
    DATA_0,
    DATA_3,
    EAX,
    GDT,
    NEXT,
    STEPS_END,
    TABLES,
    TSS,
    Kernel,
    Step,
    load_segment,
    mov,
    push,
    save,
    word,
)

LDT, LDT_SELECTOR, OTHER_LDT = TABLES, 0x68, 0x70
SLOTS = range(0x78, 0xC0, 8)
LOCAL = range(4, 0x44, 8)
GDT_BYTES = 0xC0
STACK_1, STACK_2 = 0x60, 0xB8  # stacks of rings 1 and 2
LANDING = STEPS_END - 0x100  # where transfers lead: on to the next step
CALL_NEXT = b"\xe8\0\0\0\0"

segment_descriptors = st.builds(
    descriptor,
    base=st.sampled_from((0, 0, 0, DATA, 0x100)),
    limit=st.sampled_from((0xFFFFF, 0xFFFFF, 0xFFFF, 0xFFF, 0x2FFFF, 0)),
    kind=st.integers(0, 15),
    dpl=st.sampled_from((0, 0, 1, 2, 3, 3)),
    present=st.sampled_from((1, 1, 1, 1, 0)),
    db=st.sampled_from((1, 1, 0)),
    granular=st.sampled_from((0, 1, 1)),
)
gates = st.builds(
    gate,
    selector=st.one_of(st.sampled_from((CODE_0, CODE_3, 0x78, 0x80, 0x0C, 0x14)), st.integers(0, 0xCF)),
    offset=st.sampled_from((LANDING, LANDING + 1, 0xFFFFF000)),
    kind=st.sampled_from((4, 12, 12)),
    dpl=st.sampled_from((0, 3, 3)),
    present=st.sampled_from((1, 1, 1, 0)),
    count=st.sampled_from((0, 1, 3)),
)
descriptors = st.one_of(segment_descriptors, segment_descriptors, gates)
ALL_SELECTORS = (CODE_0, DATA_0, CODE_3, DATA_3, *SLOTS, *LOCAL, LDT_SELECTOR, 0, 0xC0, 0xFFE0)


def selectors(levels: tuple[int, ...]) -> st.SearchStrategy[int]:
    """A selector of any table with one of these RPLs."""
    return st.builds(lambda place, rpl: place & ~3 | rpl, st.sampled_from(ALL_SELECTORS), st.sampled_from(levels))


def load_code(segment: int, selector: int, offset: int) -> bytes:
    """Load a segment register and touch its memory."""
    prefix = {0: b"\x26", 2: b"\x36", 3: b"\x3e", 4: b"\x64", 5: b"\x65"}[segment]
    return load_segment(segment, selector) + prefix + b"\xa1" + word(offset) + prefix + b"\xa2" + word(offset)


def pop_code(segment: int, selector: int) -> bytes:
    """Push a selector and pop it into a segment register."""
    pop = {0: b"\x07", 2: b"\x17", 3: b"\x1f", 4: b"\x0f\xa1", 5: b"\x0f\xa9"}[segment]
    return push(selector) + pop + save(DATA, EAX)


def call_code(selector: int, offset: int, narrow: bool) -> bytes:
    """Push parameters and call far."""
    pointer = struct.pack("<HH", offset & 0xFFFF, selector) if narrow else struct.pack("<IH", offset, selector)
    return push(0x11111111) + push(0x22222222) + b"\x66" * narrow + b"\x9a" + pointer


def jump_code(selector: int, offset: int, narrow: bool) -> bytes:
    """Jump far."""
    pointer = struct.pack("<HH", offset & 0xFFFF, selector) if narrow else struct.pack("<IH", offset, selector)
    return b"\x66" * narrow + b"\xea" + pointer


def return_code(selector: int, stack: int, flags: int | None, narrow: bool) -> bytes:
    """A far return, or with flags an IRET, to what follows, with a stack for an outer ring behind the frame."""
    code = b"\x66\x68" + struct.pack("<H", stack) if narrow else push(stack)
    code += b"\x66\x68\x00\xf0" if narrow else push(DATA + 0xF000)
    frame = [] if flags is None else [flags]
    for value in (*frame, selector):
        code += b"\x66\x68" + struct.pack("<H", value & 0xFFFF) if narrow else push(value)
    last = b"\xcb" if flags is None else b"\xcf"
    if narrow:  # CALL NEXT pushes 32 bits; the low half of the address is all that a 16-bit return takes
        return code + CALL_NEXT + b"\x58\x83\xc0\x08\x66\x50\x66" + last
    return code + CALL_NEXT + b"\x83\x04\x24\x05" + last


def change_code(place: int, value: int, then: bytes) -> bytes:
    """Change an entry of the GDT or the LDT under a segment that may be loaded from it, then do something."""
    address = (LDT if place & 4 else GDT) + (place & ~7)
    return b"".join(b"\x3e\xc7\x05" + word(address + 4 * n) + word(value >> 32 * n) for n in range(2)) + then


def table_code(selector: int) -> bytes:
    """LLDT."""
    return mov(EAX, selector) + b"\x0f\x00\xd0"


SEGMENTS = st.sampled_from((0, 2, 3, 4, 5))
FLAGS = st.sampled_from((0x2, 0x202, 0x3202, 0x1002, 0x40202))


def codes(levels: tuple[int, ...]) -> st.SearchStrategy[bytes]:
    """One thing to do."""
    chosen = selectors(levels)
    offsets, narrow = st.sampled_from((0, 4, 0xFFF, 0x8000)), st.booleans()
    loads = st.one_of(st.builds(load_code, SEGMENTS, chosen, offsets), st.builds(pop_code, SEGMENTS, chosen))
    targets = st.sampled_from((LANDING, 0xFFFFFFF0))
    transfers = st.one_of(
        st.builds(call_code, chosen, targets, narrow),
        st.builds(jump_code, chosen, targets, narrow),
        st.builds(return_code, chosen, chosen, st.one_of(st.none(), FLAGS), narrow),
    )
    plain = st.one_of(loads, loads, transfers)
    places = st.sampled_from((*SLOTS, *LOCAL))
    changes = st.builds(change_code, places, descriptors, plain)
    return st.one_of(plain, plain, changes, st.builds(table_code, st.sampled_from((LDT_SELECTOR, OTHER_LDT, 0, 3, 0x0C))))


def steps(levels: tuple[int, ...]) -> st.SearchStrategy[Step]:
    """A step of ring 0 or 3."""
    return st.builds(Step, codes(levels), st.sampled_from((0, 0, 3)), FLAGS.filter(lambda flags: not flags & 1 << 14))


def make_kernel(chosen: list[Step], gdt: list[int], local: list[int]) -> Kernel:
    """A kernel with these descriptors; its stacks of rings 1 and 2 are of 32 and of 16 bits."""
    table = dict(zip(SLOTS, gdt, strict=True))
    table |= {STACK_1 | 1: descriptor(0, 0xFFFFF, 3, dpl=1, granular=1), STACK_2: descriptor(0, 0xFFFF, 3, dpl=2, db=0)}
    table |= {LDT_SELECTOR: descriptor(LDT, 0x3F, 2, s=0), OTHER_LDT: descriptor(LDT + 8, 0x1F, 2, s=0)}
    octets = {LDT + 8 * n: value.to_bytes(8, "little") for n, value in enumerate(local)}
    octets[LANDING] = b"\xff\x25" + word(NEXT)  # JMP [NEXT]
    octets[TSS + 12] = word(0x7800) + word(STACK_1 | 1) + word(0x7400) + word(STACK_2 | 2)
    return Kernel(chosen, descriptors=table, octets=octets, gdt_bytes=GDT_BYTES)


def segment_kernels(levels: tuple[int, ...]) -> st.SearchStrategy[Kernel]:
    """Kernels whose selectors have these RPLs."""
    local = st.lists(descriptors, min_size=8, max_size=8)
    return st.builds(
        make_kernel,
        st.lists(steps(levels), min_size=1, max_size=6).map(lambda some: [Step(table_code(LDT_SELECTOR)), *some]),
        st.lists(descriptors, min_size=len(SLOTS), max_size=len(SLOTS)),
        local,
    )

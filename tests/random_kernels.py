"""Hypothesis strategies for small kernels: privileged and ordinary steps in rings 0 and 3, in any order."""

from __future__ import annotations

from hypothesis import strategies as st
from small_kernel import (
    ABSENT_CODE,
    ABSENT_DATA,
    CODE_0,
    CODE_3,
    CODE_READ,
    DATA,
    DATA_0,
    DATA_0_TOO,
    DATA_3,
    DIRECTORY,
    EAX,
    EBX,
    ECX,
    EDI,
    EDX,
    ESI,
    GDT,
    GDT_POINTER,
    IDT_POINTER,
    PTE_P,
    PTE_RW,
    PTE_US,
    READ_ONLY,
    SHORT_DATA,
    TABLE,
    TSS_SELECTOR,
    Kernel,
    Step,
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
    to_cr,
    word,
)

# Not the ring 3 code segment, which the VMM hides from the kernel: loading DS with it ends as `unsupported`.
SELECTORS = (
    0, 3, CODE_0, DATA_0, DATA_3, DATA_3 & ~3, READ_ONLY | 3, ABSENT_DATA | 3, CODE_READ, SHORT_DATA | 3,
    DATA_0_TOO, ABSENT_CODE, TSS_SELECTOR, 0x78, 0x7FF8, 0x0C,
)  # fmt: skip
PLAYGROUND = tuple(range(0x80000, 0x88000, 0x1000))  # pages whose entries the steps change
RIGHTS = (0, PTE_P, PTE_P | PTE_RW, PTE_P | PTE_US, PTE_P | PTE_RW | PTE_US)
RELOAD = from_cr(3) + to_cr(3)
IRET_FLAGS = (0x2, 0x202, 0x46, 0x3202, 0x8D7, 0x1002, 0x302, 0x4202, 0x40202)

registers = st.sampled_from((EAX, ECX, EDX, EBX, ESI, EDI))
values = st.one_of(st.sampled_from((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)), st.integers(0, 0xFFFFFFFF))
places = st.builds(lambda page, offset: page + offset, st.sampled_from(PLAYGROUND), st.integers(0, 0xFFF))
touched = st.one_of(places, st.integers(DATA, DATA + 0xFF0))
beyond = st.sampled_from((0x100000, 0x3FFFFC, 0x500000, 0x7FFFF0))  # not mapped
loads, stores = st.builds(load, registers, touched), st.builds(store, touched, values)
saves = st.builds(save, touched, registers)
adds = st.builds(lambda address, register: bytes([0x01, 0x05 | register << 3]) + word(address), touched, registers)
moves = st.builds(mov, registers, values)
arithmetic = st.builds(
    lambda operation, to, source: bytes([operation << 3 | 1, 0xC0 | source << 3 | to]),
    st.integers(0, 7), registers, registers,
)  # fmt: skip
shifts = st.builds(
    lambda to, which, count: bytes([0xC1, 0xC0 | which << 3 | to, count]),
    registers, st.sampled_from((0, 1, 4, 5, 7)), st.integers(0, 31),
)  # fmt: skip
divisions = st.builds(lambda divisor: mov(EDX, 0) + bytes([0xF7, 0xF0 | divisor]), registers)
stack = st.builds(
    lambda value, to: push(value) + bytes([0x58 + to]), values, registers
)  # fmt: skip
undefined = st.sampled_from((b"\x0f\x0b", b"\xf0\x90", b"\x0f\xff\xc0"))
interrupts = st.sampled_from((b"\xcd\x81", b"\xcd\x83", b"\xcd\x85", b"\xcd\x80", b"\xcd\xff", b"\xcc", b"\xcd\x0d"))
ports = st.sampled_from((b"\xe4\x80", b"\xe6\x80", b"\xb0\x41\xe6\xe9", b"\xe5\x80", b"\xe7\x80", b"\xe4\xe9"))


def port_string(operation: int, prefixes: bytes, port: int, count: int, source: int, target: int, down: bool) -> bytes:
    """INS or OUTS of a few elements."""
    registers = mov(EDX, port) + mov(ECX, count) + mov(ESI, source) + mov(EDI, target)
    return registers + (b"\xfd" if down else b"\xfc") + prefixes + bytes([operation])


port_strings = st.builds(
    port_string, st.integers(0x6C, 0x6F),
    st.sampled_from((b"", b"\xf3", b"\xf3", b"\xf2", b"\x66\xf3", b"\xf3\x64", b"\x26\xf3", b"\x2e")),
    st.sampled_from((0x80, 0xE9, 0x21)), st.integers(0, 9), touched, touched, st.booleans(),
)  # fmt: skip
segment_loads = st.builds(load_segment, st.sampled_from((0, 3, 4, 5)), st.sampled_from(SELECTORS))
segment_pops = st.builds(
    lambda selector, opcode: push(selector) + opcode,
    st.sampled_from(SELECTORS),
    st.sampled_from((b"\x07", b"\x1f", b"\x0f\xa1", b"\x0f\xa9")),
)
through_segments = st.builds(
    lambda prefix, register, offset: bytes([prefix, 0x8B, 0x05 | register << 3]) + word(offset),
    st.sampled_from((0x26, 0x64, 0x65, 0x3E, 0x2E, 0x36)), registers, st.sampled_from((0, 0xFFD, 0x20000, 0x80000)),
)  # fmt: skip

anywhere = st.one_of(loads, stores, saves, adds, moves, arithmetic, shifts, divisions, stack, undefined, interrupts)
anywhere = st.one_of(anywhere, ports, port_strings, segment_loads, segment_pops, through_segments)
forbidden_to_users = st.sampled_from(
    (b"\xfa", b"\xfb", b"\xf4", b"\x0f\x06", b"\x0f\x08", b"\x0f\x09", from_cr(0), from_cr(3), to_cr(3), to_cr(0),
     invlpg(DATA), lgdt(GDT_POINTER), lidt(IDT_POINTER), b"\x0f\x30", b"\x0f\x32", b"\x0f\x33", b"\x0f\x01\xf0", b"\x0f\x00\xd8")
)  # fmt: skip
faulting = st.one_of(st.builds(load, registers, beyond), st.builds(store, beyond, values))
user_code = st.one_of(anywhere, forbidden_to_users)


def index(page: int) -> int:
    """The offset of a page's entry in its table."""
    return page >> 12 << 2


def how_told(page: int, how: int) -> bytes:
    """Tell the TLB of an edit: INVLPG, or CR3 written."""
    return invlpg(page) if how == 0 else RELOAD


def edit(table: int, page: int, frame: int, rights: int, how: int) -> bytes:
    """Change an entry of a page table, and tell the TLB."""
    return store(table + index(page), frame | rights) + how_told(page, how)


def iret_in_kernel(flags: int) -> bytes:
    """An IRET within ring 0 to the next instruction: PUSH flags, PUSH CS, CALL +0; the frame's EIP is adjusted."""
    return push(flags) + push(CODE_0) + b"\xe8\x00\x00\x00\x00" + b"\x83\x04\x24\x05\xcf"


def far_jump_over(selector: int) -> bytes:
    """A far jump to the next instruction through a pointer on the stack."""
    return push(selector) + b"\xe8\x00\x00\x00\x00" + b"\x83\x04\x24\x07" + b"\xff\x2c\x24"


def read_msr(number: int) -> bytes:
    """RDMSR."""
    return mov(ECX, number) + b"\x0f\x32"


def write_msr(number: int, value: int) -> bytes:
    """WRMSR."""
    return mov(ECX, number) + mov(EAX, value) + mov(EDX, 0) + b"\x0f\x30"


def edit_descriptor(selector: int, octet: int) -> bytes:
    """Write the access byte of a descriptor in the table that is in use."""
    return b"\xc6\x05" + word(GDT + (selector & ~7) + 5) + bytes([octet])


page_edits = st.builds(
    edit, st.just(TABLE), st.sampled_from(PLAYGROUND), st.sampled_from((*PLAYGROUND, DATA)), st.sampled_from(RIGHTS),
    st.integers(0, 1),
)  # fmt: skip
msrs = st.one_of(
    st.builds(read_msr, st.sampled_from((0x174, 0x175, 0x176, 0x1B, 0x12345))),
    st.builds(write_msr, st.sampled_from((0x175, 0x176, 0x12345)), values),
    st.builds(write_msr, st.just(0x174), st.sampled_from((0, 8))),
)
control = st.sampled_from(
    (b"\xfa", b"\xfb", b"\xfb\xfa", set_cr(3, DIRECTORY), from_cr(0), from_cr(2), from_cr(3), from_cr(4), b"\x0f\x06",
     set_cr(2, 0x1234), set_cr(0, 0x8000_0011), set_cr(0, 0x8001_0011), set_cr(0, 0x8001_001B), set_cr(4, 0x10),
     set_cr(4, 0), set_cr(4, 0x4), set_cr(0, 0x8000_0000), set_cr(4, 0xFFFF0000), invlpg(DATA), b"\x0f\x09",
     lgdt(GDT_POINTER), lidt(IDT_POINTER), mov(EAX, DATA_0) + b"\x8e\xd0", mov(EAX, DATA_0_TOO) + b"\x8e\xd0",
     mov(EAX, DATA_3) + b"\x8e\xd0", mov(EAX, 0) + b"\x8e\xd0", mov(EAX, 0x0F) + b"\x0f\x01\xf0",
     b"\x0f\x21\xf0", b"\x0f\x21\xf8\x0f\x23\xf0", b"\x0f\x23\xc1\x0f\x21\xe0", b"\xce", b"\x0f\x08",
     push(DATA_0) + b"\x17", push(DATA_0_TOO) + b"\x17", push(DATA_3) + b"\x17")
)  # fmt: skip
descriptors = st.one_of(
    st.builds(edit_descriptor, st.just(DATA_0_TOO), st.sampled_from((0x92, 0x93, 0x12, 0x90))),
    st.builds(edit_descriptor, st.just(READ_ONLY), st.sampled_from((0xF0, 0xF1, 0xF2, 0x70))),
    st.builds(edit_descriptor, st.sampled_from((CODE_0, DATA_0)), st.sampled_from((0x9B, 0x9A, 0x93, 0x92))).filter(
        lambda code: (code[2] & 8 == CODE_0) == (code[-1] in (0x9A, 0x9B))
    ),
)
returns = st.one_of(
    st.builds(iret_in_kernel, st.sampled_from(IRET_FLAGS)),
    st.builds(far_jump_over, st.sampled_from((CODE_0, CODE_READ, ABSENT_CODE, DATA_0, CODE_3, 0, 0x7FF8))),
)
user_returns = st.builds(
    lambda flags, selector: push(flags) + push(selector) + b"\xe8\x00\x00\x00\x00\x83\x04\x24\x05\xcf",
    st.sampled_from(IRET_FLAGS[:-2]), st.sampled_from((CODE_3, CODE_3, CODE_0, CODE_0 | 3, 0)),
)  # fmt: skip
kernel_code = st.one_of(anywhere, page_edits, msrs, control, descriptors, returns)


def kernel_steps(code):
    """Steps of ring 0 made of some pieces."""
    return st.builds(lambda pieces: Step(b"".join(pieces)), st.lists(code, min_size=1, max_size=4))


def user_steps(code):
    """Steps of ring 3: interrupts on or off, single steps, IOPL 0 or 3.

    No IRET with IOPL 3: it would change IF on the bare machine, and deprivileged it does not, without a trap.
    """
    free, plain = st.sampled_from((0x202, 0x202, 0x2, 0x302)), st.sampled_from((0x3202, 0x3002))
    steps = [(st.lists(st.one_of(code, user_returns), min_size=1, max_size=4), free)]
    steps += [(st.lists(code, min_size=1, max_size=4), plain)]
    return st.one_of(*(st.builds(lambda p, flags: Step(b"".join(p), 3, flags), *pair) for pair in steps))


def steps(more):
    """Lists of steps, with some more kinds of pieces in either ring."""
    either = st.one_of(kernel_steps(st.one_of(kernel_code, more)), user_steps(st.one_of(user_code, more)))
    return st.lists(either, min_size=1, max_size=12)


paged = st.builds(lambda code, protect: Kernel(code, write_protect=protect), steps(faulting), st.booleans())
unpaged = st.builds(lambda code: Kernel(code, paging=False), steps(anywhere))
kernels = st.one_of(paged, paged, unpaged)

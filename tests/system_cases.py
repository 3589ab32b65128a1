"""Random system cases: tables whose entries are mostly sound, and what kernels do with them, right and wrong.

Every class below is a function of a generator of random numbers that gives one case; `CLASSES` names them.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from descriptor_machine import descriptor, gate
from small_kernel import word
from system_kernels import (
    CODE,
    CR0_FIXED,
    CR0_WP,
    DATA,
    DATA_SELECTOR,
    DIRECTORY,
    FIRST_FREE,
    FIRST_GATE,
    FRAMES,
    GDT,
    GDT_ENTRIES,
    IDT,
    IO_MAP_BYTES,
    LANDING,
    LDT_ENTRIES,
    LDT_SELECTOR,
    PTE_P,
    PTE_RW,
    PTE_US,
    STUBS,
    TSS,
    TSS_SELECTOR,
    VECTORS,
    WINDOW,
    WINDOW_PAGES,
    WINDOW_TABLE,
    Case,
    Tables,
    stack_top,
)

BOTH, BOCHS = ("bochs", "qemu"), ("bochs",)
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)
ES, CS, SS, DS, FS, GS = range(6)
NAMES = ("ES", "CS", "SS", "DS", "FS", "GS")
FLAGS_PLAIN = 0x8D5 | 0x400  # the arithmetic flags and DF
PTE_PWT, PTE_PCD, PTE_A, PTE_D, PTE_PS, PTE_G = 8, 16, 32, 64, 128, 256


# -- tables -------------------------------------------------------------------------------------------------------


def random_tables(rng: random.Random) -> Tables:
    """GDT, LDT, gates and I/O map of one kernel."""
    tables = Tables()
    for index in range(FIRST_FREE, GDT_ENTRIES):
        tables.gdt[index] = random_descriptor(rng, in_gdt=True)
    for index in range(LDT_ENTRIES):
        tables.ldt[index] = random_descriptor(rng, in_gdt=False)
    for vector in range(FIRST_GATE, VECTORS):
        tables.gates[vector] = random_interrupt_gate(rng)
    tables.io_map = bytes(rng.choice((0, 0xFF, rng.randrange(256))) for _ in range(IO_MAP_BYTES - 1)) + b"\xff"
    return tables


def random_descriptor(rng: random.Random, in_gdt: bool) -> int:
    """A code or data segment, or a system descriptor."""
    dpl, present = rng.randrange(4), int(rng.random() < 0.9)
    roll = rng.random()
    if roll < 0.15:
        return random_call_gate(rng, dpl, present)
    if roll < 0.22:
        kind = rng.choice((0, 2, 6, 7, 8, 10, 13, 14, 15))  # no task: a switch needs a sound task state
        if in_gdt and kind == 2:
            return descriptor(DATA, 8 * rng.randrange(9) - 1 & 0xFFFFF, 2, s=0, dpl=dpl, present=present, db=0)
        return descriptor(0, 0xFF, kind, s=0, dpl=dpl, present=present, db=0)
    kind = rng.randrange(16)
    base, limit, granular = rng.choice(
        ((0, 0xFFFFF, 1), (0, 0xFFFFF, 1), (WINDOW, 0xFFF, 0), (DATA, 0x3F, 0), (0, 0x140, 1), (WINDOW, 0, 1))
    )
    if kind & 8:
        base, limit, granular = rng.choice(((0, 0xFFFFF, 1), (0, 0xFFFFF, 1), (LANDING, 0x7FF, 0), (0, 0x11F, 1)))
    db = 1 if kind & 8 else int(rng.random() < 0.8)
    if kind & 8 and rng.random() < 0.1:
        db = 0
    return descriptor(base, limit, kind, dpl=dpl, present=present, db=db, granular=granular)


def random_call_gate(rng: random.Random, dpl: int, present: int) -> int:
    """A 32-bit call gate, seldom a 16-bit one."""
    kind = rng.choice((12, 12, 12, 4))
    count = rng.choice((0, 0, 1, 2, 5, 31))
    return gate(code_selector(rng), random_offset(rng), kind, dpl=dpl, present=present, count=count)


def random_interrupt_gate(rng: random.Random) -> int:
    """An interrupt or trap gate, seldom of 16 bits, seldom something that is none."""
    kind = rng.choice((14, 14, 14, 15, 15, 6, 7, 12, 0, 8, 2))
    dpl, present = rng.choice((3, 3, 3, 2, 1, 0)), int(rng.random() < 0.93)
    return gate(code_selector(rng), random_offset(rng), kind, dpl=dpl, present=present)


def random_offset(rng: random.Random) -> int:
    """A place in the landing area, by itself or from its start, seldom elsewhere."""
    return rng.choice(
        (LANDING + 2 * rng.randrange(0x700), LANDING + rng.randrange(0xF00), rng.randrange(0x900), rng.getrandbits(32))
    )


def selector(rng: random.Random) -> int:
    """Any selector: of a fixed segment, of a random one, null, of the LDT, beyond the limit."""
    roll = rng.random()
    rpl = rng.randrange(4)
    if roll < 0.07:
        return rpl
    if roll < 0.3:
        return rng.choice(CODE + DATA_SELECTOR) & ~3 | rpl
    if roll < 0.72:
        return rng.randrange(FIRST_FREE, GDT_ENTRIES) << 3 | rpl
    if roll < 0.95:
        return rng.randrange(LDT_ENTRIES) << 3 | 4 | rpl
    return rng.choice((TSS_SELECTOR, LDT_SELECTOR, GDT_ENTRIES << 3, LDT_ENTRIES << 3 | 4, 0xFFF8, 0xFFFC)) | rpl


def code_selector(rng: random.Random) -> int:
    """A selector that is often one of a code segment."""
    return rng.choice(CODE) & ~3 | rng.randrange(4) if rng.random() < 0.5 else selector(rng)


def registers(rng: random.Random) -> dict[int, int]:
    """Random general registers."""
    return {register: rng.getrandbits(32) for register in (EAX, ECX, EDX, EBX, EBP, ESI, EDI)}


def flags(rng: random.Random) -> int:
    """EFLAGS with random arithmetic flags, DF, IF and IOPL."""
    return rng.getrandbits(12) & FLAGS_PLAIN | rng.choice((0, 0x200)) | rng.randrange(4) << 12 | 2


def case(rng: random.Random, what: str, code: bytes, **options: object) -> Case:
    """A case in a random ring, unless told, with random registers and flags."""
    given = {"ring": rng.randrange(4), "flags": flags(rng), "registers": registers(rng), **options}
    return Case(what, code, **given)  # type: ignore[arg-type]


# -- segment loads --------------------------------------------------------------------------------------------------


def load_segment(rng: random.Random) -> Case:
    """MOV Sreg, r16 and POP Sreg; in ring 0 not SS, whose stack the handler would stand on."""
    segment = rng.choice((ES, SS, SS, DS, FS, GS))
    ring = rng.randrange(1, 4) if segment == SS else rng.randrange(4)
    value = selector(rng)
    if rng.random() < 0.5:
        values = registers(rng) | {EAX: value | rng.getrandbits(16) << 16}
        return case(
            rng,
            f"MOV {NAMES[segment]}, {value:#x}",
            b"\x8e" + bytes([0xC0 | segment << 3]),
            ring=ring,
            registers=values,
        )
    pop = {ES: b"\x07", SS: b"\x17", DS: b"\x1f", FS: b"\x0f\xa1", GS: b"\x0f\xa9"}[segment]
    return case(rng, f"POP {NAMES[segment]} of {value:#x}", pop, ring=ring, stack=(value, 0x11111111))


def load_pointer(rng: random.Random) -> Case:
    """LES, LDS, LSS, LFS, LGS."""
    segment, opcode = rng.choice(
        ((ES, b"\xc4"), (DS, b"\xc5"), (SS, b"\x0f\xb2"), (FS, b"\x0f\xb4"), (GS, b"\x0f\xb5"))
    )
    ring = rng.randrange(1, 4) if segment == SS else rng.randrange(4)
    value = selector(rng)
    pokes = [(DATA, rng.getrandbits(32)), (DATA + 4, value)]
    return case(rng, f"L{NAMES[segment]} EBX, {value:#x}", opcode + b"\x1d" + word(DATA), ring=ring, pokes=pokes)


def examine(rng: random.Random) -> Case:
    """LAR, LSL, VERR, VERW, ARPL."""
    value = selector(rng)
    name, code = rng.choice(
        (
            ("LAR ECX, AX", b"\x0f\x02\xc8"),
            ("LSL ECX, AX", b"\x0f\x03\xc8"),
            ("LAR CX, AX", b"\x66\x0f\x02\xc8"),
            ("LSL CX, AX", b"\x66\x0f\x03\xc8"),
            ("VERR AX", b"\x0f\x00\xe0"),
            ("VERW AX", b"\x0f\x00\xe8"),
            ("ARPL AX, CX", b"\x63\xc8"),
        )
    )
    return case(rng, f"{name}, AX {value:#x}", code, registers=registers(rng) | {EAX: value})


# -- far transfers ------------------------------------------------------------------------------------------------


def far_transfer(rng: random.Random) -> Case:
    """JMP and CALL, direct and through memory."""
    target, offset = code_selector(rng) if rng.random() < 0.6 else selector(rng), random_offset(rng)
    if target & ~7 == TSS_SELECTOR:
        target = LDT_SELECTOR  # a busy task
    name, direct, indirect = rng.choice((("JMP", b"\xea", b"\xff\x2d"), ("CALL", b"\x9a", b"\xff\x1d")))
    what = f"{name} {target:#x}:{offset:#x}"
    stack = tuple(rng.getrandbits(32) for _ in range(rng.randrange(8)))
    pokes = inner_stacks(rng)
    if rng.random() < 0.5:
        return case(rng, what, direct + word(offset) + struct.pack("<H", target), stack=stack, pokes=pokes)
    pokes += [(DATA + 8, offset), (DATA + 12, target)]
    return case(rng, what + " by memory", indirect + word(DATA + 8), pokes=pokes, stack=stack)


def inner_stacks(rng: random.Random) -> list[tuple[int, int]]:
    """Seldom: another stack of ring 1 or 2 in the TSS, mostly unsound."""
    if rng.random() < 0.8:
        return []
    ring = rng.choice((1, 2))
    esp = rng.choice((stack_top(ring), 0, 8, 0x1000, DATA + 0x40))
    return [(TSS + 4 + 8 * ring, esp), (TSS + 8 + 8 * ring, rng.choice((selector(rng), DATA_SELECTOR[ring])))]


def far_return(rng: random.Random) -> Case:
    """RET far, with and without parameters."""
    count = rng.choice((0, 0, 4, 8))
    target = code_selector(rng)
    if rng.random() < 0.6:
        target |= 3
    outer_ss = rng.choice((DATA_SELECTOR[target & 3], DATA_SELECTOR[target & 3], selector(rng)))
    stack = (random_offset(rng), target, *(0x22222222,) * (count // 4), DATA + 0x80, outer_ss)
    code = b"\xca" + struct.pack("<H", count) if count else b"\xcb"
    ring = rng.randrange(1, 4) if target & 3 == 0 else rng.randrange(4)
    return case(rng, f"RETF {count} to {target:#x}, SS {outer_ss:#x}", code, ring=ring, stack=stack)


def interrupt_return(rng: random.Random) -> Case:
    """IRETD to the same and to outer rings, with any EFLAGS but NT, VM and TF."""
    target = code_selector(rng)
    if rng.random() < 0.6:
        target |= 3
    outer_ss = rng.choice((DATA_SELECTOR[target & 3], DATA_SELECTOR[target & 3], selector(rng)))
    image = rng.getrandbits(32) & ~0x00024100
    image &= ~0x00040000
    stack = (random_offset(rng), target, image, DATA + 0x80, outer_ss)
    return case(rng, f"IRETD to {target:#x}, EFLAGS {image:#x}, SS {outer_ss:#x}", b"\xcf", stack=stack)


def software_interrupt(rng: random.Random) -> Case:
    """INT n, INT3, INTO."""
    roll = rng.random()
    if roll < 0.8:
        vector = rng.choice(
            (rng.randrange(FIRST_GATE, VECTORS), rng.randrange(FIRST_GATE, VECTORS), rng.randrange(256))
        )
        if vector == 2:
            vector = 3  # an NMI's gate is like any other, but Bochs and QEMU know NMI windows
        return case(rng, f"INT {vector:#x}", b"\xcd" + bytes([vector]), pokes=inner_stacks(rng))
    return case(rng, "INT3", b"\xcc") if roll < 0.9 else case(rng, "INTO", b"\xce")


# -- limits ---------------------------------------------------------------------------------------------------------


def segment_access(rng: random.Random) -> Case:
    """A data segment loaded and used at, before and behind its limit."""
    value = selector(rng) if rng.random() < 0.5 else rng.randrange(FIRST_FREE, GDT_ENTRIES) << 3 | rng.randrange(4)
    segment, prefix = rng.choice(((ES, b"\x26"), (FS, b"\x64"), (GS, b"\x65"), (DS, b"\x3e")))
    offset = rng.choice((0, 0x3C, 0x3D, 0x3E, 0x3F, 0x40, 0xFFC, 0xFFD, 0xFFF, 0x1000, 0xFFFF, 0x10000, DATA, 0x140FFD))
    name, code = rng.choice(
        (
            ("MOV AL, [m]", b"\x8a\x05"),
            ("MOV AX, [m]", b"\x66\x8b\x05"),
            ("MOV EAX, [m]", b"\x8b\x05"),
            ("MOV [m], CL", b"\x88\x0d"),
            ("MOV [m], CX", b"\x66\x89\x0d"),
            ("MOV [m], ECX", b"\x89\x0d"),
            ("ADD [m], ECX", b"\x01\x0d"),
            ("CMP [m], CL", b"\x38\x0d"),
        )
    )
    load = b"\x66\xb8" + struct.pack("<H", value) + b"\x8e" + bytes([0xC0 | segment << 3])
    what = f"{NAMES[segment]} = {value:#x}, {name} at {offset:#x}"
    return case(rng, what, load + prefix + code + word(offset), judges=BOCHS)


def stack_access(rng: random.Random) -> Case:
    """SS loaded in an outer ring and used near a limit."""
    value = rng.randrange(FIRST_FREE, GDT_ENTRIES) << 3 if rng.random() < 0.7 else selector(rng)
    ring = rng.randrange(1, 4)
    value = value & ~3 | ring
    # Not 2: whether an access that wraps at 4 GB keeps within a limit of 4 GB is up to the processor (SDM volume 3, 5.3).
    offset = rng.choice((0, 0x3E, 0x40, 0x42, 0x1000, 0x1002, 0x10000, DATA + 0x40))
    name, code = rng.choice(
        (
            ("PUSH ECX", b"\x51"),
            ("POP ECX", b"\x59"),
            ("PUSH CX", b"\x66\x51"),
            ("CALL near", b"\xe8\0\0\0\0"),
            ("PUSHFD", b"\x9c"),
            ("ENTER 8, 0", b"\xc8\x08\0\0"),
            ("LEAVE", b"\xc9"),
            ("MOV EAX, [EBP]", b"\x8b\x45\0"),
            ("PUSHAD", b"\x60"),
        )
    )
    load = b"\x66\xb8" + struct.pack("<H", value) + b"\x8e\xd0" + b"\xbc" + word(offset)
    values = registers(rng) | {EBP: offset}
    return case(
        rng, f"SS = {value:#x}, ESP {offset:#x}, {name}", load + code, ring=ring, registers=values, judges=BOCHS
    )


# -- paging -----------------------------------------------------------------------------------------------------------


def paging(rng: random.Random) -> Case:
    """One access under random bits of PDE and PTE, in a random ring, with CR0.WP or without."""
    number = rng.randrange(WINDOW_PAGES - 1)
    entry = FRAMES + 0x1000 * number | rng.getrandbits(12) & 0xE7F | rng.choice((PTE_P, PTE_P, PTE_P | PTE_US | PTE_RW))
    next_entry = FRAMES + 0x1000 * (number + 1) | rng.choice((0, 1, 5, 7, 7, 7))
    directory = WINDOW_TABLE | rng.choice((0, 1, 3, 5, 7, 7, 7, 7)) | rng.getrandbits(7) & 0x38
    address = WINDOW + 0x1000 * number + rng.choice((0, 0x800, 0xFFC, 0xFFD, 0xFFE, 0xFFF))
    name, code = rng.choice(
        (
            ("MOV AL, [m]", b"\xa0" + word(address)),
            ("MOV EAX, [m]", b"\xa1" + word(address)),
            ("MOV [m], AX", b"\x66\xa3" + word(address)),
            ("MOV [m], EAX", b"\xa3" + word(address)),
            ("ADD [m], EAX", b"\x01\x05" + word(address)),
            ("CMP [m], EAX", b"\x39\x05" + word(address)),
            ("XCHG [m], EAX", b"\x87\x05" + word(address)),
            ("PUSH dword [m]", b"\xff\x35" + word(address)),
            ("JMP there", b"\xb8" + word(address & ~0xFFF | 0x400) + b"\xff\xe0"),
            ("LGDT [m]", b"\x0f\x01\x15" + word(address)),
            ("BOUND EAX, [m]", b"\x62\x05" + word(address)),
        )
    )
    pokes = [
        (WINDOW_TABLE + 4 * number, entry),
        (WINDOW_TABLE + 4 * number + 4, next_entry),
        (DIRECTORY + 4, directory),
    ]
    what = f"{name} at {address:#x}, PDE {directory & 0xFFF:#x}, PTE {entry & 0xFFF:#x}, next {next_entry & 0xFFF:#x}"
    ring = rng.choice((0, 0, 1, 2, 3, 3, 3))
    if name == "LGDT [m]":
        ring = ring or 3
    judges = BOCHS if name.startswith(("ADD", "XCHG")) else BOTH  # QEMU reads before it asks to write
    return case(rng, what, code, ring=ring, judges=judges, cr0=CR0_FIXED | rng.choice((0, CR0_WP)), pokes=pokes)


# -- privilege --------------------------------------------------------------------------------------------------------


def privileged(rng: random.Random) -> Case:
    """Instructions that a ring, IOPL or nothing forbids."""
    ring = rng.randrange(4)
    anywhere = [
        ("CLI", b"\xfa"),
        ("STI", b"\xfb\x90"),
        ("PUSHFD", b"\x9c"),
        ("POPFD", b"\x9d"),
        ("POPF", b"\x66\x9d"),
        ("SMSW EAX", b"\x0f\x01\xe0"),
        ("SGDT", b"\x0f\x01\x05" + word(DATA)),
        ("SIDT", b"\x0f\x01\x0d" + word(DATA)),
        ("SLDT EAX", b"\x0f\x00\xc0"),
        ("STR EAX", b"\x0f\x00\xc8"),
        ("CLTS", b"\x0f\x06"),
        ("MOV EAX, CR0", b"\x0f\x20\xc0"),
        ("MOV EAX, CR3", b"\x0f\x20\xd8"),
        ("MOV EAX, CR1", b"\x0f\x20\xc8"),
        ("INVLPG", b"\x0f\x01\x3d" + word(DATA)),
        ("LLDT AX", b"\x0f\x00\xd0"),
        ("UD2", b"\x0f\x0b"),
        ("MOV CS, AX", b"\x8e\xc8"),
        ("LOCK MOV", b"\xf0\x89\xc0"),
        ("DIV ECX", b"\xf7\xf1"),
    ]
    outside = [("HLT", b"\xf4"), ("LGDT", b"\x0f\x01\x15" + word(DATA)), ("LIDT", b"\x0f\x01\x1d" + word(DATA))]
    outside += [("LMSW AX", b"\x0f\x01\xf0"), ("MOV CR0, EAX", b"\x0f\x22\xc0"), ("MOV CR3, EAX", b"\x0f\x22\xd8")]
    outside += [("LTR AX", b"\x0f\x00\xd8"), ("RDMSR", b"\x0f\x32"), ("WRMSR", b"\x0f\x30"), ("WBINVD", b"\x0f\x09")]
    name, code = rng.choice(anywhere + outside if ring else anywhere)
    value = selector(rng)
    stack = (rng.getrandbits(32) & ~0x00064100,)
    if name == "LLDT AX":
        name += f", {value:#x}"
    judges = BOCHS if name in ("MOV EAX, CR1", "LOCK MOV") else BOTH  # QEMU: #GP first; no #UD
    values = registers(rng) | {EAX: value, EDX: rng.randrange(4)}
    return case(rng, name, code, ring=ring, judges=judges, registers=values, stack=stack)


def port(rng: random.Random) -> Case:
    """IN and OUT under IOPL and the I/O map; the ports answer alike everywhere."""
    number = rng.choice((0x80, 0x84, 0x85, 0x86, 0x8C, 0x8D, 0x8E))
    name, code = rng.choice(
        (
            ("OUT imm, AL", b"\xe6" + bytes([number])),
            ("OUT imm, AX", b"\x66\xe7" + bytes([number])),
            ("OUT imm, EAX", b"\xe7" + bytes([number])),
            ("OUT DX, AL", b"\xee"),
            ("OUT DX, EAX", b"\xef"),
        )
    )
    return case(rng, f"{name}, port {number:#x}", code, registers=registers(rng) | {EDX: number})


# -- virtual-8086 mode ----------------------------------------------------------------------------------------------


def virtual_8086(rng: random.Random) -> Case:
    """IRETD into virtual-8086 mode, where a few bytes that lie among the data are executed."""
    number = rng.choice((0x80, 0x85, 0x8E))
    address = struct.pack("<H", rng.choice((0x80, 0xFFE, 0xFFFE, 0xFFFF)))
    name, code = rng.choice(
        (
            ("INT", bytes([0xCD, rng.choice((rng.randrange(FIRST_GATE, VECTORS), rng.randrange(3, 32)))])),
            ("INT3", b"\xcc"),
            ("INTO", b"\xce"),
            ("CLI", b"\xfa"),
            ("STI", b"\xfb\x90"),
            ("PUSHF", b"\x9c"),
            ("POPF", b"\x9d"),
            ("PUSHFD", b"\x66\x9c"),
            ("POPFD", b"\x66\x9d"),
            ("IRET", b"\xcf"),
            ("IRETD", b"\x66\xcf"),
            ("HLT", b"\xf4"),
            ("MOV EAX, CR0", b"\x0f\x20\xc0"),
            ("CLTS", b"\x0f\x06"),
            ("LGDT", b"\x0f\x01\x16\x80\0"),
            ("LMSW", b"\x0f\x01\xf0"),
            ("SMSW", b"\x0f\x01\xe0"),
            ("SGDT", b"\x0f\x01\x06\x80\0"),
            ("SLDT", b"\x0f\x00\xc0"),
            ("STR", b"\x0f\x00\xc8"),
            ("LLDT", b"\x0f\x00\xd0"),
            ("VERR", b"\x0f\x00\xe0"),
            ("LAR", b"\x0f\x02\xc8"),
            ("ARPL", b"\x63\xc8"),
            ("OUT imm, AL", b"\xe6" + bytes([number])),
            ("OUT imm, EAX", b"\x66\xe7" + bytes([number])),
            ("MOV DS, AX", b"\x8e\xd8"),
            ("POP ES", b"\x07"),
            ("LES", b"\xc4\x1e\x80\0"),
            ("JMP far", b"\xea\x90\0\0\x12"),
            ("CALL far", b"\x9a\x90\0\0\x12"),
            ("RETF", b"\xcb"),
            ("RETFD", b"\x66\xcb"),
            ("MOV AX, [m]", b"\xa1" + address),
            ("MOV [m], EAX", b"\x66\xa3" + address),
            ("MOV EAX, [m32]", b"\x67\xa1" + word(rng.choice((0x80, 0xFFFE, 0x10000, 0x112080)))),
            ("PUSHA", b"\x60"),
            ("MOV AX, [BP]", b"\x8b\x46\0"),
        )
    )
    iopl = rng.choice((0, 1, 2, 3, 3, 3))
    image = rng.getrandbits(12) & 0xAD5 | iopl << 12 | 1 << 17 | 2
    segments = [rng.choice((0x1200, 0x1200, 0x1201, 0x1100, 0x2000, rng.randrange(0x10000))) for _ in range(4)]
    octets = (code + b"\xcd\x40" * 6)[:16].ljust(16, b"\x90")
    pokes = [
        (DATA + 0x40 + 4 * place, int.from_bytes(octets[4 * place : 4 * place + 4], "little")) for place in range(4)
    ]
    pokes += [(DATA + 0x80, 0x12000090), (DATA + 0x90, 0x40CD40CD)]
    wide = name in ("IRETD", "RETFD")
    pokes += [(DATA + 0xC0 + 4 * place, value) for place, value in enumerate(virtual_stack(rng, wide))]
    stack_pointer = 0xC0
    if name.startswith(("PUSH", "INT", "CALL")):
        stack_pointer = rng.choice((0xC0, 1, 0xFFFF))
    stack = (0x40, 0x1200, image, stack_pointer, 0x1200, *segments)
    return case(rng, f"{name}, IOPL {iopl}", b"\xcf", ring=0, pokes=pokes, stack=stack, judges=BOCHS)


def virtual_stack(rng: random.Random, wide: bool) -> tuple[int, ...]:
    """What RETF and IRET, of 16 or 32 bits, find there: 0090 in segment 1200, flags without TF and NT."""
    if not wide:
        return 0x12000090, rng.getrandbits(32) & ~0x41004100 & 0xFFFFFFFF, 0
    return 0x90, 0x1200, rng.getrandbits(32) & ~0x00064100


# -- traps, breakpoints, alignment, x87 -------------------------------------------------------------------------------


def single_step(rng: random.Random) -> Case:
    """TF set by IRETD or POPFD, over instructions that treat it differently."""
    name, code = rng.choice(
        (
            ("NOP", b"\x90\x90"),
            ("MOV SS, AX; NOP", b"\x8e\xd0\x90\x90"),
            ("POP SS; NOP", b"\x17\x90\x90"),
            ("PUSHFD", b"\x9c\x58"),
            ("INT3", b"\xcc"),
            ("INT 0x40", b"\xcd\x40"),
            ("MOV DS, AX", b"\x8e\xd8\x90"),
            ("DIV", b"\xf7\xf1"),
            ("UD2", b"\x0f\x0b"),
            ("REP STOSB", b"\xb9\x03\0\0\0\xbf" + word(DATA) + b"\xf3\xaa"),
            ("JMP", b"\xeb\0\x90"),
            ("MOV [0], AL", b"\xa2\0\0\0\0"),
        )
    )
    ring = rng.randrange(1, 4)
    values = registers(rng) | {EAX: DATA_SELECTOR[ring], ECX: 0}
    given = flags(rng) | 0x100
    return case(rng, name, code, ring=ring, flags=given, registers=values, stack=(DATA_SELECTOR[ring], 2), judges=BOCHS)


def breakpoint(rng: random.Random) -> Case:
    """One debug register that watches code, data or a write, and an access at or beside it."""
    number, kind, length = rng.randrange(4), rng.choice((1, 3)), rng.choice((0, 1, 3))
    place = DATA + 0x40 & ~length
    touched = DATA + 0x40 + rng.choice((-1, 0, 0, 0, 1, 2, 3, 4))
    name, code = rng.choice(
        (
            ("MOV AL, [m]", b"\xa0" + word(touched)),
            ("MOV EAX, [m]", b"\xa1" + word(touched)),
            ("MOV [m], AL", b"\xa2" + word(touched)),
            ("MOV [m], EAX", b"\xa3" + word(touched)),
            ("INC byte [m]", b"\xfe\x05" + word(touched)),
            ("PUSH [m]", b"\xff\x35" + word(touched)),
        )
    )
    enable = rng.choice((1, 2, 3, 0)) << 2 * number
    control = enable | 0x400 | (kind | length << 2) << 16 + 4 * number
    setup = b"\xb8" + word(place) + bytes([0x0F, 0x23, 0xC0 | number << 3]) + b"\xb8" + word(control) + b"\x0f\x23\xf8"
    what = f"{name} at {touched:#x}, DR{number} {place:#x}, DR7 {control:#x}"
    return case(rng, what, code + b"\x90", setup=setup, judges=BOCHS)


def alignment(rng: random.Random) -> Case:
    """An access at any address under CR0.AM and EFLAGS.AC."""
    address = DATA + rng.randrange(0x40)
    name, code = rng.choice(
        (
            ("MOV AX, [m]", b"\x66\xa1" + word(address)),
            ("MOV EAX, [m]", b"\xa1" + word(address)),
            ("MOV [m], EAX", b"\xa3" + word(address)),
            ("ADD [m], AX", b"\x66\x01\x05" + word(address)),
            ("PUSH [m]", b"\xff\x35" + word(address)),
            ("MOVSD", b"\xbe" + word(address) + b"\xbf" + word(DATA + 0x80) + b"\xa5"),
            ("XCHG [m], EAX", b"\x87\x05" + word(address)),
            ("CMPXCHG8B [m]", b"\x0f\xc7\x0d" + word(address)),
            ("LES EBX, [m]", b"\xc4\x1d" + word(address)),
            ("SGDT [m]", b"\x0f\x01\x05" + word(address)),
            ("BOUND", b"\x62\x05" + word(address)),
        )
    )
    cr0 = CR0_FIXED | rng.choice((0, 1 << 18, 1 << 18, 1 << 18))
    given = flags(rng) & ~0x400 | rng.choice((0, 1 << 18, 1 << 18))
    return case(
        rng, f"{name} at {address:#x}", code, ring=rng.choice((0, 1, 2, 3, 3, 3)), flags=given, cr0=cr0, judges=BOCHS
    )


def floating_point(rng: random.Random) -> Case:
    """x87 instructions under CR0.TS, EM and MP: #NM or not."""
    name, code = rng.choice(
        (
            ("FWAIT", b"\x9b"),
            ("FNOP", b"\xd9\xd0"),
            ("FLD1", b"\xdb\xe3\xd9\xe8"),
            ("FNINIT", b"\xdb\xe3"),
            ("FNCLEX", b"\xdb\xe2"),
            ("FNSTSW AX", b"\xdb\xe3\xdf\xe0"),
            ("FNSTCW [m]", b"\xdb\xe3\xd9\x3d" + word(DATA)),
            ("FSTP at page 0", b"\xdb\xe3\xd9\xe8\xd9\x1d\0\0\0\0"),
        )
    )
    cr0 = CR0_FIXED | rng.getrandbits(3) << 1
    return case(rng, f"{name}, CR0 {cr0:#x}", code, cr0=cr0, judges=BOCHS)


def double_fault(rng: random.Random) -> Case:
    """A fault whose own gate is unsound: #NP, #GP, #TS or a page fault in its delivery, seldom a double fault."""
    vector, name, code = rng.choice(
        (
            (0, "DIV", b"\x31\xc9\xf7\xf1"),
            (3, "INT3", b"\xcc"),
            (6, "UD2", b"\x0f\x0b"),
            (13, "#GP", b"\xb8\xf8\xff\0\0\x8e\xd8"),
            (14, "#PF", b"\xa1\0\0\0\0"),
            (11, "#NP", b"\xcd\x41"),
        )
    )
    made = rng.choice(
        (
            gate(CODE[0], STUBS + 16 * vector, 14, present=0),
            gate(0, STUBS, 14),
            gate(0xFFF8, STUBS, 14),
            gate(DATA_SELECTOR[0], STUBS, 14),
            gate(CODE[3], LANDING, 14),
            gate(CODE[0], STUBS, 2),
        )
    )
    pokes = [(IDT + 8 * vector, made & 0xFFFFFFFF), (IDT + 8 * vector + 4, made >> 32)]
    return case(rng, f"{name} by {made:#x}", code, pokes=pokes)


# -- tasks ------------------------------------------------------------------------------------------------------------


def task_switch(rng: random.Random) -> Case:
    """JMP, CALL, INT and IRET to another task, whose task-state segment is mostly sound."""
    target, task_gate = GDT_ENTRIES - 1 << 3, GDT_ENTRIES - 2 << 3
    ring = rng.randrange(4)
    segments = [DATA_SELECTOR[3], CODE[ring], DATA_SELECTOR[ring], DATA_SELECTOR[3], DATA_SELECTOR[3], DATA_SELECTOR[3]]
    local = LDT_SELECTOR
    # In ring 0 the new task's fault stands on the new stack: there CS, SS and LDT are sound.
    if rng.random() < 0.4:
        segments[rng.choice((0, 3, 4, 5, 1, 2)[: 6 if ring else 4])] = selector(rng)
    segments[CS] = segments[CS] & ~3 | ring  # an unsound CS of RPL 0 would leave its fault no stack
    if ring and rng.random() < 0.1:
        local = selector(rng)
    general = [rng.getrandbits(32) for _ in range(8)]
    general[ESP] = stack_top(ring)
    stacks = [value for inner in range(3) for value in (stack_top(inner), DATA_SELECTOR[inner])]
    new_flags = flags(rng) | rng.choice((0, 0, 0x4000))
    begin = LANDING + 2 * rng.randrange(0x700)
    state = [TSS_SELECTOR, *stacks, DIRECTORY, begin, new_flags, *general, *segments, local, 104 << 16]
    place = DATA + 0x80
    pokes = [(place + 4 * number, value) for number, value in enumerate(state)]
    returning = rng.random() < 0.2
    kind = 11 if returning else rng.choice((9, 9, 9, 9, 11))
    limit = rng.choice((0x67, 0x67, 0x67, 0x67, 0xFF, 0x66))
    made = descriptor(place, limit, kind, s=0, dpl=rng.choice((3, 3, 0)), present=int(rng.random() < 0.95), db=0)
    pokes += [(GDT + target, made & 0xFFFFFFFF), (GDT + target + 4, made >> 32)]
    made = gate(rng.choice((target, target, target, TSS_SELECTOR)), 0, 5, dpl=rng.choice((3, 3, 0)))
    pokes += [(GDT + task_gate, made & 0xFFFFFFFF), (GDT + task_gate + 4, made >> 32)]
    pokes += [(IDT + 8 * FIRST_GATE, made & 0xFFFFFFFF), (IDT + 8 * FIRST_GATE + 4, made >> 32)]
    if returning:
        pokes.append((TSS, target))
        given = flags(rng) | 0x4000
        return case(
            rng, f"IRETD with NT to {segments}, LDT {local:#x}", b"\xcf", ring=0, flags=given, pokes=pokes, judges=BOCHS
        )
    through = rng.choice((target, task_gate)) | rng.randrange(4)
    name, code = rng.choice(
        (
            (f"JMP {through:#x}", b"\xea\0\0\0\0" + struct.pack("<H", through)),
            (f"CALL {through:#x}", b"\x9a\0\0\0\0" + struct.pack("<H", through)),
            ("INT", bytes([0xCD, FIRST_GATE])),
        )
    )
    return case(rng, f"{name} to ring {ring} {segments}, LDT {local:#x}", code, pokes=pokes, judges=BOCHS)


CLASSES: dict[str, Callable[[random.Random], Case]] = {
    "segment loads": load_segment,
    "far pointers": load_pointer,
    "LAR to ARPL": examine,
    "far transfers": far_transfer,
    "far returns": far_return,
    "interrupt returns": interrupt_return,
    "software interrupts": software_interrupt,
    "segment accesses": segment_access,
    "stack accesses": stack_access,
    "paging": paging,
    "privilege": privileged,
    "ports": port,
    "virtual-8086": virtual_8086,
    "single steps": single_step,
    "breakpoints": breakpoint,
    "alignment": alignment,
    "x87 switches": floating_point,
    "faults in delivery": double_fault,
    "task switches": task_switch,
}


def random_kernel(seed: int, count: int, names: tuple[str, ...] = tuple(CLASSES)) -> tuple[list[Case], Tables]:
    """`count` cases of the named classes and their tables, from a seed."""
    rng = random.Random(seed)
    tables = random_tables(rng)
    cases = []
    for _ in range(count):
        name = rng.choice(names)
        made = CLASSES[name](rng)
        made.what = f"{name}: {made.what}"
        cases.append(made)
    return cases, tables

"""Every row of the instruction table that is sensitive, as examples with operands that make sense, in every mode.

The modes are: ring 0 with interrupts on and off, ring 3 with IOPL 0 and 3 and interrupts on and off; each with operands
of 32 and 16 bits, in memory and in registers. An example leaves its results in registers, in memory and, by a trap
behind it, in the log of the kernel's handlers.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from small_kernel import (
    CODE_0,
    CODE_3,
    CODE_READ,
    DATA,
    DATA_0,
    DATA_3,
    DIRECTORY,
    EAX,
    ECX,
    EDI,
    EDX,
    ESI,
    GDT,
    GDT_BYTES,
    IDT,
    IDT_BYTES,
    READ_ONLY,
    SHORT_DATA,
    TSS_SELECTOR,
    Kernel,
    Step,
    mov,
    push,
    save,
    store,
    word,
)
from vmm_judge import EQUAL, judge
from vmm_pieces import furnished

from x86virt.isa.rows import INNOCUOUS, Row
from x86virt.isa.table import ROWS

OPERAND, RESULT, ON = DATA + 0x10, DATA + 0x40, 0x5F800  # where a transfer of ring 0 goes on
SENSITIVE_ROWS = tuple(row for row in ROWS if row.sensitivity != INNOCUOUS)
GDT_OPERAND = struct.pack("<HI", GDT_BYTES - 1, GDT)
IDT_OPERAND = struct.pack("<HI", IDT_BYTES - 1, IDT)
CR_VALUES = {
    0: (0x8000_0011, 0x8001_003B),
    2: (0x1234,),
    3: (DIRECTORY, DIRECTORY | 0x18),
    4: (0x10, 0x90, 0x4, 0xFFFF_0000),
}
SELECTORS = (0, CODE_0, DATA_0, DATA_3, CODE_3, READ_ONLY | 3, SHORT_DATA | 3, TSS_SELECTOR, 0x7FF8, 0x60, 0x68, 0x70)
AT = DATA + 0x200
STOP = b"\xcd\x80"  # logs, in either ring


@dataclass(frozen=True)
class Case:
    """An example of a row in a mode."""

    row: Row
    mode: str
    step: Step


def prefixed(row: Row, wide: bool) -> bytes:
    """The opcode, with an operand-size prefix if asked for."""
    return (b"" if wide else b"\x66") + bytes(row.opcode)


def immediates(row: Row, wide: bool) -> bytes:
    """Immediates: port 0x80, vector 0x81, eight bytes to release, a far pointer to where ring 0 goes on."""
    octets = b""
    for name in row.immediates:
        if name == "ap":
            octets += (word(ON) if wide else struct.pack("<H", ON & 0xFFFF)) + struct.pack("<H", CODE_0)
        else:
            octets += {"ib": b"\x81" if row.mnemonic == "INT" else b"\x80", "iw": b"\x08\x00", "iz": word(0)}[name]
    return octets


def forms(row: Row, wide: bool) -> list[bytes]:
    """The instruction with a register operand and with one in memory, as far as the row has them."""
    if not row.modrm:
        return [prefixed(row, wide) + immediates(row, wide)]
    field = int(row.modrm) if row.modrm.isdigit() else 0
    fields = [field]
    if "Sw" in row.operands:
        fields = [0, 1, 2, 3, 4, 5, 6]
    elif "Dd" in row.operands:
        fields = [0, 3, 4, 6, 7]
    found = []
    for number in fields:
        if not any(operand.startswith("M") for operand in row.operands):
            found.append(prefixed(row, wide) + bytes([0xC0 | number << 3]))
        if not {"Cd", "Dd"} & set(row.operands):
            found.append(prefixed(row, wide) + bytes([number << 3 | 5]) + word(OPERAND))
    return [octets + immediates(row, wide) for octets in found]


def operands(row: Row, wide: bool) -> list[bytes]:
    """What is prepared before: registers, the operand in memory, the stack."""
    name = row.mnemonic
    if name in ("LAR", "LSL", "VERR", "VERW", "LLDT", "LTR", "ARPL") or (name == "MOV" and "Ew" in row.operands):
        return [mov(EAX, selector) + store(OPERAND, selector) for selector in SELECTORS]
    if name == "MOV" and row.operands == ("Cd", "Rd"):
        return [mov(EAX, value) for value in CR_VALUES[row.opcode[-1] if not row.modrm else int(row.modrm)]]
    if name in ("LGDT", "LIDT"):
        octets = GDT_OPERAND if name == "LGDT" else IDT_OPERAND
        return [
            store(OPERAND, int.from_bytes(octets[:4], "little"))
            + store(OPERAND + 4, int.from_bytes(octets[4:], "little"))
        ]
    if name == "LMSW":
        return [mov(EAX, value) + store(OPERAND, value) for value in (0x1, 0x10, 0x1B)]
    if name in ("POPF", "POP"):
        size = push if wide else push_word
        return [size(value) for value in ((0x202, 0x2, 0x3202, 0x8D7, 0x40246) if name == "POPF" else SELECTORS)]
    if name in ("RDMSR", "WRMSR"):
        return [mov(ECX, number) + mov(EAX, 0x30) + mov(EDX, 0) for number in (0x175, 0x12345)]
    if name.startswith("L") and "Mp" in row.operands:
        return [store(OPERAND, 0x1234) + store(OPERAND + (4 if wide else 2), selector) for selector in SELECTORS]
    if name in ("JMPF", "CALLF") and "Mp" in row.operands:
        return [
            store(OPERAND, ON) + store(OPERAND + (4 if wide else 2), selector)
            for selector in (CODE_0, CODE_3, CODE_READ, DATA_0, 0, 0x58)
        ]
    if name == "RETF":
        return [far_frame(wide, [(selector, ON)]) for selector in (CODE_0, CODE_3, DATA_0, 0)]
    if name == "IRET":
        return [far_frame(wide, [(CODE_0, ON)], flags) for flags in (0x2, 0x202, 0x3246, 0x8D7)]
    if name in ("INS", "OUTS"):
        return [mov(EDX, port) + mov(ESI, AT) + mov(EDI, AT + 0x20) + b"\xfc" for port in (0x80, 0xE9)]
    if name in ("IN", "OUT"):
        return [mov(EDX, 0x80) + mov(EAX, 0x1234_5641)]
    if name == "INTO":
        return [mov(EAX, 0x7FFF_FFFF) + b"\x83\xc0\x01", b"\x31\xc0"]
    if name == "SYSEXIT":
        return [mov(EDX, 0x1000) + mov(ECX, 0x30F00)]
    return [mov(EAX, 0x1234_5678)]


def push_word(value: int) -> bytes:
    """PUSH imm16."""
    return b"\x66\x68" + struct.pack("<H", value & 0xFFFF)


def far_frame(wide: bool, targets: list[tuple[int, int]], flags: int | None = None) -> bytes:
    """What RETF or IRET pops."""
    size = push if wide else push_word
    code = b"" if flags is None else size(flags)
    return code + b"".join(size(selector) + size(target) for selector, target in targets)


def example(row: Row, wide: bool) -> Iterator[bytes]:
    """Codes that prepare, execute, and keep what came out."""
    kept = save(RESULT, EAX) + save(RESULT + 4, EDX) + save(RESULT + 8, 4) + b"\x0f\x94\x05" + word(RESULT + 12)
    for prepared in operands(row, wide):
        for octets in forms(row, wide):
            yield prepared + octets + kept + STOP


MODES = {
    "ring 0, interrupts off": (0, b"\xfa", 0x202),
    "ring 0, interrupts on": (0, b"\xfb\x90", 0x202),
    "ring 3": (3, b"", 0x202),
    "ring 3, interrupts off": (3, b"", 0x2),
    "ring 3, IOPL 3": (3, b"", 0x3202),
    "ring 3, IOPL 3, interrupts off": (3, b"", 0x3002),
}


def cases(row: Row) -> Iterator[Case]:
    """Every example of a row in every mode."""
    for mode, (ring, before, flags) in MODES.items():
        for wide in (True, False):
            for code in example(row, wide):
                if row.mnemonic == "HLT" and ring == 0:
                    continue  # nothing would wake it: the run's end, which has tests of its own
                yield Case(row, f"{mode}, {32 if wide else 16} bits", Step(before + code, ring, flags))


def kernel_of(found: list[Case]) -> Kernel:
    """One kernel of some cases."""
    kernel = furnished([case.step for case in found])
    kernel.octets[ON] = b"\x42" + STOP
    kernel.octets[ON & 0xFFFF] = b"\x43" + STOP  # where a far pointer of 16 bits leads
    return kernel


MOST_CASES = 48  # of one kernel


def drawn(row: Row, found: list, most: int) -> list:
    """So many of a row's cases, drawn alike each time."""
    return found if len(found) <= most else random.Random(row.name).sample(found, most)


def some_cases(row: Row, most: int) -> list[Case]:
    """So many cases of a row."""
    return drawn(row, list(cases(row)), most)


def verdicts(found: Sequence[Case], under: str | type) -> Counter[str]:
    """How many of the cases are equal, declared and planned; those that are not equal run alone."""
    counts: Counter[str] = Counter()
    for first in range(0, len(found), MOST_CASES):
        counts += verdicts_of_kernel(list(found[first : first + MOST_CASES]), under)
    return counts


def verdicts_of_kernel(found: list[Case], under: str | type) -> Counter[str]:
    """One kernel; where it does not come to its end, halves of it."""
    try:
        kind = judge(kernel_of(found), under, 16).kind
    except AssertionError as error:
        if len(found) > 1:
            return halves(found, under)
        raise AssertionError(f"{found[0].row.name}, {found[0].mode}, {found[0].step.code.hex()}: {error}") from error
    if kind == EQUAL or len(found) == 1:
        return Counter({kind: len(found)})
    return halves(found, under)


def halves(found: list[Case], under: str | type) -> Counter[str]:
    """Both halves by themselves."""
    middle = len(found) // 2
    return verdicts_of_kernel(found[:middle], under) + verdicts_of_kernel(found[middle:], under)

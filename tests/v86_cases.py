"""Every sensitive row in virtual-8086 mode, with IOPL 0 and 3, interrupts on and off, operands of 16 and 32 bits.

Ring 0 prepares registers and memory as for the other modes, and enters the mode by IRET. What is popped there is pushed
there; the trap that follows, or the instruction's own, comes back to ring 0, which keeps the registers.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sensitive_cases import OPERAND, SENSITIVE_ROWS, drawn, immediates, operands, prefixed
from small_kernel import DATA, DATA_0, EAX, EDX, Kernel, Step, mov, push, save, word
from vmm_judge import EQUAL, judge
from vmm_pieces import furnished

from x86virt.isa.rows import Row

VM = 1 << 17
CODE, CODE_BYTES, STACK = 0x68000, 0x80, 0x70000
POPPED = {"POPF", "POP", "IRET", "RETF"}
MODES = {
    "virtual-8086": VM | 0x202,
    "virtual-8086, interrupts off": VM | 0x2,
    "virtual-8086, IOPL 3": VM | 0x3202,
    "virtual-8086, IOPL 3, interrupts off": VM | 0x3002,
}
ON = 0x60  # of a case's code: where its far transfers and returns go on
STOP = b"\xcd\x80"  # a trap in either case: through the guest's gate, or #GP with IOPL 0
MOST_CASES = 16  # of one kernel


@dataclass(frozen=True)
class Case:
    """An example: what ring 0 prepares, what virtual-8086 mode pushes before it, the instruction."""

    row: Row
    mode: str
    before: bytes
    pushes: tuple[tuple[str, int], ...]  # ("flags" or "selector" or "target", value)
    octets: bytes
    wide: bool


def forms(row: Row, wide: bool) -> list[bytes]:
    """The instruction as 16-bit code has it: with a register operand, and with one in memory."""
    opcode = prefixed(row, not wide)  # here the prefix makes it wide
    tail = immediates(row, wide)
    if "ap" in row.immediates:
        tail = (word(ON) if wide else struct.pack("<H", ON)) + b"\x00\x00"  # the segment is filled in by place
    if not row.modrm:
        return [opcode + tail]
    numbers = range(7) if "Sw" in row.operands else (int(row.modrm) if row.modrm.isdigit() else 0,)
    found = []
    for number in numbers:
        if not any(operand.startswith("M") for operand in row.operands):
            found.append(opcode + bytes([0xC0 | number << 3]) + tail)
        if not {"Cd", "Dd"} & set(row.operands):
            found.append(opcode + bytes([number << 3 | 6]) + struct.pack("<H", OPERAND - DATA) + tail)
    return found


def pushed(row: Row) -> list[tuple[tuple[str, int], ...]]:
    """What the instruction finds on the stack, in the order in which it is pushed."""
    flags = (0x2, 0x202, 0x3246, 0x48D7)
    if row.mnemonic == "POPF":
        return [(("value", value),) for value in flags]
    if row.mnemonic == "POP":
        return [(("value", value),) for value in (0, 0x1234, DATA >> 4)]
    if row.mnemonic == "IRET":
        return [(("value", value), ("selector", 0), ("value", ON)) for value in flags]
    if row.mnemonic == "RETF":
        return [(("selector", 0), ("value", ON))]
    return [()]


def cases(row: Row) -> Iterator[Case]:
    """Every example of a row."""
    for mode in MODES:
        for wide in (True, False):
            for before in [b""] if row.mnemonic in POPPED else operands(row, wide):
                for pushes in pushed(row):
                    for octets in forms(row, wide):
                        yield Case(row, f"{mode}, {32 if wide else 16} bits", before, pushes, octets, wide)


def some_cases(row: Row, most: int) -> list[Case]:
    """So many cases of a row in this mode."""
    return drawn(row, list(cases(row)), most)


def code_of(case: Case, place: int) -> bytes:
    """The code of virtual-8086 mode for a place: its pushes, the instruction, a trap; and where transfers lead."""
    prefix = b"\x66" if case.wide else b""
    code = b""
    for what, value in case.pushes:
        octets = place >> 4 if what == "selector" else value
        code += prefix + b"\x68" + (word(octets) if case.wide else struct.pack("<H", octets & 0xFFFF))
    octets = case.octets
    if "ap" in case.row.immediates:
        octets = octets[:-2] + struct.pack("<H", place >> 4)
    code += octets + STOP
    return code + bytes(ON - len(code)) + b"\x42" + STOP


def entry(case: Case, place: int) -> bytes:
    """Prepare the case in ring 0, and go to virtual-8086 mode."""
    flags = MODES[case.mode.rsplit(",", 1)[0]]
    segments = b"".join(push(DATA >> 4) for _ in range(4))  # GS, FS, DS, ES
    frame = segments + push(STACK >> 4) + push(0x100) + push(flags) + push(place >> 4) + push(0)
    return case.before + frame + b"\xcf"


KEEP = save(DATA + 0x40, EAX) + save(DATA + 0x44, EDX) + mov(EAX, DATA_0) + b"\x90"


def kernel_of(found: Sequence[Case]) -> Kernel:
    """One kernel of some cases."""
    kernel = furnished([])
    for number, case in enumerate(found):
        place = CODE + CODE_BYTES * number
        kernel.octets[place] = code_of(case, place)
        kernel.steps += [Step(entry(case, place)), Step(KEEP)]
    return kernel


def verdicts(found: Sequence[Case], under: str | type) -> Counter[str]:
    """How many of the cases are equal; a difference is reported for one case by itself."""
    counts: Counter[str] = Counter()
    for first in range(0, len(found), MOST_CASES):
        some = found[first : first + MOST_CASES]
        try:
            kind = judge(kernel_of(some), under, 16, explain=False).kind
        except AssertionError:
            kind = ""
        if kind == EQUAL:
            counts[kind] += len(some)
            continue
        for case in some:
            try:
                counts[judge(kernel_of([case]), under, 16).kind] += 1
            except AssertionError as error:
                raise AssertionError(f"{case.row.name}, {case.mode}, {case.octets.hex()}: {error}") from error
    return counts


ROWS = tuple(row for row in SENSITIVE_ROWS if row.mnemonic not in ("HLT",))

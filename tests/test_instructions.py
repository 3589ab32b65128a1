"""Every user-mode row against Unicorn in effect: registers, memory, EFLAGS, EIP, and whether it faulted.

Each case runs in a decoded block (the byte behind the instruction is HLT) and in Unicorn, from equal registers, flags
and memory. Flags that the row leaves undefined are masked; shifts say more precisely when. Over all cases of a row the
flags that Unicorn changed must be those that the row declares.
"""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from bare_machine import (
    AF,
    ARITHMETIC,
    CF,
    CODE,
    CODE_FIRST,
    CODE_LAST,
    DATA,
    DF,
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    EDX,
    ESI,
    ESP,
    HLT,
    LOW_CODE,
    OF,
    PF,
    SF,
    STACK,
    STACK_END,
    ZF,
    BareMachine,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st
from unicorn_machine import SILENT, UnicornMachine

from x86virt.isa.rows import ANY, Row
from x86virt.isa.table import ROWS

BOUNDARY = (0, 1, 2, 3, 7, 8, 0x0F, 0x10, 0x1F, 0x20, 0x7E, 0x7F, 0x80, 0x81, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000,
            0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF, 0x55555555, 0xAAAAAAAA, 0xFF00FF00)  # fmt: skip
LETTERS = {"O": OF, "S": SF, "Z": ZF, "A": AF, "P": PF, "C": CF, "D": DF, "I": 0x200}
CENTRE = DATA + 0x8000
TOP = STACK + 0x2000
SHIFTS, ROTATES = ("shl", "shr", "sar"), ("rol", "ror", "rcl", "rcr")
DOUBLES = ("shld", "shrd")
NEAR = ("jmp_indirect", "call_indirect")
CASES = 24

MACHINE, ORACLE = BareMachine(), UnicornMachine()


@dataclass
class Case:
    """One instruction with its start state."""

    row: Row
    width: int
    octets: bytes
    registers: list[int]
    eflags: int
    stores: dict[int, bytes] = field(default_factory=dict)
    repeats: bool = False

    def __str__(self) -> str:
        registers = " ".join(f"{value:08x}" for value in self.registers)
        stores = {hex(address): octets.hex() for address, octets in self.stores.items()}
        return (
            f"{self.octets.hex()} ({self.row.name}, {self.width}) registers {registers} eflags {self.eflags:x} {stores}"
        )


@pytest.fixture(autouse=True, scope="module")
def equal_memory():
    """Both machines start from the same random data."""
    octets = random.Random(1).randbytes(STACK_END - DATA)
    for address in (LOW_CODE, CODE_FIRST):
        ORACLE.write(address, HLT * (0x10000 if address == CODE_FIRST else 0x8000))
    MACHINE.power_on()
    set_operands(octets)
    ORACLE.write(DATA, octets)


# -- making cases ---------------------------------------------------------------------------------------------------


def value(rng: random.Random) -> int:
    """A boundary value, or any."""
    return rng.choice(BOUNDARY) if rng.random() < 0.6 else rng.getrandbits(32)


MEMORY_MODRM = (
    (0x05, (CENTRE + 0x40).to_bytes(4, "little"), {}),
    (0x43, b"\x08", {EBX: CENTRE}),
    (0x86, (0x40).to_bytes(4, "little"), {ESI: CENTRE}),
    (0x84, b"\xbe" + DATA.to_bytes(4, "little"), {ESI: 0x7000, EDI: 0x410}),
    (0x44, b"\x24\x08", {ESP: TOP}),
    (0x45, b"\xf0", {EBP: TOP}),
)


def operand_form(row: Row, width: int, rng: random.Random, registers: list[int]) -> bytes:
    """A ModRM byte with what follows; base registers are set in `registers`."""
    if not row.modrm:
        return b""
    reg = int(row.modrm) if row.modrm.isdigit() else rng.randrange(6 if "Sw" in row.operands else 8)
    wants_memory = any(code.startswith("M") and code != "M" for code in row.operands)
    if not row.operands or (not wants_memory and "M" not in row.operands and rng.random() < 0.5):
        return bytes([0xC0 | reg << 3 | rng.randrange(8)])
    modrm, tail, bases = rng.choice(MEMORY_MODRM)
    for register, content in bases.items():
        registers[register] = content
    if row.operation == "bit_string" and reg not in bases:
        registers[reg] = rng.choice((registers[reg] & 31, rng.randrange(-0x20000, 0x20000) & 0xFFFFFFFF))
    elif row.operation == "bit_string" and width == 32 and reg in bases:
        reg = EAX
        registers[EAX] = rng.randrange(-0x20000, 0x20000) & 0xFFFFFFFF
    return bytes([modrm | reg << 3]) + tail


def immediate(row: Row, width: int, rng: random.Random) -> bytes:
    """Immediates: boundary values, near displacements, offsets of data."""
    octets = b""
    for name in row.immediates:
        if name == "o":
            octets += (CENTRE + rng.randrange(16)).to_bytes(4, "little")
        elif name == "jb":
            octets += (rng.choice((-1, 1)) * rng.randrange(16, 112) & 0xFF).to_bytes(1, "little")
        elif name == "jz":
            octets += (rng.choice((-1, 1)) * rng.randrange(16, 0x3F00) & (1 << width) - 1).to_bytes(
                width // 8, "little"
            )
        elif row.operation == "enter":
            octets += (
                rng.randrange(0, 0x200).to_bytes(2, "little")
                if name == "iw"
                else bytes([rng.choice((0, 1, 2, 3, 31, 33))])
            )
        elif row.operation == "ret":
            octets += rng.randrange(0, 64).to_bytes(2, "little")
        else:
            size = {"ib": 1, "iw": 2, "iz": width // 8}[name]
            octets += (value(rng) & (1 << 8 * size) - 1).to_bytes(size, "little")
    return octets


def code_address(width: int, rng: random.Random) -> int:
    """Somewhere in HLT, which a 16-bit operand can name too."""
    return rng.randrange(LOW_CODE, LOW_CODE + 0x7000) if width == 16 else rng.randrange(CODE_FIRST, CODE_LAST)


def make(row: Row, width: int, rng: random.Random, repeat: int = 0) -> Case:
    """A case of a row: a form, an encoding, registers, flags and what its memory operand holds."""
    registers = [value(rng) for _ in range(8)]
    registers[ESP], registers[EBP] = TOP, TOP + 0x100
    eflags = 2 | rng.getrandbits(12) & (ARITHMETIC | DF)
    form = operand_form(row, width, rng, registers)
    stores = memory_operands(row, width, rng, registers)
    if row.operation in NEAR and form[:1] >= b"\xc0":
        registers[form[0] & 7] = code_address(width, rng)
    head = list(row.opcode)
    if "+r" in row.encoding:
        head[-1] += rng.randrange(8)
    prefix = (b"\x66" if width == 16 else b"") + (bytes([repeat]) if repeat else b"")
    octets = prefix + bytes(head) + form + immediate(row, width, rng)
    return Case(row, width, octets, registers, eflags, stores, repeat != 0)


def memory_operands(row: Row, width: int, rng: random.Random, registers: list[int]) -> dict[int, bytes]:
    """Registers and memory that special rows need; returns what to store where."""
    operation, word = row.operation, width // 8
    content = value(rng)
    if operation in ("cmpxchg", "cmpxchg8b") and rng.random() < 0.5:
        content = registers[EAX]
    stores = {address: content.to_bytes(4, "little") for address in (CENTRE + 8, CENTRE + 0x40, TOP - 16, TOP + 8)}
    if operation == "cmpxchg8b":
        high = registers[EDX] if rng.random() < 0.8 else value(rng)
        stores = {address: octets + high.to_bytes(4, "little") for address, octets in stores.items()}
    if operation in NEAR or operation == "ret":
        target = code_address(width, rng).to_bytes(4, "little")
        stores = dict.fromkeys((*stores, TOP), target)
    if operation == "xlat":
        registers[EBX] = CENTRE
    if operation.startswith("string"):
        registers[ESI] = CENTRE + rng.randrange(64)
        registers[EDI] = CENTRE + rng.randrange(64)
        if rng.random() < 0.7:
            stores |= {CENTRE - 64 * word: bytes([rng.choice((0, 0x41))]) * 256 * word}
        registers[ECX] = rng.choice((0, 1, 2, 3, 17))
    if operation == "loop":
        registers[ECX] = rng.choice((0, 1, 2, 0xFFFF, 0x10000, 0xFFFFFFFF))
    if operation == "div" and rng.random() < 0.7:
        registers[EDX] = rng.choice((0, 1, 0xFFFFFFFF, rng.getrandbits(16)))
        registers[EAX] = registers[EAX] if rng.random() < 0.5 else rng.getrandbits(16)
    if operation == "div":
        registers[EAX] |= registers[EDX] >> 31  # never the one dividend on which Unicorn's host division traps
    return stores


# -- what may differ ------------------------------------------------------------------------------------------------


def letters(names: str) -> int:
    """The flags that a column names."""
    return sum(LETTERS[name] for name in names)


def operand_width(row: Row, width: int) -> int:
    """The width of the first operand in bits."""
    return 8 if row.operands and row.operands[0] in ("Eb", "Gb", "AL", "Zb", "Ob") else width


def shift_count(case: Case) -> int:
    """The count of a shift or rotate, modulo 32."""
    if "CL" in case.row.operands:
        return case.registers[ECX] & 31
    return case.octets[-1] & 31 if "Ib" in case.row.operands else 1


def undefined_flags(case: Case) -> int:
    """Flags that the manual leaves undefined in this very case (SDM volume 2; the row's column for all but shifts)."""
    row, operation = case.row, case.row.operation
    if operation not in SHIFTS + ROTATES + DOUBLES:
        return letters(row.flags_undefined)
    count, width = shift_count(case), operand_width(row, case.width)
    if count == 0:
        return 0
    if operation in ROTATES:
        return 0 if count == 1 else OF
    undefined = AF if count == 1 else AF | OF
    if operation in ("shl", "shr") and count >= width:
        undefined |= CF
    if operation in DOUBLES and count > width:
        undefined |= ARITHMETIC
    return undefined


def undefined_result(case: Case) -> str:
    """Why the whole result is undefined, or an empty string."""
    if case.row.operation in DOUBLES and shift_count(case) > case.width:
        return "SHLD and SHRD of 16 bits by more than 16"
    if case.row.operation == "bswap" and case.width == 16:
        return "BSWAP of a 16-bit register"
    return ""


# -- comparing ------------------------------------------------------------------------------------------------------


def execute(case: Case) -> tuple[str, list[int], int, int]:
    """Run a case on the bare machine: ("" or what stopped it, general registers, EIP, EFLAGS)."""
    MACHINE.write_code(case.octets.ljust(16, HLT))
    MACHINE.gpr[:8] = case.registers
    MACHINE.eflags = case.eflags
    MACHINE.cpu.retired_limit = MACHINE.cpu.retired + 100
    stopped = MACHINE.stopped_at(MACHINE.go(CODE))
    if isinstance(stopped, str):
        return stopped, MACHINE.registers(), CODE, MACHINE.eflags
    return "", MACHINE.registers(), stopped, MACHINE.eflags


def operands_of_machine() -> bytes:
    """Data and stack of the bare machine."""
    return MACHINE.memory[DATA:STACK_END].tobytes()


def set_operands(octets: bytes) -> None:
    """Write data and stack of the bare machine."""
    MACHINE.memory[DATA:STACK_END] = np.frombuffer(octets, np.uint8)


def compare(case: Case) -> tuple[str, int]:
    """Run a case on both: (difference or an empty string, flags that Unicorn changed)."""
    for address, octets in case.stores.items():
        MACHINE.memory[address : address + len(octets)] = list(octets)
        ORACLE.write(address, octets)
    theirs = ORACLE.execute(case.octets.ljust(16, HLT)[: len(case.octets)], case.registers, case.eflags, case.repeats)
    before = operands_of_machine()
    ours = execute(case)
    if theirs[0] or ours[0]:
        return compare_faults(case, ours, theirs, before), 0
    undefined = undefined_flags(case)
    mask = (ARITHMETIC | DF) & ~undefined
    differences = []
    if not undefined_result(case) and ours[1] != theirs[1]:
        differences.append("registers " + " ".join(f"{a:08x}/{b:08x}" for a, b in zip(ours[1], theirs[1], strict=True)))
    if ours[2] != theirs[2]:
        differences.append(f"EIP {ours[2]:x}/{theirs[2]:x}")
    if (ours[3] ^ theirs[3]) & mask:
        differences.append(f"EFLAGS {ours[3] & mask:x}/{theirs[3] & mask:x}")
    if operands_of_machine() != ORACLE.operands():
        differences.append("memory") if not undefined_result(case) else None
        ORACLE.write(DATA, operands_of_machine())
    changed = (case.eflags ^ theirs[3]) & mask
    return f"{case}: ours/Unicorn: {', '.join(differences)}" if differences else "", changed


def compare_faults(case: Case, ours, theirs, before: bytes) -> str:
    """Both must raise the same exception, ours with nothing changed."""
    ORACLE.write(DATA, before)
    set_operands(before)
    if ours[0] != theirs[0] and not (theirs[0] == SILENT and ours[0] in ("vector 0", "vector 5")):
        return f"{case}: ours {ours[0]!r}, Unicorn {theirs[0]!r}"
    kept = [number for number in range(8) if number != ESP]
    same = all(ours[1][number] == case.registers[number] for number in kept)
    return "" if same else f"{case}: the fault changed registers"


# -- the tests ------------------------------------------------------------------------------------------------------

# TEST F6 /1 and F7 /1, which Unicorn does not know, are the same as /0: a test of their own says so.
ALIASES_OF_TEST = [row for row in ROWS if row.mnemonic == "TEST" and row.modrm == "1"]
USER_ROWS = [row for row in ROWS if row.privilege == ANY and not row.operation.startswith("system:")]
# Unicorn refuses the register forms of 0F 18 and takes those of others for MPX and CET.
HINTS = [row for row in ROWS if row.operation == "hint"]
# x87 has an oracle that checks its stack: the host's (test_x87.py).
USER_ROWS = [row for row in USER_ROWS if row not in ALIASES_OF_TEST + HINTS and not row.operation.startswith("x87:")]
STRING_ROWS = [row for row in USER_ROWS if row.operation.startswith("string")]


def widths(row: Row) -> tuple[int, ...]:
    """Operand sizes that make a difference: both, but for byte operations, and where 66 makes another instruction, one."""
    of_bytes = row.operands and row.operands[0] in ("Eb", "Gb", "AL", "Zb", "Ob") and len(row.operands) < 3
    return (32,) if of_bytes or row.mnemonic.endswith("FENCE") else (16, 32)


@pytest.mark.parametrize("row", USER_ROWS, ids=lambda row: f"{row.name}-{row.encoding.replace(' ', '')}")
def test_a_row_does_what_unicorn_does(row: Row) -> None:
    """Boundary and random values, register and memory forms; and the flags columns."""
    rng = random.Random(row.encoding + row.name)
    failures, changed = [], 0
    for width in widths(row):
        for _ in range(CASES):
            difference, flags = compare(make(row, width, rng))
            changed |= flags
            failures += [difference] if difference else []
    assert not failures, f"{len(failures)} of {CASES}:\n" + "\n".join(failures[:4])
    surprising = changed & ~letters(row.flags_written)
    assert not surprising, f"{row.name} does not declare flags {surprising:x}"
    unseen = letters(row.flags_written) & ~letters(row.flags_undefined) & ~changed
    assert not unseen, f"{row.name} declares flags {unseen:x} that never changed"


@pytest.mark.parametrize("repeat", (0xF3, 0xF2), ids=("repe", "repne"))
@pytest.mark.parametrize("row", STRING_ROWS, ids=lambda row: f"{row.name}-{row.encoding}")
def test_a_repeated_string_instruction_does_what_unicorn_does(row: Row, repeat: int) -> None:
    """REP, REPE and REPNE, both directions, counts from 0."""
    rng = random.Random(row.encoding + str(repeat))
    failures = [compare(make(row, width, rng, repeat))[0] for width in (16, 32) for _ in range(CASES)]
    failures = [failure for failure in failures if failure]
    assert not failures, "\n".join(failures[:4])


@settings(max_examples=1500)
@given(row=st.sampled_from(USER_ROWS), wide=st.booleans(), seed=st.integers(0, 2**63))
def test_any_row_with_any_values(row: Row, wide: bool, seed: int) -> None:
    """Hypothesis chooses rows and values."""
    difference, _ = compare(make(row, 32 if wide else widths(row)[0], random.Random(seed)))
    assert not difference, difference


@pytest.mark.parametrize("row", ALIASES_OF_TEST, ids=lambda row: row.name)
def test_the_alias_of_test_does_what_unicorn_does_for_the_manuals_encoding(row: Row) -> None:
    """TEST with /1 against Unicorn's TEST with /0."""
    rng = random.Random(row.name)
    original = next(other for other in USER_ROWS if other.encoding == row.encoding.replace("/1", "/0"))
    for _ in range(CASES):
        case = make(original, 32, rng)
        difference, _ = compare(case)
        assert not difference
        flags, position = MACHINE.eflags & ~AF, len(original.opcode)
        alias = case.octets[:position] + bytes([case.octets[position] | 1 << 3]) + case.octets[position + 1 :]
        execute(Case(row, 32, alias, case.registers, case.eflags))
        assert (MACHINE.eflags & ~AF, MACHINE.registers()) == (flags, case.registers), alias.hex()


PRODUCERS = tuple(
    row for row in USER_ROWS if row.flags_written and row.operation not in ("div",) and "C" in row.flags_written
)


@pytest.mark.parametrize("step", ("40", "48", "fec0", "6640", "fec8"), ids=("inc", "dec", "inc8", "inc16", "dec8"))
@pytest.mark.parametrize("row", PRODUCERS, ids=lambda row: f"{row.name}-{row.encoding.replace(' ', '')}")
def test_inc_and_dec_keep_the_carry_of_every_producer(row: Row, step: str) -> None:
    """A flag producer and INC or DEC in one block: CF is the producer's, the others are INC's or DEC's."""
    rng = random.Random(row.encoding + step)
    for width in widths(row):
        case = make(row, width, rng)
        if undefined_flags(case) & CF or "C" not in row.flags_written:
            continue
        before = operands_of_machine()
        assert not compare(case)[0]
        carry = MACHINE.eflags & CF
        set_operands(before)
        for address, octets in case.stores.items():
            MACHINE.memory[address : address + len(octets)] = list(octets)
        both = Case(row, width, case.octets + bytes.fromhex(step), case.registers, case.eflags)
        execute(both)
        assert MACHINE.eflags & CF == carry, str(both)
        ORACLE.write(DATA, operands_of_machine())


REGRESSIONS = {
    "push_esp_pushes_the_old_value": ("54", {}),
    "pop_esp_keeps_the_popped_value": ("5c", {}),
    "pop_to_memory_addresses_with_the_raised_stack_pointer": ("8f442408", {}),
    "push_memory_addresses_with_the_old_stack_pointer": ("ff742408", {}),
    "xchg_of_a_register_with_itself": ("87c0", {EAX: 0x12345678}),
    "xadd_of_a_register_with_itself": ("0fc1c0", {EAX: 0x87654321}),
    "xadd_of_al_and_ah": ("0fc0e0", {EAX: 0x8081}),
    "cmpxchg_of_the_accumulator": ("0fb1c8", {EAX: 5, ECX: 6}),
    "cmpxchg_8_bit_keeps_the_rest_of_eax": ("0fb0d1", {EAX: 0x11111105, ECX: 0x22222206, EDX: 0x33333307}),
    "imul_negative_by_an_immediate": ("6bc0ff", {EAX: 0x80000000}),
    "mul_sets_carry_when_the_upper_half_is_significant": ("f7e1", {EAX: 0xFFFFFFFF, ECX: 0xFFFFFFFF}),
    "idiv_that_just_fits": ("f7f9", {EDX: 0xFFFFFFFF, EAX: 0x80000000, ECX: 1}),
    "idiv_that_just_does_not_fit": ("f7f9", {EDX: 0xFFFFFFFF, EAX: 0x80000000, ECX: 0xFFFFFFFF}),
    "the_alias_82_of_group_1": ("82c07f", {EAX: 1}),
    "call_with_a_16_bit_operand": ("66e80000", {}),
    "enter_with_nesting": ("c8100003", {EBP: TOP + 0x40}),
    "bt_far_below_its_base": ("0fa303", {EBX: CENTRE, EAX: 0xFFFF0000}),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_known_pitfall(name: str) -> None:
    """Cases that emulators get wrong, by name."""
    code, given_registers = REGRESSIONS[name]
    registers = [CENTRE] * 8
    registers[ESP] = TOP
    for register, content in given_registers.items():
        registers[register] = content
    octets = bytes.fromhex(code)
    row = next(
        row for row in USER_ROWS if row.operation == ("div" if octets[:1] == b"\xf7" and octets[1] > 0xF0 else "mov")
    )
    case = Case(row, 16 if octets[0] == 0x66 else 32, octets, registers, 2)
    if name.startswith(("mul", "imul")):
        case.row = next(row for row in USER_ROWS if row.mnemonic == "IMUL")
    difference, _ = compare(case)
    assert not difference, difference


def test_idiv_of_the_most_negative_dividend_by_minus_one_is_a_divide_error() -> None:
    """Unicorn 2.1.4 itself dies of this one, so the manual is the oracle: the quotient 2 to the 63rd does not fit."""
    registers = [0, 0xFFFFFFFF, 0x80000000, 0, TOP, TOP, 0, 0]
    row = next(row for row in USER_ROWS if row.mnemonic == "IDIV")
    stopped, after, _, _ = execute(Case(row, 32, bytes.fromhex("f7f9"), registers, 2))
    assert (stopped, after[EAX], after[EDX]) == ("vector 0", 0, 0x80000000)

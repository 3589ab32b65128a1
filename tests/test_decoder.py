"""The decoder against Capstone 5: length and mnemonic of every row in every operand form, and of random bytes.

In 32-bit and in 16-bit code, with both operand and address sizes.
"""

import itertools

import capstone
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from x86virt.core.code_layout import CODE
from x86virt.core.decode import DECODED_OK, INVALID, TOO_LONG
from x86virt.core.entries import decode_bytes
from x86virt.isa.registers import EBP, EBX, EDI, ESI, SEGMENT_REGISTERS, ZERO
from x86virt.isa.rows import Row
from x86virt.isa.table import ROWS
from x86virt.processor import record_array

ADDRESS = 0x1000
WHY = ("ok", "truncated", "invalid", "too long")
PREFIX_WORDS = {"rep", "repe", "repne", "repz", "repnz", "lock", "bnd", "notrack", "xacquire", "xrelease", "data16"}
# Capstone's other names, and those that follow the operand size.
SYNONYMS = {
    "sal": "shl", "insd": "ins", "pushaw": "pusha", "pushal": "pusha", "popaw": "popa", "popal": "popa", "cwde": "cbw",
    "cdq": "cwd", "pushfd": "pushf", "popfd": "popf", "iretd": "iret", "ljmp": "jmpf", "lcall": "callf", "xlatb": "xlat",
    "retfq": "retf", "jcxz": "jecxz", "prefetchw": "prefetch", "prefetchnta": "prefetch", "prefetcht0": "prefetch",
    "prefetcht1": "prefetch", "prefetcht2": "prefetch", "prefetchwt1": "prefetch",
    "fcompi": "fcomip", "fucompi": "fucomip",
}  # fmt: skip
STRINGS = ("movs", "cmps", "stos", "lods", "scas", "ins", "outs")
CODES = record_array(CODE)
DECODED = CODES["decoded"][0][0]
ENGINES = {
    False: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32),
    True: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_16),
}
CODE_SIZES = pytest.mark.parametrize("code_16", (False, True), ids=("32", "16"))


def decode(octets: bytes, code_16: bool = False) -> tuple[str, int, str]:
    """What the core's decoder makes of up to 15 bytes: why it ended, length, the row's mnemonic."""
    DECODED["code_16"] = int(code_16)
    window = octets[:16].ljust(16, b"\0")
    DECODED["window"] = np.frombuffer(window, np.uint8)
    DECODED["available"] = min(len(octets), 15)
    DECODED["rip"] = ADDRESS
    why = decode_bytes(CODES)
    if why != DECODED_OK:
        return WHY[why], 0, ""
    return WHY[why], int(DECODED["length"]), ROWS[int(DECODED["row"])].mnemonic.lower()


def canonical(mnemonic: str) -> str:
    """A mnemonic of Capstone under our name."""
    name = mnemonic
    if name[:-1] in STRINGS and name[-1] in "bwd":
        return name[:-1]
    return SYNONYMS.get(name, name)


def disassemble(octets: bytes, code_16: bool = False) -> tuple[int, str]:
    """Capstone's answer: length and canonical mnemonic; length 0 if it refuses."""
    for _, length, mnemonic, operands in ENGINES[code_16].disasm_lite(octets, ADDRESS, 1):
        words = f"{mnemonic} {operands}".split()
        while len(words) > 1 and words[0] in PREFIX_WORDS:
            words = words[1:]
        name = canonical(words[0])
        if name in ("jmp", "call") and is_far_indirect(octets):
            name += "f"
        return length, name
    return 0, ""


def is_far_indirect(octets: bytes) -> bool:
    """FF /3 and FF /5, which Capstone calls by the name of the near forms."""
    _, rest = strip(octets)
    return rest[0] == 0xFF and rest[1] >> 3 & 7 in (3, 5)


# -- every row ------------------------------------------------------------------------------------------------------

REGISTER_FORMS = tuple(0xC0 | reg << 3 | rm for reg, rm in itertools.product(range(8), range(8)))
MEMORY_FORMS = tuple(mod << 6 | reg << 3 | rm for mod, reg, rm in itertools.product(range(3), range(8), range(8)))
SIBS = (0x00, 0x24, 0x25, 0x4D, 0x63, 0x9C, 0xE5, 0xFF)


def after_modrm(modrm: int, sib: int, address: int) -> bytes:
    """The SIB byte and displacement that a ModRM byte asks for (SDM volume 2, tables 2-1 to 2-3)."""
    mod, rm = modrm >> 6, modrm & 7
    if mod == 3:
        return b""
    if address == 16:
        return bytes(range(0x81, 0x83))[: 2 if mod == 0 and rm == 6 else mod]
    tail = bytes([sib]) if rm == 4 else b""
    no_base = mod == 0 and (rm == 5 or (rm == 4 and sib & 7 == 5))
    return tail + bytes(range(0x81, 0x85))[: 4 if mod == 2 or no_base else mod]


def modrm_forms(row: Row, address: int) -> list[bytes]:
    """Every ModRM byte (with SIB and displacement) that the row accepts."""
    if not row.modrm:
        return [b""]
    modrms = MEMORY_FORMS if any(code.startswith("M") for code in row.operands) else REGISTER_FORMS + MEMORY_FORMS
    if "Rd" in row.operands or not row.operands:
        modrms = REGISTER_FORMS
    if row.modrm.isdigit():
        modrms = tuple(modrm for modrm in modrms if modrm >> 3 & 7 == int(row.modrm))
    if "Sw" in row.operands:
        modrms = tuple(modrm for modrm in modrms if modrm >> 3 & 7 < 6)
    if "Cd" in row.operands:
        modrms = tuple(modrm for modrm in modrms if modrm >> 3 & 7 in (0, 2, 3, 4))
    sibs = {modrm: SIBS if modrm & 7 == 4 and modrm >> 6 != 3 and address == 32 else (0,) for modrm in modrms}
    return [bytes([modrm]) + after_modrm(modrm, sib, address) for modrm in modrms for sib in sibs[modrm]]


def immediates(row: Row, width: int, address: int) -> bytes:
    """Immediate bytes of the row at an operand and an address size."""
    operand = width // 8
    sizes = {"ib": 1, "iw": 2, "iz": operand, "jb": 1, "jz": operand, "ap": operand + 2, "o": address // 8}
    return bytes(range(0x91, 0x91 + sum(sizes[name] for name in row.immediates)))


def opcodes(row: Row) -> list[bytes]:
    """The opcode bytes, once for each register in the opcode."""
    if "+r" not in row.encoding:
        return [bytes(row.opcode)]
    *head, last = row.opcode
    return [bytes([*head, last + register]) for register in range(8)]


MANDATORY = (0xF3, 0x66)  # prefixes that may be part of an opcode
FENCES = ("LFENCE", "MFENCE", "SFENCE")
NO_OPERAND_SIZE = ("VMPTRLD", "VMPTRST", "VMREAD", "VMWRITE", *FENCES)  # with 66 they are other instructions, or none


def encodings(row: Row, width: int, address: int = 32, code_16: bool = False) -> list[bytes]:
    """Every operand form of a row at an operand and an address size, without other prefixes."""
    default = 16 if code_16 else 32
    prefix = (b"\x66" if width != default else b"") + (b"\x67" if address != default else b"")
    if row.mnemonic in NO_OPERAND_SIZE and width != default:
        return []
    if row.opcode[0] in MANDATORY:
        prefix = prefix.replace(b"\x66", b"")
    tail = immediates(row, width, address)
    return [prefix + op + form + tail for op in opcodes(row) for form in modrm_forms(row, address)]


def expected(row: Row) -> str:
    """The mnemonic that Capstone should give."""
    return canonical(row.mnemonic.lower())


@CODE_SIZES
@pytest.mark.parametrize("width", (16, 32))
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}-{row.encoding.replace(' ', '')}")
def test_every_form_of_a_row_has_the_length_and_name_that_capstone_gives(row: Row, width: int, code_16: bool) -> None:
    """Registers, all ModRM and SIB shapes, immediates, with and without operand-size and address-size prefixes."""
    for octets in (*encodings(row, width, 16, code_16), *encodings(row, width, 32, code_16)):
        ours = decode(octets.ljust(15, b"\xcc"), code_16)
        theirs = disassemble(octets.ljust(15, b"\xcc"), code_16)
        reason = excuse(octets, ours, theirs)
        if code_16 and row.opcode[0] == 0x66:
            reason = "Capstone does not see that 66 is part of the opcode"
        assert reason or ours == ("ok", *theirs), f"{octets.hex()}: ours {ours}, Capstone {theirs}"
        assert ours == ("ok", len(octets), row.mnemonic.lower()), f"{octets.hex()}: {ours}"
        assert reason or theirs[1] == expected(row), f"{octets.hex()}: {theirs}"


PREFIXES = (b"\x26", b"\x2e", b"\x36", b"\x3e", b"\x64", b"\x65", b"\xf0", b"\xf2", b"\xf3")
ALL_PREFIXES = (*PREFIXES, b"\x66", b"\x67")
# Their F3, F2 and 66 prefixes choose the instruction: a test of their own.
BY_PREFIX = (*NO_OPERAND_SIZE, "VMCLEAR", "VMXON", "INVEPT", "INVVPID")
NAMES_BY_PREFIX = {
    "0fc730": {"": "vmptrld", "66": "vmclear", "f3": "vmxon", "66f3": "vmxon", "f366": "vmxon"},
    "0fc738": {"": "vmptrst"},
    "0f78c3": {"": "vmread"},
    "0f7803": {"": "vmread"},
    "0f79c3": {"": "vmwrite"},
    "0f388000": {"66": "invept"},
    "0f388100": {"66": "invvpid"},
    "0faee8": {"": "lfence"},
    "0faef7": {"": "mfence"},
    "0faef8": {"": "sfence"},
}


@CODE_SIZES
@pytest.mark.parametrize("opcode", NAMES_BY_PREFIX)
def test_prefixes_that_choose_an_instruction(opcode: str, code_16: bool) -> None:
    """66, F3 and F2 in front of opcodes that they are part of (SDM volume 2, chapter 2: F3 and F2 before 66); else #UD."""
    for prefixes in ("", "66", "f3", "f2", "66f3", "f366", "f266", "2e", "662e"):
        plain = prefixes.replace("2e", "")
        name = NAMES_BY_PREFIX[opcode].get(plain)
        octets = bytes.fromhex(prefixes + opcode).ljust(15, b"\xcc")
        why, length, mnemonic = decode(octets, code_16)
        assert (why, mnemonic) == (("ok", name) if name else ("invalid", "")), (prefixes, opcode)
        assert name is None or length == len(bytes.fromhex(prefixes + opcode))


@pytest.mark.parametrize("modrm", [octet for octet in range(0x100) if octet >> 3 & 7 in (6, 7)])
def test_register_forms_are_no_vmx_pointers(modrm: int) -> None:
    """0F C7 /6 and /7 name memory."""
    octets = bytes((0x0F, 0xC7, modrm)).ljust(15, b"\0")
    assert decode(octets)[0] == ("invalid" if modrm >= 0xC0 else "ok")


@pytest.mark.parametrize("prefix", PREFIXES, ids=bytes.hex)
def test_prefixes_add_their_length_and_keep_the_name(prefix: bytes) -> None:
    """Segment overrides, LOCK, REP: each row's first and last form behind each prefix."""
    for row in ROWS:
        forms = encodings(row, 32)
        if row.mnemonic in BY_PREFIX:
            continue
        for octets in (forms[0], forms[-1]):
            check(prefix + octets)


@pytest.mark.parametrize(
    "prefix", (b"\x66\x2e", b"\x2e\x66", b"\xf3\x64\x66", b"\x64\x65\x36", b"\x66\x66\x66"), ids=bytes.hex
)
def test_several_prefixes(prefix: bytes) -> None:
    """Combinations in any order, repeated ones included."""
    for row in ROWS:
        if row.mnemonic not in BY_PREFIX:
            check(prefix + encodings(row, 32)[0])


@CODE_SIZES
def test_prefixes_in_any_order_and_number(code_16: bool) -> None:
    """Each row with random prefixes, sizes among them; the sizes that result choose the form."""
    random = np.random.default_rng(1)
    for row in ROWS:
        if row.mnemonic in BY_PREFIX:
            continue
        for _ in range(12):
            prefixes = b"".join(ALL_PREFIXES[index] for index in random.integers(0, 11, random.integers(1, 6)))
            default = 16 if code_16 else 32
            width = 48 - default if 0x66 in prefixes else default
            address = 48 - default if 0x67 in prefixes else default
            forms = encodings(row, width, address, code_16)
            octets = strip(forms[random.integers(len(forms))])[1]
            if row.opcode[0] == 0xF3:
                octets = b"\xf3" + octets
            check(prefixes + octets, code_16)


@pytest.mark.parametrize("number, prefix", list(zip(("es", "cs", "ss", "ds", "fs", "gs"), PREFIXES, strict=False)))
def test_the_last_segment_prefix_wins(number: str, prefix: bytes) -> None:
    """The memory operand's segment is that of the last override."""
    assert decode(b"\x65" + prefix + b"\x8b\x45\x08")[0] == "ok"
    assert SEGMENT_REGISTERS[int(DECODED["segment"])] == number


@pytest.mark.parametrize(
    "octets, segment",
    [
        ("8b00", "ds"),
        ("8b4508", "ss"),
        ("8b0424", "ss"),
        ("8b0428", "ds"),
        ("8b0425" + "00" * 4, "ds"),
        ("8b446500", "ss"),
    ],
)
def test_the_default_segment_follows_the_base_register(octets: str, segment: str) -> None:
    """EBP and ESP as base mean SS, as index not (SDM volume 1, table 3-5)."""
    assert decode(bytes.fromhex(octets))[0] == "ok"
    assert SEGMENT_REGISTERS[int(DECODED["segment"])] == segment


@pytest.mark.parametrize(
    "rm, base, index, segment",
    [
        (0, EBX, ESI, "ds"), (1, EBX, EDI, "ds"), (2, EBP, ESI, "ss"), (3, EBP, EDI, "ss"),
        (4, ESI, ZERO, "ds"), (5, EDI, ZERO, "ds"), (6, EBP, ZERO, "ss"), (7, EBX, ZERO, "ds"),
    ],
)  # fmt: skip
def test_the_eight_forms_of_16_bit_addressing(rm: int, base: int, index: int, segment: str) -> None:
    """SDM volume 2, table 2-1: registers, default segment, displacement of each mod; the lone displacement is DS."""
    for mod, tail, disp in ((1, "80", -128), (2, "3412", 0x1234)):
        assert decode(bytes([0x67, 0x8B, mod << 6 | rm]) + bytes.fromhex(tail))[:2] == ("ok", 3 + len(tail) // 2)
        assert (DECODED["base_register"], DECODED["index_register"], DECODED["disp"]) == (base, index, disp)
        assert SEGMENT_REGISTERS[int(DECODED["segment"])] == segment
    assert decode(bytes([0x67, 0x8B, rm, 0xFE, 0xFF]))[:2] == ("ok", 5 if rm == 6 else 3)
    assert DECODED["base_register"] == (ZERO if rm == 6 else base)
    assert DECODED["disp"] == (0xFFFE if rm == 6 else 0)


@pytest.mark.parametrize("count", (14, 15, 20))
def test_an_instruction_beyond_fifteen_bytes_is_too_long(count: int) -> None:
    """14 prefixes and NOP fit, 15 do not."""
    why, length, _ = decode(b"\x66" * count + b"\x90")
    assert (why, length) == (("ok", 15) if count == 14 else (WHY[TOO_LONG], 0))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.encoding.replace(" ", ""))
def test_a_window_that_ends_early_is_truncated(row: Row) -> None:
    """Every proper prefix of an encoding asks for more bytes, never reads beyond them."""
    octets = encodings(row, 32)[-1]
    for length in range(1, len(octets)):
        if octets[:length] in (b"\xf3",) or decode(octets)[1] == len(octets):
            assert decode(octets[:length])[0] == "truncated", octets[:length].hex()


# -- random bytes ---------------------------------------------------------------------------------------------------


def strip(octets: bytes) -> tuple[bytes, bytes]:
    """Prefixes and the rest."""
    for position, value in enumerate(octets):
        if value not in b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3":
            return octets[:position], octets[position:]
    return octets, b""


def excuse(octets: bytes, ours: tuple[str, int, str], theirs: tuple[int, str]) -> str:
    """Why the two may differ on these bytes; an empty string if they may not."""
    prefixes, rest = strip(octets)
    if not rest:
        return "prefixes alone"
    two = rest[0] == 0x0F and len(rest) > 1
    modrm = rest[2 if two else 1] if len(rest) > (2 if two else 1) else 0
    for holds, reason in DIFFERENCES:
        if holds(prefixes, rest, two, modrm, ours, theirs):
            return reason
    return ""


NEWER = {*range(0x10, 0x18), *range(0x28, 0x30), *range(0x50, 0x80), *range(0xC2, 0xC7), *range(0xD0, 0x100), 0xB8}
NEWER |= {0x05, 0x07, 0x0A, 0x0C, 0x0E, 0x0F, 0x24, 0x26, 0x36, 0x37, 0x38, 0x39, 0x3A, 0xA6, 0xA7, 0x04, 0xB9, 0xFF}
X87_ALIASES = {(0xDC, 0x1A), (0xDC, 0x1B), (0xDD, 0x19), (0xDE, 0x1A), (0xDF, 0x19), (0xDF, 0x1A), (0xDF, 0x1B)}
# (condition on prefixes, bytes from the opcode, two-byte opcode, ModRM, our answer, Capstone's), reason
DIFFERENCES = (
    (
        lambda p, r, two, m, o, t: two and o[2].upper() in FENCES and m & 7 != 0 and t[0] == 0,
        "fences take any r/m (SDM volume 2, table A-6), Capstone r/m 0 alone",
    ),
    (
        lambda p, r, two, m, o, t: two and r[1] == 0xAE and m >= 0xC0 and o[0] == "invalid",
        "later instructions behind prefixes and in other register forms of group 15",
    ),
    (
        lambda p, r, two, m, o, t: two and o[2] in ("nop", "prefetch") and t[0] in (0, o[1]),
        "hints of the P6: no operation here, MPX and CET on later processors, and Capstone refuses some forms",
    ),
    (
        lambda p, r, two, m, o, t: o[2] == "ud1" and t[1] in ("ud1", "ud2b"),
        "Capstone reads no ModRM byte behind UD1",
    ),
    (
        lambda p, r, two, m, o, t: o[0] == WHY[INVALID] and two and r[1] in NEWER,
        "MMX, SSE, VMX and later opcodes, and SYSCALL, which CPUID does not offer here",
    ),
    (
        lambda p, r, two, m, o, t: o[0] == WHY[INVALID] and two and r[1] in (0x01, 0xC7) and t[0] > 0,
        "0F 01 and 0F C7 forms of later processors (VMX, SVM, XSAVE, RDRAND)",
    ),
    (
        lambda p, r, two, m, o, t: o[0] == WHY[INVALID] and r[0] in (0x62, 0xC4, 0xC5, 0x8F, 0xC6, 0xC7) and not two,
        "EVEX, VEX, XOP and TSX encodings, which are #UD here",
    ),
    (
        lambda p, r, two, m, o, t: o[0] == "ok" and b"\xf0"[0] in p and t[0] == 0,
        "Capstone refuses LOCK where the processor raises #UD: lowering does that, not the decoder",
    ),
    (
        lambda p, r, two, m, o, t: two and r[1] in (0xBC, 0xBD) and 0xF3 in p and t[1] in ("tzcnt", "lzcnt"),
        "F3 BSF and BSR are TZCNT and LZCNT on later processors only",
    ),
    (
        lambda p, r, two, m, o, t: two and r[1] in (0xBC, 0xBD) and 0xF2 in p and t[0] == 0,
        "Capstone refuses F2 before BSF and BSR; the processor ignores it",
    ),
    (
        lambda p, r, two, m, o, t: o[0] == "ok" and two and {0xF2, 0xF3} & {*p} and t[0] == 0,
        "Capstone refuses F2 and F3 before some two-byte opcodes when 67 stands there too; the processor ignores it",
    ),
    (
        lambda p, r, two, m, o, t: o[2] == "pause" and r[0] == 0x90 and t[0] == 0,
        "Capstone refuses PAUSE with an operand-size prefix",
    ),
    (
        lambda p, r, two, m, o, t: not two and t[0] == 0 and (r[0], m >> 3) in X87_ALIASES,
        "second encodings of FCOM, FCOMP, FXCH and FSTP, which Capstone does not know",
    ),
    (
        lambda p, r, two, m, o, t: o[0] == WHY[INVALID] and (t[1] == "fisttp" or (two and r[1] == 0xAE)),
        "FISTTP and the other forms of 0F AE came with SSE to SSE3, which CPUID does not offer here",
    ),
    (
        lambda p, r, two, m, o, t: two and r[1] == 0x09 and t[1] == "wbnoinvd",
        "F3 WBINVD is WBNOINVD on later processors only",
    ),
    (
        lambda p, r, two, m, o, t: two and 0x20 <= r[1] <= 0x23 and (m < 0xC0 or m >> 3 & 7 in (1, 5, 6, 7)),
        "MOV CR and DR take any mod as a register form; Capstone differs on mod and on absent registers",
    ),
)


def check(octets: bytes, code_16: bool = False) -> None:
    """Ours and Capstone's answers agree, or an excuse is on the list."""
    padded = octets[:15].ljust(15, b"\xcc")
    ours, theirs = decode(padded, code_16), disassemble(padded, code_16)
    agree = ours == ("ok", *theirs) if theirs[0] else ours[0] in (WHY[INVALID], WHY[TOO_LONG])
    assert agree or excuse(padded, ours, theirs), f"{padded.hex()}: ours {ours}, Capstone {theirs}"


@CODE_SIZES
@given(octets=st.binary(min_size=15, max_size=15))
def test_random_bytes(octets: bytes, code_16: bool) -> None:
    """Hypothesis' bytes."""
    check(octets, code_16)


@CODE_SIZES
@pytest.mark.parametrize("first", range(256), ids="{:02x}".format)
def test_random_bytes_behind_each_opcode(first: int, code_16: bool) -> None:
    """Each first byte, and each byte behind 0F and 66 0F, with many random tails."""
    random = np.random.default_rng(first)
    for head in (
        bytes([first]),
        bytes([0x0F, first]),
        bytes([0x66, first]),
        bytes([0x67, first]),
        bytes([0x67, 0x66, first]),
        bytes([0xF3, 0x0F, first]),
        bytes([0xF2, first]),
    ):
        for _ in range(40):
            check(head + random.bytes(15), code_16)

"""What is meant: an instruction by name, bytes or text, an event, an exit reason, a hypercall, an exception, a strategy."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..disassembly import decode_text
from ..errors import UserError, near_matches, show
from ..isa.events import EVENT_ID
from ..isa.rows import Row
from ..isa.table import ROWS
from ..vmm.registry import strategy_names
from .event import explain_event
from .exception import BY_NAME, BY_VECTOR, explain_exception
from .exits import REASONS, explain_exit
from .hardware import HARDWARE_EXITS, explain_hardware_exit
from .hypercalls import MEANINGS as DOMAIN_EXITS
from .hypercalls import PERFORMED, explain_domain_exit, explain_hypercall, hypercall_named
from .instruction import explain_rows
from .operands import PREFIXES, operands_text, takes
from .page import Explanation, Section
from .strategy import explain_strategy, is_strategy

if TYPE_CHECKING:
    from ..profile import Profile

LONGEST = 200
MOST_FORMS = 6
ADVICE = "`x86virt explain` alone lists what there is"
# Other names of conditions: SDM volume 2, appendix B, table B-10.
CONDITION_NAMES = {
    "nae": "b", "c": "b", "nb": "ae", "nc": "ae", "z": "e", "nz": "ne", "na": "be", "nbe": "a", "pe": "p", "po": "np",
    "nge": "l", "nl": "ge", "ng": "le", "nle": "g",
}  # fmt: skip
SYNONYMS = {
    **{f"{stem}{other}": f"{stem}{name}" for stem in ("j", "set", "cmov") for other, name in CONDITION_NAMES.items()},
    "loopz": "loope", "loopnz": "loopne", "jcxz": "jecxz", "sal": "shl", "fwait": "wait", "cwde": "cbw", "cdq": "cwd",
    "iretd": "iret", "pushfd": "pushf", "popfd": "popf", "pushad": "pusha", "popad": "popa", "xlatb": "xlat",
    "icebp": "int1", "retn": "ret", "int 3": "int3", "ljmp": "jmpf", "lcall": "callf", "lret": "retf",
}  # fmt: skip
STRING_MNEMONICS = ("movs", "cmps", "stos", "lods", "scas", "ins", "outs")
FAR = {"call": "callf", "jmp": "jmpf", "ret": "retf"}


def explain(what: str, profile: "Profile", bits: int = 32) -> list[Explanation]:
    """The explanations of a name, bytes or text; several where a mnemonic stands for several instructions.

    Raises UserError, with near matches, for what there is not.
    """
    text = " ".join(what.split())
    if not text or len(text) > LONGEST:
        raise UserError(f"explain {show(what)}", "nothing that can be explained", ADVICE)
    for attempt in (_named, _bytes, _instruction):
        found = attempt(text, profile, bits)
        if found:
            return found
    word = text.split()[0].lower() if " " in text else text.lower()
    raise UserError(
        f"explain {show(text)}",
        "no such instruction, event, exit reason, hypercall, exception or strategy",
        ADVICE + near_matches(word, known_names()),
    )


def known_names() -> list[str]:
    """All single words that can be explained."""
    exceptions = (row.mnemonic for row in BY_VECTOR.values())
    of_domains = (*DOMAIN_EXITS, *PERFORMED)
    names = (*mnemonics(), *EVENT_ID, *REASONS, *HARDWARE_EXITS, *exceptions, *(row.name for row in ROWS))
    return list(dict.fromkeys((*names, *of_domains, *strategy_names())))


def mnemonics() -> list[str]:
    """Every mnemonic, in lower case and sorted."""
    return sorted({row.mnemonic.lower() for row in ROWS})


# -- names -----------------------------------------------------------------------------------------------------------


def _named(text: str, profile: "Profile", bits: int) -> list[Explanation]:
    word = text.lower()
    if word in EVENT_ID:
        return [explain_event(word, profile)]
    if word.removeprefix("exit ") in REASONS:
        return [explain_exit(word.removeprefix("exit "), profile)]
    if word.removeprefix("exit ") in DOMAIN_EXITS:
        return [explain_domain_exit(word.removeprefix("exit "), profile)]
    vector = re.fullmatch(r"(?:vector|exception|interrupt) (0x[0-9a-f]{1,2}|[0-9]{1,3})", word)
    if vector:
        number = int(vector[1], 0)
        if number not in BY_VECTOR:
            raise UserError(
                f"explain {text}", "no exception of this machine", "vectors 32 to 255 are the system's own; " + ADVICE
            )
        return [explain_exception(BY_VECTOR[number], profile)]
    if word == "nmi" or (word.startswith("#") and word[1:] in BY_NAME):
        return [explain_exception(BY_NAME[word.removeprefix("#")], profile)]
    rows = rows_named(word)
    if rows:
        return explain_rows(rows, profile)
    hypercall = hypercall_named(word)
    if hypercall:
        return [explain_hypercall(hypercall, profile)]
    if text.upper() in HARDWARE_EXITS:
        return [explain_hardware_exit(text.upper(), profile)]
    if word in BY_NAME:
        return [explain_exception(BY_NAME[word], profile)]
    if is_strategy(text):
        return [explain_strategy(text, profile)]
    return []


def rows_named(word: str) -> list[Row]:
    """The rows of a mnemonic, of a row's own name, or of an operation (`system:LGDT`, `CR_TO_REGISTER`)."""
    rows = rows_of(word)
    if rows:
        return rows
    rows = [row for row in ROWS if row.name == word]
    return rows or [
        row for row in ROWS if row.operation.lower() == word or row.operation.lower().split(":")[-1] == word
    ]


def rows_of(mnemonic: str) -> list[Row]:
    """The rows of a mnemonic, under any of its names."""
    names = [mnemonic, SYNONYMS.get(mnemonic, "")]
    if mnemonic[:-1] in STRING_MNEMONICS and mnemonic[-1] in "bwd":
        names.append(mnemonic[:-1])
    for name in names:
        rows = [row for row in ROWS if row.mnemonic.lower() == name]
        if rows:
            return (
                [row for row in rows if row.capstone == mnemonic] or rows
                if mnemonic != name and name in STRING_MNEMONICS
                else rows
            )
    return []


# -- bytes -----------------------------------------------------------------------------------------------------------


def _bytes(text: str, profile: "Profile", bits: int) -> list[Explanation]:
    explicit = text.lower().startswith("bytes:")
    digits = text[6:].strip() if explicit else text
    digits = re.sub(r"0x|[,\s]", "", digits)
    if not explicit and not re.fullmatch(r"((0x)?[0-9a-fA-F]{2}[,\s]*)+", text):
        return []
    if not re.fullmatch(r"([0-9a-fA-F]{2}){1,15}", digits):
        raise UserError(f"explain {show(text)}", "not 1 to 15 bytes in hexadecimal", "give bytes such as 0f 01 d8")
    octets = bytes.fromhex(digits)
    row, length = decode_row(octets, bits)
    if row is None and length:
        what = "the instruction goes on behind these bytes"
        raise UserError(f"explain {octets.hex(' ')}", what, "give all bytes of an instruction")
    if row is None:
        return [explain_undefined(octets, bits)]
    found = explain_rows([row], profile)
    text_of = decode_text(octets[:length], 0, bits)[1]
    found[0].title = f"{found[0].title}. {octets[:length].hex(' ')} is `{text_of}` in {bits}-bit code"
    found[0].data |= {"bytes": octets[:length].hex(), "text": text_of, "bits": bits}
    return found


def explain_undefined(octets: bytes, bits: int) -> Explanation:
    """Bytes that are no instruction of this machine."""
    length, text = decode_text(octets, 0, bits)
    nothing = text.split()[0] == "db"
    section = Section("")
    section.add("on other processors", "" if nothing else f"{octets[:length].hex(' ')} is `{text}`")
    section.add("on this machine", "it raises #UD in every mode and ring")
    data = {
        "bytes": octets.hex(),
        "text": None if nothing else text,
        "faults": [{"fault": "#UD", "when": "always"}],
    }
    return Explanation("instruction", octets.hex(" "), "no instruction of this machine", [section], data)


def decode_row(octets: bytes, bits: int) -> tuple[Row | None, int]:
    """Row and length of an instruction by the processor's own decoder; (None, 1) if bytes are missing, (None, 0) if none."""
    from ..core.code_layout import CODE
    from ..core.decode import DECODED_OK, TRUNCATED
    from ..core.entries import decode_bytes
    from ..records import record_array

    codes = record_array(CODE)
    record = codes["decoded"][0]
    record["window"][:, : len(octets)] = list(octets)
    record["available"] = len(octets)
    record["code_16"] = int(bits == 16)
    why = decode_bytes(codes)
    if why == DECODED_OK:
        return ROWS[int(record["row"][0])], int(record["length"][0])
    return None, int(why == TRUNCATED)


# -- text ------------------------------------------------------------------------------------------------------------


def _instruction(text: str, profile: "Profile", bits: int) -> list[Explanation]:
    words = text.lower().split()
    while len(words) > 1 and words[0] in PREFIXES:
        words = words[1:]
    mnemonic, operands = words[0], split_operands(" ".join(words[1:]))
    rows = [row for name in names_for(mnemonic, operands) for row in rows_of(name)]
    if not rows:
        return []
    if not operands:
        return explain_rows(rows, profile)
    fitting = [row for row in rows if takes(row, [operand.removeprefix("far ").strip() for operand in operands])]
    if not fitting:
        forms = list(dict.fromkeys(f"{row.mnemonic.lower()} {operands_text(row)}".strip() for row in rows))
        more = f" and {len(forms) - MOST_FORMS} more" if len(forms) > MOST_FORMS else ""
        advice = f"its forms are: {'; '.join(forms[:MOST_FORMS])}{more}"
        raise UserError(f"explain {show(text)}", f"{mnemonic} has no such operands", advice)
    return explain_rows(fitting, profile)


def names_for(mnemonic: str, operands: Sequence[str]) -> Iterator[str]:
    """The mnemonic in the table: far transfers have names of their own there."""
    far = mnemonic in FAR and any(
        operand.startswith("far ") or re.fullmatch(r"(0x)?[0-9a-f]+\s*:\s*(0x)?[0-9a-f]+", operand)
        for operand in operands
    )
    yield FAR[mnemonic] if far else mnemonic


def split_operands(text: str) -> list[str]:
    """The operands between commas."""
    return [part.strip() for part in text.split(",")] if text.strip() else []

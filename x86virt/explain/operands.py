"""Operands as an assembler writes them, and which rows of the table take them. This is no assembler: sizes are not checked."""

import re
from collections.abc import Sequence

from ..isa.registers import GENERAL_REGISTERS, SEGMENT_REGISTERS
from ..isa.rows import Row

BYTE_REGISTERS = ("al", "cl", "dl", "bl", "ah", "ch", "dh", "bh")
WORD_REGISTERS = tuple(name[1:] for name in GENERAL_REGISTERS)
SEGMENTS = SEGMENT_REGISTERS[:6]
PREFIXES = ("rep", "repe", "repne", "repz", "repnz", "lock")

# Operand codes of the table in the manual's notation (SDM volume 2, section 3.1.1.3).
NOTATION = {
    "Eb": "r/m8", "Ew": "r/m16", "Ev": "r/m16/32", "Ed": "r/m32", "Gb": "r8", "Gw": "r16", "Gv": "r16/32", "Gd": "r32",
    "Mdq": "m128", "Ib": "imm8", "Iw": "imm16",
    "Iz": "imm16/32", "Ibs": "imm8", "Sw": "Sreg", "Cd": "CRn", "Dd": "DRn", "Rd": "r32", "M": "m", "Mb": "m8",
    "Ma": "m16/32&16/32",
    "Mp": "m16:16/32", "Ms": "m16&32", "Mq": "m64", "Mw": "m16", "Md": "m32", "Mt": "m80", "ST0": "ST(0)", "STi": "ST(i)",
    "Zb": "r8", "Zv": "r16/32", "AL": "AL", "rAX": "AX/EAX", "CL": "CL", "DX": "DX", "1": "1", "Ob": "moffs8",
    "Ov": "moffs16/32", "Jb": "rel8", "Jz": "rel16/32", "Ap": "ptr16:16/32",
    **{f"R{number}": f"{WORD_REGISTERS[number].upper()}/{name.upper()}" for number, name in enumerate(GENERAL_REGISTERS)},
    **{name.upper(): name.upper() for name in SEGMENTS},
}  # fmt: skip
# What kinds of operand a code takes; a fixed register is named.
TAKES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Eb",), ("r8", "memory")),
    **dict.fromkeys(("Ew", "Ev", "Ed"), ("r16", "r32", "memory")),
    **dict.fromkeys(("Gb", "Zb"), ("r8",)),
    **dict.fromkeys(("Gw", "Gv", "Gd", "Zv", "Rd"), ("r16", "r32")),
    **dict.fromkeys(("Ib", "Iw", "Iz", "Ibs"), ("immediate",)),
    **dict.fromkeys(("Jb", "Jz", "Ap"), ("immediate", "name")),
    **dict.fromkeys(("M", "Mb", "Ma", "Mp", "Ms", "Mq", "Mw", "Md", "Mt", "Mdq", "Ob", "Ov"), ("memory",)),
    "Sw": ("segment",), "Cd": ("control",), "Dd": ("debug",), "STi": ("st",), "ST0": ("st",),
    "AL": ("al",), "rAX": ("ax", "eax"), "CL": ("cl",), "DX": ("dx",), "1": ("one",),
    **{f"R{number}": (WORD_REGISTERS[number], name) for number, name in enumerate(GENERAL_REGISTERS)},
    **{name.upper(): (name,) for name in SEGMENTS},
}  # fmt: skip


def kinds(operand: str) -> set[str]:
    """All that an operand can be taken for; empty if it is nothing that an assembler knows."""
    text = re.sub(r"^(byte|word|dword|qword|tbyte|fword|far|near|short|ptr|strict)\s+", "", operand.strip().lower())
    while text != operand:
        operand, text = text, re.sub(r"^(byte|word|dword|qword|tbyte|fword|far|near|short|ptr|strict)\s+", "", text)
    if text in BYTE_REGISTERS:
        return {"r8", text}
    if text in WORD_REGISTERS:
        return {"r16", text}
    if text in GENERAL_REGISTERS:
        return {"r32", text}
    if text in SEGMENTS:
        return {"segment", text}
    if re.fullmatch(r"cr[0-7]", text):
        return {"control", text}
    if re.fullmatch(r"dr[0-7]", text):
        return {"debug", text}
    if re.fullmatch(r"st(\(?[0-7]\)?)?", text):
        return {"st"}
    if "[" in text:
        return {"memory"}
    if re.fullmatch(r"-?(0x[0-9a-f]+|[0-9][0-9a-f]*h|[0-9]+)(\s*:\s*(0x)?[0-9a-f]+)?", text):
        return {"immediate", "one"} if text == "1" else {"immediate"}
    return {"name"} if re.fullmatch(r"[a-z_.$][\w.$@]*", text) else set()


def takes(row: Row, operands: Sequence[str]) -> bool:
    """Whether a row can have these operands."""
    if not row.operands and operands:  # string instructions, whose operands are implied
        return row.operation.startswith(("string", "port_string")) and all(
            "memory" in kinds(text) or kinds(text) & {"al", "ax", "eax", "dx"} for text in operands
        )
    if len(row.operands) != len(operands):
        return False
    for code, text in zip(row.operands, operands, strict=True):
        found = kinds(text)
        if not found & set(TAKES[code]):
            return False
        if code == "Cd" and f"cr{row.modrm}" not in found:
            return False
    return True


def operands_text(row: Row) -> str:
    """The operands in the manual's notation."""
    names = [f"CR{row.modrm}" if code == "Cd" and row.modrm.isdigit() else NOTATION[code] for code in row.operands]
    return ", ".join(names)

"""Shifts, rotates and bit instructions."""

from ..rows import Row, insn

ALL = "OSZAPC"
SHIFT = dict(flags=ALL, undefined="OA")
ROTATE = dict(flags="OC", undefined="O")


def shift(mnemonic: str, group: int, meaning: str, facts: dict) -> list[Row]:
    """The six forms of a shift or rotate: by an immediate, by one, by CL; of bytes and of operand size."""
    operation = mnemonic.lower()
    forms = (
        (f"C0 /{group} ib", "Eb,Ib", "ins.shift_imm"),
        (f"C1 /{group} ib", "Ev,Ib", "ins.shift_imm"),
        (f"D0 /{group}", "Eb,1", "ins.shift_imm"),
        (f"D1 /{group}", "Ev,1", "ins.shift_imm"),
        (f"D2 /{group}", "Eb,CL", "ins.shift_cl"),
        (f"D3 /{group}", "Ev,CL", "ins.shift_cl"),
    )
    name = "sal" if group == 6 else ""
    return [
        insn(mnemonic, encoding, operands, operation, cost, meaning, memory="ins.alu_rmw", capstone=name, **facts)
        for encoding, operands, cost in forms
    ]


def bit(mnemonic: str, variant: int, register: str, group: int, meaning: str) -> list[Row]:
    """BT, BTS, BTR or BTC with a register or an immediate bit offset."""
    cost, memory = ("ins.bt", "ins.bt") if variant == 0 else ("ins.bts", "ins.bts")
    facts = dict(flags="OSAPC", undefined="OSAP", condition=variant, lock=variant != 0)
    return [
        insn(mnemonic, f"0F {register} /r", "Ev,Gv", "bit_string", cost, meaning, memory=memory, **facts),
        insn(mnemonic, f"0F BA /{group} ib", "Ev,Ib", "bit_test", cost, meaning, memory=memory, **facts),
    ]


ROWS: tuple[Row, ...] = (
    *shift("ROL", 0, "rotate left", ROTATE),
    *shift("ROR", 1, "rotate right", ROTATE),
    *shift("RCL", 2, "rotate left through CF", ROTATE),
    *shift("RCR", 3, "rotate right through CF", ROTATE),
    *shift("SHL", 4, "shift left", SHIFT),
    *shift("SHR", 5, "shift right", SHIFT),
    *shift("SHL", 6, "shift left (the other encoding)", SHIFT),
    *shift("SAR", 7, "shift right with the sign", SHIFT),
    insn("SHLD", "0F A4 /r ib", "Ev,Gv,Ib", "shld", "ins.shld", "shift left, filling from a register", **SHIFT),
    insn("SHLD", "0F A5 /r", "Ev,Gv,CL", "shld", "ins.shld", "shift left, filling from a register", **SHIFT),
    insn("SHRD", "0F AC /r ib", "Ev,Gv,Ib", "shrd", "ins.shld", "shift right, filling from a register", **SHIFT),
    insn("SHRD", "0F AD /r", "Ev,Gv,CL", "shrd", "ins.shld", "shift right, filling from a register", **SHIFT),
    *bit("BT", 0, "A3", 4, "copy a bit to CF"),
    *bit("BTS", 1, "AB", 5, "copy a bit to CF and set it"),
    *bit("BTR", 2, "B3", 6, "copy a bit to CF and clear it"),
    *bit("BTC", 3, "BB", 7, "copy a bit to CF and complement it"),
    insn("BSF", "0F BC /r", "Gv,Ev", "bit_scan", "ins.bsf", "index of the lowest set bit", flags=ALL, undefined="OSAPC"),
    insn(
        "BSR", "0F BD /r", "Gv,Ev", "bit_scan", "ins.bsf", "index of the highest set bit",
        flags=ALL, undefined="OSAPC", condition=1,
    ),
)

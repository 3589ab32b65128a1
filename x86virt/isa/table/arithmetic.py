"""Integer arithmetic and logic."""

from ..registers import FEATURE_CX8
from ..rows import Row, insn

ALL = "OSZAPC"
LOGIC = dict(flags=ALL, undefined="A")


def binary(mnemonic: str, base: int, carry: bool, meaning: str, **facts) -> list[Row]:
    """The six classic forms of ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, and their immediate group."""
    operation = mnemonic.lower()
    register = "ins.adc_rr" if carry else "ins.alu_rr"
    immediate = "ins.adc_rr" if carry else "ins.alu_ri"
    reads_only = mnemonic == "CMP"
    to_memory = "ins.alu_load" if reads_only else "ins.alu_rmw"
    group = base >> 3
    lock = not reads_only
    rows = [
        insn(mnemonic, f"{base:02X} /r", "Eb,Gb", operation, register, meaning, memory=to_memory, lock=lock, **facts),
        insn(mnemonic, f"{base + 1:02X} /r", "Ev,Gv", operation, register, meaning, memory=to_memory, lock=lock, **facts),
        insn(mnemonic, f"{base + 2:02X} /r", "Gb,Eb", operation, register, meaning, memory="ins.alu_load", **facts),
        insn(mnemonic, f"{base + 3:02X} /r", "Gv,Ev", operation, register, meaning, memory="ins.alu_load", **facts),
        insn(mnemonic, f"{base + 4:02X} ib", "AL,Ib", operation, immediate, meaning, **facts),
        insn(mnemonic, f"{base + 5:02X} iz", "rAX,Iz", operation, immediate, meaning, **facts),
    ]
    for opcode, operands, extra in (("80", "Eb,Ib", "ib"), ("81", "Ev,Iz", "iz"), ("82", "Eb,Ib", "ib"), ("83", "Ev,Ibs", "ib")):
        encoding = f"{opcode} /{group} {extra}"
        rows.append(insn(mnemonic, encoding, operands, operation, immediate, meaning, memory=to_memory, lock=lock, **facts))
    return rows


def unary(mnemonic: str, encoding: str, operands: str, meaning: str, flags: str) -> Row:
    """INC, DEC, NEG or NOT of one register or memory operand."""
    operation = mnemonic.lower()
    return insn(mnemonic, encoding, operands, operation, "ins.alu_rr", meaning, memory="ins.alu_rmw", flags=flags, lock=True)


def decimal(mnemonic: str, encoding: str, variant: int, meaning: str, **facts) -> Row:
    """DAA, DAS, AAA or AAS."""
    return insn(mnemonic, encoding, "", "decimal_adjust", "ins.decimal_adjust", meaning, condition=variant, **facts)


PRODUCT = dict(flags=ALL, undefined="SZAP")
QUOTIENT = dict(flags=ALL, undefined=ALL)

ROWS: tuple[Row, ...] = (
    *binary("ADD", 0x00, False, "add", flags=ALL),
    *binary("OR", 0x08, False, "inclusive or", **LOGIC),
    *binary("ADC", 0x10, True, "add with carry", flags=ALL),
    *binary("SBB", 0x18, True, "subtract with borrow", flags=ALL),
    *binary("AND", 0x20, False, "and", **LOGIC),
    *binary("SUB", 0x28, False, "subtract", flags=ALL),
    *binary("XOR", 0x30, False, "exclusive or", **LOGIC),
    *binary("CMP", 0x38, False, "compare: subtract without a result", flags=ALL),
    insn("TEST", "84 /r", "Eb,Gb", "test", "ins.alu_rr", "and without a result", memory="ins.alu_load", **LOGIC),
    insn("TEST", "85 /r", "Ev,Gv", "test", "ins.alu_rr", "and without a result", memory="ins.alu_load", **LOGIC),
    insn("TEST", "A8 ib", "AL,Ib", "test", "ins.alu_ri", "and without a result", **LOGIC),
    insn("TEST", "A9 iz", "rAX,Iz", "test", "ins.alu_ri", "and without a result", **LOGIC),
    insn("TEST", "F6 /0 ib", "Eb,Ib", "test", "ins.alu_ri", "and without a result", memory="ins.alu_load", **LOGIC),
    insn("TEST", "F7 /0 iz", "Ev,Iz", "test", "ins.alu_ri", "and without a result", memory="ins.alu_load", **LOGIC),
    insn("TEST", "F6 /1 ib", "Eb,Ib", "test", "ins.alu_ri", "and without a result", memory="ins.alu_load", **LOGIC),
    insn("TEST", "F7 /1 iz", "Ev,Iz", "test", "ins.alu_ri", "and without a result", memory="ins.alu_load", **LOGIC),
    unary("INC", "40+r", "Zv", "add one, CF unchanged", "OSZAP"),
    unary("DEC", "48+r", "Zv", "subtract one, CF unchanged", "OSZAP"),
    unary("INC", "FE /0", "Eb", "add one, CF unchanged", "OSZAP"),
    unary("DEC", "FE /1", "Eb", "subtract one, CF unchanged", "OSZAP"),
    unary("INC", "FF /0", "Ev", "add one, CF unchanged", "OSZAP"),
    unary("DEC", "FF /1", "Ev", "subtract one, CF unchanged", "OSZAP"),
    unary("NOT", "F6 /2", "Eb", "complement", ""),
    unary("NOT", "F7 /2", "Ev", "complement", ""),
    unary("NEG", "F6 /3", "Eb", "subtract from zero", ALL),
    unary("NEG", "F7 /3", "Ev", "subtract from zero", ALL),
    insn("MUL", "F6 /4", "Eb", "mul", "ins.mul", "unsigned multiplication of the accumulator", **PRODUCT),
    insn("MUL", "F7 /4", "Ev", "mul", "ins.mul", "unsigned multiplication of the accumulator", **PRODUCT),
    insn("IMUL", "F6 /5", "Eb", "mul", "ins.imul", "signed multiplication of the accumulator", condition=1, **PRODUCT),
    insn("IMUL", "F7 /5", "Ev", "mul", "ins.imul", "signed multiplication of the accumulator", condition=1, **PRODUCT),
    insn("DIV", "F6 /6", "Eb", "div", "ins.div32", "unsigned division, #DE if the quotient does not fit", **QUOTIENT),
    insn("DIV", "F7 /6", "Ev", "div", "ins.div32", "unsigned division, #DE if the quotient does not fit", **QUOTIENT),
    insn("IDIV", "F6 /7", "Eb", "div", "ins.idiv32", "signed division, #DE if the quotient does not fit", condition=1, **QUOTIENT),
    insn("IDIV", "F7 /7", "Ev", "div", "ins.idiv32", "signed division, #DE if the quotient does not fit", condition=1, **QUOTIENT),
    insn("IMUL", "0F AF /r", "Gv,Ev", "imul", "ins.imul", "signed multiplication of two operands", **PRODUCT),
    insn("IMUL", "69 /r iz", "Gv,Ev,Iz", "imul3", "ins.imul", "signed multiplication by an immediate", **PRODUCT),
    insn("IMUL", "6B /r ib", "Gv,Ev,Ibs", "imul3", "ins.imul", "signed multiplication by an immediate", **PRODUCT),
    insn("CBW", "98", "", "cbw", "ins.cbw", "sign-extend AL to AX, or AX to EAX (CWDE)", capstone="cwde"),
    insn("CWD", "99", "", "cwd", "ins.cbw", "sign-extend AX to DX:AX, or EAX to EDX:EAX (CDQ)", capstone="cdq"),
    decimal("DAA", "27", 0, "adjust AL after adding packed decimals", flags=ALL, undefined="O"),
    decimal("DAS", "2F", 1, "adjust AL after subtracting packed decimals", flags=ALL, undefined="O"),
    decimal("AAA", "37", 2, "adjust AX after adding unpacked decimals", flags=ALL, undefined="OSZP"),
    decimal("AAS", "3F", 3, "adjust AX after subtracting unpacked decimals", flags=ALL, undefined="OSZP"),
    insn("AAM", "D4 ib", "Ib", "aam", "ins.aam", "AH, AL := quotient and remainder of AL, #DE for 0", flags=ALL, undefined="OAC"),
    insn("AAD", "D5 ib", "Ib", "aad", "ins.aad", "AL := AH * base + AL, AH := 0", flags=ALL, undefined="OAC"),
    insn("BOUND", "62 /r", "Gv,Ma", "bound", "ins.bound", "#BR if a signed index lies outside two bounds"),
    insn("XADD", "0F C0 /r", "Eb,Gb", "xadd", "ins.xadd", "exchange and add", memory="ins.alu_rmw", flags=ALL, lock=True),
    insn("XADD", "0F C1 /r", "Ev,Gv", "xadd", "ins.xadd", "exchange and add", memory="ins.alu_rmw", flags=ALL, lock=True),
    insn("CMPXCHG", "0F B0 /r", "Eb,Gb", "cmpxchg", "ins.cmpxchg_rr", "compare and exchange", flags=ALL, lock=True),
    insn("CMPXCHG", "0F B1 /r", "Ev,Gv", "cmpxchg", "ins.cmpxchg_rr", "compare and exchange", flags=ALL, lock=True),
    insn("CMPXCHG8B", "0F C7 /1", "Mq", "cmpxchg8b", "ins.cmpxchg8b", "compare and exchange 8 bytes", flags="Z", lock=True,
         feature=FEATURE_CX8),
)

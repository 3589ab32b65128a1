"""String instructions; a REP prefix makes one instruction of all iterations, each of which is priced."""

from ..rows import IOPL, PRIVILEGED, Row, insn

ALL = "OSZAPC"
MOVS, CMPS, STOS, LODS, SCAS = range(5)


def string(mnemonic: str, opcode: int, operation: int, cost: str, meaning: str, flags: str = "") -> list[Row]:
    """The byte form and the form of operand size."""
    facts = dict(flags=flags, condition=operation)
    return [
        insn(mnemonic, f"{opcode:02X}", "", "string_byte", cost, meaning, capstone=f"{mnemonic.lower()}b", **facts),
        insn(mnemonic, f"{opcode + 1:02X}", "", "string", cost, meaning, capstone=f"{mnemonic.lower()}d", **facts),
    ]


def port_string(mnemonic: str, opcode: int, operation: int, cost: str, meaning: str) -> list[Row]:
    """INS and OUTS: the byte form and the form of operand size."""
    facts = dict(priv=IOPL, sens=PRIVILEGED, exits="IO_INSTRUCTION", condition=operation)
    return [
        insn(mnemonic, f"{opcode:02X}", "", "port_string_byte", cost, meaning, capstone=f"{mnemonic.lower()}b", **facts),
        insn(mnemonic, f"{opcode + 1:02X}", "", "port_string", cost, meaning, capstone=f"{mnemonic.lower()}d", **facts),
    ]


ROWS: tuple[Row, ...] = (
    *string("MOVS", 0xA4, MOVS, "ins.movs", "move from DS:ESI to ES:EDI"),
    *string("CMPS", 0xA6, CMPS, "ins.cmps", "compare DS:ESI with ES:EDI", ALL),
    *string("STOS", 0xAA, STOS, "ins.stos", "store the accumulator at ES:EDI"),
    *string("LODS", 0xAC, LODS, "ins.lods", "load the accumulator from DS:ESI"),
    *string("SCAS", 0xAE, SCAS, "ins.scas", "compare the accumulator with ES:EDI", ALL),
    *port_string("INS", 0x6C, 0, "sys.in_port_lpc", "move from a port to ES:EDI"),
    *port_string("OUTS", 0x6E, 1, "sys.out_port_lpc", "move from DS:ESI to a port"),
)

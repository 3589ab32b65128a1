"""Near control transfers; far ones stand with the system instructions."""

from ..rows import Row, insn
from .transfer import CONDITIONS

JCC = "ins.jcc_predicted"

ROWS: tuple[Row, ...] = (
    *(
        insn(f"J{name.upper()}", f"{0x70 + code:02X} jb", "Jb", "jcc", JCC, "jump on a condition", condition=code)
        for code, name in enumerate(CONDITIONS)
    ),
    *(
        insn(f"J{name.upper()}", f"0F {0x80 + code:02X} jz", "Jz", "jcc", JCC, "jump on a condition", condition=code)
        for code, name in enumerate(CONDITIONS)
    ),
    insn("JMP", "EB jb", "Jb", "jmp", "ins.jmp_taken", "jump"),
    insn("JMP", "E9 jz", "Jz", "jmp", "ins.jmp_taken", "jump"),
    insn("JMP", "FF /4", "Ev", "jmp_indirect", "ins.jmp_indirect", "jump through a register or memory"),
    insn("CALL", "E8 jz", "Jz", "call", "ins.call", "call"),
    insn("CALL", "FF /2", "Ev", "call_indirect", "ins.call", "call through a register or memory"),
    insn("RET", "C3", "", "ret", "ins.ret", "return"),
    insn("RET", "C2 iw", "Iw", "ret", "ins.ret", "return and release parameters"),
    insn("LOOPNE", "E0 jb", "Jb", "loop", "ins.loop", "count ECX down, jump if not zero and ZF clear", condition=0),
    insn("LOOPE", "E1 jb", "Jb", "loop", "ins.loop", "count ECX down, jump if not zero and ZF set", condition=1),
    insn("LOOP", "E2 jb", "Jb", "loop", "ins.loop", "count ECX down, jump if not zero", condition=2),
    insn("JECXZ", "E3 jb", "Jb", "loop", "ins.loop", "jump if ECX is zero", condition=3),
)

"""Moves, the stack, and flag images."""

from ..registers import FEATURE_CMOV
from ..rows import Row, insn

CONDITIONS = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")
ALL = "OSZAPC"

ROWS: tuple[Row, ...] = (
    insn("MOV", "88 /r", "Eb,Gb", "mov", "ins.mov_rr", "move", memory="ins.store"),
    insn("MOV", "89 /r", "Ev,Gv", "mov", "ins.mov_rr", "move", memory="ins.store"),
    insn("MOV", "8A /r", "Gb,Eb", "mov", "ins.mov_rr", "move", memory="ins.load"),
    insn("MOV", "8B /r", "Gv,Ev", "mov", "ins.mov_rr", "move", memory="ins.load"),
    insn("MOV", "A0 o", "AL,Ob", "mov", "ins.load", "load from an absolute offset", capstone="mov"),
    insn("MOV", "A1 o", "rAX,Ov", "mov", "ins.load", "load from an absolute offset", capstone="mov"),
    insn("MOV", "A2 o", "Ob,AL", "mov", "ins.store", "store at an absolute offset", capstone="mov"),
    insn("MOV", "A3 o", "Ov,rAX", "mov", "ins.store", "store at an absolute offset", capstone="mov"),
    insn("MOV", "B0+r ib", "Zb,Ib", "mov", "ins.mov_rr", "move an immediate"),
    insn("MOV", "B8+r iz", "Zv,Iz", "mov", "ins.mov_rr", "move an immediate"),
    insn("MOV", "C6 /0 ib", "Eb,Ib", "mov", "ins.mov_rr", "move an immediate", memory="ins.store"),
    insn("MOV", "C7 /0 iz", "Ev,Iz", "mov", "ins.mov_rr", "move an immediate", memory="ins.store"),
    insn("MOVZX", "0F B6 /r", "Gv,Eb", "movzx", "ins.mov_rr", "move with zero extension", memory="ins.load"),
    insn("MOVZX", "0F B7 /r", "Gv,Ew", "movzx", "ins.mov_rr", "move with zero extension", memory="ins.load"),
    insn("MOVSX", "0F BE /r", "Gv,Eb", "movsx", "ins.mov_rr", "move with sign extension", memory="ins.load"),
    insn("MOVSX", "0F BF /r", "Gv,Ew", "movsx", "ins.mov_rr", "move with sign extension", memory="ins.load"),
    insn("LEA", "8D /r", "Gv,M", "lea", "ins.lea", "load the effective address"),
    insn("XCHG", "86 /r", "Eb,Gb", "xchg", "ins.xchg_rr", "exchange", memory="ins.xchg_mem", lock=True),
    insn("XCHG", "87 /r", "Ev,Gv", "xchg", "ins.xchg_rr", "exchange", memory="ins.xchg_mem", lock=True),
    insn("NOP", "90", "", "nop", "ins.nop", "no operation"),
    insn("PAUSE", "F3 90", "", "nop", "ins.pause", "no operation, for spin loops"),
    *(insn("XCHG", f"{0x90 + r:02X}", f"R{r},rAX", "xchg", "ins.xchg_rr", "exchange with the accumulator") for r in range(1, 8)),
    *(
        insn("NOP", f"0F {opcode:02X} /r", "Ev", "hint", "ins.nop", "no operation with an operand that is not accessed")
        for opcode in range(0x19, 0x20)
    ),
    insn("PREFETCH", "0F 18 /r", "Ev", "hint", "ins.nop", "a hint without effect", capstone="nop"),
    insn("PREFETCH", "0F 0D /r", "Ev", "hint", "ins.nop", "a hint without effect", capstone="nop"),
    # Every processor that has SSE2 has these; of SSE2 itself this machine has nothing, and CPUID says so.
    insn("LFENCE", "0F AE /5", "", "nop", "ins.lfence", "earlier loads come first"),
    insn("MFENCE", "0F AE /6", "", "nop", "ins.mfence", "earlier loads and stores come first"),
    insn("SFENCE", "0F AE /7", "", "nop", "ins.sfence", "earlier stores come first"),
    insn("PUSH", "50+r", "Zv", "push", "ins.push", "push a register"),
    insn("PUSH", "68 iz", "Iz", "push", "ins.push", "push an immediate"),
    insn("PUSH", "6A ib", "Ibs", "push", "ins.push", "push an immediate"),
    insn("PUSH", "FF /6", "Ev", "push", "ins.push", "push", memory="ins.alu_rmw"),
    insn("POP", "58+r", "Zv", "pop", "ins.pop", "pop into a register"),
    insn("POP", "8F /0", "Ev", "pop", "ins.pop", "pop", memory="ins.alu_rmw"),
    insn("PUSHA", "60", "", "pusha", "ins.pusha", "push all eight registers", capstone="pushal"),
    insn("POPA", "61", "", "popa", "ins.popa", "pop all registers but ESP", capstone="popal"),
    insn("LEAVE", "C9", "", "leave", "ins.leave", "release a stack frame"),
    insn("ENTER", "C8 iw ib", "Iw,Ib", "enter", "ins.enter", "make a stack frame"),
    insn("XLAT", "D7", "", "xlat", "ins.xlat", "look AL up in the table at EBX", capstone="xlatb"),
    insn("SALC", "D6", "", "salc", "ins.salc", "AL := FF or 0 by CF", section="none: an opcode that Intel never listed"),
    insn("LAHF", "9F", "", "lahf", "ins.sahf", "AH := low byte of EFLAGS"),
    insn("SAHF", "9E", "", "sahf", "ins.sahf", "low byte of EFLAGS := AH", flags="SZAPC"),
    insn("CMC", "F5", "", "flag", "ins.flag", "complement CF", flags="C", condition=0),
    insn("CLC", "F8", "", "flag", "ins.flag", "clear CF", flags="C", condition=1),
    insn("STC", "F9", "", "flag", "ins.flag", "set CF", flags="C", condition=2),
    insn("CLD", "FC", "", "flag", "ins.cld", "strings ascend", flags="D", condition=3),
    insn("STD", "FD", "", "flag", "ins.std", "strings descend", flags="D", condition=4),
    insn("BSWAP", "0F C8+r", "Zv", "bswap", "ins.bswap", "reverse the bytes of a register"),
    *(
        insn(f"SET{name.upper()}", f"0F {0x90 + code:02X} /r", "Eb", "setcc", "ins.setcc", "set a byte on a condition",
             memory="ins.store", condition=code)
        for code, name in enumerate(CONDITIONS)
    ),
    *(
        insn(f"CMOV{name.upper()}", f"0F {0x40 + code:02X} /r", "Gv,Ev", "cmovcc", "ins.cmov", "move on a condition",
             condition=code, feature=FEATURE_CMOV)
        for code, name in enumerate(CONDITIONS)
    ),
)

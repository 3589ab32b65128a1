"""x87 instructions (SDM volume 1, chapter 8; opcode map in volume 2, appendix A.5), FXSAVE and FXRSTOR, and WAIT.

A register form is written with both of its bytes; `+r` says that the second byte's low three bits are the i of ST(i).
The second encodings of FCOM, FCOMP, FXCH and FSTP are those that the 8087 had and later processors still execute.
"""

from ..registers import FEATURE_CMOV, FEATURE_FXSR
from ..rows import SENSITIVE, Row, insn
from ..x87_ops import (
    ABSOLUTE,
    ADD,
    ARCTANGENT,
    CHANGE_SIGN,
    CONSTANTS,
    COSINE,
    DECIMAL,
    DIVIDE,
    DIVIDE_REVERSED,
    DOUBLE,
    DOUBLEWORD,
    EXTENDED,
    EXTRACT,
    FUNCTION_SHIFT,
    IEEE_REMAINDER,
    LOGARITHM,
    LOGARITHM_PLUS_1,
    MULTIPLY,
    POWER_OF_2,
    QUADWORD,
    QUIET,
    REMAINDER,
    ROUND,
    SCALE,
    SINE,
    SINE_COSINE,
    SINGLE,
    SQUARE_ROOT,
    SUBTRACT,
    SUBTRACT_REVERSED,
    TANGENT,
    TO_AX,
    TO_EFLAGS,
    TO_STACK,
    UNCHECKED,
    WITH_ZERO,
    WORD,
    variant,
)  # fmt: skip

MOVE, COMPARES, CONTROL = "ins.x87_move", "ins.x87_compare", "ins.x87_control"
INTEGER, DECIMAL_COST, TRANSCENDENTAL = "ins.x87_integer", "ins.x87_decimal", "ins.x87_transcendental"

# Name, function, cost of the six operations, in the order of the reg field.
FUNCTIONS = (
    ("ADD", ADD, "ins.x87_add"),
    ("MUL", MULTIPLY, "ins.x87_multiply"),
    ("SUB", SUBTRACT, "ins.x87_add"),
    ("SUBR", SUBTRACT_REVERSED, "ins.x87_add"),
    ("DIV", DIVIDE, "ins.x87_divide"),
    ("DIVR", DIVIDE_REVERSED, "ins.x87_divide"),
)


def x87(name: str, encoding: str, operands: str, operation: str, cost: str, meaning: str, how: int = 0, **more) -> Row:
    """A row of the x87 class; `how` is what isa/x87_ops.py packs."""
    return insn(name, encoding, operands, f"x87:{operation}", cost, meaning, condition=how, **more)


def arithmetic(name: str, function: int, cost: str) -> tuple[Row, ...]:
    """One of the six operations in all its forms. With ST(i) as destination the reversed forms change places."""
    shifted = function << FUNCTION_SHIFT
    to_stack = shifted | TO_STACK
    swapped = {"SUB": "SUBR", "SUBR": "SUB", "DIV": "DIVR", "DIVR": "DIV"}.get(name, name)
    first = 0xC0 | function << 3
    meaning = "x87 arithmetic"
    return (
        x87(f"F{name}", f"D8 /{function}", "Md", "ARITHMETIC", cost, meaning, variant(SINGLE, extra=shifted)),
        x87(f"F{name}", f"DC /{function}", "Mq", "ARITHMETIC", cost, meaning, variant(DOUBLE, extra=shifted)),
        x87(f"FI{name}", f"DA /{function}", "Md", "ARITHMETIC", cost, meaning, variant(DOUBLEWORD, extra=shifted)),
        x87(f"FI{name}", f"DE /{function}", "Mw", "ARITHMETIC", cost, meaning, variant(WORD, extra=shifted)),
        x87(f"F{name}", f"D8 {first:02X}+r", "ST0,STi", "ARITHMETIC", cost, meaning, variant(extra=shifted)),
        x87(f"F{swapped}", f"DC {first:02X}+r", "STi,ST0", "ARITHMETIC", cost, meaning, variant(extra=to_stack)),
        x87(f"F{swapped}P", f"DE {first:02X}+r", "STi,ST0", "ARITHMETIC", cost, meaning, variant(pops=1, extra=to_stack)),
    )


def compare(name: str, encoding: str, operands: str, how: int, **more) -> Row:
    """A comparison."""
    return x87(name, encoding, operands, "COMPARE", COMPARES, "compare ST(0)", how, **more)


def load(name: str, encoding: str, operands: str, how: int, cost: str = MOVE) -> Row:
    """A load."""
    return x87(name, encoding, operands, "LOAD", cost, "push a value", how)


def store(name: str, encoding: str, operands: str, form: int, pops: int, cost: str = MOVE, capstone: str = "", extra: int = 0) -> Row:
    """A store."""
    return x87(name, encoding, operands, "STORE", cost, "store ST(0)", variant(form, pops, extra), capstone=capstone)


def unary(name: str, encoding: str, how: int, cost: str, meaning: str) -> Row:
    """An operation on ST(0), or ST(0) and ST(1)."""
    return x87(name, encoding, "", "UNARY", cost, meaning, how)


def control(name: str, encoding: str, operands: str, operation: str, cost: str, meaning: str, **more) -> Row:
    """A control instruction."""
    return x87(name, encoding, operands, operation, cost, meaning, **more)


# The P6 family's: with an FPU, CMOV promises them too.
P6 = dict(feature=FEATURE_CMOV)
EFLAGS = dict(flags="OSZAPC", **P6)
# What stores the pointer to the last instruction stores its CS selector, and with it the ring it ran in.
LEAK = dict(sens=SENSITIVE, silent=True)

ROWS: tuple[Row, ...] = (
    *(row for function in FUNCTIONS for row in arithmetic(*function)),
    # comparisons
    compare("FCOM", "D8 /2", "Md", variant(SINGLE)),
    compare("FCOM", "DC /2", "Mq", variant(DOUBLE)),
    compare("FCOMP", "D8 /3", "Md", variant(SINGLE, 1)),
    compare("FCOMP", "DC /3", "Mq", variant(DOUBLE, 1)),
    compare("FICOM", "DA /2", "Md", variant(DOUBLEWORD)),
    compare("FICOM", "DE /2", "Mw", variant(WORD)),
    compare("FICOMP", "DA /3", "Md", variant(DOUBLEWORD, 1)),
    compare("FICOMP", "DE /3", "Mw", variant(WORD, 1)),
    compare("FCOM", "D8 D0+r", "STi", variant()),
    compare("FCOMP", "D8 D8+r", "STi", variant(pops=1)),
    compare("FCOM", "DC D0+r", "STi", variant()),
    compare("FCOMP", "DC D8+r", "STi", variant(pops=1)),
    compare("FCOMP", "DE D0+r", "STi", variant(pops=1)),
    compare("FCOMPP", "DE D9", "", variant(pops=2)),
    compare("FUCOM", "DD E0+r", "STi", variant(extra=QUIET)),
    compare("FUCOMP", "DD E8+r", "STi", variant(pops=1, extra=QUIET)),
    compare("FUCOMPP", "DA E9", "", variant(pops=2, extra=QUIET)),
    compare("FCOMI", "DB F0+r", "STi", variant(extra=TO_EFLAGS), **EFLAGS),
    compare("FUCOMI", "DB E8+r", "STi", variant(extra=TO_EFLAGS | QUIET), **EFLAGS),
    compare("FCOMIP", "DF F0+r", "STi", variant(pops=1, extra=TO_EFLAGS), capstone="fcompi", **EFLAGS),
    compare("FUCOMIP", "DF E8+r", "STi", variant(pops=1, extra=TO_EFLAGS | QUIET), capstone="fucompi", **EFLAGS),
    compare("FTST", "D9 E4", "", variant(extra=WITH_ZERO)),
    # loads and stores
    load("FLD", "D9 /0", "Md", variant(SINGLE)),
    load("FLD", "DD /0", "Mq", variant(DOUBLE)),
    load("FLD", "DB /5", "Mt", variant(EXTENDED)),
    load("FLD", "D9 C0+r", "STi", variant()),
    load("FILD", "DF /0", "Mw", variant(WORD), INTEGER),
    load("FILD", "DB /0", "Md", variant(DOUBLEWORD), INTEGER),
    load("FILD", "DF /5", "Mq", variant(QUADWORD), INTEGER),
    load("FBLD", "DF /4", "Mt", variant(DECIMAL), DECIMAL_COST),
    store("FST", "D9 /2", "Md", SINGLE, 0),
    store("FST", "DD /2", "Mq", DOUBLE, 0),
    store("FSTP", "D9 /3", "Md", SINGLE, 1),
    store("FSTP", "DD /3", "Mq", DOUBLE, 1),
    store("FSTP", "DB /7", "Mt", EXTENDED, 1),
    store("FST", "DD D0+r", "STi", 0, 0),
    store("FSTP", "DD D8+r", "STi", 0, 1),
    store("FSTPNCE", "D9 D8+r", "STi", 0, 1, extra=UNCHECKED),
    store("FSTP", "DF D0+r", "STi", 0, 1),
    store("FSTP", "DF D8+r", "STi", 0, 1),
    store("FIST", "DF /2", "Mw", WORD, 0, INTEGER),
    store("FIST", "DB /2", "Md", DOUBLEWORD, 0, INTEGER),
    store("FISTP", "DF /3", "Mw", WORD, 1, INTEGER),
    store("FISTP", "DB /3", "Md", DOUBLEWORD, 1, INTEGER),
    store("FISTP", "DF /7", "Mq", QUADWORD, 1, INTEGER),
    store("FBSTP", "DF /6", "Mt", DECIMAL, 1, DECIMAL_COST),
    x87("FXCH", "D9 C8+r", "STi", "EXCHANGE", MOVE, "exchange ST(0) and ST(i)"),
    x87("FXCH", "DD C8+r", "STi", "EXCHANGE", MOVE, "exchange ST(0) and ST(i)"),
    x87("FXCH", "DF C8+r", "STi", "EXCHANGE", MOVE, "exchange ST(0) and ST(i)"),
    *(
        x87(f"FCMOV{name}", encoding, "ST0,STi", "MOVE_CONDITION", MOVE, "copy ST(i) if a condition holds", how, **P6)
        for name, encoding, how in (
            ("B", "DA C0+r", 2), ("E", "DA C8+r", 4), ("BE", "DA D0+r", 6), ("U", "DA D8+r", 10),
            ("NB", "DB C0+r", 3), ("NE", "DB C8+r", 5), ("NBE", "DB D0+r", 7), ("NU", "DB D8+r", 11),
        )
    ),
    *(
        x87(name, f"D9 {0xE8 + number:02X}", "", "CONSTANT", MOVE, "push a constant", number)
        for number, name in enumerate(CONSTANTS)
    ),
    # one operand
    unary("FCHS", "D9 E0", CHANGE_SIGN, MOVE, "change the sign of ST(0)"),
    unary("FABS", "D9 E1", ABSOLUTE, MOVE, "clear the sign of ST(0)"),
    x87("FXAM", "D9 E5", "", "EXAMINE", COMPARES, "class of ST(0)"),
    unary("FSQRT", "D9 FA", SQUARE_ROOT, "ins.x87_sqrt", "square root of ST(0)"),
    unary("FRNDINT", "D9 FC", ROUND, "ins.x87_remainder", "round ST(0) to an integer"),
    unary("FPREM", "D9 F8", REMAINDER, "ins.x87_remainder", "partial remainder by truncation"),
    unary("FPREM1", "D9 F5", IEEE_REMAINDER, "ins.x87_remainder", "partial remainder to nearest"),
    unary("FSCALE", "D9 FD", SCALE, "ins.x87_remainder", "scale ST(0) by a power of two"),
    unary("FXTRACT", "D9 F4", EXTRACT, "ins.x87_remainder", "split ST(0) into exponent and significand"),
    unary("F2XM1", "D9 F0", POWER_OF_2, TRANSCENDENTAL, "2**ST(0) - 1"),
    unary("FYL2X", "D9 F1", LOGARITHM, TRANSCENDENTAL, "ST(1) * log2(ST(0))"),
    unary("FYL2XP1", "D9 F9", LOGARITHM_PLUS_1, TRANSCENDENTAL, "ST(1) * log2(ST(0) + 1)"),
    unary("FPTAN", "D9 F2", TANGENT, TRANSCENDENTAL, "tangent of ST(0), and push 1.0"),
    unary("FPATAN", "D9 F3", ARCTANGENT, TRANSCENDENTAL, "arctangent of ST(1) / ST(0)"),
    unary("FSIN", "D9 FE", SINE, TRANSCENDENTAL, "sine of ST(0)"),
    unary("FCOS", "D9 FF", COSINE, TRANSCENDENTAL, "cosine of ST(0)"),
    unary("FSINCOS", "D9 FB", SINE_COSINE, TRANSCENDENTAL, "sine of ST(0), and push its cosine"),
    # the stack and control
    x87("FDECSTP", "D9 F6", "", "ROTATE", MOVE, "decrement TOP", 7),
    x87("FINCSTP", "D9 F7", "", "ROTATE", MOVE, "increment TOP", 1),
    x87("FFREE", "DD C0+r", "STi", "FREE", MOVE, "tag ST(i) empty"),
    x87("FFREEP", "DF C0+r", "STi", "FREE", MOVE, "tag ST(i) empty and pop", variant(pops=1)),
    x87("FNOP", "D9 D0", "", "NO_OPERATION", MOVE, "no operation"),
    control("WAIT", "9B", "", "WAIT", "ins.wait", "raise a pending x87 exception"),
    control("FLDCW", "D9 /5", "Mw", "LOAD_CONTROL", CONTROL, "load the control word"),
    control("FNSTCW", "D9 /7", "Mw", "STORE_CONTROL", CONTROL, "store the control word"),
    control("FNSTSW", "DD /7", "Mw", "STORE_STATUS", CONTROL, "store the status word"),
    control("FNSTSW", "DF E0", "", "STORE_STATUS", CONTROL, "store the status word in AX", how=TO_AX),
    control("FNCLEX", "DB E2", "", "CLEAR_EXCEPTIONS", CONTROL, "clear the exception flags"),
    control("FNINIT", "DB E3", "", "INITIALIZE", CONTROL, "initialize"),
    control("FENI8087_NOP", "DB E0", "", "NOTHING", CONTROL, "FENI of the 8087"),
    control("FDISI8087_NOP", "DB E1", "", "NOTHING", CONTROL, "FDISI of the 8087"),
    control("FSETPM", "DB E4", "", "NOTHING", CONTROL, "FSETPM of the 80287"),
    control("FNSTENV", "D9 /6", "M", "STORE_ENVIRONMENT", "ins.x87_environment", "store the environment",
            **LEAK),
    control("FLDENV", "D9 /4", "M", "LOAD_ENVIRONMENT", "ins.x87_environment", "load the environment"),
    control("FNSAVE", "DD /6", "M", "SAVE", "ins.fsave", "store environment and registers, and initialize",
            **LEAK),
    control("FRSTOR", "DD /4", "M", "RESTORE", "ins.frstor", "load environment and registers"),
    control("FXSAVE", "0F AE /0", "M", "FXSAVE", "ins.fxsave", "store the x87 state as 512 bytes",
            feature=FEATURE_FXSR, **LEAK),
    control("FXRSTOR", "0F AE /1", "M", "FXRSTOR", "ins.fxrstor", "load the x87 state from 512 bytes",
            feature=FEATURE_FXSR),
)

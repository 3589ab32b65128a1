"""The operations of `core/x87.py`: one number and one sentence each, and how their variants are written.

A decoded x87 instruction carries its operation in the micro-operation's `dst_shift`. The other fields are:

    condition   what the row says: function, format, pops and so on, as the helpers below pack them
    src_shift   the number i of ST(i)
    imm         offset of the instruction, prefixes included
    src         the 11 opcode bits that FNSTENV stores
    width       operand size in bits, which gives the layout of an environment
    segment and the address fields: the memory operand
"""

OPERATIONS = (
    ("ARITHMETIC", "add, multiply, subtract or divide"),
    ("COMPARE", "compare ST(0) with a source into the condition codes or EFLAGS"),
    ("LOAD", "push a value from memory or a register"),
    ("STORE", "store ST(0) to memory or a register, and perhaps pop"),
    ("EXCHANGE", "exchange ST(0) and ST(i)"),
    ("MOVE_CONDITION", "copy ST(i) to ST(0) if a condition on EFLAGS holds"),
    ("CONSTANT", "push a constant"),
    ("UNARY", "an operation on ST(0) alone, or on ST(0) and ST(1)"),
    ("EXAMINE", "class of ST(0) into the condition codes"),
    ("ROTATE", "add to TOP"),
    ("FREE", "tag ST(i) empty, and perhaps pop"),
    ("NO_OPERATION", "do nothing"),
    ("WAIT", "raise what is pending"),
    # The rest leaves the pointers to the last instruction alone.
    ("LOAD_CONTROL", "load the control word"),
    ("LOAD_ENVIRONMENT", "load control, status and tag words and the pointers"),
    ("RESTORE", "load the environment and the registers"),
    # From here on pending exceptions are not looked at.
    ("NOTHING", "an instruction of the 8087 or 80287 that later processors ignore"),
    ("INITIALIZE", "set the power-on state"),
    ("CLEAR_EXCEPTIONS", "clear the exception flags"),
    ("STORE_CONTROL", "store the control word"),
    ("STORE_STATUS", "store the status word to memory or AX"),
    ("STORE_ENVIRONMENT", "store control, status and tag words and the pointers, and mask all exceptions"),
    ("SAVE", "store the environment and the registers, and initialize"),
    ("FXSAVE", "store the x87 state as 512 bytes"),
    ("FXRSTOR", "load the x87 state from 512 bytes"),
)
NUMBER = {name: number for number, (name, _) in enumerate(OPERATIONS)}

(
    X87_ARITHMETIC, X87_COMPARE, X87_LOAD, X87_STORE, X87_EXCHANGE, X87_MOVE_CONDITION, X87_CONSTANT, X87_UNARY,
    X87_EXAMINE, X87_ROTATE, X87_FREE, X87_NO_OPERATION, X87_WAIT, X87_LOAD_CONTROL, X87_LOAD_ENVIRONMENT, X87_RESTORE,
    X87_NOTHING, X87_INITIALIZE, X87_CLEAR_EXCEPTIONS, X87_STORE_CONTROL, X87_STORE_STATUS, X87_STORE_ENVIRONMENT,
    X87_SAVE, X87_FXSAVE, X87_FXRSTOR,
) = range(25)  # fmt: skip

# Formats of an operand (SDM volume 1, table 4-2 and section 8.1.2), in bits 2:0 of a variant.
REGISTER, SINGLE, DOUBLE, EXTENDED, WORD, DOUBLEWORD, QUADWORD, DECIMAL = range(8)
FORMAT = 7
FORMAT_BYTES = (0, 4, 8, 10, 2, 4, 8, 10)

# Bits 4:3: how often the instruction pops. The rest depends on the operation.
POPS_SHIFT = 3
QUIET, TO_EFLAGS, WITH_ZERO = 1 << 5, 1 << 6, 1 << 7  # COMPARE
TO_STACK, FUNCTION_SHIFT = 1 << 5, 6  # ARITHMETIC: the result goes to ST(i); the function is that of the opcode
TO_AX = 1 << 5  # STORE_STATUS
ADD, MULTIPLY, SUBTRACT, SUBTRACT_REVERSED, DIVIDE, DIVIDE_REVERSED = 0, 1, 4, 5, 6, 7

# Variants of UNARY.
(
    CHANGE_SIGN, ABSOLUTE, SQUARE_ROOT, ROUND, REMAINDER, IEEE_REMAINDER, SCALE, EXTRACT, POWER_OF_2, LOGARITHM,
    LOGARITHM_PLUS_1, TANGENT, ARCTANGENT, SINE, COSINE, SINE_COSINE,
) = range(16)  # fmt: skip

# Variants of CONSTANT, in the order of the opcodes D9 E8 to D9 EE.
CONSTANTS = ("FLD1", "FLDL2T", "FLDL2E", "FLDPI", "FLDLG2", "FLDLN2", "FLDZ")


def variant(form: int = REGISTER, pops: int = 0, extra: int = 0) -> int:
    """Pack what a row says beyond its operation."""
    return form | pops << POPS_SHIFT | extra

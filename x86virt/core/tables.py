"""The instruction table as arrays for the jitted decoder: constants, built once from `x86virt.isa.table`.

    OPCODE_MAP[map, opcode, reg, memory]   number of the row + 1, or 0 (no such instruction)
    ROW_INFO[row]                          what the decoder and `lower` need to know of it

Maps: 0 one-byte opcodes, 1 those behind 0F, 2 and 3 the same behind a mandatory F3, 4 register forms of the escape
opcodes D8 to DF: the opcode's low three bits and the reg field are its row, the rm field its column; 5 register forms of
0F 01 whose whole ModRM byte is part of the opcode, by that byte; 6 behind 66 0F, where 66 belongs to the opcode; 7 behind
66 0F 38.
"""

import numpy as np

from ..isa.events import EVENT_ID
from ..isa.registers import GENERAL_REGISTERS, LDTR, SEGMENT_REGISTERS
from ..isa.rows import CPL0, IMMEDIATES, SENSITIVE, Row
from ..isa.system_ops import INTERCEPT_INS, INTERCEPT_OUTS, INTERCEPT_PAUSE, INTERCEPT_RSM
from ..isa.system_ops import NUMBER as SYSTEM_NUMBER
from ..isa.table import ROWS
from ..isa.x87_ops import NUMBER as X87_NUMBER
from .handlers import NUMBER

# How a row becomes micro-operations (core/lower.py).
(
    BINARY, COMPARE, UNARY, SHIFT, SHIFT_DOUBLE, MOVE, EXTEND, LOAD_ADDRESS, EXCHANGE, PUSH, POP, SET_BYTE,
    MOVE_CONDITION, ACCUMULATOR, PRODUCT_3, BIT_TEST, BIT_STRING, SCAN, SIMPLE, FAULTING, ENTER, STRING, STRING_BYTE,
    BRANCH_CONDITION, BRANCH, BRANCH_LOOP, CALL, JUMP_INDIRECT, CALL_INDIRECT, RETURN, SYSTEM, SYSTEM_VALUE,
    UNDEFINED, HINT, PORT_STRING, PORT_STRING_BYTE, X87, VMX,
) = range(38)  # fmt: skip

# Operand kinds.
NONE, E, G, I, S, C, D, M, R, Z, ACC, CL, DX, ONE, O, J, A = range(17)  # noqa: E741
FIXED = 17  # a fixed register, numbered from here: FIXED + EAX ...

OPERAND_CODES = {
    "Eb": (E, 8), "Ew": (E, 16), "Ev": (E, 0), "Gb": (G, 8), "Gw": (G, 16), "Gv": (G, 0), "Ib": (I, 8),
    "Iw": (I, 16), "Iz": (I, 0), "Ibs": (I, 0), "Sw": (S, 16), "Cd": (C, 32), "Dd": (D, 32), "Rd": (R, 32),
    "M": (M, 0), "Mb": (M, 8), "Ma": (M, 0), "Mp": (M, 0), "Ms": (M, 0), "Mq": (M, 0),
    "Ed": (E, 32), "Gd": (G, 32), "Mdq": (M, 0),
    "Mw": (M, 16), "Md": (M, 32), "Mt": (M, 0), "ST0": (NONE, 0), "STi": (NONE, 0), "Zb": (Z, 8), "Zv": (Z, 0), "AL": (ACC, 8),
    "rAX": (ACC, 0), "CL": (CL, 8), "DX": (DX, 16), "1": (ONE, 8), "Ob": (O, 8), "Ov": (O, 0), "Jb": (J, 8),
    "Jz": (J, 0), "Ap": (A, 0),
    **{f"R{number}": (FIXED + number, 0) for number in range(len(GENERAL_REGISTERS))},
    **{name.upper(): (NONE, 0) for name in SEGMENT_REGISTERS},
}  # fmt: skip
IMMEDIATE_CODE = {name: number + 1 for number, name in enumerate(IMMEDIATES)}
IB, IW, IZ, JB, JZ, AP, OFFSET = (IMMEDIATE_CODE[name] for name in IMMEDIATES)

# System operations behind which the block goes on: they only read state into an operand or a stack slot, or what they
# change gives the boundary behind them nothing to do.
VALUES = {
    "SLDT", "STR", "SMSW", "SGDT", "SIDT", "VERR", "VERW", "LAR", "LSL", "ARPL", "PUSHF", "PUSH_SREG",
    "SREG_TO_REGISTER", "DR_TO_REGISTER", "CLTS",
}  # fmt: skip

# #UD outside protected mode (SDM volume 2, each one's real-address mode exceptions).
PROTECTED_ONLY = {"ARPL", "LAR", "LSL", "VERR", "VERW", "LLDT", "SLDT", "LTR", "STR"}

# The virtual-machine extensions, which are #UD before they are #GP for want of privilege.
VMX_INSTRUCTIONS = {
    "VMCALL", "VMCLEAR", "VMLAUNCH", "VMPTRLD", "VMPTRST", "VMREAD", "VMRESUME", "VMWRITE", "VMXOFF", "VMXON", "INVEPT",
    "INVVPID",
}  # fmt: skip
SVM_INSTRUCTIONS = {"VMRUN", "VMLOAD", "VMSAVE", "STGI", "CLGI", "SKINIT", "INVLPGA"}

SOFTWARE_INTERRUPTS = {"system:INT_N", "system:INT3", "system:INTO", "system:INT1"}

LOWERING = {
    **{name: (BINARY, f"{name}_32", f"{name}_narrow") for name in ("add", "or", "adc", "sbb", "and", "sub", "xor")},
    **{name: (COMPARE, f"{name}_32", f"{name}_narrow") for name in ("cmp", "test")},
    **{name: (UNARY, f"{name}_32", f"{name}_narrow") for name in ("inc", "dec", "neg", "not")},
    **{name: (SHIFT, name, name) for name in ("shl", "shr", "sar", "rol", "ror", "rcl", "rcr")},
    **{name: (SHIFT_DOUBLE, name, name) for name in ("shld", "shrd")},
    "mov": (MOVE, "mov_32", "mov_narrow"),
    "movzx": (EXTEND, "zero_extend", "zero_extend"),
    "movsx": (EXTEND, "sign_extend_to_32", "sign_extend_to_32"),
    "lea": (LOAD_ADDRESS, "lea", "lea"),
    "xchg": (EXCHANGE, "xchg", "xchg"),
    "push": (PUSH, "push_32", "push_16"),
    "pop": (POP, "pop_32", "pop_16"),
    "setcc": (SET_BYTE, "setcc", "setcc"),
    "cmovcc": (MOVE_CONDITION, "cmovcc", "cmovcc"),
    "mul": (ACCUMULATOR, "multiply_accumulator", "multiply_accumulator"),
    "div": (ACCUMULATOR, "divide_accumulator", "divide_accumulator"),
    "imul": (BINARY, "imul_32", "imul_narrow"),
    "imul3": (PRODUCT_3, "imul3_32", "imul3_narrow"),
    "bit_test": (BIT_TEST, "bit_test", "bit_test"),
    "bit_string": (BIT_STRING, "bit_test", "bit_test"),
    "bit_scan": (SCAN, "bit_scan", "bit_scan"),
    "xadd": (BINARY, "xadd", "xadd"),
    "cmpxchg": (BINARY, "cmpxchg", "cmpxchg"),
    **{name: (SIMPLE, name, name) for name in ("cbw", "cwd", "nop", "lahf", "sahf")},
    "flag": (SIMPLE, "flag_operation", "flag_operation"),
    "bswap": (UNARY, "bswap", "bswap"),
    **{name: (FAULTING, name, name) for name in ("pusha", "popa", "leave", "xlat", "cmpxchg8b", "bound")},
    **{name: (FAULTING, name, name) for name in ("aam", "aad")},
    **{name: (SIMPLE, name, name) for name in ("decimal_adjust", "salc")},
    "hint": (HINT, "nop", "nop"),
    "undefined": (UNDEFINED, "raise_invalid_opcode", "raise_invalid_opcode"),
    "enter": (ENTER, "enter", "enter"),
    "string": (STRING, "string_once", "string_repeat"),
    "string_byte": (STRING_BYTE, "string_once", "string_repeat"),
    "port_string": (PORT_STRING, "port_string", "port_string"),
    "port_string_byte": (PORT_STRING_BYTE, "port_string", "port_string"),
    "jcc": (BRANCH_CONDITION, "jo", "jo"),
    "jmp": (BRANCH, "jmp", "jmp"),
    "loop": (BRANCH_LOOP, "loop", "loop"),
    "call": (CALL, "call", "near_16"),
    "jmp_indirect": (JUMP_INDIRECT, "jmp_indirect", "near_16"),
    "call_indirect": (CALL_INDIRECT, "call_indirect", "near_16"),
    "ret": (RETURN, "ret", "near_16"),
    **{f"system:{name}": (SYSTEM, "system_instruction", "system_instruction") for name in SYSTEM_NUMBER},
    **{f"system:{name}": (SYSTEM_VALUE, "system_value", "system_value") for name in VALUES},
    "system:CR_TO_REGISTER": (SYSTEM_VALUE, "cr_to_register", "cr_to_register"),
    "system:CLI": (SYSTEM_VALUE, "clear_interrupt_flag", "clear_interrupt_flag"),
    "system:INVLPG": (SYSTEM_VALUE, "invlpg", "invlpg"),
    **{f"system:{name}": (VMX, "system_instruction", "system_instruction") for name in VMX_INSTRUCTIONS},
    **{f"system:{name}": (VMX, "system_value", "system_value") for name in ("VMREAD", "VMWRITE", "VMPTRST")},
    **{f"x87:{name}": (X87, "x87_instruction", "x87_instruction") for name in X87_NUMBER},
}

MAP_TWO_BYTE, MAP_F3, MAP_X87, MAP_0F01, MAP_66_0F, MAP_66_0F38 = 1, 2, 4, 5, 6, 7

ROW = np.dtype(
    [
        ("lowering", "i8"),
        ("op_32", "i8"),
        ("op_narrow", "i8"),
        ("kind", "i8", 3),
        ("operand_width", "i8", 3),  # 0: the operand size
        ("immediate", "i8", 2),
        ("modrm", "i8"),
        ("signed_byte", "i8"),  # an 8-bit immediate is sign-extended to the operand size
        ("event", "i8"),
        ("event_memory", "i8"),
        ("event_kernel", "i8"),
        ("kernel_only", "i8"),
        ("sensitive", "i8"),  # sensitive and unprivileged; software interrupts go through gates, which can trap them
        ("protected_only", "i8"),  # not recognised in real-address and virtual-8086 mode
        ("feature", "i8"),  # bit of CPUID leaf 1 EDX without which it is #UD, -1 for none
        ("lockable", "i8"),
        ("condition", "i8"),
        ("system", "i8"),
        ("intercept", "i8"),  # its place in `cpu.intercepted`
        ("intercept_vmx", "i8"),  # where VMX looks there, STAGE_
        ("intercept_svm", "i8"),  # and SVM
    ]
)
NO_EVENT = -1

# Where an instruction in a guest asks whether it is intercepted (SDM volume 3, section 25.1.1; AMD volume 2, section 15.7):
# never, ahead of the check of privilege, behind it and ahead of its operands, behind its memory operand.
STAGE_NEVER, STAGE_FIRST, STAGE_AHEAD, STAGE_BEHIND = range(4)
WITHOUT_OPERATION = {"INS": INTERCEPT_INS, "OUTS": INTERCEPT_OUTS, "PAUSE": INTERCEPT_PAUSE, "RSM": INTERCEPT_RSM}
DESCRIPTOR_TABLES = {"LGDT", "LIDT", "SGDT", "SIDT", "LLDT", "LTR", "SLDT", "STR"}
OF_CONTROL = {
    "CR_TO_REGISTER", "REGISTER_TO_CR", "CLTS", "CPUID", "INVD", "WBINVD", "HLT", "INVLPG", "RDTSC", "RDPMC", "RDMSR", "WRMSR",
}  # fmt: skip
# Instructions of VMX itself: in a guest they are exits at any privilege level.
OF_VMX = {
    "VMCALL", "VMCLEAR", "VMLAUNCH", "VMPTRLD", "VMPTRST", "VMREAD", "VMRESUME", "VMWRITE", "VMXOFF", "VMXON",
    "INVEPT", "INVVPID",
}  # fmt: skip
VMX_STAGES = {
    **dict.fromkeys((*DESCRIPTOR_TABLES, *OF_CONTROL, "IN", "OUT", "INS", "OUTS", "PAUSE"), STAGE_AHEAD),
    **dict.fromkeys((*OF_VMX, "DR_TO_REGISTER", "REGISTER_TO_DR"), STAGE_FIRST),
    "LMSW": STAGE_BEHIND,
}
SVM_STAGES = {
    **dict.fromkeys((*DESCRIPTOR_TABLES, *OF_CONTROL, "IN", "OUT", "INS", "OUTS", "PAUSE", "LMSW", "SMSW"), STAGE_AHEAD),
    **dict.fromkeys(("DR_TO_REGISTER", "REGISTER_TO_DR", "INT1", "VMRUN", "VMLOAD", "VMSAVE"), STAGE_AHEAD),
    **dict.fromkeys(("STGI", "CLGI", "SKINIT", "INVLPGA", "INT3", "INTO"), STAGE_AHEAD),
    **dict.fromkeys(("PUSHF", "POPF", "IRET", "INT_N", "RSM", "VMMCALL"), STAGE_FIRST),
}


def event_number(name: str) -> int:
    """The number of a ledger event, NO_EVENT for an empty name."""
    return EVENT_ID[name] if name else NO_EVENT


def fill_row(info: np.void, row: Row) -> None:
    """Translate one row of the table."""
    lowering, wide, narrow = LOWERING[row.operation]
    info["lowering"], info["op_32"], info["op_narrow"] = lowering, NUMBER[wide], NUMBER[narrow]
    for place, code in enumerate(row.operands):
        info["kind"][place], info["operand_width"][place] = OPERAND_CODES[code]
    for place, name in enumerate(row.immediates):
        info["immediate"][place] = IMMEDIATE_CODE[name]
    info["modrm"] = int(row.modrm != "" or is_x87_register_form(row) or is_0f01_register_form(row))
    info["signed_byte"] = int("Ibs" in row.operands)
    info["event"], info["event_memory"] = event_number(row.cost), event_number(row.cost_memory)
    info["event_kernel"] = event_number(row.cost_kernel)
    info["kernel_only"] = int(row.privilege == CPL0 and row.mnemonic not in VMX_INSTRUCTIONS | SVM_INSTRUCTIONS)
    info["sensitive"] = int(row.sensitivity == SENSITIVE and row.operation not in SOFTWARE_INTERRUPTS)
    info["protected_only"] = int(row.mnemonic in PROTECTED_ONLY)
    info["feature"] = row.feature
    info["lockable"] = int(row.lockable)
    info["condition"] = row.condition
    if row.operation.startswith("system:"):
        info["system"] = SYSTEM_NUMBER[row.operation.split(":")[1]]
    name = interceptable_name(row)
    info["intercept"] = {**SYSTEM_NUMBER, **WITHOUT_OPERATION}.get(name, 0)
    info["intercept_vmx"] = VMX_STAGES.get(name, STAGE_NEVER)
    info["intercept_svm"] = SVM_STAGES.get(name, STAGE_NEVER)
    if row.operation.startswith("x87:"):
        info["system"] = X87_NUMBER[row.operation.split(":")[1]]


def interceptable_name(row: Row) -> str:
    """What a hypervisor's controls know the instruction by: its operation's name, or its mnemonic where it has none."""
    return row.operation.split(":")[1] if row.operation.startswith("system:") else row.mnemonic


def is_x87_register_form(row: Row) -> bool:
    """Whether the second opcode byte is a ModRM byte with two registers (escape opcodes D8 to DF)."""
    return row.opcode[0] in range(0xD8, 0xE0) and len(row.opcode) == 2


def is_0f01_register_form(row: Row) -> bool:
    """Whether the third opcode byte is a ModRM byte with two registers (0F 01)."""
    return row.opcode[:2] == (0x0F, 0x01) and len(row.opcode) == 3


def places(row: Row) -> list[tuple[int, int, int, int]]:
    """Where in OPCODE_MAP a row stands."""
    opcode = list(row.opcode)
    if is_x87_register_form(row):
        seconds = range(opcode[1], opcode[1] + (8 if "+r" in row.encoding else 1))
        return [(MAP_X87, (opcode[0] & 7) << 3 | second >> 3 & 7, second & 7, 0) for second in seconds]
    if is_0f01_register_form(row):
        return [(MAP_0F01, opcode[2], 0, 0)]
    space = 0
    if opcode[:3] == [0x66, 0x0F, 0x38]:
        space, opcode = MAP_66_0F38, opcode[3:]
    elif opcode[:2] == [0x66, 0x0F]:
        space, opcode = MAP_66_0F, opcode[2:]
    elif opcode[0] == 0xF3:
        space, opcode = MAP_F3, opcode[1:]
    if opcode[0] == 0x0F:
        space, opcode = space + MAP_TWO_BYTE, opcode[1:]
    numbers = range(opcode[0], opcode[0] + 8) if "+r" in row.encoding else (opcode[0],)
    fields = (int(row.modrm),) if row.modrm.isdigit() else range(8)
    if "Sw" in row.operands:
        fields = range(LDTR)  # the two numbers behind GS name no segment register
    forms = (0, 1)
    if any(code.startswith("M") for code in row.operands):
        forms = (1,)
    elif row.modrm and not row.operands:
        forms = (0,)
    return [(space, number, field, form) for number in numbers for field in fields for form in forms]


def build() -> tuple[np.ndarray, np.ndarray]:
    """OPCODE_MAP and ROW_INFO; two rows at one place are an error."""
    opcode_map = np.zeros((8, 256, 8, 2), np.int64)
    info = np.zeros(len(ROWS), ROW)
    for number, row in enumerate(ROWS):
        fill_row(info[number], row)
        for place in places(row):
            if opcode_map[place] != 0:
                raise ValueError(f"{row.name}: encoding {row.encoding} is taken twice")
            opcode_map[place] = number + 1
    return opcode_map, info


OPCODE_MAP, _INFO = build()
ROW_INFO = _INFO.view(np.recarray)

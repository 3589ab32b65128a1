"""Control words, environments and images of the whole x87 state (SDM volume 1, section 8.1; volume 2, FXSAVE)."""

from ..isa.registers import (
    CR0_PE,
    EFLAGS_VM,
    X87_BUSY,
    X87_CONTROL_INITIAL,
    X87_ERROR_SUMMARY,
    X87_EXCEPTIONS,
    X87_STACK_FAULT,
)
from ..isa.x87_ops import EXTENDED
from .float80 import set_value
from .jit import kernel
from .layout import OK
from .x87_formats import to_extended
from .x87_memory import check_range, check_sixteen, read_range, read_words, write_range, write_words
from .x87_state import EXPONENT_ONES, OPERAND_A, TOP_BIT, physical, summarize

CONTROL_BITS = 0x1F7F  # what the control word implements; the rest reads as below
CONTROL_ONES = 0x0040
M32 = 0xFFFFFFFF
REGISTERS_BYTES = 80


@kernel
def initialize(cpu):
    """FNINIT (volume 2): everything but the registers' contents."""
    cpu.fpu_control = X87_CONTROL_INITIAL
    cpu.fpu_status = 0
    cpu.fpu_occupied = 0
    cpu.fpu_instruction = 0
    cpu.fpu_instruction_selector = 0
    cpu.fpu_operand = 0
    cpu.fpu_operand_selector = 0
    cpu.fpu_opcode = 0


@kernel
def clear_exceptions(cpu):
    """FNCLEX."""
    cpu.fpu_status &= ~(X87_EXCEPTIONS | X87_STACK_FAULT | X87_ERROR_SUMMARY | X87_BUSY)


@kernel
def set_control(cpu, value):
    """Load the control word; a newly unmasked exception that is flagged becomes pending."""
    cpu.fpu_control = (value & CONTROL_BITS) | CONTROL_ONES
    summarize(cpu)


@kernel
def set_status(cpu, value):
    """Load the status word, after the control word."""
    cpu.fpu_status = value & 0xFFFF
    summarize(cpu)


@kernel
def tag_of(cpu, number):
    """The tag of a physical register: 0 valid, 1 zero, 2 special, 3 empty."""
    if (cpu.fpu_occupied >> number) & 1 == 0:
        return 3
    v = cpu.fpu_value[number]
    if v.exponent == EXPONENT_ONES:
        return 2
    if v.exponent == 0:
        if v.high | v.low == 0:
            return 1
        return 2
    if v.high & TOP_BIT == 0:
        return 2
    return 0


@kernel
def tag_word(cpu):
    """The tag word, two bits for each physical register."""
    word = 0
    for number in range(8):
        word |= tag_of(cpu, number) << (2 * number)
    return word


@kernel
def set_tags(cpu, word):
    """Load the tag word: only `empty` is kept."""
    occupied = 0
    for number in range(8):
        if (word >> (2 * number)) & 3 != 3:
            occupied |= 1 << number
    cpu.fpu_occupied = occupied


# -- environments ---------------------------------------------------------------------------------------------------


@kernel
def environment_bytes(width):
    """The size of an environment for an operand size."""
    if width == 16:
        return 14
    return 28


@kernel
def by_selectors(cpu):
    """Whether the pointers of an environment are selectors and offsets; in real and virtual-8086 mode they are linear."""
    return cpu.cr0 & CR0_PE != 0 and cpu.eflags & EFLAGS_VM == 0


@kernel
def write_environment(cpu, ram, width):
    """Write the environment to the range (volume 1, figures 8-9 to 8-12)."""
    n = width >> 3
    ones = 0
    if width == 32:
        ones = 0xFFFF0000
    write_range(cpu, ram, 0, n, cpu.fpu_control | ones)
    write_range(cpu, ram, n, n, cpu.fpu_status | ones)
    write_range(cpu, ram, 2 * n, n, tag_word(cpu) | ones)
    ip, dp, opcode = int(cpu.fpu_instruction), int(cpu.fpu_operand), int(cpu.fpu_opcode)
    if by_selectors(cpu):
        high = int(cpu.fpu_instruction_selector)
        if width == 32:
            high |= opcode << 16
        write_range(cpu, ram, 3 * n, n, ip)
        write_range(cpu, ram, 4 * n, n, high)
        write_range(cpu, ram, 5 * n, n, dp)
        write_range(cpu, ram, 6 * n, n, int(cpu.fpu_operand_selector) | ones)
        return
    ip = (ip + (int(cpu.fpu_instruction_selector) << 4)) & M32
    dp = (dp + (int(cpu.fpu_operand_selector) << 4)) & M32
    if width == 32:
        write_range(cpu, ram, 12, 4, ip & 0xFFFF | ones)
        write_range(cpu, ram, 16, 4, (ip >> 16) << 12 | opcode)
        write_range(cpu, ram, 20, 4, dp & 0xFFFF | ones)
        write_range(cpu, ram, 24, 4, (dp >> 16) << 12)
    else:
        write_range(cpu, ram, 6, 2, ip)
        write_range(cpu, ram, 8, 2, (ip >> 16 & 15) << 12 | opcode)
        write_range(cpu, ram, 10, 2, dp)
        write_range(cpu, ram, 12, 2, (dp >> 16 & 15) << 12)


@kernel
def read_environment(cpu, ram, width):
    """Load the environment from the range."""
    n = width >> 3
    mask = (1 << width) - 1
    cpu.fpu_control = (read_range(cpu, ram, 0, 2) & CONTROL_BITS) | CONTROL_ONES
    set_status(cpu, read_range(cpu, ram, n, 2))
    set_tags(cpu, read_range(cpu, ram, 2 * n, 2))
    ip, high = read_range(cpu, ram, 3 * n, n), read_range(cpu, ram, 4 * n, n)
    dp, last = read_range(cpu, ram, 5 * n, n), read_range(cpu, ram, 6 * n, n)
    if by_selectors(cpu):
        cpu.fpu_instruction = ip & mask
        cpu.fpu_instruction_selector = high & 0xFFFF
        cpu.fpu_operand = dp & mask
        cpu.fpu_operand_selector = last & 0xFFFF
        cpu.fpu_opcode = 0
        if width == 32:
            cpu.fpu_opcode = (high >> 16) & 0x7FF
        return
    cpu.fpu_instruction = ip & 0xFFFF | (high >> 12 & 0xFFFF) << 16
    cpu.fpu_operand = dp & 0xFFFF | (last >> 12 & 0xFFFF) << 16
    cpu.fpu_instruction_selector = 0
    cpu.fpu_operand_selector = 0
    cpu.fpu_opcode = high & 0x7FF


@kernel
def store_environment(cpu, ram, u):
    """FNSTENV: store, then mask all exceptions."""
    outcome = check_range(cpu, ram, u, environment_bytes(u.width), u.width >> 3, 1)
    if outcome != OK:
        return outcome
    write_environment(cpu, ram, u.width)
    set_control(cpu, cpu.fpu_control | X87_EXCEPTIONS)
    return OK


@kernel
def load_environment(cpu, ram, u):
    """FLDENV."""
    outcome = check_range(cpu, ram, u, environment_bytes(u.width), u.width >> 3, 0)
    if outcome == OK:
        read_environment(cpu, ram, u.width)
    return outcome


# -- whole states ---------------------------------------------------------------------------------------------------


@kernel
def write_registers(cpu, ram, at, step):
    """Write ST(0) to ST(7) to the range, `step` bytes apart."""
    for i in range(8):
        to_extended(cpu, cpu.fpu_value[physical(cpu, i)])
        write_words(cpu, ram, at + step * i, 10)


@kernel
def read_registers(cpu, ram, at, step):
    """Load ST(0) to ST(7) from the range."""
    for i in range(8):
        read_words(cpu, ram, at + step * i, 10)
        high = int(cpu.fpu_integer[2])
        v = cpu.fpu_value[physical(cpu, i)]
        set_value(v, high >> 15, high & EXPONENT_ONES, cpu.fpu_integer[1], cpu.fpu_integer[0], 0)


@kernel
def save(cpu, ram, u):
    """FNSAVE: environment and registers, then as FNINIT."""
    n = environment_bytes(u.width)
    outcome = check_range(cpu, ram, u, n + REGISTERS_BYTES, u.width >> 3, 1)
    if outcome != OK:
        return outcome
    write_environment(cpu, ram, u.width)
    write_registers(cpu, ram, n, 10)
    initialize(cpu)
    return OK


@kernel
def restore(cpu, ram, u):
    """FRSTOR."""
    n = environment_bytes(u.width)
    outcome = check_range(cpu, ram, u, n + REGISTERS_BYTES, u.width >> 3, 0)
    if outcome != OK:
        return outcome
    read_environment(cpu, ram, u.width)
    read_registers(cpu, ram, n, 10)
    return OK


@kernel
def fxsave(cpu, ram, u):
    """FXSAVE. Without SSE the MXCSR fields and the XMM area are reserved: they are not written."""
    outcome = check_sixteen(cpu, u)
    if outcome == OK:
        outcome = check_range(cpu, ram, u, 512, 16, 1)
    if outcome != OK:
        return outcome
    write_range(cpu, ram, 0, 2, cpu.fpu_control)
    write_range(cpu, ram, 2, 2, cpu.fpu_status)
    write_range(cpu, ram, 4, 2, cpu.fpu_occupied)
    write_range(cpu, ram, 6, 2, cpu.fpu_opcode)
    write_range(cpu, ram, 8, 4, cpu.fpu_instruction)
    write_range(cpu, ram, 12, 4, cpu.fpu_instruction_selector)
    write_range(cpu, ram, 16, 4, cpu.fpu_operand)
    write_range(cpu, ram, 20, 4, cpu.fpu_operand_selector)
    for i in range(8):
        to_extended(cpu, cpu.fpu_value[physical(cpu, i)])
        write_words(cpu, ram, 32 + 16 * i, 10)
        write_range(cpu, ram, 42 + 16 * i, 2, 0)
        write_range(cpu, ram, 44 + 16 * i, 4, 0)
    return OK


@kernel
def fxrstor(cpu, ram, u):
    """FXRSTOR. Without SSE nothing but the x87 state is read."""
    outcome = check_sixteen(cpu, u)
    if outcome == OK:
        outcome = check_range(cpu, ram, u, 512, 16, 0)
    if outcome != OK:
        return outcome
    cpu.fpu_control = (read_range(cpu, ram, 0, 2) & CONTROL_BITS) | CONTROL_ONES
    set_status(cpu, read_range(cpu, ram, 2, 2))
    cpu.fpu_occupied = read_range(cpu, ram, 4, 2) & 0xFF
    cpu.fpu_opcode = read_range(cpu, ram, 6, 2) & 0x7FF
    cpu.fpu_instruction = read_range(cpu, ram, 8, 4)
    cpu.fpu_instruction_selector = read_range(cpu, ram, 12, 2)
    cpu.fpu_operand = read_range(cpu, ram, 16, 4)
    cpu.fpu_operand_selector = read_range(cpu, ram, 20, 2)
    read_registers(cpu, ram, 32, 16)
    return OK

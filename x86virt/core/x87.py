"""The x87 instructions as the processor meets them: availability, pending exceptions, then the operation.

SDM volume 1, chapter 8; volume 3, section 2.5 (CR0.EM, MP, TS, NE) and section 6.15 (interrupts 7 and 16).
"""

from ..isa.registers import CR0_EM, CR0_MP, CR0_NE, CR0_TS, CS, EAX, FEATURE_FPU, X87_C1, X87_ERROR_SUMMARY
from ..isa.vectors import MF, NM
from ..isa.x87_ops import (
    POPS_SHIFT,
    TO_AX,
    X87_ARITHMETIC,
    X87_CLEAR_EXCEPTIONS,
    X87_COMPARE,
    X87_CONSTANT,
    X87_EXAMINE,
    X87_EXCHANGE,
    X87_FREE,
    X87_FXRSTOR,
    X87_FXSAVE,
    X87_INITIALIZE,
    X87_LOAD,
    X87_LOAD_CONTROL,
    X87_LOAD_ENVIRONMENT,
    X87_MOVE_CONDITION,
    X87_NOTHING,
    X87_RESTORE,
    X87_ROTATE,
    X87_SAVE,
    X87_STORE,
    X87_STORE_CONTROL,
    X87_STORE_ENVIRONMENT,
    X87_STORE_STATUS,
    X87_UNARY,
    X87_WAIT,
)
from .board import float_error, float_error_cleared
from .extensions import svm_freeze_intercepted
from .fault import raise_plain
from .jit import kernel
from .layout import OK, RESTART, SVM_GUEST, VM_EXIT
from .memory import effective_address
from .mode import write_register
from .x87_environment import (
    clear_exceptions,
    fxrstor,
    fxsave,
    initialize,
    load_environment,
    restore,
    save,
    set_control,
    store_environment,
)
from .x87_execute import examine, execute_arithmetic, execute_compare, execute_unary
from .x87_memory import check_range, read_range, write_range
from .x87_state import move_top, physical, pop
from .x87_transfer import exchange, load, load_constant, move_condition, store


@kernel
def unavailable(cpu, op):
    """Whether #NM stops the instruction: CR0.EM or TS, or no FPU at all (volume 3, table 9-3); for WAIT both MP and TS."""
    if op == X87_WAIT:
        return cpu.cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS
    return cpu.cr0 & (CR0_EM | CR0_TS) != 0 or (cpu.cpuid_leaf1_edx >> FEATURE_FPU) & 1 == 0


@kernel
def report_pending(cpu, board):
    """A waiting instruction finds an unmasked exception: #MF, or where CR0.NE is clear the PC's way around it.

    The processor asserts FERR#, the board raises IRQ 13, and the processor freezes in front of the instruction until
    an interrupt comes: here it halts there. The handler writes port 0xF0, upon which the board asserts IGNNE# and x87
    instructions execute in spite of the exception, until it is cleared.
    """
    if cpu.cr0 & CR0_NE != 0:
        return raise_plain(cpu, MF)
    if float_error(board) == 1:
        return OK
    if cpu.world == SVM_GUEST and svm_freeze_intercepted(cpu) == 1:
        return VM_EXIT
    cpu.halted = 1
    return RESTART


@kernel
def x87_instruction(cpu, ram, board, u):
    """Execute the x87 instruction whose operation number (`isa/x87_ops.py`) is in `u.dst_shift`."""
    op = u.dst_shift
    if unavailable(cpu, op):
        return raise_plain(cpu, NM)
    if op < X87_NOTHING and cpu.fpu_status & X87_ERROR_SUMMARY != 0:
        outcome = report_pending(cpu, board)
        if outcome != OK:
            return outcome
    cpu.fpu_flags = 0
    if op < X87_WAIT:
        outcome = compute(cpu, ram, u)
        if outcome == OK:
            note_pointers(cpu, u)
    else:
        outcome = control(cpu, ram, u)
    if board.ferr == 1 and cpu.fpu_status & X87_ERROR_SUMMARY == 0:
        float_error_cleared(board)
    return outcome


@kernel
def note_pointers(cpu, u):
    """The pointers to the last instruction and its memory operand, and its opcode (volume 1, section 8.1.8 and 8.1.9)."""
    cpu.fpu_instruction = u.imm
    cpu.fpu_instruction_selector = cpu.seg[CS].selector
    cpu.fpu_opcode = u.src & 0x7FF
    if u.src & 0xC0 != 0xC0:
        cpu.fpu_operand = effective_address(cpu, u)
        cpu.fpu_operand_selector = cpu.seg[u.segment].selector


@kernel
def compute(cpu, ram, u):
    """The operations X87_ARITHMETIC to X87_NO_OPERATION."""
    op = u.dst_shift
    if op == X87_ARITHMETIC:
        return execute_arithmetic(cpu, ram, u)
    if op == X87_COMPARE:
        return execute_compare(cpu, ram, u)
    if op == X87_LOAD:
        return load(cpu, ram, u)
    if op == X87_STORE:
        return store(cpu, ram, u)
    if op == X87_EXCHANGE:
        exchange(cpu, u.src_shift)
    elif op == X87_MOVE_CONDITION:
        move_condition(cpu, u)
    elif op == X87_CONSTANT:
        load_constant(cpu, u)
    elif op == X87_UNARY:
        execute_unary(cpu, u.condition)
    elif op == X87_EXAMINE:
        examine(cpu)
    elif op == X87_ROTATE:
        move_top(cpu, u.condition)
        cpu.fpu_status &= ~X87_C1
    elif op == X87_FREE:
        cpu.fpu_occupied &= ~(1 << physical(cpu, u.src_shift))
        cpu.fpu_status &= ~X87_C1
        if u.condition >> POPS_SHIFT != 0:
            pop(cpu)
    return OK


@kernel
def control(cpu, ram, u):
    """The operations X87_WAIT to X87_FXRSTOR."""
    op = u.dst_shift
    if op == X87_LOAD_CONTROL:
        return load_control(cpu, ram, u)
    if op == X87_STORE_CONTROL:
        return store_word(cpu, ram, u, cpu.fpu_control)
    if op == X87_STORE_STATUS:
        if u.condition & TO_AX != 0:
            write_register(cpu, EAX, 0, 16, cpu.fpu_status)
            return OK
        return store_word(cpu, ram, u, cpu.fpu_status)
    if op == X87_LOAD_ENVIRONMENT:
        return load_environment(cpu, ram, u)
    if op == X87_STORE_ENVIRONMENT:
        return store_environment(cpu, ram, u)
    if op == X87_RESTORE:
        return restore(cpu, ram, u)
    if op == X87_SAVE:
        return save(cpu, ram, u)
    if op == X87_FXSAVE:
        return fxsave(cpu, ram, u)
    if op == X87_FXRSTOR:
        return fxrstor(cpu, ram, u)
    if op == X87_CLEAR_EXCEPTIONS:
        clear_exceptions(cpu)
    elif op == X87_INITIALIZE:
        initialize(cpu)
    return OK


@kernel
def load_control(cpu, ram, u):
    """FLDCW."""
    outcome = check_range(cpu, ram, u, 2, 2, 0)
    if outcome == OK:
        set_control(cpu, read_range(cpu, ram, 0, 2))
    return outcome


@kernel
def store_word(cpu, ram, u, value):
    """FNSTCW and FNSTSW to memory."""
    outcome = check_range(cpu, ram, u, 2, 2, 1)
    if outcome == OK:
        write_range(cpu, ram, 0, 2, value)
    return outcome

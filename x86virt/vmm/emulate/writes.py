"""Instructions that write traced memory, performed by the VMM, so that it knows which bytes were written.

The common ones that write one operand in memory are performed here (SDM volume 2, a function each for what they compute);
all others, and whatever is odd about an operand, are the interpreter's.
"""

from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING

from ...isa.registers import (
    EAX,
    EFLAGS_AC,
    EFLAGS_AF,
    EFLAGS_ARITHMETIC,
    EFLAGS_CF,
    EFLAGS_OF,
    EFLAGS_PF,
    EFLAGS_SF,
    EFLAGS_ZF,
)
from ..exits import GuestFault
from ..guest_events import DR7_ENABLES
from ..instruction import PREFIXES, Instruction, effective_address
from ..stops import note_access

if TYPE_CHECKING:
    from ..virtual_machine import VirtualMachine

M32 = 0xFFFFFFFF
PAGE = 0x1000
LOCK = 0xF0
BYTE_OPERANDS = ("Eb", "Ob")
DESTINATIONS = ("Eb", "Ev", "Ob", "Ov")
Computation = Callable[[int, int, int, int], tuple[int, int]]  # old, source, width, CF -> new, arithmetic flags


def simulate_write(vm: "VirtualMachine", instruction: Instruction | None) -> None:
    """Perform the instruction at which the guest stands, and tell whoever traces what it writes which bytes these were."""
    gpa = None if instruction is None else destination(vm, instruction)
    if instruction is None or gpa is None:
        interpret(vm, instruction)
        return
    vm.charge("direct_store" if vm.is_served_directly else "traced_write", 1)
    store(vm, instruction, gpa)


# -- which of them ------------------------------------------------------------------------------------------------------


def is_simple(instruction: Instruction) -> bool:
    """Whether it writes one operand in memory that its operands say all about."""
    row = instruction.row
    known = row.operation in COMPUTATIONS and row.operands[0] in DESTINATIONS and instruction.has_memory
    prefixes = takewhile(PREFIXES.__contains__, instruction.octets)
    return known and (row.lockable or LOCK not in prefixes)


def destination(vm: "VirtualMachine", instruction: Instruction) -> int | None:
    """The guest-physical address of the operand that it writes, marked dirty; None if the interpreter has to look at it."""
    vcpu = vm.vcpu
    checks_alignment = vcpu.cpl == 3 and vcpu.frame.eflags & EFLAGS_AC
    if not is_simple(instruction) or checks_alignment or int(vcpu.dr[7]) & DR7_ENABLES:
        return None
    n = width_of(instruction) // 8
    try:
        gla = vm.segments.linear(instruction.segment, effective_address(vm, instruction), n, True)
        if gla & PAGE - 1 > PAGE - n:
            return None
        gpa = vm.guest.walk(gla, True, vcpu.cpl == 3).gpa
    except GuestFault:
        return None
    if vm.guest.machine_address(gpa) is None or vm.guest.machine_address(gpa, True) is None:
        return None
    note_access(vm.processor, gla, n, True)
    return gpa


def width_of(instruction: Instruction) -> int:
    """Bits of the operand."""
    return 8 if instruction.row.operands[0] in BYTE_OPERANDS else instruction.width


def interpret(vm: "VirtualMachine", instruction: Instruction | None) -> None:
    """Let the interpreter perform it. If its operand in memory is traced, what it changes there is known afterwards."""
    if vm.translation is not None:
        from ..translation.direct import make_general

        make_general(vm.translation)
    if vm.shadow.watched is not None or instruction is None or not instruction.has_memory:
        vm.interpret_one()
        return
    gla = vm.segments.base(instruction.segment) + effective_address(vm, instruction) & M32
    frame = None
    with suppress(GuestFault):  # which the interpreter will raise too
        frame = vm.guest.walk(gla, True, vm.vcpu.cpl == 3, mark=False).gpa // PAGE
    with vm.shadow.watching(frame):
        vm.interpret_one()


# -- the instruction ------------------------------------------------------------------------------------------------------


def store(vm: "VirtualMachine", instruction: Instruction, gpa: int) -> None:
    """Compute and write the operand, and complete the instruction."""
    from . import begin_instruction

    frame, width, stepped = vm.vcpu.frame, width_of(instruction), vm.vcpu.single_stepped
    begin_instruction(vm)
    old = vm.guest.read_gpa(gpa, width // 8)
    operation = instruction.row.operation
    new, flags = COMPUTATIONS[operation](old, source(vm, instruction, width), width, frame.eflags & EFLAGS_CF)
    vm.guest.write_gpa(gpa, width // 8, new)
    if operation == "xchg":
        set_register(vm, instruction.reg, width, old)
    written = flags_written(instruction)
    frame.eflags = frame.eflags & ~written | flags & written
    frame.eip = frame.eip + instruction.length & M32
    vm.complete_instruction(stepped)


def flags_written(instruction: Instruction) -> int:
    """The arithmetic flags that it writes."""
    if instruction.row.operation in ("inc", "dec"):
        return EFLAGS_ARITHMETIC & ~EFLAGS_CF
    return EFLAGS_ARITHMETIC if instruction.row.flags_written else 0


def source(vm: "VirtualMachine", instruction: Instruction, width: int) -> int:
    """The other operand: a register, the accumulator or an immediate; 0 for an instruction that has none."""
    operands = instruction.row.operands
    if len(operands) == 1:
        return 0
    if operands[1] in ("Gb", "Gv"):
        return register(vm, instruction.reg, width)
    if operands[1] in ("AL", "rAX"):
        return register(vm, EAX, width)
    return instruction.imm & (1 << width) - 1


def register(vm: "VirtualMachine", number: int, width: int) -> int:
    """A general register, or a part of it; of the byte registers 4 to 7 are the second bytes of 0 to 3."""
    if width == 8:
        return vm.register(number & 3) >> (8 if number & 4 else 0) & 0xFF
    return vm.register(number) & (1 << width) - 1


def set_register(vm: "VirtualMachine", number: int, width: int, value: int) -> None:
    """Write a general register, or a part of it."""
    if width == 8:
        shift = 8 if number & 4 else 0
        vm.set_register(number & 3, vm.register(number & 3) & ~(0xFF << shift) | value << shift)
    else:
        vm.set_register(number, value, width)


# -- what they compute ----------------------------------------------------------------------------------------------------


def result_flags(result: int, width: int) -> int:
    """ZF, SF and PF of a result."""
    flags = 0 if result else EFLAGS_ZF
    if result >> width - 1:
        flags |= EFLAGS_SF
    if (result & 0xFF).bit_count() % 2 == 0:
        flags |= EFLAGS_PF
    return flags


def carry_flags(carries: int, width: int) -> int:
    """CF, OF and AF of the carries, or borrows, out of each bit."""
    last, before = carries >> width - 1 & 1, carries >> width - 2 & 1
    return last * EFLAGS_CF | (last ^ before) * EFLAGS_OF | (carries >> 3 & 1) * EFLAGS_AF


def add(old: int, other: int, width: int, carry: int = 0) -> tuple[int, int]:
    """A sum."""
    result = old + other + carry & (1 << width) - 1
    carries = old & other | (old | other) & ~result
    return result, result_flags(result, width) | carry_flags(carries, width)


def subtract(old: int, other: int, width: int, borrow: int = 0) -> tuple[int, int]:
    """A difference."""
    result = old - other - borrow & (1 << width) - 1
    borrows = ~old & other | (~old | other) & result
    return result, result_flags(result, width) | carry_flags(borrows, width)


def logical(result: int, width: int) -> tuple[int, int]:
    """What AND, OR and XOR give: CF and OF are clear."""
    return result, result_flags(result, width)


COMPUTATIONS: dict[str, Computation] = {
    "mov": lambda old, other, width, carry: (other, 0),
    "xchg": lambda old, other, width, carry: (other, 0),
    "not": lambda old, other, width, carry: (old ^ (1 << width) - 1, 0),
    "add": lambda old, other, width, carry: add(old, other, width),
    "adc": add,
    "sub": lambda old, other, width, carry: subtract(old, other, width),
    "sbb": subtract,
    "inc": lambda old, other, width, carry: add(old, 1, width),
    "dec": lambda old, other, width, carry: subtract(old, 1, width),
    "neg": lambda old, other, width, carry: subtract(0, old, width),
    "and": lambda old, other, width, carry: logical(old & other, width),
    "or": lambda old, other, width, carry: logical(old | other, width),
    "xor": lambda old, other, width, carry: logical(old ^ other, width),
}  # fmt: skip

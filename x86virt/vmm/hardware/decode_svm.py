"""What an SVM without decode assists does not tell of an intercepted instruction: its VMM decodes it.

The exit then has the qualification that VT-x would give it (SDM volume 3, section 27.2.1).
"""

from typing import TYPE_CHECKING

from ..emulate.operands import source_word
from ..exits import Exit, NotDirect, VmmError
from ..instruction import Instruction, effective_address

if TYPE_CHECKING:
    from .vm import HardwareVm

M32 = 0xFFFFFFFF
MOV_TO, MOV_FROM, CLTS, LMSW = range(4)
KINDS = {"REGISTER_TO_CR": MOV_TO, "CR_TO_REGISTER": MOV_FROM, "CLTS": CLTS, "LMSW": LMSW}
TYPE_SHIFT, REGISTER_SHIFT, SOURCE_SHIFT = 4, 8, 16


def decoded(vm: "HardwareVm", exit: Exit) -> Instruction:
    """The instruction at which the guest exited, whose length the exit has then."""
    instruction = vm.instruction()
    if instruction is None:
        raise VmmError(f"no instruction where the guest exited, at eip {exit.rip:#x}")
    exit.length = instruction.length
    return instruction


def qualify_control_register(vm: "HardwareVm", exit: Exit) -> None:
    """A control-register access: register and kind, the general register, LMSW's source. NotDirect for SMSW."""
    instruction = decoded(vm, exit)
    if instruction.operation not in KINDS:
        raise NotDirect
    kind = KINDS[instruction.operation]
    exit.qualification = kind << TYPE_SHIFT
    if kind in (MOV_TO, MOV_FROM):
        exit.qualification |= instruction.reg | instruction.rm << REGISTER_SHIFT
    elif kind == LMSW:
        exit.qualification |= source_word(vm, instruction) << SOURCE_SHIFT


def address_of_invlpg(vm: "HardwareVm", exit: Exit) -> int:
    """The linear address of INVLPG."""
    instruction = decoded(vm, exit)
    return vm.segments.base(instruction.segment) + effective_address(vm, instruction) & M32

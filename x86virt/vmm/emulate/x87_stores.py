"""FNSTENV, FNSAVE and FXSAVE (SDM volume 1, sections 8.1.10 and 10.5): their images name the last instruction's CS.

On x86 they do not trap, and show the ring that the code really ran in.
"""

from typing import TYPE_CHECKING

from ...isa.registers import CR0_EM, CR0_TS
from ...isa.vectors import GP, NM
from ..exits import GuestFault
from ..instruction import Instruction, effective_address
from ..state import x87_state

if TYPE_CHECKING:
    from ..vm import SoftwareVm

EXCEPTION_MASKS = 0x3F  # of the control word
SUMMARY = 0x8080  # of the status word: ES and B
INITIAL_CONTROL = 0x37F
EMPTY, SPECIAL, ZERO, VALID = 3, 2, 1, 0
EXPONENT_ONES = 0x7FFF
# What is stored, for its price.
ENVIRONMENT_DOUBLEWORDS, SAVE_DOUBLEWORDS, FXSAVE_DOUBLEWORDS = 7, 27, 38


def require_x87(vm: "SoftwareVm") -> None:
    """#NM while CR0 has EM or TS set."""
    if vm.vcpu.cr0 & (CR0_EM | CR0_TS):
        raise GuestFault(NM)


def tag_of(number: int) -> int:
    """The tag of an occupied register that holds these 80 bits."""
    exponent, fraction = number >> 64 & EXPONENT_ONES, number & (1 << 64) - 1
    if exponent == 0 and fraction == 0:
        return ZERO
    return VALID if 0 < exponent < EXPONENT_ONES and fraction >> 63 else SPECIAL


def tag_word(values: dict[str, int]) -> int:
    """The tag word, two bits for each physical register."""
    tags = [tag_of(values[f"fpu_r{n}"]) if values["fpu_occupied"] >> n & 1 else EMPTY for n in range(8)]
    return sum(tag << 2 * n for n, tag in enumerate(tags))


def selectors(vm: "SoftwareVm") -> tuple[int, int]:
    """The selectors of the last instruction and its operand, as the guest has them."""
    cpu, virtual = vm.processor.cpu, vm.vcpu.virtual_selector
    return virtual(int(cpu.fpu_instruction_selector)), virtual(int(cpu.fpu_operand_selector))


def environment(vm: "SoftwareVm", width: int) -> bytes:
    """The environment of protected mode (figures 8-9 and 8-11)."""
    values = x87_state(vm.processor.cpu)
    ones = 0xFFFF0000 if width == 32 else 0
    code, data = selectors(vm)
    high = code | (values["fpu_opcode"] << 16 if width == 32 else 0)
    words = [values["fpu_control"] | ones, values["fpu_status"] | ones, tag_word(values) | ones]
    words += [values["fpu_instruction"], high, values["fpu_operand"], data | ones]
    return b"".join((word & (1 << width) - 1).to_bytes(width // 8, "little") for word in words)


def stack_registers(vm: "SoftwareVm") -> list[bytes]:
    """ST(0) to ST(7), 10 bytes each."""
    values = x87_state(vm.processor.cpu)
    top = values["fpu_status"] >> 11 & 7
    return [values[f"fpu_r{top + n & 7}"].to_bytes(10, "little") for n in range(8)]


def target(vm: "SoftwareVm", instruction: Instruction, n: int) -> int:
    """The linear address of an operand of `n` bytes, all of which may be written."""
    offset = effective_address(vm, instruction)
    vm.segments.check_write(instruction.segment, offset, n)
    return vm.segments.linear(instruction.segment, offset, n, True)


def put(vm: "SoftwareVm", gla: int, octets: bytes) -> None:
    """Write bytes at a linear address."""
    vm.guest.write(gla, len(octets), int.from_bytes(octets, "little"), vm.vcpu.cpl == 3)


def store_environment(vm: "SoftwareVm", instruction: Instruction) -> None:
    """FNSTENV: store, then mask all exceptions."""
    vm.charge("emulate_x87_store", ENVIRONMENT_DOUBLEWORDS)
    require_x87(vm)
    image, cpu = environment(vm, instruction.width), vm.processor.cpu
    put(vm, target(vm, instruction, len(image)), image)
    cpu.fpu_control |= EXCEPTION_MASKS
    cpu.fpu_status &= ~SUMMARY


def save(vm: "SoftwareVm", instruction: Instruction) -> None:
    """FNSAVE: environment and registers, then as FNINIT."""
    vm.charge("emulate_x87_store", SAVE_DOUBLEWORDS)
    require_x87(vm)
    image, cpu = environment(vm, instruction.width) + b"".join(stack_registers(vm)), vm.processor.cpu
    put(vm, target(vm, instruction, len(image)), image)
    cpu.fpu_control, cpu.fpu_status, cpu.fpu_occupied = INITIAL_CONTROL, 0, 0
    cpu.fpu_instruction = cpu.fpu_operand = cpu.fpu_opcode = 0
    cpu.fpu_instruction_selector = cpu.fpu_operand_selector = 0


def fxsave(vm: "SoftwareVm", instruction: Instruction) -> None:
    """FXSAVE. Without SSE the MXCSR fields and the XMM area are reserved: they are not written."""
    vm.charge("emulate_x87_store", FXSAVE_DOUBLEWORDS)
    require_x87(vm)
    values = x87_state(vm.processor.cpu)
    if vm.segments.base(instruction.segment) + effective_address(vm, instruction) & 15:
        raise GuestFault(GP, 0)
    gla = target(vm, instruction, 512)
    words = [values[f"fpu_{name}"] for name in ("control", "status", "occupied", "opcode")]
    pointers = zip((values["fpu_instruction"], values["fpu_operand"]), selectors(vm), strict=True)
    image = b"".join(word.to_bytes(2, "little") for word in words)
    image += b"".join(part.to_bytes(4, "little") for pointer in pointers for part in pointer)
    put(vm, gla, image)
    put(vm, gla + 32, b"".join(octets.ljust(16, b"\0") for octets in stack_registers(vm)))

"""INS and OUTS of the guest, with REP iteration by iteration (SDM volume 2, INS and OUTS; volume 1, section 18.4).

An iteration checks everything before it touches the device, so that no datum is lost and none is sent twice. A repeated
instruction is left between two iterations, to be executed again, when something waits for the guest.
"""

from typing import TYPE_CHECKING

from ...isa.registers import ECX, EDI, EDX, EFLAGS_DF, ES, ESI
from ..instruction import Instruction
from .ports import check_port

if TYPE_CHECKING:
    from ..virtual_machine import VirtualMachine

M32 = 0xFFFFFFFF
MOST_ITERATIONS = 256  # of one exit, so that a long instruction cannot keep the processor from the end of its budget


def element_bytes(instruction: Instruction) -> int:
    """Bytes of one iteration."""
    return 1 if instruction.row.operation == "port_string_byte" else instruction.width // 8


def advance(vm: "VirtualMachine", register: int, step: int, mask: int) -> None:
    """Move a pointer or a count; a 16-bit address size leaves the register's upper half."""
    value = vm.register(register)
    vm.set_register(register, value & ~mask & M32 | value + step & mask)


def port_string(vm: "VirtualMachine", instruction: Instruction) -> bool:
    """INS or OUTS; False: iterations are still to come, and the guest stands between two."""
    mask = (1 << instruction.address_width) - 1
    if not instruction.repeated:
        one_iteration(vm, instruction, mask)
        return True
    for _ in range(MOST_ITERATIONS):
        left = vm.register(ECX) & mask
        if left == 0:
            return True
        one_iteration(vm, instruction, mask)
        advance(vm, ECX, -1, mask)
        if left == 1:
            return True
        if vm.vcpu.single_stepped or vm.board.attention or vm.devices.see() and vm.vcpu.interrupt_flag:
            break
    return False


def one_iteration(vm: "VirtualMachine", instruction: Instruction, mask: int) -> None:
    """One element between the port DX and memory."""
    vm.charge("emulate_port", 1)
    n = element_bytes(instruction)
    port = vm.register(EDX) & 0xFFFF
    step = -n if vm.vcpu.frame.eflags & EFLAGS_DF else n
    check_port(vm, port, n)
    if instruction.operation == "INS":
        offset = vm.register(EDI) & mask
        vm.segments.check_write(ES, offset, n)
        vm.segments.write(ES, offset, n, vm.devices.read(port, n))
        advance(vm, EDI, step, mask)
    else:
        value = vm.segments.read(instruction.string_segment, vm.register(ESI) & mask, n)
        vm.devices.write(port, n, value)
        advance(vm, ESI, step, mask)

"""Far jumps and calls (SDM volume 2, JMP and CALL operation; volume 3, sections 5.8 and 7.3)."""

from typing import TYPE_CHECKING

from ...isa.registers import (
    CS,
    TYPE_CALL_GATE_16,
    TYPE_CALL_GATE_32,
    TYPE_TASK_GATE,
    TYPE_TSS_16,
    TYPE_TSS_16_BUSY,
    TYPE_TSS_32,
    TYPE_TSS_32_BUSY,
)
from ...isa.vectors import GP, NP
from ..descriptor import Descriptor
from ..exits import GuestFault, NotDirect
from ..guest_stack import inner_stack, present_stack
from ..instruction import Instruction
from ..segments import check_code_jump, descriptor_of, error_code, mark_accessed
from .operands import far_pointer

if TYPE_CHECKING:
    from ..vm import SoftwareVm

M32 = 0xFFFFFFFF
PARAMETER_COUNT = 0x1F
CALL_GATES = {TYPE_CALL_GATE_16: 2, TYPE_CALL_GATE_32: 4}  # kind -> bytes of an item that is pushed
TASK_STATES = (TYPE_TSS_16, TYPE_TSS_16_BUSY, TYPE_TSS_32, TYPE_TSS_32_BUSY)


def jmp_far(vm: "SoftwareVm", instruction: Instruction) -> None:
    """A far jump: to code of this ring, directly or through a call gate, or to another task."""
    vm.charge("emulate_far_transfer", 1)
    selector, offset = far_pointer(vm, instruction)
    gla, descriptor = descriptor_of(vm, selector)
    if descriptor.is_code:
        check_code_jump(vm, selector, descriptor)
        enter_same(vm, selector, offset, gla, descriptor)
        return
    n = system_target(vm, selector, descriptor)
    selector, offset = gate_target(descriptor, n)
    gla, code = gate_code(vm, selector)
    if not code.is_conforming and code.dpl != vm.vcpu.cpl:
        raise GuestFault(GP, error_code(selector))
    if not code.is_present:
        raise GuestFault(NP, error_code(selector))
    enter_same(vm, selector, offset, gla, code)


def call_far(vm: "SoftwareVm", instruction: Instruction) -> None:
    """A far call: to code directly, through a call gate to this or an inner ring, or to another task."""
    vm.charge("emulate_far_transfer", 1)
    selector, offset = far_pointer(vm, instruction)
    after = vm.vcpu.frame.eip + instruction.length & M32
    gla, descriptor = descriptor_of(vm, selector)
    if descriptor.is_code:
        check_code_jump(vm, selector, descriptor)
        call_same(vm, selector, offset, gla, descriptor, after, instruction.width // 8)
        return
    n = system_target(vm, selector, descriptor)
    selector, offset = gate_target(descriptor, n)
    gla, code = gate_code(vm, selector)
    if not code.is_present:
        raise GuestFault(NP, error_code(selector))
    if not code.is_conforming and code.dpl < vm.vcpu.cpl:
        call_inner(vm, selector, offset, gla, code, after, descriptor.high & PARAMETER_COUNT, n)
    else:
        call_same(vm, selector, offset, gla, code, after, n)


# -- targets --------------------------------------------------------------------------------------------------------------


def system_target(vm: "SoftwareVm", selector: int, descriptor: Descriptor) -> int:
    """Check a system descriptor as a target: bytes of an item for a call gate. A task is left to the interpreter."""
    task = descriptor.kind in TASK_STATES
    if descriptor.is_segment or not task and descriptor.kind not in (*CALL_GATES, TYPE_TASK_GATE):
        raise GuestFault(GP, error_code(selector))
    if descriptor.dpl < vm.vcpu.cpl or descriptor.dpl < selector & 3:
        raise GuestFault(GP, error_code(selector))
    if not task and not descriptor.is_present:
        raise GuestFault(NP, error_code(selector))
    if descriptor.kind not in CALL_GATES:
        raise NotDirect  # a hardware task switch
    return CALL_GATES[descriptor.kind]


def gate_target(gate: Descriptor, n: int) -> tuple[int, int]:
    """Selector and offset in a call gate; one of 16 bits has no upper half of an offset."""
    return gate.low >> 16, gate.low & 0xFFFF | (gate.high & 0xFFFF0000 if n == 4 else 0)


def gate_code(vm: "SoftwareVm", selector: int) -> tuple[int, Descriptor]:
    """The code segment that a call gate names; no transfer goes outwards."""
    gla, code = descriptor_of(vm, selector)
    if not code.is_code or code.dpl > vm.vcpu.cpl:
        raise GuestFault(GP, error_code(selector))
    return gla, code


# -- the transfer itself ----------------------------------------------------------------------------------------------------


def enter_same(vm: "SoftwareVm", selector: int, offset: int, gla: int, code: Descriptor) -> None:
    """Check the limit and load CS:EIP within this ring; the selector's RPL becomes the CPL."""
    if offset > code.limit:
        raise GuestFault(GP, 0)
    mark_accessed(vm, gla, code)
    vm.segments.load(CS, selector & ~3 | vm.vcpu.cpl, code)
    vm.vcpu.frame.eip = offset


def call_same(
    vm: "SoftwareVm", selector: int, offset: int, gla: int, code: Descriptor, after: int, n: int
) -> None:
    """The end of a far call within this ring: the return address goes on the present stack."""
    stack = present_stack(vm)
    stack.require_room(2, n, 0)
    if offset > code.limit:
        raise GuestFault(GP, 0)
    stack.push(n, vm.segments.state(CS).selector)
    stack.push(n, after)
    enter_same(vm, selector, offset, gla, code)
    stack.load()


def call_inner(
    vm: "SoftwareVm", selector: int, offset: int, gla: int, code: Descriptor, after: int, count: int, n: int
) -> None:
    """CALL-GATE, MORE-PRIVILEGE: the stack of the guest's TSS, with parameters copied."""
    old = vm.segments
    # 1. The new stack, with room for SS, ESP, the parameters, CS and EIP.
    stack = inner_stack(vm, code.dpl, 0)
    stack.require_room(4 + count, n, error_code(stack.state.selector))
    # 2. The entry point within the code segment.
    if offset > code.limit:
        raise GuestFault(GP, 0)
    # 3. Push.
    stack.mark()
    mark_accessed(vm, gla, code)
    stack.push(n, present_stack(vm).state.selector)
    stack.push(n, vm.vcpu.frame.esp)
    for index in range(count - 1, -1, -1):
        stack.push(n, old.peek(n * index, n))
    stack.push(n, old.state(CS).selector)
    stack.push(n, after)
    # 4. Commit.
    vm.segments.set_cpl(code.dpl)
    stack.load()
    vm.segments.load(CS, selector & ~3 | code.dpl, code)
    vm.vcpu.frame.eip = offset

"""Far returns and IRET (SDM volume 2, RET and IRET operation): how a guest kernel's interrupt flag comes back."""

from typing import TYPE_CHECKING

from ...isa.registers import (
    CS,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_LOADABLE,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_VIF,
    EFLAGS_VIP,
    EFLAGS_VM,
    SS,
)
from ...isa.vectors import GP
from ..exits import GuestFault, NotDirect
from ..instruction import Instruction
from ..segments import check_code_return, check_stack_load, mark_accessed

if TYPE_CHECKING:
    from ..vm import SoftwareVm


def loadable_flags(vm: "SoftwareVm", n: int) -> int:
    """The flags that POPF and IRET of `n` bytes may change at the virtual CPL and IOPL; RF, VM, VIF and VIP apart."""
    mask = EFLAGS_LOADABLE
    if vm.vcpu.cpl <= vm.vcpu.iopl:
        mask |= EFLAGS_IF
    if vm.vcpu.cpl == 0:
        mask |= EFLAGS_IOPL
    return mask & 0xFFFF if n == 2 else mask


def ret_far(vm: "SoftwareVm", instruction: Instruction) -> None:
    """A far return to the same or an outer ring."""
    vm.charge("emulate_far_transfer", 1)
    n = instruction.width // 8
    eip, selector = vm.segments.peek(0, n), vm.segments.peek(n, n) & 0xFFFF
    return_to(vm, eip, selector, 2 * n, n, instruction.imm & 0xFFFF, vm.vcpu.virtual_flags(vm.vcpu.frame.eflags))


def iret(vm: "SoftwareVm", instruction: Instruction) -> None:
    """IRET and IRETD to the same or an outer ring."""
    vm.charge("emulate_far_transfer", 1)
    vcpu, n = vm.vcpu, instruction.width // 8
    if vcpu.frame.eflags & EFLAGS_NT:
        raise NotDirect  # a hardware task switch
    eip, selector, image = vm.segments.peek(0, n), vm.segments.peek(n, n) & 0xFFFF, vm.segments.peek(2 * n, n)
    if image & EFLAGS_VM and vcpu.cpl == 0:
        raise NotDirect
    mask = loadable_flags(vm, n)
    if n == 4:
        mask |= EFLAGS_RF | (EFLAGS_VIF | EFLAGS_VIP if vcpu.cpl == 0 else 0)
    flags = vcpu.virtual_flags(vcpu.frame.eflags) & ~(mask | EFLAGS_RF) | image & mask
    return_to(vm, eip, selector, 3 * n, n, 0, flags)


def return_to(
    vm: "SoftwareVm", eip: int, selector: int, popped: int, n: int, release: int, flags: int
) -> None:
    """The rest of both: check everything, then load CS:EIP, the stack and EFLAGS."""
    vcpu, segments, level = vm.vcpu, vm.segments, selector & 3
    # 1. The code segment, and for an outer ring its stack, behind the parameters.
    gla, code = check_code_return(vm, selector)
    outer = level > vcpu.cpl
    if outer:
        pointer = segments.peek(popped + release, n)
        stack_selector = segments.peek(popped + release + n, n) & 0xFFFF
        stack_gla, stack = check_stack_load(vm, stack_selector, level)
    if eip > code.limit:
        raise GuestFault(GP, 0)
    mark_accessed(vm, gla, code)
    # 2. The stack. A far return releases parameters on both.
    if outer:
        mark_accessed(vm, stack_gla, stack)
        segments.set_cpl(level)
        segments.load(SS, stack_selector, stack)
        segments.set_stack_pointer(pointer)
        segments.set_stack_pointer(vcpu.frame.esp + release)
    else:
        segments.set_stack_pointer(vcpu.frame.esp + popped + release)
    # 3. CS:EIP and EFLAGS, and no data segment of an inner ring.
    segments.load(CS, selector, code)
    vcpu.frame.eip = eip
    vcpu.frame.eflags = vcpu.load_flags(flags)
    if outer:
        segments.drop_inner(level)

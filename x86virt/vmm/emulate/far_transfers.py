"""Far jumps, calls and returns, and IRET (SDM volume 3, sections 5.8 and 6.12)."""

from typing import TYPE_CHECKING

from ...isa.registers import (
    EFLAGS_AC,
    EFLAGS_ARITHMETIC,
    EFLAGS_DF,
    EFLAGS_ID,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_TF,
    EFLAGS_VM,
    SS,
)
from ...isa.vectors import GP
from ..exits import GuestFault, Unsupported
from ..instruction import Instruction, effective_address
from ..segments import check_code_jump, check_code_return, check_stack_load, descriptor_of, mark_accessed

if TYPE_CHECKING:
    from ..vm import VirtualMachine

M32 = 0xFFFFFFFF
# What a return may load into EFLAGS at any privilege; IOPL and IF are decided by CPL and IOPL.
LOADABLE = EFLAGS_ARITHMETIC | EFLAGS_TF | EFLAGS_DF | EFLAGS_NT | EFLAGS_AC | EFLAGS_ID | EFLAGS_RF
TASK = "a task-state segment (a hardware task switch)"
GATES = {1: TASK, 3: TASK, 4: "a call gate", 5: "a task gate", 9: TASK, 11: TASK, 12: "a call gate"}


def far_pointer(vm: "VirtualMachine", instruction: Instruction) -> tuple[int, int]:
    """Selector and offset of a far jump or call."""
    if instruction.width != 32:
        raise Unsupported("a far transfer with a 16-bit operand")
    if instruction.has_memory:
        offset = effective_address(vm, instruction)
        target = vm.segments.read(instruction.segment, offset, 4)
        return vm.segments.read(instruction.segment, offset + 4 & M32, 2), target
    return instruction.imm >> 32 & 0xFFFF, instruction.imm & M32


def jmp_far(vm: "VirtualMachine", instruction: Instruction) -> None:
    """A far jump to a code segment at the same CPL; gates and task switches are not virtualized yet."""
    vm.charge("emulate_far_transfer", 1)
    selector, target = far_pointer(vm, instruction)
    enter_code(vm, selector, target)


def enter_code(vm: "VirtualMachine", selector: int, target: int) -> None:
    """Check and load CS:EIP for a far jump or call."""
    refuse_gates(vm, selector)
    gla, descriptor = check_code_jump(vm, selector)
    if target > descriptor.limit:
        raise GuestFault(GP, 0)
    mark_accessed(vm, gla, descriptor)
    frame = vm.vcpu.frame
    frame.cs = vm.vcpu.hardware_selector(selector & ~3 | vm.vcpu.cpl)
    frame.eip = target
    vm.descriptors.install(frame.cs)


def refuse_gates(vm: "VirtualMachine", selector: int) -> None:
    """Call gates, task gates and TSSs are not virtualized yet."""
    if selector & 0xFFFC:
        _, descriptor = descriptor_of(vm, selector)
        if not descriptor.is_segment and descriptor.kind in GATES:
            raise Unsupported(f"a far transfer to {GATES[descriptor.kind]}, selector {selector:#x}: not virtualized yet")


def call_far(vm: "VirtualMachine", instruction: Instruction) -> None:
    """A far call to a code segment at the same CPL."""
    vm.charge("emulate_far_transfer", 1)
    selector, target = far_pointer(vm, instruction)
    frame = vm.vcpu.frame
    old_cs, after = vm.vcpu.virtual_selector(frame.cs), frame.eip + instruction.length & M32
    refuse_gates(vm, selector)
    gla, descriptor = check_code_jump(vm, selector)
    if target > descriptor.limit:
        raise GuestFault(GP, 0)
    vm.segments.write(SS, frame.esp - 8 & M32, 4, after)
    vm.segments.write(SS, frame.esp - 4 & M32, 4, old_cs)
    frame.esp = frame.esp - 8 & M32
    enter_code(vm, selector, target)


def ret_far(vm: "VirtualMachine", instruction: Instruction) -> None:
    """A far return to the same or an outer ring."""
    vm.charge("emulate_far_transfer", 1)
    if instruction.width != 32:
        raise Unsupported("a far return with a 16-bit operand")
    esp = vm.vcpu.frame.esp
    eip = vm.segments.read(SS, esp, 4)
    selector = vm.segments.read(SS, esp + 4 & M32, 4) & 0xFFFF
    return_to(vm, eip, selector, esp + 8, instruction.imm & 0xFFFF, None)


def iret(vm: "VirtualMachine", instruction: Instruction) -> None:
    """IRETD to the same or an outer ring: the way in which a guest kernel's IF comes back."""
    vm.charge("emulate_far_transfer", 1)
    vcpu = vm.vcpu
    if vcpu.frame.eflags & EFLAGS_NT:
        raise Unsupported("IRET with NT set, from a nested task: hardware task switches are not virtualized yet")
    if instruction.width != 32:
        raise Unsupported("IRET with a 16-bit operand")
    esp = vcpu.frame.esp
    eip = vm.segments.read(SS, esp, 4)
    selector = vm.segments.read(SS, esp + 4 & M32, 4) & 0xFFFF
    image = vm.segments.read(SS, esp + 8 & M32, 4)
    if image & EFLAGS_VM and vcpu.cpl == 0:
        raise Unsupported("a return to virtual-8086 mode")
    return_to(vm, eip, selector, esp + 12, 0, image)


def return_to(vm: "VirtualMachine", eip: int, selector: int, esp: int, release: int, image: int | None) -> None:
    """The rest of RETF and IRET (SDM volume 2): check everything, then load CS:EIP, the stack and EFLAGS."""
    vcpu, frame = vm.vcpu, vm.vcpu.frame
    gla, code = check_code_return(vm, selector)
    outer = selector & 3 > vcpu.cpl
    if outer:
        esp = esp + release & M32
        new_esp = vm.segments.read(SS, esp, 4)
        new_ss = vm.segments.read(SS, esp + 4 & M32, 4) & 0xFFFF
        stack_gla, stack = check_stack_load(vm, new_ss, selector & 3)
    if eip > code.limit:
        raise GuestFault(GP, 0)
    if selector & 3 not in (0, 3):
        raise Unsupported(f"a return to guest ring {selector & 3}: this VMM gives guests rings 0 and 3")
    flags = vcpu.virtual_flags(frame.eflags)
    if image is not None:
        mask = LOADABLE
        if vcpu.cpl <= vcpu.iopl:
            mask |= EFLAGS_IF
        if vcpu.cpl == 0:
            mask |= EFLAGS_IOPL
        flags = flags & ~mask | image & mask
    mark_accessed(vm, gla, code)
    if outer:
        mark_accessed(vm, stack_gla, stack)
        vm.segments.set_cpl(selector & 3)
        frame.esp = new_esp + (release if image is None else 0) & M32
        frame.ss = vcpu.hardware_selector(new_ss)
        vm.descriptors.install(frame.ss)
    else:
        frame.esp = esp + release & M32
    frame.cs = vcpu.hardware_selector(selector)
    frame.eip = eip
    frame.eflags = vcpu.load_flags(flags)
    vm.descriptors.install(frame.cs)

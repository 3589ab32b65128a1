"""LGDT, LIDT, LLDT and LTR (SDM volume 3, section 2.4)."""

from typing import TYPE_CHECKING

from ...isa.vectors import GP, NP
from ..exits import GuestFault, Unsupported
from ..instruction import Instruction, effective_address
from ..layout import FIRST_VMM_SELECTOR
from ..segments import descriptor_of, error_code
from .operands import source_word
from .privilege import privileged

if TYPE_CHECKING:
    from ..vm import VirtualMachine

M32 = 0xFFFFFFFF
BUSY = 2 << 8  # in a TSS descriptor's high doubleword


def load_table(vm: "VirtualMachine", instruction: Instruction) -> tuple[int, int]:
    """The limit and base operand of LGDT and LIDT."""
    offset = effective_address(vm, instruction)
    limit = vm.segments.read(instruction.segment, offset, 2)
    base = vm.segments.read(instruction.segment, offset + 2 & M32, 4)
    return limit, base & 0xFFFFFF if instruction.width == 16 else base


def lgdt(vm: "VirtualMachine", instruction: Instruction) -> None:
    """LGDT: the shadow of the old table is dropped."""
    vm.charge("emulate_descriptor_table", 1)
    privileged(vm)
    limit, base = load_table(vm, instruction)
    if limit >= FIRST_VMM_SELECTOR:
        raise Unsupported(f"a guest GDT of {limit + 1} bytes reaches the VMM's own descriptors: use a smaller one")
    vm.vcpu.gdtr_limit, vm.vcpu.gdtr_base = limit, base
    vm.drop_descriptors()


def lidt(vm: "VirtualMachine", instruction: Instruction) -> None:
    """LIDT: gates are read from the guest's memory when they are used, so nothing is shadowed here but their DPL."""
    vm.charge("emulate_descriptor_table", 1)
    privileged(vm)
    vm.vcpu.idtr_limit, vm.vcpu.idtr_base = load_table(vm, instruction)
    vm.entries.close_gates()


def lldt(vm: "VirtualMachine", instruction: Instruction) -> None:
    """LLDT. The processor's own LDTR stays null: what the guest loads from its LDT is not virtualized yet."""
    vm.charge("emulate_descriptor_table", 1)
    privileged(vm)
    selector = source_word(vm, instruction)
    vcpu = vm.vcpu
    if selector & 0xFFFC == 0:
        vcpu.ldtr, vcpu.ldtr_base, vcpu.ldtr_limit, vcpu.ldtr_access = selector, 0, 0, 1 << 16
        return
    raise Unsupported("the guest loads an LDT: local descriptor tables are not virtualized yet")


def ltr(vm: "VirtualMachine", instruction: Instruction) -> None:
    """LTR: the guest's TSS descriptor becomes busy; the processor keeps the VMM's TSS."""
    vm.charge("emulate_descriptor_table", 1)
    privileged(vm)
    selector = source_word(vm, instruction)
    if selector & 4:
        raise GuestFault(GP, error_code(selector))
    gla, descriptor = descriptor_of(vm, selector)
    if descriptor.is_segment or descriptor.kind not in (1, 9):
        raise GuestFault(GP, error_code(selector))
    if not descriptor.is_present:
        raise GuestFault(NP, error_code(selector))
    vm.write_descriptor(gla + 5, 1, (descriptor.high | BUSY) >> 8 & 0xFF)
    vcpu = vm.vcpu
    vcpu.tr, vcpu.tr_base, vcpu.tr_limit = selector, descriptor.base, descriptor.limit
    vcpu.tr_access = descriptor.access | 2

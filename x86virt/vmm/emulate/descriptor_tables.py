"""Descriptor-table registers, LDTR, TR, and the word of CR0 that SMSW stores (SDM volume 2; volume 3, section 2.4)."""

from typing import TYPE_CHECKING

from ...isa.registers import AR_UNUSABLE, LDTR, TR, TYPE_LDT, TYPE_TSS_16, TYPE_TSS_32
from ...isa.vectors import GP, NP
from ..descriptor import Descriptor
from ..exits import GuestFault
from ..instruction import Instruction, effective_address
from ..segments import descriptor_of, error_code
from ..shadow_descriptors import TABLE_INDICATOR
from ..state import SegmentState
from .operands import source_word
from .privilege import privileged

if TYPE_CHECKING:
    from ..vm import SoftwareVm

M32 = 0xFFFFFFFF
BUSY = 2 << 8  # in a TSS descriptor's high doubleword


def load_table(vm: "SoftwareVm", instruction: Instruction) -> tuple[int, int]:
    """The limit and base operand of LGDT and LIDT."""
    offset = effective_address(vm, instruction)
    limit = vm.segments.read(instruction.segment, offset, 2)
    base = vm.segments.read(instruction.segment, offset + 2 & M32, 4)
    return limit, base & 0xFFFFFF if instruction.width == 16 else base


def lgdt(vm: "SoftwareVm", instruction: Instruction) -> None:
    """LGDT: the shadow of the old table is dropped."""
    vm.charge("emulate_descriptor_table", 1)
    privileged(vm)
    limit, base = load_table(vm, instruction)
    vm.vcpu.gdtr_limit, vm.vcpu.gdtr_base = limit, base
    vm.descriptors.drop_all()


def lidt(vm: "SoftwareVm", instruction: Instruction) -> None:
    """LIDT: gates are read from the guest's memory when they are used, so nothing is shadowed here but their DPL."""
    vm.charge("emulate_descriptor_table", 1)
    privileged(vm)
    vm.vcpu.idtr_limit, vm.vcpu.idtr_base = load_table(vm, instruction)
    vm.entries.close_gates()


def system_descriptor(vm: "SoftwareVm", selector: int, kinds: tuple[int, ...]) -> tuple[int, Descriptor]:
    """The descriptor for LLDT or LTR, which must stand in the GDT, be of one of these kinds, and present."""
    if selector & TABLE_INDICATOR:
        raise GuestFault(GP, error_code(selector))
    gla, descriptor = descriptor_of(vm, selector)
    if descriptor.is_segment or descriptor.kind not in kinds:
        raise GuestFault(GP, error_code(selector))
    if not descriptor.is_present:
        raise GuestFault(NP, error_code(selector))
    return gla, descriptor


def lldt(vm: "SoftwareVm", instruction: Instruction) -> None:
    """LLDT: the processor's LDTR is pointed at a shadow of the guest's table, empty at first."""
    vm.charge("emulate_descriptor_table", 1)
    privileged(vm)
    selector = source_word(vm, instruction)
    state = SegmentState(selector, 0, 0, AR_UNUSABLE)
    if selector & 0xFFFC:
        state = system_descriptor(vm, selector, (TYPE_LDT,))[1].loaded(selector)
    vm.segments.set(LDTR, state)


def ltr(vm: "SoftwareVm", instruction: Instruction) -> None:
    """LTR: the guest's TSS descriptor becomes busy; the processor keeps the VMM's TSS."""
    vm.charge("emulate_descriptor_table", 1)
    privileged(vm)
    selector = source_word(vm, instruction)
    gla, descriptor = system_descriptor(vm, selector, (TYPE_TSS_16, TYPE_TSS_32))
    busy = Descriptor(descriptor.low, descriptor.high | BUSY)
    vm.descriptors.write_back(gla + 5, 1, busy.high >> 8 & 0xFF)
    vm.segments.set(TR, busy.loaded(selector))


# -- stores, which do not trap on x86 -----------------------------------------------------------------------------------


def store_table(vm: "SoftwareVm", instruction: Instruction) -> None:
    """SGDT and SIDT: all 32 bits of the base, at any operand size."""
    vm.charge("emulate_state_read", 1)
    vcpu = vm.vcpu
    limit, base = vcpu.gdtr_limit, vcpu.gdtr_base
    if instruction.operation == "SIDT":
        limit, base = vcpu.idtr_limit, vcpu.idtr_base
    offset = effective_address(vm, instruction)
    vm.segments.write(instruction.segment, offset, 2, limit)
    vm.segments.write(instruction.segment, offset + 2 & M32, 4, base)


def store_system_register(vm: "SoftwareVm", instruction: Instruction) -> None:
    """SLDT, STR and SMSW: 16 bits to memory; a 32-bit register receives zeros above a selector, and all of CR0."""
    vm.charge("emulate_state_read", 1)
    vcpu = vm.vcpu
    value = {"SLDT": vcpu.ldtr, "STR": vcpu.tr, "SMSW": vcpu.cr0}[instruction.operation]
    if instruction.has_memory:
        vm.segments.write(instruction.segment, effective_address(vm, instruction), 2, value & 0xFFFF)
    else:
        vm.set_register(instruction.rm, value, instruction.width)

"""LAR, LSL, VERR and VERW of the guest's own tables (SDM volume 2); on x86 they do not trap."""

from typing import TYPE_CHECKING

from ...isa.registers import (
    EFLAGS_ZF,
    TYPE_CALL_GATE_16,
    TYPE_CALL_GATE_32,
    TYPE_LDT,
    TYPE_READABLE,
    TYPE_TASK_GATE,
    TYPE_TSS_16,
    TYPE_TSS_16_BUSY,
    TYPE_TSS_32,
    TYPE_TSS_32_BUSY,
    TYPE_WRITABLE,
)
from ..descriptor import Descriptor
from ..instruction import Instruction
from .operands import source_word

if TYPE_CHECKING:
    from ..vm import SoftwareVm

LIMITED = (TYPE_TSS_16, TYPE_LDT, TYPE_TSS_16_BUSY, TYPE_TSS_32, TYPE_TSS_32_BUSY)
KNOWN = {"LAR": (*LIMITED, TYPE_CALL_GATE_16, TYPE_TASK_GATE, TYPE_CALL_GATE_32), "LSL": LIMITED}


def set_zero_flag(vm: "SoftwareVm", zero: bool) -> None:
    """Write ZF and leave the other flags."""
    frame = vm.vcpu.frame
    frame.eflags = frame.eflags & ~EFLAGS_ZF | (EFLAGS_ZF if zero else 0)


def inspect(vm: "SoftwareVm", selector: int) -> Descriptor | None:
    """The descriptor behind a selector if the guest's code may look at it: conforming, or CPL and RPL within DPL."""
    found = vm.descriptors.guest_descriptor(selector) if selector & 0xFFFC else None
    if found is None:
        return None
    descriptor = found[1]
    allowed = descriptor.is_conforming or max(vm.vcpu.cpl, selector & 3) <= descriptor.dpl
    return descriptor if allowed else None


def load_access_or_limit(vm: "SoftwareVm", instruction: Instruction) -> None:
    """LAR and LSL: ZF tells whether the destination was written."""
    vm.charge("emulate_segment", 1)
    descriptor = inspect(vm, source_word(vm, instruction))
    if descriptor and not descriptor.is_segment and descriptor.kind not in KNOWN[instruction.operation]:
        descriptor = None
    if descriptor:
        value = descriptor.high & 0x00FFFF00 if instruction.operation == "LAR" else descriptor.limit
        vm.set_register(instruction.reg, value, instruction.width)
    set_zero_flag(vm, descriptor is not None)


def verify(vm: "SoftwareVm", instruction: Instruction) -> None:
    """VERR and VERW."""
    vm.charge("emulate_segment", 1)
    descriptor = inspect(vm, source_word(vm, instruction))
    usable = descriptor is not None and descriptor.is_segment
    if descriptor and usable and instruction.operation == "VERR":
        usable = not descriptor.is_code or bool(descriptor.kind & TYPE_READABLE)
    elif descriptor and usable:
        usable = not descriptor.is_code and bool(descriptor.kind & TYPE_WRITABLE)
    set_zero_flag(vm, usable)

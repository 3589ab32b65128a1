"""Reflection: an event is delivered to the guest through the guest's own IDT, as its own processor would deliver it.

SDM volume 3, sections 6.12 to 6.15. The frame that is built carries the guest's selectors, whose RPL is 0 for its
kernel: a same-ring return through it raises #GP at the deprivileged ring, which is how the VMM sees the guest's IRET.
"""

from typing import TYPE_CHECKING

from ..isa.registers import (
    CS,
    EFLAGS_IF,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_TF,
    EFLAGS_VM,
    ERROR_EXT,
    ERROR_IDT,
    SS,
    TYPE_INTERRUPT_GATE_16,
    TYPE_INTERRUPT_GATE_32,
    TYPE_TASK_GATE,
    TYPE_TRAP_GATE_16,
    TYPE_TRAP_GATE_32,
)
from ..isa.vectors import (
    DB,
    DF,
    EXCEPTIONS,
    GP,
    KIND_EXCEPTION,
    KIND_SOFTWARE_EXCEPTION,
    KIND_SOFTWARE_INTERRUPT,
    NP,
)
from .descriptor import Descriptor
from .exits import GuestFault, NotDirect
from .guest_stack import inner_stack, present_stack
from .segments import descriptor_of, error_code, mark_accessed
from .stops import note_delivery

if TYPE_CHECKING:
    from .vm import SoftwareVm

CONTRIBUTES = {row.vector: row.contributes for row in EXCEPTIONS}
# RF in the image of #DB is what the frame has.
FAULT_CLASS = {row.vector for row in EXCEPTIONS if row.kind == "fault"} - {DB}
WIDE, TRAP = 8, 1  # bits of a gate's type: 32 bits wide; IF stays
SOFTWARE = (KIND_SOFTWARE_INTERRUPT, KIND_SOFTWARE_EXCEPTION)


class TripleFault(Exception):
    """The guest's processor shuts down."""


def reflect(vm: "SoftwareVm", vector: int, error: int | None, kind: int = KIND_EXCEPTION) -> None:
    """Deliver an event to the guest, with the double- and triple-fault rules of SDM table 6-5."""
    first: int | None = None
    while True:
        try:
            vm.charge("reflect", 1)
            deliver(vm, vector, error, kind)
            return
        except GuestFault as fault:
            if fault.cr2 is not None:
                vm.vcpu.cr2 = fault.cr2
            first = vector if kind == KIND_EXCEPTION else None
            if first == DF:
                raise TripleFault from fault
            if first is not None and doubles(first, fault.vector):
                vector, error = DF, 0
            else:
                vector, error = fault.vector, fault.error
            kind = KIND_EXCEPTION


def doubles(first: int, second: int) -> bool:
    """Whether a fault during the delivery of another makes a double fault."""
    one, two = CONTRIBUTES.get(first, "benign"), CONTRIBUTES.get(second, "benign")
    if one == "contributory":
        return two == "contributory"
    return one == "page_fault" and two in ("contributory", "page_fault")


def read_gate(vm: "SoftwareVm", vector: int, kind: int) -> tuple[int, int]:
    """The guest's gate for a vector: its two doublewords. A soft event needs DPL >= CPL."""
    external = 0 if kind in SOFTWARE else ERROR_EXT
    code = vector << 3 | ERROR_IDT | external
    if vector * 8 + 7 > vm.vcpu.idtr_limit:
        raise GuestFault(GP, code)
    gla = vm.vcpu.idtr_base + vector * 8
    low, high = vm.guest.read_pair(gla)
    gate_type = (high >> 8) & 0x1F
    known = (TYPE_INTERRUPT_GATE_32, TYPE_TRAP_GATE_32, TYPE_INTERRUPT_GATE_16, TYPE_TRAP_GATE_16, TYPE_TASK_GATE)
    if gate_type not in known:
        raise GuestFault(GP, code)
    if kind in SOFTWARE and (high >> 13) & 3 < vm.vcpu.cpl:
        raise GuestFault(GP, code)
    if not high & 1 << 15:
        raise GuestFault(NP, code)
    return low, high


def handler_segment(vm: "SoftwareVm", selector: int, external: int) -> tuple[int, Descriptor]:
    """The handler's code segment, checked (SDM volume 3, section 6.12.1)."""
    if selector & 0xFFFC == 0:
        raise GuestFault(GP, external)
    gla, descriptor = descriptor_with(vm, selector, GP, external)
    if not descriptor.is_code or descriptor.dpl > vm.vcpu.cpl:
        raise GuestFault(GP, error_code(selector) | external)
    if not descriptor.is_present:
        raise GuestFault(NP, error_code(selector) | external)
    return gla, descriptor


def descriptor_with(vm: "SoftwareVm", selector: int, vector: int, external: int) -> tuple[int, Descriptor]:
    """A descriptor, whose absence is reported with the EXT bit."""
    try:
        return descriptor_of(vm, selector, vector)
    except GuestFault as fault:
        if fault.cr2 is None:
            fault.error = (fault.error or 0) | external
        raise


def deliver(vm: "SoftwareVm", vector: int, error: int | None, kind: int) -> None:
    """Deliver once; raises GuestFault with nothing committed but accessed and dirty bits and bytes pushed."""
    vcpu = vm.vcpu
    external = 0 if kind in SOFTWARE else ERROR_EXT
    # 1. The gate and the handler's code segment.
    low, high = read_gate(vm, vector, kind)
    gate_type = high >> 8 & 0x1F
    if gate_type == TYPE_TASK_GATE:
        raise NotDirect  # a hardware task switch
    n = 4 if gate_type & WIDE else 2
    selector = low >> 16
    target = low & 0xFFFF | (high & 0xFFFF0000 if n == 4 else 0)
    code_gla, code = handler_segment(vm, selector, external)
    inner = not code.is_conforming and code.dpl < vcpu.cpl
    level = code.dpl if inner else vcpu.cpl
    # 2. The stack: of the inner ring from the TSS, else the present one.
    flags = vcpu.virtual_flags(vcpu.frame.eflags)
    values = frame_values(vm, vector, error, kind, flags, inner)
    stack = inner_stack(vm, level, external) if inner else present_stack(vm)
    stack.require_room(len(values), n, external | (error_code(stack.state.selector) if inner else 0))
    if target > code.limit:
        raise GuestFault(GP, external)
    # 3. Push the frame, as the new ring.
    stack.mark()
    mark_accessed(vm, code_gla, code)
    for value in values:
        stack.push(n, value)
    # 4. Enter the handler.
    vm.segments.set_cpl(level)
    stack.load()
    vm.segments.load(CS, selector & ~3 | level, code)
    vcpu.frame.eip = target
    if not gate_type & TRAP:
        flags &= ~EFLAGS_IF
    vcpu.frame.eflags = vcpu.load_flags(flags & ~(EFLAGS_TF | EFLAGS_NT | EFLAGS_RF | EFLAGS_VM))
    vcpu.own_resume = False
    vm.last_delivery = vector, error, kind
    note_delivery(vm.processor)


def frame_values(vm: "SoftwareVm", vector: int, error: int | None, kind: int, flags: int, inner: bool) -> list[int]:
    """What is pushed, in that order: SS and ESP for an inner ring, EFLAGS, CS, EIP, the error code."""
    frame = vm.vcpu.frame
    if kind == KIND_EXCEPTION and vector in FAULT_CLASS:
        flags |= EFLAGS_RF
    outer = [vm.segments.state(SS).selector, frame.esp] if inner else []
    return [*outer, flags, vm.segments.state(CS).selector, frame.eip, *([error] if error is not None else [])]

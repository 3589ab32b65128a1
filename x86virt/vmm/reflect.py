"""Reflection: an event is delivered to the guest through the guest's own IDT, as its own processor would deliver it.

SDM volume 3, sections 6.12 to 6.15. The frame that is built carries the guest's selectors, whose RPL is 0 for its
kernel: a same-ring return through it raises #GP at the deprivileged ring, which is how the VMM sees the guest's IRET.
"""

from typing import TYPE_CHECKING

from ..isa.registers import (
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
    SS_FAULT,
    TS,
)
from .exits import GuestFault, Unsupported
from .segments import check_stack_load, descriptor_of, error_code, mark_accessed
from .shadow_descriptors import Descriptor
from .stops import note_delivery

if TYPE_CHECKING:
    from .vm import VirtualMachine

CONTRIBUTES = {row.vector: row.contributes for row in EXCEPTIONS}
# RF in the image of #DB is what the frame has.
FAULT_CLASS = {row.vector for row in EXCEPTIONS if row.kind == "fault"} - {DB}
SOFTWARE = (KIND_SOFTWARE_INTERRUPT, KIND_SOFTWARE_EXCEPTION)


class TripleFault(Exception):
    """The guest's processor shuts down."""


def reflect(vm: "VirtualMachine", vector: int, error: int | None, kind: int = KIND_EXCEPTION) -> None:
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


def read_gate(vm: "VirtualMachine", vector: int, kind: int) -> tuple[int, int]:
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
    if gate_type not in (TYPE_INTERRUPT_GATE_32, TYPE_TRAP_GATE_32):
        raise Unsupported(f"guest IDT vector {vector:#x} is a 16-bit or task gate: use 32-bit interrupt or trap gates")
    return low, high


def handler_segment(vm: "VirtualMachine", selector: int, external: int) -> tuple[int, Descriptor]:
    """The handler's code segment, checked (SDM volume 3, section 6.12.1)."""
    if selector & 0xFFFC == 0:
        raise GuestFault(GP, external)
    gla, descriptor = descriptor_with(vm, selector, GP, external)
    if not descriptor.is_code or descriptor.dpl > vm.vcpu.cpl:
        raise GuestFault(GP, error_code(selector) | external)
    if not descriptor.is_present:
        raise GuestFault(NP, error_code(selector) | external)
    return gla, descriptor


def descriptor_with(vm: "VirtualMachine", selector: int, vector: int, external: int) -> tuple[int, Descriptor]:
    """A descriptor, whose absence is reported with the EXT bit."""
    try:
        return descriptor_of(vm, selector, vector)
    except GuestFault as fault:
        if fault.cr2 is None:
            fault.error = (fault.error or 0) | external
        raise


def inner_stack(vm: "VirtualMachine", level: int, external: int) -> tuple[int, int, int, Descriptor]:
    """SS and ESP of an inner ring from the guest's TSS, checked: (selector, esp, gla of descriptor, descriptor)."""
    vcpu = vm.vcpu
    offset = 4 + 8 * level
    if offset + 5 > vcpu.tr_limit:
        raise GuestFault(TS, error_code(vcpu.tr) | external)
    esp = vm.guest.read(vcpu.tr_base + offset, 4)
    selector = vm.guest.read(vcpu.tr_base + offset + 4, 2)
    try:
        gla, descriptor = check_stack_load(vm, selector, level, TS)
    except GuestFault as fault:
        if fault.cr2 is None:
            fault.error = (fault.error or 0) | external
        raise
    return selector, esp, gla, descriptor


def has_room(esp: int, limit: int, number: int) -> bool:
    """Whether that many doublewords can be pushed below ESP within the stack segment's limit."""
    return all((esp - 4 * place & 0xFFFFFFFF) + 3 <= limit for place in range(1, number + 1))


def deliver(vm: "VirtualMachine", vector: int, error: int | None, kind: int) -> None:
    """Deliver once; raises GuestFault with nothing committed but accessed and dirty bits and bytes pushed."""
    vcpu, frame = vm.vcpu, vm.vcpu.frame
    external = 0 if kind in SOFTWARE else ERROR_EXT
    # 1. The gate and the handler's code segment.
    low, high = read_gate(vm, vector, kind)
    selector = low >> 16
    target = (low & 0xFFFF) | high & 0xFFFF0000
    code_gla, code = handler_segment(vm, selector, external)
    inner = not code.is_conforming and code.dpl < vcpu.cpl
    level = code.dpl if inner else vcpu.cpl
    if level not in (0, 3):
        raise Unsupported(f"guest handler in ring {level}: this VMM gives guests rings 0 and 3")
    # 2. The stack: of the inner ring from the TSS, else the present one.
    flags = vcpu.virtual_flags(frame.eflags)
    if kind == KIND_EXCEPTION and vector in FAULT_CLASS:
        flags |= EFLAGS_RF
    old_ss, old_cs = vcpu.virtual_selector(frame.ss), vcpu.virtual_selector(frame.cs)
    values = [flags, old_cs, frame.eip] + ([error] if error is not None else [])
    stack_selector, stack_gla, stack = old_ss, 0, None
    if inner:
        stack_selector, esp, stack_gla, stack = inner_stack(vm, level, external)
        base, limit = stack.base, stack.limit
        values = [old_ss, frame.esp, *values]
    else:
        present = vm.segments.state(SS)
        esp, base, limit = frame.esp, present.base, present.limit
    if not has_room(esp, limit, len(values)):
        raise GuestFault(SS_FAULT, external | (error_code(stack_selector) if inner else 0))
    if target > code.limit:
        raise GuestFault(GP, external)
    # 3. Push the frame, as the new ring.
    if stack is not None:
        mark_accessed(vm, stack_gla, stack)
    mark_accessed(vm, code_gla, code)
    for value in values:
        esp = (esp - 4) & 0xFFFFFFFF
        vm.guest.write(base + esp, 4, value, user=level == 3)
    # 4. Enter the handler.
    if stack is not None:
        frame.ss = vcpu.hardware_selector(stack_selector)
    frame.esp = esp
    vm.segments.set_cpl(level)
    frame.cs = vcpu.hardware_selector(selector & ~3 | level)
    frame.eip = target
    interrupt_gate = (high >> 8) & 0xF == TYPE_INTERRUPT_GATE_32
    if interrupt_gate:
        flags &= ~EFLAGS_IF
    frame.eflags = vcpu.load_flags(flags & ~(EFLAGS_TF | EFLAGS_NT | EFLAGS_RF | EFLAGS_VM))
    vcpu.own_resume = False
    vm.descriptors.install(frame.cs)
    vm.descriptors.install(frame.ss)
    vm.last_delivery = vector, error, kind
    note_delivery(vm.processor)

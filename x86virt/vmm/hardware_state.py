"""From the interpreter's processor to the hardware: may the guest run directly in this state, and how it comes there.

The guest can run directly when the shadow tables can give the hardware all that its segment registers hold (they are
reversible: the guest's own tables still say what was loaded), in protected mode, outside virtual-8086 mode, with the
physical memory that the shadow maps.
"""

from typing import TYPE_CHECKING

import numpy as np

from ..core.breakpoints import ON_EXECUTION
from ..core.entries import all_eflags
from ..core.layout import HOLDS_DEBUG
from ..isa.registers import (
    AR_UNUSABLE,
    CR0_PE,
    CR4_PAE,
    CR4_PVI,
    CR4_TSD,
    CR4_VME,
    CS,
    EFER_NXE,
    EFLAGS_RF,
    EFLAGS_VM,
    ESP,
    LDTR,
    SS,
    TR,
    TYPE_ACCESSED,
)
from .emulate.control_registers import carry_x87_bits
from .exits import Unsupported
from .shadow_descriptors import Descriptor, shadow_of

if TYPE_CHECKING:
    from .interpreter import Interpreter

CR4_NOT_DIRECT = CR4_PAE | CR4_VME | CR4_PVI
DIRECT_LEVELS = (0, 3)
DATA_SEGMENTS = (0, 3, 4, 5)  # ES, DS, FS, GS
BREAKPOINTS = 4
FIXED_FIELDS = ("cr2", "idtr_base", "idtr_limit")
SYSENTER_FIELDS = ("sysenter_cs", "sysenter_esp", "sysenter_eip")
M32 = 0xFFFFFFFF


def can_hold(interpreter: "Interpreter") -> bool:
    """Whether the guest can run directly in the state that the interpreter has."""
    cpu = interpreter.cpu
    return (
        bool(cpu.cr0 & CR0_PE)
        and not cpu.eflags & EFLAGS_VM
        and int(cpu.cpl) in DIRECT_LEVELS
        and not cpu.cr4 & CR4_NOT_DIRECT
        and not cpu.efer & EFER_NXE
        and not cpu.a20_closed
        and watches_code_alone(cpu)
        and segments_are_reversible(interpreter)
    )


def watches_code_alone(cpu: np.record) -> bool:
    """Whether every breakpoint that is enabled is one that the processor itself may have: on code, below the VMM."""
    control = int(cpu.dr[7])
    enabled = [number for number in range(BREAKPOINTS) if control >> 2 * number & 3]
    return all(control >> 16 + 4 * number & 3 == ON_EXECUTION for number in enabled)


def segments_are_reversible(interpreter: "Interpreter") -> bool:
    """Whether each segment register is as it was, or as the guest's tables still say; the LDTR must be null."""
    if not interpreter.segment(LDTR).access & AR_UNUSABLE:
        return False
    return all(
        is_unchanged(interpreter, number) or reload_of(interpreter, number) is not None for number in (*DATA_SEGMENTS, CS, SS)
    )


def is_unchanged(interpreter: "Interpreter", number: int) -> bool:
    """Whether a register holds what the hardware, which has not run since, gave to the interpreter."""
    loaded = interpreter.loaded_segments
    return bool(loaded) and interpreter.segment(number) == loaded[number]


def reload_of(interpreter: "Interpreter", number: int) -> Descriptor | None:
    """The guest's descriptor that a segment register was loaded from, if loading it anew would give the same.

    A null selector has none and needs none: an empty descriptor stands for it.
    """
    state = interpreter.segment(number)
    if state.access & AR_UNUSABLE:
        return Descriptor(0, 0) if number in DATA_SEGMENTS else None
    found = descriptor_at(interpreter, state.selector)
    if found is None:
        return None
    descriptor = Descriptor(found.low, found.high | TYPE_ACCESSED << 8)
    if (descriptor.base, descriptor.limit, descriptor.access) != (state.base, state.limit, state.access):
        return None
    try:
        shadow_of(descriptor, interpreter.vm.ring)
    except Unsupported:
        return None
    return descriptor


def descriptor_at(interpreter: "Interpreter", selector: int) -> Descriptor | None:
    """A descriptor of the guest's GDT, through the tables that the interpreter's processor walks; None if there is none."""
    cpu = interpreter.cpu
    offset = selector & 0xFFF8
    if selector & 4 or selector & 0xFFFC == 0 or offset + 7 > int(cpu.gdtr_limit):
        return None
    octets = interpreter.bytes_at(int(cpu.gdtr_base) + offset, 8)
    if len(octets) < 8:
        return None
    return Descriptor(int.from_bytes(octets[:4], "little"), int.from_bytes(octets[4:], "little"))


# -- storing -----------------------------------------------------------------------------------------------------------


def store(interpreter: "Interpreter", invalidates: bool) -> None:
    """Give the virtual processor back to the hardware and the VMM's record; `can_hold` said that they can hold it.

    `invalidates`: translations were invalidated, so that the shadow has to start anew.
    """
    vm, cpu = interpreter.vm, interpreter.cpu
    changed = [number for number in (*DATA_SEGMENTS, CS, SS) if not is_unchanged(interpreter, number)]
    interpreter.return_shared()
    store_record(interpreter)
    store_flags(interpreter)
    vm.segments.set_cpl(int(cpu.cpl))
    if store_tables(interpreter) or invalidates:
        vm.flush_shadow()
    for number in changed:
        load_register(interpreter, number)
    interpreter.holds = False


def store_record(interpreter: "Interpreter") -> None:
    """What the VMM's record holds and nothing follows from."""
    vm, cpu, vcpu = interpreter.vm, interpreter.cpu, interpreter.vm.vcpu
    vcpu.frame.eip, vcpu.frame.esp = int(cpu.rip), int(cpu.gpr[ESP])
    for name in FIXED_FIELDS:
        vcpu.record[name] = cpu[name]
    if any(int(vcpu.record[name]) != int(cpu[name]) for name in SYSENTER_FIELDS):
        for name in SYSENTER_FIELDS:
            vcpu.record[name] = cpu[name]
        vm.entries.open_sysenter()
    vm.model_specific[0] = cpu.msr
    tr = interpreter.segment(TR)
    vcpu.tr, vcpu.tr_base, vcpu.tr_limit, vcpu.tr_access = tr.selector, tr.base, tr.limit, tr.access
    vcpu.ldtr = interpreter.segment(LDTR).selector
    vcpu.halted = int(cpu.halted)
    if any(int(vcpu.dr[number]) != int(cpu.dr[number]) for number in (0, 1, 2, 3, 6, 7)):
        vcpu.dr[:] = cpu.dr
        vm.events.load_breakpoints()


def store_flags(interpreter: "Interpreter") -> None:
    """EFLAGS, and what holds events off for one instruction."""
    cpu, vcpu = interpreter.cpu, interpreter.vm.vcpu
    vcpu.own_resume = False
    vcpu.frame.eflags = vcpu.load_flags(int(all_eflags(interpreter.processor.state)))
    if cpu.shadow:
        vcpu.shadow_count = int(cpu.retired)
    if cpu.shadow == HOLDS_DEBUG:
        vcpu.frame.eflags |= EFLAGS_RF
        vcpu.own_resume = True


def store_tables(interpreter: "Interpreter") -> bool:
    """Control and table registers; whether the guest's address space may be another now."""
    vm, cpu, vcpu = interpreter.vm, interpreter.cpu, interpreter.vm.vcpu
    another = any(int(vcpu.record[name]) != int(cpu[name]) for name in ("cr0", "cr3", "cr4"))
    vcpu.cr0, vcpu.cr3, vcpu.cr4 = int(cpu.cr0), int(cpu.cr3), int(cpu.cr4)
    carry_x87_bits(vm, int(cpu.cr0))
    vm.processor.cpu.cr4 = vm.processor.cpu.cr4 & ~CR4_TSD | cpu.cr4 & CR4_TSD
    if (vcpu.gdtr_base, vcpu.gdtr_limit) != (int(cpu.gdtr_base), int(cpu.gdtr_limit)):
        vcpu.gdtr_base, vcpu.gdtr_limit = int(cpu.gdtr_base), int(cpu.gdtr_limit)
        vm.drop_descriptors()
    return another


def load_register(interpreter: "Interpreter", number: int) -> None:
    """Load one segment register of the hardware through the shadow of the guest's descriptor."""
    vm, vcpu = interpreter.vm, interpreter.vm.vcpu
    state = interpreter.segment(number)
    if state.access & AR_UNUSABLE:
        vm.processor.set_segment(number, state.selector, 0, 0, AR_UNUSABLE)
        return
    vm.descriptors.install(state.selector)
    if number == CS:
        vcpu.frame.cs = vcpu.hardware_selector(state.selector)
    elif number == SS:
        vcpu.frame.ss = vcpu.hardware_selector(state.selector)
    else:
        shadow = shadow_of(vm.descriptors.originals[state.selector >> 3], vm.ring)
        vm.processor.set_segment(number, state.selector, shadow.base, shadow.limit, shadow.access)

"""From the interpreter's processor to the hardware: may the guest run directly in this state, and how it comes there.

The guest can run directly in protected mode, outside virtual-8086 mode, with a code segment that lets itself be loaded,
in physical memory as the shadow maps it. Segments that no table says any more are loaded as they are (virtual_segments.py).
"""

from typing import TYPE_CHECKING

from ..core.entries import all_eflags
from ..core.layout import HOLDS_DEBUG
from ..isa.registers import (
    CR0_PE,
    CR4_PVI,
    CR4_TSD,
    CR4_VME,
    CS,
    DS,
    EFER_NXE,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_IOPL_SHIFT,
    EFLAGS_RF,
    EFLAGS_VM,
    ES,
    ESP,
    FS,
    GS,
    LDTR,
    SS,
    TR,
    TYPE_CODE,
)
from .descriptor import is_out_of_reach, shadow_of
from .emulate.control_registers import carry_x87_bits
from .state import SegmentState
from .virtual_segments import DATA_SEGMENTS

if TYPE_CHECKING:
    from .interpreter import Interpreter
    from .vm import SoftwareVm

CR4_NOT_DIRECT = CR4_VME | CR4_PVI
DEBUG_REGISTERS = (0, 1, 2, 3, 6, 7)
ADDRESS_SPACE_REGISTERS = ("cr0", "cr3", "cr4")


def can_hold(vm: "SoftwareVm", interpreter: "Interpreter") -> bool:
    """Whether the guest can run directly in the state that the interpreter has."""
    cpu = interpreter.cpu
    code = interpreter.segment(CS)
    return (
        bool(cpu.cr0 & CR0_PE)
        and not cpu.eflags & EFLAGS_VM
        and bool(code.access & TYPE_CODE)
        and not cpu.cr4 & CR4_NOT_DIRECT
        and not cpu.efer & EFER_NXE
        and not cpu.a20_closed
        and vm.events.can_load([int(value) for value in cpu.dr])
        and can_execute(vm, interpreter, code)
    )


def can_execute(vm: "SoftwareVm", interpreter: "Interpreter", code: SegmentState) -> bool:
    """Whether the guest's code can run: as it is, behind the shadow of its segment, or translated."""
    cpu = interpreter.cpu
    translator = vm.translation
    if translator is not None:
        flag = int(all_eflags(interpreter.processor.state))
        iopl = (flag & EFLAGS_IOPL) >> EFLAGS_IOPL_SHIFT
        if not translator.runs_directly(int(cpu.cpl), iopl, flag & EFLAGS_IF, code):
            return translator.is_translatable(code, int(cpu.rip), int(cpu.dr[7]))
    return not is_out_of_reach(code) and int(cpu.rip) <= shadow_of(code, vm.ring).limit


def store(vm: "SoftwareVm", interpreter: "Interpreter", invalidates: bool) -> None:
    """Give the virtual processor back to the hardware and the VMM's record; `can_hold` said that they can hold it.

    `invalidates`: translations were invalidated, so that the shadow has to start anew.
    """
    outer = int(interpreter.cpu.cpl) > vm.vcpu.cpl  # data segments are held so that a return to this ring does not drop them
    changed = [
        number
        for number in (ES, DS, FS, GS, CS, SS, LDTR, TR)
        if not is_unchanged(interpreter, number) or (outer and number in DATA_SEGMENTS)
    ]
    interpreter.return_shared()
    store_table_registers(vm, interpreter)
    store_record(vm, interpreter)
    store_flags(vm, interpreter)
    vm.segments.set_cpl(int(interpreter.cpu.cpl))
    if invalidates:
        vm.shadow.forget_translations()
    moved = vm.physical.follow()
    if store_control_registers(vm, interpreter) or invalidates or moved:
        vm.flush_shadow()
    for number in changed:
        vm.segments.set(number, interpreter.segment(number))
    interpreter.holds = False


def is_unchanged(interpreter: "Interpreter", number: int) -> bool:
    """Whether a register holds what the hardware, which has not run since, gave to the interpreter."""
    loaded = interpreter.loaded_segments
    return bool(loaded) and interpreter.segment(number) == loaded[number]


def store_table_registers(vm: "SoftwareVm", interpreter: "Interpreter") -> None:
    """GDTR and IDTR: shadows and open gates of another table are dropped."""
    cpu, vcpu = interpreter.cpu, vm.vcpu
    if (vcpu.gdtr_base, vcpu.gdtr_limit) != (int(cpu.gdtr_base), int(cpu.gdtr_limit)):
        vcpu.gdtr_base, vcpu.gdtr_limit = int(cpu.gdtr_base), int(cpu.gdtr_limit)
        vm.descriptors.drop_all()
    if (vcpu.idtr_base, vcpu.idtr_limit) != (int(cpu.idtr_base), int(cpu.idtr_limit)):
        vcpu.idtr_base, vcpu.idtr_limit = int(cpu.idtr_base), int(cpu.idtr_limit)
        vm.entries.close_gates()


def store_record(vm: "SoftwareVm", interpreter: "Interpreter") -> None:
    """EIP and ESP, CR2, the registers of SYSENTER, model-specific and debug registers, and whether the guest is halted."""
    cpu, vcpu = interpreter.cpu, vm.vcpu
    vcpu.frame.eip, vcpu.frame.esp = int(cpu.rip), int(cpu.gpr[ESP])
    vcpu.cr2, vcpu.halted = int(cpu.cr2), int(cpu.halted)
    sysenter = int(cpu.sysenter_cs), int(cpu.sysenter_esp), int(cpu.sysenter_eip)
    if sysenter != (vcpu.sysenter_cs, vcpu.sysenter_esp, vcpu.sysenter_eip):
        vcpu.sysenter_cs, vcpu.sysenter_esp, vcpu.sysenter_eip = sysenter
        vm.entries.open_sysenter()
    vm.model_specific[0] = cpu.msr
    vm.devices.follow_apic()
    if any(int(vcpu.dr[number]) != int(cpu.dr[number]) for number in DEBUG_REGISTERS):
        vcpu.dr[:] = cpu.dr
        vm.events.load_breakpoints()


def store_flags(vm: "SoftwareVm", interpreter: "Interpreter") -> None:
    """EFLAGS, and what holds events off for one instruction."""
    cpu, vcpu = interpreter.cpu, vm.vcpu
    vcpu.own_resume = False
    vcpu.frame.eflags = vcpu.load_flags(int(all_eflags(interpreter.processor.state)))
    if cpu.shadow:
        vcpu.shadow_count = int(cpu.retired)
    if cpu.shadow == HOLDS_DEBUG:
        vcpu.frame.eflags |= EFLAGS_RF
        vcpu.own_resume = True


def store_control_registers(vm: "SoftwareVm", interpreter: "Interpreter") -> bool:
    """CR0, CR3 and CR4; whether the guest's address space may be another now."""
    cpu, vcpu = interpreter.cpu, vm.vcpu
    another = any(int(vcpu.record[name]) != int(cpu[name]) for name in ADDRESS_SPACE_REGISTERS)
    vcpu.cr0, vcpu.cr3, vcpu.cr4 = int(cpu.cr0), int(cpu.cr3), int(cpu.cr4)
    vm.shadow.pointers = cpu.pdpte
    carry_x87_bits(vm, int(cpu.cr0))
    vm.processor.cpu.cr4 = vm.processor.cpu.cr4 & ~CR4_TSD | cpu.cr4 & CR4_TSD
    return another

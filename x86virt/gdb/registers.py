"""Writes of the debugger's to the guest's registers: general ones, EIP, EFLAGS, CR2, and the x87 stack and control word.

Others cannot be written: a segment, a control or a table register is more than its number, and the processor's and the
VMM's caches of it would not follow.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from ..core.entries import all_eflags, set_all_eflags
from ..isa.registers import EFLAGS_FIXED, EFLAGS_IMPLEMENTED, EFLAGS_TF, EFLAGS_VM, ESP, GENERAL_REGISTERS
from ..vmm import HardwareVm, ParavirtualVm, SoftwareVm, layout

if TYPE_CHECKING:
    from ..machine import Machine
    from ..processor import Processor

GENERAL = {name: number for number, name in enumerate(GENERAL_REGISTERS)}
HELD = {"esp": "guest_rsp", "eip": "guest_rip", "cr2": "guest_cr2"}  # by the control structure of a guest that waits
M32 = 0xFFFFFFFF


def write_register(machine: "Machine", name: str, value: int) -> bool:
    """Write a register; False if this one cannot be written."""
    if name.startswith("st") and name[2:].isdigit():
        write_x87(machine, int(name[2:]), value)
    elif name == "fctrl":
        machine.processor.cpu.fpu_control = value & 0x1F3F | 0x40
    elif isinstance(machine.vm, HardwareVm):
        return write_hardware(machine.vm, name, value & M32)
    elif isinstance(machine.vm, SoftwareVm):
        return write_virtual(machine.vm, name, value & M32)
    elif isinstance(machine.vm, ParavirtualVm):
        return machine.vm.write_register(name, value & M32)
    else:
        return write_bare(machine.processor, name, value & M32)
    return True


def write_x87(machine: "Machine", place: int, value: int) -> None:
    """ST(place) becomes a value of 80 bits, and is no longer empty."""
    cpu = machine.processor.cpu
    number = (int(cpu.fpu_status) >> 11) + place & 7
    register = cpu.fpu_value[number]
    register.sign, register.exponent = value >> 79 & 1, value >> 64 & 0x7FFF
    register.high, register.low = value >> 32 & M32, value & M32
    cpu.fpu_occupied |= 1 << number


def write_bare(processor: "Processor", name: str, value: int) -> bool:
    """A register of a processor that executes the guest on the guest's own terms."""
    cpu = processor.cpu
    if name in GENERAL:
        cpu.gpr[GENERAL[name]] = value
    elif name == "eip":
        cpu.rip, cpu.begun = value, 0
    elif name == "eflags":
        kept = int(all_eflags(processor.state)) & EFLAGS_VM
        set_all_eflags(processor.state, value & EFLAGS_IMPLEMENTED & ~EFLAGS_VM | EFLAGS_FIXED | kept)
    elif name == "cr2":
        cpu.cr2 = value
    else:
        return False
    return True


def write_hardware(vm: HardwareVm, name: str, value: int) -> bool:
    """A register of a guest that a virtualization extension runs: the processor's own while it does."""
    if vm.is_interpreted:
        return write_bare(vm.interpreter.processor, name, value)
    if vm.control.in_guest:
        return write_bare(vm.processor, name, value)
    if name in GENERAL and GENERAL[name] != ESP:
        vm.processor.cpu.gpr[GENERAL[name]] = value
    elif name in HELD:
        vm.vcpu.set_field(HELD[name], value)
    elif name == "eflags":
        kept = vm.vcpu.peek("guest_rflags") & EFLAGS_VM
        vm.vcpu.set_field("guest_rflags", value & EFLAGS_IMPLEMENTED & ~EFLAGS_VM | EFLAGS_FIXED | kept)
    else:
        return False
    return True


def write_virtual(vm: SoftwareVm, name: str, value: int) -> bool:
    """A register of the guest of a VMM."""
    vm.crossings.take_frame()
    cpu, vcpu = vm.processor.cpu, vm.vcpu
    in_vmm = cpu.cpl == 0
    if name in GENERAL and (GENERAL[name] != ESP or not in_vmm):
        cpu.gpr[GENERAL[name]] = value
    elif name == "esp":
        vcpu.frame.esp = value
    elif name == "eip":
        vcpu.frame.eip = value
    elif name == "eflags":
        vcpu.frame.eflags = vcpu.load_flags(value & EFLAGS_IMPLEMENTED & ~EFLAGS_VM)
    elif name == "cr2":
        vcpu.cr2 = value
    else:
        return False
    if in_vmm:
        renew_frame(vm)
    else:
        cpu.rip, cpu.begun = vcpu.frame.eip, 0
        if name == "eflags":
            set_all_eflags(vm.processor.state, vcpu.frame.eflags | (EFLAGS_TF if vm.crossings.own_step else 0))
    return True


def renew_frame(vm: SoftwareVm) -> None:
    """The VMM is about to return to the guest: what its IRET will load follows the frame."""
    if int(vm.processor.cpu.rip) == layout.VMM_BASE + layout.RESUME:
        frame = replace(vm.vcpu.frame, eflags=vm.vcpu.frame.eflags | (EFLAGS_TF if vm.crossings.own_step else 0))
        vm.write_region(layout.STACK_TOP - 20, frame.octets())

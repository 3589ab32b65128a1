"""RDMSR, WRMSR, RDTSC and RDPMC."""

from typing import TYPE_CHECKING

from ...core.entries import read_counter, read_model_specific, read_performance, write_model_specific, write_performance
from ...core.layout import TIME_COUNTER
from ...isa.registers import (
    CR4_PCE,
    CR4_TSD,
    EAX,
    ECX,
    EDX,
    EFER_NXE,
    FEATURE_SEP,
    FEATURE_TSC,
    MSR_APIC_BASE,
    MSR_EFER,
    MSR_SYSENTER_CS,
    MSR_SYSENTER_EIP,
    MSR_SYSENTER_ESP,
    MSR_TSC,
)
from ...isa.vectors import GP
from ..exits import GuestFault, NotDirect
from ..instruction import Instruction
from .privilege import privileged

if TYPE_CHECKING:
    from ..virtual_machine import VirtualMachine

M32 = 0xFFFFFFFF


def rdmsr(vm: "VirtualMachine", instruction: Instruction) -> None:
    """RDMSR."""
    vm.charge("emulate_msr", 1)
    privileged(vm)
    read_register(vm)


def read_register(vm: "VirtualMachine") -> None:
    """Read the virtual register that ECX names. Raises GuestFault if there is none."""
    vcpu = vm.vcpu
    values: dict[int, int] = {}
    if has_feature(vm, FEATURE_SEP):
        values |= {
            MSR_SYSENTER_CS: vcpu.sysenter_cs,
            MSR_SYSENTER_ESP: vcpu.sysenter_esp,
            MSR_SYSENTER_EIP: vcpu.sysenter_eip,
        }
    number = vm.register(ECX)
    if number == MSR_APIC_BASE and vm.devices.has_apics:
        raise NotDirect
    known, value = number in values, values.get(number, 0)
    if number == MSR_TSC and has_feature(vm, FEATURE_TSC):
        known, value = True, vm.devices.time_stamp()
    if not known:
        known, value = read_model_specific(vm.model_specific, number)
    if not known:
        known, value = read_performance(vm.processor.state, number)
        if not known:
            raise GuestFault(GP, 0)
        value = vm.devices.time_read(TIME_COUNTER - number, int(value))
    vm.set_register(EAX, int(value) & M32)
    vm.set_register(EDX, int(value) >> 32 & M32)


def has_feature(vm: "VirtualMachine", bit: int) -> bool:
    """Whether CPUID leaf 1 EDX of the processor has a bit."""
    return bool(vm.processor.cpu.cpuid_leaf1_edx >> bit & 1)


def wrmsr(vm: "VirtualMachine", instruction: Instruction) -> None:
    """WRMSR."""
    vm.charge("emulate_msr", 1)
    privileged(vm)
    write_register(vm)


def write_register(vm: "VirtualMachine") -> None:
    """Write the virtual register that ECX names. Raises GuestFault with nothing changed, or NotDirect."""
    number, low, high = vm.register(ECX), vm.register(EAX), vm.register(EDX)
    vcpu = vm.vcpu
    if number == MSR_SYSENTER_CS and has_feature(vm, FEATURE_SEP):
        vcpu.sysenter_cs = low
        vm.on_sysenter_registers()
    elif number == MSR_SYSENTER_ESP and has_feature(vm, FEATURE_SEP):
        vcpu.sysenter_esp = low
    elif number == MSR_SYSENTER_EIP and has_feature(vm, FEATURE_SEP):
        vcpu.sysenter_eip = low
    elif number == MSR_TSC and has_feature(vm, FEATURE_TSC):
        value = low | (high - (high >> 31 << 32)) << 32
        vm.processor.cpu.tsc_offset = value - (vm.processor.cpu.ticks >> 6)
    elif (number == MSR_EFER and low & EFER_NXE) or (number == MSR_APIC_BASE and vm.devices.has_apics):
        raise NotDirect
    elif not write_model_specific(vm.model_specific, number, low, high):
        if not write_performance(vm.processor.state, number, low):
            raise GuestFault(GP, 0)


def rdtsc(vm: "VirtualMachine", instruction: Instruction) -> None:
    """RDTSC where CR4.TSD made it trap."""
    vm.charge("emulate_msr", 1)
    if vm.vcpu.cr4 & CR4_TSD and vm.vcpu.cpl != 0:
        raise GuestFault(GP, 0)
    value = vm.devices.time_stamp()
    vm.set_register(EAX, value & M32)
    vm.set_register(EDX, value >> 32 & M32)


def rdpmc(vm: "VirtualMachine", instruction: Instruction) -> None:
    """RDPMC, which traps in ring 1 and, since the processor's CR4.PCE stays clear, in ring 3."""
    vm.charge("emulate_msr", 1)
    if vm.vcpu.cpl != 0 and not vm.vcpu.cr4 & CR4_PCE:
        raise GuestFault(GP, 0)
    number, value = read_counter(vm.processor.state, vm.register(ECX))
    if number < 0:
        raise GuestFault(GP, 0)
    value = vm.devices.time_read(TIME_COUNTER - int(number), int(value))
    vm.set_register(EAX, value & M32)
    vm.set_register(EDX, value >> 32 & M32)

"""IN and OUT (SDM volume 1, chapter 18)."""

from typing import TYPE_CHECKING

from ...isa.registers import EAX, EDX, TYPE_TSS_32_BUSY
from ...isa.vectors import GP
from ..exits import GuestFault
from ..instruction import Instruction

if TYPE_CHECKING:
    from ..virtual_machine import VirtualMachine

M32 = 0xFFFFFFFF


def port_of(vm: "VirtualMachine", instruction: Instruction) -> int:
    """The port that IN or OUT names."""
    return vm.register(EDX) & 0xFFFF if instruction.row.condition == 1 else instruction.imm & 0xFFFF


def port_bytes(instruction: Instruction) -> int:
    """Bytes of a port access."""
    return 1 if "AL" in instruction.row.operands else instruction.width // 8


def check_port(vm: "VirtualMachine", port: int, n: int) -> None:
    """May the guest use `n` ports? By IOPL, or the permission bitmap of its TSS (SDM volume 1, section 18.5)."""
    vcpu = vm.vcpu
    if vcpu.cpl <= vcpu.iopl:
        return
    if vcpu.tr_access & 0x1F != TYPE_TSS_32_BUSY or vcpu.tr_limit < 103:
        raise GuestFault(GP, 0)
    offset = vm.guest.read(vcpu.tr_base + 102, 2) + (port >> 3)
    if offset + 1 > vcpu.tr_limit:
        raise GuestFault(GP, 0)
    if vm.guest.read(vcpu.tr_base + offset, 2) >> (port & 7) & (1 << n) - 1:
        raise GuestFault(GP, 0)


def charge_access(vm: "VirtualMachine") -> None:
    """Charge what leads to the device."""
    vm.charge("direct_port" if vm.is_served_directly else "emulate_port", 1)


def port_in(vm: "VirtualMachine", instruction: Instruction) -> None:
    """IN from a virtual device."""
    charge_access(vm)
    port, n = port_of(vm, instruction), port_bytes(instruction)
    check_port(vm, port, n)
    perform_in(vm, port, n)


def perform_in(vm: "VirtualMachine", port: int, n: int) -> None:
    """AL, AX or EAX gets what the device gives."""
    value = vm.devices.read(port, n)
    mask = (1 << 8 * n) - 1
    vm.set_register(EAX, vm.register(EAX) & ~mask & M32 | value & mask)


def port_out(vm: "VirtualMachine", instruction: Instruction) -> None:
    """OUT to a virtual device."""
    charge_access(vm)
    port, n = port_of(vm, instruction), port_bytes(instruction)
    check_port(vm, port, n)
    perform_out(vm, port, n)


def perform_out(vm: "VirtualMachine", port: int, n: int) -> None:
    """The device gets AL, AX or EAX."""
    vm.devices.write(port, n, vm.register(EAX) & (1 << 8 * n) - 1)

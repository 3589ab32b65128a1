"""Between the VMM's interpreter and the control structure: may the guest run directly, and how its state comes there."""

from typing import TYPE_CHECKING

from ...core.entries import all_eflags
from ...isa.registers import ESP, N_SEGMENTS
from .cpu import KEYS
from .guest_state import Situation

if TYPE_CHECKING:
    from ..interpreter import Interpreter
    from .vm import HardwareVm

IN_PROCESSOR = (0, 1, 2, 3)  # debug registers that no control structure holds
SEGMENT_REGISTERS_OF_RECORD = ("ldtr", "tr")
ADDRESS_SPACE_KEYS = ("guest_cr0", "guest_cr3", "guest_cr4")
# Names that the interpreter's processor has too; LDTR and TR are segment registers there.
SHARED_NAMES = tuple(name for name in KEYS if not name.startswith(SEGMENT_REGISTERS_OF_RECORD))


def can_hold(vm: "HardwareVm", interpreter: "Interpreter") -> bool:
    """Whether the guest can run directly in the state that the interpreter has."""
    return not interpreter.cpu.a20_closed and vm.guest_state.accepts(Situation.of(interpreter))


def give_state(vm: "HardwareVm", interpreter: "Interpreter", invalidates: bool) -> None:
    """The virtual processor goes from the interpreter to the VMM's cache of the control structure."""
    cpu, vcpu = interpreter.cpu, vm.vcpu
    before = [vcpu.field(key) for key in ADDRESS_SPACE_KEYS]
    interpreter.return_shared()
    for name in SHARED_NAMES:
        setattr(vcpu, name, int(cpu[name]))
    vcpu.frame.eip, vcpu.frame.esp = int(cpu.rip), int(cpu.gpr[ESP])
    vcpu.frame.eflags = int(all_eflags(interpreter.processor.state))
    for number in range(N_SEGMENTS):
        vm.segments.set(number, interpreter.segment(number))
    vcpu.set_pointers(cpu.pdpte.tolist())
    give_debug_registers(vm, interpreter)
    vcpu.halted = int(cpu.halted)
    vm.interrupts.set_shadow(int(cpu.shadow))
    vm.model_specific[0] = cpu.msr
    vcpu.set_field("guest_ia32_efer", int(cpu.efer))
    interpreter.holds = False
    moved = vm.physical.follow()
    if invalidates or moved or before != [vcpu.field(key) for key in ADDRESS_SPACE_KEYS]:
        vm.flush_shadow()


def give_debug_registers(vm: "HardwareVm", interpreter: "Interpreter") -> None:
    """DR0 to DR3 are in the processor all the time."""
    registers = [int(value) for value in interpreter.cpu.dr]
    for number in IN_PROCESSOR:
        if int(vm.processor.cpu.dr[number]) != registers[number]:
            vm.processor.set_debug_register(number, registers[number])
    vm.vcpu.set_field("guest_dr6", registers[6])
    vm.vcpu.set_field("guest_dr7", registers[7])

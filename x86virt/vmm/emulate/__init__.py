"""One sensitive instruction, performed on the virtual processor (SDM volume 2, a function each).

Every function first charges its class of work, then checks what the guest's processor would check (raising GuestFault
with nothing changed), then changes the virtual state. The tables below say which class each system operation belongs to.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...isa.registers import EFLAGS_RF
from ...isa.rows import SENSITIVE
from ...isa.vectors import GP
from ..exits import GuestFault, NotDirect
from ..instruction import Instruction
from .control_registers import clts, invlpg, lmsw, mov_from_cr, mov_to_cr, wbinvd
from .debug_registers import GeneralDetect, mov_from_dr, mov_to_dr
from .descriptor_tables import lgdt, lidt, lldt, ltr, store_system_register, store_table
from .far_transfers import call_far, jmp_far
from .flags import cli, hlt, popf, pushf, sti
from .model_specific import rdmsr, rdpmc, rdtsc, wrmsr
from .port_strings import port_string
from .ports import port_in, port_out
from .returns import iret, ret_far
from .segment_loads import load_far_pointer, loads_stack_segment, mov_from_sreg, mov_to_sreg, pop_sreg, push_sreg
from .selectors import load_access_or_limit, verify
from .software_interrupts import int3, int_n
from .system_calls import sysenter_of_kernel, sysexit
from .x87_stores import fxsave, save, store_environment

if TYPE_CHECKING:
    from ..virtual_machine import VirtualMachine
    from ..vm import SoftwareVm

M32 = 0xFFFFFFFF
Handler = Callable[["SoftwareVm", Instruction], "bool | None"]
# A handler of an instruction that goes on behind itself; False: retry it.
SEQUENTIAL: dict[str, Handler] = {
    "CLI": cli, "STI": sti, "HLT": hlt, "REGISTER_TO_CR": mov_to_cr, "CR_TO_REGISTER": mov_from_cr,
    "REGISTER_TO_DR": mov_to_dr, "DR_TO_REGISTER": mov_from_dr, "CLTS": clts, "LMSW": lmsw, "INVLPG": invlpg,
    "WBINVD": wbinvd, "INVD": wbinvd, "LGDT": lgdt, "LIDT": lidt, "LLDT": lldt, "LTR": ltr, "RDMSR": rdmsr,
    "WRMSR": wrmsr, "RDTSC": rdtsc, "RDPMC": rdpmc, "IN": port_in, "OUT": port_out, "REGISTER_TO_SREG": mov_to_sreg,
    "POP_SREG": pop_sreg, "LOAD_FAR_POINTER": load_far_pointer,
    # These do not trap on x86, but on a processor that can be virtualized, and under binary translation.
    "PUSHF": pushf, "POPF": popf, "SGDT": store_table, "SIDT": store_table, "SLDT": store_system_register,
    "STR": store_system_register, "SMSW": store_system_register, "LAR": load_access_or_limit, "LSL": load_access_or_limit,
    "VERR": verify, "VERW": verify, "SREG_TO_REGISTER": mov_from_sreg, "PUSH_SREG": push_sreg,
    "x87:STORE_ENVIRONMENT": store_environment, "x87:SAVE": save, "x87:FXSAVE": fxsave,
}  # fmt: skip
# Handlers of instructions that may be left between two iterations; True: the last one has been made.
REPEATED: dict[str, Handler] = {"INS": port_string, "OUTS": port_string}
# Control transfers, which set EIP themselves.
TRANSFERS: dict[str, Handler] = {
    "JMP_FAR": jmp_far, "JMP_FAR_INDIRECT": jmp_far, "CALL_FAR": call_far, "CALL_FAR_INDIRECT": call_far,
    "RET_FAR": ret_far, "IRET": iret, "INT_N": int_n, "INT3": int3, "INTO": int3,
    "SYSENTER": sysenter_of_kernel, "SYSEXIT": sysexit,
}  # fmt: skip

SOFTWARE_EVENTS = ("INT_N", "INT3", "INTO")  # they clear TF, and no single-step trap follows


def emulate(vm: "SoftwareVm", instruction: Instruction) -> bool:
    """Perform the instruction on the virtual processor; False if it is none that the VMM emulates.

    Where the hardware cannot hold what it leads to, the VMM's interpreter performs it, and goes on from there if need be.
    """
    frame, own_resume = vm.vcpu.frame, vm.vcpu.own_resume
    eflags = frame.eflags
    try:
        return perform(vm, instruction)
    except NotDirect:
        frame.eflags, vm.vcpu.own_resume = eflags, own_resume
        vm.interpret_one()
        return True


def perform(vm: "SoftwareVm", instruction: Instruction) -> bool:
    """Perform the instruction by the handler of its operation; False if there is none.

    Counts it as retired, unless it is to be retried; then the guest's single-step trap follows, if it had TF set.
    """
    operation = instruction.operation
    stepped, own_resume = vm.vcpu.single_stepped, vm.vcpu.own_resume
    if operation not in SEQUENTIAL and operation not in TRANSFERS and operation not in REPEATED:
        return False
    trapped_as_sensitive(vm, instruction)
    begin_instruction(vm)
    if operation in REPEATED:
        if not REPEATED[operation](vm, instruction):
            vm.vcpu.frame.eflags |= EFLAGS_RF  # what arrives between iterations pushes RF as 1
            if stepped:
                vm.events.single_step_trap()
            return True
        vm.vcpu.frame.eip = vm.vcpu.frame.eip + instruction.length & M32
    elif operation in SEQUENTIAL:
        try:
            if SEQUENTIAL[operation](vm, instruction) is False:
                vm.vcpu.frame.eflags |= EFLAGS_RF  # its breakpoint has been looked at
                vm.vcpu.own_resume = own_resume
                return True
        except GeneralDetect:
            vm.events.general_detect()
            return True
        vm.vcpu.frame.eip = vm.vcpu.frame.eip + instruction.length & M32
    else:
        TRANSFERS[operation](vm, instruction)
    vm.retire()
    if loads_stack_segment(instruction):
        vm.vcpu.frame.eflags |= EFLAGS_RF  # no debug exception until after the next instruction
        vm.vcpu.own_resume = True
    elif stepped and operation not in SOFTWARE_EVENTS:
        vm.events.single_step_trap()
    return True


def trapped_as_sensitive(vm: "SoftwareVm", instruction: Instruction) -> None:
    """On a processor whose sensitive instructions trap, the guest's programs get that #GP(0) too."""
    sensitive = instruction.row.sensitivity == SENSITIVE and instruction.operation not in SOFTWARE_EVENTS
    if sensitive and vm.processor.cpu.sensitive_trap and vm.vcpu.cpl > 0:
        raise GuestFault(GP, 0)


def begin_instruction(vm: "VirtualMachine") -> None:
    """RF is cleared at the start of every instruction; in the frame it is that of the trap."""
    vm.vcpu.frame.eflags &= ~EFLAGS_RF
    vm.vcpu.own_resume = False

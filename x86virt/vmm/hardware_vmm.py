"""A VMM on a virtualization extension: what every technique does whose guest runs on the processor itself, in its own rings.

The guest's kernel has ring 0, its own descriptor tables and interrupt flag; what it does costs nothing until it meets one of
the conditions that its control structure names. The processor then saves the guest's state, loads the VMM's and says why. A
technique differs from the next in what it lets the guest do unseen: shadow page tables must see each change of the address
space, nested tables need not. What an exit means, once it has come, is the same for all, and is this file:

* CPUID always exits, and shows the guest what the bare machine shows. HLT exits, so that the VMM may wait for its devices.
* Ports and model-specific registers are the virtual machine's: IN, OUT, RDMSR and WRMSR exit.
* An interrupt of the host makes the guest exit wherever it is. One of the guest's own is injected: the next VM entry delivers
  it through the guest's IDT. If the guest cannot take it yet, it exits as soon as it can (the interrupt window).
* A task switch exits, and the VMM's interpreter performs it; so does whatever no handler knows.

Instructions that exit have passed the checks of privilege that come before: no handler checks CPL.
"""

from collections.abc import Callable
from typing import ClassVar

from ..isa.vectors import DF, PF, UD
from .emulate.identity import cpuid
from .emulate.model_specific import read_register, write_register
from .emulate.ports import perform_in, perform_out
from .exits import Exit, GuestFault
from .hardware.control_registers import access_control_register
from .hardware.vm import HardwareVm
from .options import HARDWARE_PATHS
from .strategy import Strategy

IO_INPUT, IO_STRING, IO_PORT_SHIFT, IO_SIZE = 1 << 3, 1 << 4, 16, 7  # of the qualification of an I/O instruction


def perform(vm: HardwareVm, exit: Exit, instruction: Callable[[HardwareVm], None]) -> None:
    """Perform an instruction on the virtual processor; if it faults there, the fault is the guest's."""
    try:
        instruction(vm)
        vm.skip(exit)
    except GuestFault as fault:
        vm.inject_exception(fault)


class HardwareVmm(Strategy):
    """Emulated devices, and a hook for each reason to exit."""

    devices = "emulated"
    kernel_ring = 0
    needs_vmm = True
    paths: ClassVar[tuple[str, ...]] = HARDWARE_PATHS
    jitted: ClassVar = {"cpuid": "cpuid", "io_instruction": "port", "invd": "skip", "wbinvd": "skip", "pause": "skip"}

    @classmethod
    def configure(cls) -> None:
        """Clusters are looked for behind each exit, by Python."""
        super().configure()
        if cls.option("cluster"):
            cls.jitted = {}

    # -- instructions ---------------------------------------------------------------------------------------------

    def on_cpuid(self, vm: HardwareVm, exit: Exit) -> None:
        """CPUID shows the bare machine's processor."""
        vm.charge("exit_cpuid", 1)
        cpuid(vm)
        vm.skip(exit)

    def on_hlt(self, vm: HardwareVm, exit: Exit) -> None:
        """The guest waits: so does the VMM, for a deadline of its devices."""
        vm.charge("exit_halt", 1)
        vm.skip(exit)
        vm.vcpu.halted = int(not vm.injected)  # the trap that TF asks for ends it at once

    def on_io_instruction(self, vm: HardwareVm, exit: Exit) -> None:
        """IN and OUT reach a virtual device; INS and OUTS are interpreted."""
        if exit.qualification & IO_STRING:
            vm.interpret_one()
            return
        vm.charge("exit_port", 1)
        port, n = exit.qualification >> IO_PORT_SHIFT & 0xFFFF, (exit.qualification & IO_SIZE) + 1
        access = perform_in if exit.qualification & IO_INPUT else perform_out
        access(vm, port, n)
        vm.skip(exit)

    def on_msr_read(self, vm: HardwareVm, exit: Exit) -> None:
        """RDMSR of a virtual register."""
        vm.charge("exit_msr", 1)
        perform(vm, exit, read_register)

    def on_msr_write(self, vm: HardwareVm, exit: Exit) -> None:
        """WRMSR of a virtual register."""
        vm.charge("exit_msr", 1)
        perform(vm, exit, write_register)

    def on_cr_access(self, vm: HardwareVm, exit: Exit) -> None:
        """MOV to or from a control register, CLTS or LMSW, that meets a bit of the VMM's."""
        vm.charge("exit_control_register", 1)
        perform(vm, exit, lambda vm: access_control_register(vm, exit))

    def on_invd(self, vm: HardwareVm, exit: Exit) -> None:
        """The guest's caches are the machine's, which stay coherent."""
        vm.charge("exit_skip", 1)
        vm.skip(exit)

    on_wbinvd = on_invd

    def on_pause(self, vm: HardwareVm, exit: Exit) -> None:
        """A hint to the processor, where the strategy wants to see it."""
        vm.charge("exit_skip", 1)
        vm.skip(exit)

    def on_vmcall(self, vm: HardwareVm, exit: Exit) -> None:
        """The guest has no extension of its own, nor a hypervisor to call."""
        vm.charge("exit_exception", 1)
        vm.inject_exception(GuestFault(UD))

    on_vmclear = on_vmcall
    on_vmlaunch = on_vmcall
    on_vmptrld = on_vmcall
    on_vmptrst = on_vmcall
    on_vmread = on_vmcall
    on_vmresume = on_vmcall
    on_vmwrite = on_vmcall
    on_vmxoff = on_vmcall
    on_invept = on_vmcall
    on_invvpid = on_vmcall
    on_vmrun = on_vmcall
    on_vmload = on_vmcall
    on_vmsave = on_vmcall
    on_stgi = on_vmcall
    on_clgi = on_vmcall
    on_skinit = on_vmcall
    on_invlpga = on_vmcall

    def on_vmxon(self, vm: HardwareVm, exit: Exit) -> None:
        """The guest finds VMX locked off by its firmware: what that means depends on its CR4."""
        vm.interpret_one()

    def on_gdtr_idtr(self, vm: HardwareVm, exit: Exit) -> None:
        """A descriptor-table register, where the strategy wants to see it."""
        vm.interpret_one()

    on_ldtr_tr = on_gdtr_idtr

    # -- events ---------------------------------------------------------------------------------------------------

    def on_exception_or_nmi(self, vm: HardwareVm, exit: Exit) -> None:
        """A page fault of a guest that walks shadow tables: the shadow is filled, or the fault is the guest's own.

        A double fault is the guest's. If it arose from a fault that was injected, RF was set for that one's image; a double
        fault's own has the guest's. Of any other exception that the VMM wants to see the interpreter says what becomes of it.
        """
        if exit.vector == PF and vm.nested is None:
            vm.shadow_fault(exit)
            return
        vm.charge("exit_exception", 1)
        if exit.vector == DF:
            vm.inject_exception(GuestFault(DF, exit.error))
        else:
            vm.interpret_one()

    def on_ferr_freeze(self, vm: HardwareVm, exit: Exit) -> None:
        """An x87 exception with CR0.NE clear, which a PC is told of by IRQ 13."""
        vm.interpret_one()

    def on_external_interrupt(self, vm: HardwareVm, exit: Exit) -> None:
        """The host's timer: a virtual device's deadline has come, and what it raised is delivered as the guest goes on."""
        vm.charge("exit_interrupt", 1)

    def on_host_timer(self, vm: HardwareVm, exit: Exit) -> None:
        """The same, while guest and VMM waited."""
        vm.charge("exit_interrupt", 1)

    def on_interrupt_window(self, vm: HardwareVm, exit: Exit) -> None:
        """The guest can take an interrupt now: what waits is delivered as it goes on."""

    def on_task_switch(self, vm: HardwareVm, exit: Exit) -> None:
        """A hardware task switch, which no extension performs: the interpreter does."""
        vm.interpret_one()

    def on_triple_fault(self, vm: HardwareVm, exit: Exit) -> None:
        """The guest's processor shuts down."""
        vm.shut_down()

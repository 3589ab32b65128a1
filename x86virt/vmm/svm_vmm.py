"""A VMM on SVM: what its two techniques have in common beyond what any hardware VMM does (`HardwareVmm`).

SVM names each condition by an intercept bit of its own, and can hold every state of a guest, real-address mode included. What it
lacks in its first generations is help: neither the length of an intercepted instruction nor its operands are told, so that the
VMM fetches and decodes it through the guest's page tables.

Task switches need not be intercepted, but here they are. One that an exception makes may, once the new task is current, still
meet a page that the VMM has to fill, as the error code is pushed; then the exception cannot be injected again.
"""

from typing import ClassVar

from ..isa.registers import MSR_SYSENTER_CS, MSR_SYSENTER_EIP, MSR_SYSENTER_ESP
from ..isa.vectors import DF, GP, PF, UD
from .exits import Exit, GuestFault
from .hardware.decode_svm import address_of_invlpg, qualify_control_register
from .hardware.vm import HardwareVm
from .hardware_vmm import HardwareVmm

ADDRESS_SPACE = 1  # of the guest; 0 is the VMM's
DESCRIPTOR_TABLES = tuple(f"{name}_{access}" for name in ("IDTR", "GDTR", "LDTR", "TR") for access in ("READ", "WRITE"))
SVM_INSTRUCTIONS = ("VMRUN", "VMMCALL", "VMLOAD", "VMSAVE", "STGI", "CLGI", "SKINIT", "INVLPGA")


class SvmVmm(HardwareVmm):
    """The intercepts that any guest needs, and what follows from the extension being the VMM's alone."""

    processor = "svm"
    # Interrupts of the host, and the guest's own window for virtual ones; waiting; virtual ports and registers; caches that
    # hold the VMM's data too; task switches; INT1, since an interrupted delivery of its #DB looks like that of any other, which
    # does not push the address behind an instruction; a frozen x87 exception, which a PC is told of by IRQ 13; the end.
    INTERCEPTS: ClassVar[tuple[str, ...]] = (
        "INTR", "VINTR", "CPUID", "HLT", "IOIO", "MSR", "INVD", "TASK_SWITCH", "ICEBP", "FERR_FREEZE", "SHUTDOWN",
    )  # fmt: skip

    # EFER.SVME is set while the guest runs: outside ring 0 its attempts at SVM's instructions are #GP, where its own processor,
    # which has SVM disabled, would raise #UD. A #DF that arises from an injected fault pushes the RF of that.
    EXCEPTIONS: ClassVar[int] = 1 << GP | 1 << DF

    def set_controls(self, vm: HardwareVm) -> None:
        """What makes the guest exit, whatever becomes of its memory."""
        control = vm.control
        for name in (*self.INTERCEPTS, *SVM_INSTRUCTIONS):
            control.set_control(name)
        if self.option("descriptor_tables"):
            for name in DESCRIPTOR_TABLES:
                control.set_control(name)
        # VMLOAD and VMSAVE carry the registers of SYSENTER, so that the guest may have its own.
        for number in (MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP):
            control.set_register(number, False, False)
        control.set_exceptions(self.EXCEPTIONS)
        control.set_space(ADDRESS_SPACE if self.option("vpid") else 0)

    def on_icebp(self, vm: HardwareVm, exit: Exit) -> None:
        """INT1: the interpreter delivers its #DB."""
        vm.interpret_one()

    def on_exception_or_nmi(self, vm: HardwareVm, exit: Exit) -> None:
        """#GP is the guest's own, unless it is about SVM, and #DF always; a page fault is the shadow's affair."""
        if exit.vector == PF:
            super().on_exception_or_nmi(vm, exit)
            return
        vm.charge("exit_exception", 1)
        if exit.vector == GP and exit.error == 0 and self.is_about_svm(vm):
            vm.inject_exception(GuestFault(UD))
        else:
            vm.inject_exception(GuestFault(exit.vector, exit.error))

    def is_about_svm(self, vm: HardwareVm) -> bool:
        """Whether the guest stands at an instruction of SVM."""
        instruction = vm.instruction()
        return instruction is not None and instruction.operation in SVM_INSTRUCTIONS

    def on_cr_access(self, vm: HardwareVm, exit: Exit) -> None:
        """Which register, and of what kind the instruction is, its bytes say."""
        qualify_control_register(vm, exit)
        super().on_cr_access(vm, exit)

    def invalidated_address(self, vm: HardwareVm, exit: Exit) -> int:
        """The linear address of INVLPG, which its bytes say."""
        return address_of_invlpg(vm, exit)

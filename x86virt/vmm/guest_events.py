"""Exceptions of the guest: those that the VMM raises in its name, those that are reflected, and its debug registers."""

from typing import TYPE_CHECKING

from ..core.breakpoints import DR6_BD, DR6_BS, DR7_GD, ON_EXECUTION
from ..isa.registers import CR0_NE, EFLAGS_RF
from ..isa.vectors import DB, GP, MF, SS_FAULT
from . import layout
from .exits import ERROR_CODE_VECTORS, Exit, GuestFault
from .reflect import reflect

if TYPE_CHECKING:
    from .vm import SoftwareVm

M32 = 0xFFFFFFFF
DR7_ENABLES = 0xFF


class GuestEvents:
    """What one virtual processor is delivered."""

    def __init__(self, vm: "SoftwareVm") -> None:
        self.vm = vm

    def inject_exception(self, fault: GuestFault) -> None:
        """Deliver a fault to the guest."""
        if fault.cr2 is not None:
            self.vm.vcpu.cr2 = fault.cr2
        reflect(self.vm, fault.vector, fault.error)

    def reflect_exit(self, exit: Exit) -> None:
        """Deliver the exception that caused an exit to the guest as it is.

        Where the guest's own processor might do otherwise, the interpreter says what: it tells the guest of an x87 exception
        by IRQ 13 if CR0.NE is clear, and the limits of its segments may reach further than those of their shadows.
        """
        if exit.vector == DB:
            self.note_debug(self.vm.crossings.debug_bits)
        by_irq_13 = exit.vector == MF and not self.vm.vcpu.cr0 & CR0_NE
        if by_irq_13 or self.is_by_truncation(exit):
            self.vm.interpret_one()
            return
        reflect(self.vm, exit.vector, exit.qualification if exit.vector in ERROR_CODE_VECTORS else None)

    def is_by_truncation(self, exit: Exit) -> bool:
        """Whether a limit that the VMM cut off may have raised the fault."""
        return exit.vector in (GP, SS_FAULT) and exit.qualification == 0 and self.vm.segments.are_truncated()

    # -- debug exceptions -------------------------------------------------------------------------------------------

    def single_step_trap(self) -> None:
        """#DB behind an emulated instruction that began with the guest's TF set."""
        self.note_debug(DR6_BS)
        reflect(self.vm, DB, None)

    def note_debug(self, bits: int) -> None:
        """What a debug exception does to the virtual debug registers."""
        self.vm.vcpu.dr[6] |= bits
        self.vm.vcpu.dr[7] &= M32 & ~DR7_GD

    def general_detect(self) -> None:
        """#DB before a MOV to or from a debug register, with RF in the image that is pushed."""
        self.note_debug(DR6_BD)
        self.vm.vcpu.frame.eflags |= EFLAGS_RF
        self.vm.vcpu.own_resume = False
        reflect(self.vm, DB, None)

    @staticmethod
    def can_load(registers: list[int]) -> bool:
        """Whether the processor may have all breakpoints that DR0 to DR7 enable: on code alone, below the VMM."""
        return all(
            registers[7] >> 16 + 4 * number & 3 == ON_EXECUTION and registers[number] < layout.VMM_BASE
            for number in range(4)
            if registers[7] >> 2 * number & 3
        )

    def load_breakpoints(self) -> None:
        """Give the processor the guest's instruction breakpoints, which it meets just where the guest's would.

        Breakpoints on data and ports would miss what the VMM does for the guest: while there are any, it is interpreted.
        """
        registers = [int(value) for value in self.vm.vcpu.dr]
        for number in range(4):
            self.vm.processor.set_debug_register(number, registers[number])
        self.vm.processor.set_debug_register(7, registers[7] & DR7_ENABLES)

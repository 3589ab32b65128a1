"""INT n, INT3 and INTO where the processor's own gate is closed."""

from typing import TYPE_CHECKING

from ...isa.vectors import BP, KIND_SOFTWARE_EXCEPTION, KIND_SOFTWARE_INTERRUPT, OF
from ..instruction import Instruction

if TYPE_CHECKING:
    from ..vm import SoftwareVm


def int_n(vm: "SoftwareVm", instruction: Instruction) -> None:
    """INT n whose gate the processor did not open: delivered to the guest as its own processor would."""
    vm.charge("emulate_far_transfer", 1)
    vm.entries.software_interrupt(instruction.imm & 0xFF, KIND_SOFTWARE_INTERRUPT, instruction.length)


def int3(vm: "SoftwareVm", instruction: Instruction) -> None:
    """INT3 and INTO (whose OF is set, or it had not trapped) where the processor's gate is closed."""
    vector = OF if instruction.operation == "INTO" else BP
    vm.entries.software_interrupt(vector, KIND_SOFTWARE_EXCEPTION, instruction.length)

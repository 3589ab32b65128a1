"""What the translator counts beside its work: the time of programs that run translated, and the cache's most bytes."""

from typing import TYPE_CHECKING

from ...core.entries import vmm_charge
from ...isa.events import EVENT_TRANSLATOR_OCCUPIED, EVENT_TRANSLATOR_PROGRAM_TICK, MODE_GUEST_USER

if TYPE_CHECKING:
    from ..vm import SoftwareVm


class Accounts:
    """The counts of one translator."""

    def __init__(self, vm: "SoftwareVm") -> None:
        self.vm = vm
        self.since: int | None = None  # in a program that runs translated: ticks of programs up to there

    def count_occupied(self, used: int) -> None:
        """Count the bytes of the cache that are in use for the first time."""
        known = int(self.vm.processor.cpu.ledger_count[EVENT_TRANSLATOR_OCCUPIED].sum())
        if used > known:
            vmm_charge(self.vm.processor.state, EVENT_TRANSLATOR_OCCUPIED, used - known, 0)

    def program_ticks(self) -> int:
        """The ticks of all programs, however they ran: all that ran in the processor's ring 3."""
        return int(self.vm.processor.cpu.ledger_ticks[:, MODE_GUEST_USER].sum())

    def enter_program(self) -> None:
        """A program goes on in translated code."""
        self.since = self.program_ticks()

    def settle(self) -> None:
        """Count the ticks of the program that runs translated, up to now; the others run directly."""
        if self.since is not None:
            now = self.program_ticks()
            vmm_charge(self.vm.processor.state, EVENT_TRANSLATOR_PROGRAM_TICK, now - self.since, 0)
            self.since = now

    def leave_program(self) -> None:
        """Translated code is left, a program's or the kernel's."""
        self.settle()
        self.since = None

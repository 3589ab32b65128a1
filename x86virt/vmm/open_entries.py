"""Entries into the guest's kernel that its programs use without a detour through #GP: open gates, and SYSENTER.

A gate of the VMM's IDT gets DPL 3 once the guest was seen to use INT n through a gate of its own with DPL 3. The
guest's gate decides at each use all the same; one that no longer permits it closes the VMM's.
"""

from typing import TYPE_CHECKING

from ..isa.vectors import BP, KIND_SOFTWARE_INTERRUPT, OF
from . import layout
from .exits import Exit, GuestFault
from .reflect import deliver, read_gate
from .region import write_gate

if TYPE_CHECKING:
    from .vm import SoftwareVm

M32 = 0xFFFFFFFF
FIRST_INTERRUPT_VECTOR = 32
EXCEPTIONS_BY_INSTRUCTIONS = (3, 4)  # INT3 and INTO check the gate's DPL
ONE_BYTE = {BP: 0xCC, OF: 0xCE}  # INT3 and INTO; the last byte of INT 3 and INT 4 is another


class OpenEntries:
    """Which gates are open to ring 3, and what comes through them."""

    def __init__(self, vm: "SoftwareVm") -> None:
        self.vm = vm
        self.open_vectors: set[int] = set()

    def open_gate(self, vector: int) -> None:
        """Let ring 3 of the guest use INT n without a detour: its own gate has DPL 3. Never for exceptions' vectors."""
        usable = vector >= FIRST_INTERRUPT_VECTOR or vector in EXCEPTIONS_BY_INSTRUCTIONS
        if usable and vector not in layout.OWN_VECTORS and vector not in self.open_vectors:
            self.open_vectors.add(vector)
            write_gate(self.vm, vector, 3)

    def close_gates(self) -> None:
        """Close every gate that was opened: the guest has another IDT."""
        for vector in self.open_vectors:
            write_gate(self.vm, vector, 0)
        self.open_vectors.clear()

    def gate_dpl(self, vector: int) -> int:
        """The DPL of the guest's own gate."""
        return self.vm.guest.read(self.vm.vcpu.idtr_base + 8 * vector + 4, 4) >> 13 & 3

    def open_sysenter(self) -> None:
        """Point the processor's SYSENTER at the VMM while the guest's is usable."""
        cpu = self.vm.processor.cpu
        cpu.sysenter_cs = layout.VMM_CODE_SELECTOR if self.vm.vcpu.sysenter_cs & 0xFFFC else 0
        cpu.sysenter_eip = layout.VMM_BASE + layout.ENTRIES + layout.SYSENTER_ENTRY
        cpu.sysenter_esp = layout.VMM_BASE + layout.STACK_TOP - 20

    def software_interrupt(self, vector: int, kind: int, length: int) -> None:
        """INT n of the guest, EIP still at it. A fault in its delivery is raised with EIP there."""
        frame = self.vm.vcpu.frame
        eip = frame.eip
        read_gate(self.vm, vector, kind)
        frame.eip = eip + length & M32
        try:
            self.vm.charge("reflect", 1)
            deliver(self.vm, vector, None, kind)
        except GuestFault:
            frame.eip = eip
            raise
        if self.gate_dpl(vector) == 3:
            self.open_gate(vector)

    def length_behind(self, vector: int) -> int:
        """Bytes of the instruction, without prefixes, that came through a vector's gate and behind which EIP is."""
        last = self.vm.guest.read(self.vm.linear_eip() - 1 & M32, 1)
        return 1 if last == ONE_BYTE.get(vector) else 2

    def deliver_open_gate(self, exit: Exit) -> None:
        """INT n came through a gate that was opened to ring 3. EIP is behind it; the guest's gate decides now."""
        frame = self.vm.vcpu.frame
        try:
            self.vm.charge("reflect", 1)
            deliver(self.vm, exit.vector, None, KIND_SOFTWARE_INTERRUPT)
        except GuestFault as fault:
            # It did not retire after all: EIP goes back to it, and its gate is closed until the guest opens it again.
            self.vm.processor.cpu.retired -= 1
            frame.eip = frame.eip - self.length_behind(exit.vector) & M32
            write_gate(self.vm, exit.vector, 0)
            self.open_vectors.discard(exit.vector)
            self.vm.inject_exception(fault)

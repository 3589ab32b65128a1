"""Clusters: instructions so close to one another that a VMM performs them at one exit, each of which would be one.

O. Agesen, J. Mattson, R. Rugina, J. Sheldon, "Software Techniques for Avoiding Hardware Virtualization Exits", USENIX ATC 2012: a
driver's initialization is OUT, MOV, OUT; the VMM that has control anyway goes on through them. Here the interpreter does, up to
the last instruction of the straight line behind the exit that would exit again. Where there is none is remembered by address; a
memory that is out of date costs an exit or an interpreted instruction, nothing else.
"""

from typing import TYPE_CHECKING

from ...isa.registers import CS
from ..exits import Exit, GuestFault
from ..instruction import Instruction, decode_at

if TYPE_CHECKING:
    from .vm import HardwareVm

EXITING = frozenset({"IN", "OUT", "INS", "OUTS", "CPUID", "RDMSR", "WRMSR"})
BEGINNING = frozenset({"io_instruction", "cpuid", "msr_read", "msr_write"})  # exits behind which to look for more
ENDING = frozenset({"CALL", "CALLF", "RET", "RETF", "IRET", "INT", "INT1", "INT3", "INTO", "HLT", "SYSENTER", "SYSEXIT", "LOOP"})
M32 = 0xFFFFFFFF
MOST_KNOWN = 4096  # addresses, before they are all forgotten


class Clusters:
    """What lies behind the exits of one guest. `most`: instructions to look ahead, 0 for none."""

    def __init__(self, vm: "HardwareVm", most: int) -> None:
        self.vm, self.most = vm, most
        self.known: dict[int, int] = {}
        self.last: Exit | None = None  # behind which it was looked

    def go_on(self, exit: Exit | None) -> bool:
        """Behind an exit that was handled: let the interpreter perform the rest of its cluster, if there is any."""
        vm = self.vm
        if not self.most or exit is None or exit is self.last or exit.reason not in BEGINNING:
            return False
        self.last = exit
        if vm.injected or vm.vcpu.halted or vm.machine.outcome is not None:
            return False
        length = self.length()
        if length == 0:
            return False
        vm.interpreter.take_over()
        vm.interpreter.go_on(length)
        return True

    def length(self) -> int:
        """Instructions up to the last that would exit, from where the guest stands."""
        place = self.vm.segments.base(CS) + self.vm.vcpu.frame.eip & M32
        if place not in self.known:
            if len(self.known) == MOST_KNOWN:
                self.known.clear()
            self.known[place] = self.look_ahead()
        return self.known[place]

    def look_ahead(self) -> int:
        """Decode the straight line."""
        eip, found = self.vm.vcpu.frame.eip, 0
        for number in range(1, self.most + 1):
            instruction = self.at(eip)
            if instruction is None or ends(instruction):
                break
            self.vm.charge("exit_decode", 1)
            if instruction.row.mnemonic in EXITING:
                found = number
            eip += instruction.length
        return found

    def at(self, eip: int) -> Instruction | None:
        """The instruction at an offset of the code segment, None if it cannot be had."""
        try:
            return decode_at(self.vm, eip)
        except GuestFault:
            return None


def ends(instruction: Instruction) -> bool:
    """Whether the straight line ends: a jump, or what else goes on elsewhere."""
    return instruction.row.mnemonic in ENDING or instruction.row.mnemonic.startswith("J")

"""Running the witness routines that no exit of a guest of ours shows: of instructions that do not trap on x86, of stores to
traced frames, and of the way from a callout to ring 0.

They are measured at an exit of a real guest's kernel at which another instruction is put in the place of the one that
trapped; guest and instruction are as they were when it is over.
"""

from typing import TYPE_CHECKING

from . import layout
from .vm import SoftwareVm
from .witness_run import MEMORY_BYTES, Measured, Prices, Witness, WitnessError, exits_of, symbols

if TYPE_CHECKING:
    from ..machine import Machine
    from ..profile import Profile

GUEST, COMMAND_LINE = "syscall", "iterations=1"
PROTECTION = 13
ROOM = 0x200  # bytes below the guest's stack pointer that an instruction may write
# What is put in its place. All memory operands are at [ESP - 200h], which the guest's kernel may write.
PUSHF, FROM_SEGMENT = b"\x9c", b"\x8c\xd0"  # MOV EAX, SS
BEFORE_STACK = b"\x24" + (-ROOM & 0xFFFFFFFF).to_bytes(4, "little")  # SIB and displacement
FNSTENV, FNSAVE = b"\xd9\xb4" + BEFORE_STACK, b"\xdd\xb4" + BEFORE_STACK
STORE = b"\x89\x84" + BEFORE_STACK  # MOV [ESP - 200h], EAX


def ready_machine(profile: "Profile") -> "Machine":
    """A machine whose guest's kernel has just trapped at a privileged instruction, its descriptors in the shadow."""
    from ..guests import find_guest
    from ..machine import Machine
    from .registry import find_strategy

    machine = Machine(find_strategy("trap-and-emulate")(), profile, MEMORY_BYTES)
    assert machine.vm is not None
    machine.vm.prices.table = {}
    machine.processor.cpu.sensitive_trap = 0
    machine.load(find_guest(GUEST), COMMAND_LINE)
    for scene in exits_of(machine):
        if (
            scene.vector == PROTECTION
            and scene.vm.vcpu.cpl == 0
            and scene.vm.vcpu.tr
            and scene.vm.descriptors.user_code
        ):
            return machine
    raise WitnessError(f"the guest {GUEST} shows no privileged instruction after a return from ring 3")


class Made:
    """The image at the exit of a machine, with instructions of ours in the place of the guest's."""

    def __init__(self, machine: "Machine") -> None:
        assert isinstance(machine.vm, SoftwareVm)
        self.vm = machine.vm
        frame = self.vm.processor.ram[layout.STACK_TOP - 20 : layout.STACK_TOP].view("<u4")
        self.eip, self.esp = int(frame[0]), int(frame[3])
        self.vm.shadow.map_page(self.esp - ROOM, True)
        self.witness = Witness(self.vm)

    def put(self, code: bytes) -> None:
        """Let the guest have trapped at this code."""
        for place, value in enumerate(code):
            gpa = self.vm.guest.walk(self.eip + place, False, False, mark=False).gpa
            address = self.vm.guest.machine_address(gpa)
            assert address is not None
            self.witness.ram[address] = value

    def ticks(self, path: str, address: int | None = None) -> int:
        """Ticks of a path, warm, at the exit or at a routine of the image. Raises WitnessError if it was refused."""
        measured = Measured()
        for _ in range(2):
            self.witness.restore()
            measured = self.witness.run(address)
            self.witness.keep_windows()
        found = measured.of(path)
        if found is None:
            raise WitnessError(f"the path {path} was not gone, but {measured.ending}")
        return found


def measure_made(profile: "Profile") -> Prices:
    """The prices of these paths under a profile."""
    made = Made(ready_machine(profile))

    def ticks(path: str, code: bytes, address: int | None = None) -> int:
        made.put(code)
        return made.ticks(path, address)

    environment, everything = (ticks("emulate_x87_store", code) for code in (FNSTENV, FNSAVE))
    doubleword = (everything - environment) // 20  # 7 and 27 of them
    return {
        "emulate_flags_image": (0, ticks("emulate_flags_image", PUSHF)),
        "emulate_state_read": (0, ticks("emulate_state_read", FROM_SEGMENT)),
        "emulate_x87_store": (environment - 7 * doubleword, doubleword),
        "leave_ring": (0, ticks("leave_ring", b"", symbols()["leave_ring"])),
        "traced_write": (0, ticks("traced_write", STORE, symbols()["traced_stub"])),
    }

"""Running the witness routines of a VMM on VMX or SVM: they work on a record of the VM exit, whatever has filled it.

Their prices are asked for under every profile, also where the processor has no such extension. So they are measured at an
exit of a software VMM: in ring 0, on the VMM's stack, with the record of an exit laid down that the processor might have made.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..core.layout import CPUID_ROWS
from ..isa.registers import DS, EAX, EBX, ECX, ES, ESP
from ..isa.vmx import EXIT_REASONS
from ..processor import FLAT_DATA
from . import layout
from .vm import SoftwareVm
from .witness_made import ready_machine
from .witness_run import Measured, Prices, Witness, WitnessError, symbols

if TYPE_CHECKING:
    from ..profile import Profile

M32 = 0xFFFFFFFF
PAGE = 4096
HOST_STACK = layout.VMM_BASE + layout.STACK_TOP - 28  # where the host's stack pointer is: room for a trap's frame above it
EVERY_FIELD = (1 << len(layout.EXIT_FIELDS)) - 1
REASON = {reason.name: reason.number for reason in EXIT_REASONS}
VALID_EXCEPTION, HAS_ERROR = 1 << 31 | 3 << 8, 1 << 11
GENERAL_PROTECTION, DIVIDE_ERROR = 13, 0
OUT_TO_PIC = 0x21 << 16
MOV_TO_CR3 = 3 | EAX << 8
ENTRY_LENGTH = 2
# Pages of the shadow pool that the machine at which the routines are measured leaves free: its end.
NESTED_ROOT, NESTED_FREE = layout.SHADOW_PAGES - 8, layout.SHADOW_PAGES - 2
EPT_ALL, EPT_WRITE_BACK = 7, 6 << 3
REAL_MODE_DATA = 0x2000
MOV_CR3_EAX = b"\x0f\x22\xd8"


def blank_exit(vm: "SoftwareVm") -> np.ndarray:
    """The record of an exit, all of whose fields have been read, with what a VMM keeps beside them: one element."""
    record = np.zeros(1, layout.EXIT)
    cpu = vm.processor.cpu
    row = record[0]
    row["have"] = EVERY_FIELD
    row["vm_exit_instruction_length"] = ENTRY_LENGTH
    rows = np.asarray(cpu.cpuid)[:CPUID_ROWS].copy()
    rows[1, 3] = int(cpu.cpuid_leaf1_edx)
    row["cpuid"] = rows & M32
    row["cpuid_highest"], row["cpuid_repeats"] = int(cpu.cpuid_highest), int(cpu.cpuid_repeats)
    row["cpuid_extended"] = int(cpu.cpuid_highest_extended) & M32
    row["model_specific"] = [(number, 0, 0, 1) for number in range(layout.N_MODEL_SPECIFIC)]
    return record


class ExitWitness(Witness):
    """The image in the state in which a VM exit leaves the processor; `exit` is the record, one element."""

    def __init__(self, vm: "SoftwareVm") -> None:
        for segment in (DS, ES):
            vm.processor.set_segment(segment, layout.VMM_DATA_SELECTOR, 0, M32, FLAT_DATA)
        vm.processor.cpu.gpr[ESP] = HOST_STACK
        self.exit = blank_exit(vm)
        super().__init__(vm)

    def publish(self) -> None:
        """Lay down the VMM's state, and the record."""
        super().publish()
        self.lay(layout.EXIT_RECORD, self.exit)
        pending = self.vm.processor.ram[layout.DEVICES : layout.DEVICES + layout.DEVICE.itemsize].view(layout.DEVICE)
        pending["pending"] = 0

    def lay(self, place: int, record: np.ndarray) -> None:
        """Write a record into the region."""
        self.vm.processor.ram[place : place + record.nbytes] = record.view(np.uint8).ravel()

    def at(self, label: str, registers: dict[int, int] | None = None) -> Measured:
        """A warm run from a label, from the record as `exit` has it."""
        self.ram[layout.EXIT_RECORD : layout.EXIT_RECORD + self.exit.nbytes] = self.exit.view(np.uint8).ravel()
        measured = Measured()
        for _ in range(2):
            self.restore()
            for number, value in (registers or {}).items():
                self.cpu.gpr[number] = value
            measured = self.run(symbols()[label])
            self.keep_windows()
        return measured

    def exits(self, reason: str, registers: dict[int, int] | None = None, **fields: int) -> Measured:
        """A warm run of an exit with this reason."""
        record, self.exit = self.exit, self.exit.copy()
        self.exit["reason"] = REASON[reason]
        for name, value in fields.items():
            self.exit[name] = value
        measured = self.at("vm_exit", registers)
        self.exit = record
        return measured


def ticks_of(measured: Measured, path: str) -> int:
    """Ticks of a path. Raises WitnessError if it was not gone."""
    found = measured.of(path)
    if found is None:
        raise WitnessError(f"the path {path} was not gone, but {measured.ending}")
    return found


# -- nested tables ------------------------------------------------------------------------------------------------------


def lay_nested_tables(witness: ExitWitness, levels: int, present: int) -> None:
    """Tables of so many levels for guest-physical address 0, the first `present` of them there, entries of 8 bytes."""
    row = witness.exit[0]
    row["nested_root"], row["nested_levels"] = layout.SHADOW + NESTED_ROOT * PAGE, levels
    row["nested_next"], row["nested_rights"], row["nested_table_rights"] = NESTED_FREE, EPT_ALL | EPT_WRITE_BACK, EPT_ALL
    for number in range(levels):
        table = np.zeros(PAGE // 8, "<u8")
        if number + 1 < present:
            table[0] = layout.SHADOW + (NESTED_ROOT + number + 1) * PAGE | EPT_ALL
        first = layout.SHADOW + (NESTED_ROOT + number) * PAGE
        witness.ram[first : first + PAGE] = table.view(np.uint8)


def measure_nested(witness: ExitWitness) -> Prices:
    """A fill by the number of tables that it visits, a new table, an entry taken back."""
    ticks = []
    for levels in (4, 3):
        lay_nested_tables(witness, levels, levels)
        ticks.append(ticks_of(witness.exits("ept_violation", nested=1), "nested_fill"))
    item = ticks[0] - ticks[1]
    lay_nested_tables(witness, 4, 3)
    table = ticks_of(witness.exits("ept_violation", nested=1), "nested_table")
    lay_nested_tables(witness, 4, 4)
    drop = ticks_of(witness.at("nested_drop_alone", {EBX: 0}), "nested_drop")
    return {"nested_fill": (ticks[0] - 4 * item, item), "nested_table": (0, table), "nested_drop": (0, drop)}


# -- real mode ------------------------------------------------------------------------------------------------------------


def real_mode_segments() -> np.ndarray:
    """Segments as real mode makes them: selector, base, limit, access rights."""
    selectors = [REAL_MODE_DATA] * 6 + [0, 0]
    return np.array([(selector, selector << 4, 0xFFFF, 0x93) for selector in selectors], "<u4")


def measure_real_mode(witness: ExitWitness) -> int:
    """The segments' way into virtual-8086 mode."""
    witness.exit["segments"] = real_mode_segments()
    return ticks_of(witness.at("real_mode_enter_alone"), "real_mode_switch")


# -- all of them ------------------------------------------------------------------------------------------------------------


def measure_decode(witness: ExitWitness) -> int:
    """The guest's instruction fetched and decoded, warm: MOV CR3 where the guest's kernel has just trapped."""
    eip = int(witness.ram[layout.STACK_TOP - 20 : layout.STACK_TOP - 16].view("<u4")[0])
    for place, value in enumerate(MOV_CR3_EAX):
        address = witness.vm.guest.machine_address(witness.vm.guest.walk(eip + place, False, False, mark=False).gpa)
        assert address is not None
        witness.ram[address] = value
    witness.exit["guest_rip"], witness.exit["guest_cs_base"] = eip, 0
    ticks = ticks_of(witness.at("exit_decode_alone"), "exit_decode")
    witness.exit["guest_rip"] = 0
    return ticks


def exits_to_measure(witness: ExitWitness) -> Iterable[tuple[str, Callable[[], Measured]]]:
    """Path -> a run in which it is gone."""
    exits = witness.exits
    protection = VALID_EXCEPTION | HAS_ERROR | GENERAL_PROTECTION
    return {
        "exit_dispatch": lambda: exits("cpuid"),
        "exit_cpuid": lambda: exits("cpuid", {EAX: 1}),
        "exit_port": lambda: exits("io_instruction", exit_qualification=OUT_TO_PIC),
        "exit_control_register": lambda: exits("cr_access", exit_qualification=MOV_TO_CR3),
        "exit_msr": lambda: exits("msr_read", {ECX: layout.N_MODEL_SPECIFIC // 2}),
        "exit_halt": lambda: exits("hlt"),
        "exit_invlpg": lambda: exits("invlpg", exit_qualification=int(witness.cpu.gpr[ESP]) & 0xFFF),
        "exit_skip": lambda: exits("invd"),
        "exit_exception": lambda: exits("exception_or_nmi", vm_exit_interruption_information=VALID_EXCEPTION | DIVIDE_ERROR),
        "exit_interrupt": lambda: exits(
            "external_interrupt", vm_exit_interruption_information=1 << 31 | layout.HOST_TIMER_VECTOR
        ),
        "inject": lambda: exits("exception_or_nmi", vm_exit_interruption_information=protection),
        "window": lambda: witness.at("window_toggled_alone"),
        "paging_switch": lambda: witness.at("paging_switch_alone"),
    }.items()


def measure_hardware(profile: "Profile") -> Prices:
    """The prices of these paths under a profile."""
    vm = ready_machine(profile).vm
    assert isinstance(vm, SoftwareVm)
    witness = ExitWitness(vm)
    prices: Prices = {path: (0, ticks_of(run(), path)) for path, run in exits_to_measure(witness)}
    prices["exit_decode"] = (0, measure_decode(witness))
    prices["real_mode_switch"] = (0, measure_real_mode(witness))
    prices.update(measure_nested(witness))
    return prices

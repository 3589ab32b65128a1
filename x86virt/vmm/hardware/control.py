"""The control structure of a virtual machine, whichever the extension: what a hardware VMM reads, writes and enters.

VT-x keeps a guest in a VMCS, SVM in a VMCB. Both tell the VMM the same things and are told the same, so that what a VMM does
with them is written once, against `GuestControl`. Fields go by the keys of isa/vmx.py (`Field.key`: "guest_rip",
"guest_cs_access_rights", ...) in the VMCS's format; three more are plain registers of the processor under VT-x:

    guest_cr2, guest_dr6    kept by no VMCS; the VMCB has them
    guest_rax               likewise; after `read_exit` EAX is in the processor's record under both, and `enter` takes it there

A field's values here are the *hardware's*. What the guest believes to have is `guest_state.GuestState`, one level above.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from ...core.entries import all_eflags
from ...core.layout import ROOT
from ...isa.registers import AR_DPL, AR_DPL_SHIFT, EAX, ESP, SS
from ..exits import Exit

if TYPE_CHECKING:
    from ...processor import Processor

SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")  # in the order of isa.registers
SEGMENT_KEYS = tuple(
    tuple(f"guest_{name}_{part}" for part in ("selector", "base", "limit", "access_rights")) for name in SEGMENTS
)
TABLE_KEYS = ("guest_gdtr_base", "guest_gdtr_limit", "guest_idtr_base", "guest_idtr_limit")
CONTROL_REGISTER_KEYS = ("guest_cr0", "guest_cr3", "guest_cr4")
SYSENTER_KEYS = ("guest_ia32_sysenter_cs", "guest_ia32_sysenter_esp", "guest_ia32_sysenter_eip")
# Everything of a guest's registers that both extensions keep; eager switching moves all of it at each exit and entry.
GUEST_KEYS = (
    "guest_rip", "guest_rsp", "guest_rflags", *(key for keys in SEGMENT_KEYS for key in keys), *TABLE_KEYS,
    *CONTROL_REGISTER_KEYS, *SYSENTER_KEYS, "guest_dr7", "guest_interruptibility_state",
)  # fmt: skip

# How live registers are found in the processor's record, for those that look at a guest which runs.
_IN_PROCESSOR = {
    "guest_rip": "rip", "guest_cr0": "cr0", "guest_cr2": "cr2", "guest_cr3": "cr3", "guest_cr4": "cr4",
    "guest_gdtr_base": "gdtr_base", "guest_gdtr_limit": "gdtr_limit", "guest_idtr_base": "idtr_base",
    "guest_idtr_limit": "idtr_limit", "guest_ia32_sysenter_cs": "sysenter_cs",
    "guest_ia32_sysenter_esp": "sysenter_esp", "guest_ia32_sysenter_eip": "sysenter_eip",
}  # fmt: skip
_SEGMENT_PARTS = {
    key: (number, part)
    for number, keys in enumerate(SEGMENT_KEYS)
    for key, part in zip(keys, ("selector", "seg_base", "limit", "access"), strict=True)
}


class EntryFailed(Exception):
    """The processor refused to enter the guest: VMfail with its error number, or the exit reason of a failed entry."""


class GuestControl(ABC):
    """The control structure of one virtual processor, and the instructions that act on it, each charged as it is used."""

    extension: ClassVar[str]  # "vtx" or "svm"
    vpid = 0  # VT-x: the virtual-processor identifier in use
    launched: bool = True  # the guest was entered once; under VT-x another instruction does that from then on
    completes_instructions: ClassVar[bool]  # injecting what an INT n raises completes it; else the guest executes it again
    largest_error: ClassVar[int] = 0xFFFFFFFF  # code that an injected exception may push

    def __init__(self, processor: "Processor") -> None:
        self.processor = processor

    # -- fields ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def has(self, key: str) -> bool:
        """Whether the processor has this field."""

    @abstractmethod
    def read(self, key: str) -> int:
        """A field: VMREAD, or a reference to the VMCB."""

    @abstractmethod
    def write(self, key: str, value: int) -> None:
        """Write a field: VMWRITE, or a reference to the VMCB."""

    @abstractmethod
    def stored(self, key: str) -> int:
        """A field as it lies in memory, at no cost: for those that look on."""

    def peek(self, key: str) -> int:
        """A register of the guest at no cost, for those that look on: the processor's own while the guest runs."""
        return self.live(key) if self.in_guest else self.stored(key)

    @property
    def in_guest(self) -> bool:
        """Whether the processor runs the guest now."""
        return int(self.processor.cpu.world) != ROOT

    def live(self, key: str) -> int:
        """A register of the guest as the running processor holds it."""
        cpu = self.processor.cpu
        if key in _IN_PROCESSOR:
            return int(cpu[_IN_PROCESSOR[key]])
        if key in _SEGMENT_PARTS:
            number, part = _SEGMENT_PARTS[key]
            value = int(cpu.seg[number][part])
            if number == SS and part == "access":
                value = value & ~AR_DPL | int(cpu.cpl) << AR_DPL_SHIFT
            return value
        others = {
            "guest_rsp": lambda: int(cpu.gpr[ESP]),
            "guest_rax": lambda: int(cpu.gpr[EAX]),
            "guest_rflags": lambda: int(all_eflags(self.processor.state)),
            "guest_dr6": lambda: int(cpu.dr[6]),
            "guest_dr7": lambda: int(cpu.dr[7]),
            "guest_activity_state": lambda: int(cpu.halted),
        }
        return others[key]() if key in others else self.stored(key)

    # -- what makes the guest exit --------------------------------------------------------------------------------

    @abstractmethod
    def set_control(self, name: str, wanted: bool = True) -> bool:
        """Set or clear a control by its manual's name ("HLT exiting"; SVM: as isa/svm.py names intercepts), at any time.

        False: the processor does not offer it; nothing was changed.
        """

    @abstractmethod
    def has_control(self, name: str) -> bool:
        """Whether the processor lets a control be set."""

    @abstractmethod
    def set_exceptions(self, bitmap: int) -> None:
        """The vectors whose exceptions exit."""

    @abstractmethod
    def set_ports(self, first: int, count: int, wanted: bool) -> None:
        """Whether accesses to ports exit, where bitmaps are in use: all do at first."""

    @abstractmethod
    def set_register(self, number: int, reads: bool, writes: bool) -> None:
        """Whether RDMSR and WRMSR of a model-specific register exit, where bitmaps are in use: all do at first."""

    @abstractmethod
    def set_nested(self, root: int, levels: int) -> None:
        """Use nested tables whose root is at a machine address: the EPT pointer, or N_CR3."""

    @abstractmethod
    def set_space(self, identifier: int) -> None:
        """The VPID or ASID, where the processor has them; 0: none (SVM takes 1 and flushes at each entry)."""

    @abstractmethod
    def own_bits(self, cr0: int, cr4: int) -> None:
        """The bits of CR0 and CR4 that are the VMM's: a write that would change what the guest believes of them exits."""

    # -- the guest ------------------------------------------------------------------------------------------------

    @abstractmethod
    def start(self, host_cr3: int, host_entry: int) -> None:
        """Turn the extension on; make the structure this processor's, with the host as the processor now is.

        Controls may be set before and after. `host_entry`: the linear address at which the VMM goes on behind an exit.
        """

    @property
    def enters_plainly(self) -> bool:
        """Whether the next entry is VMRESUME, or VMRUN, and nothing else."""
        return self.launched

    @abstractmethod
    def enter(self) -> int:
        """Enter the guest: an outcome of core/layout.py. `processor.run` then runs it (or, if its event's delivery exited,
        arrives at the host's entry at once). EntryFailed if the processor refuses."""

    @abstractmethod
    def read_exit(self) -> Exit:
        """Why the guest was left: its reason by the names of isa/exits.py, and the fields which that reason has."""

    @abstractmethod
    def inject(self, vector: int, kind: int, error: int | None = None, length: int = 0) -> None:
        """Let the next entry deliver an event; `length`: of the instruction that raised a software interrupt or exception."""

    @abstractmethod
    def want_window(self, wanted: bool) -> None:
        """Whether the guest shall exit as soon as it can take an interrupt."""

    @abstractmethod
    def flush(self, gla: int | None = None) -> None:
        """Drop the guest's translations, or those of one linear address: INVVPID, INVLPGA or TLB_CONTROL, INVEPT."""

    def before_idle(self) -> None:  # noqa: B027
        """The VMM is about to wait for an interrupt of its own: STGI under SVM."""

    def skip(self, length: int) -> None:
        """Put the guest behind an instruction that was performed for it: what STI or MOV SS held off is over."""
        self.write("guest_rip", self.read("guest_rip") + length & 0xFFFFFFFF)
        self.end_shadow()

    @abstractmethod
    def save(self) -> dict[str, Any]:
        """What is not in machine RAM, as JSON has it."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `save` gave. Raises ValueError for what it never gives."""

    @abstractmethod
    def end_shadow(self) -> None:
        """Nothing is held off by STI or MOV SS any more."""

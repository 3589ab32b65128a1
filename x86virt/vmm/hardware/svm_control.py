"""SVM's control structure: the VMCB, VMRUN and the instructions about it, as every hardware VMM uses them (`GuestControl`).

AMD64 Architecture Programmer's Manual, volume 2, chapter 15. What differs from VT-x:

* VMRUN and #VMEXIT carry only what every guest and host needs. FS, GS, LDTR, TR and the registers of SYSENTER stay in the
  processor as the guest left them. The VMM uses none of them, so that it fetches them by VMSAVE only when it asks for one, and
  gives them back by VMLOAD when it has changed one; `eager` moves them at each exit and entry, as a VMM must whose own code
  uses them.
* Behind #VMEXIT the global interrupt flag is clear. An external interrupt that made the guest exit is not acknowledged: it still
  waits, and comes through the VMM's own IDT once STGI lets it in.
* The VMM runs with EFLAGS.IF set and the guest under V_INTR_MASKING, so that the guest's own IF masks virtual interrupts alone.
* Translations are the address space's (ASID). To drop the guest's the VMM takes the next ASID, which has none; when all were
  used, TLB_CONTROL drops everything and they begin anew.
"""

from typing import TYPE_CHECKING, Any

from ...core.entries import set_all_eflags
from ...core.layout import CPUID_EXTENDED, HOOK, OK
from ...core.svm_entries import (
    svm_invalidate,
    svm_load,
    svm_run,
    svm_save,
    svm_set_interrupts,
    svm_write_register,
    vmcb_read,
    vmcb_write,
)
from ...isa import svm
from ...isa.registers import AR_DPL, AR_DPL_SHIFT, EAX, EFLAGS_FIXED, EFLAGS_IF, ESP, MSR_EFER
from ...isa.vectors import KIND_EXCEPTION, KIND_EXTERNAL, KIND_NMI
from .. import layout
from ..exits import Exit
from .control import EntryFailed, GuestControl
from .svm_layout import HOST_SAVE, HOST_VMCB, IOPM, MSRPM, VMCB
from .svm_reasons import exit_of
from .vmcb_fields import CARRIED, PLACES, from_vmcb, to_vmcb

if TYPE_CHECKING:
    from ...processor import Processor

M32 = 0xFFFFFFFF
CODES = {name: code for code, name in svm.EXIT_NAMES.items()}
# The doubleword and the bit of an intercept, by the first exit code of each doubleword.
WORDS = (
    (svm.FIRST_INTERCEPT_2, svm.VMCB_INTERCEPTS_2),
    (svm.FIRST_INTERCEPT_1, svm.VMCB_INTERCEPTS_1),
    (svm.EXIT_EXCEPTION, svm.VMCB_EXCEPTION_INTERCEPTS),
    (svm.EXIT_DR_READ, svm.VMCB_DR_INTERCEPTS),
    (svm.EXIT_CR_READ, svm.VMCB_CR_INTERCEPTS),
)
NOT_OFFERED = (*svm.NEVER_RAISED, "NPF", "INVALID")
MASKED = svm.V_INTR_MASKING | svm.V_IGN_TPR
TYPES = {KIND_EXTERNAL: svm.TYPE_INTERRUPT, KIND_NMI: svm.TYPE_NMI, KIND_EXCEPTION: svm.TYPE_EXCEPTION}
HOST_STACK_TOP = layout.VMM_BASE + layout.STACK_TOP
DR6_INITIAL, PAT_INITIAL = 0xFFFF0FF0, 0x0007040600070406
SVM_ROW = CPUID_EXTENDED + 10


class SvmControl(GuestControl):
    """One VMCB in the VMM's region, and the instructions of SVM."""

    extension = "svm"
    completes_instructions = False

    def __init__(self, processor: "Processor", eager: bool = False) -> None:
        super().__init__(processor)
        self.eager = eager
        self.entry = 0  # where the VMM goes on behind an exit
        self.spaces = int(processor.cpu.cpuid[SVM_ROW, 1])  # address spaces, the host's included
        self.tagged = False  # whether the guest's translations outlive exits
        self.is_saved = True  # the VMCB has what VMSAVE brings
        self.to_load = False  # and it must go to the processor again
        self.tlb_command = svm.TLB_CONTROL_NOTHING  # as the VMCB has it
        self.drops_all = False  # at the next entry, whatever the tags
        self.window = False

    # -- fields ---------------------------------------------------------------------------------------------------

    def has(self, key: str) -> bool:
        """Whether the VMCB has this field."""
        return key in PLACES

    def get(self, offset: int, count: int = 4) -> int:
        """Bytes of the VMCB."""
        return int(vmcb_read(self.processor.state, self.processor.memory, VMCB, offset, count))

    def put(self, offset: int, value: int, count: int = 4) -> None:
        """Write bytes of the VMCB."""
        vmcb_write(self.processor.state, self.processor.memory, VMCB, offset, count, value)

    def read(self, key: str) -> int:
        """A field, in the format of a VMCS."""
        place = PLACES[key]
        if key in CARRIED:
            self.fetch_carried()
        return from_vmcb(place, self.get(place.offset, place.count))

    def write(self, key: str, value: int) -> None:
        """Write a field, given in the format of a VMCS. The CPL follows SS."""
        place = PLACES[key]
        if key in CARRIED:
            self.fetch_carried()
            self.to_load = True
        self.put(place.offset, to_vmcb(place, value), place.count)
        if key == "guest_ss_access_rights":
            self.put(svm.VMCB_CPL, (value & AR_DPL) >> AR_DPL_SHIFT, 1)

    def stored(self, key: str) -> int:
        """A field as it lies in memory, or as the processor still holds it, at no cost."""
        if key in CARRIED and not self.is_saved:
            return self.live(key)
        place = PLACES[key]
        octets = self.processor.read_physical(VMCB + place.offset, place.count)
        return from_vmcb(place, int.from_bytes(octets, "little"))

    def fetch_carried(self) -> None:
        """VMSAVE, unless the VMCB has it already."""
        if not self.is_saved:
            svm_save(self.processor.state, self.processor.memory, VMCB)
            self.is_saved = True

    # -- what makes the guest exit --------------------------------------------------------------------------------

    def has_control(self, name: str) -> bool:
        """Whether there is such an intercept: "HLT", "CR3_WRITE", "EXCP14" ..."""
        return name in CODES and name not in NOT_OFFERED

    def set_control(self, name: str, wanted: bool = True) -> bool:
        """Set or clear an intercept by its name."""
        if not self.has_control(name):
            return False
        offset, bit = self.place_of(name)
        word = self.get(offset)
        self.put(offset, word | bit if wanted else word & ~bit)
        return True

    def has_set(self, name: str) -> bool:
        """Whether an intercept is set, as the VMM remembers."""
        offset, bit = self.place_of(name)
        return bool(int.from_bytes(self.processor.read_physical(VMCB + offset, 4), "little") & bit)

    @staticmethod
    def place_of(name: str) -> tuple[int, int]:
        """The doubleword and the bit of an intercept."""
        first, offset = next(row for row in WORDS if CODES[name] >= row[0])
        return offset, 1 << CODES[name] - first

    def set_exceptions(self, bitmap: int) -> None:
        """The vectors whose exceptions exit."""
        self.put(svm.VMCB_EXCEPTION_INTERCEPTS, bitmap)

    def set_ports(self, first: int, count: int, wanted: bool) -> None:
        """The bits of ports in the I/O permission map."""
        for port in range(first, first + count):
            self.set_bits(IOPM + (port >> 3), 1 << (port & 7), wanted)

    def set_register(self, number: int, reads: bool, writes: bool) -> None:
        """The two bits of a model-specific register in the permission map; those outside its ranges always exit."""
        for index, first in enumerate(svm.MSRPM_RANGES):
            if 0 <= number - first < svm.MSRS_IN_RANGE:
                address = MSRPM + index * svm.MSRPM_RANGE_BYTES + (number - first >> 2)
                self.set_bits(address, 1 << 2 * (number & 3), reads)
                self.set_bits(address, 2 << 2 * (number & 3), writes)

    def set_bits(self, address: int, bits: int, wanted: bool) -> None:
        """Set or clear bits of a byte of a permission map."""
        value = self.processor.read_physical(address, 1)[0]
        self.processor.write_physical(address, bytes([value | bits if wanted else value & ~bits]))

    def set_nested(self, root: int, levels: int) -> None:
        """Nested paging by tables of the host's paging mode: N_CR3."""
        self.put(svm.VMCB_NESTED_CONTROL, 1)
        self.put(svm.VMCB_NESTED_CR3, root)

    def set_space(self, identifier: int) -> None:
        """The ASID; 0: the guest gets one all the same, whose translations are dropped at each entry."""
        self.tagged = identifier != 0
        self.put(svm.VMCB_GUEST_ASID, identifier or 1)

    def own_bits(self, cr0: int, cr4: int) -> None:
        """SVM has no masks: writes of the register exit, of CR0 those that change more than TS and MP."""
        for name, bits in (("CR0_SEL_WRITE", cr0), ("CR4_WRITE", cr4)):
            self.set_control(name, bits != 0)

    # -- the guest ------------------------------------------------------------------------------------------------

    def start(self, host_cr3: int, host_entry: int) -> None:
        """EFER.SVME and VM_HSAVE_PA; every port and register exits; the guest's interrupts are masked by V_INTR_MASKING."""
        self.entry = host_entry
        state, memory = self.processor.state, self.processor.memory
        enabled = int(self.processor.cpu.efer) | svm.EFER_SVME
        if not svm_write_register(state, MSR_EFER, enabled, 0):
            raise EntryFailed("EFER.SVME cannot be set")
        svm_write_register(state, svm.MSR_VM_HSAVE_PA, HOST_SAVE, 0)
        svm_save(state, memory, HOST_VMCB)
        self.processor.write_physical(IOPM, b"\xff" * svm.IOPM_BYTES)
        self.processor.write_physical(MSRPM, b"\xff" * svm.MSRPM_BYTES)
        self.put(svm.VMCB_IOPM_BASE, IOPM)
        self.put(svm.VMCB_MSRPM_BASE, MSRPM)
        self.put(svm.VMCB_VIRTUAL_INTERRUPT, MASKED)
        self.put(svm.VMCB_EFER, svm.EFER_SVME)
        self.put(svm.VMCB_DR6, DR6_INITIAL)
        self.put(svm.VMCB_PAT, PAT_INITIAL & M32)
        self.put(svm.VMCB_PAT + 4, PAT_INITIAL >> 32)
        self.set_control("VMRUN")  # VMRUN insists
        self.to_load = True

    def enter(self) -> int:
        """VMRUN, under CLGI, from a host whose EFLAGS.IF is set. EntryFailed: VMEXIT_INVALID."""
        processor = self.processor
        state, memory, cpu = processor.state, processor.memory, processor.cpu
        self.put(svm.VMCB_RAX, int(cpu.gpr[EAX]))
        self.command_tlb(svm.TLB_CONTROL_NOTHING if self.tagged else svm.TLB_CONTROL_ALL)
        if cpu.svm.gif:
            svm_set_interrupts(state, 0)
        if self.to_load or self.eager:
            svm_load(state, memory, VMCB)
        cpu.rip, cpu.gpr[ESP] = self.entry, HOST_STACK_TOP
        set_all_eflags(state, EFLAGS_FIXED | EFLAGS_IF)
        outcome = int(svm_run(state, memory, VMCB))
        self.is_saved = self.to_load = False
        if outcome == OK and not self.in_guest and self.code() == svm.EXIT_INVALID:
            raise EntryFailed("VMRUN found the VMCB invalid")
        return outcome

    @property
    def enters_plainly(self) -> bool:
        """Whether the next entry is VMRUN alone: nothing is to be loaded or dropped first, nor TLB_CONTROL to be written."""
        usual = svm.TLB_CONTROL_NOTHING if self.tagged else svm.TLB_CONTROL_ALL
        return not self.to_load and not self.drops_all and not self.eager and self.tlb_command == usual

    def command_tlb(self, command: int) -> None:
        """TLB_CONTROL of the next VMRUN, written where it is another; what `flush` asked for goes first."""
        if self.drops_all:
            command = svm.TLB_CONTROL_ALL
            self.drops_all = False
        if command != self.tlb_command:
            self.tlb_command = command
            self.put(svm.VMCB_TLB_CONTROL, command, 1)

    def code(self) -> int:
        """The exit code."""
        return (self.get(svm.VMCB_EXIT_CODE) ^ 1 << 31) - (1 << 31)

    def read_exit(self) -> Exit:
        """Why the guest was left. EAX is in the processor's record then; an external interrupt is let in by the next STGI."""
        if self.eager:
            self.fetch_carried()
            svm_load(self.processor.state, self.processor.memory, HOST_VMCB)
        exit = exit_of(self)
        self.processor.cpu.gpr[EAX] = self.get(svm.VMCB_RAX)
        return exit

    def inject(self, vector: int, kind: int, error: int | None = None, length: int = 0) -> None:
        """EVENTINJ. A software interrupt or exception is not injected: RIP is still at the instruction that raises it."""
        if kind not in TYPES:
            return
        event = svm.EVENT_VALID | TYPES[kind] << svm.EVENT_TYPE_SHIFT | vector
        if error is not None:
            event |= svm.EVENT_ERROR_VALID
            self.put(svm.VMCB_EVENT_INJECTION_ERROR, error)
        self.put(svm.VMCB_EVENT_INJECTION, event)

    def want_window(self, wanted: bool) -> None:
        """A virtual interrupt that is never taken: where it could be, the guest exits (VINTR is intercepted)."""
        if wanted and not self.window:
            self.set_control("VINTR")
        if wanted != self.window:
            self.window = wanted
            self.put(svm.VMCB_VIRTUAL_INTERRUPT, MASKED | wanted * svm.V_IRQ)

    def flush(self, gla: int | None = None) -> None:
        """Drop the guest's translations by taking the next ASID, or those of one address by INVLPGA."""
        if not self.tagged:
            return  # each entry does
        asid = self.get(svm.VMCB_GUEST_ASID)
        if gla is not None:
            svm_invalidate(self.processor.state, gla, asid)
            return
        self.drops_all = self.drops_all or asid + 1 == self.spaces
        self.put(svm.VMCB_GUEST_ASID, 1 if asid + 1 == self.spaces else asid + 1)

    def take_interrupt(self) -> int:
        """Let the interrupt in that made the guest exit: the processor delivers it through the VMM's IDT. Its vector."""
        processor, cpu = self.processor, self.processor.cpu
        svm_set_interrupts(processor.state, 1)
        cpu.rip = layout.VMM_BASE + layout.IDLE
        while processor.run(False) != HOOK:
            pass
        svm_set_interrupts(processor.state, 0)
        return (int(cpu.rip) - layout.VMM_BASE - layout.ENTRIES) // layout.ENTRY_BYTES

    def before_idle(self) -> None:
        """STGI: interrupts of the VMM's own are let in."""
        if not self.processor.cpu.svm.gif:
            svm_set_interrupts(self.processor.state, 1)

    def end_shadow(self) -> None:
        """The interrupt shadow ends."""
        self.write("guest_interruptibility_state", 0)

    # -- saved machines -------------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """What the VMCB does not tell."""
        return {name: getattr(self, name) for name in SAVED}

    def restore(self, state: dict[str, Any]) -> None:
        """Put it back. Raises ValueError for what `save` never gave."""
        if set(state) != set(SAVED) or any(type(state[name]) is not type(getattr(self, name)) for name in SAVED):
            raise ValueError("the state of SVM")
        for name in SAVED:
            setattr(self, name, state[name])


SAVED = ("entry", "tagged", "is_saved", "to_load", "tlb_command", "drops_all", "window")

"""VT-x for a VMM: the VMCS by VMREAD and VMWRITE, VMXON to VMRESUME, and what an exit says."""

from typing import TYPE_CHECKING, Any, ClassVar

from ...core.entries import enter_level
from ...core.vmx_entries import (
    vmx_clear,
    vmx_enter,
    vmx_invept,
    vmx_invvpid,
    vmx_load_pointer,
    vmx_on,
    vmx_read,
    vmx_write,
)
from ...isa.registers import CR0_NE, CR4_VMXE
from ...isa.vmx import (
    BLOCKING_BY_MOV_SS,
    BLOCKING_BY_STI,
    ENTRY_FAILURE,
    FEATURE_CONTROL_LOCK,
    FEATURE_CONTROL_VMX,
    FIELDS,
    HIGH_HALF,
    INTERRUPTION_ERROR_CODE,
    INTERRUPTION_VALID,
    MISC_CR3_TARGETS_SHIFT,
    REGION_FIELDS,
    SLOT,
    TYPE_MASK,
    TYPE_SHIFT,
    TYPE_SOFTWARE_INTERRUPT,
    VMX_BASIC,
    VMX_MISC,
)
from ..exits import Exit
from ..region import region_address
from .control import SEGMENTS, EntryFailed, GuestControl
from .layout import IO_BITMAPS, MSR_BITMAPS, VMCS_REGION, VMXON_REGION
from .vtx_controls import VtxControls
from .vtx_exits import read_exit

if TYPE_CHECKING:
    from ...processor import Processor

M32 = 0xFFFFFFFF
PAGE_BYTES = 4096
NO_LINK = (1 << 64) - 1
IN_REGISTERS = ("guest_cr2", "guest_dr6", "guest_rax")  # no fields: the guest's are the processor's
EFER = "guest_ia32_efer"
EPT_WRITE_BACK, EPT_LENGTH_SHIFT = 6, 3
HIGH_REGISTERS, HIGH_BITMAP, WRITE_BITMAP, REGISTERS_IN_BITMAP = 0xC0000000, 1024, 2048, 0x2000
INVVPID_ADDRESS, INVVPID_SPACE, INVEPT_SINGLE = 0, 1, 1
HOST_SEGMENTS = (*SEGMENTS[:6], "tr")
HOST_REGISTERS = (
    "cr0", "cr3", "cr4", "gdtr_base", "idtr_base", "ia32_sysenter_cs", "ia32_sysenter_esp", "ia32_sysenter_eip", "rsp",
)  # fmt: skip


class VtxControl(GuestControl):
    """The VMCS of one virtual processor."""

    extension: ClassVar[str] = "vtx"
    completes_instructions: ClassVar[bool] = True
    largest_error: ClassVar[int] = 0x7FFF  # VM entry checks that bits 31:15 are 0 (SDM volume 3, section 26.2.1.3)

    def __init__(self, processor: "Processor") -> None:
        super().__init__(processor)
        self.controls = VtxControls(processor.cpu.msr)
        self.early: dict[str, int] = {}  # what was written before `start`
        self.started = self.launched = False
        self.ept_pointer = self.vpid = 0
        self.exceptions = 0  # that the technique wants to exit
        self.forced_exceptions = 0  # that must, as the guest is held
        fields = region_address(VMCS_REGION) + REGION_FIELDS
        self.words = processor.memory[fields : fields + 8 * len(FIELDS)].view("<u8")
        for place, length in ((IO_BITMAPS, 2 * PAGE_BYTES), (MSR_BITMAPS, PAGE_BYTES)):
            processor.write_physical(region_address(place), b"\xff" * length)

    # -- fields ---------------------------------------------------------------------------------------------------

    def has(self, key: str) -> bool:
        """Whether the processor has this field."""
        return key in IN_REGISTERS or bool(self.processor.cpu.vmx.field_offered[SLOT[key]])

    def read(self, key: str) -> int:
        """VMREAD; both halves of a field of 64 bits."""
        if key in IN_REGISTERS or (key == EFER and not self.has(EFER)):
            return self.in_register(key)
        field = FIELDS[SLOT[key]]
        low = self.vmread(field.encoding)
        return low if field.width != 64 else low | self.vmread(field.encoding | HIGH_HALF) << 32

    def vmread(self, encoding: int) -> int:
        """VMREAD."""
        failed, value = vmx_read(self.processor.state, self.processor.memory, encoding)
        assert not failed, f"VMREAD of {encoding:#x}"
        return int(value)

    def write(self, key: str, value: int) -> None:
        """VMWRITE; both halves of a field of 64 bits."""
        if key in IN_REGISTERS or (key == EFER and not self.has(EFER)):
            self.set_in_register(key, value)
            return
        if not self.started:
            self.early[key] = value
            return
        field = FIELDS[SLOT[key]]
        self.vmwrite(field.encoding, value & M32)
        if field.width == 64:
            self.vmwrite(field.encoding | HIGH_HALF, value >> 32)

    def vmwrite(self, encoding: int, value: int) -> None:
        """VMWRITE."""
        failed = vmx_write(self.processor.state, self.processor.memory, encoding, value)
        assert not failed, f"VMWRITE of {encoding:#x}"

    def in_register(self, key: str) -> int:
        """A register that is the guest's in the processor itself."""
        cpu = self.processor.cpu
        return int(cpu.msr.efer) if key == EFER else self.live(key)

    def set_in_register(self, key: str, value: int) -> None:
        """Write a register that is the guest's in the processor itself."""
        cpu = self.processor.cpu
        if key == "guest_cr2":
            cpu.cr2 = value
        elif key == "guest_dr6":
            self.processor.set_debug_register(6, value)
        elif key == "guest_rax":
            cpu.gpr[0] = value
        else:  # without paging in its own format the VMM does not use what EFER turns on
            cpu.msr.efer = cpu.efer = value

    def stored(self, key: str) -> int:
        """A field as it lies in the region."""
        if key in IN_REGISTERS or (key == EFER and not self.has(EFER)):
            return self.in_register(key)
        if not self.started:
            return self.early.get(key, 0)
        return int(self.words[SLOT[key]])

    # -- what makes the guest exit --------------------------------------------------------------------------------

    def has_control(self, name: str) -> bool:
        """Whether the capability registers let a control be 1."""
        return self.controls.has(name)

    def set_control(self, name: str, wanted: bool = True) -> bool:
        """Set or clear a control; False: the processor does not let it be so."""
        changed = self.controls.set(name, wanted)
        if changed is None:
            return False
        if self.started:
            for field in changed:
                self.write(field, self.controls.values[field])
        return True

    def put(self, key: str, value: int) -> None:
        """Write a field of the structure unless it has that value."""
        if self.stored(key) != value:
            self.write(key, value)

    def set_exceptions(self, bitmap: int) -> None:
        """The exception bitmap."""
        self.exceptions = bitmap
        self.put("exception_bitmap", bitmap | self.forced_exceptions)

    def force_exceptions(self, bitmap: int) -> None:
        """The vectors that must exit whatever the technique wants, because of how the guest is held."""
        self.forced_exceptions = bitmap
        self.put("exception_bitmap", bitmap | self.exceptions)

    def set_ports(self, first: int, count: int, wanted: bool) -> None:
        """Bits of the I/O bitmaps, one for each port."""
        for port in range(first, first + count):
            self.set_bit(region_address(IO_BITMAPS), port, wanted)

    def set_register(self, number: int, reads: bool, writes: bool) -> None:
        """Bits of the MSR bitmaps; registers outside their ranges always exit."""
        bitmap = region_address(MSR_BITMAPS)
        if number >= HIGH_REGISTERS:
            bitmap, number = bitmap + HIGH_BITMAP, number - HIGH_REGISTERS
        assert number < REGISTERS_IN_BITMAP, "the bitmaps cover two ranges of registers"
        self.set_bit(bitmap, number, reads)
        self.set_bit(bitmap + WRITE_BITMAP, number, writes)

    def set_bit(self, bitmap: int, number: int, wanted: bool) -> None:
        """Set or clear a bit of a bitmap in the VMM's memory."""
        place, bit = bitmap + (number >> 3), 1 << (number & 7)
        octet = int(self.processor.memory[place]) & ~bit | bit * wanted
        self.processor.write_physical(place, bytes([octet]))

    def set_nested(self, root: int, levels: int) -> None:
        """Extended page tables: write-back memory, walks of four levels."""
        assert levels == 4, "extended page tables have four levels"
        self.ept_pointer = root | levels - 1 << EPT_LENGTH_SHIFT | EPT_WRITE_BACK
        self.set_control("enable EPT")
        self.put("ept_pointer", self.ept_pointer)

    def set_space(self, identifier: int) -> None:
        """The virtual-processor identifier."""
        if not self.set_control("enable VPID", identifier != 0):
            return
        self.vpid = identifier
        self.put("virtual_processor_identifier", identifier)

    def own_bits(self, cr0: int, cr4: int) -> None:
        """The guest/host masks."""
        self.put("cr0_guest_host_mask", cr0)
        self.put("cr4_guest_host_mask", cr4)

    def believe(self, cr0: int, cr4: int) -> None:
        """The read shadows: what the guest sees of the bits that it does not own."""
        self.put("cr0_read_shadow", cr0)
        self.put("cr4_read_shadow", cr4)

    @property
    def most_cr3_targets(self) -> int:
        """How many CR3-target values the processor supports."""
        return int(self.processor.cpu.msr.vmx_capability[VMX_MISC]) >> MISC_CR3_TARGETS_SHIFT & 0x1FF

    def set_cr3_targets(self, values: list[int]) -> None:
        """The values that MOV to CR3 loads without an exit, under CR3-load exiting."""
        for number, value in enumerate(values):
            self.put(f"cr3_target_value_{number}", value)
        self.put("cr3_target_count", len(values))

    # -- VMX operation --------------------------------------------------------------------------------------------

    def start(self, host_cr3: int, host_entry: int) -> None:
        """VMXON, VMCLEAR, VMPTRLD; the host as the processor now is; the controls."""
        processor = self.processor
        cpu, state, memory = processor.cpu, processor.state, processor.memory
        cpu.msr.feature_control = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX  # as the host's firmware leaves it
        cpu.cr0 |= CR0_NE
        cpu.cr4 |= CR4_VMXE
        enter_level(state, 0)
        for place in (VMXON_REGION, VMCS_REGION):
            revision = int(cpu.msr.vmx_capability[VMX_BASIC]) & 0x7FFFFFFF
            processor.write_physical(region_address(place), revision.to_bytes(4, "little"))
        for instruction, place in ((vmx_on, VMXON_REGION), (vmx_clear, VMCS_REGION), (vmx_load_pointer, VMCS_REGION)):
            failed = instruction(state, memory, region_address(place))
            if failed:
                raise EntryFailed(f"{instruction.__name__} failed: the processor has no VMX operation to offer")
        self.started = True
        for key, value in self.early.items():
            self.write(key, value)
        self.early.clear()
        self.write_host(host_cr3, host_entry)
        self.write_controls()

    def write_host(self, host_cr3: int, host_entry: int) -> None:
        """The host-state area, from the processor."""
        cpu = self.processor.cpu
        for number, name in enumerate(SEGMENTS):
            if name in HOST_SEGMENTS:
                self.write(f"host_{name}_selector", int(cpu.seg[number].selector) & ~7)
            if name in ("fs", "gs", "tr"):
                self.write(f"host_{name}_base", int(cpu.seg[number].seg_base))
        for name in HOST_REGISTERS:
            self.write(f"host_{name}", host_cr3 if name == "cr3" else self.live(f"guest_{name}"))
        self.write("host_rip", host_entry)

    def write_controls(self) -> None:
        """The controls that every VMM has, and those that were asked for."""
        for name in ("external-interrupt exiting", "acknowledge interrupt on exit"):
            self.set_control(name)
        for name in ("save debug controls", "load debug controls"):  # DR7 is the guest's
            self.set_control(name)
        if self.has(EFER):
            for name in ("save IA32_EFER", "load IA32_EFER"):
                self.controls.set(name, True)
        for field, value in self.controls.values.items():
            self.write(field, value)
        self.write("vmcs_link_pointer", NO_LINK)
        self.write("address_of_i_o_bitmap_a", region_address(IO_BITMAPS))
        self.write("address_of_i_o_bitmap_b", region_address(IO_BITMAPS) + PAGE_BYTES)
        if self.has_control("use MSR bitmaps"):
            self.write("address_of_msr_bitmaps", region_address(MSR_BITMAPS))

    def enter(self) -> int:
        """VMLAUNCH the first time, then VMRESUME."""
        state, memory = self.processor.state, self.processor.memory
        outcome, failed = vmx_enter(state, memory, int(not self.launched))
        if failed:
            raise EntryFailed(f"VM-instruction error {self.stored('vm_instruction_error')}")
        self.launched = True
        return int(outcome)

    def read_exit(self) -> Exit:
        """The exit-information fields that this reason has."""
        exit = read_exit(self)
        if self.stored("exit_reason") & ENTRY_FAILURE:
            raise EntryFailed(f"exit reason {exit.reason}, qualification {exit.qualification}")
        return exit

    # -- events ---------------------------------------------------------------------------------------------------

    def inject(self, vector: int, kind: int, error: int | None = None, length: int = 0) -> None:
        """The VM-entry interruption-information, with the error code and the instruction's length where there is one."""
        information = INTERRUPTION_VALID | kind << TYPE_SHIFT | vector
        if error is not None:
            information |= INTERRUPTION_ERROR_CODE
            self.write("vm_entry_exception_error_code", error)
        if kind >= TYPE_SOFTWARE_INTERRUPT:
            self.write("vm_entry_instruction_length", length)
        self.write("vm_entry_interruption_information", information)

    def injects(self) -> tuple[int, int] | None:
        """The event that the next entry will deliver, at no cost: its vector and kind."""
        information = self.stored("vm_entry_interruption_information")
        if not information & INTERRUPTION_VALID:
            return None
        return information & 0xFF, information >> TYPE_SHIFT & TYPE_MASK

    def want_window(self, wanted: bool) -> None:
        """Interrupt-window exiting."""
        self.set_control("interrupt-window exiting", wanted)

    def end_shadow(self) -> None:
        """No blocking by STI or MOV SS."""
        state = self.read("guest_interruptibility_state")
        if state & (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS):
            self.write("guest_interruptibility_state", state & ~(BLOCKING_BY_STI | BLOCKING_BY_MOV_SS))

    # -- translations ---------------------------------------------------------------------------------------------

    def flush(self, gla: int | None = None) -> None:
        """INVEPT for changed extended page tables; INVVPID for a shadow's; without a VPID every transition flushes."""
        state, memory = self.processor.state, self.processor.memory
        failed = 0
        if self.controls.is_set("enable EPT"):
            failed = vmx_invept(state, memory, INVEPT_SINGLE, self.ept_pointer)
        elif self.vpid and gla is not None:
            failed = vmx_invvpid(state, memory, INVVPID_ADDRESS, self.vpid, gla)
        elif self.vpid:
            failed = vmx_invvpid(state, memory, INVVPID_SPACE, self.vpid, 0)
        assert not failed, "the processor has the types of INVEPT and INVVPID that are used"

    # -- saved machines -------------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """What is not in machine RAM, as JSON has it."""
        return {
            "controls": dict(self.controls.values), "started": self.started, "launched": self.launched,
            "ept_pointer": self.ept_pointer, "vpid": self.vpid, "early": dict(self.early),
            "exceptions": self.exceptions, "forced_exceptions": self.forced_exceptions,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `save` gave; ValueError if it is not as this processor has it."""
        controls = state["controls"]
        if controls.keys() != self.controls.values.keys():
            raise ValueError("the controls are not this processor's")
        for field, value in controls.items():
            if value & self.controls.must[field] != self.controls.must[field] or value & ~self.controls.may[field]:
                raise ValueError(f"{field} is not as this processor allows it")
        self.controls.values = {field: int(value) for field, value in controls.items()}
        self.started, self.launched = bool(state["started"]), bool(state["launched"])
        self.ept_pointer, self.vpid = int(state["ept_pointer"]), int(state["vpid"])
        self.exceptions, self.forced_exceptions = int(state["exceptions"]), int(state["forced_exceptions"])
        self.early = {key: int(value) for key, value in state["early"].items() if key in SLOT}

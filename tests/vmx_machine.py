"""A bare machine in VMX root operation with a VMCS whose guest runs flat code in ring 0, for tests to change.

Beside the layout of tests/bare_machine.py:

    50000 VMXON region   51000 VMCS   52000 another VMCS   53000 MSR area   54000 and 55000 I/O bitmaps   56000 MSR bitmaps
The guest shares descriptor tables and RAM with the host; the host's RIP is in the range of hooks.
"""

import numpy as np
from bare_machine import (
    CODE,
    CODE_0,
    DATA_0,
    DIRECTORY,
    FLAT,
    GDT,
    HANDLERS,
    IDT,
    STACK,
    STACK_END,
    TSS,
    TSS_SELECTOR,
    BareMachine,
)

from x86virt.core.layout import SHUTDOWN, VMX_NON_ROOT
from x86virt.core.vmx_entries import vmx_clear, vmx_enter, vmx_load_pointer, vmx_on, vmx_read, vmx_write
from x86virt.isa.vmx import (
    FEATURE_CONTROL_LOCK,
    FEATURE_CONTROL_VMX,
    FIELDS,
    REGION_FIELDS,
    SLOT,
    VMX_BASIC,
    VMX_ENTRY,
    VMX_EXIT,
    VMX_PINBASED,
    VMX_PROCBASED,
)

VMXON_REGION, REGION, OTHER_REGION, MSR_AREA, IO_BITMAPS, MSR_BITMAPS = 0x50000, 0x51000, 0x52000, 0x53000, 0x54000, 0x56000
HOST_RIP = HANDLERS + 0xF00
CR0 = 0x80010031  # PG, WP, NE, ET, PE
CR4_VMXE = 1 << 13
FLAT_CODE, FLAT_DATA, TSS_RIGHTS, UNUSABLE = 0xC09B, 0xC093, 0x8B, 0x10000
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
NO_LINK = (1 << 64) - 1
MASK_64 = (1 << 64) - 1


def guest_segment(name: str, selector: int, base: int, limit: int, rights: int) -> dict[str, int]:
    """The four fields of a guest's segment register."""
    return {
        f"guest_{name}_selector": selector,
        f"guest_{name}_base": base,
        f"guest_{name}_limit": limit,
        f"guest_{name}_access_rights": rights,
    }


def guest_state() -> dict[str, int]:
    """A guest in flat protected mode, paging on, ring 0."""
    state = {
        "guest_cr0": CR0, "guest_cr3": DIRECTORY, "guest_cr4": CR4_VMXE, "guest_dr7": 0x400, "guest_rsp": STACK + 0x1000,
        "guest_rip": CODE, "guest_rflags": 2, "guest_gdtr_base": GDT, "guest_gdtr_limit": 0x7F, "guest_idtr_base": IDT,
        "guest_idtr_limit": 0xFF, "vmcs_link_pointer": NO_LINK,
    }  # fmt: skip
    for name in ("es", "ss", "ds", "fs", "gs"):
        state |= guest_segment(name, DATA_0, 0, FLAT, FLAT_DATA)
    state |= guest_segment("cs", CODE_0, 0, FLAT, FLAT_CODE)
    state |= guest_segment("ldtr", 0, 0, 0, UNUSABLE)
    return state | guest_segment("tr", TSS_SELECTOR, TSS, 0x67, TSS_RIGHTS)


def host_state() -> dict[str, int]:
    """The host as tests/bare_machine.py has it, with paging on."""
    state = {f"host_{name}_selector": DATA_0 for name in ("es", "ss", "ds", "fs", "gs")}
    return state | {
        "host_cs_selector": CODE_0, "host_tr_selector": TSS_SELECTOR, "host_cr0": CR0, "host_cr3": DIRECTORY,
        "host_cr4": CR4_VMXE, "host_tr_base": TSS, "host_gdtr_base": GDT, "host_idtr_base": IDT,
        "host_rsp": STACK_END, "host_rip": HOST_RIP,
    }  # fmt: skip


class VmxMachine(BareMachine):
    """The machine; `fields` are what its VMCS will hold by names of `SLOT`, all others 0."""

    def __init__(self, profile: str = "nehalem") -> None:
        super().__init__(profile)
        self.begin()

    def begin(self) -> None:
        """Enter VMX operation and make the VMCS current, with a guest that may be entered."""
        cpu = self.cpu
        self.paging()
        cpu.cr0 |= CR0
        cpu.cr4 |= CR4_VMXE
        cpu.msr.feature_control = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX
        for region in (VMXON_REGION, REGION, OTHER_REGION):
            self.put(region, int(cpu.msr.vmx_capability[VMX_BASIC]) & 0x7FFFFFFF)
        assert vmx_on(self.processor.state, self.memory, VMXON_REGION) == 0
        assert vmx_clear(self.processor.state, self.memory, REGION) == 0
        assert vmx_load_pointer(self.processor.state, self.memory, REGION) == 0
        self.fields = self.default_controls() | guest_state() | host_state()
        self.store(self.fields)

    def capability(self, number: int) -> int:
        """A capability register."""
        return int(self.cpu.msr.vmx_capability[number]) & MASK_64

    def default_controls(self) -> dict[str, int]:
        """The controls that must be 1, and no other."""
        registers = {
            "pin_based_vm_execution_controls": VMX_PINBASED,
            "primary_processor_based_vm_execution_controls": VMX_PROCBASED,
            "vm_exit_controls": VMX_EXIT,
            "vm_entry_controls": VMX_ENTRY,
        }
        return {name: self.capability(number) & 0xFFFFFFFF for name, number in registers.items()}

    def store(self, fields: dict[str, int]) -> None:
        """Write fields straight into the region."""
        for name, value in fields.items():
            self.put(REGION + REGION_FIELDS + 8 * SLOT[name], value & MASK_64, 8)

    def store_all(self, fields: dict[str, int]) -> None:
        """Write every field, in the order of the slots."""
        octets = np.array(list(fields.values()), np.uint64).view(np.uint8)
        self.memory[REGION + REGION_FIELDS : REGION + REGION_FIELDS + len(octets)] = octets

    def field(self, name: str) -> int:
        """A field, straight from the region."""
        return self.get(REGION + REGION_FIELDS + 8 * SLOT[name], 8)

    def read(self, name: str) -> tuple[int, int]:
        """VMREAD by name: (how it ended, value)."""
        ended, value = vmx_read(self.processor.state, self.memory, FIELDS[SLOT[name]].encoding)
        return int(ended), int(value)

    def write(self, name: str, value: int) -> int:
        """VMWRITE by name."""
        return int(vmx_write(self.processor.state, self.memory, FIELDS[SLOT[name]].encoding, value))

    def to_host(self) -> None:
        """Be in the host again, whatever the guest was doing, with a VMCS that is clear."""
        cpu = self.cpu
        cpu.world, cpu.nested_kind, cpu.shadow, cpu.halted, cpu.debug_pending = 0, 0, 0, 0, 0
        cpu.idt_vector = -1
        self.put(REGION + 8, 0, 8)

    def enter(self, launch: int = 1) -> str:
        """VMLAUNCH or VMRESUME: `entered`, `error N`, `invalid`, or `exit REASON QUALIFICATION` for a failed entry.

        `entered` too if the guest was left again at once, as its event was delivered; `abort N` if the host could not be loaded.
        """
        outcome, ended = vmx_enter(self.processor.state, self.memory, launch)
        reason = self.field("exit_reason")
        if outcome == SHUTDOWN:
            return f"abort {self.get(REGION + 4)}" if reason >> 31 else "entered"
        if ended == 1:
            return "invalid"
        if ended == 2:
            return f"error {self.field('vm_instruction_error')}"
        if self.cpu.world == VMX_NON_ROOT:
            return "entered"
        assert int(self.cpu.rip) == self.field("host_rip")
        if reason >> 31 == 0:
            return "entered"
        return f"exit {reason & 0xFFFF} {self.field('exit_qualification')}"

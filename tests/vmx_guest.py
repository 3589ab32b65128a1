"""A bare processor with VMX: a hypervisor that is this Python program, and guests of a few bytes on the bare machine's RAM.

The guest runs in the address space, tables and code of `bare_machine`; the host's RIP is in the hook range, so that an exit
ends the run. Fields are written where isa/vmx.py says that they lie, so that no instruction of VMX is needed for them.

    50000 VMXON region   51000 VMCS   52000 I/O bitmaps A and B   54000 MSR bitmaps   55000 MSR areas
"""

from __future__ import annotations

from bare_machine import (
    CODE,
    CODE_0,
    CODE_3,
    DATA_0,
    DATA_3,
    DIRECTORY,
    GDT,
    HANDLERS,
    IDT,
    LOW_CODE,
    STACK,
    TSS,
    TSS_SELECTOR,
    BareMachine,
)

from x86virt.core.layout import HOOK, VMX_NON_ROOT
from x86virt.core.vmx_entries import vmx_enter, vmx_load_pointer, vmx_on
from x86virt.isa import vmx

VMXON_REGION, VMCS, IO_BITMAPS, MSR_BITMAPS, MSR_AREAS = 0x50000, 0x51000, 0x52000, 0x54000, 0x55000
HOST_RIP, HOST_RSP = HANDLERS + 0x800, STACK + 0x1000
CR4_VMXE, CR0_NE = 1 << 13, 1 << 5
FLAT_CODE, FLAT_DATA, TASK, UNUSABLE = 0xC09B, 0xC093, 0x8B, 1 << 16
SLOT = {name: getattr(vmx, name) for name in vars(vmx) if name.startswith("VMCS_")}
# Controls that are 1 whatever the test wants.
PIN, PROCESSOR, EXITS, ENTRIES = 0x16, 0x0401E172 & ~(3 << 15), 0x36DFF, 0x11FF


class VmxGuest(BareMachine):
    """A processor in VMX root operation with one VMCS, filled with a guest in ring 0."""

    def __init__(self, profile: str = "nehalem") -> None:
        super().__init__(profile)
        self.begin()

    def begin(self) -> None:
        """Power on, enter VMX operation, make the VMCS current and fill it."""
        self.power_on()
        self.paging()
        cpu = self.cpu
        cpu.cr0 |= CR0_NE
        cpu.cr4 |= CR4_VMXE
        cpu.msr.feature_control = 5
        for region in (VMXON_REGION, VMCS):
            self.put(region, int(cpu.msr.vmx_capability[0]) & 0x7FFFFFFF)
        assert vmx_on(self.processor.state, self.memory, VMXON_REGION) == 0
        assert vmx_load_pointer(self.processor.state, self.memory, VMCS) == 0
        self.put(VMCS + vmx.REGION_LAUNCH_STATE, vmx.LAUNCH_LAUNCHED)
        self.fill()

    def field(self, name: str, number: int = 0) -> int:
        """A field of the VMCS; `number` counts on from one that begins a row."""
        return self.get(VMCS + vmx.REGION_FIELDS + 8 * (SLOT[f"VMCS_{name}"] + number), 8)

    def set_field(self, name: str, value: int, number: int = 0) -> None:
        """Write a field of the VMCS."""
        self.put(VMCS + vmx.REGION_FIELDS + 8 * (SLOT[f"VMCS_{name}"] + number), value & (1 << 64) - 1, 8)

    def fill(self) -> None:
        """Host and guest: flat segments of ring 0 in the same address space, no optional control."""
        self.memory[VMCS + vmx.REGION_FIELDS : VMCS + 0x1000] = 0
        self.controls()
        cpu = self.cpu
        for side in ("HOST", "GUEST"):
            for name, value in (("CR0", cpu.cr0), ("CR3", DIRECTORY), ("CR4", cpu.cr4), ("GDTR_BASE", GDT), ("IDTR_BASE", IDT)):
                self.set_field(f"{side}_{name}", int(value))
            for segment in range(6):
                self.set_field(f"{side}_SELECTORS", CODE_0 if segment == 1 else DATA_0, segment)
        self.set_field("HOST_SELECTORS", TSS_SELECTOR, 6)
        self.set_field("HOST_TR_BASE", TSS)
        self.set_field("HOST_RIP", HOST_RIP)
        self.set_field("HOST_RSP", HOST_RSP)
        for segment in range(6):
            self.set_field("GUEST_LIMITS", 0xFFFFFFFF, segment)
            self.set_field("GUEST_ACCESS_RIGHTS", FLAT_CODE if segment == 1 else FLAT_DATA, segment)
        self.set_field("GUEST_ACCESS_RIGHTS", UNUSABLE, 6)
        self.set_field("GUEST_SELECTORS", TSS_SELECTOR, 7)
        self.set_field("GUEST_BASES", TSS, 7)
        self.set_field("GUEST_LIMITS", 0x67, 7)
        self.set_field("GUEST_ACCESS_RIGHTS", TASK, 7)
        self.set_field("GUEST_GDTR_LIMIT", 0x7F)
        self.set_field("GUEST_IDTR_LIMIT", 32 * 8 - 1)
        self.set_field("GUEST_DR7", 0x400)
        self.set_field("GUEST_RSP", STACK + 0x2000)
        self.set_field("GUEST_RIP", CODE)
        self.set_field("GUEST_RFLAGS", 2)
        self.set_field("LINK_POINTER", -1)
        self.set_field("IO_BITMAP_A", IO_BITMAPS)
        self.set_field("IO_BITMAP_B", IO_BITMAPS + 0x1000)
        self.set_field("MSR_BITMAPS", MSR_BITMAPS)

    def controls(self, pin: int = 0, processor: int = 0, secondary: int = 0, exits: int = 0, entries: int = 0) -> None:
        """Set the optional controls; secondary ones with the control that activates them."""
        self.set_field("PIN_CONTROLS", PIN | pin)
        self.set_field("PROCESSOR_CONTROLS", PROCESSOR | processor | vmx.PROCESSOR_SECONDARY * (secondary != 0))
        self.set_field("SECONDARY_CONTROLS", secondary)
        self.set_field("EXIT_CONTROLS", EXITS | exits)
        self.set_field("ENTRY_CONTROLS", ENTRIES | entries)

    def guest_ring(self, level: int, v86: bool = False) -> None:
        """The guest's segments and flags: of ring 0 or 3, or of virtual-8086 mode at linear 0."""
        for segment in range(6):
            selector = {0: (DATA_0, CODE_0), 3: (DATA_3, CODE_3)}[level][segment == 1]
            rights = (FLAT_DATA, FLAT_CODE)[segment == 1] | level << 5
            self.set_field("GUEST_SELECTORS", 0 if v86 else selector, segment)
            self.set_field("GUEST_LIMITS", 0xFFFF if v86 else 0xFFFFFFFF, segment)
            self.set_field("GUEST_ACCESS_RIGHTS", 0xF3 if v86 else rights, segment)
        self.set_field("GUEST_RFLAGS", 0x20002 if v86 else 2)
        self.set_field("GUEST_RIP", LOW_CODE if v86 else CODE)
        self.set_field("GUEST_RSP", 0x4000 if v86 else STACK + 0x2000)

    def enter(self) -> None:
        """VMRESUME: the guest is entered."""
        outcome, result = vmx_enter(self.processor.state, self.memory, 0)
        assert (outcome, result) == (0, 0), (outcome, result, self.field("INSTRUCTION_ERROR"))

    def enter_and_run(self, single: bool = False) -> int:
        """Enter the guest and run until something stops the run: the outcome."""
        self.cpu.retired_limit = self.cpu.retired + 2000
        self.enter()
        return self.processor.run(single)

    def exit_reason(self) -> int:
        """Enter the guest, and run until it exits to the host: the reason."""
        outcome = self.enter_and_run()
        assert outcome == HOOK and self.cpu.rip == HOST_RIP, (outcome, hex(self.cpu.rip), int(self.cpu.world))
        assert self.cpu.world != VMX_NON_ROOT
        return self.field("EXIT_REASON")

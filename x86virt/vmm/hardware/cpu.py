"""The virtual processor of a guest that the hardware runs: a cache of its control structure, for as long as the VMM has control.

A field is read from the VMCS or VMCB when the VMM first asks for it after an exit, and written back before the next entry if
it was changed: switching state *lazily*. With `state=eager` all of the guest-state area is moved at each exit and entry, as
a VMM does that keeps a copy of its own. The vCPU record in the VMM's memory, which guest page walks read, follows.
"""

from typing import TYPE_CHECKING

import numpy as np

from ...isa.registers import (
    AR_DPL,
    AR_DPL_SHIFT,
    CR0_PG,
    CR4_PAE,
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_IOPL_SHIFT,
    EFLAGS_TF,
    EFLAGS_VM,
)
from ..vcpu import VirtualCpu
from .control import GUEST_KEYS

if TYPE_CHECKING:
    from .guest_state import GuestState

# Names of the vCPU record -> keys of the control structure.
KEYS = {
    "cr0": "guest_cr0", "cr2": "guest_cr2", "cr3": "guest_cr3", "cr4": "guest_cr4",
    "gdtr_base": "guest_gdtr_base", "gdtr_limit": "guest_gdtr_limit",
    "idtr_base": "guest_idtr_base", "idtr_limit": "guest_idtr_limit",
    "ldtr": "guest_ldtr_selector", "ldtr_base": "guest_ldtr_base",
    "ldtr_limit": "guest_ldtr_limit", "ldtr_access": "guest_ldtr_access_rights",
    "tr": "guest_tr_selector", "tr_base": "guest_tr_base", "tr_limit": "guest_tr_limit", "tr_access": "guest_tr_access_rights",
    "sysenter_cs": "guest_ia32_sysenter_cs", "sysenter_esp": "guest_ia32_sysenter_esp",
    "sysenter_eip": "guest_ia32_sysenter_eip",
}  # fmt: skip
FRAME_KEYS = {
    "eip": "guest_rip", "cs": "guest_cs_selector", "eflags": "guest_rflags", "esp": "guest_rsp", "ss": "guest_ss_selector",
}  # fmt: skip
POINTER_KEYS = tuple(f"guest_pdpte{number}" for number in range(4))
IN_RECORD = frozenset(("cr0", "cr2", "cr3", "cr4", "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit"))
FLAGS = ("interrupt_flag", "iopl")
M32 = 0xFFFFFFFF


class HardwareFrame:
    """CS:EIP, EFLAGS and SS:ESP of the guest, by the names that a trap frame has."""

    vcpu: "HardwareCpu"

    def __init__(self, vcpu: "HardwareCpu") -> None:
        object.__setattr__(self, "vcpu", vcpu)

    def __getattr__(self, name: str) -> int:
        return self.vcpu.field(FRAME_KEYS[name])

    def __setattr__(self, name: str, value: int) -> None:
        self.vcpu.set_field(FRAME_KEYS[name], value & M32)


class HardwareCpu(VirtualCpu):
    """One virtual processor. `fields`: what was read or written since the last exit; `changed`: what has to be written."""

    def __init__(self, octets: np.ndarray, state: "GuestState", eager: bool) -> None:
        super().__init__(octets, 0)
        for name, value in (("guest_state", state), ("eager", eager), ("fields", {}), ("changed", {})):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "frame", HardwareFrame(self))

    # -- the cache ------------------------------------------------------------------------------------------------

    def field(self, key: str) -> int:
        """What the guest has in a field."""
        if key not in self.fields:
            assert not self.guest_state.control.in_guest, "the VMM has control"
            self.fields[key] = self.guest_state.read(key)
        return self.fields[key]

    def set_field(self, key: str, value: int) -> None:
        """Give the guest a value in a field."""
        if self.fields.get(key) != value:
            self.fields[key] = value
            self.changed[key] = None

    def peek(self, key: str) -> int:
        """A field, for those who look on: it costs nothing and changes nothing."""
        return self.fields[key] if key in self.fields else self.guest_state.peek(key)

    def forget(self) -> None:
        """The guest goes on: nothing is known of it."""
        self.fields.clear()
        self.changed.clear()

    def begin(self) -> None:
        """The guest was left."""
        self.forget()
        if self.eager:
            for key in GUEST_KEYS:
                self.field(key)

    def write_back(self) -> None:
        """The guest is about to be entered."""
        others = [key for key in self.changed if not self.eager or key not in GUEST_KEYS]
        for key in (*GUEST_KEYS, *others) if self.eager else others:
            self.guest_state.write(key, self.field(key))
        self.changed.clear()

    # -- by name --------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str):
        if name in KEYS:
            value = self.field(KEYS[name])
            if name in IN_RECORD:
                self.record[name] = value
            return value
        return super().__getattr__(name)

    def __setattr__(self, name: str, value) -> None:
        if name in KEYS:
            self.set_field(KEYS[name], value)
            if name in IN_RECORD:
                self.record[name] = value
        elif name in FLAGS:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def cpl(self) -> int:
        """The privilege level: the stack segment's DPL, as both extensions keep it."""
        level = (self.field("guest_ss_access_rights") & AR_DPL) >> AR_DPL_SHIFT
        self.record["cpl"] = level
        return level

    @property
    def interrupt_flag(self) -> int:
        """IF."""
        return int(bool(self.frame.eflags & EFLAGS_IF))

    @interrupt_flag.setter
    def interrupt_flag(self, value: int) -> None:
        self.frame.eflags = self.frame.eflags & ~EFLAGS_IF | EFLAGS_IF * value

    @property
    def iopl(self) -> int:
        """IOPL."""
        return (self.frame.eflags & EFLAGS_IOPL) >> EFLAGS_IOPL_SHIFT

    @iopl.setter
    def iopl(self, value: int) -> None:
        self.frame.eflags = self.frame.eflags & ~EFLAGS_IOPL | value << EFLAGS_IOPL_SHIFT

    @property
    def is_virtual_8086(self) -> bool:
        """EFLAGS.VM."""
        return bool(self.frame.eflags & EFLAGS_VM)

    @property
    def single_stepped(self) -> bool:
        """TF, which nobody but the guest sets."""
        return bool(self.frame.eflags & EFLAGS_TF)

    @property
    def dr(self) -> np.ndarray:
        """DR0 to DR3 and DR6, which the processor keeps for the guest, and DR7; a copy."""
        registers = np.array(self.guest_state.control.processor.cpu.dr)
        registers[6], registers[7] = self.field("guest_dr6"), self.field("guest_dr7")
        return registers

    # -- what a deprivileged guest has otherwise --------------------------------------------------------------------

    def virtual_selector(self, selector: int) -> int:
        """Selectors are the guest's own."""
        return selector

    def hardware_selector(self, selector: int) -> int:
        """Selectors are the guest's own."""
        return selector

    def virtual_flags(self, eflags: int) -> int:
        """EFLAGS are the guest's own."""
        return eflags

    def load_flags(self, eflags: int) -> int:
        """EFLAGS are the guest's own."""
        return eflags | EFLAGS_FIXED

    # -- what the record holds for jitted code ------------------------------------------------------------------------

    def prepare_walk(self) -> None:
        """A walk of the guest's tables reads the record: control registers, privilege level, PAE paging's registers."""
        cr0, _, cr4, _ = self.cr0, self.cr3, self.cr4, self.cpl
        if cr0 & CR0_PG and cr4 & CR4_PAE:
            self.record["pdpte"][:] = np.array(self.pointers(), "<u8").view("<u4")

    def pointers(self) -> list[int]:
        """The page-directory-pointer entries that PAE paging has loaded."""
        if self.guest_state.control.has(POINTER_KEYS[0]):
            return [self.field(key) for key in POINTER_KEYS]
        return np.array(self.record["pdpte"]).view("<u8").tolist()

    def set_pointers(self, entries: list[int]) -> None:
        """They were loaded anew."""
        if self.guest_state.control.has(POINTER_KEYS[0]):
            for key, value in zip(POINTER_KEYS, entries, strict=True):
                self.set_field(key, value)
        self.record["pdpte"][:] = np.array(entries, "<u8").view("<u4")

"""The VM-execution, VM-exit and VM-entry controls by the manual's names, as the processor's capability registers allow them."""

from typing import Any

from ...isa.vmx import (
    BASIC_TRUE_CONTROLS,
    CONTROLS,
    PROCESSOR_SECONDARY,
    VMX_BASIC,
    VMX_ENTRY,
    VMX_EXIT,
    VMX_PINBASED,
    VMX_PROCBASED,
    VMX_PROCBASED2,
    VMX_TRUE_ENTRY,
    VMX_TRUE_EXIT,
    VMX_TRUE_PINBASED,
    VMX_TRUE_PROCBASED,
)

M32 = 0xFFFFFFFF
# Register of controls: its field, its capability register, and the one that rules instead where there are TRUE registers.
REGISTERS = {
    "pin": ("pin_based_vm_execution_controls", VMX_PINBASED, VMX_TRUE_PINBASED),
    "processor": ("primary_processor_based_vm_execution_controls", VMX_PROCBASED, VMX_TRUE_PROCBASED),
    "secondary": ("secondary_processor_based_vm_execution_controls", VMX_PROCBASED2, VMX_PROCBASED2),
    "exit": ("vm_exit_controls", VMX_EXIT, VMX_TRUE_EXIT),
    "entry": ("vm_entry_controls", VMX_ENTRY, VMX_TRUE_ENTRY),
}
BY_NAME = {control.name: control for control in CONTROLS}


class VtxControls:
    """The five registers of controls of one VMCS: `values` by their fields, with the bits that must be 1."""

    def __init__(self, msr: Any) -> None:
        true_registers = int(msr.vmx_capability[VMX_BASIC]) & BASIC_TRUE_CONTROLS
        self.values: dict[str, int] = {}
        self.must: dict[str, int] = {}
        self.may: dict[str, int] = {}
        for field, plain, true in REGISTERS.values():
            capability = int(msr.vmx_capability[true if true_registers else plain])
            self.must[field], self.may[field] = capability & M32, capability >> 32 & M32
            self.values[field] = self.must[field]
        if not self.has("activate secondary controls"):
            for known in (self.values, self.must, self.may):
                del known[REGISTERS["secondary"][0]]

    def has(self, name: str) -> bool:
        """Whether the processor lets a control be 1."""
        control = BY_NAME[name]
        return bool(self.may.get(REGISTERS[control.register][0], 0) & control.bit)

    def is_set(self, name: str) -> bool:
        """Whether a control is 1."""
        control = BY_NAME[name]
        return bool(self.values.get(REGISTERS[control.register][0], 0) & control.bit)

    def set(self, name: str, wanted: bool) -> list[str] | None:
        """Set or clear a control: the fields that changed; None if the processor does not let it be so."""
        control = BY_NAME[name]
        field = REGISTERS[control.register][0]
        if bool(self.must.get(field, 0) & control.bit) > wanted or (wanted and not self.has(name)):
            return None
        value = self.values.get(field, 0) & ~control.bit | control.bit * wanted
        if value == self.values.get(field, 0):
            return []
        self.values[field] = value
        if control.register != "secondary" or self.is_set("activate secondary controls"):
            return [field]
        primary = REGISTERS["processor"][0]
        self.values[primary] |= PROCESSOR_SECONDARY
        return [primary, field]

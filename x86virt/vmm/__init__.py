"""The toolkit that strategies are built from. What `__all__` names is the public interface."""

from .exits import Exit, GuestFault, Unsupported, VmmError
from .hardware.vm import HardwareVm
from .hardware_vmm import HardwareVmm
from .options import (
    HARDWARE_PATHS,
    NESTED_PATHS,
    PARAVIRTUAL_PATHS,
    SHADOW_PATHS,
    Choice,
    Count,
    Size,
    Switch,
    hardware_options,
    hardware_shadow_options,
    nested_options,
    paravirtual_options,
    shadow_options,
    translation_options,
)
from .paravirtual.vm import ParavirtualVm
from .software_vmm import SEEN_BY_PROGRAMS, SoftwareVmm
from .strategy import Strategy
from .svm_vmm import SvmVmm
from .virtual_machine import VirtualMachine
from .vm import SoftwareVm

__all__ = [
    "HARDWARE_PATHS", "NESTED_PATHS", "PARAVIRTUAL_PATHS", "SEEN_BY_PROGRAMS", "SHADOW_PATHS", "Choice", "Count", "Exit",
    "GuestFault", "HardwareVm", "HardwareVmm", "ParavirtualVm", "Size", "SoftwareVm", "SoftwareVmm", "Strategy", "SvmVmm",
    "Switch", "Unsupported", "VirtualMachine", "VmmError", "hardware_options", "hardware_shadow_options", "nested_options",
    "paravirtual_options", "shadow_options", "translation_options",
]  # fmt: skip

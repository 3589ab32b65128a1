"""The toolkit that strategies are built from. What `__all__` names is the public interface."""

from .exits import Exit, GuestFault, Unsupported, VmmError
from .options import SHADOW_PATHS, Choice, Count, Size, Switch, shadow_options, translation_options
from .software_vmm import SEEN_BY_PROGRAMS, SoftwareVmm
from .strategy import Strategy
from .virtual_machine import VirtualMachine
from .vm import SoftwareVm

__all__ = [
    "SEEN_BY_PROGRAMS", "SHADOW_PATHS", "Choice", "Count", "Exit", "GuestFault", "Size", "SoftwareVm", "SoftwareVmm", "Strategy",
    "Switch", "Unsupported", "VirtualMachine", "VmmError", "shadow_options", "translation_options",
]  # fmt: skip

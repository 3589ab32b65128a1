"""The toolkit that strategies are built from. What `__all__` names is the public interface."""

from .exits import Exit, GuestFault, Unsupported, VmmError
from .options import SHADOW_PATHS, Choice, Count, Size, Switch, shadow_options
from .strategy import Strategy
from .vm import VirtualMachine

__all__ = [
    "SHADOW_PATHS", "Choice", "Count", "Exit", "GuestFault", "Size", "Strategy", "Switch", "Unsupported", "VirtualMachine", "VmmError",
    "shadow_options",
]  # fmt: skip

"""The toolkit that strategies are built from. What `__all__` names is the public interface."""

from .exits import Exit, GuestFault, Unsupported, VmmError
from .options import Choice, Size, Switch
from .strategy import Strategy
from .vm import VirtualMachine

__all__ = [
    "Choice", "Exit", "GuestFault", "Size", "Strategy", "Switch", "Unsupported", "VirtualMachine", "VmmError",
]  # fmt: skip

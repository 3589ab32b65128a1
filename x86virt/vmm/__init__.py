"""The toolkit that strategies are built from. What `__all__` names is the public interface."""

from .exits import Exit, GuestFault, Unsupported, VmmError
from .strategy import Strategy
from .vm import VirtualMachine

__all__ = ["Exit", "GuestFault", "Strategy", "Unsupported", "VirtualMachine", "VmmError"]

"""Exits of a guest that the hardware runs which the VMM handles alike every time, jitted: same state, charges and counts.

What a handler here cannot do it leaves to Python, before anything is charged: it looks at the control structure first, at no
cost, and reads what the Python handler reads, at its price, once it knows that it will see the exit through.
"""

from .calls import JittedHardwareExits

__all__ = ["JittedHardwareExits"]

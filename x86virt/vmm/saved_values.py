"""Values of a file that may hold anything."""

from typing import Any


def within(value: Any, least: int, most: int) -> int:
    """An integer between two bounds."""
    if not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{value!r:.40} is not an integer from {least} to {most}")
    return int(value)

"""What the paths of the VMM cost: base and per-item ticks, measured by running the witness routines on the core.

Tables for the shipped profiles stand in `witness/prices.json`, keyed by the hashes of the witness image and of the
profile; for a user's own profile the image is run when it loads, and the result kept in the cache directory.
"""

from ..profile import Profile


class PathPrices:
    """The price table of one profile."""

    def __init__(self, profile: Profile) -> None:
        self.table: dict[str, tuple[int, int]] = {}

    def ticks(self, path: str, items: int) -> int | None:
        """Ticks for `items` items of a path; None if no witness prices it."""
        if path not in self.table:
            return None
        base, item = self.table[path]
        return base + item * items

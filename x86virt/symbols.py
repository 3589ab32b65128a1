"""Names for addresses and addresses for names, from an image's symbols."""

import bisect
from collections.abc import Mapping

FARTHEST = 0x10000  # bytes behind a symbol that are still named after it


class Symbols:
    """The symbols of an image. A local label, as NASM has them, is `function.label` and belongs to its function."""

    def __init__(self, addresses: Mapping[str, int]) -> None:
        self.addresses = dict(addresses)
        by_address: dict[int, str] = {}
        for name, address in addresses.items():
            by_address.setdefault(address, name)
        self._sorted = sorted(by_address)
        self._names = by_address

    def __bool__(self) -> bool:
        return bool(self._sorted)

    def at(self, address: int) -> tuple[str, int] | None:
        """The nearest symbol at or below an address, and the distance from it; None if there is none near."""
        place = bisect.bisect_right(self._sorted, address) - 1
        if place < 0 or address - self._sorted[place] >= FARTHEST:
            return None
        return self._names[self._sorted[place]], address - self._sorted[place]

    def text(self, address: int) -> str:
        """`name` or `name+0x12`, empty if no symbol is near."""
        found = self.at(address)
        if found is None:
            return ""
        return f"{found[0]}+{found[1]:#x}" if found[1] else found[0]

    def extent(self, name: str) -> range:
        """The addresses of a function: up to the next symbol that is none of its local labels. Raises KeyError."""
        first = self.addresses[name]
        for address in self._sorted[bisect.bisect_right(self._sorted, first) :]:
            if not self._names[address].startswith(f"{name}."):
                return range(first, min(address, first + FARTHEST))
        return range(first, first + FARTHEST)

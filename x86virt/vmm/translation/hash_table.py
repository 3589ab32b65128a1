"""The hash table of indirect transfers: guest addresses whose units translated code finds by itself.

It holds addresses of one context; a transfer in another one empties it. An entry is (negative guest address, address in
the cache), at the place that the low 13 bits of the guest address name.
"""

from typing import TYPE_CHECKING

import numpy as np

from .. import layout
from .emitter import M32, dword
from .sequences import Context

if TYPE_CHECKING:
    from ..vm import VirtualMachine

ENTRIES = layout.HASH_BYTES // 8


class HashTable:
    """The table of one virtual machine."""

    def __init__(self, vm: "VirtualMachine") -> None:
        self.vm = vm
        self.context: Context | None = None
        self.entered: dict[int, int] = {}  # place -> guest address

    def clear(self) -> None:
        """No address is found. An empty entry has an address that belongs elsewhere."""
        rows = np.zeros((ENTRIES, 2), "<u4")
        rows[:, 0] = -(np.arange(ENTRIES, dtype=np.int64) ^ 1) & M32
        self.vm.write_region(layout.HASH, rows.tobytes())
        self.entered.clear()
        self.context = None

    def enter(self, eip: int, address: int, context: Context) -> None:
        """Let an address be found."""
        if context != self.context:
            if self.context is not None:
                self.clear()
            self.context = context
        place = eip & ENTRIES - 1
        self.entered[place] = eip
        self.vm.write_region(layout.HASH + 8 * place, dword(-eip) + dword(address))

    def forget(self, eip: int) -> None:
        """Let an address be found no longer."""
        place = eip & ENTRIES - 1
        if self.entered.get(place) == eip:
            del self.entered[place]
            self.vm.write_region(layout.HASH + 8 * place, dword(-(place ^ 1)) + dword(0))

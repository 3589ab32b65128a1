"""The hash table of indirect transfers: guest addresses whose units translated code finds by itself.

A table holds addresses of one context; a guest that goes on in another one finds it empty. The guest's kernel and its
programs have a table each. An entry is (negative guest address, address in
the cache), at the place that the low 13 bits of the guest address name.
"""

from typing import TYPE_CHECKING

import numpy as np

from .. import layout
from .emitter import M32, dword
from .sequences import Context

if TYPE_CHECKING:
    from ..vm import SoftwareVm

ENTRIES = layout.HASH_BYTES // 8


class HashTable:
    """The table of one virtual machine."""

    def __init__(self, vm: "SoftwareVm", place: int) -> None:
        self.vm, self.place = vm, place  # in the region
        self.context: Context | None = None
        self.entered: dict[int, int] = {}  # place -> guest address

    def clear(self) -> None:
        """No address is found. An empty entry has an address that belongs elsewhere."""
        rows = np.zeros((ENTRIES, 2), "<u4")
        rows[:, 0] = -(np.arange(ENTRIES, dtype=np.int64) ^ 1) & M32
        self.vm.write_region(self.place, rows.tobytes())
        self.entered.clear()
        self.context = None

    def use(self, context: Context) -> None:
        """The guest goes on in a context: only what was entered in the same one is found."""
        if context != self.context:
            if self.entered:
                self.vm.translator.count("hash_emptied", len(self.entered))
            for eip in list(self.entered.values()):
                self.forget(eip)
            self.context = context

    def enter(self, eip: int, address: int, context: Context) -> None:
        """Let an address be found."""
        self.use(context)
        place = eip & ENTRIES - 1
        self.entered[place] = eip
        self.vm.write_region(self.place + 8 * place, dword(-eip) + dword(address))

    def forget(self, eip: int) -> None:
        """Let an address be found no longer."""
        place = eip & ENTRIES - 1
        if self.entered.get(place) == eip:
            del self.entered[place]
            self.vm.write_region(self.place + 8 * place, dword(-(place ^ 1)) + dword(0))

"""Adaptation: what a guest instruction turns out to do decides how it is translated (Adams and Agesen 2006).

A store looks innocuous, and is translated as it is, until it has met traced memory several times, each time at the price
of a page fault. Then its units are dropped, and the next translation has a callout in its place, with which the VMM
performs it without a fault. When it reaches memory that nobody traces so often that it seems to be done with the other,
it is translated as it is again.

How often is a choice of the strategy. It should be so often that the faults, or the callouts, have cost about as much as
the new translation does: then the guest pays at most about twice what it would if the VMM had known all along.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .translator import Translator


class Adaptation:
    """What one virtual machine's translator has learnt. Instructions are named by their linear addresses."""

    def __init__(self, translator: "Translator") -> None:
        option = translator.vm.machine.strategy.option
        self.translator = translator
        self.wanted = bool(option("adaptive"))
        self.adapt_after, self.restore_after = int(option("adapt_after")), int(option("restore_after"))
        self.faults: dict[int, int] = {}  # traced writes that faulted
        self.index = translator.cache.index  # it holds the adapted ones, and how many callouts wrote nothing traced

    def holds(self, gla: int) -> bool:
        """Whether the instruction at a linear address is to be translated as a callout."""
        return gla in self.index.adapted

    def clear(self) -> None:
        """Everything is innocuous again."""
        self.faults.clear()
        for gla in list(self.index.adapted):
            self.index.restore(gla)

    def note_fault(self, gla: int) -> None:
        """The instruction there, in translated code, has faulted because it was to write traced memory."""
        if not self.wanted or self.holds(gla):
            return
        self.faults[gla] = self.faults.get(gla, 0) + 1
        if self.faults[gla] >= self.adapt_after and self.index.adapt(gla):
            del self.faults[gla]
            self.translate_anew(gla, "adaptation")

    def note_callout(self, gla: int, traced: bool) -> None:
        """The VMM has performed the instruction there; `traced`: it wrote what is traced."""
        if not self.holds(gla):
            return
        idle, counter = self.index.rows.idle, self.index.adapted[gla]
        idle[counter] = 0 if traced else idle[counter] + 1
        if idle[counter] >= self.restore_after:
            self.index.restore(gla)
            self.translate_anew(gla, "restoration")

    def translate_anew(self, gla: int, event: str) -> None:
        """Drop all units that hold an instruction, so that it is translated otherwise when it is reached."""
        translator = self.translator
        translator.count(event)
        units = translator.cache.by_page.get(gla >> 12, [])
        translator.drop([unit for unit in units if unit.holds(gla)])

    # -- saving -----------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, list[list[int]]]:
        """What it has learnt, as plain values."""
        adapted = ([gla, int(self.index.rows.idle[counter])] for gla, counter in self.index.adapted.items())
        return {"faults": sorted(map(list, self.faults.items())), "adapted": sorted(adapted)}

    def restore(self, state: dict[str, list[list[int]]]) -> None:
        """Put it back. Raises KeyError, TypeError or ValueError for anything that `state` does not give."""
        self.clear()
        self.faults.update((int(gla), int(times)) for gla, times in state["faults"])
        for gla, idle in state["adapted"]:
            if not self.index.adapt(int(gla), int(idle)):
                raise ValueError("more adapted instructions than there can be")

"""Positions in a run: they tell every boundary between instructions, and between iterations, from every other."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..machine import Machine


class Place(NamedTuple):
    """Guest instructions retired, and ticks passed. Places compare in the order of time.

    An interrupt, a fault, or an iteration of a repeated string instruction moves the ticks alone.
    """

    retired: int
    ticks: int


def place_of(machine: "Machine") -> Place:
    """Where a machine is."""
    cpu = machine.processor.cpu
    return Place(int(cpu.retired), int(cpu.ticks))

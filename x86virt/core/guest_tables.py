"""What the walkers of a guest's tables are told, and how they mark entries, in one dimension or two (core/nested.py)."""

from .extensions import may_mark
from .jit import inline
from .layout import OK
from .physical import write_physical

# Levels of the guest's tables, as cpu.nested.guest_address counts them.
DIRECTORY, TABLE, POINTERS = range(3)
# What a walker is told: whether it walks in one dimension or two.
ONE_DIMENSION, TWO_DIMENSIONS = range(2)


@inline
def set_marks(cpu, ram, gla, dimensions, level, address, marked):
    """Write an entry of the tables with its accessed or dirty bit set."""
    if dimensions == TWO_DIMENSIONS:
        outcome = may_mark(cpu, ram, gla, level)
        if outcome != OK:
            return outcome
    write_physical(cpu, ram, address, 4, marked)
    return OK

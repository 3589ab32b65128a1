"""The cache model: three levels of sets with least-recently-used replacement, looked at by physical line.

A reference is charged only what its latency lies above an L1 hit: measured totals already hold the L1 part (design,
section 5). Which references go through the model is `cpu.cache_all`: page tables and VMM structures always, other data
only when it is 1. Not modelled: instruction fetch, write-back traffic, prefetching.
"""

from ..isa.events import (
    EVENT_DATA_REFERENCE_L2,
    EVENT_VMM_REFERENCE_L2,
    EVENT_WALK_REFERENCE_L2,
)
from .charge import charge
from .jit import inline, kernel

# The event of an L2 hit; those of an L3 hit and of memory follow it (a test of isa.events holds this).
WALK = EVENT_WALK_REFERENCE_L2
VMM = EVENT_VMM_REFERENCE_L2
DATA = EVENT_DATA_REFERENCE_L2
N_LEVELS = 3


@kernel
def move_to_front(cpu, first, ways, tag):
    """Make a line the most recently used of its set, in place of the least recently used if it is new; 1 if it was there."""
    position = 0
    while position < ways - 1 and cpu.cache_lines[first + position] != tag:
        position += 1
    hit = int(cpu.cache_lines[first + position] == tag)
    while position > 0:
        cpu.cache_lines[first + position] = cpu.cache_lines[first + position - 1]
        position -= 1
    cpu.cache_lines[first] = tag
    return hit


@inline
def touch_level(cpu, level, physical):
    """Look the line up in one level and make it the most recently used of its set; 1 if it was there."""
    geometry = cpu.cache_levels[level]
    line = physical >> geometry.line_shift
    first = geometry.first + (line & (geometry.sets - 1)) * geometry.ways
    hit = 1
    if cpu.cache_lines[first] != line + 1:
        hit = move_to_front(cpu, first, geometry.ways, line + 1)
    return hit


@kernel
def fetch_from_outer_levels(cpu, physical, event_of_l2):
    """A reference that missed the first level: charges the event of the level that served it."""
    served = 1
    while served < N_LEVELS:
        if cpu.cache_levels[served].ways > 0 and touch_level(cpu, served, physical) == 1:
            break
        served += 1
    charge(cpu, event_of_l2 + served - 1, 1)


@inline
def reference(cpu, physical, event_of_l2):
    """One reference to physical memory; charges the event of the level that served it, nothing for L1."""
    if touch_level(cpu, 0, physical) == 0:
        fetch_from_outer_levels(cpu, physical, event_of_l2)

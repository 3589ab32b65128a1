"""What Python calls of the nested tables' jitted code: each function is an entry, kept in the cache directory."""

from ...core.jit import entry
from .fill import drop, fill, look_at_regions


@entry
def nested_fill(state, memory, gpa, write):
    """Map the page of one access: how many tables lead to its entry, or HOLE."""
    return fill(state[0], memory, gpa, write)


@entry
def nested_drop(state, memory, frame):
    """The p2m's entry of a guest frame has changed."""
    drop(state[0], memory, frame)


@entry
def nested_regions(memory):
    """See which regions can be mapped whole."""
    look_at_regions(memory)
